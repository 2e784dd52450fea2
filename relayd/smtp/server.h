/* relayd/smtp/server.h - one connection served: a net stream and a session; the role answers.
 *
 * All replies of a loop round leave in one write.  on_closed() comes exactly once and last,
 * whatever ended the connection; the server is gone when it returns.  Every function may be called
 * from every callback.
 */
#ifndef RELAYD_SMTP_SERVER_H
#define RELAYD_SMTP_SERVER_H

#include "relayd/net/stream.h"
#include "relayd/smtp/session.h"

#define SMTP_SERVER_TLS_MS 30000 /* for a handshake */

struct smtp_server;

struct smtp_server_ops {
	struct smtp_session_ops session; /* their user is the setup's */
	/* News: the connection is under TLS.  May be NULL. */
	void (*on_tls)(void *user, const struct tls_info *info);
	/* News, the last: on_reset() came before it where one was due.  why as in net/stream.h. */
	void (*on_closed)(void *user, const struct err *why);
};

struct smtp_server_setup {
	uv_loop_t *loop;
	int fd; /* taken over, also on failure */
	const struct smtp_server_ops *ops;
	void *user;
	const struct smtp_service *service;
	struct id id;           /* of the session */
	struct tls_server *tls; /* a reference is taken; NULL: no TLS */
	bool implicit;          /* TLS from the first byte */
};

/* NULL with *err.  Nothing is asked before smtp_server_start(). */
struct smtp_server *smtp_server_open(const struct smtp_server_setup *setup, struct err *err);
void smtp_server_start(struct smtp_server *sv);

/* As smtp_session_answer(); does nothing when no question is open any more. */
void smtp_server_answer(struct smtp_server *sv, const struct smtp_answer *answer);
void smtp_server_answer_each(struct smtp_server *sv, const struct smtp_answer *answers, size_t n,
    const struct smtp_answer *all);

/* Another certificate for a STARTTLS to come; a reference is taken.  NULL: no TLS. */
void smtp_server_certify(struct smtp_server *sv, struct tls_server *tls);

/* The role takes no more data for now, and then again: the peer waits, its time goes on. */
void smtp_server_hold(struct smtp_server *sv, bool hold);

/* 421 between transactions, as smtp_session_shutdown(). */
void smtp_server_shutdown(struct smtp_server *sv, enum smtp_end why);
/* Ends the connection now; on_closed() still comes, from the loop. */
void smtp_server_close(struct smtp_server *sv);

struct smtp_session *smtp_server_session(struct smtp_server *sv);
struct stream *smtp_server_stream(struct smtp_server *sv);

#endif
