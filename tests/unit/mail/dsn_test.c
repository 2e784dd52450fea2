/* tests/unit/mail/dsn_test.c - a delivery report: whole, exact, and no tool for its receiver. */
#include "unit/unit.h"

#include "relayd/mail/dsn.h"
#include "relayd/mail/header.h"
#include "relayd/mail/mime.h"

static const char original[] = "Message-ID: <1@example.test>\r\n"
			       "Subject: lunch\r\n"
			       "From: a@example.test\r\n"
			       "\r\n"
			       "At noon?\r\n";

static struct dsn_rcpt rcpt;
static struct dsn dsn;

static void
set_up(void)
{
	rcpt = (struct dsn_rcpt){
		.forward_path = SLICE("bob@example.org"),
		.orcpt = SLICE("rfc822;bob+2Bx@example.org"),
		.action = DSN_FAILED,
		.status = SLICE("5.1.1"),
		.remote_mta = SLICE("mail.example.org"),
		.reply = SLICE("550 5.1.1 no such user"),
		.last_attempt_ms = 1772446542000,
	};
	dsn = (struct dsn){
		.hostname = SLICE("mx.example.test"),
		.postmaster = SLICE("postmaster@example.test"),
		.reverse_path = SLICE("alice@example.test"),
		.envid = SLICE("QQ314+3D159"),
		.now_ms = 1772446543000,
		.arrival_ms = 1772446500000,
		.rcpts = &rcpt,
		.n_rcpts = 1,
		.original = slice_str(original),
	};
	dsn.id = id_derive(dsn.id, SLICE("report"));
}

struct report {
	struct buf bytes;
	struct arena arena;
	struct mime mime;
};

static struct report
build(void)
{
	struct report r = { .bytes = buf_heap(1 << 20), .arena = arena_of(1 << 20) };
	struct err err;

	ck_assert_int_eq(dsn_build(&dsn, &r.bytes, &err), 0);
	ck_assert_int_eq(mime_parse(buf_slice(&r.bytes), &r.arena, &r.mime), 0);
	ck_assert(mime_is(&r.mime.parts[0], "multipart", "report"));
	ck_assert_uint_eq(r.mime.parts[0].n_children, 3);
	return r;
}

static void
report_fini(struct report *r)
{
	arena_fini(&r->arena);
	buf_fini(&r->bytes);
}

static bool
part_has(const struct report *r, uint32_t number, const char *text)
{
	struct slice body = mime_body(&r->mime, mime_numbered(&r->mime, &number, 1));

	return slice_find(body, slice_str(text)) < body.len;
}

START_TEST(a_failure_says_what_happened_in_three_parts)
{
	struct report r = build();
	struct header_field field;

	ck_assert(header_find(buf_slice(&r.bytes), SLICE("to"), 0, &field));
	ck_assert(slice_eq(field.body, SLICE(" <alice@example.test>")));
	ck_assert(header_find(buf_slice(&r.bytes), SLICE("auto-submitted"), 0, &field));
	ck_assert(header_find(buf_slice(&r.bytes), SLICE("in-reply-to"), 0, &field));
	ck_assert(slice_eq(field.body, SLICE(" <1@example.test>")));
	ck_assert(part_has(&r, 1, "could not be delivered"));
	ck_assert(part_has(
	    &r, 1, "<bob@example.org>\r\n    The server mail.example.org said:\r\n    550 5.1.1"));
	ck_assert(part_has(
	    &r, 2, "Original-Envelope-Id: QQ314=159\r\nReporting-MTA: dns; mx.example.test\r\n"));
	ck_assert(part_has(&r, 2,
	    "\r\n\r\nOriginal-Recipient: rfc822;bob+x@example.org\r\n"
	    "Final-Recipient: rfc822;bob@example.org\r\n"
	    "Action: failed\r\n"
	    "Status: 5.1.1\r\n"
	    "Remote-MTA: dns; mail.example.org\r\n"
	    "Diagnostic-Code: smtp; 550 5.1.1 no such user\r\n"
	    "Last-Attempt-Date: Mon, 2 Mar 2026 10:15:42 +0000"));
	ck_assert(mime_is(&r.mime.parts[3], "text", "rfc822-headers"));
	ck_assert(part_has(&r, 3, "Subject: lunch\r\n"));
	ck_assert(!part_has(&r, 3, "At noon?"));
	ck_assert(!dsn_is_8bit(buf_slice(&r.bytes)));
	report_fini(&r);
}
END_TEST

