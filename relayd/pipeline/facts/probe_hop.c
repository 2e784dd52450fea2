/* relayd/pipeline/facts/probe_hop.c - the connections of the probe to one next hop, and who
 * waits for them. */
#include "relayd/pipeline/facts/probe_hop.h"

#include "relayd/auth/identity.h"
#include "relayd/smtp/nexthop.h"
#include "relayd/smtp/peer.h"

#include <stdio.h>
#include <stdlib.h>

#define ADDRESSES_MAX 64
#define TARGETS_MAX   16
#define IDLE_MS       10000

struct probe_ask {
	struct probe_hop *hop;
	struct probe_ask *prev, *next; /* of those that wait */
	struct peer_send send;
	struct smtp_tx_rcpt rcpt;
	probe_on_answer *on_answer; /* NULL: dropped */
	void *owner;
	unsigned tries;
	bool sending;
	char path[];
};

struct address {
	struct sockaddr_storage addr;
	char host[256];
	bool lmtp, implicit_tls;
};

struct conn {
	struct probe_hop *hop;
	struct peer *peer; /* NULL: a free slot */
	size_t address;
	bool was_ready;
	struct identity *identity; /* a reference, or NULL */
};

struct probe_hop {
	struct probe_hop_options options;
	enum smtp_client_tls tls;
	bool any_certificate;
	struct identity *identity; /* or NULL */
	struct round *round;
	struct round_task work;
	struct nexthop targets[TARGETS_MAX];
	size_t n_targets, target; /* the one that is looked up */
	struct nexthop_resolve resolve;
	bool resolving, freed;
	struct address addresses[ADDRESSES_MAX];
	size_t n_addresses, at; /* at: the one that new connections go to */
	int64_t resolved_ms;    /* 0: look them up */
	struct err failure;     /* why there is no address, or no connection */
	struct conn conns[PROBE_CONNECTIONS];
	struct probe_ask *first, *last; /* those that wait */
	size_t sending;
};

static void run(struct probe_hop *hop);

static void
run_soon(struct probe_hop *hop)
{
	round_mark(hop->round, &hop->work, ROUND_WORK);
}

/* ---- the end -------------------------------------------------------------------------------- */

static bool
any_conn(const struct probe_hop *hop)
{
	for (size_t i = 0; i < PROBE_CONNECTIONS; i++)
		if (hop->conns[i].peer != NULL)
			return true;
	return false;
}

bool
probe_hop_idle(const struct probe_hop *hop)
{
	return hop->first == NULL && hop->sending == 0 && !hop->resolving && !any_conn(hop);
}

static void
free_if_done(struct probe_hop *hop)
{
	if (!hop->freed || !probe_hop_idle(hop))
		return;
	round_unmark(hop->round, &hop->work);
	round_unref(hop->round);
	tls_client_unref(hop->options.tls_client);
	identity_unref(hop->identity);
	free(hop);
}

void
probe_hop_free(struct probe_hop *hop)
{
	if (hop == NULL || hop->freed)
		return;
	hop->freed = true;
	while (hop->first != NULL)
		probe_ask_drop(hop->first);
	if (hop->resolving)
		nexthop_resolve_cancel(&hop->resolve);
	for (size_t i = 0; i < PROBE_CONNECTIONS; i++)
		if (hop->conns[i].peer != NULL)
			peer_close(hop->conns[i].peer);
	free_if_done(hop);
}

/* ---- asks ----------------------------------------------------------------------------------- */

static void
wait_at_end(struct probe_ask *ask)
{
	struct probe_hop *hop = ask->hop;

	ask->next = NULL;
	ask->prev = hop->last;
	*(hop->last != NULL ? &hop->last->next : &hop->first) = ask;
	hop->last = ask;
}

static void
wait_in_front(struct probe_ask *ask)
{
	struct probe_hop *hop = ask->hop;

	ask->prev = NULL;
	ask->next = hop->first;
	*(hop->first != NULL ? &hop->first->prev : &hop->last) = ask;
	hop->first = ask;
}

static void
wait_no_more(struct probe_ask *ask)
{
	struct probe_hop *hop = ask->hop;

	*(ask->prev != NULL ? &ask->prev->next : &hop->first) = ask->next;
	*(ask->next != NULL ? &ask->next->prev : &hop->last) = ask->prev;
}

