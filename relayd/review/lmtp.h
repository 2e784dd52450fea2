/* relayd/review/lmtp.h - mail in: LMTP from delivery over a unix socket, into the store.
 *
 * 250 only after the store has committed, for all recipients of a transaction alike.  Nothing is
 * ever refused for good: this route must not bounce, so every failure is a 4xx and delivery keeps
 * the message.  XID= of MAIL names the message; without it (somebody else's LMTP client) it gets a
 * new id.
 */
#ifndef RELAYD_REVIEW_LMTP_H
#define RELAYD_REVIEW_LMTP_H

#include "relayd/review/store.h"

/* of a message in memory: more goes to the store */
#define LMTP_STAGE_BYTES (4 * STORE_CHUNK_BYTES)
#define LMTP_RCPTS_MAX    10000 /* of a transaction; 452 to more (RFC 5321 4.5.3.1.10) */
#define LMTP_SESSIONS_MAX 256   /* 421 to more */

struct lmtp;

struct lmtp_options {
	uv_loop_t *loop;
	int fd; /* listening; stays the caller's */
	struct store *store;
	const char *hostname; /* copied */
	uid_t peer_uid;       /* who may connect, besides root and our own uid */
};

struct lmtp *lmtp_open(const struct lmtp_options *options, struct err *err);
/* No new connections; transactions that run are finished, then done() comes, from the loop or at
 * once. */
void lmtp_drain(struct lmtp *l, void (*done)(void *arg), void *arg);
/* Drops the connections.  The loop must run until lmtp_is_idle(), then store_close() and
 * lmtp_free(). */
void lmtp_close(struct lmtp *l);
bool lmtp_is_idle(const struct lmtp *l);
/* Accepts NULL. */
void lmtp_free(struct lmtp *l);

#endif
