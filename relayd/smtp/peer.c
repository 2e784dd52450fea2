/* relayd/smtp/peer.c - glue: a connection to a next hop that sends message after message. */
#include "relayd/smtp/peer.h"

#include "relayd/core/counters.h"
#include "relayd/net/sockaddr.h"
#include "relayd/smtp/peer_internal.h"

#include <stdlib.h>

#define CONNECT_MS 30000 /* RFC 5321 section 4.5.3.2 leaves it to the operating system */
#define IDLE_MS    5000

/* ---- time ----------------------------------------------------------------------------------- */

void
peer_wait(struct peer *p, uint32_t ms)
{
	stream_deadline(p->stream, (int64_t)uv_now(p->loop) + ms);
}

static void
set_deadline(struct peer *p)
{
	uint32_t ms = smtp_client_timeout_ms(p->client);

	if (ms == 0)
		ms = p->target.idle_ms;
	else if (p->target.reply_ms != 0 && p->target.reply_ms < ms)
		ms = p->target.reply_ms;
	peer_wait(p, ms);
}

/* ---- the end -------------------------------------------------------------------------------- */

void
peer_drop(struct peer *p, enum err_code code, const char *what)
{
	if (p->closing)
		return;
	p->closing = true;
	if (p->why.code == ERR_NONE)
		err_set(&p->why, code, "%s", what);
	if (p->race != NULL)
		race_cancel(p->race);
	else
		stream_close(p->stream);
}

/* The client has said its last word. */
static void
session_over(struct peer *p)
{
	struct smtp_outcome reply;
	const struct err *err = smtp_client_error(p->client, &reply);

	p->closing = true;
	if (p->why.code == ERR_NONE)
		p->why = *err;
	p->refusal = reply;
	memcpy(p->refusal_text, reply.text.p, reply.text.len);
	p->refusal.text = slice_of(p->refusal_text, reply.text.len);
	if (peer_runs_wait(p))
		stream_close(p->stream);
	else
		stream_end(p->stream);
}

void
peer_gone(struct peer *p)
{
	struct err why = p->why;

	p->closing = true;
	p->stream = NULL;
	round_unmark(p->round, &p->work);
	peer_fail_sends(p);
	peer_tell_dropped(p);
	if (p->ops != NULL && p->ops->on_close != NULL)
		p->ops->on_close(p, p->owner, &why);
	smtp_client_free(p->client);
	tls_client_unref(p->target.tls_client);
	round_unref(p->round);
	free(p);
}

/* ---- transactions --------------------------------------------------------------------------- */

/* Hands the client what it takes. */
static void
begin_sends(struct peer *p)
{
	struct buf *out;
	size_t at;

	if (!p->ready || p->closing)
		return;
	out = stream_out(p->stream);
	at = out->len;
	while (
	    p->ready && !p->closing && p->n_begun < p->n_sends && smtp_client_can_send(p->client))
		smtp_client_send(p->client, &peer_nth_send(p, p->n_begun++)->tx, out);
	dialogue_note(&p->dialogue, 'C', slice_drop(buf_slice(out), at), false);
	/* Those that a used-up session leaves go to another one: peer_fail_sends() calls them
	 * untried. */
	if (p->ready && smtp_client_used_up(p->client))
		p->quitting = true;
	if (p->ready && p->quitting && !p->closing &&
	    (p->n_begun == p->n_sends || smtp_client_used_up(p->client)))
		smtp_client_quit(p->client, stream_out(p->stream));
}

static void
tell_ready(struct peer *p)
{
	if (p->ops != NULL && p->ops->on_ready != NULL && peer_can_send(p))
		p->ops->on_ready(p, p->owner);
}

static void
first_done(struct peer *p)
{
	if (peer_runs_wait(p)) {
		peer_drop(p, ERR_PROTOCOL, "the peer answered before it had the message");
		peer_forget_yes(p->first);
	}
	peer_end_send(p);
	begin_sends(p);
	tell_ready(p);
}

/* ---- the session ---------------------------------------------------------------------------- */

static void
shake_hands(struct peer *p)
{
	enum tls_verify verify = p->target.tls == SMTP_CLIENT_TLS_MUST && !p->target.any_certificate
				     ? TLS_VERIFY_HOST
				     : TLS_VERIFY_NONE;
	struct err err = { 0 };

	p->shaking = true;
	if (stream_tls_connect(p->stream, p->target.tls_client, verify, p->target.tls_name, &err) <
	    0)
		peer_drop(p, ERR_TLS, err.msg);
}

static bool
run_event(struct peer *p, enum smtp_client_event event)
{
	switch (event) {
	case SMTP_CLIENT_MORE:
		return false;
	case SMTP_CLIENT_TLS:
		shake_hands(p);
		return false;
	case SMTP_CLIENT_READY:
		p->ready = true;
		begin_sends(p);
		tell_ready(p);
		return true;
	case SMTP_CLIENT_BODY:
		p->body = p->first;
		peer_write_body(p);
		return true;
	case SMTP_CLIENT_DONE:
		first_done(p);
		return true;
	case SMTP_CLIENT_CLOSE:
		session_over(p);
		return false;
	}
	return false;
}

