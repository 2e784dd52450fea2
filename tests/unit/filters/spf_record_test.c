/* tests/unit/filters/spf_record_test.c - the grammar of SPF records and macros, both sides of
 * it. */
#include "unit/unit.h"

#include "filters/spf/macro.h"
#include "filters/spf/record.h"

#include <stdio.h>

/* ---- records --------------------------------------------------------------------------------- */

static const struct {
	struct slice text;
	bool good;
} records[] = {
	{ SLICE("v=spf1"), true },
	{ SLICE("v=spf1 "), true },
	{ SLICE("V=SPF1   -ALL  "), true },
	{ SLICE("v=spf10 -all"), false },
	{ SLICE(" v=spf1 -all"), false },
	{ SLICE("v=spf1 -all."), false },
	{ SLICE("v=spf1 --all"), false },
	{ SLICE("v=spf1 -"), false },
	{ SLICE("v=spf1 \t-all"), false },
	{ SLICE("v=spf1\t-all"), false },
	{ SLICE("v=spf1 ip4:192.0.2.1/32 ip4:0.0.0.0/0"), true },
	{ SLICE("v=spf1 ip4:192.0.2.1/"), false },
	{ SLICE("v=spf1 ip4:192.0.2.1/00"), false },
	{ SLICE("v=spf1 ip4:192.0.2.1/33"), false },
	{ SLICE("v=spf1 ip4:192.0.2.1/99999999999999999999"), false },
	{ SLICE("v=spf1 ip4:192.0.2.01"), false },
	{ SLICE("v=spf1 ip4:192.0.2.256"), false },
	{ SLICE("v=spf1 ip4:192.0.2.1\0"), false },
	{ SLICE("v=spf1 ip4=192.0.2.1"), true }, /* an unknown modifier, by the grammar */
	{ SLICE("v=spf1 ip6:2001:db8::/128 ip6:::/0 ip6:::ffff:192.0.2.1"), true },
	{ SLICE("v=spf1 ip6:2001:db8::/129"), false },
	{ SLICE("v=spf1 ip6:fe80::1%eth0"), false },
	{ SLICE("v=spf1 ip6:2001:db8:0000:0000:0000:0000:0000:0000:0000:0000:0000:0000"), false },
	{ SLICE("v=spf1 a/24//64 a:x.test/0 a:x.test//0 mx//128"), true },
	{ SLICE("v=spf1 a//64/24"), false },
	{ SLICE("v=spf1 a/"), false },
	{ SLICE("v=spf1 a:/24"), false },
	{ SLICE("v=spf1 a:x.test/"), false },
	{ SLICE("v=spf1 a:x..test"), true }, /* undefined by the RFC: does not exist then */
	{ SLICE("v=spf1 include:%{d}.x.test. exists:%{l1r+-}._spf.%{d2}"), true },
	{ SLICE("v=spf1 exists:%{l0}.x.test"), false },
	{ SLICE("v=spf1 exists:%{l99999999999999999999r}.x.test"), true },
	{ SLICE("v=spf1 exists:%{l}.x.test%"), false },
	{ SLICE("v=spf1 exists:%{l"), false },
	{ SLICE("v=spf1 exists:%{"), false },
	{ SLICE("v=spf1 exists:%{}"), false },
	{ SLICE("v=spf1 exists:%{l!}"), false },
	{ SLICE("v=spf1 exists:%%"), true },
	{ SLICE("v=spf1 exists:%{c}.x.test"), false },
	{ SLICE("v=spf1 redirect=x.test exp=y.test"), true },
	{ SLICE("v=spf1 redirect=x.test REDIRECT=x.test"), false },
	{ SLICE("v=spf1 redirect:x.test"), false },
	{ SLICE("v=spf1 x-y_z.1=%{c}"), true },
	{ SLICE("v=spf1 x=%c"), false },
	{ SLICE("v=spf1 x="), true },
	{ SLICE("v=spf1 exp="), false },
	{ SLICE("v=spf1 ptr ptr:x.test"), true },
	{ SLICE("v=spf1 a:x.1test a:x.te-st a:x.t"), true },
	{ SLICE("v=spf1 a:x.-test"), false },
	{ SLICE("v=spf1 a:x.test-"), false },
	{ SLICE("v=spf1 a:x.123"), false },
	{ SLICE("v=spf1 a:\x80.test"), false },
};

