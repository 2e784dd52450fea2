/* relayd/spool/reader_sweep.c - removes what nobody needs any more, each step after the one before
 * is safe.
 *
 * A segment: journalled as retired; that synced; removed; that synced; only then forgotten.  A
 * message's file: its message done, and that synced.  A log: dead, and without segments.
 */
#include "relayd/spool/reader.h"

#include "relayd/core/clock.h"
#include "relayd/core/log.h"
#include "relayd/spool/reader_log.h"
#include "relayd/spool/spool.h"

#include <stdio.h>
#include <stdlib.h>

#define SPARE_MIN  (64u << 10)                 /* a shorter segment is not worth keeping */
#define SPARE_ROOM (16u * SPOOL_SEGMENT_BYTES) /* none is kept where less is free */

void
reader_forget_file(struct reader *r, struct index_log *log, struct id id)
{
	struct reader_file *file;

	if (r->readonly || (file = calloc(1, sizeof(*file))) == NULL)
		return; /* without memory it goes when its log does */
	*file = (struct reader_file){
		.log = log,
		.id = id,
		.done_at = journal_changed(r->journal) + 1,
		.next = r->files,
	};
	r->files = file;
}

void
reader_on_done(void *data, const struct index_msg *msg)
{
	struct reader *r = data;

	/* A sweep looks at all segments, of which a long queue has hundreds: so only for the last
	 * one. */
	if (msg->segment->open <= 1)
		r->sweep_wanted = true;
	if (msg->in_file)
		reader_forget_file(r, msg->segment->log, msg->id);
}

static bool
has_open(const struct reader_log *rl, struct id id)
{
	const struct index_msg *msg = index_find(rl->reader->index, id);

	return msg != NULL && msg->segment->log == rl->log;
}

/* Another copy of the message, whose file it is, too, may be there: that is known once all of the
 * log is read. */
static void
sweep_files(struct reader *r)
{
	struct reader_file **at = &r->files;

	while (*at != NULL) {
		struct reader_file *file = *at;
		struct reader_log *rl = file->log->reader;
		char name[SPOOLDIR_MESSAGE_NAME_BYTES];

		if (file->done_at > journal_synced(r->journal) || (rl != NULL && rl->owed)) {
			at = &file->next;
			continue;
		}
		spooldir_message_name(file->id, name);
		if (rl != NULL && !has_open(rl, file->id))
			(void)io_unlink(rl->dir, name, NULL); /* else it goes with its log */
		*at = file->next;
		free(file);
	}
}

/* -- segments -- */

static void
count_name(void *data, const char *name)
{
	(void)name;
	++*(unsigned *)data;
}

static bool
worth_keeping(struct reader *r, struct reader_segment *rs)
{
	unsigned spares = 0;
	uint64_t bytes, room;

	return io_free_bytes(r->spool->spare, &room, NULL) == 0 && room >= SPARE_ROOM &&
	       rs != NULL && rs->file != NULL && io_size(rs->file, &bytes, NULL) == 0 &&
	       bytes >= SPARE_MIN && bytes <= 2 * SPOOL_SEGMENT_BYTES &&
	       io_list(r->spool->spare, count_name, &spares, NULL) == 0 && spares < SPOOLDIR_SPARES;
}

/* The name of a finished segment outside its log. */
#define AWAY_BYTES (ID_TEXT_LEN + 16)
static void
away_name(const struct index_segment *seg, char out[static AWAY_BYTES])
{
	char id[ID_TEXT_LEN + 1];

	id_text(seg->log->id, id);
	(void)snprintf(out, AWAY_BYTES, "%s-%08x.seg", id, seg->number); /* fits */
}

/* Under a name that no writer takes before both directories are synced: else a power cut could
 * bring the segment back with another's bytes in it. */
static int
keep_as_spare(
    struct reader *r, struct reader_log *rl, const char *name, const char *away, struct err *err)
{
	char tmp[AWAY_BYTES + 4];

	(void)snprintf(tmp, sizeof(tmp), "%s.tmp", away); /* fits */
	if (io_move(rl->dir, name, r->spool->spare, tmp, err) < 0 ||
	    io_sync_dir(rl->dir, err) < 0 || io_sync_dir(r->spool->spare, err) < 0)
		return -1;
	return io_move(r->spool->spare, tmp, r->spool->spare, away, err);
}

