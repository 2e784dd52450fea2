/* relayd/pipeline/trace_file.h - how entries lie in a trace file; private to relayd/pipeline.
 *
 * A record of type TRACE_BLOCK is one zstd frame (RFC 8878) of at most TRACE_BLOCK_MAX bytes, which
 * holds entries one after the other: length of what follows 4 (little-endian), wall clock in ms 8,
 * id 16, session 16, JSON.  Entries that one process made shortly after one another are much alike:
 * a fifth of the bytes is left.  Before, a record of type TRACE_RECORD was one entry without its
 * length.
 */
#ifndef RELAYD_PIPELINE_TRACE_FILE_H
#define RELAYD_PIPELINE_TRACE_FILE_H

#include "relayd/core/id.h"

#define TRACE_RECORD     1
#define TRACE_BLOCK      2
#define TRACE_BLOCK_MAX  (256u << 10)
#define TRACE_LEN_BYTES  4
#define TRACE_HEAD_BYTES 40
#define TRACE_DATE_BYTES 11 /* "2026-03-02" and a NUL */

/* The day (UTC) of a wall clock. */
void pl_trace_date(int64_t wall_ms, char out[static TRACE_DATE_BYTES]);
/* name starts with a date and a dot. */
bool pl_trace_is_file(const char *name);

#endif
