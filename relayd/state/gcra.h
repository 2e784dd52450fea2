/* relayd/state/gcra.h - so many in so long, with one number a key: the generic cell rate algorithm.
 *
 * The number is the theoretical arrival time (ITU-T I.371): when the bucket would be empty again.
 * A burst of `count` at once conforms, then one more for each period / count.  Pure.
 */
#ifndef RELAYD_STATE_GCRA_H
#define RELAYD_STATE_GCRA_H

#include <stdbool.h>
#include <stdint.h>

struct gcra {
	uint64_t count;    /* 1 .. */
	uint32_t period_s; /* 1 .. */
};

/* Whether one more at now_us conforms; then *tat_us moves on.  Else *retry_ms is when it would.  A
 * *tat_us of 0 is a fresh key; one that a clock set back has left far ahead is brought near, also
 * when nothing conforms. */
bool gcra_take(const struct gcra *g, int64_t *tat_us, int64_t now_us, uint32_t *retry_ms);
/* Undoes one that conformed and left *tat_us at taken_us, as far as it still counts at now_us: what
 * time has undone already is not there to be given to others. */
void gcra_give_back(const struct gcra *g, int64_t *tat_us, int64_t taken_us, int64_t now_us);

#endif
