/* tests/unit/intake/spread_test.c - how many workers take connections, told by time, CPU and
 * sessions. */
#include "relayd/intake/spread.h"

#include "unit/unit.h"

#define WORKERS 3

static struct spread s;
static int64_t now_ms, cpu_us;

static void
setup(void)
{
	now_ms = 1000;
	cpu_us = 500;
	spread_init(&s, WORKERS, now_ms, cpu_us);
}

/* A connection after ms, of which the process was busy for that share, while so many were open. */
static void
comes(int64_t ms, int64_t percent, size_t sessions)
{
	unsigned before = s.now;
	bool due;

	now_ms += ms;
	cpu_us += ms * percent * 10;
	due = spread_is_due(&s, sessions, now_ms);
	ck_assert_int_eq(due && spread_update(&s, sessions, now_ms, cpu_us), s.now != before);
}

static void
come(int times, int64_t ms, int64_t percent, size_t sessions)
{
	while (times-- > 0)
		comes(ms, percent, sessions);
}

START_TEST(one_is_enough_for_little)
{
	ck_assert_uint_eq(s.now, 1);
	come(1000, 10, SPREAD_BUSY_PERCENT - 1, SPREAD_SESSIONS - 1);
	ck_assert_uint_eq(s.now, 1);
}
END_TEST

START_TEST(many_sessions_want_one_more_each_until_all_take_them)
{
	comes(1, 0, SPREAD_SESSIONS);
	ck_assert_uint_eq(s.now, 2);
	comes(1, 0, SPREAD_SESSIONS - 1);
	ck_assert_uint_eq(s.now, 2);
	comes(1, 0, SPREAD_SESSIONS);
	ck_assert_uint_eq(s.now, 3);
	come(10, 1, 0, 10 * SPREAD_SESSIONS);
	ck_assert_uint_eq(s.now, WORKERS);
}
END_TEST

START_TEST(a_busy_one_wants_help_once_a_sample)
{
	come(9, 10, 100, 1);
	ck_assert_uint_eq(s.now, 1); /* too short to tell */
	comes(10, 100, 1);
	ck_assert_uint_eq(s.now, 2);
	come(9, 10, 100, 1);
	ck_assert_uint_eq(s.now, 2);
	comes(10, SPREAD_BUSY_PERCENT, 1);
	ck_assert_uint_eq(s.now, 3);
	/* Also more than all of one core: the threads count. */
	comes(100, 300, 1);
	ck_assert_uint_eq(s.now, 3);
}
END_TEST

START_TEST(calm_for_a_while_takes_one_away)
{
	come(2, 1, 0, SPREAD_SESSIONS);
	ck_assert_uint_eq(s.now, 3);
	comes(100, 0, 1);
	comes(SPREAD_CALM_MS - 1, 0, 1);
	ck_assert_uint_eq(s.now, 3);
	comes(100, 0, 1);
	ck_assert_uint_eq(s.now, 2);
	comes(SPREAD_CALM_MS, 0, 1);
	ck_assert_uint_eq(s.now, 1);
	comes(10 * SPREAD_CALM_MS, 0, 1);
	ck_assert_uint_eq(s.now, 1);
}
END_TEST

static const struct {
	int64_t percent;
	size_t sessions;
} not_calm[] = { { SPREAD_CALM_PERCENT + 1, 1 }, { 0, SPREAD_CALM_SESSIONS } };

START_TEST(what_interrupts_the_calm_begins_it_anew)
{
	comes(1, 0, SPREAD_SESSIONS);
	comes(100, 0, 1);
	comes(SPREAD_CALM_MS - 200, 0, 1);
	comes(100, not_calm[_i].percent, not_calm[_i].sessions);
	comes(100, 0, 1);
	comes(SPREAD_CALM_MS - 100, 0, 1);
	ck_assert_uint_eq(s.now, 2);
	comes(100, 0, 1);
	ck_assert_uint_eq(s.now, 1);
}
END_TEST

START_TEST(one_worker_has_nothing_to_decide)
{
	spread_init(&s, 1, now_ms, cpu_us);
	come(10, 1000, 100, 10 * SPREAD_SESSIONS);
	ck_assert(!spread_is_due(&s, 10 * SPREAD_SESSIONS, now_ms + 100000));
	ck_assert_uint_eq(s.now, 1);
}
END_TEST

UNIT_SUITE(intake_spread)
{
	tcase_add_checked_fixture(tc, setup, NULL);
	UNIT_TEST(one_is_enough_for_little);
	UNIT_TEST(many_sessions_want_one_more_each_until_all_take_them);
	UNIT_TEST(a_busy_one_wants_help_once_a_sample);
	UNIT_TEST(calm_for_a_while_takes_one_away);
	UNIT_ROWS(what_interrupts_the_calm_begins_it_anew, not_calm);
	UNIT_TEST(one_worker_has_nothing_to_decide);
}
