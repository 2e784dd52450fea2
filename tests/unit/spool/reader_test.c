/* tests/unit/spool/reader_test.c - what is found, adopted, passed over, kept and removed. */
#include "unit/unit.h"

#include "relayd/core/counters.h"
#include "relayd/core/record.h"
#include "relayd/spool/inspect.h"
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

static uint64_t
read_all(struct reader *r)
{
	struct reader_item item;
	uint64_t seen = 0;
	uint32_t number;

	reader_look(r);
	while (reader_next(r, &item, &err) > 0) {
		ck_assert(rig_is_body(item.body, &number));
		ck_assert_uint_eq(seen & UINT64_C(1) << number, 0);
		seen |= UINT64_C(1) << number;
	}
	return seen;
}

static const char *
log_path(struct spool *sp, const char *name)
{
	static char path[256];
	char id[ID_TEXT_LEN + 1];

	id_text(spool_id(sp), id);
	(void)snprintf(path, sizeof(path), RIG_DIR "/%s/%s", id, name);
	return path;
}

static void
keep(struct spool *sp, uint32_t number, size_t size)
{
	struct rig_msg msg;

	ck_assert_int_eq(rig_send(sp, &msg, number, size), 0);
	rig_run(&rig);
	ck_assert(msg.told && msg.code == ERR_NONE);
}

/* One message a block, so that message i starts at block i + 1. */
#define BLOCK(i) ((i) + 1u) * SPOOLDIR_BLOCK

static const struct {
	const char *what;
	size_t from, to; /* bytes to spoil in the segment of 8 messages */
	uint64_t left;   /* the messages that remain */
	int damaged;
} damages[] = {
	{ "a head", BLOCK(2) + 3, BLOCK(2) + 4, 0xff & ~(1u << 2), 1 },
	{ "a body", BLOCK(3) + 500, BLOCK(3) + 501, 0xff & ~(1u << 3), 1 },
	{ "two neighbours", BLOCK(3), BLOCK(5), 0xff & ~(3u << 3), 1 },
	{ "two apart", BLOCK(1) + 40, BLOCK(6) + 40, 0xff & ~(0x7eu), 1 },
	{ "the last one, acknowledged", BLOCK(7) + 60, BLOCK(7) + 61, 0x7f, 1 },
	{ "a gap between records", BLOCK(4) - 20, BLOCK(4) - 10, 0xff, 0 },
	{ "the header of the segment", 0, 8, 0, 1 },
	{ "the key of the segment", 20, 21, 0, 1 },
};

START_TEST(damage_is_reported_once_and_passed_over)
{
	struct spool *sp = rig_spool(&rig, 0, &err);
	char path[256];
	uint8_t *seg;
	size_t len;

	for (uint32_t i = 0; i < 8; i++)
		keep(sp, i, 1000);
	(void)snprintf(path, sizeof(path), "%s", log_path(sp, "00000001.seg"));
	spool_close(sp);
	seg = fakedisk_bytes(path, &len);
	ck_assert_ptr_nonnull(seg);
	for (size_t at = damages[_i].from; at < damages[_i].to; at++)
		seg[at] ^= 0x55;
	ck_assert_int_eq(rig_open(&rig, &err), 0);
	ck_assert_msg(read_all(rig.reader) == damages[_i].left, "%s", damages[_i].what);
	ck_assert_int_eq(counter_get(COUNTER_DAMAGE), damages[_i].damaged);
	ck_assert_uint_eq(read_all(rig.reader), 0);
	ck_assert_int_eq(counter_get(COUNTER_DAMAGE), damages[_i].damaged);
}
END_TEST

static void
count_damaged(void *data, const char *path)
{
	if (strstr(path, RIG_DIR "/damaged/") != NULL)
		++*(int *)data;
}

static void
finish_everything(void)
{
	struct reader_item item;

	while (reader_next(rig.reader, &item, &err) > 0)
		journal_done(rig.journal, item.msg);
	for (int i = 0; i < 6; i++) {
		rig_sync(&rig);
		(void)reader_next(rig.reader, &item, &err); /* sweeps */
	}
}

START_TEST(a_damaged_segment_is_kept_for_the_admin)
{
	struct spool *sp = rig_spool(&rig, 0, &err);
	char path[256];
	uint8_t *seg;
	size_t len;
	int kept = 0;

	for (uint32_t i = 0; i < 4; i++)
		keep(sp, i, i == 1 ? SPOOL_INLINE_MAX * 2 : 1000);
	(void)snprintf(path, sizeof(path), "%s", log_path(sp, "00000001.seg"));
	spool_close(sp);
	seg = fakedisk_bytes(path, &len);
	seg[BLOCK(1) + 30] ^= 1; /* the record of the large one: its file is nobody's now */
	ck_assert_int_eq(rig_open(&rig, &err), 0);
	finish_everything();
	ck_assert_ptr_null(journal_index(rig.journal)->logs);
	fakedisk_files(count_damaged, &kept);
	ck_assert_int_eq(kept, 2);
}
END_TEST

