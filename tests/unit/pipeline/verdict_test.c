/* tests/unit/pipeline/verdict_test.c - what becomes of each recipient, and what the client is
 * told. */
#include "unit/pipeline/world.h"

#include "relayd/pipeline/inside.h"
#include "relayd/pipeline/verdict.h"

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))
#define MAIL     "Subject: x\r\n\r\nbody\r\n"
#define POLICIES                                                                                   \
	"policy inbound { tag = 5.0  quarantine = 8.0  reject = 15.0 }\n"                          \
	"policy outbound { quarantine = 12.0 }\n"                                                  \
	"policy strict.test { reject = 9.0  tag = 1.0 }\n"

/* ---- combination ----------------------------------------------------------------------------- */

/* a accept, t tag, q quarantine, d discard, r reject, f defer */
static enum outcome
outcome_of(char c)
{
	static const char letters[] = "atqdrf";

	return (enum outcome)(strchr(letters, c) - letters);
}

static const struct combination {
	const char *judged;
	bool outbound, per_recipient;
	char answer;      /* a: 250 and each by its own */
	const char *done; /* what is done with an answer a */
} combinations[] = {
	{ "a", false, false, 'a', "a" },
	{ "t", false, false, 'a', "t" },
	{ "q", false, false, 'a', "q" },
	{ "r", false, false, 'r', NULL },
	{ "d", false, false, 'd', NULL },
	{ "f", false, false, 'f', NULL },
	{ "ttq", false, false, 'a', "ttq" },
	{ "aaf", false, false, 'f', NULL }, /* any defer: nothing is kept */
	{ "rrf", false, false, 'f', NULL },
	{ "ddf", false, false, 'f', NULL },
	{ "rrr", false, false, 'r', NULL },
	{ "ddd", false, false, 'd', NULL },
	{ "arq", false, false, 'a', "aqq" }, /* a reject among others is held */
	{ "rd", false, false, 'a', "qd" },
	{ "ad", false, false, 'a', "ad" },
	{ "ar", true, false, 'r', NULL }, /* outbound: the sender is told */
	{ "dr", true, false, 'r', NULL },
	{ "aq", true, false, 'a', "aq" },
	{ "arf", true, false, 'f', NULL },
	{ "arfdq", false, true, 'a', "arfdq" }, /* each is answered by itself */
	{ "ar", true, true, 'a', "ar" },
	{ "rr", false, true, 'r', NULL },
	{ "ff", false, true, 'f', NULL },
	{ "dd", false, true, 'd', NULL },
	{ "rf", false, true, 'a', "rf" },
};

START_TEST(verdicts_of_recipients_combine)
{
	const struct combination *c = &combinations[_i];
	enum outcome outcomes[8];
	size_t n = strlen(c->judged);

	for (size_t i = 0; i < n; i++)
		outcomes[i] = outcome_of(c->judged[i]);
	ck_assert_int_eq(
	    pl_combine(outcomes, n, c->outbound, c->per_recipient), outcome_of(c->answer));
	for (size_t i = 0; c->done != NULL && i < n; i++)
		ck_assert_int_eq(outcomes[i], outcome_of(c->done[i]));
}
END_TEST

/* ---- policies -------------------------------------------------------------------------------- */

static const struct policy_row {
	const char *score;
	const char *rcpt;
	bool outbound;
	const char *verdict;
} policy_rows[] = {
	{ "M=4.9", "bob@example.test", false, "accept" },
	{ "M=5", "bob@example.test", false, "tag" },
	{ "M=7.99", "bob@example.test", false, "tag" },
	{ "M=8", "bob@example.test", false, "quarantine" },
	{ "M=14.9", "bob@example.test", false, "quarantine" },
	{ "M=15", "bob@example.test", false, "reject" },
	{ "M=0.9", "ann@strict.test", false, "accept" },
	{ "M=1", "ann@STRICT.test", false, "tag" },        /* overridden */
	{ "M=8", "ann@strict.test", false, "quarantine" }, /* inherited */
	{ "M=9", "ann@strict.test", false, "reject" },
	{ "M=9", "ann@\xef\xbd\x93trict.test", false, "reject" }, /* a wide s, with SMTPUTF8 */
	{ "M=11.9", "x@elsewhere.test", true, "accept" },
	{ "M=12", "x@elsewhere.test", true, "quarantine" },
	{ "M=100", "x@elsewhere.test", true, "quarantine" }, /* nothing else is set */
	{ "M=100", "ann@strict.test", true,
	    "quarantine" }, /* a domain's policy is for mail from outside */
	{ "M=-3", "bob@example.test", false, "accept" },
};

