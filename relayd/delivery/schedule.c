/* relayd/delivery/schedule.c - retry times, expiry, and the heap of what waits for its time. */
#include "relayd/delivery/schedule.h"

#include "relayd/core/config.h"

#include <stdlib.h>

struct schedule
schedule_of(const struct config *cfg)
{
	return (struct schedule){ .retry_s = cfg->queue.retry_s,
		.n_retry = cfg->queue.n_retry,
		.expire_s = cfg->queue.expire_s };
}

int64_t
schedule_delay_ms(const struct schedule *s, unsigned attempts)
{
	size_t i = attempts > 0 ? attempts - 1 : 0;

	return 1000 * (int64_t)s->retry_s[i < s->n_retry ? i : s->n_retry - 1];
}

int64_t
schedule_born_ms(struct schedule_now now, int64_t received_wall_ms)
{
	int64_t age_ms = now.wall_ms - received_wall_ms;

	return now.mono_ms - (age_ms > 0 ? age_ms : 0);
}

int64_t
schedule_due_ms(
    const struct schedule *s, struct schedule_now now, unsigned attempts, int64_t tried_wall_ms)
{
	int64_t delay = schedule_delay_ms(s, attempts);
	int64_t left = tried_wall_ms + delay - now.wall_ms;

	if (left < 0)
		left = 0;
	return now.mono_ms + (left < delay ? left : delay);
}

bool
schedule_expired(const struct schedule *s, int64_t now_mono_ms, int64_t born_mono_ms)
{
	return now_mono_ms - born_mono_ms >= 1000 * (int64_t)s->expire_s;
}

static void
put_at(struct schedule_heap *h, size_t at, struct schedule_node *node)
{
	h->v[at] = node;
	node->at = (uint32_t)at;
}

static void
sift_up(struct schedule_heap *h, struct schedule_node *node)
{
	size_t at = node->at;

	for (; at > 1 && node->due_ms < h->v[at / 2]->due_ms; at /= 2)
		put_at(h, at, h->v[at / 2]);
	put_at(h, at, node);
}

static void
sift_down(struct schedule_heap *h, struct schedule_node *node)
{
	size_t at = node->at;

	for (;;) {
		size_t child = 2 * at;

		if (child + 1 <= h->n && h->v[child + 1]->due_ms < h->v[child]->due_ms)
			child++;
		if (child > h->n || h->v[child]->due_ms >= node->due_ms)
			break;
		put_at(h, at, h->v[child]);
		at = child;
	}
	put_at(h, at, node);
}

static int
make_room(struct schedule_heap *h)
{
	size_t cap = h->cap > 0 ? 2 * h->cap : 64;
	struct schedule_node **v;

	if (h->n + 1 < h->cap)
		return 0;
	v = realloc(h->v, cap * sizeof(*v));
	if (v == NULL)
		return -1;
	h->v = v;
	h->cap = cap;
	return 0;
}

int
schedule_put(struct schedule_heap *h, struct schedule_node *node, int64_t due_ms)
{
	if (node->at == 0) {
		if (make_room(h) < 0)
			return -1;
		h->n++;
		put_at(h, h->n, node);
	}
	node->due_ms = due_ms;
	sift_up(h, node);
	sift_down(h, node);
	return 0;
}

void
schedule_remove(struct schedule_heap *h, struct schedule_node *node)
{
	struct schedule_node *last;
	size_t at = node->at;

	if (at == 0)
		return;
	last = h->v[h->n--];
	node->at = 0;
	if (last == node)
		return;
	put_at(h, at, last);
	sift_up(h, last);
	sift_down(h, last);
}

void
schedule_replace(
    struct schedule_heap *h, const struct schedule_node *node, struct schedule_node *by)
{
	*by = *node;
	h->v[by->at] = by;
}

struct schedule_node *
schedule_first(const struct schedule_heap *h)
{
	return h->n > 0 ? h->v[1] : NULL;
}

void
schedule_heap_fini(struct schedule_heap *h)
{
	free(h->v);
	*h = (struct schedule_heap){ 0 };
}