START_TEST(the_full_original_comes_back_unless_it_is_too_long)
{
	struct buf big = buf_heap(1 << 20);
	struct report r;

	dsn.full = true;
	r = build();
	ck_assert(part_has(&r, 3, "At noon?\r\n"));
	ck_assert(mime_is(&r.mime.parts[3], "message", "rfc822"));
	report_fini(&r);
	buf_puts(&big, original);
	while (big.len <= DSN_ORIGINAL_MAX)
		buf_puts(&big, "more\r\n");
	dsn.original = buf_slice(&big);
	r = build();
	ck_assert(mime_is(&r.mime.parts[3], "text", "rfc822-headers"));
	ck_assert(!part_has(&r, 3, "At noon?"));
	report_fini(&r);
	buf_fini(&big);
}
END_TEST

START_TEST(a_reply_cannot_write_fields_or_parts)
{
	struct report r;

	rcpt.reply = SLICE("550 no\r\nAction: delivered\r\n\r\n--x\x01\xff");
	dsn.original = SLICE("Subject: a\r\n b\r\nMessage-ID: <x>\r\nBcc: <y>\r\n\r\n");
	r = build();
	ck_assert(!part_has(&r, 2, "\r\nAction: delivered"));
	ck_assert(part_has(&r, 2, "550 no  Action: delivered    --x"));
	report_fini(&r);
}
END_TEST

START_TEST(the_boundary_never_occurs_in_the_original)
{
	struct report r = build();
	struct slice boundary =
	    mime_param_raw(r.mime.parts[0].params, r.mime.parts[0].n_params, "boundary");
	struct buf forged = buf_heap(1000);
	struct report again;

	buf_printf(&forged, "Subject: x\r\n\r\n--%.*s\r\n\r\nforged\r\n", SLICE_FMT(boundary));
	dsn.original = buf_slice(&forged);
	dsn.full = true;
	again = build();
	ck_assert(part_has(&again, 3, "forged"));
	report_fini(&again);
	report_fini(&r);
	buf_fini(&forged);
}
END_TEST

/* A server that takes a bare CR or LF for a line end would see ours end there, and commands behind
 * it. */
START_TEST(what_is_returned_of_a_binary_message_is_text)
{
	struct report r;

	dsn.original = SLICE("Subject: a\nX: b\r.\r\n.c: d\0e\r\r\n\r\n\n.\r\nbody\r");
	for (int full = 0; full < 2; full++) {
		dsn.full = full != 0;
		r = build();
		for (size_t i = 0; i < r.bytes.len; i++) {
			ck_assert_int_ne(r.bytes.p[i], '\0');
			ck_assert((r.bytes.p[i] == '\n') ==
				  (i > 0 && r.bytes.p[i - 1] == '\r'));
		}
		ck_assert(part_has(&r, 3, "Subject: a?X: b?.\r\n.c: d?e?\r\n"));
		ck_assert(part_has(&r, 3, "?.\r\nbody?") == dsn.full);
		report_fini(&r);
	}
}
END_TEST

START_TEST(expiry_and_delay_are_told_apart)
{
	struct report r;

	rcpt.action = DSN_EXPIRED;
	rcpt.remote_mta = SLICE("");
	rcpt.status = SLICE("4.4.7");
	rcpt.reply = SLICE("no connection to mail.example.org:25");
	r = build();
	ck_assert(part_has(&r, 1, "have given up"));
	ck_assert(part_has(
	    &r, 2, "Action: failed\r\nStatus: 4.4.7\r\nDiagnostic-Code: x-relayd; no conn"));
	report_fini(&r);
	rcpt.action = DSN_DELAYED;
	dsn.retry_until_ms = 1772546543000;
	r = build();
	ck_assert(part_has(&r, 1, "we keep trying until\r\nTue, 3 Mar 2026 14:02:23 +0000."));
	ck_assert(part_has(&r, 2, "Action: delayed"));
	ck_assert(part_has(&r, 2, "Will-Retry-Until: Tue, 3 Mar 2026"));
	report_fini(&r);
}
END_TEST

START_TEST(an_international_report_uses_the_types_of_rfc_6533)
{
	struct report r;

	dsn.utf8 = true;
	rcpt.forward_path = SLICE("j\xc3\xb6rg@example.org");
	r = build();
	ck_assert(mime_is(&r.mime.parts[2], "message", "global-delivery-status"));
	ck_assert(mime_is(&r.mime.parts[3], "message", "global-headers"));
	ck_assert(part_has(&r, 2, "Final-Recipient: utf-8;j\xc3\xb6rg@example.org"));
	ck_assert(dsn_is_8bit(buf_slice(&r.bytes)));
	report_fini(&r);
}
END_TEST

