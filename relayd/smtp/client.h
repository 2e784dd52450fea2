/* relayd/smtp/client.h - the client side of SMTP (RFC 5321) and LMTP (RFC 2033), without a socket.
 *
 * Bytes of the peer go in, commands come out, events tell the owner what to do next.  Two
 * transactions may overlap: where the peer offers PIPELINING (RFC 2920), the commands of the
 * next one leave together with the last bytes of the one before, whose reply is still to come.
 *
 *	while ((event = smtp_client_step(c, &in, out)) != SMTP_CLIENT_MORE)
 *		...
 *
 * What RFC 5321 section 4.1.2 forbids in a path or parameter is never sent: its recipient fails.
 */
#ifndef RELAYD_SMTP_CLIENT_H
#define RELAYD_SMTP_CLIENT_H

#include "relayd/core/arena.h"
#include "relayd/core/buf.h"
#include "relayd/core/err.h"
#include "relayd/core/slice.h"
#include "relayd/smtp/login.h"

#define SMTP_CLIENT_LINE_MAX  2048 /* of a reply; RFC 5321 section 4.5.3.1.5 asks for 512 */
#define SMTP_CLIENT_LINES_MAX 256  /* of one reply */
#define SMTP_CLIENT_TEXT_MAX  512  /* of a reply that is kept: the rest is cut */
#define SMTP_CLIENT_AHEAD     2    /* transactions on one session at a time */

struct smtp_client;

enum smtp_client_tls {
	SMTP_CLIENT_TLS_OFF,
	SMTP_CLIENT_TLS_TRY,  /* STARTTLS where it is offered */
	SMTP_CLIENT_TLS_MUST, /* or no mail */
};

enum smtp_client_cap { /* what EHLO or LHLO offered */
	SMTP_CAP_PIPELINING = 1,
	SMTP_CAP_SIZE = 2,
	SMTP_CAP_8BITMIME = 4,
	SMTP_CAP_SMTPUTF8 = 8,
	SMTP_CAP_STARTTLS = 16,
	SMTP_CAP_DSN = 32,      /* RFC 3461: else the params of paths are not handed on */
	SMTP_CAP_ENHANCED = 64, /* RFC 2034 */
	/* Our own, between relayd's processes: MAIL takes XID= and XKEY=. */
	SMTP_CAP_X_RELAYD = 128,
	SMTP_CAP_CHUNKING = 256, /* RFC 3030 */
	SMTP_CAP_BINARYMIME = 512,
	SMTP_CAP_REQUIRETLS = 1024, /* RFC 8689 */
};

/* What LIMITS said (RFC 9422); 0: nothing. */
struct smtp_client_limits {
	uint32_t rcpts; /* RCPTMAX: of a transaction */
	uint32_t mails; /* MAILMAX: transactions of a session */
};

struct smtp_client_options {
	bool lmtp;
	const char *hostname; /* ours, for EHLO */
	enum smtp_client_tls tls;
	bool tls_is_on; /* since before the greeting */
	bool no_bdat;   /* as if CHUNKING were not offered */
	/* borrowed; no message goes out before it.  NULL: none is wanted */
	struct smtp_login *login;
};

/* What became of a recipient.  code 0: nothing was said about it. */
struct smtp_outcome {
	unsigned code;     /* 200 .. 599: of the reply, or ours where the peer was not asked */
	bool local;        /* ours */
	char enhanced[12]; /* "5.1.1" (RFC 3463), or empty */
	/* Without code and enhanced, lines joined by a space, printable; borrowed of the tx. */
	struct slice text;
	const char *command; /* that was answered: "AUTH", "MAIL", "RCPT", "DATA", "." */
	/* The peer takes fewer recipients at once, and those before it filled the transaction: it
	 * was not asked for, and may be at once in another one.  code is 452, local. */
	bool left_over;
};

struct smtp_tx_rcpt {
	struct slice forward_path;   /* without <> */
	struct slice params;         /* "NOTIFY=NEVER", or empty */
	struct smtp_outcome outcome; /* filled in */
	bool accepted;               /* filled in: RCPT got 2xx */
};

enum smtp_tx_flag {
	SMTP_TX_8BIT = 1, /* BODY=8BITMIME; to a peer without it 554 5.6.3 (RFC 6152 section 3) */
	SMTP_TX_UTF8 = 2, /* SMTPUTF8; without it 553 5.6.7 or 554 5.6.9 (RFC 6531 section 3.5) */
	SMTP_TX_DOTS = 4, /* a line may begin with a dot: the body goes through smtp_stuff_next() */
	SMTP_TX_PROBE = 8, /* no message: RSET after the last RCPT */
	/* BODY=BINARYMIME, which goes by BDAT; to a peer without it 554 5.6.3 (RFC 3030 section 3).
	 * size must be known. */
	SMTP_TX_BINARY = 16,
	SMTP_TX_REQUIRETLS = 32, /* without it, but for LMTP, 550 5.7.30 (RFC 8689 section 4.2.1) */
};

/* One message to some recipients; the caller's until SMTP_CLIENT_DONE, or the end of the
 * session. */
