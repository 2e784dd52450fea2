/* tests/unit/net/proxy_test.c - the rules of the PROXY protocol, each by a row. */
#include "relayd/net/proxy.h"

#include "unit/unit.h"

#include "relayd/core/buf.h"
#include "relayd/core/cidr.h"

#include <stdio.h>
#include <stdlib.h>

#define SIG       "\r\n\r\n\0\r\nQUIT\n"
#define TCP4(len) SIG "\x21\x11\0" len "\xc0\0\x02\x01\xcb\0\x71\x19\xdd\xd5\0\x19"
#define V6        "\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0"
#define LONGEST                                                                                    \
	"PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff "                                   \
	"ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535"
#define X(text)                                                                                    \
	{                                                                                          \
		text, sizeof(text) - 1                                                             \
	}

/* said: "client client-port server server-port", "peer" where none is told, or why not. */
static const struct row {
	struct slice input;
	enum proxy_scan scan;
	const char *said;
	size_t rest; /* bytes of the input behind the header */
} rows[] = {
	/* version 1 */
	{ X("PROXY TCP4 192.0.2.1 203.0.113.25 56789 25\r\n"), PROXY_DONE,
	    "192.0.2.1 56789 203.0.113.25 25", 0 },
	{ X("PROXY TCP4 192.0.2.1 203.0.113.25 0 65535\r\nEHLO x\r\n"), PROXY_DONE,
	    "192.0.2.1 0 203.0.113.25 65535", 8 },
	{ X("PROXY TCP6 2001:db8::1 2001:db8::25 56789 25\r\n"), PROXY_DONE,
	    "2001:db8::1 56789 2001:db8::25 25", 0 },
	{ X("PROXY UNKNOWN\r\n"), PROXY_DONE, "peer", 0 },
	{ X("PROXY UNKNOWN what ever this is\r\nQ"), PROXY_DONE, "peer", 1 },
	{ X(LONGEST "\r\n"), PROXY_DONE, "peer", 0 },
	{ X(LONGEST "6\r\n"), PROXY_BAD, "the line is too long", 0 },
	{ X(LONGEST "6666666"), PROXY_BAD, "the line is too long", 0 },
	{ X("PROXY TCP4 192.0.2.1 203.0.113.25 56789 25\n"), PROXY_BAD,
	    "the line does not end with CR LF", 0 },
	{ X("PROXY TCP4 192.0.2.1\r 203.0.113.25 56789 25\r\n"), PROXY_BAD,
	    "the line does not end with CR LF", 0 },
	{ X("PROXY TCP4  192.0.2.1 203.0.113.25 56789 25\r\n"), PROXY_BAD, "an address is wrong",
	    0 },
	{ X("PROXY TCP4 192.0.2.01 203.0.113.25 56789 25\r\n"), PROXY_BAD, "an address is wrong",
	    0 },
	{ X("PROXY TCP4 192.0.2.1\0 203.0.113.25 56789 25\r\n"), PROXY_BAD, "an address is wrong",
	    0 },
	{ X("PROXY TCP4 2001:db8::1 2001:db8::25 56789 25\r\n"), PROXY_BAD, "an address is wrong",
	    0 },
	{ X("PROXY TCP6 192.0.2.1 203.0.113.25 56789 25\r\n"), PROXY_BAD, "an address is wrong",
	    0 },
	{ X("PROXY TCP4 192.0.2.1 56789 25\r\n"), PROXY_BAD, "an address is wrong", 0 },
	{ X("PROXY TCP4 192.0.2.1 203.0.113.25 65536 25\r\n"), PROXY_BAD, "a port is wrong", 0 },
	{ X("PROXY TCP4 192.0.2.1 203.0.113.25 56789 025\r\n"), PROXY_BAD, "a port is wrong", 0 },
	{ X("PROXY TCP4 192.0.2.1 203.0.113.25 +1 25\r\n"), PROXY_BAD, "a port is wrong", 0 },
	{ X("PROXY TCP4 192.0.2.1 203.0.113.25 56789\r\n"), PROXY_BAD, "a port is wrong", 0 },
	{ X("PROXY TCP4 192.0.2.1 203.0.113.25 56789 25 \r\n"), PROXY_BAD, "a port is wrong", 0 },
	{ X("PROXY UDP4 192.0.2.1 203.0.113.25 56789 25\r\n"), PROXY_BAD,
	    "neither TCP4, TCP6 nor UNKNOWN", 0 },
	{ X("PROXY \r\n"), PROXY_BAD, "neither TCP4, TCP6 nor UNKNOWN", 0 },
	{ X("proxy TCP4 192.0.2.1 203.0.113.25 56789 25\r\n"), PROXY_NONE, "no PROXY header", 0 },
	{ X("PROXYTCP4"), PROXY_NONE, "no PROXY header", 0 },
	{ X("EHLO client.example\r\n"), PROXY_NONE, "no PROXY header", 0 },
	{ X("P"), PROXY_MORE, "", 0 },
	{ X("PROXY TCP4 192.0.2.1"), PROXY_MORE, "", 0 },
	{ X(""), PROXY_MORE, "", 0 },
	/* version 2 */
	{ X(TCP4("\x0c")), PROXY_DONE, "192.0.2.1 56789 203.0.113.25 25", 0 },
	{ X(TCP4("\x0c") "EHLO"), PROXY_DONE, "192.0.2.1 56789 203.0.113.25 25", 4 },
	{ X(SIG "\x21\x21\0\x24" V6 "\x01" V6 "\x19\xdd\xd5\0\x19"), PROXY_DONE,
	    "2001:db8::1 56789 2001:db8::19 25", 0 },
	{ X(SIG "\x20\0\0\0"), PROXY_DONE, "peer", 0 },
	{ X(SIG "\x20\x55\0\x03"
		"abc"),
	    PROXY_DONE, "peer", 0 },
	{ X(SIG "\x21\0\0\x05"
		"what?"),
	    PROXY_DONE, "peer", 0 },
	/* extensions: an authority of 3 bytes, one with nothing in it, checksums */
	{ X(TCP4("\x12") "\x02\0\x03"
			 "a.b"),
	    PROXY_DONE, "192.0.2.1 56789 203.0.113.25 25", 0 },
	{ X(TCP4("\x0f") "\x04\0\0"), PROXY_DONE, "192.0.2.1 56789 203.0.113.25 25", 0 },
	{ X(TCP4("\x12") "\x02\0\x04"
			 "a.b"),
	    PROXY_BAD, "an extension is cut short", 0 },
	{ X(TCP4("\x0e") "\x02\0"), PROXY_BAD, "an extension is cut short", 0 },
	{ X(TCP4("\x13") "\x03\0\x04\0\0\0\0"), PROXY_BAD, "the checksum is wrong", 0 },
	{ X(TCP4("\x12") "\x03\0\x03\0\0\0"), PROXY_BAD, "the checksum is wrong", 0 },
	/* what it must not be */
	{ X(SIG "\x21\x11\0\x0b\xc0\0\x02\x01\xcb\0\x71\x19\xdd\xd5\0"), PROXY_BAD,
	    "too short for its addresses", 0 },
	{ X(SIG "\x21\x31\0\x01x"), PROXY_BAD, "too short for its addresses", 0 },
	{ X(SIG "\x21\x12\0\x0c\xc0\0\x02\x01\xcb\0\x71\x19\xdd\xd5\0\x19"), PROXY_BAD,
	    "the family or transport is not one of ours", 0 },
	{ X(SIG "\x21\x41\0\0"), PROXY_BAD, "the family or transport is not one of ours", 0 },
	{ X(SIG "\x22\x11\0\0"), PROXY_BAD, "neither LOCAL nor PROXY of version 2", 0 },
	{ X(SIG "\x11\x11\0\0"), PROXY_BAD, "neither LOCAL nor PROXY of version 2", 0 },
	{ X(SIG "\x21\x11\x07\xf1"), PROXY_BAD, "the header is too long", 0 },
	{ X(SIG "\x21\x11\x07\xf0"), PROXY_MORE, "", 0 },
	{ X(SIG), PROXY_MORE, "", 0 },
	{ X("\r\n\r\n\0\r\nQUIT\r"), PROXY_NONE, "no PROXY header", 0 },
};

