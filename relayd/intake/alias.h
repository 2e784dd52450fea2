/* relayd/intake/alias.h - what a forward-path of ours stands for: itself, or the targets of
 * aliases.
 *
 * Aliases lead on to aliases, in the file of whichever route a target's domain has.  Each address
 * is followed once, so that a circle ends; an alias that names itself keeps its own copy.  A target
 * whose domain has no file is taken at the word of the admin.
 */
#ifndef RELAYD_INTAKE_ALIAS_H
#define RELAYD_INTAKE_ALIAS_H

#include "relayd/core/arena.h"
#include "relayd/intake/generation.h"

#define ALIAS_PATHS_MAX 1000 /* addresses that one forward-path leads to, aliases among them */

enum alias_result {
	ALIAS_UNKNOWN, /* no such recipient, or all that it leads to is unknown */
	ALIAS_KNOWN,   /* paths are what it stands for: itself, where it is no alias */
	ALIAS_CIRCLE,  /* it leads to aliases only */
	ALIAS_LIMIT,   /* over ALIAS_PATHS_MAX, or the arena is full */
};

struct alias_paths {
	struct slice *v; /* in the arena; what is no alias is mailbox, its own bytes */
	size_t n;
	bool rewritten; /* by an alias */
};

/* mailbox lies in a domain of ours whose route has a file of recipients. */
enum alias_result alias_expand(const struct generation *gen, struct arena *arena,
    struct slice mailbox, struct alias_paths *out);

#endif
