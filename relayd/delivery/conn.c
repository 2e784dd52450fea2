/* relayd/delivery/conn.c - connections to next hops: how many, which one next, and what their end means. */
#include "relayd/delivery/parts.h"

#include "relayd/core/cidr.h"
#include "relayd/core/clock.h"
#include "relayd/core/counters.h"
#include "relayd/core/log.h"

#include <stdio.h>
#include <stdlib.h>

#define PLAIN_MS      600000 /* an address whose TLS is broken is used without, where allowed, so long */
#define FAIR_MESSAGES 10 /* then a connection goes to a next hop that has none */
#define BORROW_LOOKS  8  /* at idle connections, for one that may serve another next hop */

struct conn {
	struct hop *hop;
	struct conn *next; /* of the hop */
	struct peer *peer;
	struct sockaddr_storage addr;
	struct smtp_outcome refusal; /* what the peer said to end the session, with its text here */
	unsigned in_flight;
	bool ready, leaving, lmtp;
	enum smtp_client_tls tls;
	bool probing; /* whether its address is back: it takes nothing before it is ready */
	struct identity *identity; /* or NULL */
	char login[128];           /* its name, or "" */
	char refusal_text[300];
	char host[256];
	char hostname[256];
	char name[400];
	struct conn_list *list; /* of the delivery, or NULL */
	struct conn *list_prev, *list_next;
	int64_t since_ms; /* when it joined that */
	bool stalled;
	uint16_t target; /* of the next hop */
	bool implicit_tls;
	struct tls_policy policy;           /* that it was opened with */
	struct provider *provider;          /* or NULL */
	struct conn *idle_prev, *idle_next; /* of its idle ones */
	bool idle_there;
	uint64_t before; /* messages sent on it for other next hops */
};

static struct hop_address *address_of(const struct conn *conn);

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
	const struct hop_address *a = address_of(conn);
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

static struct hop_address *
address_of(const struct conn *conn)
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
	struct hop_address *a = address_of(conn);
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

/* Opening, or with a transaction on its way, the longest first; idle ones, the longest first; or, while
 * stalled, nowhere. */
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
	conn->idle_prev = list->tail;
	conn->idle_next = NULL;
	*(list->tail != NULL ? &list->tail->idle_next : &list->head) = conn;
	list->tail = conn;
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

static void
join_list(struct conn *conn)
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

struct conn *
conn_spare(const struct provider *p)
{
	struct conn *conn = p->idle.head;

	return conn != NULL && conn->hop->line.n == 0 ? conn : NULL;
}

void
conn_give_up(struct conn *conn)
{
	leave_idle(conn);
	conn->leaving = true;
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

/* ---- the end of a connection ---------------------------------------------------------------- */

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

static void
join_provider(struct conn *conn, struct provider *p)
{
	conn->provider = p;
	if (p == NULL)
		return;
	p->n_conns++;
	p->n_ready += conn->ready;
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

/* Nothing went through it: its address is to blame, or the TLS there. */
static void
blame_address(struct conn *conn, const struct err *why)
{
	struct hop *hop = conn->hop;
	struct hop_address *a = address_of(conn);
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
	struct hop_address *a = address_of(conn);

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
	if (failed && !d->closing && (!conn->ready || peer_count(p) == 0))
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
	struct hop_address *a = address_of(conn);

	conn->probing = false;
	if (a == NULL || a->failures == 0)
		return;
	a->failures = 0;
	for (struct conn *c = hop->conns; c != NULL; c = c->next) {
		const struct hop_address *other = address_of(c);

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
	struct hop_address *a = address_of(conn);

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
	join_list(conn);
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

static struct conn *
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
	join_list(conn);
	counter_set(COUNTER_OUT_OPEN, d->n_conns);
	return conn;
}

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

/* Addresses that failed and have rested are looked at beside the messages, none of which need wait for
 * that. */
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

/* ---- one that serves another next hop --------------------------------------------------------- */

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

/* To the other next hop it would be opened to the same address, under the same name and with the same TLS, which was
 * verified for that name then, and as the same client. */
static bool
serves(const struct conn *conn, struct hop *hop, const struct hop_address *a)
{
	const struct hop_address *there = address_find(hop, &conn->addr);

	return conn->hop->line.n == 0 && !conn->probing && peer_can_send(conn->peer) &&
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
	struct conn *conn = provider_is_open_to(p, hop) ? p->idle.tail : NULL;
	unsigned looks = 0;

	while (conn != NULL && !serves(conn, hop, a))
		conn = ++looks < BORROW_LOOKS ? conn->idle_prev : NULL;
	if (conn == NULL)
		return NULL;
	leave_hop(conn);
	join_hop(conn, hop);
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

/* Where a transaction takes a moment, one connection serves many; those that are late do not count. */
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

/* The one that takes another send and has most, or least, on its way. */
static struct conn *
find(struct hop *hop, unsigned in_flight, int64_t now_ms)
{
	for (struct conn *c = hop->conns; c != NULL; c = c->next)
		if (!c->leaving && !c->probing && c->in_flight == in_flight &&
		    !is_late(c, now_ms) && peer_can_send(c->peer))
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
	if (conn->in_flight++ == 0 && conn->ready)
		join_list(conn);
	peer_send_start(conn->peer, req);
}

/* It stands in for an address that can be used again. */
static bool
stands_in(const struct conn *conn)
{
	const struct hop_address *a = conn->hop->ails ? address_of(conn) : NULL;

	return a != NULL && address_any_sound(conn->hop, a, clock_mono_ms());
}

/* Others have waited for a connection: this one had its share. */
static bool
should_leave(const struct conn *conn)
{
	const struct provider *p = conn->provider;
	uint64_t count = peer_count(conn->peer) - conn->before;
	bool had_share = conn->hop->n_conns > 1 || count >= FAIR_MESSAGES;

	if (stands_in(conn))
		return true;
	if (conn->hop->shares && count >= HOP_SHARE_JOBS)
		return true;
	if (p != NULL &&
	    ((p->places.head != NULL && had_share) || p->n_conns > provider_connections_max(p)))
		return true;
	return conn->hop->d->starving_head != NULL &&
	       (had_share || (conn->hop->line.n == 0 && conn->in_flight == 0));
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
	join_list(conn);
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

void
conns_leave(struct delivery *d, bool now)
{
	for (size_t i = 0; i < d->cap_hops; i++) {
		for (struct hop *hop = d->hops[i]; hop != NULL; hop = hop->next) {
			for (struct conn *c = hop->conns; c != NULL; c = c->next) {
				leave_idle(c);
				c->leaving = true;
				if (now)
					peer_close(c->peer);
				else
					peer_quit(c->peer);
			}
		}
	}
}
