/* relayd/net/dns.h - asks the DNS (c-ares on the loop, no thread) and remembers the answers.
 *
 * Everybody in a process shares one resolver: its cache, bounded in bytes, keeps an answer for
 * its time to live (RFC 2308 for the absence of one), and questions for the same thing that are
 * on their way are asked once.
 */
#ifndef RELAYD_NET_DNS_H
#define RELAYD_NET_DNS_H

#include "relayd/core/config.h"
#include "relayd/core/err.h"
#include "relayd/core/slice.h"

#include <uv.h>

#define DNS_NAME_MAX       253         /* RFC 1035 section 2.3.4, as text without the final dot */
#define DNS_RECORDS_MAX    100         /* of one answer; more are cut */
#define DNS_ANSWER_BYTES   (16u << 10) /* data of one answer; more is cut */
#define DNS_CACHE_BYTES    (8u << 20)  /* the default */
#define DNS_TTL_MAX_S      86400       /* of an answer (RFC 8767 section 4 allows a cap) */
#define DNS_NEGATIVE_MAX_S 3600        /* of an absence; RFC 2308 section 5 advises 1 to 3 hours */
#define DNS_FAILURE_S      5    /* a failure is not asked again so soon: RFC 2308 section 7 */
#define DNS_IN_FLIGHT_MAX  1000 /* questions on their way; more fail at once */

struct dns;

enum dns_type { DNS_A, DNS_AAAA, DNS_TXT, DNS_MX, DNS_PTR };

enum dns_status {
	DNS_OK,
	DNS_NODATA, /* the name exists, without data of this type */
	DNS_NXDOMAIN,
	DNS_SERVFAIL, /* the servers failed, refused, or sent nonsense */
	DNS_TIMEOUT,
	DNS_CANCELLED,
};

struct dns_record {
	/* A, AAAA: 4 or 16 bytes; TXT: its strings joined; MX, PTR: a name, in lower case, without
	 * the final dot, "." for the root (a null MX: RFC 7505). */
	struct slice data;
	uint16_t preference; /* MX */
};

struct dns_answer {
	enum dns_status status;
	uint32_t ttl_s;                   /* left; the least of the answer's records */
	size_t n;                         /* > 0 exactly with DNS_OK */
	const struct dns_record *records; /* MX: lowest preference first; else as they came */
};

/* A request: done runs exactly once, never inside dns_query_start(); the answer is borrowed for the
 * time it runs.  Start it zeroed but for done and owner. */
struct dns_query {
	void (*done)(struct dns_query *q, const struct dns_answer *answer);
	void *owner; /* the caller's */

	struct dns_query *prev, *next; /* net/dns.c's own from here on */
	struct dns_flight *flight;
	struct dns_entry *entry;
	struct dns *dns;
};

struct dns_options {
	const char *const
	    *servers; /* "192.0.2.53", "127.0.0.1:5353", "[::1]:53"; none: /etc/resolv.conf */
	size_t n_servers;
	uint32_t timeout_ms;    /* for a question, all tries together; 0: 5 s */
	size_t cache_bytes;     /* 0: DNS_CACHE_BYTES */
	const char *hosts_file; /* NULL: /etc/hosts, read now; for dns_hosts() */
};

/* NULL with *err: ERR_CONFIG for a server that is no address. */
struct dns *dns_open(uv_loop_t *loop, const struct dns_options *options, struct err *err);
/* With what the config's dns section says. */
struct dns *dns_open_config(uv_loop_t *loop, const struct config *cfg, struct err *err);
/* Answers what is on its way with DNS_CANCELLED, from the loop, and goes.  Accepts NULL. */
void dns_close(struct dns *dns);

/* name: a domain name, final dot or not; for DNS_PTR an address as text ("192.0.2.1").  -1 with
 * *err: ERR_FORMAT when it cannot be asked for (a label over 63 bytes, too long, empty),
 * ERR_LIMIT over DNS_IN_FLIGHT_MAX. */
int dns_query_start(
    struct dns *dns, struct dns_query *q, enum dns_type type, struct slice name, struct err *err);
/* done comes with DNS_CANCELLED.  Harmless on one that is not on its way. */
void dns_query_cancel(struct dns_query *q);
/* What the cache knows now, or NULL; borrowed until the loop's next round. */
const struct dns_answer *dns_cached(struct dns *dns, enum dns_type type, struct slice name);
/* Addresses that the hosts file gives to a name: up to max of them, as struct dns_record. */
size_t dns_hosts(const struct dns *dns, enum dns_type type, struct slice name,
    struct dns_record *records, size_t max);

uv_loop_t *dns_loop(const struct dns *dns);

struct dns_stats {
	uint64_t hits, misses, joined, timeouts, failures;
	size_t entries, bytes, in_flight;
};
void dns_stats(const struct dns *dns, struct dns_stats *out);
const char *dns_status_name(enum dns_status status); /* "nxdomain" */

#endif
