/* tests/unit/smtp/peer_test.c - messages over real connections to a next hop on the same loop. */
#include "relayd/smtp/peer.h"

#include "unit/certs.h"
#include "unit/fake_smtp.h"
#include "unit/unit.h"

#include "relayd/core/clock.h"

#include <signal.h>
#include <stdio.h>

static uv_loop_t loop;

struct mail {
	struct peer_send send;
	struct smtp_tx_rcpt rcpts[4];
	struct slice body;
	size_t at, run; /* run: bytes given at a time; 0: all */
	bool wait_first, fails;
	unsigned done, code[4];
	char enhanced[12], text[100];
	enum err_code err;
	bool untried, maybe;
	unsigned refusal;
	struct peer *again; /* sends itself once more on done */
};

struct owner {
	unsigned ready, closed;
	enum err_code why;
	struct peer *peer;
};

static enum peer_body
give_body(struct peer_send *req, struct slice *runs, size_t *n)
{
	struct mail *m = container_of(req, struct mail, send);
	size_t left = m->body.len - m->at, take = m->run != 0 && m->run < left ? m->run : left;

	if (m->fails)
		return PEER_BODY_FAILED;
	if (m->wait_first) {
		m->wait_first = false;
		*n = 0;
		return PEER_BODY_WAIT;
	}
	runs[0] = slice_head(slice_drop(m->body, m->at), take);
	*n = 1;
	m->at += take;
	return m->at < m->body.len ? PEER_BODY_MORE : PEER_BODY_END;
}

static void
on_done(struct peer_send *req, const struct err *err)
{
	struct mail *m = container_of(req, struct mail, send);

	m->done++;
	m->err = err != NULL ? err->code : ERR_NONE;
	for (size_t i = 0; i < req->tx.n_rcpts; i++)
		m->code[i] = m->rcpts[i].outcome.code;
	memcpy(m->enhanced, m->rcpts[0].outcome.enhanced, sizeof(m->enhanced));
	(void)snprintf(m->text, sizeof(m->text), "%.*s", SLICE_FMT(m->rcpts[0].outcome.text));
	m->untried = req->untried;
	m->maybe = req->maybe;
	m->refusal = req->refusal.code;
}

static void
mail_init(struct mail *m, const char *body, const char *r0, const char *r1, const char *r2)
{
	const char *rcpts[] = { r0, r1, r2 };

	*m = (struct mail){ .body = slice_str(body) };
	m->send = (struct peer_send){ .body = give_body, .done = on_done };
	m->send.tx = (struct smtp_tx){ .reverse_path = SLICE("a@x.test"),
		.params = SLICE(""),
		.xid = SLICE("id"),
		.xkey = SLICE(""),
		.size = m->body.len,
		.rcpts = m->rcpts };
	for (size_t i = 0; i < 3 && rcpts[i] != NULL; i++)
		m->rcpts[m->send.tx.n_rcpts++] =
		    (struct smtp_tx_rcpt){ .forward_path = slice_str(rcpts[i]),
			    .params = SLICE("") };
}

static void
on_ready(struct peer *p, void *arg)
{
	struct owner *o = arg;

	ck_assert(peer_can_send(p));
	o->ready++;
}

static void
on_close(struct peer *p, void *arg, const struct err *why)
{
	struct owner *o = arg;

	ck_assert_ptr_eq(p, o->peer);
	o->closed++;
	o->why = why->code;
	o->peer = NULL;
}

static const struct peer_ops ops = { .on_ready = on_ready, .on_close = on_close };

static void
open_peer(struct owner *o, const struct fake_smtp *f, struct peer_target target)
{
	struct err err = { 0 };

	target.addr = f->addr;
	target.hostname = "me.test";
	o->peer = peer_open(&loop, &target, &ops, o, &err);
	ck_assert_msg(o->peer != NULL, "%s", err.msg);
}

static void
run_until(const unsigned *counter, unsigned n)
{
	int64_t end = clock_mono_ms() + 20000;

	while (*counter < n && clock_mono_ms() < end)
		uv_run(&loop, UV_RUN_ONCE);
	ck_assert_uint_ge(*counter, n);
}

