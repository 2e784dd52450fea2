/* tests/unit/spool/journal_test.c - what delivery knew is known again. */
#include "unit/unit.h"

#include "relayd/core/counters.h"
#include "relayd/spool/entry.h"
#include "unit/spool/fakedisk.h"
#include "unit/spool/rig.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static struct rig rig;
static struct spool *sp;
static struct err err;

static void
setup(void)
{
	fakedisk_use();
	rig_init(&rig);
	err = (struct err){ 0 };
	sp = rig_spool(&rig, 0, &err);
	ck_assert_int_eq(rig_open(&rig, &err), 0);
}

static void
teardown(void)
{
	spool_close(sp);
	rig_fini(&rig);
	fakedisk_free();
}

static struct index_msg *
keep(uint32_t number)
{
	struct rig_msg msg;
	struct reader_item item;

	ck_assert_int_eq(rig_send(sp, &msg, number, 500), 0);
	rig_run(&rig);
	ck_assert_int_eq(msg.code, ERR_NONE);
	ck_assert_int_eq(reader_next(rig.reader, &item, &err), 1);
	ck_assert(id_eq(item.msg->id, msg.id));
	return item.msg;
}

/* Closes all but the writer, as a restart of delivery does, and reads everything again. */
static void
restart(void)
{
	struct reader_item item;

	rig_close(&rig);
	rig_run(&rig);
	ck_assert_msg(rig_open(&rig, &err) == 0, "%s", err.msg);
	while (reader_next(rig.reader, &item, &err) > 0)
		continue;
}

/* The process ends at once, without a last word to the disk. */
static void
crash(enum fakedisk_loss loss)
{
	fakedisk_off();
	rig_close(&rig);
	spool_close(sp);
	sp = NULL;
	rig_run(&rig);
	fakedisk_reboot(loss, 1);
}

START_TEST(what_the_admin_said_of_a_message_survives)
{
	struct index_msg *msg = keep(1);
	struct id id = msg->id;

	journal_order(rig.journal, msg, INDEX_HELD, SLICE("mail3.corp:25"));
	restart();
	msg = index_find(journal_index(rig.journal), id);
	ck_assert_ptr_nonnull(msg);
	ck_assert_uint_eq(msg->flags, INDEX_HELD);
	ck_assert_str_eq(msg->via, "mail3.corp:25");
	journal_order(rig.journal, msg, INDEX_WARNED, SLICE(""));
	for (int i = 0; i < 40; i++)
		restart(); /* by now it comes from a snapshot */
	msg = index_find(journal_index(rig.journal), id);
	ck_assert_uint_eq(msg->flags, INDEX_WARNED);
	ck_assert_ptr_null(msg->via);
}
END_TEST

START_TEST(what_is_known_of_a_recipient_survives)
{
	struct index_msg *msg = keep(1);
	struct id id = msg->id;
	char long_reply[INDEX_REPLY_MAX + 100];
	const struct index_rcpt *rcpt;

	memset(long_reply, 'x', sizeof(long_reply));
	for (uint32_t i = 0; i < 50; i++)
		journal_rcpt(rig.journal, msg,
		    &(struct index_rcpt){
			.ordinal = (i * 7) % 50, .outcome = INDEX_SENT, .reply = SLICE("250 ok") });
	journal_rcpt(rig.journal, msg,
	    &(struct index_rcpt){ .ordinal = 7,
		.attempts = 3,
		.tried_ms = 1767225600123,
		.next_ms = 1767225900123,
		.reply = slice_of(long_reply, sizeof(long_reply)) });
	ck_assert_uint_eq(msg->n_rcpts, 50);
	rig_sync(&rig);
	ck_assert(!journal_dirty(rig.journal));
	restart();
	msg = index_find(journal_index(rig.journal), id);
	ck_assert_ptr_nonnull(msg);
	ck_assert_uint_eq(msg->n_rcpts, 50);
	ck_assert_uint_eq(journal_index(rig.journal)->facts, 50);
	rcpt = index_rcpt(msg, 7);
	ck_assert_int_eq(rcpt->outcome, INDEX_PENDING);
	ck_assert_uint_eq(rcpt->attempts, 3);
	ck_assert_int_eq(rcpt->tried_ms, 1767225600123);
	ck_assert_int_eq(rcpt->next_ms, 1767225900123);
	ck_assert_uint_eq(rcpt->reply.len, INDEX_REPLY_MAX);
	ck_assert_int_eq(index_rcpt(msg, 49)->outcome, INDEX_SENT);
	ck_assert_ptr_null(index_rcpt(msg, 50));
}
END_TEST

