/* relayd/review/imap/envelope.c - ENVELOPE: the fields of a header as IMAP has them. */
#include "relayd/mail/address.h"
#include "relayd/mail/header.h"
#include "relayd/review/imap/reply.h"
#include "relayd/review/imap/structure.h"

#define TEXT_MAX 4096 /* octets of a subject, date or id; what lies beyond is left out */

static struct slice
field_body(struct slice bytes, const char *name)
{
	struct header_field field;

	return header_find(bytes, slice_str(name), 0, &field) ? slice_trim(field.body) : SLICE("");
}

/* A field as one line, encoded words and all: the client decodes them. */
static void
put_text(struct slice bytes, const char *name, struct buf *out)
{
	char storage[TEXT_MAX];
	struct buf line = buf_over(storage, sizeof(storage));

	header_unfold(slice_head(field_body(bytes, name), sizeof(storage)), &line);
	imap_put_nstring(out, buf_slice(&line));
}

static void
put_nstring_or_empty(struct buf *out, struct slice s)
{
	if (s.len == 0)
		buf_puts(out, "\"\"");
	else
		imap_put_string(out, s);
}

/* A host that is NIL marks a group, so an address without a domain has an empty one. */
static void
put_address(const struct address_item *item, struct buf *out)
{
	switch (item->kind) {
	case ADDRESS_ITEM_GROUP:
		buf_puts(out, "(NIL NIL ");
		put_nstring_or_empty(out, item->name);
		buf_puts(out, " NIL)");
		return;
	case ADDRESS_ITEM_GROUP_END:
		buf_puts(out, "(NIL NIL NIL NIL)");
		return;
	case ADDRESS_ITEM_MAILBOX:
		buf_putc(out, '(');
		imap_put_nstring(out, item->name);
		buf_putc(out, ' ');
		imap_put_nstring(out, item->route);
		buf_putc(out, ' ');
		put_nstring_or_empty(out, item->local);
		buf_putc(out, ' ');
		put_nstring_or_empty(out, item->domain);
		buf_putc(out, ')');
	}
}

static void
put_addresses(struct slice body, struct buf *out)
{
	struct address_list list = address_list_of(body);
	struct arena arena = arena_of(2 * IMAP_ADDRESSES_MAX);
	struct address_item item;
	size_t from = out->len;

	while (out->len - from < IMAP_ADDRESSES_MAX && !out->overflow &&
	       address_list_next(&list, &arena, &item)) {
		if (out->len == from)
			buf_putc(out, '(');
		put_address(&item, out);
		arena_reset(&arena);
	}
	buf_puts(out, out->len > from ? ")" : "NIL");
	arena_fini(&arena);
}

void
imap_put_envelope(struct slice bytes, struct buf *out)
{
	static const char *const lists[] = { "from", "sender", "reply-to", "to", "cc", "bcc" };
	struct slice from = field_body(bytes, "from");

	buf_putc(out, '(');
	put_text(bytes, "date", out);
	buf_putc(out, ' ');
	put_text(bytes, "subject", out);
	for (size_t i = 0; i < ARRAY_LEN(lists); i++) {
		struct slice body = field_body(bytes, lists[i]);

		buf_putc(out, ' ');
		/* Sender and Reply-To are From where they are not given. */
		put_addresses(body.len == 0 && (i == 1 || i == 2) ? from : body, out);
	}
	buf_putc(out, ' ');
	put_text(bytes, "in-reply-to", out);
	buf_putc(out, ' ');
	put_text(bytes, "message-id", out);
	buf_putc(out, ')');
}
