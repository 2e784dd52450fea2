/* tests/unit/review/imap_describe_test.c - ENVELOPE, BODYSTRUCTURE and sections of real shapes of
 * mail. */
#include "unit/unit.h"

#include "relayd/review/imap/section.h"
#include "relayd/review/imap/structure.h"

#include <stdio.h>

static void
envelope_of(struct slice message, struct buf *out)
{
	imap_put_envelope(message, out);
}

static void
structure_of(struct slice message, bool extended, struct buf *out)
{
	struct arena arena = arena_of(MIME_ARENA_BYTES(message.len));
	struct mime mime;

	ck_assert_int_eq(mime_parse(message, &arena, &mime), 0);
	imap_put_structure(&mime, extended, out);
	arena_fini(&arena);
}

static const struct {
	const char *in, *out;
} envelopes[] = {
	/* RFC 3501 section 8 */
	{ "Date: Wed, 17 Jul 1996 02:23:25 -0700 (PDT)\r\n"
	  "From: Terry Gray <gray@cac.washington.edu>\r\n"
	  "Subject: IMAP4rev1 WG mtg summary and minutes\r\n"
	  "To: imap@cac.washington.edu\r\n"
	  "Cc: minutes@CNRI.Reston.VA.US, John Klensin <KLENSIN@MIT.EDU>\r\n"
	  "Message-Id: <B27397-0100000@cac.washington.edu>\r\n\r\n",
	    "(\"Wed, 17 Jul 1996 02:23:25 -0700 (PDT)\" \"IMAP4rev1 WG mtg summary and minutes\" "
	    "((\"Terry Gray\" NIL \"gray\" \"cac.washington.edu\")) "
	    "((\"Terry Gray\" NIL \"gray\" \"cac.washington.edu\")) "
	    "((\"Terry Gray\" NIL \"gray\" \"cac.washington.edu\")) "
	    "((NIL NIL \"imap\" \"cac.washington.edu\")) "
	    "((NIL NIL \"minutes\" \"CNRI.Reston.VA.US\")(\"John Klensin\" NIL \"KLENSIN\" "
	    "\"MIT.EDU\")) "
	    "NIL NIL \"<B27397-0100000@cac.washington.edu>\")" },
	{ "\r\n", "(NIL NIL NIL NIL NIL NIL NIL NIL NIL NIL)" },
	{ "From: a@b\r\nSender: c@d\r\nReply-To:\r\nTo: g: x@y;\r\n\r\n",
	    "(NIL NIL ((NIL NIL \"a\" \"b\")) ((NIL NIL \"c\" \"d\")) ((NIL NIL \"a\" \"b\")) "
	    "((NIL NIL \"g\" NIL)(NIL NIL \"x\" \"y\")(NIL NIL NIL NIL)) NIL NIL NIL NIL)" },
	{ "Subject: a \"quoted\" \\ one\r\n  folded\r\n\r\n",
	    "(NIL \"a \\\"quoted\\\" \\\\ one  folded\" NIL NIL NIL NIL NIL NIL NIL NIL)" },
	{ "Subject: caf\xc3\xa9\r\nTo: root\r\n\r\n",
	    "(NIL {5}\r\ncaf\xc3\xa9 NIL NIL NIL ((NIL NIL \"root\" \"\")) NIL NIL NIL NIL)" },
};

START_TEST(an_envelope_has_its_ten_fields)
{
	char storage[2000];
	struct buf out = buf_over(storage, sizeof(storage) - 1);

	envelope_of(slice_str(envelopes[_i].in), &out);
	out.p[out.len] = '\0';
	ck_assert_str_eq(out.p, envelopes[_i].out);
}
END_TEST

