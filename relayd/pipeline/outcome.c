/* relayd/pipeline/outcome.c - from what the filters said to replies and copies. */
#include "relayd/pipeline/outcome.h"

#include "relayd/pipeline/fields.h"

#include <stdio.h>

#define FINDINGS_SHOWN 200 /* in a header; the score counts them all */

/* ---- replies ---------------------------------------------------------------------------------- */

/* "4.7.1" of that class: three numbers, the first being that of the code (RFC 3463 section 2). */
static bool
is_enhanced(struct slice s, unsigned code)
{
	unsigned dots = 0;

	if (s.len < 5 || s.len > 9 || s.p[0] != (char)('0' + code / 100) || s.p[1] != '.' ||
	    s.p[s.len - 1] == '.')
		return false;
	for (size_t i = 0; i < s.len; i++) {
		if (s.p[i] == '.')
			dots++;
		else if (s.p[i] < '0' || s.p[i] > '9')
			return false;
	}
	return dots == 2;
}

static unsigned
default_code(enum filter_stage stage, bool reject)
{
	if (stage == FILTER_CONNECT)
		return reject ? 554 : 421; /* RFC 5321 section 3.1, RFC 5321 section 3.8 */
	if (stage == FILTER_MESSAGE || stage == FILTER_HELO)
		return reject ? 550 : 451;
	return reject ? 550 : 450;
}

struct wording {
	enum filter_stage stage;
	bool reject;
	unsigned code; /* 0: the default */
	struct slice enhanced, text;
	const char *check;
	const char *id;
	const char *postmaster;
};

/* "Listed in zen [check dnsbl, id abc, contact postmaster@example.org]" */
static void
word_reply(struct pipeline_reply *reply, const struct wording *w)
{
	char tail[200];
	struct buf text = buf_over(reply->text, sizeof(reply->text) - 1);
	bool fits = w->code / 100 == (w->reject ? 5u : 4u) && w->code % 100 <= 59;
	struct slice enhanced;

	reply->code = fits ? w->code : default_code(w->stage, w->reject);
	enhanced = is_enhanced(w->enhanced, reply->code) ? w->enhanced
		   : w->reject                           ? SLICE("5.7.1")
							 : SLICE("4.7.1");
	(void)snprintf(reply->enhanced, sizeof(reply->enhanced), "%.*s", SLICE_FMT(enhanced));
	(void)snprintf(tail, sizeof(tail), " [check %.40s, id %.26s, contact %.90s]", w->check,
	    w->id, w->postmaster); /* each bounded, together shorter than tail */
	pl_field_reply(&text, slice_head(w->text, sizeof(reply->text) - 1 - strlen(tail)));
	pl_field_reply(&text, slice_str(tail));
	reply->text[text.len] = '\0';
}

static const char *
postmaster(const struct pipeline_session *s)
{
	return s->pl->cfg->postmaster != NULL ? s->pl->cfg->postmaster : "postmaster";
}

static void
word_decision(struct pipeline_reply *reply, const struct pipeline_run *run, enum filter_stage stage,
    const struct decision *d)
{
	struct wording w = { .stage = stage,
		.reject = d->verdict == FILTER_REJECT,
		.code = d->code,
		.enhanced = d->enhanced,
		.text = d->text,
		.check = d->filter,
		.id = run->tx != NULL ? run->tx->id_text : run->session->id_text,
		.postmaster = postmaster(run->session) };

	if (w.text.len == 0)
		w.text = w.reject ? SLICE("Refused by local policy") : SLICE("Try again later");
	word_reply(reply, &w);
}

static void
word_score(struct pipeline_reply *reply, const struct pipeline_run *run, const struct judgement *j)
{
	char text[160];
	char name[41];
	struct buf clean = buf_over(name, sizeof(name) - 1);
	struct wording w = { .stage = FILTER_MESSAGE,
		.reject = true,
		.check = "score",
		.id = run->tx->id_text,
		.postmaster = postmaster(run->session) };

	if (j->most != NULL) {
		pl_field_token(&clean, slice_head(j->most->name, sizeof(name) - 1));
		name[clean.len] = '\0';
		w.check = name;
	}
	(void)snprintf(text, sizeof(text), "Looks like unwanted mail (score %.1f, limit %.1f)",
	    j->score, j->threshold);
	w.text = slice_str(text);
	word_reply(reply, &w);
}

/* ---- stages before the message ------------------------------------------------------------------ */

