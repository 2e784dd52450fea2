/* relayd/review/imap/session_batch.c - the messages that a command is for, some at a time. */
#include "relayd/review/imap/session_internal.h"

#include <stdlib.h>

#define BATCH_ARENA_BYTES (128u << 20) /* part tables of all descriptions, at the very most */

/* Places of the first and behind the last message with a UID of the range. */
static void
uid_span(const struct imap_view *view, struct imap_range r, size_t *from, size_t *to)
{
	size_t low = 0, high = view->n;

	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (view->messages[mid].uid < r.first)
			low = mid + 1;
		else
			high = mid;
	}
	*from = *to = low;
	while (*to < view->n && view->messages[*to].uid <= r.last)
		++*to;
}

bool
imap_pick_messages(struct imap_session *s)
{
	struct imap_work *w = s->work;
	const struct imap_view *view = &s->view;
	struct imap_set *set = &w->cmd.set;

	imap_set_resolve(set, w->cmd.uid ? imap_view_last_uid(view) : (uint32_t)view->n);
	if (!w->cmd.uid && imap_set_max(set) > view->n) {
		imap_end(s, IMAP_BAD, "There are %zu messages here", view->n);
		return false;
	}
	w->indexes = calloc(view->n + 1, sizeof(w->indexes[0]));
	if (w->indexes == NULL) {
		imap_end(s, IMAP_NO, "[UNAVAILABLE] Out of memory");
		return false;
	}
	for (size_t i = 0; i < set->n; i++) {
		size_t from = set->ranges[i].first - 1, to = set->ranges[i].last;

		if (w->cmd.uid)
			uid_span(view, set->ranges[i], &from, &to);
		for (; from < to; from++)
			w->indexes[w->n_indexes++] = from;
	}
	return true;
}

bool
imap_pick_uids(struct imap_session *s)
{
	struct imap_work *w = s->work;

	w->uids = calloc(w->n_indexes + 1, sizeof(w->uids[0]));
	if (w->uids == NULL) {
		imap_end(s, IMAP_NO, "[UNAVAILABLE] Out of memory");
		return false;
	}
	for (size_t i = 0; i < w->n_indexes; i++) {
		const struct imap_message *m = &s->view.messages[w->indexes[i]];

		w->gone = w->gone || m->gone;
		if (!m->gone)
			w->uids[w->n_uids++] = m->uid;
	}
	return true;
}

/* ---- descriptions ---- */

static void
forget_answer(struct imap_batch *b)
{
	if (b->asked)
		store_describe_fini(&b->describe);
	b->asked = false;
	arena_fini(&b->arena);
	b->arena = arena_of(BATCH_ARENA_BYTES);
}

void
imap_batch_free(struct imap_batch *batch)
{
	if (batch == NULL)
		return;
	forget_answer(batch);
	free(batch);
}

static void
on_described(struct store_describe *describe)
{
	struct imap_batch *b = container_of(describe, struct imap_batch, describe);
	bool ok = describe->req.err.code == ERR_NONE;

	b->asked = ok;
	for (size_t i = 0; i < b->n; i++)
		b->described[i] = ok && imap_description_read(describe->descriptions[i], &b->arena,
					    &b->descriptions[i]);
	imap_go_on(b->session);
}

static void
ask(struct imap_session *s, struct imap_batch *b)
{
	for (size_t i = 0; i < b->n; i++) {
		const struct store_entry *e = imap_batch_entry(s, i);

		b->items[i] = e != NULL ? e->item : 0; /* no item has this number */
	}
	b->describe = (struct store_describe){
		.box = s->view.box, .items = b->items, .n_items = b->n, .done = on_described
	};
	imap_wait(s);
	store_describe(s->store, &b->describe);
}

bool
imap_batch_next(struct imap_session *s, bool describe, void (*then)(struct imap_session *s))
{
	struct imap_work *w = s->work;
	struct imap_batch *b = w->batch;

	if (b == NULL) {
		b = w->batch = calloc(1, sizeof(*b));
		if (b == NULL) {
			imap_end(s, IMAP_NO, "[UNAVAILABLE] Out of memory");
			return true;
		}
		b->session = s;
		b->arena = arena_of(BATCH_ARENA_BYTES);
	}
	forget_answer(b);
	b->first += b->n;
	b->n = w->n_indexes - b->first < IMAP_BATCH ? w->n_indexes - b->first : IMAP_BATCH;
	if (b->n == 0)
		return false;
	memset(b->described, 0, sizeof(b->described));
	w->step = then;
	if (describe)
		ask(s, b);
	return true;
}

size_t
imap_batch_index(const struct imap_session *s, size_t i)
{
	return s->work->indexes[s->work->batch->first + i];
}

const struct store_entry *
imap_batch_entry(const struct imap_session *s, size_t i)
{
	return imap_view_entry(&s->view, imap_batch_index(s, i));
}
