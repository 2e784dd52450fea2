/* relayd/pipeline/job.c - filters at work on one stage, each in a slot, in order. */
#include "relayd/pipeline/job.h"

#include "relayd/core/clock.h"
#include "relayd/core/counters.h"
#include "relayd/core/log.h"

#include <assert.h>
#include <stdlib.h>

static void advance(struct pipeline_job *job);

/* ---- life ------------------------------------------------------------------------------------- */

struct pipeline_job *
pl_job_new(struct pipeline_run *run, size_t max_slots)
{
	struct pipeline_job *job = calloc(1, sizeof(*job) + max_slots * sizeof(job->slots[0]));

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

	out[0] = &job->session->connect;
	out[1] = slot->stage >= FILTER_HELO ? &job->session->helo_scope : NULL;
	out[2] = slot->stage >= FILTER_MAIL ? &job->tx->scope : NULL;
	out[3] = slot->stage == FILTER_RCPT ? &job->rcpt->scope : NULL;
}

struct scope *
pl_slot_scope(struct slot *slot)
{
	struct pipeline_job *job = slot->job;

	switch (slot->stage) {
	case FILTER_CONNECT:
		return &job->session->connect;
	case FILTER_HELO:
		return &job->session->helo_scope;
	case FILTER_RCPT:
		return &job->rcpt->scope;
	case FILTER_MAIL:
	case FILTER_MESSAGE:
		break;
	}
	return &job->tx->scope;
}

static struct story *
slot_story(const struct slot *s)
{
	return pl_story_for(s->job->session, s->stage >= FILTER_MAIL ? s->job->tx : NULL);
}

/* ---- what was wanted is asked for --------------------------------------------------------------- */

static void
told(struct slot *s, struct known_fact *kf, const struct fact *fact)
{
	pl_scope_fact_ready(kf, fact);
	pl_story_fact(slot_story(s), kf, clock_mono_us() - kf->asked_us);
}

/* The slot that asked is not known any more, but any of the job's at that stage tells the same story. */
static void
on_fact(struct fact_query *q, const struct fact *fact)
{
	struct known_fact *kf = container_of(q, struct known_fact, query);
	struct pipeline_job *job = kf->job;
	bool early = kf->scope == &job->session->connect || kf->scope == &job->session->helo_scope;

	pl_scope_fact_ready(kf, fact);
	pl_story_fact(
	    pl_story_for(job->session, early ? NULL : job->tx), kf, clock_mono_us() - kf->asked_us);
	advance(job);
}

static struct known_fact *
find_known(struct slot *s, const struct want *w)
{
	const struct scope *scopes[JUDGE_SCOPES];
	struct known_fact *kf = NULL;

	pl_slot_scopes(s, scopes);
	for (size_t i = 0; i < JUDGE_SCOPES && kf == NULL; i++)
		if (scopes[i] != NULL)
			kf = pl_scope_fact(scopes[i], w->kind, w->name);
	return kf;
}

static void
ask(struct slot *s, struct want *w)
{
	static const struct fact failed = { .size = sizeof(failed), .state = FACT_FAILED };
	struct pipeline_job *job = s->job;
	const struct fact *fact = NULL;

	w->fact = find_known(s, w);
	if (w->fact != NULL)
		return;
	w->fact = pl_scope_add_fact(pl_slot_scope(s), w->kind, w->name);
	if (w->fact == NULL) {
		s->exhausted = true;
		return;
	}
	w->fact->job = job;
	w->fact->asker = s->module->section->name;
	w->fact->asked_us = clock_mono_us();
	w->fact->query =
	    (struct fact_query){ .kind = w->kind, .name = w->fact->name, .done = on_fact };
	if (job->late)
		fact = &failed;
	if (fact != NULL || facts_ask(job->session->facts, &w->fact->query, &fact))
		told(s, w->fact, fact);
}

static void
on_counter(struct state_request *req)
{
	struct reservation *r = container_of(req, struct reservation, req);
	struct pipeline_job *job = r->job;

	if (!pl_reservation_answered(r) || job == NULL)
		return;
	pl_story_counter(pl_story_for(job->session, r->stage >= FILTER_MAIL ? job->tx : NULL), r,
	    clock_mono_us() - r->asked_us);
	r->job = NULL;
	advance(job);
}

