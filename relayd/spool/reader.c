/* relayd/spool/reader.c - finds every log of the spool and reads it on from its place. */
#include "relayd/spool/reader.h"

#include "relayd/core/clock.h"
#include "relayd/core/counters.h"
#include "relayd/core/log.h"
#include "relayd/spool/reader_log.h"

#include <stdio.h>
#include <stdlib.h>

#define WINDOW_BYTES (256u << 10)
#define SCAN_MS      1000 /* at least this often the directory is looked at again */
#define RETRY_MS     1000
#define TURN_ITEMS   64 /* messages from one log before the next has its turn */

/* -- damage -- */

void
reader_damage(
    struct reader *r, struct index_segment *seg, const struct record *rec, const struct err *why)
{
	char name[SPOOLDIR_SEGMENT_NAME_BYTES];

	struct reader_log *rl = seg->log->reader;

	if (r->readonly)
		return;
	seg->damaged = rl->damaged = true;
	spooldir_segment_name(seg->number, name);
	counter_add(COUNTER_DAMAGE, 1);
	log_event("spool.damaged", kv_id("log", seg->log->id), kv_str("file", name),
	    kv_int("from", (int64_t)rec->at), kv_int("to", (int64_t)rec->next), kv_err("why", why));
}

/* A log of a newer relayd is left alone, for that one to read. */
static void
refuse(struct reader_log *rl, const struct err *why)
{
	if (!rl->refused && !rl->reader->readonly)
		log_event("spool.error", kv_id("log", rl->log->id), kv_err("why", why));
	rl->refused = true;
}

/* -- segments -- */

/* Closes the handle that was not wanted for the longest time and that nobody holds. */
static void
close_oldest(struct reader *r)
{
	struct index_segment *oldest = NULL;

	for (struct reader_log *rl = r->logs; rl != NULL; rl = rl->next)
		for (struct index_segment *s = rl->log->segments; s != NULL; s = s->next) {
			struct reader_segment *rs = s->reader,
					      *best = oldest ? oldest->reader : NULL;

			if (rs != NULL && rs->file != NULL && s->bodies == 0 && s != rl->current &&
			    (best == NULL || rs->used < best->used))
				oldest = s;
		}
	if (oldest != NULL)
		reader_segment_close(r, oldest);
}

void
reader_segment_close(struct reader *r, struct index_segment *seg)
{
	struct reader_segment *rs = seg->reader;

	if (rs == NULL || rs->file == NULL)
		return;
	io_close(rs->file);
	rs->file = NULL;
	r->files_open--;
}

static int
read_header(struct index_segment *seg, struct reader_segment *rs, struct err *err)
{
	uint8_t head[RECORD_FILE_BYTES];
	ssize_t n = io_read(rs->file, head, sizeof(head), 0, err);

	if (n < 0)
		return -1;
	if (record_file_decode(slice_of(head, (size_t)n), RECORD_SEGMENT, &rs->header, err) < 0)
		return err_prefix(err, "%s", io_name(rs->file));
	if (rs->header.number != seg->number)
		return err_set(err, ERR_DAMAGED, "%s is segment %llu by its header",
		    io_name(rs->file), (unsigned long long)rs->header.number);
	rs->has_header = true;
	return 0;
}

struct reader_segment *
reader_segment_open(struct reader_log *rl, struct index_segment *seg, struct err *err)
{
	struct reader_segment *rs = seg->reader;
	char name[SPOOLDIR_SEGMENT_NAME_BYTES];

	if (rs == NULL)
		rs = seg->reader = calloc(1, sizeof(*rs));
	if (rs == NULL) {
		err_set(err, ERR_NOMEM, "no memory for a segment");
		return NULL;
	}
	rs->used = ++rl->reader->calls;
	if (rs->file == NULL) {
		if (rl->reader->files_open >= READER_FILES_OPEN)
			close_oldest(rl->reader);
		spooldir_segment_name(seg->number, name);
		rs->file = io_open(rl->dir, name, false, err);
		if (rs->file == NULL)
			return NULL;
		rl->reader->files_open++;
	}
	return rs->has_header || read_header(seg, rs, err) == 0 ? rs : NULL;
}

