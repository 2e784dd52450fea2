/* tests/unit/smtp/model.h - a role of few words, and what must hold of a session whatever the bytes
 * are.
 *
 * Unit test and fuzz target share it.  The first letter decides: HELO x... is refused, MAIL r...
 * and RCPT n... too, RCPT d... is put off; a message of a length that 7 divides with rest 3 gets
 * 451; where each recipient has an answer, every second one gets 550.  Everything that breaks an
 * invariant calls abort().
 */
#ifndef TESTS_UNIT_SMTP_MODEL_H
#define TESTS_UNIT_SMTP_MODEL_H

#include "must.h"
#include "relayd/smtp/session.h"

#include <stdio.h>
#include <stdlib.h>

struct model {
	struct smtp_session *session;
	struct smtp_turn turn;
	struct buf out; /* as the wire takes it: emptied into sent */
	struct buf sent;
	struct buf events; /* what the role was told, a line each */
	bool tls;          /* from the first byte */
	bool later;        /* answers only when the call has returned */
	bool asked;
	struct smtp_answer answer; /* of the open question */
	bool in_tx;
	unsigned accepted; /* recipients of this transaction */
	unsigned bodies;   /* on_body() in this transaction */
	uint64_t bytes;
	char last;                 /* of them */
	char first;                /* of the reverse-path */
	bool reading;              /* 354 was answered */
	bool binary, utf8;         /* of the transaction */
	bool each;                 /* of the body that is open */
	unsigned trust;            /* set before the session starts */
	bool mail_open, body_open; /* on_mail(), on_body() is the open question */
	const struct smtp_service *service;
};

/* Answers the open question. */
static inline void
model_say(struct model *m)
{
	static const struct smtp_answer full = {
		.code = 550, .enhanced = "5.2.2", .text = SLICE("The model says no to every second")
	};
	struct smtp_answer each[8];
	bool one_by_one = m->body_open && m->each && m->answer.code < 400;
	bool prdr = m->service->kind != SMTP_KIND_LMTP;

	m->in_tx = m->in_tx || (m->mail_open && m->answer.code < 400);
	m->asked = m->body_open = m->mail_open = false;
	if (!one_by_one) {
		smtp_session_answer(m->session, &m->turn, &m->answer);
		return;
	}
	MUST(m->accepted <= ARRAY_LEN(each));
	for (unsigned i = 0; i < m->accepted; i++)
		each[i] = i % 2 == 0 ? m->answer : full;
	smtp_session_answer_each(m->session, &m->turn, each, m->accepted, prdr ? &m->answer : NULL);
}

static inline void
model_answer(struct model *m, unsigned code, const char *enhanced)
{
	m->answer = (struct smtp_answer){ .code = code, .enhanced = enhanced, .text = SLICE("") };
	if (code >= 400)
		m->answer.text = SLICE("The model says no");
	MUST(!m->asked);
	m->asked = true;
	if (!m->later)
		model_say(m);
}

static inline void
model_on_connect(void *user)
{
	model_answer(user, 220, "");
}

static inline void
model_on_helo(void *user, struct slice name, bool extended)
{
	struct model *m = user;

	MUST(!m->in_tx);
	MUST(name.len > 0 && name.len <= SMTP_HELO_MAX);
	buf_printf(&m->events, "helo %.*s %d\n", SLICE_FMT(name), extended);
	model_answer(m, name.p[0] == 'x' ? 550 : 250, "5.7.1");
}

/* NULL: whatever SMTPUTF8 says. */
static inline void
model_must_be_ascii(const struct model *m, struct slice text)
{
	for (size_t i = 0; i < text.len && (m == NULL || !m->utf8); i++)
		MUST((unsigned char)text.p[i] < 0x80);
}

