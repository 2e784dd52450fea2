/* relayd/supervisor/hang.h - notices that a worker is lost in a filter that never returns.
 *
 * Only filters count, which may be anybody's code.  Who stands still otherwise waits for a disk or for its turn
 * on a busy machine: to kill him would gain nothing, and a new one would stand where he stood.  Looks are
 * counted, not time, so that nobody hangs because all of us were stopped, the machine slept or the clock
 * was set.
 */
#ifndef RELAYD_SUPERVISOR_HANG_H
#define RELAYD_SUPERVISOR_HANG_H

#include "relayd/core/counters.h"

#define HANG_LOOKS 60 /* about a second apart: after so many, one after the other, it hangs */

enum hang {
	HANG_NONE,
	HANG_FILTER, /* the loop has been in one and the same run of a filter */
	HANG_POOL,   /* all filters that the pool has room for are late, and more wait */
};

struct hang_watch {
	uint32_t runs;
	unsigned in_filter, in_pool; /* looks so far */
};

/* A look at what the process pid tells of itself.  While it is stopped or traced no look counts; while its loop
 * waits for a disk inside of a filter it does not hang. */
enum hang hang_look(struct hang_watch *w, const struct counters_page *page, int pid);

#endif
