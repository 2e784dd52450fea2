/* relayd/review/lmtp.c - mail in: LMTP from delivery over a unix socket, into the store. */
#include "relayd/review/lmtp.h"

#include "relayd/core/counters.h"
#include "relayd/core/log.h"
#include "relayd/net/listener.h"
#include "relayd/smtp/server.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define TX_BYTES_MAX      ((size_t)LMTP_RCPTS_MAX * (ADDRESS_PATH_MAX + SMTP_PARAMS_MAX + 128))
#define DATA_BYTES_MAX    (LMTP_STAGE_BYTES + STREAM_READ_BYTES + STREAM_KEEP_BYTES)
#define HOSTNAME_MAX      256
/* Whatever intake let in, and our fields on top of it, fits: the limit of a message is intake's. */
#define MESSAGE_BYTES_MAX ((uint64_t)1 << 37)

struct session {
	struct lmtp *lmtp;
	struct session *next, **prev;
	struct smtp_server *server; /* NULL: the connection is gone */
	struct id id;               /* of the message */
	struct arena tx;
	struct slice reverse_path, params;
	bool utf8, require_tls;
	struct store_rcpt *rcpts;
	size_t n_rcpts, cap_rcpts;
	struct buf data;    /* received, not yet staged */
	struct buf staging; /* on its way to the store */
	int64_t body;       /* staged so far */
	struct store_stage stage;
	struct store_put put;
	bool is_staging, is_putting;
	bool whole; /* on_body() came: put when nothing is staged any more */
	bool eight_bit, binary;
	bool dropped;      /* the transaction ended while its data was being staged */
	struct err failed; /* staging did, or memory ran out: the answer to on_body() */
};

struct lmtp {
	struct lmtp_options options;
	char hostname[HOSTNAME_MAX];
	struct smtp_service service;
	struct listener *listener;
	struct session *sessions;
	size_t n_sessions;
	void (*on_drained)(void *arg);
	void *drained_arg;
};

/* ---- the end of a session -------------------------------------------------------------------- */

static void
check_drained(struct lmtp *l)
{
	void (*done)(void *) = l->on_drained;

	if (done == NULL || l->n_sessions > 0)
		return;
	l->on_drained = NULL;
	done(l->drained_arg);
}

/* Frees the session when neither the connection nor the store has it any more. */
static void
release(struct session *s)
{
	struct lmtp *l = s->lmtp;

	if (s->server != NULL || s->is_staging || s->is_putting)
		return;
	if (s->next != NULL)
		s->next->prev = s->prev;
	*s->prev = s->next;
	arena_fini(&s->tx);
	buf_fini(&s->data);
	buf_fini(&s->staging);
	free(s);
	l->n_sessions--;
	counter_add(COUNTER_SESSIONS_OPEN, -1);
	check_drained(l);
}

/* ---- the transaction ------------------------------------------------------------------------- */

static void
tx_reset(struct session *s)
{
	arena_reset(&s->tx);
	s->rcpts = NULL;
	s->n_rcpts = s->cap_rcpts = 0;
	s->reverse_path = s->params = SLICE("");
	s->utf8 = s->require_tls = false;
	buf_fini(&s->data);
	buf_fini(&s->staging);
	s->data = buf_heap(DATA_BYTES_MAX);
	s->body = 0;
	s->whole = s->eight_bit = s->binary = s->dropped = false;
	s->failed = (struct err){ 0 };
}

static void
answer(struct session *s, unsigned code, const char *enhanced, struct slice text)
{
	struct smtp_answer a = { .code = code, .enhanced = enhanced, .text = text };

	smtp_server_answer(s->server, &a);
}