static void
reserve(struct slot *s, struct want *w)
{
	struct pipeline_job *job = s->job;
	struct reservation *r;
	struct err err = { 0 };

	w->reservation = pl_scope_reservation(pl_slot_scope(s), s->module, s->stage, w->limit->key);
	if (w->reservation != NULL)
		return;
	r = w->reservation =
	    pl_scope_add_reservation(pl_slot_scope(s), s->module, s->stage, w->limit);
	if (r == NULL) {
		s->exhausted = true;
		return;
	}
	r->asked_us = clock_mono_us();
	r->state = facts_state(job->session->facts);
	r->req.done = on_counter;
	r->job = job;
	if (job->late || r->state == NULL || state_start(r->state, &r->req, &err) < 0) {
		r->job = NULL;
		r->status = RESERVATION_FAILED;
		r->req.err = err;
	}
}

/* False when a counter has to wait for the slot's turn. */
static bool
ask_all(struct slot *s)
{
	bool all = true;

	for (struct want *w = s->wants; w != NULL; w = w->next) {
		if (w->limit == NULL)
			ask(s, w);
		else if (s->turn)
			reserve(s, w);
		else
			all = false;
	}
	return all;
}

static bool
is_pending(const struct slot *s)
{
	for (const struct want *w = s->wants; w != NULL; w = w->next) {
		if (w->fact != NULL && !w->fact->ready)
			return true;
		if (w->reservation != NULL && w->reservation->status == RESERVATION_ASKED &&
		    !s->job->late)
			return true;
	}
	return false;
}

/* ---- the pool --------------------------------------------------------------------------------- */

static bool
freeze_facts(struct slot *s, struct frozen *fz, const struct scope *sc)
{
	for (const struct known_fact *kf = sc->facts; kf != NULL; kf = kf->next) {
		struct scope into = { .arena = s->out.arena, .facts = fz->facts };
		struct known_fact *copy;

		if (!kf->ready)
			continue;
		copy = pl_scope_add_fact(&into, kf->kind, kf->name);
		if (copy != NULL)
			pl_scope_fact_ready(copy, &kf->fact);
		s->out.arena = into.arena;
		fz->facts = into.facts;
		if (copy == NULL)
			return false;
		copy->scope = NULL;
	}
	return true;
}

static bool
freeze_answers(struct slot *s, struct frozen *fz)
{
	for (const struct reservation *r = pl_slot_scope(s)->reservations; r != NULL; r = r->next) {
		struct reservation_answer *a;

		if (r->module != s->module || r->stage != s->stage ||
		    r->status == RESERVATION_ASKED)
			continue;
		a = arena_alloc(&s->out.arena, sizeof(*a));
		if (a == NULL)
			return false;
		a->key = arena_copy(&s->out.arena, slice_of(r->key, r->key_len));
		a->answer = r->status == RESERVATION_TAKEN  ? 1
			    : r->status == RESERVATION_OVER ? 0
							    : -2;
		a->next = fz->answers;
		if (a->key.p == NULL)
			return false;
		fz->answers = a;
	}
	return true;
}

static bool
freeze_session(struct slot *s, struct frozen *fz)
{
	const struct filter_session *view = &s->job->session->view;
	struct slice *const parts[] = { &fz->session.client_addr, &fz->session.client_ip,
		&fz->session.helo, &fz->session.auth_user, &fz->session.listener,
		&fz->session.hostname, &fz->session.session_id };

	fz->session = *view;
	for (size_t i = 0; i < ARRAY_LEN(parts); i++) {
		*parts[i] = arena_copy(&s->out.arena, *parts[i]);
		if (parts[i]->p == NULL)
			return false;
	}
	return true;
}

/* A copy of all that the filter may see, because the client may be gone, or have said something
 * else, before the pool is done. */
static bool
freeze(struct slot *s)
{
	struct frozen *fz = arena_alloc(&s->out.arena, sizeof(*fz));
	const struct scope *scopes[JUDGE_SCOPES];

	if (fz == NULL || !freeze_session(s, fz) || !freeze_answers(s, fz))
		return false;
	pl_slot_scopes(s, scopes);
	for (size_t i = 0; i < JUDGE_SCOPES; i++)
		if (scopes[i] != NULL && !freeze_facts(s, fz, scopes[i]))
			return false;
	if (s->content != NULL && s->content != &s->own_content) {
		struct slice bytes = s->content->message;

		s->own_bytes = malloc(bytes.len + 1);
		if (s->own_bytes == NULL)
			return false;
		memcpy(s->own_bytes, bytes.p, bytes.len);
		s->own_content = pl_content_of(slice_of(s->own_bytes, bytes.len));
		s->content = &s->own_content;
	}
	s->frozen = fz;
	return true;
}

