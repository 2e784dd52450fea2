/* relayd/review/top.c - the fields that the gateway puts on top of a message for the quarantine. */
#include "relayd/review/top.h"

#define TO_NAME      SLICE("X-Relayd-To")
#define TO_FIRST     SLICE("X-Relayd-To: ")
#define TO_SEPARATOR SLICE(",\r\n\t")
#define TO_END       SLICE("\r\n")

/* Takes a whole field with its folds off the front of *in; false when there is none. */
static bool
field_next(struct slice *in, struct slice *name, struct slice *raw)
{
	size_t end = 0;

	do {
		const char *lf = memchr(in->p + end, '\n', in->len - end);

		if (lf == NULL)
			return false;
		end = (size_t)(lf + 1 - in->p);
	} while (end < in->len && (in->p[end] == ' ' || in->p[end] == '\t'));
	*raw = slice_head(*in, end);
	*name = slice_until(slice_until(*raw, '\n'), ':');
	*in = slice_drop(*in, end);
	return true;
}

static bool
is_ours(struct slice name)
{
	return slice_ieq(name, SLICE("Return-Path")) || slice_istarts(name, SLICE("X-Relayd-"));
}

size_t
top_length(struct slice message)
{
	struct slice rest = slice_head(message, TOP_BYTES_MAX), name, raw;
	size_t length = 0;

	while (field_next(&rest, &name, &raw) && name.len < raw.len && raw.p[name.len] == ':' &&
	       is_ours(name))
		length += raw.len;
	return length;
}

void
top_without_to(struct slice top, struct buf *out)
{
	struct slice name, raw;

	while (field_next(&top, &name, &raw))
		if (!slice_ieq(name, TO_NAME))
			buf_put(out, raw);
}

struct slice
top_field(struct slice top, struct slice wanted)
{
	struct slice name, raw;

	while (field_next(&top, &name, &raw))
		if (slice_ieq(name, wanted))
			return slice_trim(slice_until(slice_drop(raw, name.len + 1), '\n'));
	return SLICE("");
}

size_t
top_to_bytes(size_t n, size_t path_bytes)
{
	if (n == 0)
		return 0;
	return TO_FIRST.len + path_bytes + (n - 1) * TO_SEPARATOR.len + TO_END.len;
}

void
top_put_to(struct buf *out, size_t index, struct slice path)
{
	buf_put(out, index == 0 ? TO_FIRST : TO_SEPARATOR);
	buf_put(out, path);
}

void
top_end_to(struct buf *out, size_t n)
{
	if (n > 0)
		buf_put(out, TO_END);
}
