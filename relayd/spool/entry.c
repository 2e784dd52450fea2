/* relayd/spool/entry.c - the entries of the journal: changes of the index as bytes, and back. */
#include "relayd/spool/entry.h"

#include "relayd/core/le.h"
#include "relayd/core/varint.h"

#define RECORD_ABOUT (1u << 20) /* bytes of a snapshot's record */

/* Each begins with one of these; what follows is in the table of readers below. */
enum tag {
	TAG_LOG = 1,
	TAG_LOG_GONE,
	TAG_DONE,
	TAG_RCPT,
	TAG_RETIRED,
	TAG_GONE,
	TAG_KEY,
	TAG_ORDER,
	TAG_MOVED,
};

static void
put_id(struct buf *out, struct id id)
{
	buf_put(out, slice_of(id.bytes, sizeof(id.bytes)));
}

static void
put_segment(struct buf *out, enum tag tag, const struct index_segment *seg)
{
	buf_putc(out, (char)tag);
	varint_put(out, seg->log->number);
	varint_put(out, seg->number);
}

void
entry_log(struct buf *out, const struct index_log *log)
{
	buf_putc(out, TAG_LOG);
	varint_put(out, log->number);
	put_id(out, log->id);
}

void
entry_log_gone(struct buf *out, const struct index_log *log)
{
	buf_putc(out, TAG_LOG_GONE);
	varint_put(out, log->number);
}

void
entry_done(struct buf *out, const struct index_segment *seg, uint32_t place)
{
	put_segment(out, TAG_DONE, seg);
	varint_put(out, place);
}

void
entry_rcpt(struct buf *out, const struct index_msg *msg, const struct index_rcpt *rcpt)
{
	struct slice reply = slice_head(rcpt->reply, INDEX_REPLY_MAX);

	put_segment(out, TAG_RCPT, msg->segment);
	varint_put(out, msg->place);
	varint_put(out, rcpt->ordinal);
	buf_putc(out, (char)rcpt->outcome);
	varint_put(out, rcpt->attempts);
	varint_put(out, (uint64_t)rcpt->tried_ms);
	varint_put(out, (uint64_t)rcpt->next_ms);
	varint_put(out, reply.len);
	buf_put(out, reply);
}

static void
put_order(struct buf *out, const struct index_msg *msg, unsigned flags)
{
	struct slice via = msg->via != NULL ? slice_str(msg->via) : SLICE("");

	put_segment(out, TAG_ORDER, msg->segment);
	varint_put(out, msg->place);
	varint_put(out, flags);
	varint_put(out, via.len);
	buf_put(out, via);
}

void
entry_order(struct buf *out, const struct index_msg *msg)
{
	put_order(out, msg, msg->flags & ~(unsigned)INDEX_COPIED);
}

void
entry_copy(struct buf *out, const struct index_msg *msg)
{
	put_order(out, msg, msg->flags);
}

void
entry_moved(struct buf *out, const struct index_segment *from, uint32_t place,
    const struct index_segment *to, uint32_t to_place)
{
	put_segment(out, TAG_MOVED, from);
	varint_put(out, place);
	varint_put(out, to->log->number);
	varint_put(out, to->number);
	varint_put(out, to_place);
}

void
entry_retired(struct buf *out, const struct index_segment *seg)
{
	put_segment(out, TAG_RETIRED, seg);
}

void
entry_gone(struct buf *out, const struct index_segment *seg)
{
	put_segment(out, TAG_GONE, seg);
}

void
entry_key(struct buf *out, const struct index_key *key)
{
	buf_putc(out, TAG_KEY);
	put_id(out, key->hash);
	put_id(out, key->msg);
	varint_put(out, (uint64_t)key->seen_ms);
}

/* -- reading -- */

struct reading {
	struct index *ix;
	struct slice in;
	bool bad, nomem;
	struct index_segment *last; /* the next entry is most often of the same one */
};

static uint64_t
take_number(struct reading *r, uint64_t max)
{
	uint64_t n = 0;

	if (r->bad || !varint_take(&r->in, &n) || n > max) {
		r->bad = true;
		return 0;
	}
	return n;
}

static struct slice
take_bytes(struct reading *r, uint64_t n)
{
	struct slice s = slice_head(r->in, (size_t)n);

	r->bad = r->bad || n > r->in.len;
	r->in = slice_drop(r->in, s.len);
	return r->bad ? SLICE("") : s;
}

