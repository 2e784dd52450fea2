/* relayd/review/imap/structure.c - BODY and BODYSTRUCTURE: the tree of parts as IMAP has it. */
#include "relayd/review/imap/structure.h"

#include "relayd/mail/header.h"
#include "relayd/review/imap/reply.h"

#define TEXT_MAX 4096 /* octets of an id or description; what lies beyond is left out */

static void put_part(const struct mime *mime, const struct mime_part *p, bool ext, struct buf *out);

/* The body of a field as one line, or NIL. */
static void
put_field(struct slice body, struct buf *out)
{
	char storage[TEXT_MAX];
	struct buf line = buf_over(storage, sizeof(storage));

	header_unfold(slice_head(slice_trim(body), sizeof(storage)), &line);
	buf_putc(out, ' ');
	imap_put_nstring(out, buf_slice(&line));
}

static void
put_params(const struct mime_param *params, size_t n, struct buf *out)
{
	if (n == 0) {
		buf_puts(out, " NIL");
		return;
	}
	for (size_t i = 0; i < n; i++) {
		buf_puts(out, i == 0 ? " (" : " ");
		imap_put_string(out, params[i].name);
		buf_putc(out, ' ');
		imap_put_string(out, params[i].value);
	}
	buf_putc(out, ')');
}

/* What only BODYSTRUCTURE has: disposition, language, location. */
static void
put_extension(const struct mime_part *p, struct buf *out)
{
	if (p->disposition.len == 0) {
		buf_puts(out, " NIL");
	} else {
		buf_puts(out, " (");
		imap_put_string(out, p->disposition);
		put_params(p->disposition_params, p->n_disposition_params, out);
		buf_putc(out, ')');
	}
	put_field(p->language, out);
	put_field(p->location, out);
}

static void
put_multipart(const struct mime *mime, const struct mime_part *p, bool ext, struct buf *out)
{
	buf_putc(out, '(');
	for (uint32_t i = p->first_child; i != MIME_NONE && !out->overflow; i = mime->parts[i].next)
		put_part(mime, &mime->parts[i], ext, out);
	buf_putc(out, ' ');
	imap_put_string(out, p->subtype);
	if (ext) {
		put_params(p->params, p->n_params, out);
		put_extension(p, out);
	}
	buf_putc(out, ')');
}

struct type {
	struct slice type, subtype;
};

/* The type that a client can do something with: a multipart without parts is text, a message that
 * is not taken apart (encoded, too deep) is just octets, because MESSAGE RFC822 would need an
 * envelope. */
static struct type
shown_type(const struct mime_part *p)
{
	if (p->kind == MIME_LEAF && mime_is(p, "multipart", NULL))
		return (struct type){ SLICE("TEXT"), SLICE("PLAIN") };
	if (p->kind == MIME_LEAF && mime_is(p, "message", "rfc822"))
		return (struct type){ SLICE("APPLICATION"), SLICE("OCTET-STREAM") };
	return (struct type){ p->type, p->subtype };
}

static void
put_single(const struct mime *mime, const struct mime_part *p, bool ext, struct buf *out)
{
	struct type t = shown_type(p);

	buf_putc(out, '(');
	imap_put_string(out, t.type);
	buf_putc(out, ' ');
	imap_put_string(out, t.subtype);
	put_params(p->params, mime_is(p, "multipart", NULL) ? 0 : p->n_params, out);
	put_field(p->id, out);
	put_field(p->description, out);
	buf_putc(out, ' ');
	imap_put_string(out, p->encoding_name.len > 0 ? p->encoding_name : SLICE("7BIT"));
	buf_printf(out, " %zu", p->end - p->body);
	if (p->kind == MIME_MESSAGE && mime_is(p, NULL, "rfc822")) {
		buf_putc(out, ' ');
		imap_put_envelope(mime_body(mime, p), out);
		buf_putc(out, ' ');
		put_part(mime, &mime->parts[p->first_child], ext, out);
		buf_printf(out, " %u", p->body_lines);
	} else if (slice_ieq(t.type, SLICE("TEXT"))) {
		buf_printf(out, " %u", p->body_lines);
	}
	if (ext) {
		put_field(p->md5, out);
		put_extension(p, out);
	}
	buf_putc(out, ')');
}

/* As deep as MIME_DEPTH_MAX. */
static void
put_part(const struct mime *mime, const struct mime_part *p, bool ext, struct buf *out)
{
	if (p->kind == MIME_MULTIPART)
		put_multipart(mime, p, ext, out);
	else
		put_single(mime, p, ext, out);
}

void
imap_put_structure(const struct mime *mime, bool extended, struct buf *out)
{
	put_part(mime, &mime->parts[0], extended, out);
}