static void
loop_open(void)
{
	(void)signal(SIGPIPE, SIG_IGN); /* as every role does */
	ck_assert_int_eq(uv_loop_init(&loop), 0);
}

static void
loop_close(void)
{
	uv_run(&loop, UV_RUN_DEFAULT);
	ck_assert_int_eq(uv_loop_close(&loop), 0);
}

static void
bodies_are(const struct fake_smtp *f, const char *text)
{
	ck_assert_msg(slice_eq(buf_slice(&f->bodies), slice_str(text)), "got \"%.*s\"",
	    SLICE_FMT(buf_slice(&f->bodies)));
}

/* The whole of it, with one peer, one message and one outcome; f is set up by the caller. */
static void
one_message(struct fake_smtp *f, struct peer_target target, struct mail *m, struct owner *o)
{
	loop_open();
	fake_open(f, &loop, "127.0.0.1:0");
	open_peer(o, f, target);
	peer_send_start(o->peer, &m->send);
	ck_assert_uint_eq(m->done, 0);
	run_until(&m->done, 1);
}

static void
finish(struct fake_smtp *f, struct owner *o)
{
	if (o->peer != NULL)
		peer_close(o->peer);
	run_until(&o->closed, 1);
	fake_close(f);
	loop_close();
	ck_assert_uint_eq(o->closed, 1);
}

START_TEST(a_message_goes_out_and_each_recipient_has_its_outcome)
{
	struct fake_smtp f = { .no_pipelining = _i % 2 == 1 };
	struct owner o = { 0 };
	struct mail m;

	mail_init(&m, "Subject: hi\r\n\r\nbody\r\n", "b@y.test", "no@y.test", "later@y.test");
	one_message(&f, (struct peer_target){ 0 }, &m, &o);
	ck_assert_int_eq(m.err, ERR_NONE);
	ck_assert_uint_eq(m.code[0], 250);
	ck_assert_uint_eq(m.code[1], 550);
	ck_assert_uint_eq(m.code[2], 450);
	ck_assert_str_eq(m.enhanced, "2.0.0");
	ck_assert_str_eq(m.text, "taken");
	bodies_are(&f, "Subject: hi\r\n\r\nbody\r\n.\r\n");
	ck_assert_uint_eq(peer_count(o.peer), 1);
	ck_assert(peer_idle(o.peer));
	finish(&f, &o);
	ck_assert_uint_eq(m.done, 1);
}
END_TEST

START_TEST(many_messages_share_a_connection_and_few_calls)
{
	struct fake_smtp f = { 0 };
	struct owner o = { 0 };
	struct mail m[6];

	loop_open();
	fake_open(&f, &loop, "127.0.0.1:0");
	for (int i = 0; i < 6; i++)
		mail_init(&m[i], "x\r\n", "b@y.test", NULL, NULL);
	open_peer(&o, &f, (struct peer_target){ 0 });
	for (int i = 0; i < 6; i++) {
		while (!peer_can_send(o.peer))
			uv_run(&loop, UV_RUN_ONCE);
		peer_send_start(o.peer, &m[i].send);
	}
	run_until(&m[5].done, 1);
	for (int i = 0; i < 6; i++)
		ck_assert_uint_eq(m[i].code[0], 250);
	bodies_are(&f, "x\r\n.\r\nx\r\n.\r\nx\r\n.\r\nx\r\n.\r\nx\r\n.\r\nx\r\n.\r\n");
	ck_assert_uint_eq(f.connections, 1);
	ck_assert_uint_eq(f.rsets, 0);
	/* EHLO, the first envelope, and for each message its body with the next envelope. */
	ck_assert_uint_le(f.reads, 1 + 1 + 6);
	finish(&f, &o);
}
END_TEST