static void
say(enum proxy_scan scan, const struct proxy_header *h, char *out, size_t size)
{
	char client[IP_TEXT_BYTES], server[IP_TEXT_BYTES];

	if (scan == PROXY_DONE && h->addr_len > 0) {
		ip_text(slice_of(h->client, h->addr_len), client);
		ip_text(slice_of(h->server, h->addr_len), server);
		(void)snprintf(
		    out, size, "%s %u %s %u", client, h->client_port, server, h->server_port);
	} else {
		(void)snprintf(out, size, "%s", scan == PROXY_DONE ? "peer" : h->why);
	}
}

START_TEST(a_header_is_taken_or_refused_as_the_specification_says)
{
	const struct row *row = &rows[_i];
	struct proxy_header h;
	char said[200];
	enum proxy_scan scan = proxy_scan(row->input, &h);

	ck_assert_int_eq(scan, row->scan);
	say(scan, &h, said, sizeof(said));
	ck_assert_str_eq(said, row->said);
	if (scan == PROXY_DONE)
		ck_assert_uint_eq(h.bytes, row->input.len - row->rest);
}
END_TEST

/* Byte by byte, from memory of exactly that size: the verdict falls once, and stays. */
START_TEST(it_does_not_matter_how_the_bytes_come)
{
	const struct row *row = &rows[_i];
	enum proxy_scan first = PROXY_MORE;
	struct proxy_header h;

	for (size_t n = 0; n <= row->input.len; n++) {
		char *copy = malloc(n + 1);
		enum proxy_scan scan;

		ck_assert_ptr_nonnull(copy);
		memcpy(copy, row->input.p, n);
		scan = proxy_scan(slice_of(copy, n), &h);
		free(copy);
		if (first != PROXY_MORE)
			ck_assert_int_eq(scan, first);
		first = scan;
		if (scan == PROXY_DONE)
			ck_assert_uint_ge(n, row->input.len - row->rest);
	}
	ck_assert_int_eq(first, row->scan);
}
END_TEST

