/* relayd/spool/journal.c - what became of whom: the memory of delivery that outlives it.
 *
 * Files of changes (%08x.jnl) follow one another; a snapshot (%08x.snap) gives the index as it was at the end of
 * the file with its number, and makes it and all before it superfluous.  A file that failed is never
 * written again: what it may lack comes back with the next snapshot.
 */
#include "relayd/spool/journal.h"

#include "relayd/core/clock.h"
#include "relayd/core/counters.h"
#include "relayd/core/le.h"
#include "relayd/core/log.h"
#include "relayd/core/record_file.h"
#include "relayd/spool/entry.h"
#include "relayd/spool/round.h"
#include "relayd/spool/syncer.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#define ENTRIES_MAX	(64u << 20)	/* changes that wait for a file */
#define RECORD_ABOUT	(1u << 20)	/* a record of changes is written when it is this long */
#define SNAPSHOT_MAX	((size_t)4 << 30)
#define SNAPSHOT_IN_LOOP (64u << 10)	/* a larger one is written in a thread */
#define RETRY_MS	1000
#define SECTOR		512	/* each write has its own: a torn one spoils nothing that was synced */
#define WINDOW_BYTES	(256u << 10)
#define REPLAY_TRIES	5

/* A sync of the current file, then, where one is due, the next file. */
struct file_job {
	struct syncer_job job;
	struct journal *journal;
	struct io_dir *dir;
	struct io_file *file;		/* to sync, or NULL */
	bool rotate, synced;
	struct record_file header;	/* of the next one */
	struct io_file *next;		/* out */
	uint64_t covers;		/* changes */
};

struct snapshot_job {
	struct syncer_job job;
	struct journal *journal;
	struct io_dir *dir, *damaged;	/* damaged: where old files go that could not be read; or NULL */
	struct record_file header;
	struct buf records;
	uint64_t covers;
};

struct journal {
	struct spooldir *spool;
	struct index index;
	struct io_file *file;		/* the current one */
	struct record_file header;	/* its header */
	bool failed;			/* it is not written any more, a snapshot will say what it lacks */
	bool must_snapshot;		/* nothing is durable before the next snapshot is */
	bool damaged;			/* some of what was replayed could not be read */
	bool flush_wanted, closing;
	uint64_t at;			/* where the next record goes */
	struct buf entries;		/* changes that are not written */
	struct buf sealed;		/* the same, older: runs of them, each behind its length */
	uint64_t changed, written, synced;	/* counts of changes */
	uint64_t replayed, snapshot_bytes;	/* bytes that a start would read beside the current file */
	int64_t retry_ms;		/* monotonic: not before this after a failure */
	struct journal_sync *waiting, **waiting_tail;
	struct file_job file_job;
	struct snapshot_job snapshot_job;
	struct syncer *syncer, *snapshot_syncer;
	struct round *round;		/* NULL: for a look only */
	struct err why;			/* of the last failure */
	struct journal_hooks hooks;
};

/* -- names -- */

#define NAME_BYTES 24

static void
file_name(uint64_t number, const char *suffix, char out[static NAME_BYTES])
{
	(void)snprintf(out, NAME_BYTES, "%08x.%s", (unsigned)number, suffix);	/* fits */
}

static bool
file_number(const char *name, const char *suffix, uint64_t *number)
{
	char again[NAME_BYTES];

	*number = strtoul(name, NULL, 16);
	file_name(*number, suffix, again);
	return *number > 0 && strcmp(name, again) == 0;
}

/* The files of a journal, by number. */
struct listing {
	struct io_dir *dir;
	uint64_t snapshot, newest;	/* the highest numbers, or 0 */
	uint64_t *journals;
	size_t n, cap;
	bool nomem;
};

static void
list_name(void *data, const char *name)
{
	struct listing *l = data;
	uint64_t number;

	if (file_number(name, "snap", &number)) {
		if (number > l->snapshot)
			l->snapshot = number;
	} else if (file_number(name, "jnl", &number)) {
		if (l->n == l->cap) {
			size_t cap = l->cap > 0 ? l->cap * 2 : 16;
			uint64_t *more = realloc(l->journals, cap * sizeof(*more));

			if (more == NULL) {
				l->nomem = true;
				return;
			}
			l->journals = more;
			l->cap = cap;
		}
		l->journals[l->n++] = number;
	} else {
		return;
	}
	if (number > l->newest)
		l->newest = number;
}