static inline void
model_on_mail(void *user, const struct smtp_mail *mail)
{
	struct model *m = user;
	struct slice mailbox = mail->reverse_path.mailbox;

	MUST(!m->in_tx);
	MUST(mailbox.len <= ADDRESS_PATH_MAX);
	m->first = mailbox.len > 0 ? mailbox.p[0] : '\0';
	m->accepted = m->bodies = 0;
	m->bytes = 0;
	m->binary = mail->body == SMTP_BODY_BINARYMIME;
	m->utf8 = mail->utf8;
	MUST(mail->params.len <= SMTP_PARAMS_MAX);
	MUST(!mail->require_tls || m->service->x_relayd || smtp_session_is_tls(m->session));
	model_must_be_ascii(m, mailbox);
	model_must_be_ascii(NULL, mail->params);
	buf_printf(&m->events, "mail <%.*s> size=%llu key=%.*s", SLICE_FMT(mailbox),
	    (unsigned long long)mail->size, SLICE_FMT(mail->key));
	if (mail->params.len > 0)
		buf_printf(&m->events, " params=%.*s", SLICE_FMT(mail->params));
	buf_printf(&m->events, "%s%s%s%s\n", m->binary ? " binary" : "", m->utf8 ? " utf8" : "",
	    mail->require_tls ? " requiretls" : "", mail->prdr ? " prdr" : "");
	m->mail_open = true;
	model_answer(m, m->first == 'r' ? 550 : 250, m->first == 'r' ? "5.7.1" : "2.1.0");
}

static inline void
model_on_rcpt(void *user, const struct smtp_rcpt *rcpt)
{
	struct model *m = user;
	const struct address *path = &rcpt->forward_path;

	MUST(m->in_tx && !m->reading);
	MUST(path->mailbox.len > 0 && path->mailbox.len <= ADDRESS_PATH_MAX);
	MUST(rcpt->params.len <= SMTP_PARAMS_MAX);
	model_must_be_ascii(m, path->mailbox);
	model_must_be_ascii(NULL, rcpt->params);
	buf_printf(&m->events, "rcpt <%.*s>%s%.*s\n", SLICE_FMT(path->mailbox),
	    rcpt->params.len > 0 ? " " : "", SLICE_FMT(rcpt->params));
	if (path->mailbox.p[0] == 'n') {
		model_answer(m, 550, "5.1.1");
	} else if (path->mailbox.p[0] == 'd') {
		model_answer(m, 450, "4.2.0");
	} else {
		m->accepted++;
		model_answer(m, 250, "");
	}
}

static inline void
model_on_data(void *user)
{
	struct model *m = user;

	MUST(m->in_tx && m->accepted > 0);
	buf_puts(&m->events, "data\n");
	m->reading = m->first != 't';
	model_answer(m, m->reading ? 354 : 452, "4.3.1");
}

static inline void
model_on_bytes(void *user, struct slice bytes)
{
	struct model *m = user;

	MUST(m->in_tx && m->reading && bytes.len > 0);
	MUST(m->binary || memchr(bytes.p, '\0', bytes.len) == NULL);
	/* Whatever the client sent, a line ends with CRLF. */
	for (size_t i = 0; i < bytes.len && !m->binary; i++) {
		MUST((bytes.p[i] == '\n') == (m->bytes + i > 0 && m->last == '\r'));
		m->last = bytes.p[i];
	}
	m->bytes += bytes.len;
	MUST(m->bytes <= m->service->max_bytes);
}

static inline void
model_on_body(void *user, const struct smtp_body *body)
{
	struct model *m = user;

	MUST(m->in_tx && m->reading && m->accepted > 0);
	MUST(body->bytes == m->bytes);
	MUST(m->binary || !body->binary);
	m->each = body->each;
	m->bodies++;
	m->reading = false;
	m->body_open = true;
	buf_printf(&m->events, "body %llu dots=%d eight=%d%s\n", (unsigned long long)body->bytes,
	    body->dots, body->eight_bit, body->binary ? " binary" : "");
	model_answer(m, m->bytes % 7 == 3 ? 451 : 250, m->bytes % 7 == 3 ? "4.3.0" : "");
}

