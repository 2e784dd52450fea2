/* tests/unit/spool/compact_test.c - what late messages keep of the disk, and that they stay the
 * same. */
#include "unit/unit.h"

#include "relayd/core/clock.h"
#include "relayd/core/counters.h"
#include "relayd/core/record.h"
#include "relayd/core/siphash.h"
#include "relayd/core/le.h"
#include "relayd/spool/compact.h"
#include "relayd/spool/inspect.h"
#include "unit/spool/fakedisk.h"
#include "unit/spool/rig.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define SEGMENT     (64u << 10)
#define OWN_SEGMENT (32u << 10)
#define BYTES       3000u /* one message a block of 4096, fifteen a segment */

static struct rig rig;
static struct spool *sp, *own;
static struct compact *compact;
static struct compact_settings settings;
static struct err err;

static void
open_delivery(void)
{
	ck_assert_msg(rig_open(&rig, &err) == 0, "%s", err.msg);
	own = rig_spool(&rig, OWN_SEGMENT, &err);
	compact = compact_open(rig.reader, rig.journal, own, &settings);
	ck_assert(own != NULL && compact != NULL);
	reader_look(rig.reader);
}

static void
close_delivery(void)
{
	spool_close(own);
	compact_close(compact);
	rig_close(&rig);
	own = NULL;
	compact = NULL;
	rig_run(&rig);
}

static void
setup(void)
{
	fakedisk_use();
	rig_init(&rig);
	settings = (struct compact_settings){ 0 };
	err = (struct err){ 0 };
	sp = rig_spool(&rig, SEGMENT, &err);
	open_delivery();
}

static void
teardown(void)
{
	if (own != NULL)
		close_delivery();
	spool_close(sp);
	rig_fini(&rig);
	fakedisk_free();
}

/* Messages `from` up to before `to`. */
static void
send_all(uint32_t from, uint32_t to, size_t bytes)
{
	for (uint32_t i = from; i < to; i++) {
		struct rig_msg msg;

		ck_assert_int_eq(rig_send(sp, &msg, i, bytes), 0);
		rig_run(&rig);
		ck_assert(msg.told && msg.code == ERR_NONE);
	}
}

static struct index_msg *late[64]; /* by number: those that are not delivered */

static uint32_t
number_of(struct index_msg *entry)
{
	struct reader_item item = { .msg = entry };
	struct buf record = buf_heap(1 << 20);
	uint32_t number = UINT32_MAX;
	size_t size = 0;
	char *bytes;

	ck_assert_int_eq(reader_fetch(rig.reader, entry, &record, &item, &err), 0);
	bytes = rig_body(&rig, &item, &size, &err);
	ck_assert_msg(bytes != NULL, "%s", err.msg);
	ck_assert(rig_is_body(slice_of(bytes, size), &number));
	free(bytes);
	buf_fini(&record);
	return number;
}

/* Reads what is new; all is delivered at once but for one in `every`.  How many were read. */
static unsigned
read_all(uint32_t every)
{
	struct reader_item item;
	unsigned n = 0;

	while (reader_next(rig.reader, &item, &err) > 0) {
		uint32_t number = number_of(item.msg);

		n++;
		if (number % every != 0) {
			journal_done(rig.journal, item.msg);
			continue;
		}
		ck_assert_ptr_null(late[number / every]);
		late[number / every] = item.msg;
	}
	return n;
}

static void
forget(void)
{
	memset(late, 0, sizeof(late));
}

/* A loop round, and the sync that is due some time after it. */
static void
turn(void)
{
	struct reader_item item;

	ck_assert_int_eq(reader_next(rig.reader, &item, &err), 0);
	compact_step(compact, false);
	rig_run(&rig);
	rig_sync(&rig);
}

static void
turns(unsigned n)
{
	while (n-- > 0)
		turn();
}

struct found {
	const char *log, *suffix; /* an id, or NULL: any; of a name */
	unsigned n;
	uint64_t bytes;
};

static void
note_file(void *data, const char *path)
{
	struct found *f = data;
	struct slice s = slice_str(path);
	size_t len;

	if (!slice_ends(s, slice_str(f->suffix)) || strstr(path, "/spare/") != NULL ||
	    (f->log != NULL && strstr(path, f->log) == NULL))
		return;
	f->n++;
	(void)fakedisk_bytes(path, &len);
	f->bytes += len;
}

