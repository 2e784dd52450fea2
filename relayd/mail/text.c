/* relayd/mail/text.c - what a reader sees of a part: its text, html as visible text. */
#include "relayd/mail/text.h"

#include "relayd/mail/charset.h"

#define NO_BREAK_SPACE "\xc2\xa0"
#define ENTITY_MAX     32 /* octets of a character reference; a longer one is text */

/* Elements by what they do to the text around them. */
static const char *const blocks[] = { "address", "article", "aside", "br", "center", "dd", "div",
	"dl", "dt", "fieldset", "footer", "form", "h1", "h2", "h3", "h4", "h5", "h6", "header",
	"li", "main", "nav", "ol", "option", "section", "table", "tbody", "tfoot", "thead", "tr",
	"ul", NULL };
static const char *const paragraphs[] = { "p", "blockquote", "hr", "pre", "listing", "plaintext",
	"xmp", "title", NULL };
static const char *const hidden[] = { "script", "style", "title", "noframes", "template", NULL };

/* The names that mail uses to disguise words, and the usual ones. */
static const struct {
	const char *name;
	uint32_t code;
} entities[] = {
	{ "amp", '&' },
	{ "lt", '<' },
	{ "gt", '>' },
	{ "quot", '"' },
	{ "apos", '\'' },
	{ "nbsp", 0xa0 },
	{ "iexcl", 0xa1 },
	{ "cent", 0xa2 },
	{ "pound", 0xa3 },
	{ "curren", 0xa4 },
	{ "yen", 0xa5 },
	{ "brvbar", 0xa6 },
	{ "sect", 0xa7 },
	{ "uml", 0xa8 },
	{ "copy", 0xa9 },
	{ "ordf", 0xaa },
	{ "laquo", 0xab },
	{ "not", 0xac },
	{ "shy", 0xad },
	{ "reg", 0xae },
	{ "macr", 0xaf },
	{ "deg", 0xb0 },
	{ "plusmn", 0xb1 },
	{ "sup2", 0xb2 },
	{ "sup3", 0xb3 },
	{ "acute", 0xb4 },
	{ "micro", 0xb5 },
	{ "para", 0xb6 },
	{ "middot", 0xb7 },
	{ "cedil", 0xb8 },
	{ "sup1", 0xb9 },
	{ "ordm", 0xba },
	{ "raquo", 0xbb },
	{ "frac14", 0xbc },
	{ "frac12", 0xbd },
	{ "frac34", 0xbe },
	{ "iquest", 0xbf },
	{ "Agrave", 0xc0 },
	{ "Aacute", 0xc1 },
	{ "Acirc", 0xc2 },
	{ "Atilde", 0xc3 },
	{ "Auml", 0xc4 },
	{ "Aring", 0xc5 },
	{ "AElig", 0xc6 },
	{ "Ccedil", 0xc7 },
	{ "Egrave", 0xc8 },
	{ "Eacute", 0xc9 },
	{ "Ecirc", 0xca },
	{ "Euml", 0xcb },
	{ "Igrave", 0xcc },
	{ "Iacute", 0xcd },
	{ "Icirc", 0xce },
	{ "Iuml", 0xcf },
	{ "ETH", 0xd0 },
	{ "Ntilde", 0xd1 },
	{ "Ograve", 0xd2 },
	{ "Oacute", 0xd3 },
	{ "Ocirc", 0xd4 },
	{ "Otilde", 0xd5 },
	{ "Ouml", 0xd6 },
	{ "times", 0xd7 },
	{ "Oslash", 0xd8 },
	{ "Ugrave", 0xd9 },
	{ "Uacute", 0xda },
	{ "Ucirc", 0xdb },
	{ "Uuml", 0xdc },
	{ "Yacute", 0xdd },
	{ "THORN", 0xde },
	{ "szlig", 0xdf },
	{ "agrave", 0xe0 },
	{ "aacute", 0xe1 },
	{ "acirc", 0xe2 },
	{ "atilde", 0xe3 },
	{ "auml", 0xe4 },
	{ "aring", 0xe5 },
	{ "aelig", 0xe6 },
	{ "ccedil", 0xe7 },
	{ "egrave", 0xe8 },
	{ "eacute", 0xe9 },
	{ "ecirc", 0xea },
	{ "euml", 0xeb },
	{ "igrave", 0xec },
	{ "iacute", 0xed },
	{ "icirc", 0xee },
	{ "iuml", 0xef },
	{ "eth", 0xf0 },
	{ "ntilde", 0xf1 },
	{ "ograve", 0xf2 },
	{ "oacute", 0xf3 },
	{ "ocirc", 0xf4 },
	{ "otilde", 0xf5 },
	{ "ouml", 0xf6 },
	{ "divide", 0xf7 },
	{ "oslash", 0xf8 },
	{ "ugrave", 0xf9 },
	{ "uacute", 0xfa },
	{ "ucirc", 0xfb },
	{ "uuml", 0xfc },
	{ "yacute", 0xfd },
	{ "thorn", 0xfe },
	{ "yuml", 0xff },
	{ "OElig", 0x152 },
	{ "oelig", 0x153 },
	{ "Scaron", 0x160 },
	{ "scaron", 0x161 },
	{ "Yuml", 0x178 },
	{ "ensp", 0x2002 },
	{ "emsp", 0x2003 },
	{ "thinsp", 0x2009 },
	{ "zwnj", 0x200c },
	{ "zwj", 0x200d },
	{ "lrm", 0x200e },
	{ "rlm", 0x200f },
	{ "ndash", 0x2013 },
	{ "mdash", 0x2014 },
	{ "lsquo", 0x2018 },
	{ "rsquo", 0x2019 },
	{ "sbquo", 0x201a },
	{ "ldquo", 0x201c },
	{ "rdquo", 0x201d },
	{ "bdquo", 0x201e },
	{ "dagger", 0x2020 },
	{ "bull", 0x2022 },
	{ "hellip", 0x2026 },
	{ "permil", 0x2030 },
	{ "lsaquo", 0x2039 },
	{ "rsaquo", 0x203a },
	{ "euro", 0x20ac },
	{ "trade", 0x2122 },
	{ "larr", 0x2190 },
	{ "rarr", 0x2192 },
	{ "minus", 0x2212 },
	{ "infin", 0x221e },
	{ "hearts", 0x2665 },
};

