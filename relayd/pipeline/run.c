/* relayd/pipeline/run.c - takes a session or transaction through one stage. */
#include "relayd/core/clock.h"
#include "relayd/core/log.h"
#include "relayd/pipeline/job.h"
#include "relayd/pipeline/outcome.h"
#include "relayd/pipeline/plan.h"

#include <assert.h>

/* ---- who looks at what ----------------------------------------------------------------------- */

/* Where the listener names filters, those alone run. */
static bool
is_named(const struct config_listener *rules, const struct module *m)
{
	if (rules == NULL || !rules->filters_set)
		return true;
	for (size_t i = 0; i < rules->filters.n; i++)
		if (strcmp(rules->filters.v[i], m->section->name) == 0)
			return true;
	return false;
}

static bool
is_on(const struct pipeline_session *s, const struct module *m)
{
	return s->release ? m->section->on_release : is_named(s->rules, m);
}

static const struct pipeline *
generation(const struct pipeline_run *run)
{
	return run->tx != NULL ? run->tx->pl : run->session->pl;
}

/* The stages to go through: also those of the session whose facts no longer hold.  HELO is not
 * judged without what stands in front of it: a client that was let in at the door is let in
 * again. */
static unsigned
stages_due(const struct pipeline_run *run, enum filter_stage stage)
{
	const struct pipeline_session *s = run->session;
	unsigned due = FILTER_AT(stage);

	if ((stage == FILTER_HELO || stage == FILTER_MAIL) && s->stale_connect)
		due |= FILTER_AT(FILTER_CONNECT);
	if (stage == FILTER_MAIL && s->stale_helo)
		due |= FILTER_AT(FILTER_HELO);
	return due;
}

static size_t
count_judges(const struct pipeline_run *run, unsigned due, bool outbound)
{
	const struct pipeline *pl = generation(run);
	size_t n = 0;

	for (size_t i = 0; i < pl->n_modules; i++)
		for (enum filter_stage st = FILTER_CONNECT; st <= FILTER_MESSAGE; st++)
			n += (due & FILTER_AT(st)) && is_on(run->session, &pl->modules[i]) &&
			     pl_module_judges(&pl->modules[i], st, outbound);
	return n;
}

/* ---- what a filter sees of the envelope ------------------------------------------------------ */

static bool
gather_forward_paths(struct pipeline_tx *tx)
{
	tx->forward_paths = arena_alloc(&tx->arena, (tx->n_rcpts + 1) * sizeof(struct slice));
	if (tx->forward_paths == NULL)
		return false;
	for (size_t i = 0; i < tx->n_rcpts; i++)
		tx->forward_paths[i] = tx->rcpts[i]->shown;
	return true;
}

static void
show_envelope(struct slot *slot)
{
	struct filter_envelope *env = &slot->envelope;
	struct pipeline_tx *tx = slot->job->tx;

	*env = (struct filter_envelope){ .size = sizeof(*env),
		.reverse_path = SLICE(""),
		.id = SLICE(""),
		.outbound = pipeline_outbound(slot->job->session) };
	if (tx == NULL || slot->stage < FILTER_MAIL)
		return;
	env->outbound = tx->outbound;
	env->reverse_path = tx->shown;
	env->id = slice_str(tx->id_text);
	if (slot->stage == FILTER_RCPT) {
		env->forward_paths = &slot->job->rcpt->shown;
		env->n_forward_paths = 1;
	} else if (slot->stage == FILTER_MESSAGE) {
		env->forward_paths = tx->forward_paths;
		env->n_forward_paths = tx->n_rcpts;
		slot->content = &tx->content;
	}
}

/* ---- shapers --------------------------------------------------------------------------------- */

/* The job of the shapers, and the copies they work on. */
struct shaping {
	struct copy_plan plan;
};

static bool
shapes(const struct pipeline_run *run, const struct module *m)
{
	return (m->filter.flags & FILTER_SHAPER) && is_on(run->session, m) &&
	       (m->direction == CONFIG_FOR_BOTH ||
		   (m->direction == CONFIG_FOR_OUTBOUND) == run->tx->outbound);
}

static size_t
count_shapers(const struct pipeline_run *run)
{
	size_t n = 0;

	for (size_t i = 0; i < run->tx->pl->n_modules; i++)
		n += shapes(run, &run->tx->pl->modules[i]);
	return n;
}

