/* tests/unit/spool/spool_test.c - what is committed comes out again, and what happens when the
 * disk does not. */
#include "unit/unit.h"

#include "relayd/core/counters.h"
#include "unit/spool/fakedisk.h"
#include "unit/spool/rig.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static struct rig rig;
static struct err err;

static void
setup(void)
{
	fakedisk_use();
	rig_init(&rig);
	err = (struct err){ 0 };
}

static void
teardown(void)
{
	rig_fini(&rig);
	fakedisk_free();
}

/* Reads all there is now; the numbers of the messages as a set of bits. */
static uint64_t
read_all(void)
{
	struct reader_item item;
	uint64_t seen = 0;
	int rc;

	while ((rc = reader_next(rig.reader, &item, &err)) > 0) {
		size_t size;
		char *bytes = rig_body(&rig, &item, &size, &err);
		uint32_t number;

		ck_assert_msg(bytes != NULL, "%s", err.msg);
		ck_assert(rig_is_body(slice_of(bytes, size), &number));
		ck_assert_msg((seen & UINT64_C(1) << number) == 0, "message %u twice", number);
		seen |= UINT64_C(1) << number;
		free(bytes);
	}
	ck_assert_msg(rc == 0, "%s", err.msg);
	return seen;
}

START_TEST(what_is_committed_comes_out)
{
	struct spool *sp = rig_spool(&rig, 0, &err);
	struct rig_msg msgs[4];
	static const size_t sizes[] = { 64, 4096, SPOOL_INLINE_MAX, SPOOL_INLINE_MAX + 1 };

	ck_assert_msg(sp != NULL, "%s", err.msg);
	for (uint32_t i = 0; i < 4; i++)
		ck_assert_int_eq(rig_send(sp, &msgs[i], i, sizes[i]), 0);
	rig_run(&rig);
	for (int i = 0; i < 4; i++)
		ck_assert(msgs[i].told && msgs[i].code == ERR_NONE);
	ck_assert_msg(rig_open(&rig, &err) == 0, "%s", err.msg);
	ck_assert_uint_eq(read_all(), 0xf);
	ck_assert(reader_caught_up(rig.reader));
	ck_assert_uint_eq(read_all(), 0);
	spool_close(sp);
}
END_TEST

START_TEST(one_round_is_one_write_and_one_sync)
{
	struct spool *sp = rig_spool(&rig, 0, &err);
	struct rig_msg msgs[20];
	unsigned writes = fakedisk_calls(FAKEDISK_WRITE), syncs = fakedisk_calls(FAKEDISK_SYNC);

	for (uint32_t i = 0; i < 20; i++) {
		ck_assert_int_eq(rig_send(sp, &msgs[i], i, 5000), 0);
		if (i == 9)
			(void)uv_run(&rig.loop, UV_RUN_NOWAIT); /* looks once more for others */
	}
	ck_assert_uint_eq(fakedisk_calls(FAKEDISK_WRITE), writes);
	ck_assert(!msgs[0].told);
	(void)uv_run(&rig.loop, UV_RUN_NOWAIT);
	ck_assert(msgs[0].told && msgs[19].told);
	ck_assert_uint_eq(fakedisk_calls(FAKEDISK_WRITE), writes + 1);
	ck_assert_uint_eq(fakedisk_calls(FAKEDISK_SYNC), syncs + 1);
	spool_close(sp);
}
END_TEST

START_TEST(nothing_is_read_before_it_is_durable)
{
	struct spool *sp = rig_spool(&rig, 0, &err);
	struct rig_msg msg;

	ck_assert_int_eq(rig_open(&rig, &err), 0);
	ck_assert_int_eq(rig_send(sp, &msg, 1, 500), 0);
	fakedisk_fail(FAKEDISK_SYNC, 0, 1, EIO);
	rig_run(&rig);
	ck_assert(msg.told && msg.code == ERR_SYS);
	ck_assert_uint_eq(read_all(), 0);
	/* The next segment says where the first one ended: the message was not kept. */
	ck_assert_int_eq(rig_send(sp, &msg, 2, 500), 0);
	rig_run(&rig);
	ck_assert(msg.told && msg.code == ERR_NONE);
	ck_assert_uint_eq(read_all(), 1 << 2);
	ck_assert_int_eq(counter_get(COUNTER_DAMAGE), 0);
	spool_close(sp);
}
END_TEST

