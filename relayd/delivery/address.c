/* relayd/delivery/address.c - the addresses of a next hop: which one is next, which ones rest. */
#include "relayd/delivery/parts.h"

#include "relayd/core/clock.h"

struct hop_address *
address_find(struct hop *hop, const struct sockaddr_storage *addr)
{
	for (size_t i = 0; i < hop->n_addresses; i++)
		if (memcmp(addr, &hop->addresses[i].addr, sizeof(*addr)) == 0)
			return &hop->addresses[i];
	return NULL; /* looked up again meanwhile */
}

bool
address_is_usable(const struct hop *hop, const struct hop_address *a, int64_t now_ms)
{
	return a->rests_until_ms <= now_ms && (a->failures == 0 || !conn_is_trying(hop, a));
}

/* a comes before b whatever turns are taken. */
bool
address_is_before(const struct hop_address *a, const struct hop_address *b)
{
	return a->priority < b->priority || (a->target == b->target && a < b);
}

/* There is an address that works as far as is known, before b where that is not NULL. */
bool
address_any_sound(const struct hop *hop, const struct hop_address *b, int64_t now_ms)
{
	for (size_t i = 0; i < hop->n_addresses; i++) {
		const struct hop_address *a = &hop->addresses[i];

		if (a->failures == 0 && a->rests_until_ms <= now_ms &&
		    (b == NULL || address_is_before(a, b)))
			return true;
	}
	return false;
}

/* Among targets of one priority: each gets its weight in credit with every turn, and who has most
 * has the turn and pays for all, so that turns are as weights over any length of time. */
static struct hop_address *
take_turns(struct hop *hop, const struct hop_address *first, int64_t now_ms)
{
	struct hop_address *best = NULL;
	uint32_t seen = 0; /* set of targets; at most 32: ROUTE_TARGETS_MAX */
	int32_t sum = 0;

	for (size_t i = 0; i < hop->n_addresses; i++) {
		struct hop_address *a = &hop->addresses[i];

		if (a->priority != first->priority || !address_is_usable(hop, a, now_ms) ||
		    (seen & (1u << a->target)) != 0)
			continue;
		seen |= 1u << a->target;
		sum += a->weight;
		hop->credit[a->target] += a->weight;
		if (best == NULL || hop->credit[a->target] > hop->credit[best->target])
			best = a;
	}
	if (best != NULL)
		hop->credit[best->target] -= sum;
	return best;
}

/* The best that can be used now. */
struct hop_address *
address_pick(struct hop *hop, int64_t now_ms)
{
	for (size_t i = 0; i < hop->n_addresses; i++)
		if (address_is_usable(hop, &hop->addresses[i], now_ms))
			return hop->shares ? take_turns(hop, &hop->addresses[i], now_ms)
					   : &hop->addresses[i];
	return NULL;
}

void
address_rest(struct hop *hop, struct hop_address *a, int64_t now_ms)
{
	int64_t ms = HOP_ADDRESS_REST_MS;

	hop->ails = true;
	for (unsigned i = 0; i < a->failures && ms < HOP_ADDRESS_REST_MAX_MS; i++)
		ms *= 2;
	a->failures++;
	a->rests_until_ms = now_ms + (ms < HOP_ADDRESS_REST_MAX_MS ? ms : HOP_ADDRESS_REST_MAX_MS);
}