START_TEST(lmtp_over_a_unix_socket_has_an_outcome_for_each)
{
	struct fake_smtp f = { .lmtp = true, .x_relayd = true };
	struct owner o = { 0 };
	struct mail m;
	char path[64];

	(void)snprintf(path, sizeof(path), "unix:/tmp/relayd-test-%d.sock", (int)getpid());
	loop_open();
	fake_open(&f, &loop, path);
	mail_init(&m, "hello\r\n", "full@y.test", "b@y.test", "no@y.test");
	m.send.tx.xkey = SLICE("item+b");
	open_peer(&o, &f, (struct peer_target){ .lmtp = true });
	ck_assert_str_eq(peer_name(o.peer), path);
	peer_send_start(o.peer, &m.send);
	run_until(&m.done, 1);
	ck_assert_uint_eq(m.code[0], 452);
	ck_assert_uint_eq(m.code[1], 250);
	ck_assert_uint_eq(m.code[2], 550);
	ck_assert_uint_ne(peer_caps(o.peer) & SMTP_CAP_X_RELAYD, 0);
	ck_assert_uint_lt(
	    slice_find(buf_slice(&f.commands), SLICE(" XID=id XKEY=item+2Bb\n")), f.commands.len);
	finish(&f, &o);
	unlink(path + 5);
}
END_TEST

static const struct body_row {
	const char *body, *wire;
	uint32_t flags;
	size_t run;
} body_rows[] = {
	{ "", ".\r\n", 0, 0 },
	{ "no end of line", "no end of line\r\n.\r\n", 0, 0 },
	{ "no end of line", "no end of line\r\n.\r\n", 0, 1 },
	{ "a\r\nb\r\n", "a\r\nb\r\n.\r\n", 0, 1 },
	{ "a\r\nb\r\n", "a\r\nb\r\n.\r\n", 0, 4 },
	{ ".\r\n..\r\na.\r\n", "..\r\n...\r\na.\r\n.\r\n", SMTP_TX_DOTS, 0 },
	{ ".\r\n..\r\na.\r\n", "..\r\n...\r\na.\r\n.\r\n", SMTP_TX_DOTS, 1 },
	{ "a\r", "a\r\r\n.\r\n", 0, 1 },
};

START_TEST(a_body_ends_as_it_must_however_it_is_cut)
{
	const struct body_row *row = &body_rows[_i];
	struct fake_smtp f = { 0 };
	struct owner o = { 0 };
	struct mail m;

	mail_init(&m, row->body, "b@y.test", NULL, NULL);
	m.run = row->run;
	m.send.tx.flags = row->flags;
	one_message(&f, (struct peer_target){ 0 }, &m, &o);
	ck_assert_uint_eq(m.code[0], 250);
	bodies_are(&f, row->wire);
	finish(&f, &o);
}
END_TEST

START_TEST(a_big_body_goes_in_blocks_and_may_wait_for_its_source)
{
	size_t size = 9u << 20;
	char *body = malloc(size + 1);
	struct fake_smtp f = { 0 };
	struct owner o = { 0 };
	struct mail m;

	for (size_t i = 0; i < size; i++)
		body[i] = (char)('a' + i % 26);
	body[size] = '\0';
	mail_init(&m, body, "b@y.test", NULL, NULL);
	m.run = 256u << 10;
	m.wait_first = true;
	loop_open();
	fake_open(&f, &loop, "127.0.0.1:0");
	open_peer(&o, &f, (struct peer_target){ 0 });
	peer_send_start(o.peer, &m.send);
	run_until(&f.datas, 1);
	for (int i = 0; i < 20; i++)
		uv_run(&loop, UV_RUN_NOWAIT);
	ck_assert(!m.wait_first);
	ck_assert_uint_eq(m.at, 0);
	peer_body_ready(&m.send);
	run_until(&m.done, 1);
	ck_assert_uint_eq(m.code[0], 250);
	ck_assert_uint_eq(f.bodies.len, size + 5);
	ck_assert_mem_eq(f.bodies.p, body, size);
	finish(&f, &o);
	free(body);
}
END_TEST