static struct id
take_id(struct reading *r)
{
	struct slice s = take_bytes(r, sizeof(((struct id *)0)->bytes));
	struct id id = { 0 };

	memcpy(id.bytes, s.p, s.len);
	return id;
}

/* NULL: its log is not known (any more), or the entry is bad. */
static struct index_segment *
take_segment(struct reading *r)
{
	uint32_t log_number = (uint32_t)take_number(r, UINT32_MAX);
	uint32_t number = (uint32_t)take_number(r, UINT32_MAX);
	struct index_log *log;

	if (r->last != NULL && r->last->number == number && r->last->log->number == log_number)
		return r->last;
	log = r->bad ? NULL : index_log_numbered(r->ix, log_number);
	if (log == NULL)
		return NULL;
	r->last = index_segment(log, number);
	r->nomem = r->nomem || r->last == NULL;
	return r->last;
}

static void
read_log(struct reading *r)
{
	uint32_t number = (uint32_t)take_number(r, UINT32_MAX);
	struct id id = take_id(r);

	/* A number stands for one log as long as the journal knows it. */
	if (r->bad || index_log_numbered(r->ix, number) != NULL ||
	    index_log_find(r->ix, id) != NULL)
		return;
	r->nomem = r->nomem || index_log_add(r->ix, id, number) == NULL;
}

static void
forget_segment(struct reading *r, struct index_segment *seg)
{
	index_segment_forget(r->ix, seg);
	r->last = NULL;
}

static void
read_log_gone(struct reading *r)
{
	struct index_log *log = index_log_numbered(r->ix, (uint32_t)take_number(r, UINT32_MAX));

	if (r->bad || log == NULL)
		return;
	while (log->segments != NULL)
		forget_segment(r, log->segments);
	index_log_forget(r->ix, log);
}

static void
read_done(struct reading *r)
{
	struct index_segment *seg = take_segment(r);
	uint32_t place = (uint32_t)take_number(r, UINT32_MAX);

	if (!r->bad && seg != NULL && !index_set_done(r->ix, seg, place))
		r->nomem = true;
}

static void
read_rcpt(struct reading *r)
{
	struct index_segment *seg = take_segment(r);
	uint32_t place = (uint32_t)take_number(r, UINT32_MAX);
	struct index_rcpt rcpt = { .ordinal = (uint32_t)take_number(r, UINT32_MAX) };
	struct slice outcome = take_bytes(r, 1);
	struct index_msg *msg;

	rcpt.outcome = outcome.len > 0 ? (uint8_t)outcome.p[0] : 0;
	rcpt.attempts = (uint32_t)take_number(r, UINT32_MAX);
	rcpt.tried_ms = (int64_t)take_number(r, UINT64_MAX);
	rcpt.next_ms = (int64_t)take_number(r, UINT64_MAX);
	rcpt.reply = take_bytes(r, take_number(r, INDEX_REPLY_MAX));
	r->bad = r->bad || rcpt.outcome > INDEX_DROPPED;
	if (r->bad || seg == NULL)
		return;
	msg = index_add(r->ix, seg, place);
	if (msg == NULL || !index_set_rcpt(r->ix, msg, &rcpt))
		r->nomem = true;
}

static void
read_order(struct reading *r)
{
	struct index_segment *seg = take_segment(r);
	uint32_t place = (uint32_t)take_number(r, UINT32_MAX);
	unsigned flags = (unsigned)take_number(r, INDEX_FLAGS);
	struct slice via = take_bytes(r, take_number(r, INDEX_VIA_MAX));
	struct index_msg *msg;

	r->bad = r->bad || slice_has(via, '\0');
	if (r->bad || seg == NULL)
		return;
	msg = index_add(r->ix, seg, place);
	if (msg == NULL || !index_set_order(msg, flags, via))
		r->nomem = true;
}

/* Where the new log is not known nothing has happened: the old place is there still. */
static void
read_moved(struct reading *r)
{
	struct index_segment *from = take_segment(r), *to;
	uint32_t place = (uint32_t)take_number(r, UINT32_MAX), to_place;

	to = take_segment(r);
	to_place = (uint32_t)take_number(r, UINT32_MAX);
	if (!r->bad && to != NULL && !index_move(r->ix, from, place, to, to_place))
		r->nomem = true;
}