START_TEST(a_living_log_is_read_as_it_grows)
{
	struct spool *sp = rig_spool(&rig, 32 << 10, &err);

	ck_assert_int_eq(rig_open(&rig, &err), 0);
	for (uint32_t i = 0; i < 40; i++) {
		keep(sp, i, 3000);
		if (i % 3 == 0)
			ck_assert_uint_ne(read_all(rig.reader), 0);
	}
	ck_assert_uint_eq(journal_index(rig.journal)->open, 40);
	ck_assert_int_eq(counter_get(COUNTER_DAMAGE), 0);
	spool_close(sp);
	keep(sp = rig_spool(&rig, 0, &err), 41, 500); /* a log that is new */
	ck_assert_uint_eq(read_all(rig.reader), UINT64_C(1) << 41);
	spool_close(sp);
}
END_TEST

/* The reader starts again while the writer lives and some segments in between are gone. */
START_TEST(gaps_between_segments_are_no_end)
{
	struct spool *sp = rig_spool(&rig, 32 << 10, &err);
	struct reader_item item;
	uint64_t left;

	ck_assert_int_eq(rig_open(&rig, &err), 0);
	for (uint32_t i = 0; i < 40; i++)
		keep(sp, i, 3000);
	left = 0;
	while (reader_next(rig.reader, &item, &err) > 0) {
		uint32_t number;

		ck_assert(rig_is_body(item.body, &number));
		if (number == 2 || number > 30)
			left |= UINT64_C(1) << number;
		else
			journal_done(rig.journal, item.msg);
	}
	for (int i = 0; i < 4; i++)
		rig_sync(&rig);
	rig_close(&rig);
	rig_run(&rig);
	ck_assert_int_eq(rig_open(&rig, &err), 0);
	keep(sp, 50, 3000);
	ck_assert_uint_eq(read_all(rig.reader), left | UINT64_C(1) << 50);
	ck_assert_int_eq(counter_get(COUNTER_DAMAGE), 0);
	spool_close(sp);
}
END_TEST

START_TEST(a_look_beside_the_owner_changes_nothing)
{
	struct spool *sp = rig_spool(&rig, 32 << 10, &err);
	struct spooldir dir;
	struct journal *j;
	struct reader *r;
	struct reader_item item;
	uint64_t points;

	ck_assert_int_eq(rig_open(&rig, &err), 0);
	for (uint32_t i = 0; i < 30; i++)
		keep(sp, i, 3000);
	for (int i = 0; i < 10; i++) {
		ck_assert_int_eq(reader_next(rig.reader, &item, &err), 1);
		journal_rcpt(rig.journal, item.msg, &(struct index_rcpt){ .reply = SLICE("hm") });
		if (i % 2 == 0)
			journal_done(rig.journal, item.msg);
	}
	rig_sync(&rig);
	points = fakedisk_points();
	ck_assert_int_eq(spooldir_open_readonly(&dir, RIG_DIR, &err), 0);
	j = journal_open(NULL, &dir, &err);
	ck_assert_msg(j != NULL, "%s", err.msg);
	r = reader_open_readonly(&dir, j, &err);
	ck_assert_uint_eq(read_all(r), 0x3fffffff & ~UINT64_C(0x155));
	ck_assert_uint_eq(journal_index(j)->open, 25);
	ck_assert_uint_eq(journal_index(j)->facts, 5);
	reader_close(r);
	journal_close(j);
	spooldir_close(&dir);
	ck_assert_uint_eq(fakedisk_points(), points);
	spool_close(sp);
}
END_TEST

START_TEST(a_look_where_nothing_is_makes_nothing)
{
	struct spooldir dir;

	ck_assert_int_eq(spooldir_open_readonly(&dir, RIG_DIR, &err), -1);
	ck_assert_int_eq(err.code, ERR_NOT_FOUND);
	ck_assert_uint_eq(fakedisk_points(), 0);
}
END_TEST

