/* tests/unit/mail/header_test.c - fields, folds and where a header ends; RFC 2047 in their
 * bodies. */
#include "unit/unit.h"

#include "relayd/mail/encoded_word.h"
#include "relayd/mail/header.h"

static const struct {
	const char *in, *fields; /* name=unfolded body| */
	size_t length;
} headers[] = {
	{ "Subject: x\r\n\r\nbody", "Subject=x|", 14 },
	{ "Subject: x\n\nbody", "Subject=x|", 12 },
	{ "A: 1\r\nB: 2\r\n", "A=1|B=2|", 12 },
	{ "A: 1\r\n  more\r\n\tand more\r\nB:2\r\n\r\n", "A=1  more\tand more|B=2|", 32 },
	{ "A : 1\r\n\r\n", "A=1|", 9 },
	{ "A:\r\n 1\r\n\r\n", "A=1|", 10 },
	{ "A:\r\n\r\n", "A=|", 6 },
	{ "\r\nbody", "", 2 },
	{ "", "", 0 },
	{ "Hello World!\r\n", "", 0 },
	{ "A: 1\r\nno field here\r\nB: 2\r\n", "A=1|", 6 },
	{ "From me@x Mon Jan  1\nA: 1\n\nbody", "A=1|", 27 },
	{ ">From me@x Mon Jan  1\nA: 1\n\n", "A=1|", 28 },
	{ "From: x\n\n", "From=x|", 9 },
	{ " begins with a fold\r\nA: 1\r\n", "", 0 },
	{ "A: 1\r\n \r\n 2\r\n\r\n", "A=1  2|", 15 },
	{ "bad name: 1\r\n\r\n", "", 0 },
	{ ": 1\r\n\r\n", "", 0 },
	{ "\xc3\xa4: 1\r\n\r\n", "\xc3\xa4=1|", 9 },
	{ "A: 1", "A=1|", 4 },
};

START_TEST(fields_come_out_in_order_and_the_end_is_found)
{
	struct slice in = slice_str(headers[_i].in);
	struct header_iter it = header_iter_of(in);
	struct header_field field;
	char storage[500];
	struct buf out = buf_over(storage, sizeof(storage) - 1);

	while (header_next(&it, &field)) {
		buf_printf(&out, "%.*s=", SLICE_FMT(field.name));
		header_unfold(field.body, &out);
		buf_putc(&out, '|');
		ck_assert(field.raw.p >= in.p && field.raw.p + field.raw.len <= in.p + in.len);
	}
	out.p[out.len] = '\0';
	ck_assert_str_eq(out.p, headers[_i].fields);
	ck_assert_uint_eq(header_length(in), headers[_i].length);
}
END_TEST

START_TEST(the_nth_field_of_a_name_is_found)
{
	struct slice in = SLICE("Received: 1\r\nX: y\r\nRECEIVED: 2\r\n\r\nReceived: 3\r\n");
	struct header_field field;

	ck_assert(header_find(in, SLICE("received"), 0, &field));
	ck_assert(slice_eq(slice_trim(field.body), SLICE("1")));
	ck_assert(header_find(in, SLICE("received"), 1, &field));
	ck_assert(slice_eq(field.raw, SLICE("RECEIVED: 2\r\n")));
	ck_assert(!header_find(in, SLICE("received"), 2, &field));
}
END_TEST

START_TEST(an_unfolded_body_is_one_line)
{
	char storage[100];
	struct buf out = buf_over(storage, sizeof(storage));

	header_unfold(SLICE(" a\r\n b\rc\nd\n e\0f \r\n"), &out);
	ck_assert(slice_eq(buf_slice(&out), SLICE("a b c d e f")));
}
END_TEST

