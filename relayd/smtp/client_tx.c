/* relayd/smtp/client_tx.c - one transaction of the client: its commands in order, and their
 * replies.
 *
 * Its commands are numbered: an RSET where the one before needs it, MAIL, one RCPT for each
 * recipient and DATA, or RSET for a probe.  sent and answered run over these numbers;
 * recipients that cannot be asked for are passed over by both, so replies always find their
 * command.
 */
#include "relayd/smtp/client_tx.h"

#include "relayd/smtp/param.h"

#define TEXTS_BYTES_MAX (1u << 20) /* of the outcomes of one transaction; the rest have no text */
/* RFC 5321 section 4.5.3.1.3 has 256; longer ones are the peer's to refuse */
#define PATH_BYTES_MAX 1000

enum command { CMD_RSET_FIRST, CMD_MAIL, CMD_RCPT, CMD_DATA, CMD_RSET_PROBE, CMD_END };

/* Command number i; for CMD_RCPT *rcpt is its recipient. */
static enum command
command_at(const struct smtp_tx *tx, size_t i, size_t *rcpt)
{
	size_t first = tx->state.rset ? 1 : 0;

	if (i < first)
		return CMD_RSET_FIRST;
	if (i == first)
		return CMD_MAIL;
	if (i <= first + tx->n_rcpts) {
		*rcpt = i - first - 1;
		return CMD_RCPT;
	}
	if (i > first + tx->n_rcpts + 1)
		return CMD_END;
	return (tx->flags & SMTP_TX_PROBE) != 0 ? CMD_RSET_PROBE : CMD_DATA;
}

static size_t
skip_local(const struct smtp_tx *tx, size_t i)
{
	size_t rcpt;

	while (command_at(tx, i, &rcpt) == CMD_RCPT && tx->rcpts[rcpt].outcome.local)
		i++;
	return i;
}

/* ---- what is not sent at all ---------------------------------------------------------------- */

/* RFC 5321 section 4.1.2: no controls, and no < > or space outside of quotes.  A CR or LF here
 * would be a command of the sender's own. */
static bool
path_is_sendable(struct slice path)
{
	bool quoted = false, escaped = false;

	for (size_t i = 0; i < path.len; i++) {
		unsigned char c = (unsigned char)path.p[i];

		if (c < ' ' || c == 0x7f)
			return false;
		if (escaped)
			escaped = false;
		else if (quoted && c == '\\')
			escaped = true;
		else if (c == '"')
			quoted = !quoted;
		else if (!quoted && (c == '<' || c == '>' || c == ' '))
			return false;
	}
	return !quoted && path.len <= PATH_BYTES_MAX;
}

static bool
params_are_sendable(struct slice params)
{
	for (size_t i = 0; i < params.len; i++)
		if (params.p[i] < ' ' || params.p[i] > '~')
			return false;
	return true;
}

static void
refuse(struct smtp_tx_rcpt *rcpt, unsigned code, const char *enhanced, struct slice text)
{
	struct smtp_outcome *o = &rcpt->outcome;

	if (o->code != 0)
		return;
	*o = (struct smtp_outcome){ .code = code, .local = true, .text = text, .command = "MAIL" };
	memcpy(o->enhanced, enhanced, strlen(enhanced) + 1);
}

static void
refuse_all(struct smtp_tx *tx, unsigned code, const char *enhanced, struct slice text)
{
	for (size_t i = 0; i < tx->n_rcpts; i++)
		refuse(&tx->rcpts[i], code, enhanced, text);
}

/* RFC 6531 section 3.5 */
static void
check_utf8(struct smtp_tx *tx)
{
	if (!slice_is_ascii(tx->reverse_path))
		refuse_all(
		    tx, 553, "5.6.7", SLICE("The next hop does not take a UTF-8 reverse-path"));
	for (size_t i = 0; i < tx->n_rcpts; i++)
		if (!slice_is_ascii(tx->rcpts[i].forward_path))
			refuse(&tx->rcpts[i], 553, "5.6.7",
			    SLICE("The next hop does not take UTF-8 addresses"));
	if ((tx->flags & SMTP_TX_UTF8) != 0)
		refuse_all(
		    tx, 554, "5.6.9", SLICE("The next hop does not take UTF-8 header fields"));
}

