/* tests/unit/filters/spf_suite_test.c - SPF against the 203 cases of the RFC 7208 test suite. */
#include "unit/filters/spf_ask.h"
#include "unit/unit.h"

#include <stdio.h>
#include <stdlib.h>

#define SUITE SHARED_DATA_DIR "/spf-rfc7208/rfc7208-tests.yml"

struct ask {
	const struct spf_case *test;
	struct spf_outcome *outcome;
};

static enum filter_status
ask_run(struct filter_tx *tx, const void *settings)
{
	const struct ask *ask = settings;
	const struct spf_case *test = ask->test;
	const struct filter_session *session = filter_session(tx);
	const struct spf_query query = {
		.client_addr = session->client_addr,
		.sender = slice_str(test->mailfrom[0] != '\0' ? test->mailfrom : test->helo),
		.helo = slice_str(test->helo),
		.receiver = session->hostname,
	};

	return spf_check(tx, &query, ask->outcome) == SPF_PENDING ? FILTER_WAIT : FILTER_DONE;
}

static const struct filter ask_filter = { .run = ask_run };

enum spf_result
spf_ask(const struct spf_case *test, struct spf_outcome *outcome)
{
	const struct ask ask = { test, outcome };
	struct canned_fact *rows;
	struct canned can;
	size_t n = spf_suite_facts(test, &rows);

	canned_init(&can);
	canned_client(&can, test->host);
	canned_facts(&can, rows, n);
	ck_assert_int_eq(canned_run(&can, &ask_filter, &ask), FILTER_DONE);
	canned_fini(&can);
	free(rows);
	return outcome->result;
}

static bool
is_explained(const struct spf_case *test, const struct spf_outcome *outcome)
{
	bool by_default = strcmp(test->explanation, "DEFAULT") == 0;

	if (test->explanation[0] == '\0' || outcome->result != SPF_FAIL)
		return true;
	return strcmp(outcome->explanation, by_default ? "" : test->explanation) == 0;
}

START_TEST(all_cases_of_the_suite_give_an_allowed_result_and_explanation)
{
	struct spf_suite suite;
	size_t good = 0;

	if (!spf_suite_load(&suite, SUITE))
		return; /* the suite is not there: nothing to compare with */
	ck_assert_uint_eq(suite.n_cases, 203);
	for (size_t i = 0; i < suite.n_cases; i++) {
		const struct spf_case *test = &suite.cases[i];
		struct spf_outcome got;
		const char *result = spf_result_name(spf_ask(test, &got));

		if (spf_case_allows(test, result) && is_explained(test, &got))
			good++;
		else
			fprintf(stderr, "%s: %s: got %s \"%s\" (%s: %s), not %s \"%s\"\n",
			    test->scenario, test->name, result, got.explanation, got.domain,
			    got.why, test->allowed[0], test->explanation);
	}
	ck_assert_uint_eq(good, suite.n_cases);
	spf_suite_free(&suite);
}
END_TEST

UNIT_SUITE(spf_suite)
{
	UNIT_TEST(all_cases_of_the_suite_give_an_allowed_result_and_explanation);
}