struct smtp_tx {
	struct slice reverse_path; /* without <> */
	struct slice params;       /* "RET=HDRS ENVID=x", or empty */
	struct slice xid, xkey; /* as they are; sent as xtext where X-RELAYD is offered, else not */
	uint64_t size;          /* bytes of the message, 0 when not known; SIZE= (RFC 1870) */
	uint32_t flags;         /* enum smtp_tx_flag */
	struct smtp_tx_rcpt *rcpts;
	size_t n_rcpts; /* 1 or more */

	/* smtp/client*.c's own: leave them zero */
	struct {
		uint8_t phase;
		bool rset; /* goes first: the peer may still be in the transaction before */
		bool open; /* the peer is in this one, and would refuse another MAIL */
		size_t sent,
		    answered;       /* of its commands: the next to send, the next to be answered */
		size_t accepted;    /* recipients */
		bool bdat;          /* the message goes by one BDAT LAST */
		struct arena texts; /* of the outcomes */
	} state;
};
/* Frees the texts of the outcomes. */
void smtp_tx_fini(struct smtp_tx *tx);

enum smtp_client_event {
	SMTP_CLIENT_MORE,  /* send what is in out; then wait for input */
	SMTP_CLIENT_TLS,   /* send out, shake hands, then smtp_client_tls_done() */
	SMTP_CLIENT_READY, /* greeted: smtp_client_send() from here on */
	/* smtp_client_current() goes out now; then smtp_client_body_done().  By
	 * smtp_client_chunked() as it is, exactly smtp_tx.size bytes; else dot-stuffed where
	 * SMTP_TX_DOTS says so. */
	SMTP_CLIENT_BODY,
	SMTP_CLIENT_DONE,  /* smtp_client_finished(): each of its recipients has an outcome */
	SMTP_CLIENT_CLOSE, /* the session is over: smtp_client_error() */
};

/* hostname and login are borrowed. */
struct smtp_client *smtp_client_new(const struct smtp_client_options *options, struct err *err);
void smtp_client_free(struct smtp_client *c);
/* Takes what it can off the front of *in, appends commands to out and tells the next event. */
enum smtp_client_event smtp_client_step(struct smtp_client *c, struct slice *in, struct buf *out);
/* The handshake is done: a new EHLO, as nothing that was said before counts (RFC 3207 section
 * 4.2). */
void smtp_client_tls_done(struct smtp_client *c, struct buf *out);
/* What a login may be bound to; before smtp_client_tls_done(). */
void smtp_client_bind(struct smtp_client *c, struct slice exporter, struct slice unique);
/* What is appended to out, or was by the last step, is part of a login: not for a log. */
bool smtp_client_logging_in(const struct smtp_client *c);
/* Begins or queues a transaction, at most SMTP_CLIENT_AHEAD at a time.  From READY on. */
void smtp_client_send(struct smtp_client *c, struct smtp_tx *tx, struct buf *out);
bool smtp_client_can_send(const struct smtp_client *c);
/* The peer takes no more transactions in this session than it has (MAILMAX). */
bool smtp_client_used_up(const struct smtp_client *c);
/* The message is written, up to and without the final dot; ends_crlf: its last bytes are CRLF,
 * or it is empty.  Appends the end of it; the next step appends the commands of the next
 * transaction. */
void smtp_client_body_done(struct smtp_client *c, bool ends_crlf, struct buf *out);
/* Asks for the end: QUIT now or after what is in work; SMTP_CLIENT_CLOSE follows. */
void smtp_client_quit(struct smtp_client *c, struct buf *out);

/* The transaction whose body is wanted, and the one that just finished. */
struct smtp_tx *smtp_client_current(struct smtp_client *c);
struct smtp_tx *smtp_client_finished(struct smtp_client *c);
/* Set of enum smtp_client_cap. */
unsigned smtp_client_caps(const struct smtp_client *c);
const struct smtp_client_limits *smtp_client_limits(const struct smtp_client *c);
/* The body that is wanted goes by BDAT: RFC 3030 section 2. */
bool smtp_client_chunked(const struct smtp_client *c);
/* It offered CHUNKING and then did not know BDAT: the session is over, as the message may have been
 * read as commands. */
bool smtp_client_knows_no_bdat(const struct smtp_client *c);
/* How long to wait for the peer now (RFC 5321 section 4.5.3.2), in ms; 0: nothing is awaited.
 * Counted from the last command or reply: what has come of a reply in parts gives it no more
 * time. */
uint32_t smtp_client_timeout_ms(const struct smtp_client *c);
/* Replies that have come, whole. */
uint64_t smtp_client_replies(const struct smtp_client *c);
/* After SMTP_CLIENT_CLOSE.  ERR_NONE: after our QUIT; ERR_DENIED: the peer refused the session, by
 * *reply where that is not NULL, or offers no login that will do; ERR_TLS, ERR_PROTOCOL, ERR_CLOSED
 * (421). */
const struct err *smtp_client_error(const struct smtp_client *c, struct smtp_outcome *reply);

/* Dot-stuffs a body on its way out (RFC 5321 section 4.5.2): cuts *in into pieces to be sent as
 * they are, between which a lone "." is one.  Starts zeroed. */
struct smtp_stuffer {
	bool inside; /* of a line */
	bool cr;     /* the last byte was a CR */
	bool dot;    /* the dot of this line is out */
};
/* False when *in is empty. */
bool smtp_stuff_next(struct smtp_stuffer *st, struct slice *in, struct slice *piece);

#endif