START_TEST(what_is_done_stays_done)
{
	struct id ids[20];

	for (uint32_t i = 0; i < 20; i++) {
		struct index_msg *msg = keep(i);

		ids[i] = msg->id;
		if (i % 3 != 0)
			journal_done(rig.journal, msg);
	}
	rig_sync(&rig);
	restart();
	for (uint32_t i = 0; i < 20; i++)
		ck_assert((index_find(journal_index(rig.journal), ids[i]) != NULL) == (i % 3 == 0));
	ck_assert_uint_eq(journal_index(rig.journal)->open, 7);
}
END_TEST

START_TEST(what_is_written_survives_a_kill_and_what_is_synced_a_power_cut)
{
	struct index_msg *a = keep(1), *b = keep(2);
	struct id written = a->id, synced = b->id;

	journal_done(rig.journal, b);
	rig_sync(&rig);
	journal_done(rig.journal, a);
	journal_write(rig.journal);
	crash(_i == 0 ? FAKEDISK_KEPT : FAKEDISK_DROPPED);
	ck_assert_int_eq(rig_open(&rig, &err), 0);
	while (reader_next(rig.reader, &(struct reader_item){ 0 }, &err) > 0)
		continue;
	ck_assert_ptr_null(index_find(journal_index(rig.journal), synced));
	ck_assert((index_find(journal_index(rig.journal), written) == NULL) == (_i == 0));
}
END_TEST

/* Its records, and how many sectors those take; zeros may follow. */
static uint8_t *
first_file(size_t *sectors)
{
	size_t len;
	uint8_t *bytes = fakedisk_bytes(RIG_DIR "/journal/00000001.jnl", &len);

	while (len > 0 && bytes[len - 1] == 0)
		len--;
	*sectors = (len + 511) / 512;
	return bytes;
}

/* A torn sector may spoil what was not synced, and nothing else. */
START_TEST(writes_share_a_sector_until_it_is_synced)
{
	struct id ids[5];
	uint8_t *bytes;
	size_t sectors;

	for (uint32_t i = 0; i < ARRAY_LEN(ids); i++) {
		struct index_msg *msg = keep(i);

		ids[i] = msg->id;
		journal_done(rig.journal, msg);
		journal_write(rig.journal);
		(void)first_file(&sectors);
		ck_assert_uint_eq(sectors, i < 3 ? 2 : 3); /* with the header */
		if (i == 2)
			rig_sync(&rig); /* nothing is left to write, but the end of the sector */
	}
	rig_close(&rig);
	bytes = first_file(&sectors);
	ck_assert_uint_eq(sectors, 3);
	memset(bytes + 2 * 512, 0xa5, 512);
	ck_assert_int_eq(rig_open(&rig, &err), 0);
	while (reader_next(rig.reader, &(struct reader_item){ 0 }, &err) > 0)
		continue;
	for (uint32_t i = 0; i < ARRAY_LEN(ids); i++)
		ck_assert((index_find(journal_index(rig.journal), ids[i]) == NULL) == (i < 3));
}
END_TEST

static size_t
first_file_bytes(void)
{
	size_t len;

	(void)fakedisk_bytes(RIG_DIR "/journal/00000001.jnl", &len);
	return len;
}

/* Each time that it does costs more than what is written. */
START_TEST(its_file_seldom_grows)
{
	unsigned grown = 0;
	size_t len = first_file_bytes();

	for (uint32_t i = 0; i < 200; i++) {
		struct index_msg *msg = keep(i);

		journal_done(rig.journal, msg);
		rig_sync(&rig); /* a sector each */
		grown += first_file_bytes() != len;
		len = first_file_bytes();
	}
	ck_assert_uint_gt(len, 200 * 512);
	ck_assert_uint_le(grown, 3);
}
END_TEST

START_TEST(a_release_key_is_taken_once)
{
	struct index_msg *first = keep(1), *second = keep(2);
	struct slice key = SLICE("item-7");

	ck_assert(!journal_key_seen(rig.journal, key, first));
	ck_assert(!journal_key_seen(rig.journal, key, first)); /* read again after a crash */
	ck_assert(journal_key_seen(rig.journal, key, second));
	ck_assert(!journal_key_seen(rig.journal, SLICE("item-8"), second));
	journal_done(rig.journal, first);
	rig_sync(&rig);
	restart();
	ck_assert(journal_key_seen(rig.journal, key, keep(3)));
}
END_TEST

struct told {
	struct journal_sync req;
	int times;
	enum err_code code;
};

static void
on_synced(struct journal_sync *req, const struct err *why)
{
	struct told *t = req->data;

	t->times++;
	t->code = why->code;
}

static void
sync_start(struct told *t)
{
	*t = (struct told){ .req = { .done = on_synced, .data = t } };
	journal_sync_start(&t->req, rig.journal);
	ck_assert_int_eq(t->times, 0);
}

