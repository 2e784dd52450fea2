/* relayd/net/proxy.c - the header that a proxy or balancer puts in front of a connection. */
#include "relayd/net/proxy.h"

#include <arpa/inet.h>

#define V2_SIGNATURE SLICE("\r\n\r\n\0\r\nQUIT\n")
#define V1_PREFIX    SLICE("PROXY ")

enum { V2_LOCAL = 0x20, V2_PROXY = 0x21 };
enum { V2_UNSPEC = 0x00, V2_TCP4 = 0x11, V2_TCP6 = 0x21, V2_UNIX = 0x31 };

#define TLV_CRC32C     0x03
#define TLV_HEAD       3
#define V2_UNIX_BYTES  216
#define CRC32C_REVERSE 0x82f63b78u

static enum proxy_scan
bad(struct proxy_header *out, const char *why)
{
	out->why = why;
	return PROXY_BAD;
}

/* ---- version 1: a line of text --------------------------------------------------------------- */

/* Takes the word up to the next single space; an empty one is a fault that the caller meets. */
static struct slice
take_word(struct slice *line)
{
	struct slice word = slice_until(*line, ' ');

	*line = slice_drop(*line, word.len + 1);
	return word;
}

static bool
parse_ip(struct slice word, int family, uint8_t out[static 16])
{
	char text[INET6_ADDRSTRLEN];

	if (word.len == 0 || word.len >= sizeof(text) || slice_has(word, '\0'))
		return false;
	memcpy(text, word.p, word.len);
	text[word.len] = '\0';
	return inet_pton(family, text, out) == 1;
}

/* "without leading zeroes" (section 2.1). */
static bool
parse_port(struct slice word, uint16_t *out)
{
	uint64_t port;

	if (word.len == 0 || (word.len > 1 && word.p[0] == '0') || !slice_u64(word, 65535, &port))
		return false;
	*out = (uint16_t)port;
	return true;
}

static enum proxy_scan
parse_v1(struct slice line, struct proxy_header *out)
{
	struct slice family = take_word(&line), client, server, client_port;
	int af = slice_eq(family, SLICE("TCP4")) ? AF_INET : AF_INET6;

	if (slice_eq(family, SLICE("UNKNOWN")))
		return PROXY_DONE; /* what follows on the line is to be ignored */
	if (af == AF_INET6 && !slice_eq(family, SLICE("TCP6")))
		return bad(out, "neither TCP4, TCP6 nor UNKNOWN");
	client = take_word(&line);
	server = take_word(&line);
	client_port = take_word(&line);
	if (!parse_ip(client, af, out->client) || !parse_ip(server, af, out->server))
		return bad(out, "an address is wrong");
	if (!parse_port(client_port, &out->client_port) || !parse_port(line, &out->server_port))
		return bad(out, "a port is wrong");
	out->addr_len = af == AF_INET ? 4 : 16;
	return PROXY_DONE;
}

static enum proxy_scan
scan_v1(struct slice bytes, struct proxy_header *out)
{
	struct slice line = slice_until(slice_head(bytes, PROXY_V1_MAX), '\n');

	out->version = 1;
	if (line.len == bytes.len && line.len < PROXY_V1_MAX)
		return PROXY_MORE;
	if (line.len == PROXY_V1_MAX)
		return bad(out, "the line is too long");
	out->bytes = line.len + 1;
	if (!slice_chop(&line, "\r") || slice_has(line, '\r'))
		return bad(out, "the line does not end with CR LF");
	return parse_v1(slice_drop(line, V1_PREFIX.len), out);
}

/* ---- version 2: binary ----------------------------------------------------------------------- */

static unsigned
be16(const char *p)
{
	return (unsigned)(uint8_t)p[0] << 8 | (uint8_t)p[1];
}

