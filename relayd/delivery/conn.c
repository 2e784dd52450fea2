/* relayd/delivery/conn.c - connections to next hops: how they begin, where they count, and what
 * their end means. */
#include "relayd/delivery/conn_parts.h"

#include "relayd/core/cidr.h"
#include "relayd/core/clock.h"
#include "relayd/core/counters.h"
#include "relayd/core/log.h"

#include <stdio.h>
#include <stdlib.h>

#define PLAIN_MS 600000 /* an address whose TLS is broken is used without, where allowed, so long */

struct hop *
conn_hop(const struct conn *conn)
{
	return conn->hop;
}

bool
conn_is_open(const struct conn *conn)
{
	return conn->ready;
}

unsigned
conn_caps(const struct conn *conn)
{
	return peer_caps(conn->peer);
}

bool
conn_is_lmtp(const struct conn *conn)
{
	return conn->lmtp;
}

uint32_t
conn_rcpt_max(const struct conn *conn)
{
	return peer_rcpt_max(conn->peer);
}

const char *
conn_name(const struct conn *conn)
{
	return conn->name;
}

struct slice
conn_dialogue(const struct conn *conn)
{
	return peer_dialogue(conn->peer);
}

struct slice
conn_tls(const struct conn *conn, char out[static CONN_TLS_BYTES])
{
	const struct hop_address *a = conn_address(conn);
	const char *failure = peer_tls_failure(conn->peer);
	struct tls_info info;
	struct buf b = buf_over(out, CONN_TLS_BYTES);

	if (peer_tls_info(conn->peer, &info))
		buf_printf(&b, "%s %s%s%s", info.version, info.cipher,
		    info.verified ? ", verified" : "", info.resumed ? ", resumed" : "");
	else if (failure != NULL)
		buf_printf(&b, "none: %s", failure);
	else if (conn->ready && conn->tls == SMTP_CLIENT_TLS_TRY)
		buf_puts(&b, "none: it is not offered");
	else if (a != NULL && a->tls.plain_after && conn->tls == SMTP_CLIENT_TLS_OFF)
		buf_printf(&b, "none: it failed before: %s", a->plain_why);
	return buf_slice(&b);
}

const char *
conn_host(const struct conn *conn)
{
	return conn->host;
}

/* ---- addresses ------------------------------------------------------------------------------ */

static bool
is_at(const struct conn *conn, const struct hop_address *a)
{
	return memcmp(&conn->addr, &a->addr, sizeof(conn->addr)) == 0;
}

struct hop_address *
conn_address(const struct conn *conn)
{
	return address_find(conn->hop, &conn->addr);
}

/* One connection at a time finds out whether an address is back that failed. */
bool
conn_is_trying(const struct hop *hop, const struct hop_address *a)
{
	for (const struct conn *c = hop->conns; c != NULL; c = c->next)
		if (!c->ready && is_at(c, a))
			return true;
	return false;
}

bool
conn_try_next(struct conn *conn)
{
	struct hop *hop = conn->hop;
	struct hop_address *a = conn_address(conn);
	int64_t now = clock_mono_ms();
	bool other = false;

	for (size_t i = 0; i < hop->n_addresses; i++)
		other =
		    other || (&hop->addresses[i] != a && hop->addresses[i].rests_until_ms <= now);
	if (a == NULL || !other)
		return a == NULL ? false : a->rests_until_ms > now && other;
	a->rests_until_ms = now + HOP_ADDRESS_REST_MS;
	hop->ails = true;
	for (struct conn *c = hop->conns; c != NULL; c = c->next) {
		if (memcmp(&c->addr, &conn->addr, sizeof(c->addr)) == 0 && !c->leaving) {
			conn_give_up(c);
		}
	}
	return true;
}

/* ---- who waits, and who has nothing to do ---------------------------------------------------- */

/* Opening, or with a transaction on its way, the longest first; idle ones, the longest first; or,
 * while stalled, nowhere. */
