/* tests/unit/mail/received_test.c - the Received field, and the count of those that are there. */
#include "unit/unit.h"

#include "relayd/mail/received.h"

#define ADDR4 SLICE("\xc0\x00\x02\x01")
#define ADDR6 SLICE("\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\1")

static const struct {
	struct received r;
	const char *field;
} rows[] = {
	{ { .helo = SLICE("c.test"),
	      .client_addr = ADDR4,
	      .extended = true,
	      .forward_path = SLICE("a@b.test") },
	    "Received: from c.test ([192.0.2.1])\r\n\tby mx.test with ESMTP id abc\r\n\tfor "
	    "<a@b.test>;\r\n"
	    "\tMon, 2 Mar 2026 10:15:42 +0000\r\n" },
	{ { .helo = SLICE("c.test"), .client_addr = ADDR6, .forward_path = SLICE("") },
	    "Received: from c.test ([IPv6:2001:db8::1])\r\n\tby mx.test with SMTP id abc;\r\n"
	    "\tMon, 2 Mar 2026 10:15:42 +0000\r\n" },
	{ { .helo = SLICE("c.test"),
	      .client_addr = ADDR4,
	      .extended = true,
	      .tls = true,
	      .auth = true,
	      .tls_version = "TLSv1.3",
	      .tls_cipher = "TLS_AES_256_GCM_SHA384",
	      .forward_path = SLICE("") },
	    "Received: from c.test ([192.0.2.1])\r\n\tby mx.test with ESMTPSA id abc\r\n"
	    "\t(TLSv1.3 TLS_AES_256_GCM_SHA384);\r\n\tMon, 2 Mar 2026 10:15:42 +0000\r\n" },
	{ { .helo = SLICE(""),
	      .client_addr = SLICE(""),
	      .extended = true,
	      .lmtp = true,
	      .forward_path = SLICE("") },
	    "Received: from unknown (local)\r\n\tby mx.test with LMTP id abc;\r\n"
	    "\tMon, 2 Mar 2026 10:15:42 +0000\r\n" },
	{ { .helo = SLICE("a)\r\n(b;\"\\\x80 c"),
	      .client_addr = ADDR4,
	      .extended = true,
	      .tls = true,
	      .forward_path = SLICE("") },
	    "Received: from a????b?????c ([192.0.2.1])\r\n\tby mx.test with ESMTPS id abc;\r\n"
	    "\tMon, 2 Mar 2026 10:15:42 +0000\r\n" },
};

START_TEST(a_field_says_who_when_and_how)
{
	struct received r = rows[_i].r;
	char storage[RECEIVED_FIELD_MAX + 1];
	struct buf out = buf_over(storage, RECEIVED_FIELD_MAX);

	r.hostname = "mx.test";
	r.id = SLICE("abc");
	r.wall_ms = INT64_C(1772446542123);
	received_put(&out, &r);
	storage[out.len] = '\0';
	ck_assert_str_eq(storage, rows[_i].field);
}
END_TEST

START_TEST(the_longest_field_fits)
{
	char name[300], path[256];
	char storage[RECEIVED_FIELD_MAX];
	struct buf out = buf_over(storage, sizeof(storage));
	struct received r = { .extended = true,
		.tls = true,
		.auth = true,
		.tls_version = name,
		.tls_cipher = name,
		.client_addr = ADDR6,
		.hostname = name };

	memset(name, 'x', sizeof(name));
	name[255] = '\0';
	memset(path, 'y', sizeof(path));
	r.helo = slice_of(name, 255);
	r.forward_path = slice_of(path, sizeof(path));
	r.id = SLICE("aaaaaaaaaaaaaaaaaaaaaaaaaa");
	received_put(&out, &r);
	ck_assert(!out.overflow);
}
END_TEST

static const struct {
	struct slice message;
	uint32_t fields;
} counts[] = {
	{ SLICE("Received: a\r\nSubject: x\r\nReceived: b\r\n\r\nReceived: c\r\n"), 2 },
	{ SLICE("RECEIVED : a\r\n\tReceived: folded\r\nreceived:b\r\n\r\n"), 2 },
	{ SLICE("X-Received: a\r\nReceive: b\r\nReceivedx: c\r\nReceived"), 0 },
	{ SLICE("\r\nReceived: a\r\n"), 0 },
	{ SLICE(""), 0 },
	{ SLICE("R\r\nRece\r\nReceived:\r\n\r\n"), 1 },
};

START_TEST(any_cut_counts_the_same)
{
	for (size_t cut = 0; cut <= counts[_i].message.len; cut++) {
		struct received_counter c = { 0 };

		received_count(&c, slice_head(counts[_i].message, cut));
		received_count(&c, slice_drop(counts[_i].message, cut));
		ck_assert_uint_eq(c.fields, counts[_i].fields);
	}
}
END_TEST

UNIT_SUITE(mail_received)
{
	UNIT_ROWS(a_field_says_who_when_and_how, rows);
	UNIT_TEST(the_longest_field_fits);
	UNIT_ROWS(any_cut_counts_the_same, counts);
}
