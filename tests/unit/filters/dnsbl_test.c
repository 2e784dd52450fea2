/* tests/unit/filters/dnsbl_test.c - block lists are asked and believed as RFC 5782 says. */
#include "filters/builtin.h"
#include "unit/filters/canned.h"
#include "unit/unit.h"

#include <stdio.h>

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

static void *
settings(void)
{
	static const struct canned_option options[] = { { "zones", "zen.test=4.0" },
		{ "zones", "bl.test=1.5" }, { "remember", "0s" } };
	static struct canned_config cc;
	void *set = NULL;

	CANNED_CONFIG(&cc, "dnsbl", options);
	ck_assert_int_eq(canned_configure(&cc, &filter_dnsbl, &set), 0);
	return set;
}

static const struct {
	const char *ip, *asked;
} names[] = {
	{ "127.0.0.2", "2.0.0.127.zen.test" },
	{ "192.0.2.99", "99.2.0.192.zen.test" },
	{ "2001:db8:1:2:3:4:567:89ab",
	    "b.a.9.8.7.6.5.0.4.0.0.0.3.0.0.0.2.0.0.0.1.0.0.0.8.b.d.0.1.0.0.2.zen.test" },
};

START_TEST(the_address_is_asked_for_reversed)
{
	struct canned can;
	void *set = settings();

	canned_init(&can);
	canned_client(&can, names[_i].ip);
	ck_assert_int_eq(canned_run(&can, &filter_dnsbl, set), FILTER_DONE);
	ck_assert(canned_asked(&can, FACT_DNS_A, names[_i].asked));
	ck_assert_uint_eq(can.n_asked, 2);
	ck_assert_uint_eq(can.runs, 2); /* both zones are asked at once */
	ck_assert_uint_eq(can.n_findings, 0);
	canned_fini(&can);
	filter_dnsbl.release(set);
}
END_TEST

#define ZEN "2.0.0.127.zen.test"
#define BL  "2.0.0.127.bl.test"

static const struct answer {
	struct canned_fact facts[3];
	enum filter_status status;
	double score;
} answers[] = {
	{ { CANNED_A(ZEN, "\x7f\0\0\2"), CANNED_NODATA(FACT_DNS_A, BL) }, FILTER_DONE, 4.0 },
	{ { CANNED_A(ZEN, "\x7f\1\2\3"), CANNED_A(BL, "\x7f\0\0\4") }, FILTER_DONE, 5.5 },
	/* An answer elsewhere is no listing: somebody answers everything. */
	{ { CANNED_A(ZEN, "\xc0\0\2\1"), CANNED_NODATA(FACT_DNS_A, BL) }, FILTER_DONE, 0 },
	{ { CANNED_A(ZEN, "\xc0\0\2\1"), CANNED_A(ZEN, "\x7f\0\0\2"),
	      CANNED_NODATA(FACT_DNS_A, BL) },
	    FILTER_DONE, 4.0 },
	/* 127.255.255.x: the list refuses to answer us. */
	{ { CANNED_A(ZEN, "\x7f\xff\xff\xfe"), CANNED_NODATA(FACT_DNS_A, BL) }, FILTER_ERROR, 0 },
	{ { CANNED_FAILED(FACT_DNS_A, ZEN), CANNED_NODATA(FACT_DNS_A, BL) }, FILTER_ERROR, 0 },
	{ { CANNED_FAILED(FACT_DNS_A, ZEN), CANNED_FAILED(FACT_DNS_A, BL) }, FILTER_ERROR, 0 },
	/* What one says counts while another is down. */
	{ { CANNED_FAILED(FACT_DNS_A, ZEN), CANNED_A(BL, "\x7f\0\0\2") }, FILTER_DONE, 1.5 },
};

START_TEST(only_an_answer_in_127_is_a_listing)
{
	const struct answer *a = &answers[_i];
	struct canned can;
	void *set = settings();

	canned_init(&can);
	canned_client(&can, "127.0.0.2");
	canned_facts(&can, a->facts, a->facts[2].name != NULL ? 3 : 2);
	ck_assert_int_eq(canned_run(&can, &filter_dnsbl, set), a->status);
	if (a->status == FILTER_DONE)
		ck_assert_double_eq(can.score, a->score);
	if (a->score >= 4) {
		ck_assert_ptr_nonnull(canned_finding(&can, "DNSBL:zen.test"));
		ck_assert_str_eq(
		    canned_finding(&can, "DNSBL:zen.test")->why, "127.0.0.2 is listed in zen.test");
	}
	canned_fini(&can);
	filter_dnsbl.release(set);
}
END_TEST

