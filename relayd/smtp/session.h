/* relayd/smtp/session.h - a server session of SMTP, LMTP (RFC 2033) or our release kind, without a
 * socket.
 *
 * Bytes and the monotonic clock go in; replies come out, in the order of the commands and one for
 * each (RFC 2920).  What only the role can decide is a question: a callback that is answered by one
 * smtp_session_answer(), at once from inside the callback or later.  While a question is open
 * nothing behind it is taken, so that the role sees one thing at a time, in order.
 *
 * The invariants: on_rcpt() and on_body() come only inside a transaction that on_mail() was
 * answered 250 for; a 2xx after the final dot or BDAT LAST is only ever the answer to on_body();
 * on_body() comes only for data without a fault and within the limits.  What follows a BDAT that is
 * refused is taken off the input and never read as commands (RFC 3030 section 2).
 */
#ifndef RELAYD_SMTP_SESSION_H
#define RELAYD_SMTP_SESSION_H

#include "relayd/core/id.h"
#include "relayd/mail/address.h"
#include "relayd/smtp/reply.h"
#include "relayd/smtp/scan.h"

#define SMTP_BAD_COMMANDS 20           /* then 421 */
#define SMTP_BAD_PATHS    100 /* of RCPT refused for good, of MAIL at all, in a row: the same */
#define SMTP_IN_VAIN      100 /* of HELO, and of transactions given up, since a message: the same */
#define SMTP_COMMAND_MS   (300 * 1000) /* for a whole command line: RFC 5321 section 4.5.3.2.7 */
#define SMTP_LATE_MS      1000         /* called so late: it was not the client that was slow */
#define SMTP_HELO_MAX     255          /* bytes */
#define SMTP_KEY_MAX      1000         /* bytes of XKEY=, decoded */
#define SMTP_OUT_MAX      (32 * 1024)  /* replies that wait; over it no command is taken */
#define SMTP_ENVID_MAX    100          /* characters of xtext, RFC 3461 section 4.4 */
#define SMTP_ORCPT_MAX    500          /* of the value, RFC 3461 section 4.2 */
#define SMTP_PARAMS_MAX   800          /* bytes of parameters to hand on, of one path */

struct smtp_session;

enum smtp_kind {
	SMTP_KIND_SMTP,
	SMTP_KIND_LMTP,    /* LHLO; a reply per recipient after the dot */
	SMTP_KIND_RELEASE, /* SMTP, from our own review role */
};

/* Extensions that a service may offer besides those of every session. */
enum smtp_extension {
	SMTP_EXT_CHUNKING = 1, /* and BINARYMIME: RFC 3030 */
	SMTP_EXT_DSN = 2,      /* RFC 3461 */
	SMTP_EXT_UTF8 = 4,     /* SMTPUTF8: RFC 6531 */
	/* RFC 8689: under TLS alone, and with x_relayd, where the socket is no network. */
	SMTP_EXT_REQUIRETLS = 8,
	SMTP_EXT_LIMITS = 16, /* RFC 9422 */
	SMTP_EXT_PRDR = 32,   /* draft-hall-prdr: a reply for each recipient */
	SMTP_EXT_ALL = 63,
};

/* What a client that speaks for others may say; by its address, so not of the service. */
enum smtp_trust {
	SMTP_TRUST_XCLIENT = 1,
	SMTP_TRUST_XFORWARD = 2,
	SMTP_TRUST_LINE_ENDS =
	    4, /* not for others, but as it likes: CR or LF alone ends a line of DATA */
};

/* What the session offers and allows.  Borrowed: stays as it is until the session ends or is
 * given another one. */
struct smtp_service {
	enum smtp_kind kind;
	const char *hostname;
	const char *help;    /* for who is refused and has no other: text or an URL; NULL: none */
	uint64_t max_bytes;  /* of a message */
	uint32_t max_rcpts;  /* of a transaction */
	bool starttls;       /* a certificate is there */
	bool tls_required;   /* no MAIL and no AUTH before STARTTLS */
	bool auth;           /* AUTH, with what on_offer() names */
	bool auth_required;  /* no MAIL before AUTH */
	bool x_relayd;       /* XID= and XKEY= of MAIL: our own roles over a unix socket */
	unsigned extensions; /* set of enum smtp_extension */
	uint32_t max_mails;  /* of a session (MAILMAX); 0: any number */
	/* a session lasts so long, a message under way as long again; 0: any time */
	uint32_t session_s;
	/* Message data comes at least at this pace, else the session ends; rate_s 0: at any.  Where
	 * the role holds data back (smtp_server_hold()) it has to be 0. */
	uint32_t rate_bytes, rate_s;
};