/* One reply for all recipients: they were stored in one commit, or none was. */
static void
answer_all(struct session *s, const struct err *err)
{
	char id[ID_TEXT_LEN + 1], held[64];
	struct smtp_answer a = { .code = 250, .enhanced = "2.0.0" };
	struct smtp_answer *each = calloc(s->n_rcpts + 1, sizeof(*each));

	id_text(s->id, id);
	(void)snprintf(held, sizeof(held), "held as %s", id); /* fits */
	a.text = slice_str(held);
	if (err->code == ERR_FULL)
		a = (struct smtp_answer){
			.code = 452, .enhanced = "4.3.1", .text = SLICE("the quarantine is full")
		};
	else if (err->code != ERR_NONE)
		a = (struct smtp_answer){
			.code = 451, .enhanced = "4.3.0", .text = slice_str(err->msg)
		};
	if (each == NULL) {
		smtp_server_close(s->server); /* no answer: delivery keeps the message */
		return;
	}
	for (size_t i = 0; i < s->n_rcpts; i++)
		each[i] = a;
	smtp_server_answer_each(s->server, each, s->n_rcpts, NULL);
	free(each);
}

static void
log_stored(const struct store_put *put)
{
	counter_add(COUNTER_STORED, 1);
	log_event("quarantine.stored", kv_id("id", put->id), kv_slice("from", put->reverse_path),
	    kv_slice("rcpt", put->rcpts[0].forward_path), kv_int("rcpts", (int64_t)put->n_rcpts),
	    kv_int("new", (int64_t)put->n_new), kv_int("size", (int64_t)put->size));
}

static void
on_put(struct store_put *put)
{
	struct session *s = container_of(put, struct session, put);

	s->is_putting = false;
	if (put->req.err.code == ERR_NONE) {
		s->body = 0; /* the item's now, or dropped as a redo */
		if (put->n_new > 0)
			log_stored(put);
	}
	if (s->server != NULL)
		answer_all(s, &put->req.err);
	else if (s->body != 0)
		store_unstage(s->lmtp->options.store, s->body);
	release(s);
}

/* What a release has to say at MAIL, as if it came from the client again. */
static struct slice
params_of(struct session *s)
{
	char storage[SMTP_PARAMS_MAX + 100];
	struct buf b = buf_over(storage, sizeof(storage));

	if (s->binary)
		buf_puts(&b, " BODY=BINARYMIME");
	else if (s->eight_bit)
		buf_puts(&b, " BODY=8BITMIME");
	if (s->utf8)
		buf_puts(&b, " SMTPUTF8");
	if (s->require_tls)
		buf_puts(&b, " REQUIRETLS");
	if (s->params.len > 0) {
		buf_putc(&b, ' ');
		buf_put(&b, s->params);
	}
	return arena_copy(&s->tx, slice_trim(buf_slice(&b)));
}

static void
start_put(struct session *s)
{
	struct slice params = params_of(s);

	if (params.p == NULL) {
		answer_all(s, &(struct err){ .code = ERR_NOMEM, .msg = "out of memory" });
		return;
	}
	s->is_putting = true;
	s->put = (struct store_put){ .id = s->id,
		.body = s->body,
		.bytes = buf_slice(&s->data),
		.reverse_path = s->reverse_path,
		.params = params,
		.rcpts = s->rcpts,
		.n_rcpts = s->n_rcpts,
		.done = on_put };
	store_put(s->lmtp->options.store, &s->put);
}

static void
finish(struct session *s)
{
	if (s->failed.code != ERR_NONE)
		answer_all(s, &s->failed);
	else
		start_put(s);
}

static void
on_staged(struct store_stage *stage)
{
	struct session *s = container_of(stage, struct session, stage);

	s->is_staging = false;
	buf_fini(&s->staging);
	if (stage->req.err.code != ERR_NONE)
		s->failed = stage->req.err;
	if (s->dropped) {
		store_unstage(s->lmtp->options.store, s->body);
		tx_reset(s);
	}
	if (s->server != NULL)
		smtp_server_hold(s->server, false);
	if (s->server != NULL && s->whole)
		finish(s);
	release(s);
}