static void
check_message(struct smtp_tx *tx, const struct smtp_tx_session *session)
{
	unsigned caps = session->caps;

	if ((tx->flags & SMTP_TX_REQUIRETLS) != 0 && (caps & SMTP_CAP_REQUIRETLS) == 0 &&
	    !session->lmtp)
		refuse_all(tx, 550, "5.7.30", SLICE("The next hop does not offer REQUIRETLS"));
	if (!path_is_sendable(tx->reverse_path) || !params_are_sendable(tx->params))
		refuse_all(tx, 553, "5.1.7", SLICE("The reverse-path cannot be sent"));
	if ((caps & SMTP_CAP_SIZE) != 0 && session->size_max != 0 && tx->size > session->size_max)
		refuse_all(tx, 552, "5.3.4", SLICE("Message is larger than the next hop takes"));
	if ((caps & SMTP_CAP_SMTPUTF8) == 0)
		check_utf8(tx); /* before the rest: it says more */
	/* RFC 6152 section 3 and RFC 3030 section 3 leave a choice between a conversion and a
	 * permanent error.  We do not rewrite messages: signatures would break.  Hardly any server
	 * lacks the extension. */
	if ((tx->flags & SMTP_TX_BINARY) != 0 &&
	    ((caps & SMTP_CAP_BINARYMIME) == 0 || (caps & SMTP_CAP_CHUNKING) == 0))
		refuse_all(tx, 554, "5.6.3", SLICE("The next hop does not take binary messages"));
	if ((tx->flags & SMTP_TX_8BIT) != 0 && (caps & SMTP_CAP_8BITMIME) == 0)
		refuse_all(tx, 554, "5.6.3", SLICE("The next hop does not take 8-bit messages"));
}

/* RFC 9422 section 4.2: those beyond RCPTMAX are not asked for in this transaction. */
static void
leave_over(struct smtp_tx *tx, uint32_t max)
{
	uint32_t n = 0;

	for (size_t i = 0; i < tx->n_rcpts && max > 0; i++) {
		struct smtp_tx_rcpt *rcpt = &tx->rcpts[i];

		if (rcpt->outcome.code != 0 || n++ < max)
			continue;
		refuse(rcpt, 452, "4.5.3", SLICE("The next hop takes fewer recipients at once"));
		rcpt->outcome.left_over = true;
	}
}

/* BDAT has no dots to stuff, and no round trip for a 354 where commands go one by one; and its end
 * is none that the message could hold. */
static bool
wants_bdat(const struct smtp_tx *tx, const struct smtp_tx_session *session)
{
	return (session->caps & SMTP_CAP_CHUNKING) != 0 && tx->size > 0 &&
	       (tx->flags & SMTP_TX_PROBE) == 0;
}

static bool
any_left(const struct smtp_tx *tx)
{
	for (size_t i = 0; i < tx->n_rcpts; i++)
		if (tx->rcpts[i].outcome.code == 0)
			return true;
	return false;
}

void
smtp_tx_begin(struct smtp_tx *tx, const struct smtp_tx_session *session, bool rset)
{
	tx->state.rset = rset;
	tx->state.open = false;
	tx->state.sent = tx->state.answered = tx->state.accepted = 0;
	tx->state.texts = arena_of(TEXTS_BYTES_MAX);
	for (size_t i = 0; i < tx->n_rcpts; i++) {
		tx->rcpts[i].outcome = (struct smtp_outcome){ .text = SLICE("") };
		tx->rcpts[i].accepted = false;
		if (tx->rcpts[i].forward_path.len == 0 ||
		    !path_is_sendable(tx->rcpts[i].forward_path) ||
		    !params_are_sendable(tx->rcpts[i].params))
			refuse(
			    &tx->rcpts[i], 553, "5.1.3", SLICE("The forward-path cannot be sent"));
	}
	check_message(tx, session);
	leave_over(tx, session->limits.rcpts);
	tx->state.bdat = wants_bdat(tx, session);
	tx->state.phase = any_left(tx) ? SMTP_TX_COMMANDS : SMTP_TX_END;
}

void
smtp_tx_fini(struct smtp_tx *tx)
{
	arena_fini(&tx->state.texts);
}

/* ---- commands ------------------------------------------------------------------------------- */

static void
put_xtext(struct buf *out, const char *name, struct slice value)
{
	if (value.len == 0)
		return;
	buf_puts(out, name);
	smtp_xtext_put(out, value);
}

static void
put_params(const struct smtp_tx_session *session, struct slice params, struct buf *out)
{
	if (params.len == 0 || (session->caps & SMTP_CAP_DSN) == 0)
		return;
	buf_putc(out, ' ');
	buf_put(out, params);
}

/* Any path that is sent, or the header, is not ASCII; the peer offers it, or it would not be
 * sent. */
static bool
needs_utf8(const struct smtp_tx *tx)
{
	bool needs = (tx->flags & SMTP_TX_UTF8) != 0 || !slice_is_ascii(tx->reverse_path);

	for (size_t i = 0; i < tx->n_rcpts && !needs; i++)
		needs =
		    tx->rcpts[i].outcome.code == 0 && !slice_is_ascii(tx->rcpts[i].forward_path);
	return needs;
}

