/* relayd/review/imap/lex.c - the words of IMAP (RFC 3501 section 9): atoms, strings, numbers. */
#include "relayd/review/imap/lex.h"

bool
imap_lex_fail(struct imap_lex *lx, const char *error)
{
	if (lx->error == NULL)
		lx->error = error;
	return false;
}

bool
imap_lex_at(const struct imap_lex *lx, char c)
{
	return lx->rest.len > 0 && lx->rest.p[0] == c;
}

bool
imap_lex_take(struct imap_lex *lx, char c)
{
	if (!imap_lex_at(lx, c))
		return false;
	lx->rest = slice_drop(lx->rest, 1);
	return true;
}

bool
imap_lex_space(struct imap_lex *lx)
{
	if (!imap_lex_take(lx, ' '))
		return imap_lex_fail(
		    lx, lx->rest.len == 0 ? "An argument is missing" : "A space is missing");
	while (imap_lex_take(lx, ' '))
		;
	return true;
}

bool
imap_lex_end(struct imap_lex *lx)
{
	while (imap_lex_take(lx, ' '))
		;
	return lx->rest.len == 0 || imap_lex_fail(lx, "Too many arguments, or a stray character");
}

bool
imap_lex_argument(struct imap_lex *lx, struct slice *out, const char *error)
{
	if (lx->rest.len == 0)
		return imap_lex_fail(lx, error);
	return imap_lex_space(lx) && imap_lex_astring(lx, out);
}

/* atom-specials but "]", which an astring may contain. */
static bool
is_astring_char(char c)
{
	return c > ' ' && c != 0x7f && strchr("(){%*\"\\", c) == NULL;
}

static bool
take_run(struct imap_lex *lx, bool (*accepts)(char), struct slice *out)
{
	size_t n = 0;

	while (n < lx->rest.len && accepts(lx->rest.p[n]))
		n++;
	*out = slice_head(lx->rest, n);
	lx->rest = slice_drop(lx->rest, n);
	return n > 0;
}

static bool
is_atom_char(char c)
{
	return is_astring_char(c) && c != ']';
}

/* Octets above ASCII are no part of the grammar; clients send them in mailbox names by mistake. */
static bool
is_pattern_char(char c)
{
	return is_astring_char(c) || c == '%' || c == '*' || (unsigned char)c >= 0x80;
}

static bool
is_name_char(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
	       c == '.' || c == '-';
}

bool
imap_lex_atom(struct imap_lex *lx, struct slice *out)
{
	return take_run(lx, is_atom_char, out) || imap_lex_fail(lx, "A word is missing");
}

struct slice
imap_lex_name(struct imap_lex *lx)
{
	struct slice name;

	(void)take_run(lx, is_name_char, &name); /* may be empty */
	return name;
}

static bool
take_quoted(struct imap_lex *lx, struct slice *out)
{
	struct slice in = slice_drop(lx->rest, 1);
	size_t n = 0, used = 0;
	bool escaped = false;
	char *copy;

	while (n < in.len && in.p[n] != '"') {
		if (in.p[n] == '\r' || in.p[n] == '\n')
			return imap_lex_fail(lx, "A line ends inside of quotes");
		escaped = escaped || in.p[n] == '\\';
		n += in.p[n] == '\\' ? 2 : 1;
	}
	if (n >= in.len)
		return imap_lex_fail(lx, "A quoted string has no end");
	*out = slice_head(in, n);
	lx->rest = slice_drop(in, n + 1);
	if (!escaped)
		return true;
	copy = arena_alloc(lx->arena, n + 1);
	if (copy == NULL)
		return imap_lex_fail(lx, "The command is too long");
	for (size_t i = 0; i < n; i++) {
		if (in.p[i] == '\\')
			i++;
		copy[used++] = in.p[i];
	}
	*out = slice_of(copy, used);
	return true;
}

/* "{5}" or "{5+}", a line end, and so many octets: the scanner has seen that they are there. */
static bool
take_literal(struct imap_lex *lx, struct slice *out)
{
	struct slice in = slice_drop(lx->rest, 1), digits = slice_until(in, '}');
	uint64_t size;

	in = slice_drop(in, digits.len + 1);
	(void)slice_chop(&digits, "+"); /* there or not */
	if (slice_starts(in, SLICE("\r\n")))
		in = slice_drop(in, 2);
	else if (slice_starts(in, SLICE("\n")))
		in = slice_drop(in, 1);
	else
		return imap_lex_fail(lx, "A literal is not at the end of its line");
	if (!slice_u64(digits, in.len, &size))
		return imap_lex_fail(lx, "A literal has a bad length");
	*out = slice_head(in, (size_t)size);
	if (slice_has(*out, '\0'))
		return imap_lex_fail(lx, "A literal has a NUL"); /* CHAR8: RFC 3501 section 9 */
	lx->rest = slice_drop(in, (size_t)size);
	return true;
}

bool
imap_lex_string(struct imap_lex *lx, struct slice *out)
{
	if (imap_lex_at(lx, '"'))
		return take_quoted(lx, out);
	if (imap_lex_at(lx, '{'))
		return take_literal(lx, out);
	return imap_lex_fail(lx, "A string is missing");
}

bool
imap_lex_astring(struct imap_lex *lx, struct slice *out)
{
	if (imap_lex_at(lx, '"') || imap_lex_at(lx, '{'))
		return imap_lex_string(lx, out);
	return take_run(lx, is_astring_char, out) ||
	       imap_lex_fail(lx, "A word or string is missing");
}

bool
imap_lex_pattern(struct imap_lex *lx, struct slice *out)
{
	if (imap_lex_at(lx, '"') || imap_lex_at(lx, '{'))
		return imap_lex_string(lx, out);
	return take_run(lx, is_pattern_char, out) ||
	       imap_lex_fail(lx, "A mailbox pattern is missing");
}

bool
imap_lex_number(struct imap_lex *lx, uint64_t max, uint64_t *out)
{
	size_t n = 0;

	while (n < lx->rest.len && lx->rest.p[n] >= '0' && lx->rest.p[n] <= '9')
		n++;
	if (!slice_u64(slice_head(lx->rest, n), max, out))
		return imap_lex_fail(lx, "A number is missing or too large");
	lx->rest = slice_drop(lx->rest, n);
	return true;
}
