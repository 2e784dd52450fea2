/* filters/rules/address.h - the addresses of a From or To field, as far as rules ask for them.
 *
 * Lenient where a mail reader would be: what looks like an address is one.  Pure, no allocation.
 */
#ifndef FILTERS_RULES_ADDRESS_H
#define FILTERS_RULES_ADDRESS_H

#include <relayd/slice.h>

struct rules_mailbox {
	struct slice phrase;  /* the text beside the address, or its comment; as it is written */
	struct slice address; /* without <>; may be empty */
};

/* Takes the next mailbox off the front of *in, the unfolded value of a field; false at the end. */
bool rules_mailbox_take(struct slice *in, struct rules_mailbox *out);
/* Copies a phrase to out[phrase.len] without its quotes and backslashes. */
struct slice rules_phrase_plain(struct slice phrase, char *out);

#endif
