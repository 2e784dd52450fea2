/* relayd/delivery/conn_pick.c - which connection takes the next message: one that is there, another
 * next hop's, or a new one; and which is left to others. */
#include "relayd/delivery/conn_parts.h"

#include "relayd/core/clock.h"
#include "relayd/core/counters.h"

#include <stdio.h>

#define FAIR_MESSAGES 10 /* then a connection goes to a next hop that has none */
#define BORROW_LOOKS  8  /* at idle connections, for one that may serve another next hop */

/* ---- one more ------------------------------------------------------------------------------- */

/* The one that nobody has used for the longest time makes room for one that is wanted. */
static void
evict_idle(struct delivery *d)
{
	struct conn *conn = d->idle_conns.head;

	while (conn != NULL && conn->leaving)
		conn = conn->list_next;
	if (conn == NULL)
		return;
	conn_give_up(conn);
}

static void
starve(struct hop *hop)
{
	struct delivery *d = hop->d;

	if (hop->starving)
		return;
	counter_add(COUNTER_LIMIT_HITS, 1);
	hop->starving = true;
	hop->starving_next = NULL;
	if (d->starving_tail != NULL)
		d->starving_tail->starving_next = hop;
	else
		d->starving_head = hop;
	d->starving_tail = hop;
	evict_idle(d);
}

static bool
may_probe(struct hop *hop, const struct hop_address *a)
{
	struct provider *p = provider_of(hop, a->target, a->name);
	bool room = p == NULL || p->n_conns < provider_connections_max(p);

	if (p != NULL)
		provider_done(p);
	return room && conns_have_room(hop->d);
}

/* Addresses that failed and have rested are looked at beside the messages, none of which need wait
 * for that. */
static void
probe_ailing(struct hop *hop)
{
	int64_t now = clock_mono_ms();
	bool sound = address_any_sound(hop, NULL, now);

	hop->ails = false;
	for (size_t i = 0; i < hop->n_addresses; i++) {
		struct hop_address *a = &hop->addresses[i];
		struct conn *conn;

		hop->ails = hop->ails || a->failures > 0 || a->rests_until_ms > now;
		if (!sound || a->failures == 0 || !address_is_usable(hop, a, now) ||
		    !may_probe(hop, a))
			continue;
		conn = conn_open(hop, a, provider_of(hop, a->target, a->name));
		if (conn != NULL)
			conn->probing = true;
		else
			address_rest(hop, a, now);
	}
}

/* ---- one that serves another next hop -------------------------------------------------------- */

static bool
same_policy(const struct tls_policy *a, const struct tls_policy *b)
{
	return a->need == b->need && a->any_certificate == b->any_certificate &&
	       a->plain_after == b->plain_after && strcmp(a->by, b->by) == 0;
}

static bool
same_text(const char *a, const char *b)
{
	return a == b || (a != NULL && b != NULL && strcmp(a, b) == 0);
}

/* To the other next hop it would be opened to the same address, under the same name and with the
 * same TLS, which was verified for that name then, and as the same client. */
static bool
serves(const struct conn *conn, struct hop *hop, const struct hop_address *a)
{
	const struct hop_address *there = address_find(hop, &conn->addr);

	return conn_to_spare(conn) && !conn->probing && peer_can_send(conn->peer) &&
	       conn->identity == NULL && !hop->route->login && there != NULL &&
	       there->target == a->target && there->rests_until_ms <= clock_mono_ms() &&
	       slice_ieq(slice_str(there->name), slice_str(conn->host)) &&
	       conn->lmtp == there->lmtp && conn->implicit_tls == there->implicit_tls &&
	       same_policy(&conn->policy, &there->tls) &&
	       same_text(conn->hop->route->route, hop->route->route);
}

/* One that is idle, of another next hop's. */
static struct conn *
borrow(struct hop *hop, const struct hop_address *a, struct provider *p)
{
	struct conn *conn = provider_is_open_to(p, hop) ? p->idle.head : NULL;
	unsigned looks = 0;

	if (conn != NULL && !serves(conn, hop, a))
		conn = p->idle.tail;
	while (conn != NULL && !serves(conn, hop, a))
		conn = ++looks < BORROW_LOOKS ? conn->idle_prev : NULL;
	if (conn == NULL)
		return NULL;
	hop_touch(conn->hop); /* it may have mail, and waits now itself */
	conn_move(conn, hop);
	conn->offered = false;
	conn->target = a->target;
	conn->before = peer_count(conn->peer);
	return conn;
}

static struct conn *
open_one(struct hop *hop)
{
	int64_t now = clock_mono_ms();
	struct hop_address *a;
	struct provider *p;
	struct conn *conn;

	if (!conns_have_room(hop->d)) {
		starve(hop);
		return NULL;
	}
	if (hop->resolved_ms == 0 || now - hop->resolved_ms >= HOP_RESOLVE_MS) {
		resolve_start(hop);
		return NULL;
	}
	while ((a = address_pick(hop, now)) != NULL) {
		p = provider_of(hop, a->target, a->name);
		if (p != NULL && !provider_within_rate(p, hop))
			return NULL;
		conn = p != NULL ? borrow(hop, a, p) : NULL;
		if (conn != NULL)
			return conn;
		if (p != NULL && !provider_has_place(p, hop, (size_t)(a - hop->addresses)))
			return NULL;
		conn = conn_open(hop, a, p);
		if (conn != NULL)
			return conn;
		if (p != NULL)
			provider_done(p);
		address_rest(hop, a, now);
	}
	if (hop->n_conns == 0)
		hop_failed(hop, &hop->trouble);
	return NULL;
}