START_TEST(a_source_that_fails_ends_the_connection_before_the_dot)
{
	struct fake_smtp f = { 0 };
	struct owner o = { 0 };
	struct mail m;

	mail_init(&m, "x", "b@y.test", NULL, NULL);
	m.fails = true;
	one_message(&f, (struct peer_target){ 0 }, &m, &o);
	ck_assert_int_eq(m.err, ERR_SYS);
	ck_assert_uint_eq(m.code[0], 0);
	ck_assert(!m.maybe);
	finish(&f, &o);
	ck_assert_uint_eq(f.messages, 0);
}
END_TEST

START_TEST(a_kept_connection_that_went_away_leaves_the_message_untried)
{
	struct fake_smtp f = { .hang_up_after = 1 };
	struct owner o = { 0 };
	struct mail m, second;

	mail_init(&m, "x\r\n", "b@y.test", NULL, NULL);
	mail_init(&second, "y\r\n", "b@y.test", NULL, NULL);
	one_message(&f, (struct peer_target){ 0 }, &m, &o);
	ck_assert_uint_eq(m.code[0], 250);
	peer_send_start(o.peer, &second.send);
	run_until(&second.done, 1);
	ck_assert_int_eq(second.err, ERR_CLOSED);
	ck_assert(second.untried);
	ck_assert(!second.maybe);
	finish(&f, &o);
}
END_TEST

static void
hang_up_soon(uv_timer_t *timer)
{
	fake_hang_up(timer->data);
	uv_close((uv_handle_t *)timer, NULL);
}

START_TEST(a_connection_lost_after_the_dot_may_have_delivered)
{
	struct fake_smtp f = { .silent_at_dot = true };
	struct owner o = { 0 };
	struct mail m, queued;
	uv_timer_t timer;

	mail_init(&m, "x\r\n", "b@y.test", NULL, NULL);
	mail_init(&queued, "y\r\n", "b@y.test", NULL, NULL);
	loop_open();
	fake_open(&f, &loop, "127.0.0.1:0");
	open_peer(&o, &f, (struct peer_target){ 0 });
	peer_send_start(o.peer, &m.send);
	peer_send_start(o.peer, &queued.send);
	ck_assert(!peer_can_send(o.peer));
	run_until(&f.messages, 1);
	uv_timer_init(&loop, &timer);
	timer.data = &f;
	uv_timer_start(&timer, hang_up_soon, 20, 0);
	run_until(&m.done, 1);
	ck_assert_int_eq(m.err, ERR_CLOSED);
	ck_assert(m.maybe);
	ck_assert(!m.untried);
	run_until(&queued.done, 1);
	ck_assert(queued.untried);
	ck_assert(!queued.maybe);
	finish(&f, &o);
}
END_TEST

START_TEST(a_peer_that_says_nothing_is_left_in_time)
{
	struct fake_smtp f = { .silent_at_dot = true };
	struct owner o = { 0 };
	struct mail m;

	mail_init(&m, "x\r\n", "b@y.test", NULL, NULL);
	one_message(&f, (struct peer_target){ .reply_ms = 50 }, &m, &o);
	ck_assert_int_eq(m.err, ERR_TIMEOUT);
	ck_assert(m.maybe);
	ck_assert(!m.untried);
	finish(&f, &o);
	ck_assert_int_eq(o.why, ERR_TIMEOUT);
}
END_TEST

/* A byte of its reply from time to time, and a line of it now and then. */
static void
on_drip(uv_timer_t *timer)
{
	static const char reply[] = "250-wait\r\n";
	const struct fake_smtp *f = timer->data;
	static unsigned n;

	if (f->sessions != NULL && f->sessions->mute)
		stream_write(f->sessions->s, slice_of(&reply[n++ % strlen(reply)], 1));
}

