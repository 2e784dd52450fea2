/* relayd/supervisor/hang.h - notices that a worker is lost in a filter that never returns, or only
 * silent.
 *
 * Only filters count, which may be anybody's code.  Who stands still otherwise waits for a disk or
 * for its turn on a busy machine: to kill him would gain nothing, and a new one would stand where
 * he stood.  Looks are counted, not time, so that nobody hangs because all of us were stopped, the
 * machine slept or the clock was set.  Silent is who does not beat, for whatever reason: others can
 * do his work until he does.
 */
#ifndef RELAYD_SUPERVISOR_HANG_H
#define RELAYD_SUPERVISOR_HANG_H

#include "relayd/core/counters.h"

#define HANG_SILENT_LOOKS 5

enum hang {
	HANG_NONE,
	HANG_FILTER, /* the loop has been in one and the same run of a filter */
	HANG_POOL,   /* all filters that the pool has room for are late, and more wait */
};

struct hang_watch {
	uint32_t runs;
	unsigned in_filter, in_pool; /* looks so far */
	int64_t beat_ms;
	unsigned silent; /* looks since that beat, up to HANG_SILENT_LOOKS */
};

/* A look, about a second after the one before, at what the process pid tells of itself.  After most
 * of them (1 ..) that find it lost, one after the other, it hangs.  While it is stopped or traced
 * no look counts; while its loop waits for a disk inside of a filter it does not hang. */
enum hang hang_look(
    struct hang_watch *w, const struct counters_page *page, int pid, unsigned most);
/* At the last look: it has not beaten for HANG_SILENT_LOOKS. */
bool hang_is_silent(const struct hang_watch *w);

#endif