static void
leave_idle(struct conn *conn)
{
	struct conn_list *list = conn->idle_there ? &conn->provider->idle : NULL;

	conn->idle_there = false;
	if (list == NULL)
		return;
	*(conn->idle_prev != NULL ? &conn->idle_prev->idle_next : &list->head) = conn->idle_next;
	*(conn->idle_next != NULL ? &conn->idle_next->idle_prev : &list->tail) = conn->idle_prev;
}

static void
join_idle(struct conn *conn)
{
	struct conn_list *list = &conn->provider->idle;

	conn->idle_there = true;
	conn->idle_prev = conn->offered ? NULL : list->tail;
	conn->idle_next = conn->offered ? list->head : NULL;
	*(conn->idle_prev != NULL ? &conn->idle_prev->idle_next : &list->head) = conn;
	*(conn->idle_next != NULL ? &conn->idle_next->idle_prev : &list->tail) = conn;
}

static void
leave_list(struct conn *conn)
{
	struct conn_list *list = conn->list;

	leave_idle(conn);
	if (conn->stalled)
		conn->hop->d->n_stalled--;
	conn->stalled = false;
	conn->list = NULL;
	if (list == NULL)
		return;
	*(conn->list_prev != NULL ? &conn->list_prev->list_next : &list->head) = conn->list_next;
	*(conn->list_next != NULL ? &conn->list_next->list_prev : &list->tail) = conn->list_prev;
}

void
conn_join_list(struct conn *conn)
{
	struct delivery *d = conn->hop->d;
	struct conn_list *list =
	    conn->ready && conn->in_flight == 0 ? &d->idle_conns : &d->busy_conns;

	leave_list(conn);
	conn->since_ms = clock_mono_ms();
	conn->list = list;
	conn->list_prev = list->tail;
	conn->list_next = NULL;
	*(list->tail != NULL ? &list->tail->list_next : &list->head) = conn;
	list->tail = conn;
	if (list == &d->idle_conns && conn->provider != NULL && !conn->leaving)
		join_idle(conn);
}

bool
conn_to_spare(const struct conn *conn)
{
	return conn->offered || conn->hop->line.n == 0;
}

struct conn *
conn_spare(const struct provider *p)
{
	struct conn *conn = p->idle.head;

	return conn != NULL && conn_to_spare(conn) ? conn : NULL;
}

static void
set_leaving(struct conn *conn)
{
	leave_idle(conn);
	if (conn->provider != NULL)
		conn->provider->n_leaving += !conn->leaving;
	conn->leaving = true;
}

void
conn_give_up(struct conn *conn)
{
	set_leaving(conn);
	peer_quit(conn->peer);
}

bool
conns_have_room(const struct delivery *d)
{
	return d->n_conns - d->n_stalled < HOPS_CONNECTIONS_MAX;
}

int64_t
conns_stall_due_ms(const struct delivery *d)
{
	bool wanted = d->starving_head != NULL && d->n_stalled < HOPS_STALLED_MAX;

	return wanted && d->busy_conns.head != NULL ? d->busy_conns.head->since_ms + d->stall_ms
						    : -1;
}

void
conns_stall(struct delivery *d)
{
	int64_t before_ms = clock_mono_ms() - d->stall_ms;
	struct conn *conn;

	while ((conn = d->busy_conns.head) != NULL && conn->since_ms <= before_ms &&
	       d->n_stalled < HOPS_STALLED_MAX) {
		leave_list(conn);
		conn->stalled = true;
		d->n_stalled++;
		conns_feed_starving(d);
	}
}

void
conns_late(struct delivery *d)
{
	int64_t before_ms = clock_mono_ms() - HOP_LATE_MS;

	for (struct conn *c = d->busy_conns.head; c != NULL && c->since_ms <= before_ms;
	     c = c->list_next)
		if (c->hop->line.n > 0)
			hop_touch(c->hop);
}

/* ---- where it counts ------------------------------------------------------------------------ */

