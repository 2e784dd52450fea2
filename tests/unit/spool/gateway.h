/* tests/unit/spool/gateway.h - a small gateway on the disk of a test, whose promises are checked.
 *
 * Two writers and a delivery, each a role of its own with its own loop and handles: mail of several
 * recipients that are sent, deferred and bounced, bounces in a log of their own, releases with a
 * key, large messages in files, segments that fill up and are recycled, restarts.  What each was
 * told and what each next hop got is written down outside of the disk, and compared with what comes
 * back from it.
 */
#ifndef TESTS_UNIT_SPOOL_GATEWAY_H
#define TESTS_UNIT_SPOOL_GATEWAY_H

#include <stdbool.h>
#include <stdint.h>

/* An empty disk, the roles started on it; what follows from the seed is always the same. */
void gateway_start(uint64_t seed);
/* Some rounds of mail. */
void gateway_work(void);
/* The disk works again: all that is there must reach its end, and new mail too. */
void gateway_finish(void);
/* The role whose call this is dies here; does not return to it. */
void gateway_die(void) __attribute__((noreturn));

/* What was written and not synced may not be there any more: a sync failed. */
void gateway_lost_pages(void);
/* All roles are gone: by a kill, or with the power. */
void gateway_gone(bool power);
/* Recovers, delivers all that is there and checks it against what was promised.  whole: no byte
 * that was written is torn, so none may be reported as damaged. */
void gateway_recover(bool whole);
/* As far as it comes, when something happens meanwhile. */
void gateway_recover_some(void);

/* What does not hold: says so on the descriptor, and ends this process. */
extern int gateway_told_on;
void gateway_must(bool holds, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
