/* relayd/review/visitors.c - how many connections there are, in all and from one client. */
#include "relayd/review/visitors.h"

#include "relayd/core/counters.h"
#include "relayd/core/log.h"
#include "relayd/core/shared.h"

#include <stdlib.h>
#include <sys/random.h>

struct visitors {
	struct shared shared; /* of this process alone: its hash, its counts, worker 0 */
	uint32_t max_open, max_per_ip;
};

struct visitors *
visitors_new(const struct config *cfg, struct err *err)
{
	struct visitors *v = calloc(1, sizeof(*v));
	ssize_t want = sizeof(v->shared.hash_key);

	if (v == NULL || getrandom(v->shared.hash_key, (size_t)want, 0) != want) {
		(void)err_set(err, ERR_NOMEM, "review: out of memory");
		free(v);
		return NULL;
	}
	shared_use(&v->shared, 0);
	visitors_reload(v, cfg);
	return v;
}

void
visitors_reload(struct visitors *v, const struct config *cfg)
{
	v->max_open = cfg->limits.connections;
	v->max_per_ip = cfg->limits.connections_per_ip;
}

void
visitors_free(struct visitors *v)
{
	free(v);
}

unsigned
visitors_join(struct visitors *v, const struct sockaddr *peer, const char *service)
{
	uint8_t storage[16];
	struct slice addr = ip_of(peer, storage);
	struct shared_client client = { .bucket = shared_bucket(&v->shared, addr, "") };
	struct shared_limits limits = { v->max_open, UINT32_MAX, v->max_per_ip };
	char ip[IP_TEXT_BYTES];

	if (shared_join(&v->shared, 0, &client, &limits) == SHARED_IN) {
		counter_add(COUNTER_SESSIONS_OPEN, 1);
		return client.bucket + 1;
	}
	ip_text(addr, ip);
	counter_add(COUNTER_SESSIONS_REFUSED, 1);
	counter_add(COUNTER_LIMIT_HITS, 1);
	log_event(
	    "limit", kv_str("what", "connections"), kv_str("service", service), kv_str("ip", ip));
	return 0;
}

void
visitors_leave(struct visitors *v, unsigned ticket)
{
	if (ticket == 0)
		return;
	shared_leave(&v->shared, 0, &(struct shared_client){ .bucket = ticket - 1 });
	counter_add(COUNTER_SESSIONS_OPEN, -1);
}
