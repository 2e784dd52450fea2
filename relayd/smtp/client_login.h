/* relayd/smtp/client_login.h - the login of a client's session: AUTH and its replies (RFC 4954). */
#ifndef RELAYD_SMTP_CLIENT_LOGIN_H
#define RELAYD_SMTP_CLIENT_LOGIN_H

#include "relayd/smtp/client_reply.h"
#include "relayd/smtp/login.h"

struct smtp_client_login {
	struct smtp_login *login; /* NULL: none is wanted */
	struct smtp_login_offer offer;
	unsigned tried; /* set of MECHANISM_BIT(): those that the peer does not know us by */
	enum mechanism mechanism;
	void *exchange;  /* while it goes on */
	struct buf held; /* an initial response too long for the line of the command */
	bool holds;
	char name[40]; /* "AUTH PLAIN", for errors */
};

void smtp_client_login_fini(struct smtp_client_login *l);
/* A new EHLO: what was offered before counts no longer. */
void smtp_client_login_reset(struct smtp_client_login *l);
/* "PLAIN LOGIN SCRAM-SHA-256"; those that we do not have are passed over. */
void smtp_client_login_learn(struct smtp_client_login *l, struct slice rest);
/* Appends AUTH.  -1 with *err: nothing that is offered will do. */
int smtp_client_login_begin(struct smtp_client_login *l, struct buf *out, struct err *err);

enum smtp_client_login_event {
	SMTP_CLIENT_LOGIN_ON,      /* send out, wait for the next reply */
	SMTP_CLIENT_LOGIN_DONE,    /* the peer knows us */
	SMTP_CLIENT_LOGIN_REFUSED, /* by the reply */
	SMTP_CLIENT_LOGIN_FAILED,  /* by us: *err */
};
enum smtp_client_login_event smtp_client_login_reply(struct smtp_client_login *l,
    const struct smtp_client_reply *reply, struct buf *out, struct err *err);

#endif
