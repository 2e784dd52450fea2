/* tests/unit/filters/spf_test.c - the filter "spf": identities, scores, replies and its limits. */
#include "unit/filters/canned.h"
#include "unit/unit.h"

#include "filters/builtin.h"
#include "filters/spf/check.h"

#include <stdio.h>

static const struct canned_fact facts[] = {
	CANNED_TXT("good.test", "v=spf1 ip4:192.0.2.0/24 -all"),
	CANNED_TXT("bad.test", "v=spf1 -all exp=why.test"),
	CANNED_TXT("why.test", "See http://bad.test/%{i}?s=%{S}&r=%{r}&t=%{t}"),
	CANNED_TXT("soft.test", "v=spf1 ~all"),
	CANNED_TXT("broken.test", "v=spf1 a:foo-bar -all"),
	CANNED_TXT("neutral.test", "v=spf1 ?all"),
	CANNED_TXT("rude.test", "v=spf1 -all exp=lines.test"),
	CANNED_TXT("lines.test", "one\r\ntwo"),
	CANNED_TXT("chatty.test", "v=spf1 -all exp=long.test"),
	CANNED_FAILED(FACT_DNS_TXT, "slow.test"),
	CANNED_TIME(1234567890123),
};

static const struct canned_option by_default[] = { { "none", "0" } };

static void
ask(struct canned *can, const struct canned_option *options, size_t n, const char *helo,
    const char *sender, enum filter_status expected)
{
	struct canned_config cc;
	void *settings;

	canned_init(can);
	canned_client(can, "192.0.2.7");
	CANNED_FACTS(can, facts);
	can->stage = FILTER_MAIL;
	can->session.helo = slice_str(helo);
	can->envelope.reverse_path = slice_str(sender);
	canned_config(&cc, "spf", options, n);
	ck_assert_int_eq(canned_configure(&cc, &filter_spf, &settings), 0);
	ck_assert_int_eq(canned_run(can, &filter_spf, settings), expected);
	filter_spf.release(settings);
}

static const struct {
	const char *helo, *sender;
	double score;
	const char *finding;                    /* NULL: none */
	const char *method_result, *properties; /* of HELO, which comes last */
} rows[] = {
	{ "good.test", "jo@good.test", 0, NULL, "pass", "smtp.helo=good.test" },
	{ "x.test", "jo@good.test", 0, NULL, "none", "smtp.helo=x.test" },
	{ "x.test", "jo@bad.test", 5.0, "SPF_FAIL", "none", "smtp.helo=x.test" },
	{ "x.test", "jo@soft.test", 1.5, "SPF_SOFTFAIL", "none", "smtp.helo=x.test" },
	{ "x.test", "jo@neutral.test", 0, NULL, "none", "smtp.helo=x.test" },
	{ "x.test", "jo@broken.test", 0, NULL, "none", "smtp.helo=x.test" },
	{ "x.test", "jo@nowhere.test", 0, NULL, "none", "smtp.helo=x.test" },
	{ "bad.test", "jo@good.test", 1.5, "SPF_HELO_FAIL", "fail", "smtp.helo=bad.test" },
	{ "bad.test", "jo@bad.test", 6.5, "SPF_HELO_FAIL", "fail", "smtp.helo=bad.test" },
	{ "slow.test", "jo@good.test", 0, NULL, "temperror", "smtp.helo=slow.test" },
	/* the null reverse-path: HELO stands in (section 2.4) */
	{ "bad.test", "", 5.0, "SPF_FAIL", "fail", "smtp.helo=bad.test" },
	{ "good.test", "", 0, NULL, "pass", "smtp.helo=good.test" },
	{ "[192.0.2.7]", "", 0, NULL, "none", "smtp.helo=[192.0.2.7]" },
	{ "", "", 0, NULL, "none", "smtp.helo=" },
	/* identities that name nobody */
	{ "x.test", "jo", 0, NULL, "none", "smtp.helo=x.test" },
	{ "x.test", "jo@", 0, NULL, "none", "smtp.helo=x.test" },
	{ "x.test", "@bad.test", 5.0, "SPF_FAIL", "none", "smtp.helo=x.test" },
};

START_TEST(an_identity_gets_its_result_and_score)
{
	struct canned can;

	ask(&can, by_default, 1, rows[_i].helo, rows[_i].sender, FILTER_DONE);
	ck_assert_double_eq(can.score, rows[_i].score);
	ck_assert((rows[_i].finding == NULL) == (can.n_findings == 0));
	ck_assert(rows[_i].finding == NULL || canned_finding(&can, rows[_i].finding) != NULL);
	ck_assert_uint_eq(can.n_auth, rows[_i].sender[0] != '\0' ? 2 : 1);
	ck_assert_str_eq(can.method, "spf");
	ck_assert_str_eq(can.result, rows[_i].method_result);
	ck_assert_str_eq(can.properties, rows[_i].properties);
	ck_assert_uint_eq(can.n_verdicts, 0);
	canned_fini(&can);
}
END_TEST

