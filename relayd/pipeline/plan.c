/* relayd/pipeline/plan.c - the copies of a message that is kept, one for each kind of outcome. */
#include "relayd/pipeline/plan.h"

#include "relayd/pipeline/outcome.h"

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
		copy->reason =
		    held ? slice_str(pl_outcome_reason(&plan->heads[i]->judgement)) : SLICE("");
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
	const struct filter_session *view = &run->session->found->view;
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
	pl_outcome_scopes(run, head, scopes);
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
	ok = pl_copies_remove_ours(&plan->edits[i], bytes, run->session->found->view.hostname) &&
	     put_insert(tx, &plan->edits[i], &top);
	buf_fini(&top);
	return ok;
}

bool
pl_plan_make(struct pipeline_run *run, struct copy_plan *plan)
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
pl_plan_edit(
    struct pipeline_tx *tx, struct copy_plan *plan, size_t copy, const struct filter_edit *edit)
{
	struct envelope_edit e = { .at = edit->at,
		.remove = edit->remove,
		.insert = arena_copy(&tx->arena, edit->insert) };

	struct slice message = tx->message->bytes;
	enum edit_status status;

	if (e.insert.p == NULL)
		return EDIT_FULL;
	if (!pl_edit_is_text(message, &e))
		return EDIT_TEXT;
	status = pl_edit_set_add(&plan->edits[copy], &e);
	if (status == EDIT_OK) {
		plan->dots = plan->dots || pl_edit_brings_dots(message, &e);
		plan->eight_bit = plan->eight_bit || !slice_is_ascii(e.insert);
	}
	return status;
}

bool
pl_plan_finish(struct pipeline_run *run, struct copy_plan *plan)
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
	run->dots = plan->dots;
	run->eight_bit = plan->eight_bit;
	return ok;
}