static const struct {
	const char *in, *body, *bodystructure;
} structures[] = {
	{ "Subject: x\r\n\r\nline 1\r\nline 2\r\n",
	    "(\"text\" \"plain\" NIL NIL NIL \"7BIT\" 16 2)",
	    "(\"text\" \"plain\" NIL NIL NIL \"7BIT\" 16 2 NIL NIL NIL NIL)" },
	{ "Content-Type: TEXT/PLAIN; CHARSET=US-ASCII\r\nContent-Transfer-Encoding: "
	  "QUOTED-PRINTABLE\r\n"
	  "Content-Id: <i@x>\r\nContent-Description: d\r\nContent-Md5: m==\r\nContent-Language: "
	  "en\r\n"
	  "Content-Location: http://x/\r\nContent-Disposition: attachment; "
	  "filename=\"f.txt\"\r\n\r\nx",
	    "(\"TEXT\" \"PLAIN\" (\"CHARSET\" \"US-ASCII\") \"<i@x>\" \"d\" \"QUOTED-PRINTABLE\" 1 "
	    "0)",
	    "(\"TEXT\" \"PLAIN\" (\"CHARSET\" \"US-ASCII\") \"<i@x>\" \"d\" \"QUOTED-PRINTABLE\" 1 "
	    "0 "
	    "\"m==\" (\"attachment\" (\"filename\" \"f.txt\")) \"en\" \"http://x/\")" },
	{ "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nhi\r\n--b\r\n"
	  "Content-Type: image/gif\r\nContent-Disposition: inline\r\n\r\nGIF\r\n--b--\r\n",
	    "((\"text\" \"plain\" NIL NIL NIL \"7BIT\" 2 0)(\"image\" \"gif\" NIL NIL NIL \"7BIT\" "
	    "3) \"mixed\")",
	    "((\"text\" \"plain\" NIL NIL NIL \"7BIT\" 2 0 NIL NIL NIL NIL)"
	    "(\"image\" \"gif\" NIL NIL NIL \"7BIT\" 3 NIL (\"inline\" NIL) NIL NIL) "
	    "\"mixed\" (\"boundary\" \"b\") NIL NIL NIL)" },
	{ "Content-Type: message/rfc822\r\n\r\nSubject: in\r\n\r\nx\r\n",
	    "(\"message\" \"rfc822\" NIL NIL NIL \"7BIT\" 18 (NIL \"in\" NIL NIL NIL NIL NIL NIL "
	    "NIL NIL) "
	    "(\"text\" \"plain\" NIL NIL NIL \"7BIT\" 3 1) 3)",
	    "(\"message\" \"rfc822\" NIL NIL NIL \"7BIT\" 18 (NIL \"in\" NIL NIL NIL NIL NIL NIL "
	    "NIL NIL) "
	    "(\"text\" \"plain\" NIL NIL NIL \"7BIT\" 3 1 NIL NIL NIL NIL) 3 NIL NIL NIL NIL)" },
	/* what cannot be taken apart poses as something that a client can show */
	{ "Content-Type: multipart/mixed; boundary=b\r\n\r\nno parts\r\n",
	    "(\"TEXT\" \"PLAIN\" NIL NIL NIL \"7BIT\" 10 1)",
	    "(\"TEXT\" \"PLAIN\" NIL NIL NIL \"7BIT\" 10 1 NIL NIL NIL NIL)" },
	{ "Content-Type: message/rfc822\r\nContent-Transfer-Encoding: base64\r\n\r\nWA==\r\n",
	    "(\"APPLICATION\" \"OCTET-STREAM\" NIL NIL NIL \"base64\" 6)",
	    "(\"APPLICATION\" \"OCTET-STREAM\" NIL NIL NIL \"base64\" 6 NIL NIL NIL NIL)" },
	{ "Content-Type: message/global\r\n\r\nSubject: in\r\n\r\nx\r\n",
	    "(\"message\" \"global\" NIL NIL NIL \"7BIT\" 18)",
	    "(\"message\" \"global\" NIL NIL NIL \"7BIT\" 18 NIL NIL NIL NIL)" },
};