START_TEST(the_score_meets_the_policy_of_the_recipient)
{
	const struct policy_row *r = &policy_rows[_i];
	struct config_filter filters[] = { SECTION("m", "message", OPTION("finding", r->score)) };
	struct world w;

	world_init(&w, POLICIES, filters, COUNT(filters));
	world_client(&w, "192.0.2.7", r->outbound);
	ck_assert_int_eq(world_mail(&w, "a@sender.test"), PIPELINE_GO_ON);
	ck_assert_int_eq(world_rcpt(&w, r->rcpt), PIPELINE_GO_ON);
	ck_assert_int_eq(world_message(&w, MAIL),
	    strcmp(r->verdict, "reject") == 0 ? PIPELINE_REJECT : PIPELINE_GO_ON);
	ck_assert_str_eq(w.run.verdict, r->verdict);
	ck_assert(w.run.outbound == r->outbound);
	if (w.run.answer == PIPELINE_REJECT) {
		ck_assert_uint_eq(w.run.reply.code, 550);
		ck_assert_str_eq(w.run.check, "M");
		ASSERT_HAS(slice_str(w.run.reply.text), "[check M, id ");
		ASSERT_HAS(slice_str(w.run.reply.text), "contact pm@example.test]");
	}
	world_fini(&w);
}
END_TEST

START_TEST(sums_of_tenths_reach_their_threshold)
{
	struct config_filter filters[] = { SECTION("m", "message",
	    OPTION("finding", "A=0.1", "B=0.2", "C=0.3", "D=0.4", "E=0.1", "F=3.9")) };
	struct world w;

	world_init(&w, POLICIES, filters, COUNT(filters));
	ck_assert_int_eq(world_send(&w, MAIL), PIPELINE_GO_ON);
	ck_assert_str_eq(w.run.verdict, "tag");
	ck_assert_str_eq(w.run.check, "F");
	world_fini(&w);
}
END_TEST

/* ---- filters' verdicts ----------------------------------------------------------------------- */

static const struct verdict_row {
	const char *first, *second; /* verdicts of two filters in order, NULL: none */
	const char *score;          /* of a third */
	const char *verdict, *check;
} verdict_rows[] = {
	{ "accept", "reject", "M=20", "accept", "a" },
	{ "reject", "accept", "M=0", "reject", "a" },
	{ "defer", "reject", "M=0", "defer", "a" },
	{ "discard", "reject", "M=0", "discard", "a" },
	{ "quarantine", NULL, "M=0", "quarantine", "a" },
	{ "quarantine", NULL, "M=20", "reject", "M" }, /* held at least */
	{ "quarantine", "reject", "M=0", "reject", "b" },
	{ "quarantine", "accept", "M=0", "quarantine", "a" },
	{ "quarantine", "discard", "M=0", "discard", "b" },
	{ "accept", "quarantine", "M=0", "accept", "a" },
	{ NULL, "accept", "M=20", "accept", "b" },
	{ NULL, NULL, "M=8", "quarantine", "M" },
};

static void
set(struct config_filter *f, const char *verdict)
{
	f->n_options = verdict != NULL;
	if (verdict != NULL)
		f->options[0].values.v[0] = verdict;
}

