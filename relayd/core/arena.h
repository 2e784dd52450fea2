/* relayd/core/arena.h - memory that is freed all at once, up to a byte limit.
 *
 * A session has one and each transaction another: RSET is arena_reset().
 */
#ifndef RELAYD_CORE_ARENA_H
#define RELAYD_CORE_ARENA_H

#include "relayd/core/slice.h"

struct arena_block;

struct arena {
	struct arena_block *blocks;	/* newest first */
	size_t used;			/* bytes handed out since the last reset */
	size_t max;
	bool lacked; /* since the last reset, something asked for was not there */
};

/* No memory is taken before the first allocation.  max: bytes that may be handed out. */
static inline struct arena
arena_of(size_t max)
{
	return (struct arena){ .max = max };
}

/* Zeroed and aligned for any type; NULL past the limit or out of memory. */
void *arena_alloc(struct arena *a, size_t n);
/* Room for one more in an array with n of *cap items of size bytes: items, or where it is full a
 * copy with twice the room (at first for 4), whose number is then in *cap.  NULL, and nothing is
 * changed, as above. */
void *arena_grow(struct arena *a, void *items, size_t n, size_t *cap, size_t size);
/* A copy of s, NUL-terminated behind its end; p is NULL when it did not fit. */
struct slice arena_copy(struct arena *a, struct slice s);
char *arena_printf(struct arena *a, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* All that was handed out is gone; the oldest block is kept for what comes next. */
void arena_reset(struct arena *a);
void arena_fini(struct arena *a);

#endif
