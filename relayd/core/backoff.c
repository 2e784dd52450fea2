/* relayd/core/backoff.c - who failed to log in too often waits before the next try is looked at. */
#include "relayd/core/backoff.h"

#include "relayd/core/buf.h"
#include "relayd/core/siphash.h"

#include <sys/random.h>

#define NAME_BYTES 256 /* of a name, which may be cut */

/* A place is one word, changed as a whole: 20 bits of the hash (0: it is free), 6 of failures, 38
 * of the time of the last in milliseconds, which last for 8 years of uptime. */
#define TAG_SHIFT    44
#define COUNT_SHIFT  38
#define FAILURES_MAX 63
#define TIME_MASK    ((UINT64_C(1) << COUNT_SHIFT) - 1)

struct record {
	uint32_t tag, failures;
	int64_t last_ms;
};

static struct record
unpack(uint64_t word)
{
	return (struct record){ .tag = (uint32_t)(word >> TAG_SHIFT),
		.failures = (uint32_t)(word >> COUNT_SHIFT) & FAILURES_MAX,
		.last_ms = (int64_t)(word & TIME_MASK) };
}

static uint64_t
pack(const struct record *r)
{
	return (uint64_t)r->tag << TAG_SHIFT | (uint64_t)r->failures << COUNT_SHIFT |
	       ((uint64_t)r->last_ms & TIME_MASK);
}

int
backoff_init(struct backoff *b)
{
	return getrandom(b->key, sizeof(b->key), 0) == (ssize_t)sizeof(b->key) ? 0 : -1;
}

static uint64_t
hash(const struct backoff *b, char kind, struct slice bytes)
{
	char storage[1 + NAME_BYTES];

	bytes = slice_head(bytes, NAME_BYTES);
	storage[0] = kind;
	memcpy(storage + 1, bytes.p, bytes.len);
	return siphash(b->key, slice_of(storage, 1 + bytes.len));
}

uint64_t
backoff_address(const struct backoff *b, struct slice addr)
{
	return hash(b, 'a', slice_head(addr, 8));
}

uint64_t
backoff_user(const struct backoff *b, struct slice name)
{
	return hash(b, 'u', name);
}

static uint32_t
tag_of(uint64_t whom)
{
	uint32_t tag = (uint32_t)(whom >> TAG_SHIFT);

	return tag != 0 ? tag : 1;
}

static bool
is_old(const struct record *r, int64_t now_ms)
{
	return now_ms - r->last_ms >= BACKOFF_FORGET_MS;
}

/* Its place, or NULL. */
static const _Atomic uint64_t *
find(const struct backoff *b, uint64_t whom)
{
	const _Atomic uint64_t *set = b->places[whom % BACKOFF_SETS];

	for (size_t i = 0; i < BACKOFF_WAYS; i++)
		if (unpack(atomic_load(&set[i])).tag == tag_of(whom))
			return &set[i];
	return NULL;
}

int64_t
backoff_wait_ms(const struct backoff *b, uint64_t whom, int64_t now_ms)
{
	const _Atomic uint64_t *place = find(b, whom);
	struct record r = place != NULL ? unpack(atomic_load(place)) : (struct record){ 0 };
	int64_t wait = BACKOFF_FIRST_MS, passed = now_ms - r.last_ms;

	/* Another process may have taken the place just now. */
	if (r.tag != tag_of(whom) || r.failures <= BACKOFF_FREE || is_old(&r, now_ms))
		return 0;
	for (uint32_t n = BACKOFF_FREE + 1; n < r.failures && wait < BACKOFF_MAX_MS; n++)
		wait *= 2;
	if (wait > BACKOFF_MAX_MS)
		wait = BACKOFF_MAX_MS;
	return wait > passed ? wait - passed : 0;
}

/* Its place, or else the one that is worth least: free, old, or with the fewest failures. */
static _Atomic uint64_t *
choose(struct backoff *b, uint64_t whom, int64_t now_ms)
{
	_Atomic uint64_t *set = b->places[whom % BACKOFF_SETS], *least = set;
	uint32_t fewest = UINT32_MAX;

	for (size_t i = 0; i < BACKOFF_WAYS; i++) {
		struct record r = unpack(atomic_load(&set[i]));
		uint32_t worth = r.tag == 0 || is_old(&r, now_ms) ? 0 : r.failures;

		if (r.tag == tag_of(whom))
			return &set[i];
		if (worth < fewest) {
			least = &set[i];
			fewest = worth;
		}
	}
	return least;
}

