/* relayd/smtp/session.c - the states of a server session: what is asked, answered, and said. */
#include "relayd/smtp/session.h"

#include "relayd/smtp/session_verbs.h"

#include <assert.h>
#include <stdlib.h>

/* ---- saying things ------------------------------------------------------------------------ */

static void
put(struct smtp_session *s, const struct smtp_answer *answer)
{
	char text[ID_TEXT_LEN + 1] = "";
	struct smtp_answer whole = *answer;

	if (answer->code >= 400 && !answer->named)
		id_text(s->named ? s->message : s->id, text);
	if (whole.help.len == 0)
		whole.help = slice_str(s->service->help);
	smtp_reply_put(s->turn->out, &whole, slice_str(text));
}

/* ---- how long it may take ----------------------------------------------------------------- */

static bool
takes_data(const struct smtp_session *s)
{
	return s->state == SMTP_STATE_DATA || s->state == SMTP_STATE_CHUNK ||
	       s->state == SMTP_STATE_SKIP;
}

static void
begin_pace(struct smtp_session *s)
{
	s->pace_ms = s->turn->now_ms + (int64_t)s->service->rate_s * 1000;
	s->pace_bytes = 0;
}

static void
count_data(struct smtp_session *s, size_t n)
{
	s->pace_bytes = n < UINT32_MAX - s->pace_bytes ? s->pace_bytes + (uint32_t)n : UINT32_MAX;
}

/* When the session has lasted long enough.  A message under way is not thrown away for that, if it
 * comes to an end. */
static int64_t
end_of(const struct smtp_session *s)
{
	if (s->end_ms == 0)
		return INT64_MAX;
	return s->in_tx ? s->end_ms + (int64_t)s->service->session_s * 1000 : s->end_ms;
}

void
smtp_session_enter(struct smtp_session *s, enum smtp_state state)
{
	s->state = (uint8_t)state;
	if (takes_data(s))
		begin_pace(s);
}

void
smtp_session_ask(struct smtp_session *s, enum smtp_question question)
{
	assert(s->asking == SMTP_ASK_NOTHING);
	s->asking = (uint8_t)question;
}

void
smtp_session_say(struct smtp_session *s, unsigned code, const char *enhanced, const char *text)
{
	put(s,
	    &(struct smtp_answer){ .code = code, .enhanced = enhanced, .text = slice_str(text) });
}

static void
close_with(struct smtp_session *s, const char *enhanced, const char *text)
{
	smtp_session_say(s, 421, enhanced, text);
	smtp_session_reset(s, SMTP_RESET_CLOSED, "");
	smtp_session_enter(s, SMTP_STATE_CLOSED);
}

void
smtp_session_refuse(struct smtp_session *s, struct slice verb, unsigned code, const char *enhanced,
    const char *text)
{
	smtp_session_say(s, code, enhanced, text);
	s->ops->on_refused(s->user, verb, code, text);
	smtp_session_bad(s);
}

void
smtp_session_bad(struct smtp_session *s)
{
	if (++s->bad >= SMTP_BAD_COMMANDS)
		close_with(s, "4.7.0", "Too many bad commands");
}

bool
smtp_session_in_vain(struct smtp_session *s, const char *verb)
{
	static const char text[] = "Too many beginnings without a message; connect again";

	if (++s->in_vain <= SMTP_IN_VAIN)
		return false;
	s->ops->on_refused(s->user, slice_str(verb), 421, text);
	close_with(s, "4.7.0", text);
	return true;
}

void
smtp_session_reset(struct smtp_session *s, enum smtp_reset how, const char *why)
{
	bool was = s->in_tx;

	s->in_tx = s->named = s->chunked = false;
	s->n_rcpts = 0;
	if (was)
		s->ops->on_reset(s->user, how, why);
}

/* ---- answers ------------------------------------------------------------------------------ */

static bool
is_good(const struct smtp_answer *a)
{
	return a->code < 400;
}

