/* tests/unit/filters/first_contact_test.c - reverse DNS, HELO, and who waits for the greeting. */
#include "filters/builtin.h"

#include "unit/filters/canned.h"
#include "unit/unit.h"

#define IP   "192.0.2.7"
#define ADDR "\xc0\0\2\7"

static void *
configure(const struct filter *f, const struct canned_option *options, size_t n)
{
	static struct canned_config cc;
	void *set = NULL;

	canned_config(&cc, f->name, options, n);
	ck_assert_msg(canned_configure(&cc, f, &set) == 0, "%s", cc.said);
	return set;
}

/* ---- rdns ------------------------------------------------------------------------------------ */

static const struct {
	struct canned_fact facts[4];
	size_t n;
	enum filter_status status;
	const char *finding;
} reverse[] = {
	{ { CANNED_PTR(IP, "mail.test"), CANNED_A("mail.test", ADDR) }, 2, FILTER_DONE, NULL },
	{ { CANNED_PTR(IP, "other.test"), CANNED_PTR(IP, "mail.test"), CANNED_A("mail.test", ADDR),
	      CANNED_A("other.test", "\xc0\0\2\1") },
	    4, FILTER_DONE, NULL },
	{ { CANNED_PTR(IP, "mail.test"), CANNED_A("mail.test", "\xc0\0\2\1") }, 2, FILTER_DONE,
	    "RDNS_UNCONFIRMED" },
	{ { CANNED_PTR(IP, "mail.test") }, 1, FILTER_DONE, "RDNS_UNCONFIRMED" },
	{ { CANNED_NODATA(FACT_DNS_PTR, IP) }, 1, FILTER_DONE, "RDNS_NONE" },
	{ { CANNED_FAILED(FACT_DNS_PTR, IP) }, 1, FILTER_ERROR, NULL },
	{ { CANNED_PTR(IP, "mail.test"), CANNED_FAILED(FACT_DNS_A, "mail.test") }, 2, FILTER_ERROR,
	    NULL },
	/* One that leads back is enough, whatever another server does. */
	{ { CANNED_PTR(IP, "slow.test"), CANNED_PTR(IP, "mail.test"),
	      CANNED_FAILED(FACT_DNS_A, "slow.test"), CANNED_A("mail.test", ADDR) },
	    4, FILTER_DONE, NULL },
};

START_TEST(a_name_must_lead_back)
{
	void *set = configure(&filter_rdns, NULL, 0);
	struct canned can;

	canned_init(&can);
	canned_client(&can, IP);
	canned_facts(&can, reverse[_i].facts, reverse[_i].n);
	ck_assert_int_eq(canned_run(&can, &filter_rdns, set), reverse[_i].status);
	if (reverse[_i].status == FILTER_DONE) {
		ck_assert_uint_eq(can.n_findings, reverse[_i].finding != NULL);
		if (reverse[_i].finding != NULL)
			ck_assert_ptr_nonnull(canned_finding(&can, reverse[_i].finding));
	}
	canned_fini(&can);
	filter_rdns.release(set);
}
END_TEST

START_TEST(a_name_that_led_back_is_remembered)
{
	static const struct canned_fact seen = { FACT_SEEN, "600 rdns=7.2.0.192", FACT_OK,
		SLICE(""), 1, false };
	static const struct canned_fact facts[] = { CANNED_PTR("192.0.2.7", "mail.test"),
		CANNED_A("mail.test", "\xc0\0\2\7") };
	void *set = configure(&filter_rdns, NULL, 0);
	struct canned can;

	canned_init(&can);
	canned_client(&can, "192.0.2.7");
	CANNED_FACTS(&can, facts);
	ck_assert_int_eq(canned_run(&can, &filter_rdns, set), FILTER_DONE);
	ck_assert(canned_asked(&can, FACT_MARK, "600 rdns=7.2.0.192"));
	canned_fini(&can);
	canned_init(&can);
	canned_client(&can, "192.0.2.7");
	canned_facts(&can, &seen, 1);
	ck_assert_int_eq(canned_run(&can, &filter_rdns, set), FILTER_DONE);
	ck_assert_uint_eq(can.n_findings, 0);
	ck_assert_uint_eq(can.n_asked, 1);
	canned_fini(&can);
	canned_init(&can); /* one without a name is not */
	canned_client(&can, "192.0.2.7");
	ck_assert_int_eq(canned_run(&can, &filter_rdns, set), FILTER_DONE);
	ck_assert(!canned_asked(&can, FACT_MARK, "600 rdns=7.2.0.192"));
	canned_fini(&can);
	filter_rdns.release(set);
}
END_TEST

