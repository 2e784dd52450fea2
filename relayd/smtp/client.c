/* relayd/smtp/client.c - the client side of SMTP and LMTP: the session around the transactions. */
#include "relayd/smtp/client.h"

#include "relayd/smtp/client_login.h"
#include "relayd/smtp/client_tx.h"

#include <stdlib.h>

/* RFC 5321 section 4.5.3.2: the least that a client should wait for each. */
#define GREETING_MS 300000
#define COMMAND_MS  300000 /* EHLO, MAIL, RCPT */
#define DATA_MS     120000
#define BLOCK_MS    180000
#define DOT_MS      600000
#define QUIT_MS     10000 /* ours: nothing depends on it */

enum state {
	STATE_GREETING, /* 220 is awaited */
	STATE_EHLO,     /* EHLO or LHLO is sent */
	STATE_HELO,     /* HELO is sent, after EHLO was not understood */
	STATE_STARTTLS, /* STARTTLS is sent */
	STATE_TLS,      /* shaking hands */
	STATE_AUTH,     /* logging in */
	STATE_READY,    /* transactions */
	STATE_QUIT,     /* QUIT is sent */
	STATE_CLOSED,
};

struct smtp_client {
	struct smtp_client_options options;
	enum state state;
	struct smtp_tx_session session;
	struct smtp_client_login login;
	bool tls_done, body_wanted, close_told;
	bool body_begun; /* by BDAT: it was wanted, and is not done */
	bool dot_sent;   /* and the next transaction has not followed it yet */
	bool quitting;   /* QUIT goes out when no transaction is left */
	bool need_rset;
	struct smtp_tx *tx[SMTP_CLIENT_AHEAD]; /* the first is in work; others follow in order */
	size_t n_tx;
	struct smtp_tx *finished;
	struct smtp_client_reply reply; /* as far as it has come */
	uint64_t n_replies;
	bool refused;                   /* reply ended the session */
	bool refused_login;             /* it was one to AUTH */
	bool knows_no_bdat;
	struct err err;
};

struct smtp_client *
smtp_client_new(const struct smtp_client_options *options, struct err *err)
{
	struct smtp_client *c = calloc(1, sizeof(*c));

	if (c == NULL) {
		err_set(err, ERR_NOMEM, "out of memory");
		return NULL;
	}
	c->options = *options;
	c->session.lmtp = options->lmtp;
	c->tls_done = options->tls_is_on;
	c->login.login = options->login;
	return c;
}

void
smtp_client_free(struct smtp_client *c)
{
	if (c != NULL)
		smtp_client_login_fini(&c->login);
	free(c);
}

/* ---- the end -------------------------------------------------------------------------------- */

static void
closed(struct smtp_client *c)
{
	c->state = STATE_CLOSED;
	c->body_wanted = false;
}

/* The reply in c->reply ends the session; it is kept for smtp_client_error(). */
static void
refused(struct smtp_client *c, enum err_code code, const char *what)
{
	struct slice text = smtp_client_reply_text(&c->reply);

	err_set(&c->err, code, "%s was answered %u %s%s%.*s", what, c->reply.code,
	    c->reply.enhanced, c->reply.enhanced[0] != '\0' ? " " : "", SLICE_FMT(text));
	c->refused = true;
	closed(c);
}

static void
protocol_error(struct smtp_client *c, const char *what)
{
	err_set(&c->err, ERR_PROTOCOL, "%s", what);
	closed(c);
}

/* ---- greeting and extensions ---------------------------------------------------------------- */

static void
put_hello(struct smtp_client *c, const char *verb, enum state state, struct buf *out)
{
	buf_printf(out, "%s %s\r\n", verb, c->options.hostname);
	c->session.caps = 0;
	c->session.size_max = 0;
	c->session.limits = (struct smtp_client_limits){ 0 };
	smtp_client_login_reset(&c->login);
	c->state = state;
}

