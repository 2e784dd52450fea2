/* relayd/pipeline/trace.c - writes what became of every message and session, a file a day. */
#include "relayd/pipeline/trace.h"

#include "relayd/core/clock.h"
#include "relayd/core/io.h"
#include "relayd/core/log.h"
#include "relayd/core/record.h"
#include "relayd/pipeline/trace_file.h"

#include <stdio.h>
#include <stdlib.h>

#define BUFFER_BYTES (256u << 10)
#define WRITE_AT     (64u << 10)   /* do not wait for the end of the round */
#define FREE_CHECK   (16ull << 20) /* looked at after so many bytes */
#define SAY_EVERY_MS 60000
#define DAY_MS       86400000ll
#define NAMES_TRIED  10

struct trace {
	struct io_dir *dir;
	char role[16];
	unsigned index;
	char date[TRACE_DATE_BYTES]; /* of file */
	int64_t day_ends_ms;
	struct io_file *file; /* NULL: could not be made, this day is lost */
	struct record_file header;
	uint64_t at; /* where buffered bytes go */
	uint64_t checked_at;
	uint64_t leave_free;
	bool closed; /* full for today */
	struct buf pending;
	uint64_t lost; /* since it was last said */
	int64_t said_ms;
};

/* ---- days -------------------------------------------------------------------------------------------- */

void
pl_trace_date(int64_t wall_ms, char out[static TRACE_DATE_BYTES])
{
	char iso[CLOCK_ISO_BYTES];

	clock_iso(wall_ms, iso);
	memcpy(out, iso, TRACE_DATE_BYTES - 1);
	out[TRACE_DATE_BYTES - 1] = '\0';
}

bool
pl_trace_is_file(const char *name)
{
	static const char shape[] = "0000-00-00.";

	for (size_t i = 0; shape[i] != '\0'; i++)
		if (shape[i] == '0' ? name[i] < '0' || name[i] > '9' : name[i] != shape[i])
			return false;
	return true;
}

struct removal {
	struct io_dir *dir;
	char before[TRACE_DATE_BYTES];
};

static void
remove_if_old(void *data, const char *name)
{
	struct removal *r = data;

	if (pl_trace_is_file(name) && strncmp(name, r->before, TRACE_DATE_BYTES - 1) < 0)
		(void)io_unlink(r->dir, name, NULL); /* another role may be quicker */
}

static void
remove_old(struct trace *tr)
{
	struct removal r = { .dir = tr->dir };

	pl_trace_date(clock_wall_ms() - TRACE_KEEP_DAYS * DAY_MS, r.before);
	(void)io_list(tr->dir, remove_if_old, &r, NULL); /* tried again tomorrow */
}

/* ---- the file of a day ----------------------------------------------------------------------------------- */

static int
begin_file(struct trace *tr, struct err *err)
{
	uint8_t bytes[RECORD_FILE_BYTES];
	struct iovec iov = { bytes, sizeof(bytes) };

	tr->header = record_file_new(RECORD_TRACE, 0, 0);
	record_file_encode(&tr->header, bytes);
	tr->at = sizeof(bytes);
	return io_write(tr->file, &iov, 1, 0, err);
}

/* Goes on behind what a process before us wrote; a torn record there is passed over by readers. */
static int
continue_file(struct trace *tr, struct err *err)
{
	uint8_t bytes[RECORD_FILE_BYTES];
	ssize_t n = io_read(tr->file, bytes, sizeof(bytes), 0, err);
	uint64_t size;

	if (n < 0 || io_size(tr->file, &size, err) < 0)
		return -1;
	if (size == 0)
		return begin_file(tr, err);
	if (record_file_decode(slice_of(bytes, (size_t)n), RECORD_TRACE, &tr->header, err) < 0)
		return -1;
	tr->at = (size + RECORD_ALIGN - 1) & ~(uint64_t)(RECORD_ALIGN - 1);
	return 0;
}

static int
open_named(struct trace *tr, const char *name, struct err *err)
{
	tr->file = io_create(tr->dir, name, err);
	if (tr->file == NULL && err->code == ERR_EXISTS)
		tr->file = io_open(tr->dir, name, true, err);
	if (tr->file != NULL && io_lock(tr->file, err) == 0 && continue_file(tr, err) == 0)
		return 0;
	io_close(tr->file);
	tr->file = NULL;
	return -1;
}

/* A file that is not ours to write (one that drains still holds it, or it is damaged) is left
 * alone, and the next name is taken. */
