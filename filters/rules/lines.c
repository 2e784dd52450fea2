/* filters/rules/lines.c - takes rule files apart into directives. */
#include "filters/rules/lines.h"

#include "filters/rules/condition.h"

static int
fault(struct rules_lines *in, const char *why)
{
	in->why = why;
	return -1;
}

static bool
is_blank(char c)
{
	return c == ' ' || c == '\t' || c == '\r' || c == '\v' || c == '\f';
}

/* Without blanks at both ends; slice_trim() knows no form feeds. */
static struct slice
trim(struct slice s)
{
	while (s.len > 0 && is_blank(s.p[0]))
		s = slice_drop(s, 1);
	while (s.len > 0 && is_blank(s.p[s.len - 1]))
		s.len--;
	return s;
}

struct slice
rules_word_take(struct slice *in)
{
	struct slice word;
	size_t n = 0;

	while (n < in->len && !is_blank(in->p[n]))
		n++;
	word = slice_head(*in, n);
	*in = trim(slice_drop(*in, n));
	return word;
}

/* ---- blocks ---------------------------------------------------------------------------------- */

static int
block_open(struct rules_lines *in, bool plain_if, struct slice args)
{
	bool holds = false;

	if (in->depth == RULES_BLOCK_DEPTH_MAX)
		return fault(in, "too many blocks within each other");
	if (plain_if ? !rules_condition(args, &holds) : args.len == 0)
		return fault(in, plain_if ? "not a condition" : "ifplugin what?");
	in->depth++;
	in->counts[in->depth] = in->counts[in->depth - 1] && holds;
	in->opened[in->depth] = in->line;
	return 0;
}

/* Reads if, ifplugin, else and endif: 0, or -1 for a fault; 1 when the line is something else. */
static int
block_read(struct rules_lines *in, struct slice directive, struct slice args)
{
	bool otherwise = slice_eq(directive, SLICE("else"));

	if (slice_eq(directive, SLICE("if")) || slice_eq(directive, SLICE("ifplugin")))
		return block_open(in, directive.len == 2, args);
	if (!otherwise && !slice_eq(directive, SLICE("endif")))
		return 1;
	if (in->depth == 0)
		return fault(
		    in, otherwise ? "\"else\" without \"if\"" : "\"endif\" without \"if\"");
	if (otherwise)
		in->counts[in->depth] = in->counts[in->depth - 1] && !in->counts[in->depth];
	else
		in->depth--;
	return 0;
}

/* ---- lines ----------------------------------------------------------------------------------- */

/* Cuts a comment off, and the backslash of every "\#"; the copy stands in buf. */
static struct slice
comment_chop(struct slice line, char *buf)
{
	size_t n = 0;

	for (size_t i = 0; i < line.len; i++) {
		if (line.p[i] == '#') {
			if (i == 0 || line.p[i - 1] != '\\')
				break;
			n--;
		}
		buf[n++] = line.p[i];
	}
	return trim(slice_of(buf, n));
}

/* Takes the directive off the front of *line; empty in an empty line and in a translation. */
static struct slice
directive_take(struct slice *line)
{
	struct slice word = rules_word_take(line);

	if (slice_eq(word, SLICE("lang")) && line->len > 0) {
		if (!slice_istarts(rules_word_take(line), SLICE("en")))
			return SLICE("");
		word = rules_word_take(line);
	}
	for (size_t i = 0; i < word.len; i++) {
		char *c = (char *)(uintptr_t)&word.p[i]; /* in our own buffer */

		*c = *c == '-' ? '_' : slice_lower(*c);
	}
	return word;
}

void
rules_lines_init(struct rules_lines *in, struct slice text)
{
	in->rest = text;
	in->line = 0;
	in->why = "";
	in->depth = 0;
	in->counts[0] = true;
}

int
rules_lines_next(struct rules_lines *in, struct slice *directive, struct slice *args)
{
	while (in->rest.len > 0) {
		struct slice line = slice_until(in->rest, '\n');
		int rc;

		in->rest = slice_drop(in->rest, line.len + 1);
		in->line++;
		if (line.len > sizeof(in->buf))
			return fault(in, "the line is too long");
		if (slice_has(line, '\0'))
			return fault(in, "a NUL byte");
		*args = comment_chop(line, in->buf);
		*directive = directive_take(args);
		if (directive->len == 0)
			continue;
		rc = block_read(in, *directive, *args);
		if (rc < 0)
			return -1;
		if (rc > 0 && in->counts[in->depth])
			return 1;
	}
	if (in->depth == 0)
		return 0;
	in->line = in->opened[in->depth];
	return fault(in, "this \"if\" has no \"endif\"");
}
