/* relayd/auth/backoff.c - who failed to log in too often waits before the next try is looked at. */
#include "relayd/auth/backoff.h"

#include "relayd/core/siphash.h"

#include <stdlib.h>
#include <sys/random.h>

struct slot {
	uint32_t failures;
	int64_t last_ms;
};

struct backoff {
	uint8_t key[16]; /* random, so that nobody can aim at a slot */
	struct slot slots[BACKOFF_SLOTS];
};

struct backoff *
backoff_new(void)
{
	struct backoff *b = calloc(1, sizeof(*b));

	if (b != NULL && getrandom(b->key, sizeof(b->key), 0) != (ssize_t)sizeof(b->key)) {
		free(b);
		return NULL;
	}
	return b;
}

void
backoff_free(struct backoff *b)
{
	free(b);
}

static size_t
slot_of(const struct backoff *b, struct slice key)
{
	return (size_t)(siphash(b->key, key) % BACKOFF_SLOTS);
}

static bool
is_old(const struct slot *slot, int64_t now_ms)
{
	return now_ms - slot->last_ms >= BACKOFF_FORGET_MS;
}

int64_t
backoff_wait_ms(const struct backoff *b, struct slice key, int64_t now_ms)
{
	const struct slot *slot = &b->slots[slot_of(b, key)];
	int64_t wait = BACKOFF_FIRST_MS, passed = now_ms - slot->last_ms;

	if (slot->failures <= BACKOFF_FREE || is_old(slot, now_ms))
		return 0;
	for (uint32_t n = BACKOFF_FREE + 1; n < slot->failures && wait < BACKOFF_MAX_MS; n++)
		wait *= 2;
	if (wait > BACKOFF_MAX_MS)
		wait = BACKOFF_MAX_MS;
	return wait > passed ? wait - passed : 0;
}

void
backoff_failed(struct backoff *b, struct slice key, int64_t now_ms)
{
	struct slot *slot = &b->slots[slot_of(b, key)];

	if (is_old(slot, now_ms))
		slot->failures = 0;
	if (slot->failures < UINT32_MAX)
		slot->failures++;
	slot->last_ms = now_ms;
}

void
backoff_passed(struct backoff *b, struct slice key)
{
	b->slots[slot_of(b, key)].failures = 0;
}
