/* relayd/review/imap/set.h - sequence sets: "1:4,7,9:*" (RFC 3501 section 9). */
#ifndef RELAYD_REVIEW_IMAP_SET_H
#define RELAYD_REVIEW_IMAP_SET_H

#include "relayd/core/arena.h"
#include "relayd/core/buf.h"

#define IMAP_RANGES_MAX 16000

struct imap_range {
	uint32_t first, last; /* 0 is "*" until imap_set_resolve() */
};

struct imap_set {
	struct imap_range *ranges;
	size_t n;
};

/* Takes a set off the front of *in; false, and *in as it was, where there is none, one is too long
 * or the arena is full. */
bool imap_set_parse(struct slice *in, struct arena *arena, struct imap_set *out);
/* "*" becomes max, and the ranges ascending and apart.  With max 0 (no messages) what needs one
 * goes. */
void imap_set_resolve(struct imap_set *set, uint32_t max);
/* Both only after imap_set_resolve(). */
bool imap_set_has(const struct imap_set *set, uint32_t number);
uint32_t imap_set_max(const struct imap_set *set);

/* Writes numbers as a set, joining those that follow one another: put each, then end. */
struct imap_set_writer {
	struct buf *out;
	uint32_t first, last;
	bool any;
};
void imap_set_put(struct imap_set_writer *w, uint32_t number);
void imap_set_end(struct imap_set_writer *w);

#endif
