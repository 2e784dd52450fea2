/* filters/spf/macro.c - reading, checking and expanding SPF macros. */
#include "filters/spf/macro.h"

#define LABEL_BYTES_MAX     63
#define EXPANSION_BYTES_MAX 4096 /* of a domain-spec before it is cut to size */
#define DELIMITERS          ".-+,/_="

/* A piece of a macro-string: bytes that stand for themselves, or a macro with a letter. */
struct piece {
	struct slice literal; /* also "%", " " and "%20" for %%, %_ and %- */
	char letter;          /* lower case; 0: a literal */
	bool escape;          /* the letter was upper case: section 7.3 */
	bool reverse;
	unsigned keep; /* right-hand parts; 0: all */
	struct slice delimiters;
};

struct out {
	char *p;
	size_t len, cap;
	bool overflow;
};

static bool
is_digit(char c)
{
	return c >= '0' && c <= '9';
}

static bool
is_alpha(char c)
{
	return slice_lower(c) >= 'a' && slice_lower(c) <= 'z';
}

static bool
is_alnum(char c)
{
	return is_alpha(c) || is_digit(c);
}

/* macro-literal: %x21-24 / %x26-7E */
static bool
is_literal(char c)
{
	return c > ' ' && c <= '~' && c != '%';
}

/* The "3r-" of a "%{d3r-}": section 7.1.  False when *in is not that. */
static bool
transformers_take(struct slice *in, struct piece *piece)
{
	bool counted = false;

	for (; in->len > 0 && is_digit(in->p[0]); *in = slice_drop(*in, 1)) {
		counted = true;
		if (piece->keep <= SPF_VALUE_BYTES_MAX)
			piece->keep = piece->keep * 10 + (unsigned)(in->p[0] - '0');
	}
	if (counted && piece->keep == 0) /* "MUST be nonzero": section 7.3 */
		return false;
	if (in->len > 0 && slice_lower(in->p[0]) == 'r') {
		piece->reverse = true;
		*in = slice_drop(*in, 1);
	}
	piece->delimiters = slice_until(*in, '}');
	for (size_t i = 0; i < piece->delimiters.len; i++)
		if (!slice_has(SLICE(DELIMITERS), piece->delimiters.p[i]))
			return false;
	*in = slice_drop(*in, piece->delimiters.len);
	if (piece->delimiters.len == 0)
		piece->delimiters = SLICE(".");
	return true;
}

/* Takes a macro, which starts with a percent sign, off the front of *in. */
static bool
macro_take(struct slice *in, struct piece *piece)
{
	char kind = in->len > 1 ? in->p[1] : '\0';

	*in = slice_drop(*in, 2);
	switch (kind) {
	case '%':
		piece->literal = SLICE("%");
		return true;
	case '_':
		piece->literal = SLICE(" ");
		return true;
	case '-':
		piece->literal = SLICE("%20");
		return true;
	case '{':
		break;
	default:
		return false;
	}
	if (in->len == 0 || !slice_has(SLICE("slodiphcrtv"), slice_lower(in->p[0])))
		return false;
	piece->letter = slice_lower(in->p[0]);
	piece->escape = piece->letter != in->p[0];
	*in = slice_drop(*in, 1);
	if (!transformers_take(in, piece) || in->len == 0)
		return false;
	*in = slice_drop(*in, 1); /* the closing brace */
	return true;
}

/* Takes the next piece off the front of *in; false where the grammar is broken. */
static bool
piece_take(struct slice *in, bool spaces, struct piece *piece)
{
	size_t n = 0;

	*piece = (struct piece){ .literal = SLICE(""), .delimiters = SLICE(".") };
	if (in->p[0] == '%')
		return macro_take(in, piece);
	while (n < in->len && (is_literal(in->p[n]) || (spaces && in->p[n] == ' ')))
		n++;
	piece->literal = slice_head(*in, n);
	*in = slice_drop(*in, n);
	return n > 0;
}

bool
spf_macro_valid(struct slice text, bool explain)
{
	struct piece piece;

	while (text.len > 0)
		if (!piece_take(&text, explain, &piece))
			return false;
	return true;
}

bool
spf_macro_uses(struct slice text, char letter)
{
	struct piece piece;

	while (text.len > 0 && piece_take(&text, true, &piece))
		if (piece.letter == letter)
			return true;
	return false;
}

/* toplabel = ( *alphanum ALPHA *alphanum ) / ( 1*alphanum "-" *( alphanum / "-" ) alphanum ) */
static bool
is_top_label(struct slice label)
{
	bool all_digits = true;

	if (label.len == 0 || !is_alnum(label.p[0]) || !is_alnum(label.p[label.len - 1]))
		return false;
	for (size_t i = 0; i < label.len; i++) {
		if (!is_alnum(label.p[i]) && label.p[i] != '-')
			return false;
		all_digits = all_digits && is_digit(label.p[i]);
	}
	return !all_digits;
}

/* The last piece of a domain-spec is literal: it has to end in "." toplabel [ "." ]. */
static bool
ends_in_top_label(struct slice literal)
{
	const char *dot;

	(void)slice_chop(&literal, "."); /* the final dot is optional */
	dot = memrchr(literal.p, '.', literal.len);
	return dot != NULL && is_top_label(slice_drop(literal, (size_t)(dot + 1 - literal.p)));
}

