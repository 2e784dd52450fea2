/* tests/unit/review/release_test.c - release against an intake that dies at every point. */
#include "unit/review/helper.h"
#include "unit/review/wire.h"
#include "unit/unit.h"

#include "relayd/core/clock.h"
#include "relayd/net/listener.h"
#include "relayd/net/stream.h"
#include "relayd/review/release.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* Where the intake of the test closes the connection, or what it answers instead of 2xx. */
enum point {
	AT_CONNECT,
	AT_EHLO,
	AT_MAIL,
	AT_RCPT,
	AT_DATA,
	IN_BODY,
	AT_DOT,		/* it has the message, and says nothing */
	AFTER_DOT,	/* it says 250 and closes */
	NOWHERE,
};

struct intake {
	uv_loop_t *loop;
	struct listener *listener;
	enum point dies_at;
	size_t deaths;		/* so many connections die, the others work */
	const char *mail_reply, *dot_reply;	/* instead of 250, so often: */
	size_t bad_replies;
	size_t dots, connections;
	char keys[64][64];	/* that were accepted, each once: what delivery's table does */
	size_t n_keys;
	char last_mail[512], last_rcpt[512];
	struct buf last_body;
	void (*on_dot)(struct intake *in);
};

struct conn {
	struct intake *in;
	struct stream *stream;
	bool mail, data, dies, ended;
	struct buf body;
};

static void
reply(struct conn *c, const char *text)
{
	stream_write(c->stream, slice_str(text));
}

/* True when the connection ends here. */
static bool
dies(struct conn *c, enum point at)
{
	if (!c->dies || c->in->dies_at != at)
		return false;
	stream_close(c->stream);
	return true;
}

static bool
bad_reply(struct conn *c, const char *text)
{
	if (text == NULL || c->in->bad_replies == 0)
		return false;
	c->in->bad_replies--;
	reply(c, text);
	return true;
}

static void
accept_key(struct intake *in)
{
	const char *key = strstr(in->last_mail, " XKEY=");
	char text[64] = { 0 };

	ck_assert_ptr_nonnull(key);
	memcpy(text, key + 6, strcspn(key + 6, " \r\n"));
	for (size_t i = 0; i < in->n_keys; i++)
		if (strcmp(in->keys[i], text) == 0)
			return;
	memcpy(in->keys[in->n_keys++], text, sizeof(text));
}

static void
run_dot(struct conn *c)
{
	struct intake *in = c->in;

	c->data = false;
	in->dots++;
	if (in->on_dot != NULL)
		in->on_dot(in);
	if (bad_reply(c, in->dot_reply))
		return;
	accept_key(in);
	buf_reset(&in->last_body);
	buf_put(&in->last_body, buf_slice(&c->body));
	if (dies(c, AT_DOT))
		return;
	reply(c, "250 2.0.0 accepted\r\n");
	if (c->dies && in->dies_at == AFTER_DOT) {
		c->ended = true;
		stream_end(c->stream);
	}
}

static void
run_line(struct conn *c, struct slice line)
{
	struct intake *in = c->in;

	if (slice_starts(line, SLICE("EHLO"))) {
		if (!dies(c, AT_EHLO))
			reply(c, "250-test\r\n250-8BITMIME\r\n250-PIPELINING\r\n250-SIZE\r\n250-X-"
				 "RELAYD\r\n"
				 "250 ENHANCEDSTATUSCODES\r\n");
	} else if (slice_starts(line, SLICE("MAIL"))) {
		(void)snprintf(in->last_mail, sizeof(in->last_mail), "%.*s", SLICE_FMT(line));
		c->mail = !dies(c, AT_MAIL) && !bad_reply(c, in->mail_reply);
		if (c->mail)
			reply(c, "250 2.1.0 ok\r\n");
	} else if (slice_eq(line, SLICE("QUIT\r\n"))) {
		reply(c, "221 bye\r\n");
		stream_end(c->stream);
	} else if (!c->mail) {
		reply(c, "503 5.5.1 MAIL first\r\n");
	} else if (slice_starts(line, SLICE("RCPT"))) {
		(void)snprintf(in->last_rcpt, sizeof(in->last_rcpt), "%.*s", SLICE_FMT(line));
		if (!dies(c, AT_RCPT))
			reply(c, "250 2.1.5 ok\r\n");
	} else if (slice_starts(line, SLICE("DATA"))) {
		c->data = true;
		buf_reset(&c->body);
		if (!dies(c, AT_DATA))
			reply(c, "354 go\r\n");
	} else {
		reply(c, "250 ok\r\n");
	}
}