START_TEST(an_ipv6_client_is_confirmed_by_aaaa)
{
	static const struct canned_fact facts[] = { CANNED_PTR("2001:db8::7", "mail.test"),
		CANNED_AAAA("mail.test", "\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\7") };
	void *set = configure(&filter_rdns, NULL, 0);
	struct canned can;

	canned_init(&can);
	canned_client(&can, "2001:db8::7");
	CANNED_FACTS(&can, facts);
	ck_assert_int_eq(canned_run(&can, &filter_rdns, set), FILTER_DONE);
	ck_assert_uint_eq(can.n_findings, 0);
	ck_assert(!canned_asked(&can, FACT_DNS_A, "mail.test"));
	canned_fini(&can);
	filter_rdns.release(set);
}
END_TEST

/* ---- helo ------------------------------------------------------------------------------------ */

START_TEST(a_name_that_was_found_is_remembered)
{
	static const struct canned_fact found[] = { CANNED_MX("mail.test", 5, "mx.test") };
	static const struct canned_fact seen = { FACT_SEEN, "600 helo=mail.test", FACT_OK,
		SLICE(""), 1, false };
	void *set = configure(&filter_helo, NULL, 0);
	struct canned can;

	for (int i = 0; i < 3; i++) {
		canned_init(&can);
		canned_client(&can, IP);
		can.session.helo = SLICE("Mail.TEST.");
		canned_facts(&can, i == 0 ? found : &seen, i < 2);
		ck_assert_int_eq(canned_run(&can, &filter_helo, set), FILTER_DONE);
		ck_assert_uint_eq(can.n_findings, i == 2); /* nobody's name */
		ck_assert_int_eq(canned_asked(&can, FACT_MARK, "600 helo=mail.test"), i == 0);
		ck_assert_int_eq(canned_asked(&can, FACT_DNS_A, "mail.test"), i != 1);
		canned_fini(&can);
	}
	filter_helo.release(set);
}
END_TEST

static const struct canned_fact known[] = { CANNED_A("mail.test", ADDR),
	CANNED_MX("mx-only.test", 10, "mail.test"), CANNED_FAILED(FACT_DNS_MX, "slow.test") };

static const struct {
	const char *helo;
	enum filter_status status;
	const char *finding;
} helos[] = {
	{ "mail.test", FILTER_DONE, NULL },
	{ "MAIL.test.", FILTER_DONE, NULL },
	{ "mx-only.test", FILTER_DONE, NULL },
	{ "nobody.test", FILTER_DONE, "HELO_UNRESOLVABLE" },
	{ "slow.test", FILTER_ERROR, NULL },
	{ "mx.example.org", FILTER_DONE, "HELO_OWN_NAME" },
	{ "MX.Example.ORG.", FILTER_DONE, "HELO_OWN_NAME" },
	{ "example.org", FILTER_DONE, "HELO_OWN_NAME" },
	{ "localhost", FILTER_DONE, "HELO_NOT_QUALIFIED" },
	{ "192.0.2.7", FILTER_DONE, "HELO_NOT_QUALIFIED" },
	{ ".", FILTER_DONE, "HELO_NOT_QUALIFIED" },
	{ "[192.0.2.7]", FILTER_DONE, "HELO_LITERAL" },
	{ "[192.0.2.8]", FILTER_DONE, "HELO_BAD_LITERAL" },
	{ "[IPv6:2001:db8::7]", FILTER_DONE, "HELO_BAD_LITERAL" },
	{ "[192.0.2.7", FILTER_DONE, "HELO_BAD_LITERAL" },
	{ "[]", FILTER_DONE, "HELO_BAD_LITERAL" },
	{ "[IPv6:]", FILTER_DONE, "HELO_BAD_LITERAL" },
	{ "", FILTER_DONE, NULL },
};

START_TEST(a_name_that_can_be_nobodys_is_scored)
{
	static const struct canned_option options[] = { { "own", "example.org" } };
	void *set = configure(&filter_helo, options, 1);
	struct canned can;

	canned_init(&can);
	canned_client(&can, IP);
	can.session.hostname = SLICE("mx.example.org");
	can.session.helo = slice_str(helos[_i].helo);
	CANNED_FACTS(&can, known);
	ck_assert_int_eq(canned_run(&can, &filter_helo, set), helos[_i].status);
	if (helos[_i].status == FILTER_DONE) {
		ck_assert_uint_eq(can.n_findings, helos[_i].finding != NULL);
		if (helos[_i].finding != NULL)
			ck_assert_ptr_nonnull(canned_finding(&can, helos[_i].finding));
	}
	canned_fini(&can);
	filter_helo.release(set);
}
END_TEST

