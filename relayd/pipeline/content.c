/* relayd/pipeline/content.c - the fields and parts of a message as filters see them. */
#include "relayd/pipeline/content.h"

#include "relayd/mail/charset.h"
#include "relayd/mail/header.h"
#include "relayd/mail/text.h"

#define WRAPS_MAX 3 /* messages within messages in a transfer encoding */

struct content_field {
	struct header_field at;
	bool done;
	struct filter_field face;
};

void
pl_content_fini(struct content *c)
{
	arena_fini(&c->arena);
	*c = pl_content_of(SLICE(""));
}

/* What b holds, for as long as the content lives; empty where there is no room. */
static struct slice
keep(struct content *c, struct buf *b)
{
	struct slice kept = arena_copy(&c->arena, buf_slice(b));

	return kept.p != NULL ? kept : SLICE("");
}

/* ---- fields ---------------------------------------------------------------------------------- */

static size_t
count_fields(struct slice message)
{
	struct header_iter it = header_iter_of(message);
	struct header_field field;
	size_t n = 0;

	while (n < CONTENT_FIELDS && header_next(&it, &field))
		n++;
	return n;
}

static void
find_fields(struct content *c)
{
	struct header_iter it = header_iter_of(c->message);
	size_t n = count_fields(c->message);

	c->has_fields = true;
	c->fields = arena_alloc(&c->arena, (n + 1) * sizeof(*c->fields));
	if (c->fields == NULL)
		return;
	while (c->n_fields < n && header_next(&it, &c->fields[c->n_fields].at))
		c->n_fields++;
}

static void
read_field(struct content *c, struct content_field *f)
{
	struct buf text = buf_heap(CONTENT_FIELD_MAX);

	f->done = true;
	f->face.name = f->at.name;
	f->face.raw = f->at.raw;
	header_unfold(slice_head(f->at.body, CONTENT_FIELD_MAX), &text);
	f->face.value = keep(c, &text);
	buf_reset(&text);
	header_decode(slice_head(f->at.body, CONTENT_FIELD_MAX), &text);
	f->face.decoded = keep(c, &text);
	buf_fini(&text);
}

bool
pl_content_field(struct content *c, size_t index, struct filter_field *out)
{
	if (!c->has_fields)
		find_fields(c);
	if (index >= c->n_fields)
		return false;
	if (!c->fields[index].done)
		read_field(c, &c->fields[index]);
	*out = c->fields[index].face;
	return true;
}

/* ---- parts ----------------------------------------------------------------------------------- */

struct reading {
	struct buf text, scratch;
	size_t left;    /* of CONTENT_TEXT_MAX */
	unsigned depth; /* of messages unwrapped */
};

/* A media type in lower case. */
static struct slice
type_of(struct content *c, const struct mime_part *part)
{
	char *type = arena_printf(&c->arena, "%.*s/%.*s", SLICE_FMT(slice_head(part->type, 100)),
	    SLICE_FMT(slice_head(part->subtype, 100)));

	for (char *p = type; p != NULL && *p != '\0'; p++)
		*p = slice_lower(*p);
	return slice_str(type);
}

static struct filter_part *
add_part(struct content *c)
{
	struct filter_part *grown =
	    arena_grow(&c->arena, c->parts, c->n_parts, &c->cap_parts, sizeof(*grown));

	if (grown == NULL)
		return NULL;
	c->parts = grown;
	c->parts[c->n_parts] = (struct filter_part){ .type = SLICE("text/plain"),
		.filename = SLICE(""),
		.raw = SLICE(""),
		.text = SLICE("") };
	return &c->parts[c->n_parts++];
}

/* Text as far as there is room for it. */
static struct slice
take_text(struct content *c, struct reading *r)
{
	r->text.len = r->text.len < r->left ? r->text.len : r->left;
	r->left -= r->text.len;
	return keep(c, &r->text);
}

/* What stands around the parts of a multipart: no reader shows it, but some show nothing else. */
static void
read_aside(struct content *c, struct slice bytes, struct reading *r)
{
	struct filter_part *face;

	if (slice_trim(bytes).len == 0 || (face = add_part(c)) == NULL)
		return;
	face->raw = bytes;
	buf_reset(&r->text);
	(void)charset_to_utf8(
	    SLICE(""), slice_head(bytes, r->left), &r->text); /* what is odd is replaced */
	face->text = take_text(c, r);
}

static void read_tree(struct content *c, const struct mime *mime, struct reading *r);

/* A message in a transfer encoding, which hides its parts (RFC 2046 section 5.2.1 forbids it). */
static void
read_wrapped(
    struct content *c, const struct mime *mime, const struct mime_part *part, struct reading *r)
{
	struct buf bytes = buf_heap(CONTENT_TEXT_MAX);
	struct mime inner;

	if (++r->depth <= WRAPS_MAX && mime_unwrap(mime, part, &bytes, &c->arena, &inner) == 0) {
		/* The bytes have to live as long as the parts that point into them. */
		struct slice kept = keep(c, &bytes);

		if (kept.len > 0 && mime_parse(kept, &c->arena, &inner) == 0)
			read_tree(c, &inner, r);
	}
	r->depth--;
	buf_fini(&bytes);
}

static void
read_leaf(
    struct content *c, const struct mime *mime, const struct mime_part *part, struct reading *r)
{
	struct filter_part *face = add_part(c);

	if (face == NULL)
		return;
	face->type = type_of(c, part);
	face->raw = mime_body(mime, part);
	buf_reset(&r->text);
	if (mime_filename(part, &r->text))
		face->filename = keep(c, &r->text);
	if (!mime_is_text(part) || r->left == 0)
		return;
	buf_reset(&r->text);
	text_of_part(mime, part, &r->scratch, &r->text);
	face->text = take_text(c, r);
}

static void
read_tree(struct content *c, const struct mime *mime, struct reading *r)
{
	for (size_t i = 0; i < mime->n_parts; i++) {
		const struct mime_part *p = &mime->parts[i];

		if (p->kind == MIME_MULTIPART && p->n_children > 0) {
			read_aside(
			    c, slice_of(mime->bytes.p + p->body, p->preamble_end - p->body), r);
			read_aside(
			    c, slice_of(mime->bytes.p + p->epilogue, p->end - p->epilogue), r);
		} else if (mime_is_wrapped(p)) {
			read_leaf(c, mime, p, r);
			read_wrapped(c, mime, p, r);
		} else if (p->n_children == 0) {
			read_leaf(c, mime, p, r);
		}
	}
}

static void
read_parts(struct content *c)
{
	struct reading r = { .text = buf_heap(CONTENT_TEXT_MAX),
		.scratch = buf_heap(CONTENT_TEXT_MAX),
		.left = CONTENT_TEXT_MAX };
	struct mime mime;

	c->has_parts = true;
	if (mime_parse(c->message, &c->arena, &mime) == 0)
		read_tree(c, &mime, &r);
	buf_fini(&r.text);
	buf_fini(&r.scratch);
}

bool
pl_content_part(struct content *c, size_t index, struct filter_part *out)
{
	if (!c->has_parts)
		read_parts(c);
	if (index >= c->n_parts)
		return false;
	*out = c->parts[index];
	return true;
}