void
backoff_failed(struct backoff *b, uint64_t whom, int64_t now_ms)
{
	_Atomic uint64_t *place = choose(b, whom, now_ms);
	uint64_t seen = atomic_load(place);
	struct record r;

	do {
		r = unpack(seen);
		if (r.tag != tag_of(whom) || is_old(&r, now_ms))
			r.failures = 0;
		r.tag = tag_of(whom);
		r.failures += r.failures < FAILURES_MAX;
		r.last_ms = now_ms;
	} while (!atomic_compare_exchange_weak(place, &seen, pack(&r)));
}

/* ---- who is known ---------------------------------------------------------------------------- */

/* A place is one word: 26 bits of the hash, 38 of the time in milliseconds; 0: it is free. */
static uint64_t
known_word(uint64_t pair, int64_t now_ms)
{
	uint64_t tag = pair >> COUNT_SHIFT;

	return (tag != 0 ? tag : 1) << COUNT_SHIFT | ((uint64_t)now_ms & TIME_MASK);
}

static bool
is_of_pair(uint64_t word, uint64_t pair)
{
	return word >> COUNT_SHIFT == known_word(pair, 0) >> COUNT_SHIFT;
}

static uint64_t
pair_of(const struct backoff *b, struct slice name, struct slice addr)
{
	char storage[8 + NAME_BYTES];
	struct buf both = buf_over(storage, sizeof(storage));

	/* The address in a fixed width, so that no two pairs are the same bytes. */
	addr = slice_head(addr, 8);
	for (size_t i = 0; i < 8; i++)
		buf_putc(&both, i < addr.len ? addr.p[i] : '\0');
	buf_put(&both, slice_head(name, NAME_BYTES - 8));
	return hash(b, 'k', buf_slice(&both));
}

static bool
is_known(const struct backoff *b, uint64_t pair, int64_t now_ms)
{
	const _Atomic uint64_t *set = b->known[pair % BACKOFF_SETS];

	for (size_t i = 0; i < BACKOFF_WAYS; i++) {
		uint64_t word = atomic_load(&set[i]);

		if (is_of_pair(word, pair))
			return now_ms - (int64_t)(word & TIME_MASK) < BACKOFF_KNOWN_MS;
	}
	return false;
}

/* In its place, or in a free one, or in that of who has not come for the longest time. */
static void
make_known(struct backoff *b, uint64_t pair, int64_t now_ms)
{
	_Atomic uint64_t *set = b->known[pair % BACKOFF_SETS], *place = &set[0];

	for (size_t i = 0; i < BACKOFF_WAYS; i++) {
		uint64_t word = atomic_load(&set[i]);

		if (is_of_pair(word, pair)) {
			place = &set[i];
			break;
		}
		if ((word & TIME_MASK) < (atomic_load(place) & TIME_MASK))
			place = &set[i];
	}
	atomic_store(place, known_word(pair, now_ms)); /* whoever else wants it now: one is known */
}

int64_t
backoff_user_wait_ms(const struct backoff *b, struct slice name, struct slice addr, int64_t now_ms)
{
	uint64_t pair = pair_of(b, name, addr);

	return backoff_wait_ms(b, is_known(b, pair, now_ms) ? pair : backoff_user(b, name), now_ms);
}

void
backoff_user_failed(struct backoff *b, struct slice name, struct slice addr, int64_t now_ms)
{
	uint64_t pair = pair_of(b, name, addr);

	backoff_failed(b, backoff_user(b, name), now_ms);
	if (is_known(b, pair, now_ms))
		backoff_failed(b, pair, now_ms);
}

static void
forget(struct backoff *b, uint64_t whom)
{
	_Atomic uint64_t *place =
	    (_Atomic uint64_t *)(uintptr_t)find(b, whom); /* b is ours to change */
	uint64_t seen = place != NULL ? atomic_load(place) : 0;

	/* Should it change meanwhile, somebody failed again: then that counts. */
	if (unpack(seen).tag == tag_of(whom))
		(void)atomic_compare_exchange_strong(place, &seen, 0);
}

void
backoff_passed(struct backoff *b, struct slice name, struct slice addr, int64_t now_ms)
{
	uint64_t pair = pair_of(b, name, addr);

	forget(b, backoff_address(b, addr));
	forget(b, pair);
	make_known(b, pair, now_ms);
}
