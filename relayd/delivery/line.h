/* relayd/delivery/line.h - the line before a next hop, fair by domain and by sender.
 *
 * What waits in it is in a flow of its domain, and in one of its sender.  Turns alternate: the next
 * domain's first, then the next sender's first.  So neither a flood to one domain nor one of a
 * single sender makes others wait longer than for a turn of each who waits.  Flows are told apart
 * by a hash: few share one in a long line, and a short line is one flow.  Memory only; a line that
 * is all zero is empty.
 */
#ifndef RELAYD_DELIVERY_LINE_H
#define RELAYD_DELIVERY_LINE_H

#include "relayd/core/slice.h"
#include "relayd/delivery/schedule.h"

#define LINE_FLOWS_MAX 1024 /* of either kind */

enum line_by { LINE_BY_DOMAIN, LINE_BY_SENDER, LINE_BYS };

/* What can stand in a line, inside of what does. */
struct line_slot {
	struct line *line; /* that it belongs to, in it or not */
	union {
		struct {
			struct line_slot *prev, *next;
		} in[LINE_BYS];           /* while it stands in line */
		struct schedule_node due; /* while it waits for its time */
	};
	uint16_t flow[LINE_BYS]; /* line_flow_of() */
	uint8_t state;           /* enum queue_state */
	bool told;               /* that its next hop is down */
	bool parked;             /* it is a struct queue_parked and no job */
	uint8_t n_rcpts;         /* of a parked one */
};

struct line_flow {
	struct line_slot *head, *tail;
	uint32_t prev, next; /* of the ring of those that are not empty */
};

struct line_ring {
	struct line_flow *v; /* cap of them, or NULL: one */
	struct line_flow one;
	uint32_t turn; /* who is next */
};

struct line {
	struct line_ring by[LINE_BYS];
	uint32_t cap;  /* flows of either kind, a power of two; 0: one */
	uint8_t turn;  /* enum line_by */
	size_t n;      /* in it */
	size_t untold; /* of them, who are not told that the next hop is down */
	size_t jobs;   /* that belong to it, in any state */
	void *owner;   /* the next hop */
};

/* The flow that a domain or sender is in; case does not count. */
uint16_t line_flow_of(struct slice name);

/* Into the line that it belongs to, at the end of its flows; in front: the very next. */
void line_join(struct line_slot *slot, bool in_front);
void line_leave(struct line_slot *slot);
/* Who is next, and stays; NULL when the line is empty. */
struct line_slot *line_peek(const struct line *line);
/* Who is next leaves the line; NULL when it is empty. */
struct line_slot *line_take(struct line *line);
/* Walks all of a line, in no order that matters; the last answer may leave once the next is
 * known. */
struct line_slot *line_first(const struct line *line);
struct line_slot *line_next(const struct line *line, const struct line_slot *at);
/* Who stands in line is told now. */
void line_tell(struct line_slot *slot);
/* by takes the place of slot, in line and in all it says. */
void line_replace(const struct line_slot *slot, struct line_slot *by);

#endif
