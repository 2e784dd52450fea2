/* tests/unit/delivery/provider_test.c - many domains at one provider: connections and a rate that
 * they share. */
#include "relayd/delivery/parts.h"
#include "unit/delivery/fixture.h"

#include "unit/unit.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define DOMAINS 6

static struct fixture f;
static struct sink *upstream, *other;

/* All of them are at one provider, each with a host of its own, as some providers have it. */
static void
set_up(void)
{
	upstream = fixture_init_upstream(&f);
	other = sink_open(NULL);
	fixture_dns(&f, "d0.mail.big.test A 127.0.0.1\n"
			"d1.mail.big.test A 127.0.0.1\n"
			"d2.mail.big.test A 127.0.0.1\n"
			"d3.mail.big.test A 127.0.0.1\n"
			"d4.mail.big.test A 127.0.0.1\n"
			"d5.mail.big.test A 127.0.0.1\n"
			"mx.small.test A 127.0.0.1\n");
}

static void
tear_down(void)
{
	fixture_fini(&f);
	sink_close(upstream);
	sink_close(other);
}

/* The config: a route to each domain's host, and one to another provider; and what the admin says
 * about providers. */
static void
configure(const char *providers)
{
	char routes[DOMAINS * 120], *at = routes;

	for (unsigned i = 0; i < DOMAINS; i++)
		at += sprintf(at,
		    "route d%u.test { to = { \"d%u.mail.big.test:%u\" }  tls = off  recipients = "
		    "any "
		    "}\n",
		    i, i, sink_port(upstream));
	fixture_config(&f,
	    "%sroute small.test { to = { \"mx.small.test:%u\" }  tls = off  recipients = any }\n"
	    "%s\nqueue { retry = { 1s }  expire = 2h  warn = 0s  reserve = 0K }\n",
	    routes, sink_port(other), providers);
}

static void
reload(const char *providers)
{
	struct err err;

	configure(providers);
	ck_assert_int_eq(delivery_reload(f.delivery, f.cfg, &err), 0);
}

static void
start(const char *providers)
{
	configure(providers);
	fixture_start(&f);
}

static void
mails_to_each(size_t n)
{
	for (unsigned i = 0; i < DOMAINS; i++) {
		char to[32];

		snprintf(to, sizeof(to), "one@d%u.test", i);
		fixture_mails(&f,
		    &(struct mail){
			.from = "sender@proven.test", .to = { to }, .flags = ENVELOPE_AUTHENTIC },
		    n);
	}
}

static void
mails(const char *to, size_t n)
{
	fixture_mails(&f,
	    &(struct mail){
		.from = "sender@proven.test", .to = { to }, .flags = ENVELOPE_AUTHENTIC },
	    n);
}

/* As many connections as that at most; the sink sees the end of one a little later. */
static bool
within(unsigned connections)
{
	ck_assert_uint_le(fixture_connections(&f), connections);
	return true;
}

START_TEST(domains_of_a_provider_share_its_connections)
{
	sink_slow(upstream, 5);
	start("provider big { hosts = { \"*.mail.big.test\" }  connections = 2 }");
	mails_to_each(20);
	UNTIL(&f, within(2) && sink_count(upstream) == 20 * DOMAINS && fixture_queued(&f) == 0);
	ck_assert_uint_ge(sink_peak(upstream), 2);
	/* Whose turn was over did not come back each time by a new connection. */
	ck_assert_uint_lt(sink_connections(upstream), 10 * DOMAINS);
}
END_TEST

START_TEST(without_a_provider_each_has_its_own)
{
	sink_slow(upstream, 5);
	start("provider big { hosts = { \"*.mail.bigger.test\" }  connections = 2 }");
	mails_to_each(20);
	UNTIL(&f, sink_count(upstream) == 20 * DOMAINS && fixture_queued(&f) == 0);
	ck_assert_uint_gt(sink_peak(upstream), DOMAINS);
}
END_TEST

START_TEST(a_flood_to_one_domain_of_a_provider_delays_no_other)
{
	sink_slow(upstream, 5);
	start("provider big { hosts = { \"*.mail.big.test\" }  connections = 1 }");
	mails("one@d0.test", 400);
	UNTIL(&f, sink_count(upstream) > 0);
	for (unsigned i = 1; i < DOMAINS; i++) {
		char to[32];

		snprintf(to, sizeof(to), "one@d%u.test", i);
		mails(to, 1);
	}
	for (unsigned i = 1; i < DOMAINS; i++) {
		char name[64];

		snprintf(name, sizeof(name), "d%u.mail.big.test:%u", i, sink_port(upstream));
		UNTIL(&f, within(1) && fixture_at(&f, name) == 0);
	}
	ck_assert_uint_lt(sink_count(upstream), 200);
}
END_TEST

