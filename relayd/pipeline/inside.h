/* relayd/pipeline/inside.h - the objects behind pipeline.h; private to relayd/pipeline.
 *
 * Who holds whom: a run's job holds its session and transaction, a transaction its session and
 * its generation, a session its generation.  All counts are of the loop alone; a filter in the pool
 * holds its job.
 */
#ifndef RELAYD_PIPELINE_INSIDE_H
#define RELAYD_PIPELINE_INSIDE_H

#include "relayd/pipeline/content.h"
#include "relayd/pipeline/pipeline.h"
#include "relayd/pipeline/scope.h"
#include "relayd/pipeline/story.h"
#include "relayd/pipeline/verdict.h"

#define TX_BYTES_MAX (64u << 20) /* envelope and copies of one transaction */

struct pipeline {
	unsigned refs;
	const struct config *cfg;
	char generation[9];     /* of cfg, as text */
	struct module *modules; /* in the order of the config */
	size_t n_modules;
	bool any_session; /* a judge looks at FILTER_CONNECT or FILTER_HELO */
	char **warnings;
	size_t n_warnings;
};

/* What the filters see of a session and have found out about it.  It is there while a run or a
 * transaction is, and as long as it holds anything: an idle session of which nothing is known has
 * none. */
struct session_found {
	struct scope connect, helo;
	struct story story;
	struct filter_session view;
	char id_text[ID_TEXT_LEN + 1], ip[IP_TEXT_BYTES];
};

struct pipeline_session {
	unsigned refs;
	uint8_t addr[16], addr_len;
	bool auth_required, authenticated, release, dry;
	bool trusted, tls;
	bool stale_connect, stale_helo; /* to be run again before FILTER_MAIL */
	bool refused, any_accepted;
	struct pipeline *pl;
	struct facts *facts;
	struct trace *trace;
	struct id id;
	char *helo, *user;    /* malloc'd, or NULL */
	const char *listener; /* pipeline_client.listener */
	const struct config_listener *rules; /* of pl's config, or NULL */
	int64_t started_ms;
	void *owner;                 /* pipeline_client.owner */
	struct session_found *found; /* or NULL */
};

_Static_assert(sizeof(struct pipeline_session) <= 136, "an idle session has grown");

struct tx_rcpt {
	struct envelope_rcpt path;
	struct slice shown; /* the forward-path for filters and policies: its domain in A-labels */
	struct scope scope;
	struct judgement judgement;
	enum outcome outcome;         /* what is done */
	struct slice findings;        /* "A=1.0,B=2.0" that count for it */
	struct pipeline_reply *reply; /* where it is refused */
};

struct pipeline_tx {
	unsigned refs;
	struct pipeline_session *session;
	struct pipeline *pl;
	struct id id;
	char id_text[ID_TEXT_LEN + 1];
	int64_t begun_ms;
	bool outbound;
	bool hushed; /* it leaves no trace */
	struct arena arena;
	struct slice reverse_path;
	struct slice shown; /* the same for filters: its domain in A-labels */
	struct scope scope;
	struct tx_rcpt **rcpts;
	size_t n_rcpts, cap_rcpts;
	struct slice *forward_paths; /* of rcpts, at FILTER_MESSAGE */
	struct pipeline_message *message;
	struct content content;
	struct story story;
	const char *verdict, *check; /* for the trace; NULL before FILTER_MESSAGE */
	double score;
};

/* Makes s->found when there is none.  NULL when out of memory. */
struct session_found *pl_session_found(struct pipeline_session *s);
/* Frees at zero; where only the owner is left, what is not needed any more. */
void pl_session_unref(struct pipeline_session *s);
void pl_tx_unref(struct pipeline_tx *tx);
/* NULL past the limits. */
struct tx_rcpt *pl_tx_rcpt_new(struct pipeline_tx *tx, const struct envelope_rcpt *path);
bool pl_tx_rcpt_add(struct pipeline_tx *tx, struct tx_rcpt *rcpt);

/* Write the trace of a transaction, and of a session if it was refused (tell.c). */
void pl_tell_tx(const struct pipeline_tx *tx, bool accepted, struct slice answer);
void pl_tell_session(const struct pipeline_session *s);
void pl_tell_tx_json(
    const struct pipeline_tx *tx, bool accepted, struct slice answer, struct buf *out);

/* The story that an event of this session, which has s->found, or of its transaction belongs to. */
static inline struct story *
pl_story_for(struct pipeline_session *s, struct pipeline_tx *tx)
{
	return tx != NULL ? &tx->story : &s->found->story;
}

#endif
