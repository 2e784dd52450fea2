/* tests/unit/pipeline/order_test.c - results are as if filters ran one after the other. */
#include "unit/pipeline/world.h"

#include "filters/builtin.h"
#include "relayd/core/counters.h"

#include <stdlib.h>

#define MAIL     "Subject: x\r\n\r\nbody\r\n"
#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

/* The client up to MAIL, which is started and not waited for. */
static bool
start_mail(struct world *w)
{
	world_client(w, "192.0.2.7", false);
	ck_assert_int_eq(world_connect(w), PIPELINE_GO_ON);
	ck_assert_int_eq(world_helo(w, "client.test"), PIPELINE_GO_ON);
	w->tx = pipeline_tx_begin(w->s, id_new(), SLICE("alice@sender.test"));
	return world_start(w, FILTER_MAIL);
}

START_TEST(without_filters_every_stage_is_over_at_once)
{
	struct world w;

	world_init(&w, "", NULL, 0);
	ck_assert(start_mail(&w));
	w.run.rcpt = (struct envelope_rcpt){ .forward_path = SLICE("bob@example.test"),
		.params = SLICE("") };
	ck_assert(world_start(&w, FILTER_RCPT));
	w.message.bytes = SLICE(MAIL);
	w.run.message = &w.message;
	ck_assert(world_start(&w, FILTER_MESSAGE));
	ck_assert_int_eq(w.run.answer, PIPELINE_GO_ON);
	ck_assert_str_eq(w.run.verdict, "accept");
	ck_assert_uint_eq(w.run.n_copies, 1);
	world_end(&w, true);
	ck_assert_uint_eq(w.released, 1);
	world_fini(&w);
}
END_TEST

START_TEST(what_a_run_found_before_it_waited_is_dropped)
{
	struct config_filter filters[] = {
		SECTION("a", "message", OPTION("asks", "a.test"), OPTION("then", "b.test"),
		    OPTION("finding", "A=1.5")),
	};
	struct world w;

	world_init(&w, "", filters, COUNT(filters));
	ck_assert_int_eq(world_send(&w, MAIL), PIPELINE_GO_ON);
	ck_assert_uint_eq(world_runs("a"), 3);
	ck_assert_str_eq(world_asked(&w), "a.test b.test ");
	ck_assert_double_eq(w.run.score, 1.5);
	ASSERT_HAS(w.run.findings, "A=1.5");
	ck_assert_uint_eq(w.run.findings.len, 5);
	world_fini(&w);
}
END_TEST

START_TEST(what_is_asked_for_together_is_fetched_together)
{
	struct config_filter filters[] = {
		SECTION("a", "mail", OPTION("asks", "a1.test", "a2.test", "a3.test")),
	};
	struct world w;

	world_init(&w, "", filters, COUNT(filters));
	ck_assert(!start_mail(&w));
	ck_assert_str_eq(world_asked(&w), "a1.test a2.test a3.test ");
	ck_assert(world_answer(&w, "a2.test"));
	ck_assert(world_answer(&w, "a1.test"));
	ck_assert_uint_eq(world_runs("a"), 1);
	ck_assert(!w.done);
	ck_assert(world_answer(&w, "a3.test"));
	ck_assert_uint_eq(world_runs("a"), 1);
	ck_assert(w.done);
	ck_assert_int_eq(w.run.answer, PIPELINE_GO_ON);
	world_fini(&w);
}
END_TEST

START_TEST(a_filter_behind_one_that_waits_runs_ahead_to_ask)
{
	struct config_filter filters[] = {
		SECTION("a", "mail", OPTION("asks", "a.test")),
		SECTION("b", "mail", OPTION("asks", "b.test"), OPTION("finding", "B=1")),
		SECTION("c", "mail", OPTION("finding", "C=1")),
	};
	struct world w;

	world_init(&w, "", filters, COUNT(filters));
	ck_assert(!start_mail(&w));
	ck_assert_str_eq(world_asked(&w), "a.test b.test ");
	ck_assert(world_answer(&w, "b.test"));
	ck_assert(!w.done);
	ck_assert(world_answer(&w, "a.test"));
	ck_assert(w.done);
	/* Its one run ahead was the whole of it. */
	ck_assert_uint_eq(world_runs("c"), 1);
	world_fini(&w);
}
END_TEST

START_TEST(a_final_verdict_drops_what_ran_ahead)
{
	struct config_filter filters[] = {
		SECTION("a", "mail", OPTION("asks", "a.test"), OPTION("verdict", "accept")),
		SECTION("b", "mail", OPTION("verdict", "reject")),
		SECTION("c", "mail", OPTION("asks", "c.test")),
	};
	struct world w;

	world_init(&w, "", filters, COUNT(filters));
	ck_assert(!start_mail(&w));
	/* Nothing behind b is asked for: b ends it, whatever a says. */
	ck_assert_str_eq(world_asked(&w), "a.test ");
	ck_assert(world_answer(&w, "a.test"));
	ck_assert(w.done);
	ck_assert_int_eq(w.run.answer, PIPELINE_GO_ON);
	ck_assert_uint_eq(world_runs("c"), 0);
	world_fini(&w);
}
END_TEST