/* What was seen of a segment before its writer used it may have been an attempt that failed, and
 * that another file of that name replaced. */
static void
look_afresh(struct reader_log *rl, struct index_segment *seg)
{
	struct reader_segment *rs = seg->reader;

	if (rs == NULL || seg == rl->current || seg->bodies > 0)
		return;
	reader_segment_close(rl->reader, seg);
	rs->has_header = false;
}

/* -- logs -- */

static void
note_segment(void *data, const char *name)
{
	struct reader_log *rl = data;
	uint32_t number;

	/* Without memory the segment is found by a later scan. */
	if (spooldir_segment_number(name, &number))
		(void)index_segment(rl->log, number);
}

/* Syncs what its writer may have left in memory only.  What is known of the end of a segment is
 * looked up again. */
static int
adopt(struct reader_log *rl, struct err *err)
{
	if (io_list(rl->dir, note_segment, rl, err) < 0)
		return -1;
	for (struct index_segment *s = rl->log->segments; s != NULL; s = s->next) {
		struct reader_segment *rs;

		if (s->read || s->retired || rl->reader->readonly)
			continue;
		look_afresh(rl, s);
		rs = reader_segment_open(rl, s, err);
		if (rs == NULL && err->code == ERR_VERSION)
			refuse(rl, err);
		else if (rs == NULL && err->code != ERR_DAMAGED && err->code != ERR_NOT_FOUND)
			return -1;
		if (rs != NULL && io_sync(rs->file, err) < 0)
			return -1;
	}
	rl->live = false;
	return 0;
}

/* Whether the writer is gone; then the log is ours. */
static int
check_writer(struct reader_log *rl, struct err *err)
{
	bool locked = false;
	struct err why = { 0 };

	if (rl->reader->readonly) {
		if (rl->lock != NULL && io_locked(rl->lock, &locked, err) < 0)
			return -1;
		return locked ? 0 : adopt(rl, err);
	}
	if (io_lock(rl->lock, &why) == 0)
		return adopt(rl, err);
	if (why.code == ERR_BUSY)
		return 0;
	*err = why;
	return -1;
}

static int
open_lock(struct reader_log *rl, struct err *err)
{
	struct err why = { 0 };

	rl->lock = io_open(rl->dir, SPOOLDIR_LOCK, !rl->reader->readonly, &why);
	if (rl->lock == NULL && why.code == ERR_NOT_FOUND && rl->reader->readonly)
		return 0;
	if (rl->lock == NULL && why.code == ERR_NOT_FOUND)
		rl->lock = io_create(rl->dir, SPOOLDIR_LOCK, &why);
	if (rl->lock == NULL)
		*err = why;
	return rl->lock != NULL ? 0 : -1;
}

/* A page that is not whole is none: its writer is gone, or it would have written it. */
static void
open_page(struct reader_log *rl)
{
	struct io_file *file = io_open(rl->dir, SPOOLDIR_PAGE, false, NULL);
	uint64_t bytes;

	if (file != NULL && io_size(file, &bytes, NULL) == 0 && bytes >= SPOOLDIR_PAGE_BYTES)
		rl->page = io_map(file, SPOOLDIR_PAGE_BYTES, false, NULL);
	io_close(file); /* the mapping stays */
}

/* A segment that the journal knows and that is not there was removed before a crash.  If that was a
 * kill, the removal may not be safe yet: a power cut could bring back a segment of which nothing is
 * known any more. */
static int
forget_missing(struct reader_log *rl, struct err *err)
{
	struct index_segment *next;
	bool synced = rl->reader->readonly;

	for (struct index_segment *s = rl->log->segments; s != NULL; s = next) {
		struct err why = { 0 };

		next = s->next;
		if (reader_segment_open(rl, s, &why) != NULL || why.code != ERR_NOT_FOUND)
			continue;
		free(s->reader);
		s->reader = NULL;
		if (!synced && io_sync_dir(rl->dir, err) < 0)
			return -1;
		synced = true;
		if (rl->reader->readonly)
			index_segment_forget(rl->reader->index, s);
		else
			journal_gone(rl->reader->journal, s);
	}
	return 0;
}