START_TEST(a_peer_that_drips_its_reply_is_left_in_time)
{
	struct fake_smtp f = { .silent_at_dot = true };
	struct owner o = { 0 };
	uv_timer_t timer;
	struct mail m;

	mail_init(&m, "x\r\n", "b@y.test", NULL, NULL);
	loop_open();
	fake_open(&f, &loop, "127.0.0.1:0");
	timer.data = &f;
	ck_assert_int_eq(uv_timer_init(&loop, &timer), 0);
	ck_assert_int_eq(uv_timer_start(&timer, on_drip, 20, 20), 0);
	open_peer(&o, &f, (struct peer_target){ .reply_ms = 300 });
	peer_send_start(o.peer, &m.send);
	run_until(&m.done, 1);
	uv_close((uv_handle_t *)&timer, NULL);
	ck_assert_int_eq(m.err, ERR_TIMEOUT);
	ck_assert(m.maybe);
	finish(&f, &o);
}
END_TEST

START_TEST(a_peer_that_answers_before_the_end_is_dropped_at_once)
{
	size_t size = 8u << 20;
	char *body = malloc(size + 1);
	struct fake_smtp f = { .answers_early = true };
	struct owner o = { 0 };
	struct mail m;

	memset(body, 'x', size);
	body[size] = '\0';
	mail_init(&m, body, "b@y.test", NULL, NULL);
	one_message(&f, (struct peer_target){ 0 }, &m, &o);
	free(body); /* the runs are ours again: nothing may read them (ASan would tell) */
	ck_assert_int_eq(m.err, ERR_PROTOCOL);
	ck_assert_uint_eq(m.code[0], 0);
	finish(&f, &o);
}
END_TEST

START_TEST(reply_421_is_told_and_ends_the_connection)
{
	struct fake_smtp f = { .dot_reply = "421 4.3.2 going down\r\n" };
	struct owner o = { 0 };
	struct mail m;

	mail_init(&m, "x\r\n", "b@y.test", NULL, NULL);
	one_message(&f, (struct peer_target){ 0 }, &m, &o);
	ck_assert_int_eq(m.err, ERR_NONE); /* its recipient has an outcome */
	ck_assert_uint_eq(m.code[0], 421);
	finish(&f, &o);
	ck_assert_int_eq(o.why, ERR_CLOSED);
}
END_TEST

START_TEST(a_greeting_that_refuses_is_told_with_its_reply)
{
	struct fake_smtp f = { .greeting = "554 5.7.1 not from you\r\n" };
	struct owner o = { 0 };
	struct mail m;

	mail_init(&m, "x\r\n", "b@y.test", NULL, NULL);
	one_message(&f, (struct peer_target){ 0 }, &m, &o);
	ck_assert_int_eq(m.err, ERR_DENIED);
	ck_assert_uint_eq(m.refusal, 554);
	ck_assert(!m.untried);
	finish(&f, &o);
}
END_TEST

START_TEST(nobody_listening_fails_every_send)
{
	struct fake_smtp f = { 0 };
	struct owner o = { 0 };
	struct mail m, second;

	mail_init(&m, "x\r\n", "b@y.test", NULL, NULL);
	mail_init(&second, "x\r\n", "b@y.test", NULL, NULL);
	loop_open();
	fake_open(&f, &loop, "127.0.0.1:0");
	fake_close(&f);
	open_peer(&o, &f, (struct peer_target){ 0 });
	peer_send_start(o.peer, &m.send);
	peer_send_start(o.peer, &second.send);
	run_until(&o.closed, 1);
	ck_assert_uint_eq(m.done, 1);
	ck_assert_uint_eq(second.done, 1);
	ck_assert_int_eq(m.err, ERR_SYS);
	ck_assert(!m.untried);
	loop_close();
}
END_TEST

START_TEST(an_idle_peer_says_quit_and_goes)
{
	struct fake_smtp f = { 0 };
	struct owner o = { 0 };
	struct mail m;

	mail_init(&m, "x\r\n", "b@y.test", NULL, NULL);
	one_message(&f, (struct peer_target){ .idle_ms = 30 }, &m, &o);
	ck_assert_uint_eq(f.quits, 0);
	run_until(&o.closed, 1);
	ck_assert_uint_eq(f.quits, 1);
	ck_assert_int_eq(o.why, ERR_NONE);
	finish(&f, &o);
}
END_TEST

