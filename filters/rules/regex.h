/* filters/rules/regex.h - a Perl pattern as rules write it ("/re/i", "m{re}x"), run by PCRE2 with
 * JIT.
 *
 * Bytes, not characters: the texts are UTF-8, but a pattern sees their octets, as SpamAssassin's
 * do.  A match that takes too long ends with RULES_REGEX_LIMIT; the limits are PCRE2's own and
 * count steps, so that a message gets the same answer each time.  A compiled pattern is read only
 * and may be matched in several threads at once.
 */
#ifndef FILTERS_RULES_REGEX_H
#define FILTERS_RULES_REGEX_H

#include <relayd/slice.h>

#define RULES_REGEX_STEPS_MAX     1000000u /* PCRE2's match limit: some milliseconds */
#define RULES_REGEX_DEPTH_MAX     20000u
#define RULES_REGEX_HEAP_KIB_MAX  4096u
#define RULES_REGEX_JIT_STACK_MAX (1024u * 1024u)

struct rules_regex;

enum rules_match {
	RULES_MATCH_NO,
	RULES_MATCH_YES,
	RULES_MATCH_LIMIT,
	RULES_MATCH_NO_MEMORY, /* past the budget of the message; not from rules_regex_match() */
};

/* Compiles a pattern with its delimiters and flags.  NULL, and a phrase in why[cap], for one that
 * is not well-formed. */
struct rules_regex *rules_regex_new(struct slice literal, char *why, size_t cap);
void rules_regex_free(struct rules_regex *re);
enum rules_match rules_regex_match(const struct rules_regex *re, struct slice subject);

#endif
