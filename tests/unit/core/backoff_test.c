/* tests/unit/core/backoff_test.c - who failed waits, whoever counts it, and is forgotten in
 * time. */
#include "unit/unit.h"

#include "relayd/core/backoff.h"

#include <stdio.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

static struct backoff *
table(void)
{
	struct backoff *b =
	    mmap(NULL, sizeof(*b), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	ck_assert(b != MAP_FAILED);
	ck_assert_int_eq(backoff_init(b), 0);
	return b;
}

static void
failures(struct backoff *b, uint64_t whom, int times, int64_t now_ms)
{
	while (times-- > 0)
		backoff_failed(b, whom, now_ms);
}

START_TEST(failures_cost_time_and_are_forgotten)
{
	struct backoff *b = table();
	uint64_t whom = backoff_address(b, SLICE("\xc0\0\2\1"));

	failures(b, whom, BACKOFF_FREE, 1000);
	ck_assert_int_eq(backoff_wait_ms(b, whom, 1000), 0);
	backoff_failed(b, whom, 1000);
	ck_assert_int_eq(backoff_wait_ms(b, whom, 1000), BACKOFF_FIRST_MS);
	ck_assert_int_eq(backoff_wait_ms(b, whom, 1000 + BACKOFF_FIRST_MS - 1), 1);
	ck_assert_int_eq(backoff_wait_ms(b, whom, 1000 + BACKOFF_FIRST_MS), 0);
	backoff_failed(b, whom, 5000);
	ck_assert_int_eq(backoff_wait_ms(b, whom, 5000), 2 * BACKOFF_FIRST_MS);
	failures(b, whom, 100, 5000);
	ck_assert_int_eq(backoff_wait_ms(b, whom, 5000), BACKOFF_MAX_MS);
	ck_assert_int_eq(backoff_wait_ms(b, backoff_address(b, SLICE("\xc0\0\2\2")), 5000), 0);
	ck_assert_int_eq(backoff_wait_ms(b, whom, 5000 + BACKOFF_FORGET_MS), 0);
	backoff_failed(b, whom, 5000 + BACKOFF_FORGET_MS);
	ck_assert_int_eq(backoff_wait_ms(b, whom, 5000 + BACKOFF_FORGET_MS), 0);
	failures(b, whom, 10, 5000);
	backoff_passed(b, SLICE("ann"), SLICE("\xc0\0\2\1"), 5000);
	ck_assert_int_eq(backoff_wait_ms(b, whom, 5000), 0);
	backoff_passed(b, SLICE("ann"), SLICE("\xc0\0\2\1"), 5000); /* nothing is there */
}
END_TEST

START_TEST(nobody_can_make_a_user_wait_where_he_is_known)
{
	struct backoff *b = table();
	struct slice ann = SLICE("ann"), home = SLICE("\xc0\0\2\1"), away = SLICE("\xc0\0\2\2");
	int64_t later = 1000 + BACKOFF_KNOWN_MS;

	backoff_passed(b, ann, home, 1000);
	failures(b, backoff_user(b, ann), 10, 1000);
	ck_assert_int_eq(backoff_user_wait_ms(b, ann, home, 1000), 0);
	ck_assert_int_eq(backoff_user_wait_ms(b, ann, away, 1000), 64000);
	ck_assert_int_eq(backoff_user_wait_ms(b, SLICE("bob"), home, 1000), 0);
	/* His own success there frees nobody elsewhere. */
	backoff_passed(b, ann, home, 2000);
	ck_assert_int_eq(backoff_user_wait_ms(b, ann, away, 2000), 63000);
	/* And it is for a time. */
	failures(b, backoff_user(b, ann), 10, later + 1000);
	ck_assert_int_eq(backoff_user_wait_ms(b, ann, home, later + 999), 0);
	ck_assert_int_gt(backoff_user_wait_ms(b, ann, home, later + 1000), 0);
}
END_TEST

START_TEST(who_shares_an_address_may_not_guess_for_ever_between_his_own_logins)
{
	struct backoff *b = table();
	struct slice ann = SLICE("ann"), eve = SLICE("eve"), home = SLICE("\xc0\0\2\1");
	int guesses = 0;

	backoff_passed(b, ann, home, 1000);
	backoff_passed(b, eve, home, 1000);
	while (guesses < 100 && backoff_user_wait_ms(b, ann, home, 1000) == 0) {
		backoff_failed(b, backoff_address(b, home), 1000);
		backoff_user_failed(b, ann, home, 1000);
		guesses++;
		backoff_passed(b, eve, home, 1000);
	}
	ck_assert_int_eq(guesses, BACKOFF_FREE + 1);
	ck_assert_int_eq(backoff_user_wait_ms(b, eve, home, 1000), 0);
	/* Her own login clears that. */
	backoff_passed(b, ann, home, 1000 + BACKOFF_FIRST_MS);
	backoff_user_failed(b, ann, home, 1000 + BACKOFF_FIRST_MS);
	ck_assert_int_eq(backoff_user_wait_ms(b, ann, home, 1000 + BACKOFF_FIRST_MS), 0);
}
END_TEST

START_TEST(who_came_last_stays_known_when_many_are)
{
	struct backoff *b = table();
	struct slice home = SLICE("\xc0\0\2\1");
	unsigned known = 0;
	char name[32];

	failures(b, backoff_user(b, SLICE("name199999")), 10, 200000);
	for (int i = 0; i < 200000; i++) {
		int n = snprintf(name, sizeof(name), "name%d", i);

		backoff_passed(b, slice_of(name, (size_t)n), home, 1000 + i);
	}
	ck_assert_int_eq(backoff_user_wait_ms(b, SLICE("name199999"), home, 201000), 0);
	for (size_t i = 0; i < BACKOFF_SETS; i++)
		for (size_t k = 0; k < BACKOFF_WAYS; k++)
			known += atomic_load(&b->known[i][k]) != 0;
	ck_assert_uint_eq(known, BACKOFF_SETS * BACKOFF_WAYS);
}
END_TEST

START_TEST(a_client_is_its_address_or_net_and_no_user_is_one)
{
	struct backoff *b = table();
	struct slice v6 = SLICE("\x20\1\r\xb8\0\0\0\1\0\0\0\0\0\0\0\1");
	struct slice same = SLICE("\x20\1\r\xb8\0\0\0\1\1\2\3\4\5\6\7\x8");
	struct slice other = SLICE("\x20\1\r\xb8\0\0\0\2\0\0\0\0\0\0\0\1");

	ck_assert_uint_eq(backoff_address(b, v6), backoff_address(b, same));
	ck_assert_uint_ne(backoff_address(b, v6), backoff_address(b, other));
	ck_assert_uint_ne(backoff_address(b, SLICE("anna")), backoff_user(b, SLICE("anna")));
	ck_assert_uint_ne(backoff_address(b, SLICE("")), backoff_user(b, SLICE("")));
}
END_TEST

START_TEST(processes_count_together)
{
	enum { PROCESSES = 4, EACH = 10 };
	struct backoff *b = table();
	uint64_t whom = backoff_user(b, SLICE("ann"));

	for (int i = 0; i < PROCESSES; i++) {
		pid_t child = fork();

		ck_assert_int_ge(child, 0);
		if (child == 0) {
			failures(b, whom, EACH, 1000);
			_exit(0);
		}
	}
	for (int i = 0; i < PROCESSES; i++)
		ck_assert_int_gt(wait(NULL), 0);
	/* 40 of at most 63 that are counted: 23 more are not lost, and none was. */
	failures(b, whom, 23, 1000);
	for (size_t i = 0; i < BACKOFF_WAYS; i++) {
		uint64_t word = atomic_load(&b->places[whom % BACKOFF_SETS][i]);

		if (word != 0)
			ck_assert_uint_eq(word >> 38 & 63, 63);
	}
	ck_assert_int_eq(backoff_wait_ms(b, whom, 1000), BACKOFF_MAX_MS);
}
END_TEST

START_TEST(a_flood_of_names_does_not_free_who_fails_most)
{
	struct backoff *b = table();
	uint64_t whom = backoff_address(b, SLICE("\xc0\0\2\1"));
	char name[32];

	failures(b, whom, 10, 1000);
	for (int i = 0; i < 200000; i++) {
		int n = snprintf(name, sizeof(name), "name%d", i);

		backoff_failed(b, backoff_user(b, slice_of(name, (size_t)n)), 1000 + i);
	}
	ck_assert_int_gt(backoff_wait_ms(b, whom, 2000), 0);
	/* And nobody else waits for it, though no place is free. */
	for (int i = 0; i < 1000; i++) {
		int n = snprintf(name, sizeof(name), "other%d", i);

		ck_assert_int_eq(
		    backoff_wait_ms(b, backoff_user(b, slice_of(name, (size_t)n)), 2000), 0);
	}
}
END_TEST

UNIT_SUITE(core_backoff)
{
	UNIT_TEST(failures_cost_time_and_are_forgotten);
	UNIT_TEST(nobody_can_make_a_user_wait_where_he_is_known);
	UNIT_TEST(who_shares_an_address_may_not_guess_for_ever_between_his_own_logins);
	UNIT_TEST(who_came_last_stays_known_when_many_are);
	UNIT_TEST(a_client_is_its_address_or_net_and_no_user_is_one);
	UNIT_TEST(processes_count_together);
	UNIT_TEST(a_flood_of_names_does_not_free_who_fails_most);
}