START_TEST(a_question_nobody_needs_any_more_is_forgotten)
{
	struct config_filter filters[] = {
		SECTION("a", "mail", OPTION("asks", "a.test"), OPTION("verdict", "reject")),
		SECTION("b", "mail", OPTION("asks", "b.test")),
	};
	struct world w;

	world_init(&w, "", filters, COUNT(filters));
	ck_assert(!start_mail(&w));
	ck_assert_str_eq(world_asked(&w), "a.test b.test ");
	ck_assert(world_answer(&w, "a.test"));
	ck_assert(w.done);
	ck_assert_int_eq(w.run.answer, PIPELINE_REJECT);
	ck_assert(!world_answer(&w, "b.test"));
	world_fini(&w);
}
END_TEST

START_TEST(two_filters_that_want_one_fact_ask_once)
{
	struct config_filter filters[] = {
		SECTION("a", "mail", OPTION("asks", "Same.test")),
		SECTION("b", "mail", OPTION("asks", "same.TEST")),
		SECTION("c", "message", OPTION("asks", "same.test")),
	};
	struct world w;

	world_init(&w, "", filters, COUNT(filters));
	ck_assert_int_eq(world_send(&w, MAIL), PIPELINE_GO_ON);
	ck_assert_str_eq(world_asked(&w), "same.test ");
	world_fini(&w);
}
END_TEST

START_TEST(facts_of_a_recipient_are_its_own_and_those_of_the_session_last)
{
	struct config_filter filters[] = {
		SECTION("s", "connect", OPTION("asks", "session.test")),
		SECTION("m", "mail", OPTION("asks", "session.test", "mail.test")),
		SECTION("r", "rcpt", OPTION("asks", "mail.test", "rcpt.test")),
	};
	struct world w;

	world_init(&w, "", filters, COUNT(filters));
	ck_assert_int_eq(world_send(&w, MAIL), PIPELINE_GO_ON);
	ck_assert_str_eq(world_asked(&w), "session.test mail.test rcpt.test ");
	world_end(&w, true);
	ck_assert_int_eq(world_mail(&w, "carol@sender.test"), PIPELINE_GO_ON);
	ck_assert_int_eq(world_rcpt(&w, "bob@example.test"), PIPELINE_GO_ON);
	ck_assert_int_eq(world_rcpt(&w, "dan@example.test"), PIPELINE_GO_ON);
	ck_assert_str_eq(world_asked(&w), "mail.test rcpt.test rcpt.test ");
	world_fini(&w);
}
END_TEST

START_TEST(a_new_helo_drops_what_was_asked_on_the_old)
{
	struct config_filter filters[] = {
		SECTION("c", "connect", OPTION("asks", "c.test"), OPTION("finding", "C=1")),
		SECTION("h", "helo", OPTION("asks", "h.test"), OPTION("finding", "H=2")),
	};
	struct world w;

	world_init(&w, "", filters, COUNT(filters));
	ck_assert_int_eq(world_send(&w, MAIL), PIPELINE_GO_ON);
	ck_assert_double_eq(w.run.score, 3);
	world_end(&w, true);
	ck_assert_int_eq(world_helo(&w, "other.test"), PIPELINE_GO_ON);
	ck_assert_str_eq(world_asked(&w), "c.test h.test h.test ");
	ck_assert_int_eq(world_mail(&w, ""), PIPELINE_GO_ON);
	ck_assert_int_eq(world_rcpt(&w, "bob@example.test"), PIPELINE_GO_ON);
	ck_assert_int_eq(world_message(&w, MAIL), PIPELINE_GO_ON);
	ck_assert_double_eq(w.run.score, 3);
	world_fini(&w);
}
END_TEST

START_TEST(auth_and_tls_have_the_session_looked_at_again)
{
	struct config_filter filters[] = {
		SECTION("c", "connect", OPTION("asks", "c.test"), OPTION("finding", "C=1")),
		SECTION("h", "helo", OPTION("asks", "h.test"), OPTION("finding", "H=2")),
	};
	struct world w;

	world_init(&w, "", filters, COUNT(filters));
	world_client(&w, "192.0.2.7", false);
	ck_assert_int_eq(world_connect(&w), PIPELINE_GO_ON);
	ck_assert_int_eq(world_helo(&w, "client.test"), PIPELINE_GO_ON);
	ck_assert(pipeline_session_tls(w.s, false));
	ck_assert_int_eq(world_helo(&w, "client.test"), PIPELINE_GO_ON);
	ck_assert(pipeline_session_auth(w.s, SLICE("alice"), false));
	ck_assert_str_eq(world_asked(&w), "c.test h.test c.test h.test ");
	ck_assert_int_eq(world_mail(&w, ""), PIPELINE_GO_ON);
	ck_assert_str_eq(world_asked(&w), "c.test h.test ");
	ck_assert_int_eq(world_rcpt(&w, "bob@example.test"), PIPELINE_GO_ON);
	ck_assert_int_eq(world_message(&w, MAIL), PIPELINE_GO_ON);
	ck_assert_double_eq(w.run.score, 3);
	world_end(&w, true);
	/* Once is enough. */
	ck_assert_int_eq(world_mail(&w, ""), PIPELINE_GO_ON);
	ck_assert_str_eq(world_asked(&w), "");
	world_fini(&w);
}
END_TEST

