/* relayd/review/imap/session_fetch.c - FETCH: message by message, item by item, as output has
 * room. */
#include "relayd/review/imap/reply.h"
#include "relayd/review/imap/session_internal.h"

#include <stdlib.h>

#define CHUNK_BYTES (256u << 10) /* of a section, in one request to the store */

static void step_batch(struct imap_session *s);
static void step_message(struct imap_session *s);

/* ---- one message ---- */

static void
put_space(struct imap_session *s)
{
	if (!s->work->fetch.first)
		buf_putc(imap_out(s), ' ');
	s->work->fetch.first = false;
}

static void
put_described(struct imap_session *s, const char *name, struct slice text)
{
	if (text.len == 0) { /* the message went while we read */
		s->work->fetch.missing = true;
		return;
	}
	put_space(s);
	buf_puts(imap_out(s), name);
	buf_put(imap_out(s), text);
}

/* The items that need no reading. */
static void
put_item(struct imap_session *s, const struct imap_item *item, const struct store_entry *e)
{
	struct imap_fetch_work *f = &s->work->fetch;
	struct imap_message *m = &s->view.messages[imap_batch_index(s, f->at)];
	const struct imap_description *d = &s->work->batch->descriptions[f->at];
	struct slice none = SLICE("");
	bool described = s->work->batch->described[f->at];
	struct buf *out = imap_out(s);

	switch (item->kind) {
	case IMAP_ITEM_FLAGS:
		put_space(s);
		imap_put_flags(&s->view, e, m->recent, out);
		f->told_flags = true;
		break;
	case IMAP_ITEM_UID:
		put_space(s);
		buf_printf(out, "UID %u", m->uid);
		break;
	case IMAP_ITEM_DATE:
		put_space(s);
		buf_puts(out, "INTERNALDATE ");
		imap_put_date(out, e->stored_ms);
		break;
	case IMAP_ITEM_SIZE:
		put_space(s);
		buf_printf(out, "RFC822.SIZE %llu", (unsigned long long)e->size);
		break;
	case IMAP_ITEM_ENVELOPE:
		put_described(s, "ENVELOPE ", described ? d->envelope : none);
		break;
	case IMAP_ITEM_BODY:
		put_described(s, "BODY ", described ? d->body : none);
		break;
	case IMAP_ITEM_BODYSTRUCTURE:
		put_described(s, "BODYSTRUCTURE ", described ? d->bodystructure : none);
		break;
	case IMAP_ITEM_SECTION:
		break;
	}
}

static bool
asks_for(const struct imap_command *cmd, enum imap_item_kind kind)
{
	for (size_t i = 0; i < cmd->n_items; i++)
		if (cmd->items[i].kind == kind)
			return true;
	return false;
}

static void
begin_message(struct imap_session *s)
{
	struct imap_work *w = s->work;
	size_t index = imap_batch_index(s, w->fetch.at);

	buf_printf(imap_out(s), "* %zu FETCH (", index + 1);
	w->fetch.begun = w->fetch.first = true;
	w->fetch.item = 0;
	w->fetch.told_flags = false;
	if (w->cmd.uid && !asks_for(&w->cmd, IMAP_ITEM_UID)) {
		put_space(s);
		buf_printf(imap_out(s), "UID %u", s->view.messages[index].uid);
	}
}

/* Flags that have changed, by the \Seen that this FETCH sets or by somebody else, are told
 * along. */
static void
end_message(struct imap_session *s, const struct store_entry *e)
{
	struct imap_fetch_work *f = &s->work->fetch;
	struct imap_message *m = &s->view.messages[imap_batch_index(s, f->at)];

	if (m->dirty && !f->told_flags && e != NULL) {
		put_space(s);
		imap_put_flags(&s->view, e, m->recent, imap_out(s));
		f->told_flags = true;
	}
	if (f->told_flags)
		m->dirty = false;
	buf_puts(imap_out(s), ")\r\n");
	f->begun = false;
	f->at++;
}

/* ---- sections ---- */

static void
put_literal(struct imap_session *s, const struct imap_item *item, struct slice bytes)
{
	put_space(s);
	buf_put(imap_out(s), item->label);
	buf_putc(imap_out(s), ' ');
	imap_put_string(imap_out(s), bytes);
	s->work->fetch.item++;
}

