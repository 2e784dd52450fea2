/* tests/fuzz/fuzz_smtp.c - any bytes to a server session: what must hold of every one of them.
 *
 * The first byte picks the listener and the cut.  unit/smtp/model.h aborts on what breaks an
 * invariant inside the session: no recipient that the role refused, no body without a transaction,
 * no 250 to data that was not committed.
 */
#include "must.h"
#include "unit/smtp/model.h"

#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
same_for_this_cut(
    struct slice bytes, const struct smtp_service *service, bool tls, unsigned trust, size_t cut)
{
	struct model whole, pieces;

	model_init(&whole, service, false);
	whole.tls = tls;
	whole.trust = trust;
	model_play(&whole, bytes, 0);
	model_init(&pieces, service, true);
	pieces.tls = tls;
	pieces.trust = trust;
	model_play(&pieces, bytes, cut);
	MUST(slice_eq(buf_slice(&whole.sent), buf_slice(&pieces.sent)));
	MUST(slice_eq(buf_slice(&whole.events), buf_slice(&pieces.events)));
	model_fini(&whole);
	model_fini(&pieces);
}

static unsigned
count_replies(struct slice out)
{
	unsigned n = 0;

	while (out.len > 0) {
		struct slice line = slice_until(out, '\n');

		MUST(line.len >= 5 && line.len <= SMTP_REPLY_LINE_MAX - 1);
		MUST(line.p[line.len - 1] == '\r' && line.len < out.len);
		n += line.p[3] == ' ';
		out = slice_drop(out, line.len + 1);
	}
	return n;
}

/* The octets behind a BDAT that the session is to take for data, as this reads RFC 3030 section 2
 * itself: the size is a number of up to 20 digits that fits, and LAST or nothing follows.  False
 * for any other line. */
static bool
is_bdat(struct slice line, uint64_t *size, bool *last)
{
	struct slice rest;

	if (line.len > SMTP_COMMAND_MAX || !slice_chop(&line, "\r\n") || slice_has(line, '\r') ||
	    slice_has(line, '\n') || !slice_ieq(slice_until(line, ' '), SLICE("BDAT")))
		return false;
	rest = slice_trim(slice_drop(line, 4));
	line = slice_until(rest, ' ');
	rest = slice_trim(slice_drop(rest, line.len));
	*last = rest.len > 0;
	return line.len <= 20 && slice_u64(line, UINT64_MAX, size) &&
	       (rest.len == 0 || slice_ieq(rest, SLICE("LAST")));
}

/* The replies that the end of a message may have: one; for each recipient with LMTP; with PRDR two
 * more. */
static bool
is_end(const struct smtp_service *service, unsigned accepted, unsigned got)
{
	if (service->kind == SMTP_KIND_LMTP)
		return got == accepted;
	return got == 1 || (service->extensions & SMTP_EXT_PRDR && got == accepted + 2);
}

enum reading { COMMANDS, RESPONSE, DATA };

static enum reading
next_reading(struct slice replies)
{
	if (slice_starts(replies, SLICE("354 ")))
		return DATA;
	return slice_starts(replies, SLICE("334 ")) ? RESPONSE : COMMANDS;
}

/* A command with its CRLF, or message data with the next LF; empty when there is none. */
static struct slice
next_line(struct slice bytes, enum reading reading)
{
	for (size_t i = 0; i < bytes.len; i++)
		if (bytes.p[i] == '\n' && (reading == DATA || (i > 0 && bytes.p[i - 1] == '\r')))
			return slice_head(bytes, i + 1);
	return SLICE("");
}

/* Line by line, as this reads the bytes itself: each command has one reply, data has one (LMTP: one
 * a recipient; PRDR: those and two) behind its end and none before, whatever follows a BDAT
 * none. */
static void
one_reply_each(struct slice bytes, const struct smtp_service *service, bool tls, unsigned trust)
{
	struct model m;
	enum reading reading = COMMANDS;
	struct slice before = SLICE("\r\n");

	model_init(&m, service, false);
	m.tls = tls;
	m.trust = trust;
	model_start(&m);
	MUST(count_replies(buf_slice(&m.sent)) == 1);
	while (next_line(bytes, reading).len > 0 &&
	       smtp_session_action(m.session) == SMTP_ACTION_NONE) {
		struct slice line = next_line(bytes, reading);
		size_t sent = m.sent.len;
		unsigned accepted = m.accepted, got;
		uint64_t size = 0;
		bool last = false, in_tx = m.in_tx, end = false, bdat = false, whole = true;

		bytes = slice_drop(bytes, line.len);
		bdat = reading == COMMANDS && is_bdat(line, &size, &last);
		MUST(model_feed(&m, line).len == 0);
		if (bdat && smtp_session_action(m.session) == SMTP_ACTION_NONE) {
			whole = size <= bytes.len;
			line = slice_head(bytes, whole ? (size_t)size : bytes.len);
			bytes = slice_drop(bytes, line.len);
			MUST(model_feed(&m, line).len == 0);
		}
		got = count_replies(slice_drop(buf_slice(&m.sent), sent));
		if (reading == DATA) {
			end = slice_eq(line, SLICE(".\r\n")) && slice_ends(before, SLICE("\r\n"));
			reading = end ? COMMANDS : DATA;
			if (!end)
				MUST(got == 0);
		}
		end = end || (bdat && last && in_tx && accepted > 0 &&
				 service->extensions & SMTP_EXT_CHUNKING);
		if (!whole)
			MUST(got <= 2); /* a refusal may come early */
		else if (smtp_session_action(m.session) == SMTP_ACTION_CLOSE)
			MUST(end || got == 1 || got == 2); /* a 421 may follow */
		else if (end)
			MUST(is_end(service, accepted, got));
		else if (reading != DATA)
			MUST(got == 1);
		if (reading != DATA)
			reading = next_reading(slice_drop(buf_slice(&m.sent), sent));
		before = line;
	}
	model_fini(&m);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct slice bytes = slice_drop(slice_of(data, size), 1);
	uint8_t choice = size > 0 ? data[0] : 0;
	const struct smtp_service *service =
	    &model_services[(choice & 0x1f) % ARRAY_LEN(model_services)];
	bool tls = (choice & 0x80) != 0;
	unsigned trust = (choice >> 5 & 3) | (choice & 0x10 ? SMTP_TRUST_LINE_ENDS : 0u);

	same_for_this_cut(bytes, service, tls, trust, 1 + choice % 13);
	one_reply_each(bytes, service, tls, trust);
	return 0;
}
