/* relayd/pipeline/take.c - the result of a filter is taken over when its turn has come. */
#include "relayd/core/clock.h"
#include "relayd/core/counters.h"
#include "relayd/core/log.h"
#include "relayd/pipeline/job.h"

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
		.stage = s->stage,
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
	pl_story_decision(pl_slot_story(s), &d);
}

static bool
take_findings(struct slot *s)
{
	struct scope *sc = pl_slot_scope(s);
	struct story *story = pl_slot_story(s);
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

void
pl_slot_take(struct slot *s)
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
	pl_story_filter(pl_slot_story(s), &told_of);
	s->state = SLOT_DONE;
}

/* A final verdict in front of it, for everybody. */
bool
pl_slot_is_pointless(const struct slot *s)
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

void
pl_slot_skip(struct slot *s)
{
	struct story_filter told_of = { .stage = s->stage,
		.name = s->module->section->name,
		.status = "skipped",
		.runs = s->runs,
		.took_us = s->runs > 0 ? clock_mono_us() - s->first_us : 0 };

	pl_story_filter(pl_slot_story(s), &told_of);
	s->state = SLOT_DONE;
}