static const struct {
	const char *in, *out;
} words[] = {
	/* RFC 2047 section 8 */
	{ "=?ISO-8859-1?Q?a?=", "a" },
	{ "=?ISO-8859-1?Q?a?= b", "a b" },
	{ "=?ISO-8859-1?Q?a?= =?ISO-8859-1?Q?b?=", "ab" },
	{ "=?ISO-8859-1?Q?a?=  =?ISO-8859-1?Q?b?=", "ab" },
	{ "=?ISO-8859-1?Q?a_b?=", "a b" },
	{ "=?ISO-8859-1?Q?a?= =?ISO-8859-2?Q?_b?=", "a b" },
	{ "=?US-ASCII?Q?Keith_Moore?= <moore@cs.utk.edu>", "Keith Moore <moore@cs.utk.edu>" },
	{ "=?ISO-8859-1?Q?Andr=E9?= Pirard", "Andr\xc3\xa9 Pirard" },
	{ "=?ISO-8859-1?B?SWYgeW91IGNhbiByZWFkIHRoaXMgeW8=?= "
	  "=?ISO-8859-2?B?dSB1bmRlcnN0YW5kIHRoZSBleGFtcGxlLg==?=",
	    "If you can read this you understand the example." },
	{ "=?iso-8859-8?b?7eXs+SDv4SDp7Oj08A==?=",
	    "\xd7\x9d\xd7\x95\xd7\x9c\xd7\xa9 \xd7\x9f\xd7\x91 "
	    "\xd7\x99\xd7\x9c\xd7\x98\xd7\xa4\xd7\xa0" },
	/* RFC 2231 section 5 */
	{ "=?US-ASCII*EN?Q?Keith_Moore?=", "Keith Moore" },
	/* a character split between two words */
	{ "=?utf-8?b?w6Q=?= =?utf-8?q?=C3?= =?utf-8?q?=B6?=", "\xc3\xa4\xc3\xb6" },
	{ "=?gb2312?B?xOO6ww==?=", "\xe4\xbd\xa0\xe5\xa5\xbd" },
	{ "=?iso-2022-jp?B?GyRCRnxLXBsoQg==?=", "\xe6\x97\xa5\xe6\x9c\xac" },
	{ "=?koi8-r?B?8NLJ18XU?=", "\xd0\x9f\xd1\x80\xd0\xb8\xd0\xb2\xd0\xb5\xd1\x82" },
	{ "no words =? at ?= all", "no words =? at ?= all" },
	{ "=?utf-8?x?abc?=", "=?utf-8?x?abc?=" },
	{ "=?utf-8?q?unclosed", "=?utf-8?q?unclosed" },
	{ "=?utf-8?q?unclosed =?utf-8?q?again", "=?utf-8?q?unclosed =?utf-8?q?again" },
	{ "=?utf-8?q?\?=x", "x" },
	{ "a=?utf-8?q?b?=c", "abc" },
	{ "=?utf-8?q?=41?=", "A" },
	{ "=?utf-8?q?a=0D=0Ab=00c?=", "a  b c" },
	{ "=?no-such-charset?q?caf=C3=A9?=", "caf\xc3\xa9" },
	{ "=?no-such-charset?q?caf=E9?=", "caf\xc3\xa9" },
	{ "raw \xc3\xa4 and =?utf-8?q?=C3=B6?=", "raw \xc3\xa4 and \xc3\xb6" },
	{ "raw latin1 \xe4", "raw latin1 \xc3\xa4" },
	{ "=?utf-8?q?=FF?=", "\xef\xbf\xbd" },
	{ "=?utf-8?b?YQ?=", "a" },
};

START_TEST(encoded_words_become_utf8)
{
	char storage[500];
	struct buf out = buf_over(storage, sizeof(storage) - 1);

	encoded_word_decode(slice_str(words[_i].in), &out);
	out.p[out.len] = '\0';
	ck_assert_str_eq(out.p, words[_i].out);
}
END_TEST

START_TEST(a_long_field_is_decoded_whole)
{
	struct buf in = buf_heap(100000), out = buf_heap(100000);

	for (int i = 0; i < 1000; i++)
		buf_puts(&in, " =?utf-8?q?=C3=A4=C3=B6=C3=BC?=\r\n");
	header_decode(buf_slice(&in), &out);
	ck_assert_uint_eq(out.len, 6000);
	buf_fini(&in);
	buf_fini(&out);
}
END_TEST

UNIT_SUITE(mail_header)
{
	UNIT_ROWS(fields_come_out_in_order_and_the_end_is_found, headers);
	UNIT_TEST(the_nth_field_of_a_name_is_found);
	UNIT_TEST(an_unfolded_body_is_one_line);
	UNIT_ROWS(encoded_words_become_utf8, words);
	UNIT_TEST(a_long_field_is_decoded_whole);
}
