/* relayd/review/imap/view.c - a mailbox as one session numbers it. */
#include "relayd/review/imap/view.h"

#include <stdlib.h>

static const struct {
	uint64_t flag;
	const char *name;
} system_flags[] = {
	{ STORE_ANSWERED, "\\Answered" },
	{ STORE_FLAGGED, "\\Flagged" },
	{ STORE_DELETED, "\\Deleted" },
	{ STORE_SEEN, "\\Seen" },
	{ STORE_DRAFT, "\\Draft" },
};

static bool
reserve(void **array, size_t *cap, size_t n, size_t each)
{
	size_t want = *cap > 0 ? *cap : 64;
	void *p;

	if (n <= *cap)
		return true;
	while (want < n)
		want *= 2;
	p = reallocarray(*array, want, each);
	if (p == NULL)
		return false;
	*array = p;
	*cap = want;
	return true;
}

/* Gives numbers to what has come since the last one. */
static bool
append_new(struct imap_view *view)
{
	size_t n, from;
	const struct store_entry *entries = store_box_entries(view->box, &n);
	uint32_t last = imap_view_last_uid(view);
	uint32_t recent;

	view->new_messages = false;
	for (from = n; from > 0 && entries[from - 1].uid > last; from--)
		;
	if (from == n)
		return true;
	recent =
	    view->read_only ? store_box_peek_recent(view->box) : store_box_take_recent(view->box);
	if (!reserve((void **)&view->messages, &view->cap, view->n + (n - from),
		sizeof(view->messages[0])))
		return false;
	for (; from < n; from++)
		view->messages[view->n++] = (struct imap_message){ .uid = entries[from].uid,
			.recent = entries[from].uid >= recent };
	return true;
}

static bool
keep_ghost(struct imap_view *view, const struct store_entry *entry)
{
	size_t at = view->n_gone;

	if (!reserve((void **)&view->ghosts, &view->ghosts_cap, view->n_gone + 1,
		sizeof(view->ghosts[0])))
		return false;
	for (; at > 0 && view->ghosts[at - 1].uid > entry->uid; at--)
		view->ghosts[at] = view->ghosts[at - 1];
	view->ghosts[at] = *entry;
	view->n_gone++;
	return true;
}

static void
on_change(struct store_watch *watch, const struct store_change *change)
{
	struct imap_view *view = container_of(watch, struct imap_view, watch);
	size_t i = imap_view_find(view, change->entry.uid);

	switch (change->kind) {
	case STORE_ADDED:
		view->new_messages = true;
		break;
	case STORE_REMOVED:
		if (i == view->n)
			return; /* came and went before we spoke of it */
		view->messages[i].gone = true;
		view->messages[i].dirty = false;
		view->failed = view->failed || !keep_ghost(view, &change->entry);
		break;
	case STORE_FLAGS_CHANGED:
		if (i == view->n || (view->quiet && change->by == view->self))
			return;
		view->messages[i].dirty = true;
		view->has_dirty = true;
		break;
	case STORE_KEYWORDS_CHANGED:
		view->new_keywords = true;
		break;
	}
	if (view->on_news != NULL)
		view->on_news(view);
}

int
imap_view_open(struct imap_view *view, struct store_box *box, bool read_only)
{
	view->box = box;
	view->read_only = read_only;
	view->watch = (struct store_watch){ .on_change = on_change };
	store_watch(box, &view->watch);
	if (append_new(view))
		return 0;
	imap_view_close(view);
	return -1;
}

void
imap_view_close(struct imap_view *view)
{
	if (view->box == NULL)
		return;
	store_unwatch(&view->watch);
	store_box_close(view->box);
	free(view->messages);
	free(view->ghosts);
	*view = (struct imap_view){ .self = view->self, .on_news = view->on_news };
}

bool
imap_view_is_open(const struct imap_view *view)
{
	return view->box != NULL;
}

bool
imap_view_failed(const struct imap_view *view)
{
	return view->failed;
}

static const struct store_entry *
find_ghost(const struct imap_view *view, uint32_t uid)
{
	size_t low = 0, high = view->n_gone;

	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (view->ghosts[mid].uid == uid)
			return &view->ghosts[mid];
		if (view->ghosts[mid].uid < uid)
			low = mid + 1;
		else
			high = mid;
	}
	return NULL;
}

const struct store_entry *
imap_view_entry(const struct imap_view *view, size_t index)
{
	const struct imap_message *m = &view->messages[index];

	return m->gone ? find_ghost(view, m->uid) : store_box_find(view->box, m->uid);
}

size_t
imap_view_find(const struct imap_view *view, uint32_t uid)
{
	size_t low = 0, high = view->n;

	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (view->messages[mid].uid == uid)
			return mid;
		if (view->messages[mid].uid < uid)
			low = mid + 1;
		else
			high = mid;
	}
	return view->n;
}