START_TEST(a_score_of_0_asks_nothing)
{
	static const struct canned_option options[] = { { "unresolvable", "0" },
		{ "not-qualified", "2.5" } };
	void *set = configure(&filter_helo, options, 2);
	struct canned can;

	canned_init(&can);
	canned_client(&can, IP);
	can.session.helo = SLICE("nobody.test");
	ck_assert_int_eq(canned_run(&can, &filter_helo, set), FILTER_DONE);
	ck_assert_uint_eq(can.n_asked + can.n_findings, 0);
	can.session.helo = SLICE("short");
	ck_assert_int_eq(canned_run(&can, &filter_helo, set), FILTER_DONE);
	ck_assert_double_eq(can.score, 2.5);
	canned_fini(&can);
	filter_helo.release(set);
}
END_TEST

/* ---- pregreet -------------------------------------------------------------------------------- */

#define GOOD CANNED_PTR(IP, "mail.test"), CANNED_A("mail.test", ADDR)
#define KEY  "604800 pregreet=7.2.0.192"
#define SPOKE(s)                                                                                   \
	{                                                                                          \
		FACT_EARLY, s, FACT_OK, SLICE("EHLO x\r\n"), 0, false                              \
	}
#define SEEN                                                                                       \
	{                                                                                          \
		FACT_SEEN, KEY, FACT_OK, SLICE(""), 1700000000000, false                           \
	}

static const struct {
	struct canned_fact facts[5];
	size_t n;
	bool rejected;
	const char *early; /* what was asked for */
	bool marked;
} greetings[] = {
	/* Nothing is held against it: one look, no wait, nothing remembered. */
	{ { GOOD }, 2, false, "0", false },
	{ { GOOD, SPOKE("0") }, 3, true, "0", false },
	/* No name: it waits, and is remembered. */
	{ { CANNED_NODATA(FACT_DNS_PTR, IP) }, 1, false, "6", true },
	{ { CANNED_NODATA(FACT_DNS_PTR, IP), SPOKE("6") }, 2, true, "6", false },
	/* It has waited before. */
	{ { CANNED_NODATA(FACT_DNS_PTR, IP), SEEN }, 2, false, "0", false },
	{ { CANNED_NODATA(FACT_DNS_PTR, IP), SEEN, SPOKE("0") }, 3, true, "0", false },
	/* Listed. */
	{ { GOOD, CANNED_A("7.2.0.192.zen.test", "\x7f\0\0\2") }, 3, false, "6", true },
	{ { GOOD, CANNED_A("7.2.0.192.zen.test", "\x7f\xff\xff\xfe") }, 3, false, "0", false },
	/* Who does not answer makes nobody suspect. */
	{ { CANNED_FAILED(FACT_DNS_PTR, IP), CANNED_FAILED(FACT_DNS_A, "7.2.0.192.zen.test") }, 2,
	    false, "0", false },
	/* The store is down: it waits again. */
	{ { CANNED_NODATA(FACT_DNS_PTR, IP), CANNED_FAILED(FACT_SEEN, KEY),
	      CANNED_FAILED(FACT_MARK, KEY) },
	    3, false, "6", true },
	/* Nobody can know: under TLS from the first byte. */
	{ { CANNED_NODATA(FACT_DNS_PTR, IP),
	      { FACT_EARLY, "6", FACT_SKIPPED, SLICE(""), 0, false } },
	    2, false, "6", false },
};

static const struct canned_option suspects[] = { { "suspect", "no-reverse-dns" },
	{ "suspect", "zen.test" }, { "score", "5.0" } };

START_TEST(only_the_suspicious_wait_and_only_once)
{
	void *set = configure(&filter_pregreet, suspects, 2);
	struct canned can;

	canned_init(&can);
	canned_client(&can, IP);
	canned_facts(&can, greetings[_i].facts, greetings[_i].n);
	ck_assert_int_eq(canned_run(&can, &filter_pregreet, set), FILTER_DONE);
	ck_assert_uint_eq(can.n_verdicts, greetings[_i].rejected);
	if (greetings[_i].rejected) {
		ck_assert_int_eq(can.verdict, FILTER_REJECT);
		ck_assert_uint_eq(can.code, 554);
	}
	ck_assert(canned_asked(&can, FACT_EARLY, greetings[_i].early));
	ck_assert(!canned_asked(&can, FACT_EARLY, greetings[_i].early[0] == '0' ? "6" : "0"));
	ck_assert_int_eq(canned_asked(&can, FACT_MARK, KEY), greetings[_i].marked);
	canned_fini(&can);
	filter_pregreet.release(set);
}
END_TEST

