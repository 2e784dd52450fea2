/* relayd/spool/journal.c - what became of whom: the memory of delivery that outlives it.
 *
 * A file that failed is never written again: what it may lack comes back with the next snapshot.
 */
#include "relayd/spool/journal.h"

#include "relayd/core/clock.h"
#include "relayd/core/counters.h"
#include "relayd/core/le.h"
#include "relayd/core/log.h"
#include "relayd/spool/entry.h"
#include "relayd/spool/journal_file.h"
#include "relayd/spool/round.h"
#include "relayd/spool/syncer.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#define ENTRIES_MAX      (64u << 20) /* changes that wait for a file */
#define RECORD_ABOUT     (1u << 20)  /* a record of changes is written when it is this long */
#define SNAPSHOT_MAX     ((size_t)4 << 30)
#define SNAPSHOT_IN_LOOP (64u << 10) /* a larger one is written in a thread */
#define RETRY_MS         1000
#define FILES_MAX        32 /* from as many starts; a checkpoint makes them one */
#define AHEAD_BYTES      (64u << 10) /* zeros are written that far ahead of the records, */
#define AHEAD_LOW        (16u << 10) /* once there are less than so many */

/* A sync of the current file, then, where one is due, the next file. */
struct file_job {
	struct syncer_job job;
	struct journal *journal;
	struct io_dir *dir;
	struct io_file *file; /* to sync, or NULL */
	bool rotate, synced;
	struct record_file header; /* of the next one */
	struct io_file *next;      /* out */
	uint64_t covers;           /* changes */
};

struct snapshot_job {
	struct syncer_job job;
	struct journal *journal;
	struct io_dir *dir, *damaged; /* damaged: for old files that could not be read, or NULL */
	struct record_file header;
	struct buf records;
	uint64_t covers;
};

struct journal {
	struct spooldir *spool;
	struct index index;
	struct io_file *file;      /* the current one */
	struct record_file header; /* its header */
	bool failed;               /* not written any more: a snapshot will say what it lacks */
	bool must_snapshot;        /* nothing is durable before the next snapshot is */
	bool damaged;              /* some of what was replayed could not be read */
	bool flush_wanted, closing;
	uint64_t at;        /* where the next record goes */
	uint64_t has; /* the bytes up to there were written once: those from at on are zeros */
	struct buf entries; /* changes that are not written */
	struct buf sealed;  /* the same, older: runs of them, each behind its length */
	uint64_t changed, written, synced; /* counts of changes */
	uint64_t decided;                  /* the last about two copies of a message */
	uint64_t replayed, snapshot_bytes; /* that a start would read beside the current file */
	unsigned files;                    /* that it would read */
	int64_t retry_ms;                  /* monotonic: not before this after a failure */
	struct journal_sync *waiting, **waiting_tail;
	struct file_job file_job;
	struct snapshot_job snapshot_job;
	struct syncer *syncer, *snapshot_syncer;
	struct round *round; /* NULL: for a look only */
	struct err why;      /* of the last failure */
	struct journal_hooks hooks;
};

/* -- files -- */

static int
run_file_job(struct syncer_job *job, struct err *err)
{
	struct file_job *f = container_of(job, struct file_job, job);
	const struct buf none = { 0 };

	f->next = NULL;
	f->synced = false;
	if (f->file != NULL && io_sync(f->file, err) < 0)
		return -1;
	f->synced = f->file != NULL;
	if (!f->rotate)
		return 0;
	f->next = journal_file_create(f->dir, &f->header, &none, err);
	if (f->next == NULL)
		return -1;
	if (io_sync_dir(f->dir, err) == 0)
		return 0;
	io_close(f->next);
	f->next = NULL;
	return -1;
}

static int
run_snapshot_job(struct syncer_job *job, struct err *err)
{
	struct snapshot_job *s = container_of(job, struct snapshot_job, job);
	struct io_file *file;

	if (s->records.overflow)
		return err_set(err, ERR_NOMEM, "no memory for a snapshot of the journal");
	file = journal_file_create(s->dir, &s->header, &s->records, err);
	if (file == NULL)
		return -1;
	io_close(file);
	if (io_sync_dir(s->dir, err) < 0)
		return -1;
	journal_file_remove_old(s->dir, s->damaged, s->header.number);
	return 0;
}

/* -- changes -- */

