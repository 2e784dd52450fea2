/* relayd/core/clock.c - the two clocks: deadlines are monotonic, stored times are wall clock. */
#include "relayd/core/clock.h"

#include <stdio.h>
#include <time.h>

static int64_t
read_us(clockid_t id)
{
	struct timespec ts;

	(void)clock_gettime(id, &ts);	/* cannot fail for these clocks */
	return (int64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

int64_t
clock_mono_us(void)
{
	return read_us(CLOCK_MONOTONIC);
}

int64_t
clock_mono_ms(void)
{
	return read_us(CLOCK_MONOTONIC) / 1000;
}

int64_t
clock_wall_ms(void)
{
	return read_us(CLOCK_REALTIME) / 1000;
}

void
clock_iso(int64_t wall_ms, char out[static CLOCK_ISO_BYTES])
{
	time_t s = (time_t)(wall_ms / 1000);
	struct tm tm;
	char date[20];

	if (wall_ms < 0 || gmtime_r(&s, &tm) == NULL || tm.tm_year > 9999 - 1900) {
		(void)snprintf(out, CLOCK_ISO_BYTES, "1970-01-01T00:00:00.000Z");
		return;
	}
	(void)strftime(date, sizeof(date), "%Y-%m-%dT%H:%M:%S", &tm);	/* fits: year < 10000 */
	(void)snprintf(out, CLOCK_ISO_BYTES, "%s.%03uZ", date, (unsigned)(wall_ms % 1000) % 1000u);
}
