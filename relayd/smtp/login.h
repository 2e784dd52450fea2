/* relayd/smtp/login.h - how a client proves to a next hop who it is (RFC 4954).
 *
 * The client has the commands and replies; what goes into them is somebody else's, behind this
 * interface (auth/identity.h).  Everything here is base64 as it stands in the protocol.
 */
#ifndef RELAYD_SMTP_LOGIN_H
#define RELAYD_SMTP_LOGIN_H

#include "relayd/core/buf.h"
#include "relayd/core/err.h"
#include "relayd/core/mechanism.h"

#define SMTP_LOGIN_BINDING_MAX 64

/* What the session offers. */
struct smtp_login_offer {
	unsigned mechanisms; /* set of MECHANISM_BIT() */
	bool tls;
	/* What binds a login to this TLS session alone; empty where there is none. */
	unsigned char exporter[SMTP_LOGIN_BINDING_MAX]; /* RFC 9266 */
	unsigned char unique[SMTP_LOGIN_BINDING_MAX];   /* RFC 5929 */
	size_t exporter_len, unique_len;
};

enum smtp_login_step {
	SMTP_LOGIN_ANSWER, /* what was appended to out is the answer, maybe empty */
	SMTP_LOGIN_WAIT,   /* the mechanism has no initial response: a challenge comes first */
	SMTP_LOGIN_GIVE_UP,
};

struct smtp_login;
struct smtp_login_ops {
	/* Begins an exchange by the best mechanism of the offer.  NULL with *err: none will do. */
	void *(*start)(struct smtp_login *login, const struct smtp_login_offer *offer,
	    enum mechanism *mechanism, struct err *err);
	/* The initial response (challenge NULL), then the answer to each challenge; *err with
	 * GIVE_UP. */
	enum smtp_login_step (*step)(
	    void *exchange, const struct slice *challenge, struct buf *out, struct err *err);
	/* The peer says that it knows us.  -1 with *err: it has not proven that itself, as it
	 * should. */
	int (*accepted)(void *exchange, struct err *err);
	void (*free)(void *exchange);
};
/* Who we are, for any number of sessions. */
struct smtp_login {
	const struct smtp_login_ops *ops;
};

#endif
