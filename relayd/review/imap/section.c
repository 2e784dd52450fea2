/* relayd/review/imap/section.c - BODY[...]: where a section lies in the view of a message. */
#include "relayd/review/imap/section.h"

#include "relayd/mail/header.h"

#define NOT_THERE ((struct imap_extent){ false, 0, 0 })

static struct imap_extent
between(uint64_t from, uint64_t to)
{
	return (struct imap_extent){ true, from, to > from ? to - from : 0 };
}

/* The header or text of the message whose own part is p; of the outermost one the header begins
 * with the quarantine's fields. */
static struct imap_extent
of_message(const struct imap_description *d, const struct mime_part *p, uint32_t top, uint64_t size,
    enum imap_section_text text)
{
	bool outermost = p == &d->mime.parts[0];

	if (text == IMAP_SECTION_TEXT)
		return between(top + p->body, outermost ? size : top + p->end);
	return between(outermost ? 0 : top + p->header, top + p->body);
}

struct imap_extent
imap_section_find(
    const struct imap_description *d, uint32_t top, uint64_t size, const struct imap_item *item)
{
	const struct mime_part *p = mime_numbered(&d->mime, item->number, item->n_numbers);

	if (p == NULL)
		return NOT_THERE;
	if (item->text == IMAP_SECTION_ALL)
		return item->n_numbers == 0 ? between(0, size)
					    : between(top + p->body, top + p->end);
	if (item->n_numbers == 0)
		return of_message(d, p, top, size, item->text);
	if (item->text == IMAP_SECTION_MIME)
		return of_message(d, p, top, size, IMAP_SECTION_HEADER);
	/* RFC 3501 section 6.4.5: HEADER and TEXT of a part that is a message. */
	if (p->kind != MIME_MESSAGE)
		return NOT_THERE;
	return of_message(d, &d->mime.parts[p->first_child], top, size, item->text);
}

struct imap_extent
imap_section_clip(struct imap_extent all, const struct imap_item *item)
{
	if (!item->partial || !all.there)
		return all;
	if (item->from >= all.len)
		return (struct imap_extent){ true, all.from, 0 };
	all.from += item->from;
	all.len -= item->from;
	if (all.len > item->count)
		all.len = item->count;
	return all;
}

bool
imap_section_is_fields(const struct imap_item *item)
{
	return item->text == IMAP_SECTION_FIELDS || item->text == IMAP_SECTION_FIELDS_NOT;
}

bool
imap_is_top_field(struct slice name)
{
	return slice_istarts(name, SLICE("X-Relayd-")) || slice_ieq(name, SLICE("Return-Path"));
}

bool
imap_section_in_description(const struct imap_description *d, const struct imap_item *item)
{
	if (item->text != IMAP_SECTION_FIELDS || item->n_numbers > 0 || d->header.len == 0)
		return false;
	for (size_t i = 0; i < item->n_fields; i++)
		if (imap_is_top_field(item->fields[i]))
			return false;
	return true;
}

static bool
is_named(const struct imap_item *item, struct slice name)
{
	for (size_t i = 0; i < item->n_fields; i++)
		if (slice_ieq(item->fields[i], name))
			return true;
	return false;
}

void
imap_put_fields(struct slice header, const struct imap_item *item, struct buf *out)
{
	struct header_iter it = header_iter_of(header);
	struct header_field field;

	while (header_next(&it, &field)) {
		if (is_named(item, field.name) != (item->text == IMAP_SECTION_FIELDS))
			continue;
		buf_put(out, field.raw);
		if (!slice_ends(field.raw, SLICE("\n")))
			buf_puts(out, "\r\n");
	}
	buf_puts(out, "\r\n");
}