static void
answer(struct probe_ask *ask, const struct probe_answer *a)
{
	if (ask->on_answer != NULL)
		ask->on_answer(ask->owner, a);
	free(ask);
}

static void
answer_unreachable(struct probe_ask *ask, const struct err *err)
{
	struct probe_answer a = { .outcome = PROBE_UNREACHABLE, .text = slice_str(err->msg) };

	answer(ask, &a);
}

/* 552 or an enhanced code that is not of addresses (RFC 3463 section 3.2). */
static bool
is_other_reason(const struct smtp_outcome *o)
{
	return o->code == 552 || (o->enhanced[0] != '\0' && strncmp(o->enhanced, "5.1.", 4) != 0);
}

/* Only a refusal of RCPT speaks of the recipient; a refused MAIL FROM:<> says that the hop
 * cannot be asked. */
static enum probe_outcome
outcome_of(const struct smtp_outcome *o)
{
	if (o->code >= 200 && o->code < 300)
		return PROBE_KNOWN;
	if (o->code >= 500 && (o->local || strcmp(o->command, "RCPT") == 0))
		return is_other_reason(o) ? PROBE_REFUSED : PROBE_UNKNOWN;
	return PROBE_UNREACHABLE;
}

static void
answer_replied(struct probe_ask *ask)
{
	const struct smtp_outcome *o = &ask->rcpt.outcome;
	struct probe_answer a = { .outcome = outcome_of(o), .code = o->code, .text = o->text };

	memcpy(a.enhanced, o->enhanced, sizeof(a.enhanced));
	answer(ask, &a);
}

static struct conn *
conn_of(struct probe_hop *hop, const struct peer *peer)
{
	for (size_t i = 0; i < PROBE_CONNECTIONS; i++)
		if (hop->conns[i].peer == peer)
			return &hop->conns[i];
	return NULL;
}

static void
on_sent(struct peer_send *send, const struct err *err)
{
	struct probe_ask *ask = container_of(send, struct probe_ask, send);
	struct probe_hop *hop = ask->hop;

	hop->sending--;
	ask->sending = false;
	if (ask->on_answer == NULL) {
		free(ask);
	} else if (ask->rcpt.outcome.code != 0) {
		answer_replied(ask);
	} else if (err->code != ERR_TIMEOUT && ++ask->tries < PROBE_TRIES_MAX &&
		   (send->untried || ask->tries < hop->n_addresses) && !hop->freed) {
		hop->failure = *err;
		wait_in_front(ask);
	} else {
		answer_unreachable(ask, err);
	}
	run_soon(hop);
}

static void
send_to(struct conn *conn, struct probe_ask *ask)
{
	struct slice path = slice_str(ask->path);
	bool ascii = true;

	for (size_t i = 0; i < path.len; i++)
		ascii = ascii && (unsigned char)path.p[i] < 0x80;
	wait_no_more(ask);
	ask->sending = true;
	ask->hop->sending++;
	ask->rcpt = (struct smtp_tx_rcpt){ .forward_path = path, .params = SLICE("") };
	ask->send = (struct peer_send){
		.tx = {
			.reverse_path = SLICE(""),
			.params = SLICE(""),
			.xid = SLICE(""),
			.xkey = SLICE(""),
			.flags = SMTP_TX_PROBE | (ascii ? 0 : SMTP_TX_UTF8),
			.rcpts = &ask->rcpt,
			.n_rcpts = 1,
		},
		.done = on_sent,
	};
	peer_send_start(conn->peer, &ask->send);
}

struct probe_ask *
probe_hop_ask(
    struct probe_hop *hop, struct slice forward_path, probe_on_answer *on_answer, void *owner)
{
	struct probe_ask *ask = calloc(1, sizeof(*ask) + forward_path.len + 1);

	if (ask == NULL)
		return NULL;
	ask->hop = hop;
	ask->on_answer = on_answer;
	ask->owner = owner;
	memcpy(ask->path, forward_path.p, forward_path.len);
	wait_at_end(ask);
	run_soon(hop);
	return ask;
}

void
probe_ask_drop(struct probe_ask *ask)
{
	ask->on_answer = NULL;
	if (ask->sending) {
		peer_send_cancel(&ask->send);
		return;
	}
	wait_no_more(ask);
	free(ask);
}

