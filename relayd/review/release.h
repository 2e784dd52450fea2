/* relayd/review/release.h - hands what was released back to intake, each recipient exactly once.
 *
 * The store has committed the intent (state releasing) before anything is sent.  Each recipient is
 * one transaction on the release socket: the original bytes, reverse-path and flags, XID= the
 * message's id and XKEY= "<id>-<number of the recipient>", a number that is never used again.  A
 * 250 is committed as released.  Whatever is killed in between, the recipient is still releasing
 * and is sent again after the restart with the same key, which delivery knows if it has seen it.
 *
 * 4xx and a socket where nobody listens are tried again, with a growing wait; a 5xx is final: the
 * message is back in INBOX with STORE_KEYWORD_REFUSED.
 */
#ifndef RELAYD_REVIEW_RELEASE_H
#define RELAYD_REVIEW_RELEASE_H

#include "relayd/review/store.h"

#define RELEASE_KEY_BYTES    64
#define RELEASE_RETRY_MS     1000
#define RELEASE_RETRY_MAX_MS (300 * 1000)
#define RELEASE_RETRIES_MAX  256 /* recipients whose wait is remembered; others are tried sooner */

struct release;

struct release_options {
	uv_loop_t *loop;
	struct store *store;
	const char *path;     /* of the socket; copied */
	const char *hostname; /* copied */
	uint32_t retry_ms;    /* 0: RELEASE_RETRY_MS */
};

/* Begins at once with what was left over.  It takes the store's store_on_releasing(). */
struct release *release_open(const struct release_options *options, struct err *err);
/* Nothing new is sent; done() comes when what is on its way has been answered, from the loop or at
 * once. */
void release_drain(struct release *r, void (*done)(void *arg), void *arg);
/* Drops the connection; run the loop until release_is_idle(), then release_free(). */
void release_close(struct release *r);
bool release_is_idle(const struct release *r);
void release_free(struct release *r); /* accepts NULL */

#endif
