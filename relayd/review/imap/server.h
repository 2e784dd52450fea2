/* relayd/review/imap/server.h - IMAP connections: one net stream and one session each. */
#ifndef RELAYD_REVIEW_IMAP_SERVER_H
#define RELAYD_REVIEW_IMAP_SERVER_H

#include "relayd/core/err.h"
#include "relayd/net/tls.h"
#include "relayd/review/guests.h"
#include "relayd/review/login.h"
#include "relayd/review/store.h"
#include "relayd/review/visitors.h"

#include <uv.h>

struct imap_server;

struct imap_server_options {
	uv_loop_t *loop;
	struct store *store;
	struct login *login;
	struct visitors *visitors;
	const char *hostname;   /* copied */
	struct tls_server *tls; /* for IMAPS; referenced; may be NULL */
};

/* All that the options point to outlives the server. */
struct imap_server *imap_server_open(const struct imap_server_options *options, struct err *err);
/* For connections from now on; hostname is copied, tls referenced.  Sessions whose login the users
 * of now would not give hear BYE. */
void imap_server_reload(struct imap_server *server, const char *hostname, struct tls_server *tls);
/* Its connections.  Drained, each hears BYE (RFC 3501 section 7.1.5) once its command has ended. */
struct guests *imap_server_guests(struct imap_server *server);
/* When it has no guests.  Accepts NULL. */
void imap_server_free(struct imap_server *server);

#endif
