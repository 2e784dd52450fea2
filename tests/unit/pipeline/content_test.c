/* tests/unit/pipeline/content_test.c - a message as filters see it. */
#include "relayd/pipeline/content.h"
#include "relayd/core/buf.h"
#include "unit/unit.h"

static const char message[] = "Subject: =?utf-8?q?caf=C3=A9?=\r\n"
			      "X-Folded: one\r\n\ttwo\r\n"
			      "MIME-Version: 1.0\r\n"
			      "Content-Type: multipart/mixed; boundary=b\r\n"
			      "\r\n"
			      "hidden before\r\n"
			      "--b\r\n"
			      "Content-Type: Text/HTML; charset=iso-8859-1\r\n"
			      "Content-Transfer-Encoding: quoted-printable\r\n"
			      "\r\n"
			      "<p>caf=E9</p>\r\n"
			      "--b\r\n"
			      "Content-Type: application/pdf\r\n"
			      "Content-Disposition: attachment; filename=\"a b.pdf\"\r\n"
			      "\r\n"
			      "PDF\r\n"
			      "--b\r\n"
			      "Content-Type: message/rfc822\r\n"
			      "Content-Transfer-Encoding: base64\r\n"
			      "\r\n"
			      "U3ViamVjdDogaW5uZXINCg0Kd3JhcHBlZCB0ZXh0DQo=\r\n"
			      "--b--\r\n"
			      "hidden behind\r\n";

static bool
some_part(struct content *c, const char *type, const char *text)
{
	struct filter_part part;

	for (size_t i = 0; pl_content_part(c, i, &part); i++)
		if (slice_eq(part.type, slice_str(type)) &&
		    slice_find(part.text, slice_str(text)) < part.text.len)
			return true;
	return false;
}

START_TEST(fields_are_unfolded_and_decoded)
{
	struct content c = pl_content_of(slice_str(message));
	struct filter_field f;

	ck_assert(pl_content_field(&c, 0, &f));
	ck_assert(slice_eq(f.name, SLICE("Subject")));
	ck_assert(slice_eq(f.value, SLICE("=?utf-8?q?caf=C3=A9?=")));
	ck_assert(slice_eq(f.decoded, SLICE("caf\xc3\xa9")));
	ck_assert(pl_content_field(&c, 1, &f));
	ck_assert(slice_eq(f.value, SLICE("one\ttwo")));
	ck_assert(slice_eq(f.raw, SLICE("X-Folded: one\r\n\ttwo\r\n")));
	ck_assert(pl_content_field(&c, 3, &f));
	ck_assert(!pl_content_field(&c, 4, &f));
	pl_content_fini(&c);
}
END_TEST

START_TEST(parts_are_leaves_with_their_text)
{
	struct content c = pl_content_of(slice_str(message));
	struct filter_part part;
	bool pdf = false;

	for (size_t i = 0; pl_content_part(&c, i, &part); i++)
		if (slice_eq(part.type, SLICE("application/pdf"))) {
			pdf = true;
			ck_assert(slice_eq(part.filename, SLICE("a b.pdf")));
			ck_assert_uint_eq(part.text.len, 0);
			ck_assert(slice_starts(part.raw, SLICE("PDF")));
		}
	ck_assert(pdf);
	ck_assert(some_part(&c, "text/html", "caf\xc3\xa9"));
	ck_assert(!some_part(&c, "text/html", "<p>"));
	pl_content_fini(&c);
}
END_TEST

START_TEST(no_text_hides_around_parts_or_in_a_wrapped_message)
{
	struct content c = pl_content_of(slice_str(message));

	ck_assert(some_part(&c, "text/plain", "hidden before"));
	ck_assert(some_part(&c, "text/plain", "hidden behind"));
	ck_assert(some_part(&c, "text/plain", "wrapped text"));
	pl_content_fini(&c);
}
END_TEST

START_TEST(any_bytes_have_fields_and_parts)
{
	static const struct slice odd[] = { { "", 0 }, { "\0\0\0", 3 }, { "\r\n", 2 }, { ":", 1 },
		{ "no header at all", 16 }, { "A: b", 4 } };
	struct filter_field f;
	struct filter_part part;

	for (size_t i = 0; i < sizeof(odd) / sizeof(odd[0]); i++) {
		struct content c = pl_content_of(odd[i]);

		for (size_t n = 0; pl_content_field(&c, n, &f); n++)
			ck_assert_ptr_nonnull(f.value.p);
		for (size_t n = 0; pl_content_part(&c, n, &part); n++)
			ck_assert_ptr_nonnull(part.text.p);
		pl_content_fini(&c);
	}
}
END_TEST

START_TEST(much_text_is_cut_and_many_fields_end)
{
	struct buf big = buf_heap(64 << 20);
	struct content c;
	struct filter_field f;
	struct filter_part part;
	size_t n = 0, text = 0;

	for (int i = 0; i < 2 * CONTENT_FIELDS; i++)
		buf_puts(&big, "A: b\r\n");
	buf_puts(&big, "\r\n");
	for (int i = 0; i < 300000; i++)
		buf_puts(&big, "a line of text that goes on and on and on\r\n");
	c = pl_content_of(buf_slice(&big));
	while (pl_content_field(&c, n, &f))
		n++;
	ck_assert_uint_eq(n, CONTENT_FIELDS);
	for (n = 0; pl_content_part(&c, n, &part); n++)
		text += part.text.len;
	ck_assert_uint_gt(text, CONTENT_TEXT_MAX / 2);
	ck_assert_uint_le(text, CONTENT_TEXT_MAX);
	pl_content_fini(&c);
	buf_fini(&big);
}
END_TEST

UNIT_SUITE(pipeline_content)
{
	UNIT_TEST(fields_are_unfolded_and_decoded);
	UNIT_TEST(parts_are_leaves_with_their_text);
	UNIT_TEST(no_text_hides_around_parts_or_in_a_wrapped_message);
	UNIT_TEST(any_bytes_have_fields_and_parts);
	UNIT_TEST(much_text_is_cut_and_many_fields_end);
}