static void
write_failed(struct journal *j, const struct err *err)
{
	if (!j->failed)
		log_event("spool.error", kv_str("file", "journal"), kv_err("why", err));
	counter_add(COUNTER_SPOOL_ERRORS, 1);
	j->failed = j->must_snapshot = true;
	j->why = *err;
	j->retry_ms = clock_mono_ms() + RETRY_MS;
	buf_reset(&j->entries);
	buf_reset(&j->sealed);
}

/* Without memory the role ends, and starts again from what is durable. */
static void
no_memory(void)
{
	log_event("spool.error", kv_str("file", "journal"), kv_str("why", "no memory"));
	log_drain(1000);
	abort();
}

/* Closes the open run of changes, so that none gets longer than a record. */
static void
seal(struct journal *j)
{
	uint8_t len[4];

	if (j->entries.len == 0)
		return;
	le32_put(len, (uint32_t)j->entries.len);
	buf_put(&j->sealed, slice_of(len, sizeof(len)));
	buf_put(&j->sealed, buf_slice(&j->entries));
	if (j->sealed.overflow)
		no_memory();
	buf_reset(&j->entries);
}

/* Records of what is sealed.  to_sector: the last one ends its sector, which is one of no change
 * when there is nothing else to write. */
static void
make_records(const struct journal *j, bool to_sector, struct buf *out)
{
	struct record_place place = { .type = ENTRY_CHANGES };
	struct slice runs = buf_slice(&j->sealed), run = SLICE("");

	while (runs.len > 0 || to_sector) {
		if (runs.len > 0) {
			run = slice_head(slice_drop(runs, 4), le32_get(runs.p));
			runs = slice_drop(runs, 4 + run.len);
		}
		place.at = j->at + out->len;
		if (runs.len > 0 || !to_sector) {
			record_append(&j->header, place.at, place.type, run, out);
		} else {
			record_append_block(&j->header, &place, run, JOURNAL_SECTOR, out);
			to_sector = false;
		}
	}
}

static int
write_sealed(struct journal *j, bool to_sector, struct err *err)
{
	struct buf out = buf_heap(2 * ENTRIES_MAX);
	struct iovec iov;
	int rc;

	make_records(j, to_sector, &out);
	if (out.overflow)
		no_memory();
	iov = (struct iovec){ .iov_base = out.p, .iov_len = out.len };
	rc = io_write(j->file, &iov, 1, j->at, err);
	if (rc == 0)
		j->at += out.len;
	counter_add(COUNTER_SPOOL_BYTES, (int64_t)out.len);
	buf_fini(&out);
	return rc;
}

/* before_sync: what is written later is to share no sector with this. */
static void
write_changes(struct journal *j, bool before_sync)
{
	struct err err = { 0 };

	/* While the next file is made changes wait for it: the snapshot is taken in between. */
	if (j->failed || (syncer_busy(j->syncer) && j->file_job.rotate))
		return;
	seal(j);
	if (j->sealed.len == 0 && !(before_sync && j->at % JOURNAL_SECTOR != 0))
		return;
	if (write_sealed(j, before_sync, &err) < 0) {
		write_failed(j, &err);
		return;
	}
	buf_reset(&j->sealed);
	j->written = j->changed;
}

void
journal_write(struct journal *j)
{
	write_changes(j, false);
}

/* A sync of a file that has grown writes its inode and where its blocks are as well, and has a file
 * system with a journal commit that: five blocks or more, for some records.  So it grows in larger
 * steps. */
static void
write_ahead(struct journal *j)
{
	static const char zeros[AHEAD_BYTES];
	const struct iovec iov = { (void *)(uintptr_t)zeros, sizeof(zeros) };
	uint64_t from = j->has > j->at ? j->has : j->at;

	if (j->failed || j->has >= j->at + AHEAD_LOW)
		return;
	if (io_write(j->file, &iov, 1, from, NULL) < 0)
		return; /* then it grows with its records */
	j->has = from + sizeof(zeros);
	counter_add(COUNTER_SPOOL_BYTES, sizeof(zeros));
}

/* After an entry was put. */
static void
put_done(struct journal *j, bool applied)
{
	j->changed++;
	if (!applied || j->entries.overflow)
		no_memory();
	if (j->failed) { /* the snapshot will have it */
		buf_reset(&j->entries);
	} else if (j->entries.len > RECORD_ABOUT) {
		seal(j);
		journal_write(j);
	}
}

