/* relayd/spool/segment.c - begins a segment, in recycled blocks where there are some. */
#include "relayd/spool/segment.h"

#include "relayd/spool/spooldir.h"

#include <stdio.h>

#define SEGMENT_TMP "next.tmp"

struct taking {
	struct io_dir *log, *spare;
	bool taken;
};

/* Another writer may be quicker: then the name is gone, and the next one is tried. */
static void
take_spare(void *data, const char *name)
{
	struct taking *t = data;

	if (!t->taken && !spooldir_is_tmp(name))
		t->taken = io_move(t->spare, name, t->log, SEGMENT_TMP, NULL) == 0;
}

/* Writing over blocks that are there already saves the file system's journal a commit for each
 * sync: more than half of what a sync costs.  Reserved blocks would not do: they are marked when
 * written. */
static int
prewrite(struct io_file *file, uint64_t bytes, struct err *err)
{
	static const char zeros[64 << 10];
	struct iovec iov[16];

	for (uint64_t at = 0; at < bytes;) {
		uint64_t end = at;
		int n = 0;

		for (; n < 16 && end < bytes; n++) {
			size_t part =
			    bytes - end < sizeof(zeros) ? (size_t)(bytes - end) : sizeof(zeros);

			iov[n] = (struct iovec){ (void *)(uintptr_t)zeros, part };
			end += part;
		}
		if (io_write(file, iov, n, at, err) < 0)
			return -1;
		at = end;
	}
	return 0;
}

/* A finished segment to write over, or a new file. */
static struct io_file *
open_tmp(struct io_dir *log, struct io_dir *spare, uint64_t prewrite_bytes, struct err *err)
{
	struct taking t = { .log = log, .spare = spare };
	struct io_file *file;

	(void)io_list(spare, take_spare, &t, NULL); /* without a list there is no spare */
	if (t.taken)
		return io_open(log, SEGMENT_TMP, true, err);
	(void)io_unlink(log, SEGMENT_TMP, NULL); /* what a failed attempt left */
	file = io_create(log, SEGMENT_TMP, err);
	if (file == NULL || prewrite(file, prewrite_bytes, err) == 0)
		return file;
	io_close(file);
	return NULL;
}

static int
write_header(struct io_file *file, const struct record_file *header, struct err *err)
{
	uint8_t block[SPOOLDIR_BLOCK] = { 0 };
	const struct iovec iov = { .iov_base = block, .iov_len = sizeof(block) };

	record_file_encode(header, block);
	return io_write(file, &iov, 1, 0, err);
}

struct io_file *
segment_create(struct io_dir *log, struct io_dir *spare, const struct record_file *header,
    uint64_t prewrite_bytes, struct err *err)
{
	char name[SPOOLDIR_SEGMENT_NAME_BYTES];
	struct io_file *file = open_tmp(log, spare, prewrite_bytes, err);

	spooldir_segment_name((uint32_t)header->number, name);
	/* In this order: the name appears when the header is safe, and is safe before use. */
	if (file != NULL && write_header(file, header, err) == 0 && io_sync(file, err) == 0 &&
	    io_rename(file, name, err) == 0 && io_sync_dir(log, err) == 0)
		return file;
	io_close(file);
	return NULL;
}

static void
count_spare(void *data, const char *name)
{
	if (!spooldir_is_tmp(name))
		++*(unsigned *)data;
}

int
segment_make_spare(struct io_dir *spare, const char *name, uint64_t bytes, struct err *err)
{
	char tmp[IO_NAME_MAX];
	unsigned n = 0;
	struct io_file *file;
	int rc = -1;

	if (io_list(spare, count_spare, &n, err) < 0)
		return -1;
	if (n >= SEGMENT_SPARES)
		return 0;
	(void)snprintf(tmp, sizeof(tmp), "%s.tmp", name); /* its writer chose it to fit */
	file = io_create(spare, tmp, err);
	/* No sync of the directory: a spare that is lost is only made again. */
	if (file != NULL && prewrite(file, bytes, err) == 0 && io_sync(file, err) == 0)
		rc = io_rename(file, name, err);
	if (file != NULL && rc < 0)
		(void)io_unlink(spare, tmp, NULL); /* else the next start of delivery does */
	io_close(file);
	return rc;
}