START_TEST(a_sync_is_told_once)
{
	struct told told[3];
	unsigned syncs = fakedisk_calls(FAKEDISK_SYNC);

	journal_done(rig.journal, keep(1));
	for (int i = 0; i < 3; i++)
		sync_start(&told[i]);
	for (int i = 0; i < 2; i++) /* looks once more for others */
		(void)uv_run(&rig.loop, UV_RUN_NOWAIT);
	for (int i = 0; i < 3; i++)
		ck_assert(told[i].times == 1 && told[i].code == ERR_NONE);
	ck_assert_uint_eq(
	    fakedisk_calls(FAKEDISK_SYNC), syncs + 2); /* the message's, and one more */
	sync_start(&told[0]);                          /* nothing changed: no sync */
	rig_run(&rig);
	ck_assert(told[0].times == 1 && told[0].code == ERR_NONE);
	ck_assert_uint_eq(fakedisk_calls(FAKEDISK_SYNC), syncs + 2);
	journal_done(rig.journal, keep(2));
	sync_start(&told[0]);
	rig_close(&rig);
	ck_assert(told[0].times == 1 && told[0].code == ERR_CANCELLED);
}
END_TEST

static const struct {
	enum fakedisk_op op;
	int sys;
} failures[] = { { FAKEDISK_SYNC, EIO }, { FAKEDISK_WRITE, EIO }, { FAKEDISK_WRITE, ENOSPC } };

START_TEST(a_journal_that_failed_mends_itself_and_forgets_nothing)
{
	struct index_msg *a = keep(1), *b = keep(2), *c = keep(3);
	struct id id = a->id;
	struct told told;

	journal_rcpt(rig.journal, a, &(struct index_rcpt){ .ordinal = 1, .reply = SLICE("one") });
	fakedisk_fail(failures[_i].op, 0, 100, failures[_i].sys);
	sync_start(&told);
	rig_run(&rig);
	ck_assert(told.times == 1 && told.code != ERR_NONE);
	ck_assert(!journal_healthy(rig.journal));
	ck_assert(journal_dirty(rig.journal));
	journal_done(rig.journal, b);
	rig_sync(&rig); /* too early to try again */
	ck_assert(!journal_healthy(rig.journal));
	fakedisk_fail(failures[_i].op, 0, 0, 0);
	(void)usleep(1050000);
	journal_done(rig.journal, c);
	sync_start(&told);
	rig_run(&rig);
	ck_assert(told.times == 1 && told.code == ERR_NONE);
	ck_assert(journal_healthy(rig.journal));
	journal_rcpt(rig.journal, a, &(struct index_rcpt){ .ordinal = 2, .reply = SLICE("two") });
	rig_sync(&rig);
	crash(FAKEDISK_DROPPED);
	restart();
	ck_assert_uint_eq(journal_index(rig.journal)->open, 1);
	a = index_find(journal_index(rig.journal), id);
	ck_assert_str_eq(index_rcpt(a, 1)->reply.p, "one");
	ck_assert_str_eq(index_rcpt(a, 2)->reply.p, "two");
}
END_TEST

static void
count_bytes(void *data, const char *path)
{
	size_t len;

	if (strstr(path, RIG_DIR "/journal/") == NULL)
		return;
	(void)fakedisk_bytes(path, &len);
	*(size_t *)data += len;
}

START_TEST(checkpoints_bound_its_size)
{
	struct index_msg *msg = keep(1), *other = keep(2);
	struct id id = msg->id;
	char reply[400];
	size_t bytes = 0;

	memset(reply, 'r', sizeof(reply));
	journal_rcpt(rig.journal, other, &(struct index_rcpt){ .reply = SLICE("kept") });
	for (uint32_t i = 0; i < 40000; i++) { /* 17 MB of changes */
		journal_rcpt(rig.journal, msg,
		    &(struct index_rcpt){ .ordinal = i % 10,
			.attempts = i,
			.reply = slice_of(reply, sizeof(reply)) });
		if (i % 1000 == 0)
			rig_sync(&rig);
	}
	rig_sync(&rig);
	fakedisk_files(count_bytes, &bytes);
	ck_assert_uint_lt(bytes, 2 * JOURNAL_CHECKPOINT_BYTES);
	restart();
	msg = index_find(journal_index(rig.journal), id);
	ck_assert_uint_eq(index_rcpt(msg, 9)->attempts, 39999);
	ck_assert_uint_eq(index_rcpt(msg, 0)->attempts, 39990);
}
END_TEST

static void
count_file(void *data, const char *path)
{
	if (strstr(path, RIG_DIR "/journal/") != NULL)
		++*(unsigned *)data;
}