static void
put_ehlo(struct smtp_client *c, struct buf *out)
{
	put_hello(c, c->options.lmtp ? "LHLO" : "EHLO", STATE_EHLO, out);
}

/* "RCPTMAX=100 MAILMAX=20"; others, and what is no number, are passed over (RFC 9422 section 3). */
static void
learn_limits(struct smtp_client_limits *limits, struct slice rest)
{
	while (rest.len > 0) {
		struct slice one = slice_until(slice_trim(rest), ' ');
		struct slice name = slice_until(one, '='), value = slice_drop(one, name.len + 1);
		uint64_t n;

		rest = slice_trim(rest);
		rest = slice_drop(rest, one.len);
		if (!slice_u64(value, UINT32_MAX, &n))
			continue;
		if (slice_ieq(name, SLICE("RCPTMAX")))
			limits->rcpts = (uint32_t)n;
		else if (slice_ieq(name, SLICE("MAILMAX")))
			limits->mails = (uint32_t)n;
	}
}

/* One line of the reply to EHLO (RFC 5321 section 4.1.1.1); the first only greets. */
static void
learn_extension(struct smtp_client *c, struct slice line)
{
	static const struct {
		const char *keyword;
		enum smtp_client_cap cap;
	} known[] = {
		{ "PIPELINING", SMTP_CAP_PIPELINING },
		{ "SIZE", SMTP_CAP_SIZE },
		{ "8BITMIME", SMTP_CAP_8BITMIME },
		{ "SMTPUTF8", SMTP_CAP_SMTPUTF8 },
		{ "STARTTLS", SMTP_CAP_STARTTLS },
		{ "DSN", SMTP_CAP_DSN },
		{ "ENHANCEDSTATUSCODES", SMTP_CAP_ENHANCED },
		{ "X-RELAYD", SMTP_CAP_X_RELAYD },
		{ "CHUNKING", SMTP_CAP_CHUNKING },
		{ "BINARYMIME", SMTP_CAP_BINARYMIME },
		{ "REQUIRETLS", SMTP_CAP_REQUIRETLS },
	};
	struct slice keyword = slice_until(line, ' ');

	if (c->reply.lines == 1)
		return;
	for (size_t i = 0; i < ARRAY_LEN(known); i++)
		if (slice_ieq(keyword, slice_str(known[i].keyword)))
			c->session.caps |= known[i].cap;
	if (c->options.no_bdat)
		c->session.caps &= ~(unsigned)(SMTP_CAP_CHUNKING | SMTP_CAP_BINARYMIME);
	if (slice_ieq(keyword, SLICE("SIZE")) &&
	    !slice_u64(slice_trim(slice_drop(line, keyword.len)), UINT64_MAX, &c->session.size_max))
		c->session.size_max = 0; /* RFC 1870 section 4: none, or no fixed one */
	if (slice_ieq(keyword, SLICE("AUTH")))
		smtp_client_login_learn(&c->login, slice_drop(line, keyword.len));
	if (slice_ieq(keyword, SLICE("LIMITS")))
		learn_limits(&c->session.limits, slice_drop(line, keyword.len));
}

static bool
must_encrypt(const struct smtp_client *c)
{
	return c->options.tls == SMTP_CLIENT_TLS_MUST && !c->tls_done;
}

static void
login_failed(struct smtp_client *c)
{
	c->err.code = ERR_DENIED; /* whatever it was, we are not let in */
	closed(c);
}

/* Where a login is wanted, nothing goes out without one. */
static enum smtp_client_event
ready(struct smtp_client *c, struct buf *out)
{
	if (must_encrypt(c)) {
		err_set(&c->err, ERR_TLS, "STARTTLS is not offered, and the route wants it");
		closed(c);
		return SMTP_CLIENT_MORE;
	}
	if (c->login.login != NULL) {
		c->state = STATE_AUTH;
		c->login.offer.tls = c->tls_done;
		if (smtp_client_login_begin(&c->login, out, &c->err) < 0)
			login_failed(c);
		return SMTP_CLIENT_MORE;
	}
	c->state = STATE_READY;
	return SMTP_CLIENT_READY;
}