static enum smtp_client_event
step(struct peer *p, struct slice *in)
{
	struct buf *out = stream_out(p->stream);
	struct slice before = *in;
	size_t at = out->len;
	bool login = smtp_client_logging_in(p->client);
	enum smtp_client_event event = smtp_client_step(p->client, in, out);

	login = login || smtp_client_logging_in(p->client);
	dialogue_note(&p->dialogue, 'S', slice_head(before, before.len - in->len), login);
	dialogue_note(&p->dialogue, 'C', slice_drop(buf_slice(out), at), login);
	return event;
}

static void
pump(struct peer *p, struct slice *in)
{
	p->pumping = true;
	while (!p->closing && run_event(p, step(p, in)))
		;
	p->pumping = false;
}

/* We did something, and what is awaited has its full time. */
static void
pump_on(struct peer *p)
{
	struct slice none = SLICE("");

	pump(p, &none);
	if (!p->closing)
		set_deadline(p);
}

static void
on_drain(struct stream *s, void *owner)
{
	struct peer *p = owner;

	(void)s; /* the peer's own */
	p->refs_out = false;
	if (p->body != NULL && !p->body_waits && !p->closing) {
		peer_write_body(p);
		pump_on(p);
	}
}

static size_t
on_read(struct stream *s, void *owner, struct slice bytes)
{
	struct peer *p = owner;
	uint64_t replies = smtp_client_replies(p->client);
	struct slice in = bytes;

	(void)s; /* the peer's own */
	pump(p, &in);
	/* Who sends a reply byte by byte, or line by line, has no more time for it than others. */
	if (!p->closing && smtp_client_replies(p->client) != replies)
		set_deadline(p);
	return bytes.len - in.len;
}

void
peer_on_connect(struct stream *s, void *owner)
{
	struct peer *p = owner;

	(void)s; /* the peer's own */
	p->connected = true;
	counter_add(COUNTER_OUT_CONNECTIONS, 1);
	set_deadline(p);
	if (p->target.implicit_tls)
		shake_hands(p);
}

static void
bind_login(struct peer *p)
{
	unsigned char exporter[TLS_BINDING_MAX], unique[TLS_BINDING_MAX];
	size_t n, k;

	if (p->target.login == NULL)
		return;
	n = stream_tls_bind(p->stream, TLS_BINDING_EXPORTER, exporter);
	k = stream_tls_bind(p->stream, TLS_BINDING_UNIQUE, unique);
	smtp_client_bind(p->client, slice_of(exporter, n), slice_of(unique, k));
}

static void
on_tls(struct stream *s, void *owner)
{
	struct peer *p = owner;

	p->shaking = false;
	bind_login(p);
	if (p->target.implicit_tls) {
		dialogue_note(
		    &p->dialogue, 'C', SLICE("(TLS is on)"), false); /* the greeting comes */
	} else {
		dialogue_note(&p->dialogue, 'C', SLICE("(TLS is on; EHLO again)"), false);
		smtp_client_tls_done(p->client, stream_out(s));
	}
	set_deadline(p);
}

/* The peer is gone, or silent, after our QUIT: that is an end as good as any. */
static bool
said_quit(const struct peer *p)
{
	return p->quitting && peer_idle(p);
}

static void
on_eof(struct stream *s, void *owner)
{
	struct peer *p = owner;

	(void)s; /* the peer's own */
	peer_drop(p, said_quit(p) ? ERR_NONE : ERR_CLOSED, "the peer closed the connection");
}

static void
on_deadline(struct stream *s, void *owner)
{
	struct peer *p = owner;

	(void)s; /* the peer's own */
	if (!p->connected)
		peer_drop(p, ERR_TIMEOUT, "connect: timed out");
	else if (peer_idle(p) && !p->quitting)
		peer_quit(p);
	else
		peer_drop(p, said_quit(p) ? ERR_NONE : ERR_TIMEOUT, "no answer in time");
}

static void
on_close(struct stream *s, void *owner, const struct err *why)
{
	struct peer *p = owner;

	(void)s; /* gone with this call */
	if (peer_connect_again(p, why))
		return;
	if (p->why.code == ERR_NONE)
		p->why = *why;
	peer_gone(p);
}

const struct stream_ops peer_stream_ops = {
	.on_connect = peer_on_connect,
	.on_read = on_read,
	.on_drain = on_drain,
	.on_tls = on_tls,
	.on_eof = on_eof,
	.on_deadline = on_deadline,
	.on_close = on_close,
};

static void
run_work(struct round_task *task)
{
	struct peer *p = container_of(task, struct peer, work);

	peer_tell_dropped(p);
	if (p->closing || !p->ready)
		return;
	if (p->body != NULL && !p->body_waits && !p->refs_out)
		peer_write_body(p);
	if (!p->closing)
		pump_on(p);
}

