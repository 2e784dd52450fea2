/* relayd/delivery/line.c - a line as flows that have turns, by domain and by sender. */
#include "relayd/delivery/line.h"

#include <stdlib.h>

#define FLOW_ABOUT 8 /* a line gets more flows when it is this many times as long */

uint16_t
line_flow_of(struct slice name)
{
	uint32_t h = 2166136261u;

	for (size_t i = 0; i < name.len; i++) {
		uint8_t c = (uint8_t)name.p[i];

		h = (h ^ (c >= 'A' && c <= 'Z' ? c + 32u : c)) * 16777619u;
	}
	return (uint16_t)(h ^ h >> 16);
}

static uint32_t
index_of(const struct line *line, const struct line_slot *slot, unsigned by)
{
	return line->cap > 0 ? slot->flow[by] & (line->cap - 1) : 0;
}

static struct line_flow *
flow_at(struct line_ring *ring, uint32_t i)
{
	return ring->v != NULL ? &ring->v[i] : &ring->one;
}

/* ---- the ring of flows that are not empty ---------------------------------------------------- */

/* Behind all that have their turn before it. */
static void
ring_join(struct line_ring *ring, uint32_t i, bool first)
{
	struct line_flow *flow = flow_at(ring, i), *turn;

	if (first) {
		flow->prev = flow->next = ring->turn = i;
		return;
	}
	turn = flow_at(ring, ring->turn);
	flow->next = ring->turn;
	flow->prev = turn->prev;
	flow_at(ring, turn->prev)->next = i;
	turn->prev = i;
}

static void
ring_leave(struct line_ring *ring, uint32_t i)
{
	struct line_flow *flow = flow_at(ring, i);

	flow_at(ring, flow->prev)->next = flow->next;
	flow_at(ring, flow->next)->prev = flow->prev;
	if (ring->turn == i)
		ring->turn = flow->next;
}

static void
flow_join(struct line_ring *ring, uint32_t i, struct line_slot *slot, unsigned by, bool first)
{
	struct line_flow *flow = flow_at(ring, i);

	if (flow->head == NULL)
		ring_join(ring, i, first);
	slot->in[by].next = NULL;
	slot->in[by].prev = flow->tail;
	if (flow->tail != NULL)
		flow->tail->in[by].next = slot;
	else
		flow->head = slot;
	flow->tail = slot;
}

static void
flow_join_front(struct line_ring *ring, uint32_t i, struct line_slot *slot, unsigned by, bool first)
{
	struct line_flow *flow = flow_at(ring, i);

	if (flow->head == NULL)
		ring_join(ring, i, first);
	slot->in[by].prev = NULL;
	slot->in[by].next = flow->head;
	if (flow->head != NULL)
		flow->head->in[by].prev = slot;
	else
		flow->tail = slot;
	flow->head = slot;
	ring->turn = i;
}

/* ---- how many flows -------------------------------------------------------------------------- */

/* Each flow is split; who was before another in it still is. */
static void
spread(struct line_ring *ring, struct line_flow *v, uint32_t cap, unsigned by)
{
	struct line_ring to = { .v = v };
	uint32_t i = ring->turn;
	bool first = true;

	do {
		struct line_flow *flow = flow_at(ring, i);
		struct line_slot *slot = flow->head, *next;

		for (; slot != NULL; slot = next) {
			next = slot->in[by].next;
			flow_join(&to, slot->flow[by] & (cap - 1), slot, by, first);
			first = false;
		}
		i = flow->next;
	} while (i != ring->turn);
	free(ring->v);
	*ring = to;
}

/* Without memory the flows stay what they are. */
static void
grow(struct line *line)
{
	uint32_t cap = line->cap == 0 ? 16 : line->cap * 8;
	struct line_flow *v[LINE_BYS];

	if (cap > LINE_FLOWS_MAX)
		cap = LINE_FLOWS_MAX;
	for (unsigned by = 0; by < LINE_BYS; by++)
		v[by] = calloc(cap, sizeof(*v[by]));
	if (v[0] == NULL || v[1] == NULL) {
		free(v[0]);
		free(v[1]);
		return;
	}
	for (unsigned by = 0; by < LINE_BYS; by++)
		spread(&line->by[by], v[by], cap, by);
	line->cap = cap;
}

