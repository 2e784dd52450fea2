/* relayd/smtp/peer.c - glue: a connection to a next hop that sends message after message. */
#include "relayd/smtp/peer.h"

#include "relayd/core/counters.h"
#include "relayd/net/round.h"
#include "relayd/net/sockaddr.h"
#include "relayd/smtp/dialogue.h"

#include <stdio.h>
#include <stdlib.h>

#define CONNECT_MS 30000 /* RFC 5321 section 4.5.3.2 leaves it to the operating system */
#define IDLE_MS    5000
#define COPY_BYTES 512 /* shorter pieces of a stuffed body are cheaper copied than named */

struct peer {
	uv_loop_t *loop;
	struct round *round;
	struct round_task work; /* what a peer_ function left for the loop */
	struct peer_target target;
	const struct peer_ops *ops;
	void *owner;
	struct race *race; /* while it goes on, stream is NULL */
	struct sockaddr_storage missed[RACE_MAX];
	size_t n_missed;
	struct stream *stream;
	struct smtp_client *client;
	struct peer_send *first, *last; /* those not done, in order: at most SMTP_CLIENT_AHEAD */
	struct peer_send *dropped;      /* cancelled before they began */
	size_t n_sends, n_begun;        /* of them the client has the first n_begun */
	struct peer_send *body;         /* whose message is going out */
	bool body_waits;                /* until peer_body_ready() */
	bool connected, shaking, ready, pumping;
	bool no_tls;            /* a handshake failed: this time in plain text */
	struct err tls_failure; /* then: why */
	bool refs_out;          /* the stream may hold runs of a body */
	bool marked;            /* its end is where stream_mark() was called */
	bool quitting, closing;
	uint64_t count;
	struct err why; /* it closes, where that is known better than by the stream */
	struct smtp_outcome refusal;
	char refusal_text[SMTP_CLIENT_TEXT_MAX];
	char name[SOCKADDR_TEXT_BYTES];
	struct dialogue dialogue;
};

static const struct stream_ops stream_ops;
static void pump(struct peer *p, struct slice *in);

/* ---- time ----------------------------------------------------------------------------------- */

static void
wait_for(struct peer *p, uint32_t ms)
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
	wait_for(p, ms);
}

struct slice
peer_dialogue(const struct peer *p)
{
	return slice_of(p->dialogue.text, p->dialogue.len);
}

/* ---- the end -------------------------------------------------------------------------------- */

static void
drop(struct peer *p, enum err_code code, const char *what)
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

/* Runs of a body are still to be sent: they may go only when the connection is closed. */
static bool
runs_wait(const struct peer *p)
{
	return p->refs_out && !(p->marked && stream_passed(p->stream));
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
	if (runs_wait(p))
		stream_close(p->stream);
	else
		stream_end(p->stream);
}

static struct peer_send *
pop(struct peer *p)
{
	struct peer_send *req = p->first;

	if (req == NULL)
		return NULL;
	p->first = req->next;
	if (p->first == NULL)
		p->last = NULL;
	p->n_sends--;
	if (p->n_begun > 0)
		p->n_begun--;
	if (p->body == req)
		p->body = NULL;
	return req;
}

/* req may be gone when its callback returns; the texts of its outcomes go after that. */
static void
done(struct peer_send *req, const struct err *err)
{
	struct arena texts = req->tx.state.texts;

	req->peer = NULL;
	req->tx.state.texts = (struct arena){ 0 };
	req->done(req, err);
	arena_fini(&texts);
}

/* Nothing has been said about it by a peer that had worked before, or was busy with another. */
static bool
is_untried(const struct peer *p, const struct peer_send *req, bool is_first)
{
	size_t own = req->tx.state.rset ? 1 : 0; /* the RSET in front says nothing about it */

	if (!p->ready || p->why.code == ERR_TIMEOUT || (is_first && p->count == 0))
		return false;
	return req->tx.state.phase == 0 || req->tx.state.answered <= own;
}

