/* tests/unit/review/lmtp_test.c - mail in by LMTP, as delivery speaks it. */
#include "unit/review/helper.h"
#include "unit/review/wire.h"
#include "unit/unit.h"

#include "relayd/review/lmtp.h"

#include <stdio.h>
#include <unistd.h>

struct lmtp_fixture {
	struct fixture f;
	char path[128];
	int fd;
	struct lmtp *lmtp;
};

static void
lmtp_start(struct lmtp_fixture *lf)
{
	struct lmtp_options options;
	struct err err = { 0 };

	fixture_open(&lf->f);
	(void)snprintf(lf->path, sizeof(lf->path), "%s/q.sock", lf->f.dir);
	lf->fd = wire_listen(lf->path);
	options = (struct lmtp_options){ .loop = &lf->f.loop,
		.fd = lf->fd,
		.store = lf->f.store,
		.hostname = "mx.test",
		.peer_uid = (uid_t)-1 };
	lf->lmtp = lmtp_open(&options, &err);
	ck_assert_msg(lf->lmtp != NULL, "%s", err.msg);
}

static void
lmtp_stop(struct lmtp_fixture *lf)
{
	lmtp_close(lf->lmtp);
	while (!lmtp_is_idle(lf->lmtp))
		(void)uv_run(&lf->f.loop, UV_RUN_ONCE);
	store_close(lf->f.store);
	lf->f.store = NULL;
	lmtp_free(lf->lmtp);
	(void)close(lf->fd); /* a listening socket */
	fixture_close(&lf->f);
}

static struct wire *
hello(struct lmtp_fixture *lf)
{
	struct wire *w = wire_open(&lf->f.loop, lf->path);

	ck_assert_ptr_nonnull(strstr(wire_hear(w, "\r\n"), "220 "));
	ck_assert_ptr_nonnull(
	    strstr(wire_ask(w, "LHLO relayd\r\n", "ENHANCEDSTATUSCODES\r\n"), "X-RELAYD"));
	return w;
}

START_TEST(one_transaction_is_held_under_its_id_with_a_reply_for_each_recipient)
{
	struct lmtp_fixture lf;
	struct store_box *box;
	struct buf view = buf_heap(4096);
	struct wire *w;
	char id[ID_TEXT_LEN + 1], mail[128];
	const char *replies;
	size_t n;

	lmtp_start(&lf);
	w = hello(&lf);
	id_text(test_id(7), id);
	(void)snprintf(mail, sizeof(mail), "MAIL FROM:<s@example.net> XID=%s\r\n", id);
	for (int redo = 0; redo < 2; redo++) {
		wire_ask(w, mail, "\r\n");
		wire_ask(w, "RCPT TO:<a@example.org>\r\nRCPT TO:<b@example.net>\r\nDATA\r\n",
		    "<LF>\r\n");
		replies = wire_lines(w,
		    TOP("a@example.org, b@example.net") "Received: x\r\n\r\n..dot\r\n.\r\n", 2);
		ck_assert(strncmp(replies, "250 2.0.0 held", 14) == 0);
		ck_assert_ptr_nonnull(strstr(replies, id));
		ck_assert_ptr_nonnull(strstr(replies, "\r\n250 2.0.0 held"));
	}
	ck_assert_uint_eq(count(&lf.f, "*", STORE_INBOX), 1);
	box = box_open(&lf.f, "a@example.org", STORE_INBOX);
	ck_assert_int_eq(
	    read_view(&lf.f, box, store_box_entries(box, &n)[0].item, 0, 4096, &view), ERR_NONE);
	ck_assert(slice_ends(
	    buf_slice(&view), SLICE("X-Relayd-To: a@example.org\r\nReceived: x\r\n\r\n.dot\r\n")));
	store_box_close(box);
	buf_fini(&view);
	wire_ask(w, "QUIT\r\n", "\r\n");
	wire_close(w);
	lmtp_stop(&lf);
}
END_TEST

/* 5 MB in lines, so that it goes to the store in parts. */
static struct buf
large(void)
{
	struct buf b = buf_heap(6u << 20);

	for (unsigned i = 0; b.len < 5u << 20; i++)
		buf_printf(&b, "line %u of a large message %u\r\n", i, i * 2654435761u);
	return b;
}

START_TEST(a_large_message_goes_to_the_store_in_parts_and_is_whole)
{
	struct buf message = large(), view = buf_heap(8u << 20);
	struct lmtp_fixture lf;
	const char *replies;
	struct store_box *box;
	struct wire *w;
	size_t n;

	lmtp_start(&lf);
	w = hello(&lf);
	wire_ask(w, "MAIL FROM:<>\r\nRCPT TO:<a@example.org>\r\nDATA\r\n", "<LF>\r\n");
	wire_say(w, buf_slice(&message));
	replies = wire_ask(w, ".\r\n", "\r\n");
	ck_assert_msg(strncmp(replies, "250 2.0.0 held", 14) == 0, "%s", replies);
	box = box_open(&lf.f, "*", STORE_INBOX);
	(void)store_box_entries(box, &n); /* how many */
	ck_assert_uint_eq(n, 1);
	for (size_t at = 0; at < message.len + 28; at += STORE_READ_MAX)
		ck_assert_int_eq(read_view(&lf.f, box, store_box_entries(box, &n)[0].item, at,
				     STORE_READ_MAX, &view),
		    ERR_NONE);
	ck_assert(slice_ends(buf_slice(&view), buf_slice(&message)));
	ck_assert_uint_eq(view.len, message.len + 28);
	store_box_close(box);
	wire_close(w);
	buf_fini(&message);
	buf_fini(&view);
	lmtp_stop(&lf);
}
END_TEST

