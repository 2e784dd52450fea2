/* tests/unit/delivery/line_test.c - a line is fair by domain and by sender, and loses nobody. */
#include "relayd/delivery/line.h"

#include "unit/unit.h"

#include <stdio.h>
#include <stdlib.h>

#define FLOOD 20000

static struct line line;
static struct line_slot slots[FLOOD + 2];

static void
set_up(void)
{
	line = (struct line){ 0 };
	memset(slots, 0, sizeof(slots));
	srandom(11);
}

static struct line_slot *
slot_of(unsigned n, const char *domain, const char *sender)
{
	slots[n].line = &line;
	slots[n].flow[LINE_BY_DOMAIN] = line_flow_of(slice_str(domain));
	slots[n].flow[LINE_BY_SENDER] = line_flow_of(slice_str(sender));
	return &slots[n];
}

static void
take_all(void)
{
	while (line_take(&line) != NULL)
		continue;
	ck_assert_uint_eq(line.n, 0);
}

static const struct flood {
	unsigned domains, senders;   /* that the flood has */
	const char *domain, *sender; /* of the one who comes after it */
} floods[] = {
	{ 1, 1, "calm.test", "calm@example.net" },
	{ 1, 2000, "calm.test", "s7@example.net" }, /* to one domain */
	{ 2000, 1, "d7.test", "calm@example.net" }, /* of one sender */
	{ 1, 1, "d0.test", "calm@example.net" },    /* another sender to the domain of the flood */
	{ 1, 1, "calm.test", "s0@example.net" },    /* the sender of the flood to another domain */
};

START_TEST(who_comes_after_a_flood_waits_for_a_few_only)
{
	const struct flood *f = &floods[_i];
	struct line_slot *calm = slot_of(FLOOD, f->domain, f->sender), *slot;
	unsigned before = 0;

	for (unsigned i = 0; i < FLOOD; i++) {
		char domain[32], sender[32];

		snprintf(domain, sizeof(domain), "d%u.test", i % f->domains);
		snprintf(sender, sizeof(sender), "s%u@example.net", i % f->senders);
		line_join(slot_of(i, domain, sender), false);
	}
	line_join(calm, false);
	while ((slot = line_take(&line)) != calm) {
		ck_assert_ptr_nonnull(slot);
		before++;
	}
	ck_assert_uint_le(before, 4);
	take_all();
}
END_TEST

START_TEST(a_short_line_is_first_in_first_out)
{
	for (unsigned i = 0; i < 8; i++)
		line_join(slot_of(i, i % 2 ? "a" : "b", i % 3 ? "c" : "d"), false);
	for (unsigned i = 0; i < 8; i++)
		ck_assert_ptr_eq(line_take(&line), &slots[i]);
	ck_assert_ptr_null(line_take(&line));
}
END_TEST

START_TEST(one_flow_is_first_in_first_out_at_any_length)
{
	for (unsigned i = 0; i < FLOOD; i++)
		line_join(slot_of(i, "Example.ORG", "a@example.net"), false);
	for (unsigned i = 0; i < FLOOD; i++)
		ck_assert_ptr_eq(line_take(&line), &slots[i]);
}
END_TEST

START_TEST(who_is_put_in_front_is_next)
{
	char name[32];

	for (unsigned i = 0; i < 3000; i++) {
		snprintf(name, sizeof(name), "%u", i % 50);
		line_join(slot_of(i, name, name), false);
		if (i % 7 == 0) {
			slot_of(FLOOD, "17", "front");
			line_join(&slots[FLOOD], true);
			ck_assert_ptr_eq(line_take(&line), &slots[FLOOD]);
		}
	}
	take_all();
}
END_TEST

START_TEST(whoever_joins_is_walked_over_and_leaves_once)
{
	static bool in[2000];
	unsigned n = 0, walked, untold;

	for (unsigned round = 0; round < 60000; round++) {
		unsigned i = (unsigned)random() % 2000;
		bool more = round / 10000 % 2 == 0; /* it grows, and gets empty again */
		char domain[16], sender[16];
		struct line_slot *slot;

		snprintf(domain, sizeof(domain), "%u", i % 97);
		snprintf(sender, sizeof(sender), "%u", i % 61);
		if (!in[i] && more) {
			line_join(slot_of(i, domain, sender), random() % 8 == 0);
			in[i] = true;
			n++;
		} else if (in[i] && random() % 3 > 0) {
			line_leave(&slots[i]);
			in[i] = false;
			n--;
		} else if ((slot = line_take(&line)) != NULL) {
			ck_assert(in[slot - slots]);
			in[slot - slots] = false;
			n--;
		}
		ck_assert_uint_eq(line.n, n);
		if (in[i] && random() % 4 == 0)
			line_tell(&slots[i]);
		if (round % 1000 != 0)
			continue;
		walked = untold = 0;
		for (slot = line_first(&line); slot != NULL; slot = line_next(&line, slot)) {
			ck_assert(in[slot - slots]);
			walked++;
			untold += !slot->told;
		}
		ck_assert_uint_eq(walked, n);
		ck_assert_uint_eq(line.untold, untold);
	}
	take_all();
}
END_TEST

START_TEST(who_takes_a_place_has_it)
{
	for (unsigned i = 0; i < 100; i++)
		line_join(slot_of(i, "a", "b"), false);
	line_replace(&slots[0], &slots[FLOOD]);
	line_replace(&slots[99], &slots[FLOOD + 1]);
	ck_assert_ptr_eq(line_take(&line), &slots[FLOOD]);
	for (unsigned i = 1; i < 99; i++)
		ck_assert_ptr_eq(line_take(&line), &slots[i]);
	ck_assert_ptr_eq(line_take(&line), &slots[FLOOD + 1]);
	ck_assert_ptr_null(line_take(&line));
}
END_TEST

UNIT_SUITE(delivery_line)
{
	tcase_add_checked_fixture(tc, set_up, NULL);
	UNIT_ROWS(who_comes_after_a_flood_waits_for_a_few_only, floods);
	UNIT_TEST(a_short_line_is_first_in_first_out);
	UNIT_TEST(one_flow_is_first_in_first_out_at_any_length);
	UNIT_TEST(who_is_put_in_front_is_next);
	UNIT_TEST(whoever_joins_is_walked_over_and_leaves_once);
	UNIT_TEST(who_takes_a_place_has_it);
}
