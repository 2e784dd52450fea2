/* relayd/spool/segment.h - begins a segment, in recycled blocks where there are some. */
#ifndef RELAYD_SPOOL_SEGMENT_H
#define RELAYD_SPOOL_SEGMENT_H

#include "relayd/core/io.h"
#include "relayd/core/record.h"

/* The new segment of a log, its header and its name durable; records start at SPOOLDIR_BLOCK.
 * NULL with *err: then a file of that name may be there, and the next attempt replaces it. */
struct io_file *segment_create(
    struct io_dir *log, struct io_dir *spare, const struct record_file *header, struct err *err);

#endif