static int
open_day(struct trace *tr, struct err *err)
{
	char name[IO_NAME_MAX];
	int64_t now = clock_wall_ms();

	io_close(tr->file);
	tr->file = NULL;
	tr->closed = false;
	tr->checked_at = 0;
	pl_trace_date(now, tr->date);
	tr->day_ends_ms = (now / DAY_MS + 1) * DAY_MS;
	for (int i = 0; i < NAMES_TRIED; i++) {
		if (i == 0)
			(void)snprintf(
			    name, sizeof(name), "%s.%s.%u", tr->date, tr->role, tr->index);
		else
			(void)snprintf(
			    name, sizeof(name), "%s.%s.%u.%d", tr->date, tr->role, tr->index, i);
		if (open_named(tr, name, err) == 0)
			return 0;
		if (err->code == ERR_SYS || err->code == ERR_FULL)
			return -1;
	}
	return -1;
}

struct trace *
trace_open(const char *dir, const char *role, unsigned index, struct err *err)
{
	struct trace *tr = calloc(1, sizeof(*tr));

	if (tr == NULL) {
		err_set(err, ERR_NOMEM, "out of memory for the trace");
		return NULL;
	}
	tr->index = index;
	tr->leave_free = TRACE_LEAVE_FREE;
	tr->pending = buf_heap(BUFFER_BYTES);
	(void)snprintf(tr->role, sizeof(tr->role), "%s", role); /* role names are short */
	tr->dir = io_dir_make(dir, err);
	if (tr->dir == NULL || open_day(tr, err) < 0) {
		trace_close(tr);
		return NULL;
	}
	remove_old(tr);
	return tr;
}

void
trace_leave_free(struct trace *tr, uint64_t bytes)
{
	tr->leave_free = bytes;
}

void
trace_close(struct trace *tr)
{
	if (tr == NULL)
		return;
	trace_flush(tr);
	io_close(tr->file);
	io_dir_close(tr->dir);
	buf_fini(&tr->pending);
	free(tr);
}

/* ---- entries ------------------------------------------------------------------------------------------------ */

/* Never stops mail: it is said, and gone. */
static void
lose(struct trace *tr, uint64_t entries, const char *why)
{
	int64_t now = clock_mono_ms();

	tr->lost += entries;
	if (tr->said_ms != 0 && now - tr->said_ms < SAY_EVERY_MS)
		return;
	tr->said_ms = now;
	log_event("limit", kv_str("what", "trace"), kv_int("lost", (int64_t)tr->lost),
	    kv_slice("why", slice_str(why)));
	tr->lost = 0;
}

static void
check_room(struct trace *tr)
{
	uint64_t free_bytes;

	if (tr->at >= TRACE_DAY_BYTES)
		tr->closed = true;
	if (tr->checked_at != 0 && tr->at - tr->checked_at < FREE_CHECK)
		return;
	tr->checked_at = tr->at;
	if (io_free_bytes(tr->dir, &free_bytes, NULL) == 0 && free_bytes < tr->leave_free)
		tr->closed = true;
}

void
trace_flush(struct trace *tr)
{
	struct iovec iov;
	struct err err = { 0 };

	if (tr == NULL || tr->pending.len == 0)
		return;
	iov = (struct iovec){ tr->pending.p, tr->pending.len };
	check_room(tr);
	if (tr->file == NULL || tr->closed)
		lose(tr, 1, tr->closed ? "the day's file or the disk is full" : "no file");
	else if (io_write(tr->file, &iov, 1, tr->at - tr->pending.len, &err) < 0)
		lose(tr, 1, err.msg);
	buf_reset(&tr->pending);
}

static void
turn_day(struct trace *tr)
{
	struct err err = { 0 };

	trace_flush(tr);
	if (open_day(tr, &err) < 0)
		lose(tr, 1, err.msg);
	remove_old(tr);
}

static void
put_head(struct buf *out, int64_t now_ms, struct id id, struct id session)
{
	char head[TRACE_HEAD_BYTES];

	for (int i = 0; i < 8; i++)
		head[i] = (char)(now_ms >> (8 * i));
	memcpy(head + 8, id.bytes, 16);
	memcpy(head + 24, session.bytes, 16);
	buf_put(out, slice_of(head, sizeof(head)));
}

void
trace_append(struct trace *tr, struct id id, struct id session, struct slice json)
{
	char storage[TRACE_HEAD_BYTES + TRACE_JSON_MAX];
	struct buf payload = buf_over(storage, sizeof(storage));
	int64_t now = clock_wall_ms();
	size_t before;

	if (tr == NULL)
		return;
	if (json.len > TRACE_JSON_MAX) {
		lose(tr, 1, "an entry over its limit");
		return;
	}
	if (now >= tr->day_ends_ms)
		turn_day(tr);
	put_head(&payload, now, id, session);
	buf_put(&payload, json);
	before = tr->pending.len;
	record_append(&tr->header, tr->at, TRACE_RECORD, buf_slice(&payload), &tr->pending);
	tr->at += tr->pending.len - before;
	if (tr->pending.len >= WRITE_AT)
		trace_flush(tr);
}