static void
fail_all(struct peer *p)
{
	static const struct err cancelled = { .code = ERR_CANCELLED, .msg = "cancelled" };
	struct peer_send *req;
	bool is_first = true;

	if (p->why.code == ERR_NONE)
		err_set(&p->why, ERR_CLOSED, "the peer closed the connection");
	for (; (req = pop(p)) != NULL; is_first = false) {
		req->maybe = req->body_out;
		req->untried = !req->maybe && is_untried(p, req, is_first);
		req->refusal = p->refusal;
		done(req, req->cancelled ? &cancelled : &p->why);
	}
}

static void
tell_dropped(struct peer *p)
{
	struct err cancelled = { .code = ERR_CANCELLED, .msg = "cancelled" };
	struct peer_send *req;

	while ((req = p->dropped) != NULL) {
		p->dropped = req->next;
		req->untried = true;
		done(req, &cancelled);
	}
}

static void
peer_gone(struct peer *p)
{
	struct err why = p->why;

	p->closing = true;
	p->stream = NULL;
	round_unmark(p->round, &p->work);
	fail_all(p);
	tell_dropped(p);
	if (p->ops != NULL && p->ops->on_close != NULL)
		p->ops->on_close(p, p->owner, &why);
	smtp_client_free(p->client);
	tls_client_unref(p->target.tls_client);
	round_unref(p->round);
	free(p);
}

/* ---- the body ------------------------------------------------------------------------------- */

static void
note_end(struct peer_send *req, struct slice run)
{
	if (run.len == 0)
		return;
	req->not_crlf = run.p[run.len - 1] != '\n' ||
			!(run.len > 1 ? run.p[run.len - 2] == '\r' : req->ends_cr);
	req->ends_cr = run.p[run.len - 1] == '\r';
}

static void
write_stuffed(struct peer *p, struct peer_send *req, struct slice run)
{
	struct slice piece;

	while (smtp_stuff_next(&req->stuffer, &run, &piece)) {
		if (piece.len < COPY_BYTES)
			stream_write(p->stream, piece);
		else
			stream_write_ref(p->stream, piece);
	}
}

static void
write_run(struct peer *p, struct peer_send *req, struct slice run)
{
	note_end(req, run);
	req->body_bytes += run.len;
	p->refs_out = true;
	p->marked = false;
	if (!smtp_client_chunked(p->client) && (req->tx.flags & SMTP_TX_DOTS) != 0)
		write_stuffed(p, req, run);
	else
		stream_write_ref(p->stream, run);
}

/* What BDAT said is what the peer takes for data: a byte more would be a command to it. */
static bool
keeps_its_size(
    const struct peer *p, const struct peer_send *req, const struct slice *runs, size_t n, bool end)
{
	uint64_t left = req->tx.size - req->body_bytes;

	if (!smtp_client_chunked(p->client))
		return true;
	for (size_t i = 0; i < n; i++) {
		if (runs[i].len > left)
			return false;
		left -= runs[i].len;
	}
	return !end || left == 0;
}

/* Writes the next runs; on_drain() comes back for more. */
static void
write_body(struct peer *p)
{
	struct peer_send *req = p->body;
	struct slice runs[PEER_RUNS];
	size_t n = PEER_RUNS;
	enum peer_body status = req->body(req, runs, &n);

	if (status == PEER_BODY_FAILED) {
		drop(p, ERR_SYS, "the message could not be read");
		return;
	}
	p->body_waits = status == PEER_BODY_WAIT;
	if (!keeps_its_size(p, req, runs, n, status == PEER_BODY_END)) {
		drop(p, ERR_SYS, "the message has another size than it said");
		return;
	}
	for (size_t i = 0; i < n; i++)
		write_run(p, req, runs[i]);
	if (status == PEER_BODY_END) {
		p->body = NULL;
		req->body_out = true;
		smtp_client_body_done(p->client, !req->not_crlf, stream_out(p->stream));
		stream_mark(p->stream);
		p->marked = true;
	} else if (status == PEER_BODY_MORE) {
		stream_write(p->stream, SLICE("")); /* on_drain() comes even for runs of nothing */
	}
}

static void
on_drain(struct stream *s, void *owner)
{
	struct peer *p = owner;
	struct slice none = SLICE("");

	(void)s; /* the peer's own */
	p->refs_out = false;
	if (p->body != NULL && !p->body_waits && !p->closing) {
		write_body(p);
		pump(p, &none);
	}
}

/* ---- transactions --------------------------------------------------------------------------- */

