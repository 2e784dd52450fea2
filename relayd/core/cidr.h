/* relayd/core/cidr.h - IP addresses and networks; IPv4-mapped IPv6 is always taken as IPv4. */
#ifndef RELAYD_CORE_CIDR_H
#define RELAYD_CORE_CIDR_H

#include "relayd/core/slice.h"

#include <sys/socket.h>

struct cidr {
	uint8_t addr[16];	/* network order; the first 4 for IPv4 */
	uint8_t len;		/* 4 or 16 bytes */
	uint8_t bits;		/* of the prefix */
};

#define IP_TEXT_BYTES 46	/* INET6_ADDRSTRLEN */

/* "192.0.2.0/28", "::1", "2001:db8::/32"; host bits set are refused, a zone index too. */
bool cidr_parse(struct slice text, struct cidr *out);
/* addr: 4 or 16 bytes, network order; v4-mapped is normalised first. */
bool cidr_has(const struct cidr *net, struct slice addr);
/* One of n has it. */
bool cidr_any(const struct cidr *nets, size_t n, struct slice addr);
/* 4 or 16 bytes at *storage, v4-mapped as 4; empty for a unix socket. */
struct slice ip_of(const struct sockaddr *sa, uint8_t storage[static 16]);
/* v4-mapped to its last 4 bytes, all else as it is. */
struct slice ip_normal(struct slice addr);
/* 4 or 16 bytes into text; "unix" for an empty address. */
void ip_text(struct slice addr, char out[static IP_TEXT_BYTES]);

#endif
