/* relayd/mail/header.c - the fields of a header, with their place in the message. */
#include "relayd/mail/header.h"

#include "relayd/mail/encoded_word.h"

#include <stdlib.h>

/* The line at the front of s with its line end. */
static struct slice
line_of(struct slice s)
{
	const char *lf = memchr(s.p, '\n', s.len);

	return lf != NULL ? slice_head(s, (size_t)(lf + 1 - s.p)) : s;
}

static struct slice
without_line_end(struct slice line)
{
	if (slice_chop(&line, "\n"))
		(void)slice_chop(&line, "\r"); /* a bare LF ends a line as well */
	return line;
}

static bool
is_blank(char c)
{
	return c == ' ' || c == '\t';
}

/* The field name that a line begins with; empty where there is none. */
static struct slice
name_of(struct slice line)
{
	size_t n = 0, blanks = 0;

	while (n < line.len && (unsigned char)line.p[n] > ' ' && line.p[n] != ':' &&
	       line.p[n] != 0x7f && n <= HEADER_NAME_MAX)
		n++;
	while (n + blanks < line.len && is_blank(line.p[n + blanks]))
		blanks++;
	if (n > HEADER_NAME_MAX || n + blanks >= line.len || line.p[n + blanks] != ':')
		return SLICE("");
	return slice_head(line, n);
}

enum header_line
header_line_kind(struct slice line, struct slice *name)
{
	if (without_line_end(line).len == 0)
		return HEADER_LINE_END;
	if (is_blank(line.p[0]))
		return HEADER_LINE_FOLD;
	*name = name_of(line);
	return name->len > 0 ? HEADER_LINE_FIELD : HEADER_LINE_OTHER;
}

/* Length of the lines at the front of s that continue a field. */
static size_t
folds_length(struct slice s)
{
	size_t n = 0;

	while (n < s.len && is_blank(s.p[n]))
		n += line_of(slice_drop(s, n)).len;
	return n;
}

static void
skip_mbox_line(struct header_iter *it)
{
	if (slice_starts(it->rest, SLICE("From ")) || slice_starts(it->rest, SLICE(">From ")))
		if (name_of(line_of(it->rest)).len == 0)
			it->rest = slice_drop(it->rest, line_of(it->rest).len);
}

bool
header_next(struct header_iter *it, struct header_field *field)
{
	struct slice line, name;

	if (!it->begun)
		skip_mbox_line(it);
	it->begun = true;
	line = line_of(it->rest);
	if (line.len == 0 || header_line_kind(line, &name) != HEADER_LINE_FIELD)
		return false;
	field->name = name;
	field->raw = slice_head(it->rest, line.len + folds_length(slice_drop(it->rest, line.len)));
	field->body = without_line_end(field->raw);
	field->body = slice_drop(field->body, slice_until(field->body, ':').len + 1);
	it->rest = slice_drop(it->rest, field->raw.len);
	return true;
}

size_t
header_length(struct slice message)
{
	struct header_iter it = header_iter_of(message);
	struct header_field field;
	struct slice line;

	while (header_next(&it, &field))
		;
	line = line_of(it.rest);
	if (line.len > 0 && without_line_end(line).len == 0)
		it.rest = slice_drop(it.rest, line.len);
	return message.len - it.rest.len;
}

bool
header_find(struct slice bytes, struct slice name, size_t nth, struct header_field *field)
{
	struct header_iter it = header_iter_of(bytes);

	while (header_next(&it, field))
		if (slice_ieq(field->name, name) && nth-- == 0)
			return true;
	return false;
}

void
header_skip_cfws(struct slice *s)
{
	size_t depth = 0;

	for (; s->len > 0; *s = slice_drop(*s, 1)) {
		char c = s->p[0];

		if (c == '(')
			depth++;
		else if (c == ')' && depth > 0)
			depth--;
		else if (c == '\\' && depth > 0)
			*s = slice_drop(*s, 1);
		else if (depth == 0 && c != ' ' && c != '\t' && c != '\r' && c != '\n')
			return;
	}
}

void
header_unfold(struct slice body, struct buf *out)
{
	body = slice_trim(body);
	while (body.len > 0) {
		size_t n = 0;

		while (n < body.len && body.p[n] != '\r' && body.p[n] != '\n' && body.p[n] != '\0')
			n++;
		buf_put(out, slice_head(body, n));
		body = slice_drop(body, n);
		if (body.len == 0)
			return;
		n = slice_starts(body, SLICE("\r\n")) ? 2 : 1;
		if (n == 1 && !(body.p[0] == '\n' && body.len > 1 && is_blank(body.p[1])))
			buf_putc(out, ' ');
		body = slice_drop(body, n);
	}
}

void
header_decode(struct slice body, struct buf *out)
{
	char storage[4096];
	struct buf line = buf_over(storage, sizeof(storage));

	header_unfold(body, &line);
	if (line.overflow) {
		line = buf_heap(body.len + 1);
		header_unfold(body, &line);
	}
	encoded_word_decode(buf_slice(&line), out);
	buf_fini(&line);
}
