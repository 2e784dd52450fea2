/* relayd/spool/segment.h - begins a segment, in recycled blocks where there are some. */
#ifndef RELAYD_SPOOL_SEGMENT_H
#define RELAYD_SPOOL_SEGMENT_H

#include "relayd/core/io.h"
#include "relayd/core/record.h"

/* The new segment of a log, its header and its name durable; records start at SPOOLDIR_BLOCK.
 * Without a spare to write over, its blocks are written once now when prewrite_bytes says how many.
 * NULL with *err: then a file of that name may be there, and the next attempt replaces it. */
struct io_file *segment_create(struct io_dir *log, struct io_dir *spare,
    const struct record_file *header, uint64_t prewrite_bytes, struct err *err);

/* Makes a spare of that many bytes when there are less than SEGMENT_SPARES.  name: one that no
 * other writer uses. */
#define SEGMENT_SPARES 2
int segment_make_spare(struct io_dir *spare, const char *name, uint64_t bytes, struct err *err);

#endif