struct page {
	struct slice in;
	struct buf *out;
	size_t from;                 /* where this text begins in out */
	bool space;                  /* owed before the next visible character */
	unsigned lines;              /* the same: 1 a new line, 2 an empty one */
	bool no_quoted_end;          /* from here on no tag ends outside of its quotes */
	bool no_end, no_comment_end; /* from here on there is no ">", no "-->" nor "--!>" */
};

static bool
is_space(char c)
{
	return c == ' ' || c == '\t' || c == '\r' || c == '\n' || c == '\f';
}

static bool
listed(const char *const *list, struct slice name)
{
	for (; *list != NULL; list++)
		if (slice_ieq(slice_str(*list), name))
			return true;
	return false;
}

/* Length of the no-break space or of the invisible character (soft hyphen, zero width, byte order
 * mark) at the front of s, or 0.  The latter serve to split words that a filter looks for. */
static size_t
special_length(struct slice s)
{
	unsigned char c = (unsigned char)s.p[0];

	if (c != 0xc2 && c != 0xe2 && c != 0xef)
		return 0;
	if (slice_starts(s, SLICE(NO_BREAK_SPACE)) || slice_starts(s, SLICE("\xc2\xad")))
		return 2;
	if (slice_starts(s, SLICE("\xe2\x80\x8b")) || slice_starts(s, SLICE("\xe2\x80\x8c")) ||
	    slice_starts(s, SLICE("\xe2\x80\x8d")) || slice_starts(s, SLICE("\xef\xbb\xbf")))
		return 3;
	return 0;
}

/* White space is owed, and paid once before what is visible. */
static void
pay(struct page *pg)
{
	if (pg->out->len > pg->from) {
		if (pg->lines > 0)
			buf_puts(pg->out, pg->lines == 1 ? "\n" : "\n\n");
		else if (pg->space)
			buf_putc(pg->out, ' ');
	}
	pg->lines = 0;
	pg->space = false;
}

/* Length of the run at the front of s that is neither white space nor an invisible character. */
static size_t
run_length(struct slice s)
{
	size_t n = 0;

	while (n < s.len && !is_space(s.p[n]) && special_length(slice_drop(s, n)) == 0)
		n++;
	return n;
}

