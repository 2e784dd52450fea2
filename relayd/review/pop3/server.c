/* relayd/review/pop3/server.c - glue: POP3 sessions over streams, the maildrop from the store. */
#include "relayd/review/pop3/server.h"

#include "relayd/core/clock.h"
#include "relayd/core/counters.h"
#include "relayd/core/log.h"
#include "relayd/review/guests.h"
#include "relayd/review/pop3/session.h"

#include <stdlib.h>

#define READ_BYTES   (256u << 10) /* of a message at a time */
#define HOSTNAME_MAX 256

struct pop3_server {
	struct pop3_server_options options;
	char hostname[HOSTNAME_MAX];
	struct pop3_settings settings;
	struct guests guests;
};

struct client {
	struct guest guest;           /* first: see guests.h */
	struct pop3_session *session; /* NULL before the greeting */
	unsigned requests;            /* under way */
	bool checking;                /* one of them is login */
	bool fetching;                /* a message is on its way, more of it is to be read */

	struct login_check login;
	struct store_box_open open;
	struct store_read read;
	struct store_move move;
	struct store_box *box;
	bool locked;
	int64_t *items;
	struct pop3_message *messages;
	size_t n;
	uint32_t *uids; /* that are to be dropped */
	uint64_t at;    /* of the message that is read */
	size_t index;
};

/* ---- the end --------------------------------------------------------------------------------- */

static struct pop3_server *
server_of(const struct client *c)
{
	return container_of(c->guest.all, struct pop3_server, guests);
}

static void
leave_box(struct client *c)
{
	if (c->locked)
		store_box_unlock(c->box);
	if (c->box != NULL)
		store_box_close(c->box);
	c->locked = false;
	c->box = NULL;
}

/* Frees the client when its connection and all requests are over. */
static void
release(struct client *c)
{
	if (c->guest.stream != NULL || c->requests > 0)
		return;
	leave_box(c);
	pop3_session_free(c->session);
	free(c->items);
	free(c->messages);
	free(c->uids);
	guest_free(&c->guest);
}

/* A request reported; false when there is nobody left to tell. */
static bool
reported(struct client *c)
{
	c->requests--;
	if (c->guest.stream != NULL)
		return true;
	release(c);
	return false;
}

/* ---- between stream and session -------------------------------------------------------------- */

static struct pop3_turn
turn_of(struct client *c)
{
	return (struct pop3_turn){ .now_ms = clock_mono_ms(), .out = stream_out(c->guest.stream) };
}

/* What comes behind an open question, or behind replies that nobody fetches, waits. */
static bool
input_waits(const struct client *c)
{
	return pop3_session_is_asking(c->session) || pop3_session_has_more(c->session) ||
	       stream_pending(c->guest.stream) >= POP3_OUT_HIGH;
}

/* After every call into the session: how long to wait, whether more is heard, and whether it is
 * over. */
static void
follow(struct client *c)
{
	int64_t deadline = pop3_session_deadline(c->session);

	if (pop3_session_is_over(c->session)) {
		stream_end(c->guest.stream);
		return;
	}
	if (input_waits(c))
		stream_pause(c->guest.stream);
	else
		stream_resume(c->guest.stream);
	/* A client that stops reading in the middle of a message is idle too. */
	stream_deadline(
	    c->guest.stream, deadline != INT64_MAX ? deadline : clock_mono_ms() + POP3_IDLE_MS);
}

static size_t
take(struct client *c, struct slice bytes)
{
	struct pop3_turn turn = turn_of(c);
	size_t n = pop3_session_input(c->session, &turn, bytes);

	follow(c);
	return n;
}

static void
refuse(struct client *c, const char *code, const char *text)
{
	struct pop3_turn turn = turn_of(c);

	pop3_refuse(c->session, &turn, code, text);
	follow(c);
}

/* ---- login ----------------------------------------------------------------------------------- */

static bool
copy_maildrop(struct client *c)
{
	const struct store_entry *entries = store_box_entries(c->box, &c->n);

	c->items = calloc(c->n + 1, sizeof(*c->items));
	c->messages = calloc(c->n + 1, sizeof(*c->messages));
	c->uids = calloc(c->n + 1, sizeof(*c->uids));
	if (c->items == NULL || c->messages == NULL || c->uids == NULL)
		return false;
	for (size_t i = 0; i < c->n; i++) {
		c->items[i] = entries[i].item;
		c->messages[i] =
		    (struct pop3_message){ .uid = entries[i].uid, .octets = entries[i].size };
	}
	return true;
}

