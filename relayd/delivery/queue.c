/* relayd/delivery/queue.c - messages and jobs, whole and parked, and the reasons that they
 * share. */
#include "relayd/delivery/queue.h"

#include "relayd/core/slice.h"

#include <stdlib.h>

/* ---- reasons ---------------------------------------------------------------------------- */

struct queue_reason {
	struct queue_reason *next; /* of one hash */
	uint32_t refs, hash, len;
	char text[];
};

#define REASONS_HEADS 256
#define RECORD_ROOM   4096 /* envelopes are shorter, but for those of many recipients */

/* FNV-1a: the texts come from next hops, so one could collide on purpose, and gain nothing: there
 * are at most as many as recipients. */
static uint32_t
hash_of(struct slice text)
{
	uint32_t h = 2166136261u;

	for (size_t i = 0; i < text.len; i++)
		h = (h ^ (uint8_t)text.p[i]) * 16777619u;
	return h;
}

static void
rehash(struct queue *q, size_t cap)
{
	struct queue_reason **heads = calloc(cap, sizeof(struct queue_reason *));

	if (heads == NULL)
		return; /* longer chains will do */
	for (size_t i = 0; i < q->cap_reasons; i++) {
		while (q->reasons[i] != NULL) {
			struct queue_reason *r = q->reasons[i];

			q->reasons[i] = r->next;
			r->next = heads[r->hash % cap];
			heads[r->hash % cap] = r;
		}
	}
	free(q->reasons);
	q->reasons = heads;
	q->cap_reasons = cap;
}

static struct queue_reason *
reason_ref(struct queue *q, struct slice text)
{
	uint32_t hash = hash_of(text);
	struct queue_reason *r;

	if (q->n_reasons >= q->cap_reasons)
		rehash(q, q->cap_reasons > 0 ? 4 * q->cap_reasons : REASONS_HEADS);
	if (q->cap_reasons == 0)
		return NULL;
	for (r = q->reasons[hash % q->cap_reasons]; r != NULL; r = r->next) {
		if (r->hash == hash && slice_eq(queue_reason_text(r), text)) {
			r->refs++;
			return r;
		}
	}
	r = malloc(sizeof(*r) + text.len);
	if (r == NULL)
		return NULL;
	*r = (struct queue_reason){ .refs = 1, .hash = hash, .len = (uint32_t)text.len };
	memcpy(r->text, text.p, text.len);
	r->next = q->reasons[hash % q->cap_reasons];
	q->reasons[hash % q->cap_reasons] = r;
	q->n_reasons++;
	return r;
}

static void
reason_unref(struct queue *q, struct queue_reason *r)
{
	struct queue_reason **at;

	if (r == NULL || --r->refs > 0)
		return;
	at = &q->reasons[r->hash % q->cap_reasons];
	while (*at != r)
		at = &(*at)->next;
	*at = r->next;
	q->n_reasons--;
	free(r);
}

void
queue_why(struct queue *q, struct queue_rcpt *rcpt, struct slice why)
{
	struct queue_reason *old = rcpt->why;

	rcpt->why = why.len > 0 ? reason_ref(q, why) : NULL;
	reason_unref(q, old);
}

void
queue_dialogue(struct queue *q, struct queue_reason **slot, struct slice text)
{
	q->dialogue_bytes -= queue_reason_text(*slot).len;
	reason_unref(q, *slot);
	*slot = NULL;
	if (text.len > 0 && text.len <= QUEUE_DIALOGUES_BYTES - q->dialogue_bytes)
		*slot = reason_ref(q, text);
	q->dialogue_bytes += queue_reason_text(*slot).len;
}

struct slice
queue_reason_text(const struct queue_reason *why)
{
	return why != NULL ? slice_of(why->text, why->len) : SLICE("");
}

/* ---- messages --------------------------------------------------------------------------- */

void
queue_init(struct queue *q)
{
	*q = (struct queue){ .whole_max = QUEUE_WHOLE };
}

void
queue_fini(struct queue *q)
{
	while (q->head != NULL)
		queue_remove(q, q->head);
	schedule_heap_fini(&q->deferred);
	free(q->reasons);
	*q = (struct queue){ 0 };
}

struct queue_msg *
queue_add(struct queue *q, struct index_msg *entry, int64_t born_ms, uint64_t size)
{
	struct queue_msg *msg = calloc(1, sizeof(*msg));

	if (msg == NULL)
		return NULL;
	msg->entry = entry;
	msg->born_ms = born_ms;
	msg->size = size;
	msg->prev = q->tail;
	if (q->tail != NULL)
		q->tail->next = msg;
	else
		q->head = msg;
	q->tail = msg;
	q->whole++;
	q->messages++;
	q->bytes += size;
	return msg;
}

