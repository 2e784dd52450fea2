/* relayd/state/gcra.c - so many in so long, with one number a key: the generic cell rate
 * algorithm. */
#include "relayd/state/gcra.h"

static int64_t
period_us(const struct gcra *g)
{
	return (int64_t)g->period_s * 1000000;
}

/* More than one a microsecond is as good as any. */
static int64_t
count_of(const struct gcra *g)
{
	return g->count < (uint64_t)period_us(g) ? (int64_t)g->count : period_us(g);
}

/* Between two that conform for ever. */
static int64_t
step_us(const struct gcra *g)
{
	return period_us(g) / count_of(g);
}

bool
gcra_take(const struct gcra *g, int64_t *tat_us, int64_t now_us, uint32_t *retry_ms)
{
	int64_t step = step_us(g);
	int64_t burst = step * (count_of(g) - 1);
	int64_t tat;

	if (*tat_us > now_us + burst + step)
		*tat_us = now_us + burst + step;
	tat = *tat_us > now_us ? *tat_us : now_us;
	if (tat - now_us > burst) {
		*retry_ms = (uint32_t)((tat - now_us - burst + 999) / 1000);
		return false;
	}
	*tat_us = tat + step;
	*retry_ms = 0;
	return true;
}

void
gcra_give_back(const struct gcra *g, int64_t *tat_us, int64_t taken_us, int64_t now_us)
{
	int64_t step = step_us(g), left = taken_us - now_us;

	if (left > 0)
		*tat_us -= left < step ? left : step;
}