static struct found
files(const struct spool *log, const char *suffix)
{
	char id[ID_TEXT_LEN + 1];
	struct found f = { .suffix = suffix };

	if (log != NULL) {
		id_text(spool_id(log), id);
		f.log = id;
	}
	fakedisk_files(note_file, &f);
	f.log = NULL;
	return f;
}

struct states {
	unsigned n[INSPECT_COPY + 1], damaged;
};

static bool
note_state(void *data, const struct inspect_found *f)
{
	struct states *s = data;

	if (f->what == INSPECT_MESSAGE)
		s->n[f->state]++;
	s->damaged += f->what == INSPECT_DAMAGE || f->what == INSPECT_ORPHAN;
	return true;
}

static struct states
inspect(void)
{
	struct states s = { 0 };

	ck_assert_int_eq(inspect_spool(RIG_DIR, NULL, note_state, &s, NULL, &err), 0);
	ck_assert_uint_eq(s.damaged, 0);
	return s;
}

/* What is known of it, to be known again. */
static void
tell(struct index_msg *entry, uint32_t number)
{
	journal_rcpt(rig.journal, entry,
	    &(struct index_rcpt){ .ordinal = 0,
		.attempts = number + 1,
		.tried_ms = 10,
		.next_ms = 2000,
		.reply = SLICE("450 4.2.0 later") });
	journal_rcpt(rig.journal, entry,
	    &(struct index_rcpt){ .ordinal = 2, .outcome = INDEX_SENT, .reply = SLICE("") });
	journal_order(rig.journal, entry, INDEX_HELD, SLICE("mail3.corp:25"));
}

static void
check_told(const struct index_msg *entry, uint32_t number, unsigned flags)
{
	const struct index_rcpt *first = index_rcpt(entry, 0), *third = index_rcpt(entry, 2);

	ck_assert(first != NULL && third != NULL);
	ck_assert_uint_eq(first->attempts, number + 1);
	ck_assert_int_eq(first->next_ms, 2000);
	ck_assert_str_eq(first->reply.p, "450 4.2.0 later");
	ck_assert_int_eq(third->outcome, INDEX_SENT);
	ck_assert_uint_eq(entry->flags, flags);
	ck_assert_str_eq(entry->via, "mail3.corp:25");
}

#define STARTS 36 /* more than make the files of the journal one snapshot */

START_TEST(late_messages_leave_their_segments_and_stay_the_same)
{
	struct states s;

	send_all(0, 60, BYTES);
	ck_assert_uint_eq(read_all(15), 60);
	for (uint32_t i = 0; i < 4; i++)
		tell(late[i], i);
	ck_assert_uint_eq(files(sp, ".seg").n, 4);
	turns(8);
	/* Its writer's current segment is never touched. */
	ck_assert_uint_eq(files(sp, ".seg").n, 1);
	ck_assert_int_eq(counter_get(COUNTER_COMPACTED), 3);
	s = inspect();
	ck_assert_uint_eq(s.n[INSPECT_OPEN], 4);
	ck_assert_uint_eq(s.n[INSPECT_COPY], 0);
	for (uint32_t i = 0; i < 4; i++) {
		ck_assert_uint_eq(number_of(late[i]), i * 15);
		check_told(late[i], i, i < 3 ? INDEX_HELD | INDEX_COPIED : INDEX_HELD);
		ck_assert_ptr_eq(index_find(journal_index(rig.journal), late[i]->id), late[i]);
	}
	journal_order(rig.journal, late[0], INDEX_WARNED, SLICE("mail3.corp:25"));
	check_told(late[0], 0, INDEX_WARNED | INDEX_COPIED);
	rig_sync(&rig);
	for (int start = 0; start < STARTS; start++) {
		forget();
		close_delivery();
		open_delivery();
		ck_assert_uint_eq(read_all(15), 4);
		check_told(late[0], 0, INDEX_WARNED | INDEX_COPIED);
		for (uint32_t i = 1; i < 4; i++)
			check_told(late[i], i, i < 3 ? INDEX_HELD | INDEX_COPIED : INDEX_HELD);
		turns(6);
	}
	ck_assert_int_eq(counter_get(COUNTER_DAMAGE), 0);
	for (uint32_t i = 0; i < 4; i++)
		journal_done(rig.journal, late[i]);
	turns(6);
	ck_assert_uint_eq(journal_index(rig.journal)->open, 0);
	forget();
}
END_TEST