START_TEST(a_record_can_be_fetched_again)
{
	struct spool *sp = rig_spool(&rig, 0, &err);
	struct reader_item item, again;
	struct buf small = buf_heap(100), big = buf_heap(1 << 20);
	uint32_t number;
	size_t len;

	ck_assert_int_eq(rig_open(&rig, &err), 0);
	keep(sp, 5, 3000);
	ck_assert_int_eq(reader_next(rig.reader, &item, &err), 1);
	ck_assert_int_eq(reader_fetch(rig.reader, item.msg, &big, &again, &err), 0);
	ck_assert(rig_is_body(again.body, &number) && number == 5);
	ck_assert_int_eq(reader_fetch(rig.reader, item.msg, &small, &again, &err), -1);
	ck_assert_int_eq(err.code, ERR_LIMIT);
	fakedisk_bytes(log_path(sp, "00000001.seg"), &len)[BLOCK(0) + 900] ^= 1;
	ck_assert_int_eq(reader_fetch(rig.reader, item.msg, &big, &again, &err), -1);
	ck_assert_int_eq(err.code, ERR_DAMAGED);
	buf_fini(&small);
	buf_fini(&big);
	spool_close(sp);
}
END_TEST

START_TEST(a_large_message_is_read_in_ranges_and_verified)
{
	struct spool *sp = rig_spool(&rig, 0, &err);
	struct reader_item item;
	struct reader_body *body;
	char range[100], name[SPOOLDIR_MESSAGE_NAME_BYTES];
	size_t len;

	ck_assert_int_eq(rig_open(&rig, &err), 0);
	keep(sp, 5, SPOOL_INLINE_MAX + 1);
	ck_assert_int_eq(reader_next(rig.reader, &item, &err), 1);
	ck_assert(item.msg->in_file && item.body.len == 0);
	body = reader_body_open(rig.reader, item.msg, &err);
	ck_assert_uint_eq(reader_body_size(body), SPOOL_INLINE_MAX + 1);
	ck_assert_int_eq(reader_body_read(body, SPOOL_INLINE_MAX - 99, range, 100, &err), 0);
	ck_assert_int_eq(reader_body_read(body, SPOOL_INLINE_MAX, range, 2, &err), -1);
	ck_assert_int_eq(reader_body_verify(body, &err), 0);
	spooldir_message_name(item.msg->id, name);
	fakedisk_bytes(log_path(sp, name), &len)[1000] ^= 1;
	ck_assert_int_eq(reader_body_verify(body, &err), -1);
	ck_assert_int_eq(err.code, ERR_DAMAGED);
	reader_body_close(rig.reader, body);
	spool_close(sp);
}
END_TEST

/* It would be tried for ever, and its segment kept: it is reported, and the others go on. */
START_TEST(a_large_message_whose_file_is_gone_is_passed_over)
{
	struct spool *sp = rig_spool(&rig, 0, &err);
	struct rig_msg large;
	struct reader_item item;
	char name[SPOOLDIR_MESSAGE_NAME_BYTES], log[ID_TEXT_LEN + 1];
	struct io_dir *root, *dir;
	uint32_t number;

	keep(sp, 1, 1000);
	ck_assert_int_eq(rig_send(sp, &large, 2, SPOOL_INLINE_MAX + 1), 0);
	rig_run(&rig);
	ck_assert(large.told && large.code == ERR_NONE);
	keep(sp, 3, 1000);
	id_text(spool_id(sp), log);
	spool_close(sp);
	spooldir_message_name(large.id, name);
	root = io_dir_open(RIG_DIR, &err);
	dir = io_dir_open_at(root, log, &err);
	ck_assert_int_eq(io_unlink(dir, name, &err), 0);
	io_dir_close(dir);
	io_dir_close(root);
	ck_assert_int_eq(rig_open(&rig, &err), 0);
	for (uint32_t expected = 1; expected <= 3; expected += 2) {
		ck_assert_int_eq(reader_next(rig.reader, &item, &err), 1);
		ck_assert(rig_is_body(item.body, &number));
		ck_assert_uint_eq(number, expected);
		journal_done(rig.journal, item.msg);
	}
	ck_assert_int_eq(counter_get(COUNTER_DAMAGE), 1);
	finish_everything();
	ck_assert_ptr_null(journal_index(rig.journal)->logs);
}
END_TEST