/* ---- where the hop is ----------------------------------------------------------------------- */

static void resolve_next(struct probe_hop *hop);

static void
on_resolved(struct nexthop_resolve *req, const struct err *err)
{
	struct probe_hop *hop = req->owner;
	const struct nexthop *target = &hop->targets[hop->target++];

	for (size_t i = 0; i < req->n && hop->n_addresses < ADDRESSES_MAX; i++) {
		struct address *a = &hop->addresses[hop->n_addresses++];

		*a = (struct address){ .addr = req->addresses[i].addr,
			.lmtp = target->lmtp,
			.implicit_tls = target->implicit_tls };
		(void)snprintf(a->host, sizeof(a->host), "%s", req->addresses[i].host); /* fits */
	}
	if (err != NULL)
		hop->failure = *err;
	resolve_next(hop);
}

static void
resolve_next(struct probe_hop *hop)
{
	hop->resolving = true;
	while (hop->target < hop->n_targets && !hop->freed) {
		hop->resolve = (struct nexthop_resolve){
			.done = on_resolved, .owner = hop, .hostname = hop->options.hostname
		};
		if (nexthop_resolve_start(hop->options.dns, &hop->resolve,
			&hop->targets[hop->target], &hop->failure) == 0)
			return;
		hop->target++;
	}
	hop->resolving = false;
	hop->at = 0;
	hop->resolved_ms = (int64_t)uv_now(hop->options.loop);
	if (hop->freed)
		free_if_done(hop);
	else
		run_soon(hop);
}

static bool
must_resolve(const struct probe_hop *hop)
{
	return hop->resolved_ms == 0 ||
	       (int64_t)uv_now(hop->options.loop) - hop->resolved_ms >= PROBE_RESOLVED_MS;
}

/* ---- connections ---------------------------------------------------------------------------- */

static void
on_peer_ready(struct peer *peer, void *owner)
{
	struct conn *conn = owner;

	(void)peer; /* that of conn */
	conn->was_ready = true;
	run_soon(conn->hop);
}

/* New connections leave an address that did not answer for the next one. */
static void
leave_address(struct probe_hop *hop, size_t address)
{
	if (address == hop->at && hop->n_addresses > 0)
		hop->at = (hop->at + 1) % hop->n_addresses;
}

static void
on_peer_closed(struct peer *peer, void *owner, const struct err *why)
{
	struct conn *conn = owner;
	struct probe_hop *hop = conn->hop;

	(void)peer; /* gone */
	if (!conn->was_ready) {
		hop->failure = *why;
		leave_address(hop, conn->address);
	}
	conn->peer = NULL;
	identity_unref(conn->identity);
	conn->identity = NULL;
	if (hop->freed)
		free_if_done(hop);
	else if (hop->first != NULL)
		run_soon(hop);
}

static const struct peer_ops peer_ops = {
	.on_ready = on_peer_ready,
	.on_close = on_peer_closed,
};

static struct conn *
open_conn(struct probe_hop *hop)
{
	struct conn *conn = conn_of(hop, NULL);
	const struct address *a = &hop->addresses[hop->at];
	struct peer_target target = {
		.addr = a->addr,
		.lmtp = a->lmtp,
		.tls = a->implicit_tls                ? SMTP_CLIENT_TLS_MUST
		       : a->addr.ss_family == AF_UNIX ? SMTP_CLIENT_TLS_OFF
						      : hop->tls,
		.any_certificate = hop->any_certificate,
		.implicit_tls = a->implicit_tls,
		.tls_client = hop->options.tls_client,
		.tls_name = a->host,
		.hostname = hop->options.hostname,
		.connect_ms = hop->options.timeout_ms / 2,
		.reply_ms = hop->options.timeout_ms,
		.idle_ms = IDLE_MS,
	};

	if (conn == NULL)
		return NULL;
	*conn = (struct conn){ .hop = hop, .address = hop->at };
	if (hop->identity != NULL) {
		conn->identity = identity_ref(hop->identity);
		target.login = identity_login(hop->identity);
	}
	conn->peer = peer_open(hop->options.loop, &target, &peer_ops, conn, &hop->failure);
	if (conn->peer == NULL) {
		identity_unref(conn->identity);
		conn->identity = NULL;
		leave_address(hop, conn->address);
	}
	return conn;
}