static int
open_log(struct reader_log *rl, const char *name, struct err *err)
{
	rl->dir = io_dir_open_at(rl->reader->spool->root, name, err);
	if (rl->dir == NULL || open_lock(rl, err) < 0 ||
	    io_list(rl->dir, note_segment, rl, err) < 0)
		return -1;
	open_page(rl);
	if (forget_missing(rl, err) < 0)
		return -1;
	for (struct index_segment *s = rl->log->segments; s != NULL; s = s->next)
		s->was_there = !rl->reader->scanned;
	return check_writer(rl, err);
}

static void
end_current(struct reader_log *rl)
{
	record_cursor_fini(&rl->cursor);
	rl->current = NULL;
	rl->sealed = false;
}

void
reader_log_free(struct reader *r, struct reader_log *rl)
{
	struct reader_log **at = &r->logs;

	while (*at != NULL && *at != rl)
		at = &(*at)->next;
	if (*at != NULL)
		*at = rl->next;
	if (r->turn == rl)
		r->turn = rl->next;
	end_current(rl);
	for (struct index_segment *s = rl->log->segments; s != NULL; s = s->next) {
		reader_segment_close(r, s);
		free(s->reader);
		s->reader = NULL;
	}
	rl->log->reader = NULL;
	io_unmap(rl->page, SPOOLDIR_PAGE_BYTES);
	io_close(rl->lock);
	io_dir_close(rl->dir);
	free(rl);
}

/* -- scanning for logs -- */

struct scan {
	struct reader *r;
	bool found;
	struct err err;
};

static void
scan_name(void *data, const char *name)
{
	struct scan *scan = data;
	struct reader *r = scan->r;
	struct index_log *log;
	struct reader_log *rl;
	struct id id;

	if (!id_parse(slice_str(name), &id))
		return;
	log = index_log_find(r->index, id);
	if (log != NULL && log->reader != NULL)
		return;
	log = journal_log(r->journal, id);
	rl = calloc(1, sizeof(*rl));
	if (log == NULL || rl == NULL) {
		free(rl);
		err_set(&scan->err, ERR_NOMEM, "no memory for a log");
		return;
	}
	*rl = (struct reader_log){ .reader = r, .log = log, .live = true };
	log->reader = rl;
	if (open_log(rl, name, &scan->err) < 0) {
		reader_log_free(r, rl); /* tried again by the next scan */
		return;
	}
	rl->behind = r->scanned_ms == 0;
	rl->owed = !r->scanned;
	rl->next = r->logs;
	r->logs = rl;
	scan->found = true;
}

/* Looks for new logs and for those whose writer is gone.  1: there is something new. */
static int
scan(struct reader *r, struct err *err)
{
	struct scan scan = { .r = r };

	if (io_list(r->spool->root, scan_name, &scan, &scan.err) < 0) {
		*err = scan.err;
		return -1;
	}
	r->scanned_ms = clock_mono_ms();
	for (struct reader_log *rl = r->logs; rl != NULL; rl = rl->next) {
		struct err why = { 0 };

		if (rl->live && rl->page == NULL)
			open_page(rl); /* else nothing of it could be read */
		if (!rl->live || r->readonly)
			continue;
		if (check_writer(rl, &why) < 0 && why.code != ERR_BUSY)
			scan.err = why;
		scan.found = scan.found || !rl->live;
	}
	r->scanned = r->scanned || scan.err.code == ERR_NONE;
	if (scan.err.code == ERR_NONE)
		return scan.found;
	*err = scan.err;
	return scan.found ? 1 : -1;
}

/* Not so one that only could not be opened now: what is known of it is wanted once it can. */
static bool
is_missing(const struct reader *r, const struct index_log *log)
{
	char name[ID_TEXT_LEN + 1];
	struct err why = { 0 };
	struct io_dir *dir;

	id_text(log->id, name);
	dir = io_dir_open_at(r->spool->root, name, &why);
	io_dir_close(dir);
	return dir == NULL && why.code == ERR_NOT_FOUND;
}

