/* relayd/review/imap/server.c - glue: IMAP sessions over streams. */
#include "relayd/review/imap/server.h"

#include "relayd/core/cidr.h"
#include "relayd/core/clock.h"
#include "relayd/core/counters.h"
#include "relayd/core/log.h"
#include "relayd/net/round.h"
#include "relayd/net/stream.h"
#include "relayd/review/imap/session.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define OUT_HIGH     IMAP_OUT_BYTES /* so much output waits: no more for now */
#define TLS_MS       30000          /* for a handshake */
#define DRAIN_MS     10000          /* for a command that runs when the role is to end */
#define HOSTNAME_MAX 256

struct imap_server {
	struct imap_server_options options;
	char hostname[HOSTNAME_MAX];
	struct round *round;
	struct client *clients;
	bool draining;
	void (*on_drained)(void *arg);
	void *drained_arg;
};

struct client {
	struct imap_server *server;
	struct client *next, **prev;
	struct stream *stream;        /* NULL: the connection is gone */
	struct imap_session *session; /* NULL before the greeting, and when it has closed */
	struct login_try *login;      /* while one is under way */
	struct round_task progress;
	struct id id;
	uint64_t ticket;
	uint8_t addr[16];
	size_t addr_len;
};

/* ---- the end -------------------------------------------------------------------------------------- */

static void
check_drained(struct imap_server *sv)
{
	void (*done)(void *) = sv->on_drained;

	if (done == NULL || sv->clients != NULL)
		return;
	sv->on_drained = NULL;
	done(sv->drained_arg);
}

/* Frees the client when connection, session and login are all over. */
static void
release(struct client *c)
{
	struct imap_server *sv = c->server;

	if (c->stream != NULL || c->session != NULL || c->login != NULL)
		return;
	round_unmark(sv->round, &c->progress);
	if (c->next != NULL)
		c->next->prev = c->prev;
	*c->prev = c->next;
	visitors_leave(sv->options.visitors, c->ticket);
	counter_add(COUNTER_IMAP_OPEN, -1);
	free(c);
	check_drained(sv);
}

/* ---- between stream and session ------------------------------------------------------------------- */

static struct buf *
session_out(void *owner)
{
	struct client *c = owner;

	return stream_out(c->stream);
}

static bool
session_is_full(void *owner)
{
	struct client *c = owner;

	return c->stream == NULL || stream_pending(c->stream) >= OUT_HIGH;
}

static void
session_on_progress(void *owner)
{
	struct client *c = owner;

	round_mark(c->server->round, &c->progress, ROUND_WORK);
}

static void
session_on_bye(void *owner)
{
	struct client *c = owner;

	stream_end(c->stream);
}

static void
session_on_closed(void *owner)
{
	struct client *c = owner;

	c->session = NULL;
	release(c);
}

static void
be_patient(struct client *c)
{
	if (!c->server->draining)
		stream_deadline(c->stream, clock_mono_ms() + imap_session_patience_ms(c->session));
}

/* Goes on with what waited for a request or for room, then with the input that waited for that. */
static void
go_on(struct client *c)
{
	if (c->stream == NULL || c->session == NULL)
		return;
	imap_session_run(c->session);
	be_patient(c);
	if (stream_kept(c->stream) > 0 && imap_session_is_waiting(c->session))
		stream_resume(c->stream);
}

static void
on_progress(struct round_task *task)
{
	go_on(container_of(task, struct client, progress));
}

/* ---- login ------------------------------------------------------------------------------------------- */

/* Large, and short-lived: not a part of every client. */
struct login_try {
	struct client *client;
	struct login_check check;
};

static void
on_login_checked(struct login_check *check)
{
	struct login_try *try = container_of(check, struct login_try, check);
	struct client *c = try->client;

	c->login = NULL;
	if (c->stream == NULL || c->session == NULL)
		release(c);
	else
		imap_session_login_done(c->session, check->name, check->ok ? check->scope : NULL,
		    check->why.msg, check->why.code == ERR_BUSY);
	free(try);
}