START_TEST(a_large_message_keeps_its_file_wherever_its_record_goes)
{
	const size_t large = SPOOL_INLINE_MAX + 5000;
	uint64_t bytes;

	send_all(0, 1, large);
	send_all(1, 30, BYTES);
	ck_assert_uint_eq(read_all(100), 30);
	bytes = files(NULL, ".msg").bytes;
	ck_assert_uint_eq(bytes, large);
	turns(8);
	ck_assert_int_eq(counter_get(COUNTER_COMPACTED), 1);
	ck_assert_uint_eq(files(sp, ".msg").n, 0);
	ck_assert_uint_eq(files(own, ".msg").bytes, large);
	ck_assert_uint_eq(number_of(late[0]), 0);
	/* From one log of delivery to the next one, and in that once more. */
	for (int start = 1; start < 4; start++) {
		forget();
		close_delivery();
		open_delivery();
		ck_assert_uint_eq(read_all(100), 1);
		turns(8);
		ck_assert_int_eq(counter_get(COUNTER_COMPACTED), start + 1);
		ck_assert_uint_eq(files(NULL, ".msg").n, 1);
		ck_assert_uint_eq(files(own, ".msg").bytes, large);
		ck_assert_uint_eq(number_of(late[0]), 0);
		ck_assert_uint_eq(inspect().n[INSPECT_OPEN], 1);
	}
	journal_done(rig.journal, late[0]);
	turns(4);
	ck_assert_uint_eq(files(NULL, ".msg").n, 0);
	forget();
}
END_TEST

START_TEST(within_one_log_a_file_keeps_its_only_name)
{
	struct rig_msg msg;

	ck_assert_int_eq(rig_send(own, &msg, 0, SPOOL_INLINE_MAX + 5000), 0);
	rig_run(&rig);
	for (uint32_t i = 1; i < 20; i++) {
		struct rig_msg bounce;

		ck_assert_int_eq(rig_send(own, &bounce, i, BYTES), 0);
		rig_run(&rig);
	}
	ck_assert_uint_eq(read_all(100), 20);
	turns(8);
	ck_assert_int_eq(counter_get(COUNTER_COMPACTED), 1);
	ck_assert_uint_eq(files(own, ".msg").n, 1);
	ck_assert_uint_eq(number_of(late[0]), 0);
	forget();
	close_delivery();
	open_delivery();
	ck_assert_uint_eq(read_all(100), 1);
	forget();
}
END_TEST

START_TEST(a_few_segments_may_wait)
{
	settings.slack_bytes = 3 * SEGMENT;
	compact_configure(compact, &settings);
	send_all(0, 60, BYTES);
	(void)read_all(15);
	turns(6);
	ck_assert_uint_eq(files(sp, ".seg").n, 4);
	send_all(60, 75, BYTES);
	(void)read_all(15);
	for (int i = 0; i < 6; i++) {
		(void)usleep(300000); /* COMPACT_LOOK_MS */
		turn();
	}
	ck_assert_uint_lt(files(sp, ".seg").n, 5);
	ck_assert_uint_gt(files(sp, ".seg").n, 1);
	forget();
}
END_TEST

START_TEST(a_segment_that_is_mostly_open_stays)
{
	send_all(0, 45, BYTES);
	(void)read_all(2);
	turns(6);
	ck_assert_uint_eq(files(sp, ".seg").n, 3);
	ck_assert_int_eq(counter_get(COUNTER_COMPACTED), 0);
	forget();
}
END_TEST

START_TEST(what_is_delivered_while_it_is_copied_is_not_delivered_again)
{
	send_all(0, 1, SPOOL_INLINE_MAX + 5000);
	send_all(1, 30, BYTES);
	ck_assert_uint_eq(read_all(20), 30); /* 0 and 20 are late */
	rig_sync(&rig);
	compact_step(compact, false);
	journal_done(rig.journal, late[0]);
	turns(6);
	ck_assert_int_eq(counter_get(COUNTER_COMPACTED), 0);
	ck_assert_uint_eq(files(NULL, ".msg").n, 0);
	forget();
	close_delivery();
	open_delivery();
	ck_assert_uint_eq(read_all(20), 1);
	forget();
}
END_TEST

/* -- copies that the journal does not know -- */

static void
note_copy(struct spool_commit *req, const struct err *why)
{
	*(bool *)req->data = why->code == ERR_NONE;
}

