/* tests/unit/delivery/deep_test.c - queues that are deeper than one round of the loop, or than
 * memory should be. */
#include "relayd/core/counters.h"
#include "unit/delivery/upstream.h"
#include "unit/unit.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define DEEP 15000 /* messages: more than a hundred rounds take in */

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
	while (sink_count(upstream) == 0) {
		ck_assert(!fixture_ready(&f));
		fixture_turn(&f);
		usleep(10000); /* the server is another thread, on a machine that may be busy */
	}
	while (!fixture_ready(&f)) {
		ck_assert_int_eq(counter_get(COUNTER_BOUNCED), before);
		fixture_turn(&f);
	}
	UNTIL(&f, bounces() == 1);
}
END_TEST

/* ---- dead next hops -------------------------------------------------------------------------- */

#define SILENT 430 /* next hops: more than there are connections */

/* A port, of every address of 127/8, that takes connections and says nothing. */
static int
listen_silently(unsigned *port)
{
	struct sockaddr_in at = { .sin_family = AF_INET };
	socklen_t len = sizeof(at);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(bind(fd, (struct sockaddr *)&at, sizeof(at)), 0);
	ck_assert_int_eq(listen(fd, 1024), 0);
	ck_assert_int_eq(getsockname(fd, (struct sockaddr *)&at, &len), 0);
	*port = ntohs(at.sin_port);
	return fd;
}

START_TEST(next_hops_that_say_nothing_leave_connections_for_others)
{
	static char routes[SILENT * 100];
	size_t len = 0;
	unsigned port;
	int fd = listen_silently(&port);
	char to[64];

	for (unsigned i = 0; i < SILENT; i++)
		len += (size_t)snprintf(routes + len, sizeof(routes) - len,
		    "route \"d%u.test\" { to = { \"127.1.%u.%u:%u\" }  tls = off }\n", i, i / 250,
		    i % 250 + 1, port);
	fixture_config(&f,
	    "%sroute \"live.test\" { to = { \"127.0.0.1:%u\" }  tls = off }\n"
	    "queue { retry = { 1h }  expire = 2h  warn = 30m  reserve = 0K }\n",
	    routes, sink_port(upstream));
	fixture_start(&f);
	for (unsigned i = 0; i < SILENT; i++) {
		snprintf(to, sizeof(to), "x@d%u.test", i);
		fixture_mail(&f, &(struct mail){ .from = "a@example.net", .to = { to } });
	}
	fixture_mail(&f, &(struct mail){ .from = "a@example.net", .to = { "one@live.test" } });
	UNTIL(&f, sink_count(upstream) == 1);
	close(fd);
}
END_TEST

/* ---- parked ---------------------------------------------------------------------------------- */

#define SOME 300

/* Each of the messages of send_some() has arrived once. */
static void
each_arrived_once(struct sink *s)
{
	unsigned came[SOME] = { 0 }, n;

	UNTIL(&f, sink_whole(s) >= SOME); /* it counts the last one after its reply */
	ck_assert_uint_eq(sink_whole(s), SOME);
	for (size_t i = 0; i < SOME; i++) {
		ck_assert_int_eq(sscanf(sink_message(s, i)->bytes, "Number: %u", &n), 1);
		ck_assert_uint_lt(n, SOME);
		ck_assert_uint_eq(came[n]++, 0);
	}
}

static void
send_some(const char *to, uint32_t flags)
{
	for (unsigned i = 0; i < SOME; i++) {
		char bytes[64], from[64];

		snprintf(bytes, sizeof(bytes), "Number: %u\r\n\r\nbody\r\n", i);
		snprintf(from, sizeof(from), "s%u@proven.test", i);
		fixture_mail(&f,
		    &(struct mail){ .from = from, .to = { to }, .bytes = bytes, .flags = flags });
	}
}

START_TEST(what_is_parked_before_a_dead_next_hop_goes_out_once_when_it_is_back)
{
	unsigned port = sink_port(upstream);

	sink_close(upstream);
	fixture_start(&f);
	send_some("one@example.test", 0);
	UNTIL(&f, fixture_queued(&f) == SOME && fixture_whole(&f) < SOME / 2);
	fixture_stop(&f, true);
	fixture_start(&f);
	UNTIL(&f, fixture_ready(&f));
	ck_assert_uint_eq(fixture_queued(&f), SOME);
	ck_assert_uint_eq(fixture_queued_rcpts(&f), SOME);
	upstream = sink_open_port(port);
	UNTIL(&f, fixture_queued(&f) == 0);
	each_arrived_once(upstream);
}
END_TEST