static void
run_in_pool(struct facts_work *w)
{
	struct slot *s = container_of(w, struct slot, work);

	s->pool_status = s->module->filter.run(&s->face, s->module->settings);
}

static void after_run(struct slot *s);

static void
on_pool(struct facts_work *w)
{
	struct slot *s = container_of(w, struct slot, work);
	struct pipeline_job *job = s->job;

	s->frozen = NULL;
	if (s->state == SLOT_WORKING) {
		s->status = s->pool_status;
		after_run(s);
		advance(job);
	}
	job_unref(job);
}

/* ---- one run ---------------------------------------------------------------------------------- */

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
		bool all = ask_all(s);

		if (!s->exhausted) {
			s->state = is_pending(s) || all ? SLOT_WAITING : SLOT_BLOCKED;
			return;
		}
	}
	if (s->status != FILTER_DONE || s->exhausted)
		s->status = FILTER_ERROR;
	s->state = SLOT_READY;
}

static void
run_slot(struct slot *s)
{
	begin_run(s);
	if (is_heavy(s)) {
		s->state = SLOT_WORKING;
		if (freeze(s)) {
			s->work = (struct facts_work){ .run = run_in_pool, .done = on_pool };
			s->job->refs++;
			facts_work_start(s->job->session->facts, &s->work);
			return;
		}
		s->exhausted = true;
		s->status = FILTER_ERROR;
	} else {
		s->status = s->module->filter.run(&s->face, s->module->settings);
	}
	after_run(s);
}

/* ---- a result is taken over ---------------------------------------------------------------------- */

static void
report_error(const struct slot *s, const char *why)
{
	const struct pipeline_job *job = s->job;

	if (job->session->dry)
		return;
	counter_add(COUNTER_FILTER_ERRORS, 1);
	log_event("filter.error",
	    job->tx != NULL ? kv_id("id", job->tx->id) : (struct kv){ .type = KV_NONE },
	    kv_id("session", job->session->id), kv_str("filter", s->module->section->name),
	    kv_str("stage", pl_stage_name(s->stage)), kv_str("why", why));
}

static void
take_error(struct slot *s)
{
	struct decision d = { .position = s->module->position,
		.by_error = true,
		.filter = s->module->section->name,
		.enhanced = SLICE(""),
		.text = SLICE("Cannot be checked now, try again later") };

	report_error(s, s->job->late ? "timeout" : s->exhausted ? "limit" : "failed");
	if (s->module->on_error == CONFIG_ON_ERROR_ACCEPT)
		return;
	d.verdict =
	    s->module->on_error == CONFIG_ON_ERROR_QUARANTINE ? FILTER_QUARANTINE : FILTER_DEFER;
	/* Without room for a verdict the message has to wait: never a silent accept. */
	if (!pl_scope_add_decision(pl_slot_scope(s), &d))
		s->job->no_room = s->job->stopped = true;
	pl_story_decision(slot_story(s), &d);
}

static bool
take_findings(struct slot *s)
{
	struct scope *sc = pl_slot_scope(s);
	struct story *story = slot_story(s);
	const char *name = s->module->section->name;
	bool ok = true;

	for (const struct finding *f = s->out.findings; f != NULL && ok; f = f->next) {
		ok = pl_scope_add_finding(sc, f);
		pl_story_finding(story, name, f);
	}
	for (const struct auth_result *r = s->out.auth_results; r != NULL && ok; r = r->next) {
		ok = pl_scope_add_auth_result(sc, r);
		pl_story_auth_result(story, name, r);
	}
	for (const struct decision *d = s->out.decisions; d != NULL && ok; d = d->next) {
		ok = pl_scope_add_decision(sc, d);
		pl_story_decision(story, d);
		if (s->stage < FILTER_MESSAGE &&
		    (d->verdict == FILTER_REJECT || d->verdict == FILTER_DEFER))
			s->job->stopped = true;
	}
	return ok;
}

static void
take(struct slot *s)
{
	struct story_filter told_of = { .stage = s->stage,
		.name = s->module->section->name,
		.status = "done",
		.runs = s->runs,
		.took_us = clock_mono_us() - s->first_us };

	if (s->status == FILTER_DONE && !take_findings(s)) {
		s->exhausted = true;
		s->status = FILTER_ERROR;
	}
	if (s->status != FILTER_DONE) {
		told_of.status = s->job->late ? "late" : "error";
		take_error(s);
	}
	pl_story_filter(slot_story(s), &told_of);
	s->state = SLOT_DONE;
}

