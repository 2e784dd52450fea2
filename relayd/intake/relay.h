/* relayd/intake/relay.h - for whom we take mail, and to where (INTERFACE.md section 3).
 *
 * The one place that keeps relayd from being an open relay.  Only the domain of the mailbox decides
 * where mail goes: a source route was dropped by the grammar, and what stands left of the last @ is
 * never read as a route by us (RFC 5321 section 4.1.2).  But the next hop may do so with %, ! and
 * @, as Postfix does for clients that it trusts, and it trusts us.
 */
#ifndef RELAYD_INTAKE_RELAY_H
#define RELAYD_INTAKE_RELAY_H

#include "relayd/core/config.h"
#include "relayd/mail/address.h"

struct relay_client {
	bool trusted;    /* from networks, or a user who may relay */
	bool submission; /* the listener wants a login: nothing from here is inbound */
};

enum relay_verdict {
	RELAY_POSTMASTER, /* <postmaster>: RFC 5321 section 4.5.1 */
	RELAY_OURS,       /* one of our domains: does the recipient exist? */
	RELAY_ROUTED,     /* the same, but the next hop may send it on: only if a file names it */
	RELAY_ONWARD,     /* any other, for a trusted client */
	RELAY_DENIED,
};

enum relay_verdict relay_check(const struct config *cfg, const struct relay_client *client,
    const struct address *forward_path);

#endif
