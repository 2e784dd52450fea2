/* tests/unit/pipeline/probe_test.c - recipients asked for at a next hop on the same loop. */
#include "relayd/pipeline/facts/probe.h"

#include "unit/fake_dns.h"
#include "unit/fake_smtp.h"
#include "unit/unit.h"

#include "relayd/core/clock.h"

#include <signal.h>

static uv_loop_t loop;

struct world {
	struct fake_dns fake;
	struct dns *dns;
	struct probe *probe;
	struct fake_smtp hop;
	char name[32];
	const char *to[3];
	struct config_route route;
};

struct asked {
	struct probe_query q;
	unsigned done, code;
	enum probe_outcome outcome;
	char enhanced[12], text[200];
};

static void
on_answer(struct probe_query *q, const struct probe_answer *answer)
{
	struct asked *a = container_of(q, struct asked, q);

	a->done++;
	a->outcome = answer->outcome;
	a->code = answer->code;
	memcpy(a->enhanced, answer->enhanced, sizeof(a->enhanced));
	(void)snprintf(a->text, sizeof(a->text), "%.*s", SLICE_FMT(answer->text));
}

/* The hop's behaviour is set before. */
static void
world_open(struct world *w, struct probe_options options)
{
	struct dns_options dns = { .n_servers = 1, .timeout_ms = 300, .hosts_file = "/dev/null" };

	(void)signal(SIGPIPE, SIG_IGN); /* as every role does */
	ck_assert_int_eq(uv_loop_init(&loop), 0);
	fake_dns_open(&w->fake, &loop, "hop.test A 127.0.0.1\n");
	dns.servers = &w->fake.server;
	w->dns = dns_open(&loop, &dns, NULL);
	fake_open(&w->hop, &loop, "127.0.0.1:0");
	options.hostname = "me.test";
	options.dns = w->dns;
	w->probe = probe_new(&loop, &options, NULL);
	w->to[0] = fake_name(&w->hop, w->name);
	w->route = (struct config_route){
		.domain = "y.test", .to = { .v = w->to, .n = 1 }, .tls = CONFIG_TLS_OFF
	};
}

static void
world_close(struct world *w)
{
	probe_free(w->probe);
	dns_close(w->dns);
	fake_dns_close(&w->fake);
	fake_close(&w->hop);
	uv_run(&loop, UV_RUN_DEFAULT);
	ck_assert_int_eq(uv_loop_close(&loop), 0);
}

static void
start(struct world *w, struct asked *a, const char *path)
{
	struct err err = { 0 };

	*a = (struct asked){ .q.done = on_answer };
	ck_assert_msg(probe_query_start(w->probe, &a->q, &w->route, slice_str(path), &err) == 0,
	    "%s", err.msg);
	ck_assert_uint_eq(a->done, 0);
}

static void
run_until_done(struct asked *a)
{
	fake_until_done(&loop, &a->done);
}

static const struct row {
	const char *path;
	enum probe_outcome outcome;
	unsigned code;
	const char *enhanced, *text;
} rows[] = {
	{ "bob@y.test", PROBE_KNOWN, 250, "2.1.5", "ok" },
	{ "nobody@y.test", PROBE_UNKNOWN, 550, "5.1.1", "nobody of that name" },
	{ "later@y.test", PROBE_UNREACHABLE, 450, "4.2.1", "come back later" },
	{ "bob\r\nQUIT@y.test", PROBE_UNKNOWN, 553, "5.1.3", "The forward-path cannot be sent" },
	{ "\xc3\xa9@y.test", PROBE_REFUSED, 553, "5.6.7",
	    "The next hop does not take UTF-8 addresses" },
};

START_TEST(the_next_hop_says_who_is_there)
{
	struct world w = { .hop.no_pipelining = _i % 2 == 1 };
	struct probe_answer cached;
	struct asked a;

	world_open(&w, (struct probe_options){ 0 });
	ck_assert(!probe_cached(w.probe, &w.route, slice_str(rows[_i].path), &cached));
	start(&w, &a, rows[_i].path);
	run_until_done(&a);
	ck_assert_int_eq(a.outcome, rows[_i].outcome);
	ck_assert_uint_eq(a.code, rows[_i].code);
	ck_assert_str_eq(a.enhanced, rows[_i].enhanced);
	ck_assert_str_eq(a.text, rows[_i].text);
	ck_assert(probe_cached(w.probe, &w.route, slice_str(rows[_i].path), &cached));
	ck_assert_int_eq(cached.outcome, rows[_i].outcome);
	ck_assert_uint_eq(w.hop.datas, 0);
	ck_assert_uint_eq(w.hop.quits, 0);
	world_close(&w);
}
END_TEST

