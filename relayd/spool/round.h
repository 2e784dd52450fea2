/* relayd/spool/round.h - one call soon after the events of a loop round, however often it was asked
 * for.
 *
 * The loop looks once more for events, without sleeping, and the call comes right after those: so
 * all that has happened till then goes out together.
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
