/* tests/unit/delivery/refusal_test.c - what a refusal leads to: another attempt, a bounce, or the
 * quarantine. */
#include "relayd/core/counters.h"
#include "relayd/delivery/parts.h"
#include "unit/delivery/upstream.h"
#include "unit/unit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool
holds(const struct sink_message *m, const char *text)
{
	return memmem(m->bytes, m->len, text, strlen(text)) != NULL;
}

/* ---- another attempt ------------------------------------------------------------------------- */

START_TEST(a_temporary_refusal_is_tried_again)
{
	sink_say(upstream, "RCPT", NULL, "450 4.2.0 greylisted", 1);
	fixture_mail(&f, &(struct mail){ FROM, TO, SAFE });
	UNTIL(&f, f.delivery->queue.deferred.n == 1);
	ck_assert_uint_eq(sink_whole(upstream), 0);
	ck_assert_uint_eq(fixture_queued(&f), 1);
	UNTIL(&f, sink_count(upstream) == 1);
	UNTIL(&f, fixture_queued(&f) == 0);
}
END_TEST

START_TEST(each_recipient_has_its_own_outcome)
{
	sink_say(upstream, "RCPT", "two@", "450 4.2.0 later", 1);
	sink_say(upstream, "RCPT", "three@", "550 5.1.1 who?", 1);
	fixture_mail(
	    &f, &(struct mail){ FROM, SAFE,
		    .to = { "one@example.test", "two@example.test", "three@example.test" } });
	UNTIL(&f, sink_count(upstream) == 3); /* the first, the bounce, and the second again */
	for (size_t i = 0; i < 3; i++) {
		const struct sink_message *m = sink_message(upstream, i);
		bool bounce = m->reverse_path[0] == '\0';

		ck_assert_uint_eq(m->n_forward_paths, 1);
		if (bounce)
			ck_assert_str_eq(m->forward_paths[0], "sender@proven.test");
		else
			ck_assert_str_eq(
			    m->forward_paths[0], i == 0 ? "one@example.test" : "two@example.test");
	}
	UNTIL(&f, fixture_queued(&f) == 0);
}
END_TEST

START_TEST(the_outcome_of_some_recipients_survives_a_restart)
{
	sink_say(upstream, "RCPT", "two@", "450 4.2.0 later", 1);
	fixture_mail(&f, &(struct mail){ FROM, .to = { "one@example.test", "two@example.test" } });
	UNTIL(&f, sink_count(upstream) == 1 && fixture_queued_rcpts(&f) == 1);
	fixture_stop(&f, false);
	fixture_start(&f);
	UNTIL(&f, sink_count(upstream) == 2);
	ck_assert_uint_eq(sink_message(upstream, 1)->n_forward_paths, 1);
	ck_assert_str_eq(sink_message(upstream, 1)->forward_paths[0], "two@example.test");
	UNTIL(&f, fixture_queued(&f) == 0);
}
END_TEST

/* ---- who is told ----------------------------------------------------------------------------- */

START_TEST(a_proven_sender_gets_a_bounce_that_says_why)
{
	const struct sink_message *m;

	sink_say(upstream, "RCPT", "one@", "550 5.1.1 no such user here", 1);
	fixture_mail(&f, &(struct mail){ FROM, TO, SAFE, .params = "ENVID=abc",
			     .bytes = "Subject: lost\r\n\r\nbody of it\r\n" });
	UNTIL(&f, sink_count(upstream) == 1);
	m = sink_message(upstream, 0);
	ck_assert_str_eq(m->reverse_path, "");
	ck_assert_str_eq(m->forward_paths[0], "sender@proven.test");
	ck_assert(holds(m, "multipart/report"));
	ck_assert(holds(m, "Status: 5.1.1"));
	ck_assert(holds(m, "Final-Recipient: rfc822;one@example.test") ||
		  holds(m, "Final-Recipient: rfc822; one@example.test"));
	ck_assert(holds(m, "no such user here"));
	ck_assert(holds(m, "Subject: lost"));
	ck_assert(holds(m, "body of it"));
	UNTIL(&f, fixture_queued(&f) == 0);
	fixture_run_ms(&f, 100);
	ck_assert_uint_eq(sink_whole(upstream), 1);
}
END_TEST

