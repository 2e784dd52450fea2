/* relayd/spool/syncer.h - runs the writes and syncs of one file series, one job at a time.
 *
 * In the loop while the disk is fast, which saves two switches of context a job; in a thread of
 * its own while it is slow, so that it never stops the loop.  The thread starts with the first
 * slow job.
 */
#ifndef RELAYD_SPOOL_SYNCER_H
#define RELAYD_SPOOL_SYNCER_H

#include "relayd/core/err.h"

#include <stdint.h>
#include <uv.h>

#define SYNCER_SLOW_US 1000 /* above this on average jobs go to the thread, */
#define SYNCER_FAST_US 500  /* below this they come back */

struct syncer;

struct syncer_job {
	/* In any thread; touches the job alone. */
	int (*run)(struct syncer_job *job, struct err *err);
	/* In the loop, job->err is set; may start the next one. */
	void (*done)(struct syncer_job *job);
	struct err err;
	int64_t took_us;
};

struct syncer *syncer_open(uv_loop_t *loop, struct err *err);
/* Waits for the job that runs; its done() is called.  Accepts NULL. */
void syncer_close(struct syncer *s);
/* Runs job, which lives until its done(): that may come before this returns.  large: in the thread
 * whatever the disk was like.  Only while no job runs. */
void syncer_run(struct syncer *s, struct syncer_job *job, bool large);
/* Tests only: where every job runs from here on, whatever the disk is like. */
enum syncer_place { SYNCER_BY_SPEED, SYNCER_IN_LOOP, SYNCER_IN_THREAD };
void syncer_use(enum syncer_place place);
bool syncer_busy(const struct syncer *s); /* a NULL one never is */

#endif
