/* relayd/review/imap/describe.h - what IMAP keeps of a message, so that it is parsed only once.
 *
 * Made from the original in the pool and cached by the store; what a client sees (the view) has the
 * quarantine's fields on top, so that every offset here counts from the start of the original.
 */
#ifndef RELAYD_REVIEW_IMAP_DESCRIBE_H
#define RELAYD_REVIEW_IMAP_DESCRIBE_H

#include "relayd/mail/mime.h"

#define IMAP_DESCRIBE_VERSION    1
#define IMAP_DESCRIPTION_MAX     (192u << 10) /* past it, it is described as one plain text */
#define IMAP_DESCRIBE_HEADER_MAX (16u << 10) /* a longer header is not kept with it */

/* Appends the description of a message to out: a pure function of its bytes. */
void imap_describe(struct slice original, struct buf *out);

struct imap_description {
	struct slice envelope;      /* "(...)" of ENVELOPE: RFC 3501 section 7.4.2 */
	struct slice body;          /* "(...)" of BODY */
	struct slice bodystructure; /* "(...)" of BODYSTRUCTURE */
	/* the original's header with its empty line; empty when it is too long,
	 * or does not read the same without the fields above it */
	struct slice header;
	bool has_sent;
	int64_t sent_day; /* days since 1970 of its Date field, as written there */
	struct mime mime; /* kinds, links, offsets; no types, no parameters, no bytes */
};

/* Reads what imap_describe() wrote; slices point into bytes, parts are in the arena.  False for
 * anything else (damage, another version, a full arena). */
bool imap_description_read(struct slice bytes, struct arena *arena, struct imap_description *out);

#endif
