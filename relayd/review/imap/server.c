/* relayd/review/imap/server.c - glue: IMAP sessions over streams. */
#include "relayd/review/imap/server.h"

#include "relayd/core/cidr.h"
#include "relayd/core/clock.h"
#include "relayd/core/log.h"
#include "relayd/net/round.h"
#include "relayd/review/guests.h"
#include "relayd/review/imap/session.h"

#include <stdio.h>
#include <stdlib.h>

#define OUT_HIGH     IMAP_OUT_BYTES /* so much output waits: no more for now */
#define DRAIN_MS     10000          /* for a command that runs when the role is to end */
#define HOSTNAME_MAX 256

struct imap_server {
	struct imap_server_options options;
	char hostname[HOSTNAME_MAX];
	struct round *round;
	struct guests guests;
};

struct client {
	struct guest guest;           /* first: see guests.h */
	struct imap_session *session; /* NULL before the greeting, and when it has closed */
	struct login_try *login;      /* while one is under way */
	struct round_task progress;
};

/* ---- the end --------------------------------------------------------------------------------- */

static struct imap_server *
server_of(const struct client *c)
{
	return container_of(c->guest.all, struct imap_server, guests);
}

/* Frees the client when connection, session and login are all over. */
static void
release(struct client *c)
{
	if (c->guest.stream != NULL || c->session != NULL || c->login != NULL)
		return;
	round_unmark(server_of(c)->round, &c->progress);
	guest_free(&c->guest);
}

/* ---- between stream and session -------------------------------------------------------------- */

static struct buf *
session_out(void *owner)
{
	struct client *c = owner;

	return stream_out(c->guest.stream);
}

static bool
session_is_full(void *owner)
{
	struct client *c = owner;

	return c->guest.stream == NULL || stream_pending(c->guest.stream) >= OUT_HIGH;
}

static void
session_on_progress(void *owner)
{
	struct client *c = owner;

	round_mark(server_of(c)->round, &c->progress, ROUND_WORK);
}

static void
session_on_bye(void *owner)
{
	struct client *c = owner;

	stream_end(c->guest.stream);
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
	if (!c->guest.all->draining)
		stream_deadline(
		    c->guest.stream, clock_mono_ms() + imap_session_patience_ms(c->session));
}

/* Goes on with what waited for a request or for room, then with the input that waited for that. */
static void
go_on(struct client *c)
{
	if (c->guest.stream == NULL || c->session == NULL)
		return;
	imap_session_run(c->session);
	be_patient(c);
	if (stream_kept(c->guest.stream) > 0 && imap_session_is_waiting(c->session))
		stream_resume(c->guest.stream);
}

static void
on_progress(struct round_task *task)
{
	go_on(container_of(task, struct client, progress));
}

/* ---- login ----------------------------------------------------------------------------------- */

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
	if (c->guest.stream == NULL || c->session == NULL)
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
		stream_close(c->guest.stream);
		return;
	}
	try->client = c;
	try->check = (struct login_check){ .user = user,
		.password = password,
		.proof = proof,
		.client_addr = guest_addr(&c->guest),
		.service = "imap",
		.session = c->guest.session,
		.done = on_login_checked };
	c->login = try;
	login_check_start(server_of(c)->options.login, &try->check);
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
	about->hostname = server_of(c)->hostname;
	login_about(server_of(c)->options.login, c->guest.stream, about);
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

/* ---- the stream ------------------------------------------------------------------------------ */

static void
on_begin(struct guest *guest)
{
	struct client *c = container_of(guest, struct client, guest);
	const struct imap_session_options options = {
		.store = server_of(c)->options.store,
		.ops = &session_ops,
		.owner = c,
		.hostname = server_of(c)->hostname,
		.may_login = guest_is_private(guest),
	};

	c->progress.run = on_progress;
	c->session = imap_session_open(&options);
	if (c->session == NULL)
		stream_close(guest->stream);
	else
		be_patient(c);
}

static void
on_goodbye(struct guest *guest)
{
	struct client *c = container_of(guest, struct client, guest);

	stream_deadline(guest->stream, clock_mono_ms() + DRAIN_MS);
	if (c->session == NULL)
		stream_close(guest->stream);
	else
		imap_session_bye(c->session, "The server is going down");
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
	guest_leaves(&c->guest, why);
	if (c->login != NULL)
		login_check_cancel(&c->login->check);
	if (c->session != NULL)
		imap_session_close(c->session); /* then session_on_closed(), now or later */
	else
		release(c);
}

static const struct stream_ops stream_ops = {
	.on_read = on_read,
	.on_drain = on_drain,
	.on_tls = guest_on_tls,
	.on_deadline = on_deadline,
	.on_close = on_close,
};

/* ---- connections ----------------------------------------------------------------------------- */

static const struct guests_service service = {
	.name = "imap",
	.name_tls = "imaps",
	.bytes = sizeof(struct client),
	.told = true,
	.open = COUNTER_IMAP_OPEN,
	.stream = &stream_ops,
	.on_begin = on_begin,
	.on_goodbye = on_goodbye,
	.busy = "* BYE [UNAVAILABLE] Too many connections, or going down: try later\r\n",
};

static void
lose_login(struct client *c)
{
	char ip[IP_TEXT_BYTES];

	ip_text(guest_addr(&c->guest), ip);
	log_event("auth.fail", kv_id("session", c->guest.session), kv_str("service", "imap"),
	    kv_str("ip", ip), kv_slice("user", slice_str(imap_session_user(c->session))),
	    kv_str("why", "removed"));
	imap_session_bye(c->session, "Your login does not hold any more; log in again");
}

/* A session may last for days: who is gone from the users, or sees other mail now, does not read
 * on. */
static void
look_at_logins(struct imap_server *sv)
{
	for (struct guest *g = sv->guests.first; g != NULL; g = g->next) {
		struct client *c = container_of(g, struct client, guest);

		if (g->stream != NULL && c->session != NULL &&
		    imap_session_user(c->session)[0] != '\0' &&
		    !login_holds(sv->options.login, imap_session_user(c->session),
			imap_session_scope(c->session)))
			lose_login(c);
	}
}

void
imap_server_reload(struct imap_server *sv, const char *hostname, struct tls_server *tls)
{
	(void)snprintf(sv->hostname, sizeof(sv->hostname), "%s", hostname); /* cut if need be */
	guests_set_tls(&sv->guests, tls);
	look_at_logins(sv);
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
	sv->options.tls = NULL; /* the guests hold it */
	guests_init(&sv->guests, &service, options->loop, options->visitors);
	imap_server_reload(sv, options->hostname, options->tls);
	return sv;
}

struct guests *
imap_server_guests(struct imap_server *sv)
{
	return &sv->guests;
}

void
imap_server_free(struct imap_server *sv)
{
	if (sv == NULL)
		return;
	guests_fini(&sv->guests);
	round_unref(sv->round);
	free(sv);
}