static void
leave_hop(struct conn *conn)
{
	struct conn **at = &conn->hop->conns;

	while (*at != conn)
		at = &(*at)->next;
	*at = conn->next;
	conn->hop->n_conns--;
}

static void
join_hop(struct conn *conn, struct hop *hop)
{
	conn->hop = hop;
	conn->next = hop->conns;
	hop->conns = conn;
	hop->n_conns++;
}

void
conn_move(struct conn *conn, struct hop *hop)
{
	leave_hop(conn);
	join_hop(conn, hop);
}

static void
join_provider(struct conn *conn, struct provider *p)
{
	conn->provider = p;
	if (p == NULL)
		return;
	p->n_conns++;
	p->n_ready += conn->ready;
	p->n_leaving += conn->leaving;
}

/* Who waits there has his turn. */
static void
leave_provider(struct conn *conn)
{
	struct provider *p = conn->provider;

	leave_idle(conn);
	conn->provider = NULL;
	if (p == NULL)
		return;
	p->n_ready -= conn->ready;
	p->n_leaving -= conn->leaving;
	provider_left(p);
}

static void
unlink_conn(struct conn *conn)
{
	struct delivery *d = conn->hop->d;

	leave_list(conn);
	leave_hop(conn);
	d->n_conns--;
	counter_set(COUNTER_OUT_OPEN, d->n_conns);
	leave_provider(conn);
}

static void
each_conn(struct delivery *d, void (*each)(struct conn *conn))
{
	for (size_t i = 0; i < d->cap_hops; i++)
		for (struct hop *hop = d->hops[i]; hop != NULL; hop = hop->next)
			for (struct conn *c = hop->conns; c != NULL; c = c->next)
				each(c);
}

static void
count_again(struct conn *conn)
{
	conn->idle_there = false; /* of the one that is gone */
	join_provider(conn, provider_of(conn->hop, conn->target, conn->host));
	if (conn->provider != NULL && conn->list == &conn->hop->d->idle_conns && !conn->leaving)
		join_idle(conn);
}

void
conns_count_again(struct delivery *d)
{
	each_conn(d, count_again);
}

/* ---- the end of a connection ---------------------------------------------------------------- */

/* The next one who lacked a connection may have this one's place. */
void
conns_feed_starving(struct delivery *d)
{
	struct hop *hop = d->starving_head;

	if (hop == NULL)
		return;
	d->starving_head = hop->starving_next;
	if (d->starving_head == NULL)
		d->starving_tail = NULL;
	hop->starving = false;
	hop_touch(hop);
}

static void
describe_failure(const struct conn *conn, const struct err *why, struct hop_failure *f)
{
	*f = (struct hop_failure){ 0 };
	if (conn->refusal.code != 0) {
		snprintf(f->remote, sizeof(f->remote), "%s", conn->host);
		f->code = conn->refusal.code;
		memcpy(f->enhanced, conn->refusal.enhanced, sizeof(f->enhanced));
		if (conn->refusal.command != NULL && strcmp(conn->refusal.command, "AUTH") == 0)
			hop_failure_say(f, "the login as \"%s\" was refused: %s", conn->login,
			    conn->refusal_text);
		else
			hop_failure_say(f, "%s", conn->refusal_text);
		return;
	}
	snprintf(f->enhanced, sizeof(f->enhanced), "%s",
	    why->code == ERR_TLS      ? "4.7.5"
	    : why->code == ERR_DENIED ? "4.7.0"
	    : conn->ready             ? "4.4.2"
				      : "4.4.1");
	hop_failure_say(f, "%s: %s", conn->name, why->msg);
}

/* Those that lost a race; whether they are back is seen later. */
static void
rest_missed(struct hop *hop, const struct peer *p)
{
	const struct sockaddr_storage *addr;
	int64_t now = clock_mono_ms();

	for (size_t i = 0; (addr = peer_missed(p, i)) != NULL; i++) {
		struct hop_address *a = address_find(hop, addr);

		if (a != NULL && a->rests_until_ms <= now)
			address_rest(hop, a, now);
	}
}