START_TEST(a_failed_sync_is_remembered_after_the_end)
{
	struct spool *sp = rig_spool(&rig, 0, &err);
	struct rig_msg msgs[3];

	for (uint32_t i = 0; i < 3; i++) {
		if (i == 1)
			fakedisk_fail(FAKEDISK_SYNC, 0, 1, EIO);
		ck_assert_int_eq(rig_send(sp, &msgs[i], i, 500), 0);
		rig_run(&rig);
	}
	spool_close(sp);
	rig_run(&rig);
	ck_assert_int_eq(rig_open(&rig, &err), 0);
	ck_assert_uint_eq(read_all(), 1 << 0 | 1 << 2);
}
END_TEST

START_TEST(a_failed_sync_is_remembered_without_a_next_segment)
{
	struct spool *sp = rig_spool(&rig, 0, &err);
	struct rig_msg msgs[2];

	for (uint32_t i = 0; i < 2; i++) {
		if (i == 1)
			fakedisk_fail(FAKEDISK_SYNC, 0, 1, EIO);
		ck_assert_int_eq(rig_send(sp, &msgs[i], i, 500), 0);
		rig_run(&rig);
	}
	ck_assert(msgs[1].told && msgs[1].code == ERR_SYS);
	spool_close(sp);
	rig_run(&rig);
	ck_assert_int_eq(rig_open(&rig, &err), 0);
	ck_assert_uint_eq(read_all(), 1 << 0);
}
END_TEST

static const struct {
	const char *what;
	enum fakedisk_op op;
	int sys;
	enum err_code code;
} trouble[] = {
	{ "EIO on write", FAKEDISK_WRITE, EIO, ERR_SYS },
	{ "ENOSPC on write", FAKEDISK_WRITE, ENOSPC, ERR_FULL },
	{ "EIO on sync", FAKEDISK_SYNC, EIO, ERR_SYS },
	{ "ENOSPC on sync", FAKEDISK_SYNC, ENOSPC, ERR_FULL },
};

START_TEST(a_broken_disk_is_refused_and_a_mended_one_used)
{
	struct spool *sp = rig_spool(&rig, 0, &err);
	struct rig_msg msg;

	fakedisk_fail(trouble[_i].op, 0, 1000, trouble[_i].sys);
	ck_assert_int_eq(rig_send(sp, &msg, 1, 500), 0);
	rig_run(&rig);
	ck_assert(msg.told);
	ck_assert_int_eq(msg.code, trouble[_i].code);
	ck_assert_int_eq(spool_check(sp, 0, &err), -1);
	ck_assert_int_eq(err.code, trouble[_i].code);
	ck_assert_ptr_null(spool_begin(sp, 100, &err));
	fakedisk_fail(trouble[_i].op, 0, 0, 0);
	ck_assert_int_eq(spool_check(sp, 0, &err), -1); /* tried again once a second */
	(void)usleep(1050000);
	ck_assert_msg(spool_check(sp, 0, &err) == 0, "%s", err.msg);
	ck_assert_int_eq(rig_send(sp, &msg, 2, 500), 0);
	rig_run(&rig);
	ck_assert(msg.told && msg.code == ERR_NONE);
	ck_assert_int_eq(rig_open(&rig, &err), 0);
	ck_assert_uint_eq(read_all(), 1 << 2);
	spool_close(sp);
}
END_TEST

START_TEST(a_large_message_whose_file_fails_is_not_kept)
{
	struct spool *sp = rig_spool(&rig, 0, &err);
	struct rig_msg large, small;

	ck_assert_int_eq(rig_send(sp, &large, 1, SPOOL_INLINE_MAX * 3), 0);
	ck_assert_int_eq(rig_send(sp, &small, 2, 100), 0);
	fakedisk_fail(FAKEDISK_SYNC, 0, 1, EIO);
	rig_run(&rig);
	ck_assert(large.told && small.told);
	ck_assert_int_eq(large.code, ERR_SYS);
	ck_assert_int_eq(small.code, ERR_NONE);
	ck_assert_int_eq(rig_open(&rig, &err), 0);
	ck_assert_uint_eq(read_all(), 1 << 2);
	spool_close(sp);
}
END_TEST