/* What let the client in at the door counts also while nobody has looked at it anew. */
START_TEST(a_verdict_at_connect_counts_at_the_next_helo)
{
	struct config_filter filters[] = {
		SECTION("c", "connect", OPTION("verdict", "accept")),
		SECTION("h", "helo", OPTION("verdict", "reject")),
	};
	struct world w;

	world_init(&w, "", filters, COUNT(filters));
	world_client(&w, "192.0.2.7", false);
	ck_assert_int_eq(world_connect(&w), PIPELINE_GO_ON);
	ck_assert_int_eq(world_helo(&w, "client.test"), PIPELINE_GO_ON);
	ck_assert(pipeline_session_tls(w.s, false));
	ck_assert_int_eq(world_helo(&w, "client.test"), PIPELINE_GO_ON);
	ck_assert_int_eq(world_mail(&w, ""), PIPELINE_GO_ON);
	world_fini(&w);
}
END_TEST

START_TEST(a_session_that_moves_is_judged_by_the_new_filters)
{
	struct config_filter old[] = { SECTION("c", "connect", OPTION("finding", "OLD=1")) };
	struct config_filter new[] = { SECTION("n", "connect", OPTION("finding", "NEW=2")) };
	struct pipeline *pl;
	struct err err;
	struct world w;

	world_init(&w, "", old, COUNT(old));
	ck_assert_int_eq(world_send(&w, MAIL), PIPELINE_GO_ON);
	ASSERT_HAS(w.run.findings, "OLD=1.0");
	world_end(&w, true);
	w.cfg->filters = new;
	pl = pipeline_new(w.cfg, world_filters, &err);
	ck_assert_ptr_nonnull(pl);
	pipeline_session_move(w.s, pl, false);
	pipeline_unref(pl);
	ck_assert_int_eq(world_mail(&w, ""), PIPELINE_GO_ON);
	ck_assert_int_eq(world_rcpt(&w, "bob@example.test"), PIPELINE_GO_ON);
	ck_assert_int_eq(world_message(&w, MAIL), PIPELINE_GO_ON);
	ASSERT_HAS(w.run.findings, "NEW=2.0");
	ck_assert_uint_eq(w.run.findings.len, 7);
	world_fini(&w);
}
END_TEST

START_TEST(the_direction_says_which_filters_look)
{
	struct config_filter filters[] = {
		SECTION("in", "inbound", OPTION("finding", "IN=1")),
		SECTION("both", "mail", OPTION("finding", "BOTH=1")),
		SECTION("out", "mail", OPTION("finding", "OUT=1")),
	};
	struct world w;

	filters[2].direction = CONFIG_FOR_OUTBOUND;
	filters[2].direction_set = true;
	world_init(&w, "", filters, COUNT(filters));
	ck_assert_int_eq(world_send(&w, MAIL), PIPELINE_GO_ON);
	ck_assert_uint_eq(world_runs("in"), 1);
	ck_assert_uint_eq(world_runs("both"), 1);
	ck_assert_uint_eq(world_runs("out"), 0);
	world_end(&w, true);
	pipeline_session_free(w.s);
	world_client(&w, "192.0.2.7", true);
	ck_assert_int_eq(world_mail(&w, ""), PIPELINE_GO_ON);
	ck_assert_uint_eq(world_runs("in"), 0);
	ck_assert_uint_eq(world_runs("both"), 1);
	ck_assert_uint_eq(world_runs("out"), 1);
	world_fini(&w);
}
END_TEST

/* ---- errors ---------------------------------------------------------------------------------- */

static const struct error_row {
	const char *type;
	enum config_on_error on_error;
	enum pipeline_answer answer;
	bool quarantined;
} error_rows[] = {
	{ "mail", CONFIG_ON_ERROR_DEFAULT, PIPELINE_GO_ON, false },
	{ "secure", CONFIG_ON_ERROR_DEFAULT, PIPELINE_DEFER, false },
	{ "mail", CONFIG_ON_ERROR_DEFER, PIPELINE_DEFER, false },
	{ "mail", CONFIG_ON_ERROR_ACCEPT, PIPELINE_GO_ON, false },
	{ "secure", CONFIG_ON_ERROR_ACCEPT, PIPELINE_GO_ON, false },
	{ "mail", CONFIG_ON_ERROR_QUARANTINE, PIPELINE_GO_ON, true },
};

