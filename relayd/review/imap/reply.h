/* relayd/review/imap/reply.h - how data is written in responses: strings, flags, dates (RFC 3501
 * section 9). */
#ifndef RELAYD_REVIEW_IMAP_REPLY_H
#define RELAYD_REVIEW_IMAP_REPLY_H

#include "relayd/core/buf.h"

/* A quoted string where it can be one, else a literal.  NUL, which neither may hold, becomes a
 * space. */
void imap_put_string(struct buf *out, struct slice s);
/* NIL for an empty one. */
void imap_put_nstring(struct buf *out, struct slice s);
/* An atom where it can be one. */
void imap_put_astring(struct buf *out, struct slice s);
/* "17-Jul-1996 02:44:25 +0000" with its quotes. */
void imap_put_date(struct buf *out, int64_t wall_ms);

#endif
