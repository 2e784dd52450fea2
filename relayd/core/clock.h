/* relayd/core/clock.h - the two clocks: deadlines are monotonic, stored times are wall clock. */
#ifndef RELAYD_CORE_CLOCK_H
#define RELAYD_CORE_CLOCK_H

#include <stddef.h>
#include <stdint.h>

/* Milliseconds since some moment; never goes back. */
int64_t clock_mono_ms(void);
/* Milliseconds since 1970-01-01 UTC. */
int64_t clock_wall_ms(void);
/* Microseconds, monotonic: for how long a thing took. */
int64_t clock_mono_us(void);
/* Microseconds of CPU that this process has used, all its threads. */
int64_t clock_cpu_us(void);

/* Tests only: from here on both clocks stand at that moment; 0: they go again. */
void clock_stand(int64_t ms);

#define CLOCK_ISO_BYTES 25
/* "2026-03-02T10:15:42.123Z" and a NUL. */
void clock_iso(int64_t wall_ms, char out[static CLOCK_ISO_BYTES]);

#endif