START_TEST(a_finding_says_whose_record_and_which_term)
{
	struct canned can;

	ask(&can, by_default, 1, "x.test", "jo@soft.test", FILTER_DONE);
	ck_assert_str_eq(canned_finding(&can, "SPF_SOFTFAIL")->why, "soft.test: ~all");
	canned_fini(&can);
}
END_TEST

START_TEST(a_fail_told_to_reject_says_what_the_domain_explains)
{
	static const struct canned_option options[] = { { "fail", "reject" } };
	struct canned can;

	ask(&can, options, 1, "x.test", "jo+a@bad.test", FILTER_DONE);
	ck_assert_uint_eq(can.n_verdicts, 1);
	ck_assert_int_eq(can.verdict, FILTER_REJECT);
	ck_assert_uint_eq(can.code, 550);
	ck_assert_str_eq(can.enhanced, "5.7.23");
	ck_assert_str_eq(can.text, "SPF fail for 192.0.2.7; bad.test explains: "
				   "See http://bad.test/192.0.2.7?s=jo%2Ba%40bad.test"
				   "&r=mx.example.org&t=1234567890");
	canned_fini(&can);
}
END_TEST

START_TEST(a_permerror_told_to_reject_names_the_bad_term)
{
	static const struct canned_option options[] = { { "permerror", "reject" } };
	struct canned can;

	ask(&can, options, 1, "x.test", "jo@broken.test", FILTER_DONE);
	ck_assert_int_eq(can.verdict, FILTER_REJECT);
	ck_assert_str_eq(can.enhanced, "5.7.24");
	ck_assert_str_eq(
	    can.text, "SPF permerror for 192.0.2.7, says broken.test: a:foo-bar has a bad domain");
	canned_fini(&can);
}
END_TEST

START_TEST(an_explanation_with_a_line_break_or_too_long_is_left_out)
{
	static char endless[SPF_EXPLANATION_BYTES_MAX + 1];
	struct canned_fact rows_[sizeof(facts) / sizeof(facts[0]) + 1];
	struct canned can;
	const char *sender[] = { "jo@rude.test", "jo@chatty.test" };

	memset(endless, 'x', sizeof(endless));
	memcpy(rows_, facts, sizeof(facts));
	rows_[sizeof(facts) / sizeof(facts[0])] = (struct canned_fact){ FACT_DNS_TXT, "long.test",
		FACT_OK, slice_of(endless, sizeof(endless)), 0, false };
	for (size_t i = 0; i < 2; i++) {
		void *settings;
		struct canned_config cc;

		canned_init(&can);
		canned_client(&can, "192.0.2.7");
		CANNED_FACTS(&can, rows_);
		can.session.helo = SLICE("x.test");
		can.envelope.reverse_path = slice_str(sender[i]);
		CANNED_CONFIG(&cc, "spf", by_default);
		ck_assert_int_eq(canned_configure(&cc, &filter_spf, &settings), 0);
		ck_assert_int_eq(canned_run(&can, &filter_spf, settings), FILTER_DONE);
		ck_assert_ptr_nonnull(strstr(canned_finding(&can, "SPF_FAIL")->why, ".test: -all"));
		ck_assert_ptr_null(strchr(canned_finding(&can, "SPF_FAIL")->why, '('));
		filter_spf.release(settings);
		canned_fini(&can);
	}
}
END_TEST

START_TEST(a_temperror_is_an_error_unless_it_has_a_score)
{
	static const struct canned_option scored[] = { { "temperror", "0.5" } };
	struct canned can;

	ask(&can, by_default, 1, "x.test", "jo@slow.test", FILTER_ERROR);
	ck_assert_uint_eq(can.n_findings, 0);
	canned_fini(&can);
	ask(&can, scored, 1, "x.test", "jo@slow.test", FILTER_DONE);
	ck_assert_double_eq(canned_finding(&can, "SPF_TEMPERROR")->score, 0.5);
	canned_fini(&can);
}
END_TEST

START_TEST(a_client_on_a_unix_socket_is_not_asked_about)
{
	struct canned can;
	struct canned_config cc;
	void *settings;

	canned_init(&can);
	can.session.helo = SLICE("bad.test");
	CANNED_CONFIG(&cc, "spf", by_default);
	ck_assert_int_eq(canned_configure(&cc, &filter_spf, &settings), 0);
	ck_assert_int_eq(canned_run(&can, &filter_spf, settings), FILTER_DONE);
	ck_assert_uint_eq(can.n_asked + can.n_auth + can.n_findings, 0);
	filter_spf.release(settings);
	canned_fini(&can);
}
END_TEST

START_TEST(an_identity_over_the_limit_is_not_read_as_a_shorter_one)
{
	static char helo[600], sender[600];
	struct canned can;

	memset(helo, 'a', sizeof(helo) - 1);
	(void)snprintf(sender, sizeof(sender), "%.500s@bad.test.longer.test", helo);
	ask(&can, by_default, 1, helo, sender, FILTER_DONE);
	ck_assert_uint_eq(can.n_findings, 0);
	ck_assert(!canned_asked(&can, FACT_DNS_TXT, "bad.test"));
	canned_fini(&can);
}
END_TEST