START_TEST(quit_waits_for_what_is_queued)
{
	struct fake_smtp f = { 0 };
	struct owner o = { 0 };
	struct mail m;

	mail_init(&m, "x\r\n", "b@y.test", NULL, NULL);
	loop_open();
	fake_open(&f, &loop, "127.0.0.1:0");
	open_peer(&o, &f, (struct peer_target){ 0 });
	peer_send_start(o.peer, &m.send);
	peer_quit(o.peer);
	ck_assert(!peer_can_send(o.peer));
	run_until(&o.closed, 1);
	ck_assert_uint_eq(m.code[0], 250);
	ck_assert_uint_eq(f.quits, 1);
	ck_assert_int_eq(o.why, ERR_NONE);
	finish(&f, &o);
}
END_TEST

START_TEST(a_cancelled_send_is_done_once)
{
	struct fake_smtp f = { .silent_at_dot = true };
	struct owner o = { 0 };
	struct mail first, queued;

	mail_init(&first, "x\r\n", "b@y.test", NULL, NULL);
	mail_init(&queued, "x\r\n", "b@y.test", NULL, NULL);
	loop_open();
	fake_open(&f, &loop, "127.0.0.1:0");
	open_peer(&o, &f, (struct peer_target){ 0 });
	peer_send_start(o.peer, &first.send);
	peer_send_start(o.peer, &queued.send);
	peer_send_cancel(&queued.send); /* before the connection is there */
	ck_assert_uint_eq(queued.done, 0);
	run_until(&queued.done, 1);
	ck_assert_int_eq(queued.err, ERR_CANCELLED);
	ck_assert(queued.untried);
	run_until(&f.messages, 1);
	peer_send_cancel(&first.send);
	peer_send_cancel(&first.send);
	run_until(&first.done, 1);
	ck_assert_int_eq(first.err, ERR_CANCELLED);
	ck_assert(first.maybe);
	finish(&f, &o);
	ck_assert_uint_eq(first.done, 1);
	ck_assert_uint_eq(queued.done, 1);
}
END_TEST

START_TEST(what_only_we_refuse_needs_no_word_of_the_peer)
{
	struct fake_smtp f = { 0 };
	struct owner o = { 0 };
	struct mail m, after;

	mail_init(&m, "x\r\n", "b\r\nQUIT@y.test", NULL, NULL);
	mail_init(&after, "x\r\n", "b@y.test", NULL, NULL);
	one_message(&f, (struct peer_target){ 0 }, &m, &o);
	ck_assert_uint_eq(m.code[0], 553);
	ck_assert_uint_eq(f.mails, 0);
	peer_send_start(o.peer, &after.send);
	run_until(&after.done, 1);
	ck_assert_uint_eq(after.code[0], 250);
	m.done = 0;
	peer_send_start(o.peer, &m.send); /* now that it is open */
	ck_assert_uint_eq(m.done, 0);
	run_until(&m.done, 1);
	ck_assert_uint_eq(m.code[0], 553);
	ck_assert_uint_eq(f.quits, 0);
	finish(&f, &o);
}
END_TEST

static const struct tls_row {
	const char *name;
	enum smtp_client_tls policy;
	bool offered, garbage, trusted;
	const char *host;
	enum err_code err;
	unsigned tls_sessions, connections;
} tls_rows[] = {
	{ "tried, any certificate will do", SMTP_CLIENT_TLS_TRY, true, false, false, "other.test",
	    0, 1, 1 },
	{ "tried, not offered", SMTP_CLIENT_TLS_TRY, false, false, false, "mx.test", 0, 0, 1 },
	{ "tried, the handshake fails: again in plain text", SMTP_CLIENT_TLS_TRY, true, true, false,
	    "mx.test", 0, 0, 2 },
	{ "not wanted", SMTP_CLIENT_TLS_OFF, true, false, false, "mx.test", 0, 0, 1 },
	{ "verified", SMTP_CLIENT_TLS_MUST, true, false, true, "mx.test", 0, 1, 1 },
	{ "another name", SMTP_CLIENT_TLS_MUST, true, false, true, "other.test", ERR_TLS, 0, 1 },
	{ "not trusted", SMTP_CLIENT_TLS_MUST, true, false, false, "mx.test", ERR_TLS, 0, 1 },
	{ "wanted, not offered", SMTP_CLIENT_TLS_MUST, false, false, true, "mx.test", ERR_TLS, 0,
	    1 },
	{ "wanted, the handshake fails", SMTP_CLIENT_TLS_MUST, true, true, true, "mx.test", ERR_TLS,
	    0, 1 },
};

