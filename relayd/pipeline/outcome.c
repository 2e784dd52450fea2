/* relayd/pipeline/outcome.c - from what the filters said to the answer of a stage. */
#include "relayd/pipeline/outcome.h"

#include "relayd/pipeline/fields.h"
#include "relayd/pipeline/reply.h"

#define FINDINGS_SHOWN 200 /* in a header; the score counts them all */

/* ---- stages before the message --------------------------------------------------------------- */

/* A refusal of whom this stage is about; session first, then transaction, then recipient. */
static const struct decision *
refusal(const struct pipeline_run *run, enum filter_stage stage, const struct tx_rcpt *rcpt)
{
	const struct session_found *found = run->session->found;
	const struct scope *scopes[JUDGE_SCOPES] = { found != NULL ? &found->connect : NULL,
		found != NULL && stage >= FILTER_HELO ? &found->helo : NULL,
		run->tx != NULL ? &run->tx->scope : NULL, rcpt != NULL ? &rcpt->scope : NULL };
	const struct decision *final = pl_judge_final(scopes);

	return final != NULL && (final->verdict == FILTER_REJECT || final->verdict == FILTER_DEFER)
		   ? final
		   : NULL;
}

void
pl_outcome_of_stage(struct pipeline_run *run, enum filter_stage stage, struct tx_rcpt *rcpt)
{
	const struct decision *d = refusal(run, stage, rcpt);

	if (d == NULL)
		return;
	run->answer = d->verdict == FILTER_REJECT ? PIPELINE_REJECT : PIPELINE_DEFER;
	run->check = d->filter;
	/* A transaction has a trace of its own. */
	run->session->refused = run->session->refused || run->tx == NULL;
	pl_reply_decision(&run->reply, run, stage, d);
}

/* The message is not kept, whatever the filters said. */
static void
give_up(struct pipeline_run *run, const struct wording *w)
{
	struct wording whole = *w;
	char text[ID_TEXT_LEN + 1];

	id_text(run->tx != NULL ? run->tx->id : run->session->id, text);
	whole.stage = FILTER_MESSAGE;
	whole.id = text;
	whole.postmaster = pl_reply_contact(run->session);
	run->answer = w->reject ? PIPELINE_REJECT : PIPELINE_DEFER;
	run->verdict = pl_outcome_name(w->reject ? OUTCOME_REJECT : OUTCOME_DEFER);
	run->check = w->check;
	run->reason = "error";
	run->copies = NULL;
	run->n_copies = 0;
	pl_reply_word(&run->reply, &whole);
	if (run->tx != NULL) {
		run->tx->verdict = run->verdict;
		run->tx->check = run->check;
	}
}

void
pl_outcome_defer(struct pipeline_run *run, const char *check, const char *text)
{
	give_up(run, &(struct wording){
			 .enhanced = SLICE("4.3.0"), .text = slice_str(text), .check = check });
}

void
pl_outcome_refuse(struct pipeline_run *run, const char *check, const char *text)
{
	give_up(run, &(struct wording){ .reject = true,
			 .enhanced = SLICE("5.6.0"),
			 .text = slice_str(text),
			 .check = check });
}

/* ---- the message ----------------------------------------------------------------------------- */

void
pl_outcome_scopes(const struct pipeline_run *run, const struct tx_rcpt *rcpt,
    const struct scope *out[static JUDGE_SCOPES])
{
	out[0] = &run->session->found->connect;
	out[1] = &run->session->found->helo;
	out[2] = &run->tx->scope;
	out[3] = rcpt != NULL ? &rcpt->scope : NULL;
}

