/* relayd/pipeline/trace.c - writes what became of every message and session, a file a day. */
#include "relayd/pipeline/trace.h"

#include "relayd/core/clock.h"
#include "relayd/core/io.h"
#include "relayd/core/log.h"
#include "relayd/core/record.h"
#include "relayd/pipeline/trace_file.h"

#include <stdio.h>
#include <stdlib.h>
#include <zstd.h>

#define WRITE_AT     (64u << 10)   /* do not wait for the end of the round */
#define COMPRESSION  (-1)          /* the level: fast before small */
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
	uint64_t at; /* where the next block goes */
	uint64_t checked_at;
	uint64_t leave_free;
	bool closed;        /* full for today */
	struct buf pending; /* entries of the next block */
	uint64_t n_pending;
	ZSTD_CCtx *compress;
	char *packed; /* room for a block */
	struct buf record;
	uint64_t lost; /* since it was last said */
	int64_t said_ms;
};

/* ---- days ------------------------------------------------------------------------------------ */

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

/* ---- the file of a day ----------------------------------------------------------------------- */

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
	tr->pending = buf_heap(TRACE_BLOCK_MAX);
	tr->record = buf_heap(RECORD_PAYLOAD_MAX);
	tr->compress = ZSTD_createCCtx();
	tr->packed = malloc(ZSTD_COMPRESSBOUND(TRACE_BLOCK_MAX));
	(void)snprintf(tr->role, sizeof(tr->role), "%s", role); /* role names are short */
	if (tr->compress == NULL || tr->packed == NULL)
		err_set(err, ERR_NOMEM, "out of memory for the trace");
	else
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
	buf_fini(&tr->record);
	(void)ZSTD_freeCCtx(tr->compress); /* cannot fail */
	free(tr->packed);
	free(tr);
}

/* ---- entries --------------------------------------------------------------------------------- */

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

/* All that is pending, as one record in tr->record. */
static int
pack(struct trace *tr, struct err *err)
{
	size_t n = ZSTD_compressCCtx(tr->compress, tr->packed, ZSTD_COMPRESSBOUND(TRACE_BLOCK_MAX),
	    tr->pending.p, tr->pending.len, COMPRESSION);

	if (ZSTD_isError(n))
		return err_set(err, ERR_NOMEM, "zstd: %s", ZSTD_getErrorName(n));
	buf_reset(&tr->record);
	record_append(&tr->header, tr->at, TRACE_BLOCK, slice_of(tr->packed, n), &tr->record);
	return tr->record.overflow ? err_set(err, ERR_NOMEM, "out of memory") : 0;
}

static int
write_block(struct trace *tr, struct err *err)
{
	struct iovec iov;

	if (pack(tr, err) < 0)
		return -1;
	iov = (struct iovec){ tr->record.p, tr->record.len };
	if (io_write(tr->file, &iov, 1, tr->at, err) < 0)
		return -1;
	tr->at += tr->record.len;
	return 0;
}

void
trace_flush(struct trace *tr)
{
	struct err err = { 0 };

	if (tr == NULL || tr->pending.len == 0)
		return;
	check_room(tr);
	if (tr->file == NULL || tr->closed)
		lose(tr, tr->n_pending,
		    tr->closed ? "the day's file or the disk is full" : "no file");
	else if (write_block(tr, &err) < 0)
		lose(tr, tr->n_pending, err.msg);
	buf_reset(&tr->pending);
	tr->n_pending = 0;
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
put_number(struct buf *out, uint64_t n, size_t bytes)
{
	for (size_t i = 0; i < bytes; i++)
		buf_putc(out, (char)(n >> (8 * i)));
}

void
trace_append(struct trace *tr, struct id id, struct id session, struct slice json)
{
	int64_t now = clock_wall_ms();

	if (tr == NULL)
		return;
	if (json.len > TRACE_JSON_MAX) {
		lose(tr, 1, "an entry over its limit");
		return;
	}
	if (now >= tr->day_ends_ms)
		turn_day(tr);
	put_number(&tr->pending, TRACE_HEAD_BYTES + json.len, TRACE_LEN_BYTES);
	put_number(&tr->pending, (uint64_t)now, 8);
	buf_put(&tr->pending, slice_of(id.bytes, sizeof(id.bytes)));
	buf_put(&tr->pending, slice_of(session.bytes, sizeof(session.bytes)));
	buf_put(&tr->pending, json);
	if (tr->pending.overflow) { /* without memory */
		lose(tr, tr->n_pending + 1, "out of memory");
		buf_reset(&tr->pending);
		tr->n_pending = 0;
		return;
	}
	tr->n_pending++;
	if (tr->pending.len >= WRITE_AT)
		trace_flush(tr);
}