/* A log that the journal knows and whose directory is not there was removed before a crash. */
static void
forget_missing_logs(struct reader *r)
{
	struct index_log *next;

	for (struct index_log *log = r->index->logs; log != NULL; log = next) {
		next = log->next;
		if (log->reader != NULL || !is_missing(r, log))
			continue;
		while (log->segments != NULL)
			index_segment_forget(r->index, log->segments);
		journal_log_gone(r->journal, log);
	}
}

/* -- reading one log -- */

static struct index_segment *
first_unread(const struct reader_log *rl)
{
	struct index_segment *s = rl->log->segments;

	while (s != NULL && (s->read || s->retired))
		s = s->next;
	return s;
}

/* Nothing comes from a segment whose header cannot be read: its records have lost their key. */
static void
give_up_segment(struct reader_log *rl, struct index_segment *seg, const struct err *why)
{
	const struct record all = { .at = 0, .next = RECORD_FILE_BYTES };

	reader_damage(rl->reader, seg, &all, why);
	index_segment_settle(rl->reader->index, seg);
	seg->read = true;
	rl->reader->sweep_wanted = true;
}

/* 1: current is there; 0: there is none now. */
static int
next_segment(struct reader_log *rl, struct err *err)
{
	for (;;) {
		struct index_segment *seg = first_unread(rl);
		struct reader_segment *rs;

		if (seg == NULL)
			return 0;
		look_afresh(rl, seg);
		rs = reader_segment_open(rl, seg, err);
		if (rs != NULL && record_cursor_init(&rl->cursor, rs->file, RECORD_SEGMENT,
				      SPOOLDIR_BLOCK, WINDOW_BYTES, err) == 0) {
			rl->current = seg;
			rl->sealed = false;
			return 1;
		}
		if (err->code == ERR_VERSION) {
			refuse(rl, err);
			return 0;
		}
		if (err->code != ERR_DAMAGED)
			return -1;
		give_up_segment(rl, seg, err);
	}
}

static uint64_t
file_offset(const struct reader_log *rl, uint64_t log_offset)
{
	uint64_t base = rl->cursor.header.base;

	return log_offset > base ? log_offset - base : 0;
}

/* Looks for segments that came since the last look. */
static int
list_newer(struct reader_log *rl, uint64_t newest, struct err *err)
{
	if (newest <= rl->listed)
		return 0;
	if (io_list(rl->dir, note_segment, rl, err) < 0)
		return -1;
	rl->listed = newest;
	return 0;
}

/* The header of the segment right behind current says where current ended: 1; 0: it does not; -1: a
 * disk failed, so that it may be asked again. */
static int
sealed_by_next(struct reader_log *rl, struct err *err)
{
	struct index_segment *seg = rl->current->next;
	struct reader_segment *rs;
	struct err why = { 0 };

	if (seg == NULL || seg->number != rl->current->number + 1)
		return 0;
	rs = reader_segment_open(rl, seg, &why);
	if (rs != NULL) {
		rl->cursor.end = rl->cursor.scanner.durable = file_offset(rl, rs->header.base);
		return 1;
	}
	if (why.code == ERR_NOT_FOUND || why.code == ERR_DAMAGED || why.code == ERR_VERSION)
		return 0;
	*err = why;
	return -1;
}

/* Nobody writes to current any more. */
static int
seal(struct reader_log *rl, uint64_t durable, uint64_t newest, struct err *err)
{
	int rc;

	if (rl->live && list_newer(rl, newest, err) < 0)
		return -1;
	rc = sealed_by_next(rl, err);
	if (rc < 0)
		return -1;
	if (rc == 0) { /* to its end, by the rules of recovery */
		rl->cursor.end = UINT64_MAX;
		rl->cursor.scanner.durable = durable;
	}
	rl->sealed = true;
	return 0;
}