START_TEST(a_structure_is_told_as_body_and_as_bodystructure)
{
	char storage[2000];
	struct buf out = buf_over(storage, sizeof(storage) - 1);

	structure_of(slice_str(structures[_i].in), false, &out);
	out.p[out.len] = '\0';
	ck_assert_str_eq(out.p, structures[_i].body);
	buf_reset(&out);
	structure_of(slice_str(structures[_i].in), true, &out);
	out.p[out.len] = '\0';
	ck_assert_str_eq(out.p, structures[_i].bodystructure);
}
END_TEST

/* ---- sections of a view ---- */

#define TOP  "X-Relayd-To: a@b\r\n"
#define HEAD "Subject: outer\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n"
#define P1   "Content-Type: text/html\r\n\r\n<p>\r\n"
#define P2   "Content-Type: message/rfc822\r\n\r\nSubject: inner\r\nFrom: c@d\r\n\r\ninside\r\n"

static const char original[] = HEAD "pre\r\n--b\r\n" P1 "--b\r\n" P2 "--b--\r\npost\r\n";

static const struct {
	const char *section;
	const char *text; /* NULL: NIL */
} sections[] = {
	{ "BODY[]", TOP HEAD "pre\r\n--b\r\n" P1 "--b\r\n" P2 "--b--\r\npost\r\n" },
	{ "BODY[HEADER]", TOP HEAD },
	{ "BODY[TEXT]", "pre\r\n--b\r\n" P1 "--b\r\n" P2 "--b--\r\npost\r\n" },
	{ "BODY[1]", "<p>" },
	{ "BODY[1.MIME]", "Content-Type: text/html\r\n\r\n" },
	{ "BODY[1.HEADER]", NULL },
	{ "BODY[1.TEXT]", NULL },
	{ "BODY[2]", "Subject: inner\r\nFrom: c@d\r\n\r\ninside" },
	{ "BODY[2.MIME]", "Content-Type: message/rfc822\r\n\r\n" },
	{ "BODY[2.HEADER]", "Subject: inner\r\nFrom: c@d\r\n\r\n" },
	{ "BODY[2.TEXT]", "inside" },
	{ "BODY[2.1]", "inside" },
	{ "BODY[2.1.MIME]", "Subject: inner\r\nFrom: c@d\r\n\r\n" },
	{ "BODY[3]", NULL },
	{ "BODY[1.1]", NULL },
	{ "BODY[]<0.5>", "X-Rel" },
	{ "BODY[TEXT]<3.4>", "\r\n--" },
	{ "BODY[1]<1.100>", "p>" },
	{ "BODY[1]<3.1>", "" },
	{ "BODY[1]<9999.1>", "" },
	{ "RFC822", TOP HEAD "pre\r\n--b\r\n" P1 "--b\r\n" P2 "--b--\r\npost\r\n" },
	{ "RFC822.HEADER", TOP HEAD },
	{ "RFC822.TEXT", "pre\r\n--b\r\n" P1 "--b\r\n" P2 "--b--\r\npost\r\n" },
};

struct described {
	struct arena arena;
	struct buf bytes;
	struct imap_description d;
};

static struct described
describe(struct slice message)
{
	struct described x = { .arena = arena_of(1 << 20), .bytes = buf_heap(1 << 20) };

	imap_describe(message, &x.bytes);
	ck_assert(imap_description_read(buf_slice(&x.bytes), &x.arena, &x.d));
	return x;
}

static void
described_fini(struct described *x)
{
	arena_fini(&x->arena);
	buf_fini(&x->bytes);
}

static struct imap_item
item_of(const char *section, struct arena *arena)
{
	struct imap_command cmd;
	char line[500];
	struct slice copy;

	(void)snprintf(line, sizeof(line), "a FETCH 1 %s", section);
	copy = arena_copy(arena, slice_str(line));
	ck_assert_ptr_null(imap_parse(copy, arena, &cmd));
	return cmd.items[0];
}

