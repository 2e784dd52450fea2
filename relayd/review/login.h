/* relayd/review/login.h - who may look into the quarantine: name and proof in, scope out.
 *
 * One for IMAP and POP3.  A password is checked in the pool; a client address or a user that failed
 * too often waits before the next try is looked at (core/backoff.h).  Logs auth.ok and auth.fail,
 * and counts them.
 */
#ifndef RELAYD_REVIEW_LOGIN_H
#define RELAYD_REVIEW_LOGIN_H

#include "relayd/auth/password.h"
#include "relayd/auth/sasl.h"
#include "relayd/core/backoff.h"
#include "relayd/core/config.h"
#include "relayd/core/id.h"
#include "relayd/net/stream.h"
#include "relayd/review/scope.h"

#include <uv.h>

#define LOGIN_WAITING_MAX 512 /* checks that wait or run; over it ERR_BUSY */

struct login;

/* failed is borrowed.  -1 or NULL with *err: ERR_CONFIG, what is wrong with the users file. */
struct login *login_open(
    uv_loop_t *loop, const struct config *cfg, struct backoff *failed, struct err *err);
/* The users of another config from now on; on failure the old ones stay. */
int login_reload(struct login *login, const struct config *cfg, struct err *err);
/* No check may be under way any more.  Accepts NULL. */
void login_close(struct login *login);

/* Who logged in as this user and was given this scope would be given it now. */
bool login_holds(const struct login *login, const char *user, const char *scope);

/* Fills in what a SASL exchange over the stream can use; service and hostname are the caller's. */
void login_about(struct login *login, const struct stream *stream, struct sasl_about *about);

enum login_proof {
	LOGIN_PASSWORD,  /* to be looked at */
	LOGIN_PROVEN,    /* a SASL exchange did: whether there is a scope is the question */
	LOGIN_DISPROVEN, /* it did not: refused, when the wait is over */
};

/* A request: filled in by the caller, kept until done() has run. */
struct login_check {
	struct slice user, password; /* copied by the call */
	enum login_proof proof;
	struct slice client_addr; /* 4 or 16 bytes; copied too */
	const char *service;      /* "imap", for the log */
	struct id session;
	void (*done)(struct login_check *check);

	/* The answer.  ok: name and password fit and there is a scope.  Else why says what to tell
	 * the client: ERR_DENIED (wrong name or password, or nothing to see) or ERR_BUSY. */
	bool ok;
	struct err why;
	char name[USERS_NAME_MAX + 1];
	char scope[SCOPE_BYTES_MAX + 1];

	struct { /* login.c's own */
		struct login *login;
		struct password_check check;
		uv_timer_t timer;
		char password[PASSWORD_MAX + 1];
		size_t password_len;
		uint8_t addr[16];
		size_t addr_len;
		bool timer_open;
	} own;
};

/* done() runs once, from the loop, never inside this call. */
void login_check_start(struct login *login, struct login_check *check);
/* The session is gone: done() still runs once, soon, with ok false; nothing is logged. */
void login_check_cancel(struct login_check *check);

#endif
