/* relayd/review/imap/session_change.c - STORE, COPY, MOVE, EXPUNGE, CLOSE: what changes a
 * mailbox. */
#include "relayd/review/imap/session_internal.h"

static const char is_read_only[] = "[CANNOT] The mailbox was opened read-only, with EXAMINE";

/* ---- STORE ---- */

static void
step_stored(struct imap_session *s)
{
	struct imap_work *w = s->work;

	if (w->flags.req.err.code != ERR_NONE) {
		imap_end_err(s, &w->flags.req.err);
		return;
	}
	/* The client is told the flags of all that it named, changed or not (RFC 3501 section
	 * 6.4.6); imap_end() does so. */
	for (size_t i = 0; i < w->n_indexes && !w->cmd.silent; i++) {
		struct imap_message *m = &s->view.messages[w->indexes[i]];

		m->dirty = !m->gone;
		s->view.has_dirty = true;
	}
	if (w->gone && !w->cmd.uid) /* RFC 2180 section 4.2.2 */
		imap_end(s, IMAP_NO,
		    "[EXPUNGEISSUED] Some of the messages have gone; the others are done");
	else
		imap_end(s, IMAP_OK, "Flags are set");
}

static void
on_stored(struct store_set_flags *set)
{
	struct imap_work *w = container_of(set, struct imap_work, flags);

	w->session->view.quiet = false;
	imap_go_on(w->session);
}

void
imap_run_store(struct imap_session *s)
{
	static const enum store_flags_how hows[] = {
		[IMAP_STORE_SET] = STORE_FLAGS_SET,
		[IMAP_STORE_ADD] = STORE_FLAGS_ADD,
		[IMAP_STORE_REMOVE] = STORE_FLAGS_REMOVE,
	};
	struct imap_work *w = s->work;

	if (s->view.read_only) {
		imap_end(s, IMAP_NO, "%s", is_read_only);
		return;
	}
	if (!imap_pick_messages(s) || !imap_pick_uids(s))
		return;
	w->flags = (struct store_set_flags){ .box = s->view.box,
		.uids = w->uids,
		.n_uids = w->n_uids,
		.how = hows[w->cmd.how],
		.flags = w->cmd.flags,
		.keywords = w->cmd.keywords,
		.n_keywords = w->cmd.n_keywords,
		.by = s,
		.done = on_stored };
	w->step = step_stored;
	s->view.quiet = w->cmd.silent;
	imap_wait(s);
	store_set_flags(s->store, &w->flags);
}

/* ---- moving: in all its forms ---- */

static void
on_moved(struct store_move *move)
{
	struct imap_work *w = container_of(move, struct imap_work, move);
	imap_go_on(w->session);
}

static void
start_move(struct imap_session *s, enum store_box_kind to, bool only_deleted,
    void (*then)(struct imap_session *s))
{
	struct imap_work *w = s->work;

	w->move = (struct store_move){ .box = s->view.box,
		.uids = w->uids,
		.n_uids = w->n_uids,
		.to = to,
		.only_deleted = only_deleted,
		.actor = slice_str(s->user),
		.by = s,
		.done = on_moved };
	w->step = then;
	w->moved = true;
	imap_wait(s);
	store_move(s->store, &w->move);
}

/* "[COPYUID validity from to] " (RFC 4315 section 3) of those that went where they should; their
 * number. */
static size_t
put_copyuid(struct imap_work *w, struct buf *out)
{
	struct imap_set_writer from = { .out = out }, to = { .out = out };
	size_t n = 0;

	for (size_t i = 0; i < w->move.n_moved; i++)
		n += w->move.moved[i].to > 0 ? 1 : 0;
	if (n == 0)
		return 0;
	buf_printf(out, "[COPYUID %u ", store_box_uidvalidity(w->target));
	for (size_t i = 0; i < w->move.n_moved; i++)
		if (w->move.moved[i].to > 0)
			imap_set_put(&from, w->move.moved[i].from);
	imap_set_end(&from);
	buf_putc(out, ' ');
	for (size_t i = 0; i < w->move.n_moved; i++)
		if (w->move.moved[i].to > 0)
			imap_set_put(&to, w->move.moved[i].to);
	imap_set_end(&to);
	buf_puts(out, "] ");
	return n;
}

