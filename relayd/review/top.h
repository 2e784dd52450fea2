/* relayd/review/top.h - the fields that the gateway puts on top of a message for the quarantine.
 *
 * They are all fields named Return-Path and X-Relayd-* before the first of another name; what
 * follows is the original, which a release hands back byte for byte.  What came from outside cannot
 * pose as one: a Received field of our own stands in between.
 */
#ifndef RELAYD_REVIEW_TOP_H
#define RELAYD_REVIEW_TOP_H

#include "relayd/core/buf.h"

#define TOP_BYTES_MAX (1u << 20) /* no field that ends behind this is taken for the quarantine's */

/* Bytes of these fields in front of a message.  Never fails: it is asked before the 250. */
size_t top_length(struct slice message);
/* The same without X-Relayd-To, which names recipients that not every reader may see. */
void top_without_to(struct slice top, struct buf *out);
/* The unfolded value of a field of a top, up to its first line end; empty without one. */
struct slice top_field(struct slice top, struct slice name);

/* An X-Relayd-To field: its bytes for n paths of so many bytes in all, and the field in n + 1
 * steps. */
size_t top_to_bytes(size_t n, size_t path_bytes);
void top_put_to(struct buf *out, size_t index, struct slice path);
void top_end_to(struct buf *out, size_t n);

#endif
