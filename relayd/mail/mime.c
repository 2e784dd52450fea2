/* relayd/mail/mime.c - the tree of parts: one walk over the lines, with the open parts on a
 * stack. */
#include "relayd/mail/mime.h"

#include "relayd/mail/header.h"

#define PARTS_FIRST 8

/* One open part. */
struct level {
	uint32_t part;
	char *boundary;      /* of a multipart, NUL-terminated */
	size_t boundary_len; /* 0: cannot be delimited (a leaf, a message) */
	bool epilogue;       /* its close delimiter was met */
	size_t lines_before; /* line ends of the message before its body */
};

/* A place between two lines, and how many line ends stand before it. */
struct place {
	size_t at, lines;
};

struct parser {
	struct mime *mime;
	struct arena *arena;
	uint32_t cap; /* of mime->parts */
	struct level stack[MIME_DEPTH_MAX + 1];
	size_t depth;    /* levels in use; the last is the innermost */
	bool in_header;  /* of the innermost part */
	bool field_seen; /* a fold may follow */
	size_t header_lines_before;
	bool full; /* the arena is */
};

static struct mime_part *
part_at(struct parser *ps, uint32_t index)
{
	return &ps->mime->parts[index];
}

static struct level *
innermost(struct parser *ps)
{
	return &ps->stack[ps->depth - 1];
}

static bool
grow(struct parser *ps)
{
	uint32_t cap = ps->cap > 0 ? 2 * ps->cap : PARTS_FIRST;
	struct mime_part *parts = arena_alloc(ps->arena, cap * sizeof(*parts));

	if (parts == NULL) {
		ps->full = true;
		return false;
	}
	if (ps->mime->n_parts > 0)
		memcpy(parts, ps->mime->parts, ps->mime->n_parts * sizeof(*parts));
	ps->mime->parts = parts;
	ps->cap = cap;
	return true;
}

static void
link_child(struct parser *ps, uint32_t parent, uint32_t child)
{
	struct mime_part *p = part_at(ps, parent);
	uint32_t *slot = &p->first_child;

	/* The last child is the last part whose parent this is; a tail index saves the search. */
	if (p->n_children > 0)
		slot = &part_at(ps, p->last_child)->next;
	*slot = child;
	p->last_child = child;
	p->n_children++;
}

/* Begins a part whose header starts here. */
static void
open_part(struct parser *ps, struct place here)
{
	uint32_t index = (uint32_t)ps->mime->n_parts;
	uint32_t parent = ps->depth > 0 ? innermost(ps)->part : MIME_NONE;

	if (index == ps->cap && !grow(ps))
		return;
	ps->mime->n_parts++;
	*part_at(ps, index) = (struct mime_part){
		.parent = parent,
		.first_child = MIME_NONE,
		.next = MIME_NONE,
		.depth = (uint32_t)ps->depth,
		.header = here.at,
		.body = here.at,
		.end = here.at,
		.type = SLICE("text"),
		.subtype = SLICE("plain"),
		.disposition = SLICE(""),
		.encoding_name = SLICE(""),
		.id = SLICE(""),
		.description = SLICE(""),
		.md5 = SLICE(""),
		.language = SLICE(""),
		.location = SLICE(""),
	};
	if (parent != MIME_NONE)
		link_child(ps, parent, index);
	ps->stack[ps->depth++] = (struct level){ .part = index };
	ps->in_header = true;
	ps->field_seen = false;
	ps->header_lines_before = here.lines;
}

/* ---- what the header of a part says ---- */

/* An entity within multipart/digest is a message: RFC 2046 section 5.1.5. */
static void
default_type(struct parser *ps, struct mime_part *p)
{
	if (p->parent != MIME_NONE && mime_is(part_at(ps, p->parent), "multipart", "digest")) {
		p->type = SLICE("message");
		p->subtype = SLICE("rfc822");
	}
}

/* RFC 2045 section 5.1 token: what may stand in a type. */
static bool
is_token(struct slice s)
{
	for (size_t i = 0; i < s.len; i++)
		if (s.p[i] <= ' ' || s.p[i] > '~' || strchr("()<>@,;:\\\"/[]?=", s.p[i]) != NULL)
			return false;
	return s.len > 0;
}

