/* relayd/smtp/param.c - ESMTP parameters of MAIL and RCPT, and the text form of their bytes. */
#include "relayd/smtp/param.h"

#define KEYWORD_MAX 64

static bool
is_alnum(char c)
{
	return (c >= '0' && c <= '9') || (slice_lower(c) >= 'a' && slice_lower(c) <= 'z');
}

/* esmtp-keyword = (ALPHA / DIGIT) *(ALPHA / DIGIT / "-") */
static bool
is_keyword(struct slice s)
{
	if (s.len == 0 || s.len > KEYWORD_MAX || !is_alnum(s.p[0]))
		return false;
	for (size_t i = 1; i < s.len; i++)
		if (!is_alnum(s.p[i]) && s.p[i] != '-')
			return false;
	return true;
}

/* esmtp-value = 1*(%d33-60 / %d62-126), and UTF-8 (RFC 6531 section 3.3): whose it is checks
 * that */
static bool
is_value(struct slice s)
{
	for (size_t i = 0; i < s.len; i++)
		if ((unsigned char)s.p[i] <= ' ' || s.p[i] == 0x7f || s.p[i] == '=')
			return false;
	return s.len > 0;
}

enum smtp_param
smtp_param_next(struct slice *in, struct slice *name, struct slice *value)
{
	struct slice one;

	while (in->len > 0 && in->p[0] == ' ')
		*in = slice_drop(*in, 1);
	if (in->len == 0)
		return SMTP_PARAM_END;
	one = slice_until(*in, ' ');
	*in = slice_drop(*in, one.len);
	*name = slice_until(one, '=');
	*value = slice_drop(one, name->len + 1);
	if (!is_keyword(*name) || (name->len < one.len && !is_value(*value)))
		return SMTP_PARAM_BAD;
	return SMTP_PARAM_ONE;
}

void
smtp_xtext_put(struct buf *out, struct slice bytes)
{
	for (size_t i = 0; i < bytes.len; i++) {
		unsigned char c = (unsigned char)bytes.p[i];

		if (c > ' ' && c < 0x7f && c != '+' && c != '=')
			buf_putc(out, (char)c);
		else
			buf_printf(out, "+%02X", c);
	}
}

/* Upper case alone: RFC 3461 section 4 knows no other hex digits. */
static int
hex_of(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

bool
smtp_xtext_decode(struct slice text, struct buf *out)
{
	for (size_t i = 0; i < text.len; i++) {
		char c = text.p[i];
		int high, low;

		if (c <= ' ' || c >= 0x7f || c == '=') /* non-ASCII too: char is signed or not */
			return false;
		if (c != '+') {
			buf_putc(out, c);
			continue;
		}
		if (text.len - i < 3)
			return false;
		high = hex_of(text.p[i + 1]);
		low = hex_of(text.p[i + 2]);
		if (high < 0 || low < 0)
			return false;
		buf_putc(out, (char)(high << 4 | low));
		i += 2;
	}
	return !out->overflow;
}
