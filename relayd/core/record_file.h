/* relayd/core/record_file.h - reads a file of records through io.h, one pread for many of them. */
#ifndef RELAYD_CORE_RECORD_FILE_H
#define RELAYD_CORE_RECORD_FILE_H

#include "relayd/core/io.h"
#include "relayd/core/record.h"

struct record_cursor {
	struct io_file *file; /* borrowed */
	struct record_file header;
	struct record_scanner scanner;
	uint64_t end; /* never read past it; may be raised */
	/* where the disk does not read, no record is; may be set.  For who only looks */
	bool lenient;
	struct buf window;
	uint64_t window_at;
	size_t window_want;
};

/* Reads the header (ERR_VERSION, ERR_DAMAGED, ERR_SYS) and stands at offset start (or right behind
 * the header when 0).  durable is 0 and end is the end of the file; both may be changed.  The
 * window is window_bytes, more for a record that is larger. */
int record_cursor_init(struct record_cursor *c, struct io_file *file, enum record_kind kind,
    uint64_t start, size_t window_bytes, struct err *err);
void record_cursor_fini(struct record_cursor *c);
/* RECORD_WHOLE, RECORD_DAMAGE or RECORD_END; -1 when the disk fails.  rec->payload holds until the
 * next call. */
int record_cursor_next(struct record_cursor *c, struct record *rec, struct err *err);

/* Up to n bytes at `at`, those blocks of them as zeros that the disk does not read; *bad_to is then
 * where the last of those ends, and else left alone. */
ssize_t record_read_around(struct io_file *file, char *out, size_t n, uint64_t at, uint64_t *bad_to,
    struct err *err);

#endif
