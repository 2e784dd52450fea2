/* relayd/mail/charset.c - text in any charset to UTF-8, by iconv.
 *
 * Only the charsets of a table reach iconv: mail chooses the name, and glibc's odder converters
 * have been remote holes more than once (CVE-2024-2961).
 */
#include "relayd/mail/charset.h"

#include <errno.h>
#include <iconv.h>

#define CHUNK       2048
#define REPLACEMENT "\xef\xbf\xbd" /* U+FFFD */
#define NO_ICONV    ((iconv_t)-1)

#define UTF8   "UTF-8"
#define LATIN1 "WINDOWS-1252"
#define ASCII  "US-ASCII"

/* Names as norm() makes them, and what iconv is asked for: where senders use the name of a subset
 * for what is a superset, that (ISO-8859-1 for windows-1252 and the like). */
static const struct {
	const char *name, *iconv;
} charsets[] = {
	{ "utf8", UTF8 },
	{ "unicode11utf8", UTF8 },
	{ "usascii", ASCII },
	{ "ascii", ASCII },
	{ "ansix3.41968", ASCII },
	{ "iso646us", ASCII },
	{ "iso88591", LATIN1 },
	{ "latin1", LATIN1 },
	{ "windows1252", LATIN1 },
	{ "cp1252", LATIN1 },
	{ "iso88592", "ISO-8859-2" },
	{ "latin2", "ISO-8859-2" },
	{ "iso88593", "ISO-8859-3" },
	{ "iso88594", "ISO-8859-4" },
	{ "iso88595", "ISO-8859-5" },
	{ "iso88596", "ISO-8859-6" },
	{ "iso88597", "ISO-8859-7" },
	{ "iso88598", "ISO-8859-8" },
	{ "iso88598i", "ISO-8859-8" },
	{ "iso88599", "WINDOWS-1254" },
	{ "iso885910", "ISO-8859-10" },
	{ "iso885911", "CP874" },
	{ "iso885913", "ISO-8859-13" },
	{ "iso885914", "ISO-8859-14" },
	{ "iso885915", "ISO-8859-15" },
	{ "latin9", "ISO-8859-15" },
	{ "iso885916", "ISO-8859-16" },
	{ "windows874", "CP874" },
	{ "tis620", "CP874" },
	{ "windows1250", "WINDOWS-1250" },
	{ "cp1250", "WINDOWS-1250" },
	{ "windows1251", "WINDOWS-1251" },
	{ "cp1251", "WINDOWS-1251" },
	{ "windows1253", "WINDOWS-1253" },
	{ "windows1254", "WINDOWS-1254" },
	{ "windows1255", "WINDOWS-1255" },
	{ "windows1256", "WINDOWS-1256" },
	{ "windows1257", "WINDOWS-1257" },
	{ "windows1258", "WINDOWS-1258" },
	{ "koi8r", "KOI8-R" },
	{ "koi8u", "KOI8-U" },
	{ "ibm437", "IBM437" },
	{ "cp437", "IBM437" },
	{ "ibm850", "IBM850" },
	{ "cp850", "IBM850" },
	{ "ibm852", "IBM852" },
	{ "cp852", "IBM852" },
	{ "ibm866", "IBM866" },
	{ "cp866", "IBM866" },
	{ "macintosh", "MACINTOSH" },
	{ "gb2312", "GB18030" },
	{ "gbk", "GB18030" },
	{ "cp936", "GB18030" },
	{ "gb18030", "GB18030" },
	{ "euccn", "GB18030" },
	{ "hzgb2312", "GB18030" },
	{ "big5", "BIG5" },
	{ "big5hkscs", "BIG5-HKSCS" },
	{ "euctw", "EUC-TW" },
	{ "euckr", "UHC" },
	{ "ksc56011987", "UHC" },
	{ "ksc5601", "UHC" },
	{ "cp949", "UHC" },
	{ "windows949", "UHC" },
	{ "iso2022kr", "ISO-2022-KR" },
	{ "eucjp", "EUC-JP" },
	{ "shiftjis", "CP932" },
	{ "xsjis", "CP932" },
	{ "sjis", "CP932" },
	{ "windows31j", "CP932" },
	{ "cp932", "CP932" },
	{ "iso2022jp", "ISO-2022-JP" },
	{ "utf7", "UTF-7" },
	{ "unicode11utf7", "UTF-7" },
	{ "utf16", "UTF-16" },
	{ "utf16le", "UTF-16LE" },
	{ "utf16be", "UTF-16BE" },
	{ "utf32", "UTF-32" },
	{ "utf32le", "UTF-32LE" },
	{ "utf32be", "UTF-32BE" },
};
#define CHARSETS (sizeof(charsets) / sizeof(charsets[0]))

