/* relayd/review/imap/server.h - IMAP connections: one net stream and one session each. */
#ifndef RELAYD_REVIEW_IMAP_SERVER_H
#define RELAYD_REVIEW_IMAP_SERVER_H

#include "relayd/core/err.h"
#include "relayd/net/tls.h"
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
/* Takes over a connected socket.  tls: a handshake comes first (IMAPS). */
void imap_server_accept(struct imap_server *server, int fd, const struct sockaddr *peer, bool tls);
/* For connections from now on; hostname is copied, tls referenced. */
void imap_server_reload(struct imap_server *server, const char *hostname, struct tls_server *tls);
/* Says BYE to every client (RFC 3501 section 7.1.5) once its command has ended; done() comes from the
 * loop when the last has gone.  New connections are closed. */
void imap_server_drain(struct imap_server *server, void (*done)(void *arg), void *arg);
/* Drops all connections; the loop must run until imap_server_is_idle(), then imap_server_free(). */
void imap_server_close(struct imap_server *server);
bool imap_server_is_idle(const struct imap_server *server);
/* Accepts NULL. */
void imap_server_free(struct imap_server *server);

#endif
