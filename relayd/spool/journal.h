/* relayd/spool/journal.h - what became of whom: the memory of delivery that outlives it.
 *
 * Each change is applied to the index at once.  Call journal_write() once per loop round: what it
 * wrote survives the end of this process.  Call journal_flush() at most every 20 ms: what it
 * synced survives a power cut too.  Both cost nothing when nothing changed.  A change that is lost
 * means that a step is done again, never that a message is lost.  The journal bounds its own size
 * by checkpoints.  It uses the reserve of the disk; while it cannot be synced, journal_healthy()
 * is false and nothing new may be started.
 */
#ifndef RELAYD_SPOOL_JOURNAL_H
#define RELAYD_SPOOL_JOURNAL_H

#include "relayd/spool/index.h"
#include "relayd/spool/spooldir.h"

#include <uv.h>

#define JOURNAL_CHECKPOINT_BYTES (4u << 20)    /* no checkpoint before the journal is this long */
#define JOURNAL_KEY_KEEP_S       (366 * 86400) /* a release key is remembered this long */

struct journal;

/* A request for the time when all that was changed so far is durable.  err->code is ERR_NONE, or
 * what went wrong: the change stands in memory and is tried again. */
struct journal_sync {
	void (*done)(struct journal_sync *req, const struct err *err);
	void *data;
	struct journal_sync *next; /* the journal's */
	uint64_t wants;
};

/* Replays the journal of a spool that is locked, and begins a new file.  loop NULL: for a look
 * only, nothing is written and nothing below may be called but journal_index() and
 * journal_close(). Damage is passed over and reported: it means work done twice. */
struct journal *journal_open(uv_loop_t *loop, struct spooldir *dir, struct err *err);
/* Writes and syncs what is left.  Accepts NULL. */
void journal_close(struct journal *j);
const struct index *journal_index(const struct journal *j);

/* What is known of a recipient replaces what was; the reply is copied, cut at INDEX_REPLY_MAX. */
void journal_rcpt(struct journal *j, struct index_msg *msg, const struct index_rcpt *rcpt);
/* What holds for the message as a whole: a set of enum index_flag, and next hops in the form that
 * delivery gives them (at most INDEX_VIA_MAX bytes; empty: none). */
void journal_order(struct journal *j, struct index_msg *msg, unsigned flags, struct slice via);
/* Nothing more is to be done for msg, which is freed.  Its bytes go once that is durable. */
void journal_done(struct journal *j, struct index_msg *msg);
/* Whether a release key came with another message before; remembers it for this one if not. */
bool journal_key_seen(struct journal *j, struct slice key, const struct index_msg *msg);

bool journal_healthy(const struct journal *j);
/* Whether there are changes that no sync has covered. */
bool journal_dirty(const struct journal *j);
/* Writes what changed, in one call, without a sync. */
void journal_write(struct journal *j);
/* Starts to write and sync what changed; when one is running, another follows it. */
void journal_flush(struct journal *j);
/* The same, and tells. */
void journal_sync_start(struct journal_sync *req, struct journal *j);

/* For the reader alone, from here on. */
struct journal_hooks {
	void (*on_done)(void *data, const struct index_msg *msg); /* it is freed next */
	void (*on_synced)(void *data);
	void *data;
};
void journal_hook(struct journal *j, const struct journal_hooks *hooks);
/* Counts changes: all up to journal_changed() are durable when journal_synced() reaches it. */
uint64_t journal_changed(const struct journal *j);
uint64_t journal_synced(const struct journal *j);
struct index *journal_index_rw(struct journal *j);
/* Found or made; NULL: out of memory. */
struct index_log *journal_log(struct journal *j, struct id id);
void journal_retired(struct journal *j, struct index_segment *seg);
/* Forgets seg: it is removed, and that is synced. */
void journal_gone(struct journal *j, struct index_segment *seg);
void journal_log_gone(struct journal *j, struct index_log *log);
void journal_done_at(struct journal *j, struct index_segment *seg, uint32_t place);
/* Of two records of a message the one at to_place of to counts from here on, index_move(); from:
 * NULL when its log is not known any more.  What the copy was made of, and what follows from that,
 * may be removed once journal_synced() reaches what journal_changed() is then: from->decided_at. */
void journal_moved(struct journal *j, struct index_segment *from, uint32_t place,
    struct index_segment *to, uint32_t to_place);
/* The copy at to_place of to does not count, and never will: the one it was made of does, or
 * did. */
void journal_not_moved(
    struct journal *j, struct index_segment *from, struct index_segment *to, uint32_t to_place);
/* journal_changed() at the last of both. */
uint64_t journal_decided(const struct journal *j);

#endif
