/* relayd/intake/recipients.h - the recipients that a file names: one address or @domain a line.
 *
 *	# comment
 *	ann@example.org
 *	@example.net		every local part of it
 *
 * Compared without case, local parts too: what the next hop makes of case is its own, and nobody
 * has two mailboxes that differ in nothing else.  Immutable; a reload makes a new one.
 */
#ifndef RELAYD_INTAKE_RECIPIENTS_H
#define RELAYD_INTAKE_RECIPIENTS_H

#include "relayd/core/err.h"
#include "relayd/mail/address.h"

struct recipients;

/* Borrows bytes, which stay as they are.  NULL with *err: ERR_CONFIG, "path:LINE: what is wrong". */
struct recipients *recipients_parse(struct slice bytes, const char *path, struct err *err);
void recipients_free(struct recipients *r);
bool recipients_has(const struct recipients *r, const struct address *mailbox);
size_t recipients_count(const struct recipients *r);

#endif
