/* relayd/core/backoff.h - who failed to log in too often waits before the next try is looked at.
 *
 * A fixed table that all roles share (core/shared.h), so that more workers do not mean more tries.
 * It holds a count for each address and user that failed; a place is found by a keyed hash, so that
 * nobody can aim at one.  Where a place is wanted and all are taken, the one with the fewest
 * failures is forgotten.
 *
 * BACKOFF_FREE failures cost nothing; each further one doubles the wait, up to BACKOFF_MAX_MS.
 * Failures are forgotten BACKOFF_FORGET_MS after the last.  The clock is handed in: the monotonic
 * one, which is the same for all processes.
 *
 * Whoever knows the name of a user could make him wait for ever.  So from where he has logged in
 * before a user waits for the failures of that address alone, for BACKOFF_KNOWN_MS: for all of
 * them, which a success of anybody there clears, and for those with his name, which only his own
 * does.  And a success says nothing of the failures from elsewhere, which keep counting.
 */
#ifndef RELAYD_CORE_BACKOFF_H
#define RELAYD_CORE_BACKOFF_H

#include "relayd/core/slice.h"

#include <stdatomic.h>

#define BACKOFF_SETS      4096
#define BACKOFF_WAYS      4 /* places of a set */
#define BACKOFF_FREE      4
#define BACKOFF_FIRST_MS  2000
#define BACKOFF_MAX_MS    (120 * 1000)
#define BACKOFF_FORGET_MS (1800 * 1000)
#define BACKOFF_KNOWN_MS  (30ll * 86400 * 1000)

/* Zeroed, then backoff_init().  Any number of processes use it at the same time. */
struct backoff {
	uint8_t key[16];
	_Atomic uint64_t places[BACKOFF_SETS][BACKOFF_WAYS];
	_Atomic uint64_t known[BACKOFF_SETS][BACKOFF_WAYS]; /* users at addresses that logged in */
};

/* -1: there are no random bytes. */
int backoff_init(struct backoff *b);

/* Of whom: an address of 4 or 16 bytes, of which an IPv6 one counts as its /64, or a user's
 * name. */
uint64_t backoff_address(const struct backoff *b, struct slice addr);
uint64_t backoff_user(const struct backoff *b, struct slice name);

/* Milliseconds until a try is looked at again; 0: now. */
int64_t backoff_wait_ms(const struct backoff *b, uint64_t whom, int64_t now_ms);
/* The same of a user at an address: from where he is known for the failures with his name there
 * only. */
int64_t backoff_user_wait_ms(
    const struct backoff *b, struct slice name, struct slice addr, int64_t now_ms);
void backoff_failed(struct backoff *b, uint64_t whom, int64_t now_ms);
/* The same of a user at an address, but for those of the address. */
void backoff_user_failed(
    struct backoff *b, struct slice name, struct slice addr, int64_t now_ms);
/* A success clears the failures of the address, where the user is known from now on, and his own
 * there. */
void backoff_passed(struct backoff *b, struct slice name, struct slice addr, int64_t now_ms);

#endif
