/* relayd/pipeline/job.c - filters at work on one stage, each in a slot, in order. */
#include "relayd/pipeline/job.h"

#include "relayd/core/clock.h"
#include "relayd/core/counters.h"
#include "relayd/core/log.h"

#include <assert.h>
#include <stdlib.h>

/* ---- life ------------------------------------------------------------------------------------ */

struct pipeline_job *
pl_job_new(struct pipeline_run *run, size_t max_slots)
{
	struct pipeline_job *job;

	if (pl_session_found(run->session) == NULL)
		return NULL;
	job = calloc(1, sizeof(*job) + max_slots * sizeof(job->slots[0]));
	if (job == NULL)
		return NULL;
	job->refs = 1;
	job->run = run;
	job->session = run->session;
	job->session->refs++;
	job->tx = run->tx;
	if (job->tx != NULL)
		job->tx->refs++;
	job->cap_slots = max_slots;
	return job;
}

static void
job_unref(struct pipeline_job *job)
{
	if (--job->refs > 0)
		return;
	for (size_t i = 0; i < job->n_slots; i++) {
		arena_fini(&job->slots[i].out.arena);
		pl_content_fini(&job->slots[i].own_content);
		free(job->slots[i].own_bytes);
	}
	if (job->tx != NULL)
		pl_tx_unref(job->tx);
	pl_session_unref(job->session);
	free(job);
}

struct slot *
pl_job_add(struct pipeline_job *job, const struct module *m, enum filter_stage stage)
{
	struct slot *s = &job->slots[job->n_slots++];

	assert(job->n_slots <= job->cap_slots);
	s->face.host = &pl_job_host;
	s->job = job;
	s->module = m;
	s->stage = stage;
	s->out = pl_scope_of();
	s->out.arena.max = JOB_RUN_BYTES_MAX;
	s->own_content = pl_content_of(SLICE(""));
	return s;
}

static void
on_timer_closed(uv_handle_t *handle)
{
	job_unref(container_of(handle, struct pipeline_job, timer));
}

static void
stop_timer(struct pipeline_job *job)
{
	if (!job->timer_open)
		return;
	job->timer_open = false;
	uv_close((uv_handle_t *)&job->timer, on_timer_closed);
}

void
pl_slot_scopes(const struct slot *slot, const struct scope *out[static JUDGE_SCOPES])
{
	const struct pipeline_job *job = slot->job;

	out[0] = &job->session->found->connect;
	out[1] = slot->stage >= FILTER_HELO ? &job->session->found->helo : NULL;
	out[2] = slot->stage >= FILTER_MAIL ? &job->tx->scope : NULL;
	out[3] = slot->stage == FILTER_RCPT ? &job->rcpt->scope : NULL;
}

struct scope *
pl_slot_scope(struct slot *slot)
{
	struct pipeline_job *job = slot->job;

	switch (slot->stage) {
	case FILTER_CONNECT:
		return &job->session->found->connect;
	case FILTER_HELO:
		return &job->session->found->helo;
	case FILTER_RCPT:
		return &job->rcpt->scope;
	case FILTER_MAIL:
	case FILTER_MESSAGE:
		break;
	}
	return &job->tx->scope;
}

struct story *
pl_slot_story(const struct slot *s)
{
	return pl_story_for(s->job->session, s->stage >= FILTER_MAIL ? s->job->tx : NULL);
}

/* ---- one run --------------------------------------------------------------------------------- */

static bool
is_heavy(const struct slot *s)
{
	return (s->module->filter.flags & FILTER_HEAVY) != 0;
}

static void
begin_run(struct slot *s)
{
	struct scope fresh = pl_scope_of();

	arena_reset(&s->out.arena);
	fresh.arena = s->out.arena;
	s->out = fresh;
	s->wants = NULL;
	s->wants_end = NULL;
	s->edits = NULL;
	s->edits_end = NULL;
	s->exhausted = false;
	if (s->runs++ == 0)
		s->first_us = clock_mono_us();
}

/* A run has ended: what next. */
static void
after_run(struct slot *s)
{
	if (s->status == FILTER_WAIT && !s->exhausted && s->wants != NULL &&
	    s->runs < JOB_RUNS_MAX) {
		bool all = pl_want_all(s);

		if (!s->exhausted) {
			s->state = pl_want_pending(s) || all ? SLOT_WAITING : SLOT_BLOCKED;
			return;
		}
	}
	if (s->status != FILTER_DONE || s->exhausted)
		s->status = FILTER_ERROR;
	s->state = SLOT_READY;
}

static void
run_in_pool(struct facts_work *w)
{
	struct slot *s = container_of(w, struct slot, work);

	s->pool_status = s->module->filter.run(&s->face, s->module->settings);
}

static void
on_pool(struct facts_work *w)
{
	struct slot *s = container_of(w, struct slot, work);
	struct pipeline_job *job = s->job;

	s->frozen = NULL;
	if (s->state == SLOT_WORKING) {
		s->status = s->pool_status;
		after_run(s);
		pl_job_advance(job);
	}
	job_unref(job);
}

/* False, and an error, past the deadline or without room for what it needs. */
static bool
run_heavy(struct slot *s)
{
	s->status = FILTER_ERROR;
	if (s->job->late)
		return false;
	if (!pl_slot_freeze(s)) {
		s->exhausted = true;
		return false;
	}
	s->state = SLOT_WORKING;
	s->work = (struct facts_work){ .run = run_in_pool, .done = on_pool };
	s->job->refs++;
	facts_work_start(s->job->session->facts, &s->work);
	return true;
}

