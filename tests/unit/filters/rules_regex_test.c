/* tests/unit/filters/rules_regex_test.c - the patterns of rules: delimiters, flags, limits. */
#include "unit/unit.h"

#include "filters/rules/regex.h"

#include <pthread.h>
#include <stdlib.h>

static const struct {
	const char *literal, *subject;
	enum rules_match match;
} matches[] = {
	{ "/b+/", "abbc", RULES_MATCH_YES },
	{ "/b+/", "ac", RULES_MATCH_NO },
	{ "/B/", "b", RULES_MATCH_NO },
	{ "/B/i", "b", RULES_MATCH_YES },
	{ "/^b/", "a\nb", RULES_MATCH_NO },
	{ "/^b/m", "a\nb", RULES_MATCH_YES },
	{ "/a.b/", "a\nb", RULES_MATCH_NO },
	{ "/a.b/s", "a\nb", RULES_MATCH_YES },
	{ "/a.b/", "a\rb", RULES_MATCH_YES }, /* LF alone ends a line, as in Perl */
	{ "/a b/x", "ab", RULES_MATCH_YES },
	{ "/[a b]c/xx", " c", RULES_MATCH_NO },
	{ "/a$/", "a\n", RULES_MATCH_YES },
	{ "/a\\z/", "a\n", RULES_MATCH_NO },
	{ "/\\/\\//", "http://", RULES_MATCH_YES },
	{ "m{a/b}i", "A/B", RULES_MATCH_YES },
	{ "m{^a{2}$}", "aa", RULES_MATCH_YES },
	{ "m(^(a)$)", "a", RULES_MATCH_YES },
	{ "m<a\\<b>", "a<b", RULES_MATCH_YES },
	{ "m[^[ab]+$]", "ab", RULES_MATCH_YES },
	{ "m!a\\!b!", "a!b", RULES_MATCH_YES },
	{ "m#a#", "a", RULES_MATCH_YES },
	{ "m'a\\'b'", "a'b", RULES_MATCH_YES },
	{ "qr/a/i", "A", RULES_MATCH_YES },
	{ "/\\w/aa", "\xc3\xa9", RULES_MATCH_NO }, /* bytes; ASCII classes */
	{ "/\\xc3\\xa9/", "caf\xc3\xa9", RULES_MATCH_YES },
	{ "/caf\xc3\xa9/", "caf\xc3\xa9", RULES_MATCH_YES },
	{ "/^..$/", "\xc3\xa9", RULES_MATCH_YES },
	{ "/(?<n>a)|(?<n>b)/", "b", RULES_MATCH_YES },
	{ "/\\y\\_\\@/", "y_@", RULES_MATCH_YES }, /* Perl takes an unknown escape for itself */
	{ "/(?i)A(?-i)b/", "ab", RULES_MATCH_YES },
	{ "/a++b\\K/", "aab", RULES_MATCH_YES },
	{ "/^\\p{Lu}/", "A", RULES_MATCH_YES },
	{ "/(?:)/", "", RULES_MATCH_YES },
};

START_TEST(a_pattern_matches_as_perl_has_it)
{
	char why[200] = "";
	struct rules_regex *re = rules_regex_new(slice_str(matches[_i].literal), why, sizeof(why));

	ck_assert_msg(re != NULL, "%s: %s", matches[_i].literal, why);
	ck_assert_msg(rules_regex_match(re, slice_str(matches[_i].subject)) == matches[_i].match,
	    "%s", matches[_i].literal);
	rules_regex_free(re);
}
END_TEST

static const struct {
	const char *literal, *why;
} wrong[] = {
	{ "", "a pattern starts with \"/\", or with \"m\" and a delimiter" },
	{ "m", "a pattern starts with \"/\", or with \"m\" and a delimiter" },
	{ "abc", "a pattern starts with \"/\", or with \"m\" and a delimiter" },
	{ "mxax", "a pattern starts with \"/\", or with \"m\" and a delimiter" },
	{ "m\\a\\", "a pattern starts with \"/\", or with \"m\" and a delimiter" },
	{ "/", "the pattern does not end with its delimiter and flags" },
	{ "/abc", "the pattern does not end with its delimiter and flags" },
	{ "/abc/I", "the pattern does not end with its delimiter and flags" },
	{ "m{abc{", "the pattern does not end with its delimiter and flags" },
	{ "/abc/e", "unknown flag behind the pattern" },
	{ "/a/b/", "the delimiter stands in the pattern without a backslash" },
	{ "/a\\\\/b/", "the delimiter stands in the pattern without a backslash" },
	{ "//", "an empty pattern matches everything" },
	{ "/a(b/", "missing closing parenthesis at \"\"" },
	{ "/[z-a]/", "range out of order in character class at \"a]\"" },
	{ "/a**/", "quantifier does not follow a repeatable item at \"*\"" },
	{ "/(?{ exit })/", "unrecognized character after (? or (?- at \"{ exit })\"" },
	{ "/(*UTF)a/", "using UTF is disabled by the application at \"a\"" },
};

START_TEST(a_bad_pattern_is_refused_and_says_why)
{
	char why[200] = "";

	ck_assert_ptr_null(rules_regex_new(slice_str(wrong[_i].literal), why, sizeof(why)));
	ck_assert_str_eq(why, wrong[_i].why);
}
END_TEST

/* Exponential for a backtracking matcher. */
START_TEST(a_pattern_that_takes_too_long_ends_with_a_limit)
{
	static const char *const bombs[] = { "/^(a+)+$/", "/^(a|aa)+$/", "/^(.*?,){30}[xy]/s",
		"/(x+x+)+[yz]/" };
	char why[200], text[4096];

	for (size_t i = 0; i < 4; i++) {
		struct rules_regex *re = rules_regex_new(slice_str(bombs[i]), why, sizeof(why));

		memset(text, i == 2 ? ',' : i == 3 ? 'x' : 'a', sizeof(text));
		text[sizeof(text) - 1] = '!';
		ck_assert_ptr_nonnull(re);
		ck_assert_int_eq(
		    rules_regex_match(re, slice_of(text, sizeof(text))), RULES_MATCH_LIMIT);
		rules_regex_free(re);
	}
}
END_TEST

static void *
match_in_thread(void *arg)
{
	const struct rules_regex *re = arg;

	for (int i = 0; i < 1000; i++)
		if (rules_regex_match(re, SLICE("abbbbbc")) != RULES_MATCH_YES)
			return arg;
	return NULL;
}

START_TEST(threads_share_a_pattern)
{
	char why[200];
	struct rules_regex *re = rules_regex_new(SLICE("/a(b)+(c)/"), why, sizeof(why));
	pthread_t threads[4];
	void *failed;

	for (size_t i = 0; i < 4; i++)
		ck_assert_int_eq(pthread_create(&threads[i], NULL, match_in_thread, re), 0);
	for (size_t i = 0; i < 4; i++) {
		ck_assert_int_eq(pthread_join(threads[i], &failed), 0);
		ck_assert_ptr_null(failed);
	}
	rules_regex_free(re);
}
END_TEST

UNIT_SUITE(rules_regex)
{
	UNIT_ROWS(a_pattern_matches_as_perl_has_it, matches);
	UNIT_ROWS(a_bad_pattern_is_refused_and_says_why, wrong);
	UNIT_TEST(a_pattern_that_takes_too_long_ends_with_a_limit);
	UNIT_TEST(threads_share_a_pattern);
}
