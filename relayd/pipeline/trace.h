/* relayd/pipeline/trace.h - what became of every message and session, in files by day.
 *
 * DIR/YYYY-MM-DD.ROLE.INDEX (UTC) holds records in the spool's format (core/record.h), unsynced: a
 * power cut costs the last seconds.  Writing never stops mail: what cannot be written is counted
 * and said once a minute.  Files older than TRACE_KEEP_DAYS are removed by their role, and when a
 * day passes TRACE_DAY_BYTES the rest of that day is not kept, which is said.
 */
#ifndef RELAYD_PIPELINE_TRACE_H
#define RELAYD_PIPELINE_TRACE_H

#include "relayd/core/err.h"
#include "relayd/core/id.h"
#include "relayd/core/slice.h"

#define TRACE_KEEP_DAYS  14
#define TRACE_DAY_BYTES  (1ull << 30)
#define TRACE_JSON_MAX   (64u * 1024) /* of one entry; a longer one is not kept */
#define TRACE_PATH_BYTES 4096

struct trace;

/* Creates dir (mode 0700) when it is missing.  role: "intake".  NULL with *err. */
struct trace *trace_open(const char *dir, const char *role, unsigned index, struct err *err);
/* Flushes.  NULL is fine. */
void trace_close(struct trace *tr);
/* Keeps nothing while less than so much of the disk is free, by default TRACE_LEAVE_FREE: more than
 * the reserve of the queue, so that traces never stop mail. */
#define TRACE_LEAVE_FREE (1280ull << 20)
void trace_leave_free(struct trace *tr, uint64_t bytes);
/* Keeps one JSON object about a message (zero id: about the session alone).  Buffered; tr NULL
 * does nothing. */
void trace_append(struct trace *tr, struct id id, struct id session, struct slice json);
/* Writes what is buffered: once per loop round. */
void trace_flush(struct trace *tr);

struct trace_entry {
	struct id id, session; /* zero where it has none */
	struct slice json;     /* borrowed for the call */
};

/* What to look for: an entry matches when every part that is set does.  Ids match the message or
 * the session; addresses are compared without case, "@example.org" and "example.org" match a whole
 * domain; ip matches the text of the client's address. */
struct trace_query {
	struct id id;
	bool has_id;
	struct slice from, to, ip; /* empty: any */
	int64_t since_ms;          /* wall clock; 0: all that is kept */
};

/* Reads all files of dirs, oldest day first, in the order of time within a day.  on_entry returns
 * false to stop.  Damaged stretches are passed over and counted in *damaged (may be NULL).  A
 * missing dir is no error.  -1 with *err. */
int trace_read(const char *const *dirs, size_t n_dirs, const struct trace_query *query,
    bool (*on_entry)(void *arg, const struct trace_entry *entry), void *arg, uint64_t *damaged,
    struct err *err);

#endif
