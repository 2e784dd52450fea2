/* tests/unit/mail/text_test.c - transfer encodings, charsets, dates and visible text. */
#include "unit/unit.h"

#include "relayd/mail/charset.h"
#include "relayd/mail/date.h"
#include "relayd/mail/text.h"
#include "relayd/mail/transfer.h"

#include <stdlib.h>

static const struct {
	const char *in, *out;
	bool strict;
} base64s[] = {
	/* RFC 4648 section 10 */
	{ "", "", true },
	{ "Zg==", "f", true },
	{ "Zm8=", "fo", true },
	{ "Zm9v", "foo", true },
	{ "Zm9vYg==", "foob", true },
	{ "Zm9vYmE=", "fooba", true },
	{ "Zm9vYmFy", "foobar", true },
	{ "Zm9v\r\nYmFy", "foobar", false },
	{ "Zg", "f", false },
	{ "Zm8", "fo", false },
	{ "Zh==", "f", false },      /* bits left over */
	{ "Zg==Zg==", "ff", false }, /* two streams, one after the other */
	{ "Z*g=!=", "f", false },
	{ "Z", "", false },
	{ "====", "", false },
	{ "Zm9v=", "foo", false },
};

START_TEST(base64_is_decoded_tolerantly_and_strictly)
{
	char storage[100], other[100];
	struct buf out = buf_over(storage, sizeof(storage)),
		   strict = buf_over(other, sizeof(other));

	transfer_base64(slice_str(base64s[_i].in), &out);
	ck_assert(slice_eq(buf_slice(&out), slice_str(base64s[_i].out)));
	ck_assert_int_eq(
	    transfer_base64_strict(slice_str(base64s[_i].in), &strict), base64s[_i].strict);
	ck_assert_uint_eq(strict.len, base64s[_i].strict ? out.len : 0);
	if (base64s[_i].strict) {
		buf_reset(&strict);
		transfer_base64_encode(buf_slice(&out), 0, &strict);
		ck_assert(slice_eq(buf_slice(&strict), slice_str(base64s[_i].in)));
	}
}
END_TEST

START_TEST(base64_lines_have_their_length)
{
	char in[60] = { 0 }, storage[200];
	struct buf out = buf_over(storage, sizeof(storage));

	transfer_base64_encode(slice_of(in, 60), 76, &out);
	ck_assert_uint_eq(out.len, 84);
	ck_assert(slice_eq(slice_head(slice_drop(buf_slice(&out), 76), 2), SLICE("\r\n")));
	ck_assert(slice_ends(buf_slice(&out), SLICE("AAAA\r\n")));
}
END_TEST

static const struct {
	const char *in, *out;
} qps[] = {
	/* RFC 2045 section 6.7 */
	{ "Now's the time =\r\nfor all folk to come=\r\n to the aid of their country.",
	    "Now's the time for all folk to come to the aid of their country." },
	{ "a=3Db", "a=b" },
	{ "caf=e9", "caf\xe9" },
	{ "blank at end  \r\nnext", "blank at end\r\nnext" },
	{ "soft with blank = \r\njoined", "soft with blank joined" },
	{ "a=\njoined", "ajoined" },
	{ "bad =XY code =4", "bad =XY code =4" },
	{ "ends with =", "ends with " },
	{ "==41", "=A" },
	{ "a\nb\n", "a\nb\n" },
	{ "", "" },
};

START_TEST(quoted_printable_is_decoded)
{
	char storage[200];
	struct buf out = buf_over(storage, sizeof(storage));

	transfer_qp(slice_str(qps[_i].in), &out);
	ck_assert(slice_eq(buf_slice(&out), slice_str(qps[_i].out)));
}
END_TEST

START_TEST(decoders_stop_when_the_buffer_is_full)
{
	for (size_t cap = 0; cap < 12; cap++) {
		char storage[12];
		struct buf out = buf_over(storage, cap);

		transfer_base64(SLICE("aGVsbG8gd29ybGQ="), &out); /* 11 octets */
		ck_assert_uint_eq(out.len, cap < 11 ? cap : 11);
		ck_assert_int_eq(out.overflow, cap < 11);
		ck_assert(slice_eq(buf_slice(&out), slice_head(SLICE("hello world"), cap)));
		out = buf_over(storage, cap);
		transfer_qp(SLICE("hello=20world"), &out);
		ck_assert_int_eq(out.overflow, cap < 11);
		ck_assert(slice_starts(SLICE("hello world"), buf_slice(&out)));
	}
}
END_TEST