START_TEST(short_writes_are_continued)
{
	struct spool *sp = rig_spool(&rig, 0, &err);
	struct rig_msg msgs[5];

	fakedisk_short_writes(37);
	for (uint32_t i = 0; i < 5; i++)
		ck_assert_int_eq(rig_send(sp, &msgs[i], i, 100 + 400 * i), 0);
	rig_run(&rig);
	ck_assert(msgs[4].told && msgs[4].code == ERR_NONE);
	ck_assert_int_eq(rig_open(&rig, &err), 0);
	ck_assert_uint_eq(read_all(), 0x1f);
	spool_close(sp);
}
END_TEST

START_TEST(the_reserve_is_left_alone)
{
	struct spool_settings set = { .reserve = 1 << 20 };
	struct spool *sp, *bounces;
	struct rig_msg msg;

	fakedisk_capacity(2 << 20);
	sp = spool_open(&rig.loop, RIG_DIR, &set, &err);
	ck_assert_msg(sp != NULL, "%s", err.msg);
	ck_assert_int_eq(spool_check(sp, 0, &err), 0);
	ck_assert_int_eq(spool_check(sp, 2 << 20, &err), -1);
	ck_assert_int_eq(err.code, ERR_FULL);
	fakedisk_capacity(1 << 20);
	(void)usleep(120000);
	ck_assert_ptr_null(spool_begin(sp, 100, &err));
	ck_assert_int_eq(err.code, ERR_FULL);
	bounces = rig_spool(&rig, 0, &err); /* may use the reserve */
	ck_assert_int_eq(rig_send(bounces, &msg, 1, 1000), 0);
	rig_run(&rig);
	ck_assert_int_eq(msg.code, ERR_NONE);
	fakedisk_capacity(0);
	(void)usleep(120000);
	ck_assert_int_eq(rig_send(sp, &msg, 1, 1000), 0);
	rig_run(&rig);
	ck_assert(msg.told && msg.code == ERR_NONE);
	spool_close(sp);
	spool_close(bounces);
}
END_TEST

START_TEST(a_full_disk_loses_nothing_and_drains)
{
	struct spool *sp = rig_spool(&rig, 64 << 10, &err);
	struct rig_msg msgs[30];
	uint64_t kept = 0;

	ck_assert_int_eq(rig_open(&rig, &err), 0);
	fakedisk_capacity(400000);
	for (uint32_t i = 0; i < 30; i++) {
		(void)rig_send(sp, &msgs[i], i, 20000); /* fails from some point on */
		rig_run(&rig);
		if (msgs[i].told && msgs[i].code == ERR_NONE)
			kept |= UINT64_C(1) << i;
		else
			ck_assert_int_eq(msgs[i].code, ERR_FULL);
	}
	ck_assert_uint_ne(kept, 0);
	ck_assert_uint_eq(kept & UINT64_C(1) << 29, 0);
	ck_assert_uint_eq(read_all(), kept);
	fakedisk_capacity(0);
	(void)usleep(1050000);
	ck_assert_int_eq(rig_send(sp, &msgs[0], 40, 20000), 0);
	rig_run(&rig);
	ck_assert_int_eq(msgs[0].code, ERR_NONE);
	ck_assert_uint_eq(read_all(), UINT64_C(1) << 40);
	spool_close(sp);
}
END_TEST

START_TEST(memory_in_flight_over_the_limit_goes_to_files)
{
	struct spool_settings set = { .memory = 64 << 10 };
	struct spool *sp = spool_open(&rig.loop, RIG_DIR, &set, &err);
	struct rig_msg msgs[20];
	unsigned creates = fakedisk_calls(FAKEDISK_CREATE);

	for (uint32_t i = 0; i < 20; i++)
		ck_assert_int_eq(rig_send(sp, &msgs[i], i, 10000), 0);
	ck_assert_uint_gt(fakedisk_calls(FAKEDISK_CREATE), creates + 5);
	rig_run(&rig);
	for (int i = 0; i < 20; i++)
		ck_assert(msgs[i].told && msgs[i].code == ERR_NONE);
	ck_assert_int_eq(counter_get(COUNTER_BYTES_IN_FLIGHT), 0);
	ck_assert_int_eq(rig_open(&rig, &err), 0);
	ck_assert_uint_eq(read_all(), 0xfffff);
	spool_close(sp);
}
END_TEST