/* At one stage, and with the second filter at an earlier one than the first. */
static void
check_verdicts(const struct verdict_row *r, const char *first_type)
{
	struct config_filter filters[] = {
		SECTION("a", first_type, OPTION("verdict", "accept")),
		SECTION("b", "message", OPTION("verdict", "accept")),
		SECTION("c", "message", OPTION("finding", r->score)),
	};
	enum pipeline_answer answer;
	struct world w;

	set(&filters[0], r->first);
	set(&filters[1], r->second);
	world_init(&w, POLICIES, filters, COUNT(filters));
	answer = world_send(&w, MAIL);
	ck_assert_str_eq(w.run.verdict, r->verdict);
	ck_assert_str_eq(w.run.check, r->check);
	ck_assert_int_eq(answer, strcmp(r->verdict, "reject") == 0    ? PIPELINE_REJECT
				 : strcmp(r->verdict, "defer") == 0   ? PIPELINE_DEFER
				 : strcmp(r->verdict, "discard") == 0 ? PIPELINE_DISCARD
								      : PIPELINE_GO_ON);
	world_fini(&w);
}

START_TEST(the_first_final_verdict_is_followed)
{
	check_verdicts(&verdict_rows[_i], "message");
}
END_TEST

START_TEST(what_a_filter_found_early_does_not_count_behind_a_final_verdict_in_front_of_it)
{
	struct config_filter filters[] = {
		SECTION("a", "message", OPTION("verdict", "accept"), OPTION("finding", "A=1")),
		SECTION("b", "mail", OPTION("finding", "B=20"), OPTION("auth", "spf=fail")),
	};
	struct buf bytes = buf_heap(1 << 16);
	struct world w;

	world_init(&w, POLICIES, filters, COUNT(filters));
	ck_assert_int_eq(world_send(&w, MAIL), PIPELINE_GO_ON);
	ck_assert_str_eq(w.run.verdict, "accept");
	ck_assert_double_eq(w.run.score, 1);
	ASSERT_HAS(world_bytes(&w, 0, &bytes), "X-Relayd-Findings: A=1.0\r\n");
	ASSERT_HAS(world_bytes(&w, 0, &bytes), "Authentication-Results: mx.example.test; none\r\n");
	buf_fini(&bytes);
	world_fini(&w);
}
END_TEST

START_TEST(an_early_quarantine_is_kept_until_the_end)
{
	check_verdicts(&verdict_rows[4], "mail");
	check_verdicts(&verdict_rows[5], "connect");
	check_verdicts(&verdict_rows[7], "helo");
}
END_TEST

static const struct stage_row {
	const char *type, *verdict;
	enum filter_stage stage;
	unsigned code;
} stage_rows[] = {
	{ "connect", "reject", FILTER_CONNECT, 554 },
	{ "connect", "defer", FILTER_CONNECT, 421 },
	{ "helo", "reject", FILTER_HELO, 550 },
	{ "helo", "defer", FILTER_HELO, 451 },
	{ "mail", "reject", FILTER_MAIL, 550 },
	{ "mail", "defer", FILTER_MAIL, 450 },
	{ "rcpt", "reject", FILTER_RCPT, 550 },
	{ "rcpt", "defer", FILTER_RCPT, 450 },
	{ "message", "reject", FILTER_MESSAGE, 550 },
	{ "message", "defer", FILTER_MESSAGE, 451 },
};

START_TEST(a_refusal_is_told_at_its_stage_and_names_check_id_and_whom_to_ask)
{
	const struct stage_row *r = &stage_rows[_i];
	struct config_filter filters[] = { SECTION("strict", r->type, OPTION("verdict", r->verdict),
	    OPTION("text", "No\r\n250 thanks\xff")) };
	enum pipeline_answer answers[5];
	struct world w;

	world_init(&w, "", filters, COUNT(filters));
	world_client(&w, "192.0.2.7", false);
	answers[0] = world_connect(&w);
	if (r->stage >= FILTER_HELO)
		answers[1] = world_helo(&w, "x.test");
	if (r->stage >= FILTER_MAIL)
		answers[2] = world_mail(&w, "a@sender.test");
	if (r->stage >= FILTER_RCPT)
		answers[3] = world_rcpt(&w, "bob@example.test");
	if (r->stage >= FILTER_MESSAGE)
		answers[4] = world_message(&w, MAIL);
	ck_assert_int_eq(answers[r->stage], r->code >= 500 ? PIPELINE_REJECT : PIPELINE_DEFER);
	ck_assert_uint_eq(w.run.reply.code, r->code);
	ck_assert_str_eq(w.run.reply.enhanced, r->code >= 500 ? "5.7.1" : "4.7.1");
	ck_assert_str_eq(w.run.check, "strict");
	ck_assert_msg(strncmp(w.run.reply.text, "No??250 thanks? [check strict, id ", 34) == 0,
	    "%s", w.run.reply.text);
	ASSERT_HAS(slice_str(w.run.reply.text), ", contact pm@example.test]");
	world_fini(&w);
}
END_TEST