/* The role's answer, with our own words where it has none. */
static void
put_or(struct smtp_session *s, const struct smtp_answer *a, unsigned code, const char *enhanced,
    const char *text)
{
	if (is_good(a) && a->text.len == 0)
		smtp_session_say(s, code, enhanced, text);
	else
		put(s, a);
}

static void
answered_connect(struct smtp_session *s, const struct smtp_answer *a)
{
	char text[SMTP_REPLY_LINE_MAX];
	struct buf b = buf_over(text, sizeof(text));

	if (!is_good(a)) {
		put(s, a);
		smtp_session_enter(s, SMTP_STATE_CLOSED);
		return;
	}
	buf_put(&b, slice_head(slice_str(s->service->hostname), SMTP_HELO_MAX));
	buf_puts(&b, s->service->kind == SMTP_KIND_LMTP ? " LMTP relayd" : " ESMTP relayd");
	smtp_reply_line(s->turn->out, 220, false, a->text.len > 0 ? a->text : buf_slice(&b));
	smtp_session_enter(s, SMTP_STATE_HELO);
}

/* The role refused a command that a client cannot want to say over and over. */
static void
bad_answer(struct smtp_session *s, const struct smtp_answer *a)
{
	if (!a->close && a->code != 421)
		smtp_session_bad(s);
}

/* Who is refused all the time is guessing, or no mail server.  What was said of each stays true, so
 * that a sender with a very old list comes further with each session. */
static void
bad_path(struct smtp_session *s, const struct smtp_answer *a, const char *verb, const char *text)
{
	if (++s->bad_paths < SMTP_BAD_PATHS || a->close || a->code == 421)
		return;
	s->ops->on_refused(s->user, slice_str(verb), 421, text);
	close_with(s, "4.7.0", text);
}

static void
answered_helo(struct smtp_session *s, const struct smtp_answer *a)
{
	if (!is_good(a)) {
		put(s, a);
		bad_answer(s, a);
		return;
	}
	s->extended = s->helo_extended;
	smtp_session_enter(s, SMTP_STATE_READY);
	smtp_session_say_hello(s);
}

static void
answered_mail(struct smtp_session *s, const struct smtp_answer *a)
{
	put_or(s, a, 250, "2.1.0", "Ok");
	if (!is_good(a)) {
		s->named = false;
		bad_path(s, a, "MAIL", "Too many refused messages in a row");
		return;
	}
	s->in_tx = true;
	s->n_mails++;
	smtp_session_enter(s, SMTP_STATE_MAIL);
}

static void
answered_rcpt(struct smtp_session *s, const struct smtp_answer *a)
{
	put_or(s, a, 250, "2.1.5", "Ok");
	if (!is_good(a)) {
		if (a->code >= 500)
			bad_path(s, a, "RCPT", "Too many refused recipients in a row");
		return;
	}
	s->bad_paths = 0;
	s->n_rcpts++;
	smtp_session_enter(s, SMTP_STATE_RCPT);
}

static void
end_transaction(struct smtp_session *s, enum smtp_reset how, const char *why)
{
	smtp_session_enter(s, SMTP_STATE_READY);
	smtp_session_reset(s, how, why);
}

/* LMTP answers the end of the data for each recipient (RFC 2033 section 4.2). */
static uint32_t
replies_at_end(const struct smtp_session *s)
{
	return s->service->kind == SMTP_KIND_LMTP ? s->n_rcpts : 1;
}

static void
answered_bdat(struct smtp_session *s, const struct smtp_answer *a)
{
	if (!is_good(a)) {
		uint32_t replies = s->chunk_last ? replies_at_end(s) : 1;

		while (replies-- > 0)
			put(s, a);
		end_transaction(s, SMTP_RESET_REFUSED, "");
	}
	smtp_session_bdat_answered(s, a);
}

