/* relayd/core/record_file.c - reads a file of records through io.h, one pread for many of them. */
#include "relayd/core/record_file.h"

#define WINDOW_MAX (2 * (size_t)(RECORD_HEAD_BYTES + RECORD_PAYLOAD_MAX))
#define DISK_BLOCK 4096 /* what a disk loses at once, and the page cache reads */

ssize_t
record_read_around(
    struct io_file *file, char *out, size_t n, uint64_t at, uint64_t *bad_to, struct err *err)
{
	uint64_t size;
	size_t done = 0;

	if (io_size(file, &size, err) < 0)
		return -1;
	if (at >= size || n > size - at)
		n = at < size ? (size_t)(size - at) : 0;
	while (done < n) {
		size_t block = DISK_BLOCK - (size_t)((at + done) % DISK_BLOCK);

		block = block < n - done ? block : n - done;
		if (io_read(file, out + done, block, at + done, err) < 0) {
			memset(out + done, 0, block);
			*bad_to = at + done + block;
		}
		done += block;
	}
	return (ssize_t)done;
}

int
record_cursor_init(struct record_cursor *c, struct io_file *file, enum record_kind kind,
    uint64_t start, size_t window_bytes, struct err *err)
{
	uint8_t head[RECORD_FILE_BYTES];
	ssize_t n;

	*c = (struct record_cursor){
		.file = file, .window = buf_heap(WINDOW_MAX), .window_want = window_bytes
	};
	n = io_read(file, head, sizeof(head), 0, err);
	if (n < 0 || record_file_decode(slice_of(head, (size_t)n), kind, &c->header, err) < 0)
		return n < 0 ? -1 : err_prefix(err, "%s", io_name(file));
	if (start == 0)
		start = RECORD_FILE_BYTES;
	c->end = UINT64_MAX;
	c->scanner = record_scanner_of(&c->header, start, 0);
	return 0;
}

void
record_cursor_fini(struct record_cursor *c)
{
	buf_fini(&c->window);
}

/* Loads a window at the scanner's place that holds at least `need` bytes, or all there are. */
static int
load(struct record_cursor *c, size_t need, bool *last, struct err *err)
{
	uint64_t at = c->scanner.at, left = c->end > at ? c->end - at : 0, bad_to = 0;
	size_t want = need > c->window_want ? need : c->window_want;
	ssize_t n;

	buf_reset(&c->window);
	want = left < want ? (size_t)left : want;
	if (buf_room(&c->window, want + 1) == NULL)
		return err_set(err, ERR_NOMEM, "no memory to read %s", io_name(c->file));
	n = io_read(c->file, c->window.p, want, at, err);
	if (n < 0 && c->lenient)
		n = record_read_around(c->file, c->window.p, want, at, &bad_to, err);
	if (n < 0)
		return -1;
	if (bad_to > c->scanner.durable)
		c->scanner.durable = bad_to; /* whether or not a record was there, it is damage */
	buf_commit(&c->window, (size_t)n);
	c->window_at = at;
	*last = (size_t)n < want || left == want;
	return 0;
}

int
record_cursor_next(struct record_cursor *c, struct record *rec, struct err *err)
{
	bool last = false;

	c->scanner.file = &c->header; /* the cursor may have been moved */
	for (;;) {
		struct record_window win = { c->window_at, buf_slice(&c->window), last };
		enum record_event event;

		if (c->scanner.at < win.at || c->scanner.at > win.at + win.bytes.len)
			win = (struct record_window){ c->scanner.at, SLICE(""), last };
		event = record_scan(&c->scanner, &win, rec);
		if (event != RECORD_MORE)
			return (int)event;
		if (load(c, c->scanner.need, &last, err) < 0)
			return -1;
	}
}