START_TEST(line_ends_in_an_address_stay_out_of_the_authentication_results)
{
	struct canned can;

	ask(&can, by_default, 1, "a\"; spf=pass\r\nX: y", "", FILTER_DONE);
	ck_assert_str_eq(can.properties, "smtp.helo=a\"; spf=pass??X: y");
	canned_fini(&can);
}
END_TEST

static const struct {
	struct canned_option option;
	const char *said;
} wrong[] = {
	{ { "fail", "often" }, "fail: neither a score nor \"reject\"\n" },
	{ { "helo-fail", "" }, "helo-fail: neither a score nor \"reject\"\n" },
	{ { "temperror", "reject" }, "temperror: a temporary error never rejects\n" },
};

START_TEST(a_wrong_value_is_refused_by_name)
{
	struct canned_config cc;
	void *settings;

	canned_config(&cc, "spf", &wrong[_i].option, 1);
	ck_assert_int_eq(canned_configure(&cc, &filter_spf, &settings), -1);
	ck_assert_str_eq(cc.said, wrong[_i].said);
}
END_TEST

/* A chain of includes one over the limit, and the names of a client one over theirs. */
START_TEST(lookups_end_at_the_limit)
{
	static char names[13][16], texts[13][64];
	struct canned_fact chain[12];
	struct canned can;
	struct canned_config cc;
	void *settings;

	for (unsigned links = SPF_LOOKUPS_MAX; links <= SPF_LOOKUPS_MAX + 1; links++) {
		for (unsigned i = 0; i <= links; i++) {
			(void)snprintf(names[i], sizeof(names[i]), "c%u.test", i);
			(void)snprintf(texts[i], sizeof(texts[i]),
			    i < links ? "v=spf1 include:c%u.test" : "v=spf1 +all", i + 1);
			chain[i] = (struct canned_fact){ FACT_DNS_TXT, names[i], FACT_OK,
				slice_str(texts[i]), 0, false };
		}
		canned_init(&can);
		canned_client(&can, "2001:db8::1");
		canned_facts(&can, chain, links + 1);
		can.session.helo = SLICE("c0.test");
		CANNED_CONFIG(&cc, "spf", by_default);
		ck_assert_int_eq(canned_configure(&cc, &filter_spf, &settings), 0);
		ck_assert_int_eq(canned_run(&can, &filter_spf, settings), FILTER_DONE);
		ck_assert_str_eq(can.result, links <= SPF_LOOKUPS_MAX ? "pass" : "permerror");
		ck_assert_uint_eq(can.runs, SPF_LOOKUPS_MAX + 2);
		filter_spf.release(settings);
		canned_fini(&can);
	}
}
END_TEST

START_TEST(the_hosts_of_an_mx_are_asked_for_at_once)
{
	static const struct canned_fact mx[] = {
		CANNED_TXT("d.test", "v=spf1 mx -all"),
		CANNED_MX("d.test", 10, "a.test"),
		CANNED_MX("d.test", 20, "b.test"),
		CANNED_MX("d.test", 30, "c.test"),
		CANNED_A("c.test", "\xc0\x00\x02\x07"),
	};
	struct canned can;
	struct canned_config cc;
	void *settings;

	canned_init(&can);
	canned_client(&can, "::ffff:192.0.2.7");
	CANNED_FACTS(&can, mx);
	can.session.helo = SLICE("d.test");
	CANNED_CONFIG(&cc, "spf", by_default);
	ck_assert_int_eq(canned_configure(&cc, &filter_spf, &settings), 0);
	ck_assert_int_eq(canned_run(&can, &filter_spf, settings), FILTER_DONE);
	ck_assert_str_eq(can.result, "pass");
	ck_assert_uint_eq(can.runs, 4); /* TXT, MX, three times A, the end */
	filter_spf.release(settings);
	canned_fini(&can);
}
END_TEST

UNIT_SUITE(spf)
{
	UNIT_ROWS(an_identity_gets_its_result_and_score, rows);
	UNIT_TEST(a_finding_says_whose_record_and_which_term);
	UNIT_TEST(a_fail_told_to_reject_says_what_the_domain_explains);
	UNIT_TEST(a_permerror_told_to_reject_names_the_bad_term);
	UNIT_TEST(an_explanation_with_a_line_break_or_too_long_is_left_out);
	UNIT_TEST(a_temperror_is_an_error_unless_it_has_a_score);
	UNIT_TEST(a_client_on_a_unix_socket_is_not_asked_about);
	UNIT_TEST(an_identity_over_the_limit_is_not_read_as_a_shorter_one);
	UNIT_TEST(line_ends_in_an_address_stay_out_of_the_authentication_results);
	UNIT_ROWS(a_wrong_value_is_refused_by_name, wrong);
	UNIT_TEST(lookups_end_at_the_limit);
	UNIT_TEST(the_hosts_of_an_mx_are_asked_for_at_once);
}
