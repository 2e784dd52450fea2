/* tests/unit/delivery/told_test.c - a report is safe, the record that it was made is not: whom it
 * tells of is not tried again, however often delivery starts. */
#include "unit/delivery/upstream.h"
#include "unit/unit.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define DEEP 15000 /* messages: more than a hundred rounds take in */

/* Whole messages that went there, of those that hold the text. */
static size_t
went_to(const char *path, const char *text)
{
	const struct sink_message *m;
	size_t n = 0;

	for (size_t i = 0; (m = sink_message(upstream, i)) != NULL; i++)
		for (size_t k = 0; k < m->n_forward_paths; k++)
			n += strcmp(m->forward_paths[k], path) == 0 &&
			     slice_find(slice_of(m->bytes, m->len), slice_str(text)) < m->len;
	return n;
}

static void
original(struct id id)
{
	fixture_mail(&f, &(struct mail){ .id = id,
			     .from = "sender@proven.test",
			     .to = { "one@example.test", "two@example.test" },
			     .bytes = "Subject: x\r\n\r\noriginal\r\n",
			     .flags = ENVELOPE_AUTHENTIC });
}

static void
report(struct id origin, enum envelope_tells tells)
{
	fixture_mail(&f, &(struct mail){ .origin = origin,
			     .tells = tells,
			     .from = "",
			     .to = { "sender@proven.test" },
			     .bytes = "Subject: x\r\n\r\nthe first report\r\n",
			     .flags = ENVELOPE_BOUNCE });
}

static void
deliver_all(void)
{
	fixture_start(&f);
	do { /* between a report and its reading the queue is empty, too */
		UNTIL(&f, fixture_ready(&f) && fixture_queued(&f) == 0);
		fixture_run_ms(&f, 100);
	} while (fixture_queued(&f) > 0);
	fixture_stop(&f, true);
}

static const struct {
	bool report_first;
	enum envelope_tells tells;
} orders[] = {
	{ false, ENVELOPE_TELLS_BOUNCED },
	{ true, ENVELOPE_TELLS_BOUNCED },
	{ false, ENVELOPE_TELLS_SENT },
	{ true, ENVELOPE_TELLS_QUARANTINED },
};

START_TEST(who_was_told_about_is_not_tried_again)
{
	struct id id = id_new();

	if (orders[_i].report_first)
		report(id, orders[_i].tells);
	original(id);
	if (!orders[_i].report_first)
		report(id, orders[_i].tells);
	deliver_all();
	ck_assert_uint_eq(went_to("sender@proven.test", "the first report"), 1);
	ck_assert_uint_eq(went_to("two@example.test", "original"), 1);
	ck_assert_uint_eq(went_to("one@example.test", "Subject:"), 0);
	deliver_all();
	ck_assert_uint_eq(sink_whole(upstream), 2);
}
END_TEST

START_TEST(who_was_not_told_about_gets_a_report_of_his_own)
{
	struct id id = id_new();

	sink_say(upstream, "RCPT", "@example.test", "550 5.1.1 no such user", 99);
	original(id);
	report(id, ENVELOPE_TELLS_BOUNCED);
	deliver_all();
	ck_assert_uint_eq(went_to("sender@proven.test", "the first report"), 1);
	ck_assert_uint_eq(went_to("sender@proven.test", "two@example.test"), 1);
	ck_assert_uint_eq(went_to("sender@proven.test", "one@example.test"), 0);
	ck_assert_uint_eq(sink_whole(upstream), 2);
}
END_TEST

