/* filters/spf/record.h - the strict parser of SPF records: RFC 7208 sections 4.5, 4.6 and 12.
 *
 * Pure: no I/O, no allocation.  A record is checked from its first byte to its last before any
 * term of it counts (section 4.6: "syntax errors anywhere in the record MUST be detected"); what
 * spf_record_next() hands out of a checked record needs no further check.
 */
#ifndef FILTERS_SPF_RECORD_H
#define FILTERS_SPF_RECORD_H

#include <relayd/slice.h>

#define SPF_RECORD_BYTES_MAX 4096 /* a longer one is a permerror; section 3.4 asks for 450 */

enum spf_result {
	SPF_NONE,
	SPF_NEUTRAL,
	SPF_PASS,
	SPF_FAIL,
	SPF_SOFTFAIL,
	SPF_TEMPERROR,
	SPF_PERMERROR,
	SPF_PENDING, /* no result: facts are missing */
};

enum spf_mechanism {
	SPF_MECHANISM_ALL,
	SPF_MECHANISM_INCLUDE,
	SPF_MECHANISM_A,
	SPF_MECHANISM_MX,
	SPF_MECHANISM_PTR,
	SPF_MECHANISM_IP4,
	SPF_MECHANISM_IP6,
	SPF_MECHANISM_EXISTS,
};

struct spf_term {
	struct slice text; /* the whole term as written */
	enum spf_mechanism mechanism;
	enum spf_result result; /* of its qualifier, when it matches */
	struct slice domain;    /* domain-spec; empty: the domain of the record itself */
	uint8_t addr[16];       /* ip4: the first 4; ip6 */
	unsigned bits4, bits6;  /* prefix lengths; 32 and 128 where none is given */
};

struct spf_record {
	struct slice terms;         /* borrowed; for spf_record_next() */
	struct slice redirect, exp; /* domain-specs; empty: not there */
	struct slice bad;           /* on failure: the term that is wrong, or empty */
	const char *why;            /* on failure: what is wrong, a phrase */
};

/* Whether a TXT record is an SPF record: "v=spf1" and then a space or nothing (section 4.5). */
bool spf_record_is(struct slice text);
/* Checks an SPF record whole.  False: permerror, out->bad and out->why say where and what. */
bool spf_record_parse(struct slice text, struct spf_record *out);
/* Takes the next mechanism off the front of *terms, passing over modifiers; false at the end. */
bool spf_record_next(struct slice *terms, struct spf_term *term);

#endif