static void
answered_data(struct smtp_session *s, const struct smtp_answer *a)
{
	if (s->chunked) {
		answered_bdat(s, a);
		return;
	}
	put_or(s, a, 354, NULL, "End data with <CR><LF>.<CR><LF>");
	if (!is_good(a)) {
		end_transaction(s, SMTP_RESET_REFUSED, "");
		return;
	}
	s->data = (struct smtp_data){ .convert = (s->trust & SMTP_TRUST_LINE_ENDS) != 0 };
	s->too_big = false;
	smtp_session_enter(s, SMTP_STATE_DATA);
}

static void
answered_body(struct smtp_session *s, const struct smtp_answer *a)
{
	for (uint32_t replies = replies_at_end(s); replies > 0; replies--)
		put_or(s, a, 250, "2.0.0", "Ok");
	if (is_good(a))
		s->in_vain = 0;
	end_transaction(s, is_good(a) ? SMTP_RESET_DONE : SMTP_RESET_REFUSED, "");
}

static void
answered_auth(struct smtp_session *s, const struct smtp_answer *a)
{
	/* A challenge may be empty: then the reply is "334 " (RFC 4954 section 4). */
	put(s, a);
	s->authenticated = a->code == 235;
	smtp_session_enter(s, a->code == 334 ? SMTP_STATE_AUTH : SMTP_STATE_READY);
	if (!is_good(a))
		bad_answer(s, a);
}

/* As if another client had connected, but for TLS, which is the connection's. */
static void
answered_xclient(struct smtp_session *s, const struct smtp_answer *a)
{
	s->extended = s->authenticated = false;
	s->trust &= (uint8_t)~SMTP_TRUST_LINE_ENDS; /* of the proxy itself */
	answered_connect(s, a);
}

static void (*const answered[])(struct smtp_session *s, const struct smtp_answer *a) = {
	[SMTP_ASK_CONNECT] = answered_connect,
	[SMTP_ASK_HELO] = answered_helo,
	[SMTP_ASK_MAIL] = answered_mail,
	[SMTP_ASK_RCPT] = answered_rcpt,
	[SMTP_ASK_DATA] = answered_data,
	[SMTP_ASK_BODY] = answered_body,
	[SMTP_ASK_AUTH] = answered_auth,
	[SMTP_ASK_XCLIENT] = answered_xclient,
};

/* A session that is to end does so between transactions. */
static void
shut(struct smtp_session *s)
{
	if (s->ending == SMTP_END_NOT || s->in_tx || s->asking != SMTP_ASK_NOTHING ||
	    s->state >= SMTP_STATE_TLS)
		return;
	if (s->ending == SMTP_END_PROXY)
		close_with(s, "4.7.0", "A PROXY header is not taken from your address (proxy)");
	else
		close_with(s, "4.3.2", "Service is closing; try again soon");
}

static void
settle(struct smtp_session *s, bool close)
{
	if (close && s->state != SMTP_STATE_CLOSED) {
		smtp_session_enter(s, SMTP_STATE_CLOSED);
		smtp_session_reset(s, SMTP_RESET_CLOSED, "");
	}
	shut(s);
	s->deadline_ms = s->turn->now_ms + SMTP_COMMAND_MS;
}

void
smtp_session_settle(struct smtp_session *s)
{
	settle(s, false);
}

void
smtp_session_answer(
    struct smtp_session *s, const struct smtp_turn *turn, const struct smtp_answer *answer)
{
	const struct smtp_turn *outer = s->turn;
	enum smtp_question question = (enum smtp_question)s->asking;

	assert(question != SMTP_ASK_NOTHING);
	s->turn = turn;
	s->asking = SMTP_ASK_NOTHING;
	answered[question](s, answer);
	settle(s, answer->close || answer->code == 421);
	s->turn = outer;
}

