/* relayd/review/imap/reply.c - how data is written in responses: strings, flags, dates. */
#include "relayd/review/imap/reply.h"

#include "relayd/mail/date.h"

#define QUOTED_MAX 1024 /* octets; longer text goes as a literal */

/* TEXT-CHARs: ASCII without CR, LF and NUL. */
static bool
is_quotable(struct slice s)
{
	for (size_t i = 0; i < s.len; i++)
		if ((unsigned char)s.p[i] >= 0x80 || s.p[i] == '\r' || s.p[i] == '\n' ||
		    s.p[i] == '\0')
			return false;
	return s.len <= QUOTED_MAX;
}

static void
put_quoted(struct buf *out, struct slice s)
{
	buf_putc(out, '"');
	for (size_t i = 0; i < s.len; i++) {
		if (s.p[i] == '"' || s.p[i] == '\\')
			buf_putc(out, '\\');
		buf_putc(out, s.p[i]);
	}
	buf_putc(out, '"');
}

static void
put_literal(struct buf *out, struct slice s)
{
	char *at;

	buf_printf(out, "{%zu}\r\n", s.len);
	at = buf_room(out, s.len);
	for (size_t i = 0; at != NULL && i < s.len; i++)
		at[i] = s.p[i] == '\0' ? ' ' : s.p[i];
	buf_commit(out, at != NULL ? s.len : 0);
}

void
imap_put_string(struct buf *out, struct slice s)
{
	if (is_quotable(s))
		put_quoted(out, s);
	else
		put_literal(out, s);
}

void
imap_put_nstring(struct buf *out, struct slice s)
{
	if (s.len == 0)
		buf_puts(out, "NIL");
	else
		imap_put_string(out, s);
}

void
imap_put_astring(struct buf *out, struct slice s)
{
	for (size_t i = 0; i < s.len; i++)
		if (s.p[i] <= ' ' || s.p[i] > '~' || strchr("(){%*\"\\]", s.p[i]) != NULL) {
			imap_put_string(out, s);
			return;
		}
	if (s.len == 0)
		imap_put_string(out, s);
	else
		buf_put(out, s);
}

void
imap_put_date(struct buf *out, int64_t wall_ms)
{
	char text[DATE_BYTES];

	date_format_imap((struct date){ wall_ms / 1000, 0 }, text);
	buf_printf(out, "\"%s\"", text);
}