/* ---- the beginning -------------------------------------------------------------------------- */

static void
take_target(struct peer *p, const struct peer_target *target)
{
	p->target = *target;
	if (p->target.connect_ms == 0)
		p->target.connect_ms = CONNECT_MS;
	if (p->target.idle_ms == 0)
		p->target.idle_ms = IDLE_MS;
	if (p->target.tls_client == NULL && p->target.tls == SMTP_CLIENT_TLS_TRY)
		p->target.tls = SMTP_CLIENT_TLS_OFF;
	if (p->target.tls_client != NULL)
		tls_client_ref(p->target.tls_client);
	sockaddr_text((const struct sockaddr *)&p->target.addr, p->name);
}

struct peer *
peer_open(uv_loop_t *loop, const struct peer_target *target, const struct peer_ops *ops,
    void *owner, struct err *err)
{
	struct peer *p = calloc(1, sizeof(*p));

	if (p == NULL || (p->round = round_ref(loop)) == NULL) {
		free(p);
		err_set(err, ERR_NOMEM, "out of memory");
		return NULL;
	}
	p->loop = loop;
	p->ops = ops;
	p->owner = owner;
	p->work.run = run_work;
	take_target(p, target);
	if (p->target.tls == SMTP_CLIENT_TLS_MUST && p->target.tls_client == NULL)
		err_set(err, ERR_TLS, "%s: no certificate authorities to verify it with", p->name);
	else if (peer_connect(p, err) == 0)
		return p;
	else
		err_prefix(err, "%s", p->name);
	smtp_client_free(p->client);
	tls_client_unref(p->target.tls_client);
	round_unref(p->round);
	free(p);
	return NULL;
}

/* ---- what the owner asks -------------------------------------------------------------------- */

bool
peer_can_send(const struct peer *p)
{
	return !p->closing && !p->quitting && p->n_sends < SMTP_CLIENT_AHEAD;
}

void
peer_send_start(struct peer *p, struct peer_send *req)
{
	peer_add_send(p, req);
	begin_sends(p);
	if (p->ready && !p->pumping && !p->closing) {
		set_deadline(p);
		round_mark(
		    p->round, &p->work, ROUND_WORK); /* it may be over already: by our own limits */
	}
}

void
peer_send_cancel(struct peer_send *req)
{
	struct peer *p = req->peer;

	if (p == NULL || req->cancelled)
		return;
	req->cancelled = true;
	for (size_t i = 0; i < p->n_begun; i++) {
		if (peer_nth_send(p, i) == req) {
			peer_drop(p, ERR_CLOSED,
			    "the connection was dropped with a message that was cancelled");
			return;
		}
	}
	if (p->closing)
		return; /* done() is on its way */
	peer_drop_send(p, req);
	round_mark(p->round, &p->work, ROUND_WORK);
}

void
peer_body_ready(struct peer_send *req)
{
	struct peer *p = req->peer;

	if (p == NULL || p->body != req || !p->body_waits)
		return;
	p->body_waits = false;
	round_mark(p->round, &p->work, ROUND_WORK);
}

void
peer_quit(struct peer *p)
{
	if (p->closing || p->quitting)
		return;
	p->quitting = true;
	if (p->ready) {
		begin_sends(p);
		set_deadline(p);
	} else if (p->n_sends == 0) {
		peer_drop(p, ERR_CANCELLED, "closed by us");
	}
}

void
peer_close(struct peer *p)
{
	peer_drop(p, ERR_CANCELLED, "closed by us");
}

bool
peer_idle(const struct peer *p)
{
	return p->ready && p->n_sends == 0;
}

uint64_t
peer_count(const struct peer *p)
{
	return p->count;
}

struct slice
peer_dialogue(const struct peer *p)
{
	return slice_of(p->dialogue.text, p->dialogue.len);
}

unsigned
peer_caps(const struct peer *p)
{
	return p->ready ? smtp_client_caps(p->client) : 0;
}

uint32_t
peer_rcpt_max(const struct peer *p)
{
	return p->ready ? smtp_client_limits(p->client)->rcpts : 0;
}

bool
peer_tls_info(const struct peer *p, struct tls_info *info)
{
	return p->stream != NULL && stream_tls_info(p->stream, info);
}

const char *
peer_tls_failure(const struct peer *p)
{
	return p->tls_failure.code != ERR_NONE ? p->tls_failure.msg : NULL;
}

bool
peer_knows_no_bdat(const struct peer *p)
{
	return p->client != NULL && smtp_client_knows_no_bdat(p->client);
}

const struct sockaddr_storage *
peer_addr(const struct peer *p)
{
	return &p->target.addr;
}

const struct sockaddr_storage *
peer_missed(const struct peer *p, size_t i)
{
	return i < p->n_missed ? &p->missed[i] : NULL;
}

const char *
peer_name(const struct peer *p)
{
	return p->name;
}