START_TEST(a_score_may_stand_for_the_refusal)
{
	static const struct canned_fact facts[] = { GOOD, SPOKE("0") };
	void *set = configure(&filter_pregreet, suspects, 3);
	struct canned can;

	canned_init(&can);
	canned_client(&can, IP);
	CANNED_FACTS(&can, facts);
	ck_assert_int_eq(canned_run(&can, &filter_pregreet, set), FILTER_DONE);
	ck_assert_uint_eq(can.n_verdicts, 0);
	ck_assert_double_eq(can.score, 5.0);
	ck_assert_ptr_nonnull(strstr(canned_finding(&can, "PREGREET")->why, "EHLO x"));
	canned_fini(&can);
	filter_pregreet.release(set);
}
END_TEST

START_TEST(clients_of_one_ipv6_network_are_one)
{
	static const struct canned_option all[] = { { "suspect", "all" }, { "delay", "3s" },
		{ "remember", "1h" } };
	void *set = configure(&filter_pregreet, all, 3);
	struct canned can;

	canned_init(&can);
	canned_client(&can, "2001:db8:1:2:3:4:5:6");
	ck_assert_int_eq(canned_run(&can, &filter_pregreet, set), FILTER_DONE);
	ck_assert(canned_asked(&can, FACT_EARLY, "3"));
	ck_assert(canned_asked(&can, FACT_MARK, "3600 pregreet=2.0.0.0.1.0.0.0.8.b.d.0.1.0.0.2"));
	canned_fini(&can);
	filter_pregreet.release(set);
}
END_TEST

static const struct {
	const struct filter *filter;
	struct canned_option options[2];
} refused[] = {
	{ &filter_pregreet, { { "suspect", "everyone" } } },
	{ &filter_pregreet, { { "suspect", "zen .test" } } },
	{ &filter_pregreet, { { "delay", "31s" } } },
	{ &filter_pregreet, { { "delay", "soon" } } },
	{ &filter_pregreet, { { "remember", "for ever" } } },
	{ &filter_pregreet, { { "action", "discard" } } },
	{ &filter_pregreet, { { "score", "high" } } },
	{ &filter_pregreet, { { "score", "1" }, { "action", "reject" } } },
	{ &filter_rdns, { { "none", "x" } } },
	{ &filter_rdns, { { "unconfirmed", "x" } } },
	{ &filter_helo, { { "own-name", "x" } } },
};

START_TEST(a_wrong_option_is_refused)
{
	struct canned_config cc;
	void *set = NULL;

	canned_config(&cc, "x", refused[_i].options, refused[_i].options[1].option != NULL ? 2 : 1);
	ck_assert_int_eq(canned_configure(&cc, refused[_i].filter, &set), -1);
}
END_TEST

START_TEST(a_unix_socket_has_no_address_to_judge)
{
	static const struct filter *const all[] = { &filter_rdns, &filter_helo, &filter_pregreet };
	void *set = configure(all[_i], NULL, 0);
	struct canned can;

	canned_init(&can);
	can.session.client_addr = SLICE("");
	can.session.helo = SLICE("localhost");
	ck_assert_int_eq(canned_run(&can, all[_i], set), FILTER_DONE);
	ck_assert_uint_eq(can.n_asked + can.n_findings, 0);
	canned_fini(&can);
	all[_i]->release(set);
}
END_TEST

UNIT_SUITE(first_contact)
{
	UNIT_ROWS(a_name_must_lead_back, reverse);
	UNIT_TEST(a_name_that_led_back_is_remembered);
	UNIT_TEST(an_ipv6_client_is_confirmed_by_aaaa);
	UNIT_ROWS(a_name_that_can_be_nobodys_is_scored, helos);
	UNIT_TEST(a_name_that_was_found_is_remembered);
	UNIT_TEST(a_score_of_0_asks_nothing);
	UNIT_ROWS(only_the_suspicious_wait_and_only_once, greetings);
	UNIT_TEST(a_score_may_stand_for_the_refusal);
	UNIT_TEST(clients_of_one_ipv6_network_are_one);
	UNIT_ROWS(a_wrong_option_is_refused, refused);
	tcase_add_loop_test(tc, a_unix_socket_has_no_address_to_judge, 0, 3);
}
