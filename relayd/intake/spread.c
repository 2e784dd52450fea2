/* relayd/intake/spread.c - how many workers take new connections: as few as carry the load. */
#include "relayd/intake/spread.h"

void
spread_init(struct spread *s, unsigned workers, int64_t now_ms, int64_t cpu_us)
{
	*s = (struct spread){ .workers = workers,
		.now = 1,
		.sampled_ms = now_ms,
		.sampled_cpu_us = cpu_us,
		.calm_ms = -1 };
}

static bool
is_crowded(const struct spread *s, size_t sessions)
{
	return sessions >= SPREAD_SESSIONS && s->now < s->workers;
}

bool
spread_is_due(const struct spread *s, size_t sessions, int64_t now_ms)
{
	return s->workers > 1 &&
	       (is_crowded(s, sessions) || now_ms - s->sampled_ms >= SPREAD_SAMPLE_MS);
}

/* Of the time since the last sample. */
static int64_t
busy_percent(struct spread *s, int64_t now_ms, int64_t cpu_us)
{
	int64_t passed_ms = now_ms - s->sampled_ms, used_us = cpu_us - s->sampled_cpu_us;

	if (passed_ms < SPREAD_SAMPLE_MS)
		return SPREAD_CALM_PERCENT; /* too short to tell: neither much nor little */
	s->sampled_ms = now_ms;
	s->sampled_cpu_us = cpu_us;
	return used_us / (passed_ms * 10);
}

static bool
may_fall(struct spread *s, size_t sessions, int64_t busy, int64_t now_ms)
{
	if (sessions >= SPREAD_CALM_SESSIONS || busy > SPREAD_CALM_PERCENT) {
		s->calm_ms = -1;
		return false;
	}
	if (s->calm_ms < 0)
		s->calm_ms = now_ms;
	return s->now > 1 && now_ms - s->calm_ms >= SPREAD_CALM_MS;
}

bool
spread_update(struct spread *s, size_t sessions, int64_t now_ms, int64_t cpu_us)
{
	int64_t busy = busy_percent(s, now_ms, cpu_us);

	if (is_crowded(s, sessions) || (busy >= SPREAD_BUSY_PERCENT && s->now < s->workers)) {
		s->now++;
		s->calm_ms = -1;
		return true;
	}
	if (!may_fall(s, sessions, busy, now_ms))
		return false;
	s->now--;
	s->calm_ms = now_ms;
	return true;
}