static void
check_error(struct config_option *option, const struct error_row *row, unsigned ms)
{
	struct config_filter filter = { .name = "f",
		.type = row->type,
		.on_error = row->on_error,
		.options = option,
		.n_options = 1,
		.line = 5 };
	int64_t before = counter_get(COUNTER_FILTER_ERRORS);
	struct world w;

	world_init(&w, "", &filter, 1);
	if (ms > 0)
		facts_set_deadlines(w.facts, ms, ms);
	w.failing = ms == 0;
	if (!start_mail(&w))
		world_wait(&w, ms == 0);
	ck_assert_int_eq(w.run.answer, row->answer);
	ck_assert_int_eq(counter_get(COUNTER_FILTER_ERRORS), before + 1);
	if (row->answer == PIPELINE_DEFER) {
		ck_assert_uint_eq(w.run.reply.code, 450);
		ck_assert_str_eq(w.run.reply.enhanced, "4.7.1");
		ASSERT_HAS(slice_str(w.run.reply.text), "check f, id ");
		ck_assert_str_eq(w.run.check, "f");
	} else {
		ck_assert_int_eq(world_rcpt(&w, "bob@example.test"), PIPELINE_GO_ON);
		ck_assert_int_eq(world_message(&w, MAIL), PIPELINE_GO_ON);
		ck_assert(w.run.rcpts[0].quarantine == row->quarantined);
		ck_assert_str_eq(w.run.reason, row->quarantined ? "error" : "");
	}
	world_fini(&w);
}

START_TEST(a_filter_that_fails_does_what_on_error_says)
{
	struct config_option option = OPTION("fail", "yes");

	check_error(&option, &error_rows[_i], 0);
}
END_TEST

START_TEST(a_fact_that_fails_does_what_on_error_says)
{
	struct config_option option = OPTION("asks", "a.test");

	check_error(&option, &error_rows[_i], 0);
}
END_TEST

START_TEST(a_fact_that_never_comes_does_what_on_error_says)
{
	struct config_option option = OPTION("asks", "a.test");

	check_error(&option, &error_rows[_i], 30);
}
END_TEST

START_TEST(a_filter_that_waits_for_nothing_has_failed)
{
	struct config_option option = OPTION("spin", "yes");

	check_error(&option, &error_rows[_i], 0);
}
END_TEST

START_TEST(past_the_deadline_the_rest_of_the_stage_fails_too_but_what_asks_nothing_counts)
{
	struct config_filter filters[] = {
		SECTION("a", "mail", OPTION("asks", "a.test"), OPTION("finding", "A=1")),
		SECTION("b", "mail", OPTION("finding", "B=1")),
		SECTION("c", "mail", OPTION("asks", "c.test"), OPTION("finding", "C=1")),
	};
	struct world w;

	world_init(&w, "", filters, COUNT(filters));
	facts_set_deadlines(w.facts, 30, 30);
	ck_assert(!start_mail(&w));
	world_wait(&w, false);
	ck_assert_int_eq(w.run.answer, PIPELINE_GO_ON);
	ck_assert_int_eq(world_rcpt(&w, "bob@example.test"), PIPELINE_GO_ON);
	ck_assert_int_eq(world_message(&w, MAIL), PIPELINE_GO_ON);
	ck_assert_msg(slice_eq(w.run.findings, SLICE("B=1.0")), "%.*s", SLICE_FMT(w.run.findings));
	world_fini(&w);
}
END_TEST

START_TEST(a_fact_that_failed_is_asked_for_again_by_the_next_message)
{
	struct config_filter filters[] = { SECTION("a", "connect", OPTION("asks", "a.test")),
		SECTION("b", "mail", OPTION("asks", "a.test")) };
	struct world w;

	world_init(&w, "", filters, COUNT(filters));
	w.failing = true;
	world_client(&w, "192.0.2.7", false);
	ck_assert_int_eq(world_connect(&w), PIPELINE_GO_ON);
	ck_assert_int_eq(world_mail(&w, ""), PIPELINE_GO_ON);
	ck_assert_str_eq(world_asked(&w), "a.test a.test ");
	world_fini(&w);
}
END_TEST

/* ---- cancelling ------------------------------------------------------------------------------ */

START_TEST(a_cancelled_run_is_done_once_from_the_loop)
{
	struct config_filter filters[] = { SECTION("a", "mail", OPTION("asks", "a.test")) };
	struct world w;

	world_init(&w, "", filters, COUNT(filters));
	ck_assert(!start_mail(&w));
	pipeline_cancel(&w.run);
	pipeline_cancel(&w.run);
	ck_assert(!w.done);
	ck_assert(!world_answer(&w, "a.test"));
	world_wait(&w, false);
	ck_assert_int_eq(w.run.answer, PIPELINE_CANCELLED);
	pipeline_cancel(&w.run);
	world_fini(&w);
}
END_TEST

