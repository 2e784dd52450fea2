/* relayd/delivery/control_parts.h - what the files behind control.h ask of each other.
 *
 *	control.c	which request, and those that go on for more than one round
 *	control_show.c	what is told about a message
 *	control_match.c	which messages a request means
 *	control_act.c	what is done to them
 *	control_top.c	the queue and its next hops in figures
 */
#ifndef RELAYD_DELIVERY_CONTROL_PARTS_H
#define RELAYD_DELIVERY_CONTROL_PARTS_H

#include "relayd/delivery/parts.h"
#include "relayd/net/control.h"

/* ---- control_match.c ------------------------------------------------------------------------ */

/* A message fits when it fits every member that is set. */
struct control_match {
	struct slice domain, sender, state, reason; /* borrowed of the request; empty: not set */
	int64_t age_s;                              /* at least; 0: any */
	int64_t size;
	bool any; /* a member is set */
};

/* Reads "domain", "sender", "age_s", "size", "state" and "reason".  ERR_FORMAT: what is wrong. */
int match_of(const struct control_request *req, struct control_match *m, struct err *err);
/* As far as can be told without its envelope. */
bool match_quick(const struct control_match *m, const struct queue_msg *msg);
bool match_needs_envelope(const struct control_match *m);
/* One that cannot be read, as far as that is known. */
bool match_broken(
    const struct control_match *m, const struct index_msg *entry, struct slice damage);
bool match_envelope(
    const struct control_match *m, const struct queue_msg *msg, const struct content *content);

/* ---- control_show.c ------------------------------------------------------------------------- */

/* As JSON, whatever bytes it has. */
json_t *show_text(struct slice s);
/* The time until then, monotonic, rounded up; 0 where it is past or at_ms is 0. */
int64_t show_seconds_until(int64_t at_ms);
const char *show_state(const struct queue_msg *msg); /* "active", "deferred", "held" */
/* Why it is still here; the text is in out where nobody else has it. */
struct slice show_why(
    const struct queue_job *job, const struct queue_rcpt *rcpt, char *out, size_t out_len);
/* A line of queue.list. */
json_t *show_line(const struct queue_msg *msg, const struct content *content);
/* The same of one that is damaged. */
json_t *show_broken(const struct delivery *d, const struct index_msg *entry, const struct err *err);
/* The lines of queue.show. */
void show_message(
    struct control_request *req, const struct queue_msg *msg, const struct content *content);

/* ---- control.c ------------------------------------------------------------------------------ */

/* A request that goes on for more than one round of the loop. */
struct control_op {
	struct control_op *next, **prev; /* of the delivery */
	struct delivery *d;
	struct control_request *req;
	/* Does a part; true when there is nothing left to do: err tells how it ended. */
	bool (*step)(struct control_op *op);
	struct err err;
	struct index_cursor cursor;
	struct index_cursor before; /* the last message that it gave: to step back */
	struct id last;             /* that message, which may be parked again; or zero */
	struct control_match match;
	const struct control_act *act;
	char via[INDEX_VIA_MAX + 1]; /* reroute: where to; "" for the routes of the config */
	int64_t begun_ms;            /* what came later is not meant */
	uint64_t count;
	struct index_msg *broken; /* op_next() met one that is damaged, and why */
	struct err broken_err;
	struct queue_msg *msg; /* whose body it is; pinned */
	struct content *content;
	uint64_t at;
};

/* A request that is answered by step(); NULL when memory is out, which the client was told. */
struct control_op *op_start(
    struct delivery *d, struct control_request *req, bool (*step)(struct control_op *op));
/* The message of the next step, or NULL: at the end (*end), at one that is damaged (op->broken), or
 * enough for this round.  Only those that fit op->match; *content is a reference where the match or
 * the caller needs it. */
struct queue_msg *op_next(
    struct control_op *op, bool envelope, unsigned *left, struct content **content, bool *end);
/* The step did nothing with the last message: the next one comes back to it. */
void op_step_back(struct control_op *op);

/* ---- control_act.c -------------------------------------------------------------------------- */

/* Something that is done to messages, by id or by what they have in common. */
struct control_act {
	const char *op;      /* "queue.drop" */
	const char *counted; /* "dropped" */
	bool envelope;       /* it needs the message's envelope */
	bool all;            /* without any predicate it means all */
	/* 1: done, 0: there was nothing to do, -1: not now. */
	int (*run)(struct control_op *op, struct queue_msg *msg, struct content *content);
};

/* NULL: there is none of that name. */
const struct control_act *act_named(struct slice op);
void act_one(struct delivery *d, struct control_request *req, const struct control_act *act,
    struct index_msg *entry);
/* Nothing but to give it up can be done to a message that is damaged; *err says so instead of what
 * it said. */
void act_say_damaged(
    const struct delivery *d, const char *done, const struct index_msg *entry, struct err *err);
/* What is done to one that is damaged; how many that counts. */
int act_broken(struct control_op *op);
void act_some(struct delivery *d, struct control_request *req, const struct control_act *act);

/* ---- control_top.c -------------------------------------------------------------------------- */

void top_status(struct delivery *d, struct control_request *req);
void top_start(struct delivery *d, struct control_request *req);

#endif