/* As a delivery that is killed right behind the sync of a copy leaves it. */
static void
copy_untold(struct index_msg *entry)
{
	struct buf record = buf_heap(1 << 20);
	struct spooldir_message m;
	bool done = false;
	struct spool_commit req = { .done = note_copy, .data = &done };
	struct spool_source source = { .id = entry->id,
		.copy = { .log = entry->segment->log->id,
		    .segment = entry->segment->number,
		    .place = entry->place } };

	entry->segment->bodies++; /* it does not go before its copies are decided about */
	ck_assert_int_eq(reader_fetch_record(entry, &record, &m, &err), 0);
	source.envelope = m.envelope;
	source.body = m.body;
	ck_assert_int_eq(spool_copy(&req, own, &source, &err), 0);
	rig_run(&rig);
	ck_assert(done);
	buf_fini(&record);
}

START_TEST(a_copy_that_nobody_was_told_of_is_no_second_message)
{
	send_all(0, 30, BYTES);
	(void)read_all(15);
	tell(late[0], 0);
	rig_sync(&rig);
	copy_untold(late[0]);
	ck_assert_uint_eq(inspect().n[INSPECT_COPY], 1);
	ck_assert_uint_eq(inspect().n[INSPECT_OPEN], 2);
	for (int start = 0; start < 2; start++) {
		forget();
		close_delivery();
		open_delivery();
		ck_assert_uint_eq(read_all(15), 2);
		check_told(late[0], 0, INDEX_HELD | (late[0]->flags & INDEX_COPIED));
		rig_sync(&rig);
		ck_assert_uint_eq(inspect().n[INSPECT_COPY], 0);
		ck_assert_uint_eq(inspect().n[INSPECT_OPEN], 2);
	}
	journal_done(rig.journal, late[0]);
	turns(4);
	forget();
	close_delivery();
	open_delivery();
	ck_assert_uint_eq(read_all(15), 1);
	ck_assert_ptr_null(late[0]);
	forget();
}
END_TEST

START_TEST(a_copy_that_nobody_was_told_of_is_done_with_the_message)
{
	send_all(0, 30, BYTES);
	(void)read_all(15);
	copy_untold(late[0]);
	journal_done(rig.journal, late[0]);
	rig_sync(&rig);
	forget();
	close_delivery();
	open_delivery();
	ck_assert_uint_eq(read_all(15), 1);
	ck_assert_ptr_null(late[0]);
	forget();
}
END_TEST

/* The log with the copy cannot be read for a while, and the message is delivered meanwhile: what
 * the copy was made of is there still when it is met. */
START_TEST(no_segment_goes_before_its_copies_are_decided_about)
{
	send_all(0, 30, BYTES);
	(void)read_all(15);
	copy_untold(late[0]);
	forget();
	close_delivery();
	ck_assert_int_eq(rig_open(&rig, &err), 0);
	fakedisk_fail(FAKEDISK_READ, 0, 1, EIO); /* of the log that came last */
	while (read_all(15) > 0 || err.code != ERR_NONE)
		err = (struct err){ 0 };
	ck_assert(late[0] != NULL && !reader_settled(rig.reader));
	journal_done(rig.journal, late[0]);
	for (int i = 0; i < 5; i++) {
		struct reader_item item;

		rig_sync(&rig);
		ck_assert_int_eq(reader_next(rig.reader, &item, &err), 0);
	}
	ck_assert_uint_eq(files(sp, ".seg").n, 2);
	(void)usleep(1050000); /* until that log is asked again */
	late[0] = NULL;
	ck_assert_uint_eq(read_all(15), 0);
	for (int i = 0; i < 5; i++) {
		rig_sync(&rig);
		(void)read_all(15);
	}
	ck_assert(reader_settled(rig.reader));
	ck_assert_uint_eq(files(sp, ".seg").n, 1);
	forget();
}
END_TEST

/* The journal is gone, and the old segment, too: nobody else has the message. */
START_TEST(a_copy_is_all_there_is_when_the_journal_was_lost)
{
	struct found old;

	send_all(0, 30, BYTES);
	(void)read_all(100);
	turns(6);
	old = files(sp, ".seg");
	ck_assert_uint_eq(old.n, 1);
	forget();
	close_delivery();
	for (int i = 1; i < 9; i++) {
		char name[64];
		struct io_dir *dir = io_dir_open(RIG_DIR, &err),
			      *journal = io_dir_open_at(dir, "journal", &err);

		(void)snprintf(name, sizeof(name), "%08x.jnl", i);
		(void)io_unlink(journal, name, NULL); /* as many as there are */
		io_dir_close(journal);
		io_dir_close(dir);
	}
	open_delivery();
	(void)read_all(100);
	ck_assert_ptr_nonnull(late[0]);
	forget();
}
END_TEST