START_TEST(who_asks_for_success_hears_of_it_once)
{
	const struct sink_message *m;

	fixture_mail(&f, &(struct mail){ FROM, TO, SAFE, .params = "ENVID=abc RET=FULL",
			     .rcpt_params = "NOTIFY=SUCCESS ORCPT=rfc822;first@example.test",
			     .bytes = "Subject: there\r\n\r\nbody of it\r\n" });
	UNTIL(&f, sink_count(upstream) == 2);
	m = sink_message(upstream, 1);
	ck_assert_str_eq(m->reverse_path, "");
	ck_assert_str_eq(m->forward_paths[0], "sender@proven.test");
	ck_assert(holds(m, "Action: relayed\r\nStatus: 2.0.0"));
	ck_assert(holds(m, "Original-Envelope-Id: abc"));
	ck_assert(holds(m, "Original-Recipient: rfc822;first@example.test"));
	ck_assert(holds(m, "Subject: there"));
	ck_assert(!holds(m, "body of it")); /* RFC 3461 section 4.3: RET is for failures */
	UNTIL(&f, fixture_queued(&f) == 0);
	fixture_stop(&f, false);
	fixture_start(&f);
	fixture_run_ms(&f, 200);
	ck_assert_uint_eq(sink_whole(upstream), 2);
}
END_TEST

static const struct mail untold[] = {
	{ .from = "", TO, SAFE },
	{ FROM, TO, SAFE, .rcpt_params = "NOTIFY=NEVER" },
	{ .from = "", TO, .flags = ENVELOPE_BOUNCE },
};

START_TEST(no_bounce_goes_where_none_is_wanted)
{
	sink_say(upstream, "RCPT", "one@", "550 5.1.1 no", 9);
	fixture_mail(&f, &untold[_i]);
	UNTIL(&f, sink_connections(upstream) > 0 && fixture_queued(&f) == 0);
	fixture_run_ms(&f, 100);
	ck_assert_uint_eq(sink_whole(upstream), 0);
	ck_assert_uint_eq(fixture_queued(&f), 0);
}
END_TEST

START_TEST(a_bounce_that_is_refused_goes_to_the_postmaster)
{
	const struct sink_message *m;

	sink_say(upstream, "RCPT", "one@", "550 5.1.1 no such user", 1);
	sink_say(upstream, "RCPT", "sender@", "550 5.2.1 closed", 9);
	fixture_mail(&f, &(struct mail){ FROM, TO, SAFE });
	UNTIL(&f, sink_count(upstream) == 1 && fixture_queued(&f) == 0);
	m = sink_message(upstream, 0);
	ck_assert_str_eq(m->reverse_path, "");
	ck_assert_str_eq(m->forward_paths[0], "postmaster@ours.test");
	ck_assert(holds(m, "closed"));
	ck_assert(holds(m, "sender@proven.test"));
}
END_TEST

START_TEST(a_bounce_that_is_refused_makes_no_other)
{
	sink_say(upstream, "RCPT", NULL, "550 5.1.1 no", 9);
	fixture_mail(&f, &(struct mail){ FROM, TO, SAFE });
	UNTIL(&f, sink_connections(upstream) > 0 && fixture_queued(&f) == 0);
	fixture_run_ms(&f, 200);
	ck_assert_uint_eq(sink_whole(upstream), 0);
	ck_assert_uint_eq(fixture_queued(&f), 0);
}
END_TEST

/* How many wait for a time before that. */
static size_t
due_before(int64_t ms)
{
	const struct schedule_heap *h = &f.delivery->queue.deferred;
	size_t n = 0;

	for (size_t i = 1; i <= h->n; i++)
		n += h->v[i]->due_ms < ms;
	return n;
}

START_TEST(bounces_beyond_the_limit_come_later)
{
	fixture_stop(&f, false);
	fixture_config(&f,
	    "route \"*\" { to = { \"127.0.0.1:%u\" }  tls = off  recipients = any }\n"
	    "queue { retry = { 1s, 5m }  expire = 1h  warn = 0s  reserve = 0K  bounces = 2 }\n",
	    sink_port(upstream));
	fixture_start(&f);
	sink_say(upstream, "RCPT", "one@", "550 5.1.1 no", 99);
	fixture_mails(&f, &(struct mail){ FROM, TO, SAFE }, 9);
	UNTIL(&f, sink_count(upstream) == 2 && f.delivery->queue.deferred.n == 7);
	fixture_run_ms(&f, 100);
	ck_assert_uint_eq(sink_count(upstream), 2);
	/* The next hop is not asked for all of them each minute. */
	for (int64_t minute = 1; minute <= 3; minute++)
		ck_assert_uint_eq(
		    due_before(f.delivery->bounces_ms + minute * 60000 + 1), 2 * minute);
}
END_TEST

