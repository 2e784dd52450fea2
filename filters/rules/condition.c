/* filters/rules/condition.c - evaluates "if" conditions by recursive descent. */
#include "filters/rules/condition.h"

#include <stdlib.h>

#define DEPTH_MAX 32

struct parser {
	struct slice rest;
	unsigned depth;
	bool bad;
};

static double or_of(struct parser *ps);

static bool
take(struct parser *ps, const char *token)
{
	struct slice t = slice_str(token);

	ps->rest = slice_trim(ps->rest);
	if (!slice_starts(ps->rest, t))
		return false;
	ps->rest = slice_drop(ps->rest, t.len);
	return true;
}

static double
bad(struct parser *ps)
{
	ps->bad = true;
	ps->rest = SLICE("");
	return 0;
}

/* Letters, digits, "_", ":" and ".": a number, a keyword or a class. */
static struct slice
word_take(struct parser *ps)
{
	size_t n = 0;
	struct slice word;

	ps->rest = slice_trim(ps->rest);
	while (n < ps->rest.len) {
		char c = slice_lower(ps->rest.p[n]);

		if (!(c >= 'a' && c <= 'z') && !(c >= '0' && c <= '9') && c != '_' && c != ':' &&
		    c != '.')
			break;
		n++;
	}
	word = slice_head(ps->rest, n);
	ps->rest = slice_drop(ps->rest, n);
	return word;
}

static bool
is_able(struct slice feature)
{
	return slice_starts(feature, SLICE("Mail::SpamAssassin::Conf::perl_min_version_")) ||
	       slice_eq(feature, SLICE("Mail::SpamAssassin::Conf::feature_bug6558_free"));
}

/* The class in parentheses behind plugin, can and has. */
static double
asked(struct parser *ps, bool can)
{
	bool parenthesis = take(ps, "(");
	struct slice class = word_take(ps);

	if (class.len == 0 || (parenthesis && !take(ps, ")")))
		return bad(ps);
	return can && is_able(class);
}

static double
number(struct parser *ps, struct slice word)
{
	char text[32], *end;
	double value;

	if (word.len == 0 || word.len >= sizeof(text))
		return bad(ps);
	memcpy(text, word.p, word.len);
	text[word.len] = '\0';
	value = strtod(text, &end);
	return *end == '\0' ? value : bad(ps);
}

static double
primary(struct parser *ps)
{
	struct slice word;
	double value;

	if (++ps->depth > DEPTH_MAX)
		return bad(ps);
	if (take(ps, "!")) {
		value = primary(ps) == 0;
	} else if (take(ps, "(")) {
		value = or_of(ps);
		if (!take(ps, ")"))
			return bad(ps);
	} else {
		word = word_take(ps);
		if (slice_eq(word, SLICE("plugin")) || slice_eq(word, SLICE("has")))
			value = asked(ps, false);
		else if (slice_eq(word, SLICE("can")))
			value = asked(ps, true);
		else if (slice_eq(word, SLICE("version")))
			value = 4.000001;
		else if (slice_eq(word, SLICE("perl_version")))
			value = 5.036;
		else if (slice_eq(word, SLICE("local_tests_only")))
			value = 1;
		else
			value = number(ps, word);
	}
	ps->depth--;
	return value;
}

/* Versions differ in the sixth decimal: 4.000001. */
static bool
equal(double a, double b)
{
	return a - b < 1e-7 && b - a < 1e-7;
}

static double
compared(struct parser *ps)
{
	double left = primary(ps);

	if (take(ps, ">="))
		return left >= primary(ps);
	if (take(ps, "<="))
		return left <= primary(ps);
	if (take(ps, "=="))
		return equal(left, primary(ps));
	if (take(ps, ">"))
		return left > primary(ps);
	if (take(ps, "<"))
		return left < primary(ps);
	return left;
}

static double
and_of(struct parser *ps)
{
	double value = compared(ps);

	while (take(ps, "&&")) {
		double next = compared(ps);

		value = value != 0 && next != 0;
	}
	return value;
}

static double
or_of(struct parser *ps)
{
	double value = and_of(ps);

	while (take(ps, "||")) {
		double next = and_of(ps);

		value = value != 0 || next != 0;
	}
	return value;
}

bool
rules_condition(struct slice text, bool *holds)
{
	struct parser ps = { slice_trim(text), 0, false };
	double value = or_of(&ps);

	*holds = value != 0;
	return !ps.bad && slice_trim(ps.rest).len == 0;
}