/* BODY= of MAIL: RFC 6152, RFC 3030 */
enum smtp_body_type {
	SMTP_BODY_7BIT, /* the default */
	SMTP_BODY_8BITMIME,
	SMTP_BODY_BINARYMIME,
};

struct smtp_mail {
	struct address reverse_path;
	uint64_t size; /* SIZE=, or 0 */
	bool has_origin;
	struct id origin; /* XID= */
	struct slice key; /* XKEY= decoded, or empty */
	enum smtp_body_type body;
	bool utf8;        /* SMTPUTF8 */
	bool require_tls; /* REQUIRETLS */
	bool prdr;
	struct slice params; /* to hand on: "RET=HDRS ENVID=x", or empty */
};

struct smtp_rcpt {
	struct address forward_path;
	struct slice params; /* to hand on: "NOTIFY=NEVER ORCPT=rfc822;x", or empty */
};

struct smtp_body {
	uint64_t bytes;
	bool dots;      /* ENVELOPE_DOTS */
	bool eight_bit; /* ENVELOPE_8BIT: the data has such bytes, whatever BODY= said */
	bool binary;    /* BODY=BINARYMIME, and it has no lines as other bodies have */
	bool each;      /* PRDR, LMTP: smtp_session_answer_each() may be the answer */
};

enum smtp_origin_field {
	SMTP_ORIGIN_NAME = 1,
	SMTP_ORIGIN_ADDR = 2,
	SMTP_ORIGIN_PORT = 4,
	SMTP_ORIGIN_PROTO = 8,
	SMTP_ORIGIN_HELO = 16,
	SMTP_ORIGIN_IDENT = 32,
	SMTP_ORIGIN_SOURCE = 64,
};

/* Who a client speaks for: XCLIENT and XFORWARD.  What is not known is empty. */
struct smtp_origin {
	unsigned given; /* set of enum smtp_origin_field */
	struct slice name, helo, ident, source, proto;
	uint8_t addr[16];
	size_t addr_len; /* 4, 16, or 0 */
	uint16_t port;
};

enum smtp_reset {
	SMTP_RESET_ASKED,   /* RSET, a new EHLO, STARTTLS, QUIT */
	SMTP_RESET_FAULT,   /* the data broke a rule; why says which ("bare-lf") */
	SMTP_RESET_SIZE,    /* the data passed max_bytes */
	SMTP_RESET_REFUSED, /* on_data() or on_body() was answered 4xx or 5xx */
	SMTP_RESET_DONE,    /* on_body() was answered 2xx */
	SMTP_RESET_CLOSED,  /* timeout, 421, or smtp_session_close() */
};

/* Questions (must be answered) and news.  Slices live as long as the call. */
struct smtp_session_ops {
	/* Question, first of all: 220 with an empty text is the usual greeting; 4xx and 5xx
	 * close. */
	void (*on_connect)(void *user);
	/* Question; answered 250 (the text is the session's own) or an error. */
	void (*on_helo)(void *user, struct slice name, bool extended);
	/* Question; 2xx begins a transaction, which on_reset() ends. */
	void (*on_mail)(void *user, const struct smtp_mail *mail);
	void (*on_rcpt)(void *user, const struct smtp_rcpt *rcpt);
	/* Question; 354 begins the data, also that of a first BDAT. */
	void (*on_data)(void *user);
	/* News: the next run of the message. */
	void (*on_bytes)(void *user, struct slice bytes);
	/* Question: the message is whole.  Where body->each is set it may be answered by
	 * smtp_session_answer_each(). */
	void (*on_body)(void *user, const struct smtp_body *body);
	/* News: the transaction is over.  why is "" but for a fault. */
	void (*on_reset)(void *user, enum smtp_reset how, const char *why);
	/* Not a question, but asked for EHLO and MAIL with service.auth: appends the mechanisms
	 * that can be used here and now, with a space between two; nothing for none. */
	void (*on_offer)(void *user, struct buf *mechanisms);
	/* Question: AUTH with a mechanism, offered or not, and its initial response where
	 * has_response; later, mechanism empty, the response to each challenge.  334 goes on with
	 * text as the challenge, 235 is success.  A client that gives up is news of on_refused(),
	 * for AUTH; the next AUTH begins anew. */
	void (*on_auth)(
	    void *user, struct slice mechanism, struct slice response, bool has_response);
	/* News: the session refused a command by itself, or ended for silence (421, no verb).
	 * Never holds what followed AUTH. */
	void (*on_refused)(void *user, struct slice verb, unsigned code, const char *text);
	/* News: the session is about to end for a limit of the service; what: "session-time",
	 * "data-rate". May be NULL. */
	void (*on_limit)(void *user, const char *what, const char *text);
	/* Question: XCLIENT, and the session begins anew as after on_connect(), whose answers these
	 * are.  May be NULL where nobody is trusted with it. */
	void (*on_xclient)(void *user, const struct smtp_origin *origin);
	/* News: XFORWARD, for the next message; several add up.  NULL as above. */
	void (*on_xforward)(void *user, const struct smtp_origin *origin);
};