uint32_t
imap_view_last_uid(const struct imap_view *view)
{
	return view->n > 0 ? view->messages[view->n - 1].uid : 0;
}

size_t
imap_view_recent(const struct imap_view *view)
{
	size_t n = 0;

	for (size_t i = 0; i < view->n; i++)
		n += view->messages[i].recent ? 1 : 0;
	return n;
}

bool
imap_view_has_news(const struct imap_view *view)
{
	return view->new_messages || view->has_dirty || view->new_keywords || view->n_gone > 0;
}

/* From the highest number down, so that each is still right when the client reads it. */
static void
tell_expunged(struct imap_view *view, struct buf *out)
{
	size_t kept = 0;

	if (view->n_gone == 0)
		return;
	for (size_t i = view->n; i > 0; i--)
		if (view->messages[i - 1].gone)
			buf_printf(out, "* %zu EXPUNGE\r\n", i);
	for (size_t i = 0; i < view->n; i++)
		if (!view->messages[i].gone)
			view->messages[kept++] = view->messages[i];
	view->n = kept;
	free(view->ghosts);
	view->ghosts = NULL;
	view->n_gone = view->ghosts_cap = 0;
}

static void
tell_new(struct imap_view *view, struct buf *out)
{
	size_t before = view->n;

	if (!view->new_messages)
		return;
	if (!append_new(view)) {
		view->failed = true;
		return;
	}
	if (view->n > before)
		buf_printf(
		    out, "* %zu EXISTS\r\n* %zu RECENT\r\n", view->n, imap_view_recent(view));
}

static void
tell_keywords(struct imap_view *view, struct buf *out)
{
	if (!view->new_keywords)
		return;
	view->new_keywords = false;
	buf_puts(out, "* FLAGS ");
	imap_put_flag_list(view, false, out);
	buf_puts(out, "\r\n* OK [PERMANENTFLAGS ");
	imap_put_flag_list(view, true, out);
	buf_puts(out, "] Flags permitted\r\n");
}

/* False when there are more. */
static bool
tell_flags(struct imap_view *view, size_t max_bytes, struct buf *out)
{
	size_t from = out->len;

	for (size_t i = 0; view->has_dirty && i < view->n; i++) {
		struct imap_message *m = &view->messages[i];

		if (!m->dirty)
			continue;
		if (out->len - from > max_bytes)
			return false;
		m->dirty = false;
		buf_printf(out, "* %zu FETCH (UID %u ", i + 1, m->uid);
		imap_put_flags(view, imap_view_entry(view, i), m->recent, out);
		buf_puts(out, ")\r\n");
	}
	view->has_dirty = false;
	return true;
}

bool
imap_view_sync(struct imap_view *view, bool expunge, size_t max_bytes, struct buf *out)
{
	if (expunge)
		tell_expunged(view, out);
	tell_new(view, out);
	tell_keywords(view, out);
	return tell_flags(view, max_bytes, out);
}

static void
put_word(struct buf *out, bool *first, const char *word)
{
	if (!*first)
		buf_putc(out, ' ');
	*first = false;
	buf_puts(out, word);
}

void
imap_put_flags(
    const struct imap_view *view, const struct store_entry *entry, bool recent, struct buf *out)
{
	uint64_t flags = entry != NULL ? entry->flags : 0;
	bool first = true;
	const char *keyword;

	buf_puts(out, "FLAGS (");
	for (size_t i = 0; i < ARRAY_LEN(system_flags); i++)
		if ((flags & system_flags[i].flag) != 0)
			put_word(out, &first, system_flags[i].name);
	if (recent)
		put_word(out, &first, "\\Recent");
	for (size_t n = 0; flags >> 8 != 0 && (keyword = store_box_keyword(view->box, n)) != NULL;
	     n++)
		if ((flags & STORE_KEYWORD_BIT(n)) != 0)
			put_word(out, &first, keyword);
	buf_putc(out, ')');
}

void
imap_put_flag_list(const struct imap_view *view, bool permanent, struct buf *out)
{
	bool deletes = store_box_kind(view->box) == STORE_INBOX, first = true;
	const char *keyword;
	size_t n = 0;

	buf_putc(out, '(');
	for (size_t i = 0; i < ARRAY_LEN(system_flags) && !(permanent && view->read_only); i++)
		if (!permanent || deletes || system_flags[i].flag != STORE_DELETED)
			put_word(out, &first, system_flags[i].name);
	for (;
	     !(permanent && view->read_only) && (keyword = store_box_keyword(view->box, n)) != NULL;
	     n++)
		put_word(out, &first, keyword);
	if (permanent && !view->read_only && n < STORE_KEYWORDS_MAX)
		put_word(out, &first, "\\*");
	buf_putc(out, ')');
}
