/* relayd/pipeline/facts/probe_hop.h - the connections of the probe to one next hop, and who
 * waits for them. */
#ifndef RELAYD_PIPELINE_FACTS_PROBE_HOP_H
#define RELAYD_PIPELINE_FACTS_PROBE_HOP_H

#include "relayd/pipeline/facts/probe.h"

#define PROBE_RESOLVED_MS 60000 /* addresses are looked up again after */
#define PROBE_TRIES_MAX   8     /* connections for one question */

struct probe_hop;
struct probe_ask; /* one question, the hop's memory */

struct probe_hop_options {
	uv_loop_t *loop;
	const char *hostname;
	struct dns *dns;
	struct tls_client *tls_client;
	uint32_t timeout_ms;
};

/* From the loop, never inside probe_hop_ask(); ask is gone when it returns. */
typedef void probe_on_answer(void *owner, const struct probe_answer *answer);

/* The hops of a route, for addresses at domain.  -1 with *err when one cannot be read. */
struct probe_hop *probe_hop_new(const struct probe_hop_options *options,
    const struct config_route *route, struct slice domain, struct err *err);
/* The route is asked again, maybe of another config: new connections log in as it says now. */
void probe_hop_renew(struct probe_hop *hop, const struct config_route *route);
/* Its asks are dropped first.  The memory goes when its connections are closed. */
void probe_hop_free(struct probe_hop *hop);
/* NULL: out of memory. */
struct probe_ask *probe_hop_ask(
    struct probe_hop *hop, struct slice forward_path, probe_on_answer *on_answer, void *owner);
/* on_answer does not run any more; a connection that is at it is closed. */
void probe_ask_drop(struct probe_ask *ask);
/* Nothing waits, and no connection is open. */
bool probe_hop_idle(const struct probe_hop *hop);

#endif