/* When a call happens and where its replies go.  A call from inside a callback passes the same. */
struct smtp_turn {
	int64_t now_ms; /* monotonic */
	struct buf *out;
};

/* NULL when out of memory.  The first question comes from smtp_session_start(). */
struct smtp_session *smtp_session_new(const struct smtp_session_ops *ops, void *user,
    const struct smtp_service *service, struct id id);
void smtp_session_free(struct smtp_session *s);
/* tls: the connection is under TLS from its first byte. */
void smtp_session_start(struct smtp_session *s, const struct smtp_turn *turn, bool tls);

/* Returns how many of the bytes were taken.  The rest comes again, in front of what follows, with
 * the next call: when more is there, after an answer, or when replies have left. */
size_t smtp_session_input(struct smtp_session *s, const struct smtp_turn *turn, struct slice bytes);

/* Answers the open question.  2xx and 3xx texts may be empty: the usual one is put. */
void smtp_session_answer(
    struct smtp_session *s, const struct smtp_turn *turn, const struct smtp_answer *answer);
/* Answers on_body(): one for each recipient that was accepted, in their order.  all: the reply to
 * the whole message that PRDR puts behind them; NULL with LMTP.  (One smtp_session_answer() is said
 * to all.) */
void smtp_session_answer_each(struct smtp_session *s, const struct smtp_turn *turn,
    const struct smtp_answer *answers, size_t n, const struct smtp_answer *all);
bool smtp_session_is_asking(const struct smtp_session *s);

/* To be done behind the replies that are out. */
enum smtp_action {
	SMTP_ACTION_NONE,
	SMTP_ACTION_TLS, /* drop all that was read, shake hands, call smtp_session_tls() */
	SMTP_ACTION_CLOSE,
};
enum smtp_action smtp_session_action(const struct smtp_session *s);
/* The handshake that SMTP_ACTION_TLS asked for is done. */
void smtp_session_tls(struct smtp_session *s, const struct smtp_turn *turn);

/* When smtp_session_tick() is due, 0 for not at all; before that a tick does nothing. */
int64_t smtp_session_deadline(const struct smtp_session *s);
void smtp_session_tick(struct smtp_session *s, const struct smtp_turn *turn);

enum smtp_end {
	SMTP_END_NOT,
	SMTP_END_SERVICE, /* 4.3.2: this process ends */
	SMTP_END_PROXY,   /* 4.7.0: a PROXY header came from where none is welcome */
};
/* Ends the session as soon as it may: at once with 421, which says why, between transactions, else
 * behind the one that is running. */
void smtp_session_shutdown(
    struct smtp_session *s, const struct smtp_turn *turn, enum smtp_end why);
/* The connection is gone: the last on_reset(), if one is due.  An open question needs no answer. */
void smtp_session_close(struct smtp_session *s);

/* Another service from now on; only outside of a transaction. */
void smtp_session_serve(struct smtp_session *s, const struct smtp_service *service);
/* What this client may say for others: set of enum smtp_trust.  Only outside of a transaction. */
void smtp_session_trust(struct smtp_session *s, unsigned trust);
/* The message id that replies of this transaction name instead of the session's; from on_mail(). */
void smtp_session_name(struct smtp_session *s, struct id message);

bool smtp_session_is_extended(const struct smtp_session *s); /* EHLO or LHLO, not HELO */
bool smtp_session_is_tls(const struct smtp_session *s);
bool smtp_session_is_authenticated(const struct smtp_session *s);
bool smtp_session_in_transaction(const struct smtp_session *s);

#endif