START_TEST(tls_is_as_the_route_says)
{
	const struct tls_row *row = &tls_rows[_i];
	struct fake_smtp f = { .starttls = row->offered, .tls_garbage = row->garbage };
	struct test_cert cert = test_cert_new("EC", "mx.test"),
			 other = test_cert_new("EC", "x.test");
	struct tls_pair pair = { slice_str("c").p, "k", slice_str(cert.certificate),
		slice_str(cert.key) };
	struct tls_client *client;
	struct tls_info info;
	struct owner o = { 0 };
	struct mail m;
	char path[32];

	test_file(row->trusted ? cert.certificate : other.certificate, path);
	client = tls_client_new(path, NULL);
	unlink(path);
	f.tls = tls_server_new(&pair, 1, NULL);
	mail_init(&m, "x\r\n", "b@y.test", NULL, NULL);
	one_message(&f,
	    (struct peer_target){ .tls = row->policy, .tls_client = client, .tls_name = row->host },
	    &m, &o);
	ck_assert_msg(m.err == row->err, "%s: %s", row->name, err_code_name(m.err));
	ck_assert_uint_eq(m.code[0], row->err == ERR_NONE ? 250 : 0);
	if (row->err == ERR_NONE) {
		ck_assert_int_eq(peer_tls_info(o.peer, &info), row->tls_sessions > 0);
		bodies_are(&f, "x\r\n.\r\n");
	}
	ck_assert(!m.untried);
	/* A peer whose certificate we refuse may think that the handshake went well. */
	if (row->err == ERR_NONE)
		ck_assert_uint_eq(f.tls_sessions, row->tls_sessions);
	ck_assert_uint_eq(f.connections, row->connections);
	finish(&f, &o);
	ck_assert_uint_eq(m.done, 1);
	tls_client_unref(client);
	tls_server_unref(f.tls);
	test_cert_free(&cert);
	test_cert_free(&other);
}
END_TEST

UNIT_SUITE(peer)
{
	tcase_add_loop_test(tc, a_message_goes_out_and_each_recipient_has_its_outcome, 0, 2);
	UNIT_TEST(many_messages_share_a_connection_and_few_calls);
	UNIT_TEST(lmtp_over_a_unix_socket_has_an_outcome_for_each);
	UNIT_ROWS(a_body_ends_as_it_must_however_it_is_cut, body_rows);
	UNIT_TEST(a_big_body_goes_in_blocks_and_may_wait_for_its_source);
	UNIT_TEST(a_source_that_fails_ends_the_connection_before_the_dot);
	UNIT_TEST(a_kept_connection_that_went_away_leaves_the_message_untried);
	UNIT_TEST(a_connection_lost_after_the_dot_may_have_delivered);
	UNIT_TEST(a_peer_that_says_nothing_is_left_in_time);
	UNIT_TEST(a_peer_that_drips_its_reply_is_left_in_time);
	UNIT_TEST(a_peer_that_answers_before_the_end_is_dropped_at_once);
	UNIT_TEST(reply_421_is_told_and_ends_the_connection);
	UNIT_TEST(a_greeting_that_refuses_is_told_with_its_reply);
	UNIT_TEST(nobody_listening_fails_every_send);
	UNIT_TEST(an_idle_peer_says_quit_and_goes);
	UNIT_TEST(quit_waits_for_what_is_queued);
	UNIT_TEST(a_cancelled_send_is_done_once);
	UNIT_TEST(what_only_we_refuse_needs_no_word_of_the_peer);
	UNIT_ROWS(tls_is_as_the_route_says, tls_rows);
}