static uint32_t
crc32c(struct slice bytes, size_t skip)
{
	uint32_t crc = UINT32_MAX;

	for (size_t i = 0; i < bytes.len; i++) {
		/* The checksum's own bytes count as zero (section 2.2.3). */
		crc ^= i >= skip && i < skip + 4 ? 0 : (uint8_t)bytes.p[i];
		for (int bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (crc & 1 ? CRC32C_REVERSE : 0);
	}
	return ~crc;
}

/* Of the extensions only the checksum says something to us: one that is there must be right. */
static enum proxy_scan
check_tlvs(struct slice header, size_t at, struct proxy_header *out)
{
	while (at < header.len) {
		size_t left = header.len - at, len;
		const char *p = header.p + at;

		if (left < TLV_HEAD || (len = be16(p + 1)) > left - TLV_HEAD)
			return bad(out, "an extension is cut short");
		at += TLV_HEAD;
		if ((uint8_t)p[0] == TLV_CRC32C) {
			const char *sum = header.p + at;

			if (len != 4 ||
			    crc32c(header, at) != ((uint32_t)be16(sum) << 16 | be16(sum + 2)))
				return bad(out, "the checksum is wrong");
		}
		at += len;
	}
	return PROXY_DONE;
}

/* The addresses: both, then both ports. */
static void
take_addresses(struct slice block, uint8_t len, struct proxy_header *out)
{
	memcpy(out->client, block.p, len);
	memcpy(out->server, block.p + len, len);
	out->client_port = (uint16_t)be16(block.p + 2 * len);
	out->server_port = (uint16_t)be16(block.p + 2 * len + 2);
	out->addr_len = len;
}

static enum proxy_scan
parse_v2(struct slice header, struct proxy_header *out)
{
	static const struct {
		uint8_t family, addr_len;
		unsigned bytes;
	} kinds[] = { { V2_UNSPEC, 0, 0 }, { V2_TCP4, 4, 12 }, { V2_TCP6, 16, 36 },
		{ V2_UNIX, 0, V2_UNIX_BYTES } };
	uint8_t family = (uint8_t)header.p[13];
	struct slice block = slice_drop(header, PROXY_V2_FIXED);

	if ((uint8_t)header.p[12] == V2_LOCAL)
		return PROXY_DONE; /* all that follows is to be ignored, the family too */
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		if (kinds[i].family != family)
			continue;
		if (block.len < kinds[i].bytes)
			return bad(out, "too short for its addresses");
		if (kinds[i].addr_len > 0)
			take_addresses(block, kinds[i].addr_len, out);
		/* Of an unspecified family nobody knows where the addresses end. */
		return family == V2_UNSPEC
			   ? PROXY_DONE
			   : check_tlvs(header, PROXY_V2_FIXED + kinds[i].bytes, out);
	}
	return bad(out, "the family or transport is not one of ours");
}

static enum proxy_scan
scan_v2(struct slice bytes, struct proxy_header *out)
{
	uint8_t command;
	size_t len;

	out->version = 2;
	if (bytes.len < PROXY_V2_FIXED)
		return PROXY_MORE;
	command = (uint8_t)bytes.p[12];
	len = PROXY_V2_FIXED + (size_t)be16(bytes.p + 14);
	if (command != V2_LOCAL && command != V2_PROXY)
		return bad(out, "neither LOCAL nor PROXY of version 2");
	if (len > PROXY_V2_MAX)
		return bad(out, "the header is too long");
	if (bytes.len < len)
		return PROXY_MORE;
	out->bytes = len;
	return parse_v2(slice_head(bytes, len), out);
}

/* ---- which ----------------------------------------------------------------------------------- */

/* So far as there are bytes, they are those of prefix. */
static bool
agrees(struct slice bytes, struct slice prefix)
{
	return slice_starts(prefix, slice_head(bytes, prefix.len));
}

enum proxy_scan
proxy_scan(struct slice bytes, struct proxy_header *out)
{
	*out = (struct proxy_header){ .why = "" };
	if (bytes.len == 0)
		return PROXY_MORE;
	if (agrees(bytes, V2_SIGNATURE))
		return scan_v2(bytes, out);
	if (!agrees(bytes, V1_PREFIX)) {
		out->why = "no PROXY header";
		return PROXY_NONE;
	}
	return bytes.len < V1_PREFIX.len ? PROXY_MORE : scan_v1(bytes, out);
}
