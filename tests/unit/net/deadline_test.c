/* A timer wheel, against a list that is searched: no deadline is early, none is late, none is
 * lost. */
#include "relayd/net/deadline.h"

#include "relayd/core/slice.h"
#include "relayd/net/round.h"
#include "unit/unit.h"

#include <stdlib.h>

#define HOURS (3600 * 1000ll)

static struct deadline *
only(struct deadline_wheel *w, int64_t now_ms)
{
	struct deadline *d = deadline_due(w, now_ms);

	ck_assert_ptr_null(deadline_due(w, now_ms));
	return d;
}

static const int64_t delays[] = { 1, 7, 8, 9, 100, 511, 512, 513, 30000, 32767, 32768, 32769,
	300 * 1000, 2097151, 2097152, 2097153, HOURS, 37 * HOURS, 38 * HOURS, 1000 * HOURS };

START_TEST(a_deadline_passes_within_a_tick)
{
	int64_t now = 1000003, at = now + delays[_i];
	struct deadline d = { 0 };
	struct deadline_wheel w;

	deadline_wheel_init(&w, now);
	ck_assert_int_eq(deadline_next(&w), 0);
	deadline_set(&w, &d, at);
	for (int64_t next; (next = deadline_next(&w)) < at;) {
		ck_assert_int_gt(next, 0);
		ck_assert_ptr_null(deadline_due(&w, next));
		ck_assert_int_gt(deadline_next(&w), next);
	}
	ck_assert_int_lt(deadline_next(&w), at + DEADLINE_TICK_MS);
	ck_assert_ptr_null(deadline_due(&w, at - 1));
	ck_assert_ptr_eq(only(&w, at + DEADLINE_TICK_MS), &d);
	ck_assert_int_eq(deadline_next(&w), 0);
}
END_TEST

START_TEST(a_deadline_that_moved_passes_at_its_new_time)
{
	int64_t now = 5000;
	struct deadline d = { 0 };
	struct deadline_wheel w;

	deadline_wheel_init(&w, now);
	deadline_set(&w, &d, now + 300000);
	deadline_set(&w, &d, now + 400000);
	ck_assert_ptr_null(only(&w, now + 399000));
	ck_assert_ptr_eq(only(&w, now + 400008), &d);

	deadline_set(&w, &d, now + 700000);
	deadline_set(&w, &d, now + 500000); /* sooner */
	ck_assert_ptr_eq(only(&w, now + 500008), &d);

	deadline_set(&w, &d, now + 600000);
	deadline_set(&w, &d, 0);
	ck_assert_ptr_null(only(&w, now + 800000));
	ck_assert_int_eq(deadline_next(&w), 0);

	deadline_set(&w, &d, now + 900000);
	deadline_set(&w, &d, 0);
	deadline_set(&w, &d, now + 850000); /* sooner than where it stood */
	ck_assert_ptr_eq(only(&w, now + 850008), &d);
	deadline_set(&w, &d, now - 5); /* past when it is set */
	ck_assert_ptr_eq(only(&w, now + 850016), &d);
}
END_TEST

START_TEST(a_deadline_that_is_dropped_is_forgotten)
{
	struct deadline first = { 0 }, second = { 0 };
	struct deadline_wheel w;

	deadline_wheel_init(&w, 1000);
	deadline_set(&w, &first, 2000);
	deadline_set(&w, &second, 2000);
	deadline_drop(&w, &first);
	deadline_drop(&w, &first);
	ck_assert_ptr_eq(only(&w, 3000), &second);
	deadline_set(&w, &first, 4000);
	deadline_drop(&w, &first);
	ck_assert_int_eq(deadline_next(&w), 0); /* nothing to wake up for */
}
END_TEST