static void
put_mail(const struct smtp_tx *tx, const struct smtp_tx_session *session, struct buf *out)
{
	buf_puts(out, "MAIL FROM:<");
	buf_put(out, tx->reverse_path);
	buf_putc(out, '>');
	if ((session->caps & SMTP_CAP_SIZE) != 0 && tx->size > 0)
		buf_printf(out, " SIZE=%llu", (unsigned long long)tx->size);
	if ((tx->flags & SMTP_TX_BINARY) != 0)
		buf_puts(out, " BODY=BINARYMIME");
	else if ((tx->flags & SMTP_TX_8BIT) != 0)
		buf_puts(out, " BODY=8BITMIME");
	if (needs_utf8(tx))
		buf_puts(out, " SMTPUTF8");
	if ((tx->flags & SMTP_TX_REQUIRETLS) != 0 && (session->caps & SMTP_CAP_REQUIRETLS) != 0)
		buf_puts(out, " REQUIRETLS");
	put_params(session, tx->params, out);
	if ((session->caps & SMTP_CAP_X_RELAYD) != 0) {
		put_xtext(out, " XID=", tx->xid);
		put_xtext(out, " XKEY=", tx->xkey);
	}
	buf_puts(out, "\r\n");
}

static void
put_rcpt(const struct smtp_tx_rcpt *rcpt, const struct smtp_tx_session *session, struct buf *out)
{
	buf_puts(out, "RCPT TO:<");
	buf_put(out, rcpt->forward_path);
	buf_putc(out, '>');
	put_params(session, rcpt->params, out);
	buf_puts(out, "\r\n");
}

/* BDAT commits to its size, so it waits until somebody wants the message. */
static void
put_bdat(struct smtp_tx *tx, struct buf *out)
{
	if (tx->state.answered < tx->state.sent || tx->state.accepted == 0)
		return;
	buf_printf(out, "BDAT %llu LAST\r\n", (unsigned long long)tx->size);
	tx->state.phase = SMTP_TX_BODY;
}

void
smtp_tx_put(struct smtp_tx *tx, struct smtp_tx_session *session, struct buf *out)
{
	bool pipelining = (session->caps & SMTP_CAP_PIPELINING) != 0;
	size_t rcpt = 0;

	for (;;) {
		if (!pipelining && tx->state.sent > tx->state.answered)
			return;
		tx->state.sent = skip_local(tx, tx->state.sent);
		switch (command_at(tx, tx->state.sent, &rcpt)) {
		case CMD_RSET_FIRST:
		case CMD_RSET_PROBE:
			buf_puts(out, "RSET\r\n");
			break;
		case CMD_MAIL:
			session->mails++;
			put_mail(tx, session, out);
			break;
		case CMD_RCPT:
			put_rcpt(&tx->rcpts[rcpt], session, out);
			break;
		case CMD_DATA:
			if (tx->state.bdat) {
				put_bdat(tx, out); /* now, or after the next reply */
				return;
			}
			buf_puts(out, "DATA\r\n");
			break;
		case CMD_END:
			return;
		}
		tx->state.sent++;
	}
}

/* ---- replies -------------------------------------------------------------------------------- */

static void
set_outcome(struct smtp_tx_rcpt *rcpt, const struct smtp_client_reply *reply, struct slice text,
    const char *command)
{
	struct smtp_outcome *o = &rcpt->outcome;

	*o = (struct smtp_outcome){ .code = reply->code, .text = text, .command = command };
	memcpy(o->enhanced, reply->enhanced, sizeof(o->enhanced));
}

static struct slice
keep_text(struct smtp_tx *tx, const struct smtp_client_reply *reply)
{
	struct slice text = arena_copy(&tx->state.texts, smtp_client_reply_text(reply));

	return text.p != NULL ? text : SLICE("");
}

static void
outcome_for_rest(struct smtp_tx *tx, const struct smtp_client_reply *reply, const char *command)
{
	struct slice text = keep_text(tx, reply);

	for (size_t i = 0; i < tx->n_rcpts; i++)
		if (tx->rcpts[i].outcome.code == 0)
			set_outcome(&tx->rcpts[i], reply, text, command);
}

void
smtp_tx_rest(struct smtp_tx *tx, const struct smtp_client_reply *reply)
{
	outcome_for_rest(tx, reply, smtp_tx_waits_for(tx));
}

static void
rcpt_replied(struct smtp_tx *tx, struct smtp_tx_rcpt *rcpt, const struct smtp_client_reply *reply)
{
	if (rcpt->outcome.code != 0)
		return; /* MAIL was refused, and that is the reason to tell */
	rcpt->accepted = reply->code < 300;
	if (rcpt->accepted)
		tx->state.accepted++;
	if (!rcpt->accepted || (tx->flags & SMTP_TX_PROBE) != 0)
		set_outcome(rcpt, reply, keep_text(tx, reply), "RCPT");
}

