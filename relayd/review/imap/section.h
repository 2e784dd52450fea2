/* relayd/review/imap/section.h - BODY[...]: where a section lies in the view of a message. */
#ifndef RELAYD_REVIEW_IMAP_SECTION_H
#define RELAYD_REVIEW_IMAP_SECTION_H

#include "relayd/review/imap/describe.h"
#include "relayd/review/imap/parse.h"

/* A message as its scope sees it: `top` octets of the quarantine's fields, then the original. */
struct imap_extent {
	bool there;         /* false: NIL */
	uint64_t from, len; /* octets of the view, before a partial <> is applied */
};
/* size: of the view.  For HEADER.FIELDS and .NOT it is the header that they are picked from. */
struct imap_extent imap_section_find(
    const struct imap_description *d, uint32_t top, uint64_t size, const struct imap_item *item);
/* What <from.count> leaves of it. */
struct imap_extent imap_section_clip(struct imap_extent all, const struct imap_item *item);

bool imap_section_is_fields(const struct imap_item *item);
/* The fields can be picked from description.header alone: it is kept, and none of them is above
 * it. */
bool imap_section_in_description(const struct imap_description *d, const struct imap_item *item);
/* Appends the fields that item names, or all others, and the empty line. */
void imap_put_fields(struct slice header, const struct imap_item *item, struct buf *out);

/* A field that the quarantine puts on top, in any case: X-Relayd-... or Return-Path. */
bool imap_is_top_field(struct slice name);

#endif
