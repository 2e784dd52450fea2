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

void
smtp_reply_put(struct buf *out, const struct smtp_answer *answer, struct slice ref)
{
	char text_storage[SMTP_REPLY_LINE_MAX], tail_storage[64];
	struct buf text = buf_over(text_storage, sizeof(text_storage));
	struct buf tail = buf_over(tail_storage, sizeof(tail_storage));

	if (answer->enhanced != NULL && answer->enhanced[0] != '\0') {
		buf_puts(&text, answer->enhanced);
		buf_putc(&text, ' ');
	}
	buf_put(&text, slice_head(answer->text, text.cap - text.len));
	if (ref.len > 0) {
		buf_puts(&tail, " [id ");
		buf_put(&tail, ref);
		buf_putc(&tail, ']');
	}
	put_line(out, answer->code, ' ', buf_slice(&text), buf_slice(&tail));
}