START_TEST(a_code_that_does_not_fit_the_verdict_is_not_used)
{
	static const struct {
		const char *verdict, *code;
		unsigned used;
	} rows[] = { { "reject", "551", 551 }, { "reject", "450", 550 }, { "defer", "550", 450 },
		{ "defer", "452", 452 }, { "reject", "599", 550 }, { "reject", "250", 550 } };

	for (size_t i = 0; i < COUNT(rows); i++) {
		struct config_filter filters[] = { SECTION("f", "mail",
		    OPTION("verdict", rows[i].verdict), OPTION("code", rows[i].code)) };
		struct world w;

		world_init(&w, "", filters, COUNT(filters));
		world_client(&w, "192.0.2.7", false);
		(void)world_mail(&w, "");
		ck_assert_uint_eq(w.run.reply.code, rows[i].used);
		world_fini(&w);
	}
}
END_TEST

/* ---- per recipient --------------------------------------------------------------------------- */

START_TEST(each_recipient_goes_by_its_own_verdict)
{
	struct config_filter filters[] = {
		SECTION("r", "rcpt", OPTION("only", "none"), OPTION("finding", "R=1")),
		SECTION("m", "message", OPTION("finding", "M=8")),
	};
	struct world w;

	world_init(&w, POLICIES, filters, COUNT(filters));
	world_client(&w, "192.0.2.7", false);
	ck_assert_int_eq(world_mail(&w, "a@sender.test"), PIPELINE_GO_ON);
	ck_assert_int_eq(world_rcpt(&w, "bob@example.test"), PIPELINE_GO_ON);
	ck_assert_int_eq(world_rcpt(&w, "ann@strict.test"), PIPELINE_GO_ON);
	ck_assert_int_eq(world_rcpt(&w, "eve@example.test"), PIPELINE_GO_ON);
	ck_assert_int_eq(world_message(&w, MAIL), PIPELINE_GO_ON);
	/* 9 rejects at strict.test alone: held instead, with the others. */
	ck_assert_str_eq(w.run.verdict, "quarantine");
	ck_assert_uint_eq(w.run.n_rcpts, 3);
	ck_assert(
	    w.run.rcpts[0].quarantine && w.run.rcpts[1].quarantine && w.run.rcpts[2].quarantine);
	ck_assert_uint_eq(w.run.n_copies, 1);
	ck_assert_uint_eq(w.run.copies[0].n_rcpts, 3);
	world_fini(&w);
}
END_TEST

START_TEST(a_client_that_takes_a_reply_for_each_gets_them)
{
	struct config_filter filters[] = { SECTION("m", "message", OPTION("finding", "M=9")) };
	struct world w;

	world_init(&w, POLICIES, filters, COUNT(filters));
	w.run.per_recipient = true;
	world_send_two(&w, "a@sender.test", "ann@strict.test", MAIL);
	ck_assert_int_eq(w.run.rcpts[0].answer, PIPELINE_GO_ON);
	ck_assert_ptr_null(w.run.rcpts[0].reply);
	ck_assert_int_eq(w.run.rcpts[1].answer, PIPELINE_REJECT);
	ck_assert_uint_eq(w.run.rcpts[1].reply->code, 550);
	ck_assert_uint_eq(w.run.n_copies, 1);
	ck_assert_uint_eq(w.run.copies[0].n_rcpts, 1);
	ck_assert(slice_eq(w.run.copies[0].rcpts[0].forward_path, SLICE("bob@example.test")));
	world_fini(&w);
}
END_TEST

