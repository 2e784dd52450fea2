/* relayd/net/dns_cache.h - answers by name and type for their time to live, the least used go
 * first. */
#ifndef RELAYD_NET_DNS_CACHE_H
#define RELAYD_NET_DNS_CACHE_H

#include "relayd/net/dns.h"

#define DNS_CACHE_BUCKETS 8192

/* An answer in memory of its own; counted. */
struct dns_entry {
	struct dns_entry *hash_next, *newer, *older;
	unsigned refs;
	bool cached;
	enum dns_type type;
	int64_t expires_ms;
	size_t bytes;
	struct dns_answer answer;
	const char *name;
};

struct dns_cache {
	struct dns_entry *buckets[DNS_CACHE_BUCKETS];
	struct dns_entry *newest, *oldest;
	size_t n, bytes, max_bytes;
	uint8_t key[16]; /* random: a sender who picks names cannot pick a bucket */
};

/* Copies an answer; refs is 1.  NULL: out of memory. */
struct dns_entry *dns_entry_new(
    enum dns_type type, const char *name, const struct dns_answer *answer);
void dns_entry_unref(struct dns_entry *e);

/* max_bytes of entries. */
void dns_cache_init(struct dns_cache *cache, size_t max_bytes);
void dns_cache_fini(struct dns_cache *cache);
/* Keeps e for answer.ttl_s from now on, in place of an older answer. */
void dns_cache_put(struct dns_cache *cache, struct dns_entry *e, int64_t now_ms);
/* With answer.ttl_s what is left; NULL: not there, or not any more. */
struct dns_entry *dns_cache_get(
    struct dns_cache *cache, enum dns_type type, const char *name, int64_t now_ms);

#endif
