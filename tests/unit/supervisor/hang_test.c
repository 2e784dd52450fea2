/* tests/unit/supervisor/hang_test.c - who is lost in a filter, and who only stands still. */
#include "relayd/supervisor/hang.h"

#include "unit/unit.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#define LOOKS 60

static struct counters_page page;
static struct hang_watch w;

static void
set_up(void)
{
	w = (struct hang_watch){ 0 };
	counters_use(&page, "intake", 0);
}

/* How many looks it takes until something is found, at most most. */
static unsigned
looks_until(enum hang expected, int pid, unsigned most)
{
	for (unsigned n = 1; n <= most; n++) {
		enum hang found = hang_look(&w, &page, pid, LOOKS);

		if (found == HANG_NONE)
			continue;
		ck_assert_int_eq(found, expected);
		return n;
	}
	return 0;
}

START_TEST(one_and_the_same_run_of_a_filter_hangs_when_it_has_been_seen_often_enough)
{
	counter_filter_begins("stuck");
	ck_assert_uint_eq(looks_until(HANG_FILTER, getpid(), 1000), LOOKS + 1);
	ck_assert_str_eq(page.filter, "stuck");
}
END_TEST

START_TEST(another_run_at_each_look_is_a_busy_worker)
{
	for (int i = 0; i < 10 * LOOKS; i++) {
		counter_filter_begins("quick");
		ck_assert_int_eq(hang_look(&w, &page, getpid(), LOOKS), HANG_NONE);
		counter_filter_ended();
	}
}
END_TEST

START_TEST(who_stands_still_outside_of_filters_does_not_hang)
{
	counter_filter_begins("quick");
	counter_filter_ended();
	ck_assert_uint_eq(looks_until(HANG_NONE, getpid(), 10 * LOOKS), 0);
}
END_TEST

START_TEST(a_run_that_ends_late_is_forgiven)
{
	counter_filter_begins("slow");
	ck_assert_uint_eq(looks_until(HANG_NONE, getpid(), LOOKS), 0);
	counter_filter_ended();
	counter_filter_begins("slow");
	ck_assert_uint_eq(looks_until(HANG_FILTER, getpid(), 1000), LOOKS + 1);
}
END_TEST

START_TEST(a_pool_hangs_until_one_comes_back)
{
	counter_pool_hangs(true);
	ck_assert_uint_eq(looks_until(HANG_NONE, getpid(), LOOKS - 1), 0);
	counter_pool_hangs(false);
	ck_assert_int_eq(hang_look(&w, &page, getpid(), LOOKS), HANG_NONE);
	counter_pool_hangs(true);
	ck_assert_uint_eq(looks_until(HANG_POOL, getpid(), 1000), LOOKS);
}
END_TEST

/* With a name that looks like another state. */
static pid_t
child_that_waits(void)
{
	pid_t pid = fork();

	if (pid == 0) {
		int fd = open("/proc/self/comm", O_WRONLY);

		if (fd >= 0 && write(fd, "a) T 1", 6) == 6)
			for (;;)
				(void)pause();
		_exit(1);
	}
	ck_assert_int_gt(pid, 0);
	return pid;
}

START_TEST(while_it_is_stopped_nothing_counts)
{
	pid_t pid = child_that_waits();
	int status;

	counter_filter_begins("debugged");
	counter_pool_hangs(true);
	ck_assert_uint_eq(looks_until(HANG_NONE, pid, LOOKS - 1), 0);
	ck_assert_int_eq(kill(pid, SIGSTOP), 0);
	ck_assert_int_eq(waitpid(pid, &status, WUNTRACED), pid);
	ck_assert(WIFSTOPPED(status));
	ck_assert_uint_eq(looks_until(HANG_NONE, pid, 10 * LOOKS), 0);
	ck_assert_int_eq(kill(pid, SIGCONT), 0);
	ck_assert_int_eq(waitpid(pid, &status, WCONTINUED), pid);
	ck_assert_uint_eq(looks_until(HANG_FILTER, pid, 1000), LOOKS);
	ck_assert_int_eq(kill(pid, SIGKILL), 0);
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
}
END_TEST

START_TEST(who_does_not_beat_is_silent_until_it_does)
{
	for (unsigned n = 0; n <= HANG_SILENT_LOOKS; n++) {
		ck_assert(!hang_is_silent(&w));
		ck_assert_int_eq(hang_look(&w, &page, getpid(), LOOKS), HANG_NONE);
	}
	ck_assert(hang_is_silent(&w));
	page.beat_ms -= 3600000; /* the clock was set */
	ck_assert_int_eq(hang_look(&w, &page, getpid(), LOOKS), HANG_NONE);
	ck_assert(!hang_is_silent(&w));
}
END_TEST

START_TEST(a_name_that_is_too_long_is_cut)
{
	counter_filter_begins("a-name-of-more-than-twenty-three-bytes");
	ck_assert_str_eq(page.filter, "a-name-of-more-than-twe");
}
END_TEST

UNIT_SUITE(supervisor_hang)
{
	tcase_add_checked_fixture(tc, set_up, NULL);
	UNIT_TEST(one_and_the_same_run_of_a_filter_hangs_when_it_has_been_seen_often_enough);
	UNIT_TEST(another_run_at_each_look_is_a_busy_worker);
	UNIT_TEST(who_stands_still_outside_of_filters_does_not_hang);
	UNIT_TEST(a_run_that_ends_late_is_forgiven);
	UNIT_TEST(a_pool_hangs_until_one_comes_back);
	UNIT_TEST(while_it_is_stopped_nothing_counts);
	UNIT_TEST(who_does_not_beat_is_silent_until_it_does);
	UNIT_TEST(a_name_that_is_too_long_is_cut);
}