/* Nobody is served here until it returns: the supervisor sees to it that it does. */
static void
run_on_loop(struct slot *s)
{
	counter_filter_begins(s->module->section->name);
	s->status = s->module->filter.run(&s->face, s->module->settings);
	counter_filter_ended();
}

static void
run_slot(struct slot *s)
{
	begin_run(s);
	if (is_heavy(s) && run_heavy(s))
		return;
	if (!is_heavy(s))
		run_on_loop(s);
	after_run(s);
}

/* ---- the order ------------------------------------------------------------------------------- */

/* Brings one slot as far as it goes now. */
static void
step(struct slot *s, bool turn)
{
	s->turn = turn;
	for (;;) {
		switch (s->state) {
		case SLOT_NEW:
			/* A heavy filter is costly: nothing is to run it in vain. */
			if (is_heavy(s) && !turn)
				return;
			break;
		case SLOT_WAITING:
			if (pl_want_pending(s) || (is_heavy(s) && !turn))
				return;
			break;
		case SLOT_BLOCKED:
			if (!turn)
				return;
			break;
		case SLOT_READY:
			if (turn)
				pl_slot_take(s);
			return;
		case SLOT_WORKING:
		case SLOT_DONE:
			return;
		}
		run_slot(s);
	}
}

/* A result ahead that makes what stands behind it pointless. */
static bool
ends_it(const struct slot *s)
{
	const struct decision *d = s->out.decisions;

	while (s->state == SLOT_READY && d != NULL && d->verdict == FILTER_QUARANTINE)
		d = d->next;
	return s->state == SLOT_READY && d != NULL;
}

static bool
advance_once(struct pipeline_job *job)
{
	bool turn = true;

	for (size_t i = 0; i < job->n_slots; i++) {
		struct slot *s = &job->slots[i];

		if (s->state == SLOT_DONE)
			continue;
		if (turn && s->state != SLOT_WORKING && pl_slot_is_pointless(s)) {
			pl_slot_skip(s);
			continue;
		}
		step(s, turn);
		if (s->state == SLOT_DONE)
			continue;
		turn = false;
		if (ends_it(s))
			break;
	}
	return turn;
}

/* Nothing that was asked for will come back to this job. */
static void
let_go(struct pipeline_job *job)
{
	pl_want_forget(job, &job->session->found->connect);
	pl_want_forget(job, &job->session->found->helo);
	if (job->tx != NULL)
		pl_want_forget(job, &job->tx->scope);
	if (job->rcpt != NULL)
		pl_want_forget(job, &job->rcpt->scope);
	for (size_t i = 0; i < job->n_slots; i++)
		if (job->slots[i].state == SLOT_WORKING && facts_work_cancel(&job->slots[i].work))
			job_unref(job); /* taken out of the line; the owner still holds it */
}

void
pl_job_advance(struct pipeline_job *job)
{
	if (!advance_once(job))
		return;
	let_go(job);
	stop_timer(job);
	job->finished(job);
}

/* ---- deadlines ------------------------------------------------------------------------------- */

/* What is in the pool is left to itself: it holds the job, and nobody looks at what it says. */
static void
abandon(struct slot *s)
{
	if (s->state != SLOT_WORKING)
		return;
	if (facts_work_cancel(&s->work))
		job_unref(s->job); /* taken out of the line; the owner still holds it */
	s->status = FILTER_ERROR;
	s->state = SLOT_READY;
}

static void
on_deadline(uv_timer_t *timer)
{
	struct pipeline_job *job = container_of(timer, struct pipeline_job, timer);

	job->late = true;
	pl_want_fail(job, &job->session->found->connect);
	pl_want_fail(job, &job->session->found->helo);
	if (job->tx != NULL)
		pl_want_fail(job, &job->tx->scope);
	if (job->rcpt != NULL)
		pl_want_fail(job, &job->rcpt->scope);
	for (size_t i = 0; i < job->n_slots; i++)
		abandon(&job->slots[i]);
	pl_job_advance(job);
}

bool
pl_job_start(struct pipeline_job *job)
{
	if (advance_once(job)) {
		let_go(job);
		return true;
	}
	/* Neither fails on a live loop (libuv documents only a NULL callback and a closing
	 * handle). */
	(void)uv_timer_init(facts_loop(job->session->facts), &job->timer);
	job->timer_open = true;
	job->refs++;
	(void)uv_timer_start(
	    &job->timer, on_deadline, facts_deadline_ms(job->session->facts, job->stage), 0);
	return false;
}

static void
on_cancelled(uv_timer_t *timer)
{
	struct pipeline_job *job = container_of(timer, struct pipeline_job, timer);
	struct pipeline_run *run = job->run;

	if (job->rcpt != NULL)
		pl_scope_fini(&job->rcpt->scope, false); /* it never became one of tx */
	stop_timer(job);
	pl_job_free(job);
	run->job = NULL;
	run->answer = PIPELINE_CANCELLED;
	run->done(run);
}

void
pl_job_cancel(struct pipeline_job *job)
{
	/* Its slots are over: what still comes back finds nothing to advance. */
	let_go(job);
	for (size_t i = 0; i < job->n_slots; i++)
		job->slots[i].state = SLOT_DONE;
	(void)uv_timer_start(&job->timer, on_cancelled, 0, 0); /* as in pl_job_start() */
}

void
pl_job_free(struct pipeline_job *job)
{
	job->run = NULL;
	job_unref(job);
}
