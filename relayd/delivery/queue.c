/* relayd/delivery/queue.c - lists of messages and jobs, and the reasons that they share. */
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

/* FNV-1a: the texts come from next hops, so one could collide on purpose, and gain nothing: there are
 * at most as many as recipients. */
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
	*q = (struct queue){ 0 };
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
	q->messages++;
	q->bytes += size;
	return msg;
}

static void
leave_list(struct queue *q, struct queue_msg *msg)
{
	for (struct queue_cursor *c = q->cursors; c != NULL; c = c->next)
		if (c->at == msg)
			c->at = msg->next;
	if (msg->prev != NULL)
		msg->prev->next = msg->next;
	else
		q->head = msg->next;
	if (msg->next != NULL)
		msg->next->prev = msg->prev;
	else
		q->tail = msg->prev;
}

void
queue_remove(struct queue *q, struct queue_msg *msg)
{
	while (msg->jobs != NULL)
		queue_job_free(q, msg->jobs);
	leave_list(q, msg);
	q->messages--;
	q->bytes -= msg->size;
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
	return (msg->entry->flags & INDEX_HELD) != 0;
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

struct queue_job *
queue_due(struct queue *q, int64_t now_ms)
{
	struct schedule_node *node = schedule_first(&q->deferred);
	struct queue_job *job;

	if (node == NULL || node->due_ms > now_ms)
		return NULL;
	job = container_of(node, struct queue_job, slot.due);
	queue_take(q, job);
	return job;
}

/* ---- cursors ---------------------------------------------------------------------------- */

void
queue_cursor_start(struct queue *q, struct queue_cursor *c)
{
	c->at = q->head;
	c->next = q->cursors;
	q->cursors = c;
}

struct queue_msg *
queue_cursor_next(struct queue_cursor *c)
{
	struct queue_msg *msg = c->at;

	if (msg != NULL)
		c->at = msg->next;
	return msg;
}

void
queue_cursor_end(struct queue *q, struct queue_cursor *c)
{
	struct queue_cursor **at = &q->cursors;

	while (*at != NULL && *at != c)
		at = &(*at)->next;
	if (*at != NULL)
		*at = c->next;
}