/* A refusal of whom this stage is about; session first, then transaction, then recipient. */
static const struct decision *
refusal(const struct pipeline_run *run, enum filter_stage stage, const struct tx_rcpt *rcpt)
{
	const struct scope *scopes[JUDGE_SCOPES] = { &run->session->connect,
		stage >= FILTER_HELO ? &run->session->helo_scope : NULL,
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
	word_decision(&run->reply, run, stage, d);
}

/* The message is not kept, whatever the filters said. */
static void
give_up(struct pipeline_run *run, struct wording *w)
{
	w->stage = FILTER_MESSAGE;
	w->id = run->tx != NULL ? run->tx->id_text : run->session->id_text;
	w->postmaster = postmaster(run->session);
	run->answer = w->reject ? PIPELINE_REJECT : PIPELINE_DEFER;
	run->verdict = pl_outcome_name(w->reject ? OUTCOME_REJECT : OUTCOME_DEFER);
	run->check = w->check;
	run->reason = "error";
	run->copies = NULL;
	run->n_copies = 0;
	word_reply(&run->reply, w);
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

/* ---- the message -------------------------------------------------------------------------------- */

static void
scopes_of(const struct pipeline_run *run, const struct tx_rcpt *rcpt,
    const struct scope *out[static JUDGE_SCOPES])
{
	out[0] = &run->session->connect;
	out[1] = &run->session->helo_scope;
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
			buf_printf(&out, "=%.1f", f->score);
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
		word_decision(rcpt->reply, run, FILTER_MESSAGE, j->by);
	else
		word_score(rcpt->reply, run, j);
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

		scopes_of(run, rcpt, scopes);
		rcpt->judgement = pl_judge(
		    scopes, pl_thresholds_for(tx->pl->cfg, tx->outbound, rcpt->path.forward_path));
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

static const char *
reason_of(const struct judgement *j)
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

/* All recipients together: what the client is told. */
static enum outcome
combine_rcpts(struct pipeline_run *run)
{
	struct pipeline_tx *tx = run->tx;
	enum outcome *outcomes = arena_alloc(&tx->arena, tx->n_rcpts * sizeof(*outcomes));
	enum outcome all;

	if (outcomes == NULL)
		return OUTCOME_DEFER;
	for (size_t i = 0; i < tx->n_rcpts; i++)
		outcomes[i] = tx->rcpts[i]->outcome;
	all = pl_combine(outcomes, tx->n_rcpts, tx->outbound, run->per_recipient);
	for (size_t i = 0; i < tx->n_rcpts; i++)
		tx->rcpts[i]->outcome = outcomes[i];
	return all;
}

void
pl_outcome_of_message(struct pipeline_run *run)
{
	struct pipeline_tx *tx = run->tx;
	const struct tx_rcpt *spoken;
	enum outcome all;

	if (!judge_rcpts(run)) {
		pl_outcome_defer(run, "memory", "No room to judge this message now");
		return;
	}
	all = combine_rcpts(run);
	spoken = spokesman(tx, all);
	run->authentic = is_authentic(tx);
	run->outbound = tx->outbound;
	run->score = spoken->judgement.score;
	run->findings = spoken->findings;
	run->check = check_of(&spoken->judgement, &tx->arena);
	run->reason = reason_of(&spoken->judgement);
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

/* ---- copies ------------------------------------------------------------------------------------- */

static bool
is_kept(const struct tx_rcpt *rcpt)
{
	return rcpt->outcome <= OUTCOME_QUARANTINE;
}

/* The same bytes go to both: all that a field tells is the same. */
static bool
alike(const struct tx_rcpt *a, const struct tx_rcpt *b)
{
	if (a == b)
		return true;
	return a->outcome == b->outcome && a->judgement.score == b->judgement.score &&
	       a->judgement.by == b->judgement.by && slice_eq(a->findings, b->findings) &&
	       a->scope.auth_results == NULL && b->scope.auth_results == NULL;
}

static size_t
find_copy(const struct copy_plan *plan, const struct tx_rcpt *rcpt)
{
	size_t i = 0;

	while (i < plan->n && !alike(plan->heads[i], rcpt))
		i++;
	return i;
}

static bool
group(struct pipeline_tx *tx, struct copy_plan *plan)
{
	for (size_t i = 0; i < tx->n_rcpts; i++) {
		struct tx_rcpt *rcpt = tx->rcpts[i];
		size_t at = is_kept(rcpt) ? find_copy(plan, rcpt) : 0;

		if (!is_kept(rcpt))
			continue;
		if (at == plan->n) {
			if (at == ENVELOPE_COPIES_MAX)
				return false;
			plan->heads[plan->n++] = rcpt;
		}
		plan->copies[at].n_rcpts++;
	}
	return true;
}

static bool
fill(struct pipeline_tx *tx, struct copy_plan *plan)
{
	for (size_t i = 0; i < plan->n; i++) {
		struct envelope_copy *copy = &plan->copies[i];
		bool held = plan->heads[i]->outcome == OUTCOME_QUARANTINE;

		copy->rcpts = arena_alloc(&tx->arena, copy->n_rcpts * sizeof(*copy->rcpts));
		if (copy->rcpts == NULL)
			return false;
		copy->n_rcpts = 0;
		copy->route = held ? ENVELOPE_QUARANTINE : ENVELOPE_FORWARD;
		copy->reason = held ? slice_str(reason_of(&plan->heads[i]->judgement)) : SLICE("");
	}
	for (size_t i = 0; i < tx->n_rcpts; i++) {
		const struct tx_rcpt *rcpt = tx->rcpts[i];
		struct envelope_copy *copy;

		if (!is_kept(rcpt))
			continue;
		copy = &plan->copies[find_copy(plan, rcpt)];
		copy->rcpts[copy->n_rcpts++] = rcpt->path;
	}
	return true;
}

static bool
put_insert(struct pipeline_tx *tx, struct edit_set *set, struct buf *top)
{
	struct envelope_edit edit = { .insert = SLICE("") };

	edit.insert = arena_copy(&tx->arena, buf_slice(top));
	return !top->overflow && edit.insert.p != NULL &&
	       (edit.insert.len == 0 || pl_edit_set_add(set, &edit) == EDIT_OK);
}

/* The fields that stand above all others. */
static void
write_top(const struct pipeline_run *run, const struct copy_plan *plan, size_t i, struct buf *top)
{
	const struct pipeline_tx *tx = run->tx;
	const struct filter_session *view = &run->session->view;
	const struct tx_rcpt *head = plan->heads[i];
	const struct scope *scopes[JUDGE_SCOPES];
	bool held = head->outcome == OUTCOME_QUARANTINE;
	struct copy_fields cf = { .id = slice_str(tx->id_text),
		.verdict = slice_str(pl_outcome_name(head->outcome)),
		.findings = head->findings,
		.score = head->judgement.score,
		.client_ip = view->client_ip,
		.helo = view->helo,
		.reverse_path = tx->reverse_path };

	if (held)
		pl_copies_quarantine_fields(top, &cf, &plan->copies[i]);
	if (tx->outbound)
		return;
	if (!held)
		pl_copies_finding_fields(top, &cf);
	scopes_of(run, head, scopes);
	pl_copies_auth_field(top, view->hostname, scopes, JUDGE_SCOPES, pl_judge_final(scopes));
}

static bool
begin_edits(struct pipeline_run *run, struct copy_plan *plan, size_t i)
{
	struct pipeline_tx *tx = run->tx;
	struct buf top = buf_heap(COPIES_TOP_MAX);
	struct slice bytes = tx->message->bytes;
	bool ok;

	plan->edits[i] = (struct edit_set){ .arena = &tx->arena, .size = bytes.len };
	/* Released mail goes on as it was received (DESIGN.md section 2). */
	if (run->session->release)
		return true;
	write_top(run, plan, i, &top);
	ok = pl_copies_remove_ours(&plan->edits[i], bytes, run->session->view.hostname) &&
	     put_insert(tx, &plan->edits[i], &top);
	buf_fini(&top);
	return ok;
}

bool
pl_outcome_plan(struct pipeline_run *run, struct copy_plan *plan)
{
	struct pipeline_tx *tx = run->tx;
	size_t max = tx->n_rcpts < ENVELOPE_COPIES_MAX ? tx->n_rcpts : ENVELOPE_COPIES_MAX;

	*plan = (struct copy_plan){ .copies = arena_alloc(&tx->arena, max * sizeof(*plan->copies)),
		.heads = arena_alloc(&tx->arena, max * sizeof(*plan->heads)) };
	if (plan->copies == NULL || plan->heads == NULL || !group(tx, plan) || !fill(tx, plan))
		return false;
	plan->edits = arena_alloc(&tx->arena, (plan->n + 1) * sizeof(*plan->edits));
	if (plan->edits == NULL)
		return false;
	for (size_t i = 0; i < plan->n; i++)
		if (!begin_edits(run, plan, i))
			return false;
	return true;
}

enum edit_status
pl_outcome_edit(
    struct pipeline_tx *tx, struct copy_plan *plan, size_t copy, const struct filter_edit *edit)
{
	struct envelope_edit e = { .at = edit->at,
		.remove = edit->remove,
		.insert = arena_copy(&tx->arena, edit->insert) };

	if (e.insert.p == NULL)
		return EDIT_FULL;
	return pl_edit_set_add(&plan->edits[copy], &e);
}

bool
pl_outcome_finish(struct pipeline_run *run, struct copy_plan *plan)
{
	struct pipeline_tx *tx = run->tx;
	bool apart = !run->session->release && pl_copies_needs_empty_line(tx->message->bytes);
	struct buf fields = buf_heap(COPIES_TOP_MAX);
	bool ok = true;

	buf_put(&fields, run->fields);
	if (apart)
		buf_puts(&fields, "\r\n");
	for (size_t i = 0; i < plan->n && ok; i++) {
		ok = put_insert(tx, &plan->edits[i], &fields);
		plan->copies[i].edits = plan->edits[i].v;
		plan->copies[i].n_edits = plan->edits[i].n;
	}
	buf_fini(&fields);
	run->copies = plan->copies;
	run->n_copies = plan->n;
	return ok;
}
