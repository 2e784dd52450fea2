/* tests/unit/delivery/delivery_test.c - delivery on a real spool, against servers that misbehave as told. */
#include "relayd/core/clock.h"
#include "relayd/core/counters.h"
#include "relayd/delivery/parts.h"
#include "unit/delivery/fixture.h"

#include "unit/unit.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static struct fixture f;
static struct sink *upstream;

static void
set_up(void)
{
	upstream = fixture_init_upstream(&f);
	fixture_start(&f);
}

static void
tear_down(void)
{
	fixture_fini(&f);
	sink_close(upstream);
}

#define FROM .from = "sender@proven.test"
#define TO   .to = { "one@example.test" }
#define SAFE .flags = ENVELOPE_AUTHENTIC

/* ---- the usual way -------------------------------------------------------------------------- */

START_TEST(a_message_arrives_byte_for_byte_and_leaves_the_queue)
{
	static const char bytes[] = "Subject: dots\r\n\r\n.\r\n..two\r\n.one\r\nlast\r\n";
	const struct sink_message *m;

	fixture_mail(&f, &(struct mail){ FROM, TO, .bytes = bytes, .flags = ENVELOPE_DOTS,
			     .top = "Received: by us\r\n" });
	UNTIL(&f, sink_count(upstream) == 1);
	m = sink_message(upstream, 0);
	ck_assert_str_eq(m->reverse_path, "sender@proven.test");
	ck_assert_uint_eq(m->n_forward_paths, 1);
	ck_assert_str_eq(m->forward_paths[0], "one@example.test");
	ck_assert_uint_eq(m->len, strlen("Received: by us\r\n") + strlen(bytes));
	ck_assert_int_eq(memcmp(m->bytes, "Received: by us\r\n", 17), 0);
	ck_assert_int_eq(memcmp(m->bytes + 17, bytes, strlen(bytes)), 0);
	UNTIL(&f, fixture_queued(&f) == 0);
	fixture_stop(&f, true);
	fixture_start(&f);
	UNTIL(&f, fixture_ready(&f));
	ck_assert_uint_eq(fixture_queued(&f), 0);
	fixture_run_ms(&f, 100);
	ck_assert_uint_eq(sink_whole(upstream), 1);
}
END_TEST

START_TEST(a_connection_is_counted_once)
{
	int64_t opened = counter_get(COUNTER_OUT_CONNECTIONS);

	fixture_mail(&f, &(struct mail){ FROM, TO });
	UNTIL(&f, sink_count(upstream) == 1 && fixture_queued(&f) == 0);
	ck_assert_int_eq(counter_get(COUNTER_OUT_CONNECTIONS), opened + 1);
	ck_assert_int_eq(counter_get(COUNTER_OUT_OPEN), 1);
}
END_TEST

START_TEST(recipients_of_one_next_hop_share_transactions_of_a_hundred)
{
	fixture_mail(&f, &(struct mail){ FROM, .n_to = 250, .domain = "example.test" });
	UNTIL(&f, sink_recipients(upstream) == 250);
	ck_assert_uint_eq(sink_count(upstream), 3);
	UNTIL(&f, fixture_queued(&f) == 0);
}
END_TEST

START_TEST(connections_are_kept_for_many_messages)
{
	for (unsigned i = 0; i < 20; i++) {
		fixture_mails(&f, &(struct mail){ FROM, TO }, 20);
		UNTIL(&f, sink_count(upstream) == 20 * (i + 1));
	}
	ck_assert_uint_le(sink_connections(upstream), 20);
	UNTIL(&f, fixture_queued(&f) == 0);
}
END_TEST

START_TEST(a_large_message_streams_from_its_file)
{
	size_t len = 3u << 20;
	char *bytes = malloc(len);

	for (size_t i = 0; i < len; i++)
		bytes[i] = i % 80 == 78 ? '\r' : i % 80 == 79 ? '\n' : (char)('a' + i % 23);
	memcpy(bytes + len - 2, "\r\n", 2);
	fixture_mail(
	    &f, &(struct mail){ FROM, TO, .bytes = bytes, .len = len, .top = "X-Top: 1\r\n" });
	UNTIL(&f, sink_count(upstream) == 1);
	ck_assert_uint_eq(sink_message(upstream, 0)->len, len + 10);
	ck_assert_int_eq(memcmp(sink_message(upstream, 0)->bytes + 10, bytes, len), 0);
	UNTIL(&f, fixture_queued(&f) == 0);
	free(bytes);
}
END_TEST