START_TEST(restarts_do_not_pile_up_files)
{
	struct index_msg *msg = keep(1);
	struct id id = msg->id;
	unsigned files = 0;

	for (uint32_t i = 0; i < 100; i++) {
		msg = index_find(journal_index(rig.journal), id);
		journal_rcpt(
		    rig.journal, msg, &(struct index_rcpt){ .ordinal = i, .reply = SLICE("") });
		rig_sync(&rig);
		restart();
	}
	ck_assert_uint_eq(index_find(journal_index(rig.journal), id)->n_rcpts, 100);
	fakedisk_files(count_file, &files);
	ck_assert_uint_lt(files, 40);
}
END_TEST

START_TEST(a_damaged_journal_is_reported_and_what_is_whole_is_used)
{
	struct id ids[3];
	uint8_t *bytes;
	size_t sectors;

	for (uint32_t i = 0; i < 3; i++) {
		struct index_msg *msg = keep(i);

		ids[i] = msg->id;
		journal_done(rig.journal, msg);
		rig_sync(&rig);
	}
	bytes = first_file(&sectors);
	ck_assert_uint_eq(sectors, 4);
	bytes[2 * 512 + 25] ^= 1;
	restart();
	ck_assert_int_eq(counter_get(COUNTER_DAMAGE), 1);
	ck_assert_ptr_null(index_find(journal_index(rig.journal), ids[0]));
	ck_assert_ptr_nonnull(index_find(journal_index(rig.journal), ids[1]));
	ck_assert_ptr_null(index_find(journal_index(rig.journal), ids[2]));
}
END_TEST

START_TEST(a_journal_of_a_newer_relayd_is_refused)
{
	size_t len;

	rig_close(&rig);
	fakedisk_bytes(RIG_DIR "/journal/00000001.jnl", &len)[8] = RECORD_VERSION + 1;
	ck_assert_int_eq(rig_open(&rig, &err), -1);
	ck_assert_int_eq(err.code, ERR_VERSION);
	ck_assert_ptr_nonnull(strstr(err.msg, "00000001.jnl"));
}
END_TEST

/* A snapshot gives the index that it was made of, and entries twice what they give once. */
START_TEST(a_snapshot_gives_the_same_index)
{
	struct record_file file = record_file_new(RECORD_SNAPSHOT, 1, 0);
	struct buf once = buf_heap(1 << 20);
	struct record_scanner sc = record_scanner_of(&file, RECORD_FILE_BYTES, 0);
	struct record_window win = { .at = RECORD_FILE_BYTES, .last = true };
	struct index_msg *msg = keep(1);
	struct index ix;
	struct record rec;

	journal_rcpt(rig.journal, msg, &(struct index_rcpt){ .ordinal = 4, .reply = SLICE("r") });
	journal_done(rig.journal, keep(2));
	(void)journal_key_seen(rig.journal, SLICE("k"), msg);
	entry_snapshot(journal_index(rig.journal), &file, &once);
	index_init(&ix);
	for (int i = 0; i < 2; i++) {
		win.bytes = buf_slice(&once);
		sc.at = RECORD_FILE_BYTES;
		while (record_scan(&sc, &win, &rec) == RECORD_WHOLE)
			ck_assert_int_eq(entry_apply(&ix, rec.payload, &err), 0);
	}
	ck_assert_uint_eq(ix.keys.n, 1);
	ck_assert_uint_eq(ix.facts, 1);
	ck_assert_uint_eq(ix.logs->segments->n_done, 2); /* the same one, twice */
	index_fini(&ix);
	buf_fini(&once);
}
END_TEST

UNIT_SUITE(spool_journal)
{
	tcase_add_checked_fixture(tc, setup, teardown);
	UNIT_TEST(what_the_admin_said_of_a_message_survives);
	UNIT_TEST(what_is_known_of_a_recipient_survives);
	UNIT_TEST(what_is_done_stays_done);
	tcase_add_loop_test(
	    tc, what_is_written_survives_a_kill_and_what_is_synced_a_power_cut, 0, 2);
	UNIT_TEST(writes_share_a_sector_until_it_is_synced);
	UNIT_TEST(its_file_seldom_grows);
	UNIT_TEST(a_release_key_is_taken_once);
	UNIT_TEST(a_sync_is_told_once);
	UNIT_ROWS(a_journal_that_failed_mends_itself_and_forgets_nothing, failures);
	UNIT_TEST(checkpoints_bound_its_size);
	UNIT_TEST(restarts_do_not_pile_up_files);
	UNIT_TEST(a_damaged_journal_is_reported_and_what_is_whole_is_used);
	UNIT_TEST(a_journal_of_a_newer_relayd_is_refused);
	UNIT_TEST(a_snapshot_gives_the_same_index);
}