static enum smtp_client_event
auth_replied(struct smtp_client *c, struct buf *out)
{
	switch (smtp_client_login_reply(&c->login, &c->reply, out, &c->err)) {
	case SMTP_CLIENT_LOGIN_ON:
		return SMTP_CLIENT_MORE;
	case SMTP_CLIENT_LOGIN_DONE:
		c->state = STATE_READY;
		return SMTP_CLIENT_READY;
	case SMTP_CLIENT_LOGIN_REFUSED:
		c->refused_login = true;
		refused(c, ERR_DENIED, c->login.name);
		return SMTP_CLIENT_MORE;
	case SMTP_CLIENT_LOGIN_FAILED:
		login_failed(c);
		return SMTP_CLIENT_MORE;
	}
	return SMTP_CLIENT_MORE;
}

static enum smtp_client_event
hello_replied(struct smtp_client *c, struct buf *out)
{
	bool offered = (c->session.caps & SMTP_CAP_STARTTLS) != 0;

	if (c->reply.code >= 500 && c->state == STATE_EHLO && !c->options.lmtp) {
		put_hello(c, "HELO", STATE_HELO, out); /* RFC 5321 section 3.2 */
		return SMTP_CLIENT_MORE;
	}
	if (c->reply.code != 250) {
		refused(c, ERR_DENIED, c->options.lmtp ? "LHLO" : "EHLO");
		return SMTP_CLIENT_MORE;
	}
	if (!offered || c->tls_done || c->options.tls == SMTP_CLIENT_TLS_OFF)
		return ready(c, out);
	buf_puts(out, "STARTTLS\r\n");
	c->state = STATE_STARTTLS;
	return SMTP_CLIENT_MORE;
}

static enum smtp_client_event
starttls_replied(struct smtp_client *c, struct buf *out)
{
	if (c->reply.code == 220) {
		c->state = STATE_TLS;
		return SMTP_CLIENT_TLS;
	}
	if (c->options.tls == SMTP_CLIENT_TLS_MUST) {
		refused(c, ERR_TLS, "STARTTLS");
		return SMTP_CLIENT_MORE;
	}
	return ready(c, out);
}

void
smtp_client_bind(struct smtp_client *c, struct slice exporter, struct slice unique)
{
	struct smtp_login_offer *offer = &c->login.offer;

	offer->exporter_len = exporter.len <= sizeof(offer->exporter) ? exporter.len : 0;
	offer->unique_len = unique.len <= sizeof(offer->unique) ? unique.len : 0;
	memcpy(offer->exporter, exporter.p, offer->exporter_len);
	memcpy(offer->unique, unique.p, offer->unique_len);
}

bool
smtp_client_logging_in(const struct smtp_client *c)
{
	return c->state == STATE_AUTH;
}

void
smtp_client_tls_done(struct smtp_client *c, struct buf *out)
{
	c->tls_done = true;
	put_ehlo(c, out);
}

/* ---- transactions --------------------------------------------------------------------------- */

static void
put_quit(struct smtp_client *c, struct buf *out)
{
	buf_puts(out, "QUIT\r\n");
	c->state = STATE_QUIT;
}

/* Sends what can be sent of transaction i. */
static void
advance(struct smtp_client *c, size_t i, struct buf *out)
{
	struct smtp_tx *tx = c->tx[i];

	if (tx->state.phase == SMTP_TX_QUEUED) {
		smtp_tx_begin(tx, &c->session, c->need_rset);
		c->need_rset = false;
	}
	if (tx->state.phase == SMTP_TX_COMMANDS)
		smtp_tx_put(tx, &c->session, out);
	if (tx->state.phase == SMTP_TX_BODY && tx->state.bdat && i == 0 && !c->body_begun) {
		c->body_begun = true; /* no 354 is awaited */
		c->body_wanted = true;
	}
}

