/* tests/unit/delivery/delivery_test.c - mail arrives whole and once, also over restarts and
 * reloads. */
#include "relayd/core/clock.h"
#include "relayd/core/counters.h"
#include "relayd/delivery/parts.h"
#include "unit/delivery/upstream.h"
#include "unit/unit.h"

#include <stdlib.h>
#include <string.h>

/* ---- the usual way --------------------------------------------------------------------------- */

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

/* ---- once and only once ---------------------------------------------------------------------- */

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

/* One route with that name for EHLO. */
static void
configure_helo(const char *helo)
{
	fixture_config(&f,
	    "route \"*\" { to = { \"127.0.0.1:%u\" }  tls = off  recipients = any  helo = %s }\n"
	    "queue { retry = { 1h }  expire = 2h  warn = 0s  reserve = 0K }\n",
	    sink_port(upstream), helo);
}

START_TEST(after_a_reload_no_mail_goes_by_a_connection_of_before)
{
	struct err err;

	fixture_stop(&f, true);
	configure_helo("old.ours.test");
	fixture_start(&f);
	fixture_mail(&f, &(struct mail){ FROM, TO });
	UNTIL(&f, sink_count(upstream) == 1 && fixture_queued(&f) == 0);
	sink_slow(upstream, 200);
	fixture_mail(&f, &(struct mail){ FROM, TO });
	UNTIL(&f, f.delivery->n_attempts == 1);
	configure_helo("new.ours.test");
	ck_assert_int_eq(delivery_reload(f.delivery, f.cfg, &err), 0);
	UNTIL(&f, sink_count(upstream) == 2 && fixture_queued(&f) == 0); /* what was under way */
	sink_say(upstream, "EHLO", "old.ours.test", "550 5.7.1 who?", 99);
	fixture_mail(&f, &(struct mail){ FROM, TO });
	UNTIL(&f, sink_count(upstream) == 3 && fixture_queued(&f) == 0);
	ck_assert_uint_eq(sink_connections(upstream), 2);
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
	UNIT_TEST(a_release_key_delivers_once_also_over_restarts);
	UNIT_TEST(a_drop_before_the_release_key_is_safe_is_a_drop);
	UNIT_TEST(a_second_owner_of_the_spool_is_refused);
	UNIT_TEST(a_drain_lets_what_is_under_way_finish);
	UNIT_TEST(a_reload_sends_what_waits_by_the_new_routes);
	UNIT_TEST(after_a_reload_no_mail_goes_by_a_connection_of_before);
	UNIT_TEST(what_was_deferred_before_a_reload_goes_by_the_new_routes);
}
