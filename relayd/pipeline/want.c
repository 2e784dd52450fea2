/* relayd/pipeline/want.c - what runs asked for is fetched, and comes back to their job. */
#include "relayd/core/clock.h"
#include "relayd/pipeline/job.h"

static void
told(struct slot *s, struct known_fact *kf, const struct fact *fact)
{
	pl_scope_fact_ready(kf, fact);
	pl_story_fact(pl_slot_story(s), kf, clock_mono_us() - kf->asked_us);
}

/* The slot that asked is not known any more, but any of the job's at that stage tells the same
 * story. */
static void
on_fact(struct fact_query *q, const struct fact *fact)
{
	struct known_fact *kf = container_of(q, struct known_fact, query);
	struct pipeline_job *job = kf->job;
	const struct session_found *found = job->session->found;
	bool early = kf->scope == &found->connect || kf->scope == &found->helo;

	pl_scope_fact_ready(kf, fact);
	pl_story_fact(
	    pl_story_for(job->session, early ? NULL : job->tx), kf, clock_mono_us() - kf->asked_us);
	pl_job_advance(job);
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
	static const struct fact skipped = { .size = sizeof(skipped), .state = FACT_SKIPPED };
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
	w->fact->query = (struct fact_query){ .kind = w->kind,
		.name = w->fact->name,
		.client = job->session->owner,
		.done = on_fact };
	if (job->late)
		fact = &failed;
	else if (job->session->dry && w->kind > FACT_TIME)
		fact = &skipped; /* nobody is there, and nothing is to be remembered */
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
	pl_job_advance(job);
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
bool
pl_want_all(struct slot *s)
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

bool
pl_want_pending(const struct slot *s)
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

void
pl_want_forget(struct pipeline_job *job, struct scope *sc)
{
	for (struct known_fact *kf = sc->facts; kf != NULL; kf = kf->next)
		if (!kf->ready && kf->job == job)
			facts_forget(job->session->facts, &kf->query);
	for (struct reservation *r = sc->reservations; r != NULL; r = r->next)
		if (r->job == job)
			r->job = NULL;
	pl_scope_drop_failed(sc);
}

void
pl_want_fail(struct pipeline_job *job, struct scope *sc)
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
