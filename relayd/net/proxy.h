/* relayd/net/proxy.h - the header that a proxy or balancer puts in front of a connection, to tell
 * whose it is (the PROXY protocol, versions 1 and 2, of HAProxy's doc/proxy-protocol.txt).
 *
 * A pure parser: bytes in, the true client out.  Nothing is guessed: what is no header, or a header
 * that breaks a rule of the specification, is refused.
 */
#ifndef RELAYD_NET_PROXY_H
#define RELAYD_NET_PROXY_H

#include "relayd/core/slice.h"

#include <stdint.h>

#define PROXY_V1_MAX     107  /* bytes of a line with its CR LF (section 2.1) */
#define PROXY_V2_FIXED   16   /* bytes before the addresses (section 2.2) */
#define PROXY_V2_MAX     2048 /* bytes of a whole version 2 header that we take */
#define PROXY_HEADER_MAX PROXY_V2_MAX

enum proxy_scan {
	PROXY_MORE, /* so far it can be a header: scan again with more behind */
	PROXY_DONE, /* *out is filled */
	PROXY_NONE, /* these bytes begin no header */
	PROXY_BAD,  /* a header that breaks a rule; out->why says which */
};

struct proxy_header {
	size_t bytes;     /* of the header; what follows is the client's */
	unsigned version; /* 1 or 2 */
	/* The client and where it connected to: 4 or 16 bytes, network order.  0: not told (LOCAL,
	 * as in a health check, UNKNOWN, or a unix socket): the peer of the connection counts. */
	uint8_t addr_len;
	uint8_t client[16], server[16];
	uint16_t client_port, server_port;
	const char *why;
};

/* Looks at the first bytes of a connection.  The result does not depend on how they came in: once
 * it is not PROXY_MORE, more bytes do not change it. */
enum proxy_scan proxy_scan(struct slice bytes, struct proxy_header *out);

#endif
