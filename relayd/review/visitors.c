/* relayd/review/visitors.c - how many connections there are, in all and from one client. */
#include "relayd/review/visitors.h"

#include "relayd/core/counters.h"
#include "relayd/core/log.h"
#include "relayd/core/shared.h"

#include <stdlib.h>
#include <sys/random.h>

#define NO_ADDRESS 1 /* the ticket of all that have none */

struct visitors {
	struct tally clients;
	uint8_t hash_key[16];
	uint32_t open, max_open, max_per_ip;
};

struct visitors *
visitors_new(const struct config *cfg, struct err *err)
{
	struct visitors *v = calloc(1, sizeof(*v));
	ssize_t want = sizeof(v->hash_key);

	if (v == NULL || getrandom(v->hash_key, (size_t)want, 0) != want) {
		(void)err_set(err, ERR_NOMEM, "review: out of memory");
		free(v);
		return NULL;
	}
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

uint64_t
visitors_join(struct visitors *v, const struct sockaddr *peer, const char *service)
{
	uint8_t storage[16];
	struct slice addr = ip_of(peer, storage);
	uint64_t ticket = shared_ip(v->hash_key, addr, "");
	char ip[IP_TEXT_BYTES];

	if (ticket == 0)
		ticket = NO_ADDRESS;
	if (v->open < v->max_open && tally_get(&v->clients, ticket) < v->max_per_ip &&
	    tally_add(&v->clients, ticket)) {
		v->open++;
		counter_add(COUNTER_SESSIONS_OPEN, 1);
		return ticket;
	}
	ip_text(addr, ip);
	counter_add(COUNTER_SESSIONS_REFUSED, 1);
	counter_add(COUNTER_LIMIT_HITS, 1);
	log_event(
	    "limit", kv_str("what", "connections"), kv_str("service", service), kv_str("ip", ip));
	return 0;
}

void
visitors_leave(struct visitors *v, uint64_t ticket)
{
	if (ticket == 0)
		return;
	tally_drop(&v->clients, ticket);
	v->open--;
	counter_add(COUNTER_SESSIONS_OPEN, -1);
}