/* How far current may be read, and how far it was promised. */
static int
set_limits(struct reader_log *rl, struct err *err)
{
	struct record_cursor *c = &rl->cursor;
	uint64_t durable = 0, newest = 0;

	if (rl->sealed)
		return 0;
	if (rl->page != NULL) {
		/* In this order: the segment in which that offset lies is known by then. */
		durable = atomic_load_explicit(&rl->page->durable, memory_order_acquire);
		newest = atomic_load_explicit(&rl->page->segment, memory_order_acquire);
	}
	if (!rl->live && rl->page != NULL &&
	    atomic_load(&rl->page->check) != spooldir_page_check(durable, newest))
		durable = newest = 0; /* the crash left no whole page */
	durable = newest == rl->current->number ? file_offset(rl, durable) : 0;
	if (rl->live && newest <= rl->current->number) {
		c->end = c->scanner.durable = durable;
		return 0;
	}
	/* A failed sync may have left what it covered in memory alone, whatever a later one says:
	 * mail from there could be gone between two of its recipients. */
	if (durable > 0 && newest == rl->current->number &&
	    atomic_load(&rl->page->refused) == newest) {
		c->end = c->scanner.durable = durable;
		rl->sealed = true;
		return 0;
	}
	return seal(rl, durable, newest, err);
}

bool
reader_lacks_file(const struct reader_log *rl, struct id id, struct err *why)
{
	char name[SPOOLDIR_MESSAGE_NAME_BYTES];
	struct io_file *file;

	spooldir_message_name(id, name);
	file = io_open(rl->dir, name, false, why);
	if (file == NULL)
		return why->code == ERR_NOT_FOUND;
	io_close(file);
	return false;
}

static void
pass_over(struct reader_log *rl, const struct record *rec, const struct err *why)
{
	if (rec->at < rl->cursor.scanner.durable)
		reader_damage(rl->reader, rl->current, rec, why);
	else if (!rl->reader->readonly)
		log_event("spool.unfinished", kv_id("log", rl->log->id), kv_err("why", why));
}

/* 1: *item; 0: the message is done, or was damaged and is passed over. */
static int
take_record(
    struct reader_log *rl, const struct record *rec, struct reader_item *item, struct err *err)
{
	struct reader *r = rl->reader;
	struct index_segment *seg = rl->current;
	uint32_t place = (uint32_t)(rec->at / RECORD_ALIGN);
	struct index_msg *msg, *same;
	struct spooldir_message m;
	struct err why = { 0 };
	struct id id;

	if ((rec->type != SPOOLDIR_MESSAGE && rec->type != SPOOLDIR_COPY) ||
	    index_is_done(seg, place))
		return 0;
	if (spooldir_message_decode(rec->type, rec->payload, &m, &why) < 0 ||
	    envelope_peek_id(m.envelope, &id, &why) < 0) {
		reader_damage(r, seg, rec, &why);
		return 0;
	}
	if (m.is_copy && !reader_copy_counts(rl, place, &m, id))
		return 0;
	item->envelope = m.envelope;
	item->body = m.body;
	same = index_find(r->index, id);
	if (same != NULL && (same->segment != seg || same->place != place)) {
		if (!r->readonly)
			journal_done_at(r->journal, seg, place);
		return 0;
	}
	if (m.meta.in_file && reader_lacks_file(rl, id, &why)) {
		pass_over(rl, rec, &why);
		return 0;
	}
	msg = index_add(r->index, seg, place);
	if (msg == NULL || (msg->bytes == 0 && !index_name(r->index, msg, id,
						   (uint32_t)record_bytes(rec->payload.len))))
		return err_set(err, ERR_NOMEM, "no memory for a message of the queue");
	msg->in_file = m.meta.in_file;
	item->msg = msg;
	return 1;
}

/* How much of the disk it takes: what of it is written ahead, too. */
static uint64_t
bytes_of(const struct reader_log *rl)
{
	const struct reader_segment *rs = rl->current->reader;
	uint64_t bytes;

	return rs != NULL && rs->file != NULL && io_size(rs->file, &bytes, NULL) == 0
		   ? bytes
		   : rl->cursor.scanner.at;
}

static void
finish_segment(struct reader_log *rl)
{
	struct index_segment *seg = rl->current;

	index_segment_settle(rl->reader->index, seg);
	seg->read = true;
	seg->bytes = bytes_of(rl);
	rl->reader->sweep_wanted = true;
	end_current(rl);
}