static void
on_opened(struct store_box_open *open)
{
	struct client *c = container_of(open, struct client, open);
	struct pop3_turn turn;

	c->box = open->box;
	if (!reported(c))
		return;
	if (open->req.err.code != ERR_NONE) {
		refuse(c, "SYS/TEMP", open->req.err.msg);
		return;
	}
	c->locked = store_box_lock(c->box);
	if (!c->locked) {
		leave_box(c);
		refuse(c, "IN-USE", "another POP3 session has this mailbox");
		return;
	}
	if (!copy_maildrop(c)) {
		stream_close(c->guest.stream);
		return;
	}
	turn = turn_of(c);
	pop3_maildrop(c->session, &turn, c->messages, c->n, store_box_uidvalidity(c->box));
	follow(c);
}

static void
on_login_checked(struct login_check *check)
{
	struct client *c = container_of(check, struct client, login);

	c->checking = false;
	if (!reported(c))
		return;
	if (!check->ok) {
		refuse(c, check->why.code == ERR_BUSY ? "SYS/TEMP" : "AUTH", check->why.msg);
		return;
	}
	c->open = (struct store_box_open){
		.scope = slice_str(check->scope), .kind = STORE_INBOX, .done = on_opened
	};
	c->requests++;
	store_box_open(server_of(c)->options.store, &c->open);
}

static void
try_login(struct client *c, struct slice name, struct slice password, enum login_proof proof)
{
	c->login.user = name;
	c->login.password = password;
	c->login.proof = proof;
	c->login.client_addr = guest_addr(&c->guest);
	c->login.service = "pop3";
	c->login.session = c->guest.session;
	c->login.done = on_login_checked;
	c->checking = true;
	c->requests++;
	login_check_start(server_of(c)->options.login, &c->login);
}

static void
on_login(void *user, struct slice name, struct slice password)
{
	try_login(user, name, password, LOGIN_PASSWORD);
}

static void
on_about(void *user, struct sasl_about *about)
{
	struct client *c = user;

	login_about(server_of(c)->options.login, c->guest.stream, about);
}

static void
on_proved(void *user, struct slice name, bool ok)
{
	try_login(user, name, SLICE(""), ok ? LOGIN_PROVEN : LOGIN_DISPROVEN);
}

/* ---- messages -------------------------------------------------------------------------------- */

static void on_bytes(struct store_read *read);

static void
read_on(struct client *c)
{
	c->fetching = false;
	c->read = (struct store_read){ .box = c->box,
		.item = c->items[c->index],
		.from = c->at,
		.max = READ_BYTES,
		.done = on_bytes };
	c->requests++;
	store_read(server_of(c)->options.store, &c->read);
}

static void
read_failed(struct client *c, const struct err *err)
{
	log_event("limit", kv_str("what", "pop3-read"), kv_id("session", c->guest.session),
	    kv_err("error", err));
	if (c->at == 0)
		refuse(c,
		    err->code == ERR_NOT_FOUND || err->code == ERR_DAMAGED ? "SYS/PERM"
									   : "SYS/TEMP",
		    err->msg);
	else
		stream_close(
		    c->guest.stream); /* in the middle: the client must not take it for whole */
}

/* What was read is in the stream's output now; the next piece is read when that has left. */
static void
hand_on(struct client *c, struct slice bytes)
{
	struct pop3_turn turn = turn_of(c);

	c->at += bytes.len;
	c->fetching = pop3_body(
	    c->session, &turn, bytes, bytes.len == 0 || c->at >= c->messages[c->index].octets);
	if (!c->fetching)
		follow(c);
	else if (stream_pending(c->guest.stream) < POP3_OUT_HIGH)
		read_on(c);
	else
		follow(c);
}

static void
on_bytes(struct store_read *read)
{
	struct client *c = container_of(read, struct client, read);
	struct buf bytes = read->bytes; /* c and its request may be gone or in use again below */

	if (reported(c)) {
		if (read->req.err.code != ERR_NONE)
			read_failed(c, &read->req.err);
		else
			hand_on(c, buf_slice(&bytes));
	}
	buf_fini(&bytes);
}

static void
on_message(void *user, size_t index)
{
	struct client *c = user;

	c->index = index;
	c->at = 0;
	read_on(c);
}

/* ---- QUIT ------------------------------------------------------------------------------------ */

static void
on_moved(struct store_move *move)
{
	struct client *c = container_of(move, struct client, move);
	bool ok = move->req.err.code == ERR_NONE;
	struct pop3_turn turn;

	store_move_fini(move);
	if (!reported(c))
		return;
	turn = turn_of(c);
	pop3_updated(c->session, &turn, ok);
	follow(c);
}

