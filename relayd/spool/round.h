/* relayd/spool/round.h - one call at the end of a loop round, however often it was asked for.
 *
 * It comes right after the round's events, so that all that happened in them goes out together,
 * and the loop does not sleep before it.
 */
#ifndef RELAYD_SPOOL_ROUND_H
#define RELAYD_SPOOL_ROUND_H

#include <stdbool.h>
#include <uv.h>

struct round;

/* NULL: out of memory. */
struct round *round_open(uv_loop_t *loop, void (*cb)(void *data), void *data);
void round_arm(struct round *r);
/* Never called again; freed once the loop has closed its handles.  Accepts NULL. */
void round_close(struct round *r);

#endif