static void
put_nil(struct imap_session *s, const struct imap_item *item)
{
	put_space(s);
	buf_put(imap_out(s), item->label);
	buf_puts(imap_out(s), " NIL");
	s->work->fetch.item++;
}

/* Octets of a literal: a NUL may not be in one (RFC 3501 section 9, CHAR8). */
static void
put_octets(struct buf *out, struct slice bytes)
{
	size_t from = out->len;
	char *nul;

	buf_put(out, bytes);
	while (!out->overflow && (nul = memchr(out->p + from, '\0', out->len - from)) != NULL) {
		*nul = (char)0x80;
		from = (size_t)(nul - out->p);
	}
}

/* Picks fields from a header and clips what they make. */
static void
put_fields(struct imap_session *s, const struct imap_item *item, struct slice header)
{
	struct buf fields = buf_heap(header.len + 16);
	struct imap_extent clip;

	imap_put_fields(header, item, &fields);
	clip = imap_section_clip((struct imap_extent){ true, 0, fields.len }, item);
	put_literal(s, item,
	    slice_head(slice_drop(buf_slice(&fields), (size_t)clip.from), (size_t)clip.len));
	buf_fini(&fields);
}

static void
read_extent(struct imap_session *s, void (*done)(struct store_read *read), size_t max)
{
	struct imap_work *w = s->work;
	const struct store_entry *e = imap_batch_entry(s, w->fetch.at);

	w->read = (struct store_read){ .box = s->view.box,
		.item = e->item,
		.from = w->fetch.extent.from,
		.max = w->fetch.extent.len < max ? (size_t)w->fetch.extent.len : max,
		.done = done };
	imap_wait(s);
	store_read(s->store, &w->read);
}

static void
on_header_read(struct store_read *read)
{
	struct imap_work *w = container_of(read, struct imap_work, read);
	struct imap_session *s = w->session;
	const struct imap_item *item = &w->cmd.items[w->fetch.item];

	if (!s->closing && read->req.err.code != ERR_NONE) {
		w->fetch.missing = true;
		put_nil(s, item);
	} else if (!s->closing) {
		put_fields(s, item, buf_slice(&read->bytes));
	}
	buf_fini(&read->bytes);
	imap_go_on(s);
}

static void
step_nothing(struct imap_session *s)
{
	s->waiting = true; /* for the owner to close the session */
}

/* The length was promised, so there is no way back: without the octets the connection ends. */
static void
break_off(struct imap_session *s)
{
	s->state = IMAP_STATE_LOGOUT;
	s->work->step = step_nothing;
	s->ops->on_bye(s->owner);
}

static void
put_chunk(struct imap_session *s, struct slice bytes)
{
	struct imap_fetch_work *f = &s->work->fetch;
	const struct imap_item *item = &s->work->cmd.items[f->item];

	if (!f->in_section) {
		put_space(s);
		buf_put(imap_out(s), item->label);
		buf_printf(imap_out(s), " {%llu}\r\n", (unsigned long long)f->extent.len);
		f->in_section = true;
	}
	put_octets(imap_out(s), bytes);
	f->extent.from += bytes.len;
	f->extent.len -= bytes.len;
	if (f->extent.len == 0) {
		f->in_section = false;
		f->item++;
	}
}

static void
on_chunk_read(struct store_read *read)
{
	struct imap_work *w = container_of(read, struct imap_work, read);
	struct imap_session *s = w->session;
	bool whole = read->req.err.code == ERR_NONE && read->bytes.len == read->max;

	if (s->closing) {
		; /* nobody wants it */
	} else if (whole) {
		put_chunk(s, buf_slice(&read->bytes));
	} else if (!w->fetch.in_section) {
		w->fetch.missing = true;
		put_nil(s, &w->cmd.items[w->fetch.item]);
	} else {
		break_off(s);
	}
	buf_fini(&read->bytes);
	imap_go_on(s);
}

