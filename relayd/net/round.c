/* relayd/net/round.c - what is left for the end of a loop round: deferred callbacks, then
 * output; and the deadlines of the loop, which share one timer. */
#include "relayd/net/round.h"

#include "relayd/core/slice.h"

#include <stdlib.h>

#define PASSES_MAX 16 /* tasks that mark tasks: the rest waits for the next round */

struct task_list {
	struct round_task *first, *last;
};

struct round {
	uv_loop_t *loop;
	uv_check_t check;     /* runs the tasks, after the events that marked them */
	/* and those that were marked elsewhere, just before the loop sleeps */
	uv_prepare_t prepare;
	uv_idle_t idle;       /* active while tasks wait, so that the loop does not sleep on them */
	struct task_list tasks[ROUND_PHASES];
	struct deadline_wheel wheel;
	uv_timer_t timer; /* active while a deadline is set */
	int64_t armed_ms; /* for when; 0: it is not active */
	struct round *next;
	size_t refs;
	uint64_t number; /* of loop rounds */
	unsigned open_handles;
};

static _Thread_local struct round *rounds; /* of this thread's loops: one, outside of tests */

static void
list_push(struct task_list *list, struct round_task *task)
{
	task->prev = list->last;
	task->next = NULL;
	*(list->last != NULL ? &list->last->next : &list->first) = task;
	list->last = task;
}

static void
list_remove(struct task_list *list, struct round_task *task)
{
	*(task->prev != NULL ? &task->prev->next : &list->first) = task->next;
	*(task->next != NULL ? &task->next->prev : &list->last) = task->prev;
	task->prev = task->next = NULL;
}

static struct round_task *
list_pop(struct task_list *list)
{
	struct round_task *task = list->first;

	if (task != NULL) {
		list_remove(list, task);
		task->marked = false;
	}
	return task;
}

/* Runs those that are marked now; what they mark is left for the next pass. */
static bool
run_pass(struct task_list *list)
{
	struct round_task *last = list->last, *task;
	bool more = last != NULL;

	/* last may be unmarked by a task before it: then the pass ends with the list. */
	while (more && (task = list_pop(list)) != NULL) {
		more = task != last;
		task->run(task);
	}
	return last != NULL;
}

static bool
any_marked(const struct round *r)
{
	return r->tasks[ROUND_WORK].first != NULL || r->tasks[ROUND_FLUSH].first != NULL;
}

/* ---- deadlines ------------------------------------------------------------------------------ */

static void
on_timer(uv_timer_t *timer)
{
	struct round *r = timer->data;
	struct deadline *d;

	r->armed_ms = 0; /* run_tasks() sets it anew, before the loop sleeps */
	r->refs++;       /* what runs may drop the last one */
	while ((d = deadline_due(&r->wheel, (int64_t)uv_now(timer->loop))) != NULL) {
		struct round_timer *due = container_of(d, struct round_timer, deadline);

		due->run(due);
	}
	round_unref(r);
}

static void
arm(struct round *r)
{
	int64_t next = deadline_next(&r->wheel), now = (int64_t)uv_now(r->loop);

	if (next == r->armed_ms || uv_is_closing((uv_handle_t *)&r->timer))
		return;
	r->armed_ms = next;
	/* Neither fails: the handle is open, and there is a callback. */
	if (next == 0)
		(void)uv_timer_stop(&r->timer);
	else
		(void)uv_timer_start(
		    &r->timer, on_timer, next > now ? (uint64_t)(next - now) : 0, 0);
}

void
round_timer_set(struct round *r, struct round_timer *timer, int64_t at_ms)
{
	bool first = at_ms > 0 && r->armed_ms == 0;

	deadline_set(&r->wheel, &timer->deadline, at_ms);
	if (first)
		arm(r); /* a loop that has nothing else to do would end before it sleeps */
}

void
round_timer_drop(struct round *r, struct round_timer *timer)
{
	deadline_drop(&r->wheel, &timer->deadline);
}

/* ---- the round ------------------------------------------------------------------------------ */

static void
run_tasks(struct round *r)
{
	for (unsigned pass = 0; pass < PASSES_MAX && any_marked(r); pass++)
		if (!run_pass(&r->tasks[ROUND_WORK]))
			(void)run_pass(
			    &r->tasks[ROUND_FLUSH]); /* there is some, says any_marked() */
	if (!any_marked(r))
		(void)uv_idle_stop(&r->idle); /* cannot fail */
}

/* What a task closes is gone in this round; before the loop sleeps it would take one more. */
static void
on_check(uv_check_t *check)
{
	struct round *r = check->data;

	r->number++;
	if (!any_marked(r))
		return;
	r->refs++; /* a task may drop the last one */
	run_tasks(r);
	round_unref(r);
}

static void
on_prepare(uv_prepare_t *prepare)
{
	struct round *r = prepare->data;

	r->refs++; /* as above */
	run_tasks(r);
	arm(r);
	round_unref(r);
}

uint64_t
round_number(const struct round *r)
{
	return r->number;
}

static void
nothing(uv_idle_t *idle)
{
	(void)idle; /* its being active is all that counts */
}

struct round *
round_ref(uv_loop_t *loop)
{
	struct round *r = rounds;

	while (r != NULL && r->loop != loop)
		r = r->next;
	if (r != NULL) {
		r->refs++;
		return r;
	}
	r = calloc(1, sizeof(*r));
	if (r == NULL)
		return NULL;
	r->loop = loop;
	r->refs = 1;
	r->open_handles = 4;
	deadline_wheel_init(&r->wheel, (int64_t)uv_now(loop));
	(void)uv_check_init(loop, &r->check); /* these seven cannot fail */
	(void)uv_prepare_init(loop, &r->prepare);
	(void)uv_idle_init(loop, &r->idle);
	(void)uv_timer_init(loop, &r->timer);
	(void)uv_check_start(&r->check, on_check);
	(void)uv_prepare_start(&r->prepare, on_prepare);
	uv_unref((uv_handle_t *)&r->check);
	uv_unref((uv_handle_t *)&r->prepare);
	r->check.data = r->prepare.data = r->idle.data = r->timer.data = r;
	r->next = rounds;
	rounds = r;
	return r;
}

static void
on_closed(uv_handle_t *handle)
{
	struct round *r = handle->data;

	if (--r->open_handles == 0)
		free(r);
}

void
round_unref(struct round *r)
{
	struct round **at = &rounds;

	if (--r->refs > 0)
		return;
	while (*at != r)
		at = &(*at)->next;
	*at = r->next;
	uv_close((uv_handle_t *)&r->check, on_closed);
	uv_close((uv_handle_t *)&r->prepare, on_closed);
	uv_close((uv_handle_t *)&r->idle, on_closed);
	uv_close((uv_handle_t *)&r->timer, on_closed);
}

void
round_mark(struct round *r, struct round_task *task, enum round_phase phase)
{
	if (task->marked)
		return;
	task->marked = true;
	task->phase = phase;
	list_push(&r->tasks[phase], task);
	if (!uv_is_active((uv_handle_t *)&r->idle))
		(void)uv_idle_start(&r->idle, nothing); /* cannot fail with a callback */
}

void
round_unmark(struct round *r, struct round_task *task)
{
	if (!task->marked)
		return;
	task->marked = false;
	list_remove(&r->tasks[task->phase], task);
}