static size_t
on_bytes(struct stream *stream, void *owner, struct slice bytes)
{
	struct conn *c = owner;
	struct slice in = bytes;

	(void)stream;
	if (c->ended)
		return bytes.len;
	while (!c->ended && slice_has(in, '\n')) {
		struct slice line = slice_head(in, slice_until(in, '\n').len + 1);

		in = slice_drop(in, line.len);
		if (!c->data) {
			run_line(c, line);
		} else if (slice_eq(line, SLICE(".\r\n"))) {
			run_dot(c);
		} else {
			if (dies(c, IN_BODY))
				return bytes.len;
			buf_put(&c->body, line.p[0] == '.' ? slice_drop(line, 1) : line);
		}
	}
	return bytes.len - in.len;
}

static void
on_gone(struct stream *stream, void *owner, const struct err *why)
{
	struct conn *c = owner;

	(void)stream;
	(void)why;	/* many reasons are tried */
	buf_fini(&c->body);
	free(c);
}

static const struct stream_ops conn_ops = { .on_read = on_bytes, .on_close = on_gone };

static void
on_connection(void *owner, int fd, const struct sockaddr *peer)
{
	struct intake *in = owner;
	struct conn *c = calloc(1, sizeof(*c));
	struct err err;

	(void)peer; /* nothing depends on it */
	ck_assert_ptr_nonnull(c);
	c->in = in;
	c->body = buf_heap(16u << 20);
	c->dies = in->connections++ < in->deaths;
	c->stream = stream_open(in->loop, fd, &conn_ops, c, &err);
	ck_assert_ptr_nonnull(c->stream);
	if (!dies(c, AT_CONNECT))
		reply(c, "220 test\r\n");
}

/* ---- the fixture ----------------------------------------------------------------------------- */

struct rig {
	struct fixture f;
	struct intake in;
	struct release *release;
	char path[128];
	int fd;
};

static void
rig_release(struct rig *rig)
{
	struct release_options options = { .loop = &rig->f.loop,
		.store = rig->f.store,
		.path = rig->path,
		.hostname = "mx.test",
		.retry_ms = 5 };
	struct err err = { 0 };

	rig->release = release_open(&options, &err);
	ck_assert_msg(rig->release != NULL, "%s", err.msg);
}

static void
rig_listen(struct rig *rig)
{
	struct err err = { 0 };

	rig->fd = wire_listen(rig->path);
	rig->in.listener = listener_open(&rig->f.loop, rig->fd, on_connection, &rig->in, &err);
	ck_assert_msg(rig->in.listener != NULL, "%s", err.msg);
}

static void
rig_open(struct rig *rig, bool listening)
{
	memset(rig, 0, sizeof(*rig));
	fixture_open(&rig->f);
	(void)snprintf(rig->path, sizeof(rig->path), "%s/r.sock", rig->f.dir);
	rig->fd = -1;
	rig->in = (struct intake){ .loop = &rig->f.loop, .dies_at = NOWHERE,
		.last_body = buf_heap(16u << 20) };
	if (listening)
		rig_listen(rig);
	rig_release(rig);
}

static void
rig_stop_release(struct rig *rig)
{
	release_close(rig->release);
	while (!release_is_idle(rig->release))
		(void)uv_run(&rig->f.loop, UV_RUN_ONCE);
	release_free(rig->release);
	rig->release = NULL;
}

static void
rig_close(struct rig *rig)
{
	rig_stop_release(rig);
	listener_close(rig->in.listener);
	if (rig->fd >= 0)
		(void)close(rig->fd);	/* a listening socket */
	buf_fini(&rig->in.last_body);
	fixture_close(&rig->f);
}

/* The n-th message (from 1) of INBOX of the scope goes to Release. */
static void
let_go(struct rig *rig, const char *scope, uint32_t uid)
{
	struct store_box *box = box_open(&rig->f, scope, STORE_INBOX);

	ck_assert_int_eq(move(&rig->f, box, uid, STORE_RELEASE, "adm", NULL), ERR_NONE);
	store_box_close(box);
}

/* Runs the loop until so many are under a mailbox of "*". */
static void
await(struct rig *rig, enum store_box_kind kind, size_t n)
{
	int64_t until = clock_mono_ms() + 20000;

	while (count(&rig->f, "*", kind) != n) {
		ck_assert_msg(clock_mono_ms() < until, "%zu under %s, not %zu",
		    count(&rig->f, "*", kind), store_box_name(kind), n);
		(void)uv_run(&rig->f.loop, UV_RUN_NOWAIT);
		(void)usleep(500);	/* woken early it only looks sooner */
	}
}

/* ---- tests ----------------------------------------------------------------------------------- */