START_TEST(domains_of_a_provider_share_its_rate)
{
	int64_t begun;

	start("provider big { hosts = { \"*.mail.big.test\" }  rate = \"20/1s\" }");
	begun = fixture_limit();
	mails_to_each(10);
	mails("one@small.test", 100);
	UNTIL(&f, sink_count(other) == 100);
	ck_assert_uint_lt(
	    sink_count(upstream), 10 * DOMAINS); /* the other one did not wait for it */
	UNTIL(&f, sink_count(upstream) == 10 * DOMAINS && fixture_queued(&f) == 0);
	ck_assert_int_ge(fixture_limit() - begun, 1900); /* 20 at once, 40 in two seconds */
}
END_TEST

static size_t
left_at(unsigned domain)
{
	char name[64];

	snprintf(name, sizeof(name), "d%u.mail.big.test:%u", domain, sink_port(upstream));
	return fixture_at(&f, name);
}

START_TEST(the_rate_goes_round)
{
	size_t before[DOMAINS];

	start("provider big { hosts = { \"*.mail.big.test\" }  rate = \"40/1s\" }");
	mails_to_each(60);
	UNTIL(&f, sink_count(upstream) >= 60); /* who came first had what one second may have */
	for (unsigned i = 0; i < DOMAINS; i++)
		before[i] = left_at(i);
	UNTIL(&f, sink_count(upstream) >= 120);
	for (unsigned i = 0; i < DOMAINS; i++) {
		size_t had = before[i] - left_at(i);

		ck_assert_msg(
		    (before[i] < 10 || had >= 7) && had <= 13, "%zu of 60 for d%u", had, i);
	}
}
END_TEST

START_TEST(connections_and_rate_go_together)
{
	int64_t begun;

	start(
	    "provider big { hosts = { \"*.mail.big.test\" }  connections = 1  rate = \"20/1s\" }");
	begun = fixture_limit();
	mails_to_each(8);
	UNTIL(&f, within(1) && sink_count(upstream) == 8 * DOMAINS && fixture_queued(&f) == 0);
	ck_assert_int_ge(fixture_limit() - begun, 1300);
}
END_TEST

START_TEST(a_reload_changes_adds_and_removes_providers)
{
	start("provider big { hosts = { \"*.mail.big.test\" }  rate = \"1/1h\" }");
	mails_to_each(2);
	UNTIL(&f, sink_count(upstream) == 1);
	reload("provider big { hosts = { \"*.mail.big.test\" }  rate = \"1/1h\" }");
	fixture_run_ms(&f, 300);
	ck_assert_uint_eq(sink_count(upstream), 1); /* the same: it has had its one */
	reload("provider big { hosts = { d0.mail.big.test }  rate = \"1/1h\" }");
	UNTIL(&f, sink_count(upstream) == 2 * DOMAINS - 1);
	reload("");
	UNTIL(&f, sink_count(upstream) == 2 * DOMAINS && fixture_queued(&f) == 0);
	reload("provider new { hosts = { \"*.mail.big.test\" }  rate = \"1/1h\" }");
	mails_to_each(1);
	UNTIL(&f, sink_count(upstream) == 2 * DOMAINS + 1);
	fixture_run_ms(&f, 300);
	ck_assert_uint_eq(sink_count(upstream), 2 * DOMAINS + 1);
	reload("provider new { hosts = { \"*.mail.big.test\" }  rate = \"1000/1s\" }");
	UNTIL(&f, sink_count(upstream) == 3 * DOMAINS && fixture_queued(&f) == 0);
}
END_TEST

START_TEST(a_reload_with_fewer_connections_closes_some)
{
	sink_slow(upstream, 20);
	start("");
	mails_to_each(30);
	UNTIL(&f, fixture_connections(&f) > DOMAINS && sink_count(upstream) > DOMAINS);
	reload("provider big { hosts = { \"*.mail.big.test\" }  connections = 2 }");
	UNTIL(&f, fixture_connections(&f) <= 2);
	ck_assert_uint_gt(fixture_queued(&f), 0);
	UNTIL(&f, sink_count(upstream) == 30 * DOMAINS && fixture_queued(&f) == 0);
}
END_TEST

/* Two next hops that lead to one host. */
static void
start_two_at(unsigned port, const char *tls)
{
	fixture_config(&f,
	    "route a.test { to = { \"d0.mail.big.test:%u\" }  tls = opportunistic  recipients = "
	    "any }\n"
	    "route b.test { to = { \"d0.mail.big.test:%u\", \"mx.small.test:%u\" }  tls = %s  "
	    "recipients = any }\nroute \"*\" { to = { mx } }\n"
	    "provider big { hosts = { \"*.mail.big.test\" }  connections = 1 }\n"
	    "queue { retry = { 1h }  expire = 2h  warn = 0s  reserve = 0K }\n",
	    port, port, sink_port(other), tls);
	fixture_start(&f);
}

static void
start_two(const char *tls)
{
	start_two_at(sink_port(upstream), tls);
}