/* ---- the pool -------------------------------------------------------------------------------- */

START_TEST(a_heavy_filter_runs_in_the_pool_with_its_facts)
{
	struct config_filter filters[] = {
		SECTION("m", "mail", OPTION("asks", "early.test")),
		SECTION("a", "message", OPTION("asks", "a.test"), OPTION("finding", "A=1")),
		SECTION("h", "heavy", OPTION("asks", "a.test", "early.test", "h.test"),
		    OPTION("finding", "H=2"), OPTION("sleep", "5")),
		SECTION("z", "message", OPTION("finding", "Z=4")),
	};
	struct world w;

	world_init(&w, "", filters, COUNT(filters));
	ck_assert_int_eq(world_send(&w, MAIL), PIPELINE_GO_ON);
	ck_assert_str_eq(world_asked(&w), "early.test a.test h.test ");
	ck_assert_uint_eq(world_runs("h"), 2);
	ck_assert_double_eq(w.run.score, 7);
	world_fini(&w);
}
END_TEST

START_TEST(a_heavy_filter_does_not_run_in_vain)
{
	struct config_filter filters[] = {
		SECTION("a", "message", OPTION("asks", "a.test"), OPTION("verdict", "reject")),
		SECTION("h", "heavy", OPTION("finding", "H=2")),
	};
	struct world w;

	world_init(&w, "", filters, COUNT(filters));
	ck_assert_int_eq(world_send(&w, MAIL), PIPELINE_REJECT);
	ck_assert_uint_eq(world_runs("h"), 0);
	world_fini(&w);
}
END_TEST

START_TEST(a_heavy_filter_past_the_deadline_is_left_to_itself)
{
	struct config_filter filters[] = {
		SECTION("h", "heavy", OPTION("sleep", "300"), OPTION("finding", "H=2")),
		SECTION("z", "message", OPTION("finding", "Z=4")),
	};
	char *bytes = strdup(MAIL);
	struct world w;

	world_init(&w, "", filters, COUNT(filters));
	facts_set_deadlines(w.facts, 30, 30);
	ck_assert_int_eq(world_send(&w, bytes), PIPELINE_GO_ON);
	ck_assert_double_eq(w.run.score, 4);
	/* Message, transaction and session go while it runs. */
	world_end(&w, true);
	ck_assert_uint_eq(w.released, 1);
	free(bytes);
	pipeline_session_free(w.s);
	w.s = NULL;
	world_fini(&w);
}
END_TEST

START_TEST(a_heavy_filter_does_not_begin_past_the_deadline)
{
	struct config_filter filters[] = {
		SECTION("a", "message", OPTION("asks", "a.test")),
		SECTION("h", "heavy", OPTION("finding", "H=2")),
	};
	struct world w;

	world_init(&w, "", filters, COUNT(filters));
	facts_set_deadlines(w.facts, 1000, 20);
	world_client(&w, "192.0.2.7", false);
	ck_assert_int_eq(world_mail(&w, ""), PIPELINE_GO_ON);
	ck_assert_int_eq(world_rcpt(&w, "bob@example.test"), PIPELINE_GO_ON);
	w.message.bytes = SLICE(MAIL);
	w.run.message = &w.message;
	ck_assert(!world_start(&w, FILTER_MESSAGE));
	world_wait(&w, false);
	ck_assert_int_eq(w.run.answer, PIPELINE_GO_ON);
	ck_assert_uint_eq(world_runs("h"), 0);
	ck_assert_double_eq(w.run.score, 0);
	world_fini(&w);
}
END_TEST

START_TEST(everything_may_be_closed_while_a_heavy_filter_still_runs)
{
	struct config_filter filters[] = {
		SECTION("l", "connect", OPTION("limit", "k+accepted/9/3600")),
		SECTION("h", "heavy", OPTION("sleep", "200")),
	};
	struct world w;

	world_init(&w, "", filters, COUNT(filters));
	world_with_state(&w);
	facts_set_deadlines(w.facts, 1000, 20);
	ck_assert_int_eq(world_send(&w, MAIL), PIPELINE_GO_ON);
	world_end(&w, true);
	pipeline_session_free(w.s);
	w.s = NULL;
	state_close(w.state);
	w.state = NULL;
	facts_close(w.facts);
	w.facts = NULL;
	world_fini(&w);
}
END_TEST

START_TEST(a_heavy_filter_can_be_cancelled_while_it_runs)
{
	struct config_filter filters[] = { SECTION("h", "heavy", OPTION("sleep", "100")) };
	struct world w;

	world_init(&w, "", filters, COUNT(filters));
	world_client(&w, "192.0.2.7", false);
	ck_assert_int_eq(world_mail(&w, ""), PIPELINE_GO_ON);
	ck_assert_int_eq(world_rcpt(&w, "bob@example.test"), PIPELINE_GO_ON);
	w.message.bytes = SLICE(MAIL);
	w.run.message = &w.message;
	ck_assert(!world_start(&w, FILTER_MESSAGE));
	pipeline_cancel(&w.run);
	world_wait(&w, false);
	ck_assert_int_eq(w.run.answer, PIPELINE_CANCELLED);
	world_fini(&w);
}
END_TEST