static struct peer_send *
nth(struct peer *p, size_t n)
{
	struct peer_send *req = p->first;

	while (n-- > 0)
		req = req->next;
	return req;
}

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
		smtp_client_send(p->client, &nth(p, p->n_begun++)->tx, out);
	dialogue_note(&p->dialogue, 'C', slice_drop(buf_slice(out), at), false);
	/* Those that a used-up session leaves go to another one: fail_all() calls them untried. */
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

/* A yes to what the peer cannot have is none.  A no may stand: it can come early. */
static void
forget_yes(struct peer_send *req)
{
	for (size_t i = 0; i < req->tx.n_rcpts; i++)
		if (req->tx.rcpts[i].outcome.code < 400)
			req->tx.rcpts[i].outcome = (struct smtp_outcome){ .text = SLICE("") };
}

static bool
is_settled(const struct peer_send *req)
{
	for (size_t i = 0; i < req->tx.n_rcpts; i++)
		if (req->tx.rcpts[i].outcome.code == 0)
			return false;
	return true;
}

static void
first_done(struct peer *p)
{
	struct peer_send *req = p->first;

	if (runs_wait(p)) {
		drop(p, ERR_PROTOCOL, "the peer answered before it had the message");
		forget_yes(req);
	}
	(void)pop(p); /* that is req */
	p->count++;
	done(req, is_settled(req) ? NULL : &p->why);
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
		drop(p, ERR_TLS, err.msg);
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
		write_body(p);
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
	if (!p->closing)
		set_deadline(p);
}

static size_t
on_read(struct stream *s, void *owner, struct slice bytes)
{
	struct peer *p = owner;
	struct slice in = bytes;

	(void)s; /* the peer's own */
	pump(p, &in);
	return bytes.len - in.len;
}

static void
on_connect(struct stream *s, void *owner)
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
	drop(p, said_quit(p) ? ERR_NONE : ERR_CLOSED, "the peer closed the connection");
}

static void
on_deadline(struct stream *s, void *owner)
{
	struct peer *p = owner;

	(void)s; /* the peer's own */
	if (!p->connected)
		drop(p, ERR_TIMEOUT, "connect: timed out");
	else if (peer_idle(p) && !p->quitting)
		peer_quit(p);
	else
		drop(p, said_quit(p) ? ERR_NONE : ERR_TIMEOUT, "no answer in time");
}

/* ---- connecting ----------------------------------------------------------------------------- */

static void
note_missed(struct peer *p, unsigned missed)
{
	for (size_t i = 0; i <= p->target.n_rivals; i++)
		if ((missed & 1u << i) != 0)
			p->missed[p->n_missed++] =
			    i == 0 ? p->target.addr : p->target.rivals[i - 1].to;
}

static void
on_race_won(void *owner, struct stream *s, size_t which, unsigned missed)
{
	struct peer *p = owner;

	p->race = NULL;
	note_missed(p, missed);
	if (which > 0) {
		p->target.addr = p->target.rivals[which - 1].to;
		p->target.local = p->target.rivals[which - 1].local;
		sockaddr_text((const struct sockaddr *)&p->target.addr, p->name);
	}
	p->target.n_rivals = 0; /* whatever comes, it is this one now */
	p->stream = s;
	stream_own(s, &stream_ops, p);
	on_connect(s, p);
}

static void
on_race_lost(void *owner, const struct err *why, unsigned missed)
{
	struct peer *p = owner;

	p->race = NULL;
	note_missed(p, missed);
	if (p->why.code == ERR_NONE)
		p->why = *why;
	peer_gone(p);
}

static int
race(struct peer *p, struct err *err)
{
	static const struct race_ops ops = { .on_connect = on_race_won, .on_fail = on_race_lost };
	struct race_way ways[RACE_MAX] = { { .to = p->target.addr, .local = p->target.local } };

	memcpy(&ways[1], p->target.rivals, p->target.n_rivals * sizeof(ways[0]));
	p->stream = NULL;
	p->race =
	    race_start(p->loop, ways, p->target.n_rivals + 1, p->target.connect_ms, &ops, p, err);
	return p->race != NULL ? 0 : -1;
}