START_TEST(an_idle_connection_serves_another_domain_at_the_host)
{
	start_two("opportunistic");
	mails("one@a.test", 1);
	UNTIL(&f, sink_count(upstream) == 1 && fixture_queued(&f) == 0);
	mails("one@b.test", 1);
	UNTIL(&f, sink_count(upstream) == 2 && fixture_queued(&f) == 0);
	mails("one@a.test", 1);
	UNTIL(&f, sink_count(upstream) == 3 && fixture_queued(&f) == 0);
	ck_assert_uint_eq(sink_connections(upstream), 1);
}
END_TEST

START_TEST(a_busy_connection_goes_from_domain_to_domain)
{
	size_t n_a = 0;

	sink_slow(upstream, 5);
	start_two("opportunistic");
	mails("one@a.test", 200);
	mails("one@b.test", 200);
	UNTIL(&f, within(1) && sink_count(upstream) >= 200);
	for (size_t i = 0; i < 200; i++)
		n_a += strcmp(sink_message(upstream, i)->forward_paths[0], "one@a.test") == 0;
	ck_assert_msg(n_a > 70 && n_a < 140, "%zu of 200", n_a);
	UNTIL(&f, within(1) && sink_count(upstream) == 400 && fixture_queued(&f) == 0);
	ck_assert_uint_le(sink_connections(upstream), 3);
}
END_TEST

START_TEST(but_not_where_its_tls_is_another)
{
	start_two("off");
	mails("one@a.test", 1);
	UNTIL(&f, sink_count(upstream) == 1 && fixture_queued(&f) == 0);
	mails("one@b.test", 1);
	UNTIL(&f,
	    within(1) && sink_count(upstream) == 2 && fixture_queued(&f) == 0); /* it made room */
	ck_assert_uint_eq(sink_connections(upstream), 2);
}
END_TEST

START_TEST(who_waits_for_a_host_that_cannot_be_reached_goes_to_the_next)
{
	struct sockaddr_in at = { .sin_family = AF_INET };
	socklen_t len = sizeof(at);
	int silent = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	ck_assert_int_eq(bind(silent, (struct sockaddr *)&at, len), 0);
	ck_assert_int_eq(listen(silent, 5), 0);
	ck_assert_int_eq(getsockname(silent, (struct sockaddr *)&at, &len), 0);
	start_two_at(ntohs(at.sin_port), "opportunistic");
	mails("one@a.test", 1);
	UNTIL(&f, fixture_connections(&f) == 1);
	mails("one@b.test", 1);
	UNTIL(&f, f.delivery->providers.v[0].places.n == 1);
	fixture_run_ms(&f, 50);
	ck_assert_uint_eq(f.delivery->providers.v[0].places.n, 1);
	close(silent); /* it takes nothing any more, neither the one that was to wait */
	UNTIL(&f, sink_count(other) == 1 && fixture_queued(&f) == 1);
}
END_TEST

START_TEST(what_is_dropped_while_it_waits_leaves_no_gap)
{
	start("provider big { hosts = { \"*.mail.big.test\" }  connections = 1 }");
	sink_slow(upstream, 300);
	mails("one@d0.test", 3);
	UNTIL(&f, fixture_connections(&f) == 1);
	mails("one@d1.test", 1);
	mails("one@d2.test", 1);
	fixture_run_ms(&f, 50);
	for (struct queue_msg *msg = f.delivery->queue.head, *next; msg != NULL; msg = next) {
		next = msg->next;
		if (strstr(hop_of(msg->jobs)->route->name, "d1.") != NULL)
			settle_drop(f.delivery, msg);
	}
	UNTIL(&f, within(1) && sink_count(upstream) == 4 && fixture_queued(&f) == 0);
}
END_TEST

UNIT_SUITE(delivery_provider)
{
	tcase_add_checked_fixture(tc, set_up, tear_down);
	UNIT_TEST(domains_of_a_provider_share_its_connections);
	UNIT_TEST(without_a_provider_each_has_its_own);
	UNIT_TEST(a_flood_to_one_domain_of_a_provider_delays_no_other);
	UNIT_TEST(domains_of_a_provider_share_its_rate);
	UNIT_TEST(the_rate_goes_round);
	UNIT_TEST(connections_and_rate_go_together);
	UNIT_TEST(a_reload_changes_adds_and_removes_providers);
	UNIT_TEST(a_reload_with_fewer_connections_closes_some);
	UNIT_TEST(an_idle_connection_serves_another_domain_at_the_host);
	UNIT_TEST(a_busy_connection_goes_from_domain_to_domain);
	UNIT_TEST(but_not_where_its_tls_is_another);
	UNIT_TEST(who_waits_for_a_host_that_cannot_be_reached_goes_to_the_next);
	UNIT_TEST(what_is_dropped_while_it_waits_leaves_no_gap);
}
