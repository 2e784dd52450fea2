/* relayd/mail/mime_param.c - parameters (RFC 2045 section 5.1, RFC 2231) and what a body says
 * decoded. */
#include "relayd/mail/mime.h"

#include "relayd/mail/charset.h"
#include "relayd/mail/encoded_word.h"
#include "relayd/mail/header.h"
#include "relayd/mail/transfer.h"

#define WORD_MAX  255  /* octets of the value before the parameters; a longer one is none */
#define VALUE_MAX 4096 /* octets of a parameter, as written and decoded; what lies beyond is cut */

static bool
is_blank(char c)
{
	return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

/* Takes the value before the parameters: up to a semicolon, or to a blank with no "/" next to
 * it. */
static struct slice
take_value(struct slice *s, struct arena *arena)
{
	struct slice rest = *s;
	size_t n = 0;
	char *copy = arena_alloc(arena, (s->len < WORD_MAX ? s->len : WORD_MAX) + 1);

	if (copy == NULL)
		return (struct slice){ NULL, 0 };
	header_skip_cfws(&rest);
	while (rest.len > 0 && rest.p[0] != ';') {
		struct slice word = rest;

		while (rest.len > 0 && rest.p[0] != ';' && rest.p[0] != '(' && !is_blank(rest.p[0]))
			rest = slice_drop(rest, 1);
		word = slice_head(word, word.len - rest.len);
		memcpy(copy + n, word.p, word.len < WORD_MAX - n ? word.len : WORD_MAX - n);
		n += word.len < WORD_MAX - n ? word.len : WORD_MAX - n;
		header_skip_cfws(&rest);
		if (rest.len > 0 && rest.p[0] != '/' && word.p[word.len - 1] != '/')
			break;
	}
	*s = rest;
	return n < WORD_MAX ? slice_of(copy, n) : SLICE("");
}

/* Takes a quoted string, which the first octet opens; without a closing quote, all there is. */
static struct slice
take_quoted(struct slice *s, struct arena *arena)
{
	struct slice inner = slice_drop(*s, 1);
	size_t n = 0, used = 0;
	bool plain = true;
	char *copy;

	while (n < inner.len && inner.p[n] != '"') {
		if (inner.p[n] == '\\' || inner.p[n] == '\r' || inner.p[n] == '\n')
			plain = false;
		n += inner.p[n] == '\\' && n + 1 < inner.len ? 2 : 1;
	}
	n = n < inner.len ? n : inner.len;
	*s = slice_drop(inner, n + 1);
	n = n < VALUE_MAX ? n : VALUE_MAX;
	inner = slice_head(inner, n);
	if (plain)
		return inner;
	copy = arena_alloc(arena, n + 1);
	for (size_t i = 0; copy != NULL && i < n; i++) {
		if (inner.p[i] == '\\' && i + 1 < n)
			i++;
		else if (inner.p[i] == '\r' || inner.p[i] == '\n')
			continue; /* a fold inside of quotes */
		copy[used++] = inner.p[i];
	}
	return (struct slice){ copy, used };
}

/* The word at the front of s, after its blanks, has the look of "name=": a semicolon was
 * forgotten. */
static bool
next_is_param(struct slice s)
{
	while (s.len > 0 && is_blank(s.p[0]))
		s = slice_drop(s, 1);
	for (size_t i = 0; i < s.len && !is_blank(s.p[i]) && s.p[i] != ';'; i++)
		if (s.p[i] == '=')
			return i > 0;
	return false;
}

/* Takes a value without quotes: up to a semicolon, with the blanks that should have been quoted. */
static struct slice
take_bare(struct slice *s)
{
	struct slice all = *s;
	size_t n = 0;

	while (n < all.len && all.p[n] != ';') {
		if (is_blank(all.p[n]) &&
		    (next_is_param(slice_drop(all, n)) || (n + 1 < all.len && all.p[n + 1] == '(')))
			break;
		n++;
		/* a run of blanks is looked at once */
		while (n < all.len && is_blank(all.p[n]) && is_blank(all.p[n - 1]))
			n++;
	}
	*s = slice_drop(all, n);
	return slice_head(slice_trim(slice_head(all, n)), VALUE_MAX);
}

/* Takes one parameter; false where there is none before the next semicolon. */
static bool
take_param(struct slice *s, struct arena *arena, struct mime_param *out)
{
	size_t n = 0;

	while (
	    n < s->len && s->p[n] != '=' && s->p[n] != ';' && s->p[n] != '(' && !is_blank(s->p[n]))
		n++;
	out->name = slice_head(*s, n);
	*s = slice_drop(*s, n);
	header_skip_cfws(s);
	if (s->len == 0 || s->p[0] != '=') {
		if (n == 0)
			*s = slice_drop(*s, 1);
		return false;
	}
	*s = slice_drop(*s, 1);
	header_skip_cfws(s);
	out->value = s->len > 0 && s->p[0] == '"' ? take_quoted(s, arena) : take_bare(s);
	return out->name.len > 0;
}

int
mime_value(struct slice field_body, struct arena *arena, struct slice *value,
    struct mime_param **params, size_t *n_params)
{
	struct mime_param found[MIME_PARAMS_MAX];
	size_t n = 0;

	*params = NULL;
	*n_params = 0;
	*value = take_value(&field_body, arena);
	if (value->p == NULL)
		return -1;
	while (field_body.len > 0 && n < MIME_PARAMS_MAX) {
		if (field_body.p[0] == ';' || is_blank(field_body.p[0])) {
			field_body = slice_drop(field_body, 1);
			continue;
		}
		header_skip_cfws(&field_body);
		if (field_body.len > 0 && take_param(&field_body, arena, &found[n]) &&
		    found[n++].value.p == NULL)
			return -1;
	}
	if (n == 0)
		return 0;
	*params = arena_alloc(arena, n * sizeof(**params));
	if (*params == NULL)
		return -1;
	memcpy(*params, found, n * sizeof(**params));
	*n_params = n;
	return 0;
}

/* ---- decoded ---- */

struct slice
mime_param_raw(const struct mime_param *params, size_t n, const char *name)
{
	for (size_t i = 0; i < n; i++)
		if (slice_ieq(params[i].name, slice_str(name)))
			return params[i].value;
	return SLICE("");
}

/* What follows name and "*" in the parameter's name is `section`, or `section` and "*": then it is
 * percent-encoded. */
static bool
is_section(const struct mime_param *p, struct slice name, struct slice section, bool *encoded)
{
	struct slice rest = slice_drop(p->name, name.len);

	if (!slice_istarts(p->name, name) || !slice_starts(rest, SLICE("*")))
		return false;
	rest = slice_drop(rest, 1);
	*encoded = slice_chop(&rest, "*") || section.len == 0;
	return slice_eq(rest, section);
}

static const struct mime_param *
find_section(const struct mime_param *params, size_t n, struct slice name, struct slice section,
    bool *encoded)
{
	for (size_t i = 0; i < n; i++)
		if (is_section(&params[i], name, section, encoded))
			return &params[i];
	return NULL;
}

static int
hex_value(char c)
{
	c = slice_lower(c);
	if (c >= '0' && c <= '9')
		return c - '0';
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static void
put_percent_decoded(struct slice s, struct buf *out)
{
	for (size_t i = 0; i < s.len; i++) {
		if (s.p[i] == '%' && s.len - i > 2 && hex_value(s.p[i + 1]) >= 0 &&
		    hex_value(s.p[i + 2]) >= 0) {
			buf_putc(out, (char)(hex_value(s.p[i + 1]) * 16 + hex_value(s.p[i + 2])));
			i += 2;
		} else {
			buf_putc(out, s.p[i]);
		}
	}
}

/* "charset'language'text" of the first section: the charset; *s becomes the text. */
static struct slice
take_charset(struct slice *s)
{
	struct slice charset = slice_until(*s, '\'');
	struct slice rest = slice_drop(*s, charset.len + 1), language = slice_until(rest, '\'');

	if (charset.len == s->len || language.len == rest.len)
		return SLICE("");
	*s = slice_drop(rest, language.len + 1);
	return charset;
}

/* RFC 2231 section 4.1: sections 0, 1, ... as far as they are there, joined. */
static bool
extended(const struct mime_param *params, size_t n, struct slice name, struct buf *out)
{
	char storage[VALUE_MAX], number[24] = "";
	struct buf bytes = buf_over(storage, sizeof(storage));
	struct slice charset = SLICE("");
	bool encoded, found = false;
	const struct mime_param *p = find_section(params, n, name, SLICE(""), &encoded);

	for (size_t i = 0; p != NULL || i == 0; i++) {
		struct buf digits = buf_over(number, sizeof(number));

		if (p == NULL || i > 0) {
			buf_printf(&digits, "%zu", i);
			p = find_section(params, n, name, buf_slice(&digits), &encoded);
		}
		if (p != NULL) {
			struct slice text = p->value;

			if (i == 0 && encoded)
				charset = take_charset(&text);
			if (encoded)
				put_percent_decoded(text, &bytes);
			else
				buf_put(&bytes, text);
			found = true;
		}
	}
	if (found)
		(void)charset_to_utf8(charset, buf_slice(&bytes), out); /* best there is */
	return found;
}

bool
mime_param(const struct mime_param *params, size_t n, const char *name, struct buf *out)
{
	if (extended(params, n, slice_str(name), out))
		return true;
	for (size_t i = 0; i < n; i++)
		if (slice_ieq(params[i].name, slice_str(name))) {
			encoded_word_decode(params[i].value, out);
			return true;
		}
	return false;
}

bool
mime_filename(const struct mime_part *part, struct buf *out)
{
	return mime_param(part->disposition_params, part->n_disposition_params, "filename", out) ||
	       mime_param(part->params, part->n_params, "name", out);
}

static void
decode_slice(enum mime_encoding encoding, struct slice body, struct buf *out)
{
	if (encoding == MIME_ENCODING_BASE64) {
		transfer_base64(body, out);
	} else if (encoding == MIME_ENCODING_QP) {
		transfer_qp(body, out);
	} else {
		size_t room = out->overflow ? 0 : out->max - out->len;

		buf_put(out, slice_head(body, room));
		out->overflow = out->overflow || body.len > room;
	}
}

void
mime_decode(const struct mime *mime, const struct mime_part *part, struct buf *out)
{
	decode_slice(part->encoding, mime_body(mime, part), out);
}

void
mime_text(const struct mime *mime, const struct mime_part *part, struct buf *out)
{
	struct slice body = mime_body(mime, part);
	struct slice charset = mime_param_raw(part->params, part->n_params, "charset");
	struct buf bytes;

	if (part->encoding != MIME_ENCODING_QP && part->encoding != MIME_ENCODING_BASE64) {
		(void)charset_to_utf8(charset, body, out); /* best there is */
		return;
	}
	bytes = buf_heap(body.len + 1); /* decoding never makes it longer */
	decode_slice(part->encoding, body, &bytes);
	(void)charset_to_utf8(charset, buf_slice(&bytes), out); /* best there is */
	buf_fini(&bytes);
}