static void
put_text(struct page *pg, struct slice text)
{
	while (text.len > 0 && !pg->out->overflow) {
		size_t n = run_length(text);

		if (n > 0) {
			pay(pg);
			buf_put(pg->out, slice_head(text, n));
		} else {
			n = special_length(text);
			pg->space = pg->space || n < 2 || slice_starts(text, SLICE(NO_BREAK_SPACE));
			n = n > 0 ? n : 1;
		}
		text = slice_drop(text, n);
	}
}

static void
put_code(struct page *pg, uint32_t code)
{
	char storage[4];
	struct buf utf8 = buf_over(storage, sizeof(storage));

	utf8_put(code, &utf8);
	put_text(pg, code < ' ' ? SLICE(" ") : buf_slice(&utf8));
}

/* "#8364", "#x20ac" */
static bool
numeric(struct slice ref, uint32_t *code)
{
	bool hex = ref.len > 1 && slice_lower(ref.p[1]) == 'x';
	uint32_t n = 0;

	ref = slice_drop(ref, hex ? 2 : 1);
	if (ref.len == 0)
		return false;
	for (size_t i = 0; i < ref.len; i++) {
		char c = slice_lower(ref.p[i]);
		uint32_t digit = c >= '0' && c <= '9'          ? (uint32_t)(c - '0')
				 : hex && c >= 'a' && c <= 'f' ? (uint32_t)(c - 'a' + 10)
							       : 99;

		if (digit == 99)
			return false;
		n = n > 0x110000 ? n : n * (hex ? 16 : 10) + digit;
	}
	*code = n == 0 || n > 0x10ffff ? 0xfffd : n;
	return true;
}

static bool
named(struct slice ref, uint32_t *code)
{
	for (size_t i = 0; i < sizeof(entities) / sizeof(entities[0]); i++)
		if (slice_eq(ref, slice_str(entities[i].name))) {
			*code = entities[i].code;
			return true;
		}
	return false;
}

/* Takes "&name;" off the input; "&" alone is text. */
static void
take_entity(struct page *pg)
{
	struct slice ref = slice_head(slice_drop(pg->in, 1), ENTITY_MAX);
	size_t n = 0;
	uint32_t code;

	while (n < ref.len && ref.p[n] != ';' && ref.p[n] != '&' && ref.p[n] != '<' &&
	       !is_space(ref.p[n]))
		n++;
	ref = slice_head(ref, n);
	if (ref.len > 0 && (ref.p[0] == '#' ? numeric(ref, &code) : named(ref, &code))) {
		pg->in = slice_drop(pg->in, 1 + n);
		if (pg->in.len > 0 && pg->in.p[0] == ';')
			pg->in = slice_drop(pg->in, 1);
		put_code(pg, code);
		return;
	}
	pg->in = slice_drop(pg->in, 1);
	put_text(pg, SLICE("&"));
}

/* Length of the tag at the front of s, which starts with "<": a ">" in quotes does not end it.  0
 * without an end. */
static size_t
quoted_tag_length(struct slice s)
{
	char quote = '\0';

	for (size_t i = 1; i < s.len; i++) {
		char c = s.p[i];

		if (quote != '\0')
			quote = c == quote ? '\0' : quote;
		else if ((c == '"' || c == '\'') && s.p[i - 1] == '=')
			quote = c;
		else if (c == '>')
			return i + 1;
	}
	return 0;
}

/* Octets up to the first ">" with it; 0 without one.  Each search that fails is the last of its
 * kind, so that the whole stays linear. */
static size_t
plain_tag_length(struct page *pg)
{
	size_t n = pg->no_end ? pg->in.len : slice_until(pg->in, '>').len;

	pg->no_end = n == pg->in.len;
	return pg->no_end ? 0 : n + 1;
}

/* The length of a tag; where quotes that never close have been met, the first ">" ends it. */
static size_t
tag_length(struct page *pg)
{
	size_t n = pg->no_quoted_end ? 0 : quoted_tag_length(pg->in);

	if (n > 0)
		return n;
	pg->no_quoted_end = true;
	return plain_tag_length(pg);
}

static bool
is_letter(char c)
{
	return slice_lower(c) >= 'a' && slice_lower(c) <= 'z';
}

/* A name begins with a letter; any other "<" is text. */
static bool
begins_tag(struct slice s)
{
	s = slice_drop(s, s.len > 1 && s.p[1] == '/' ? 2 : 1);
	return s.len > 0 && is_letter(s.p[0]);
}