/* A bounce that was made again because nobody remembered the first one. */
START_TEST(the_same_id_is_given_once)
{
	struct spool *sp = rig_spool(&rig, 0, &err);
	struct envelope env = { .id = id_new() };
	struct spool_commit req[2];
	struct rig_msg sink[2] = { 0 };
	struct reader_item item;

	for (int i = 0; i < 2; i++) {
		struct spool_msg *msg = spool_begin(sp, 100, &err);

		ck_assert_int_eq(spool_write(msg, SLICE("bounce\r\n"), &err), 0);
		rig_watch(&req[i], &sink[i]);
		spool_commit(&req[i], msg, &env);
		rig_run(&rig);
	}
	ck_assert_int_eq(rig_open(&rig, &err), 0);
	ck_assert_int_eq(reader_next(rig.reader, &item, &err), 1);
	ck_assert_int_eq(reader_next(rig.reader, &item, &err), 0);
	ck_assert_uint_eq(journal_index(rig.journal)->open, 1);
	spool_close(sp);
}
END_TEST

START_TEST(a_segment_of_a_newer_relayd_is_left_alone)
{
	struct spool *sp = rig_spool(&rig, 0, &err), *other = rig_spool(&rig, 0, &err);
	char path[256];
	size_t len;

	keep(sp, 1, 500);
	keep(other, 2, 500);
	(void)snprintf(path, sizeof(path), "%s", log_path(sp, "00000001.seg"));
	spool_close(sp);
	fakedisk_bytes(path, &len)[8] = RECORD_VERSION + 1;
	ck_assert_int_eq(rig_open(&rig, &err), 0);
	ck_assert_uint_eq(read_all(rig.reader), 1 << 2);
	ck_assert(reader_caught_up(rig.reader));
	rig_close(&rig);
	rig_run(&rig);
	/* The newer one comes back: nothing is lost. */
	ck_assert_ptr_nonnull(fakedisk_bytes(path, &len));
	fakedisk_bytes(path, &len)[8] = RECORD_VERSION;
	ck_assert_int_eq(rig_open(&rig, &err), 0);
	ck_assert_uint_eq(read_all(rig.reader), 1 << 1 | 1 << 2);
	spool_close(other);
}
END_TEST

START_TEST(a_disk_that_does_not_read_stops_nobody_else)
{
	struct spool *sp = rig_spool(&rig, 0, &err);

	ck_assert_int_eq(rig_open(&rig, &err), 0);
	keep(sp, 1, 500);
	fakedisk_fail(FAKEDISK_READ, 0, 1, EIO);
	reader_look(rig.reader);
	ck_assert_uint_eq(read_all(rig.reader), 0);
	ck_assert_int_eq(err.code, ERR_SYS);
	(void)usleep(1050000);
	ck_assert_uint_eq(read_all(rig.reader), 1 << 1);
	spool_close(sp);
}
END_TEST

/* Killed after a segment was removed and before that was safe: the next start makes it so before it
 * forgets what was in there. */
START_TEST(a_segment_that_is_not_there_is_forgotten_when_that_is_safe)
{
	struct spool *sp = rig_spool(&rig, 2 * SPOOLDIR_BLOCK, &err);
	struct reader_item item;
	char path[256];
	size_t len;

	for (uint32_t i = 0; i < 3; i++)
		keep(sp, i, 3000);
	(void)snprintf(path, sizeof(path), "%s", log_path(sp, "00000001.seg"));
	ck_assert_ptr_nonnull(fakedisk_bytes(log_path(sp, "00000002.seg"), &len));
	spool_close(sp);
	rig_run(&rig);
	ck_assert_int_eq(rig_open(&rig, &err), 0);
	ck_assert_int_eq(reader_next(rig.reader, &item, &err), 1);
	journal_done(rig.journal, item.msg);
	fakedisk_fail(FAKEDISK_SYNC_DIR, 0, 99, EIO);
	(void)read_all(rig.reader);
	for (int i = 0; i < 3; i++)
		rig_sync(&rig); /* it is done, retired, removed */
	ck_assert_ptr_null(fakedisk_bytes(path, &len));
	rig_close(&rig);
	fakedisk_kill();
	fakedisk_fail(FAKEDISK_SYNC_DIR, 0, 0, 0);
	ck_assert_int_eq(rig_open(&rig, &err), 0);
	ck_assert_uint_eq(read_all(rig.reader), 6);
	rig_sync(&rig);
	rig_close(&rig);
	fakedisk_reboot(FAKEDISK_DROPPED, 1);
	ck_assert_int_eq(rig_open(&rig, &err), 0);
	ck_assert_uint_eq(read_all(rig.reader), 6);
}
END_TEST

