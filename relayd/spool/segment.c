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

/* A finished segment to write over, or a new file.  Writing over blocks that are there already
 * saves the file system's journal a commit for each sync. */
static struct io_file *
open_tmp(struct io_dir *log, struct io_dir *spare, struct err *err)
{
	struct taking t = { .log = log, .spare = spare };

	(void)io_list(spare, take_spare, &t, NULL); /* without a list there is no spare */
	if (t.taken)
		return io_open(log, SEGMENT_TMP, true, err);
	(void)io_unlink(log, SEGMENT_TMP, NULL); /* what a failed attempt left */
	return io_create(log, SEGMENT_TMP, err);
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
segment_create(
    struct io_dir *log, struct io_dir *spare, const struct record_file *header, struct err *err)
{
	char name[SPOOLDIR_SEGMENT_NAME_BYTES];
	struct io_file *file = open_tmp(log, spare, err);

	spooldir_segment_name((uint32_t)header->number, name);
	/* In this order: the name appears when the header is safe, and is safe before use. */
	if (file != NULL && write_header(file, header, err) == 0 && io_sync(file, err) == 0 &&
	    io_rename(file, name, err) == 0 && io_sync_dir(log, err) == 0)
		return file;
	io_close(file);
	return NULL;
}