START_TEST(a_record_is_taken_or_refused_whole)
{
	struct slice text = records[_i].text;
	struct spf_record record;
	bool good = spf_record_parse(text, &record);

	ck_assert_msg(
	    good == records[_i].good, "row %d, \"%.*s\": %s", _i, SLICE_FMT(text), record.why);
	ck_assert(good || record.why[0] != '\0');
}
END_TEST

START_TEST(terms_come_out_as_they_are_written)
{
	struct spf_record record;
	struct spf_term term;

	ck_assert(spf_record_parse(
	    SLICE("v=spf1 ~a:x.test/24//64 exp=e.test  ?ip4:192.0.2.0/28 redirect=r.test -mx"),
	    &record));
	ck_assert(slice_eq(record.exp, SLICE("e.test")));
	ck_assert(slice_eq(record.redirect, SLICE("r.test")));
	ck_assert(spf_record_next(&record.terms, &term));
	ck_assert_int_eq(term.mechanism, SPF_MECHANISM_A);
	ck_assert_int_eq(term.result, SPF_SOFTFAIL);
	ck_assert(slice_eq(term.domain, SLICE("x.test")));
	ck_assert_uint_eq(term.bits4, 24);
	ck_assert_uint_eq(term.bits6, 64);
	ck_assert(spf_record_next(&record.terms, &term));
	ck_assert_int_eq(term.mechanism, SPF_MECHANISM_IP4);
	ck_assert_int_eq(term.result, SPF_NEUTRAL);
	ck_assert_mem_eq(term.addr, "\xc0\x00\x02\x00", 4);
	ck_assert_uint_eq(term.bits4, 28);
	ck_assert(spf_record_next(&record.terms, &term));
	ck_assert_int_eq(term.mechanism, SPF_MECHANISM_MX);
	ck_assert_int_eq(term.result, SPF_FAIL);
	ck_assert_uint_eq(term.domain.len, 0);
	ck_assert(!spf_record_next(&record.terms, &term));
}
END_TEST

START_TEST(a_record_is_too_long_one_byte_past_the_limit)
{
	static char text[SPF_RECORD_BYTES_MAX + 1];
	struct spf_record record;

	memset(text, ' ', sizeof(text));
	memcpy(text, "v=spf1", 6);
	ck_assert(spf_record_parse(slice_of(text, SPF_RECORD_BYTES_MAX), &record));
	ck_assert(!spf_record_parse(slice_of(text, SPF_RECORD_BYTES_MAX + 1), &record));
}
END_TEST

/* ---- macros: the examples of RFC 7208 section 7.4 -------------------------------------------- */

static const struct spf_macros values = {
	.sender = { "strong-bad@email.example.com", 28 },
	.local_part = { "strong-bad", 10 },
	.sender_domain = { "email.example.com", 17 },
	.domain = { "email.example.com", 17 },
	.address = { "192.0.2.3", 9 },
	.validated = { "mx.example.org", 14 },
	.version = { "in-addr", 7 },
	.helo = { "mail host&", 10 },
	.client = { "192.0.2.3", 9 },
	.receiver = { "mx.test", 7 },
	.time_s = { "1234567890", 10 },
};

static const struct {
	const char *text, *expanded;
} expansions[] = {
	{ "%{s}", "strong-bad@email.example.com" },
	{ "%{o}", "email.example.com" },
	{ "%{d}", "email.example.com" },
	{ "%{d4}", "email.example.com" },
	{ "%{d3}", "email.example.com" },
	{ "%{d2}", "example.com" },
	{ "%{d1}", "com" },
	{ "%{dr}", "com.example.email" },
	{ "%{d2r}", "example.email" },
	{ "%{l}", "strong-bad" },
	{ "%{l-}", "strong.bad" },
	{ "%{lr}", "strong-bad" },
	{ "%{lr-}", "bad.strong" },
	{ "%{l1r-}", "strong" },
	{ "%{ir}.%{v}._spf.%{d2}", "3.2.0.192.in-addr._spf.example.com" },
	{ "%{lr-}.lp._spf.%{d2}", "bad.strong.lp._spf.example.com" },
	{ "%{lr-}.lp.%{ir}.%{v}._spf.%{d2}", "bad.strong.lp.3.2.0.192.in-addr._spf.example.com" },
	{ "%{H}%%%_%-", "mail%20host%26% %20" },
	{ "%{c} %{r} %{t} %{p1}", "192.0.2.3 mx.test 1234567890 org" },
	{ "%{d99}", "email.example.com" },
	{ "", "" },
};