static int
keep_for_admin(
    struct reader *r, struct reader_log *rl, const char *name, const char *away, struct err *err)
{
	if (io_move(rl->dir, name, r->spool->damaged, away, err) < 0 ||
	    io_sync_dir(r->spool->damaged, err) < 0)
		return -1;
	return io_sync_dir(rl->dir, err);
}

/* A segment that is not there was removed by an attempt that did not get further. */
static int
remove_file(struct reader *r, struct reader_log *rl, struct index_segment *seg, struct err *err)
{
	char name[SPOOLDIR_SEGMENT_NAME_BYTES], away[AWAY_BYTES];
	struct err why = { 0 };
	int rc;

	spooldir_segment_name(seg->number, name);
	away_name(seg, away);
	if (seg->damaged)
		rc = keep_for_admin(r, rl, name, away, &why);
	else if (worth_keeping(r, seg->reader))
		rc = keep_as_spare(r, rl, name, away, &why);
	else
		rc = io_unlink(rl->dir, name, &why) < 0 ? -1 : io_sync_dir(rl->dir, &why);
	if (rc < 0 && why.code == ERR_NOT_FOUND)
		return io_sync_dir(rl->dir, err);
	if (rc < 0)
		*err = why;
	return rc;
}

static bool
is_finished(const struct index_segment *seg)
{
	return !seg->retired && seg->read && seg->open == 0 && seg->bodies == 0;
}

static void
sweep_segment(struct reader *r, struct reader_log *rl, struct index_segment *seg)
{
	struct reader_segment *rs = seg->reader;
	struct err err = { 0 };

	if (is_finished(seg)) {
		/* What is on the disk as retired needs no decision about copies of it any more. */
		if ((r->owes && seg->was_there) || seg->decided_at > journal_synced(r->journal))
			return;
		journal_retired(r->journal, seg);
		journal_flush(r->journal);
		if (rs != NULL)
			rs->retired_at = journal_changed(r->journal);
		return;
	}
	if (!seg->retired || (rs != NULL && rs->retired_at > journal_synced(r->journal)))
		return;
	if (remove_file(r, rl, seg, &err) < 0) {
		log_event("spool.error", kv_id("log", rl->log->id), kv_err("why", &err));
		return; /* tried again by the next sweep */
	}
	reader_segment_close(r, seg);
	free(rs);
	journal_gone(r->journal, seg);
	journal_flush(r->journal);
}

/* -- logs -- */

static bool
is_pending_file(const struct reader_log *rl, struct id id)
{
	const struct reader_file *file = rl->reader->files;

	while (file != NULL && !(id_eq(file->id, id) && file->log == rl->log))
		file = file->next;
	return file != NULL;
}

/* The file of a message that nobody knows in this log.  Where records could not be read, one of
 * them may have been about it: then it is kept for the admin. */
static void
remove_orphan(void *data, const char *name)
{
	struct reader_log *rl = data;
	struct reader *r = rl->reader;
	struct id id;
	bool message =
	    spooldir_message_id(name, &id) && !has_open(rl, id) && !is_pending_file(rl, id);

	if (message && rl->damaged)
		(void)io_move(rl->dir, name, r->spool->damaged, name, NULL); /* else it stays */
	else if (message || spooldir_is_tmp(name))
		(void)io_unlink(rl->dir, name, NULL); /* else the next sweep does */
}

static int
remove_log(struct reader *r, struct reader_log *rl, struct err *err)
{
	char name[ID_TEXT_LEN + 1];

	id_text(rl->log->id, name);
	(void)io_unlink(rl->dir, SPOOLDIR_PAGE, NULL); /* may be missing after a crash */
	(void)io_unlink(rl->dir, SPOOLDIR_LOCK, NULL); /* as above; we still hold it */
	if (io_remove_dir(r->spool->root, name, err) < 0)
		return -1;
	return io_sync_dir(r->spool->root, err);
}

static bool
has_pending_file(const struct reader *r, const struct index_log *log)
{
	const struct reader_file *file = r->files;

	while (file != NULL && file->log != log)
		file = file->next;
	return file != NULL;
}

