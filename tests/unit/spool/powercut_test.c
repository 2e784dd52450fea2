/* tests/unit/spool/powercut_test.c - the power is cut at every single write point of a workload.
 *
 * Two writers, a reader that finishes some of what it reads, large messages, recycled segments, a
 * log that is adopted and removed.  Whatever is lost of what was not synced: each message whose
 * commit was told is there whole, unless the journal's sync said that it is done; and none is
 * half.
 *
 * What is lost whole is tried at every point.  Of the torn and spoilt variants, and of second cuts
 * while recovering, a test run takes a random sample; with RELAYD_EVERY_CUT set (./dev crash)
 * it takes all.
 */
#include "unit/unit.h"

#include "relayd/core/counters.h"
#include "unit/spool/fakedisk.h"
#include "unit/spool/rig.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>

#define SENT_MAX 200
#define SEGMENT  (48u << 10)
#define SEEDS	 3 /* of the variant that spoils; one less of the others */
#define SAMPLE	 6 /* a run takes one of so many */

struct sent {
	struct rig_msg msg;
	bool done, done_synced;   /* the reader finished it; and the journal is safe */
	bool tried, tried_synced; /* a deferred attempt was journalled */
};

struct world {
	struct rig rig;
	struct sent sent[SENT_MAX];
	uint32_t n_sent;
	bool synced; /* the last sync of the journal worked */
	uint64_t cut, seed;
};

static struct world w;
static bool recycled; /* in some run */

static struct sent *
sent_of(struct id id)
{
	for (uint32_t i = 0; i < w.n_sent; i++)
		if (id_eq(w.sent[i].msg.id, id))
			return &w.sent[i];
	ck_abort_msg("a message that nobody sent");
}

static void
send_group(struct spool *sp, unsigned n, size_t size)
{
	for (; n > 0 && sp != NULL; n--) {
		struct sent *s = &w.sent[w.n_sent];

		ck_assert_uint_lt(w.n_sent, SENT_MAX);
		if (rig_send(sp, &s->msg, w.n_sent, size + 977 * n) == 0)
			w.n_sent++;
	}
	rig_run(&w.rig);
}

static void
on_synced(struct journal_sync *req, const struct err *err)
{
	(void)req;
	w.synced = err->code == ERR_NONE;
}

/* What is done or tried up to here is safe when the sync says so. */
static void
sync_journal(void)
{
	struct journal_sync req = { .done = on_synced };

	w.synced = false;
	journal_sync_start(&req, w.rig.journal);
	rig_run(&w.rig);
	for (uint32_t i = 0; i < w.n_sent && w.synced; i++) {
		w.sent[i].done_synced = w.sent[i].done;
		w.sent[i].tried_synced = w.sent[i].tried;
	}
	if (!w.synced)
		ck_assert(fakedisk_is_off());
}

/* Every fortieth message stays open for ever, every third is tried without success first. */
static void
deliver(void)
{
	struct reader_item item;
	struct err err;

	if (w.rig.reader == NULL)
		return;
	while (reader_next(w.rig.reader, &item, &err) > 0) {
		struct sent *s = sent_of(item.msg->id);
		struct index_rcpt rcpt = { .attempts = 1,
			.tried_ms = 1000,
			.next_ms = 2000,
			.reply = SLICE("450 later") };

		ck_assert(!s->done);
		if (s->msg.number % 3 == 0) {
			journal_rcpt(w.rig.journal, item.msg, &rcpt);
			s->tried = true;
		}
		if (s->msg.number % 40 == 0)
			continue;
		journal_done(w.rig.journal, item.msg);
		s->done = true;
	}
	journal_write(w.rig.journal);
}

static void
workload(void)
{
	struct err err;
	struct spool *a = rig_spool(&w.rig, SEGMENT, &err), *b;

	send_group(a, 3, 3000);
	(void)rig_open(&w.rig, &err); /* without power there is no reader */
	b = rig_spool(&w.rig, SEGMENT, &err);
	for (unsigned round = 0; round < 18; round++) {
		send_group(a, 1 + round % 4, 4000 + 1300 * round);
		deliver();
		send_group(b, round % 3, 9000);
		if (round == 4)
			send_group(a, 2, SPOOL_INLINE_MAX + 1000);
		deliver();
		if (w.rig.journal != NULL && round % 2 == 1)
			sync_journal();
		if (round == 8) {
			spool_close(a);
			a = rig_spool(&w.rig, SEGMENT, &err);
		}
	}
	send_group(b, 1, SPOOL_INLINE_MAX * 2);
	deliver();
	if (w.rig.journal != NULL)
		sync_journal();
	spool_close(a);
	spool_close(b);
}

/* Every message is whole; marks those that are there in seen. */
static void
check_messages(bool *seen)
{
	struct reader_item item;
	struct err err = { 0 };
	int rc;

	while ((rc = reader_next(w.rig.reader, &item, &err)) > 0) {
		struct sent *s = sent_of(item.msg->id);
		size_t size = 0;
		char *bytes = rig_body(&w.rig, &item, &size, &err);
		uint32_t number = 0;

		ck_assert_msg(bytes != NULL, "message %u: %s", s->msg.number, err.msg);
		ck_assert(rig_is_body(slice_of(bytes, size), &number));
		ck_assert_uint_eq(number, s->msg.number);
		ck_assert_uint_eq(size, s->msg.size);
		ck_assert_msg(!seen[number], "message %u twice", number);
		ck_assert_msg(!s->done_synced, "message %u is back", number);
		if (s->tried_synced) {
			ck_assert_ptr_nonnull(index_rcpt(item.msg, 0));
			ck_assert_str_eq(index_rcpt(item.msg, 0)->reply.p, "450 later");
		}
		seen[number] = true;
		free(bytes);
	}
	ck_assert_msg(rc == 0, "%s", err.msg);
}