static void
read_type(struct parser *ps, struct mime_part *p, struct slice body)
{
	struct slice value, type, subtype;

	if (mime_value(body, ps->arena, &value, &p->params, &p->n_params) < 0) {
		ps->full = true;
		return;
	}
	type = slice_trim(slice_until(value, '/'));
	subtype = slice_trim(slice_drop(value, slice_until(value, '/').len + 1));
	if (is_token(type) && is_token(subtype)) {
		p->type = type;
		p->subtype = subtype;
	}
}

static void
read_encoding(struct parser *ps, struct mime_part *p, struct slice body)
{
	static const struct {
		const char *name;
		enum mime_encoding encoding;
	} names[] = {
		{ "7bit", MIME_ENCODING_IDENTITY },
		{ "8bit", MIME_ENCODING_IDENTITY },
		{ "binary", MIME_ENCODING_IDENTITY },
		{ "quoted-printable", MIME_ENCODING_QP },
		{ "base64", MIME_ENCODING_BASE64 },
	};
	struct mime_param *params;
	size_t n_params;

	if (mime_value(body, ps->arena, &p->encoding_name, &params, &n_params) < 0)
		ps->full = true;
	p->encoding = MIME_ENCODING_UNKNOWN;
	for (size_t i = 0; i < ARRAY_LEN(names); i++)
		if (slice_ieq(p->encoding_name, slice_str(names[i].name)))
			p->encoding = names[i].encoding;
}

static void
read_disposition(struct parser *ps, struct mime_part *p, struct slice body)
{
	if (mime_value(body, ps->arena, &p->disposition, &p->disposition_params,
		&p->n_disposition_params) < 0)
		ps->full = true;
}

/* Fields that are only kept: the first of a name counts. */
static struct slice *
kept_field(struct mime_part *p, struct slice name)
{
	const struct {
		const char *name;
		struct slice *place;
	} kept[] = {
		{ "content-id", &p->id },
		{ "content-description", &p->description },
		{ "content-md5", &p->md5 },
		{ "content-language", &p->language },
		{ "content-location", &p->location },
	};

	for (size_t i = 0; i < ARRAY_LEN(kept); i++)
		if (slice_ieq(name, slice_str(kept[i].name)) && kept[i].place->len == 0)
			return kept[i].place;
	return NULL;
}

static void
read_header(struct parser *ps, struct mime_part *p)
{
	struct header_iter it = header_iter_of(mime_header(ps->mime, p));
	struct header_field field;
	bool typed = false, encoded = false;

	default_type(ps, p);
	while (header_next(&it, &field)) {
		struct slice *place;

		if (!slice_istarts(field.name, SLICE("content-")))
			continue;
		if (slice_ieq(field.name, SLICE("content-type"))) {
			if (typed)
				ps->mime->flags |= MIME_REPEATED;
			else
				read_type(ps, p, field.body);
			typed = true;
		} else if (slice_ieq(field.name, SLICE("content-transfer-encoding"))) {
			if (encoded)
				ps->mime->flags |= MIME_REPEATED;
			else
				read_encoding(ps, p, field.body);
			encoded = true;
		} else if (slice_ieq(field.name, SLICE("content-disposition"))) {
			if (p->disposition.len == 0)
				read_disposition(ps, p, field.body);
		} else if ((place = kept_field(p, field.name)) != NULL) {
			*place = field.body;
		}
	}
}

/* The boundary of a multipart, without blanks at its end (RFC 2046 section 5.1.1), in the arena. */
static void
read_boundary(struct parser *ps, struct level *lv, struct mime_part *p)
{
	char storage[MIME_BOUNDARY_MAX];
	struct buf value = buf_over(storage, sizeof(storage));
	struct slice copy;

	buf_put(&value, mime_param_raw(p->params, p->n_params, "boundary"));
	if (value.len == 0 && !mime_param(p->params, p->n_params, "boundary", &value))
		return;
	if (value.overflow)
		return;
	while (value.len > 0 && (value.p[value.len - 1] == ' ' || value.p[value.len - 1] == '\t'))
		value.len--;
	copy = arena_copy(ps->arena, buf_slice(&value));
	if (copy.p == NULL)
		ps->full = true;
	else
		lv->boundary = (char *)(uintptr_t)copy.p; /* our own copy */
	lv->boundary_len = copy.p != NULL ? copy.len : 0;
}

