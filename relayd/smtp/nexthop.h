/* relayd/smtp/nexthop.h - what a route's "to" says, and the addresses that it leads to.
 *
 *	"mail1.corp:25"  "[2001:db8::1]:25"  "192.0.2.1:25"	SMTP over TCP
 *	"lmtp:/run/dovecot/lmtp"  "lmtp:host:24"		LMTP (RFC 2033)
 *	"smtp:/path"						SMTP over a unix socket
 *	"smtps:mail.corp:465"					TLS from the first byte (RFC 8314)
 *	"mx"							by the recipient's domain
 *
 * Behind it, in any order: " priority=N" (lower ones are used first; 1 .. 1000, else its place in
 * the list) and " weight=N" (its share among those of one priority; 1 .. 1000, else 1).
 */
#ifndef RELAYD_SMTP_NEXTHOP_H
#define RELAYD_SMTP_NEXTHOP_H

#include "relayd/core/cidr.h"
#include "relayd/net/dns.h"
#include "relayd/net/round.h"
#include "relayd/smtp/mx.h"

#include <netinet/in.h>
#include <sys/socket.h>

#define NEXTHOP_HOSTS_MAX     16 /* exchanges of a domain that are looked at */
#define NEXTHOP_PER_HOST      8  /* addresses of one of them, of each family */
#define NEXTHOP_ADDRESSES_MAX 32 /* addresses of all of them together */

struct nexthop {
	bool lmtp;
	bool implicit_tls;
	bool mx;        /* host is empty: nexthop_mx() fills in the domain */
	char path[108]; /* of a unix socket, or "" */
	char host[256]; /* a name, or an address as text */
	uint16_t port;
	uint16_t priority; /* 0: not said */
	uint16_t weight;   /* 1 .. */
};

/* -1 with *err ERR_CONFIG: what is wrong with text. */
int nexthop_parse(const char *text, struct nexthop *hop, struct err *err);
/* The hop of a domain for a route to "mx": port 25. */
int nexthop_mx(struct nexthop *hop, struct slice domain, struct err *err);

struct nexthop_address {
	struct sockaddr_storage addr;
	const char *host; /* for tls_name: the hop's, or the exchange's; borrowed of the request */
};

struct nexthop_resolve;

/* A host whose addresses are asked for; of smtp/nexthop.c. */
struct nexthop_host {
	struct nexthop_resolve *req;
	struct dns_query a, aaaa;
	char name[256];
	uint16_t preference; /* of its MX record */
	struct cidr v4[NEXTHOP_PER_HOST], v6[NEXTHOP_PER_HOST];
	size_t n_v4, n_v6;
};

/* A request: done runs exactly once, never inside nexthop_resolve_start().  Start it zeroed but
 * for what stands before addresses.  Large: keep it on the heap. */
struct nexthop_resolve {
	/* err NULL: addresses[0 .. n - 1], n > 0, best first (RFC 5321 section 5.1; IPv6 before
	 * IPv4). ERR_NOT_FOUND: the host does not exist or has no address, or the domain takes
	 * no mail here; ERR_SYS: the exchanges of the domain have no addresses, or the DNS
	 * failed; ERR_TIMEOUT; ERR_CANCELLED. */
	void (*done)(struct nexthop_resolve *req, const struct err *err);
	void *owner;
	/* ours, borrowed: exchanges at or behind it are left out; may be NULL */
	const char *hostname;
	/* Whether an exchange's address is ours too, with the same consequence; may be NULL. */
	bool (*is_ours)(void *owner, const struct sockaddr *addr);

	struct nexthop_address addresses[NEXTHOP_ADDRESSES_MAX];
	size_t n;
	bool null_mx; /* with ERR_NOT_FOUND: the domain says that it takes no mail (RFC 7505) */
	bool loop;    /* with ERR_NOT_FOUND: we are its best exchange ourselves */

	/* smtp/nexthop.c's own from here on */
	struct nexthop hop;
	struct dns *dns;
	struct dns_query mx;
	struct nexthop_host hosts[NEXTHOP_HOSTS_MAX];
	size_t n_hosts, waiting;
	struct round *round;
	struct round_task work;
	bool by_mx, missing, timed_out, failed, cancelled, busy;
};

/* Unix sockets and addresses as text need no DNS, and are answered from the loop all the same.  The
 * hosts file and "localhost" come before the DNS.  -1 with *err: done does not run. */
int nexthop_resolve_start(
    struct dns *dns, struct nexthop_resolve *req, const struct nexthop *hop, struct err *err);
/* Harmless on one that is not on its way. */
void nexthop_resolve_cancel(struct nexthop_resolve *req);

#endif
