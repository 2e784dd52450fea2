/* relayd/net/round.h - what is left for the end of a loop round: deferred callbacks, then
 * output; and the deadlines of the loop, which share one timer.
 *
 * A task that is marked runs once, after the events of the round or before the loop sleeps; so all
 * that a stream writes in a round leaves in one system call, and a request that could be answered
 * at once is still answered from the loop.  A round belongs to a loop and is counted; no thread is
 * shared.
 */
#ifndef RELAYD_NET_ROUND_H
#define RELAYD_NET_ROUND_H

#include "relayd/net/deadline.h"

#include <stdbool.h>
#include <uv.h>

struct round;

enum round_phase {
	ROUND_WORK,  /* callbacks, which may write and mark more */
	ROUND_FLUSH, /* output, after all work */
	ROUND_PHASES,
};

/* Embedded; zeroed but for run. */
struct round_task {
	void (*run)(struct round_task *task);
	struct round_task *prev, *next;
	bool marked;
	enum round_phase phase;
};

/* A deadline of many alike (net/deadline.h).  Embedded; zeroed but for run. */
struct round_timer {
	void (*run)(struct round_timer *timer); /* from the loop; it has no time any more */
	struct deadline deadline;
};

/* That of the loop, made when there is none.  NULL: out of memory. */
struct round *round_ref(uv_loop_t *loop);
void round_unref(struct round *r);
/* Counts the rounds of the loop, from 0. */
uint64_t round_number(const struct round *r);

/* Runs task at the end of this loop round; harmless when it is marked already. */
void round_mark(struct round *r, struct round_task *task, enum round_phase phase);
void round_unmark(struct round *r, struct round_task *task);

/* Runs timer at this time (clock_mono_ms()), at most DEADLINE_TICK_MS late; 0: never.  A later time
 * than the one before costs nothing. */
void round_timer_set(struct round *r, struct round_timer *timer, int64_t at_ms);
/* Its memory may go. */
void round_timer_drop(struct round *r, struct round_timer *timer);

#endif