struct index_log *
journal_log(struct journal *j, struct id id)
{
	struct index_log *log = index_log_find(&j->index, id);

	if (log != NULL)
		return log;
	log = index_log_add(&j->index, id, j->index.next_log);
	if (log != NULL && j->round != NULL) {
		entry_log(&j->entries, log);
		put_done(j, true);
	}
	return log;
}

void
journal_rcpt(struct journal *j, struct index_msg *msg, const struct index_rcpt *rcpt)
{
	entry_rcpt(&j->entries, msg, rcpt);
	put_done(j, index_set_rcpt(&j->index, msg, rcpt));
}

void
journal_order(struct journal *j, struct index_msg *msg, unsigned flags, struct slice via)
{
	bool applied = index_set_order(msg, flags, via);

	if (applied)
		entry_order(&j->entries, msg);
	put_done(j, applied);
}

void
journal_done_at(struct journal *j, struct index_segment *seg, uint32_t place)
{
	entry_done(&j->entries, seg, place);
	put_done(j, index_set_done(&j->index, seg, place));
}

static void
note_decided(struct journal *j, struct index_segment *from)
{
	j->decided = j->changed;
	if (from != NULL)
		from->decided_at = j->changed;
}

void
journal_moved(struct journal *j, struct index_segment *from, uint32_t place,
    struct index_segment *to, uint32_t to_place)
{
	bool applied = index_move(&j->index, from, place, to, to_place);

	if (applied && from != NULL)
		entry_moved(&j->entries, from, place, to, to_place);
	else if (applied)
		entry_copy(&j->entries, index_at(to, to_place));
	put_done(j, applied);
	note_decided(j, from);
}

void
journal_not_moved(
    struct journal *j, struct index_segment *from, struct index_segment *to, uint32_t to_place)
{
	journal_done_at(j, to, to_place);
	note_decided(j, from);
}

void
journal_done(struct journal *j, struct index_msg *msg)
{
	if (j->hooks.on_done != NULL)
		j->hooks.on_done(j->hooks.data, msg);
	journal_done_at(j, msg->segment, msg->place);
}

bool
journal_key_seen(struct journal *j, struct slice key, const struct index_msg *msg)
{
	struct id hash = id_derive((struct id){ 0 }, key);
	const struct index_key *seen = index_key(&j->index, hash);
	bool applied;

	if (seen != NULL)
		return !id_eq(seen->msg, msg->id);
	applied = index_set_key(&j->index, hash, msg->id, clock_wall_ms());
	if (applied)
		entry_key(&j->entries, index_key(&j->index, hash));
	put_done(j, applied);
	return false;
}

void
journal_retired(struct journal *j, struct index_segment *seg)
{
	seg->retired = true;
	entry_retired(&j->entries, seg);
	put_done(j, true);
}

void
journal_gone(struct journal *j, struct index_segment *seg)
{
	entry_gone(&j->entries, seg);
	index_segment_forget(&j->index, seg);
	put_done(j, true);
}

void
journal_log_gone(struct journal *j, struct index_log *log)
{
	entry_log_gone(&j->entries, log);
	index_log_forget(&j->index, log);
	put_done(j, true);
}

/* -- syncs -- */

/* Tells those whose changes are durable; with an error all that wait. */
static void
tell(struct journal *j, const struct err *err)
{
	struct journal_sync *list = j->waiting;

	j->waiting = NULL;
	j->waiting_tail = &j->waiting;
	while (list != NULL) {
		struct journal_sync *req = list;

		list = req->next;
		if (err->code != ERR_NONE || req->wants <= j->synced) {
			req->done(req, err);
		} else {
			req->next = NULL;
			*j->waiting_tail = req;
			j->waiting_tail = &req->next;
		}
	}
}

static void
start_snapshot(struct journal *j)
{
	struct snapshot_job *s = &j->snapshot_job;

	index_expire_keys(&j->index, clock_wall_ms() - (int64_t)JOURNAL_KEY_KEEP_S * 1000);
	s->header = record_file_new(RECORD_SNAPSHOT, j->header.number - 1, 0);
	s->records = buf_heap(SNAPSHOT_MAX);
	s->damaged = j->damaged ? j->spool->damaged : NULL;
	s->covers = j->changed;
	entry_snapshot(&j->index, &s->header, &s->records);
	syncer_run(j->snapshot_syncer, &s->job, s->records.len > SNAPSHOT_IN_LOOP);
}