/* The octets of a section in the view TOP + message. */
static void
check_section(struct slice message, const char *section, const char *text)
{
	struct described x = describe(message);
	struct arena arena = arena_of(IMAP_ARENA_BYTES);
	struct buf view = buf_heap(100000);
	struct imap_item item = item_of(section, &arena);
	struct imap_extent e;

	buf_puts(&view, TOP);
	buf_put(&view, message);
	e = imap_section_clip(
	    imap_section_find(&x.d, (uint32_t)strlen(TOP), view.len, &item), &item);
	ck_assert_int_eq(e.there, text != NULL);
	if (text != NULL) {
		ck_assert_uint_le(e.from + e.len, view.len);
		ck_assert(slice_eq(
		    slice_head(slice_drop(buf_slice(&view), (size_t)e.from), (size_t)e.len),
		    slice_str(text)));
	}
	buf_fini(&view);
	arena_fini(&arena);
	described_fini(&x);
}

START_TEST(a_section_is_a_range_of_the_view)
{
	check_section(slice_str(original), sections[_i].section, sections[_i].text);
}
END_TEST

START_TEST(a_message_that_begins_oddly_reads_as_it_does_below_other_fields)
{
	/* The fold belongs to the field above, the mbox line to no header at all. */
	check_section(SLICE(" folded\r\nSubject: x\r\n\r\nbody\r\n"), "BODY[TEXT]", "body\r\n");
	check_section(SLICE("From x Mon Jan 1\r\nSubject: x\r\n\r\nbody\r\n"), "BODY[TEXT]",
	    "From x Mon Jan 1\r\nSubject: x\r\n\r\nbody\r\n");
	check_section(SLICE("no header\r\n"), "BODY[TEXT]", "no header\r\n");
	check_section(SLICE("no header\r\n"), "BODY[HEADER]", TOP);
	check_section(SLICE("\r\nbody"), "BODY[HEADER]", TOP "\r\n");
	check_section(SLICE(""), "BODY[]", TOP);
	check_section(SLICE(""), "BODY[TEXT]", "");
	check_section(SLICE(""), "BODY[1]", "");
}
END_TEST

static const struct {
	const char *section, *text;
	bool kept; /* in the description */
} field_rows[] = {
	{ "BODY[HEADER.FIELDS (SUBJECT)]", "Subject: outer\r\n\r\n", true },
	{ "BODY[HEADER.FIELDS (From Subject)]", "Subject: outer\r\n\r\n", true },
	{ "BODY[HEADER.FIELDS (x-none)]", "\r\n", true },
	{ "BODY[HEADER.FIELDS (X-Relayd-To)]", TOP "\r\n", false },
	{ "BODY[HEADER.FIELDS.NOT (Subject)]",
	    TOP "Content-Type: multipart/mixed; boundary=b\r\n\r\n", false },
	{ "BODY[2.HEADER.FIELDS (Subject)]", "Subject: inner\r\n\r\n", false },
};

START_TEST(fields_are_picked_from_the_description_where_they_are_in_it)
{
	struct described x = describe(slice_str(original));
	struct arena arena = arena_of(IMAP_ARENA_BYTES);
	struct imap_item item = item_of(field_rows[_i].section, &arena);
	struct buf view = buf_heap(100000), out = buf_heap(100000);
	struct imap_extent e;

	buf_puts(&view, TOP);
	buf_puts(&view, original);
	ck_assert_int_eq(imap_section_in_description(&x.d, &item), field_rows[_i].kept);
	e = imap_section_find(&x.d, (uint32_t)strlen(TOP), view.len, &item);
	ck_assert(e.there);
	imap_put_fields(
	    field_rows[_i].kept
		? x.d.header
		: slice_head(slice_drop(buf_slice(&view), (size_t)e.from), (size_t)e.len),
	    &item, &out);
	ck_assert(slice_eq(buf_slice(&out), slice_str(field_rows[_i].text)));
	buf_fini(&view);
	buf_fini(&out);
	arena_fini(&arena);
	described_fini(&x);
}
END_TEST

