/* filters/spf/macro.h - the macro language of SPF: RFC 7208 section 7, grammar of section 12.
 *
 * Pure: no I/O, no allocation.  Everything that is expanded was checked first, and an expansion
 * never writes past what its caller gave.
 */
#ifndef FILTERS_SPF_MACRO_H
#define FILTERS_SPF_MACRO_H

#include <relayd/slice.h>

#define SPF_NAME_BYTES_MAX 253 /* of a domain name as text: RFC 7208 section 7.3 */

/* What the letters stand for; section 7.2.  A value over SPF_VALUE_BYTES_MAX expands to nothing. */
#define SPF_VALUE_BYTES_MAX 1024
struct spf_macros {
	struct slice sender, local_part, sender_domain; /* s l o */
	struct slice domain;                            /* d */
	struct slice address;                           /* i: dotted, IPv6 as 32 dotted nibbles */
	struct slice validated;                         /* p: or "unknown" */
	struct slice version;                           /* v: "in-addr" or "ip6" */
	struct slice helo;                              /* h */
	struct slice client, receiver, time_s;          /* c r t: in explanations only */
};

/* text is a macro-string; an explain-string (spaces and the letters c, r and t too) if explain. */
bool spf_macro_valid(struct slice text, bool explain);
/* text is a domain-spec: a macro-string that ends in a top label or a macro, without c, r, t. */
bool spf_domain_spec_valid(struct slice text);
/* Whether a valid text has the macro of that letter, in either case. */
bool spf_macro_uses(struct slice text, char letter);
/* Expands a valid text into out[cap].  False when it does not fit: *out_len is then 0. */
bool spf_macro_expand(
    struct slice text, const struct spf_macros *values, char *out, size_t cap, size_t *out_len);
/* Expands a valid domain-spec to a name without a final dot, cut from the left to
 * SPF_NAME_BYTES_MAX bytes (section 7.3).  An empty name when there is no way to ask for it:
 * a label is empty or over 63 bytes, it has one label only, or bytes no name can have. */
struct slice spf_domain_expand(
    struct slice spec, const struct spf_macros *values, char out[static SPF_NAME_BYTES_MAX]);
/* The same checks on a name that came from elsewhere, its final dot dropped; empty: not a name. */
struct slice spf_name(struct slice name);

#endif
