/* tests/unit/state/gcra_test.c - the arithmetic of counters. */
#include "relayd/state/gcra.h"
#include "unit/unit.h"

#define S 1000000ll

static const struct row {
	uint64_t count;
	uint32_t period_s;
	unsigned at_once; /* conform in one moment */
	int64_t then_us;  /* after which exactly one more does */
} rows[] = {
	{ 1, 1, 1, 1 * S },
	{ 1, 3600, 1, 3600 * S },
	{ 2, 60, 2, 30 * S },
	{ 7, 60, 7, 60 * S / 7 },
	{ 100, 60, 100, 600000 },
	{ 20, 3600, 20, 180 * S },
	{ 1000000, 1, 1000000, 1 },
};

START_TEST(a_burst_of_count_conforms_then_one_a_step)
{
	const struct row *r = &rows[_i];
	struct gcra g = { r->count, r->period_s };
	int64_t tat = 0, now = 1700000000 * S;
	uint32_t retry;

	for (unsigned i = 0; i < r->at_once; i++)
		ck_assert(gcra_take(&g, &tat, now, &retry));
	ck_assert(!gcra_take(&g, &tat, now, &retry));
	ck_assert_int_ge(retry, r->then_us / 1000);
	ck_assert_int_le(retry, r->then_us / 1000 + 1);
	ck_assert(!gcra_take(&g, &tat, now + r->then_us - 1, &retry));
	ck_assert(gcra_take(&g, &tat, now + r->then_us, &retry));
	ck_assert(!gcra_take(&g, &tat, now + r->then_us, &retry));
}
END_TEST

START_TEST(what_is_given_back_can_be_taken_again)
{
	struct gcra g = { 3, 60 };
	int64_t tat = 0, now = 5000 * S;
	uint32_t retry;

	for (int i = 0; i < 3; i++)
		ck_assert(gcra_take(&g, &tat, now, &retry));
	gcra_give_back(&g, &tat, tat, now);
	ck_assert(gcra_take(&g, &tat, now, &retry));
	ck_assert(!gcra_take(&g, &tat, now, &retry));
}
END_TEST

/* Who holds on to what was taken until it has lapsed must not make room for more by giving it
 * back. */
START_TEST(what_time_has_undone_is_not_given_back)
{
	struct gcra g = { 2, 60 };
	int64_t tat = 0, held, now = 5000 * S;
	uint32_t retry;

	ck_assert(gcra_take(&g, &tat, now, &retry));
	held = tat;
	now += 40 * S;
	ck_assert(gcra_take(&g, &tat, now, &retry) && gcra_take(&g, &tat, now, &retry));
	gcra_give_back(&g, &tat, held, now);
	ck_assert(!gcra_take(&g, &tat, now, &retry));
	ck_assert_uint_eq(retry, 30000);
	/* A third of it still counts. */
	held = tat;
	gcra_give_back(&g, &tat, held, held - 10 * S);
	ck_assert_int_eq(tat, held - 10 * S);
}
END_TEST

START_TEST(a_refusal_costs_nothing)
{
	struct gcra g = { 1, 10 };
	int64_t tat = 0, now = 100 * S;
	uint32_t retry;

	ck_assert(gcra_take(&g, &tat, now, &retry));
	for (int i = 0; i < 1000; i++)
		ck_assert(!gcra_take(&g, &tat, now + i, &retry));
	ck_assert(gcra_take(&g, &tat, now + 10 * S, &retry));
}
END_TEST

START_TEST(a_clock_set_back_blocks_for_one_period_at_most)
{
	struct gcra g = { 5, 60 };
	int64_t tat = 0, now = 1000000 * S;
	uint32_t retry;

	for (int i = 0; i < 5; i++)
		ck_assert(gcra_take(&g, &tat, now, &retry));
	now -= 86400 * S;
	ck_assert(!gcra_take(&g, &tat, now, &retry));
	ck_assert_int_le(retry, 60000);
	ck_assert(gcra_take(&g, &tat, now + 60 * S, &retry));
}
END_TEST

START_TEST(a_count_past_the_microseconds_of_the_period_is_no_overflow)
{
	struct gcra g = { UINT32_MAX, 1 };
	int64_t tat = 0, now = 1000000 * S;
	uint32_t retry;

	for (int i = 0; i < 100000; i++)
		ck_assert(gcra_take(&g, &tat, now, &retry));
}
END_TEST

UNIT_SUITE(state_gcra)
{
	UNIT_ROWS(a_burst_of_count_conforms_then_one_a_step, rows);
	UNIT_TEST(what_is_given_back_can_be_taken_again);
	UNIT_TEST(what_time_has_undone_is_not_given_back);
	UNIT_TEST(a_refusal_costs_nothing);
	UNIT_TEST(a_clock_set_back_blocks_for_one_period_at_most);
	UNIT_TEST(a_count_past_the_microseconds_of_the_period_is_no_overflow);
}