START_TEST(a_description_keeps_the_day_it_was_sent)
{
	struct described x = describe(SLICE("Date: Fri, 2 Jan 1970 23:30:00 -0900\r\n\r\n"));

	ck_assert(x.d.has_sent);
	ck_assert_int_eq(x.d.sent_day, 1); /* in its own zone */
	described_fini(&x);
	x = describe(SLICE("Date: nonsense\r\n\r\n"));
	ck_assert(!x.d.has_sent);
	described_fini(&x);
}
END_TEST

START_TEST(a_monstrous_message_is_described_as_plain_text)
{
	struct buf in = buf_heap(8 << 20);
	struct described x;

	buf_puts(&in, "Subject: x\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n");
	for (int i = 0; i < 1900; i++)
		buf_puts(&in,
		    "--b\r\nContent-Type: text/plain; name=\"a long name of an attached file, "
		    "made longer so that the whole is too long\"\r\n\r\nx\r\n");
	buf_puts(&in, "--b--\r\n");
	x = describe(buf_slice(&in));
	ck_assert_uint_eq(x.d.mime.n_parts, 1);
	ck_assert_uint_le(x.bytes.len, IMAP_DESCRIPTION_MAX);
	ck_assert(
	    slice_starts(x.d.bodystructure, SLICE("(\"TEXT\" \"PLAIN\" NIL NIL NIL \"7BIT\" ")));
	described_fini(&x);
	buf_fini(&in);
}
END_TEST

START_TEST(a_long_header_is_not_kept)
{
	struct buf in = buf_heap(1 << 20);
	struct described x;

	while (in.len <= IMAP_DESCRIBE_HEADER_MAX)
		buf_puts(&in, "X-Filler: more and more and more\r\n");
	buf_puts(&in, "Subject: x\r\n\r\nbody");
	x = describe(buf_slice(&in));
	ck_assert_uint_eq(x.d.header.len, 0);
	ck_assert(slice_starts(x.d.envelope, SLICE("(NIL \"x\"")));
	described_fini(&x);
	buf_fini(&in);
}
END_TEST

START_TEST(a_damaged_description_is_refused_or_harmless)
{
	struct described x = describe(slice_str(original));
	uint32_t number[3] = { 2, 1, 1 };

	for (size_t i = 0; i < x.bytes.len; i++) {
		struct arena arena = arena_of(1 << 20);
		struct imap_description d;

		x.bytes.p[i] = (char)(x.bytes.p[i] ^ 0x5a);
		if (imap_description_read(buf_slice(&x.bytes), &arena, &d))
			for (size_t n = 0; n <= 3; n++)
				(void)mime_numbered(&d.mime, number, n); /* must only return */
		x.bytes.p[i] = (char)(x.bytes.p[i] ^ 0x5a);
		ck_assert(!imap_description_read(slice_head(buf_slice(&x.bytes), i), &arena, &d));
		arena_fini(&arena);
	}
	described_fini(&x);
}
END_TEST

UNIT_SUITE(imap_describe)
{
	UNIT_ROWS(an_envelope_has_its_ten_fields, envelopes);
	UNIT_ROWS(a_structure_is_told_as_body_and_as_bodystructure, structures);
	UNIT_ROWS(a_section_is_a_range_of_the_view, sections);
	UNIT_TEST(a_message_that_begins_oddly_reads_as_it_does_below_other_fields);
	UNIT_ROWS(fields_are_picked_from_the_description_where_they_are_in_it, field_rows);
	UNIT_TEST(a_description_keeps_the_day_it_was_sent);
	UNIT_TEST(a_monstrous_message_is_described_as_plain_text);
	UNIT_TEST(a_long_header_is_not_kept);
	UNIT_TEST(a_damaged_description_is_refused_or_harmless);
}
