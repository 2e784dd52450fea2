/* relayd/core/tally.c - how many there are of each key: exact, of fixed size, for memory that is
 * shared. */
#include "relayd/core/tally.h"

#include <stddef.h>

#define COUNT_BITS 20 /* of a cell; the tag of the key stands above it, and is never 0 */

typedef _Atomic uint64_t cell;

static uint64_t
tag_of(uint64_t key)
{
	uint64_t tag = key >> COUNT_BITS;

	return (tag > 0 ? tag : 1) << COUNT_BITS;
}

static unsigned
bucket_of(uint64_t key, unsigned which)
{
	return (unsigned)(key >> (which * 12)) % TALLY_BUCKETS;
}

static bool
is_of(uint64_t value, uint64_t tag)
{
	return (value ^ tag) >> COUNT_BITS == 0;
}

uint32_t
tally_get(const struct tally *t, uint64_t key)
{
	uint64_t tag = tag_of(key);

	for (unsigned which = 0; which < 2; which++) {
		const cell *bucket = t->cells[bucket_of(key, which)];

		for (size_t i = 0; i < TALLY_CELLS; i++) {
			uint64_t value = bucket[i];

			if (is_of(value, tag))
				return (uint32_t)(value & TALLY_MAX);
		}
	}
	return 0;
}

/* Its cell, or NULL; *room is a free one in the emptier of its buckets, or NULL. */
static cell *
find(struct tally *t, uint64_t key, cell **room)
{
	uint64_t tag = tag_of(key);
	unsigned most = 0;

	*room = NULL;
	for (unsigned which = 0; which < 2; which++) {
		cell *bucket = t->cells[bucket_of(key, which)], *place = NULL;
		unsigned n = 0;

		for (size_t i = 0; i < TALLY_CELLS; i++) {
			uint64_t value = bucket[i];

			if (is_of(value, tag))
				return &bucket[i];
			if (value == 0) {
				place = &bucket[i];
				n++;
			}
		}
		if (n > most) {
			most = n;
			*room = place;
		}
	}
	return NULL;
}

bool
tally_add(struct tally *t, uint64_t key)
{
	cell *room, *at = find(t, key, &room);

	if (at == NULL && room == NULL)
		return false;
	if (at == NULL)
		*room = tag_of(key) | 1;
	else if ((*at & TALLY_MAX) == TALLY_MAX)
		return false;
	else
		*at = *at + 1; /* nobody else writes */
	return true;
}

void
tally_drop(struct tally *t, uint64_t key)
{
	cell *room, *at = find(t, key, &room);

	if (at == NULL)
		return;
	*at = (*at & TALLY_MAX) > 1 ? *at - 1 : 0;
}
