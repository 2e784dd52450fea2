/* relayd/review/imap/lex.h - the words of IMAP (RFC 3501 section 9): atoms, strings, numbers; for
 * parse*.c. */
#ifndef RELAYD_REVIEW_IMAP_LEX_H
#define RELAYD_REVIEW_IMAP_LEX_H

#include "relayd/core/arena.h"

/* Functions take something off the front of rest, or return false and set error, unless it is
 * set. */
struct imap_lex {
	struct slice rest;
	struct arena *arena;
	const char *error;
};

/* Returns false. */
bool imap_lex_fail(struct imap_lex *lx, const char *error);
bool imap_lex_at(const struct imap_lex *lx, char c);
/* Takes c if it is there; never an error. */
bool imap_lex_take(struct imap_lex *lx, char c);
/* One space; more of them are taken too, as people type. */
bool imap_lex_space(struct imap_lex *lx);
bool imap_lex_end(struct imap_lex *lx);
/* A space, then an astring. */
bool imap_lex_argument(struct imap_lex *lx, struct slice *out, const char *error);

bool imap_lex_atom(struct imap_lex *lx, struct slice *out);
/* atom with "]", quoted string or literal. */
bool imap_lex_astring(struct imap_lex *lx, struct slice *out);
/* The same with the wildcards "%" and "*" in its atom. */
bool imap_lex_pattern(struct imap_lex *lx, struct slice *out);
bool imap_lex_string(struct imap_lex *lx, struct slice *out);
bool imap_lex_number(struct imap_lex *lx, uint64_t max, uint64_t *out);
/* Letters, digits, dots and hyphens: the name of a data item or key. */
struct slice imap_lex_name(struct imap_lex *lx);

#endif