/* A final verdict in front of it, for everybody. */
static bool
is_pointless(const struct slot *s)
{
	const struct scope *scopes[JUDGE_SCOPES];
	const struct pipeline_tx *tx = s->job->tx;
	unsigned position = s->module->position;
	const struct decision *final;

	if (s->job->stopped)
		return true;
	if (!(s->module->filter.flags & FILTER_SHAPER)) {
		pl_slot_scopes(s, scopes);
		final = pl_judge_final(scopes);
		if (!pl_judge_counts(final, position))
			return true;
		for (size_t i = 0; s->stage == FILTER_MESSAGE && i < tx->n_rcpts; i++) {
			scopes[3] = &tx->rcpts[i]->scope;
			if (pl_judge_counts(pl_judge_final(scopes), position))
				return false;
		}
		return s->stage == FILTER_MESSAGE && tx->n_rcpts > 0;
	}
	return false;
}

static void
skip(struct slot *s)
{
	struct story_filter told_of = { .stage = s->stage,
		.name = s->module->section->name,
		.status = "skipped",
		.runs = s->runs,
		.took_us = s->runs > 0 ? clock_mono_us() - s->first_us : 0 };

	pl_story_filter(slot_story(s), &told_of);
	s->state = SLOT_DONE;
}

/* ---- the order --------------------------------------------------------------------------------- */

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
			if (is_pending(s) || (is_heavy(s) && !turn))
				return;
			break;
		case SLOT_BLOCKED:
			if (!turn)
				return;
			break;
		case SLOT_READY:
			if (turn)
				take(s);
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
		if (turn && s->state != SLOT_WORKING && is_pointless(s)) {
			skip(s);
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

static void
forget(struct pipeline_job *job, struct scope *sc)
{
	for (struct known_fact *kf = sc->facts; kf != NULL; kf = kf->next)
		if (!kf->ready && kf->job == job)
			facts_forget(job->session->facts, &kf->query);
	for (struct reservation *r = sc->reservations; r != NULL; r = r->next)
		if (r->job == job)
			r->job = NULL;
	pl_scope_drop_failed(sc);
}

/* Nothing that was asked for will come back to this job. */
static void
let_go(struct pipeline_job *job)
{
	forget(job, &job->session->connect);
	forget(job, &job->session->helo_scope);
	if (job->tx != NULL)
		forget(job, &job->tx->scope);
	if (job->rcpt != NULL)
		forget(job, &job->rcpt->scope);
	for (size_t i = 0; i < job->n_slots; i++)
		if (job->slots[i].state == SLOT_WORKING && facts_work_cancel(&job->slots[i].work))
			job_unref(job); /* taken out of the line; the owner still holds it */
}

static void
advance(struct pipeline_job *job)
{
	if (!advance_once(job))
		return;
	let_go(job);
	stop_timer(job);
	job->finished(job);
}

/* ---- deadlines ---------------------------------------------------------------------------------- */

static void
fail_pending(struct pipeline_job *job, struct scope *sc)
{
	static const struct fact failed = { .size = sizeof(failed), .state = FACT_FAILED };

	for (struct known_fact *kf = sc->facts; kf != NULL; kf = kf->next) {
		if (kf->ready || kf->job != job)
			continue;
		facts_forget(job->session->facts, &kf->query);
		pl_scope_fact_ready(kf, &failed);
		pl_story_fact(
		    pl_story_for(job->session, job->tx), kf, clock_mono_us() - kf->asked_us);
	}
	for (struct reservation *r = sc->reservations; r != NULL; r = r->next) {
		if (r->job != job)
			continue;
		pl_story_counter(
		    pl_story_for(job->session, job->tx), r, clock_mono_us() - r->asked_us);
		r->job = NULL;
	}
}

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
	fail_pending(job, &job->session->connect);
	fail_pending(job, &job->session->helo_scope);
	if (job->tx != NULL)
		fail_pending(job, &job->tx->scope);
	if (job->rcpt != NULL)
		fail_pending(job, &job->rcpt->scope);
	for (size_t i = 0; i < job->n_slots; i++)
		abandon(&job->slots[i]);
	advance(job);
}

bool
pl_job_start(struct pipeline_job *job)
{
	if (advance_once(job)) {
		let_go(job);
		return true;
	}
	/* Neither fails on a live loop (libuv documents only a NULL callback and a closing handle). */
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