static void
note_refusal(struct conn *conn, const struct err *why)
{
	struct hop *hop = conn->hop;

	describe_failure(conn, why, &hop->trouble);
	hop_note_error(hop, slice_str(hop->trouble.text));
}

/* Nothing went through it: its address is to blame, or the TLS there. */
static void
blame_address(struct conn *conn, const struct err *why)
{
	struct hop *hop = conn->hop;
	struct hop_address *a = conn_address(conn);
	int64_t now = clock_mono_ms();

	describe_failure(conn, why, &hop->trouble);
	queue_dialogue(&hop->d->queue, &hop->dialogue, peer_dialogue(conn->peer));
	if (a == NULL)
		return;
	if (why->code == ERR_TLS && a->tls.plain_after && a->plain_until_ms <= now) {
		snprintf(a->plain_why, sizeof(a->plain_why), "%.150s", why->msg);
		a->plain_until_ms = now + PLAIN_MS; /* RFC 7435 section 3: better than not at all */
		return;
	}
	if (a->rests_until_ms <= now)
		address_rest(hop, a, now);
}

/* A host that serves us and refuses one connection more, by a reply, is not down: no other host,
 * let alone a fallback, need take over.  Where it refuses all that are on their way, the last one
 * shows it.  What does not answer at all may be down, whatever a connection of before looks
 * like. */
static bool
is_one_too_many(const struct conn *conn)
{
	unsigned others = 0, here = 0;

	if (conn->ready || conn->refusal.code == 0 || conn->probing)
		return false;
	for (const struct conn *c = conn->hop->conns; c != NULL; c = c->next) {
		bool counts = c != conn && !c->leaving && !c->probing;

		others += counts;
		here += counts && memcmp(&c->addr, &conn->addr, sizeof(c->addr)) == 0;
	}
	if (here > 0)
		hop_is_full(conn->hop, others);
	return here > 0;
}

/* Those who wait for a connection to the host are in no better place when it cannot be reached. */
static void
tell_waiting(struct conn *conn, const struct err *why)
{
	struct provider *p = conn->provider;
	int64_t now = clock_mono_ms();
	struct hop *hop, *next;

	if (p == NULL || p->n_ready > 0 || conn->refusal.code != 0 || why->code == ERR_TLS ||
	    why->code == ERR_DENIED)
		return;
	for (hop = p->places.head; hop != NULL; hop = next) {
		struct hop_address *a = &hop->addresses[hop->wants];

		next = hop->waits_next;
		if (!slice_ieq(slice_str(a->name), slice_str(conn->host)))
			continue;
		describe_failure(conn, why, &hop->trouble);
		rest_missed(hop, conn->peer);
		a = address_find(hop, &conn->addr);
		if (a != NULL && a->rests_until_ms <= now)
			address_rest(hop, a, now);
		provider_forget(hop);
		hop_touch(hop);
	}
}

static void
note_no_bdat(struct conn *conn)
{
	struct hop_address *a = conn_address(conn);

	if (a != NULL && peer_knows_no_bdat(conn->peer))
		a->no_bdat = true;
}

static void
on_close(struct peer *p, void *owner, const struct err *why)
{
	struct conn *conn = owner;
	struct hop *hop = conn->hop;
	struct delivery *d = hop->d;
	bool failed = why->code != ERR_NONE && why->code != ERR_CANCELLED;

	if (failed && !d->closing && !conn->ready)
		rest_missed(conn->hop, p);
	conn->addr = *peer_addr(p);
	note_no_bdat(conn);
	if (failed && !d->closing && is_one_too_many(conn))
		note_refusal(conn, why);
	else if (failed && !d->closing && (!conn->ready || peer_count(p) == 0))
		blame_address(conn, why);
	if (failed && conn->ready)
		hop->window = hop->window > 1 ? hop->window / 2 : 1;
	if (failed && !d->closing && !conn->ready)
		tell_waiting(conn, why);
	unlink_conn(conn);
	identity_unref(conn->identity);
	free(conn);
	conns_feed_starving(d);
	hop_touch(hop);
	delivery_ended_one(d);
}