static void
sweep_log(struct reader *r, struct reader_log *rl)
{
	struct index_log *log = rl->log;
	struct index_segment *next;
	bool all_read = true;
	struct err err = { 0 };

	for (struct index_segment *seg = log->segments; seg != NULL; seg = next) {
		next = seg->next;
		all_read = all_read && (seg->read || seg->retired);
		sweep_segment(r, rl, seg);
	}
	if (rl->live || rl->refused || !all_read)
		return;
	if (!rl->tidied || log->segments == NULL)
		(void)io_list(rl->dir, remove_orphan, rl, NULL); /* or the next sweep does */
	rl->tidied = true;
	if (log->segments != NULL || has_pending_file(r, log))
		return;
	if (remove_log(r, rl, &err) < 0) {
		log_event("spool.error", kv_id("log", log->id), kv_err("why", &err));
		rl->refused = true; /* something of somebody else's is in there: leave it */
		return;
	}
	reader_log_free(r, rl);
	journal_log_gone(r->journal, log);
	journal_flush(r->journal);
}

static bool
any_to_go(const struct reader *r)
{
	for (const struct reader_log *rl = r->logs; rl != NULL; rl = rl->next)
		for (const struct index_segment *s = rl->log->segments; s != NULL; s = s->next)
			if (s->retired || is_finished(s))
				return true;
	return false;
}

/* A log whose writer lives holds no copies but our own. */
static bool
is_owed(const struct reader_log *rl)
{
	if (!rl->owed || rl->live || rl->refused)
		return false;
	for (const struct index_segment *s = rl->log->segments; s != NULL; s = s->next)
		if (!s->read && !s->retired)
			return true;
	return false;
}

/* Copies that an earlier delivery left are decided about while what they were made of is there. */
static void
look_what_is_owed(struct reader *r)
{
	bool owes = !r->scanned;

	for (struct reader_log *rl = r->logs; rl != NULL; rl = rl->next) {
		rl->owed = is_owed(rl);
		owes = owes || rl->owed;
	}
	r->owes = owes;
}

void
reader_sweep(struct reader *r)
{
	struct reader_log *next;

	if (r->readonly)
		return;
	if (r->owes && r->sweep_wanted)
		look_what_is_owed(r);
	sweep_files(r);
	if (!r->sweep_wanted)
		return;
	for (struct reader_log *rl = r->logs; rl != NULL; rl = next) {
		next = rl->next;
		sweep_log(r, rl);
	}
	r->sweep_wanted = r->owes || r->files != NULL || any_to_go(r);
}

/* -- strays -- */

#define STRAY_AGE_MS 60000 /* a log that is being made is younger */

static void
remove_name(void *data, const char *name)
{
	(void)io_unlink(data, name, NULL); /* then the directory stays, too */
}

static void
remove_spare_tmp(void *data, const char *name)
{
	if (spooldir_is_tmp(name))
		remove_name(data, name);
}

/* A log whose making was cut short: "<id>.tmp", old, and locked by nobody. */
static void
remove_half_log(void *data, const char *name)
{
	struct reader *r = data;
	struct slice text = slice_str(name);
	struct io_file *lock;
	struct io_dir *dir;
	bool locked = false;
	struct id id;

	if (!slice_chop(&text, ".tmp") || !id_parse(text, &id) ||
	    clock_wall_ms() - id_wall_ms(id) < STRAY_AGE_MS)
		return;
	dir = io_dir_open_at(r->spool->root, name, NULL);
	if (dir == NULL)
		return;
	lock = io_open(dir, SPOOLDIR_LOCK, true, NULL);
	if (lock != NULL && io_locked(lock, &locked, NULL) < 0)
		locked = true;
	if (!locked && io_list(dir, remove_name, dir, NULL) == 0)
		(void)io_remove_dir(r->spool->root, name, NULL); /* or the next start */
	io_close(lock);
	io_dir_close(dir);
}

void
reader_sweep_strays(struct reader *r)
{
	(void)io_list(r->spool->spare, remove_spare_tmp, r->spool->spare, NULL); /* or later */
	(void)io_list(r->spool->root, remove_half_log, r, NULL); /* or the next start does */
}
