/* tests/unit/delivery/deep_test.c - queues that are deeper than one round of the loop, or than memory should be. */
#include "relayd/core/counters.h"
#include "unit/delivery/fixture.h"
#include "unit/unit.h"

#include <string.h>

#define DEEP 15000 /* messages: more than a hundred rounds take in */

static struct fixture f;
static struct sink *upstream;

static void
set_up(void)
{
	fixture_init(&f);
	upstream = sink_open(NULL);
	fixture_config_to(&f, sink_port(upstream));
}

static void
tear_down(void)
{
	fixture_fini(&f);
	sink_close(upstream);
}

static size_t
bounces(void)
{
	const struct sink_message *m;
	size_t n = 0;

	for (size_t i = 0; (m = sink_message(upstream, i)) != NULL; i++)
		n += m->reverse_path[0] == '\0';
	return n;
}

START_TEST(old_mail_leaves_while_the_rest_is_read_and_bounces_wait_for_the_end_of_that)
{
	int64_t before = counter_get(COUNTER_BOUNCED);

	sink_say(upstream, "RCPT", "one@", "550 5.1.1 no such user", 1000000);
	fixture_mail(&f, &(struct mail){ .from = "who@proven.test",
			     .to = { "one@example.test" },
			     .flags = ENVELOPE_AUTHENTIC });
	fixture_mails(
	    &f, &(struct mail){ .from = "a@example.net", .to = { "two@example.test" } }, DEEP);
	fixture_start(&f);
	UNTIL(&f, sink_count(upstream) > 0);
	ck_assert(!fixture_ready(&f));
	while (!fixture_ready(&f)) {
		ck_assert_int_eq(counter_get(COUNTER_BOUNCED), before);
		fixture_turn(&f);
	}
	UNTIL(&f, bounces() == 1);
}
END_TEST

UNIT_SUITE(delivery_deep)
{
	tcase_add_checked_fixture(tc, set_up, tear_down);
	UNIT_TEST(old_mail_leaves_while_the_rest_is_read_and_bounces_wait_for_the_end_of_that);
}