START_TEST(a_verdict_at_rcpt_is_for_that_recipient)
{
	struct config_filter filters[] = {
		SECTION("r", "rcpt", OPTION("verdict", "accept")),
		SECTION("m", "message", OPTION("finding", "M=20")),
	};
	struct world w;

	world_init(&w, POLICIES, filters, COUNT(filters));
	ck_assert_int_eq(world_send(&w, MAIL), PIPELINE_GO_ON);
	ck_assert_str_eq(w.run.verdict, "accept");
	/* Accepted for all there are: nobody behind it looks at the message. */
	ck_assert_uint_eq(world_runs("m"), 0);
	world_fini(&w);
}
END_TEST

/* Lets everybody in at RCPT, and then sees the message. */
static enum filter_status
change_mind(struct filter_tx *tx, const void *settings)
{
	(void)settings;
	filter_verdict(tx, tx->host->stage(tx) == FILTER_RCPT ? FILTER_ACCEPT : FILTER_REJECT,
	    SLICE("so be it"));
	return FILTER_DONE;
}

START_TEST(a_filter_may_change_its_mind_of_a_recipient)
{
	static const struct filter filter = { .abi = RELAYD_FILTER_ABI,
		.size = sizeof(filter),
		.name = "mind",
		.stages = FILTER_AT(FILTER_RCPT) | FILTER_AT(FILTER_MESSAGE),
		.run = change_mind };
	static const struct filter *const builtin[] = { &filter, NULL };
	struct world w;

	world_init_text(&w, "filter mind { }\n", builtin);
	ck_assert_int_eq(world_send(&w, MAIL), PIPELINE_REJECT);
	world_fini(&w);
}
END_TEST

START_TEST(tagged_and_accepted_recipients_get_different_copies)
{
	struct config_filter filters[] = { SECTION("m", "message", OPTION("finding", "M=2")) };
	struct buf bytes = buf_heap(1 << 16);
	struct world w;

	world_init(&w, POLICIES, filters, COUNT(filters));
	world_send_two(&w, "a@sender.test", "ann@strict.test", MAIL);
	ck_assert_uint_eq(w.run.n_copies, 2);
	ASSERT_HAS(world_bytes(&w, 0, &bytes), "X-Relayd-Verdict: accept\r\n");
	ASSERT_HAS(world_bytes(&w, 1, &bytes), "X-Relayd-Verdict: tag\r\n");
	ck_assert(slice_eq(w.run.copies[1].rcpts[0].forward_path, SLICE("ann@strict.test")));
	buf_fini(&bytes);
	world_fini(&w);
}
END_TEST

static const struct {
	const char *path, *result, *properties;
	bool authentic;
} authentic_rows[] = {
	{ "a@sender.test", "spf=pass", "smtp.mailfrom=a@sender.test", true },
	{ "a@sender.test", "spf=fail", "smtp.mailfrom=a@sender.test", false },
	{ "a@sender.test", "spf=pass", "smtp.helo=client.test", false },
	{ "a@sender.test", "dkim=pass", "smtp.mailfrom=a@sender.test", false },
	{ "", "spf=pass", "smtp.helo=client.test", true },
};

START_TEST(a_sender_is_authentic_when_spf_passed_for_whom_a_bounce_goes_to)
{
	struct config_filter filters[] = { SECTION("m", "mail",
	    OPTION("auth", authentic_rows[_i].result),
	    OPTION("properties", authentic_rows[_i].properties)) };
	struct world w;

	world_init(&w, "", filters, COUNT(filters));
	world_client(&w, "192.0.2.7", false);
	ck_assert_int_eq(world_mail(&w, authentic_rows[_i].path), PIPELINE_GO_ON);
	ck_assert_int_eq(world_rcpt(&w, "bob@example.test"), PIPELINE_GO_ON);
	ck_assert_int_eq(world_message(&w, MAIL), PIPELINE_GO_ON);
	ck_assert(w.run.authentic == authentic_rows[_i].authentic);
	world_fini(&w);
}
END_TEST