/* The next one may follow the dot of the first at once (RFC 2920 section 3.1). */
static void
advance_all(struct smtp_client *c, struct buf *out)
{
	bool pipelining = (c->session.caps & SMTP_CAP_PIPELINING) != 0;

	if (c->state != STATE_READY)
		return;
	for (size_t i = 0; i < c->n_tx; i++) {
		advance(c, i, out);
		if (c->tx[i]->state.phase != SMTP_TX_END &&
		    (!pipelining || c->tx[i]->state.phase != SMTP_TX_DOT))
			break;
	}
	if (c->n_tx == 0 && c->quitting)
		put_quit(c, out);
}

/* The first transaction is over: it is told as finished, and the next moves up. */
static void
finish_first(struct smtp_client *c)
{
	c->finished = c->tx[0];
	c->need_rset = c->need_rset || smtp_tx_needs_rset(c->finished);
	c->n_tx--;
	memmove(&c->tx[0], &c->tx[1], c->n_tx * sizeof(c->tx[0]));
}

/* By those that are queued too. */
bool
smtp_client_used_up(const struct smtp_client *c)
{
	uint32_t max = c->session.limits.mails, n = c->session.mails;

	for (size_t i = 0; i < c->n_tx; i++)
		n += c->tx[i]->state.phase == SMTP_TX_QUEUED;
	return max > 0 && n >= max;
}

bool
smtp_client_can_send(const struct smtp_client *c)
{
	return c->state == STATE_READY && !c->quitting && c->n_tx < SMTP_CLIENT_AHEAD &&
	       !smtp_client_used_up(c);
}

void
smtp_client_send(struct smtp_client *c, struct smtp_tx *tx, struct buf *out)
{
	tx->state.phase = SMTP_TX_QUEUED;
	c->tx[c->n_tx++] = tx;
	advance_all(c, out);
}

void
smtp_client_body_done(struct smtp_client *c, bool ends_crlf, struct buf *out)
{
	if (c->state != STATE_READY || c->n_tx == 0 || c->tx[0]->state.phase != SMTP_TX_BODY)
		return; /* the session ended meanwhile */
	if (!c->tx[0]->state.bdat)
		buf_puts(out, ends_crlf ? ".\r\n" : "\r\n.\r\n");
	c->body_begun = false;
	c->tx[0]->state.phase = SMTP_TX_DOT;
	c->dot_sent = true;
}

void
smtp_client_quit(struct smtp_client *c, struct buf *out)
{
	c->quitting = true;
	if (c->state == STATE_EHLO || c->state == STATE_HELO || c->state == STATE_STARTTLS)
		put_quit(c, out);
	else if (c->state == STATE_READY)
		advance_all(c, out);
	else if (c->state != STATE_QUIT)
		closed(c);
}

/* 421 to the MAIL of a session that has served others is no word about this one: it had been idle
 * for too long, or had its share.  The next session takes it, and what it says there counts. */
static bool
ends_before_it(const struct smtp_client *c, const struct smtp_tx *tx)
{
	return c->reply.code == 421 && c->finished != NULL && smtp_tx_is_unheard(tx);
}

/* The session ends in the middle of a transaction, by a reply that its recipients are to see. */
static void
broken_off(struct smtp_client *c, enum err_code code)
{
	const char *what = "Idling";

	if (c->n_tx > 0 && c->tx[0]->state.phase != SMTP_TX_QUEUED) {
		what = smtp_tx_waits_for(c->tx[0]);
		if (c->reply.code >= 400 && !ends_before_it(c, c->tx[0])) {
			smtp_tx_rest(c->tx[0], &c->reply);
			c->tx[0]->state.phase = SMTP_TX_END;
		}
	}
	refused(c, code, what);
}

