/* relayd/smtp/nexthop.h - what a route's "to" says, and the addresses that it leads to.
 *
 *	"mail1.corp:25"  "[2001:db8::1]:25"  "192.0.2.1:25"	SMTP over TCP
 *	"lmtp:/run/dovecot/lmtp"  "lmtp:host:24"		LMTP (RFC 2033)
 *	"smtp:/path"						SMTP over a unix socket
 *	"mx"							by the MX records of the recipient's domain
 */
#ifndef RELAYD_SMTP_NEXTHOP_H
#define RELAYD_SMTP_NEXTHOP_H

#include "relayd/net/dns.h"

#include <netinet/in.h>
#include <sys/socket.h>

#define NEXTHOP_HOSTS_MAX     16 /* exchanges of a domain that are looked at */
#define NEXTHOP_ADDRESSES_MAX 32 /* addresses of all of them together */

struct nexthop {
	bool lmtp;
	bool mx;        /* host is empty: nexthop_mx() fills in the domain */
	char path[108]; /* of a unix socket, or "" */
	char host[256]; /* a name, or an address as text */
	uint16_t port;
};

/* -1 with *err ERR_CONFIG: what is wrong with text. */
int nexthop_parse(const char *text, struct nexthop *hop, struct err *err);
/* The hop of a domain for a route to "mx": port 25. */
int nexthop_mx(struct nexthop *hop, struct slice domain, struct err *err);

struct nexthop_address {
	struct sockaddr_storage addr;
	const char *host; /* for tls_name: the hop's, or the exchange's; borrowed of the request */
};

/* A request, for dns_query_start()'s rules; start it zeroed.  Large: keep it on the heap. */
struct nexthop_resolve {
	/* err NULL: addresses[0 .. n - 1], n > 0, best first (MX by preference, equal ones shuffled: RFC 5321
	 * section 5.1).  ERR_NOT_FOUND: there is no such host or it takes no mail (permanent; a null MX, RFC 7505);
	 * ERR_TIMEOUT, ERR_SYS: the DNS failed (temporary); ERR_CANCELLED. */
	void (*done)(struct nexthop_resolve *req, const struct err *err);
	void *owner;
	struct nexthop_address addresses[NEXTHOP_ADDRESSES_MAX];
	size_t n;
	bool null_mx; /* with ERR_NOT_FOUND: the domain says that it takes no mail */

	struct nexthop hop; /* smtp/nexthop.c's own from here on */
	struct dns *dns;
	struct dns_query mx;
	struct {
		struct dns_query a, aaaa;
		char name[256];
		struct nexthop_resolve *req;
		uint8_t addr[8][16]; /* IPv6 first */
		uint8_t len[8];
		size_t n;
	} hosts[NEXTHOP_HOSTS_MAX];
	size_t n_hosts, waiting;
	bool failed, timed_out, cancelled;
};

/* Unix sockets and addresses as text need no DNS and are answered all the same from the loop.  The hosts file
 * and "localhost" come before the DNS. */
int nexthop_resolve_start(
    struct dns *dns, struct nexthop_resolve *req, const struct nexthop *hop, struct err *err);
void nexthop_resolve_cancel(struct nexthop_resolve *req);

#endif