START_TEST(a_unix_socket_is_not_asked_for)
{
	struct canned can;
	void *set = settings();

	canned_init(&can);
	can.session.client_addr = SLICE("");
	ck_assert_int_eq(canned_run(&can, &filter_dnsbl, set), FILTER_DONE);
	ck_assert_uint_eq(can.n_asked, 0);
	canned_fini(&can);
	filter_dnsbl.release(set);
}
END_TEST

/* One zone several times, with and without a pattern, and a list of the good. */
static const struct {
	const char *zone, *code;
	double score;
} patterns[] = {
	{ "zen.test=127.0.0.[4..7]=3.0", "\x7f\0\0\4", 3.0 },
	{ "zen.test=127.0.0.[4..7]=3.0", "\x7f\0\0\7", 3.0 },
	{ "zen.test=127.0.0.[4..7]=3.0", "\x7f\0\0\3", 0 },
	{ "zen.test=127.0.0.[4..7]=3.0", "\x7f\0\0\10", 0 },
	{ "zen.test=127.0.0.[4..7]=3.0", "\x7f\0\1\5", 0 },
	{ "zen.test=127.0.0.10=3.0", "\x7f\0\0\12", 3.0 },
	{ "zen.test=127.0.0.10=3.0", "\x7f\0\0\13", 0 },
	{ "zen.test=127.0.[0..255].[1;3..4]=-2.5", "\x7f\0\11\1", -2.5 },
	{ "zen.test=127.0.[0..255].[1;3..4]=-2.5", "\x7f\0\11\2", 0 },
	{ "zen.test=127.0.[0..255].[1;3..4]=-2.5", "\x7f\0\377\4", -2.5 },
	{ "zen.test=-4", "\x7f\0\0\2", -4 },
};

START_TEST(a_pattern_says_which_answers_count)
{
	const struct canned_option option = { "zones", patterns[_i].zone };
	const struct canned_fact fact = { FACT_DNS_A, ZEN, FACT_OK, { patterns[_i].code, 4 }, 0,
		false };
	struct canned_config cc;
	struct canned can;
	void *set = NULL;

	canned_config(&cc, "dnsbl", &option, 1);
	ck_assert_int_eq(canned_configure(&cc, &filter_dnsbl, &set), 0);
	canned_init(&can);
	canned_client(&can, "127.0.0.2");
	canned_facts(&can, &fact, 1);
	ck_assert_int_eq(canned_run(&can, &filter_dnsbl, set), FILTER_DONE);
	ck_assert_double_eq(can.score, patterns[_i].score);
	ck_assert_uint_eq(can.n_findings, patterns[_i].score != 0);
	if (patterns[_i].score < 0)
		ck_assert_ptr_nonnull(canned_finding(&can, "DNSWL:zen.test"));
	canned_fini(&can);
	filter_dnsbl.release(set);
}
END_TEST

START_TEST(a_zone_with_several_patterns_is_asked_once)
{
	static const struct canned_option options[] = { { "zones", "zen.test=127.0.0.2=4.0" },
		{ "zones", "zen.test=127.0.0.[3..9]=1.0" }, { "zones", "zen.test=0.5" },
		{ "remember", "0s" } };
	static const struct canned_fact facts[] = { CANNED_A(ZEN, "\x7f\0\0\2"),
		CANNED_A(ZEN, "\x7f\0\0\4") };
	struct canned_config cc;
	struct canned can;
	void *set = NULL;

	CANNED_CONFIG(&cc, "dnsbl", options);
	ck_assert_int_eq(canned_configure(&cc, &filter_dnsbl, &set), 0);
	canned_init(&can);
	canned_client(&can, "127.0.0.2");
	CANNED_FACTS(&can, facts);
	ck_assert_int_eq(canned_run(&can, &filter_dnsbl, set), FILTER_DONE);
	ck_assert_uint_eq(can.n_asked, 1);
	ck_assert_double_eq(can.score, 5.5);
	canned_fini(&can);
	filter_dnsbl.release(set);
}
END_TEST

#define WL "2.0.0.127.wl.test"