/* Two of one time: what the first leads to may end or put off the second. */
START_TEST(one_that_is_due_may_change_another)
{
	struct deadline d[3] = { { 0 } }, *first, *next;
	struct deadline_wheel w;

	deadline_wheel_init(&w, 1000);
	for (size_t i = 0; i < 3; i++)
		deadline_set(&w, &d[i], 2000);
	first = deadline_due(&w, 2100);
	ck_assert_ptr_nonnull(first);
	deadline_drop(&w, &d[first == &d[0] ? 1 : 0]);
	next = &d[first == &d[2] ? 1 : 2];
	deadline_set(&w, next, 5000);
	ck_assert_ptr_null(deadline_due(&w, 4900));
	ck_assert_ptr_eq(only(&w, 5008), next);
}
END_TEST

#define MANY 200

/* The same done to a wheel and to a plain array. */
START_TEST(any_order_of_events_is_right)
{
	static struct deadline d[MANY];
	int64_t at[MANY] = { 0 }, now = 77 + _i;
	struct deadline_wheel w;

	srandom((unsigned)_i);
	memset(d, 0, sizeof(d));
	deadline_wheel_init(&w, now);
	for (int step = 0; step < 4000; step++) {
		size_t i = (size_t)random() % MANY;
		struct deadline *due;

		switch (random() % 5) {
		case 0:
			deadline_drop(&w, &d[i]);
			at[i] = 0;
			break;
		case 1:
			deadline_set(&w, &d[i], 0);
			at[i] = 0;
			break;
		default:
			at[i] = now + 1 + random() % (random() % 4 == 0 ? 5000000 : 3000);
			deadline_set(&w, &d[i], at[i]);
			break;
		}
		now += random() % (random() % 50 == 0 ? 3000000 : 40);
		while ((due = deadline_due(&w, now)) != NULL) {
			ck_assert_int_gt(at[due - d], 0);
			ck_assert_int_le(at[due - d], now);
			at[due - d] = 0;
		}
		for (i = 0; i < MANY; i++)
			ck_assert(at[i] == 0 || at[i] > now - DEADLINE_TICK_MS);
	}
}
END_TEST

/* ---- of a loop ------------------------------------------------------------------------------- */

struct bell {
	struct round_timer timer;
	unsigned rang;
};

static void
ring(struct round_timer *timer)
{
	container_of(timer, struct bell, timer)->rang++;
}

START_TEST(a_loop_wakes_up_for_its_deadlines_and_ends_without_them)
{
	struct bell soon = { .timer.run = ring }, never = { .timer.run = ring };
	struct round *r;
	uv_loop_t loop;
	int64_t before;

	ck_assert_int_eq(uv_loop_init(&loop), 0);
	r = round_ref(&loop);
	before = (int64_t)uv_now(&loop);
	round_timer_set(r, &never.timer, before + 100 * HOURS);
	round_timer_set(r, &soon.timer, before + 30);
	while (soon.rang == 0)
		uv_run(&loop, UV_RUN_ONCE);
	ck_assert_int_ge((int64_t)uv_now(&loop), before + 30);
	round_timer_drop(r, &never.timer);
	ck_assert_int_eq(uv_run(&loop, UV_RUN_DEFAULT), 0); /* nothing keeps it */
	ck_assert_uint_eq(soon.rang, 1);
	ck_assert_uint_eq(never.rang, 0);
	round_unref(r);
	uv_run(&loop, UV_RUN_DEFAULT);
	ck_assert_int_eq(uv_loop_close(&loop), 0);
}
END_TEST

UNIT_SUITE(deadline)
{
	UNIT_ROWS(a_deadline_passes_within_a_tick, delays);
	UNIT_TEST(a_deadline_that_moved_passes_at_its_new_time);
	UNIT_TEST(a_deadline_that_is_dropped_is_forgotten);
	UNIT_TEST(one_that_is_due_may_change_another);
	tcase_add_loop_test(tc, any_order_of_events_is_right, 0, 20);
	UNIT_TEST(a_loop_wakes_up_for_its_deadlines_and_ends_without_them);
}