/* 1: *item; 0: nothing now. */
static int
read_log(struct reader_log *rl, struct reader_item *item, struct err *err)
{
	for (;;) {
		struct err why = { 0 };
		struct record rec;
		int event, rc;

		if (rl->current == NULL && (rc = next_segment(rl, err)) <= 0)
			return rc;
		if (set_limits(rl, err) < 0)
			return -1;
		event = record_cursor_next(&rl->cursor, &rec, err);
		if (event < 0)
			return -1;
		if (event == RECORD_WHOLE && (rc = take_record(rl, &rec, item, err)) != 0)
			return rc;
		if (event == RECORD_DAMAGE) {
			err_set(&why, ERR_DAMAGED, "no whole record");
			reader_damage(rl->reader, rl->current, &rec, &why);
		}
		if (event == RECORD_END && !rl->sealed)
			return 0;
		if (event == RECORD_END)
			finish_segment(rl);
	}
}

/* -- the whole spool -- */

static struct reader *
make(struct spooldir *dir, struct journal *j, bool readonly, struct err *err)
{
	struct reader *r = calloc(1, sizeof(*r));

	if (r == NULL) {
		err_set(err, ERR_NOMEM, "no memory for the reader");
		return NULL;
	}
	r->spool = dir;
	r->journal = j;
	r->index = journal_index_rw(j);
	r->readonly = readonly;
	r->sweep_wanted = true;
	r->owes = true;
	return r;
}

struct reader *
reader_open_readonly(struct spooldir *dir, struct journal *j, struct err *err)
{
	struct reader *r = make(dir, j, true, err);

	if (r != NULL && scan(r, err) < 0) {
		reader_close(r);
		return NULL;
	}
	return r;
}

static void
on_synced(void *data)
{
	reader_sweep(data);
}

struct reader *
reader_open(struct spooldir *dir, struct journal *j, struct err *err)
{
	struct reader *r = make(dir, j, false, err);

	if (r == NULL)
		return NULL;
	if (scan(r, err) < 0) {
		reader_close(r);
		return NULL;
	}
	forget_missing_logs(r);
	reader_sweep_strays(r);
	journal_hook(j, &(struct journal_hooks){ reader_on_done, on_synced, r });
	return r;
}

void
reader_close(struct reader *r)
{
	if (r == NULL)
		return;
	if (!r->readonly)
		journal_hook(r->journal, &(struct journal_hooks){ 0 });
	while (r->logs != NULL)
		reader_log_free(r, r->logs);
	for (struct reader_file *f = r->files, *next; f != NULL; f = next) {
		next = f->next;
		free(f);
	}
	free(r);
}

/* Asks every log once, from the one whose turn it is. */
static int
ask_logs(struct reader *r, struct reader_item *item, struct err *err)
{
	struct reader_log *first = r->turn != NULL ? r->turn : r->logs, *rl = first;

	do {
		int rc;

		if (rl == NULL)
			return 0;
		r->turn = rl;
		rc = rl->refused || clock_mono_ms() < rl->retry_ms ? 0 : read_log(rl, item, err);
		if (rc > 0 && ++r->turn_items < TURN_ITEMS)
			return 1;
		r->turn_items = 0;
		r->turn = rl->next;
		if (rc > 0)
			return 1;
		if (rc < 0) {
			rl->retry_ms = clock_mono_ms() + RETRY_MS;
			rl->behind = false; /* the others need not wait for it */
			return -1;
		}
		rl->behind = false;
		rl = rl->next != NULL ? rl->next : r->logs;
	} while (rl != first);
	return 0;
}

void
reader_look(struct reader *r)
{
	r->look = true;
}

int
reader_next(struct reader *r, struct reader_item *item, struct err *err)
{
	int rc;

	*item = (struct reader_item){ .envelope = SLICE(""), .body = SLICE("") };
	rc = ask_logs(r, item, err);
	if (rc == 0 && (r->look || clock_mono_ms() - r->scanned_ms >= SCAN_MS)) {
		r->look = false;
		rc = scan(r, err);
		rc = rc > 0 ? ask_logs(r, item, err) : rc;
	}
	if (rc == 0)
		reader_sweep(r);
	return rc;
}

bool
reader_caught_up(const struct reader *r)
{
	for (const struct reader_log *rl = r->logs; rl != NULL; rl = rl->next)
		if (rl->behind && !rl->refused)
			return false;
	return true;
}