static bool
any_answered(const struct smtp_tx *tx)
{
	for (size_t i = 0; i < tx->n_rcpts; i++)
		if (tx->rcpts[i].accepted && tx->rcpts[i].outcome.code != 0)
			return true;
	return false;
}

/* 500 and 502 (RFC 5321 section 4.2.4), or what else is about syntax (section 4.2.1), as Exim's
 * 503: no word about the message.  With LMTP it may yet be one about a recipient: who answered for
 * one knows BDAT, and of the rest the message is not sent again to those whose replies are still to
 * come. */
static bool
does_not_know_bdat(const struct smtp_client *c, const struct smtp_tx *tx, unsigned code)
{
	if (!tx->state.bdat || tx->state.phase < SMTP_TX_BODY || any_answered(tx))
		return false;
	return code == 500 || code == 502 || (code / 10 == 50 && !c->options.lmtp);
}

static enum smtp_client_event
transaction_replied(struct smtp_client *c, struct buf *out)
{
	struct smtp_tx *tx = c->n_tx > 0 ? c->tx[0] : NULL;

	if (c->reply.code == 421) {
		broken_off(c, ERR_CLOSED);
		return SMTP_CLIENT_MORE;
	}
	if (tx != NULL && does_not_know_bdat(c, tx, c->reply.code)) {
		c->knows_no_bdat = true;
		protocol_error(c, "CHUNKING is offered, and BDAT is not known");
		return SMTP_CLIENT_MORE;
	}
	if (tx == NULL || (tx->state.phase != SMTP_TX_COMMANDS && tx->state.phase != SMTP_TX_DOT)) {
		broken_off(c, ERR_PROTOCOL); /* nothing was asked */
		return SMTP_CLIENT_MORE;
	}
	switch (smtp_tx_reply(tx, &c->session, &c->reply)) {
	case SMTP_TX_STEP_ON:
		advance_all(c, out);
		break;
	case SMTP_TX_STEP_BODY:
		c->body_wanted = true;
		break;
	case SMTP_TX_STEP_EMPTY:
		buf_puts(out, ".\r\n");
		if (c->options.lmtp) {
			/* RFC 2033 section 4.2 has no 354 here: who knows how many replies come. */
			tx->state.phase = SMTP_TX_END;
			protocol_error(c, "DATA was answered 354 without a recipient");
		}
		advance_all(c, out);
		break;
	case SMTP_TX_STEP_END:
		break;
	case SMTP_TX_STEP_BAD:
		broken_off(c, ERR_PROTOCOL);
		break;
	}
	return SMTP_CLIENT_MORE;
}

/* ---- steps ---------------------------------------------------------------------------------- */

static enum smtp_client_event
replied(struct smtp_client *c, struct buf *out)
{
	switch (c->state) {
	case STATE_GREETING:
		if (c->reply.code == 220)
			put_ehlo(c, out);
		else
			refused(c, ERR_DENIED, "The connection");
		return SMTP_CLIENT_MORE;
	case STATE_EHLO:
	case STATE_HELO:
		return hello_replied(c, out);
	case STATE_STARTTLS:
		return starttls_replied(c, out);
	case STATE_AUTH:
		return auth_replied(c, out);
	case STATE_READY:
		return transaction_replied(c, out);
	default:
		closed(c); /* whatever QUIT is answered */
		return SMTP_CLIENT_MORE;
	}
}

/* What is to be told before any more input is looked at. */
static enum smtp_client_event
pending(struct smtp_client *c, struct buf *out)
{
	if (c->n_tx > 0 && c->tx[0]->state.phase == SMTP_TX_END) {
		finish_first(c);
		advance_all(c, out);
		return SMTP_CLIENT_DONE;
	}
	if (c->body_wanted) {
		c->body_wanted = false;
		return SMTP_CLIENT_BODY;
	}
	if (c->dot_sent) {
		c->dot_sent = false;
		advance_all(c, out);
	}
	if (c->state == STATE_CLOSED && !c->close_told) {
		c->close_told = true;
		return SMTP_CLIENT_CLOSE;
	}
	return SMTP_CLIENT_MORE;
}