START_TEST(max_bytes_is_kept)
{
	struct spool *sp = rig_spool(&rig, 0, &err);
	struct spool_msg *msg = spool_begin(sp, 10, &err);
	size_t room;

	ck_assert_int_eq(spool_write(msg, SLICE("0123456789"), &err), 0);
	ck_assert_int_eq(spool_write(msg, SLICE(""), &err), 0);
	ck_assert_int_eq(spool_write(msg, SLICE("x"), &err), -1);
	ck_assert_int_eq(err.code, ERR_LIMIT);
	ck_assert_ptr_null(spool_room(msg, 1, &room, &err));
	ck_assert_int_eq(err.code, ERR_LIMIT);
	spool_abort(msg);
	msg = spool_begin(sp, 10, &err);
	ck_assert_ptr_nonnull(spool_room(msg, 1000, &room, &err));
	ck_assert_uint_eq(room, 10);
	spool_abort(msg);
	spool_close(sp);
}
END_TEST

START_TEST(what_was_written_can_be_looked_at)
{
	struct spool *sp = rig_spool(&rig, 0, &err);
	struct spool_msg *msg = spool_begin(sp, SPOOL_BYTES_MAX, &err);
	static char bytes[100000];
	struct slice seen;

	for (size_t total = 0; total < 700000; total += sizeof(bytes)) {
		memset(bytes, 'a' + (int)(total / sizeof(bytes)), sizeof(bytes));
		ck_assert_int_eq(spool_write(msg, slice_of(bytes, sizeof(bytes)), &err), 0);
		ck_assert_int_eq(spool_peek(msg, &seen, &err), 0);
		ck_assert_uint_eq(seen.len, total + sizeof(bytes));
		ck_assert_int_eq(seen.p[0], 'a');
		ck_assert_int_eq(seen.p[seen.len - 1], bytes[0]);
	}
	spool_abort(msg);
	spool_close(sp);
}
END_TEST

START_TEST(an_aborted_message_leaves_nothing)
{
	struct spool *sp = rig_spool(&rig, 0, &err);
	struct spool_msg *msg = spool_begin(sp, SPOOL_BYTES_MAX, &err);
	char *bytes = calloc(1, 1 << 20);
	unsigned unlinks = fakedisk_calls(FAKEDISK_UNLINK);

	ck_assert_int_eq(spool_write(msg, slice_of(bytes, 1 << 20), &err), 0);
	spool_abort(msg);
	ck_assert_uint_eq(fakedisk_calls(FAKEDISK_UNLINK), unlinks + 1);
	ck_assert_int_eq(counter_get(COUNTER_BYTES_IN_FLIGHT), 0);
	free(bytes);
	spool_close(sp);
}
END_TEST

START_TEST(segments_follow_one_another_and_are_recycled)
{
	struct spool *sp = rig_spool(&rig, 128 << 10, &err);
	struct rig_msg msg;
	struct reader_item item;
	size_t len;

	ck_assert_int_eq(rig_open(&rig, &err), 0);
	for (uint32_t i = 0; i < 60; i++) {
		ck_assert_int_eq(rig_send(sp, &msg, i, 20000), 0);
		rig_run(&rig);
		ck_assert_int_eq(msg.code, ERR_NONE);
		while (reader_next(rig.reader, &item, &err) > 0)
			journal_done(rig.journal, item.msg);
		rig_sync(&rig);
	}
	/* All were done: the log holds its current segment alone, and there is a spare at most. */
	ck_assert_uint_eq(journal_index(rig.journal)->open, 0);
	ck_assert_ptr_nonnull(journal_index(rig.journal)->logs->segments);
	ck_assert_ptr_null(journal_index(rig.journal)->logs->segments->next);
	ck_assert_uint_gt(journal_index(rig.journal)->logs->segments->number, 5);
	ck_assert_ptr_null(fakedisk_bytes("spool/nowhere", &len));
	ck_assert_int_eq(counter_get(COUNTER_DAMAGE), 0);
	spool_close(sp);
}
END_TEST