static void
synced_up_to(struct journal *j, uint64_t covers)
{
	const struct err none = { 0 };

	if (covers > j->synced)
		j->synced = covers;
	tell(j, &none);
	if (j->hooks.on_synced != NULL && !j->closing)
		j->hooks.on_synced(j->hooks.data);
}

static void
again(struct journal *j)
{
	if (!j->closing && (j->flush_wanted || j->waiting != NULL))
		round_arm(j->round);
}

static void
snapshot_done(struct syncer_job *job)
{
	struct snapshot_job *s = container_of(job, struct snapshot_job, job);
	struct journal *j = s->journal;
	bool current = s->header.number + 1 == j->header.number && !j->failed;

	if (job->err.code != ERR_NONE) {
		log_event("spool.error", kv_str("file", "journal"), kv_err("why", &job->err));
		counter_add(COUNTER_SPOOL_ERRORS, 1);
		j->retry_ms = clock_mono_ms() + RETRY_MS;
		j->why = job->err;
		if (j->must_snapshot)
			tell(j, &job->err);
	} else {
		counter_add(COUNTER_SPOOL_SYNCS, 1);
		counter_add(COUNTER_SPOOL_BYTES, (int64_t)s->records.len);
		j->replayed = 0;
		j->files = 2; /* the snapshot and the current one */
		j->snapshot_bytes = s->records.len;
		j->damaged = j->damaged && s->damaged == NULL;
		if (j->must_snapshot && current) {
			j->must_snapshot = false;
			log_event("spool.mended", kv_str("file", "journal"));
			synced_up_to(j, s->covers);
		}
	}
	buf_fini(&s->records);
	again(j);
}

static void
adopt_file(struct journal *j, struct file_job *f)
{
	io_close(j->file);
	j->file = f->next;
	j->header = f->header;
	j->at = j->has = JOURNAL_SECTOR;
	if (j->failed) { /* all that changed meanwhile is in the snapshot */
		buf_reset(&j->entries);
		buf_reset(&j->sealed);
		j->written = j->changed;
	}
	j->failed = false;
}

static void
file_done(struct syncer_job *job)
{
	struct file_job *f = container_of(job, struct file_job, job);
	struct journal *j = f->journal;
	struct err err = job->err;

	counter_add(COUNTER_SPOOL_SYNCS, 1);
	if (f->next != NULL) {
		adopt_file(j, f);
		if (!j->closing)
			start_snapshot(j);
	}
	if (err.code != ERR_NONE && !f->synced)
		write_failed(j, &err);
	else if (err.code != ERR_NONE)
		j->retry_ms = clock_mono_ms() + RETRY_MS; /* the old file serves on */
	if (f->synced && !j->must_snapshot)
		synced_up_to(j, f->covers);
	if (err.code != ERR_NONE && !f->synced)
		tell(j, &err);
	f->rotate = false;
	again(j);
}

static bool
checkpoint_due(const struct journal *j)
{
	uint64_t limit = 2 * j->snapshot_bytes;

	if (limit < JOURNAL_CHECKPOINT_BYTES)
		limit = JOURNAL_CHECKPOINT_BYTES;
	return j->must_snapshot || j->at + j->replayed > limit || j->files > FILES_MAX;
}

static void
on_round(void *data)
{
	struct journal *j = data;
	struct file_job *f = &j->file_job;
	const struct err none = { 0 };

	write_changes(j, !syncer_busy(j->syncer));
	if (syncer_busy(j->syncer))
		return; /* and again when that is done */
	j->flush_wanted = false;
	f->rotate =
	    checkpoint_due(j) && !syncer_busy(j->snapshot_syncer) && clock_mono_ms() >= j->retry_ms;
	if (!f->rotate && (j->failed || j->written == j->synced)) {
		tell(j, j->must_snapshot ? &j->why : &none);
		return;
	}
	if (!f->rotate)
		write_ahead(j);
	f->file = j->failed ? NULL : j->file;
	f->header = record_file_new(RECORD_JOURNAL, j->header.number + 1, 0);
	f->covers = j->written;
	syncer_run(j->syncer, &f->job, false);
}

void
journal_flush(struct journal *j)
{
	if (!journal_dirty(j))
		return;
	j->flush_wanted = true;
	round_arm(j->round);
}

void
journal_sync_start(struct journal_sync *req, struct journal *j)
{
	req->wants = j->changed;
	req->next = NULL;
	*j->waiting_tail = req;
	j->waiting_tail = &req->next;
	j->flush_wanted = true;
	round_arm(j->round);
}

