/* relayd/smtp/client_reply.c - replies of a peer: bytes in, one reply out (RFC 5321 section
 * 4.2). */
#include "relayd/smtp/client_reply.h"

static bool
is_digit(char c)
{
	return c >= '0' && c <= '9';
}

/* One to three digits off the front (RFC 3463 section 2). */
static bool
take_number(struct slice *s)
{
	size_t n = 0;

	while (n < s->len && n < 4 && is_digit(s->p[n]))
		n++;
	*s = slice_drop(*s, n);
	return n > 0 && n < 4;
}

/* The length of an enhanced status code of this class at the front of text, or 0. */
static size_t
enhanced_len(struct slice text, unsigned code)
{
	struct slice rest = slice_drop(text, 1);

	if (text.len < 5 || text.p[0] != (char)('0' + code / 100) || code / 100 == 3)
		return 0;
	for (int i = 0; i < 2; i++) {
		if (rest.len == 0 || rest.p[0] != '.')
			return 0;
		rest = slice_drop(rest, 1);
		if (!take_number(&rest))
			return 0;
	}
	return rest.len == 0 || rest.p[0] == ' ' ? text.len - rest.len : 0;
}

static void
add_text(struct smtp_client_reply *reply, struct slice text)
{
	if (reply->len > 0 && text.len > 0 && reply->len < sizeof(reply->text))
		reply->text[reply->len++] = ' ';
	text = slice_head(text, sizeof(reply->text) - reply->len);
	for (size_t i = 0; i < text.len; i++) {
		bool printable = text.p[i] >= ' ' && text.p[i] <= '~';

		reply->text[reply->len++] = printable ? text.p[i] : '?';
	}
}

/* code, text and whether more lines follow; false for what is no reply line. */
static bool
parse_line(struct slice line, unsigned *code, bool *more, struct slice *text)
{
	if (line.len < 3 || line.p[0] < '2' || line.p[0] > '5' || !is_digit(line.p[1]) ||
	    !is_digit(line.p[2]))
		return false;
	if (line.len > 3 && line.p[3] != ' ' && line.p[3] != '-')
		return false;
	*code = (unsigned)(line.p[0] - '0') * 100 + (unsigned)(line.p[1] - '0') * 10 +
		(unsigned)(line.p[2] - '0');
	*more = line.len > 3 && line.p[3] == '-';
	*text = slice_trim(slice_drop(line, 4));
	return true;
}

/* Of a line end, or of one whose LF is still to come; a bare LF cannot be mistaken for anything
 * here. */
static struct slice
without_cr(struct slice line)
{
	return slice_head(line, line.len - (line.len > 0 && line.p[line.len - 1] == '\r'));
}

enum smtp_client_line
smtp_client_reply_line(struct smtp_client_reply *reply, struct slice *in, struct slice *line)
{
	const char *lf = memchr(in->p, '\n', in->len);
	size_t enhanced;
	bool more;

	if (lf == NULL)
		return without_cr(*in).len > SMTP_CLIENT_LINE_MAX ? SMTP_LINE_BAD : SMTP_LINE_MORE;
	*line = slice_head(*in, (size_t)(lf - in->p));
	*in = slice_drop(*in, line->len + 1);
	*line = without_cr(*line);
	if (line->len > SMTP_CLIENT_LINE_MAX || ++reply->lines > SMTP_CLIENT_LINES_MAX ||
	    !parse_line(*line, &reply->code, &more, line))
		return SMTP_LINE_BAD;
	enhanced = enhanced_len(*line, reply->code);
	if (reply->lines == 1 && enhanced > 0 && enhanced < sizeof(reply->enhanced))
		memcpy(reply->enhanced, line->p, enhanced);
	add_text(reply, slice_trim(slice_drop(*line, enhanced)));
	return more ? SMTP_LINE_CONTINUES : SMTP_LINE_LAST;
}

struct slice
smtp_client_reply_text(const struct smtp_client_reply *reply)
{
	return slice_of(reply->text, reply->len);
}