static void
say_not_taken(const struct slot *slot, enum edit_status status)
{
	if (!slot->job->session->dry)
		log_event("filter.error", kv_id("id", slot->job->tx->id),
		    kv_str("filter", slot->module->section->name),
		    kv_str("why", status == EDIT_TEXT ? "edit-no-text" : "edit-clash"));
}

/* False where a copy cannot be what it has to be. */
static bool
take_edits(struct pipeline_job *job, struct copy_plan *plan)
{
	for (size_t i = 0; i < job->n_slots; i++) {
		struct slot *slot = &job->slots[i];

		if (slot->status != FILTER_DONE) {
			if (slot->module->on_error != CONFIG_ON_ERROR_ACCEPT)
				return false;
			continue;
		}
		for (const struct slot_edit *e = slot->edits; e != NULL; e = e->next) {
			enum edit_status status = pl_plan_edit(job->tx, plan, slot->copy, &e->edit);

			if (status == EDIT_FULL)
				return false;
			if (status != EDIT_OK)
				say_not_taken(slot, status);
		}
	}
	return true;
}

/* The copies cannot be what they have to be: for good, unless it was memory that they lacked. */
static void
give_up_copies(struct pipeline_run *run)
{
	if (run->tx->arena.lacked)
		pl_outcome_defer(run, "memory", "No room to prepare this message now");
	else
		pl_outcome_refuse(run, "limits", "Too many changes to be made to this message");
}

static void
finish_copies(struct pipeline_run *run, struct copy_plan *plan)
{
	if (!pl_plan_finish(run, plan))
		give_up_copies(run);
}

static void
after_shapers(struct pipeline_job *job)
{
	struct pipeline_run *run = job->run;
	struct copy_plan *plan = job->plan;

	if (take_edits(job, plan))
		finish_copies(run, plan);
	else
		pl_outcome_defer(run, "shaper", "Cannot be prepared now, try again later");
	pl_job_free(job);
	run->job = NULL;
}

static void
on_shaped(struct pipeline_job *job)
{
	struct pipeline_run *run = job->run;

	after_shapers(job);
	run->done(run);
}

/* True when all is done. */
static bool
start_shapers(struct pipeline_run *run, struct copy_plan *plan, size_t n)
{
	const struct pipeline *pl = run->tx->pl;
	struct pipeline_job *job = pl_job_new(run, n * plan->n);

	if (job == NULL) {
		pl_outcome_defer(run, "memory", "No room to prepare this message now");
		return true;
	}
	for (size_t i = 0; i < pl->n_modules; i++)
		for (size_t copy = 0; shapes(run, &pl->modules[i]) && copy < plan->n; copy++) {
			struct slot *slot = pl_job_add(job, &pl->modules[i], FILTER_MESSAGE);

			slot->copy = (unsigned)copy;
			show_envelope(slot);
		}
	job->plan = plan;
	job->stage = FILTER_MESSAGE;
	job->finished = on_shaped;
	run->job = job;
	if (!pl_job_start(job))
		return false;
	after_shapers(job);
	return true;
}

static bool
make_copies(struct pipeline_run *run)
{
	struct copy_plan *plan = arena_alloc(&run->tx->arena, sizeof(*plan));
	size_t n = count_shapers(run);

	if (plan == NULL || !pl_plan_make(run, plan)) {
		give_up_copies(run);
		return true;
	}
	if (n > 0 && plan->n > 0)
		return start_shapers(run, plan, n);
	finish_copies(run, plan);
	return true;
}

/* ---- judges ---------------------------------------------------------------------------------- */

static void
end_rcpt(struct pipeline_run *run, struct tx_rcpt *rcpt)
{
	if (run->answer == PIPELINE_GO_ON && !pl_tx_rcpt_add(run->tx, rcpt))
		pl_outcome_defer(run, "memory", "No room for another recipient");
	if (run->answer != PIPELINE_GO_ON)
		pl_scope_fini(&rcpt->scope, false);
	else
		pl_scope_trim(&rcpt->scope);
}

/* A stage whose filters have ended. */
struct judged {
	enum filter_stage stage;
	struct tx_rcpt *rcpt;
	bool no_room;
};

static bool
after_message(struct pipeline_run *run)
{
	pl_outcome_of_message(run);
	pl_content_fini(&run->tx->content);
	run->tx->content = pl_content_of(run->tx->message->bytes);
	return run->answer != PIPELINE_GO_ON || make_copies(run);
}