/* ---- which one next ------------------------------------------------------------------------- */

static bool
is_fast(const struct hop *hop)
{
	return hop->usual_us > 0 && hop->usual_us < HOP_FAST_US;
}

/* What it has taken is not the moment that it usually is. */
static bool
is_late(const struct conn *conn, int64_t now_ms)
{
	return conn->in_flight > 0 && now_ms - conn->since_ms >= HOP_LATE_MS;
}

/* Where a transaction takes a moment, one connection serves many; those that are late do not
 * count. */
static size_t
wanted_fast(const struct hop *hop, size_t jobs, int64_t now_ms)
{
	size_t late = 0;

	for (const struct conn *c = hop->conns; c != NULL; c = c->next) {
		if (is_late(c, now_ms)) {
			late++;
			jobs -= c->in_flight;
		}
	}
	return late + (jobs + HOP_FAST_JOBS - 1) / HOP_FAST_JOBS;
}

/* As many as there is work for. */
static unsigned
wanted(const struct hop *hop, int64_t now_ms)
{
	size_t jobs = hop->line.n + hop->n_taken;
	size_t n = is_fast(hop) ? wanted_fast(hop, jobs, now_ms) : jobs;
	unsigned max = hop_connections_max(hop);

	if (max > hop->window)
		max = hop->window;
	return (unsigned)(n < max ? n : max);
}

static bool
is_kept_for_others(const struct conn *conn)
{
	const struct provider *p = conn->provider;

	return conn->offered && p != NULL && (p->places.head != NULL || p->called != NULL);
}

/* The one that takes another send and has most, or least, on its way. */
static struct conn *
find(struct hop *hop, unsigned in_flight, int64_t now_ms)
{
	for (struct conn *c = hop->conns; c != NULL; c = c->next)
		if (!c->leaving && !c->probing && !is_kept_for_others(c) &&
		    c->in_flight == in_flight && !is_late(c, now_ms) && peer_can_send(c->peer))
			return c;
	return NULL;
}

static unsigned
n_probing(const struct hop *hop)
{
	unsigned n = 0;

	for (const struct conn *c = hop->conns; c != NULL; c = c->next)
		n += c->probing;
	return n;
}

struct conn *
conn_for(struct hop *hop)
{
	int64_t now = clock_mono_ms();
	struct conn *conn = NULL;

	if (hop->ails)
		probe_ailing(hop);
	/* Behind another one where that one will be over at once: it leaves in the same packet. */
	if (is_fast(hop))
		conn = find(hop, 1, now);
	if (conn == NULL)
		conn = find(hop, 0, now);
	if (conn == NULL && hop->n_conns - n_probing(hop) < wanted(hop, now))
		return open_one(hop);
	if (conn != NULL && conn->provider != NULL && !provider_within_rate(conn->provider, hop))
		return NULL;
	return conn;
}

void
conn_count(const struct conn *conn)
{
	if (conn->provider != NULL)
		provider_count(conn->provider, conn->hop);
}

void
conn_send(struct conn *conn, struct peer_send *req)
{
	conn->offered = false;
	if (conn->in_flight++ == 0 && conn->ready)
		conn_join_list(conn);
	peer_send_start(conn->peer, req);
}

/* It stands in for an address that can be used again. */
static bool
stands_in(const struct conn *conn)
{
	const struct hop_address *a = conn->hop->ails ? conn_address(conn) : NULL;

	return a != NULL && address_any_sound(conn->hop, a, clock_mono_ms());
}

static uint64_t
count_of(const struct conn *conn)
{
	return peer_count(conn->peer) - conn->before;
}

static bool
had_share(const struct conn *conn)
{
	return conn->hop->n_conns > 1 || count_of(conn) >= FAIR_MESSAGES;
}

/* Others have waited for a connection: this one had its share. */
static bool
should_leave(const struct conn *conn)
{
	const struct provider *p = conn->provider;

	if (stands_in(conn))
		return true;
	if (conn->hop->shares && count_of(conn) >= HOP_SHARE_JOBS)
		return true;
	if (p != NULL && p->n_conns > provider_connections_max(p))
		return true;
	return conn->hop->d->starving_head != NULL &&
	       (had_share(conn) || (conn->hop->line.n == 0 && conn->in_flight == 0));
}

static void
keep_refusal(struct conn *conn, const struct smtp_outcome *refusal)
{
	conn->refusal = *refusal;
	snprintf(conn->refusal_text, sizeof(conn->refusal_text), "%.*s",
	    SLICE_FMT(slice_head(refusal->text, sizeof(conn->refusal_text) - 1)));
	conn->refusal.text = SLICE("");
}

void
conn_sent(struct conn *conn, int64_t took_us, const struct smtp_outcome *refusal)
{
	struct hop *hop = conn->hop;

	conn->in_flight--;
	if (conn->provider != NULL && conn->provider->places.head != NULL && had_share(conn))
		conn->offered = true;
	conn_join_list(conn);
	if (refusal != NULL && refusal->code != 0)
		keep_refusal(conn, refusal);
	if (took_us > 0) {
		hop_worked(hop);
		hop->usual_us = hop->usual_us > 0 ? (7 * hop->usual_us + took_us) / 8 : took_us;
		hop->sent++;
	}
	if (!conn->leaving && should_leave(conn))
		conn_give_up(conn);
	else if (conn->provider != NULL && conn->in_flight == 0)
		provider_spare(conn->provider);
	hop_touch(hop);
}
