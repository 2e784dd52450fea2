/* relayd/mail/transfer.c - base64 and quoted-printable (RFC 2045 sections 6.7 and 6.8, RFC
 * 4648). */
#include "relayd/mail/transfer.h"

#define NO_VALUE 0xff
#define CHUNK    1536

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

static uint8_t
base64_value(char c)
{
	if (c >= 'A' && c <= 'Z')
		return (uint8_t)(c - 'A');
	if (c >= 'a' && c <= 'z')
		return (uint8_t)(c - 'a' + 26);
	if (c >= '0' && c <= '9')
		return (uint8_t)(c - '0' + 52);
	return c == '+' ? 62 : c == '/' ? 63 : NO_VALUE;
}

/* Appends what fits of s, between two octets. */
static bool
put_some(struct buf *out, struct slice s)
{
	if (!out->overflow && s.len > out->max - out->len) {
		buf_put(out, slice_head(s, out->max - out->len));
		out->overflow = true;
	}
	buf_put(out, s);
	return !out->overflow;
}

void
transfer_base64(struct slice in, struct buf *out)
{
	char chunk[CHUNK];
	size_t used = 0;
	uint32_t bits = 0;
	unsigned n = 0; /* characters of the quantum so far */

	for (size_t i = 0; i < in.len; i++) {
		uint8_t v = base64_value(in.p[i]);

		if (v == NO_VALUE && in.p[i] != '=')
			continue;
		if (v != NO_VALUE) {
			bits = bits << 6 | v;
			if (++n < 2)
				continue;
			chunk[used++] = (char)(bits >> (n == 2 ? 4 : n == 3 ? 2 : 0));
		}
		if (n == 4 || v == NO_VALUE)
			n = 0;
		if (used == CHUNK) {
			if (!put_some(out, slice_of(chunk, used)))
				return;
			used = 0;
		}
	}
	(void)put_some(out, slice_of(chunk, used)); /* out->overflow says it */
}

bool
transfer_base64_strict(struct slice in, struct buf *out)
{
	size_t pad = slice_ends(in, SLICE("==")) ? 2 : slice_ends(in, SLICE("=")) ? 1 : 0;
	uint8_t last;

	if (in.len % 4 != 0)
		return false;
	for (size_t i = 0; i < in.len - pad; i++)
		if (base64_value(in.p[i]) == NO_VALUE)
			return false;
	if (pad > 0) { /* the bits that are left over are zero: RFC 4648 section 3.5 */
		last = base64_value(in.p[in.len - pad - 1]);
		if ((last & (pad == 2 ? 0x0f : 0x03)) != 0)
			return false;
	}
	if (out->overflow || in.len / 4 * 3 - pad > out->max - out->len)
		return false;
	transfer_base64(in, out);
	return !out->overflow;
}

void
transfer_base64_encode(struct slice in, size_t line_len, struct buf *out)
{
	size_t column = 0;

	for (size_t i = 0; i < in.len; i += 3) {
		size_t n = in.len - i < 3 ? in.len - i : 3;
		uint32_t bits = (uint32_t)(unsigned char)in.p[i] << 16;
		char quad[4];

		if (n > 1)
			bits |= (uint32_t)(unsigned char)in.p[i + 1] << 8;
		if (n > 2)
			bits |= (unsigned char)in.p[i + 2];
		for (unsigned k = 0; k < 4; k++)
			quad[k] = k <= n ? alphabet[bits >> (18 - 6 * k) & 63] : '=';
		buf_put(out, slice_of(quad, 4));
		column += 4;
		if (line_len > 0 && (column >= line_len || i + 3 >= in.len)) {
			buf_puts(out, "\r\n");
			column = 0;
		}
	}
}

static int
hex_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The octet that "=XX" at the front of s stands for, or -1. */
static int
hex_octet(struct slice s)
{
	int high = s.len > 2 ? hex_value(s.p[1]) : -1;
	int low = s.len > 2 ? hex_value(s.p[2]) : -1;

	return high >= 0 && low >= 0 ? high * 16 + low : -1;
}

/* Appends one line without its line end; true where "=" at its end joins it with the next one. */
static bool
qp_line(struct slice line, struct buf *out)
{
	while (line.len > 0 && (line.p[line.len - 1] == ' ' || line.p[line.len - 1] == '\t'))
		line.len--;
	while (line.len > 0) {
		size_t plain = slice_until(line, '=').len;
		int octet;

		(void)put_some(out, slice_head(line, plain)); /* out->overflow says it */
		line = slice_drop(line, plain);
		if (line.len == 1)
			return true;
		octet = hex_octet(line);
		if (octet >= 0)
			buf_putc(out, (char)octet);
		else if (line.len > 0)
			buf_putc(out, '=');
		line = slice_drop(line, octet >= 0 ? 3 : 1);
	}
	return false;
}

void
transfer_qp(struct slice in, struct buf *out)
{
	while (in.len > 0 && !out->overflow) {
		struct slice line = slice_until(in, '\n'), end = SLICE("");
		bool soft;

		in = slice_drop(in, line.len);
		if (in.len > 0)
			end = slice_chop(&line, "\r") ? SLICE("\r\n") : SLICE("\n");
		in = slice_drop(in, 1);
		soft = qp_line(line, out);
		if (!soft)
			buf_put(out, end);
	}
}

void
transfer_q(struct slice in, struct buf *out)
{
	for (size_t i = 0; i < in.len && !out->overflow; i++) {
		int octet = in.p[i] == '=' ? hex_octet(slice_drop(in, i)) : -1;

		if (octet >= 0) {
			buf_putc(out, (char)octet);
			i += 2;
		} else {
			buf_putc(out, in.p[i] == '_' ? ' ' : in.p[i]);
		}
	}
}
