/* relayd/pipeline/verdict.c - from findings and verdicts to what becomes of each recipient. */
#include "relayd/pipeline/verdict.h"

#include "relayd/mail/address.h"

#include <math.h>

const char *
pl_outcome_name(enum outcome outcome)
{
	static const char *const names[] = {
		[OUTCOME_ACCEPT] = "accept",
		[OUTCOME_TAG] = "tag",
		[OUTCOME_QUARANTINE] = "quarantine",
		[OUTCOME_DISCARD] = "discard",
		[OUTCOME_REJECT] = "reject",
		[OUTCOME_DEFER] = "defer",
	};

	return names[outcome];
}

static void
apply_policy(struct thresholds *t, const struct config_policy *policy)
{
	if (policy == NULL)
		return;
	if (policy->has_tag)
		t->tag = policy->tag;
	if (policy->has_quarantine)
		t->quarantine = policy->quarantine;
	if (policy->has_reject)
		t->reject = policy->reject;
}

struct thresholds
pl_thresholds_for(const struct config *cfg, const struct config_listener *listener, bool outbound,
    struct slice forward_path)
{
	struct thresholds t = { INFINITY, INFINITY, INFINITY };
	const char *base = outbound ? "outbound" : "inbound";
	struct slice local, domain;

	if (listener != NULL && listener->policy != NULL)
		base = listener->policy;
	apply_policy(&t, config_policy_named(cfg, slice_str(base)));
	if (!outbound && address_split(forward_path, &local, &domain))
		apply_policy(&t, config_policy_named(cfg, domain));
	return t;
}

static bool
is_final(const struct decision *d)
{
	return d->verdict != FILTER_QUARANTINE;
}

/* In front of the other; of two by one filter that of its later stage counts. */
static bool
outranks(const struct decision *d, const struct decision *other)
{
	return d->position < other->position ||
	       (d->position == other->position && d->stage >= other->stage);
}

const struct decision *
pl_judge_final(const struct scope *const scopes[static JUDGE_SCOPES])
{
	const struct decision *first = NULL;

	for (size_t i = 0; i < JUDGE_SCOPES; i++)
		for (const struct decision *d = scopes[i] != NULL ? scopes[i]->decisions : NULL;
		     d != NULL; d = d->next)
			if (is_final(d) && (first == NULL || outranks(d, first)))
				first = d;
	return first;
}

bool
pl_judge_counts(const struct decision *final, unsigned position)
{
	return final == NULL || position <= final->position;
}

static void
add_score(struct judgement *j, const struct decision *final, const struct scope *sc)
{
	for (const struct finding *f = sc->findings; f != NULL; f = f->next) {
		if (!pl_judge_counts(final, f->position))
			continue;
		j->score += f->score;
		if (f->score > 0 && (j->most == NULL || f->score > j->most->score))
			j->most = f;
	}
}

/* The QUARANTINE in front of a final verdict. */
static const struct decision *
find_hold(const struct scope *const scopes[static JUDGE_SCOPES], const struct decision *final)
{
	const struct decision *hold = NULL;

	for (size_t i = 0; i < JUDGE_SCOPES; i++)
		for (const struct decision *d = scopes[i] != NULL ? scopes[i]->decisions : NULL;
		     d != NULL; d = d->next)
			if (!is_final(d) && (final == NULL || d->position < final->position) &&
			    (hold == NULL || d->position < hold->position))
				hold = d;
	return hold;
}

static enum outcome
outcome_of(enum filter_verdict verdict)
{
	static const enum outcome outcomes[] = {
		[FILTER_ACCEPT] = OUTCOME_ACCEPT,
		[FILTER_QUARANTINE] = OUTCOME_QUARANTINE,
		[FILTER_REJECT] = OUTCOME_REJECT,
		[FILTER_DEFER] = OUTCOME_DEFER,
		[FILTER_DISCARD] = OUTCOME_DISCARD,
	};

	return outcomes[verdict];
}

/* Scores are sums of decimal fractions: 0.1 + 0.2 reaches 0.3. */
static bool
reaches(double score, double threshold)
{
	return score >= threshold - 1e-9;
}

static void
judge_score(struct judgement *j, struct thresholds t)
{
	const struct {
		enum outcome outcome;
		double from;
	} steps[] = {
		{ OUTCOME_REJECT, t.reject },
		{ OUTCOME_QUARANTINE, t.quarantine },
		{ OUTCOME_TAG, t.tag },
	};

	for (size_t i = 0; i < ARRAY_LEN(steps); i++) {
		if (!reaches(j->score, steps[i].from))
			continue;
		j->outcome = steps[i].outcome;
		j->threshold = steps[i].from;
		return;
	}
}

struct judgement
pl_judge(const struct scope *const scopes[static JUDGE_SCOPES], struct thresholds t)
{
	const struct decision *final = pl_judge_final(scopes);
	const struct decision *hold = find_hold(scopes, final);
	struct judgement j = { .outcome = OUTCOME_ACCEPT };

	for (size_t i = 0; i < JUDGE_SCOPES; i++)
		if (scopes[i] != NULL)
			add_score(&j, final, scopes[i]);
	if (final != NULL) {
		j.outcome = outcome_of(final->verdict);
		j.by = final;
	} else {
		judge_score(&j, t);
	}
	if (hold != NULL && j.outcome < OUTCOME_QUARANTINE) {
		j.outcome = OUTCOME_QUARANTINE;
		j.by = hold;
	}
	return j;
}

static size_t
count(const enum outcome *outcomes, size_t n, enum outcome wanted)
{
	size_t found = 0;

	for (size_t i = 0; i < n; i++)
		found += outcomes[i] == wanted;
	return found;
}

enum outcome
pl_combine(enum outcome *outcomes, size_t n, bool outbound, bool per_recipient)
{
	size_t rejects = count(outcomes, n, OUTCOME_REJECT);
	size_t discards = count(outcomes, n, OUTCOME_DISCARD);
	size_t defers = count(outcomes, n, OUTCOME_DEFER);

	if (defers > 0 && (!per_recipient || defers == n))
		return OUTCOME_DEFER;
	if (rejects > 0 && (rejects == n || (outbound && !per_recipient)))
		return OUTCOME_REJECT;
	if (discards == n)
		return OUTCOME_DISCARD;
	if (per_recipient)
		return OUTCOME_ACCEPT;
	for (size_t i = 0; i < n; i++)
		if (outcomes[i] == OUTCOME_REJECT)
			outcomes[i] = OUTCOME_QUARANTINE;
	return OUTCOME_ACCEPT;
}