static iconv_t held[CHARSETS]; /* each keeps its table loaded; never used to convert */
static bool is_open;

void
charset_open(void)
{
	for (size_t i = 0; !is_open && i < CHARSETS; i++)
		held[i] = iconv_open(UTF8, charsets[i].iconv); /* a missing one is unknown later */
	is_open = true;
}

void
charset_close(void)
{
	for (size_t i = 0; is_open && i < CHARSETS; i++)
		if (held[i] != NO_ICONV)
			(void)iconv_close(held[i]); /* nothing to lose */
	is_open = false;
}

/* Lower case, and only letters, digits and dots: "ISO_8859-1" and "iso8859-1" are one. */
static size_t
norm(struct slice name, char out[static CHARSET_NAME_MAX + 1])
{
	size_t n = 0;

	for (size_t i = 0; i < name.len; i++) {
		char c = slice_lower(name.p[i]);

		if (!((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '.'))
			continue;
		if (n == CHARSET_NAME_MAX)
			return 0;
		out[n++] = c;
	}
	out[n] = '\0';
	return n;
}

/* What iconv calls the charset, or NULL. */
static const char *
iconv_name(struct slice charset)
{
	char name[CHARSET_NAME_MAX + 1];

	if (norm(charset, name) == 0)
		return NULL;
	for (size_t i = 0; i < CHARSETS; i++)
		if (strcmp(name, charsets[i].name) == 0)
			return charsets[i].iconv;
	return NULL;
}

bool
charset_known(struct slice charset)
{
	return iconv_name(charset) != NULL;
}

static bool
is_continuation(char c)
{
	return ((unsigned char)c & 0xc0) == 0x80;
}

size_t
utf8_char(struct slice s)
{
	unsigned char a = s.len > 0 ? (unsigned char)s.p[0] : 0xff;
	unsigned char b = s.len > 1 ? (unsigned char)s.p[1] : 0;
	size_t n = a < 0x80 ? 1 : a < 0xc2 ? 0 : a < 0xe0 ? 2 : a < 0xf0 ? 3 : a < 0xf5 ? 4 : 0;

	if (n == 0 || n > s.len)
		return 0;
	for (size_t i = 1; i < n; i++)
		if (!is_continuation(s.p[i]))
			return 0;
	/* No overlong forms, no surrogates, nothing above U+10FFFF: RFC 3629 section 4. */
	if ((a == 0xe0 && b < 0xa0) || (a == 0xed && b > 0x9f) || (a == 0xf0 && b < 0x90) ||
	    (a == 0xf4 && b > 0x8f))
		return 0;
	return n;
}

/* Length of the ASCII at the front of s. */
static size_t
ascii_length(struct slice s)
{
	size_t n = 0;
	uint64_t eight;

	for (; s.len - n >= sizeof(eight); n += sizeof(eight)) {
		memcpy(&eight, s.p + n, sizeof(eight));
		if ((eight & 0x8080808080808080u) != 0)
			break;
	}
	while (n < s.len && (unsigned char)s.p[n] < 0x80)
		n++;
	return n;
}

/* Length of the valid UTF-8 at the front of s. */
static size_t
utf8_length(struct slice s)
{
	size_t n = 0;

	for (;;) {
		size_t len;

		n += ascii_length(slice_drop(s, n));
		len = utf8_char(slice_drop(s, n));
		if (len == 0)
			return n;
		n += len;
	}
}

bool
utf8_valid(struct slice s)
{
	return utf8_length(s) == s.len;
}

void
utf8_put(uint32_t code, struct buf *out)
{
	char c[4];

	if (code < 0x80) {
		buf_putc(out, (char)code);
	} else if (code < 0x800) {
		c[0] = (char)(0xc0 | code >> 6);
		c[1] = (char)(0x80 | (code & 0x3f));
		buf_put(out, slice_of(c, 2));
	} else if (code < 0x10000 && (code < 0xd800 || code > 0xdfff)) {
		c[0] = (char)(0xe0 | code >> 12);
		c[1] = (char)(0x80 | (code >> 6 & 0x3f));
		c[2] = (char)(0x80 | (code & 0x3f));
		buf_put(out, slice_of(c, 3));
	} else if (code >= 0x10000 && code < 0x110000) {
		c[0] = (char)(0xf0 | code >> 18);
		c[1] = (char)(0x80 | (code >> 12 & 0x3f));
		c[2] = (char)(0x80 | (code >> 6 & 0x3f));
		c[3] = (char)(0x80 | (code & 0x3f));
		buf_put(out, slice_of(c, 4));
	} else {
		buf_puts(out, REPLACEMENT);
	}
}

/* Appends valid UTF-8; what does not fit is cut between two characters. */
static void
put_utf8(struct slice s, struct buf *out)
{
	size_t room = out->max - out->len;

	if (out->overflow)
		return;
	if (s.len > room) {
		while (room > 0 && is_continuation(s.p[room]))
			room--;
		buf_put(out, slice_head(s, room));
		out->overflow = true;
		return;
	}
	buf_put(out, s);
}

static enum charset_result
from_utf8(struct slice in, struct buf *out)
{
	enum charset_result result = CHARSET_EXACT;

	while (in.len > 0 && !out->overflow) {
		size_t n = utf8_length(in);

		put_utf8(slice_head(in, n), out);
		in = slice_drop(in, n);
		if (in.len > 0) {
			put_utf8(SLICE(REPLACEMENT), out);
			in = slice_drop(in, 1);
			result = CHARSET_REPLACED;
		}
	}
	return result;
}

/* windows-1252, 0x80 to 0x9f; the five that it leaves out are C1 controls, as the web has it. */
static const uint16_t cp1252[32] = { 0x20ac, 0x81, 0x201a, 0x192, 0x201e, 0x2026, 0x2020, 0x2021,
	0x2c6, 0x2030, 0x160, 0x2039, 0x152, 0x8d, 0x17d, 0x8f, 0x90, 0x2018, 0x2019, 0x201c,
	0x201d, 0x2022, 0x2013, 0x2014, 0x2dc, 0x2122, 0x161, 0x203a, 0x153, 0x9d, 0x17e, 0x178 };

static void
from_latin1(struct slice in, struct buf *out)
{
	while (in.len > 0 && !out->overflow) {
		size_t n = ascii_length(in);
		unsigned char c;

		put_utf8(slice_head(in, n), out);
		in = slice_drop(in, n);
		if (in.len == 0)
			return;
		c = (unsigned char)in.p[0];
		utf8_put(c < 0xa0 ? cp1252[c - 0x80] : c, out);
		in = slice_drop(in, 1);
	}
}

/* Where nothing is known of octets above ASCII. */
static void
guess(struct slice in, struct buf *out)
{
	if (utf8_valid(in))
		put_utf8(in, out);
	else
		from_latin1(in, out);
}

static enum charset_result
by_iconv(iconv_t cd, struct slice in, struct buf *out)
{
	enum charset_result result = CHARSET_EXACT;
	char *from = (char *)(uintptr_t)in.p; /* iconv does not write there */
	size_t left = in.len;
	bool more = true;

	while (more && !out->overflow) {
		char chunk[CHUNK], *to = chunk;
		size_t room = sizeof(chunk), rc;
		int error;

		rc = left > 0 ? iconv(cd, &from, &left, &to, &room)
			      : iconv(cd, NULL, NULL, &to, &room);
		error = rc == (size_t)-1 ? errno : 0;
		more = left > 0;
		put_utf8(slice_of(chunk, (size_t)(to - chunk)), out);
		if (error == EILSEQ || error == EINVAL) {
			put_utf8(SLICE(REPLACEMENT), out);
			from++;
			left--;
			more = left > 0;
			result = CHARSET_REPLACED;
		}
	}
	return result;
}

enum charset_result
charset_to_utf8(struct slice charset, struct slice in, struct buf *out)
{
	const char *name = iconv_name(charset);
	enum charset_result result;
	iconv_t cd;

	if (name == NULL) {
		guess(in, out);
		return CHARSET_UNKNOWN;
	}
	if (strcmp(name, UTF8) == 0)
		return from_utf8(in, out);
	if (strcmp(name, LATIN1) == 0) {
		from_latin1(in, out);
		return CHARSET_EXACT;
	}
	if (strcmp(name, ASCII) == 0) {
		guess(in, out); /* ASCII has no such octets: who says it of them has said nothing */
		return CHARSET_EXACT;
	}
	cd = iconv_open(UTF8, name);
	if (cd == NO_ICONV) {
		guess(in, out);
		return CHARSET_UNKNOWN;
	}
	result = by_iconv(cd, in, out);
	(void)iconv_close(cd); /* nothing to lose */
	return result;
}

/* Lower case of the letters that have one at a regular distance. */
static uint32_t
fold_code(uint32_t c)
{
	if ((c >= 0xc0 && c <= 0xde && c != 0xd7) || (c >= 0x391 && c <= 0x3a9) ||
	    (c >= 0x410 && c <= 0x42f))
		return c + 0x20;
	if (c >= 0x400 && c <= 0x40f)
		return c + 0x50;
	if ((c >= 0x100 && c <= 0x137 && c != 0x130) || (c >= 0x14a && c <= 0x177) ||
	    (c >= 0x460 && c <= 0x481) || (c >= 0x1e00 && c <= 0x1eff))
		return c | 1;
	if ((c >= 0x139 && c <= 0x148) || (c >= 0x179 && c <= 0x17e))
		return c % 2 == 1 ? c + 1 : c;
	return c;
}

static uint32_t
code_of(const char *p, size_t n)
{
	uint32_t c = (unsigned char)p[0];

	c = n == 2 ? c & 0x1f : n == 3 ? c & 0x0f : n == 4 ? c & 0x07 : c;
	for (size_t i = 1; i < n; i++)
		c = c << 6 | ((unsigned char)p[i] & 0x3f);
	return c;
}

static void
put_lower(struct slice ascii, struct buf *out)
{
	char *at = ascii.len > 0 ? buf_room(out, ascii.len) : NULL;

	for (size_t i = 0; at != NULL && i < ascii.len; i++)
		at[i] = slice_lower(ascii.p[i]);
	buf_commit(out, at != NULL ? ascii.len : 0);
}

void
utf8_fold(struct slice s, struct buf *out)
{
	while (s.len > 0 && !out->overflow) {
		size_t n = ascii_length(s);

		put_lower(slice_head(s, n), out);
		s = slice_drop(s, n);
		n = utf8_char(s);
		if (n > 1)
			utf8_put(fold_code(code_of(s.p, n)), out);
		else if (s.len > 0)
			buf_putc(out, s.p[0]);
		s = slice_drop(s, n > 0 ? n : 1);
	}
}