static void
leave_list(struct queue *q, struct queue_msg *msg)
{
	if (msg->prev != NULL)
		msg->prev->next = msg->next;
	else
		q->head = msg->next;
	if (msg->next != NULL)
		msg->next->prev = msg->prev;
	else
		q->tail = msg->prev;
}

/* What queue_parked_drop() takes is a guess: the sum never passes zero, and is right when nothing
 * is left. */
static void
take_bytes(struct queue *q, uint64_t bytes)
{
	q->bytes = q->messages > 0 && bytes < q->bytes ? q->bytes - bytes : 0;
}

void
queue_remove(struct queue *q, struct queue_msg *msg)
{
	while (msg->jobs != NULL)
		queue_job_free(q, msg->jobs);
	leave_list(q, msg);
	q->whole--;
	q->messages--;
	take_bytes(q, msg->size);
	free(msg);
}

/* ---- jobs ------------------------------------------------------------------------------- */

struct queue_job *
queue_job_new(struct queue_msg *msg, struct line *line)
{
	struct queue_job *job = msg->first.msg == NULL ? &msg->first : calloc(1, sizeof(*job));

	if (job == NULL)
		return NULL;
	*job = (struct queue_job){ .msg = msg };
	job->slot.line = line;
	job->slot.state = QUEUE_TAKEN;
	job->rcpts = &job->one;
	job->cap_rcpts = 1;
	job->sibling = msg->jobs;
	msg->jobs = job;
	line->jobs++;
	return job;
}

void
queue_job_move(struct queue_job *job, struct line *line)
{
	job->slot.line->jobs--;
	job->slot.line = line;
	line->jobs++;
}

static bool
make_room(struct queue_job *job)
{
	uint32_t cap = job->cap_rcpts > 1 ? 2 * job->cap_rcpts : 4;
	struct queue_rcpt *v;

	if (job->n_rcpts < job->cap_rcpts)
		return true;
	v = realloc(job->rcpts != &job->one ? job->rcpts : NULL, cap * sizeof(*v));
	if (v == NULL)
		return false;
	if (job->rcpts == &job->one)
		v[0] = job->one;
	job->rcpts = v;
	job->cap_rcpts = cap;
	return true;
}

bool
queue_job_add(struct queue *q, struct queue_job *job, uint32_t ordinal)
{
	if (!make_room(job))
		return false;
	job->rcpts[job->n_rcpts++] = (struct queue_rcpt){ .ordinal = ordinal };
	job->msg->open++;
	q->recipients++;
	return true;
}

void
queue_job_drop(struct queue *q, struct queue_job *job, uint32_t i)
{
	reason_unref(q, job->rcpts[i].why);
	job->rcpts[i] = job->rcpts[--job->n_rcpts];
	job->msg->open--;
	q->recipients--;
}

void
queue_job_free(struct queue *q, struct queue_job *job)
{
	struct queue_msg *msg = job->msg;
	struct queue_job **at = &msg->jobs;

	queue_take(q, job);
	queue_dialogue(q, &job->dialogue, SLICE(""));
	job->slot.line->jobs--;
	while (job->n_rcpts > 0)
		queue_job_drop(q, job, job->n_rcpts - 1);
	while (*at != job)
		at = &(*at)->sibling;
	*at = job->sibling;
	if (job->rcpts != &job->one)
		free(job->rcpts);
	if (job == &msg->first)
		job->msg = NULL;
	else
		free(job);
}

void
queue_ready(struct queue_job *job, bool in_front)
{
	line_join(&job->slot, in_front);
	job->slot.state = QUEUE_READY;
}

void
queue_defer(struct queue *q, struct queue_job *job, int64_t due_ms)
{
	job->slot.due.at = 0;
	if (schedule_put(&q->deferred, &job->slot.due, due_ms) < 0)
		queue_ready(job, false);
	else
		job->slot.state = QUEUE_DEFERRED;
}

void
queue_hold(struct queue_job *job)
{
	job->slot.state = QUEUE_HELD;
}

bool
queue_is_held(const struct queue_msg *msg)
{
	return (msg->entry->flags & INDEX_HELD) != 0 || msg->entry->waits;
}

void
queue_take(struct queue *q, struct queue_job *job)
{
	if (job->slot.state == QUEUE_READY)
		line_leave(&job->slot);
	else if (job->slot.state == QUEUE_DEFERRED)
		schedule_remove(&q->deferred, &job->slot.due);
	job->slot.state = QUEUE_TAKEN;
}

struct queue_job *
queue_take_first(struct queue *q, struct line *line)
{
	struct line_slot *slot = line_take(line);
	struct queue_job *job = slot != NULL ? container_of(slot, struct queue_job, slot) : NULL;

	(void)q;
	if (job != NULL)
		job->slot.state = QUEUE_TAKEN;
	return job;
}

