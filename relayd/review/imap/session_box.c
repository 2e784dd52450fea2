/* relayd/review/imap/session_box.c - mailboxes as a whole: SELECT, STATUS, LIST, and what cannot be
 * done. */
#include "relayd/review/imap/reply.h"
#include "relayd/review/imap/session_internal.h"

static const char no_such_box[] =
    "[NONEXISTENT] There is no such mailbox; there are INBOX, Release, Released and Trash";

bool
imap_box_named(struct slice name, enum store_box_kind *kind)
{
	for (int k = 0; k < STORE_BOXES; k++) {
		struct slice known = slice_str(store_box_name((enum store_box_kind)k));

		/* Only INBOX is the same in any case: RFC 3501 section 5.1. */
		if (k == STORE_INBOX ? slice_ieq(name, known) : slice_eq(name, known)) {
			*kind = (enum store_box_kind)k;
			return true;
		}
	}
	return false;
}

/* ---- SELECT and EXAMINE ---- */

static size_t
first_unseen(const struct imap_view *view)
{
	for (size_t i = 0; i < view->n; i++) {
		const struct store_entry *e = imap_view_entry(view, i);

		if (e != NULL && (e->flags & STORE_SEEN) == 0)
			return i + 1;
	}
	return 0;
}

static void
tell_mailbox(struct imap_session *s)
{
	const struct imap_view *view = &s->view;
	struct buf *out = imap_out(s);
	size_t unseen = first_unseen(view);

	buf_puts(out, "* FLAGS ");
	imap_put_flag_list(view, false, out);
	buf_puts(out, "\r\n* OK [PERMANENTFLAGS ");
	imap_put_flag_list(view, true, out);
	buf_printf(out, "] Flags that are kept\r\n* %zu EXISTS\r\n* %zu RECENT\r\n", view->n,
	    imap_view_recent(view));
	if (unseen > 0)
		buf_printf(out, "* OK [UNSEEN %zu] The first that nobody has seen\r\n", unseen);
	buf_printf(out,
	    "* OK [UIDVALIDITY %u] UIDs are valid\r\n* OK [UIDNEXT %u] The next UID\r\n",
	    store_box_uidvalidity(view->box), store_box_uidnext(view->box));
}

static void
step_selected(struct imap_session *s)
{
	struct imap_work *w = s->work;
	struct store_box *box = w->target;
	bool read_only = w->cmd.verb == IMAP_EXAMINE;

	if (w->open.req.err.code != ERR_NONE) {
		imap_end_err(s, &w->open.req.err);
		return;
	}
	w->target = NULL; /* the view owns it now */
	if (imap_view_open(&s->view, box, read_only) < 0) {
		imap_end(s, IMAP_NO, "[UNAVAILABLE] Out of memory");
		return;
	}
	s->state = IMAP_STATE_SELECTED;
	tell_mailbox(s);
	imap_end(s, IMAP_OK, "[READ-%s] %s selected", read_only ? "ONLY" : "WRITE",
	    store_box_name(store_box_kind(s->view.box)));
}

static void
on_opened(struct store_box_open *open)
{
	struct imap_work *w = container_of(open, struct imap_work, open);
	struct imap_session *s = w->session;

	w->target = open->req.err.code == ERR_NONE ? open->box : NULL;
	imap_go_on(s);
}

void
imap_open_target(
    struct imap_session *s, enum store_box_kind kind, void (*then)(struct imap_session *s))
{
	struct imap_work *w = s->work;

	w->open = (struct store_box_open){
		.scope = slice_str(s->scope), .kind = kind, .done = on_opened
	};
	w->step = then;
	imap_wait(s);
	store_box_open(s->store, &w->open);
}

void
imap_run_select(struct imap_session *s)
{
	enum store_box_kind kind;

	/* The old mailbox is gone even if the new one cannot be had: RFC 3501 section 6.3.1. */
	imap_view_close(&s->view);
	s->state = IMAP_STATE_AUTHENTICATED;
	if (imap_box_named(s->work->cmd.mailbox, &kind))
		imap_open_target(s, kind, step_selected);
	else
		imap_end(s, IMAP_NO, "%s", no_such_box);
}

/* ---- STATUS ---- */