START_TEST(the_original_goes_out_with_its_envelope_and_key)
{
	char id[ID_TEXT_LEN + 1], mail[256];
	struct rig rig;

	rig_open(&rig, true);
	ck_assert_int_eq(
	    put(&rig.f, test_id(9), "a@example.org b@example.net", TOP("x") MESSAGE), ERR_NONE);
	(void)count(&rig.f, "example.net", STORE_INBOX);	/* makes the scope */
	let_go(&rig, "example.net", 1);
	while (rig.in.n_keys < 1)
		(void)uv_run(&rig.f.loop, UV_RUN_ONCE);
	id_text(test_id(9), id);
	(void)snprintf(mail, sizeof(mail),
	    "MAIL FROM:<s@example.net> SIZE=%zu BODY=8BITMIME XID=%s XKEY=%s-2\r\n",
	    strlen(MESSAGE), id, id);
	ck_assert_str_eq(rig.in.last_mail, mail);
	ck_assert_str_eq(rig.in.last_rcpt, "RCPT TO:<b@example.net>\r\n");
	ck_assert(slice_eq(buf_slice(&rig.in.last_body), SLICE(MESSAGE)));
	while (count(&rig.f, "example.net", STORE_RELEASED) != 1)
		(void)uv_run(&rig.f.loop, UV_RUN_NOWAIT);
	ck_assert_uint_eq(count(&rig.f, "*", STORE_INBOX), 1);	/* a@example.org is still held */
	let_go(&rig, "*", 1);
	await(&rig, STORE_RELEASED, 1);
	ck_assert_uint_eq(rig.in.dots, 2);
	ck_assert_uint_eq(rig.in.n_keys, 2);
	rig_close(&rig);
}
END_TEST

START_TEST(an_intake_that_dies_at_any_point_gets_it_again_under_the_same_key)
{
	struct rig rig;

	rig_open(&rig, true);
	rig.in.dies_at = (enum point)_i;
	rig.in.deaths = 2;
	for (unsigned n = 0; n < 5; n++)
		ck_assert_int_eq(
		    put(&rig.f, test_id(n), "a@example.org", TOP("x") MESSAGE), ERR_NONE);
	for (uint32_t uid = 1; uid <= 5; uid++)
		let_go(&rig, "*", uid);
	await(&rig, STORE_RELEASED, 5);
	ck_assert_uint_eq(rig.in.n_keys, 5);
	ck_assert_uint_eq(jobs(&rig.f, NULL), 0);
	/* Only a message that was taken and not answered may come twice. */
	if (_i != AT_DOT)
		ck_assert_uint_eq(rig.in.dots, 5);
	rig_close(&rig);
}
END_TEST

START_TEST(a_large_message_is_handed_on_whole)
{
	struct buf message = buf_heap(8u << 20);
	struct rig rig;

	for (unsigned i = 0; message.len < 3000000; i++)
		buf_printf(&message, "%sline %u\r\n", i % 100 == 0 ? "." : "", i * 2654435761u);
	rig_open(&rig, true);
	rig.in.dies_at = IN_BODY;
	rig.in.deaths = 1;
	ck_assert_int_eq(
	    put_bytes(&rig.f, test_id(1), "a@example.org", buf_slice(&message), 0, NULL), ERR_NONE);
	let_go(&rig, "*", 1);
	await(&rig, STORE_RELEASED, 1);
	ck_assert(slice_eq(buf_slice(&rig.in.last_body), buf_slice(&message)));
	buf_fini(&message);
	rig_close(&rig);
}
END_TEST

START_TEST(a_restart_of_review_sends_what_was_left_and_nothing_else)
{
	struct rig rig;

	rig_open(&rig, false);
	for (unsigned n = 0; n < 3; n++)
		ck_assert_int_eq(put(&rig.f, test_id(n), "a@example.org", MESSAGE), ERR_NONE);
	let_go(&rig, "*", 1);
	let_go(&rig, "*", 3);
	for (int i = 0; i < 50; i++)
		(void)uv_run(&rig.f.loop, UV_RUN_NOWAIT);
	ck_assert_uint_eq(count(&rig.f, "*", STORE_RELEASE), 2);
	rig_stop_release(&rig);
	fixture_reopen(&rig.f);
	rig_listen(&rig);
	rig_release(&rig);
	await(&rig, STORE_RELEASED, 2);
	ck_assert_uint_eq(rig.in.n_keys, 2);
	ck_assert_uint_eq(count(&rig.f, "*", STORE_INBOX), 1);
	rig_close(&rig);
}
END_TEST

static struct rig *victim;

/* The role dies while intake has the message and has not answered. */
static void
kill_release(struct intake *in)
{
	in->on_dot = NULL;
	release_close(victim->release);
}

