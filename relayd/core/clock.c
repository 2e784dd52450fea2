/* relayd/core/clock.c - the two clocks: deadlines are monotonic, stored times are wall clock. */
#include "relayd/core/clock.h"

#include <stdbool.h>
#include <string.h>
#include <time.h>

static int64_t stands_us; /* 0: they go */

void
clock_stand(int64_t ms)
{
	stands_us = ms * 1000;
}

static int64_t
read_us(clockid_t id)
{
	struct timespec ts;

	if (stands_us != 0)
		return stands_us;
	(void)clock_gettime(id, &ts);	/* cannot fail for these clocks */
	return (int64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

int64_t
clock_mono_us(void)
{
	return read_us(CLOCK_MONOTONIC);
}

int64_t
clock_cpu_us(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t); /* exists */
	return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
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

/* n digits of value into at; a log line begins with this, so it is no printf. */
static void
put_digits(char *at, int n, unsigned value)
{
	for (; n > 0; value /= 10)
		at[--n] = (char)('0' + value % 10);
}

/* False where s is no second of the years 1970 to 9999. */
static bool
put_second(time_t s, char out[static CLOCK_ISO_BYTES])
{
	struct tm tm;

	memcpy(out, "1970-01-01T00:00:00.000Z", CLOCK_ISO_BYTES);
	if (s < 0 || gmtime_r(&s, &tm) == NULL || tm.tm_year > 9999 - 1900)
		return false;
	put_digits(out, 4, (unsigned)tm.tm_year + 1900);
	put_digits(out + 5, 2, (unsigned)tm.tm_mon + 1);
	put_digits(out + 8, 2, (unsigned)tm.tm_mday);
	put_digits(out + 11, 2, (unsigned)tm.tm_hour);
	put_digits(out + 14, 2, (unsigned)tm.tm_min);
	put_digits(out + 17, 2, (unsigned)tm.tm_sec);
	return true;
}

/* Log and trace ask for the same second again and again. */
void
clock_iso(int64_t wall_ms, char out[static CLOCK_ISO_BYTES])
{
	static _Thread_local char last[CLOCK_ISO_BYTES];
	static _Thread_local int64_t last_s = -1;
	int64_t s = wall_ms < 0 ? -1 : wall_ms / 1000;

	if (s != last_s || last_s < 0)
		last_s = put_second((time_t)s, last) ? s : -1;
	memcpy(out, last, CLOCK_ISO_BYTES);
	if (last_s >= 0)
		put_digits(out + 20, 3, (unsigned)(wall_ms % 1000));
}