START_TEST(a_connection_that_breaks_off_leaves_nothing)
{
	struct buf message = large();
	struct lmtp_fixture lf;
	struct wire *w;

	lmtp_start(&lf);
	for (size_t cut = 0; cut <= message.len; cut += message.len / 3) {
		w = hello(&lf);
		wire_ask(w, "MAIL FROM:<>\r\nRCPT TO:<a@example.org>\r\nDATA\r\n", "<LF>\r\n");
		wire_say(w, slice_head(buf_slice(&message), cut));
		for (int i = 0; i < 20; i++)
			(void)uv_run(&lf.f.loop, UV_RUN_NOWAIT);
		wire_close(w);
	}
	while (!lmtp_is_idle(lf.lmtp))
		(void)uv_run(&lf.f.loop, UV_RUN_ONCE);
	ck_assert_uint_eq(count(&lf.f, "*", STORE_INBOX), 0);
	/* What was staged is forgotten too: a new body has the chunk ids from where the old ones
	 * ended. */
	ck_assert_int_eq(put(&lf.f, test_id(1), "a@example.org", MESSAGE), ERR_NONE);
	ck_assert_uint_eq(count(&lf.f, "*", STORE_INBOX), 1);
	buf_fini(&message);
	lmtp_stop(&lf);
}
END_TEST

START_TEST(a_full_disk_is_a_452_and_delivery_keeps_the_message)
{
	struct buf message = large();
	struct lmtp_fixture lf;
	const char *replies;
	struct wire *w;

	lmtp_start(&lf);
	store_limit_pages(lf.f.store, 40);
	w = hello(&lf);
	for (int parts = 0; parts < 2; parts++) {
		wire_ask(w,
		    "MAIL FROM:<>\r\nRCPT TO:<a@example.org>\r\nRCPT "
		    "TO:<b@example.org>\r\nDATA\r\n",
		    "<LF>\r\n");
		wire_say(w, slice_head(buf_slice(&message), parts == 0 ? 900000 : message.len));
		replies = wire_lines(w, "\r\n.\r\n", 2);
		ck_assert(strncmp(replies, "452 4.3.1 the quarantine is full", 32) == 0);
		ck_assert_ptr_nonnull(strstr(replies, "\r\n452 4.3.1"));
	}
	store_limit_pages(lf.f.store, 100000);
	wire_ask(w, "RSET\r\nMAIL FROM:<>\r\nRCPT TO:<a@example.org>\r\nDATA\r\n", "<LF>\r\n");
	wire_say(w, buf_slice(&message));
	ck_assert_ptr_nonnull(strstr(wire_ask(w, ".\r\n", "\r\n"), "250 2.0.0 held"));
	ck_assert_uint_eq(count(&lf.f, "*", STORE_INBOX), 1);
	wire_close(w);
	buf_fini(&message);
	lmtp_stop(&lf);
}
END_TEST

static void
set(void *arg)
{
	*(bool *)arg = true;
}

START_TEST(a_drain_finishes_the_transaction_that_runs)
{
	struct lmtp_fixture lf;
	bool drained = false;
	struct wire *w;

	lmtp_start(&lf);
	w = hello(&lf);
	wire_ask(w, "MAIL FROM:<>\r\nRCPT TO:<a@example.org>\r\nDATA\r\n", "<LF>\r\n");
	lmtp_drain(lf.lmtp, set, &drained);
	for (int i = 0; i < 20; i++)
		(void)uv_run(&lf.f.loop, UV_RUN_NOWAIT);
	ck_assert(!drained);
	wire_say(w, SLICE(MESSAGE ".\r\n"));
	ck_assert_ptr_nonnull(strstr(wire_hear_end(w), "250 2.0.0 held"));
	run_until(&lf.f.loop, &drained);
	wire_close(w);
	ck_assert_uint_eq(count(&lf.f, "*", STORE_INBOX), 1);
	lmtp_stop(&lf);
}
END_TEST

UNIT_SUITE(lmtp)
{
	UNIT_TEST(one_transaction_is_held_under_its_id_with_a_reply_for_each_recipient);
	UNIT_TEST(a_large_message_goes_to_the_store_in_parts_and_is_whole);
	UNIT_TEST(a_connection_that_breaks_off_leaves_nothing);
	UNIT_TEST(a_full_disk_is_a_452_and_delivery_keeps_the_message);
	UNIT_TEST(a_drain_finishes_the_transaction_that_runs);
}