static void
read_retired(struct reading *r)
{
	struct index_segment *seg = take_segment(r);

	if (!r->bad && seg != NULL)
		seg->retired = true;
}

static void
read_gone(struct reading *r)
{
	struct index_segment *seg = take_segment(r);

	if (!r->bad && seg != NULL)
		forget_segment(r, seg);
}

static void
read_key(struct reading *r)
{
	struct id hash = take_id(r), msg = take_id(r);
	int64_t seen_ms = (int64_t)take_number(r, UINT64_MAX);

	if (!r->bad && !index_set_key(r->ix, hash, msg, seen_ms))
		r->nomem = true;
}

int
entry_apply(struct index *ix, struct slice entries, struct err *err)
{
	static void (*const readers[])(struct reading * r) = {
		[TAG_LOG] = read_log,           /* number, id */
		[TAG_LOG_GONE] = read_log_gone, /* number */
		[TAG_DONE] = read_done,         /* log, segment, place */
		[TAG_RCPT] = read_rcpt,         /* log, segment, place, what is known */
		[TAG_RETIRED] = read_retired,   /* log, segment */
		[TAG_GONE] = read_gone,         /* log, segment */
		[TAG_KEY] = read_key,           /* hash, message, when */
		[TAG_ORDER] = read_order,       /* log, segment, place, flags, via */
		[TAG_MOVED] = read_moved,       /* log, segment, place; and again, of the copy */
	};
	struct reading r = { .ix = ix, .in = entries };

	while (r.in.len > 0 && !r.bad && !r.nomem) {
		size_t tag = (uint8_t)r.in.p[0];

		r.in = slice_drop(r.in, 1);
		if (tag >= ARRAY_LEN(readers) || readers[tag] == NULL)
			r.bad = true;
		else
			readers[tag](&r);
	}
	if (r.nomem)
		return err_set(err, ERR_NOMEM, "no memory for the journal");
	return r.bad ? err_set(err, ERR_FORMAT, "an entry of no known form") : 0;
}

/* -- for a person -- */

static void
put_printable(struct buf *out, struct slice text)
{
	for (size_t i = 0; i < text.len; i++)
		buf_putc(out, text.p[i] >= ' ' && text.p[i] < 0x7f ? text.p[i] : '?');
}

static void
tell_rcpt(struct reading *r, struct buf *out)
{
	static const char *const outcomes[] = { "pending", "sent", "bounced", "quarantined",
		"dropped" };
	uint64_t ordinal = take_number(r, UINT32_MAX);
	struct slice outcome = take_bytes(r, 1);
	size_t which = outcome.len > 0 ? (uint8_t)outcome.p[0] : ARRAY_LEN(outcomes);
	uint64_t attempts = take_number(r, UINT32_MAX), tried = take_number(r, UINT64_MAX);
	uint64_t next = take_number(r, UINT64_MAX);
	struct slice reply = take_bytes(r, take_number(r, INDEX_REPLY_MAX));

	buf_printf(out, " recipient %llu %s, attempts %llu, tried %llu, next %llu",
	    (unsigned long long)ordinal, which < ARRAY_LEN(outcomes) ? outcomes[which] : "?",
	    (unsigned long long)attempts, (unsigned long long)tried, (unsigned long long)next);
	if (reply.len > 0)
		buf_puts(out, ": ");
	put_printable(out, reply);
}

static void
tell_order(struct reading *r, struct buf *out)
{
	uint64_t flags = take_number(r, INDEX_FLAGS);
	struct slice via = take_bytes(r, take_number(r, INDEX_VIA_MAX));

	if ((flags & INDEX_HELD) != 0)
		buf_puts(out, " held");
	if ((flags & INDEX_WARNED) != 0)
		buf_puts(out, " warned");
	if ((flags & INDEX_COPIED) != 0)
		buf_puts(out, " copied");
	if (via.len > 0)
		buf_puts(out, " via ");
	put_printable(out, via);
}

static void
tell_id(struct reading *r, struct buf *out)
{
	char id[ID_TEXT_LEN + 1];

	id_text(take_id(r), id);
	buf_printf(out, " %s", id);
}

static void
tell_place(struct reading *r, struct buf *out)
{
	buf_printf(out, " at %llu", (unsigned long long)take_number(r, UINT32_MAX) * RECORD_ALIGN);
}

static void
tell_segment(struct reading *r, struct buf *out)
{
	buf_printf(out, " segment %llx", (unsigned long long)take_number(r, UINT32_MAX));
}