START_TEST(eight_bit_text_is_declared_and_the_status_stays_ascii)
{
	struct report r;
	struct slice encoding;

	rcpt.reply = SLICE("550 unbekannter Empf\xc3\xa4nger");
	r = build();
	encoding = r.mime.parts[0].encoding_name;
	ck_assert(slice_eq(encoding, SLICE("8bit")));
	ck_assert(part_has(&r, 1, "Empf\xc3\xa4nger"));
	ck_assert(part_has(&r, 2, "Empf??nger"));
	report_fini(&r);
}
END_TEST

static const struct {
	const char *host, *field;
} hosts[] = {
	{ "mail.example.org", "Remote-MTA: dns; mail.example.org\r\n" },
	{ "192.0.2.1", "Remote-MTA: dns; [192.0.2.1]\r\n" },
	{ "2001:db8::1", "Remote-MTA: dns; [IPv6:2001:db8::1]\r\n" },
	{ "1.example", "Remote-MTA: dns; 1.example\r\n" },
};

START_TEST(an_address_of_a_host_is_a_literal)
{
	struct report r;

	rcpt.remote_mta = slice_str(hosts[_i].host);
	r = build();
	ck_assert_msg(part_has(&r, 2, hosts[_i].field), "%s", hosts[_i].host);
	report_fini(&r);
}
END_TEST

/* Only a report to an address that is not ASCII has a header that is not. */
START_TEST(a_subject_in_utf_8_is_encoded_unless_smtputf8_is_needed)
{
	struct buf long_one = buf_heap(4096), plain = buf_heap(4096);
	struct slice header;
	struct report r;
	struct header_field field;

	buf_puts(&long_one, "Subject: ");
	for (int i = 0; i < 70; i++)
		buf_puts(&long_one, i % 7 == 6   ? "\xf0\x9f\x93\xac"
				    : i % 5 == 4 ? " "
						 : "\xd0\xb6");
	buf_puts(&long_one, "\r\n\r\nbody\r\n");
	dsn.utf8 = true;
	dsn.original = buf_slice(&long_one);
	r = build();
	header = slice_head(buf_slice(&r.bytes), header_length(buf_slice(&r.bytes)));
	ck_assert(!dsn_is_8bit(header));
	for (struct slice rest = header; rest.len > 0;) {
		struct slice line = slice_until(rest, '\n');

		ck_assert_uint_le(line.len, 78);
		rest = slice_drop(rest, line.len + 1);
	}
	ck_assert(header_find(header, SLICE("subject"), 0, &field));
	header_decode(field.body, &plain);
	ck_assert(slice_ends(
	    buf_slice(&plain), slice_trim(slice_until(slice_drop(dsn.original, 8), '\r'))));
	report_fini(&r);
	dsn.reverse_path = SLICE("\xd0\xb6@example.test");
	r = build();
	ck_assert(slice_find(buf_slice(&r.bytes), SLICE(":\r\n \xd0\xb6")) < r.bytes.len);
	report_fini(&r);
	buf_fini(&plain);
	buf_fini(&long_one);
}
END_TEST

START_TEST(a_full_buffer_is_an_error)
{
	char storage[300];
	struct buf out = buf_over(storage, sizeof(storage));
	struct err err;

	ck_assert_int_eq(dsn_build(&dsn, &out, &err), -1);
	ck_assert_int_eq(err.code, ERR_LIMIT);
}
END_TEST

UNIT_SUITE(mail_dsn)
{
	tcase_add_checked_fixture(tc, set_up, NULL);
	UNIT_TEST(a_failure_says_what_happened_in_three_parts);
	UNIT_TEST(the_full_original_comes_back_unless_it_is_too_long);
	UNIT_TEST(a_reply_cannot_write_fields_or_parts);
	UNIT_TEST(the_boundary_never_occurs_in_the_original);
	UNIT_TEST(what_is_returned_of_a_binary_message_is_text);
	UNIT_TEST(expiry_and_delay_are_told_apart);
	UNIT_TEST(an_international_report_uses_the_types_of_rfc_6533);
	UNIT_TEST(eight_bit_text_is_declared_and_the_status_stays_ascii);
	UNIT_ROWS(an_address_of_a_host_is_a_literal, hosts);
	UNIT_TEST(a_subject_in_utf_8_is_encoded_unless_smtputf8_is_needed);
	UNIT_TEST(a_full_buffer_is_an_error);
}