/* The report is delivered and gone before its original could be tried again. */
START_TEST(a_report_that_has_gone_is_not_made_again_by_the_next_start)
{
	struct id id = id_new();

	sink_say(upstream, "RCPT", "two@", "450 4.2.0 later", 1);
	original(id);
	report(id, ENVELOPE_TELLS_BOUNCED);
	fixture_start(&f);
	UNTIL(&f, went_to("sender@proven.test", "the first report") == 1 &&
		      fixture_queued(&f) == 1 && fixture_queued_rcpts(&f) == 1);
	fixture_stop(&f, false);
	sink_say(upstream, "RCPT", "one@", "550 5.1.1 no such user", 99);
	deliver_all();
	ck_assert_uint_eq(went_to("two@example.test", "original"), 1);
	ck_assert_uint_eq(sink_whole(upstream), 2);
}
END_TEST

static const char *const replies[] = { "550 5.1.1 no such user", "450 4.2.0 later" };

/* It was tried before its report was read. */
START_TEST(who_is_being_tried_is_told_about_once)
{
	struct id id = id_new();

	sink_say(upstream, "RCPT", "one@", replies[_i], 1);
	sink_say(upstream, "RCPT", "one@", "550 5.1.1 no such user", 99);
	original(id);
	fixture_mails(
	    &f, &(struct mail){ .from = "a@example.net", .to = { "many@example.test" } }, DEEP);
	report(id, ENVELOPE_TELLS_BOUNCED);
	fixture_start(&f);
	while (sink_count(upstream) < 2) {
		ck_assert(!fixture_ready(&f));
		fixture_turn(&f);
		usleep(10000); /* the server is another thread, on a machine that may be busy */
	}
	UNTIL(&f, fixture_ready(&f) && fixture_queued(&f) == 0);
	fixture_stop(&f, true);
	deliver_all();
	ck_assert_uint_eq(went_to("two@example.test", "original"), 1);
	ck_assert_uint_eq(went_to("sender@proven.test", "Subject:"), 1);
	ck_assert_uint_eq(went_to("sender@proven.test", "the first report"), 1);
}
END_TEST

START_TEST(no_report_leaves_before_all_that_was_there_is_read)
{
	report(id_new(), ENVELOPE_TELLS_BOUNCED);
	fixture_mails(
	    &f, &(struct mail){ .from = "a@example.net", .to = { "many@example.test" } }, DEEP);
	fixture_start(&f);
	while (sink_count(upstream) == 0) {
		ck_assert(!fixture_ready(&f));
		fixture_turn(&f);
		usleep(10000); /* as above */
	}
	while (!fixture_ready(&f)) {
		ck_assert_uint_eq(went_to("sender@proven.test", "Subject:"), 0);
		fixture_turn(&f);
	}
	UNTIL(&f, went_to("sender@proven.test", "Subject:") == 1);
}
END_TEST

START_TEST(a_sender_who_was_warned_is_not_warned_again)
{
	struct id id = id_new();

	sink_say(upstream, "RCPT", "one@", "450 4.2.0 later", 99);
	fixture_mail(&f, &(struct mail){ .id = id,
			     .from = "sender@proven.test",
			     .to = { "one@example.test" },
			     .age_ms = 31 * 60000,
			     .flags = ENVELOPE_AUTHENTIC });
	report(id, ENVELOPE_TELLS_LATE);
	for (int start = 0; start < 3; start++) {
		fixture_start(&f);
		UNTIL(&f, fixture_ready(&f) && sink_count(upstream) == 1);
		fixture_run_ms(&f, 200);
		fixture_stop(&f, true);
	}
	ck_assert_uint_eq(sink_whole(upstream), 1);
}
END_TEST

UNIT_SUITE(delivery_told)
{
	tcase_add_checked_fixture(tc, set_up_stopped, tear_down);
	UNIT_ROWS(who_was_told_about_is_not_tried_again, orders);
	UNIT_TEST(who_was_not_told_about_gets_a_report_of_his_own);
	UNIT_TEST(a_report_that_has_gone_is_not_made_again_by_the_next_start);
	UNIT_ROWS(who_is_being_tried_is_told_about_once, replies);
	UNIT_TEST(no_report_leaves_before_all_that_was_there_is_read);
	UNIT_TEST(a_sender_who_was_warned_is_not_warned_again);
}
