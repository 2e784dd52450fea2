/* tests/unit/smtp/reply_test.c - replies, parameters and xtext. */
#include "unit/unit.h"

#include "relayd/smtp/param.h"
#include "relayd/smtp/reply.h"

START_TEST(a_reply_cannot_be_broken_by_what_it_repeats)
{
	char storage[600];
	struct buf out = buf_over(storage, sizeof(storage));
	struct smtp_answer answer = {
		.code = 550, .enhanced = "5.1.1", .text = SLICE("<a\r\n250 Ok\0\xff> is nobody")
	};

	smtp_reply_put(&out, &answer, SLICE("abc"));
	ck_assert(
	    slice_eq(buf_slice(&out), SLICE("550 5.1.1 <a?\?250 Ok?\?> is nobody [id abc]\r\n")));
}
END_TEST

START_TEST(a_long_reply_is_cut_and_still_names_its_id)
{
	char storage[600], text[700];
	struct buf out = buf_over(storage, sizeof(storage));

	memset(text, 'x', sizeof(text));
	smtp_reply_put(&out,
	    &(struct smtp_answer){
		.code = 451, .enhanced = "4.3.0", .text = slice_of(text, sizeof(text)) },
	    SLICE("abc"));
	ck_assert_uint_eq(out.len, SMTP_REPLY_LINE_MAX);
	ck_assert(slice_ends(buf_slice(&out), SLICE("xx [id abc]\r\n")));
	buf_reset(&out);
	smtp_reply_line(&out, 250, true, slice_of(text, sizeof(text)));
	ck_assert_uint_eq(out.len, SMTP_REPLY_LINE_MAX);
	buf_reset(&out);
	smtp_reply_put(&out,
	    &(struct smtp_answer){ .code = 334, .enhanced = NULL, .text = SLICE("") }, SLICE(""));
	ck_assert(slice_eq(buf_slice(&out), SLICE("334 \r\n")));
}
END_TEST

static const struct {
	const char *in, *out;
} params[] = {
	{ " SIZE=10 BODY=8BITMIME", "SIZE=10;BODY=8BITMIME;end" },
	{ "  a  B-2=x ", "a=;B-2=x;end" },
	{ "", "end" },
	{ " =x", "bad" },
	{ " -a=x", "bad" },
	{ " a= b", "bad" },
	{ " a=b=c", "bad" },
	{ " a=\x01", "bad" },
	{ " a.b", "bad" },
};

START_TEST(parameters_come_one_by_one)
{
	struct slice in = slice_str(params[_i].in), name, value;
	char storage[200];
	struct buf out = buf_over(storage, sizeof(storage) - 1);
	enum smtp_param got;

	while ((got = smtp_param_next(&in, &name, &value)) == SMTP_PARAM_ONE)
		buf_printf(&out, "%.*s=%.*s;", SLICE_FMT(name), SLICE_FMT(value));
	buf_puts(&out, got == SMTP_PARAM_END ? "end" : "bad");
	ck_assert(slice_eq(buf_slice(&out), slice_str(params[_i].out)));
}
END_TEST

START_TEST(xtext_there_and_back)
{
	char all[256], storage[1000], back[256];
	struct buf text = buf_over(storage, sizeof(storage)), bytes = buf_over(back, sizeof(back));

	for (int i = 0; i < 256; i++)
		all[i] = (char)i;
	smtp_xtext_put(&text, slice_of(all, sizeof(all)));
	ck_assert(smtp_xtext_decode(buf_slice(&text), &bytes));
	ck_assert(slice_eq(buf_slice(&bytes), slice_of(all, sizeof(all))));
	bytes = buf_over(back, sizeof(back) - 1);
	ck_assert(!smtp_xtext_decode(buf_slice(&text), &bytes));
}
END_TEST

static const char *const no_xtext[] = { "+", "+4", "+4g", "+4a", "a=b", "a b", "\xe9" };

START_TEST(what_is_no_xtext_is_refused)
{
	char back[100];
	struct buf bytes = buf_over(back, sizeof(back));

	ck_assert(!smtp_xtext_decode(slice_str(no_xtext[_i]), &bytes));
}
END_TEST

UNIT_SUITE(smtp_reply)
{
	UNIT_TEST(a_reply_cannot_be_broken_by_what_it_repeats);
	UNIT_TEST(a_long_reply_is_cut_and_still_names_its_id);
	UNIT_ROWS(parameters_come_one_by_one, params);
	UNIT_TEST(xtext_there_and_back);
	UNIT_ROWS(what_is_no_xtext_is_refused, no_xtext);
}