static void
try_login(struct client *c, struct slice user, struct slice password, enum login_proof proof)
{
	struct login_try *try = calloc(1, sizeof(*try));

	if (try == NULL) {
		stream_close(c->stream);
		return;
	}
	try->client = c;
	try->check = (struct login_check){ .user = user,
		.password = password,
		.proof = proof,
		.client_addr = slice_of(c->addr, c->addr_len),
		.service = "imap",
		.session = c->id,
		.done = on_login_checked };
	c->login = try;
	login_check_start(c->server->options.login, &try->check);
}

static void
session_login(void *owner, struct slice user, struct slice password)
{
	try_login(owner, user, password, LOGIN_PASSWORD);
}

static void
session_about(void *owner, struct sasl_about *about)
{
	struct client *c = owner;

	about->service = "imap";
	about->hostname = c->server->hostname;
	login_about(c->server->options.login, c->stream, about);
}

static void
session_proved(void *owner, struct slice user, bool ok)
{
	try_login(owner, user, SLICE(""), ok ? LOGIN_PROVEN : LOGIN_DISPROVEN);
}

static const struct imap_session_ops session_ops = {
	.out = session_out,
	.is_full = session_is_full,
	.on_progress = session_on_progress,
	.login = session_login,
	.about = session_about,
	.proved = session_proved,
	.on_bye = session_on_bye,
	.on_closed = session_on_closed,
};

/* ---- the stream ---------------------------------------------------------------------------------------- */

static bool
is_loopback(const struct client *c)
{
	static const uint8_t v6[16] = { [15] = 1 };

	if (c->addr_len == 4)
		return c->addr[0] == 127;
	return c->addr_len == 0 || memcmp(c->addr, v6, sizeof(v6)) == 0;
}

static void
greet(struct client *c)
{
	struct tls_info info;
	const struct imap_session_options options = {
		.store = c->server->options.store,
		.ops = &session_ops,
		.owner = c,
		.hostname = c->server->hostname,
		.may_login = stream_tls_info(c->stream, &info) || is_loopback(c),
	};

	c->session = imap_session_open(&options);
	if (c->session == NULL)
		stream_close(c->stream);
	else
		be_patient(c);
}

/* What the session does not take waits in the stream, and then the client, until go_on(). */
static size_t
on_read(struct stream *stream, void *owner, struct slice bytes)
{
	struct client *c = owner;
	size_t n;

	if (c->session == NULL)
		return 0;
	n = imap_session_read(c->session, bytes);
	if (n < bytes.len)
		stream_pause(stream);
	be_patient(c);
	return n;
}

static void
on_drain(struct stream *stream, void *owner)
{
	(void)stream;
	go_on(owner);
}

static void
on_tls(struct stream *stream, void *owner)
{
	(void)stream;
	greet(owner);
}

static void
on_deadline(struct stream *stream, void *owner)
{
	struct client *c = owner;

	if (c->session == NULL || !imap_session_is_waiting(c->session))
		stream_close(
		    stream); /* a handshake, or a client that does not read what it asked for */
	else
		imap_session_bye(c->session, "You were silent for too long");
}

static void
on_close(struct stream *stream, void *owner, const struct err *why)
{
	struct client *c = owner;

	(void)stream;
	log_event("disconnect", kv_id("session", c->id), kv_str("service", "imap"),
	    kv_str("why", why->code == ERR_NONE ? "done" : err_code_name(why->code)));
	if (c->login != NULL)
		login_check_cancel(&c->login->check);
	c->stream = NULL;
	if (c->session != NULL)
		imap_session_close(c->session); /* then session_on_closed(), now or later */
	else
		release(c);
}

static const struct stream_ops stream_ops = {
	.on_read = on_read,
	.on_drain = on_drain,
	.on_tls = on_tls,
	.on_deadline = on_deadline,
	.on_close = on_close,
};

/* ---- connections --------------------------------------------------------------------------------------- */

static struct client *
client_new(struct imap_server *sv, const struct sockaddr *peer)
{
	struct client *c = calloc(1, sizeof(*c));
	struct slice addr;

	if (c == NULL)
		return NULL;
	c->server = sv;
	c->id = id_new();
	c->progress.run = on_progress;
	addr = ip_of(peer, c->addr);
	if (addr.p != (const char *)c->addr)
		memcpy(c->addr, addr.p, addr.len);
	c->addr_len = addr.len;
	c->next = sv->clients;
	c->prev = &sv->clients;
	if (c->next != NULL)
		c->next->prev = &c->next;
	sv->clients = c;
	counter_add(COUNTER_IMAP_OPEN, 1);
	return c;
}