/* Its address works: connections to those that only stand in for it are left. */
static void
is_back(struct conn *conn)
{
	struct hop *hop = conn->hop;
	struct hop_address *a = conn_address(conn);

	conn->probing = false;
	if (a == NULL || a->failures == 0)
		return;
	a->failures = 0;
	a->rests_until_ms = 0;
	for (struct conn *c = hop->conns; c != NULL; c = c->next) {
		const struct hop_address *other = conn_address(c);

		if (c->leaving || other == NULL || !address_is_before(a, other))
			continue;
		conn_give_up(c);
	}
}

/* "mail1.corp[192.0.2.1:25]", or the address alone where the config has no name for it. */
static void
name_conn(struct conn *conn)
{
	const char *address = peer_name(conn->peer);

	if (conn->addr.ss_family == AF_UNIX || strstr(address, conn->host) != NULL)
		snprintf(conn->name, sizeof(conn->name), "%s", address);
	else
		snprintf(conn->name, sizeof(conn->name), "%s[%s]", conn->host, address);
}

/* The next connections need not try in vain what this one did. */
static void
note_plain(struct conn *conn)
{
	struct hop_address *a = conn_address(conn);

	if (a == NULL || peer_tls_failure(conn->peer) == NULL)
		return;
	a->plain_until_ms = clock_mono_ms() + PLAIN_MS;
	snprintf(a->plain_why, sizeof(a->plain_why), "%s", peer_tls_failure(conn->peer));
}

static void
on_ready(struct peer *p, void *owner)
{
	struct conn *conn = owner;

	if (!conn->ready) {
		rest_missed(conn->hop, p);
		conn->addr = *peer_addr(p);
		name_conn(conn);
		is_back(conn);
		note_plain(conn);
	}
	if (conn->provider != NULL)
		conn->provider->n_ready += !conn->ready;
	conn->ready = true;
	conn_join_list(conn);
	if (conn->hop->line.n > 0)
		hop_touch(conn->hop);
}

/* ---- a new one ------------------------------------------------------------------------------ */

static enum smtp_client_tls
tls_of(const struct hop_address *a, int64_t now_ms)
{
	return a->tls.plain_after && a->plain_until_ms > now_ms ? SMTP_CLIENT_TLS_OFF : a->tls.need;
}

/* The next of the route's addresses that is of the other side's family. */
static void
pick_source(struct hop *hop, const struct config_route *route, const struct sockaddr_storage *to,
    struct sockaddr_storage *local)
{
	struct sockaddr_in *in = (struct sockaddr_in *)local;
	struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)local;
	size_t want = to->ss_family == AF_INET ? 4 : to->ss_family == AF_INET6 ? 16 : 0;

	for (size_t i = 0; i < route->n_sources; i++) {
		const struct cidr *source = &route->sources[hop->source++ % route->n_sources];

		if (source->len != want)
			continue;
		local->ss_family = to->ss_family;
		memcpy(want == 4 ? (void *)&in->sin_addr : (void *)&in6->sin6_addr, source->addr,
		    want);
		return;
	}
}

/* Other addresses of the same host race with a, the families in turn (RFC 8305 section 4). */
static void
add_rivals(struct hop *hop, const struct hop_address *a, const struct config_route *route,
    struct peer_target *target)
{
	int64_t now = clock_mono_ms();
	sa_family_t family = a->addr.ss_family;
	bool used[NEXTHOP_ADDRESSES_MAX] = { false };

