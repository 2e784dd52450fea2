/* relayd/review/pop3/server.h - glue: POP3 sessions over streams, the maildrop from the store.
 *
 * The maildrop is the INBOX of the user's scope; one session at a time has it (RFC 1939 section 4).
 */
#ifndef RELAYD_REVIEW_POP3_SERVER_H
#define RELAYD_REVIEW_POP3_SERVER_H

#include "relayd/net/tls.h"
#include "relayd/review/login.h"
#include "relayd/review/store.h"
#include "relayd/review/visitors.h"

struct pop3_server;

struct pop3_server_options {
	uv_loop_t *loop;
	struct store *store;
	struct login *login;
	struct visitors *visitors;
	const struct config *config; /* copied from */
	struct tls_server *tls;      /* a reference is taken; NULL: no POP3S */
};

struct pop3_server *pop3_server_open(const struct pop3_server_options *options, struct err *err);
/* Other settings and certificates for the sessions to come. */
void pop3_server_reload(struct pop3_server *sv, const struct config *cfg, struct tls_server *tls);
/* Takes over a connection; tls: from its first byte. */
void pop3_server_accept(struct pop3_server *sv, int fd, const struct sockaddr *peer, bool tls);
/* Says goodbye to all; done() comes when the last has left, from the loop or at once. */
void pop3_server_drain(struct pop3_server *sv, void (*done)(void *arg), void *arg);
/* Drops the connections; run the loop until pop3_server_is_idle(). */
void pop3_server_close(struct pop3_server *sv);
bool pop3_server_is_idle(const struct pop3_server *sv);
void pop3_server_free(struct pop3_server *sv); /* accepts NULL */

#endif