/* What is whole chunks of the data goes to the store, and nothing more is read meanwhile. */
static void
start_staging(struct session *s)
{
	size_t whole = s->data.len - s->data.len % STORE_CHUNK_BYTES;
	struct slice rest = slice_drop(buf_slice(&s->data), whole);

	s->staging = s->data;
	s->staging.len = whole;
	s->data = buf_heap(DATA_BYTES_MAX);
	buf_put(&s->data, rest);
	s->is_staging = true;
	s->stage = (struct store_stage){
		.body = &s->body, .bytes = buf_slice(&s->staging), .done = on_staged
	};
	smtp_server_hold(s->server, true);
	store_stage(s->lmtp->options.store, &s->stage);
}

/* ---- questions of the session ---------------------------------------------------------------- */

static bool
is_welcome(const struct session *s)
{
	uid_t uid = stream_peer_uid(smtp_server_stream(s->server));

	return uid == 0 || uid == geteuid() || uid == s->lmtp->options.peer_uid;
}

static void
on_connect(void *user)
{
	struct session *s = user;

	if (!is_welcome(s))
		answer(s, 554, "5.7.1", SLICE("this socket is for relayd's own delivery"));
	else if (s->lmtp->on_drained != NULL || s->lmtp->n_sessions > LMTP_SESSIONS_MAX)
		answer(s, 421, "4.3.2", SLICE("too many connections, or closing down"));
	else
		answer(s, 220, "", SLICE(""));
}

static void
on_helo(void *user, struct slice name, bool extended)
{
	(void)name; /* delivery's hostname: ours */
	(void)extended;
	answer(user, 250, "", SLICE(""));
}

static void
on_mail(void *user, const struct smtp_mail *mail)
{
	struct session *s = user;

	tx_reset(s);
	s->id = mail->has_origin ? mail->origin : id_new();
	s->reverse_path = arena_copy(&s->tx, mail->reverse_path.mailbox);
	s->params = arena_copy(&s->tx, mail->params);
	s->utf8 = mail->utf8;
	s->require_tls = mail->require_tls;
	smtp_session_name(smtp_server_session(s->server), s->id);
	if (s->reverse_path.p == NULL || s->params.p == NULL)
		answer(s, 452, "4.3.1", SLICE("out of memory"));
	else
		answer(s, 250, "2.1.0", SLICE(""));
}

static bool
add_rcpt(struct session *s, const struct smtp_rcpt *rcpt)
{
	struct slice copy = arena_copy(&s->tx, rcpt->forward_path.mailbox);
	struct slice params = arena_copy(&s->tx, rcpt->params);
	struct store_rcpt *v = arena_grow(&s->tx, s->rcpts, s->n_rcpts, &s->cap_rcpts, sizeof(*v));

	if (v == NULL || copy.p == NULL || params.p == NULL)
		return false;
	s->rcpts = v;
	s->rcpts[s->n_rcpts++] = (struct store_rcpt){ .forward_path = copy, .params = params };
	return true;
}

static void
on_rcpt(void *user, const struct smtp_rcpt *rcpt)
{
	struct session *s = user;

	if (add_rcpt(s, rcpt))
		answer(s, 250, "2.1.5", SLICE(""));
	else
		answer(s, 452, "4.5.3", SLICE("too many recipients"));
}

static void
on_data(void *user)
{
	answer(user, 354, "", SLICE(""));
}

static void
on_bytes(void *user, struct slice bytes)
{
	struct session *s = user;

	buf_put(&s->data, bytes);
	if (s->data.overflow && s->failed.code == ERR_NONE)
		(void)err_set(&s->failed, ERR_NOMEM, "out of memory");
	if (s->data.len >= LMTP_STAGE_BYTES && !s->is_staging && s->failed.code == ERR_NONE)
		start_staging(s);
}

static void
on_body(void *user, const struct smtp_body *body)
{
	struct session *s = user;

	s->whole = true;
	s->eight_bit = body->eight_bit;
	s->binary = body->binary;
	if (!s->is_staging)
		finish(s);
}

static void
on_reset(void *user, enum smtp_reset how, const char *why)
{
	struct session *s = user;

	(void)how; /* nothing of a transaction outlives it */
	(void)why;
	if (s->is_putting)
		return; /* only when the connection is gone: on_put() ends it */
	if (s->is_staging) {
		s->dropped = true;
		return;
	}
	store_unstage(s->lmtp->options.store, s->body);
	tx_reset(s);
}

