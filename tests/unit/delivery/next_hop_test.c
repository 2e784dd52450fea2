/* tests/unit/delivery/next_hop_test.c - what next hops get: as their routes say, in trouble too,
 * and many at one time. */
#include "relayd/delivery/parts.h"
#include "unit/delivery/upstream.h"
#include "unit/unit.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* ---- what a route says ----------------------------------------------------------------------- */

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

static const struct hop *
hop_named(const char *host)
{
	for (size_t i = 0; i < f.delivery->cap_hops; i++)
		for (const struct hop *hop = f.delivery->hops[i]; hop != NULL; hop = hop->next)
			if (strstr(hop->route->name, host) != NULL)
				return hop;
	ck_abort_msg("no next hop %s", host);
	return NULL;
}

/* The hosts have addresses of both families, or of IPv6 alone. */
static void
start_with_source(const char *source)
{
	fixture_stop(&f, false);
	fixture_config(&f,
	    "route two.test { to = { \"two.test:%u\" }  tls = off  recipients = any  source = { %s "
	    "} }\n"
	    "route six.test { to = { \"six.test:%u\" }  tls = off  recipients = any  source = { %s "
	    "} }\n"
	    "route \"*\" { to = { mx } }\n"
	    "queue { retry = { 1h }  expire = 2h  warn = 0s  reserve = 0K }\n",
	    sink_port(upstream), source, sink_port(upstream), source);
	fixture_start(&f);
}