/* A connection that takes a question now, or NULL. */
static struct conn *
find_conn(struct probe_hop *hop)
{
	for (size_t i = 0; i < PROBE_CONNECTIONS; i++)
		if (hop->conns[i].peer != NULL && peer_can_send(hop->conns[i].peer))
			return &hop->conns[i];
	return NULL;
}

static void
fail_first(struct probe_hop *hop)
{
	struct probe_ask *ask = hop->first;

	wait_no_more(ask);
	answer_unreachable(ask, &hop->failure);
}

static void
begin_resolving(struct probe_hop *hop)
{
	hop->target = hop->n_addresses = 0;
	resolve_next(hop);
}

static void
run(struct probe_hop *hop)
{
	struct conn *conn;

	while (hop->first != NULL && !hop->resolving && !hop->freed) {
		if (must_resolve(hop)) {
			begin_resolving(hop);
			return;
		}
		if (hop->n_addresses == 0) {
			hop->resolved_ms = 0; /* for the next question */
			while (hop->first != NULL)
				fail_first(hop);
			return;
		}
		conn = find_conn(hop);
		if (conn == NULL && (conn = open_conn(hop)) == NULL)
			return; /* all are busy: on_peer_ready() comes back */
		if (conn->peer != NULL)
			send_to(conn, hop->first);
		else if (++hop->first->tries >= PROBE_TRIES_MAX ||
			 hop->first->tries >= hop->n_addresses)
			fail_first(hop);
	}
	free_if_done(hop);
}

static void
run_task(struct round_task *task)
{
	run(container_of(task, struct probe_hop, work));
}

/* ---- the beginning -------------------------------------------------------------------------- */

static int
parse_targets(
    struct probe_hop *hop, const struct config_route *route, struct slice domain, struct err *err)
{
	if (route->to.n == 0 || route->to.n > TARGETS_MAX)
		return err_set(
		    err, ERR_CONFIG, "route %s: 1 to %d next hops", route->domain, TARGETS_MAX);
	for (size_t i = 0; i < route->to.n; i++) {
		struct nexthop *target = &hop->targets[i];

		if (nexthop_parse(route->to.v[i], target, err) < 0 ||
		    (target->mx && nexthop_mx(target, domain, err) < 0))
			return -1;
	}
	hop->n_targets = route->to.n;
	return 0;
}

static enum smtp_client_tls
tls_of(enum config_tls tls)
{
	switch (tls) {
	case CONFIG_TLS_VERIFY:
	case CONFIG_TLS_REQUIRED:
		return SMTP_CLIENT_TLS_MUST;
	case CONFIG_TLS_OFF:
		return SMTP_CLIENT_TLS_OFF;
	default:
		return SMTP_CLIENT_TLS_TRY;
	}
}

void
probe_hop_renew(struct probe_hop *hop, const struct config_route *route)
{
	struct identity *fresh;

	if (identity_is_of(hop->identity, route))
		return;
	fresh = route->login != NULL ? identity_of(route, NULL) : NULL;
	if (fresh == NULL && route->login != NULL)
		return; /* no memory: the old one may do */
	identity_unref(hop->identity);
	hop->identity = fresh;
}

struct probe_hop *
probe_hop_new(const struct probe_hop_options *options, const struct config_route *route,
    struct slice domain, struct err *err)
{
	struct probe_hop *hop = calloc(1, sizeof(*hop));

	if (hop == NULL || (hop->round = round_ref(options->loop)) == NULL) {
		free(hop);
		err_set(err, ERR_NOMEM, "out of memory");
		return NULL;
	}
	hop->options = *options;
	hop->tls = tls_of(route->tls);
	hop->any_certificate = route->tls != CONFIG_TLS_VERIFY;
	hop->work.run = run_task;
	if ((route->login != NULL && (hop->identity = identity_of(route, err)) == NULL) ||
	    parse_targets(hop, route, domain, err) < 0) {
		identity_unref(hop->identity);
		round_unref(hop->round);
		free(hop);
		return NULL;
	}
	if (hop->options.tls_client != NULL)
		tls_client_ref(hop->options.tls_client);
	return hop;
}