START_TEST(more_heavy_filters_than_the_pool_takes_wait_in_line)
{
	struct config_filter filters[] = { SECTION("h", "heavy", OPTION("sleep", "10")) };
	struct world w[6];

	/* One facts for all of them: the line is the process's. */
	for (size_t i = 0; i < COUNT(w); i++) {
		world_init(&w[i], "", filters, COUNT(filters));
		world_client(&w[i], "192.0.2.7", false);
	}
	for (size_t i = 1; i < COUNT(w); i++) {
		pipeline_session_free(w[i].s);
		facts_close(w[i].facts);
		w[i].facts = w[0].facts;
		world_client(&w[i], "192.0.2.7", false);
	}
	for (size_t i = 0; i < COUNT(w); i++) {
		ck_assert_int_eq(world_mail(&w[i], ""), PIPELINE_GO_ON);
		ck_assert_int_eq(world_rcpt(&w[i], "bob@example.test"), PIPELINE_GO_ON);
		w[i].message.bytes = SLICE(MAIL);
		w[i].run.message = &w[i].message;
		ck_assert(!world_start(&w[i], FILTER_MESSAGE));
	}
	pipeline_cancel(&w[5].run); /* still in line */
	while (!w[0].done || !w[1].done || !w[2].done || !w[3].done || !w[4].done || !w[5].done)
		(void)uv_run(&w[0].loop, UV_RUN_ONCE);
	ck_assert_int_eq(w[5].run.answer, PIPELINE_CANCELLED);
	ck_assert_int_eq(w[4].run.answer, PIPELINE_GO_ON);
	ck_assert_uint_eq(world_runs("h"), 5);
	for (size_t i = COUNT(w); i-- > 0;) {
		if (i > 0)
			w[i].facts = NULL;
		world_fini(&w[i]);
	}
}
END_TEST

/* ---- counters -------------------------------------------------------------------------------- */

static enum pipeline_answer
one_message(struct world *w, bool accepted)
{
	enum pipeline_answer answer;

	world_client(w, "192.0.2.7", false);
	answer = world_mail(w, "alice@sender.test");
	world_end(w, accepted && answer == PIPELINE_GO_ON);
	pipeline_session_free(w->s);
	w->s = NULL;
	return answer;
}

START_TEST(a_counter_of_attempts_counts_what_was_refused_later)
{
	struct config_filter filters[] = { SECTION("l", "mail", OPTION("limit", "k/2/3600")) };
	struct world w;

	world_init(&w, "", filters, COUNT(filters));
	world_with_state(&w);
	ck_assert_int_eq(one_message(&w, false), PIPELINE_GO_ON);
	ck_assert_int_eq(one_message(&w, true), PIPELINE_GO_ON);
	ck_assert_int_eq(one_message(&w, true), PIPELINE_DEFER);
	ASSERT_HAS(slice_str(w.run.reply.text), "over the limit [check l, id ");
	world_fini(&w);
}
END_TEST

static enum pipeline_answer
one_recipient(struct world *w, const char *reverse_path, const char *forward_path)
{
	enum pipeline_answer answer;

	world_client(w, "192.0.2.7", false);
	ck_assert_int_eq(world_mail(w, reverse_path), PIPELINE_GO_ON);
	answer = world_rcpt(w, forward_path);
	world_end(w, false);
	pipeline_session_free(w->s);
	w->s = NULL;
	return answer;
}

/* With SMTPUTF8 one domain can be spelt in as many ways as IDNA maps to it. */
START_TEST(a_filter_sees_one_domain_however_it_is_spelt)
{
	static const struct filter *const builtin[] = { &filter_ratelimit, NULL };
	struct world w;

	world_init_text(&w,
	    "filter l { type = ratelimit  key = { sender, recipient }  rate = \"1/1h\" }\n",
	    builtin);
	world_with_state(&w);
	ck_assert_int_eq(
	    one_recipient(&w, "a@b\xc3\xbc"
			      "cher.test",
		"bob@example.test"),
	    PIPELINE_GO_ON);
	ck_assert_int_eq(
	    one_recipient(&w, "a@xn--bcher-kva.test", "bob@\xef\xbd\x85xample.test"),
	    PIPELINE_DEFER);
	ck_assert_int_eq(
	    one_recipient(&w, "a@xn--bcher-kva.test", "bob@an.example.test"), PIPELINE_GO_ON);
	world_fini(&w);
}
END_TEST