static void
shrink(struct line *line)
{
	for (unsigned by = 0; by < LINE_BYS; by++) {
		free(line->by[by].v);
		line->by[by] = (struct line_ring){ .v = NULL };
	}
	line->cap = 0;
}

/* ---- in and out ------------------------------------------------------------------------------ */

void
line_join(struct line_slot *slot, bool in_front)
{
	struct line *line = slot->line;

	for (unsigned by = 0; by < LINE_BYS; by++)
		(in_front ? flow_join_front : flow_join)(
		    &line->by[by], index_of(line, slot, by), slot, by, line->n == 0);
	line->n++;
	line->untold += !slot->told;
	if (line->cap < LINE_FLOWS_MAX && line->n > FLOW_ABOUT * (line->cap > 0 ? line->cap : 1u))
		grow(line);
}

static void
flow_leave(struct line_ring *ring, uint32_t i, struct line_slot *slot, unsigned by)
{
	struct line_flow *flow = flow_at(ring, i);

	if (slot->in[by].prev != NULL)
		slot->in[by].prev->in[by].next = slot->in[by].next;
	else
		flow->head = slot->in[by].next;
	if (slot->in[by].next != NULL)
		slot->in[by].next->in[by].prev = slot->in[by].prev;
	else
		flow->tail = slot->in[by].prev;
	if (flow->head == NULL)
		ring_leave(ring, i);
}

void
line_leave(struct line_slot *slot)
{
	struct line *line = slot->line;

	for (unsigned by = 0; by < LINE_BYS; by++)
		flow_leave(&line->by[by], index_of(line, slot, by), slot, by);
	line->untold -= !slot->told;
	slot->due = (struct schedule_node){ .at = 0 };
	if (--line->n == 0)
		shrink(line);
}

void
line_tell(struct line_slot *slot)
{
	slot->line->untold -= !slot->told;
	slot->told = true;
}

struct line_slot *
line_peek(const struct line *line)
{
	const struct line_ring *ring = &line->by[line->turn];

	return ring->v != NULL ? ring->v[ring->turn].head : ring->one.head;
}

struct line_slot *
line_take(struct line *line)
{
	struct line_ring *ring = &line->by[line->turn];
	struct line_slot *slot = line_peek(line);

	if (slot == NULL)
		return NULL;
	ring->turn = flow_at(ring, ring->turn)->next;
	line->turn ^= 1;
	line_leave(slot);
	return slot;
}

/* ---- all of it ------------------------------------------------------------------------------- */

/* The first of flow i or of one behind it. */
static struct line_slot *
head_from(const struct line *line, uint32_t i)
{
	const struct line_ring *ring = &line->by[LINE_BY_DOMAIN];
	uint32_t cap = line->cap > 0 ? line->cap : 1;

	for (; i < cap; i++) {
		struct line_slot *head = ring->v != NULL ? ring->v[i].head : ring->one.head;

		if (head != NULL)
			return head;
	}
	return NULL;
}

struct line_slot *
line_first(const struct line *line)
{
	return head_from(line, 0);
}

struct line_slot *
line_next(const struct line *line, const struct line_slot *at)
{
	struct line_slot *next = at->in[LINE_BY_DOMAIN].next;

	return next != NULL ? next : head_from(line, index_of(line, at, LINE_BY_DOMAIN) + 1);
}

void
line_replace(const struct line_slot *slot, struct line_slot *by)
{
	struct line *line = slot->line;

	*by = *slot;
	for (unsigned k = 0; k < LINE_BYS; k++) {
		struct line_flow *flow = flow_at(&line->by[k], index_of(line, slot, k));

		if (slot->in[k].prev != NULL)
			slot->in[k].prev->in[k].next = by;
		else
			flow->head = by;
		if (slot->in[k].next != NULL)
			slot->in[k].next->in[k].prev = by;
		else
			flow->tail = by;
	}
}