static inline void
model_on_reset(void *user, enum smtp_reset how, const char *why)
{
	struct model *m = user;

	MUST(m->in_tx);
	MUST((how == SMTP_RESET_FAULT) == (why[0] != '\0'));
	MUST(how != SMTP_RESET_DONE || m->bodies == 1);
	m->in_tx = m->reading = false;
	buf_printf(&m->events, "reset %d %s\n", how, why);
}

static inline void
model_on_offer(void *user, struct buf *mechanisms)
{
	struct model *m = user;

	MUST(m->service->auth);
	if (smtp_session_is_tls(m->session))
		buf_puts(mechanisms, "PLAIN X-TEST");
}

static inline void
model_on_auth(void *user, struct slice mechanism, struct slice response, bool has_response)
{
	struct model *m = user;

	MUST(m->service->auth && !smtp_session_is_authenticated(m->session) && !m->in_tx);
	buf_printf(&m->events, "auth %.*s %.*s\n", SLICE_FMT(mechanism), SLICE_FMT(response));
	if (!smtp_session_is_tls(m->session))
		model_answer(m, 538, "5.7.11");
	else if (mechanism.len > 0 && !slice_ieq(mechanism, SLICE("PLAIN")))
		model_answer(m, 504, "5.5.4");
	else if (!has_response)
		model_answer(m, 334, "");
	else
		model_answer(m, slice_eq(response, SLICE("good")) ? 235 : 535, "5.7.8");
}

static inline void
model_on_refused(void *user, struct slice verb, unsigned code, const char *text)
{
	struct model *m = user;

	MUST(code >= 400 && verb.len <= 20 && text[0] != '\0');
	buf_printf(&m->events, "refused %u %.*s\n", code, SLICE_FMT(verb));
}

static inline void
model_put_origin(struct model *m, const char *verb, const struct smtp_origin *o)
{
	MUST(!m->in_tx && o->given != 0);
	MUST(o->addr_len == 0 || o->addr_len == 4 || o->addr_len == 16);
	buf_printf(&m->events, "%s %u name=%.*s helo=%.*s addr=", verb, o->given,
	    SLICE_FMT(o->name), SLICE_FMT(o->helo));
	for (size_t i = 0; i < o->addr_len; i++)
		buf_printf(&m->events, "%02x", o->addr[i]);
	buf_printf(&m->events, " port=%u\n", o->port);
}

static inline void
model_on_xclient(void *user, const struct smtp_origin *origin)
{
	struct model *m = user;

	MUST(m->trust & SMTP_TRUST_XCLIENT);
	model_put_origin(m, "xclient", origin);
	model_answer(m, slice_starts(origin->name, SLICE("x")) ? 554 : 220, "5.7.1");
}

static inline void
model_on_xforward(void *user, const struct smtp_origin *origin)
{
	struct model *m = user;

	MUST(m->trust & SMTP_TRUST_XFORWARD);
	model_put_origin(m, "xforward", origin);
}

static inline void
model_on_limit(void *user, const char *what, const char *text)
{
	struct model *m = user;

	MUST(!m->asked && text[0] != '\0');
	buf_printf(&m->events, "limit %s\n", what);
}

static const struct smtp_session_ops model_ops = {
	.on_connect = model_on_connect,
	.on_helo = model_on_helo,
	.on_mail = model_on_mail,
	.on_rcpt = model_on_rcpt,
	.on_data = model_on_data,
	.on_bytes = model_on_bytes,
	.on_body = model_on_body,
	.on_reset = model_on_reset,
	.on_offer = model_on_offer,
	.on_auth = model_on_auth,
	.on_limit = model_on_limit,
	.on_refused = model_on_refused,
	.on_xclient = model_on_xclient,
	.on_xforward = model_on_xforward,
};