START_TEST(a_counter_of_accepted_mail_is_given_back_for_what_was_not)
{
	struct config_filter filters[] = { SECTION(
	    "l", "mail", OPTION("limit", "k+accepted/1/3600")) };
	struct world w;

	world_init(&w, "", filters, COUNT(filters));
	world_with_state(&w);
	for (int i = 0; i < 5; i++)
		ck_assert_int_eq(one_message(&w, false), PIPELINE_GO_ON);
	ck_assert_int_eq(one_message(&w, true), PIPELINE_GO_ON);
	ck_assert_int_eq(one_message(&w, true), PIPELINE_DEFER);
	world_fini(&w);
}
END_TEST

START_TEST(two_filters_do_not_share_a_counter_and_one_takes_it_once_a_message)
{
	struct config_filter filters[] = {
		SECTION("a", "mail", OPTION("limit", "k/3/3600")),
		SECTION("b", "mail", OPTION("asks", "b.test"), OPTION("limit", "k/3/3600")),
	};
	struct world w;

	world_init(&w, "", filters, COUNT(filters));
	world_with_state(&w);
	for (int i = 0; i < 3; i++)
		ck_assert_int_eq(one_message(&w, true), PIPELINE_GO_ON);
	ck_assert_int_eq(one_message(&w, true), PIPELINE_DEFER);
	world_fini(&w);
}
END_TEST

START_TEST(a_counter_waits_for_its_turn)
{
	struct config_filter filters[] = {
		SECTION("a", "mail", OPTION("asks", "a.test"), OPTION("verdict", "reject")),
		SECTION("l", "mail", OPTION("limit", "k/1/3600")),
	};
	struct config_filter alone[] = { filters[1] };
	struct pipeline *pl;
	struct err err;
	struct world w;

	world_init(&w, "", filters, COUNT(filters));
	world_with_state(&w);
	for (int i = 0; i < 3; i++)
		ck_assert_int_eq(one_message(&w, false), PIPELINE_REJECT);
	w.cfg->filters = alone;
	w.cfg->n_filters = 1;
	pl = pipeline_new(w.cfg, world_filters, &err);
	pipeline_unref(w.pl);
	w.pl = pl;
	/* Nothing was counted for those that a refused. */
	ck_assert_int_eq(one_message(&w, true), PIPELINE_GO_ON);
	ck_assert_int_eq(one_message(&w, true), PIPELINE_DEFER);
	world_fini(&w);
}
END_TEST

START_TEST(without_a_store_on_error_decides)
{
	struct config_filter filters[] = { SECTION("l", "mail", OPTION("limit", "k/1/3600")),
		SECTION("s", "secure", OPTION("limit", "k/1/3600")) };
	struct world w;

	world_init(&w, "", filters, 1);
	ck_assert_int_eq(one_message(&w, true), PIPELINE_GO_ON);
	world_fini(&w);
	world_init(&w, "", filters, 2);
	ck_assert_int_eq(one_message(&w, true), PIPELINE_DEFER);
	world_fini(&w);
}
END_TEST

START_TEST(a_counter_taken_for_a_session_that_ended_meanwhile_is_given_back)
{
	struct config_filter filters[] = { SECTION(
	    "l", "mail", OPTION("limit", "k+accepted/1/3600")) };
	struct world w;

	world_init(&w, "", filters, COUNT(filters));
	world_with_state(&w);
	ck_assert(!start_mail(&w));
	pipeline_cancel(&w.run);
	world_end(&w, false);
	world_wait(&w, false);
	pipeline_session_free(w.s);
	(void)uv_run(&w.loop, UV_RUN_DEFAULT);
	ck_assert_int_eq(one_message(&w, true), PIPELINE_GO_ON);
	world_fini(&w);
}
END_TEST

START_TEST(a_recipient_that_is_refused_gives_back_what_was_taken_for_it)
{
	struct config_filter filters[] = {
		SECTION("l", "rcpt", OPTION("limit", "k+accepted/2/3600")),
		SECTION("r", "rcpt", OPTION("only", "no@example.test"), OPTION("fail", "yes")),
	};
	struct world w;

	filters[1].on_error = CONFIG_ON_ERROR_DEFER;
	world_init(&w, "", filters, COUNT(filters));
	world_with_state(&w);
	world_client(&w, "192.0.2.7", false);
	ck_assert_int_eq(world_mail(&w, ""), PIPELINE_GO_ON);
	for (int i = 0; i < 3; i++)
		ck_assert_int_eq(world_rcpt(&w, "no@example.test"), PIPELINE_DEFER);
	ck_assert_int_eq(world_rcpt(&w, "a@example.test"), PIPELINE_GO_ON);
	ck_assert_int_eq(world_rcpt(&w, "b@example.test"), PIPELINE_GO_ON);
	ck_assert_int_eq(world_rcpt(&w, "c@example.test"), PIPELINE_DEFER);
	ck_assert_int_eq(world_message(&w, MAIL), PIPELINE_GO_ON);
	ck_assert_uint_eq(w.run.copies[0].n_rcpts, 2);
	world_fini(&w);
}
END_TEST

