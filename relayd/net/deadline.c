/* relayd/net/deadline.c - many deadlines, few of which are ever reached: a timer wheel.
 *
 * G. Varghese, T. Lauck: Hashed and Hierarchical Timing Wheels.  A place of level n is 64^n ticks
 * wide; when its time begins, what it holds is spread over the levels below.
 */
#include "relayd/net/deadline.h"

#include <string.h>

#define BITS 6 /* 1 << BITS is DEADLINE_PLACES */

static void
link_into(struct deadline_wheel *w, struct deadline **place, struct deadline *d)
{
	d->next = *place;
	d->place = place;
	if (d->next != NULL)
		d->next->place = &d->next;
	*place = d;
	w->count++;
}

static void
unlink_it(struct deadline_wheel *w, struct deadline *d)
{
	if (d->place == NULL)
		return;
	*d->place = d->next;
	if (d->next != NULL)
		d->next->place = d->place;
	d->next = NULL;
	d->place = NULL;
	if (--w->count == 0)
		memset(w->taken, 0, sizeof(w->taken)); /* what is marked there is gone */
}

void
deadline_drop(struct deadline_wheel *w, struct deadline *d)
{
	unlink_it(w, d);
	d->at_ms = 0;
}

/* The first tick by whose end at_ms is reached. */
static uint64_t
tick_of(const struct deadline_wheel *w, int64_t at_ms)
{
	int64_t ms = at_ms - w->begun_ms;

	return ms > 0 ? ((uint64_t)ms + DEADLINE_TICK_MS - 1) / DEADLINE_TICK_MS : 0;
}

/* Into the place of its time, which is still to come. */
static void
put(struct deadline_wheel *w, struct deadline *d, uint64_t tick)
{
	const uint64_t last = (uint64_t)1 << (BITS * DEADLINE_LEVELS);
	unsigned level = 0, place;

	if (tick <= w->now)
		tick = w->now + 1;
	if (tick - w->now >= last)
		tick = w->now + last - 1;
	while (tick - w->now >= (uint64_t)1 << (BITS * (level + 1)))
		level++;
	place = (unsigned)(tick >> (BITS * level)) % DEADLINE_PLACES;
	link_into(w, &w->places[level][place], d);
	w->taken[level] |= (uint64_t)1 << place;
}

void
deadline_wheel_init(struct deadline_wheel *w, int64_t now_ms)
{
	memset(w, 0, sizeof(*w));
	w->begun_ms = now_ms;
}

void
deadline_set(struct deadline_wheel *w, struct deadline *d, int64_t at_ms)
{
	int64_t stands = d->at_ms < 0 ? -d->at_ms : d->at_ms;

	if (at_ms <= 0) {
		d->at_ms = -stands;
	} else if (d->place != NULL && at_ms >= stands) {
		d->at_ms = at_ms;
	} else {
		unlink_it(w, d);
		d->at_ms = at_ms;
		put(w, d, tick_of(w, at_ms));
	}
}

/* When the next place of a level that may hold something begins; UINT64_MAX: there is none. */
static uint64_t
next_of(const struct deadline_wheel *w, unsigned level)
{
	uint64_t first = (w->now >> (BITS * level)) + 1;
	unsigned by = (unsigned)(first % DEADLINE_PLACES);
	uint64_t taken = w->taken[level];

	if (taken == 0)
		return UINT64_MAX;
	if (by > 0) /* the next place becomes bit 0 */
		taken = taken >> by | taken << (DEADLINE_PLACES - by);
	return (first + (uint64_t)__builtin_ctzll(taken)) << (BITS * level);
}

static uint64_t
next_tick(const struct deadline_wheel *w)
{
	uint64_t next = UINT64_MAX;

	for (unsigned level = 0; level < DEADLINE_LEVELS; level++) {
		uint64_t at = next_of(w, level);

		next = at < next ? at : next;
	}
	return next;
}

int64_t
deadline_next(const struct deadline_wheel *w)
{
	uint64_t tick = w->due != NULL ? w->now : next_tick(w);

	return tick != UINT64_MAX ? w->begun_ms + (int64_t)tick * DEADLINE_TICK_MS : 0;
}

/* Those of one place, whose time begins now: they are due, or were moved, or are none any more. */
static void
empty(struct deadline_wheel *w, unsigned level, unsigned place)
{
	struct deadline *d;

	w->taken[level] &= ~((uint64_t)1 << place);
	while ((d = w->places[level][place]) != NULL) {
		uint64_t tick = tick_of(w, d->at_ms);

		unlink_it(w, d);
		if (d->at_ms < 0)
			d->at_ms = 0;
		else if (tick > w->now)
			put(w, d, tick);
		else
			link_into(w, &w->due, d);
	}
}

/* On to the next place that may hold something, at most to the tick `to`. */
static void
turn(struct deadline_wheel *w, uint64_t to)
{
	uint64_t tick = next_tick(w);

	if (tick > to) {
		w->now = to;
		return;
	}
	w->now = tick;
	for (unsigned level = DEADLINE_LEVELS; level-- > 0;)
		if (tick % ((uint64_t)1 << (BITS * level)) == 0)
			empty(w, level, (unsigned)(tick >> (BITS * level)) % DEADLINE_PLACES);
}

struct deadline *
deadline_due(struct deadline_wheel *w, int64_t now_ms)
{
	uint64_t to =
	    now_ms > w->begun_ms ? (uint64_t)(now_ms - w->begun_ms) / DEADLINE_TICK_MS : 0;
	struct deadline *d;

	for (;;) {
		while ((d = w->due) != NULL) {
			uint64_t tick = tick_of(w, d->at_ms);

			unlink_it(w, d);
			if (d->at_ms < 0) {
				d->at_ms = 0;
			} else if (tick > w->now) {
				put(w, d, tick); /* moved by what another one led to */
			} else {
				d->at_ms = 0;
				return d;
			}
		}
		if (w->now >= to)
			return NULL;
		turn(w, to);
	}
}