START_TEST(strays_are_removed)
{
	struct io_dir *root = io_dir_make(RIG_DIR, &err), *half, *spare;
	struct spool *sp;
	size_t len;

	/* An id of 1970, so that its log is not being made any more. */
	half = io_dir_make_at(root, "aaaaaaaaaaaaaaaaaaaaaaaaaa.tmp", &err);
	io_close(io_create(half, SPOOLDIR_LOCK, &err));
	spare = io_dir_make_at(root, "spare", &err);
	io_close(io_create(spare, "half.seg.tmp", &err));
	io_dir_close(spare);
	io_dir_close(half);
	io_dir_close(root);
	sp = rig_spool(&rig, 0, &err);
	ck_assert_int_eq(rig_open(&rig, &err), 0);
	ck_assert_ptr_null(fakedisk_bytes(RIG_DIR "/aaaaaaaaaaaaaaaaaaaaaaaaaa.tmp/lock", &len));
	ck_assert_ptr_null(fakedisk_bytes(RIG_DIR "/spare/half.seg.tmp", &len));
	spool_close(sp);
}
END_TEST

struct found {
	uint64_t whole;	/* messages */
	unsigned damages, known;	/* places, and those that tell whose they were */
	int sys;
};

static bool
note_found(void *data, const struct inspect_found *f)
{
	struct found *found = data;
	uint32_t number;

	if (f->what == INSPECT_MESSAGE && rig_is_body(f->body, &number))
		found->whole |= UINT64_C(1) << number;
	found->damages += f->what == INSPECT_DAMAGE;
	found->known += f->what == INSPECT_DAMAGE && f->has_id;
	if (f->what == INSPECT_DAMAGE)
		found->sys = f->why.sys;
	return true;
}

static const struct {
	const char *what;
	size_t from,
	    to; /* of the segment of 8 messages of two blocks each, what the disk cannot read */
	uint64_t whole;
	unsigned damages, known;
	int sys;
} bad_places[] = {
	{ "the block of a message", BLOCK(4), BLOCK(5), 0xff & ~(1u << 2), 1, 0, 0 },
	{ "the end of a body", BLOCK(7) + 512, BLOCK(7) + 1024, 0xff & ~(1u << 3), 1, 1, 0 },
	{ "the last one", BLOCK(14), BLOCK(16), 0x7f, 1, 0, 0 },
	{ "the header of the segment", 0, 512, 0, 1, 0, EIO },
};

START_TEST(what_the_disk_still_reads_is_found_beside_a_bad_place)
{
	struct spool *sp = rig_spool(&rig, 0, &err), *other;
	struct found found = { 0 };
	uint64_t files = 0;
	char path[256];

	for (uint32_t i = 0; i < 8; i++)
		keep(sp, i, 5000);
	(void)snprintf(path, sizeof(path), "%s", log_path(sp, "00000001.seg"));
	spool_close(sp);
	rig_run(&rig);
	other = rig_spool(&rig, 0, &err);
	keep(other, 9, 500);
	spool_close(other);
	rig_run(&rig);
	fakedisk_bad(path, bad_places[_i].from, bad_places[_i].to);
	ck_assert_msg(
	    inspect_spool(RIG_DIR, NULL, note_found, &found, &files, &err) == 0, "%s", err.msg);
	fakedisk_bad(NULL, 0, 0);
	ck_assert_msg(found.whole == (bad_places[_i].whole | 1u << 9), "%s: %llx",
	    bad_places[_i].what, (unsigned long long)found.whole);
	ck_assert_uint_eq(found.damages, bad_places[_i].damages);
	ck_assert_uint_eq(found.known, bad_places[_i].known);
	ck_assert_int_eq(found.sys, bad_places[_i].sys);
}
END_TEST

UNIT_SUITE(spool_reader)
{
	tcase_add_checked_fixture(tc, setup, teardown);
	UNIT_ROWS(damage_is_reported_once_and_passed_over, damages);
	UNIT_TEST(a_damaged_segment_is_kept_for_the_admin);
	UNIT_TEST(a_living_log_is_read_as_it_grows);
	UNIT_TEST(gaps_between_segments_are_no_end);
	UNIT_TEST(a_look_beside_the_owner_changes_nothing);
	UNIT_TEST(a_look_where_nothing_is_makes_nothing);
	UNIT_TEST(a_record_can_be_fetched_again);
	UNIT_TEST(a_large_message_is_read_in_ranges_and_verified);
	UNIT_TEST(a_large_message_whose_file_is_gone_is_passed_over);
	UNIT_TEST(the_same_id_is_given_once);
	UNIT_TEST(a_segment_of_a_newer_relayd_is_left_alone);
	UNIT_TEST(a_disk_that_does_not_read_stops_nobody_else);
	UNIT_TEST(a_segment_that_is_not_there_is_forgotten_when_that_is_safe);
	UNIT_TEST(strays_are_removed);
	UNIT_ROWS(what_the_disk_still_reads_is_found_beside_a_bad_place, bad_places);
}