START_TEST(macros_expand_as_the_rfc_has_it)
{
	struct slice text = slice_str(expansions[_i].text);
	char out[256];
	size_t len;

	ck_assert(spf_macro_valid(text, true));
	ck_assert(spf_macro_expand(text, &values, out, sizeof(out), &len));
	ck_assert_uint_eq(len, strlen(expansions[_i].expanded));
	ck_assert_mem_eq(out, expansions[_i].expanded, len);
}
END_TEST

START_TEST(an_expansion_fits_exactly_or_not_at_all)
{
	size_t len = 1;
	char out[28];

	ck_assert(spf_macro_expand(SLICE("%{s}"), &values, out, 28, &len));
	ck_assert_uint_eq(len, 28);
	ck_assert(!spf_macro_expand(SLICE("%{s}"), &values, out, 27, &len));
	ck_assert_uint_eq(len, 0);
}
END_TEST

#define L10 "abcdefghi."
#define L63 "a12345678901234567890123456789012345678901234567890123456789012"

static const struct {
	const char *spec;
	const char *name; /* "": none */
} names[] = {
	{ "%{d}.", "email.example.com" },
	{ "x.test", "x.test" },
	{ "x..test", "" },
	{ ".x.test", "" },
	{ "%{v}", "" }, /* one label */
	{ L63 ".test", L63 ".test" },
	{ L63 "3.test", "" },
	{ "a\\b.test", "" },
	/* 26 times 10 bytes and "test": 264; the first two labels go */
	{ L10 L10 L10 L10 L10 L10 L10 L10 L10 L10 L10 L10 L10 L10 L10 L10 L10 L10 L10 L10 L10 L10
		L10 L10 L10 L10 "test",
	    L10 L10 L10 L10 L10 L10 L10 L10 L10 L10 L10 L10 L10 L10 L10 L10 L10 L10 L10 L10 L10 L10
		L10 L10 "test" },
};

START_TEST(a_target_name_can_be_asked_for_or_is_empty)
{
	char out[SPF_NAME_BYTES_MAX];
	struct slice name = spf_domain_expand(slice_str(names[_i].spec), &values, out);

	ck_assert_msg(slice_eq(name, slice_str(names[_i].name)), "%.*s", SLICE_FMT(name));
}
END_TEST

/* CVE-2023-42118: 127 macros, then a literal of over 4,000 bytes, overran a buffer in libspf2. */
START_TEST(the_record_that_crashes_libspf2_is_refused)
{
	static char text[8192];
	struct spf_record record;
	size_t len = (size_t)snprintf(text, sizeof(text), "v=spf1 exists:");

	for (int i = 0; i < 127; i++)
		len += (size_t)snprintf(text + len, sizeof(text) - len, "%%{d}");
	memset(text + len, 'a', 4050);
	len += 4050;
	len += (size_t)snprintf(text + len, sizeof(text) - len, ".test");
	ck_assert(!spf_record_parse(slice_of(text, len), &record));
	ck_assert_str_eq(record.why, "the record is too long");
}
END_TEST

/* The same within the length limit: it is sound, and its expansion ends at the bound. */
START_TEST(many_macros_and_a_long_literal_expand_within_bounds)
{
	static char text[SPF_RECORD_BYTES_MAX];
	char out[SPF_NAME_BYTES_MAX];
	struct spf_record record;
	struct spf_term term;
	size_t len = (size_t)snprintf(text, sizeof(text), "v=spf1 exists:");

	for (int i = 0; i < 127; i++)
		len += (size_t)snprintf(text + len, sizeof(text) - len, "%%{S}");
	memset(text + len, 'a', sizeof(text) - len);
	memcpy(text + sizeof(text) - 5, ".test", 5);
	ck_assert(spf_record_parse(slice_of(text, sizeof(text)), &record));
	ck_assert(spf_record_next(&record.terms, &term));
	ck_assert_uint_eq(spf_domain_expand(term.domain, &values, out).len, 0);
}
END_TEST

UNIT_SUITE(spf_record)
{
	UNIT_ROWS(a_record_is_taken_or_refused_whole, records);
	UNIT_TEST(terms_come_out_as_they_are_written);
	UNIT_TEST(a_record_is_too_long_one_byte_past_the_limit);
	UNIT_ROWS(macros_expand_as_the_rfc_has_it, expansions);
	UNIT_TEST(an_expansion_fits_exactly_or_not_at_all);
	UNIT_ROWS(a_target_name_can_be_asked_for_or_is_empty, names);
	UNIT_TEST(the_record_that_crashes_libspf2_is_refused);
	UNIT_TEST(many_macros_and_a_long_literal_expand_within_bounds);
}