static enum smtp_tx_step
end(struct smtp_tx *tx)
{
	tx->state.phase = SMTP_TX_END;
	return SMTP_TX_STEP_END;
}

static enum smtp_tx_step
data_replied(struct smtp_tx *tx, const struct smtp_client_reply *reply)
{
	if (reply->code >= 400) {
		outcome_for_rest(tx, reply, "DATA");
		return end(tx);
	}
	if (reply->code != 354)
		return SMTP_TX_STEP_BAD;
	if (tx->state.accepted > 0) {
		tx->state.phase = SMTP_TX_BODY;
		return SMTP_TX_STEP_BODY;
	}
	tx->state.phase = SMTP_TX_DOT;
	return SMTP_TX_STEP_EMPTY;
}

/* With LMTP the replies stand for the accepted recipients in order (RFC 2033 section 4.2). */
static enum smtp_tx_step
dot_replied(struct smtp_tx *tx, const struct smtp_tx_session *session,
    const struct smtp_client_reply *reply)
{
	if (reply->code >= 300 && reply->code < 400)
		return SMTP_TX_STEP_BAD;
	tx->state.open = false;
	if (!session->lmtp) {
		outcome_for_rest(tx, reply, ".");
		return end(tx);
	}
	for (size_t i = 0; i < tx->n_rcpts; i++) {
		if (tx->rcpts[i].outcome.code != 0)
			continue;
		set_outcome(&tx->rcpts[i], reply, keep_text(tx, reply), ".");
		break;
	}
	return --tx->state.accepted > 0 ? SMTP_TX_STEP_ON : end(tx);
}

/* Without PIPELINING nothing more is said once it is plain that no recipient is left. */
static enum smtp_tx_step
go_on(struct smtp_tx *tx, const struct smtp_tx_session *session, bool mail_refused)
{
	size_t rcpt;

	tx->state.answered = skip_local(tx, tx->state.answered + 1);
	switch (command_at(tx, tx->state.answered, &rcpt)) {
	case CMD_END:
		return end(tx);
	case CMD_DATA:
		if (tx->state.accepted == 0 &&
		    (tx->state.bdat || (session->caps & SMTP_CAP_PIPELINING) == 0))
			return end(tx);
		return SMTP_TX_STEP_ON;
	default:
		if (mail_refused && (session->caps & SMTP_CAP_PIPELINING) == 0)
			return end(tx);
		return SMTP_TX_STEP_ON;
	}
}

enum smtp_tx_step
smtp_tx_reply(struct smtp_tx *tx, const struct smtp_tx_session *session,
    const struct smtp_client_reply *reply)
{
	size_t rcpt = 0;
	bool mail_refused = false;

	if (tx->state.phase == SMTP_TX_DOT)
		return dot_replied(tx, session, reply);
	tx->state.answered = skip_local(tx, tx->state.answered);
	if (tx->state.answered >= tx->state.sent)
		return SMTP_TX_STEP_BAD; /* nothing was asked */
	switch (command_at(tx, tx->state.answered, &rcpt)) {
	case CMD_MAIL:
		mail_refused = reply->code >= 400;
		if (reply->code >= 300 && !mail_refused)
			return SMTP_TX_STEP_BAD;
		tx->state.open = !mail_refused;
		if (mail_refused)
			outcome_for_rest(tx, reply, "MAIL");
		break;
	case CMD_RCPT:
		if (reply->code >= 300 && reply->code < 400)
			return SMTP_TX_STEP_BAD;
		rcpt_replied(tx, &tx->rcpts[rcpt], reply);
		break;
	case CMD_DATA:
		tx->state.answered++;
		return data_replied(tx, reply);
	default:
		tx->state.open = false;
		break; /* whatever an RSET is answered, the next MAIL shows where we are */
	}
	return go_on(tx, session, mail_refused);
}

bool
smtp_tx_needs_rset(const struct smtp_tx *tx)
{
	return tx->state.open;
}

bool
smtp_tx_is_unheard(const struct smtp_tx *tx)
{
	return tx->state.phase < SMTP_TX_BODY && tx->state.answered <= (tx->state.rset ? 1u : 0u);
}

const char *
smtp_tx_waits_for(const struct smtp_tx *tx)
{
	size_t rcpt;

	if (tx->state.phase >= SMTP_TX_BODY)
		return ".";
	switch (command_at(tx, skip_local(tx, tx->state.answered), &rcpt)) {
	case CMD_MAIL:
		return "MAIL";
	case CMD_RCPT:
		return "RCPT";
	case CMD_DATA:
		return "DATA";
	default:
		return "RSET";
	}
}
