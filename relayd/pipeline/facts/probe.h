/* relayd/pipeline/facts/probe.h - asks the next hop whether a recipient exists: MAIL FROM:<>,
 * RCPT TO, RSET.
 *
 * Connections are kept and bounded per next hop, questions for one address that are on their
 * way are asked once, and answers are remembered: a yes longer than a no, and trouble for a
 * moment only.  With a state, what one worker learned no other asks.
 */
#ifndef RELAYD_PIPELINE_FACTS_PROBE_H
#define RELAYD_PIPELINE_FACTS_PROBE_H

#include "relayd/core/config.h"
#include "relayd/core/err.h"
#include "relayd/net/dns.h"
#include "relayd/net/tls.h"

#include <uv.h>

#define PROBE_KNOWN_S       3600  /* a yes is believed so long */
#define PROBE_UNKNOWN_S     300   /* a no */
#define PROBE_UNREACHABLE_S 10    /* no answer */
#define PROBE_ENTRIES_MAX   20000 /* remembered; the least used go first */
#define PROBE_CONNECTIONS   4     /* to one next hop */
#define PROBE_WAITING_MAX   10000 /* questions; more are unreachable at once */
#define PROBE_TIMEOUT_MS    20000 /* for one question, waiting and DNS included */

struct probe;

enum probe_outcome {
	PROBE_KNOWN,       /* RCPT got 2xx */
	PROBE_UNKNOWN,     /* 5xx: code, enhanced and text are the next hop's */
	/* The same for another reason than that nobody is there: a full box, a rule, no SMTPUTF8.
	 * Each worker asks for itself, as the words count. */
	PROBE_REFUSED,
	PROBE_UNREACHABLE, /* 4xx, no connection, no answer: temporary */
	PROBE_CANCELLED,
};

struct probe_answer {
	enum probe_outcome outcome;
	unsigned code; /* 0: nothing was said */
	char enhanced[12];
	struct slice text; /* of the reply, or what went wrong */
};

/* A request: done runs exactly once, never inside probe_query_start().  Start it zeroed but for
 * these. */
struct probe_query {
	void (*done)(struct probe_query *q, const struct probe_answer *answer);
	void *owner;

	struct probe_query *prev, *next; /* probe.c's own from here on */
	struct probe_entry *entry;
	struct probe *probe;
	bool cancelled;
};

struct state; /* relayd/state/state.h */

struct probe_options {
	const char *hostname;                                   /* for EHLO; borrowed */
	struct dns *dns;                                        /* borrowed */
	struct tls_client *tls_client;                          /* counted */
	struct state *state;                                    /* borrowed, or NULL */
	uint32_t known_s, unknown_s, unreachable_s, timeout_ms; /* 0: those above */
};

struct probe *probe_new(uv_loop_t *loop, const struct probe_options *options, struct err *err);
/* Of what will be learned from now on. */
void probe_set_lifetimes(
    struct probe *p, uint32_t known_s, uint32_t unknown_s, uint32_t unreachable_s);
/* What is on its way is answered PROBE_CANCELLED from the loop.  Accepts NULL. */
void probe_free(struct probe *p);

/* Asks the hops of a route (strings of the config, tried in order) about forward_path, without
 * <>.  All is copied.  -1 with *err: ERR_CONFIG for a hop that cannot be read, ERR_NOMEM. */
int probe_query_start(struct probe *p, struct probe_query *q, const struct config_route *route,
    struct slice forward_path, struct err *err);
void probe_query_cancel(struct probe_query *q);
/* What is remembered now; false where nothing is. */
bool probe_cached(struct probe *p, const struct config_route *route, struct slice forward_path,
    struct probe_answer *answer);

#endif
