/* relayd/net/deadline.h - many deadlines, few of which are ever reached: a timer wheel.
 *
 * A deadline is three words inside of what it belongs to.  It is moved for every command of every
 * session and hardly ever passes, so moving it to a later time only writes that time down: it is
 * looked at again, and put where it belongs, when the old time comes.  A wheel does no I/O and
 * has no clock; net/round.h turns the one of a loop.
 */
#ifndef RELAYD_NET_DEADLINE_H
#define RELAYD_NET_DEADLINE_H

#include <stddef.h>
#include <stdint.h>

#define DEADLINE_TICK_MS 8 /* a deadline passes at most so much after its time, never before */
#define DEADLINE_LEVELS  4 /* each of 64 places: 37 hours; what is later waits in the last one */
#define DEADLINE_PLACES  64

/* Embedded; zeroed before its first use. */
struct deadline {
	struct deadline *next, **place; /* place NULL: in no wheel */
	int64_t at_ms; /* below 0: none, but it stands where one of that time would */
};

struct deadline_wheel {
	int64_t begun_ms;
	size_t count;                    /* of deadlines in it */
	uint64_t now;                    /* ticks, counted from begun_ms, that have passed */
	uint64_t taken[DEADLINE_LEVELS]; /* a set of places that may hold something */
	struct deadline *places[DEADLINE_LEVELS][DEADLINE_PLACES];
	struct deadline *due;
};

void deadline_wheel_init(struct deadline_wheel *w, int64_t now_ms);
/* at_ms: above 0, of the clock of now_ms; what is past is due at the next tick.  0: never. */
void deadline_set(struct deadline_wheel *w, struct deadline *d, int64_t at_ms);
/* Out of the wheel: its memory may go.  Harmless when it is in none. */
void deadline_drop(struct deadline_wheel *w, struct deadline *d);
/* 0: none is set.  Else the time, in ms, before which deadline_due() need not be called: no later
 * than the first deadline, sometimes sooner. */
int64_t deadline_next(const struct deadline_wheel *w);
/* One that has passed, with no time any more and out of the wheel; NULL when there is no other.
 * What happens to other deadlines between two calls does no harm. */
struct deadline *deadline_due(struct deadline_wheel *w, int64_t now_ms);

#endif
