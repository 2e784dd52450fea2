/* relayd/review/scope.h - whose held mail a user sees: "*", a domain or an address.
 *
 * Pure text.  A scope is compared without case, the local part included: an admin who writes
 * bob@example.org means Bob@example.org too.  A domain does not cover its subdomains.
 */
#ifndef RELAYD_REVIEW_SCOPE_H
#define RELAYD_REVIEW_SCOPE_H

#include "relayd/core/slice.h"

#define SCOPE_BYTES_MAX 320 /* local part, "@", domain: RFC 5321 section 4.5.3.1 */

/* The name under which the store knows a scope: lower case, NUL-terminated.  False for what is no
 * scope: empty, too long, with blanks, control characters, or nothing on one side of the "@". */
bool scope_name(struct slice text, char out[static SCOPE_BYTES_MAX + 1]);
/* scope: as scope_name() gives it.  forward_path: without <>; "postmaster" alone is in "*" only. */
bool scope_has(struct slice scope, struct slice forward_path);
/* What stands behind the last "@", or empty. */
struct slice scope_domain(struct slice forward_path);

#endif