/* -- a disk that fails -- */

START_TEST(a_copy_that_fails_is_made_later)
{
	send_all(0, 30, BYTES);
	(void)read_all(15);
	rig_sync(&rig);
	fakedisk_fail(FAKEDISK_SYNC, 0, 1, EIO);
	compact_step(compact, false);
	rig_run(&rig);
	ck_assert_int_eq(counter_get(COUNTER_COMPACTED), 0);
	ck_assert_uint_eq(files(sp, ".seg").n, 2);
	/* It is there whole all the same: then one of both records counts. */
	forget();
	close_delivery();
	open_delivery();
	ck_assert_uint_eq(read_all(15), 2);
	turns(6);
	ck_assert_uint_eq(files(sp, ".seg").n, 1);
	ck_assert_uint_eq(number_of(late[0]), 0);
	forget();
}
END_TEST

/* It is there whole, at the end of what delivery wrote, and what it was made of is delivered and
 * gone. */
START_TEST(a_copy_that_failed_is_never_a_message)
{
	send_all(0, 30, BYTES);
	(void)read_all(15);
	rig_sync(&rig);
	fakedisk_fail(FAKEDISK_SYNC, 0, 1, EIO);
	compact_step(compact, false);
	rig_run(&rig);
	journal_done(rig.journal, late[0]);
	turns(4);
	ck_assert_uint_eq(files(sp, ".seg").n, 1);
	for (int start = 0; start < 2; start++) {
		forget();
		close_delivery();
		open_delivery();
		ck_assert_uint_eq(read_all(15), 1);
		ck_assert_ptr_null(late[0]);
	}
	forget();
}
END_TEST

START_TEST(the_second_name_of_a_file_outlives_a_power_cut)
{
	const size_t large = SPOOL_INLINE_MAX + 5000;

	send_all(0, 1, large);
	send_all(1, 30, BYTES);
	(void)read_all(100);
	fakedisk_fail(FAKEDISK_UNLINK, 0, 100, EIO); /* what goes later would make it last, too */
	turns(2);
	ck_assert_int_eq(counter_get(COUNTER_COMPACTED), 1);
	ck_assert_uint_eq(files(NULL, ".msg").n, 2);
	forget();
	fakedisk_off();
	close_delivery();
	spool_close(sp);
	rig_run(&rig);
	fakedisk_reboot(FAKEDISK_DROPPED, 1);
	open_delivery();
	sp = rig_spool(&rig, SEGMENT, &err);
	(void)read_all(100);
	ck_assert_ptr_nonnull(late[0]);
	ck_assert_uint_eq(number_of(late[0]), 0);
	forget();
}
END_TEST

START_TEST(a_file_that_can_get_no_second_name_stays_with_its_segment)
{
	send_all(0, 1, SPOOL_INLINE_MAX + 5000);
	send_all(1, 30, BYTES);
	(void)read_all(100);
	rig_sync(&rig);
	fakedisk_fail(FAKEDISK_LINK, 0, 1, EPERM);
	turns(4);
	ck_assert_uint_eq(files(sp, ".msg").n, 1);
	ck_assert_uint_eq(files(sp, ".seg").n, 2);
	ck_assert_uint_eq(number_of(late[0]), 0);
	/* And goes as ever. */
	journal_done(rig.journal, late[0]);
	turns(4);
	ck_assert_uint_eq(files(NULL, ".msg").n, 0);
	ck_assert_uint_eq(files(sp, ".seg").n, 1);
	forget();
}
END_TEST

/* -- how much of the disk -- */

#define ROUNDS 40

