/* relayd/delivery/schedule.h - when an attempt is made again, and when there is no use any more.
 *
 * Stored times are wall clock, deadlines are monotonic: a stored time becomes a deadline once,
 * when it is read, within bounds that keep a jump of the wall clock from holding mail back or
 * expiring it while we run.  Pure: the clocks are handed in.
 */
#ifndef RELAYD_DELIVERY_SCHEDULE_H
#define RELAYD_DELIVERY_SCHEDULE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct config;

struct schedule {
	const uint32_t *retry_s; /* borrowed from the config; at least one */
	size_t n_retry;
	uint32_t expire_s;
};

struct schedule_now {
	int64_t mono_ms, wall_ms; /* read together */
};

struct schedule schedule_of(const struct config *cfg);
/* How long to wait after the attempts-th failed attempt (1, 2, ...); the last one repeats. */
int64_t schedule_delay_ms(const struct schedule *s, unsigned attempts);
/* The monotonic time at which a message was received, from the stored one.  One from the future
 * counts as received now. */
int64_t schedule_born_ms(struct schedule_now now, int64_t received_wall_ms);
/* When to try again after a restart: never later from now than the schedule itself would wait. */
int64_t schedule_due_ms(
    const struct schedule *s, struct schedule_now now, unsigned attempts, int64_t tried_wall_ms);
/* Asked only right after a failed attempt. */
bool schedule_expired(const struct schedule *s, int64_t now_mono_ms, int64_t born_mono_ms);

/* What waits for its time: a binary heap of nodes inside of what waits. */
struct schedule_node {
	int64_t due_ms;
	uint32_t at; /* place in the heap, 1 ..; 0: not in it */
};

struct schedule_heap {
	struct schedule_node **v; /* v[1 .. n] */
	size_t n, cap;
};

/* -1 when memory is out; the node is not in then.  A node that is in already is moved. */
int schedule_put(struct schedule_heap *h, struct schedule_node *node, int64_t due_ms);
/* Harmless on a node that is not in. */
void schedule_remove(struct schedule_heap *h, struct schedule_node *node);
/* by takes the place of a node that is in. */
void schedule_replace(
    struct schedule_heap *h, const struct schedule_node *node, struct schedule_node *by);
/* The earliest, or NULL. */
struct schedule_node *schedule_first(const struct schedule_heap *h);
void schedule_heap_fini(struct schedule_heap *h);

#endif