static void
check_nothing_lost(const bool *seen)
{
	for (uint32_t i = 0; i < w.n_sent; i++) {
		const struct sent *s = &w.sent[i];
		bool promised = s->msg.told && s->msg.code == ERR_NONE;

		ck_assert_msg(seen[i] || !promised || s->done,
		    "message %u is lost (cut %llu, seed %llu)", i, (unsigned long long)w.cut,
		    (unsigned long long)w.seed);
	}
}

static void
note_file(void *data, const char *path)
{
	const char *name = strrchr(path, '/');

	if (strstr(path, "spool/journal/") != NULL || strstr(path, "spool/spare/") != NULL ||
	    strcmp(name, "/format") == 0 || strcmp(name, "/lock") == 0 ||
	    strstr(path, ".tmp") != NULL) /* half made logs and names: swept when they are old */
		return;
	if (strstr(path, "spool/damaged/") == NULL)
		(void)snprintf(data, 256, "%s", path);
}

static void
note_spare(void *data, const char *path)
{
	if (strstr(path, "spool/spare/") != NULL)
		*(bool *)data = true;
}

/* When all is delivered, nothing is left behind. */
static void
finish_all(void)
{
	struct index_cursor c = { .log = 0 };
	struct index_msg *msg;
	char left[256] = "";
	struct reader_item item;
	struct err err;

	while ((msg = index_cursor_next(journal_index(w.rig.journal), &c)) != NULL)
		journal_done(w.rig.journal, msg);
	for (int i = 0; i < 6; i++) {
		rig_sync(&w.rig);
		(void)reader_next(w.rig.reader, &item, &err); /* nothing: it sweeps */
	}
	ck_assert_uint_eq(journal_index(w.rig.journal)->open, 0);
	ck_assert_ptr_null(journal_index(w.rig.journal)->logs);
	fakedisk_files(note_file, left);
	ck_assert_msg(left[0] == '\0', "left behind: %s", left);
}

static void
recover(enum fakedisk_loss loss)
{
	bool seen[SENT_MAX] = { false };
	struct err err = { 0 };

	rig_init(&w.rig);
	counter_set(COUNTER_DAMAGE, 0);
	ck_assert_msg(rig_open(&w.rig, &err) == 0, "%s", err.msg);
	check_messages(seen);
	check_nothing_lost(seen);
	if (loss == FAKEDISK_DROPPED || loss == FAKEDISK_KEPT)
		ck_assert_int_eq(counter_get(COUNTER_DAMAGE), 0);
	finish_all();
	fakedisk_files(note_spare, &recycled);
	rig_fini(&w.rig);
}

/* The power fails a second time, while what the first cut left is being recovered. */
static void
recover_half(uint64_t k)
{
	struct reader_item item;
	struct err err;

	rig_init(&w.rig);
	fakedisk_cut_at(k);
	if (rig_open(&w.rig, &err) == 0) {
		while (reader_next(w.rig.reader, &item, &err) > 0)
			if (sent_of(item.msg->id)->done)
				journal_done(w.rig.journal, item.msg);
		rig_sync(&w.rig);
	}
	rig_fini(&w.rig);
}

static bool
run_cut(uint64_t k, enum fakedisk_loss loss, uint64_t seed)
{
	bool off;

	memset(&w, 0, sizeof(w));
	w.cut = k;
	w.seed = seed;
	fakedisk_use();
	rig_init(&w.rig);
	fakedisk_cut_at(k);
	workload();
	off = fakedisk_is_off();
	rig_fini(&w.rig);
	fakedisk_reboot(loss, k * 31 + seed);
	if (seed > 0) {
		recover_half(1 + (k * 7 + seed) % 40);
		fakedisk_reboot(loss, k * 37 + seed);
	}
	recover(loss);
	fakedisk_free();
	return off;
}

static const enum fakedisk_loss losses[] = { FAKEDISK_KEPT, FAKEDISK_DROPPED, FAKEDISK_TORN_512,
	FAKEDISK_TORN_4096, FAKEDISK_GARBAGE_512 };

static bool
is_in_sample(void)
{
	static bool all, seeded;
	unsigned seed;

	if (!seeded) {
		all = getenv("RELAYD_EVERY_CUT") != NULL;
		ck_assert_int_eq(getrandom(&seed, sizeof(seed), 0), sizeof(seed));
		srandom(seed);
		seeded = true;
	}
	return all || random() % SAMPLE == 0;
}

START_TEST(a_cut_at_any_write_point_loses_nothing)
{
	uint64_t k = 0;
	bool whole = losses[_i] == FAKEDISK_KEPT || losses[_i] == FAKEDISK_DROPPED;
	uint64_t seeds = losses[_i] == FAKEDISK_GARBAGE_512 ? SEEDS : SEEDS - 1;
	bool off = true;

	while (off) {
		bool sampled = is_in_sample();

		k++;
		if (whole || sampled)
			off = run_cut(k, losses[_i], 0);
		for (uint64_t seed = 1; sampled && seed < seeds; seed++)
			(void)run_cut(k, losses[_i], seed);
	}
	ck_assert(recycled || !whole);
	ck_assert_msg(k > 150, "a workload of %llu write points only", (unsigned long long)k);
}
END_TEST

UNIT_SUITE(spool_powercut)
{
	UNIT_ROWS(a_cut_at_any_write_point_loses_nothing, losses);
}