START_TEST(a_review_that_dies_before_the_answer_sends_it_again_under_the_same_key)
{
	struct rig rig;

	rig_open(&rig, true);
	victim = &rig;
	rig.in.on_dot = kill_release;
	ck_assert_int_eq(put(&rig.f, test_id(1), "a@example.org", MESSAGE), ERR_NONE);
	let_go(&rig, "*", 1);
	while (!release_is_idle(rig.release))
		(void)uv_run(&rig.f.loop, UV_RUN_ONCE);
	ck_assert_uint_eq(jobs(&rig.f, NULL), 1);
	release_free(rig.release);
	fixture_reopen(&rig.f);
	rig_release(&rig);
	await(&rig, STORE_RELEASED, 1);
	ck_assert_uint_eq(rig.in.dots, 2);
	ck_assert_uint_eq(rig.in.n_keys, 1);
	rig_close(&rig);
}
END_TEST

static const struct {
	const char *mail, *dot;
	size_t times;
	enum store_box_kind want;
	size_t keys;
} answers[] = {
	{ "452 4.3.1 full\r\n", NULL, 3, STORE_RELEASED, 1 },
	{ NULL, "451 4.7.1 later\r\n", 3, STORE_RELEASED, 1 },
	{ "552 5.3.4 too large\r\n", NULL, 1, STORE_INBOX, 0 },
	{ NULL, "550 5.7.1 virus\r\n", 1, STORE_INBOX, 0 },
};

START_TEST(a_4xx_is_tried_again_and_a_5xx_brings_it_back)
{
	struct store_box *box;
	struct rig rig;
	size_t n;

	rig_open(&rig, true);
	rig.in.mail_reply = answers[_i].mail;
	rig.in.dot_reply = answers[_i].dot;
	rig.in.bad_replies = answers[_i].times;
	ck_assert_int_eq(put(&rig.f, test_id(1), "a@example.org", MESSAGE), ERR_NONE);
	let_go(&rig, "*", 1);
	await(&rig, answers[_i].want, 1);
	ck_assert_uint_eq(rig.in.n_keys, answers[_i].keys);
	box = box_open(&rig.f, "*", answers[_i].want);
	ck_assert_uint_eq(store_box_entries(box, &n)[0].flags,
	    answers[_i].want == STORE_INBOX ? STORE_KEYWORD_BIT(0) : 0);
	store_box_close(box);
	rig_close(&rig);
}
END_TEST

START_TEST(very_many_at_once_all_go_out_once)
{
	enum { MANY = 60 };	/* more than one page, with two recipients each */
	struct rig rig;

	rig_open(&rig, true);
	rig.in.dies_at = AT_DOT;
	rig.in.deaths = 3;
	for (unsigned n = 0; n < MANY / 2; n++)
		ck_assert_int_eq(
		    put(&rig.f, test_id(n), "a@example.org b@example.org", MESSAGE), ERR_NONE);
	for (uint32_t uid = 1; uid <= MANY / 2; uid++)
		let_go(&rig, "*", uid);
	await(&rig, STORE_RELEASED, MANY / 2);
	ck_assert_uint_eq(rig.in.n_keys, MANY);
	ck_assert_uint_eq(jobs(&rig.f, NULL), 0);
	rig_close(&rig);
}
END_TEST

static void
set(void *arg)
{
	*(bool *)arg = true;
}

START_TEST(a_drain_waits_for_the_answer_and_sends_nothing_new)
{
	bool drained = false;
	struct rig rig;

	rig_open(&rig, true);
	ck_assert_int_eq(put(&rig.f, test_id(1), "a@example.org", MESSAGE), ERR_NONE);
	ck_assert_int_eq(put(&rig.f, test_id(2), "a@example.org", MESSAGE), ERR_NONE);
	let_go(&rig, "*", 1);
	await(&rig, STORE_RELEASED, 1);
	release_drain(rig.release, set, &drained);
	let_go(&rig, "*", 2);
	run_until(&rig.f.loop, &drained);
	ck_assert_uint_eq(rig.in.n_keys, 1);
	ck_assert_uint_eq(jobs(&rig.f, NULL), 1);
	rig_close(&rig);
}
END_TEST

UNIT_SUITE(release)
{
	UNIT_TEST(the_original_goes_out_with_its_envelope_and_key);
	tcase_add_loop_test(tc, an_intake_that_dies_at_any_point_gets_it_again_under_the_same_key,
	    AT_CONNECT, NOWHERE);
	UNIT_TEST(a_large_message_is_handed_on_whole);
	UNIT_TEST(a_restart_of_review_sends_what_was_left_and_nothing_else);
	UNIT_TEST(a_review_that_dies_before_the_answer_sends_it_again_under_the_same_key);
	UNIT_ROWS(a_4xx_is_tried_again_and_a_5xx_brings_it_back, answers);
	UNIT_TEST(very_many_at_once_all_go_out_once);
	UNIT_TEST(a_drain_waits_for_the_answer_and_sends_nothing_new);
}
