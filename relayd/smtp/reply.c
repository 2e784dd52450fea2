/* relayd/smtp/reply.c - replies: code and text in, bytes out. */
#include "relayd/smtp/reply.h"

#define LINE_MAX_TEXT (SMTP_REPLY_LINE_MAX - 6) /* "250-", CRLF */

/* n bytes of room are there. */
static size_t
put_printable(char *at, struct slice text)
{
	for (size_t i = 0; i < text.len; i++)
		at[i] = text.p[i] >= ' ' && text.p[i] < 0x7f ? text.p[i] : '?';
	return text.len;
}

static void
put_line(struct buf *out, unsigned code, char sep, struct slice text, struct slice tail)
{
	char line[SMTP_REPLY_LINE_MAX + 1];
	size_t n = 0;

	for (unsigned digit = 100; digit > 0; digit /= 10)
		line[n++] = (char)('0' + code / digit % 10);
	line[n++] = sep;
	tail = slice_head(tail, LINE_MAX_TEXT);
	n += put_printable(line + n, slice_head(text, LINE_MAX_TEXT - tail.len));
	n += put_printable(line + n, tail);
	line[n++] = '\r';
	line[n++] = '\n';
	buf_put(out, slice_of(line, n));
}

void
smtp_reply_line(struct buf *out, unsigned code, bool more, struct slice text)
{
	put_line(out, code, more ? '-' : ' ', text, SLICE(""));
}

/* The enhanced code stands in every line (RFC 2034 section 4). */
static struct buf
begin_text(const struct smtp_answer *answer, char storage[static SMTP_REPLY_LINE_MAX])
{
	struct buf text = buf_over(storage, SMTP_REPLY_LINE_MAX);

	if (answer->enhanced != NULL && answer->enhanced[0] != '\0') {
		buf_puts(&text, answer->enhanced);
		buf_putc(&text, ' ');
	}
	return text;
}

void
smtp_reply_put(struct buf *out, const struct smtp_answer *answer, struct slice ref)
{
	bool helps = answer->code >= 400 && answer->help.len > 0;
	char text_storage[SMTP_REPLY_LINE_MAX], tail_storage[64];
	struct buf text = begin_text(answer, text_storage);
	struct buf tail = buf_over(tail_storage, sizeof(tail_storage));

	buf_put(&text, slice_head(answer->text, text.cap - text.len));
	if (ref.len > 0) {
		buf_puts(&tail, " [id ");
		buf_put(&tail, ref);
		buf_putc(&tail, ']');
	}
	put_line(out, answer->code, helps ? '-' : ' ', buf_slice(&text), buf_slice(&tail));
	if (!helps)
		return;
	text = begin_text(answer, text_storage);
	buf_put(&text, slice_head(answer->help, text.cap - text.len));
	put_line(out, answer->code, ' ', buf_slice(&text), SLICE(""));
}