/* The header of the innermost part ends and its body starts here. */
static void
end_header(struct parser *ps, struct place here)
{
	struct level *lv = innermost(ps);
	struct mime_part *p = part_at(ps, lv->part);
	bool deep = ps->depth > MIME_DEPTH_MAX;

	ps->in_header = false;
	p->body = p->end = p->preamble_end = p->epilogue = here.at;
	p->header_lines = (uint32_t)(here.lines - ps->header_lines_before);
	lv->lines_before = here.lines;
	read_header(ps, p);
	if (mime_is(p, "multipart", NULL)) {
		if (deep)
			ps->mime->flags |= MIME_TOO_DEEP;
		else
			read_boundary(ps, lv, p);
	} else if (mime_is(p, "message", "rfc822") || mime_is(p, "message", "global")) {
		if (deep || ps->mime->n_parts >= MIME_PARTS_MAX)
			ps->mime->flags |= deep ? MIME_TOO_DEEP : MIME_TOO_MANY;
		else if (p->encoding == MIME_ENCODING_IDENTITY) {
			p->kind = MIME_MESSAGE;
			open_part(ps, here);
		}
	}
}

/* ---- ends of parts ---- */

/* Closes the innermost part, whose body ends at `end`; a header that is still open ends here. */
static void
close_part(struct parser *ps, struct place end, struct place here)
{
	struct level *lv;
	struct mime_part *p;

	while (ps->in_header && !ps->full)
		end_header(ps, here);
	lv = innermost(ps);
	p = part_at(ps, lv->part);
	p->end = end.at > p->body ? end.at : p->body;
	p->body_lines = end.lines > lv->lines_before ? (uint32_t)(end.lines - lv->lines_before) : 0;
	if (p->epilogue > p->end)
		p->epilogue =
		    p->end; /* the line end of its close delimiter belongs to the next one */
	if (p->kind == MIME_MULTIPART && !lv->epilogue) {
		p->epilogue = p->end;
		ps->mime->flags |= MIME_UNCLOSED;
	}
	if (p->kind == MIME_LEAF)
		p->preamble_end = p->epilogue = p->end;
	ps->depth--;
}

/* The line names the boundary of an open multipart, innermost first: its level, or depth. */
static size_t
delimited_level(struct parser *ps, struct slice line, bool *closes)
{
	while (line.len > 0 && strchr(" \t\r\n", line.p[line.len - 1]) != NULL)
		line.len--;
	line = slice_drop(line, 2);
	for (size_t i = ps->depth; i-- > 0;) {
		const struct level *lv = &ps->stack[i];
		struct slice boundary = slice_of(lv->boundary, lv->boundary_len);

		if (boundary.len == 0 || lv->epilogue || !slice_starts(line, boundary))
			continue;
		*closes = line.len == boundary.len + 2 && slice_ends(line, SLICE("--"));
		if (*closes || line.len == boundary.len)
			return i;
	}
	return ps->depth;
}

/* A delimiter of level `lv` stands here: what is within ends before the line end that belongs to
 * the delimiter (RFC 2046 section 5.1.1), unless that is still the end of a header. */
static void
close_inner(struct parser *ps, size_t lv, struct place here)
{
	struct slice before = slice_head(ps->mime->bytes, here.at);
	struct place end = here;
	bool in_body = !ps->in_header && part_at(ps, innermost(ps)->part)->body < here.at;

	if (in_body && slice_chop(&before, "\n")) {
		end.lines--;
		(void)slice_chop(&before, "\r"); /* a bare LF ends a line as well */
	}
	end.at = before.len;
	while (ps->depth > lv + 1 && !ps->full)
		close_part(ps, end, here);
}

static void
on_delimiter(struct parser *ps, size_t level, bool closes, struct place here, struct place next)
{
	struct level *lv = &ps->stack[level];
	struct mime_part *p;

	close_inner(ps, level, here);
	p = part_at(ps, lv->part);
	if (p->n_children == 0)
		p->preamble_end = here.at;
	if (closes) {
		lv->epilogue = true;
		p->epilogue = next.at;
		return;
	}
	p->kind = MIME_MULTIPART;
	open_part(ps, next);
}

/* ---- the walk ---- */

static bool
is_mbox_line(struct slice line)
{
	struct slice name;

	return (slice_starts(line, SLICE("From ")) || slice_starts(line, SLICE(">From "))) &&
	       header_line_kind(line, &name) == HEADER_LINE_OTHER;
}