static const struct smtp_service model_services[] = {
	{ .hostname = "mx.test",
	    .max_bytes = 100000,
	    .max_rcpts = 4,
	    .starttls = true,
	    .auth = true },
	{ .hostname = "mx.test", .max_bytes = 300, .max_rcpts = 2 },
	{ .kind = SMTP_KIND_LMTP,
	    .hostname = "mx.test",
	    .max_bytes = 4000,
	    .max_rcpts = 3,
	    .x_relayd = true },
	{ .kind = SMTP_KIND_RELEASE,
	    .hostname = "mx.test",
	    .max_bytes = 4000,
	    .max_rcpts = 3,
	    .x_relayd = true },
	{ .hostname = "mx.test",
	    .max_bytes = 4000,
	    .max_rcpts = 3,
	    .starttls = true,
	    .tls_required = true,
	    .auth = true,
	    .auth_required = true },
	{ .hostname = "mx.test",
	    .max_bytes = 4000,
	    .max_rcpts = 3,
	    .starttls = true,
	    .extensions = SMTP_EXT_ALL,
	    .max_mails = 5 },
	{ .kind = SMTP_KIND_LMTP,
	    .hostname = "mx.test",
	    .max_bytes = 4000,
	    .max_rcpts = 3,
	    .x_relayd = true,
	    .extensions = SMTP_EXT_ALL & ~SMTP_EXT_PRDR },
	{ .hostname = "mx.test",
	    .max_bytes = 4000,
	    .max_rcpts = 3,
	    .extensions = SMTP_EXT_CHUNKING,
	    .session_s = 1000,
	    .rate_bytes = 100,
	    .rate_s = 60 },
};

static inline void
model_init(struct model *m, const struct smtp_service *service, bool later)
{
	*m = (struct model){ .service = service, .later = later };
	m->out = buf_heap(1u << 20);
	m->sent = buf_heap(1u << 24);
	m->events = buf_heap(1u << 22);
	m->turn = (struct smtp_turn){ .now_ms = 1000, .out = &m->out };
	m->session = smtp_session_new(&model_ops, m, service, (struct id){ { 0 } });
	MUST(m->session != NULL);
}

static inline void
model_fini(struct model *m)
{
	smtp_session_close(m->session);
	MUST(!m->in_tx);
	smtp_session_free(m->session);
	buf_fini(&m->out);
	buf_fini(&m->sent);
	buf_fini(&m->events);
}

/* All that is out leaves. */
static inline void
model_flush(struct model *m)
{
	MUST(!m->out.overflow && m->out.len <= SMTP_OUT_MAX + 4096);
	buf_put(&m->sent, buf_slice(&m->out));
	buf_reset(&m->out);
}

/* Gives bytes to the session until it takes no more, answering what it asks.  What is left is an
 * unfinished line. */
static inline struct slice
model_feed(struct model *m, struct slice bytes)
{
	size_t n;

	do {
		bool was_full;

		n = smtp_session_input(m->session, &m->turn, bytes);
		MUST(n <= bytes.len);
		bytes = slice_drop(bytes, n);
		was_full = m->out.len >= SMTP_OUT_MAX;
		if (m->asked) {
			MUST(smtp_session_is_asking(m->session));
			model_say(m);
			n = 1; /* try again */
		}
		model_flush(m);
		if (was_full)
			n = 1;
	} while (bytes.len > 0 && n > 0);
	return bytes;
}

/* The greeting. */
static inline void
model_start(struct model *m)
{
	smtp_session_trust(m->session, m->trust);
	smtp_session_start(m->session, &m->turn, m->tls);
	if (m->asked)
		model_say(m);
	model_flush(m);
}

/* What a client sees that sends bytes in pieces of `cut`, 0 for all at once; up to a handshake. */
static inline void
model_play(struct model *m, struct slice bytes, size_t cut)
{
	struct buf held = buf_heap(1u << 22);

	model_start(m);
	while (bytes.len > 0 && smtp_session_action(m->session) == SMTP_ACTION_NONE) {
		struct slice piece = slice_head(bytes, cut == 0 ? bytes.len : cut), rest;

		bytes = slice_drop(bytes, piece.len);
		buf_put(&held, piece); /* behind what was not taken, as a stream keeps it */
		rest = model_feed(m, buf_slice(&held));
		MUST(rest.len < SMTP_AUTH_LINE_MAX);
		buf_consume(&held, held.len - rest.len);
	}
	buf_fini(&held);
}

#endif