START_TEST(what_is_parked_until_its_time_goes_out_once)
{
	int64_t before = counter_get(COUNTER_SEND_DEFERRED);

	fixture_config(&f,
	    "route \"*\" { to = { \"127.0.0.1:%u\" }  tls = off  recipients = any }\n"
	    "queue { retry = { 3s }  expire = 1h  warn = 30m  reserve = 0K }\n",
	    sink_port(upstream));
	fixture_start(&f);
	sink_say(upstream, "RCPT", "one@", "450 4.2.1 later", SOME);
	send_some("one@example.test", 0);
	UNTIL(&f, counter_get(COUNTER_SEND_DEFERRED) == before + SOME);
	fixture_stop(&f, true); /* what was said in the attempts is not kept over a restart */
	fixture_start(&f);
	UNTIL(&f, fixture_ready(&f));
	ck_assert_uint_eq(fixture_queued(&f), SOME);
	ck_assert_uint_lt(fixture_whole(&f), SOME / 2);
	UNTIL(&f, fixture_queued(&f) == 0);
	each_arrived_once(upstream);
}
END_TEST

START_TEST(what_is_parked_before_a_domain_that_is_none_bounces)
{
	fixture_dns(&f, "none.test NXDOMAIN\n");
	fixture_config(&f,
	    "route \"none.test\" { to = { mx }  tls = off  recipients = any }\n"
	    "route \"*\" { to = { \"127.0.0.1:%u\" }  tls = off  recipients = any }\n"
	    "queue { retry = { 1s }  expire = 1h  warn = 30m  reserve = 0K  bounces = 0 }\n",
	    sink_port(upstream));
	send_some("one@none.test", ENVELOPE_AUTHENTIC);
	fixture_start(&f);
	UNTIL(&f, sink_count(upstream) == SOME);
	UNTIL(&f, fixture_queued(&f) == 0);
	ck_assert_uint_eq(bounces(), SOME);
}
END_TEST

START_TEST(what_is_parked_goes_by_the_new_routes)
{
	struct sink *other = sink_open(NULL);
	struct err err;

	sink_close(upstream);
	upstream = NULL;
	fixture_start(&f);
	send_some("one@example.test", 0);
	UNTIL(&f, fixture_queued(&f) == SOME && fixture_whole(&f) < SOME / 2);
	fixture_config_to(&f, sink_port(other));
	ck_assert_int_eq(delivery_reload(f.delivery, f.cfg, &err), 0);
	UNTIL(&f, fixture_queued(&f) == 0);
	each_arrived_once(other);
	sink_close(other);
}
END_TEST

START_TEST(what_is_parked_stays_so_when_the_new_next_hop_is_dead_too)
{
	struct err err;

	sink_close(upstream);
	upstream = NULL;
	fixture_start(&f);
	send_some("one@example.test", 0);
	UNTIL(&f, fixture_queued(&f) == SOME && fixture_whole(&f) < SOME / 2);
	fixture_config(&f, "route \"*\" { to = { \"127.0.0.2:1\" }  tls = off  recipients = any }\n"
			   "queue { retry = { 1h }  expire = 2h  warn = 30m  reserve = 0K }\n");
	ck_assert_int_eq(delivery_reload(f.delivery, f.cfg, &err), 0);
	UNTIL(&f, fixture_at(&f, "127.0.0.2:1") == SOME);
	ck_assert_uint_eq(fixture_queued(&f), SOME);
	ck_assert_uint_lt(fixture_whole(&f), SOME / 2);
}
END_TEST

UNIT_SUITE(delivery_deep)
{
	tcase_add_checked_fixture(tc, set_up_stopped, tear_down);
	UNIT_TEST(old_mail_leaves_while_the_rest_is_read_and_bounces_wait_for_the_end_of_that);
	UNIT_TEST(next_hops_that_say_nothing_leave_connections_for_others);
	UNIT_TEST(what_is_parked_before_a_dead_next_hop_goes_out_once_when_it_is_back);
	UNIT_TEST(what_is_parked_until_its_time_goes_out_once);
	UNIT_TEST(what_is_parked_before_a_domain_that_is_none_bounces);
	UNIT_TEST(what_is_parked_goes_by_the_new_routes);
	UNIT_TEST(what_is_parked_stays_so_when_the_new_next_hop_is_dead_too);
}
