/* relayd/pipeline/host.c - what a filter can ask and say: struct filter_host over a slot.
 *
 * A run on the loop sees the scopes of its slot; one in the pool sees only what was frozen for
 * it.  Both write into their slot alone.
 */
#include "relayd/pipeline/job.h"

static struct slot *
slot_of(struct filter_tx *face)
{
	return (struct slot *)face;
}

/* A module may hand in a slice of nothing at NULL. */
static struct slice
given(struct slice s)
{
	return slice_of(s.p, s.len);
}

/* ---- facts ----------------------------------------------------------------------------------- */

/* The facts there is no room to want, and those wanted after the deadline. */
static const struct fact fact_skipped = { .size = sizeof(struct fact), .state = FACT_SKIPPED };
static const struct fact fact_failed = { .size = sizeof(struct fact), .state = FACT_FAILED };

static void *
slot_alloc(struct slot *s, size_t bytes)
{
	void *p = arena_alloc(&s->out.arena, bytes);

	s->exhausted = s->exhausted || p == NULL;
	return p;
}

static struct want *
add_want(struct slot *s)
{
	struct want *w = slot_alloc(s, sizeof(*w));

	if (w == NULL)
		return NULL;
	w->name = SLICE("");
	*(s->wants_end != NULL ? s->wants_end : &s->wants) = w;
	s->wants_end = &w->next;
	return w;
}

static const struct fact *
want_fact(struct slot *s, enum fact_kind kind, struct slice name)
{
	struct slice copy = arena_copy(&s->out.arena, name);
	struct want *w = copy.p != NULL ? add_want(s) : NULL;

	if (w == NULL)
		return &fact_skipped;
	w->kind = kind;
	w->name = copy;
	return NULL;
}

static const struct known_fact *
find_fact(const struct slot *s, enum fact_kind kind, struct slice name)
{
	const struct scope *scopes[JUDGE_SCOPES];
	const struct known_fact *kf = NULL;

	if (s->frozen != NULL)
		return pl_scope_fact(&(struct scope){ .facts = s->frozen->facts }, kind, name);
	pl_slot_scopes(s, scopes);
	for (size_t i = 0; i < JUDGE_SCOPES && kf == NULL; i++)
		if (scopes[i] != NULL)
			kf = pl_scope_fact(scopes[i], kind, name);
	return kf;
}

static const struct fact *
fact_time(struct slot *s)
{
	bool early = s->stage < FILTER_MAIL;
	struct fact_value *value = slot_alloc(s, sizeof(*value));
	struct fact *fact = slot_alloc(s, sizeof(*fact));

	if (value == NULL || fact == NULL)
		return &fact_failed;
	value->bytes = SLICE("");
	value->number = early ? s->job->session->started_ms : s->job->tx->begun_ms;
	*fact = (struct fact){ .size = sizeof(*fact), .state = FACT_OK, .n = 1, .values = value };
	return fact;
}

static const struct fact *
host_fact(struct filter_tx *face, enum fact_kind kind, struct slice name)
{
	struct slot *s = slot_of(face);
	const struct known_fact *kf;

	if (kind == FACT_TIME)
		return fact_time(s);
	name = given(name);
	kf = find_fact(s, kind, name);
	if (kf != NULL && kf->ready)
		return &kf->fact;
	/* A run in the pool asks through the loop, which knows whether it is late. */
	if (s->frozen == NULL && s->job->late)
		return &fact_failed;
	return want_fact(s, kind, name);
}

/* ---- counters -------------------------------------------------------------------------------- */

static int
answer_of(const struct slot *s, const struct reservation *r)
{
	switch (r->status) {
	case RESERVATION_TAKEN:
		return 1;
	case RESERVATION_OVER:
		return 0;
	case RESERVATION_FAILED:
		return -2;
	case RESERVATION_ASKED:
		break;
	}
	return s->job->late ? -2 : -1;
}

static int
want_limit(struct slot *s, const struct filter_limit *limit)
{
	struct filter_limit *copy = slot_alloc(s, sizeof(*copy));
	struct slice key = arena_copy(&s->out.arena, limit->key);
	struct want *w = copy != NULL && key.p != NULL ? add_want(s) : NULL;

	if (w == NULL)
		return -2;
	*copy = *limit;
	copy->key = key;
	w->limit = copy;
	return -1;
}

static int
frozen_answer(const struct slot *s, struct slice key)
{
	const struct reservation_answer *a = s->frozen->answers;

	while (a != NULL && !slice_eq(a->key, key))
		a = a->next;
	return a != NULL ? a->answer : -1;
}