static int
connect_peer(struct peer *p, struct err *err)
{
	struct smtp_client_options options = {
		.lmtp = p->target.lmtp,
		.hostname = p->target.hostname,
		.tls = p->no_tls ? SMTP_CLIENT_TLS_OFF : p->target.tls,
		.login = p->target.login,
		.tls_is_on = p->target.implicit_tls,
	};

	smtp_client_free(p->client);
	p->client = smtp_client_new(&options, err);
	if (p->client == NULL)
		return -1;
	p->connected = p->shaking = p->closing = false;
	if (p->target.n_rivals > 0)
		return race(p, err);
	p->stream = stream_connect(p->loop, (struct sockaddr *)&p->target.addr,
	    (struct sockaddr *)&p->target.local, &stream_ops, p, err);
	if (p->stream == NULL)
		return -1;
	wait_for(p, p->target.connect_ms);
	return 0;
}

static void
note_tls_failure(struct peer *p, const struct err *why)
{
	char text[sizeof(why->msg) + 16];

	(void)snprintf(text, sizeof(text), "(TLS failed: %s)",
	    p->why.code != ERR_NONE ? p->why.msg : why->msg); /* it fits */
	dialogue_note(&p->dialogue, 'C', slice_str(text), false);
}

/* TLS that fails is no reason not to deliver where it was only tried (RFC 7435 section 4.2). */
static bool
again_without_tls(struct peer *p, const struct err *why)
{
	if (!p->shaking || p->target.tls != SMTP_CLIENT_TLS_TRY || p->no_tls ||
	    p->why.code == ERR_CANCELLED)
		return false;
	p->no_tls = true;
	p->tls_failure = p->why.code != ERR_NONE ? p->why : *why;
	p->why = (struct err){ 0 };
	return connect_peer(p, &p->why) == 0;
}

static void
on_close(struct stream *s, void *owner, const struct err *why)
{
	struct peer *p = owner;

	(void)s; /* gone with this call */
	if (p->shaking)
		note_tls_failure(p, why);
	if (again_without_tls(p, why))
		return;
	if (p->why.code == ERR_NONE)
		p->why = *why;
	peer_gone(p);
}

static const struct stream_ops stream_ops = {
	.on_connect = on_connect,
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
	struct slice none = SLICE("");

	tell_dropped(p);
	if (p->closing || !p->ready)
		return;
	if (p->body != NULL && !p->body_waits && !p->refs_out)
		write_body(p);
	if (!p->closing)
		pump(p, &none);
}

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
	else if (connect_peer(p, err) == 0)
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
	req->peer = p;
	req->next = NULL;
	req->untried = req->maybe = req->cancelled = req->body_out = false;
	req->ends_cr = req->not_crlf = false;
	req->body_bytes = 0;
	req->stuffer = (struct smtp_stuffer){ 0 };
	memset(&req->tx.state, 0, sizeof(req->tx.state));
	*(p->last != NULL ? &p->last->next : &p->first) = req;
	p->last = req;
	p->n_sends++;
	begin_sends(p);
	if (p->ready && !p->pumping && !p->closing) {
		set_deadline(p);
		round_mark(
		    p->round, &p->work, ROUND_WORK); /* it may be over already: by our own limits */
	}
}

static void
unlink_send(struct peer *p, struct peer_send *req)
{
	struct peer_send **at = &p->first, *prev = NULL;

	while (*at != req) {
		prev = *at;
		at = &prev->next;
	}
	*at = req->next;
	if (p->last == req)
		p->last = prev;
	p->n_sends--;
}

void
peer_send_cancel(struct peer_send *req)
{
	struct peer *p = req->peer;

	if (p == NULL || req->cancelled)
		return;
	req->cancelled = true;
	for (size_t i = 0; i < p->n_begun; i++) {
		if (nth(p, i) == req) {
			drop(p, ERR_CLOSED,
			    "the connection was dropped with a message that was cancelled");
			return;
		}
	}
	if (p->closing)
		return; /* done() is on its way */
	unlink_send(p, req);
	req->next = p->dropped;
	p->dropped = req;
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
		drop(p, ERR_CANCELLED, "closed by us");
	}
}

void
peer_close(struct peer *p)
{
	drop(p, ERR_CANCELLED, "closed by us");
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