enum smtp_client_event
smtp_client_step(struct smtp_client *c, struct slice *in, struct buf *out)
{
	enum smtp_client_event event;
	struct slice line;

	for (;;) {
		event = pending(c, out);
		if (event != SMTP_CLIENT_MORE)
			return event;
		if (c->state == STATE_CLOSED || c->state == STATE_TLS) {
			*in = slice_drop(*in, in->len); /* RFC 3207: nothing from before counts */
			return SMTP_CLIENT_MORE;
		}
		switch (smtp_client_reply_line(&c->reply, in, &line)) {
		case SMTP_LINE_MORE:
			return SMTP_CLIENT_MORE;
		case SMTP_LINE_BAD:
			protocol_error(c, "the peer sent what is no reply");
			continue;
		case SMTP_LINE_CONTINUES:
			if (c->state == STATE_EHLO)
				learn_extension(c, line);
			continue;
		case SMTP_LINE_LAST:
			if (c->state == STATE_EHLO)
				learn_extension(c, line);
			break;
		}
		c->n_replies++;
		event = replied(c, out);
		if (!c->refused)
			c->reply = (struct smtp_client_reply){ 0 };
		if (event != SMTP_CLIENT_MORE)
			return event;
	}
}

/* ---- what is known -------------------------------------------------------------------------- */

struct smtp_tx *
smtp_client_current(struct smtp_client *c)
{
	return c->n_tx > 0 ? c->tx[0] : NULL;
}

struct smtp_tx *
smtp_client_finished(struct smtp_client *c)
{
	return c->finished;
}

unsigned
smtp_client_caps(const struct smtp_client *c)
{
	return c->session.caps;
}

const struct smtp_client_limits *
smtp_client_limits(const struct smtp_client *c)
{
	return &c->session.limits;
}

bool
smtp_client_knows_no_bdat(const struct smtp_client *c)
{
	return c->knows_no_bdat;
}

bool
smtp_client_chunked(const struct smtp_client *c)
{
	return c->n_tx > 0 && c->tx[0]->state.bdat;
}

static uint32_t
transaction_timeout(const struct smtp_tx *tx)
{
	switch (tx->state.phase) {
	case SMTP_TX_BODY:
		return BLOCK_MS;
	case SMTP_TX_DOT:
		return DOT_MS;
	default:
		return strcmp(smtp_tx_waits_for(tx), "DATA") == 0 ? DATA_MS : COMMAND_MS;
	}
}

uint32_t
smtp_client_timeout_ms(const struct smtp_client *c)
{
	switch (c->state) {
	case STATE_GREETING:
		return GREETING_MS;
	case STATE_QUIT:
		return QUIT_MS;
	case STATE_READY:
		return c->n_tx > 0 ? transaction_timeout(c->tx[0]) : 0;
	case STATE_CLOSED:
		return 0;
	default:
		return COMMAND_MS;
	}
}

uint64_t
smtp_client_replies(const struct smtp_client *c)
{
	return c->n_replies;
}

const struct err *
smtp_client_error(const struct smtp_client *c, struct smtp_outcome *reply)
{
	if (reply != NULL) {
		*reply = (struct smtp_outcome){ .text = SLICE("") };
		if (c->refused && c->reply.code >= 400) { /* a yes out of turn is none */
			reply->code = c->reply.code;
			reply->command = c->refused_login ? "AUTH" : NULL;
			reply->text = smtp_client_reply_text(&c->reply);
			memcpy(reply->enhanced, c->reply.enhanced, sizeof(reply->enhanced));
		}
	}
	return &c->err;
}
