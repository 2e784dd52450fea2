/* relayd/review/pop3/server.h - glue: POP3 sessions over streams, the maildrop from the store.
 *
 * The maildrop is the INBOX of the user's scope; one session at a time has it (RFC 1939 section 4).
 */
#ifndef RELAYD_REVIEW_POP3_SERVER_H
#define RELAYD_REVIEW_POP3_SERVER_H

#include "relayd/net/tls.h"
#include "relayd/review/guests.h"
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
/* Its connections. */
struct guests *pop3_server_guests(struct pop3_server *sv);
void pop3_server_free(struct pop3_server *sv); /* when it has no guests; accepts NULL */

#endif