static uint32_t
crc_by_the_book(const uint8_t *p, size_t n)
{
	uint32_t table[256], crc = UINT32_MAX;

	for (uint32_t i = 0; i < 256; i++) {
		table[i] = i;
		for (int k = 0; k < 8; k++)
			table[i] =
			    (table[i] & 1) != 0 ? table[i] >> 1 ^ 0x82f63b78u : table[i] >> 1;
	}
	for (size_t i = 0; i < n; i++)
		crc = table[(crc ^ p[i]) & 255] ^ crc >> 8;
	return crc ^ UINT32_MAX;
}

START_TEST(a_right_checksum_is_taken_and_any_flipped_bit_is_not)
{
	uint8_t header[] = TCP4("\x19") "\x03\0\x04\0\0\0\0\x02\0\x03xyz";
	size_t n = sizeof(header) - 1, at = 16 + 12 + 3;
	struct proxy_header h;
	uint32_t crc;

	ck_assert_uint_eq(crc_by_the_book((const uint8_t *)"123456789", 9), 0xe3069283u);
	crc = crc_by_the_book(header, n);
	for (size_t i = 0; i < 4; i++)
		header[at + i] = (uint8_t)(crc >> (24 - 8 * i));
	ck_assert_int_eq(proxy_scan(slice_of(header, n), &h), PROXY_DONE);
	for (size_t bit = 16 * 8; bit < n * 8; bit++) {
		if (bit / 8 == at - 3)
			continue; /* then it is another extension */
		header[bit / 8] ^= (uint8_t)(1u << bit % 8);
		ck_assert_int_ne(proxy_scan(slice_of(header, n), &h), PROXY_DONE);
		header[bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
}
END_TEST

UNIT_SUITE(net_proxy)
{
	UNIT_ROWS(a_header_is_taken_or_refused_as_the_specification_says, rows);
	UNIT_ROWS(it_does_not_matter_how_the_bytes_come, rows);
	UNIT_TEST(a_right_checksum_is_taken_and_any_flipped_bit_is_not);
}