void
smtp_session_answer_each(struct smtp_session *s, const struct smtp_turn *turn,
    const struct smtp_answer *answers, size_t n, const struct smtp_answer *all)
{
	const struct smtp_turn *outer = s->turn;
	bool good = false, close = all != NULL && (all->close || all->code == 421);

	assert(s->asking == SMTP_ASK_BODY && n == s->n_rcpts);
	s->turn = turn;
	s->asking = SMTP_ASK_NOTHING;
	if (all != NULL)
		smtp_session_say(s, 353, NULL, "A reply for each recipient follows");
	for (size_t i = 0; i < n; i++) {
		put_or(s, &answers[i], 250, "2.0.0", "Ok");
		good = good || is_good(&answers[i]);
		close = close || answers[i].close || answers[i].code == 421;
	}
	if (all != NULL)
		put_or(s, all, 250, "2.0.0", "Ok");
	if (good)
		s->in_vain = 0;
	end_transaction(s, good ? SMTP_RESET_DONE : SMTP_RESET_REFUSED, "");
	settle(s, close);
	s->turn = outer;
}

/* ---- input -------------------------------------------------------------------------------- */

static const struct smtp_answer *
refusal_of(const struct smtp_session *s, enum smtp_reset *how)
{
	static const struct smtp_answer refusals[] = {
		{ .code = 550,
		    .enhanced = "5.6.0",
		    .text = SLICE("Message refused: a line ended with LF alone, not CRLF") },
		{ .code = 550,
		    .enhanced = "5.6.0",
		    .text = SLICE("Message refused: a CR stood without its LF") },
		{ .code = 550,
		    .enhanced = "5.6.0",
		    .text = SLICE("Message refused: it holds a NUL byte") },
		{ .code = 550,
		    .enhanced = "5.6.0",
		    .text = SLICE("Message refused: a line is longer than 998 bytes") },
		{ .code = 552,
		    .enhanced = "5.3.4",
		    .text = SLICE("Message refused: it is over the size limit") },
	};
	unsigned faults = s->binary ? 0 : s->data.faults; /* any byte is right in a binary one */

	*how = faults != 0 ? SMTP_RESET_FAULT : SMTP_RESET_SIZE;
	if (faults & SMTP_FAULT_BARE_LF)
		return &refusals[0];
	if (faults & SMTP_FAULT_BARE_CR)
		return &refusals[1];
	if (faults & SMTP_FAULT_NUL)
		return &refusals[2];
	if (faults & SMTP_FAULT_LINE)
		return &refusals[3];
	return s->too_big ? &refusals[4] : NULL;
}

bool
smtp_session_refuse_data(struct smtp_session *s, bool last)
{
	enum smtp_reset how;
	const struct smtp_answer *refusal = refusal_of(s, &how);
	uint32_t replies = last ? replies_at_end(s) : 1;

	if (refusal == NULL)
		return false;
	for (uint32_t i = 0; i < replies; i++)
		put(s, refusal);
	end_transaction(s, how, how == SMTP_RESET_FAULT ? smtp_fault_name(s->data.faults) : "");
	settle(s, false);
	return true;
}

void
smtp_session_end_of_data(struct smtp_session *s)
{
	struct smtp_body body = {
		.bytes = s->data.bytes,
		.dots = s->data.dots,
		.eight_bit = s->data.eight_bit,
		.binary = s->binary && s->data.faults != 0,
		.each = s->service->kind == SMTP_KIND_LMTP || (s->prdr && s->n_rcpts > 1),
	};

	smtp_session_enter(s, SMTP_STATE_BODY);
	if (smtp_session_refuse_data(s, true))
		return;
	smtp_session_ask(s, SMTP_ASK_BODY);
	s->ops->on_body(s->user, &body);
}

static bool
step_data(struct smtp_session *s, struct slice *in)
{
	struct slice run;

	switch (smtp_scan_data(&s->data, in, &run)) {
	case SMTP_DATA_MORE:
		return false;
	case SMTP_DATA_END:
		smtp_session_end_of_data(s);
		return true;
	case SMTP_DATA_BYTES:
		break;
	}
	s->too_big = s->too_big || s->data.bytes > s->service->max_bytes;
	if (!s->too_big)
		s->ops->on_bytes(s->user, run);
	return true;
}