static void
step_status(struct imap_session *s)
{
	struct imap_work *w = s->work;
	const struct store_entry *entries;
	struct buf *out = imap_out(s);
	size_t n, unseen = 0, recent = 0;
	uint32_t recent_from;

	if (w->open.req.err.code != ERR_NONE) {
		imap_end_err(s, &w->open.req.err);
		return;
	}
	entries = store_box_entries(w->target, &n);
	recent_from = store_box_peek_recent(w->target);
	for (size_t i = 0; i < n; i++) {
		unseen += (entries[i].flags & STORE_SEEN) == 0 ? 1 : 0;
		recent += entries[i].uid >= recent_from ? 1 : 0;
	}
	buf_puts(out, "* STATUS ");
	imap_put_astring(out, w->cmd.mailbox);
	buf_puts(out, " (");
	if (w->cmd.status & IMAP_STATUS_MESSAGES)
		buf_printf(out, "MESSAGES %zu ", n);
	if (w->cmd.status & IMAP_STATUS_RECENT)
		buf_printf(out, "RECENT %zu ", recent);
	if (w->cmd.status & IMAP_STATUS_UIDNEXT)
		buf_printf(out, "UIDNEXT %u ", store_box_uidnext(w->target));
	if (w->cmd.status & IMAP_STATUS_UIDVALIDITY)
		buf_printf(out, "UIDVALIDITY %u ", store_box_uidvalidity(w->target));
	if (w->cmd.status & IMAP_STATUS_UNSEEN)
		buf_printf(out, "UNSEEN %zu ", unseen);
	if (!out->overflow)
		out->len--; /* the last space */
	buf_puts(out, ")\r\n");
	imap_end(s, IMAP_OK, "That is how it stands");
}

void
imap_run_status(struct imap_session *s)
{
	enum store_box_kind kind;

	if (imap_box_named(s->work->cmd.mailbox, &kind))
		imap_open_target(s, kind, step_status);
	else
		imap_end(s, IMAP_NO, "%s", no_such_box);
}

/* ---- LIST and LSUB ---- */

/* RFC 3501 section 6.3.8.  Backtracks to the last wildcard only, so it takes at most the product of
 * the lengths, and names are short.  There is no hierarchy, so "%" is as good as "*". */
static bool
matches(struct slice pattern, struct slice name, bool any_case)
{
	size_t p = 0, n = 0, star = SIZE_MAX, retry = 0;

	while (n < name.len) {
		if (p < pattern.len && (pattern.p[p] == '*' || pattern.p[p] == '%')) {
			star = p++;
			retry = n;
		} else if (p < pattern.len &&
			   (any_case ? slice_lower(pattern.p[p]) == slice_lower(name.p[n])
				     : pattern.p[p] == name.p[n])) {
			p++;
			n++;
		} else if (star != SIZE_MAX) {
			p = star + 1;
			n = ++retry;
		} else {
			return false;
		}
	}
	while (p < pattern.len && (pattern.p[p] == '*' || pattern.p[p] == '%'))
		p++;
	return p == pattern.len;
}

void
imap_run_list(struct imap_session *s)
{
	const struct imap_command *cmd = &s->work->cmd;
	const char *verb = cmd->verb == IMAP_LSUB ? "LSUB" : "LIST";
	char storage[512];
	struct buf pattern = buf_over(storage, sizeof(storage)), *out = imap_out(s);

	if (cmd->pattern.len == 0 && cmd->verb == IMAP_LIST) { /* asks for the delimiter */
		buf_puts(out, "* LIST (\\Noselect) \"/\" \"\"\r\n");
		imap_end(s, IMAP_OK, "There is no hierarchy");
		return;
	}
	buf_put(&pattern, cmd->mailbox);
	buf_put(&pattern, cmd->pattern);
	for (int k = 0; k < STORE_BOXES && !pattern.overflow; k++) {
		const char *name = store_box_name((enum store_box_kind)k);

		if (matches(buf_slice(&pattern), slice_str(name), k == STORE_INBOX))
			buf_printf(out, "* %s (\\HasNoChildren%s) \"/\" %s\r\n", verb,
			    k == STORE_TRASH && cmd->verb == IMAP_LIST ? " \\Trash" : "", name);
	}
	imap_end(s, IMAP_OK, "%s done", verb);
}

/* All mailboxes are subscribed, always. */
void
imap_run_subscribe(struct imap_session *s)
{
	enum store_box_kind kind;

	if (!imap_box_named(s->work->cmd.mailbox, &kind))
		imap_end(s, IMAP_NO, "%s", no_such_box);
	else if (s->work->cmd.verb == IMAP_SUBSCRIBE)
		imap_end(s, IMAP_OK, "All mailboxes are subscribed");
	else
		imap_end(s, IMAP_NO, "[CANNOT] All mailboxes are subscribed, always");
}

/* ---- what cannot be done ---- */

void
imap_run_refused(struct imap_session *s)
{
	const struct imap_command *cmd = &s->work->cmd;

	switch (cmd->verb) {
	case IMAP_CREATE:
	case IMAP_DELETE:
	case IMAP_RENAME:
		imap_end(s, IMAP_NO,
		    "[CANNOT] The mailboxes are fixed: INBOX, Release, Released and Trash");
		return;
	case IMAP_APPEND:
		imap_end(s, IMAP_NO,
		    "[CANNOT] Nothing can be appended: only what was held by the gateway is kept "
		    "here");
		return;
	case IMAP_STARTTLS:
		imap_end(s, IMAP_NO, "[CANNOT] There is no STARTTLS here: use the IMAPS port");
		return;
	default:
		imap_end(
		    s, IMAP_NO, "[CANNOT] This server does not have %.*s", SLICE_FMT(cmd->name));
	}
}
