/* relayd/auth/backoff.h - who failed to log in too often waits before the next try is looked at.
 *
 * A fixed table of hashed keys (an address, a user name); a collision only makes a wait longer.
 * BACKOFF_FREE failures cost nothing; each further one doubles the wait, up to BACKOFF_MAX_MS.
 * Failures are forgotten BACKOFF_FORGET_MS after the last.  The clock is handed in.
 */
#ifndef RELAYD_AUTH_BACKOFF_H
#define RELAYD_AUTH_BACKOFF_H

#include "relayd/core/slice.h"

#define BACKOFF_SLOTS     4096
#define BACKOFF_FREE      4
#define BACKOFF_FIRST_MS  2000
#define BACKOFF_MAX_MS    (120 * 1000)
#define BACKOFF_FORGET_MS (1800 * 1000)

struct backoff;

struct backoff *backoff_new(void);
void backoff_free(struct backoff *b);
/* Milliseconds until a try for key is looked at again; 0: now. */
int64_t backoff_wait_ms(const struct backoff *b, struct slice key, int64_t now_ms);
void backoff_failed(struct backoff *b, struct slice key, int64_t now_ms);
/* A success clears the key. */
void backoff_passed(struct backoff *b, struct slice key);

#endif