START_TEST(a_sender_is_warned_once_that_his_mail_is_late)
{
	const struct sink_message *m;

	sink_say(upstream, "RCPT", "one@", "450 4.2.1 mailbox is busy", 99);
	fixture_mail(&f, &(struct mail){ FROM, TO, SAFE, .age_ms = 31 * 60000,
			     .bytes = "Subject: late\r\n\r\nbody\r\n" });
	/* The pass before it came was over: another one is a minute away, and at each start. */
	UNTIL(&f, sink_connections(upstream) > 0);
	fixture_run_ms(&f, 200);
	fixture_stop(&f, true);
	fixture_start(&f);
	UNTIL(&f, sink_count(upstream) == 1);
	m = sink_message(upstream, 0);
	ck_assert_str_eq(m->forward_paths[0], "sender@proven.test");
	ck_assert(holds(m, "Action: delayed"));
	ck_assert(holds(m, "Status: 4.2.1"));
	ck_assert(holds(m, "mailbox is busy"));
	ck_assert(holds(m, "We keep trying") || holds(m, "we keep trying"));
	ck_assert(holds(m, "Subject: late"));
	ck_assert(!holds(m, "\r\n\r\nbody\r\n")); /* RFC 3461 section 4.3: RET is for failures */
	ck_assert(holds(m, "Last-Attempt-Date: "));
	UNTIL(&f, fixture_queued(&f) == 1);
	fixture_stop(&f, true);
	fixture_start(&f);
	UNTIL(&f, fixture_ready(&f));
	fixture_run_ms(&f, 300);
	ck_assert_uint_eq(sink_count(upstream), 1);
}
END_TEST

/* 530 is about us, and the admin has to mend it: mail waits (RFC 3464 section 2.3.4: 4.X.X with
 * "delayed"). */
START_TEST(a_warning_has_a_status_of_what_may_pass)
{
	const struct sink_message *m;

	sink_say(upstream, "RCPT", "one@", "530 5.7.0 Must issue a STARTTLS command first", 99);
	fixture_mail(&f, &(struct mail){ FROM, TO, SAFE, .age_ms = 31 * 60000 });
	UNTIL(&f, f.delivery->queue.deferred.n == 1);
	f.delivery->warn_ms = 1; /* as if a minute had passed */
	UNTIL(&f, sink_count(upstream) == 1);
	m = sink_message(upstream, 0);
	ck_assert(holds(m, "Action: delayed"));
	ck_assert(holds(m, "Status: 4.7.0\r\n"));
	ck_assert(holds(m, "530 5.7.0 Must issue a STARTTLS command first"));
}
END_TEST

/* Each look at one of them reads it from the disk, and there may be a million. */
START_TEST(who_cannot_be_warned_in_this_minute_is_not_looked_at)
{
	int64_t hits;

	fixture_stop(&f, true);
	fixture_config(&f,
	    "route \"example.test\" { to = { \"127.0.0.1:1\" }  tls = off  recipients = any }\n"
	    "route \"*\" { to = { \"127.0.0.1:%u\" }  tls = off  recipients = any }\n"
	    "queue { retry = { 1h }  expire = 2h  warn = 1m  reserve = 0K  bounces = 2 }\n",
	    sink_port(upstream));
	fixture_mails(&f, &(struct mail){ FROM, TO, SAFE, .age_ms = 31 * 60000 }, 50);
	fixture_start(&f);
	UNTIL(&f, fixture_ready(&f) && f.delivery->n_attempts == 0);
	fixture_run_ms(&f, 300);
	f.delivery->warn_ms = 1; /* as if the minute had passed */
	hits = counter_get(COUNTER_LIMIT_HITS);
	UNTIL(&f, sink_count(upstream) == 2 && fixture_queued(&f) == 50);
	fixture_run_ms(&f, 200);
	ck_assert_uint_eq(sink_count(upstream), 2);
	ck_assert_int_le(counter_get(COUNTER_LIMIT_HITS), hits + 1);
	/* Nor is one forgotten. */
	f.delivery->bounces_ms = f.delivery->warn_ms = 1;
	UNTIL(&f, sink_count(upstream) == 4 && fixture_queued(&f) == 50);
}
END_TEST

START_TEST(what_expires_bounces_after_a_failed_attempt)
{
	fixture_stop(&f, true);
	fixture_config(&f,
	    "route \"example.test\" { to = { \"127.0.0.1:1\" }  tls = off  recipients = any }\n"
	    "route \"*\" { to = { \"127.0.0.1:%u\" }  tls = off  recipients = any }\n"
	    "queue { retry = { 1s }  expire = 1h  warn = 30m  reserve = 0K }\n",
	    sink_port(upstream));
	fixture_start(&f);
	fixture_mail(&f, &(struct mail){ FROM, TO, SAFE, .age_ms = 3700000 });
	fixture_mail(&f, &(struct mail){ FROM, .to = { "young@example.test" }, SAFE });
	UNTIL(&f, sink_count(upstream) == 1);
	ck_assert_str_eq(sink_message(upstream, 0)->forward_paths[0], "sender@proven.test");
	ck_assert(holds(sink_message(upstream, 0), "one@example.test"));
	ck_assert(!holds(sink_message(upstream, 0), "young@example.test"));
	UNTIL(&f, fixture_queued(&f) == 1);
}
END_TEST