static const struct {
	const char *charset;
	struct slice in;
	const char *out;
	enum charset_result result;
} texts[] = {
	{ "utf-8", { "\xc3\xa4", 2 }, "\xc3\xa4", CHARSET_EXACT },
	{ "UTF8",
	    { "a\xff"
	      "b",
		3 },
	    "a\xef\xbf\xbd"
	    "b",
	    CHARSET_REPLACED },
	{ "utf-8", { "\xe2\x82", 2 }, "\xef\xbf\xbd\xef\xbf\xbd", CHARSET_REPLACED },
	{ "utf-8", { "\xc0\xaf", 2 }, "\xef\xbf\xbd\xef\xbf\xbd", CHARSET_REPLACED },
	{ "iso-8859-1", { "\xe4\x80", 2 }, "\xc3\xa4\xe2\x82\xac", CHARSET_EXACT },
	{ "us-ascii", { "\xc3\xa4", 2 }, "\xc3\xa4", CHARSET_EXACT },
	{ "ANSI_X3.4-1968", { "\xe4\x80", 2 }, "\xc3\xa4\xe2\x82\xac", CHARSET_EXACT },
	{ "windows-1252", { "\x93q\x94", 3 }, "\xe2\x80\x9cq\xe2\x80\x9d", CHARSET_EXACT },
	{ "ISO_8859-15", { "\xa4", 1 }, "\xe2\x82\xac", CHARSET_EXACT },
	{ "windows-1251", { "\xcf", 1 }, "\xd0\x9f", CHARSET_EXACT },
	{ "Shift_JIS", { "\x93\xfa\x96\x7b", 4 }, "\xe6\x97\xa5\xe6\x9c\xac", CHARSET_EXACT },
	{ "utf-16be", { "\0A\0B", 4 }, "AB", CHARSET_EXACT },
	{ "utf-16le", { "A\0B", 3 }, "A\xef\xbf\xbd", CHARSET_REPLACED },
	{ "utf-7", { "Hi Mom +Jjo-!", 13 }, "Hi Mom \xe2\x98\xba!", CHARSET_EXACT },
	{ "euc-kr", { "\xb0\xa1\xff", 3 }, "\xea\xb0\x80\xef\xbf\xbd", CHARSET_REPLACED },
	{ "", { "\xc3\xa4", 2 }, "\xc3\xa4", CHARSET_UNKNOWN },
	{ "x-unknown", { "\xe4", 1 }, "\xc3\xa4", CHARSET_UNKNOWN },
	{ "utf-8//TRANSLIT", { "\xe4", 1 }, "\xc3\xa4", CHARSET_UNKNOWN },
	{ "../../tmp/x", { "a", 1 }, "a", CHARSET_UNKNOWN },
	{ "ISO-2022-CN-EXT", { "a", 1 }, "a", CHARSET_UNKNOWN },
};

START_TEST(any_charset_becomes_valid_utf8)
{
	char storage[100];
	struct buf out = buf_over(storage, sizeof(storage) - 1);

	charset_open();
	ck_assert_int_eq(
	    charset_to_utf8(slice_str(texts[_i].charset), texts[_i].in, &out), texts[_i].result);
	out.p[out.len] = '\0';
	ck_assert_str_eq(out.p, texts[_i].out);
	ck_assert(utf8_valid(buf_slice(&out)));
	charset_close();
}
END_TEST

START_TEST(text_is_cut_between_characters)
{
	for (size_t cap = 0; cap < 7; cap++) {
		char storage[8];
		struct buf out = buf_over(storage, cap);

		(void)charset_to_utf8(SLICE("utf-8"), SLICE("\xe2\x82\xac\xe2\x82\xac"), &out);
		ck_assert_uint_eq(out.len, cap / 3 * 3);
		ck_assert_int_eq(out.overflow, cap < 6);
	}
}
END_TEST

START_TEST(case_folds_beyond_ascii)
{
	char storage[100];
	struct buf out = buf_over(storage, sizeof(storage));

	utf8_fold(SLICE("AbC \xc3\x84\xc3\x97 \xd0\x9f\xd0\x81 \xce\xa9 \xc5\xa0 \xff"), &out);
	ck_assert(slice_eq(buf_slice(&out),
	    SLICE("abc \xc3\xa4\xc3\x97 \xd0\xbf\xd1\x91 \xcf\x89 \xc5\xa1 \xff")));
}
END_TEST

