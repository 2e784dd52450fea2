/* relayd/smtp/session_verbs.h - what session.c and session_verbs.c share; nobody else includes
 * it. */
#ifndef RELAYD_SMTP_SESSION_VERBS_H
#define RELAYD_SMTP_SESSION_VERBS_H

#include "relayd/smtp/session.h"

enum smtp_state {
	SMTP_STATE_CONNECT, /* the greeting is not out yet */
	SMTP_STATE_HELO,    /* 220 sent, no EHLO or HELO yet */
	SMTP_STATE_READY,   /* greeted, no transaction */
	SMTP_STATE_AUTH,    /* 334 sent, the next line is a response */
	SMTP_STATE_MAIL,    /* reverse-path accepted */
	SMTP_STATE_RCPT,    /* at least one forward-path accepted */
	SMTP_STATE_DATA,    /* reading the message, no commands */
	SMTP_STATE_CHUNK,   /* reading what follows a BDAT */
	SMTP_STATE_MORE,    /* behind a BDAT that was not the last */
	SMTP_STATE_SKIP,    /* passing over what follows a BDAT that was refused */
	SMTP_STATE_BODY,    /* the final dot is there and not answered */
	SMTP_STATE_TLS,     /* 220 to STARTTLS sent, no handshake yet */
	SMTP_STATE_CLOSED,  /* the last reply is out */
};

enum smtp_question {
	SMTP_ASK_NOTHING,
	SMTP_ASK_CONNECT,
	SMTP_ASK_HELO,
	SMTP_ASK_MAIL,
	SMTP_ASK_RCPT,
	SMTP_ASK_DATA,
	SMTP_ASK_BODY,
	SMTP_ASK_AUTH,
	SMTP_ASK_XCLIENT,
};

struct smtp_session {
	const struct smtp_session_ops *ops;
	void *user;
	const struct smtp_service *service;
	const struct smtp_turn *turn; /* of the call that is running, else NULL */
	uint8_t state;                /* enum smtp_state */
	uint8_t asking;               /* enum smtp_question */
	bool extended, tls, authenticated;
	bool helo_extended;                  /* of the HELO that is being asked about */
	uint8_t ending;                      /* enum smtp_end: 421 as soon as no transaction runs */
	bool in_tx;                          /* on_mail() was answered 2xx, no on_reset() yet */
	bool too_big;                        /* the data passed max_bytes */
	bool named;                          /* message is the id to show */
	bool utf8 : 1, binary : 1, prdr : 1; /* of this transaction's MAIL */
	bool over_told : 1;                  /* of this transaction: too many recipients */
	bool chunked;                        /* its message comes by BDAT, not by DATA */
	bool chunk_last;
	uint8_t after_skip; /* enum smtp_state */
	uint8_t trust;      /* set of enum smtp_trust */
	uint8_t bad;        /* commands that broke the protocol */
	uint8_t bad_paths;  /* of MAIL refused, of RCPT for good, since a RCPT was accepted */
	uint8_t in_vain;    /* HELO, and transactions given up, since a message was accepted */
	uint32_t n_rcpts;   /* accepted */
	uint32_t n_mails;   /* accepted, of the session */
	struct smtp_scanner scanner;
	uint64_t chunk_left; /* bytes of the BDAT that are still to come */
	int64_t deadline_ms;
	int64_t end_ms;      /* of the session; 0: any time */
	int64_t pace_ms;     /* then pace_bytes are looked at, while data comes */
	uint32_t pace_bytes; /* of data, since that was done last */
	struct id id, message;
	struct smtp_data data;
};

_Static_assert(sizeof(struct smtp_session) <= 168, "an idle session has grown");

/* session.c: the only one to assign s->state. */
void smtp_session_enter(struct smtp_session *s, enum smtp_state state);
/* Opens a question; the callback that follows may answer it at once. */
void smtp_session_ask(struct smtp_session *s, enum smtp_question question);
/* Puts a reply of the session's own: 4xx and 5xx count as bad commands when bad is set. */
void smtp_session_say(
    struct smtp_session *s, unsigned code, const char *enhanced, const char *text);
void smtp_session_refuse(struct smtp_session *s, struct slice verb, unsigned code,
    const char *enhanced, const char *text);
/* Counts one more command that broke the protocol or a limit: with many of them the session
 * ends. */
void smtp_session_bad(struct smtp_session *s);
/* Counts a beginning that leads to no message, of which each may have cost us some questions to the
 * DNS.  True when that was the last one, and it was said. */
bool smtp_session_in_vain(struct smtp_session *s, const char *verb);
/* Ends the transaction, if one runs. */
void smtp_session_reset(struct smtp_session *s, enum smtp_reset how, const char *why);

/* The message is there, or what is wrong with it. */
void smtp_session_end_of_data(struct smtp_session *s);
/* Its data, so far, breaks a rule or a limit: one reply (at the end of LMTP, one for each
 * recipient). */
bool smtp_session_refuse_data(struct smtp_session *s, bool last);
void smtp_session_settle(struct smtp_session *s);

/* session_chunk.c: BDAT.  The first one asks on_data() as DATA does. */
void smtp_session_bdat(struct smtp_session *s, struct slice args);
void smtp_session_bdat_answered(struct smtp_session *s, const struct smtp_answer *a);
/* More of what follows it; false: it wants more input. */
bool smtp_session_bdat_step(struct smtp_session *s, struct slice *in);

/* session_params.c: the parameters of MAIL and RCPT.  False: the refusal is out. */
struct smtp_session_room { /* where decoded values live */
	char key[SMTP_KEY_MAX];
	char params[SMTP_PARAMS_MAX];
};
bool smtp_session_mail_params(struct smtp_session *s, struct slice args, struct smtp_mail *mail,
    struct smtp_session_room *room);
bool smtp_session_rcpt_params(struct smtp_session *s, struct slice args, struct smtp_rcpt *rcpt,
    struct smtp_session_room *room);
/* The extension is on offer here and now. */
bool smtp_session_offers(const struct smtp_session *s, enum smtp_extension extension);

/* session_proxy.c: XCLIENT and XFORWARD */
void smtp_session_xclient(struct smtp_session *s, struct slice args);
void smtp_session_xforward(struct smtp_session *s, struct slice args);

/* session_verbs.c */
bool smtp_session_offers_auth(const struct smtp_session *s);
void smtp_session_command(struct smtp_session *s, const struct smtp_command *cmd);
void smtp_session_response(struct smtp_session *s, struct slice line); /* in SMTP_STATE_AUTH */
/* Replies to an EHLO, HELO or LHLO that was let in. */
void smtp_session_say_hello(struct smtp_session *s);

#endif