START_TEST(an_answer_is_remembered_and_asked_for_once)
{
	struct world w = { 0 };
	struct asked a[3], again, other;

	world_open(&w, (struct probe_options){ 0 });
	for (int i = 0; i < 3; i++)
		start(&w, &a[i], "bob@y.test");
	for (int i = 0; i < 3; i++)
		run_until_done(&a[i]);
	ck_assert_uint_eq(w.hop.rcpts, 1);
	start(&w, &again, "bob@Y.Test"); /* the domain in any case */
	run_until_done(&again);
	ck_assert_int_eq(again.outcome, PROBE_KNOWN);
	ck_assert_uint_eq(w.hop.rcpts, 1);
	start(&w, &other, "Bob@y.test"); /* the local part as it stands */
	run_until_done(&other);
	ck_assert_uint_eq(w.hop.rcpts, 2);
	ck_assert_uint_eq(w.hop.connections, 1);
	ck_assert_uint_eq(w.hop.rsets, 2);
	world_close(&w);
}
END_TEST

START_TEST(many_questions_share_few_connections)
{
	struct world w = { 0 };
	static struct asked a[300];
	char path[64];

	world_open(&w, (struct probe_options){ 0 });
	for (int i = 0; i < 300; i++) {
		(void)snprintf(path, sizeof(path), "%s%d@y.test", i % 3 == 0 ? "no" : "user", i);
		start(&w, &a[i], path);
	}
	for (int i = 0; i < 300; i++) {
		run_until_done(&a[i]);
		ck_assert_int_eq(a[i].outcome, i % 3 == 0 ? PROBE_UNKNOWN : PROBE_KNOWN);
	}
	ck_assert_uint_le(w.hop.connections, PROBE_CONNECTIONS);
	ck_assert_uint_eq(w.hop.rcpts, 300);
	world_close(&w);
}
END_TEST

START_TEST(a_name_is_looked_up_and_a_dead_address_passed_over)
{
	struct world w = { 0 };
	struct listener_socket dead[2];
	struct asked a;
	char live[64];
	size_t n;

	world_open(&w, (struct probe_options){ 0 });
	ck_assert_int_eq(listener_bind("127.0.0.1:0", 1, dead, &n, NULL), 0);
	close(dead[0].fd); /* a port where nobody is */
	(void)snprintf(live, sizeof(live), "hop.test:%s", strchr(w.name, ':') + 1);
	w.to[0] = dead[0].name;
	w.to[1] = live;
	w.route.to.n = 2;
	start(&w, &a, "bob@y.test");
	run_until_done(&a);
	ck_assert_int_eq(a.outcome, PROBE_KNOWN);
	world_close(&w);
}
END_TEST

START_TEST(nobody_there_is_unreachable_and_not_asked_again_at_once)
{
	struct world w = { 0 };
	struct listener_socket dead[2];
	struct asked a, again;
	size_t n;

	world_open(&w, (struct probe_options){ 0 });
	ck_assert_int_eq(listener_bind("127.0.0.1:0", 1, dead, &n, NULL), 0);
	close(dead[0].fd);
	w.to[0] = dead[0].name;
	start(&w, &a, "bob@y.test");
	run_until_done(&a);
	ck_assert_int_eq(a.outcome, PROBE_UNREACHABLE);
	ck_assert_uint_eq(a.code, 0);
	ck_assert_str_ne(a.text, "");
	start(&w, &again, "bob@y.test");
	run_until_done(&again);
	ck_assert_int_eq(again.outcome, PROBE_UNREACHABLE);
	world_close(&w);
}
END_TEST

START_TEST(a_hop_that_refuses_to_be_asked_tells_nothing_of_its_users)
{
	struct world w = { .hop.greeting = "554 5.7.1 go away\r\n" };
	struct asked a;

	world_open(&w, (struct probe_options){ 0 });
	start(&w, &a, "bob@y.test");
	run_until_done(&a);
	ck_assert_int_eq(a.outcome, PROBE_UNREACHABLE);
	ck_assert_ptr_nonnull(strstr(a.text, "554 5.7.1 go away"));
	world_close(&w);
}
END_TEST

START_TEST(silence_is_unreachable_in_time)
{
	struct world w = { .hop.greeting = "" };
	int64_t begin = clock_mono_ms();
	struct asked a, b;

	world_open(&w, (struct probe_options){ .timeout_ms = 300 });
	start(&w, &a, "bob@y.test");
	start(&w, &b, "alice@y.test");
	run_until_done(&a);
	run_until_done(&b);
	ck_assert_int_eq(a.outcome, PROBE_UNREACHABLE);
	ck_assert_int_lt(clock_mono_ms() - begin, 5000);
	world_close(&w);
}
END_TEST