static void
step_copied(struct imap_session *s)
{
	struct imap_work *w = s->work;
	struct buf *out = imap_out(s);
	size_t n;

	if (w->move.req.err.code != ERR_NONE) {
		imap_end_err(s, &w->move.req.err);
		return;
	}
	n = put_copyuid(w, &w->code);
	if (w->code.overflow)
		buf_reset(&w->code); /* a code that does not fit can be done without */
	if (w->cmd.verb == IMAP_MOVE &&
	    w->code.len > 0) { /* before the EXPUNGEs: RFC 6851 section 4.3 */
		buf_puts(out, "* OK ");
		buf_put(out, buf_slice(&w->code));
		buf_puts(out, "Moved\r\n");
		buf_reset(&w->code);
	}
	if (store_box_kind(w->target) == STORE_RELEASE)
		imap_end(s, IMAP_OK, "Released: %zu %s", n, n == 1 ? "message" : "messages");
	else
		imap_end(s, IMAP_OK, "Moved: %zu %s", n, n == 1 ? "message" : "messages");
}

static void
step_target(struct imap_session *s)
{
	struct imap_work *w = s->work;

	if (w->open.req.err.code != ERR_NONE)
		imap_end_err(s, &w->open.req.err);
	else
		start_move(s, store_box_kind(w->target), false, step_copied);
}

void
imap_run_copy(struct imap_session *s)
{
	enum store_box_kind kind;

	if (!imap_box_named(s->work->cmd.mailbox, &kind)) {
		imap_end(s, IMAP_NO,
		    "[CANNOT] There is no such mailbox and none can be made; there are INBOX, "
		    "Release, Released and Trash");
		return;
	}
	if (s->view
		.read_only) { /* a message is in one mailbox only, so COPY takes it away as well */
		imap_end(s, IMAP_NO, "%s", is_read_only);
		return;
	}
	if (!imap_pick_messages(s) || !imap_pick_uids(s))
		return;
	if (s->work->n_uids == 0)
		imap_end(s, s->work->gone ? IMAP_NO : IMAP_OK, "%sThere are no such messages",
		    s->work->gone ? "[EXPUNGEISSUED] " : "");
	else
		imap_open_target(s, kind, step_target);
}

/* ---- EXPUNGE and CLOSE ---- */

/* Keeps the UIDs of those that are \Deleted. */
static void
pick_deleted(struct imap_session *s)
{
	struct imap_work *w = s->work;
	size_t n = 0;

	for (size_t i = 0; i < w->n_uids; i++) {
		const struct store_entry *e = store_box_find(s->view.box, w->uids[i]);

		if (e != NULL && (e->flags & STORE_DELETED) != 0)
			w->uids[n++] = w->uids[i];
	}
	w->n_uids = n;
}

/* Fills uids[] with what is \Deleted.  False: has ended. */
static bool
pick_for_expunge(struct imap_session *s)
{
	struct imap_work *w = s->work;
	struct imap_range all = { 1, 0 }; /* 1:* */

	if (!w->cmd.uid)
		w->cmd.set = (struct imap_set){ &all, 1 };
	if (!imap_pick_messages(s) || !imap_pick_uids(s))
		return false;
	w->cmd.set.n = 0; /* it was ours */
	pick_deleted(s);
	return true;
}

static void
step_expunged(struct imap_session *s)
{
	struct imap_work *w = s->work;

	if (w->move.req.err.code != ERR_NONE)
		imap_end_err(s, &w->move.req.err);
	else
		imap_end(s, IMAP_OK, "Dropped: %zu %s", w->move.n_moved,
		    w->move.n_moved == 1 ? "message" : "messages");
}

void
imap_run_expunge(struct imap_session *s)
{
	if (s->view.read_only) {
		imap_end(s, IMAP_NO, "%s", is_read_only);
		return;
	}
	if (!pick_for_expunge(s))
		return;
	if (s->work->n_uids == 0)
		imap_end(s, IMAP_OK, "Nothing was marked \\Deleted");
	else
		start_move(s, STORE_TRASH, true, step_expunged);
}

static void
leave_mailbox(struct imap_session *s)
{
	imap_view_close(&s->view);
	s->state = IMAP_STATE_AUTHENTICATED;
	imap_end(s, IMAP_OK, "Closed");
}

static void
step_closed(struct imap_session *s)
{
	if (s->work->move.req.err.code != ERR_NONE)
		imap_end_err(s, &s->work->move.req.err);
	else
		leave_mailbox(s);
}

/* Expunges without telling: RFC 3501 section 6.4.2. */
void
imap_run_close(struct imap_session *s)
{
	if (!s->view.read_only) {
		if (!pick_for_expunge(s))
			return;
		if (s->work->n_uids > 0) {
			start_move(s, STORE_TRASH, true, step_closed);
			return;
		}
	}
	leave_mailbox(s);
}