static int
compare_numbers(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static int
list_files(struct listing *l, struct io_dir *dir, struct err *err)
{
	*l = (struct listing){ .dir = dir };
	if (io_list(dir, list_name, l, err) < 0)
		return -1;
	if (l->nomem)
		return err_set(err, ERR_NOMEM, "no memory to list the journal");
	if (l->n > 0)
		qsort(l->journals, l->n, sizeof(*l->journals), compare_numbers);
	return 0;
}

/* -- replay -- */

static void
report_damage(struct journal *j, const char *name, const struct err *why)
{
	if (j->round == NULL)
		return;		/* for a look only */
	j->damaged = true;
	counter_add(COUNTER_DAMAGE, 1);
	log_event("spool.damaged", kv_str("file", name), kv_err("why", why));
}

/* Applies the records of a file.  *whole: it ended with ENTRY_END. */
static int
replay_records(struct journal *j, struct record_cursor *c, bool *whole, struct err *err)
{
	struct record rec;
	int event;

	while ((event = record_cursor_next(c, &rec, err)) != RECORD_END) {
		struct err why = { 0 };

		if (event < 0)
			return -1;
		if (event == RECORD_DAMAGE)
			err_set(&why, ERR_DAMAGED, "%llu bytes at %llu are no record",
			    (unsigned long long)(rec.next - rec.at), (unsigned long long)rec.at);
		else if (rec.type == ENTRY_CHANGES)
			(void)entry_apply(&j->index, rec.payload, &why);	/* told by why */
		*whole = event == RECORD_WHOLE && rec.type == ENTRY_END;
		if (why.code == ERR_NOMEM)
			return err_set(err, ERR_NOMEM, "%s", why.msg);
		if (why.code != ERR_NONE)
			report_damage(j, io_name(c->file), &why);
	}
	return 0;
}

/* Passes over damage; fails for a newer version, a disk that does not read, a file that is gone. */
static int
replay_file(struct journal *j, uint64_t number, enum record_kind kind, struct err *err)
{
	char name[NAME_BYTES];
	struct record_cursor c = { 0 };
	struct io_file *file;
	struct err why = { 0 };
	bool whole = false;
	int rc;

	file_name(number, kind == RECORD_SNAPSHOT ? "snap" : "jnl", name);
	file = io_open(j->spool->journal, name, false, err);
	if (file == NULL)
		return -1;
	rc = record_cursor_init(&c, file, kind, kind == RECORD_SNAPSHOT ? 0 : SECTOR, WINDOW_BYTES, &why);
	/* What is known from here on was on the disk, not only in the memory of a process that died. */
	if (rc == 0 && j->round != NULL)
		rc = io_sync(file, &why);
	if (rc == 0)
		rc = replay_records(j, &c, &whole, &why);
	if (rc < 0 && why.code == ERR_DAMAGED) {
		report_damage(j, name, &why);
		rc = 0;
	} else if (rc < 0 && err != NULL) {
		*err = why;
	} else if (kind == RECORD_SNAPSHOT && !whole) {
		err_set(&why, ERR_DAMAGED, "the snapshot has no end");
		report_damage(j, name, &why);
	}
	j->replayed += c.scanner.at;
	record_cursor_fini(&c);
	io_close(file);
	return rc;
}

/* The newest snapshot, then every file of changes behind it. */
static int
replay(struct journal *j, uint64_t *newest, struct err *err)
{
	struct listing l = { 0 };
	int rc = list_files(&l, j->spool->journal, err);

	if (rc == 0 && l.snapshot > 0)
		rc = replay_file(j, l.snapshot, RECORD_SNAPSHOT, err);
	for (size_t i = 0; rc == 0 && i < l.n; i++)
		if (l.journals[i] > l.snapshot)
			rc = replay_file(j, l.journals[i], RECORD_JOURNAL, err);
	*newest = l.newest;
	free(l.journals);
	return rc;
}

/* Beside a living owner files may go between the listing and the reading. */
static int
replay_beside_owner(struct journal *j, struct err *err)
{
	struct err why = { 0 };
	uint64_t newest;

	for (int i = 0; i < REPLAY_TRIES; i++) {
		index_fini(&j->index);
		if (replay(j, &newest, &why) == 0)
			return 0;
		if (why.code != ERR_NOT_FOUND)
			break;
	}
	if (err != NULL)
		*err = why;
	return -1;
}

/* -- files -- */

/* A new file with that header and those records behind it, under its name; the name lasts with the
 * next sync of the directory.  What a failed attempt left is replaced. */
static struct io_file *
create_file(struct io_dir *dir, const struct record_file *header, const struct buf *records,
    struct err *err)
{
	char name[NAME_BYTES], tmp[NAME_BYTES + 4];
	uint8_t head[RECORD_FILE_BYTES];
	struct iovec iov[2] = { { .iov_base = head, .iov_len = sizeof(head) },
		{ .iov_base = records->p, .iov_len = records->len } };
	struct io_file *file;

	file_name(header->number, header->kind == RECORD_SNAPSHOT ? "snap" : "jnl", name);
	(void)snprintf(tmp, sizeof(tmp), "%s.tmp", name);	/* fits */
	record_file_encode(header, head);
	(void)io_unlink(dir, tmp, NULL);	/* there is none most often */
	file = io_create(dir, tmp, err);
	if (file != NULL && io_write(file, iov, records->len > 0 ? 2 : 1, 0, err) == 0 &&
	    io_sync(file, err) == 0 && io_rename(file, name, err) == 0)
		return file;
	io_close(file);
	return NULL;
}

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
	f->next = create_file(f->dir, &f->header, &none, err);
	if (f->next == NULL)
		return -1;
	if (io_sync_dir(f->dir, err) == 0)
		return 0;
	io_close(f->next);
	f->next = NULL;
	return -1;
}