START_TEST(an_unlocked_log_is_adopted_and_in_the_end_removed)
{
	struct spool *sp = rig_spool(&rig, 64 << 10, &err);
	struct rig_msg msg;
	struct reader_item item;

	for (uint32_t i = 0; i < 20; i++) {
		ck_assert_int_eq(rig_send(sp, &msg, i, i == 7 ? SPOOL_INLINE_MAX * 2 : 10000), 0);
		rig_run(&rig);
	}
	ck_assert_int_eq(rig_open(&rig, &err), 0);
	spool_close(sp);
	reader_look(rig.reader); /* as after a poke: the writer is gone */
	while (reader_next(rig.reader, &item, &err) > 0)
		journal_done(rig.journal, item.msg);
	for (int i = 0; i < 5; i++) {
		ck_assert_int_eq(reader_next(rig.reader, &item, &err), 0);
		rig_sync(&rig);
	}
	ck_assert_ptr_null(journal_index(rig.journal)->logs);
	ck_assert(!journal_dirty(rig.journal));
}
END_TEST

START_TEST(the_spool_has_one_owner)
{
	struct spooldir other;

	ck_assert_int_eq(rig_open(&rig, &err), 0);
	ck_assert_int_eq(spooldir_open(&other, RIG_DIR, &err), 0);
	ck_assert_int_eq(spooldir_lock(&other, 50, &err), -1);
	ck_assert_int_eq(err.code, ERR_BUSY);
	rig_close(&rig);
	ck_assert_int_eq(spooldir_lock(&other, 0, &err), 0);
	spooldir_close(&other);
}
END_TEST

static const struct {
	const char *text;
	enum err_code code;
} formats[] = {
	{ "relayd spool 4\n", ERR_VERSION },
	{ "relayd spool 99\n", ERR_VERSION },
	{ "relayd spool 0\n", ERR_DAMAGED },
	{ "relayd spool 3", ERR_DAMAGED },
	{ "postfix\n", ERR_DAMAGED },
	{ "", ERR_DAMAGED },
};

START_TEST(a_spool_of_another_version_is_refused)
{
	struct io_dir *dir = io_dir_make(RIG_DIR, &err);
	struct io_file *file = io_create(dir, "format", &err);
	struct iovec iov = { (void *)(uintptr_t)formats[_i].text, strlen(formats[_i].text) };

	ck_assert_int_eq(io_write(file, &iov, 1, 0, &err), 0);
	io_close(file);
	io_dir_close(dir);
	ck_assert_ptr_null(rig_spool(&rig, 0, &err));
	ck_assert_msg(err.code == formats[_i].code, "%s", err.msg);
	ck_assert_ptr_nonnull(strstr(err.msg, "spool/format"));
	ck_assert_int_eq(rig_open(&rig, &err), -1);
}
END_TEST

START_TEST(closing_cancels_what_is_not_synced)
{
	struct spool *sp = rig_spool(&rig, 0, &err);
	struct rig_msg small, large;

	ck_assert_int_eq(rig_send(sp, &small, 1, 100), 0);
	ck_assert_int_eq(rig_send(sp, &large, 2, SPOOL_INLINE_MAX * 2), 0);
	spool_close(sp);
	ck_assert(small.told && large.told);
	ck_assert_int_eq(small.code, ERR_CANCELLED);
	ck_assert_int_eq(large.code, ERR_CANCELLED);
}
END_TEST

UNIT_SUITE(spool)
{
	tcase_add_checked_fixture(tc, setup, teardown);
	UNIT_TEST(what_is_committed_comes_out);
	UNIT_TEST(one_round_is_one_write_and_one_sync);
	UNIT_TEST(nothing_is_read_before_it_is_durable);
	UNIT_TEST(a_failed_sync_is_remembered_after_the_end);
	UNIT_TEST(a_failed_sync_is_remembered_without_a_next_segment);
	UNIT_ROWS(a_broken_disk_is_refused_and_a_mended_one_used, trouble);
	UNIT_TEST(a_large_message_whose_file_fails_is_not_kept);
	UNIT_TEST(short_writes_are_continued);
	UNIT_TEST(the_reserve_is_left_alone);
	UNIT_TEST(a_full_disk_loses_nothing_and_drains);
	UNIT_TEST(memory_in_flight_over_the_limit_goes_to_files);
	UNIT_TEST(max_bytes_is_kept);
	UNIT_TEST(what_was_written_can_be_looked_at);
	UNIT_TEST(an_aborted_message_leaves_nothing);
	UNIT_TEST(segments_follow_one_another_and_are_recycled);
	UNIT_TEST(an_unlocked_log_is_adopted_and_in_the_end_removed);
	UNIT_TEST(the_spool_has_one_owner);
	UNIT_ROWS(a_spool_of_another_version_is_refused, formats);
	UNIT_TEST(closing_cancels_what_is_not_synced);
}
