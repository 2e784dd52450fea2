/* tests/unit/pipeline/scan_test.c - a message that is only looked at. */
#include "unit/pipeline/world.h"

#include "relayd/core/counters.h"
#include "relayd/pipeline/scan.h"

#include <jansson.h>

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))
#define MAIL     "Subject: x\r\n\r\nbody\r\n"

struct scanned {
	struct pipeline_scan scan;
	unsigned done;
};

static void
on_done(struct pipeline_scan *scan)
{
	container_of(scan, struct scanned, scan)->done++;
}

static struct scanned
look_at(struct world *w, const char *ip)
{
	static const struct slice rcpts[] = { { "bob@example.test", 16 },
		{ "ann@strict.test", 15 } };
	struct scanned s = { .scan = { .pipeline = w->pl,
				 .facts = w->facts,
				 .ip = slice_str(ip),
				 .helo = SLICE("client.test"),
				 .reverse_path = SLICE("a@sender.test"),
				 .forward_paths = rcpts,
				 .n_forward_paths = 2,
				 .message = SLICE(MAIL),
				 .done = on_done } };

	return s;
}

static void
wait_for(struct world *w, struct scanned *s)
{
	struct err err = { 0 };

	ck_assert_msg(pipeline_scan_start(&s->scan, &err) == 0, "%s", err.msg);
	ck_assert_uint_eq(s->done, 0);
	while (s->done == 0)
		if (!world_answer(w, NULL))
			(void)uv_run(&w->loop, UV_RUN_ONCE);
	ck_assert_uint_eq(s->done, 1);
}

START_TEST(a_scan_runs_all_stages_and_takes_no_counter)
{
	struct config_filter filters[] = {
		SECTION("c", "connect", OPTION("finding", "C=1"), OPTION("asks", "c.test")),
		SECTION("h", "helo", OPTION("finding", "H=1")),
		SECTION("m", "mail", OPTION("finding", "M=1"), OPTION("limit", "k/1/3600")),
		SECTION("r", "rcpt", OPTION("finding", "R=1")),
		SECTION("x", "message", OPTION("finding", "X=1.5")),
		SECTION("e", "message", OPTION("fail", "yes")),
	};
	int64_t errors = counter_get(COUNTER_FILTER_ERRORS);
	struct world w;
	json_t *o;

	world_init(&w, "policy inbound { tag = 5.0 }\n", filters, COUNT(filters));
	world_with_state(&w);
	for (int i = 0; i < 3; i++) {
		struct scanned s = look_at(&w, "192.0.2.7");

		wait_for(&w, &s);
		ck_assert_str_eq(s.scan.verdict, "tag");
		ck_assert_double_eq(s.scan.score, 5.5);
		ck_assert(slice_eq(s.scan.findings, SLICE("C=1.0,H=1.0,M=1.0,X=1.5,R=1.0")));
		o = json_loadb(s.scan.json.p, s.scan.json.len, 0, NULL);
		ck_assert_ptr_nonnull(o);
		ck_assert_double_eq(
		    json_number_value(json_object_get(json_object_get(o, "findings"), "X")), 1.5);
		ck_assert_ptr_nonnull(json_object_get(json_object_get(o, "trace"), "events"));
		json_decref(o);
		pipeline_scan_fini(&s.scan);
	}
	ck_assert_int_eq(counter_get(COUNTER_FILTER_ERRORS), errors);
	ck_assert_uint_eq(world_runs("r"), 6);
	world_fini(&w);
}
END_TEST

static const struct {
	const char *type, *verdict, *expected;
} early[] = {
	{ "connect", "reject", "reject" },
	{ "mail", "defer", "defer" },
	{ "rcpt", "reject", "reject" },
	{ "message", "discard", "discard" },
	{ "mail", "quarantine", "quarantine" },
};

START_TEST(a_scan_tells_where_a_message_would_have_ended)
{
	struct config_filter filters[] = { SECTION(
	    "f", early[_i].type, OPTION("verdict", early[_i].verdict)) };
	struct scanned s;
	struct world w;

	world_init(&w, "", filters, COUNT(filters));
	s = look_at(&w, "2001:db8::1");
	wait_for(&w, &s);
	ck_assert_str_eq(s.scan.verdict, early[_i].expected);
	ck_assert_str_eq(s.scan.check, "f");
	pipeline_scan_fini(&s.scan);
	world_fini(&w);
}
END_TEST

START_TEST(an_ip_that_is_none_is_refused)
{
	struct err err = { 0 };
	struct scanned s;
	struct world w;

	world_init(&w, "", NULL, 0);
	s = look_at(&w, "example.test");
	ck_assert_int_eq(pipeline_scan_start(&s.scan, &err), -1);
	ck_assert_str_eq(err.msg, "example.test is no IP address");
	s = look_at(&w, "192.0.2.0/24");
	ck_assert_int_eq(pipeline_scan_start(&s.scan, &err), -1);
	world_fini(&w);
}
END_TEST

START_TEST(a_scan_needs_no_ip_nor_recipient)
{
	struct scanned s;
	struct world w;

	world_init(&w, "", NULL, 0);
	s = look_at(&w, "");
	s.scan.n_forward_paths = 0;
	wait_for(&w, &s);
	ck_assert_str_eq(s.scan.verdict, "accept");
	ASSERT_HAS(s.scan.json, "\"to\":[\"postmaster@example.test\"]");
	ASSERT_HAS(s.scan.json, "\"direction\":\"inbound\"");
	pipeline_scan_fini(&s.scan);
	world_fini(&w);
}
END_TEST

UNIT_SUITE(pipeline_scan)
{
	UNIT_TEST(a_scan_runs_all_stages_and_takes_no_counter);
	UNIT_ROWS(a_scan_tells_where_a_message_would_have_ended, early);
	UNIT_TEST(an_ip_that_is_none_is_refused);
	UNIT_TEST(a_scan_needs_no_ip_nor_recipient);
}
