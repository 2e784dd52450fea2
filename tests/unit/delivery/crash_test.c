/* tests/unit/delivery/crash_test.c - delivery is killed at random moments; nothing is lost, and
 * little is doubled. */
#include "relayd/core/log.h"
#include "unit/delivery/upstream.h"
#include "unit/unit.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#define ROUNDS    12
#define A_ROUND   25
#define MESSAGES  (ROUNDS * A_ROUND)
#define UNDER_WAY 40 /* transactions at one moment, at most: 20 connections, two each */

static void
on_round(uv_prepare_t *prepare)
{
	(void)prepare;
	log_flush();
}

static void
deliver_until_killed(void)
{
	struct delivery_options o = { .cfg = f.cfg, .poke_fd = -1, .lock_wait_ms = 5000 };
	uv_loop_t loop;
	uv_prepare_t round;
	struct err err;

	if (uv_loop_init(&loop) != 0)
		_exit(3);
	uv_prepare_init(&loop, &round);
	uv_prepare_start(&round, on_round);
	o.loop = &loop;
	if (delivery_open(&o, &err) == NULL)
		_exit(4);
	uv_run(&loop, UV_RUN_DEFAULT);
	_exit(5);
}

static pid_t
start_child(void)
{
	pid_t pid = fork();

	ck_assert_int_ge(pid, 0);
	if (pid == 0)
		deliver_until_killed();
	return pid;
}

static void
kill_child(pid_t pid)
{
	int status;

	ck_assert_int_eq(kill(pid, SIGKILL), 0);
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_msg(WIFSIGNALED(status), "delivery ended by itself: %d", WEXITSTATUS(status));
}

static void
send_some(unsigned first)
{
	for (unsigned i = first; i < first + A_ROUND; i++) {
		char from[64], bytes[64];

		snprintf(from, sizeof(from), "sender%u@proven.test", i);
		snprintf(bytes, sizeof(bytes), "Number: %u\r\n\r\nbody\r\n", i);
		fixture_mail(&f, &(struct mail){ .from = from,
				     .to = { "one@example.test" },
				     .flags = ENVELOPE_AUTHENTIC,
				     .bytes = bytes });
	}
}

/* Rounds of mail, each with a delivery that is killed after a while; then one that ends the
 * work. */
static void
run_rounds(void)
{
	srandom(7);
	for (unsigned round = 0; round < ROUNDS; round++) {
		pid_t pid;

		send_some(round * A_ROUND);
		pid = start_child();
		usleep((useconds_t)(random() % 60000));
		kill_child(pid);
	}
	fixture_start(&f);
	do { /* between a report and its reading the queue is empty, too */
		UNTIL(&f, fixture_ready(&f) && fixture_queued(&f) == 0);
		fixture_run_ms(&f, 100);
	} while (fixture_queued(&f) > 0);
}

/* The number that a message has in its header, or in its forward-path where that is a sender. */
static unsigned
number_of(const struct sink_message *m)
{
	unsigned n = MESSAGES;

	if (m->reverse_path[0] == '\0')
		ck_assert_int_eq(sscanf(m->forward_paths[0], "sender%u@", &n), 1);
	else
		ck_assert_int_eq(sscanf(m->bytes, "Number: %u", &n), 1);
	ck_assert_uint_lt(n, MESSAGES);
	return n;
}

static void
each_came_and_few_twice(void)
{
	static unsigned came[MESSAGES];
	unsigned twice = 0;

	for (size_t i = 0; i < sink_whole(upstream); i++)
		came[number_of(sink_message(upstream, i))]++;
	for (unsigned i = 0; i < MESSAGES; i++) {
		ck_assert_msg(came[i] > 0, "message %u was lost", i);
		twice += came[i] - 1;
	}
	ck_assert_uint_le(twice, ROUNDS * UNDER_WAY);
}

START_TEST(no_message_is_lost_when_delivery_is_killed)
{
	sink_slow(upstream, 3);
	run_rounds();
	each_came_and_few_twice();
}
END_TEST

START_TEST(no_bounce_is_lost_when_delivery_is_killed)
{
	sink_slow(upstream, 3);
	sink_say(upstream, "RCPT", "one@", "550 5.1.1 no such user", 1000000);
	run_rounds();
	each_came_and_few_twice();
}
END_TEST

START_TEST(what_was_answered_a_moment_ago_is_not_sent_again)
{
	pid_t pid;

	for (unsigned round = 0; round < 5; round++) {
		send_some(round * A_ROUND);
		pid = start_child();
		UNTIL(&f, sink_count(upstream) == (round + 1) * A_ROUND);
		usleep(10000); /* the replies are on their way: less than a sync of the journal */
		kill_child(pid);
	}
	fixture_start(&f);
	UNTIL(&f, fixture_ready(&f) && fixture_queued(&f) == 0);
	fixture_run_ms(&f, 100);
	ck_assert_uint_eq(sink_whole(upstream), 5 * A_ROUND);
}
END_TEST

UNIT_SUITE(delivery_crash)
{
	tcase_add_checked_fixture(tc, set_up_stopped, tear_down);
	UNIT_TEST(no_message_is_lost_when_delivery_is_killed);
	UNIT_TEST(no_bounce_is_lost_when_delivery_is_killed);
	UNIT_TEST(what_was_answered_a_moment_ago_is_not_sent_again);
}