START_TEST(the_old_are_sent_and_not_bounced_when_the_attempt_succeeds)
{
	fixture_mail(&f, &(struct mail){ FROM, TO, SAFE, .age_ms = 86400000 });
	UNTIL(&f, sink_count(upstream) == 1);
	ck_assert_str_eq(sink_message(upstream, 0)->reverse_path, "sender@proven.test");
	UNTIL(&f, fixture_queued(&f) == 0);
}
END_TEST

START_TEST(a_domain_that_is_none_fails_at_once)
{
	fixture_mail(&f, &(struct mail){ FROM, SAFE, .to = { "x@-bad-.test" } });
	UNTIL(&f, sink_count(upstream) == 1);
	ck_assert_str_eq(sink_message(upstream, 0)->forward_paths[0], "sender@proven.test");
	ck_assert(holds(sink_message(upstream, 0), "5.1.2"));
	UNTIL(&f, fixture_queued(&f) == 0);
}
END_TEST

static const struct {
	const char *domain, *status; /* NULL: it waits */
} names[] = {
	{ "null.test", "5.1.10" }, { "loop.test", "5.4.6" }, { "none.test", "5.1.2" },
	{ "failing.test", NULL }, { "nowhere.test", NULL }, /* its exchange has no address now */
};

START_TEST(what_the_dns_says_for_good_bounces_and_the_rest_waits)
{
	char to[64];

	fixture_stop(&f, true);
	fixture_dns(&f, "null.test MX 0 .\n"
			"loop.test MX 10 mx.ours.test\n"
			"failing.test SERVFAIL\n"
			"nowhere.test MX 10 gone.test\n");
	fixture_config(&f,
	    "route \"proven.test\" { to = { \"127.0.0.1:%u\" }  tls = off  recipients = any }\n"
	    "route \"*\" { to = { mx }  recipients = any }\n"
	    "queue { retry = { 1h }  expire = 2h  warn = 30m  reserve = 0K }\n",
	    sink_port(upstream));
	fixture_start(&f);
	snprintf(to, sizeof(to), "someone@%s", names[_i].domain);
	fixture_mail(&f, &(struct mail){ FROM, SAFE, .to = { to } });
	if (names[_i].status == NULL) {
		fixture_run_ms(&f, 1500);
		ck_assert_uint_eq(sink_whole(upstream), 0);
		ck_assert_uint_eq(fixture_queued(&f), 1);
		return;
	}
	UNTIL(&f, sink_count(upstream) == 1);
	ck_assert(holds(sink_message(upstream, 0), names[_i].status));
	ck_assert(holds(sink_message(upstream, 0), names[_i].domain));
	UNTIL(&f, fixture_queued(&f) == 0);
}
END_TEST

/* ---- what nobody may be told of is held ------------------------------------------------------ */

static struct sink *
quarantine_open(void)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/quarantine.sock", f.dir);
	return sink_open(path);
}

START_TEST(unproven_mail_that_is_refused_goes_to_the_quarantine)
{
	struct sink *quarantine = quarantine_open();
	const struct sink_message *m;

	sink_say(upstream, "RCPT", "one@", "550 5.1.1 no such user", 1);
	fixture_mail(
	    &f, &(struct mail){ .from = "forged@victim.test",
		    .to = { "one@example.test", "two@example.test" },
		    .bytes = "Subject: s\r\n\r\nbody\r\n",
		    .top = "X-Relayd-Id: old\r\nX-Relayd-Verdict: accept\r\nX-Relayd-Score: 2.5\r\n"
			   "X-Relayd-Findings: A=1.0,\r\n B=1.5\r\nReceived: by us\r\n" });
	UNTIL(&f, sink_count(upstream) == 1 && sink_count(quarantine) == 1);
	ck_assert_str_eq(sink_message(upstream, 0)->forward_paths[0], "two@example.test");
	m = sink_message(quarantine, 0);
	ck_assert_str_eq(m->reverse_path, "forged@victim.test");
	ck_assert_uint_eq(m->n_forward_paths, 1);
	ck_assert_str_eq(m->forward_paths[0], "one@example.test");
	ck_assert_ptr_nonnull(strstr(m->mail_params, "XID="));
	ck_assert(holds(m, "Return-Path: <forged@victim.test>\r\n"));
	ck_assert(holds(m, "X-Relayd-Verdict: quarantine\r\n"));
	ck_assert(!holds(m, "X-Relayd-Verdict: accept"));
	ck_assert(holds(m, "X-Relayd-Score: 2.5\r\n"));
	ck_assert(holds(m, "A=1.0, B=1.5\r\n"));
	ck_assert(holds(m, "X-Relayd-Reason: undeliverable: 550 5.1.1 no such user\r\n"));
	ck_assert(holds(m, "X-Relayd-To: <one@example.test>\r\n"));
	ck_assert(holds(m, "X-Relayd-Client: 192.0.2.7\r\n"));
	ck_assert(holds(m, "\r\nReceived: by us\r\nSubject: s\r\n\r\nbody\r\n"));
	UNTIL(&f, fixture_queued(&f) == 0);
	sink_close(quarantine);
}
END_TEST