/* What is marked after a run with these answers; the names go to marks, as facts that were seen. */
static size_t
passes(const struct canned_fact *answered, size_t n, const char *zone, struct canned_fact marks[4],
    char texts[4][128], double score)
{
	const struct canned_option options[] = { { "zones", zone }, { "zones", "wl.test=-2.5" } };
	struct canned_config cc;
	struct canned can;
	void *set = NULL;
	size_t marked = 0;

	CANNED_CONFIG(&cc, "dnsbl", options);
	ck_assert_int_eq(canned_configure(&cc, &filter_dnsbl, &set), 0);
	canned_init(&can);
	canned_client(&can, "127.0.0.2");
	canned_facts(&can, answered, n);
	ck_assert_int_eq(canned_run(&can, &filter_dnsbl, set), FILTER_DONE);
	ck_assert_double_eq(can.score, score);
	for (size_t i = 0; i < can.n_asked; i++) {
		if (can.asked[i].kind != FACT_MARK)
			continue;
		ck_assert_uint_lt(marked, 4);
		ck_assert(slice_starts(slice_str(can.asked[i].name), SLICE("600 dnsbl-")));
		(void)snprintf(texts[marked], 128, "%s", can.asked[i].name); /* it fits */
		marks[marked] =
		    (struct canned_fact){ FACT_SEEN, texts[marked], FACT_OK, SLICE(""), 1, false };
		marked++;
	}
	canned_fini(&can);
	filter_dnsbl.release(set);
	return marked;
}

START_TEST(who_passed_is_remembered_with_the_lists_of_the_good)
{
	static const struct canned_fact clean[] = { CANNED_NODATA(FACT_DNS_A, ZEN),
		CANNED_NODATA(FACT_DNS_A, WL) };
	static const struct canned_fact good[] = { CANNED_NODATA(FACT_DNS_A, ZEN),
		CANNED_A(WL, "\x7f\0\5\2") };
	static const struct canned_fact bad[] = { CANNED_A(ZEN, "\x7f\0\0\2"),
		CANNED_A(WL, "\x7f\0\5\2") };
	static const struct canned_fact down[] = { CANNED_FAILED(FACT_DNS_A, ZEN),
		CANNED_A(WL, "\x7f\0\5\2") };
	struct canned_fact marks[4], none[4];
	char texts[4][128], others[4][128];

	ck_assert_uint_eq(passes(clean, 2, "zen.test=4", marks, texts, 0), 1);
	ck_assert_uint_eq(passes(marks, 1, "zen.test=4", none, others, 0), 0);
	ck_assert_uint_eq(passes(good, 2, "zen.test=4", marks, texts, -2.5), 2);
	/* Nothing but the marks is known now: a list that was asked would know nothing. */
	ck_assert_uint_eq(passes(marks, 2, "zen.test=4", none, others, -2.5), 0);
	/* With other zones it is asked for again. */
	ck_assert_uint_eq(passes(marks, 2, "zen.test=3", none, others, 0), 1);
	ck_assert_str_ne(others[0], texts[0]);
	ck_assert_uint_eq(passes(bad, 2, "zen.test=4", marks, texts, 1.5), 0);
	ck_assert_uint_eq(passes(down, 2, "zen.test=4", marks, texts, -2.5), 0);
}
END_TEST

static const char *const refused[] = { "zen.test=127.0.0=1", "zen.test=127.0.0.2.3=1",
	"zen.test=127.0.0.256=1", "zen.test=127.0.0.[7..4]=1", "zen.test=127.0.0.[4=1",
	"zen.test=127.0.0.[]=1", "zen.test=127.0.0.4..7=1", "zen.test=127.0.0.2 =1", "zen.test==1",
	"zen.test", "zen.test=", "=4", "zen.test=x", ".zen.test=1", "zen test=1",
	"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa."
	"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	"aaaaaaaaaaaaaaaaaaaaaaaa."
	"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa=1" };

START_TEST(what_is_no_zone_with_a_score_is_refused)
{
	const struct canned_option option = { "zones", refused[_i] };
	struct canned_config cc;
	void *set = NULL;

	canned_config(&cc, "dnsbl", &option, 1);
	ck_assert_int_eq(canned_configure(&cc, &filter_dnsbl, &set), -1);
}
END_TEST

UNIT_SUITE(filter_dnsbl)
{
	UNIT_ROWS(the_address_is_asked_for_reversed, names);
	UNIT_ROWS(only_an_answer_in_127_is_a_listing, answers);
	UNIT_TEST(a_unix_socket_is_not_asked_for);
	UNIT_ROWS(a_pattern_says_which_answers_count, patterns);
	UNIT_TEST(a_zone_with_several_patterns_is_asked_once);
	UNIT_TEST(who_passed_is_remembered_with_the_lists_of_the_good);
	UNIT_ROWS(what_is_no_zone_with_a_score_is_refused, refused);
}