static void
on_update(void *user)
{
	struct client *c = user;
	size_t n = 0;

	for (size_t i = 0; i < c->n; i++)
		if (pop3_is_deleted(c->session, i))
			c->uids[n++] = c->messages[i].uid;
	c->move = (struct store_move){ .box = c->box,
		.uids = c->uids,
		.n_uids = n,
		.to = STORE_TRASH,
		.actor = slice_str(c->login.name),
		.by = c,
		.done = on_moved };
	c->requests++;
	store_move(server_of(c)->options.store, &c->move);
}

static void
on_bad(void *user)
{
	(void)user;
	counter_add(COUNTER_BAD_COMMANDS, 1);
}

/* ---- the stream ------------------------------------------------------------------------------ */

static const struct pop3_ops session_ops = {
	.on_login = on_login,
	.on_about = on_about,
	.on_proved = on_proved,
	.on_message = on_message,
	.on_update = on_update,
	.on_bad = on_bad,
};

static void
on_begin(struct guest *guest)
{
	struct client *c = container_of(guest, struct client, guest);
	struct pop3_turn turn = turn_of(c);
	struct pop3_settings settings = server_of(c)->settings;

	settings.is_private = guest_is_private(guest);
	c->session = pop3_session_new(&settings, &session_ops, c, &turn);
	if (c->session == NULL)
		stream_close(guest->stream);
	else
		follow(c);
}

static void
on_goodbye(struct guest *guest)
{
	struct client *c = container_of(guest, struct client, guest);
	struct pop3_turn turn;

	if (c->session == NULL) {
		stream_close(guest->stream);
		return;
	}
	turn = turn_of(c);
	pop3_session_shutdown(c->session, &turn);
	follow(c);
}

static size_t
on_read(struct stream *stream, void *owner, struct slice bytes)
{
	struct client *c = owner;

	(void)stream;
	if (c->session == NULL)
		return 0;
	if (pop3_session_is_over(c->session))
		return bytes.len;
	return take(c, bytes);
}

static void
on_drain(struct stream *stream, void *owner)
{
	struct client *c = owner;

	(void)stream;
	if (c->session == NULL || pop3_session_is_over(c->session))
		return;
	if (c->fetching)
		read_on(c);
	else if (pop3_session_has_more(c->session))
		(void)take(c, SLICE("")); /* takes nothing of nothing */
	else
		follow(c);
}

static void
on_deadline(struct stream *stream, void *owner)
{
	struct client *c = owner;
	struct pop3_turn turn;

	if (c->session == NULL || pop3_session_is_asking(c->session)) {
		stream_close(stream);
		return;
	}
	turn = turn_of(c);
	pop3_session_tick(c->session, &turn);
	follow(c);
}

static void
on_close(struct stream *stream, void *owner, const struct err *why)
{
	struct client *c = owner;

	(void)stream;
	guest_leaves(&c->guest, why);
	if (c->checking)
		login_check_cancel(&c->login);
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
	.name = "pop3",
	.name_tls = "pop3s",
	.bytes = sizeof(struct client),
	.told = true,
	.open = COUNTER_POP3_OPEN,
	.stream = &stream_ops,
	.on_begin = on_begin,
	.on_goodbye = on_goodbye,
	.busy = "-ERR [SYS/TEMP] too many connections: try again later\r\n",
};

void
pop3_server_reload(struct pop3_server *sv, const struct config *cfg, struct tls_server *tls)
{
	struct buf hostname = buf_over(sv->hostname, HOSTNAME_MAX - 1);

	memset(sv->hostname, 0, sizeof(sv->hostname));
	buf_puts(&hostname, cfg->hostname);
	sv->settings = (struct pop3_settings){ .hostname = sv->hostname,
		.may_delete = cfg->review.pop3_delete,
		.keep_days = cfg->quarantine.keep_s / 86400 };
	guests_set_tls(&sv->guests, tls);
}

struct pop3_server *
pop3_server_open(const struct pop3_server_options *options, struct err *err)
{
	struct pop3_server *sv = calloc(1, sizeof(*sv));

	if (sv == NULL) {
		(void)err_set(err, ERR_NOMEM, "pop3: out of memory");
		return NULL;
	}
	sv->options = *options;
	sv->options.tls = NULL; /* the guests hold it */
	guests_init(&sv->guests, &service, options->loop, options->visitors);
	pop3_server_reload(sv, options->config, options->tls);
	sv->options.config = NULL;
	return sv;
}

struct guests *
pop3_server_guests(struct pop3_server *sv)
{
	return &sv->guests;
}

void
pop3_server_free(struct pop3_server *sv)
{
	if (sv == NULL)
		return;
	guests_fini(&sv->guests);
	free(sv);
}
