/* relayd/mail/packed.h - texts in fewer bytes, as references to what the reader knows already.
 *
 * Most of the fields that relayd adds to a message is in its envelope as well (its id, the client,
 * the first recipient, the time) or the same in every message.  Writer and reader build up the same
 * window: a fixed text, what either was told is known, and each text that was packed.  A packed
 * text is
 *
 *	bytes of the text		varint
 *	then, until it is complete:
 *	    counts			1: upper four bits literals, lower four bits those of a
 *					reference, less 4
 *	    more of the literals	varint, when the count is 15; the count is the sum
 *	    literals			as many bytes
 *	    and, unless the text is complete:
 *	    more of the reference	varint, when the count is 15; it is of 4 bytes and the sum
 *					of both
 *	    place			2, little-endian: where in the window that many bytes stand
 *
 * A text that still has room in the window can refer to what comes before in itself.  All pure.
 */
#ifndef RELAYD_MAIL_PACKED_H
#define RELAYD_MAIL_PACKED_H

#include "relayd/core/arena.h"
#include "relayd/core/buf.h"

#include <stdbool.h>
#include <stdint.h>

#define PACKED_WINDOW 4096 /* bytes; what has no room in it any more is left out of it */
#define PACKED_HASHES 1024

struct packed {
	bool writes;
	size_t len;
	char window[PACKED_WINDOW];
	uint16_t at[PACKED_HASHES]; /* of a writer: where four bytes of such a hash stand, or 0 */
};

/* For either side. */
void packed_begin_read(struct packed *p);
void packed_begin_write(struct packed *p);
/* The other side knows that text, too; both say so in the same order. */
void packed_know(struct packed *p, struct slice text);

void packed_put(struct packed *p, struct slice text, struct buf *out);
/* Takes a packed text off the front of *in, and gives it in the arena.  max: bytes that it may
 * have.  PACKED_MALFORMED, PACKED_LIMIT: over max, or no room in the arena. */
enum packed_result { PACKED_OK, PACKED_MALFORMED, PACKED_LIMIT };
enum packed_result packed_take(
    struct packed *p, struct slice *in, uint64_t max, struct arena *arena, struct slice *text);

#endif
