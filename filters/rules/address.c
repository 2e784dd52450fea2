/* filters/rules/address.c - takes an address list apart, mailbox by mailbox. */
#include "filters/rules/address.h"

/* Octets of a quoted string, a comment or a <> at the front, with its end or all that is left. */
static size_t
enclosed_len(struct slice in)
{
	char open = in.p[0], close = open == '(' ? ')' : open == '<' ? '>' : '"';
	size_t depth = 1;

	for (size_t i = 1; i < in.len; i++) {
		if (in.p[i] == '\\' && open != '<')
			i++;
		else if (in.p[i] == close && --depth == 0)
			return i + 1;
		else if (in.p[i] == open && open == '(')
			depth++;
	}
	return in.len;
}

/* What stands between the two ends of something enclosed. */
static struct slice
inside(struct slice s)
{
	s = slice_drop(s, 1);
	if (s.len > 0 && slice_has(SLICE(")>\""), s.p[s.len - 1]))
		s.len--;
	return s;
}

static struct slice
last_angle(struct slice s)
{
	const char *open = memrchr(s.p, '<', s.len);

	if (open == NULL)
		return SLICE("");
	s = slice_drop(s, (size_t)(open - s.p));
	return slice_head(s, slice_until(s, '>').len + 1);
}

/* One mailbox up to its comma: where its <>, its comment and its words are. */
struct parts {
	struct slice all, angle, comment;
};

static struct parts
parts_take(struct slice *in)
{
	struct parts parts = { *in, SLICE(""), SLICE("") };
	size_t i = 0;

	while (i < in->len && in->p[i] != ',' && in->p[i] != ';') {
		struct slice at = slice_drop(*in, i);
		size_t n = 1;

		if (at.p[0] == '(' || at.p[0] == '<' || at.p[0] == '"')
			n = enclosed_len(at);
		if (at.p[0] == '<' && parts.angle.len == 0)
			parts.angle = slice_head(at, n);
		/* A quote that runs to the end hides no address from us. */
		if (at.p[0] == '"' && n == at.len && parts.angle.len == 0)
			parts.angle = last_angle(at);
		if (at.p[0] == '(' && parts.comment.len == 0)
			parts.comment = slice_head(at, n);
		/* "undisclosed-recipients: jo@example.org;" */
		if (at.p[0] == ':' && parts.angle.len == 0 && !slice_has(slice_head(*in, i), '@'))
			parts.all = slice_drop(*in, i + 1);
		i += n;
	}
	parts.all.len = (size_t)(in->p + i - parts.all.p);
	*in = slice_drop(*in, i + 1);
	return parts;
}

/* "jo@example.org (Jo)" without angle brackets: the word with the @. */
static struct slice
bare_address(struct slice all)
{
	while (all.len > 0) {
		struct slice word = slice_trim(all);
		size_t n = 0;

		if (word.len > 0 && word.p[0] == '(') {
			all = slice_drop(word, enclosed_len(word));
			continue;
		}
		while (n < word.len && word.p[n] != ' ' && word.p[n] != '\t' && word.p[n] != '(')
			n += word.p[n] == '"' ? enclosed_len(slice_drop(word, n)) : 1;
		all = slice_drop(word, n);
		word = slice_head(word, n);
		if (slice_has(word, '@'))
			return word;
	}
	return SLICE("");
}

bool
rules_mailbox_take(struct slice *in, struct rules_mailbox *out)
{
	while (in->len > 0) {
		struct parts parts = parts_take(in);
		struct slice all = slice_trim(parts.all);

		*out = (struct rules_mailbox){ SLICE(""), SLICE("") };
		if (all.len == 0)
			continue;
		if (parts.angle.p[0] == '<') {
			out->address = slice_trim(inside(parts.angle));
			out->phrase = slice_trim(
			    slice_head(parts.all, (size_t)(parts.angle.p - parts.all.p)));
		} else {
			out->address = bare_address(all);
			if (out->address.len == 0)
				out->phrase = all;
		}
		if (out->phrase.len == 0 && parts.comment.len > 0)
			out->phrase = slice_trim(inside(parts.comment));
		if (slice_eq(out->phrase, out->address))
			out->phrase = SLICE("");
		return true;
	}
	return false;
}

struct slice
rules_phrase_plain(struct slice phrase, char *out)
{
	bool quoted = false;
	size_t n = 0;

	for (size_t i = 0; i < phrase.len; i++) {
		char c = phrase.p[i];

		if (c == '"') {
			quoted = !quoted;
			continue;
		}
		if (c == '\\' && quoted && i + 1 < phrase.len)
			c = phrase.p[++i];
		out[n++] = c;
	}
	return slice_trim(slice_of(out, n));
}