	while (family != AF_UNIX && target->n_rivals < PEER_RIVALS_MAX) {
		size_t best = SIZE_MAX;

		for (size_t i = 0; i < hop->n_addresses && i < ARRAY_LEN(used); i++) {
			const struct hop_address *b = &hop->addresses[i];

			if (used[i] || b == a || b->target != a->target || b->failures > 0 ||
			    b->rests_until_ms > now || strcmp(b->name, a->name) != 0)
				continue;
			if (best == SIZE_MAX || (hop->addresses[best].addr.ss_family == family &&
						    b->addr.ss_family != family))
				best = i;
		}
		if (best == SIZE_MAX)
			return;
		used[best] = true;
		family = hop->addresses[best].addr.ss_family;
		target->rivals[target->n_rivals].to = hop->addresses[best].addr;
		if (route != NULL)
			pick_source(hop, route, &hop->addresses[best].addr,
			    &target->rivals[target->n_rivals].local);
		target->n_rivals++;
	}
}

/* -1 where a login is wanted and there is none to be had: then nothing is sent. */
static int
take_identity(struct conn *conn, const struct config_route *route, struct peer_target *target,
    struct err *err)
{
	struct hop *hop = conn->hop;
	struct identity *id = routes_identity(hop->d->routes, hop->route, err);

	if (!hop->route->login)
		return 0;
	if (id == NULL)
		return -1;
	conn->identity = identity_ref(id);
	snprintf(conn->login, sizeof(conn->login), "%s", route->login);
	target->login = identity_login(id);
	return 0;
}

struct conn *
conn_open(struct hop *hop, const struct hop_address *a, struct provider *p)
{
	static const struct peer_ops ops = { .on_ready = on_ready, .on_close = on_close };
	struct delivery *d = hop->d;
	const struct config_route *route = routes_named(d->routes, hop->route);
	struct conn *conn = calloc(1, sizeof(*conn));
	struct peer_target target = { .addr = a->addr, .lmtp = a->lmtp };
	struct err err = { .msg = "out of memory" };

	if (conn != NULL) {
		conn->hop = hop;
		conn->addr = a->addr;
		conn->lmtp = a->lmtp;
		conn->target = a->target;
		conn->implicit_tls = a->implicit_tls;
		conn->policy = a->tls;
		snprintf(conn->host, sizeof(conn->host), "%s", a->name);
		snprintf(conn->hostname, sizeof(conn->hostname), "%s",
		    route != NULL && route->helo != NULL ? route->helo : d->cfg->hostname);
		if (route != NULL)
			pick_source(hop, route, &target.addr, &target.local);
		if (a->failures == 0) /* of one that failed it has to be seen whether it is back */
			add_rivals(hop, a, route, &target);
		target.any_certificate = a->tls.any_certificate;
		target.implicit_tls = a->implicit_tls;
		target.no_bdat = a->no_bdat;
		target.tls = tls_of(a, clock_mono_ms());
		conn->tls = target.tls;
		target.tls_client = d->tls;
		target.tls_name = conn->host;
		target.hostname = conn->hostname;
		if (take_identity(conn, route, &target, &err) == 0)
			conn->peer = peer_open(d->loop, &target, &ops, conn, &err);
	}
	if (conn == NULL || conn->peer == NULL) {
		hop->trouble = (struct hop_failure){ 0 };
		hop_failure_say(&hop->trouble, "%s", err.msg);
		if (conn != NULL)
			identity_unref(conn->identity);
		free(conn);
		return NULL;
	}
	name_conn(conn);
	join_hop(conn, hop);
	join_provider(conn, p);
	d->n_conns++;
	conn_join_list(conn);
	counter_set(COUNTER_OUT_OPEN, d->n_conns);
	return conn;
}

void
conns_leave(struct delivery *d, bool now)
{
	for (size_t i = 0; i < d->cap_hops; i++) {
		for (struct hop *hop = d->hops[i]; hop != NULL; hop = hop->next) {
			for (struct conn *c = hop->conns; c != NULL; c = c->next) {
				set_leaving(c);
				if (now)
					peer_close(c->peer);
				else
					peer_quit(c->peer);
			}
		}
	}
}
