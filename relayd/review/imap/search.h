/* relayd/review/imap/search.h - does a message fit the keys of a SEARCH?
 *
 * Keys are looked at with what is at hand: first the mailbox entry alone, then the description,
 * then the whole message.  As long as that cannot decide the answer is "not known".  Reads the keys
 * only, so that a message can be looked at in the pool.
 */
#ifndef RELAYD_REVIEW_IMAP_SEARCH_H
#define RELAYD_REVIEW_IMAP_SEARCH_H

#include "relayd/review/imap/describe.h"
#include "relayd/review/imap/parse.h"
#include "relayd/review/store.h"

#define IMAP_SEARCH_TEXT_MAX (16u << 20) /* octets of one part, decoded, that are searched */

enum imap_found { IMAP_FOUND_NO, IMAP_FOUND_YES, IMAP_FOUND_UNKNOWN };

/* What is at hand of a message. */
struct imap_candidate {
	struct store_entry entry;
	uint32_t number; /* message sequence number */
	bool recent;
	const struct imap_description *description; /* or NULL */
	bool has_view;
	struct slice view; /* with has_view: all of it */
};

/* Makes the keys ready: texts become UTF-8 without case, in the arena; sets are resolved; keywords
 * of the box become bits.  -1: the charset is not known, or the arena is full. */
int imap_search_prepare(struct imap_key *key, struct slice charset, const struct store_box *box,
    uint32_t last_number, uint32_t last_uid, struct arena *arena);
enum imap_found imap_search_match(const struct imap_key *key, const struct imap_candidate *c);

#endif
