/* tests/unit/smtp/mx_test.c - the order of mail exchangers (RFC 5321 section 5.1, RFC 7505). */
#include "relayd/smtp/mx.h"

#include "unit/unit.h"

#include <stdio.h>

static uint32_t
draw(void *arg)
{
	uint64_t *seed = arg;

	*seed = *seed * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t)(*seed >> 33);
}

/* "10 a 20 b" into v. */
static size_t
parse(const char *text, struct mx_host *v)
{
	static char names[64][300];
	size_t n = 0;
	unsigned preference;
	int used;

	while (sscanf(text, " %u %299s%n", &preference, names[n], &used) == 2) {
		v[n] = (struct mx_host){ slice_str(names[n]), (uint16_t)preference };
		text += used;
		n++;
	}
	return n;
}

static const struct {
	const char *records;
	enum mx_verdict verdict;
	const char *order; /* where no equals leave it open */
} rows[] = {
	{ "", MX_IMPLICIT, "" },
	{ "0 .", MX_NULL, "" },
	{ "10 a.test", MX_HOSTS, "a.test " },
	{ "20 b.test 10 a.test 30 c.test", MX_HOSTS, "a.test b.test c.test " },
	{ "20 b.test. 10 a.test.", MX_HOSTS, "a.test b.test " },
	{ "10 . 20 b.test", MX_HOSTS, "b.test " },
	{ "10 a.test 20 mx.ours.test 30 c.test", MX_HOSTS, "a.test " },
	{ "10 a.test 20 b.test 20 MX.Ours.Test 30 c.test", MX_HOSTS, "a.test " },
	{ "10 mx.ours.test 20 b.test", MX_LOOP, "" },
	{ "10 b.test 10 mx.ours.test", MX_LOOP, "" },
	{ "10 mx.ours.test.", MX_LOOP, "" },
	{ "65535 b.test 0 a.test", MX_HOSTS, "a.test b.test " },
};

START_TEST(exchangers_stand_by_preference_and_none_at_or_behind_ourselves)
{
	struct mx_host v[64];
	char order[1024];

	for (uint64_t seed = 1; seed < 50; seed++) {
		uint64_t state = seed;
		size_t n = parse(rows[_i].records, v), len = 0;

		ck_assert_int_eq(
		    mx_order(v, &n, SLICE("mx.ours.test"), draw, &state), rows[_i].verdict);
		order[0] = '\0';
		for (size_t i = 0; rows[_i].verdict == MX_HOSTS && i < n; i++)
			len += (size_t)snprintf(
			    order + len, sizeof(order) - len, "%.*s ", SLICE_FMT(v[i].name));
		ck_assert_str_eq(order, rows[_i].order);
	}
}
END_TEST

START_TEST(equal_preferences_are_drawn_about_as_often_each)
{
	unsigned first[3] = { 0 };
	uint64_t state = 7;

	for (unsigned i = 0; i < 3000; i++) {
		struct mx_host v[8];
		size_t n = parse("10 a 10 b 10 c 20 d", v);

		ck_assert_int_eq(mx_order(v, &n, SLICE("x"), draw, &state), MX_HOSTS);
		ck_assert_uint_eq(n, 4);
		ck_assert_int_eq(v[3].name.p[0], 'd');
		first[v[0].name.p[0] - 'a']++;
	}
	for (unsigned i = 0; i < 3; i++)
		ck_assert_uint_gt(first[i], 800);
}
END_TEST

START_TEST(a_long_list_keeps_its_best)
{
	struct mx_host v[64];
	uint64_t state = 1;
	size_t n = 60;

	for (unsigned i = 0; i < 60; i++)
		v[i] = (struct mx_host){ SLICE("h.test"), (uint16_t)(60 - i) };
	ck_assert_int_eq(mx_order(v, &n, SLICE("x"), draw, &state), MX_HOSTS);
	ck_assert_uint_eq(n, MX_HOSTS_MAX);
	for (unsigned i = 0; i < n; i++)
		ck_assert_uint_eq(v[i].preference, i + 1);
}
END_TEST

UNIT_SUITE(smtp_mx)
{
	UNIT_ROWS(exchangers_stand_by_preference_and_none_at_or_behind_ourselves, rows);
	UNIT_TEST(equal_preferences_are_drawn_about_as_often_each);
	UNIT_TEST(a_long_list_keeps_its_best);
}