/* "A=1.0,B=2.0" of what counts. */
static struct slice
list_findings(struct pipeline_tx *tx, const struct scope *const *scopes)
{
	const struct decision *final = pl_judge_final(scopes);
	struct buf out = buf_heap(FINDINGS_SHOWN * 100);
	struct slice list;
	size_t n = 0;

	for (size_t i = 0; i < JUDGE_SCOPES; i++) {
		const struct finding *f = scopes[i] != NULL ? scopes[i]->findings : NULL;

		for (; f != NULL && n < FINDINGS_SHOWN; f = f->next) {
			if (!pl_judge_counts(final, f->position))
				continue;
			if (n++ > 0)
				buf_putc(&out, ',');
			pl_field_token(&out, slice_head(f->name, 64));
			buf_putc(&out, '=');
			buf_tenths(&out, f->score);
		}
	}
	list = arena_copy(&tx->arena, buf_slice(&out));
	buf_fini(&out);
	return list.p != NULL ? list : SLICE("");
}

/* False when out of memory. */
static bool
word_rcpt(const struct pipeline_run *run, struct tx_rcpt *rcpt)
{
	const struct judgement *j = &rcpt->judgement;

	if (j->outcome != OUTCOME_REJECT && j->outcome != OUTCOME_DEFER)
		return true;
	rcpt->reply = arena_alloc(&run->tx->arena, sizeof(*rcpt->reply));
	if (rcpt->reply == NULL)
		return false;
	if (j->by != NULL)
		pl_reply_decision(rcpt->reply, run, FILTER_MESSAGE, j->by);
	else
		pl_reply_score(rcpt->reply, run, j);
	return true;
}

/* Nothing about this recipient alone: judged like any other of its policy. */
static bool
is_plain(const struct tx_rcpt *rcpt)
{
	return rcpt->scope.findings == NULL && rcpt->scope.decisions == NULL &&
	       rcpt->scope.auth_results == NULL;
}

static bool
judge_rcpts(struct pipeline_run *run)
{
	struct pipeline_tx *tx = run->tx;
	const struct scope *scopes[JUDGE_SCOPES];
	struct slice common = { NULL, 0 };

	for (size_t i = 0; i < tx->n_rcpts; i++) {
		struct tx_rcpt *rcpt = tx->rcpts[i];

		pl_outcome_scopes(run, rcpt, scopes);
		rcpt->judgement =
		    pl_judge(scopes, pl_thresholds_for(tx->pl->cfg, tx->session->rules,
					 tx->outbound, rcpt->shown));
		rcpt->outcome = rcpt->judgement.outcome;
		if (!is_plain(rcpt)) {
			rcpt->findings = list_findings(tx, scopes);
		} else {
			if (common.p == NULL)
				common = list_findings(tx, scopes);
			rcpt->findings = common;
		}
		if (!word_rcpt(run, rcpt))
			return false;
	}
	return true;
}

/* The recipient that the whole answer is about: the first with this outcome, else the harshest. */
static const struct tx_rcpt *
spokesman(const struct pipeline_tx *tx, enum outcome answer)
{
	const struct tx_rcpt *best = tx->rcpts[0];

	for (size_t i = 0; i < tx->n_rcpts; i++) {
		const struct tx_rcpt *rcpt = tx->rcpts[i];

		if (rcpt->judgement.outcome == answer && answer != OUTCOME_ACCEPT)
			return rcpt;
		if (rcpt->judgement.outcome > best->judgement.outcome)
			best = rcpt;
	}
	return best;
}

static const char *
check_of(const struct judgement *j, struct arena *arena)
{
	struct slice name;

	if (j->by != NULL)
		return j->by->filter;
	if (j->outcome == OUTCOME_ACCEPT || j->most == NULL)
		return "";
	name = arena_copy(arena, j->most->name);
	return name.p != NULL ? name.p : "";
}

const char *
pl_outcome_reason(const struct judgement *j)
{
	if (j->outcome == OUTCOME_ACCEPT)
		return "";
	return j->by == NULL ? "score" : j->by->by_error ? "error" : "filter";
}

