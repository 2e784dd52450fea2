/* relayd/review/body.h - the bytes of a held message in the database: chunks, each compressed
 * alone.
 *
 * A chunk holds STORE_CHUNK_BYTES of the message (the last one fewer), so that a range is read
 * without what stands before it; zstd's checksum tells damage.  In the pool only.
 */
#ifndef RELAYD_REVIEW_BODY_H
#define RELAYD_REVIEW_BODY_H

#include "relayd/core/buf.h"
#include "relayd/review/db.h"

/* Appends to *body, made when it is 0.  What is there already must be whole chunks, else
 * ERR_LIMIT. */
int body_append(struct db *db, int64_t *body, struct slice bytes, bool staged, struct err *err);
int body_size(struct db *db, int64_t body, uint64_t *size, struct err *err);
/* Appends up to max bytes from offset from on to out; fewer only at the end.  ERR_DAMAGED when a
 * chunk is not what was written, ERR_LIMIT when out is full. */
int body_read(
    struct db *db, int64_t body, uint64_t from, uint64_t max, struct buf *out, struct err *err);
/* No longer staged: an item owns it. */
int body_keep(struct db *db, int64_t body, struct err *err);
int body_drop(struct db *db, int64_t body, struct err *err);
/* Drops what was staged and never put; at the start. */
int body_drop_staged(struct db *db, struct err *err);

#endif