START_TEST(a_large_undeliverable_message_is_held_whole)
{
	size_t len = 700000;
	char *bytes = malloc(len);
	struct sink *quarantine = quarantine_open();

	memset(bytes, 'x', len);
	for (size_t i = 78; i + 1 < len; i += 80)
		memcpy(bytes + i, "\r\n", 2);
	memcpy(bytes + len - 2, "\r\n", 2);
	sink_say(upstream, "RCPT", "one@", "550 5.1.1 no such user", 1);
	fixture_mail(&f, &(struct mail){ .from = "a@b.test", TO, .bytes = bytes, .len = len });
	UNTIL(&f, sink_count(quarantine) == 1);
	ck_assert_int_eq(
	    memcmp(sink_message(quarantine, 0)->bytes + sink_message(quarantine, 0)->len - len,
		bytes, len),
	    0);
	UNTIL(&f, fixture_queued(&f) == 0);
	sink_close(quarantine);
	free(bytes);
}
END_TEST

START_TEST(the_quarantine_may_refuse_as_often_as_it_likes)
{
	struct sink *quarantine;

	fixture_mail(
	    &f, &(struct mail){ FROM, TO, .route = ENVELOPE_QUARANTINE, .age_ms = 864000000 });
	fixture_run_ms(&f, 300);
	ck_assert_uint_eq(fixture_queued(&f), 1);
	quarantine = quarantine_open();
	sink_say(quarantine, ".", NULL, "550 5.0.0 broken", 1);
	UNTIL(&f, sink_count(quarantine) == 1);
	UNTIL(&f, fixture_queued(&f) == 0);
	ck_assert_uint_eq(sink_whole(quarantine), 2);
	ck_assert_uint_eq(sink_whole(upstream), 0);
	sink_close(quarantine);
}
END_TEST

UNIT_SUITE(delivery_refusal)
{
	tcase_add_checked_fixture(tc, set_up, tear_down);
	UNIT_TEST(a_temporary_refusal_is_tried_again);
	UNIT_TEST(each_recipient_has_its_own_outcome);
	UNIT_TEST(the_outcome_of_some_recipients_survives_a_restart);
	UNIT_TEST(a_proven_sender_gets_a_bounce_that_says_why);
	UNIT_TEST(who_asks_for_success_hears_of_it_once);
	UNIT_ROWS(no_bounce_goes_where_none_is_wanted, untold);
	UNIT_TEST(a_bounce_that_is_refused_goes_to_the_postmaster);
	UNIT_TEST(a_bounce_that_is_refused_makes_no_other);
	UNIT_TEST(bounces_beyond_the_limit_come_later);
	UNIT_TEST(a_sender_is_warned_once_that_his_mail_is_late);
	UNIT_TEST(a_warning_has_a_status_of_what_may_pass);
	UNIT_TEST(who_cannot_be_warned_in_this_minute_is_not_looked_at);
	UNIT_TEST(what_expires_bounces_after_a_failed_attempt);
	UNIT_TEST(the_old_are_sent_and_not_bounced_when_the_attempt_succeeds);
	UNIT_TEST(a_domain_that_is_none_fails_at_once);
	UNIT_ROWS(what_the_dns_says_for_good_bounces_and_the_rest_waits, names);
	UNIT_TEST(unproven_mail_that_is_refused_goes_to_the_quarantine);
	UNIT_TEST(a_large_undeliverable_message_is_held_whole);
	UNIT_TEST(the_quarantine_may_refuse_as_often_as_it_likes);
}
