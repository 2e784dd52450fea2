/* relayd/delivery/tls_policy.h - which TLS a host of a next hop is used with, and who says so.
 *
 * Looked up for each host together with its addresses (resolve.c), and kept with them.  Today the
 * route says it all; what other hosts publish about themselves (DANE, RFC 7672; MTA-STS, RFC 8461)
 * is to come in here, and can only ask for more than the route does.
 */
#ifndef RELAYD_DELIVERY_TLS_POLICY_H
#define RELAYD_DELIVERY_TLS_POLICY_H

#include "relayd/delivery/route.h"
#include "relayd/smtp/client.h"

struct tls_policy {
	enum smtp_client_tls need;
	bool any_certificate; /* with MUST: nothing is verified */
	bool plain_after;     /* with TRY: without TLS where it fails (RFC 7435 section 4.2) */
	const char *by;       /* who says so: "route"; static */
};

/* Of a host of target i of a next hop, named or found by MX; unix: it is a socket of this
 * machine. */
struct tls_policy tls_policy_of(
    const struct route_hop *hop, size_t i, const char *host, bool unix_socket);

#endif
