/* relayd/review/imap/session_search.c - SEARCH: by entries, then by descriptions, then by whole
 * messages. */
#include "relayd/review/imap/session_internal.h"

#include <stdlib.h>

#define LOOK_AT_ONCE 20000 /* entries in one step */

static void step_batch(struct imap_session *s);

static void
candidate_init(struct imap_session *s, struct imap_candidate *c, size_t index)
{
	const struct store_entry *e = imap_view_entry(&s->view, index);

	*c = (struct imap_candidate){ .number = (uint32_t)index + 1,
		.recent = s->view.messages[index].recent,
		.view = SLICE("") };
	if (e != NULL)
		c->entry = *e;
}

/* ---- what is left is told ---- */

static void
step_tell(struct imap_session *s)
{
	struct imap_search_work *sw = s->work->search;
	struct buf *out = imap_out(s);
	size_t from = out->len;

	if (sw->told == 0)
		buf_puts(out, "* SEARCH");
	for (; sw->told < s->view.n && out->len - from < IMAP_OUT_BYTES; sw->told++)
		if (sw->hits[sw->told])
			buf_printf(out, " %zu",
			    s->work->cmd.uid ? (size_t)s->view.messages[sw->told].uid
					     : sw->told + 1);
	if (sw->told < s->view.n)
		return;
	buf_puts(out, "\r\n");
	imap_end(s, IMAP_OK, "Searched");
}

/* ---- whole messages: in the pool ---- */

static void
visit(struct store_visit *visit, size_t index, struct slice view, size_t top)
{
	struct imap_work *w = container_of(visit, struct imap_work, visit);
	struct imap_search_work *sw = w->search;
	size_t at = sw->undecided[sw->done + index];
	struct imap_candidate *c = &sw->candidates[at];

	(void)top;
	c->view = view;
	c->has_view = true;
	sw->found[at] = view.len > 0 ? imap_search_match(w->cmd.key, c) : IMAP_FOUND_NO;
}

static void step_visit(struct imap_session *s);

static void
on_visited(struct store_visit *v)
{
	struct imap_work *w = container_of(v, struct imap_work, visit);

	w->search->done += w->search->n_visiting;
	imap_go_on(w->session);
}

/* So many of the undecided that their bytes are not too much for one request. */
static void
start_visit(struct imap_session *s)
{
	struct imap_search_work *sw = s->work->search;
	uint64_t bytes = 0;
	size_t n = 0;

	while (sw->done + n < sw->n_undecided && (n == 0 || bytes < IMAP_BATCH_BYTES)) {
		const struct store_entry *e = &sw->candidates[sw->undecided[sw->done + n]].entry;

		sw->items[n++] = e->item;
		bytes += e->size;
	}
	sw->n_visiting = n;
	s->work->visit = (struct store_visit){ .box = s->view.box,
		.items = sw->items,
		.n_items = n,
		.visit = visit,
		.done = on_visited };
	imap_wait(s);
	store_visit(s->store, &s->work->visit);
}

static void
step_visit(struct imap_session *s)
{
	struct imap_search_work *sw = s->work->search;

	if (sw->done > 0 && s->work->visit.req.err.code != ERR_NONE) {
		imap_end_err(s, &s->work->visit.req.err);
		return;
	}
	if (sw->done < sw->n_undecided) {
		start_visit(s);
		return;
	}
	for (size_t i = 0; i < s->work->batch->n; i++)
		sw->hits[imap_batch_index(s, i)] = sw->found[i] == IMAP_FOUND_YES;
	s->work->step = step_batch;
}

/* ---- descriptions ---- */

static void
step_described(struct imap_session *s)
{
	struct imap_work *w = s->work;
	struct imap_search_work *sw = w->search;

	sw->n_undecided = sw->done = 0;
	for (size_t i = 0; i < w->batch->n; i++) {
		struct imap_candidate *c = &sw->candidates[i];

		candidate_init(s, c, imap_batch_index(s, i));
		c->description = w->batch->described[i] ? &w->batch->descriptions[i] : NULL;
		sw->found[i] = imap_search_match(w->cmd.key, c);
		if (sw->found[i] == IMAP_FOUND_UNKNOWN)
			sw->undecided[sw->n_undecided++] = i;
	}
	w->step = step_visit;
}

static bool
uses_descriptions(const struct imap_key *key)
{
	switch (key->kind) {
	case IMAP_KEY_SENTBEFORE:
	case IMAP_KEY_SENTON:
	case IMAP_KEY_SENTSINCE:
	case IMAP_KEY_HEADER:
	case IMAP_KEY_TEXT:
		return true;
	case IMAP_KEY_NOT:
		return uses_descriptions(key->a);
	case IMAP_KEY_OR:
		return uses_descriptions(key->a) || uses_descriptions(key->b);
	case IMAP_KEY_AND:
		for (const struct imap_key *k = key->a; k != NULL; k = k->next)
			if (uses_descriptions(k))
				return true;
		return false;
	default:
		return false;
	}
}

static void
step_batch(struct imap_session *s)
{
	if (!imap_batch_next(s, uses_descriptions(s->work->cmd.key), step_described))
		s->work->step = step_tell;
}

/* ---- entries ---- */

/* Those that an entry alone does not decide stay in indexes[]. */
static void
step_entries(struct imap_session *s)
{
	struct imap_work *w = s->work;
	struct imap_search_work *sw = w->search;
	size_t end =
	    s->view.n - sw->looked_at < LOOK_AT_ONCE ? s->view.n : sw->looked_at + LOOK_AT_ONCE;

	for (; sw->looked_at < end; sw->looked_at++) {
		struct imap_candidate c;
		enum imap_found found;

		if (s->view.messages[sw->looked_at].gone)
			continue; /* RFC 2180 section 4.3 */
		candidate_init(s, &c, sw->looked_at);
		found = imap_search_match(w->cmd.key, &c);
		if (found == IMAP_FOUND_UNKNOWN)
			w->indexes[w->n_indexes++] = sw->looked_at;
		sw->hits[sw->looked_at] = found == IMAP_FOUND_YES;
	}
	if (sw->looked_at == s->view.n)
		w->step = step_batch;
}

void
imap_run_search(struct imap_session *s)
{
	struct imap_work *w = s->work;

	if (imap_search_prepare(w->cmd.key, w->cmd.charset, s->view.box, (uint32_t)s->view.n,
		imap_view_last_uid(&s->view), &w->arena) < 0) {
		imap_end(
		    s, IMAP_NO, "[BADCHARSET (UTF-8 US-ASCII)] This charset is not known here");
		return;
	}
	w->search = calloc(1, sizeof(*w->search));
	w->indexes = calloc(s->view.n + 1, sizeof(w->indexes[0]));
	if (w->search != NULL)
		w->search->hits = calloc(s->view.n + 1, sizeof(w->search->hits[0]));
	if (w->search == NULL || w->indexes == NULL || w->search->hits == NULL)
		imap_end(s, IMAP_NO, "[UNAVAILABLE] Out of memory");
	else
		w->step = step_entries;
}
