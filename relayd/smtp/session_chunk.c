/* relayd/smtp/session_chunk.c - BDAT: a message in pieces whose size is told (RFC 3030).
 *
 * What follows a BDAT is data whatever we think of the command: it is counted and taken off the
 * input, so that no message can be read as commands.  A BDAT without a size that we can read leaves
 * no way to go on, and ends the session.
 */
#include "relayd/smtp/session_verbs.h"

#include <stdio.h>

struct chunk {
	uint64_t size;
	bool last;
};

/* chunk-size = 1*20DIGIT; end-marker = "LAST" */
static bool
parse(struct slice args, struct chunk *chunk)
{
	struct slice size = slice_until(args, ' ');
	struct slice rest = slice_trim(slice_drop(args, size.len));

	if (size.len == 0 || size.len > 20)
		return false;
	for (size_t i = 0; i < size.len; i++)
		if (size.p[i] < '0' || size.p[i] > '9')
			return false;
	chunk->last = rest.len > 0;
	return slice_u64(size, UINT64_MAX, &chunk->size) &&
	       (rest.len == 0 || slice_ieq(rest, SLICE("LAST")));
}

static void
no_size(struct smtp_session *s)
{
	smtp_session_say(s, 501, "5.5.4", "Syntax: BDAT size [LAST]; what follows is lost on us");
	s->ops->on_refused(s->user, SLICE("BDAT"), 501, "BDAT without a size");
	smtp_session_enter(s, SMTP_STATE_CLOSED);
	smtp_session_reset(s, SMTP_RESET_CLOSED, "");
}

/* The reply is out; the data goes nowhere. */
static void
skip(struct smtp_session *s, uint64_t size)
{
	if (size == 0 || s->state == SMTP_STATE_CLOSED)
		return;
	s->chunk_left = size;
	s->after_skip = s->state;
	smtp_session_enter(s, SMTP_STATE_SKIP);
}

static void
refuse(struct smtp_session *s, const struct chunk *chunk, unsigned code, const char *text)
{
	smtp_session_refuse(s, SLICE("BDAT"), code, "5.5.1", text);
	skip(s, chunk->size);
}

/* All of a chunk has come. */
static void
end_of_chunk(struct smtp_session *s)
{
	char text[64];

	if (s->chunk_last) {
		smtp_scan_chunk_end(&s->data);
		smtp_session_end_of_data(s);
		return;
	}
	if (smtp_session_refuse_data(s, false))
		return;
	(void)snprintf(text, sizeof(text), "Ok, %llu bytes so far", /* fits */
	    (unsigned long long)s->data.bytes);
	smtp_session_enter(s, SMTP_STATE_MORE);
	smtp_session_say(s, 250, "2.0.0", text);
	smtp_session_settle(s);
}

static void
begin_chunk(struct smtp_session *s)
{
	s->too_big = s->too_big || s->chunk_left > s->service->max_bytes - s->data.bytes;
	smtp_session_enter(s, SMTP_STATE_CHUNK);
	if (s->chunk_left == 0)
		end_of_chunk(s);
}

void
smtp_session_bdat(struct smtp_session *s, struct slice args)
{
	struct chunk chunk;

	if (!parse(args, &chunk)) {
		no_size(s);
	} else if (!smtp_session_offers(s, SMTP_EXT_CHUNKING)) {
		refuse(s, &chunk, 502, "BDAT is not offered here");
	} else if (s->state != SMTP_STATE_RCPT && s->state != SMTP_STATE_MORE) {
		refuse(s, &chunk, 503,
		    s->in_tx ? "No recipient was accepted" : "MAIL and RCPT come first");
	} else {
		bool first = s->state == SMTP_STATE_RCPT;

		s->chunk_left = chunk.size;
		s->chunk_last = chunk.last;
		if (!first) {
			begin_chunk(s);
			return;
		}
		s->chunked = true;
		smtp_session_ask(s, SMTP_ASK_DATA);
		s->ops->on_data(s->user);
	}
}

void
smtp_session_bdat_answered(struct smtp_session *s, const struct smtp_answer *a)
{
	if (a->code < 400) {
		s->data = (struct smtp_data){ 0 };
		s->too_big = false;
		begin_chunk(s);
	} else {
		skip(s, s->chunk_left); /* in READY */
	}
}

static void
take_data(struct smtp_session *s, struct slice run)
{
	smtp_scan_chunk(&s->data, run);
	s->too_big = s->too_big || s->data.bytes > s->service->max_bytes;
	if (!s->too_big && (s->binary || s->data.faults == 0))
		s->ops->on_bytes(s->user, run);
}

bool
smtp_session_bdat_step(struct smtp_session *s, struct slice *in)
{
	struct slice run = *in;

	if (run.len > s->chunk_left)
		run = slice_head(run, (size_t)s->chunk_left);
	*in = slice_drop(*in, run.len);
	s->chunk_left -= run.len;
	if (s->state == SMTP_STATE_CHUNK)
		take_data(s, run);
	if (s->chunk_left > 0)
		return false;
	if (s->state == SMTP_STATE_CHUNK)
		end_of_chunk(s);
	else
		smtp_session_enter(s, (enum smtp_state)s->after_skip);
	return true;
}
