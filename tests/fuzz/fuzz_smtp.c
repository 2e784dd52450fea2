/* tests/fuzz/fuzz_smtp.c - any bytes to a server session: what must hold of every one of them.
 *
 * The first byte picks the listener and the cut.  unit/smtp/model.h aborts on what breaks an
 * invariant inside the session: no recipient that the role refused, no body without a transaction,
 * no 250 to data that was not committed.
 */
#include "unit/smtp/model.h"

#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
same_for_this_cut(struct slice bytes, const struct smtp_service *service, bool tls, size_t cut)
{
	struct model whole, pieces;

	model_init(&whole, service, false);
	whole.tls = tls;
	model_play(&whole, bytes, 0);
	model_init(&pieces, service, true);
	pieces.tls = tls;
	model_play(&pieces, bytes, cut);
	MODEL_MUST(slice_eq(buf_slice(&whole.sent), buf_slice(&pieces.sent)));
	MODEL_MUST(slice_eq(buf_slice(&whole.events), buf_slice(&pieces.events)));
	model_fini(&whole);
	model_fini(&pieces);
}

static unsigned
count_replies(struct slice out)
{
	unsigned n = 0;

	while (out.len > 0) {
		struct slice line = slice_until(out, '\n');

		MODEL_MUST(line.len >= 5 && line.len <= SMTP_REPLY_LINE_MAX - 1);
		MODEL_MUST(line.p[line.len - 1] == '\r' && line.len < out.len);
		n += line.p[3] == ' ';
		out = slice_drop(out, line.len + 1);
	}
	return n;
}

/* Line by line, as this reads the bytes itself: each command has one reply, data has one (LMTP: one
 * a recipient) behind its end and none before. */
static void
one_reply_each(struct slice bytes, const struct smtp_service *service, bool tls)
{
	struct model m;
	bool data = false;
	struct slice before = SLICE("\r\n");

	model_init(&m, service, false);
	m.tls = tls;
	model_start(&m);
	MODEL_MUST(count_replies(buf_slice(&m.sent)) == 1);
	while (slice_has(bytes, '\n') && smtp_session_action(m.session) == SMTP_ACTION_NONE) {
		struct slice line = slice_head(bytes, slice_until(bytes, '\n').len + 1);
		size_t sent = m.sent.len;
		unsigned accepted = m.accepted, want = 1, got;

		bytes = slice_drop(bytes, line.len);
		MODEL_MUST(model_feed(&m, line).len == 0);
		got = count_replies(slice_drop(buf_slice(&m.sent), sent));
		if (data) {
			data =
			    !(slice_eq(line, SLICE(".\r\n")) && slice_ends(before, SLICE("\r\n")));
			want = data ? 0 : service->kind == SMTP_KIND_LMTP ? accepted : 1;
		}
		if (smtp_session_action(m.session) == SMTP_ACTION_CLOSE)
			MODEL_MUST(got >= want && got <= want + 1); /* a 421 may follow */
		else
			MODEL_MUST(got == want);
		data = data || slice_starts(slice_drop(buf_slice(&m.sent), sent), SLICE("354 "));
		before = line;
	}
	model_fini(&m);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct slice bytes = slice_drop(slice_of(data, size), 1);
	uint8_t choice = size > 0 ? data[0] : 0;
	const struct smtp_service *service = &model_services[choice % ARRAY_LEN(model_services)];
	bool tls = (choice & 0x80) != 0;

	same_for_this_cut(bytes, service, tls, 1 + choice % 13);
	one_reply_each(bytes, service, tls);
	return 0;
}