START_TEST(a_recipient_can_be_cancelled_with_all_that_was_taken_for_it)
{
	struct config_filter filters[] = {
		SECTION("l", "rcpt", OPTION("limit", "k+accepted/1/3600")),
		SECTION("a", "rcpt", OPTION("asks", "a.test"), OPTION("finding", "A=1")),
	};
	struct world w;

	world_init(&w, "", filters, COUNT(filters));
	world_with_state(&w);
	world_client(&w, "192.0.2.7", false);
	for (int i = 0; i < 3; i++) {
		ck_assert_int_eq(world_mail(&w, ""), PIPELINE_GO_ON);
		w.run.rcpt = (struct envelope_rcpt){ .forward_path = SLICE("a@example.test"),
			.params = SLICE("") };
		ck_assert(!world_start(&w, FILTER_RCPT));
		/* With the counter on its way, or taken and the answer awaited. */
		for (unsigned runs = world_runs("l"); i > 0 && runs < 2; runs += world_runs("l"))
			(void)uv_run(&w.loop, UV_RUN_ONCE);
		pipeline_cancel(&w.run);
		world_wait(&w, false);
		ck_assert_int_eq(w.run.answer, PIPELINE_CANCELLED);
		world_end(&w, false);
		(void)uv_run(&w.loop, UV_RUN_DEFAULT); /* until it is given back */
	}
	ck_assert_int_eq(world_mail(&w, ""), PIPELINE_GO_ON);
	ck_assert_int_eq(world_rcpt(&w, "a@example.test"), PIPELINE_GO_ON);
	world_fini(&w);
}
END_TEST

UNIT_SUITE(pipeline_order)
{
	UNIT_TEST(without_filters_every_stage_is_over_at_once);
	UNIT_TEST(what_a_run_found_before_it_waited_is_dropped);
	UNIT_TEST(what_is_asked_for_together_is_fetched_together);
	UNIT_TEST(a_filter_behind_one_that_waits_runs_ahead_to_ask);
	UNIT_TEST(a_final_verdict_drops_what_ran_ahead);
	UNIT_TEST(a_question_nobody_needs_any_more_is_forgotten);
	UNIT_TEST(two_filters_that_want_one_fact_ask_once);
	UNIT_TEST(facts_of_a_recipient_are_its_own_and_those_of_the_session_last);
	UNIT_TEST(a_new_helo_drops_what_was_asked_on_the_old);
	UNIT_TEST(auth_and_tls_have_the_session_looked_at_again);
	UNIT_TEST(a_verdict_at_connect_counts_at_the_next_helo);
	UNIT_TEST(a_session_that_moves_is_judged_by_the_new_filters);
	UNIT_TEST(the_direction_says_which_filters_look);
	UNIT_ROWS(a_filter_that_fails_does_what_on_error_says, error_rows);
	UNIT_ROWS(a_fact_that_fails_does_what_on_error_says, error_rows);
	UNIT_ROWS(a_fact_that_never_comes_does_what_on_error_says, error_rows);
	UNIT_ROWS(a_filter_that_waits_for_nothing_has_failed, error_rows);
	UNIT_TEST(past_the_deadline_the_rest_of_the_stage_fails_too_but_what_asks_nothing_counts);
	UNIT_TEST(a_fact_that_failed_is_asked_for_again_by_the_next_message);
	UNIT_TEST(a_cancelled_run_is_done_once_from_the_loop);
	UNIT_TEST(a_heavy_filter_runs_in_the_pool_with_its_facts);
	UNIT_TEST(a_heavy_filter_does_not_run_in_vain);
	UNIT_TEST(a_heavy_filter_past_the_deadline_is_left_to_itself);
	UNIT_TEST(a_heavy_filter_does_not_begin_past_the_deadline);
	UNIT_TEST(everything_may_be_closed_while_a_heavy_filter_still_runs);
	UNIT_TEST(a_heavy_filter_can_be_cancelled_while_it_runs);
	UNIT_TEST(more_heavy_filters_than_the_pool_takes_wait_in_line);
	UNIT_TEST(a_counter_of_attempts_counts_what_was_refused_later);
	UNIT_TEST(a_filter_sees_one_domain_however_it_is_spelt);
	UNIT_TEST(a_counter_of_accepted_mail_is_given_back_for_what_was_not);
	UNIT_TEST(two_filters_do_not_share_a_counter_and_one_takes_it_once_a_message);
	UNIT_TEST(a_counter_waits_for_its_turn);
	UNIT_TEST(without_a_store_on_error_decides);
	UNIT_TEST(a_counter_taken_for_a_session_that_ended_meanwhile_is_given_back);
	UNIT_TEST(a_recipient_can_be_cancelled_with_all_that_was_taken_for_it);
	UNIT_TEST(a_recipient_that_is_refused_gives_back_what_was_taken_for_it);
}
