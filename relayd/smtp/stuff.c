/* relayd/smtp/stuff.c - dot-stuffing of a body on its way out (RFC 5321 section 4.5.2). */
#include "relayd/smtp/client.h"

/* The length up to and with the first CRLF that a dot follows, or all of s: what may be sent as
 * it is. */
static size_t
clean_len(struct slice s)
{
	size_t at = slice_find(s, SLICE("\r\n."));

	return at < s.len ? at + 2 : s.len;
}

bool
smtp_stuff_next(struct smtp_stuffer *st, struct slice *in, struct slice *piece)
{
	if (in->len == 0)
		return false;
	if (!st->inside && in->p[0] == '.' && !st->dot) {
		*piece = SLICE(".");
		st->dot = true;
		return true;
	}
	/* A CRLF cut in two by the end of the last run ends its line all the same. */
	if (st->cr && in->p[0] == '\n' && st->inside)
		*piece = slice_head(*in, 1);
	else
		*piece = slice_head(*in, clean_len(*in));
	*in = slice_drop(*in, piece->len);
	st->inside = !(slice_ends(*piece, SLICE("\r\n")) ||
		       (st->cr && piece->len == 1 && piece->p[0] == '\n'));
	st->cr = slice_ends(*piece, SLICE("\r"));
	st->dot = false;
	return true;
}