struct removal {
	struct io_dir *dir, *damaged;
	uint64_t number;
};

/* What the snapshot made superfluous goes; what could not be read is kept for the admin. */
static void
remove_old(void *data, const char *name)
{
	const struct removal *r = data;
	uint64_t number;
	bool old = (file_number(name, "snap", &number) && number < r->number) ||
	    (file_number(name, "jnl", &number) && number <= r->number);

	if (old && r->damaged != NULL)
		(void)io_move(r->dir, name, r->damaged, name, NULL);	/* else it stays, unread */
	else if (old)
		(void)io_unlink(r->dir, name, NULL);	/* else the next snapshot removes it */
}

static int
run_snapshot_job(struct syncer_job *job, struct err *err)
{
	struct snapshot_job *s = container_of(job, struct snapshot_job, job);
	struct removal removal = { s->dir, s->damaged, s->header.number };
	struct io_file *file;

	if (s->records.overflow)
		return err_set(err, ERR_NOMEM, "no memory for a snapshot of the journal");
	file = create_file(s->dir, &s->header, &s->records, err);
	if (file == NULL)
		return -1;
	io_close(file);
	if (io_sync_dir(s->dir, err) < 0)
		return -1;
	(void)io_list(s->dir, remove_old, &removal, NULL);	/* or the next snapshot does */
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

static void
make_records(const struct journal *j, struct buf *out)
{
	struct record_place place = { .type = ENTRY_CHANGES };
	struct slice runs = buf_slice(&j->sealed);

	while (runs.len > 0) {
		struct slice run = slice_head(slice_drop(runs, 4), le32_get(runs.p));

		place.at = j->at + out->len;
		record_append_block(&j->header, &place, run, SECTOR, out);
		runs = slice_drop(runs, 4 + run.len);
	}
}

static int
write_sealed(struct journal *j, struct err *err)
{
	struct buf out = buf_heap(2 * ENTRIES_MAX);
	struct iovec iov;
	int rc;

	make_records(j, &out);
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

void
journal_write(struct journal *j)
{
	struct err err = { 0 };

	/* While the next file is made changes wait for it: the snapshot is taken in between. */
	if (j->failed || (syncer_busy(j->syncer) && j->file_job.rotate))
		return;
	seal(j);
	if (j->sealed.len == 0)
		return;
	if (write_sealed(j, &err) < 0) {
		write_failed(j, &err);
		return;
	}
	buf_reset(&j->sealed);
	j->written = j->changed;
}

/* After an entry was put. */
static void
put_done(struct journal *j, bool applied)
{
	j->changed++;
	if (!applied || j->entries.overflow)
		no_memory();
	if (j->failed) {	/* the snapshot will have it */
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
journal_done_at(struct journal *j, struct index_segment *seg, uint32_t place)
{
	entry_done(&j->entries, seg, place);
	put_done(j, index_set_done(&j->index, seg, place));
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
	j->at = SECTOR;
	if (j->failed) {	/* all that changed meanwhile is in the snapshot */
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
		j->retry_ms = clock_mono_ms() + RETRY_MS;	/* the old file serves on */
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
	return j->must_snapshot || j->at + j->replayed > limit;
}

static void
on_round(void *data)
{
	struct journal *j = data;
	struct file_job *f = &j->file_job;
	const struct err none = { 0 };

	journal_write(j);
	if (syncer_busy(j->syncer))
		return;		/* and again when that is done */
	j->flush_wanted = false;
	f->rotate = checkpoint_due(j) && !syncer_busy(j->snapshot_syncer) &&
	    clock_mono_ms() >= j->retry_ms;
	if (!f->rotate && (j->failed || j->written == j->synced)) {
		tell(j, j->must_snapshot ? &j->why : &none);
		return;
	}
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

struct journal *
journal_open(uv_loop_t *loop, struct spooldir *dir, struct err *err)
{
	struct journal *j = calloc(1, sizeof(*j));
	uint64_t newest = 0;

	if (j == NULL) {
		err_set(err, ERR_NOMEM, "no memory for the journal");
		return NULL;
	}
	j->spool = dir;
	j->waiting_tail = &j->waiting;
	j->entries = buf_heap(RECORD_PAYLOAD_MAX);
	j->sealed = buf_heap(ENTRIES_MAX);
	index_init(&j->index);
	if (loop == NULL && (dir->journal == NULL || replay_beside_owner(j, err) == 0))
		return j;
	if (loop != NULL && make_workers(j, loop, err) == 0 && replay(j, &newest, err) == 0 &&
	    begin_file(j, newest + 1, err) == 0)
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