/* Writes a section, or begins to read it: then false. */
static bool
take_section(struct imap_session *s, const struct imap_item *item, const struct store_entry *e)
{
	struct imap_fetch_work *f = &s->work->fetch;
	const struct imap_description *d = &s->work->batch->descriptions[f->at];

	if (f->in_section) {
		read_extent(s, on_chunk_read, CHUNK_BYTES);
		return false;
	}
	if (!s->work->batch->described[f->at]) {
		f->missing = true;
		put_nil(s, item);
		return true;
	}
	f->extent = imap_section_find(d, e->top, e->size, item);
	if (!f->extent.there) {
		put_nil(s, item);
		return true;
	}
	if (imap_section_is_fields(item)) {
		if (imap_section_in_description(d, item)) {
			put_fields(s, item, d->header);
			return true;
		}
		read_extent(s, on_header_read, STORE_READ_MAX);
		return false;
	}
	f->extent = imap_section_clip(f->extent, item);
	if (f->extent.len == 0) {
		put_literal(s, item, SLICE(""));
		return true;
	}
	read_extent(s, on_chunk_read, CHUNK_BYTES);
	return false;
}

/* ---- all of them ---- */

static bool
wants_description(const struct imap_command *cmd)
{
	return asks_for(cmd, IMAP_ITEM_ENVELOPE) || asks_for(cmd, IMAP_ITEM_BODY) ||
	       asks_for(cmd, IMAP_ITEM_BODYSTRUCTURE) || asks_for(cmd, IMAP_ITEM_SECTION);
}

/* As much of one message as goes without waiting. */
static void
step_message(struct imap_session *s)
{
	struct imap_work *w = s->work;
	struct imap_fetch_work *f = &w->fetch;
	const struct store_entry *e;

	if (f->at == w->batch->n) {
		step_batch(s);
		return;
	}
	e = imap_batch_entry(s, f->at);
	if (e == NULL) { /* cannot be: it has an entry until its EXPUNGE is told */
		f->missing = true;
		f->at++;
		return;
	}
	if (!f->begun)
		begin_message(s);
	while (f->item < w->cmd.n_items) {
		const struct imap_item *item = &w->cmd.items[f->item];

		if (item->kind != IMAP_ITEM_SECTION) {
			put_item(s, item, e);
			f->item++;
		} else if (!take_section(s, item, e)) {
			return;
		}
	}
	end_message(s, e);
}

static void
step_batch(struct imap_session *s)
{
	struct imap_work *w = s->work;

	w->fetch.at = 0;
	if (imap_batch_next(s, wants_description(&w->cmd), step_message))
		return;
	if (w->fetch.missing && !w->cmd.uid) /* RFC 2180 section 4.1.2, RFC 5530 section 3 */
		imap_end(s, IMAP_NO, "[EXPUNGEISSUED] Some of the messages have gone");
	else
		imap_end(s, IMAP_OK, "Fetched");
}

static void
on_seen(struct store_set_flags *set)
{
	struct imap_work *w = container_of(set, struct imap_work, flags);

	/* A \Seen that could not be kept is no reason to withhold the message. */
	imap_go_on(w->session);
}

static bool
makes_seen(const struct imap_command *cmd)
{
	for (size_t i = 0; i < cmd->n_items; i++)
		if (cmd->items[i].kind == IMAP_ITEM_SECTION && !cmd->items[i].peek)
			return true;
	return false;
}

/* Keeps the UIDs of those that are not \Seen yet. */
static void
pick_unseen(struct imap_session *s)
{
	struct imap_work *w = s->work;
	size_t n = 0;

	for (size_t i = 0; i < w->n_uids; i++) {
		const struct store_entry *e = store_box_find(s->view.box, w->uids[i]);

		if (e != NULL && (e->flags & STORE_SEEN) == 0)
			w->uids[n++] = w->uids[i];
	}
	w->n_uids = n;
}

void
imap_run_fetch(struct imap_session *s)
{
	struct imap_work *w = s->work;

	if (!imap_pick_messages(s))
		return;
	w->step = step_batch;
	if (s->view.read_only || !makes_seen(&w->cmd) || !imap_pick_uids(s))
		return;
	pick_unseen(s);
	if (w->n_uids == 0)
		return;
	w->flags = (struct store_set_flags){ .box = s->view.box,
		.uids = w->uids,
		.n_uids = w->n_uids,
		.how = STORE_FLAGS_ADD,
		.flags = STORE_SEEN,
		.by = s,
		.done = on_seen };
	imap_wait(s);
	store_set_flags(s->store, &w->flags);
}