/* The line is of the header that is being read; false where that ended before it. */
static bool
header_line(struct parser *ps, struct slice line, struct place here, struct place next)
{
	bool first = here.at == part_at(ps, innermost(ps)->part)->header;
	struct slice name;

	if (first && is_mbox_line(line))
		return true; /* as header_next() does */
	switch (header_line_kind(line, &name)) {
	case HEADER_LINE_END:
		end_header(ps, next);
		return true;
	case HEADER_LINE_FIELD:
		ps->field_seen = true;
		return true;
	case HEADER_LINE_FOLD:
		return ps->field_seen;
	default:
		return false;
	}
}

static void
on_line(struct parser *ps, struct slice line, struct place here, struct place next)
{
	bool closes = false;

	if (slice_starts(line, SLICE("--"))) {
		size_t level = delimited_level(ps, line, &closes);

		if (level < ps->depth && (closes || ps->mime->n_parts < MIME_PARTS_MAX)) {
			on_delimiter(ps, level, closes, here, next);
			return;
		}
		ps->mime->flags |= level < ps->depth ? MIME_TOO_MANY : 0;
	}
	while (ps->in_header && !ps->full && !header_line(ps, line, here, next))
		end_header(ps, here);
}

int
mime_parse(struct slice message, struct arena *arena, struct mime *out)
{
	struct parser ps = { .mime = out, .arena = arena };
	struct place here = { 0, 0 };

	*out = (struct mime){ .bytes = message };
	open_part(&ps, here);
	while (here.at < message.len && !ps.full) {
		struct slice rest = slice_drop(message, here.at);
		const char *lf = memchr(rest.p, '\n', rest.len);
		struct slice line = lf != NULL ? slice_head(rest, (size_t)(lf + 1 - rest.p)) : rest;
		struct place next = { here.at + line.len, here.lines + (lf != NULL ? 1 : 0) };

		on_line(&ps, line, here, next);
		here = next;
	}
	while (ps.depth > 0 && !ps.full)
		close_part(&ps, here, here);
	return ps.full ? -1 : 0;
}

/* ---- looking at the tree ---- */

struct slice
mime_body(const struct mime *mime, const struct mime_part *part)
{
	return slice_head(slice_drop(mime->bytes, part->body), part->end - part->body);
}

struct slice
mime_header(const struct mime *mime, const struct mime_part *part)
{
	return slice_head(slice_drop(mime->bytes, part->header), part->body - part->header);
}

bool
mime_is(const struct mime_part *part, const char *type, const char *subtype)
{
	return (type == NULL || slice_ieq(part->type, slice_str(type))) &&
	       (subtype == NULL || slice_ieq(part->subtype, slice_str(subtype)));
}

bool
mime_is_wrapped(const struct mime_part *part)
{
	return part->kind == MIME_LEAF && part->encoding != MIME_ENCODING_IDENTITY &&
	       mime_is(part, "message", NULL) &&
	       (mime_is(part, NULL, "rfc822") || mime_is(part, NULL, "global"));
}

int
mime_unwrap(const struct mime *mime, const struct mime_part *part, struct buf *bytes,
    struct arena *arena, struct mime *out)
{
	mime_decode(mime, part, bytes);
	return mime_parse(buf_slice(bytes), arena, out);
}

bool
mime_is_text(const struct mime_part *part)
{
	return part->kind == MIME_LEAF &&
	       (mime_is(part, "text", NULL) || mime_is(part, "multipart", NULL));
}

static const struct mime_part *
nth_child(const struct mime *mime, const struct mime_part *part, uint32_t nth)
{
	uint32_t index = part->first_child;

	while (index != MIME_NONE && --nth > 0)
		index = mime->parts[index].next;
	return index != MIME_NONE ? &mime->parts[index] : NULL;
}

const struct mime_part *
mime_numbered(const struct mime *mime, const uint32_t *number, size_t n)
{
	const struct mime_part *part = &mime->parts[0];

	for (size_t i = 0; i < n && part != NULL; i++) {
		/* The parts of a message are those of its multipart; otherwise its body is part
		 * 1. */
		if (i > 0 && part->kind == MIME_MESSAGE)
			part = &mime->parts[part->first_child];
		else if (i > 0 && part->kind == MIME_LEAF)
			return NULL;
		if (number[i] == 0)
			return NULL;
		if (part->kind == MIME_MULTIPART)
			part = nth_child(mime, part, number[i]);
		else if (number[i] != 1)
			return NULL;
	}
	return part;
}