/* SPF passed for the sender: it is whom a bounce would go to. */
static bool
is_authentic(const struct pipeline_tx *tx)
{
	struct slice sender =
	    tx->reverse_path.len > 0 ? SLICE("smtp.mailfrom=") : SLICE("smtp.helo=");
	const struct auth_result *r = tx->scope.auth_results;

	for (; r != NULL; r = r->next)
		if (slice_ieq(r->method, SLICE("spf")) && slice_ieq(r->result, SLICE("pass")) &&
		    slice_istarts(r->properties, sender))
			return true;
	return false;
}

static bool
list_results(struct pipeline_run *run)
{
	struct pipeline_tx *tx = run->tx;
	struct pipeline_rcpt_result *results =
	    arena_alloc(&tx->arena, tx->n_rcpts * sizeof(*results));
	static const enum pipeline_answer answers[] = {
		[OUTCOME_ACCEPT] = PIPELINE_GO_ON,
		[OUTCOME_TAG] = PIPELINE_GO_ON,
		[OUTCOME_QUARANTINE] = PIPELINE_GO_ON,
		[OUTCOME_DISCARD] = PIPELINE_DISCARD,
		[OUTCOME_REJECT] = PIPELINE_REJECT,
		[OUTCOME_DEFER] = PIPELINE_DEFER,
	};

	for (size_t i = 0; results != NULL && i < tx->n_rcpts; i++) {
		const struct tx_rcpt *rcpt = tx->rcpts[i];

		results[i] = (struct pipeline_rcpt_result){ .answer = answers[rcpt->outcome],
			.quarantine = rcpt->outcome == OUTCOME_QUARANTINE,
			.score = rcpt->judgement.score,
			.reply = rcpt->outcome >= OUTCOME_REJECT ? rcpt->reply : NULL };
	}
	run->rcpts = results;
	run->n_rcpts = results != NULL ? tx->n_rcpts : 0;
	return results != NULL;
}

/* All recipients together, in *all: what the client is told.  False: out of memory. */
static bool
combine_rcpts(struct pipeline_run *run, enum outcome *all)
{
	struct pipeline_tx *tx = run->tx;
	enum outcome *outcomes = arena_alloc(&tx->arena, tx->n_rcpts * sizeof(*outcomes));

	if (outcomes == NULL)
		return false;
	for (size_t i = 0; i < tx->n_rcpts; i++)
		outcomes[i] = tx->rcpts[i]->outcome;
	*all = pl_combine(outcomes, tx->n_rcpts, tx->outbound, run->per_recipient);
	for (size_t i = 0; i < tx->n_rcpts; i++)
		tx->rcpts[i]->outcome = outcomes[i];
	return true;
}

void
pl_outcome_of_message(struct pipeline_run *run)
{
	struct pipeline_tx *tx = run->tx;
	const struct tx_rcpt *spoken;
	enum outcome all;

	if (!judge_rcpts(run) || !combine_rcpts(run, &all)) {
		pl_outcome_defer(run, "memory", "No room to judge this message now");
		return;
	}
	spoken = spokesman(tx, all);
	run->authentic = is_authentic(tx);
	run->outbound = tx->outbound;
	run->score = spoken->judgement.score;
	run->findings = spoken->findings;
	run->check = check_of(&spoken->judgement, &tx->arena);
	run->reason = pl_outcome_reason(&spoken->judgement);
	run->verdict = pl_outcome_name(all != OUTCOME_ACCEPT ? all : spoken->outcome);
	tx->verdict = run->verdict;
	tx->check = run->check;
	tx->score = run->score;
	if (!list_results(run)) {
		pl_outcome_defer(run, "memory", "No room to judge this message now");
		return;
	}
	run->answer = all == OUTCOME_REJECT    ? PIPELINE_REJECT
		      : all == OUTCOME_DEFER   ? PIPELINE_DEFER
		      : all == OUTCOME_DISCARD ? PIPELINE_DISCARD
					       : PIPELINE_GO_ON;
	if (run->answer == PIPELINE_REJECT || run->answer == PIPELINE_DEFER)
		run->reply = *spoken->reply;
}
