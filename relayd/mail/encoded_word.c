/* relayd/mail/encoded_word.c - RFC 2047 encoded words to UTF-8. */
#include "relayd/mail/encoded_word.h"

#include "relayd/mail/charset.h"
#include "relayd/mail/transfer.h"

#define RUN_MAX 4096 /* octets of adjacent words that are converted together */

/* "=?charset*language?B?text?=" */
struct word {
	struct slice charset;
	char encoding;
	struct slice text;
	size_t len;
};

/* Adjacent words of one charset, decoded but not yet converted. */
struct run {
	struct slice charset;
	struct buf bytes;
	char storage[RUN_MAX];
};

/* The word at the front of s, which starts with "=?".  *no_end is set when no "?=" follows any
 * more, so that the rest is not searched again. */
static bool
word_parse(struct slice s, struct word *w, bool *no_end)
{
	struct slice rest = slice_drop(s, 2);
	size_t end;

	w->charset = slice_until(rest, '?');
	rest = slice_drop(rest, w->charset.len + 1);
	w->charset = slice_until(w->charset, '*'); /* RFC 2231 section 5 */
	if (w->charset.len == 0 || w->charset.len > CHARSET_NAME_MAX || slice_has(w->charset, ' '))
		return false;
	if (rest.len < 2 || rest.p[1] != '?')
		return false;
	w->encoding = slice_lower(rest.p[0]);
	if (w->encoding != 'b' && w->encoding != 'q')
		return false;
	rest = slice_drop(rest, 2);
	end = *no_end ? rest.len : slice_find(rest, SLICE("?="));
	*no_end = end == rest.len;
	if (*no_end)
		return false;
	w->text = slice_head(rest, end);
	w->len = (size_t)(rest.p + end + 2 - s.p);
	return true;
}

static void
run_end(struct run *run, struct buf *out)
{
	if (run->charset.len > 0)
		(void)charset_to_utf8(
		    run->charset, buf_slice(&run->bytes), out); /* best there is */
	run->charset = SLICE("");
	buf_reset(&run->bytes);
}

static void
run_add(struct run *run, const struct word *w, struct buf *out)
{
	if (!slice_ieq(run->charset, w->charset) || w->text.len > RUN_MAX - run->bytes.len)
		run_end(run, out);
	run->charset = w->charset;
	if (w->encoding == 'b')
		transfer_base64(w->text, &run->bytes);
	else
		transfer_q(w->text, &run->bytes);
}

static bool
is_space(char c)
{
	return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

/* Length of the blanks at the front of s. */
static size_t
spaces(struct slice s)
{
	size_t n = 0;

	while (n < s.len && is_space(s.p[n]))
		n++;
	return n;
}

/* Appends text that is no word.  An empty charset: ASCII, and a guess above it. */
static void
put_plain(struct slice text, struct buf *out)
{
	if (text.len > 0)
		(void)charset_to_utf8(SLICE(""), text, out); /* best there is */
}

/* CR, LF and NUL out of words would break a line where the text is used. */
static void
clean(struct buf *out, size_t from)
{
	for (size_t i = from; i < out->len; i++)
		if (out->p[i] == '\r' || out->p[i] == '\n' || out->p[i] == '\0')
			out->p[i] = ' ';
}

void
encoded_word_decode(struct slice text, struct buf *out)
{
	struct run run = { .charset = SLICE("") };
	struct slice plain = slice_head(text, 0); /* what waits to be appended as it is */
	size_t from = out->len;
	bool no_end = false;

	run.bytes = buf_over(run.storage, sizeof(run.storage));
	while (text.len > 0 && !out->overflow) {
		size_t n = slice_find(text, SLICE("=?"));
		struct word w;

		plain.len += n;
		text = slice_drop(text, n);
		if (text.len == 0)
			break;
		if (!word_parse(text, &w, &no_end)) {
			plain.len += 2;
			text = slice_drop(text, 2);
			continue;
		}
		if (run.charset.len == 0 || spaces(plain) < plain.len) {
			run_end(&run, out);
			put_plain(plain, out);
		}
		run_add(&run, &w, out);
		text = slice_drop(text, w.len);
		plain = slice_head(text, 0);
	}
	run_end(&run, out);
	put_plain(plain, out);
	clean(out, from);
}
