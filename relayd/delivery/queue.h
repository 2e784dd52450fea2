/* relayd/delivery/queue.h - the queue: which recipients are still to be delivered, and when.
 *
 * Memory only, and small: bodies, paths and all that must outlive us are in the spool.  A message
 * is cut into jobs; a job is what one transaction can carry: recipients of one copy with one next
 * hop, at most QUEUE_JOB_RCPTS.  A job stands in the line of its next hop (ready), waits for its
 * time (deferred) or for the admin (held), or is in the hands of an attempt.  Nothing here starts
 * anything.
 *
 * A message that waits in a long queue is parked: only its place in line or in time is in memory,
 * and it is read again when its turn comes.  entry->user is the message, or with entry->parked what
 * is parked.
 */
#ifndef RELAYD_DELIVERY_QUEUE_H
#define RELAYD_DELIVERY_QUEUE_H

#include "relayd/core/slice.h"
#include "relayd/delivery/line.h"
#include "relayd/delivery/schedule.h"
#include "relayd/spool/index.h"

#define QUEUE_JOB_RCPTS       100 /* RFC 5321 section 4.5.3.1.8: every server takes so many */
#define QUEUE_DIALOGUES_BYTES ((size_t)8 << 20) /* of all that are kept for the admin */

enum queue_state {
	QUEUE_READY,    /* in the line of its next hop */
	QUEUE_DEFERRED, /* waits for due */
	QUEUE_TAKEN,    /* an attempt or a report has it */
	QUEUE_HELD,     /* until the admin lets it go */
};

struct queue_reason; /* a text that many recipients share; counted */

struct queue_rcpt {
	uint32_t ordinal;         /* over all copies of the envelope */
	struct queue_reason *why; /* of the last deferral, or NULL */
};

struct queue_job {
	/* its place in line or in time; due also says when a taken one was to be */
	struct line_slot slot;
	struct queue_msg *msg;
	struct queue_job *sibling; /* of the same message */
	struct queue_rcpt *rcpts;  /* not yet finished */
	struct queue_rcpt one;
	uint32_t n_rcpts, cap_rcpts;
	uint32_t part;     /* of its copy's recipients with this next hop */
	uint32_t planned;  /* generation of the routes that chose the line */
	uint32_t missed;   /* failures of the next hop, as it counted them when the job joined */
	uint16_t attempts; /* that failed */
	struct queue_reason *dialogue; /* of the last attempt that deferred it, or NULL */
};

/* A parked message: it has a single job, which nobody has in his hands. */
struct queue_parked {
	struct line_slot slot;
	struct index_msg *entry;
};
#define QUEUE_WHOLE 20000 /* messages that are not parked, whatever they wait for */

struct content;

struct queue_msg {
	struct index_msg *entry;
	struct queue_msg *prev, *next;
	struct queue_job *jobs;
	struct content *content; /* what was just read, while there is room for it; or NULL */
	int64_t born_ms;         /* monotonic; may be negative */
	uint64_t size;
	uint32_t open; /* recipients not finished */
	uint16_t pins; /* who reads its bytes: not done before they are gone */
	bool dropped;  /* by the admin, while an attempt had it */
	struct queue_job first;
};

struct queue {
	struct queue_msg *head, *tail; /* that are not parked, in no order */
	struct schedule_heap deferred;
	struct queue_reason **reasons; /* by hash */
	size_t n_reasons, cap_reasons;
	size_t dialogue_bytes;
	uint64_t messages, recipients, bytes;
	uint64_t whole;     /* messages that are not parked */
	uint64_t whole_max; /* QUEUE_WHOLE: beyond so many who has time is to be parked */
};

void queue_init(struct queue *q);
/* Forgets all messages; their content was given back before. */
void queue_fini(struct queue *q);

/* A message without jobs.  NULL when memory is out. */
struct queue_msg *queue_add(
    struct queue *q, struct index_msg *entry, int64_t born_ms, uint64_t size);
/* The message is finished, or cannot be held: frees it with its jobs. */
void queue_remove(struct queue *q, struct queue_msg *msg);

/* An empty job, taken; the first flow of its line is its, until the caller says another.  NULL when
 * memory is out. */
struct queue_job *queue_job_new(struct queue_msg *msg, struct line *line);
/* Adds a recipient; false when memory is out. */
bool queue_job_add(struct queue *q, struct queue_job *job, uint32_t ordinal);
/* Recipient i is finished; the last one takes its place. */
void queue_job_drop(struct queue *q, struct queue_job *job, uint32_t i);
/* The job is empty, or its recipients were added to others: frees it. */
void queue_job_free(struct queue *q, struct queue_job *job);
/* From now on a taken job belongs to another line. */
void queue_job_move(struct queue_job *job, struct line *line);
/* Keeps why for a recipient; an empty one forgets it. */
void queue_why(struct queue *q, struct queue_rcpt *rcpt, struct slice why);
/* Keeps a dialogue of some lines in *slot, an empty one is forgotten; none is kept beyond
 * QUEUE_DIALOGUES_BYTES in all. */
void queue_dialogue(struct queue *q, struct queue_reason **slot, struct slice text);
struct slice queue_reason_text(const struct queue_reason *why);

/* Into its line, at the end or in front of all. */
void queue_ready(struct queue_job *job, bool in_front);
/* Until due_ms, monotonic.  Out of memory: at once ready instead. */
void queue_defer(struct queue *q, struct queue_job *job, int64_t due_ms);
/* A taken job waits until somebody takes it again. */
void queue_hold(struct queue_job *job);
/* The admin holds the message, or it waits (index.h): no job of it may be made ready. */
bool queue_is_held(const struct queue_msg *msg);
/* Out of line, schedule or hold, into the hands of the caller. */
void queue_take(struct queue *q, struct queue_job *job);
/* The first of a line, taken; NULL when it is empty.  Not parked: see line_peek(). */
struct queue_job *queue_take_first(struct queue *q, struct line *line);
/* A deferred one whose time has come, in its line now; or NULL. */
struct line_slot *queue_due(struct queue *q, int64_t now_ms);

/* What is in line, job or parked: whose it is, and into another line. */
struct index_msg *queue_slot_entry(const struct line_slot *slot);
void queue_slot_move(struct line_slot *slot, struct line *line);

/* Whether it could be parked: it waits, and all that memory knows of it can be read again. */
bool queue_may_park(const struct queue_msg *msg);
/* Parks a message that may be, whose content was given back; msg is gone then.  False when memory
 * is out. */
bool queue_park(struct queue *q, struct queue_msg *msg);
/* The message is whole again, with jobs that were just made and are taken.  Where it is one job for
 * the same next hop it stands where the parked one stood, and true is returned; else it is for the
 * caller to place them. */
bool queue_unpark(struct queue *q, struct queue_parked *parked, struct queue_msg *msg);
/* A parked one that could not be read: until due_ms. */
void queue_parked_defer(struct queue *q, struct queue_parked *parked, int64_t due_ms);
/* Nobody wants one that could not be read.  Its size is not known any more: q->bytes is too large
 * by some of it until the queue is empty. */
void queue_parked_drop(struct queue *q, struct queue_parked *parked);
/* Forgets it, at the end of all. */
void queue_parked_free(struct queue *q, struct queue_parked *parked);

#endif
