/* tests/unit/delivery/schedule_test.c - retry times, expiry and the heap, on a clock of our own. */
#include "relayd/delivery/schedule.h"

#include "relayd/core/slice.h"
#include "unit/unit.h"

#include <stdlib.h>

static const uint32_t retry_s[] = { 60, 300, 900, 3600 };
static const struct schedule schedule = { .retry_s = retry_s, .n_retry = 4, .expire_s = 432000 };

static const struct {
	unsigned attempts;
	int64_t delay_ms;
} delays[] = {
	{ 0, 60000 },
	{ 1, 60000 },
	{ 2, 300000 },
	{ 3, 900000 },
	{ 4, 3600000 },
	{ 5, 3600000 },
	{ 65535, 3600000 },
};

START_TEST(the_last_delay_repeats)
{
	ck_assert_int_eq(schedule_delay_ms(&schedule, delays[_i].attempts), delays[_i].delay_ms);
}
END_TEST

#define MONO 5000000
#define WALL 1700000000000

static const struct {
	const char *what;
	int64_t tried_wall_ms;
	unsigned attempts;
	int64_t due_in_ms;
} dues[] = {
	{ "just tried", WALL, 1, 60000 },
	{ "tried half a minute ago", WALL - 30000, 1, 30000 },
	{ "overdue", WALL - 60001, 1, 0 },
	{ "long overdue", WALL - 864000000, 2, 0 },
	{ "tried in the future: the clock went back", WALL + 864000000, 2, 300000 },
};

START_TEST(a_stored_time_never_holds_mail_back_longer_than_the_schedule)
{
	struct schedule_now now = { .mono_ms = MONO, .wall_ms = WALL };

	ck_assert_int_eq(schedule_due_ms(&schedule, now, dues[_i].attempts, dues[_i].tried_wall_ms),
	    MONO + dues[_i].due_in_ms);
}
END_TEST

static const struct {
	const char *what;
	int64_t received_wall_ms, mono_ms;
	bool expired;
} ages[] = {
	{ "fresh", WALL, MONO, false },
	{ "a moment before", WALL - 431999999, MONO, false },
	{ "five days", WALL - 432000000, MONO, true },
	{ "grown old while we ran", WALL, MONO + 432000000, true },
	{ "from the future", WALL + 864000000, MONO + 431999999, false },
	{ "from the future, grown old", WALL + 864000000, MONO + 432000000, true },
};

START_TEST(a_message_expires_by_the_monotonic_clock)
{
	struct schedule_now now = { .mono_ms = MONO, .wall_ms = WALL };
	int64_t born = schedule_born_ms(now, ages[_i].received_wall_ms);

	ck_assert(schedule_expired(&schedule, ages[_i].mono_ms, born) == ages[_i].expired);
}
END_TEST

struct waiter {
	struct schedule_node node;
	int64_t due_ms; /* as it should be; -1: not in the heap */
};

#define WAITERS 500

static int64_t
earliest(const struct waiter *v)
{
	int64_t least = INT64_MAX;

	for (size_t i = 0; i < WAITERS; i++)
		if (v[i].due_ms >= 0 && v[i].due_ms < least)
			least = v[i].due_ms;
	return least;
}

START_TEST(the_heap_gives_the_earliest_whatever_was_put_moved_and_removed)
{
	static struct waiter v[WAITERS];
	struct schedule_heap heap = { 0 };

	srandom(1);
	for (size_t i = 0; i < WAITERS; i++)
		v[i].due_ms = -1;
	for (unsigned step = 0; step < 20000; step++) {
		struct waiter *w = &v[random() % WAITERS];

		if (random() % 3 == 0) {
			schedule_remove(&heap, &w->node);
			w->due_ms = -1;
		} else {
			w->due_ms = random() % 1000;
			ck_assert_int_eq(schedule_put(&heap, &w->node, w->due_ms), 0);
		}
		if (schedule_first(&heap) == NULL)
			ck_assert_int_eq(earliest(v), INT64_MAX);
		else
			ck_assert_int_eq(schedule_first(&heap)->due_ms, earliest(v));
	}
	while (schedule_first(&heap) != NULL) {
		struct waiter *w = container_of(schedule_first(&heap), struct waiter, node);

		ck_assert_int_eq(w->due_ms, earliest(v));
		schedule_remove(&heap, &w->node);
		w->due_ms = -1;
	}
	ck_assert_int_eq(earliest(v), INT64_MAX);
	schedule_heap_fini(&heap);
}
END_TEST

UNIT_SUITE(delivery_schedule)
{
	UNIT_ROWS(the_last_delay_repeats, delays);
	UNIT_ROWS(a_stored_time_never_holds_mail_back_longer_than_the_schedule, dues);
	UNIT_ROWS(a_message_expires_by_the_monotonic_clock, ages);
	UNIT_TEST(the_heap_gives_the_earliest_whatever_was_put_moved_and_removed);
}