START_TEST(the_disk_that_the_logs_take_is_bounded)
{
	uint64_t most = 0;

	settings.slack_bytes = 2 * SEGMENT;
	compact_configure(compact, &settings);
	/* One in 30 is late, and 20 of them are so at any time. */
	for (uint32_t round = 0; round < ROUNDS; round++) {
		uint64_t bytes;

		send_all(round * 30, (round + 1) * 30, BYTES);
		(void)read_all(30);
		clock_stand(1800000000000 + round * 2000);
		turns(4);
		bytes = files(NULL, ".seg").bytes;
		most = bytes > most ? bytes : most;
		if (round >= 20) {
			ck_assert_uint_eq(number_of(late[round - 20]), (round - 20) * 30);
			journal_done(rig.journal, late[round - 20]);
			late[round - 20] = NULL;
		}
	}
	clock_stand(0);
	/* 4 * what is open, the slack, the segments of both writers, and one that is on its way
	 * out. */
	ck_assert_uint_lt(most, 4 * 20 * 4096 + 2 * SEGMENT + SEGMENT + OWN_SEGMENT + SEGMENT);
	ck_assert_uint_eq(journal_index(rig.journal)->open, 20);
	forget();
}
END_TEST

/* -- the version before -- */

static void
make_older(void *data, const char *path)
{
	size_t len;
	uint8_t *bytes = fakedisk_bytes(path, &len);

	(void)data;
	if ((strstr(path, ".seg") == NULL && strstr(path, ".jnl") == NULL) ||
	    memcmp(bytes, "relaydLG", 8) != 0)
		return;
	ck_assert_uint_eq(le32_get(bytes + 8), RECORD_VERSION);
	le32_put(bytes + 8, 1);
	le64_put(bytes + 56, siphash(bytes + 16, slice_of(bytes, 56)));
}

/* Nothing was changed but that it can have copies, and how an envelope is written: that has a
 * version of its own. */
START_TEST(a_spool_of_version_1_is_read_and_is_of_version_3_from_then_on)
{
	uint8_t *format;
	size_t len;

	send_all(0, 60, BYTES);
	(void)read_all(15);
	for (uint32_t i = 0; i < 4; i++)
		tell(late[i], i);
	rig_sync(&rig);
	close_delivery();
	spool_close(sp);
	rig_run(&rig);
	forget();
	fakedisk_files(make_older, NULL);
	format = fakedisk_bytes(RIG_DIR "/format", &len);
	ck_assert_uint_eq(len, 15);
	ck_assert(memcmp(format, "relayd spool 3\n", len) == 0);
	format[13] = '1';
	ck_assert_uint_eq(inspect().n[INSPECT_OPEN], 4);
	open_delivery();
	sp = rig_spool(&rig, SEGMENT, &err);
	format = fakedisk_bytes(RIG_DIR "/format", &len);
	ck_assert(memcmp(format, "relayd spool 3\n", len) == 0);
	ck_assert_uint_eq(read_all(15), 4);
	for (uint32_t i = 0; i < 4; i++)
		check_told(late[i], i, INDEX_HELD);
	turns(12);
	ck_assert_int_eq(counter_get(COUNTER_COMPACTED), 4);
	ck_assert_int_eq(counter_get(COUNTER_DAMAGE), 0);
	for (uint32_t i = 0; i < 4; i++)
		check_told(late[i], i, INDEX_HELD | INDEX_COPIED);
	forget();
}
END_TEST

UNIT_SUITE(spool_compact)
{
	tcase_add_checked_fixture(tc, setup, teardown);
	UNIT_TEST(late_messages_leave_their_segments_and_stay_the_same);
	UNIT_TEST(a_large_message_keeps_its_file_wherever_its_record_goes);
	UNIT_TEST(within_one_log_a_file_keeps_its_only_name);
	UNIT_TEST(a_few_segments_may_wait);
	UNIT_TEST(a_segment_that_is_mostly_open_stays);
	UNIT_TEST(what_is_delivered_while_it_is_copied_is_not_delivered_again);
	UNIT_TEST(a_copy_that_nobody_was_told_of_is_no_second_message);
	UNIT_TEST(a_copy_that_nobody_was_told_of_is_done_with_the_message);
	UNIT_TEST(no_segment_goes_before_its_copies_are_decided_about);
	UNIT_TEST(a_copy_is_all_there_is_when_the_journal_was_lost);
	UNIT_TEST(a_copy_that_fails_is_made_later);
	UNIT_TEST(a_copy_that_failed_is_never_a_message);
	UNIT_TEST(the_second_name_of_a_file_outlives_a_power_cut);
	UNIT_TEST(a_file_that_can_get_no_second_name_stays_with_its_segment);
	UNIT_TEST(the_disk_that_the_logs_take_is_bounded);
	UNIT_TEST(a_spool_of_version_1_is_read_and_is_of_version_3_from_then_on);
}
