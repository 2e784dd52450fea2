/* relayd/intake/spread.h - how many workers take new connections: as few as carry the load.
 *
 * A few busy workers cost less than many idle ones: more messages share a sync, and who is awake
 * need not be woken.  The first worker decides, from what it has itself: the others that take
 * connections have as much (net/steer.h).  One more takes them when it has SPREAD_SESSIONS or more,
 * or has been busy for SPREAD_BUSY_PERCENT of the time; one less after SPREAD_CALM_MS with little
 * to do.  Pure: times are handed in.
 */
#ifndef RELAYD_INTAKE_SPREAD_H
#define RELAYD_INTAKE_SPREAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SPREAD_SESSIONS      64
#define SPREAD_CALM_SESSIONS 8
#define SPREAD_BUSY_PERCENT  70
#define SPREAD_CALM_PERCENT  30
#define SPREAD_SAMPLE_MS     100
#define SPREAD_CALM_MS       5000

struct spread {
	unsigned workers; /* there are */
	unsigned now;     /* take connections */
	int64_t sampled_ms, sampled_cpu_us;
	int64_t calm_ms; /* since when there is little to do; -1: there is much */
};

void spread_init(struct spread *s, unsigned workers, int64_t now_ms, int64_t cpu_us);
/* Whether spread_update() could change anything: cheap, for each connection. */
bool spread_is_due(const struct spread *s, size_t sessions, int64_t now_ms);
/* sessions: open ones of this worker.  cpu_us: what its process has used so far.  True: s->now is
 * another. */
bool spread_update(struct spread *s, size_t sessions, int64_t now_ms, int64_t cpu_us);

#endif