/* A line that is none; what an AUTH was about ends with it (RFC 4954 section 4). */
static void
bad_line(struct smtp_session *s, const char *enhanced, const char *text)
{
	bool auth = s->state == SMTP_STATE_AUTH;

	if (auth)
		smtp_session_enter(s, SMTP_STATE_READY);
	smtp_session_refuse(s, auth ? SLICE("AUTH") : SLICE(""), 500, enhanced, text);
}

static bool
step_command(struct smtp_session *s, struct slice *in)
{
	struct smtp_command cmd;

	switch (smtp_scan_command(&s->scanner, in, SMTP_AUTH_LINE_MAX, &cmd)) {
	case SMTP_SCAN_MORE:
		return false;
	case SMTP_SCAN_LONG:
		bad_line(s, "5.5.6", "Line too long");
		break;
	case SMTP_SCAN_BARE:
		bad_line(s, "5.5.2", "A line ends with CRLF and holds no other CR, LF or NUL");
		break;
	case SMTP_SCAN_COMMAND:
		if (s->state == SMTP_STATE_AUTH)
			smtp_session_response(s, cmd.line);
		else
			smtp_session_command(s, &cmd);
		break;
	}
	return true;
}

static bool
step(struct smtp_session *s, struct slice *in)
{
	switch ((enum smtp_state)s->state) {
	case SMTP_STATE_DATA:
		return step_data(s, in);
	case SMTP_STATE_CHUNK:
	case SMTP_STATE_SKIP:
		return smtp_session_bdat_step(s, in);
	default:
		return step_command(s, in);
	}
}

size_t
smtp_session_input(struct smtp_session *s, const struct smtp_turn *turn, struct slice bytes)
{
	struct slice in = bytes;
	bool more = true, moved = false;

	assert(s->turn == NULL);
	s->turn = turn;
	while (more && in.len > 0 && s->asking == SMTP_ASK_NOTHING && s->state < SMTP_STATE_TLS &&
	       turn->out->len < SMTP_OUT_MAX) {
		bool data = takes_data(s);
		size_t before = in.len;

		more = step(s, &in);
		if (data)
			count_data(s, before - in.len);
		moved = moved || more || data; /* half a command line is not a command */
	}
	if (moved)
		s->deadline_ms = turn->now_ms + SMTP_COMMAND_MS;
	shut(s);
	s->turn = NULL;
	/* What came behind STARTTLS in plain text never counts (RFC 3207 section 6), and
	 * nothing does behind our last word. */
	return s->state >= SMTP_STATE_TLS ? bytes.len : bytes.len - in.len;
}

/* ---- from outside ------------------------------------------------------------------------- */

struct smtp_session *
smtp_session_new(const struct smtp_session_ops *ops, void *user, const struct smtp_service *service,
    struct id id)
{
	struct smtp_session *s = calloc(1, sizeof(*s));

	if (s == NULL)
		return NULL;
	s->ops = ops;
	s->user = user;
	s->service = service;
	s->id = id;
	return s;
}

void
smtp_session_free(struct smtp_session *s)
{
	free(s);
}

void
smtp_session_start(struct smtp_session *s, const struct smtp_turn *turn, bool tls)
{
	s->turn = turn;
	s->tls = tls;
	s->deadline_ms = turn->now_ms + SMTP_COMMAND_MS;
	if (s->service->session_s > 0)
		s->end_ms = turn->now_ms + (int64_t)s->service->session_s * 1000;
	smtp_session_ask(s, SMTP_ASK_CONNECT);
	s->ops->on_connect(s->user);
	s->turn = NULL;
}

bool
smtp_session_is_asking(const struct smtp_session *s)
{
	return s->asking != SMTP_ASK_NOTHING;
}