struct line_slot *
queue_due(struct queue *q, int64_t now_ms)
{
	struct schedule_node *node = schedule_first(&q->deferred);
	struct line_slot *slot;

	if (node == NULL || node->due_ms > now_ms)
		return NULL;
	slot = container_of(node, struct line_slot, due);
	schedule_remove(&q->deferred, node);
	line_join(slot, false);
	slot->state = QUEUE_READY;
	return slot;
}

/* ---- parked ----------------------------------------------------------------------------- */

static struct queue_parked *
parked_of(const struct line_slot *slot)
{
	return container_of((struct line_slot *)(uintptr_t)slot, struct queue_parked, slot);
}

struct index_msg *
queue_slot_entry(const struct line_slot *slot)
{
	return slot->parked ? parked_of(slot)->entry
			    : container_of(slot, const struct queue_job, slot)->msg->entry;
}

void
queue_slot_move(struct line_slot *slot, struct line *line)
{
	line_leave(slot);
	slot->line->jobs--;
	slot->line = line;
	line->jobs++;
	line_join(slot, false);
}

bool
queue_may_park(const struct queue_msg *msg)
{
	const struct queue_job *job = msg->jobs;

	return job != NULL && job->sibling == NULL && job->slot.state != QUEUE_TAKEN &&
	       job->dialogue == NULL && msg->pins == 0 && !msg->dropped;
}

/* by has the place of slot from now on. */
static void
take_place(struct queue *q, struct line_slot *slot, struct line_slot *by)
{
	if (slot->state == QUEUE_READY) {
		line_replace(slot, by);
	} else {
		*by = *slot;
		if (slot->state == QUEUE_DEFERRED)
			schedule_replace(&q->deferred, &slot->due, &by->due);
	}
	slot->state = QUEUE_TAKEN;
}

bool
queue_park(struct queue *q, struct queue_msg *msg)
{
	struct queue_parked *parked = malloc(sizeof(*parked));
	struct queue_job *job = msg->jobs;

	if (parked == NULL)
		return false;
	take_place(q, &job->slot, &parked->slot);
	parked->slot.parked = true;
	parked->slot.n_rcpts = (uint8_t)job->n_rcpts;
	parked->slot.line->jobs++;
	parked->entry = msg->entry;
	parked->entry->user = parked;
	parked->entry->parked = true;
	q->messages++;
	q->recipients += job->n_rcpts;
	q->bytes += msg->size;
	queue_remove(q, msg);
	return true;
}

static void
parked_leave(struct queue *q, struct queue_parked *parked)
{
	if (parked->slot.state == QUEUE_READY)
		line_leave(&parked->slot);
	else if (parked->slot.state == QUEUE_DEFERRED)
		schedule_remove(&q->deferred, &parked->slot.due);
	parked->slot.state = QUEUE_TAKEN;
}

bool
queue_unpark(struct queue *q, struct queue_parked *parked, struct queue_msg *msg)
{
	struct queue_job *job = msg->jobs;
	bool same = job != NULL && job->sibling == NULL &&
		    job->slot.line->owner == parked->slot.line->owner;

	q->messages--; /* it was counted all the time */
	take_bytes(q, msg->size);
	q->recipients -= parked->slot.n_rcpts;
	if (same) {
		job->slot.line->jobs--;
		take_place(q, &parked->slot, &job->slot);
		job->slot.parked = false;
	} else {
		parked_leave(q, parked);
		parked->slot.line->jobs--;
	}
	parked->entry->user = msg;
	parked->entry->parked = false;
	free(parked);
	return same;
}

void
queue_parked_defer(struct queue *q, struct queue_parked *parked, int64_t due_ms)
{
	parked_leave(q, parked);
	parked->slot.due.at = 0;
	if (schedule_put(&q->deferred, &parked->slot.due, due_ms) < 0) {
		line_join(&parked->slot, false);
		parked->slot.state = QUEUE_READY;
	} else {
		parked->slot.state = QUEUE_DEFERRED;
	}
}

void
queue_parked_drop(struct queue *q, struct queue_parked *parked)
{
	uint64_t bytes = parked->entry->bytes;

	bytes = bytes > RECORD_ROOM && !parked->entry->in_file ? bytes - RECORD_ROOM : 0;
	q->messages--;
	q->recipients -= parked->slot.n_rcpts;
	take_bytes(q, bytes);
	queue_parked_free(q, parked);
}

void
queue_parked_free(struct queue *q, struct queue_parked *parked)
{
	parked_leave(q, parked);
	parked->slot.line->jobs--;
	free(parked);
}
