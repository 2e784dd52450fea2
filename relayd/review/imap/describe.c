/* relayd/review/imap/describe.c - what IMAP keeps of a message, so that it is parsed only once. */
#include "relayd/review/imap/describe.h"

#include "relayd/mail/date.h"
#include "relayd/mail/header.h"
#include "relayd/review/imap/structure.h"

#define MAGIC       0x31444d49u /* "IMD1" */
#define TABLE_PARTS 1000        /* parts beyond it cannot be fetched one by one */

struct head {
	uint32_t magic, n_parts;
	uint32_t envelope, body, bodystructure, header; /* octets of each */
	uint32_t has_sent, unused;
	int64_t sent_day;
};

struct entry {
	uint64_t header, body, end;
	uint32_t kind, parent, first_child, next;
};

/* With one field before it a message reads as it does below the quarantine's fields: a first line
 * that is a fold, or an mbox line, is then no start of a header. */
static const char before[] = "X:\r\n";

static bool
needs_field_before(struct slice original)
{
	return slice_starts(original, SLICE(" ")) || slice_starts(original, SLICE("\t")) ||
	       slice_starts(original, SLICE("From ")) || slice_starts(original, SLICE(">From "));
}

static uint64_t
offset(size_t at, size_t shift)
{
	return at > shift ? at - shift : 0;
}

static void
put_entries(const struct mime *mime, uint32_t n, size_t shift, struct buf *out)
{
	for (uint32_t i = 0; i < n; i++) {
		const struct mime_part *p = &mime->parts[i];
		struct entry e = {
			.header = offset(p->header, shift),
			.body = offset(p->body, shift),
			.end = offset(p->end, shift),
			.kind = (uint32_t)p->kind,
			.parent = p->parent,
			.first_child = p->first_child < n ? p->first_child : MIME_NONE,
			.next = p->next < n ? p->next : MIME_NONE,
		};

		if (e.first_child == MIME_NONE)
			e.kind = MIME_LEAF;
		buf_put(out, slice_of(&e, sizeof(e)));
	}
}

static void
put_sent(struct slice bytes, struct head *head)
{
	struct header_field field;
	struct date date;

	if (!header_find(bytes, SLICE("date"), 0, &field) || !date_parse(field.body, &date))
		return;
	head->has_sent = 1;
	head->sent_day = date_day(date);
}

/* Appends the description; out->overflow where it would be too long. */
static void
put_description(const struct mime *mime, size_t shift, struct buf *out)
{
	struct slice header = slice_drop(mime_header(mime, &mime->parts[0]), shift);
	uint32_t n = mime->n_parts < TABLE_PARTS ? (uint32_t)mime->n_parts : TABLE_PARTS;
	struct head head = { .magic = MAGIC, .n_parts = n };
	size_t head_at = out->len, at;

	put_sent(mime->bytes, &head);
	buf_put(out, slice_of(&head, sizeof(head)));
	put_entries(mime, n, shift, out);
	at = out->len;
	imap_put_envelope(mime->bytes, out);
	head.envelope = (uint32_t)(out->len - at);
	at = out->len;
	imap_put_structure(mime, false, out);
	head.body = (uint32_t)(out->len - at);
	at = out->len;
	imap_put_structure(mime, true, out);
	head.bodystructure = (uint32_t)(out->len - at);
	if (header.len <= IMAP_DESCRIBE_HEADER_MAX && shift == 0) {
		head.header = (uint32_t)header.len;
		buf_put(out, header);
	}
	if (!out->overflow)
		memcpy(out->p + head_at, &head, sizeof(head));
}

/* The same message as one plain text. */
static void
flatten(struct mime *mime)
{
	struct mime_part *p = &mime->parts[0];

	mime->n_parts = 1;
	*p = (struct mime_part){
		.parent = MIME_NONE,
		.first_child = MIME_NONE,
		.next = MIME_NONE,
		.header = p->header,
		.body = p->body,
		.end = p->end,
		.body_lines = p->body_lines,
		.type = SLICE("TEXT"),
		.subtype = SLICE("PLAIN"),
		.disposition = SLICE(""),
		.encoding_name = SLICE(""),
		.id = SLICE(""),
		.description = SLICE(""),
		.md5 = SLICE(""),
		.language = SLICE(""),
		.location = SLICE(""),
	};
}

static void
describe(struct slice bytes, size_t shift, struct buf *out)
{
	struct arena arena = arena_of(MIME_ARENA_BYTES(bytes.len));
	struct buf description = buf_heap(IMAP_DESCRIPTION_MAX);
	struct mime mime;

	if (mime_parse(bytes, &arena, &mime) == 0) {
		put_description(&mime, shift, &description);
		if (description.overflow) {
			buf_reset(&description);
			flatten(&mime);
			put_description(&mime, shift, &description);
		}
		if (!description.overflow)
			buf_put(out, buf_slice(&description));
	}
	buf_fini(&description);
	arena_fini(&arena);
}

void
imap_describe(struct slice original, struct buf *out)
{
	struct buf copy;

	if (!needs_field_before(original)) {
		describe(original, 0, out);
		return;
	}
	copy = buf_heap(original.len + sizeof(before));
	buf_puts(&copy, before);
	buf_put(&copy, original);
	if (!copy.overflow)
		describe(buf_slice(&copy), strlen(before), out);
	buf_fini(&copy);
}

/* ---- reading it back ---- */

static struct slice
take(struct slice *bytes, size_t n)
{
	struct slice s = slice_head(*bytes, n);

	*bytes = slice_drop(*bytes, n);
	return s;
}

static bool
read_parts(struct slice table, struct arena *arena, struct mime *mime)
{
	size_t n = table.len / sizeof(struct entry);

	mime->parts = arena_alloc(arena, n * sizeof(mime->parts[0]));
	if (mime->parts == NULL || n == 0)
		return false;
	for (size_t i = 0; i < n; i++) {
		struct mime_part *p = &mime->parts[i];
		struct entry e;

		memcpy(&e, table.p + i * sizeof(e), sizeof(e));
		*p = (struct mime_part){ .kind = (enum mime_kind)e.kind,
			.parent = e.parent,
			.first_child = e.first_child,
			.next = e.next,
			.header = e.header,
			.body = e.body,
			.end = e.end };
		/* Links only lead forward, so that no damage makes a ring. */
		if (e.kind > MIME_MESSAGE || e.header > e.body || e.body > e.end ||
		    (e.first_child != MIME_NONE && (e.first_child <= i || e.first_child >= n)) ||
		    (e.next != MIME_NONE && (e.next <= i || e.next >= n)) ||
		    (e.kind != MIME_LEAF && e.first_child == MIME_NONE))
			return false;
	}
	mime->n_parts = n;
	return true;
}

bool
imap_description_read(struct slice bytes, struct arena *arena, struct imap_description *out)
{
	struct head head;
	struct slice in = slice_drop(bytes, sizeof(head)), table;

	if (bytes.len < sizeof(head))
		return false;
	memcpy(&head, bytes.p, sizeof(head));
	if (head.magic != MAGIC || head.n_parts > TABLE_PARTS ||
	    in.len != head.n_parts * sizeof(struct entry) + (uint64_t)head.envelope + head.body +
			  head.bodystructure + head.header)
		return false;
	table = take(&in, head.n_parts * sizeof(struct entry));
	*out = (struct imap_description){
		.envelope = take(&in, head.envelope),
		.body = take(&in, head.body),
		.bodystructure = take(&in, head.bodystructure),
		.header = in,
		.has_sent = head.has_sent != 0,
		.sent_day = head.sent_day,
	};
	return read_parts(table, arena, &out->mime);
}