enum smtp_action
smtp_session_action(const struct smtp_session *s)
{
	if (s->asking != SMTP_ASK_NOTHING)
		return SMTP_ACTION_NONE;
	if (s->state == SMTP_STATE_TLS)
		return SMTP_ACTION_TLS;
	return s->state == SMTP_STATE_CLOSED ? SMTP_ACTION_CLOSE : SMTP_ACTION_NONE;
}

/* As after the greeting, but silent (RFC 3207 section 4.2). */
void
smtp_session_tls(struct smtp_session *s, const struct smtp_turn *turn)
{
	assert(s->state == SMTP_STATE_TLS);
	s->tls = true;
	s->extended = s->authenticated = false;
	s->scanner = (struct smtp_scanner){ 0 };
	s->deadline_ms = turn->now_ms + SMTP_COMMAND_MS;
	smtp_session_enter(s, SMTP_STATE_HELO);
	s->turn = turn;
	settle(s, false);
	s->turn = NULL;
}

int64_t
smtp_session_deadline(const struct smtp_session *s)
{
	int64_t at = s->deadline_ms, end = end_of(s);

	if (s->asking != SMTP_ASK_NOTHING || s->state == SMTP_STATE_CLOSED)
		return 0;
	if (takes_data(s) && s->service->rate_s > 0 && s->pace_ms < at)
		at = s->pace_ms;
	return end < at ? end : at;
}

static void
end_for(struct smtp_session *s, const char *what, const char *text)
{
	if (s->ops->on_limit != NULL)
		s->ops->on_limit(s->user, what, text);
	close_with(s, "4.4.2", text);
}

/* The client had its time to send some data. */
static void
look_at_pace(struct smtp_session *s)
{
	if (s->pace_bytes >= s->service->rate_bytes || s->turn->now_ms - s->pace_ms > SMTP_LATE_MS)
		begin_pace(s);
	else
		end_for(s, "data-rate", "Message data comes too slowly (data-rate)");
}

void
smtp_session_tick(struct smtp_session *s, const struct smtp_turn *turn)
{
	int64_t deadline = smtp_session_deadline(s);

	if (deadline == 0 || turn->now_ms < deadline)
		return;
	s->turn = turn;
	if (turn->now_ms >= s->deadline_ms) {
		close_with(s, "4.4.2", "Nothing heard for too long");
		s->ops->on_refused(s->user, SLICE(""), 421, "Nothing heard for too long");
	} else if (turn->now_ms >= end_of(s)) {
		end_for(s, "session-time",
		    "This connection has lasted long enough (session-time); connect again");
	} else {
		look_at_pace(s);
	}
	s->turn = NULL;
}

void
smtp_session_shutdown(struct smtp_session *s, const struct smtp_turn *turn, enum smtp_end why)
{
	s->ending = (uint8_t)why;
	if (s->turn != NULL || s->state == SMTP_STATE_CLOSED)
		return; /* it settles when the call that is running ends */
	s->turn = turn;
	shut(s);
	s->turn = NULL;
}

void
smtp_session_close(struct smtp_session *s)
{
	smtp_session_enter(s, SMTP_STATE_CLOSED);
	s->asking = SMTP_ASK_NOTHING;
	smtp_session_reset(s, SMTP_RESET_CLOSED, "");
}

void
smtp_session_serve(struct smtp_session *s, const struct smtp_service *service)
{
	assert(!s->in_tx);
	s->service = service;
}

void
smtp_session_trust(struct smtp_session *s, unsigned trust)
{
	s->trust = (uint8_t)trust;
}

void
smtp_session_name(struct smtp_session *s, struct id message)
{
	s->message = message;
	s->named = true;
}

bool
smtp_session_is_extended(const struct smtp_session *s)
{
	return s->extended;
}

bool
smtp_session_is_tls(const struct smtp_session *s)
{
	return s->tls;
}

bool
smtp_session_is_authenticated(const struct smtp_session *s)
{
	return s->authenticated;
}

bool
smtp_session_in_transaction(const struct smtp_session *s)
{
	return s->in_tx;
}
