/* relayd/net/dns_cache.c - answers by name and type for their time to live, the least used go
 * first. */
#include "relayd/net/dns_cache.h"

#include "relayd/core/siphash.h"

#include <openssl/rand.h>
#include <stdlib.h>

struct dns_entry *
dns_entry_new(enum dns_type type, const char *name, const struct dns_answer *answer)
{
	size_t name_len = strlen(name) + 1, bytes = sizeof(struct dns_entry) + name_len;
	struct dns_record *records;
	struct dns_entry *e;
	char *p;

	for (size_t i = 0; i < answer->n; i++)
		bytes += sizeof(*records) + answer->records[i].data.len;
	e = calloc(1, bytes);
	if (e == NULL)
		return NULL;
	records = (struct dns_record *)(e + 1);
	p = (char *)(records + answer->n);
	for (size_t i = 0; i < answer->n; i++) {
		struct slice data = answer->records[i].data;

		memcpy(p, data.p, data.len);
		records[i] = answer->records[i];
		records[i].data = slice_of(p, data.len);
		p += data.len;
	}
	memcpy(p, name, name_len);
	*e = (struct dns_entry){
		.refs = 1, .type = type, .bytes = bytes, .answer = *answer, .name = p
	};
	e->answer.records = records;
	return e;
}

void
dns_entry_unref(struct dns_entry *e)
{
	if (e != NULL && --e->refs == 0)
		free(e);
}

void
dns_cache_init(struct dns_cache *cache, size_t max_bytes)
{
	*cache = (struct dns_cache){ .max_bytes = max_bytes };
	(void)RAND_bytes(
	    cache->key, sizeof(cache->key)); /* without random bytes nothing else works either */
}

static struct dns_entry **
bucket_of(struct dns_cache *cache, enum dns_type type, const char *name)
{
	uint64_t sum = siphash(cache->key, slice_str(name)) + (uint64_t)type;

	return &cache->buckets[sum % DNS_CACHE_BUCKETS];
}

static void
list_remove(struct dns_cache *cache, struct dns_entry *e)
{
	*(e->newer != NULL ? &e->newer->older : &cache->newest) = e->older;
	*(e->older != NULL ? &e->older->newer : &cache->oldest) = e->newer;
}

static void
list_push(struct dns_cache *cache, struct dns_entry *e)
{
	e->newer = NULL;
	e->older = cache->newest;
	*(cache->newest != NULL ? &cache->newest->newer : &cache->oldest) = e;
	cache->newest = e;
}

static void
forget(struct dns_cache *cache, struct dns_entry *e)
{
	struct dns_entry **at = bucket_of(cache, e->type, e->name);

	while (*at != e)
		at = &(*at)->hash_next;
	*at = e->hash_next;
	list_remove(cache, e);
	cache->n--;
	cache->bytes -= e->bytes;
	e->cached = false;
	dns_entry_unref(e);
}

void
dns_cache_fini(struct dns_cache *cache)
{
	while (cache->oldest != NULL)
		forget(cache, cache->oldest);
}

static struct dns_entry *
find(struct dns_cache *cache, enum dns_type type, const char *name)
{
	struct dns_entry *e = *bucket_of(cache, type, name);

	while (e != NULL && (e->type != type || strcmp(e->name, name) != 0))
		e = e->hash_next;
	return e;
}

void
dns_cache_put(struct dns_cache *cache, struct dns_entry *e, int64_t now_ms)
{
	struct dns_entry *old = find(cache, e->type, e->name), **bucket;

	if (old != NULL)
		forget(cache, old);
	if (e->answer.ttl_s == 0 || e->bytes > cache->max_bytes)
		return;
	bucket = bucket_of(cache, e->type, e->name);
	e->hash_next = *bucket;
	*bucket = e;
	list_push(cache, e);
	cache->n++;
	cache->bytes += e->bytes;
	e->cached = true;
	e->refs++;
	e->expires_ms = now_ms + (int64_t)e->answer.ttl_s * 1000;
	while (cache->bytes > cache->max_bytes)
		forget(cache, cache->oldest);
}

struct dns_entry *
dns_cache_get(struct dns_cache *cache, enum dns_type type, const char *name, int64_t now_ms)
{
	struct dns_entry *e = find(cache, type, name);

	if (e == NULL)
		return NULL;
	if (e->expires_ms <= now_ms) {
		forget(cache, e);
		return NULL;
	}
	list_remove(cache, e);
	list_push(cache, e);
	e->answer.ttl_s = (uint32_t)((e->expires_ms - now_ms) / 1000);
	return e;
}