static void
begin(struct client *c, bool tls)
{
	char ip[IP_TEXT_BYTES];
	struct err err = { 0 };

	ip_text(slice_of(c->addr, c->addr_len), ip);
	log_event("connect", kv_id("session", c->id), kv_str("service", tls ? "imaps" : "imap"),
	    kv_str("ip", ip));
	if (!tls) {
		greet(c);
		return;
	}
	stream_deadline(c->stream, clock_mono_ms() + TLS_MS);
	if (c->server->options.tls == NULL ||
	    stream_tls_accept(c->stream, c->server->options.tls, &err) < 0)
		stream_close(c->stream);
}

static void
turn_away(struct imap_server *sv, int fd, uint64_t ticket, bool tls)
{
	static const char busy[] =
	    "* BYE [UNAVAILABLE] Too many connections, or going down: try later\r\n";

	if (!tls)
		(void)send(
		    fd, busy, sizeof(busy) - 1, MSG_NOSIGNAL); /* a courtesy: it closes anyway */
	(void)close(fd);                                       /* nothing that could be lost */
	visitors_leave(sv->options.visitors, ticket);
}

void
imap_server_accept(struct imap_server *sv, int fd, const struct sockaddr *peer, bool tls)
{
	uint64_t ticket = sv->draining ? 0 : visitors_join(sv->options.visitors, peer, "imap");
	struct client *c = ticket != 0 ? client_new(sv, peer) : NULL;
	struct err err = { 0 };

	if (c == NULL) {
		turn_away(sv, fd, ticket, tls);
		return;
	}
	c->ticket = ticket;
	c->stream = stream_open(sv->options.loop, fd, &stream_ops, c, &err);
	if (c->stream == NULL) {
		log_event("limit", kv_str("what", "imap"), kv_err("error", &err));
		release(c);
		return;
	}
	begin(c, tls);
}

void
imap_server_reload(struct imap_server *sv, const char *hostname, struct tls_server *tls)
{
	struct tls_server *old = sv->options.tls;

	(void)snprintf(sv->hostname, sizeof(sv->hostname), "%s", hostname); /* cut if need be */
	sv->options.tls = tls != NULL ? tls_server_ref(tls) : NULL;
	tls_server_unref(old);
}

struct imap_server *
imap_server_open(const struct imap_server_options *options, struct err *err)
{
	struct imap_server *sv = calloc(1, sizeof(*sv));

	if (sv != NULL)
		sv->round = round_ref(options->loop);
	if (sv == NULL || sv->round == NULL) {
		free(sv);
		(void)err_set(err, ERR_NOMEM, "imap: out of memory");
		return NULL;
	}
	sv->options = *options;
	sv->options.tls = NULL;
	imap_server_reload(sv, options->hostname, options->tls);
	return sv;
}

void
imap_server_drain(struct imap_server *sv, void (*done)(void *arg), void *arg)
{
	sv->draining = true;
	sv->on_drained = done;
	sv->drained_arg = arg;
	for (struct client *c = sv->clients; c != NULL; c = c->next) {
		if (c->stream == NULL)
			continue;
		stream_deadline(c->stream, clock_mono_ms() + DRAIN_MS);
		if (c->session == NULL)
			stream_close(c->stream);
		else
			imap_session_bye(c->session, "The server is going down");
	}
	check_drained(sv);
}

void
imap_server_close(struct imap_server *sv)
{
	sv->draining = true;
	for (struct client *c = sv->clients; c != NULL; c = c->next)
		if (c->stream != NULL)
			stream_close(c->stream);
}

bool
imap_server_is_idle(const struct imap_server *sv)
{
	return sv->clients == NULL;
}

void
imap_server_free(struct imap_server *sv)
{
	if (sv == NULL)
		return;
	tls_server_unref(sv->options.tls);
	round_unref(sv->round);
	free(sv);
}