static const struct {
	const char *in;
	bool valid;
	int64_t unix_s;
	int zone_min;
	const char *out; /* date_format(), or NULL */
} dates[] = {
	/* RFC 5322 appendix A */
	{ "Fri, 21 Nov 1997 09:55:06 -0600", true, 880127706, -360,
	    "Fri, 21 Nov 1997 09:55:06 -0600" },
	{ "Tue, 1 Jul 2003 10:52:37 +0200", true, 1057049557, 120,
	    "Tue, 1 Jul 2003 10:52:37 +0200" },
	{ "Thu,\r\n      13\r\n        Feb\r\n          1969\r\n      23:32\r\n               "
	  "-0330 (Newfoundland Time)",
	    true, -27723480, -210, "Thu, 13 Feb 1969 23:32:00 -0330" },
	{ "21 Nov 97 09:55:06 GMT", true, 880106106, 0, "Fri, 21 Nov 1997 09:55:06 +0000" },
	{ "Fri, 21 Nov 1997 09(comment):   55  :  06 -0600", true, 880127706, -360, NULL },
	{ "1 Jan 1970 00:00:00 +0000", true, 0, 0, "Thu, 1 Jan 1970 00:00:00 +0000" },
	{ "29 Feb 2024 12:00 Z", true, 1709208000, 0, NULL },
	{ "29 Feb 2000 12:00 EST", true, 951843600, -300, "Tue, 29 Feb 2000 12:00:00 -0500" },
	{ "Mon, 05-Jan-26 00:00:00 PST", true, 1767600000, -480, NULL },
	{ "5 January 2026 00:00", true, 1767571200, 0, NULL },
	{ "1 Jan 103 00:00 UT", true, 1041379200, 0, NULL },
	{ "31 Dec 1998 23:59:60 +0000", true, 915148799, 0, NULL },
	{ "31 Dec 9999 23:59:59 +0000", true, 253402300799, 0, "Fri, 31 Dec 9999 23:59:59 +0000" },
	{ "29 Feb 2023 12:00 Z", false, 0, 0, NULL },
	{ "31 Apr 2023 12:00 Z", false, 0, 0, NULL },
	{ "0 Jan 2023 12:00 Z", false, 0, 0, NULL },
	{ "1 Foo 2023 12:00 Z", false, 0, 0, NULL },
	{ "1 Jan 2023 24:00 Z", false, 0, 0, NULL },
	{ "1 Jan 2023 12:60 Z", false, 0, 0, NULL },
	{ "1 Jan 2023 12:00 +99", false, 0, 0, NULL },
	{ "1 Jan 1899 12:00 Z", false, 0, 0, NULL },
	{ "1 Jan 99999 12:00 Z", false, 0, 0, NULL },
	{ "yesterday", false, 0, 0, NULL },
	{ "", false, 0, 0, NULL },
	{ "((((", false, 0, 0, NULL },
};

START_TEST(a_date_is_read_and_written)
{
	struct date d = { 0, 0 };
	char text[DATE_BYTES];

	ck_assert_int_eq(date_parse(slice_str(dates[_i].in), &d), dates[_i].valid);
	if (!dates[_i].valid)
		return;
	ck_assert_int_eq(d.unix_s, dates[_i].unix_s);
	ck_assert_int_eq(d.zone_min, dates[_i].zone_min);
	date_format(d, text);
	if (dates[_i].out != NULL)
		ck_assert_str_eq(text, dates[_i].out);
	ck_assert(date_parse(slice_str(text), &d));
	ck_assert_int_eq(d.unix_s, dates[_i].unix_s);
}
END_TEST

START_TEST(imap_dates_have_their_own_form)
{
	char text[DATE_BYTES];
	int64_t day;

	date_format_imap((struct date){ 837596665, -420 }, text);
	ck_assert_str_eq(text, "17-Jul-1996 02:44:25 -0700");
	date_format_imap((struct date){ 0, 0 }, text);
	ck_assert_str_eq(text, " 1-Jan-1970 00:00:00 +0000");
	ck_assert(date_parse_imap_day(SLICE("1-Feb-1994"), &day));
	ck_assert_int_eq(day, 8797);
	ck_assert(date_parse_imap_day(SLICE("01-feb-1994"), &day));
	ck_assert(!date_parse_imap_day(SLICE("1 Feb 1994"), &day));
	ck_assert(!date_parse_imap_day(SLICE("1-Feb-1994 x"), &day));
	ck_assert(!date_parse_imap_day(SLICE("30-Feb-1994"), &day));
	ck_assert_int_eq(date_day((struct date){ 86400, -60 }), 0);
	ck_assert_int_eq(date_day((struct date){ -1, 0 }), -1);
	ck_assert_int_eq(date_day((struct date){ 86399, 60 }), 1);
}
END_TEST

