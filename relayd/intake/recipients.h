/* relayd/intake/recipients.h - the recipients and aliases that a file names, one a line.
 *
 *	# comment
 *	ann@example.org
 *	@example.net				every local part of it
 *	sales@example.org: ann@example.org, bob@example.net
 *	@old.example: @example.org		every local part of it is at the other domain
 *
 * Compared without case, local parts too: what the next hop makes of case is its own, and nobody
 * has two mailboxes that differ in nothing else.  A target lies in a domain of ours or in one that
 * has a route of its own: by an alias no mail goes where "*" leads, so that it is no way to relay.
 *
 * A table of 8 bytes a place over the bytes of the file, which the workers share.  Immutable; a
 * reload makes a new one, which may be done in any thread.
 */
#ifndef RELAYD_INTAKE_RECIPIENTS_H
#define RELAYD_INTAKE_RECIPIENTS_H

#include "relayd/core/config.h"
#include "relayd/core/err.h"
#include "relayd/mail/address.h"

struct recipients;

enum recipients_match {
	RECIPIENTS_UNKNOWN,
	RECIPIENTS_KNOWN,
	RECIPIENTS_ALIAS,
};

/* Borrows bytes, which stay as they are; at most 4 GiB.  NULL with *err: ERR_CONFIG, "path:LINE:
 * what is wrong", also for a target that cfg has no route of its own for, and an address named
 * twice. */
struct recipients *recipients_parse(
    const struct config *cfg, struct slice bytes, const char *path, struct err *err);
/* Counted, by one loop.  What was parsed begins with one reference and goes with the last. */
struct recipients *recipients_ref(struct recipients *r);
void recipients_unref(struct recipients *r); /* accepts NULL */
/* Holds on to cfg, whose bytes it borrows. */
void recipients_keep(struct recipients *r, const struct config *cfg);

/* By its whole local part, then without what follows the separator (an address extension; 0: there
 * are none), then by its domain.  *targets, of an alias: for recipients_target(). */
enum recipients_match recipients_find(const struct recipients *r, const struct address *mailbox,
    char separator, struct slice *targets);
/* Whether a line names it, with its whole local part. */
bool recipients_name(const struct recipients *r, const struct address *mailbox);
/* Takes the next target off the front of *targets; false at the end. */
bool recipients_target(struct slice *targets, struct slice *target);
bool recipients_has_aliases(const struct recipients *r);
/* Lines that differ. */
size_t recipients_count(const struct recipients *r);
/* Of the table, the file apart. */
size_t recipients_bytes(const struct recipients *r);

#endif
