/* relayd/smtp/client_tx.h - one transaction of the client: its commands in order, and their
 * replies. */
#ifndef RELAYD_SMTP_CLIENT_TX_H
#define RELAYD_SMTP_CLIENT_TX_H

#include "relayd/smtp/client_reply.h"

enum smtp_tx_phase {
	SMTP_TX_QUEUED,   /* nothing of it was sent */
	SMTP_TX_COMMANDS, /* MAIL, RCPT, DATA are on their way */
	SMTP_TX_BODY,     /* 354: the owner sends the message */
	SMTP_TX_DOT, /* sent; one reply to come, or with LMTP one for each recipient accepted */
	SMTP_TX_END, /* every recipient has an outcome */
};

/* What a transaction must know of its session. */
struct smtp_tx_session {
	bool lmtp;
	unsigned caps;     /* enum smtp_client_cap */
	uint64_t size_max; /* 0: none known */
	struct smtp_client_limits limits;
	uint32_t mails; /* MAIL commands so far */
};

/* Checks tx against the session and gives those that cannot be sent their outcome; phase
 * COMMANDS, or END when nothing is left to do. */
void smtp_tx_begin(struct smtp_tx *tx, const struct smtp_tx_session *session, bool rset);
/* Appends the next command, or all of them with PIPELINING.  Call again after each reply. */
void smtp_tx_put(struct smtp_tx *tx, struct smtp_tx_session *session, struct buf *out);
/* A reply to it came in phase COMMANDS or DOT. */
enum smtp_tx_step {
	SMTP_TX_STEP_ON,    /* more replies are to come, or commands to be sent */
	SMTP_TX_STEP_BODY,  /* phase is BODY now; smtp_tx_put() may come to that too, by BDAT */
	SMTP_TX_STEP_EMPTY, /* 354 for nobody: a lone dot ends that; phase is DOT */
	SMTP_TX_STEP_END,   /* phase is END now */
	SMTP_TX_STEP_BAD,   /* not a reply to that command */
};
enum smtp_tx_step smtp_tx_reply(struct smtp_tx *tx, const struct smtp_tx_session *session,
    const struct smtp_client_reply *reply);
/* Gives this outcome to all recipients that have none. */
void smtp_tx_rest(struct smtp_tx *tx, const struct smtp_client_reply *reply);
/* After END: the peer may think that the transaction goes on. */
bool smtp_tx_needs_rset(const struct smtp_tx *tx);
/* Nothing has been answered to it, but for the RSET in front. */
bool smtp_tx_is_unheard(const struct smtp_tx *tx);
/* What is waited for: "MAIL", "RCPT", "DATA", ".", "RSET". */
const char *smtp_tx_waits_for(const struct smtp_tx *tx);

#endif