static void
tell_one(struct reading *r, enum tag tag, struct buf *out)
{
	static const char *const names[] = { "", "log", "log gone:", "done:", "",
		"retired:", "gone:", "key", "order:", "moved:" };

	buf_puts(out, names[tag]);
	if (tag == TAG_KEY) {
		tell_id(r, out);
		tell_id(r, out);
		buf_printf(out, " seen %llu", (unsigned long long)take_number(r, UINT64_MAX));
		return;
	}
	buf_printf(out, "%s%llu",
	    tag == TAG_RCPT      ? "log "
	    : tag > TAG_LOG_GONE ? " log "
				 : " ",
	    (unsigned long long)take_number(r, UINT32_MAX));
	if (tag == TAG_LOG)
		tell_id(r, out);
	if (tag <= TAG_LOG_GONE)
		return;
	tell_segment(r, out);
	if (tag == TAG_DONE || tag == TAG_RCPT || tag >= TAG_ORDER)
		tell_place(r, out);
	if (tag == TAG_MOVED) {
		buf_printf(out, " to log %llu", (unsigned long long)take_number(r, UINT32_MAX));
		tell_segment(r, out);
		tell_place(r, out);
	}
	if (tag == TAG_RCPT)
		tell_rcpt(r, out);
	if (tag == TAG_ORDER)
		tell_order(r, out);
}

void
entry_tell(struct slice entries, void (*tell)(void *data, const char *text), void *data)
{
	struct reading r = { .in = entries };
	char line[2048];

	while (r.in.len > 0 && !r.bad) {
		struct buf out = buf_over(line, sizeof(line) - 1);
		size_t tag = (uint8_t)r.in.p[0];

		r.in = slice_drop(r.in, 1);
		if (tag >= TAG_LOG && tag <= TAG_MOVED)
			tell_one(&r, (enum tag)tag, &out);
		else
			r.bad = true;
		line[out.len] = '\0';
		tell(data, r.bad ? "an entry of no known form" : line);
	}
}

/* -- the snapshot -- */

struct snapshot {
	const struct record_file *file;
	struct buf entries, *out;
};

static void
close_record(struct snapshot *s)
{
	if (s->entries.overflow)
		s->out->overflow = true;
	if (s->entries.len > 0)
		record_append(s->file, RECORD_FILE_BYTES + s->out->len, ENTRY_CHANGES,
		    buf_slice(&s->entries), s->out);
	buf_reset(&s->entries);
}

static void
next_entry(struct snapshot *s)
{
	if (s->entries.len > RECORD_ABOUT)
		close_record(s);
}

static void
snapshot_msg(struct snapshot *s, const struct index_msg *msg)
{
	if (msg->flags != 0 || msg->via != NULL)
		entry_copy(&s->entries, msg);
	for (uint32_t i = 0; i < msg->n_rcpts; i++) {
		entry_rcpt(&s->entries, msg, &msg->rcpts[i]);
		next_entry(s);
	}
}

static void
snapshot_key(void *data, struct table_link *link)
{
	struct snapshot *s = data;

	entry_key(&s->entries, container_of(link, struct index_key, link));
	next_entry(s);
}

static void
snapshot_segment(struct snapshot *s, const struct index_segment *seg)
{
	if (seg->retired) {
		entry_retired(&s->entries, seg);
		return;
	}
	for (uint32_t i = 0; i < seg->n_done; i++) {
		entry_done(&s->entries, seg, seg->done[i]);
		next_entry(s);
	}
	for (uint32_t i = 0; i < seg->open; i++) {
		snapshot_msg(s, seg->msgs[i]);
		next_entry(s);
	}
}

void
entry_snapshot(const struct index *ix, const struct record_file *file, struct buf *out)
{
	struct snapshot s = { .file = file, .entries = buf_heap(RECORD_PAYLOAD_MAX), .out = out };

	for (const struct index_log *log = ix->logs; log != NULL; log = log->next) {
		entry_log(&s.entries, log);
		for (const struct index_segment *seg = log->segments; seg != NULL; seg = seg->next)
			snapshot_segment(&s, seg);
		next_entry(&s);
	}
	table_each(&ix->keys, snapshot_key, &s);
	close_record(&s);
	record_append(file, RECORD_FILE_BYTES + out->len, ENTRY_END, SLICE(""), out);
	buf_fini(&s.entries);
}