START_TEST(no_mail_leaves_by_a_family_without_a_source)
{
	const struct hop *two, *six;

	fixture_dns(&f, "two.test A 127.0.0.1\ntwo.test AAAA ::1\nsix.test AAAA ::1\n");
	start_with_source("127.0.0.1");
	fixture_mail(&f, &(struct mail){ FROM, .to = { "one@two.test" } });
	fixture_mail(&f, &(struct mail){ FROM, .to = { "one@six.test" } });
	UNTIL(&f, sink_count(upstream) == 1 && fixture_queued(&f) == 1);
	two = hop_named("two.test");
	six = hop_named("six.test");
	ck_assert_uint_eq(two->n_addresses, 1);
	ck_assert_int_eq(two->addresses[0].addr.ss_family, AF_INET);
	UNTIL(&f, hop_quiet_until(six) != 0);
	ck_assert_ptr_nonnull(strstr(six->why.text, "none of the family of the route's source"));
	ck_assert(!six->why.permanent);
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
	ck_assert_int_eq(
	    delivery_reload(f.delivery, f.cfg, &err), 0); /* the same: it has had its one */
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

/* ---- next hops in trouble -------------------------------------------------------------------- */

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

/* As Exim by smtp_accept_max_per_host, and the great providers. */
START_TEST(who_takes_no_more_connections_is_not_down)
{
	struct sink *fallback = sink_open(NULL);

	fixture_stop(&f, false);
	fixture_config(&f,
	    "route \"*\" { to = { \"127.0.0.1:%u\" }  fallback = { \"127.0.0.1:%u\" }  tls = off  "
	    "recipients = any }\n"
	    "queue { retry = { 1h }  expire = 2h  warn = 0s  reserve = 0K }\n",
	    sink_port(upstream), sink_port(fallback));
	fixture_start(&f);
	sink_slow(upstream, 200);
	fixture_mail(&f, &(struct mail){ FROM, TO });
	UNTIL(&f, f.delivery->busy_conns.head != NULL && conn_is_open(f.delivery->busy_conns.head));
	sink_say(upstream, "CONNECT", NULL, "421 4.7.0 too many connections from you", 1);
	fixture_mails(&f, &(struct mail){ FROM, TO }, 5);
	UNTIL(&f, sink_count(upstream) + sink_count(fallback) == 6);
	ck_assert_uint_eq(sink_connections(upstream), 2);
	UNTIL(&f, fixture_connections(&f) == 0);
	fixture_mail(&f, &(struct mail){ FROM, TO });
	UNTIL(&f, sink_count(upstream) + sink_count(fallback) == 7 && fixture_queued(&f) == 0);
	ck_assert_uint_eq(sink_count(fallback), 0);
	sink_close(fallback);
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

/* As Exim does after smtp_accept_max_per_connection, and all do with who was idle for too long. */
START_TEST(a_session_that_is_over_with_its_next_mail_costs_a_connection_and_no_time)
{
	fixture_stop(&f, true);
	fixture_config(&f,
	    "route \"*\" { to = { \"127.0.0.1:%u\" }  tls = off  recipients = any }\n"
	    "queue { retry = { 1h }  expire = 2h  warn = 0s  reserve = 0K }\n",
	    sink_port(upstream));
	fixture_start(&f);
	fixture_mail(&f, &(struct mail){ FROM, TO });
	UNTIL(&f, sink_count(upstream) == 1 && fixture_queued(&f) == 0);
	sink_say(upstream, "MAIL", NULL, "421 4.7.0 too many messages in this connection", 1);
	fixture_mail(&f, &(struct mail){ FROM, TO });
	UNTIL(&f, sink_count(upstream) == 2 && fixture_queued(&f) == 0);
	ck_assert_uint_eq(sink_connections(upstream), 2);
	/* A session that begins so means it. */
	UNTIL(&f, fixture_connections(&f) == 0);
	sink_say(upstream, "MAIL", NULL, "421 4.3.2 not now", 1);
	fixture_mail(&f, &(struct mail){ FROM, TO });
	UNTIL(&f, f.delivery->queue.deferred.n == 1);
	ck_assert_uint_eq(sink_connections(upstream), 3);
}
END_TEST

/* ---- many at one time ------------------------------------------------------------------------ */

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

/* Next hops at that port with a connection of their own.  Another one, to the upstream, may be
 * there still or not. */
static unsigned
connected_at(unsigned port)
{
	char end[16];
	unsigned n = 0;

	snprintf(end, sizeof(end), ":%u", port);
	for (size_t i = 0; i < f.delivery->cap_hops; i++)
		for (const struct hop *hop = f.delivery->hops[i]; hop != NULL; hop = hop->next)
			n += hop->n_conns > 0 &&
			     slice_ends(slice_str(hop->route->name), slice_str(end));
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

UNIT_SUITE(delivery_next_hop)
{
	tcase_add_checked_fixture(tc, set_up, tear_down);
	UNIT_TEST(hosts_of_one_priority_share_as_their_weights_say);
	UNIT_TEST(no_mail_leaves_by_a_family_without_a_source);
	UNIT_TEST(a_route_bounds_connections_and_rate_and_says_who_we_are);
	UNIT_TEST(no_connection_is_opened_for_what_the_rate_makes_wait);
	UNIT_TEST(a_rate_is_kept_when_nothing_was_queued_for_long);
	UNIT_TEST(a_reload_with_another_rate_counts_at_once);
	UNIT_TEST(lmtp_replies_count_for_each_recipient);
	UNIT_ROWS(without_tls_mail_goes_only_where_the_route_lets_it, tls_rows);
	UNIT_TEST(a_host_in_trouble_hands_over_to_the_next_at_once);
	UNIT_TEST(the_second_host_serves_while_the_first_is_down);
	UNIT_TEST(who_takes_no_more_connections_is_not_down);
	UNIT_TEST(a_dead_next_hop_delays_nobody_else_and_drains_when_it_is_back);
	UNIT_ROWS(an_upstream_that_dies_costs_a_retry_and_no_mail, dying);
	UNIT_TEST(a_session_that_is_over_with_its_next_mail_costs_a_connection_and_no_time);
	UNIT_TEST(mail_goes_around_a_message_that_takes_long);
	UNIT_TEST(many_busy_next_hops_share_the_connections);
	UNIT_TEST(silent_next_hops_keep_their_connections_and_no_places);
}