bool
spf_domain_spec_valid(struct slice text)
{
	struct piece piece = { .letter = 0 };
	struct slice start = text;

	if (text.len == 0)
		return false;
	while (text.len > 0) {
		start = text;
		if (!piece_take(&text, false, &piece))
			return false;
		if (piece.letter != 0 && slice_has(SLICE("crt"), piece.letter))
			return false; /* section 7.2: "only in exp text" */
	}
	return start.p[0] == '%' || ends_in_top_label(piece.literal);
}

/* ---- expansion ------------------------------------------------------------------------------- */

static void
put(struct out *out, struct slice s)
{
	if (s.len > out->cap - out->len) {
		out->overflow = true;
		return;
	}
	memcpy(out->p + out->len, s.p, s.len);
	out->len += s.len;
}

/* Percent-encodes all but the unreserved characters of RFC 3986 section 2.3. */
static void
put_escaped(struct out *out, struct slice s)
{
	static const char hex[] = "0123456789ABCDEF";

	for (size_t i = 0; i < s.len; i++) {
		unsigned char c = (unsigned char)s.p[i];
		char code[3] = { '%', hex[c >> 4], hex[c & 15] };

		if (is_alnum(s.p[i]) || slice_has(SLICE("-._~"), s.p[i]))
			put(out, slice_of(s.p + i, 1));
		else
			put(out, slice_of(code, sizeof(code)));
	}
}

static struct slice
value_of(const struct spf_macros *values, char letter)
{
	switch (letter) {
	case 's':
		return values->sender;
	case 'l':
		return values->local_part;
	case 'o':
		return values->sender_domain;
	case 'd':
		return values->domain;
	case 'i':
		return values->address;
	case 'p':
		return values->validated;
	case 'v':
		return values->version;
	case 'h':
		return values->helo;
	case 'c':
		return values->client;
	case 'r':
		return values->receiver;
	default:
		return values->time_s;
	}
}

/* Cuts value at the delimiters; at most SPF_VALUE_BYTES_MAX + 1 parts. */
static size_t
split(struct slice value, struct slice delimiters, struct slice *parts)
{
	size_t n = 0, start = 0;

	for (size_t i = 0; i <= value.len; i++) {
		if (i < value.len && !slice_has(delimiters, value.p[i]))
			continue;
		parts[n++] = slice_of(value.p + start, i - start);
		start = i + 1;
	}
	return n;
}

static void
put_value(struct out *out, const struct piece *piece, struct slice value)
{
	struct slice parts[SPF_VALUE_BYTES_MAX + 1];
	size_t n, first;

	if (value.len > SPF_VALUE_BYTES_MAX)
		return;
	n = split(value, piece->delimiters, parts);
	first = piece->keep > 0 && piece->keep < n ? n - piece->keep : 0;
	for (size_t i = first; i < n; i++) {
		struct slice part = parts[piece->reverse ? n - 1 - i : i];

		if (i > first)
			put(out, SLICE("."));
		if (piece->escape)
			put_escaped(out, part);
		else
			put(out, part);
	}
}

bool
spf_macro_expand(
    struct slice text, const struct spf_macros *values, char *out, size_t cap, size_t *out_len)
{
	struct out to = { out, 0, cap, false };
	struct piece piece;

	while (text.len > 0 && !to.overflow && piece_take(&text, true, &piece)) {
		if (piece.letter != 0)
			put_value(&to, &piece, value_of(values, piece.letter));
		else
			put(&to, piece.literal);
	}
	*out_len = to.overflow ? 0 : to.len;
	return !to.overflow;
}

/* ---- names ----------------------------------------------------------------------------------- */

/* What DNS can be asked for: any printable byte, but the backslash, which escapes in names. */
static bool
is_label(struct slice label)
{
	if (label.len == 0 || label.len > LABEL_BYTES_MAX)
		return false;
	for (size_t i = 0; i < label.len; i++)
		if (label.p[i] < ' ' || label.p[i] > '~' || label.p[i] == '\\')
			return false;
	return true;
}

struct slice
spf_name(struct slice name)
{
	struct slice rest;

	(void)slice_chop(&name, "."); /* the final dot is optional */
	if (name.len > SPF_NAME_BYTES_MAX || !slice_has(name, '.'))
		return SLICE("");
	for (rest = name;; rest = slice_drop(rest, 1)) {
		struct slice label = slice_until(rest, '.');

		if (!is_label(label))
			return SLICE("");
		rest = slice_drop(rest, label.len);
		if (rest.len == 0)
			return name;
	}
}

struct slice
spf_domain_expand(
    struct slice spec, const struct spf_macros *values, char out[static SPF_NAME_BYTES_MAX])
{
	char text[EXPANSION_BYTES_MAX];
	struct slice name = slice_of(text, 0);

	if (!spf_macro_expand(spec, values, text, sizeof(text), &name.len))
		return SLICE("");
	(void)slice_chop(&name, "."); /* the final dot is optional */
	while (name.len > SPF_NAME_BYTES_MAX)
		name = slice_drop(name, slice_until(name, '.').len + 1);
	name = spf_name(name);
	memcpy(out, name.p, name.len);
	return slice_of(out, name.len);
}
