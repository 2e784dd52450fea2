/* filters/spf/check.h - check_host(): what a domain says about a client, RFC 7208 sections 4 to 6.
 *
 * Straight-line code over facts: a DNS answer that is not there yet ends the run with
 * SPF_PENDING.  It answers all 203 cases of the RFC's test suite as that allows, which libspf2
 * (1.2.10, with a remote crash of its own) does not; the unit tests hold the two against each
 * other.  Limits of section 4.6.4: SPF_LOOKUPS_MAX terms that ask DNS, SPF_VOIDS_MAX of them in
 * vain, SPF_NAMES_MAX hosts of an MX or PTR answer.  Beyond them the result is permerror, but for
 * PTR names, where the rest is ignored.
 */
#ifndef FILTERS_SPF_CHECK_H
#define FILTERS_SPF_CHECK_H

#include "filters/spf/macro.h"
#include "filters/spf/record.h"

#include <relayd/filter.h>

#define SPF_LOOKUPS_MAX           10
#define SPF_VOIDS_MAX             2
#define SPF_NAMES_MAX             10
#define SPF_EXPLANATION_BYTES_MAX 400 /* a longer one is left out, so that a reply holds it */

struct spf_query {
	struct slice client_addr; /* 4 or 16 bytes; IPv4-mapped is taken as IPv4 */
	struct slice sender;      /* "local@domain"; section 4.3 fills in "postmaster" */
	struct slice helo;
	struct slice receiver; /* our host name, for the r macro */
};

struct spf_outcome {
	enum spf_result result;
	char domain[SPF_NAME_BYTES_MAX + 1]; /* whose record decided; may be empty */
	char why[128];                       /* the term that matched, or what is wrong */
	/* What the domain says to a fail: printable ASCII, or empty. */
	char explanation[SPF_EXPLANATION_BYTES_MAX + 1];
};

/* Fills *out and returns out->result. */
enum spf_result spf_check(
    struct filter_tx *tx, const struct spf_query *query, struct spf_outcome *out);
/* "pass", "softfail" ...: the names of section 2.6, as in RFC 8601 section 2.7.2. */
const char *spf_result_name(enum spf_result result);

#endif