static struct slice
tag_name(struct slice tag)
{
	size_t n = 0;

	tag = slice_drop(tag, tag.len > 1 && tag.p[1] == '/' ? 2 : 1);
	while (n < tag.len && !is_space(tag.p[n]) && tag.p[n] != '>' && tag.p[n] != '/')
		n++;
	return slice_head(tag, n);
}

/* Drops what stands before "</name" and so much of the end tag. */
static void
skip_element(struct page *pg, struct slice name)
{
	for (;;) {
		size_t at = slice_find(pg->in, SLICE("</"));

		pg->in = slice_drop(pg->in, at);
		if (pg->in.len == 0)
			return;
		if (slice_istarts(slice_drop(pg->in, 2), name))
			return; /* the end tag itself is read as any other */
		pg->in = slice_drop(pg->in, 2);
	}
}

/* Length of the comment at the front of s, which starts with "<!--"; 0 without an end.  "<!-->" is
 * whole, and "--!>" an end (HTML 13.2.5.43 to 13.2.5.52). */
static size_t
comment_length(struct slice s)
{
	size_t at = strlen("<!");

	for (;; at++) {
		struct slice rest = slice_drop(s, at);

		at += slice_find(rest, SLICE("--"));
		rest = slice_drop(s, at);
		if (rest.len == 0)
			return 0;
		if (slice_starts(rest, SLICE("-->")))
			return at + strlen("-->");
		if (at >= strlen("<!--") && slice_starts(rest, SLICE("--!>")))
			return at + strlen("--!>");
	}
}

/* What browsers take for a comment without end is text here: nothing hides in it. */
static void
take_comment(struct page *pg)
{
	size_t n = pg->no_comment_end ? 0 : comment_length(pg->in);

	pg->no_comment_end = n == 0;
	pg->in = slice_drop(pg->in, n > 0 ? n : strlen("<!--"));
}

/* "<!", "<?" or "</" that begins no tag: a browser shows nothing of it up to the first ">", in
 * quotes or not (HTML 13.2.5.41). */
static bool
is_bogus_comment(struct slice s)
{
	char c = s.len > 1 ? s.p[1] : '\0';

	return c == '!' || c == '?' || (c == '/' && s.len > 2 && !begins_tag(s));
}

static void
take_bogus_comment(struct page *pg)
{
	size_t n = plain_tag_length(pg);

	if (n == 0)
		put_text(pg, SLICE("<"));
	pg->in = slice_drop(pg->in, n > 0 ? n : 1);
}

static void
take_tag(struct page *pg)
{
	size_t n = begins_tag(pg->in) ? tag_length(pg) : 0;
	struct slice tag = slice_head(pg->in, n), name = tag_name(tag);

	if (name.len == 0) {
		pg->in = slice_drop(pg->in, 1);
		put_text(pg, SLICE("<"));
		return;
	}
	if (listed(paragraphs, name))
		pg->lines = 2;
	else if (listed(blocks, name))
		pg->lines = pg->lines > 1 ? 2 : 1;
	else if (slice_ieq(name, SLICE("td")) || slice_ieq(name, SLICE("th")))
		pg->space = true;
	pg->in = slice_drop(pg->in, n);
	if (listed(hidden, name) && tag.p[1] != '/')
		skip_element(pg, name);
}

void
text_of_html(struct slice html, struct buf *out)
{
	struct page pg = { .in = html, .out = out, .from = out->len };

	while (pg.in.len > 0 && !out->overflow) {
		size_t n = 0;

		while (n < pg.in.len && pg.in.p[n] != '<' && pg.in.p[n] != '&')
			n++;
		put_text(&pg, slice_head(pg.in, n));
		pg.in = slice_drop(pg.in, n);
		if (pg.in.len == 0)
			break;
		if (pg.in.p[0] == '&')
			take_entity(&pg);
		else if (slice_starts(pg.in, SLICE("<!--")))
			take_comment(&pg);
		else if (is_bogus_comment(pg.in))
			take_bogus_comment(&pg);
		else
			take_tag(&pg);
	}
	if (out->len > pg.from)
		buf_putc(out, '\n');
}

void
text_of_part(
    const struct mime *mime, const struct mime_part *part, struct buf *scratch, struct buf *out)
{
	if (part->kind != MIME_LEAF || !mime_is(part, "text", "html")) {
		mime_text(mime, part, out);
		return;
	}
	buf_reset(scratch);
	mime_text(mime, part, scratch);
	text_of_html(buf_slice(scratch), out);
}
