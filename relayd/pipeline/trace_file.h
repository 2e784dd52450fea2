/* relayd/pipeline/trace_file.h - how an entry lies in a trace file; private to relayd/pipeline.
 *
 * A record of type TRACE_RECORD: wall clock in ms 8 (little-endian), id 16, session 16, JSON.
 */
#ifndef RELAYD_PIPELINE_TRACE_FILE_H
#define RELAYD_PIPELINE_TRACE_FILE_H

#include "relayd/core/id.h"

#define TRACE_RECORD     1
#define TRACE_HEAD_BYTES 40
#define TRACE_DATE_BYTES 11 /* "2026-03-02" and a NUL */

/* The day (UTC) of a wall clock. */
void pl_trace_date(int64_t wall_ms, char out[static TRACE_DATE_BYTES]);
/* name starts with a date and a dot. */
bool pl_trace_is_file(const char *name);

#endif