static const struct {
	const char *html, *text;
} pages[] = {
	{ "<p>Hello <b>World</b></p><p>Two</p>", "Hello World\n\nTwo\n" },
	{ "a<div>b<p>c</div>d<hr><br>e", "a\nb\n\nc\nd\n\ne\n" },
	{ "a<br>b<BR/>c", "a\nb\nc\n" },
	{ "one   two\r\n\tthree", "one two three\n" },
	{ "<head><title>T</title><style>x{}</style></head><body>B</body>", "B\n" },
	{ "a<script>if (a < b) alert('</b>')</script>b", "ab\n" },
	{ "a<!-- hidden > text -->b", "ab\n" },
	{ "a<!-- never closed <b>x</b>", "a never closed x\n" },
	/* what browsers take for the end of a comment, or for one that ends with its first ">" */
	{ "a<!-- x --!>shown<!-- y -->b", "ashownb\n" },
	{ "a<!>b<!-->c<!--->d<!--->e-->f", "abcde-->f\n" },
	{ "a<!x=\">shown<!y=\">b", "ashownb\n" },
	{ "a<?x=\">shown<?y=\">b", "ashownb\n" },
	{ "a</ x=\">shown</ y=\">b</>c", "ashownbc\n" },
	{ "a <3 b>c</5>d <$9>", "a <3 b>cd <$9>\n" },
	{ "V<span></span>ia<b>g</b>ra", "Viagra\n" },
	{ "V&shy;i&#8203;a&#x200B;gra V\xc2\xadi\xe2\x80\x8b"
	  "a",
	    "Viagra Via\n" },
	{ "&lt;tag&gt; &amp; &quot;q&quot; &#65;&#x42; &euro;", "<tag> & \"q\" AB \xe2\x82\xac\n" },
	{ "&nosuch; & &#; &#xZ; &#0;", "&nosuch; & &#; &#xZ; \xef\xbf\xbd\n" },
	{ "a&nbsp;b\xc2\xa0"
	  "c",
	    "a b c\n" },
	{ "a < b and c > d", "a < b and c > d\n" },
	{ "<a href=\"x>y\">link</a>", "link\n" },
	{ "<a href=\"never closed>text</a> more", "text more\n" },
	{ "<td>1</td><td>2</td>", "1 2\n" },
	{ "trailing <", "trailing <\n" },
	{ "<!DOCTYPE html><html>x</html>", "x\n" },
	{ "", "" },
	{ "   ", "" },
};

START_TEST(html_becomes_what_a_reader_sees)
{
	char storage[500];
	struct buf out = buf_over(storage, sizeof(storage) - 1);

	text_of_html(slice_str(pages[_i].html), &out);
	out.p[out.len] = '\0';
	ck_assert_str_eq(out.p, pages[_i].text);
}
END_TEST

/* What a quadratic parser would take minutes for; the time limit of the test would end it. */
static const char *const repeated[] = { "<!--", "<a b='", "<a b=\">", "<", "&", "<title>", "</",
	"&#1", "<a ='>'", "=\"", "<script", "\xc2", "<!x", "</ ", "<!-- --!", "<!----" };

START_TEST(hostile_html_takes_linear_time)
{
	struct buf in = buf_heap(4 << 20), out = buf_heap(32 << 20);

	while (in.len < (2 << 20))
		buf_puts(&in, repeated[_i]);
	text_of_html(buf_slice(&in), &out);
	ck_assert(!out.overflow);
	buf_fini(&in);
	buf_fini(&out);
}
END_TEST

UNIT_SUITE(mail_text)
{
	UNIT_ROWS(base64_is_decoded_tolerantly_and_strictly, base64s);
	UNIT_TEST(base64_lines_have_their_length);
	UNIT_ROWS(quoted_printable_is_decoded, qps);
	UNIT_TEST(decoders_stop_when_the_buffer_is_full);
	UNIT_ROWS(any_charset_becomes_valid_utf8, texts);
	UNIT_TEST(text_is_cut_between_characters);
	UNIT_TEST(case_folds_beyond_ascii);
	UNIT_ROWS(a_date_is_read_and_written, dates);
	UNIT_TEST(imap_dates_have_their_own_form);
	UNIT_ROWS(html_becomes_what_a_reader_sees, pages);
	UNIT_ROWS(hostile_html_takes_linear_time, repeated);
}