bool
journal_healthy(const struct journal *j)
{
	return !j->failed && !j->must_snapshot;
}

bool
journal_dirty(const struct journal *j)
{
	return j->changed > j->synced || j->must_snapshot;
}

uint64_t
journal_changed(const struct journal *j)
{
	return j->changed;
}

uint64_t
journal_decided(const struct journal *j)
{
	return j->decided;
}

uint64_t
journal_synced(const struct journal *j)
{
	return j->synced;
}

const struct index *
journal_index(const struct journal *j)
{
	return &j->index;
}

struct index *
journal_index_rw(struct journal *j)
{
	return &j->index;
}

void
journal_hook(struct journal *j, const struct journal_hooks *hooks)
{
	j->hooks = *hooks;
}

/* -- open and close -- */

static int
make_workers(struct journal *j, uv_loop_t *loop, struct err *err)
{
	j->round = round_open(loop, on_round, j);
	if (j->round == NULL)
		return err_set(err, ERR_NOMEM, "no memory for the journal");
	j->syncer = syncer_open(loop, err);
	j->snapshot_syncer = j->syncer != NULL ? syncer_open(loop, err) : NULL;
	j->file_job.job.run = run_file_job;
	j->file_job.job.done = file_done;
	j->file_job.journal = j;
	j->file_job.dir = j->spool->journal;
	j->snapshot_job.job.run = run_snapshot_job;
	j->snapshot_job.job.done = snapshot_done;
	j->snapshot_job.journal = j;
	j->snapshot_job.dir = j->spool->journal;
	return j->snapshot_syncer != NULL ? 0 : -1;
}

/* Old files are never written again, so a torn tail stays one. */
static int
begin_file(struct journal *j, uint64_t number, struct err *err)
{
	struct file_job *f = &j->file_job;

	f->rotate = true;
	f->header = record_file_new(RECORD_JOURNAL, number, 0);
	if (run_file_job(&f->job, err) < 0)
		return -1;
	adopt_file(j, f);
	f->rotate = false;
	return 0;
}

/* Begins a file behind those that were replayed. */
static int
replay_and_begin(struct journal *j, uv_loop_t *loop, struct err *err)
{
	struct journal_replay replay = {
		.dir = j->spool->journal, .index = &j->index, .owner = true
	};

	if (make_workers(j, loop, err) < 0 || journal_replay(&replay, err) < 0)
		return -1;
	j->damaged = replay.damaged;
	j->replayed = replay.bytes;
	j->files = replay.files + 1;
	return begin_file(j, replay.newest + 1, err);
}

static int
replay_for_a_look(struct journal *j, struct err *err)
{
	struct journal_replay replay = { .dir = j->spool->journal, .index = &j->index };

	return j->spool->journal == NULL ? 0 : journal_replay(&replay, err);
}

struct journal *
journal_open(uv_loop_t *loop, struct spooldir *dir, struct err *err)
{
	struct journal *j = calloc(1, sizeof(*j));

	if (j == NULL) {
		err_set(err, ERR_NOMEM, "no memory for the journal");
		return NULL;
	}
	j->spool = dir;
	j->waiting_tail = &j->waiting;
	j->entries = buf_heap(RECORD_PAYLOAD_MAX);
	j->sealed = buf_heap(ENTRIES_MAX);
	index_init(&j->index);
	if ((loop == NULL ? replay_for_a_look(j, err) : replay_and_begin(j, loop, err)) == 0)
		return j;
	journal_close(j);
	return NULL;
}

/* What the last rounds left: nobody waits for it, so a failure only means work done twice. */
static void
last_sync(struct journal *j)
{
	if (j->file == NULL)
		return;
	journal_write(j);
	if (!j->failed && !j->must_snapshot && j->written > j->synced)
		(void)io_sync(j->file, NULL);
}

void
journal_close(struct journal *j)
{
	struct err err = { 0 };

	if (j == NULL)
		return;
	j->closing = true;
	if (j->round != NULL) {
		syncer_close(j->syncer);
		syncer_close(j->snapshot_syncer);
		j->syncer = NULL;
		last_sync(j);
		round_close(j->round);
	}
	err_set(&err, ERR_CANCELLED, "the journal was closed");
	tell(j, &err);
	io_close(j->file);
	buf_fini(&j->entries);
	buf_fini(&j->sealed);
	buf_fini(&j->snapshot_job.records);
	index_fini(&j->index);
	free(j);
}