START_TEST(released_mail_is_looked_at_only_by_filters_marked_so_and_goes_on_as_it_is)
{
	struct config_filter filters[] = {
		SECTION("a", "message", OPTION("finding", "A=20")),
		SECTION("b", "message", OPTION("finding", "B=1")),
	};
	struct pipeline_client client = {
		.listener = "release", .addr = SLICE(""), .release = true
	};
	struct buf bytes = buf_heap(1 << 16);
	struct world w;

	filters[1].on_release = true;
	world_init(&w, POLICIES, filters, COUNT(filters));
	w.s = pipeline_session_new(w.pl, w.facts, NULL, &client);
	ck_assert_int_eq(world_mail(&w, "a@sender.test"), PIPELINE_GO_ON);
	ck_assert_int_eq(world_rcpt(&w, "bob@example.test"), PIPELINE_GO_ON);
	w.message.bytes = SLICE("X-Relayd-Id: old\r\n" MAIL);
	w.run.message = &w.message;
	w.run.fields = SLICE("");
	ck_assert(world_start(&w, FILTER_MESSAGE));
	ck_assert_uint_eq(world_runs("a"), 0);
	ck_assert_uint_eq(world_runs("b"), 1);
	ck_assert(slice_eq(world_bytes(&w, 0, &bytes), w.message.bytes));
	ck_assert_uint_eq(w.run.copies[0].n_edits, 0);
	buf_fini(&bytes);
	world_fini(&w);
}
END_TEST

START_TEST(a_message_without_room_to_judge_it_is_put_off)
{
	struct config_filter filters[] = { SECTION(
	    "a", "message", OPTION("finding", "A=1"), OPTION("auth", "spf=pass")) };
	unsigned put_off = 0, taken = 0;
	struct world w;

	world_init(&w, POLICIES, filters, COUNT(filters));
	for (size_t room = 0; room < 4000 && taken == 0; room += 16) {
		enum pipeline_answer answer;

		world_client(&w, "192.0.2.1", false);
		ck_assert_int_eq(world_mail(&w, "bob@sender.test"), PIPELINE_GO_ON);
		ck_assert_int_eq(world_rcpt(&w, "ann@example.test"), PIPELINE_GO_ON);
		ck_assert_int_eq(world_rcpt(&w, "eve@example.test"), PIPELINE_GO_ON);
		w.tx->arena.max = w.tx->arena.used + room;
		answer = world_message(&w, MAIL);
		ck_assert_msg(answer == PIPELINE_GO_ON || answer == PIPELINE_DEFER,
		    "room %zu: %d", room, (int)answer);
		if (answer == PIPELINE_DEFER) {
			ck_assert_uint_eq(w.run.reply.code, 451);
			put_off++;
		}
		taken += answer == PIPELINE_GO_ON;
		world_end(&w, answer == PIPELINE_GO_ON);
		pipeline_session_free(w.s);
		w.s = NULL;
	}
	ck_assert_uint_gt(put_off, 10);
	ck_assert_uint_eq(taken, 1);
	world_fini(&w);
}
END_TEST

UNIT_SUITE(pipeline_verdict)
{
	UNIT_TEST(a_message_without_room_to_judge_it_is_put_off);
	UNIT_ROWS(verdicts_of_recipients_combine, combinations);
	UNIT_ROWS(the_score_meets_the_policy_of_the_recipient, policy_rows);
	UNIT_TEST(sums_of_tenths_reach_their_threshold);
	UNIT_ROWS(the_first_final_verdict_is_followed, verdict_rows);
	UNIT_TEST(what_a_filter_found_early_does_not_count_behind_a_final_verdict_in_front_of_it);
	UNIT_TEST(an_early_quarantine_is_kept_until_the_end);
	UNIT_ROWS(a_refusal_is_told_at_its_stage_and_names_check_id_and_whom_to_ask, stage_rows);
	UNIT_TEST(a_code_that_does_not_fit_the_verdict_is_not_used);
	UNIT_TEST(each_recipient_goes_by_its_own_verdict);
	UNIT_TEST(a_client_that_takes_a_reply_for_each_gets_them);
	UNIT_TEST(a_verdict_at_rcpt_is_for_that_recipient);
	UNIT_TEST(a_filter_may_change_its_mind_of_a_recipient);
	UNIT_TEST(tagged_and_accepted_recipients_get_different_copies);
	UNIT_ROWS(a_sender_is_authentic_when_spf_passed_for_whom_a_bounce_goes_to, authentic_rows);
	UNIT_TEST(released_mail_is_looked_at_only_by_filters_marked_so_and_goes_on_as_it_is);
}