static void
on_closed(void *user, const struct err *why)
{
	struct session *s = user;

	(void)why; /* delivery tells */
	s->server = NULL;
	release(s);
}

/* ---- connections ----------------------------------------------------------------------------- */

static const struct smtp_server_ops ops = {
	.session = { .on_connect = on_connect,
	    .on_helo = on_helo,
	    .on_mail = on_mail,
	    .on_rcpt = on_rcpt,
	    .on_data = on_data,
	    .on_bytes = on_bytes,
	    .on_body = on_body,
	    .on_reset = on_reset },
	.on_closed = on_closed,
};

static struct session *
session_new(struct lmtp *l)
{
	struct session *s = calloc(1, sizeof(*s));

	if (s == NULL)
		return NULL;
	s->lmtp = l;
	s->tx = arena_of(TX_BYTES_MAX);
	tx_reset(s);
	s->next = l->sessions;
	s->prev = &l->sessions;
	if (s->next != NULL)
		s->next->prev = &s->next;
	l->sessions = s;
	l->n_sessions++;
	counter_add(COUNTER_SESSIONS_OPEN, 1);
	return s;
}

static void
on_accept(void *owner, int fd, const struct sockaddr *peer)
{
	struct lmtp *l = owner;
	struct session *s = session_new(l);
	struct smtp_server_setup setup = { .loop = l->options.loop,
		.fd = fd,
		.ops = &ops,
		.user = s,
		.service = &l->service,
		.id = id_new() };
	struct err err = { 0 };

	(void)peer; /* nothing depends on it */
	if (s == NULL) {
		(void)close(fd); /* delivery tries again */
		return;
	}
	s->server = smtp_server_open(&setup, &err);
	if (s->server == NULL) {
		log_event("limit", kv_str("what", "lmtp"), kv_err("error", &err));
		release(s);
		return;
	}
	smtp_server_start(s->server);
}

struct lmtp *
lmtp_open(const struct lmtp_options *options, struct err *err)
{
	struct lmtp *l = calloc(1, sizeof(*l));
	struct buf hostname;

	if (l == NULL) {
		(void)err_set(err, ERR_NOMEM, "lmtp: out of memory");
		return NULL;
	}
	l->options = *options;
	hostname = buf_over(l->hostname, HOSTNAME_MAX - 1); /* calloc ends it */
	buf_puts(&hostname, options->hostname);
	l->service = (struct smtp_service){ .kind = SMTP_KIND_LMTP,
		.hostname = l->hostname,
		.max_bytes = MESSAGE_BYTES_MAX,
		.max_rcpts = LMTP_RCPTS_MAX,
		.x_relayd = true,
		.extensions =
		    SMTP_EXT_CHUNKING | SMTP_EXT_DSN | SMTP_EXT_UTF8 | SMTP_EXT_REQUIRETLS };
	l->listener = listener_open(options->loop, options->fd, on_accept, l, err);
	if (l->listener == NULL) {
		free(l);
		return NULL;
	}
	return l;
}

static void
stop_listening(struct lmtp *l)
{
	listener_close(l->listener);
	l->listener = NULL;
}

void
lmtp_drain(struct lmtp *l, void (*done)(void *arg), void *arg)
{
	stop_listening(l);
	l->on_drained = done;
	l->drained_arg = arg;
	for (struct session *s = l->sessions; s != NULL; s = s->next)
		if (s->server != NULL)
			smtp_server_shutdown(s->server, SMTP_END_SERVICE);
	check_drained(l);
}

void
lmtp_close(struct lmtp *l)
{
	stop_listening(l);
	for (struct session *s = l->sessions; s != NULL; s = s->next)
		if (s->server != NULL)
			smtp_server_close(s->server);
}

bool
lmtp_is_idle(const struct lmtp *l)
{
	return l->n_sessions == 0;
}

void
lmtp_free(struct lmtp *l)
{
	free(l);
}
