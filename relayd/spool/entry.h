/* relayd/spool/entry.h - the entries of the journal: changes of the index as bytes, and back.
 *
 * Pure.  A record of the journal holds entries one after the other; so does a snapshot, which
 * gives the whole index from nothing.  An entry that makes no sense in the index it meets (its log
 * was forgotten) is passed over.
 */
#ifndef RELAYD_SPOOL_ENTRY_H
#define RELAYD_SPOOL_ENTRY_H

#include "relayd/core/buf.h"
#include "relayd/core/record.h"
#include "relayd/spool/index.h"

/* Types of a record in a journal or snapshot. */
enum entry_record { ENTRY_CHANGES = 1, ENTRY_END }; /* END: the snapshot is whole */

void entry_log(struct buf *out, const struct index_log *log);
void entry_log_gone(struct buf *out, const struct index_log *log);
void entry_done(struct buf *out, const struct index_segment *seg, uint32_t place);
void entry_rcpt(struct buf *out, const struct index_msg *msg, const struct index_rcpt *rcpt);
/* Its flags and via.  Whether its record is a copy that counts is for entry_copy() and
 * entry_moved() to say alone: what is said of the message later must not be taken for that when
 * they are lost. */
void entry_order(struct buf *out, const struct index_msg *msg);
void entry_copy(struct buf *out, const struct index_msg *msg);
/* The message at place of from is msg, where a copy of its record is, from here on. */
void entry_moved(struct buf *out, const struct index_segment *from, uint32_t place,
    const struct index_segment *to, uint32_t to_place);
void entry_retired(struct buf *out, const struct index_segment *seg);
void entry_gone(struct buf *out, const struct index_segment *seg);
void entry_key(struct buf *out, const struct index_key *key);

/* Applies the entries of one record.  ERR_FORMAT: all before the fault were applied.  ERR_NOMEM. */
int entry_apply(struct index *ix, struct slice entries, struct err *err);
/* Calls tell with each entry of one record as a line of text, for a person. */
void entry_tell(struct slice entries, void (*tell)(void *data, const char *text), void *data);
/* Appends records that give the index, to stand behind the header of file, and ENTRY_END. */
void entry_snapshot(const struct index *ix, const struct record_file *file, struct buf *out);

#endif
