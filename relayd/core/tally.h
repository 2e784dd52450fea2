/* relayd/core/tally.h - how many there are of each key: exact, of fixed size, for memory that is
 * shared.
 *
 * One process writes a tally, any number read it at the same time.  A key is a keyed hash of what
 * is counted, so nobody can aim at a place.  It stands in one of 16 cells of two buckets; only
 * where all of them hold other keys, which hardly ever happens below 80 % of TALLY_KEYS, it is not
 * counted.  44 bits of it tell it from the others in there.
 */
#ifndef RELAYD_CORE_TALLY_H
#define RELAYD_CORE_TALLY_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define TALLY_BUCKETS 4096
#define TALLY_CELLS   8 /* of a bucket: one cache line */
#define TALLY_KEYS    (TALLY_BUCKETS * TALLY_CELLS)
#define TALLY_MAX     ((1u << 20) - 1) /* of one key */

/* Zeroed: all counts are 0. */
struct tally {
	_Atomic uint64_t cells[TALLY_BUCKETS][TALLY_CELLS];
};

/* One more, one less.  False: it is not counted, for lack of room, and not to be dropped. */
bool tally_add(struct tally *t, uint64_t key);
void tally_drop(struct tally *t, uint64_t key);
uint32_t tally_get(const struct tally *t, uint64_t key);

#endif