START_TEST(mail_that_came_while_we_were_away_is_sent_by_the_same_reading)
{
	fixture_stop(&f, true);
	fixture_mails(&f, &(struct mail){ FROM, TO }, 50);
	fixture_start(&f);
	UNTIL(&f, sink_count(upstream) == 50);
	UNTIL(&f, fixture_queued(&f) == 0);
}
END_TEST

/* ---- refusals ------------------------------------------------------------------------------- */

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

static bool
holds(const struct sink_message *m, const char *text)
{
	return memmem(m->bytes, m->len, text, strlen(text)) != NULL;
}

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

START_TEST(bounces_beyond_the_limit_come_later)
{
	fixture_stop(&f, false);
	fixture_config(&f,
	    "route \"*\" { to = { \"127.0.0.1:%u\" }  tls = off  recipients = any }\n"
	    "queue { retry = { 1s }  expire = 1h  warn = 0s  reserve = 0K  bounces = 2 }\n",
	    sink_port(upstream));
	fixture_start(&f);
	sink_say(upstream, "RCPT", "one@", "550 5.1.1 no", 99);
	fixture_mails(&f, &(struct mail){ FROM, TO, SAFE }, 5);
	UNTIL(&f, sink_count(upstream) == 2 && fixture_queued(&f) == 3);
	fixture_run_ms(&f, 100);
	ck_assert_uint_eq(sink_count(upstream), 2);
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

START_TEST(hosts_of_one_priority_share_as_their_weights_say)
{
	struct sink *other = sink_open(NULL), *spare = sink_open(NULL);
	size_t n;

	fixture_stop(&f, false);
	fixture_config(&f,
	    "route \"*\" { to = { \"127.0.0.1:%u priority=9\", \"127.0.0.1:%u priority=5 "
	    "weight=3\", "
	    "\"127.0.0.1:%u priority=5\" }  tls = off  recipients = any }\n"
	    "queue { retry = { 1s }  expire = 1h  warn = 0s  reserve = 0K }\n",
	    sink_port(spare), sink_port(upstream), sink_port(other));
	fixture_start(&f);
	fixture_mails(&f, &(struct mail){ FROM, TO, SAFE }, 800);
	UNTIL(&f, sink_count(upstream) + sink_count(other) == 800);
	ck_assert_uint_eq(sink_count(spare), 0);
	n = sink_count(other);
	ck_assert_msg(n > 100 && n < 320, "%zu of 800", n);
	sink_close(other);
	sink_close(spare);
}
END_TEST

START_TEST(a_route_bounds_connections_and_rate_and_says_who_we_are)
{
	int64_t begun;

	fixture_stop(&f, false);
	fixture_config(&f,
	    "route \"*\" { to = { \"127.0.0.1:%u\" }  tls = off  recipients = any  "
	    "source = { 127.0.0.1 }  helo = out.ours.test  connections = 1  rate = \"20/1s\" }\n"
	    "queue { retry = { 1s }  expire = 1h  warn = 0s  reserve = 0K }\n",
	    sink_port(upstream));
	fixture_start(&f);
	sink_say(upstream, "EHLO", "mx.ours.test", "550 5.7.1 who?", 99);
	begun = fixture_limit();
	fixture_mails(&f, &(struct mail){ FROM, TO, SAFE }, 40);
	UNTIL(&f, sink_count(upstream) == 40);
	ck_assert_uint_eq(sink_peak(upstream), 1);
	ck_assert_int_ge(fixture_limit() - begun, 900); /* 20 at once, 20 in the second behind */
}
END_TEST

/* Mail to a next hop that takes one message in that time. */
static void
start_at_rate(const char *rate)
{
	fixture_stop(&f, false);
	fixture_config(&f,
	    "route \"*\" { to = { \"127.0.0.1:%u\" }  tls = off  recipients = any  connections = 9 "
	    "rate = \"%s\" }\n"
	    "queue { retry = { 1s }  expire = 2h  warn = 0s  reserve = 0K }\n",
	    sink_port(upstream), rate);
	fixture_start(&f);
}

START_TEST(mail_goes_around_a_message_that_takes_long)
{
	unsigned warm = 40;

	for (unsigned i = 1; i <= warm; i++) { /* such a next hop has few connections */
		fixture_mail(&f, &(struct mail){ FROM, TO, SAFE });
		UNTIL(&f, sink_count(upstream) == i);
	}
	UNTIL(&f, fixture_connections(&f) == 0);
	sink_slow(upstream, 8000);
	fixture_mail(&f, &(struct mail){ FROM, TO, SAFE });
	fixture_run_ms(&f, 1000); /* the sink has it, and will be slow with this one alone */
	sink_slow(upstream, 0);
	fixture_mails(&f, &(struct mail){ FROM, TO, SAFE }, 3);
	UNTIL(&f, sink_count(upstream) >= warm + 3);
	ck_assert_uint_eq(sink_count(upstream), warm + 3); /* it is not taken yet */
	UNTIL(&f, fixture_queued(&f) == 0);
}
END_TEST

START_TEST(no_connection_is_opened_for_what_the_rate_makes_wait)
{
	start_at_rate("1/1s");
	fixture_mails(&f, &(struct mail){ FROM, TO, SAFE }, 3);
	UNTIL(&f, sink_count(upstream) == 3);
	ck_assert_uint_eq(sink_connections(upstream), 1);
}
END_TEST

START_TEST(a_rate_is_kept_when_nothing_was_queued_for_long)
{
	start_at_rate("1/1h");
	fixture_mail(&f, &(struct mail){ FROM, TO, SAFE });
	UNTIL(&f, sink_count(upstream) == 1 && fixture_queued(&f) == 0);
	UNTIL(&f, fixture_connections(&f) == 0);
	fixture_run_ms(&f, 50);
	for (size_t i = 0; i < f.delivery->cap_hops; i++)
		for (struct hop *hop = f.delivery->hops[i]; hop != NULL; hop = hop->next)
			hop->used_ms -= HOP_IDLE_MS;
	hops_sweep(f.delivery, false);
	fixture_mail(&f, &(struct mail){ FROM, TO, SAFE });
	fixture_run_ms(&f, 300);
	ck_assert_uint_eq(sink_count(upstream), 1);
}
END_TEST

START_TEST(a_reload_with_another_rate_counts_at_once)
{
	struct err err;

	start_at_rate("1/1h");
	fixture_mails(&f, &(struct mail){ FROM, TO, SAFE }, 2);
	UNTIL(&f, sink_count(upstream) == 1 && fixture_queued(&f) == 1);
	ck_assert_int_eq(delivery_reload(f.delivery, f.cfg, &err), 0); /* the same: it has had its one */
	fixture_run_ms(&f, 300);
	ck_assert_uint_eq(sink_count(upstream), 1);
	fixture_config(&f,
	    "route \"*\" { to = { \"127.0.0.1:%u\" }  tls = off  recipients = any  connections = 9 "
	    "rate = \"100/1s\" }\n"
	    "queue { retry = { 1s }  expire = 2h  warn = 0s  reserve = 0K }\n",
	    sink_port(upstream));
	ck_assert_int_eq(delivery_reload(f.delivery, f.cfg, &err), 0);
	UNTIL(&f, sink_count(upstream) == 2);
}
END_TEST

START_TEST(a_host_in_trouble_hands_over_to_the_next_at_once)
{
	struct sink *other = sink_open(NULL);

	fixture_stop(&f, false);
	fixture_config(&f,
	    "route \"*\" { to = { \"127.0.0.1:%u\", \"127.0.0.1:%u\" }  tls = off  recipients = "
	    "any }\n"
	    "queue { retry = { 1h }  expire = 2h  warn = 0s  reserve = 0K }\n",
	    sink_port(upstream), sink_port(other));
	fixture_start(&f);
	sink_say(upstream, "MAIL", NULL, "452 4.3.1 disk full", 99);
	fixture_mail(&f, &(struct mail){ FROM, TO, SAFE });
	UNTIL(&f, sink_count(other) == 1 && fixture_queued(&f) == 0);
	sink_close(other);
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

START_TEST(unproven_mail_that_is_refused_goes_to_the_quarantine)
{
	char path[128];
	struct sink *quarantine;
	const struct sink_message *m;

	snprintf(path, sizeof(path), "%s/quarantine.sock", f.dir);
	quarantine = sink_open(path);
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
	char *bytes = malloc(len), path[128];
	struct sink *quarantine;

	snprintf(path, sizeof(path), "%s/quarantine.sock", f.dir);
	quarantine = sink_open(path);
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

/* ---- next hops in trouble --------------------------------------------------------------------- */

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

START_TEST(a_dead_next_hop_delays_nobody_else_and_drains_when_it_is_back)
{
	struct sink *back = sink_open(NULL);
	unsigned port = sink_port(back);

	sink_close(back);
	fixture_stop(&f, true);
	fixture_config(&f,
	    "route \"dead.test\" { to = { \"127.0.0.1:%u\" }  tls = off  recipients = any }\n"
	    "route \"*\" { to = { \"127.0.0.1:%u\" }  tls = off  recipients = any }\n"
	    "queue { retry = { 1s }  expire = 1h  warn = 30m  reserve = 0K }\n",
	    port, sink_port(upstream));
	fixture_start(&f);
	for (unsigned i = 0; i < 50; i++) {
		fixture_mails(&f, &(struct mail){ FROM, .to = { "a@dead.test" } }, 2);
		fixture_mails(&f, &(struct mail){ FROM, TO }, 2);
	}
	UNTIL(&f, sink_count(upstream) == 100 && fixture_queued(&f) == 100);
	back = sink_open_port(port);
	UNTIL(&f, sink_count(back) == 100);
	UNTIL(&f, fixture_queued(&f) == 0);
	sink_close(back);
}
END_TEST

START_TEST(the_second_host_serves_while_the_first_is_down)
{
	fixture_stop(&f, true);
	fixture_config(&f,
	    "route \"*\" { to = { \"127.0.0.1:1\", \"127.0.0.1:%u\" }  tls = off  recipients = any "
	    "}\n"
	    "queue { retry = { 1h }  expire = 2h  warn = 30m  reserve = 0K }\n",
	    sink_port(upstream));
	fixture_start(&f);
	fixture_mails(&f, &(struct mail){ FROM, TO }, 10);
	UNTIL(&f, sink_count(upstream) == 10);
}
END_TEST

static const struct {
	const char *what, *command, *reply; /* NULL: dropped */
	size_t whole;                       /* messages that came, in the end */
} dying[] = {
	{ "before the banner", "CONNECT", NULL, 1 },
	{ "with a banner of 421", "CONNECT", "421 4.3.2 closing", 1 },
	{ "with a banner of 554", "CONNECT", "554 5.3.2 no service", 1 },
	{ "at EHLO", "EHLO", NULL, 1 },
	{ "after MAIL", "MAIL", NULL, 1 },
	{ "after MAIL with 421", "MAIL", "421 4.3.2 closing", 1 },
	{ "at DATA", "DATA", NULL, 1 },
	{ "after the dot, without a reply", ".", NULL, 2 },
	{ "after the dot with 421", ".", "421 4.3.2 closing", 2 },
	{ "after the dot with 451", ".", "451 4.3.0 later", 2 },
};

START_TEST(an_upstream_that_dies_costs_a_retry_and_no_mail)
{
	sink_say(upstream, dying[_i].command, NULL, dying[_i].reply, 1);
	fixture_mail(&f, &(struct mail){ FROM, TO });
	UNTIL(&f, sink_count(upstream) == 1);
	UNTIL(&f, fixture_queued(&f) == 0);
	fixture_run_ms(&f, 100);
	ck_assert_uint_eq(sink_whole(upstream), dying[_i].whole);
}
END_TEST

START_TEST(the_quarantine_may_refuse_as_often_as_it_likes)
{
	char path[128];
	struct sink *quarantine;

	snprintf(path, sizeof(path), "%s/quarantine.sock", f.dir);
	fixture_mail(
	    &f, &(struct mail){ FROM, TO, .route = ENVELOPE_QUARANTINE, .age_ms = 864000000 });
	fixture_run_ms(&f, 300);
	ck_assert_uint_eq(fixture_queued(&f), 1);
	quarantine = sink_open(path);
	sink_say(quarantine, ".", NULL, "550 5.0.0 broken", 1);
	UNTIL(&f, sink_count(quarantine) == 1);
	UNTIL(&f, fixture_queued(&f) == 0);
	ck_assert_uint_eq(sink_whole(quarantine), 2);
	ck_assert_uint_eq(sink_whole(upstream), 0);
	sink_close(quarantine);
}
END_TEST

START_TEST(lmtp_replies_count_for_each_recipient)
{
	char path[128];
	struct sink *store;

	snprintf(path, sizeof(path), "%s/store.sock", f.dir);
	store = sink_open(path);
	fixture_stop(&f, true);
	fixture_config(&f,
	    "route \"example.test\" { to = { \"lmtp:%s\" }  recipients = any }\n"
	    "route \"*\" { to = { \"127.0.0.1:%u\" }  tls = off  recipients = any }\n"
	    "queue { retry = { 1s }  expire = 1h  warn = 30m  reserve = 0K }\n",
	    path, sink_port(upstream));
	fixture_start(&f);
	sink_say(store, ".", "two@", "452 4.2.2 full", 1);
	fixture_mail(&f, &(struct mail){ FROM, .to = { "one@example.test", "two@example.test" } });
	UNTIL(&f, sink_count(store) == 1);
	ck_assert_uint_eq(sink_message(store, 1)->n_forward_paths, 1);
	ck_assert_str_eq(sink_message(store, 1)->forward_paths[0], "two@example.test");
	UNTIL(&f, fixture_queued(&f) == 0);
	sink_close(store);
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

/* ---- many next hops ----------------------------------------------------------------------------- */

#define HOPS       40
#define MAILS_EACH 40

/* Next hops that are the same server, but do not know that. */
static void
many_hops(char *out, size_t cap)
{
	size_t len = 0;

	for (unsigned i = 0; i < HOPS; i++)
		len += (size_t)snprintf(out + len, cap - len,
		    "route \"d%u.test\" { to = { \"127.0.0.1:%u\", \"127.0.0.1:%u\" }  tls = off  "
		    "recipients = any }\n",
		    i, sink_port(upstream), i + 1);
}

START_TEST(many_busy_next_hops_share_the_connections)
{
	static char routes[HOPS * 128];
	unsigned early[HOPS] = { 0 };
	unsigned peak = 0, now;
	char to[32];

	many_hops(routes, sizeof(routes));
	fixture_stop(&f, true);
	fixture_config(
	    &f, "%s queue { retry = { 1h }  expire = 2h  warn = 30m  reserve = 0K }\n", routes);
	for (unsigned i = 0; i < HOPS; i++) {
		snprintf(to, sizeof(to), "x@d%u.test", i);
		fixture_mails(&f, &(struct mail){ FROM, .to = { to } }, MAILS_EACH);
	}
	sink_slow(upstream, 100);
	fixture_start(&f);
	fixture_never_stall(&f);
	/* Counted here and not in the sink, which may see a new one before the end of the old. */
	UNTIL(&f, (now = fixture_connections(&f), peak = now > peak ? now : peak,
		      sink_count(upstream) == HOPS * MAILS_EACH));
	ck_assert_uint_le(peak, HOPS_CONNECTIONS_MAX);
	ck_assert_uint_gt(sink_peak(upstream), HOPS_CONNECTIONS_MAX / 2);
	for (size_t i = 0; i < HOPS * MAILS_EACH / 2; i++) {
		unsigned n;

		ck_assert_int_eq(
		    sscanf(sink_message(upstream, i)->forward_paths[0], "x@d%u", &n), 1);
		early[n]++;
	}
	for (unsigned i = 0; i < HOPS; i++) /* in the first half each had its turns */
		ck_assert_uint_ge(early[i], MAILS_EACH / 8);
	UNTIL(&f, fixture_queued(&f) == 0);
}
END_TEST

/* A port that takes connections and never says a word; the descriptor of its socket. */
static int
listen_silently(unsigned *port)
{
	struct sockaddr_in addr = { .sin_family = AF_INET };
	socklen_t len = sizeof(addr);
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	ck_assert_int_eq(listen(fd, 1024), 0);
	ck_assert_int_eq(getsockname(fd, (struct sockaddr *)&addr, &len), 0);
	*port = ntohs(addr.sin_port);
	return fd;
}

/* Next hops at that port with a connection of their own.  Another one, to the upstream, may be there still or not. */
static unsigned
connected_at(unsigned port)
{
	char end[16];
	unsigned n = 0;

	snprintf(end, sizeof(end), ":%u", port);
	for (size_t i = 0; i < f.delivery->cap_hops; i++)
		for (const struct hop *hop = f.delivery->hops[i]; hop != NULL; hop = hop->next)
			n += hop->n_conns > 0 && slice_ends(slice_str(hop->route->name), slice_str(end));
	return n;
}

START_TEST(silent_next_hops_keep_their_connections_and_no_places)
{
	enum { SILENT = HOPS_CONNECTIONS_MAX + 20 };
	static char routes[SILENT * 96];
	unsigned port;
	int fd = listen_silently(&port);
	size_t len = 0;
	char to[32];

	for (unsigned i = 0; i < SILENT; i++)
		len += (size_t)snprintf(routes + len, sizeof(routes) - len,
		    "route \"d%u.test\" { to = { \"127.1.%u.%u:%u\" }  tls = off  recipients = any "
		    "}\n",
		    i, i / 250, i % 250 + 1, port);
	fixture_stop(&f, true);
	fixture_config(&f,
	    "%s route \"*\" { to = { \"127.0.0.1:%u\" }  tls = off  recipients = any }\n"
	    "queue { retry = { 1h }  expire = 2h  warn = 30m  reserve = 0K }\n",
	    routes, sink_port(upstream));
	for (unsigned i = 0; i < SILENT; i++) {
		snprintf(to, sizeof(to), "x@d%u.test", i);
		fixture_mail(&f, &(struct mail){ FROM, .to = { to } });
	}
	fixture_mail(&f, &(struct mail){ FROM, TO });
	fixture_start(&f);
	UNTIL(&f, sink_count(upstream) == 1);
	/* The upstream counts what it took before delivery has read that it did. */
	UNTIL(&f, fixture_queued(&f) == SILENT);
	UNTIL(&f, connected_at(port) == SILENT); /* each has its own after all */
	ck_assert_uint_eq(fixture_queued(&f), SILENT);
	close(fd);
}
END_TEST

/* ---- names and TLS ---------------------------------------------------------------------------- */

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

static const struct {
	const char *what, *tls, *ehlo;
	bool sent;
} tls_rows[] = {
	{ "offered and broken, opportunistic", "opportunistic", "250-sink\r\n250 STARTTLS", true },
	{ "not offered, opportunistic", "opportunistic", "250 sink", true },
	{ "offered and broken, verify", "verify", "250-sink\r\n250 STARTTLS", false },
	{ "not offered, verify", "verify", "250 sink", false },
	{ "offered and broken, off", "off", "250-sink\r\n250 STARTTLS", true },
};

START_TEST(without_tls_mail_goes_only_where_the_route_lets_it)
{
	sink_say(upstream, "EHLO", NULL, tls_rows[_i].ehlo, 1000);
	fixture_stop(&f, true);
	fixture_config(&f,
	    "route \"*\" { to = { \"127.0.0.1:%u\" }  tls = %s  recipients = any }\n"
	    "queue { retry = { 1h }  expire = 2h  warn = 30m  reserve = 0K }\n",
	    sink_port(upstream), tls_rows[_i].tls);
	fixture_start(&f);
	fixture_mail(&f, &(struct mail){ FROM, TO });
	if (tls_rows[_i].sent) {
		UNTIL(&f, sink_count(upstream) == 1 && fixture_queued(&f) == 0);
		return;
	}
	fixture_run_ms(&f, 500);
	ck_assert_uint_eq(sink_whole(upstream), 0);
	ck_assert_uint_eq(fixture_queued(&f), 1);
}
END_TEST

/* ---- once and only once ----------------------------------------------------------------------- */

START_TEST(a_release_key_delivers_once_also_over_restarts)
{
	struct mail m = { FROM, TO, .release_key = "abc-1" };

	fixture_mail(&f, &m);
	UNTIL(&f, sink_count(upstream) == 1);
	fixture_mail(&f, &m);
	fixture_run_ms(&f, 100);
	fixture_stop(&f, false);
	fixture_mail(&f, &m);
	fixture_start(&f);
	UNTIL(&f, fixture_ready(&f));
	fixture_run_ms(&f, 200);
	ck_assert_uint_eq(sink_whole(upstream), 1);
	ck_assert_uint_eq(fixture_queued(&f), 0);
	m.release_key = "abc-2";
	fixture_mail(&f, &m);
	UNTIL(&f, sink_count(upstream) == 2);
}
END_TEST

START_TEST(a_drop_before_the_release_key_is_safe_is_a_drop)
{
	struct queue_msg *msg;

	fixture_stop(&f, true);
	fixture_mail(&f, &(struct mail){ FROM, TO, .release_key = "abc-1" });
	fixture_start(&f);
	(void)tail_read(f.delivery);
	msg = f.delivery->queue.head;
	ck_assert_ptr_nonnull(msg);
	ck_assert_uint_eq(msg->open, 0); /* its key is being synced */
	settle_drop(f.delivery, msg);
	UNTIL(&f, fixture_queued(&f) == 0);
	fixture_run_ms(&f, 100);
	ck_assert_uint_eq(sink_whole(upstream), 0);
}
END_TEST

START_TEST(a_second_owner_of_the_spool_is_refused)
{
	struct delivery_options o = {
		.loop = &f.loop, .cfg = f.cfg, .poke_fd = -1, .lock_wait_ms = 50
	};
	struct err err;

	ck_assert_ptr_null(delivery_open(&o, &err));
	ck_assert_int_eq(err.code, ERR_BUSY);
}
END_TEST

START_TEST(a_drain_lets_what_is_under_way_finish)
{
	sink_slow(upstream, 300);
	fixture_mail(&f, &(struct mail){ FROM, TO });
	UNTIL(&f, f.delivery->n_attempts == 1 && f.delivery->busy_conns.head != NULL &&
		      conn_is_open(f.delivery->busy_conns.head));
	fixture_stop(&f, true);
	ck_assert_uint_eq(sink_count(upstream), 1);
	fixture_start(&f);
	UNTIL(&f, fixture_ready(&f));
	ck_assert_uint_eq(fixture_queued(&f), 0);
}
END_TEST

START_TEST(a_reload_sends_what_waits_by_the_new_routes)
{
	struct err err;

	fixture_stop(&f, true);
	fixture_config(&f, "route \"*\" { to = { \"127.0.0.1:1\" }  tls = off  recipients = any }\n"
			   "queue { retry = { 1h }  expire = 2h  warn = 30m  reserve = 0K }\n");
	fixture_start(&f);
	fixture_mails(&f, &(struct mail){ FROM, TO }, 200);
	fixture_run_ms(&f, 300);
	ck_assert_uint_eq(fixture_queued(&f), 200);
	fixture_config_to(&f, sink_port(upstream));
	ck_assert_int_eq(delivery_reload(f.delivery, f.cfg, &err), 0);
	UNTIL(&f, sink_count(upstream) == 200);
	UNTIL(&f, fixture_queued(&f) == 0);
}
END_TEST

START_TEST(what_was_deferred_before_a_reload_goes_by_the_new_routes)
{
	struct schedule_node *node;
	struct err err;

	fixture_dns(&f, "gone.test NXDOMAIN\n");
	sink_say(upstream, "RCPT", NULL, "450 4.2.1 later", 1);
	fixture_mail(&f, &(struct mail){ FROM, TO, SAFE });
	UNTIL(&f, f.delivery->queue.deferred.n == 1);
	fixture_stop(&f, true);
	fixture_config(&f,
	    "route \"*\" { to = { \"gone.test:25\" }  tls = off  recipients = any }\n"
	    "queue { retry = { 1h }  expire = 2h  warn = 30m  reserve = 0K }\n");
	fixture_start(&f);
	UNTIL(&f, fixture_ready(&f));
	ck_assert_uint_eq(f.delivery->queue.deferred.n, 1);
	fixture_config_to(&f, sink_port(upstream));
	ck_assert_int_eq(delivery_reload(f.delivery, f.cfg, &err), 0);
	node = schedule_first(&f.delivery->queue.deferred);
	ck_assert_ptr_nonnull(node);
	ck_assert_int_eq(schedule_put(&f.delivery->queue.deferred, node, clock_mono_ms()), 0);
	delivery_wake(f.delivery); /* as if the hour had passed */
	UNTIL(&f, fixture_queued(&f) == 0 && sink_count(upstream) == 1);
	ck_assert_str_eq(sink_message(upstream, 0)->reverse_path, "sender@proven.test");
}
END_TEST

UNIT_SUITE(delivery)
{
	tcase_add_checked_fixture(tc, set_up, tear_down);
	UNIT_TEST(a_message_arrives_byte_for_byte_and_leaves_the_queue);
	UNIT_TEST(a_connection_is_counted_once);
	UNIT_TEST(recipients_of_one_next_hop_share_transactions_of_a_hundred);
	UNIT_TEST(connections_are_kept_for_many_messages);
	UNIT_TEST(a_large_message_streams_from_its_file);
	UNIT_TEST(mail_that_came_while_we_were_away_is_sent_by_the_same_reading);
	UNIT_TEST(a_temporary_refusal_is_tried_again);
	UNIT_TEST(each_recipient_has_its_own_outcome);
	UNIT_TEST(the_outcome_of_some_recipients_survives_a_restart);
	UNIT_TEST(a_proven_sender_gets_a_bounce_that_says_why);
	UNIT_TEST(who_asks_for_success_hears_of_it_once);
	UNIT_ROWS(no_bounce_goes_where_none_is_wanted, untold);
	UNIT_TEST(a_bounce_that_is_refused_goes_to_the_postmaster);
	UNIT_TEST(bounces_beyond_the_limit_come_later);
	UNIT_TEST(a_sender_is_warned_once_that_his_mail_is_late);
	UNIT_TEST(hosts_of_one_priority_share_as_their_weights_say);
	UNIT_TEST(a_route_bounds_connections_and_rate_and_says_who_we_are);
	UNIT_TEST(mail_goes_around_a_message_that_takes_long);
	UNIT_TEST(no_connection_is_opened_for_what_the_rate_makes_wait);
	UNIT_TEST(a_rate_is_kept_when_nothing_was_queued_for_long);
	UNIT_TEST(a_reload_with_another_rate_counts_at_once);
	UNIT_TEST(a_host_in_trouble_hands_over_to_the_next_at_once);
	UNIT_TEST(a_bounce_that_is_refused_makes_no_other);
	UNIT_TEST(unproven_mail_that_is_refused_goes_to_the_quarantine);
	UNIT_TEST(a_large_undeliverable_message_is_held_whole);
	UNIT_TEST(what_expires_bounces_after_a_failed_attempt);
	UNIT_TEST(the_old_are_sent_and_not_bounced_when_the_attempt_succeeds);
	UNIT_TEST(a_dead_next_hop_delays_nobody_else_and_drains_when_it_is_back);
	UNIT_TEST(the_second_host_serves_while_the_first_is_down);
	UNIT_ROWS(an_upstream_that_dies_costs_a_retry_and_no_mail, dying);
	UNIT_TEST(the_quarantine_may_refuse_as_often_as_it_likes);
	UNIT_TEST(lmtp_replies_count_for_each_recipient);
	UNIT_TEST(a_domain_that_is_none_fails_at_once);
	UNIT_TEST(many_busy_next_hops_share_the_connections);
	UNIT_TEST(silent_next_hops_keep_their_connections_and_no_places);
	UNIT_ROWS(what_the_dns_says_for_good_bounces_and_the_rest_waits, names);
	UNIT_ROWS(without_tls_mail_goes_only_where_the_route_lets_it, tls_rows);
	UNIT_TEST(a_release_key_delivers_once_also_over_restarts);
	UNIT_TEST(a_drop_before_the_release_key_is_safe_is_a_drop);
	UNIT_TEST(a_second_owner_of_the_spool_is_refused);
	UNIT_TEST(a_drain_lets_what_is_under_way_finish);
	UNIT_TEST(a_reload_sends_what_waits_by_the_new_routes);
	UNIT_TEST(what_was_deferred_before_a_reload_goes_by_the_new_routes);
}
