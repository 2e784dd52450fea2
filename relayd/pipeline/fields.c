/* relayd/pipeline/fields.c - header fields made here: folded, and of clean text whatever goes
 * in. */
#include "relayd/pipeline/fields.h"

#include "relayd/mail/charset.h"

#include <stdarg.h>
#include <stdio.h>

#define WORD_BYTES_MAX (FIELD_LINE_MUST - 100) /* behind any name of ours, or a blank */

struct field
pl_field_begin(struct buf *out, const char *name)
{
	buf_puts(out, name);
	buf_putc(out, ':');
	return (struct field){ .out = out, .column = strlen(name) + 1 };
}

/* The longest head of s up to max bytes that cuts no character. */
static struct slice
head_of(struct slice s, size_t max)
{
	struct slice head = slice_head(s, max);

	while (head.len < s.len && head.len > 0 && ((unsigned char)s.p[head.len] & 0xc0) == 0x80)
		head.len--;
	return head;
}

void
pl_field_word(struct field *f, struct slice word)
{
	char clean[WORD_BYTES_MAX];
	struct buf b = buf_over(clean, sizeof(clean));
	struct slice w;

	pl_field_clean(&b, head_of(slice_trim(word), sizeof(clean)));
	w = slice_trim(buf_slice(&b));
	if (w.len == 0)
		return; /* a line of blanks alone is obsolete (RFC 5322 section 4.2) */
	if (f->begun && f->column + 1 + w.len > FIELD_LINE_SHOULD) {
		buf_puts(f->out, "\r\n");
		f->column = 0;
	}
	buf_putc(f->out, ' ');
	buf_put(f->out, w);
	f->column += 1 + w.len;
	f->begun = true;
}

void
pl_field_wordf(struct field *f, const char *fmt, ...)
{
	char word[WORD_BYTES_MAX];
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(word, sizeof(word), fmt, ap); /* cut short is good enough */
	va_end(ap);
	pl_field_word(f, slice_str(word));
}

void
pl_field_end(struct field *f)
{
	/* A body of nothing is odd: never without a word. */
	if (!f->begun)
		pl_field_word(f, SLICE("none"));
	buf_puts(f->out, "\r\n");
}

void
pl_field_put(struct buf *out, const char *name, struct slice word)
{
	struct field f = pl_field_begin(out, name);

	pl_field_word(&f, word);
	pl_field_end(&f);
}

/* Octets at the front that may stay: printable ASCII. */
static size_t
plain_run(struct slice text)
{
	size_t n = 0;

	while (n < text.len && text.p[n] >= ' ' && text.p[n] < 0x7f)
		n++;
	return n;
}

void
pl_field_clean(struct buf *out, struct slice text)
{
	for (;;) {
		size_t n = plain_run(text);

		buf_put(out, slice_head(text, n));
		text = slice_drop(text, n);
		if (text.len == 0)
			return;
		n = (unsigned char)text.p[0] >= 0x80 ? utf8_char(text) : 0;
		if (n > 0)
			buf_put(out, slice_head(text, n));
		else
			buf_putc(out, '?');
		text = slice_drop(text, n > 0 ? n : 1);
	}
}

static bool
is_alnum(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

void
pl_field_token(struct buf *out, struct slice text)
{
	for (size_t i = 0; i < text.len; i++)
		buf_putc(
		    out, is_alnum(text.p[i]) || (text.p[i] != '\0' && strchr("_-.:", text.p[i]))
			     ? text.p[i]
			     : '_');
}

/* A token (RFC 2045 section 5.1), or an address, whose local part may hold a few more characters
 * (RFC 5322 section 3.2.3); bytes of UTF-8 pass (RFC 8601 section 5). */
static bool
is_plain(struct slice text)
{
	const char *barred = slice_has(text, '@') ? "()<>,;:\\\"[]" : "()<>,;:\\\"[]/?=";

	for (size_t i = 0; i < text.len; i++) {
		unsigned char c = (unsigned char)text.p[i];

		if (c <= ' ' || c == 0x7f || strchr(barred, c) != NULL)
			return false;
	}
	return text.len > 0;
}

void
pl_field_value(struct buf *out, struct slice text)
{
	if (is_plain(text)) {
		pl_field_clean(out, text);
		return;
	}
	buf_putc(out, '"');
	for (size_t i = 0; i < text.len; i++) {
		if (text.p[i] == '"' || text.p[i] == '\\')
			buf_putc(out, '\\');
		buf_putc(out,
		    text.p[i] == '\r' || text.p[i] == '\n' || text.p[i] == '\0' ? '?' : text.p[i]);
	}
	buf_putc(out, '"');
}

void
pl_field_reply(struct buf *out, struct slice text)
{
	for (size_t i = 0; i < text.len; i++)
		buf_putc(out, text.p[i] >= ' ' && text.p[i] < 0x7f ? text.p[i] : '?');
}