/* True when the stage is over. */
static bool
after_judges(struct pipeline_run *run, const struct judged *j)
{
	struct pipeline_session *s = run->session;

	if (j->stage <= FILTER_MAIL)
		s->stale_connect = false;
	if (j->stage == FILTER_HELO || j->stage == FILTER_MAIL)
		s->stale_helo = false;
	if (j->no_room)
		pl_outcome_defer(run, "memory", "No room to judge this now");
	else if (j->stage == FILTER_MESSAGE)
		return after_message(run);
	else
		pl_outcome_of_stage(run, j->stage, j->rcpt);
	if (j->stage == FILTER_RCPT)
		end_rcpt(run, j->rcpt);
	return true;
}

/* The job goes; what it was about stays. */
static struct judged
end_job(struct pipeline_job *job)
{
	struct judged j = { .stage = job->stage, .rcpt = job->rcpt, .no_room = job->no_room };

	job->run->job = NULL;
	pl_job_free(job);
	return j;
}

static void
on_judged(struct pipeline_job *job)
{
	struct pipeline_run *run = job->run;
	struct judged j = end_job(job);

	if (after_judges(run, &j))
		run->done(run);
}

static void
add_judges(struct pipeline_job *job, unsigned due, bool outbound)
{
	const struct pipeline *pl = generation(job->run);

	for (enum filter_stage st = FILTER_CONNECT; st <= FILTER_MESSAGE; st++)
		for (size_t i = 0; (due & FILTER_AT(st)) && i < pl->n_modules; i++)
			if (is_on(job->session, &pl->modules[i]) &&
			    pl_module_judges(&pl->modules[i], st, outbound))
				show_envelope(pl_job_add(job, &pl->modules[i], st));
}

/* What the stage brings with it.  False when out of memory. */
static bool
prepare(struct pipeline_run *run, enum filter_stage stage, struct tx_rcpt **rcpt)
{
	struct pipeline_tx *tx = run->tx;

	switch (stage) {
	case FILTER_CONNECT:
	case FILTER_HELO:
	case FILTER_MAIL:
		return true;
	case FILTER_RCPT:
		*rcpt = pl_tx_rcpt_new(tx, &run->rcpt);
		return *rcpt != NULL;
	case FILTER_MESSAGE:
		assert(tx->n_rcpts > 0 && tx->message == NULL);
		tx->message = run->message;
		tx->content = pl_content_of(run->message->bytes);
		return gather_forward_paths(tx);
	}
	return false;
}

static void
reset_result(struct pipeline_run *run)
{
	run->answer = PIPELINE_GO_ON;
	run->reply = (struct pipeline_reply){ 0 };
	run->check = run->reason = "";
	run->verdict = "accept";
	run->score = 0;
	run->findings = SLICE("");
	run->copies = NULL;
	run->rcpts = NULL;
	run->n_copies = run->n_rcpts = 0;
	run->authentic = run->dots = run->eight_bit = false;
	run->outbound = run->tx != NULL ? run->tx->outbound : pipeline_outbound(run->session);
	run->job = NULL;
}

bool
pipeline_start(struct pipeline_run *run, enum filter_stage stage)
{
	unsigned due = stages_due(run, stage);
	struct tx_rcpt *rcpt = NULL;
	struct pipeline_job *job;
	struct judged j;
	bool outbound;
	size_t n;

	if (stage < FILTER_MAIL)
		run->tx = NULL;
	reset_result(run);
	outbound = run->outbound;
	if (!prepare(run, stage, &rcpt)) {
		pl_outcome_defer(run, "memory", "No room to judge this now");
		return true;
	}
	n = count_judges(run, due, outbound);
	if (n == 0)
		return after_judges(run, &(struct judged){ .stage = stage, .rcpt = rcpt });
	job = pl_job_new(run, n);
	if (job == NULL) {
		pl_outcome_defer(run, "memory", "No room to judge this now");
		return true;
	}
	job->rcpt = rcpt;
	job->stage = stage;
	job->finished = on_judged;
	add_judges(job, due, outbound);
	run->job = job;
	if (!pl_job_start(job))
		return false;
	j = end_job(job);
	return after_judges(run, &j);
}

void
pipeline_cancel(struct pipeline_run *run)
{
	if (run->job != NULL)
		pl_job_cancel(run->job);
}