static int
host_reserve(struct filter_tx *face, const struct filter_limit *limit)
{
	struct slot *s = slot_of(face);
	const struct reservation *r;
	int answer = -1;

	if (s->job->session->dry)
		return 1;
	if (limit->count == 0 || limit->period_s == 0)
		return -2;
	if (s->frozen != NULL) {
		answer = frozen_answer(s, limit->key);
		return answer != -1 ? answer : want_limit(s, limit);
	}
	r = pl_scope_reservation(pl_slot_scope(s), s->module, s->stage, limit->key);
	if (r != NULL)
		answer = answer_of(s, r);
	else if (s->job->late || facts_state(s->job->session->facts) == NULL)
		answer = -2;
	return answer != -1 ? answer : want_limit(s, limit);
}

/* ---- the message ----------------------------------------------------------------------------- */

static const struct filter_session *
host_session(struct filter_tx *face)
{
	const struct slot *s = slot_of(face);

	return s->frozen != NULL ? &s->frozen->session : &s->job->session->found->view;
}

static const struct filter_envelope *
host_envelope(struct filter_tx *face)
{
	return &slot_of(face)->envelope;
}

static struct slice
host_message(struct filter_tx *face)
{
	const struct slot *s = slot_of(face);

	return s->content != NULL ? s->content->message : SLICE("");
}

static bool
host_field(struct filter_tx *face, size_t index, struct filter_field *out)
{
	struct slot *s = slot_of(face);

	return s->content != NULL && pl_content_field(s->content, index, out);
}

static bool
host_part(struct filter_tx *face, size_t index, struct filter_part *out)
{
	struct slot *s = slot_of(face);

	return s->content != NULL && pl_content_part(s->content, index, out);
}

static enum filter_stage
host_stage(struct filter_tx *face)
{
	return slot_of(face)->stage;
}

static void *
host_alloc(struct filter_tx *face, size_t bytes)
{
	/* The filter decides what it can do without. */
	return arena_alloc(&slot_of(face)->out.arena, bytes);
}

/* ---- what a filter says ---------------------------------------------------------------------- */

static bool
judges(const struct slot *s)
{
	return !(s->module->filter.flags & FILTER_SHAPER);
}

static void
host_score(struct filter_tx *face, double score, struct slice name, struct slice why)
{
	struct slot *s = slot_of(face);
	/* NaN and the infinite would make every comparison of scores meaningless. */
	bool sane = score >= -1e6 && score <= 1e6;
	struct finding f = { .position = s->module->position,
		.score = score,
		.name = given(name),
		.why = given(why) };

	if (judges(s) && (!sane || !pl_scope_add_finding(&s->out, &f)))
		s->exhausted = true;
}

static void
host_verdict(struct filter_tx *face, enum filter_verdict verdict, unsigned code,
    struct slice enhanced, struct slice text)
{
	struct slot *s = slot_of(face);
	struct decision d = { .position = s->module->position,
		.stage = s->stage,
		.verdict = verdict,
		.filter = s->module->section->name,
		.code = code,
		.enhanced = given(enhanced),
		.text = given(text) };

	if (!judges(s))
		return;
	if ((unsigned)verdict > FILTER_DISCARD || !pl_scope_add_decision(&s->out, &d))
		s->exhausted = true;
}

static void
host_edit(struct filter_tx *face, const struct filter_edit *edit)
{
	struct slot *s = slot_of(face);
	struct slot_edit *e;

	if (judges(s))
		return;
	e = slot_alloc(s, sizeof(*e));
	if (e == NULL)
		return;
	e->edit = *edit;
	e->edit.insert = arena_copy(&s->out.arena, given(edit->insert));
	if (e->edit.insert.p == NULL) {
		s->exhausted = true;
		return;
	}
	*(s->edits_end != NULL ? s->edits_end : &s->edits) = e;
	s->edits_end = &e->next;
}

static void
host_auth_result(
    struct filter_tx *face, struct slice method, struct slice result, struct slice properties)
{
	struct slot *s = slot_of(face);
	struct auth_result r = { .position = s->module->position,
		.method = given(method),
		.result = given(result),
		.properties = given(properties) };

	if (judges(s) && !pl_scope_add_auth_result(&s->out, &r))
		s->exhausted = true;
}

const struct filter_host pl_job_host = {
	.size = sizeof(pl_job_host),
	.fact = host_fact,
	.reserve = host_reserve,
	.session = host_session,
	.envelope = host_envelope,
	.message = host_message,
	.field = host_field,
	.part = host_part,
	.score = host_score,
	.verdict = host_verdict,
	.edit = host_edit,
	.auth_result = host_auth_result,
	.alloc = host_alloc,
	.stage = host_stage,
};