START_TEST(a_connection_that_was_closed_meanwhile_is_opened_again)
{
	struct world w = { 0 };
	struct asked a, b;

	world_open(&w, (struct probe_options){ 0 });
	start(&w, &a, "bob@y.test");
	run_until_done(&a);
	fake_hang_up(&w.hop);
	start(&w, &b, "alice@y.test");
	run_until_done(&b);
	ck_assert_int_eq(b.outcome, PROBE_KNOWN);
	ck_assert_uint_eq(w.hop.connections, 2);
	world_close(&w);
}
END_TEST

START_TEST(each_outcome_is_believed_for_its_own_time)
{
	struct world w = { 0 };
	struct asked a, b;
	int64_t begin;

	world_open(&w, (struct probe_options){ .known_s = 100, .unknown_s = 1 });
	start(&w, &a, "bob@y.test");
	start(&w, &b, "nobody@y.test");
	run_until_done(&a);
	run_until_done(&b);
	begin = clock_mono_ms();
	while (clock_mono_ms() - begin < 1100)
		uv_run(&loop, UV_RUN_ONCE);
	start(&w, &a, "bob@y.test");
	start(&w, &b, "nobody@y.test");
	run_until_done(&a);
	run_until_done(&b);
	ck_assert_uint_eq(w.hop.rcpts, 3);
	world_close(&w);
}
END_TEST

START_TEST(a_cancelled_query_is_answered_once_and_the_others_too)
{
	struct world w = { 0 };
	struct asked a, b, cached;

	world_open(&w, (struct probe_options){ 0 });
	start(&w, &a, "bob@y.test");
	start(&w, &b, "bob@y.test");
	probe_query_cancel(&a.q);
	probe_query_cancel(&a.q);
	ck_assert_uint_eq(a.done, 0);
	run_until_done(&a);
	ck_assert_int_eq(a.outcome, PROBE_CANCELLED);
	run_until_done(&b);
	ck_assert_int_eq(b.outcome, PROBE_KNOWN);
	start(&w, &cached, "bob@y.test");
	probe_query_cancel(&cached.q);
	run_until_done(&cached);
	ck_assert_int_eq(cached.outcome, PROBE_CANCELLED);
	world_close(&w);
	ck_assert_uint_eq(a.done + b.done + cached.done, 3);
}
END_TEST

START_TEST(freeing_cancels_what_is_asked)
{
	struct world w = { .hop.greeting = "" };
	struct asked a, b;

	world_open(&w, (struct probe_options){ 0 });
	start(&w, &a, "bob@y.test");
	for (int i = 0; i < 5; i++)
		uv_run(&loop, UV_RUN_NOWAIT);
	start(&w, &b, "alice@y.test");
	world_close(&w);
	ck_assert_uint_eq(a.done, 1);
	ck_assert_uint_eq(b.done, 1);
	ck_assert_int_eq(a.outcome, PROBE_CANCELLED);
	ck_assert_int_eq(b.outcome, PROBE_CANCELLED);
}
END_TEST

START_TEST(a_route_that_cannot_be_read_is_an_error_at_once)
{
	struct world w = { 0 };
	struct asked a = { .q.done = on_answer };
	struct err err = { 0 };

	world_open(&w, (struct probe_options){ 0 });
	w.to[0] = "no-port";
	ck_assert_int_eq(probe_query_start(w.probe, &a.q, &w.route, SLICE("bob@y.test"), &err), -1);
	ck_assert_int_eq(err.code, ERR_CONFIG);
	world_close(&w);
	ck_assert_uint_eq(a.done, 0);
}
END_TEST

UNIT_SUITE(probe)
{
	UNIT_ROWS(the_next_hop_says_who_is_there, rows);
	UNIT_TEST(an_answer_is_remembered_and_asked_for_once);
	UNIT_TEST(many_questions_share_few_connections);
	UNIT_TEST(a_name_is_looked_up_and_a_dead_address_passed_over);
	UNIT_TEST(nobody_there_is_unreachable_and_not_asked_again_at_once);
	UNIT_TEST(a_hop_that_refuses_to_be_asked_tells_nothing_of_its_users);
	UNIT_TEST(silence_is_unreachable_in_time);
	UNIT_TEST(a_connection_that_was_closed_meanwhile_is_opened_again);
	UNIT_TEST(each_outcome_is_believed_for_its_own_time);
	UNIT_TEST(a_cancelled_query_is_answered_once_and_the_others_too);
	UNIT_TEST(freeing_cancels_what_is_asked);
	UNIT_TEST(a_route_that_cannot_be_read_is_an_error_at_once);
}
