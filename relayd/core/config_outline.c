/* relayd/core/config_outline.c - which option of which section stands on which line of the
 * config. */
#include "relayd/core/config_outline.h"

#define ENTRIES_MAX 60000
#define HEADS 4096	/* a power of two */

enum token_type {
	TOKEN_END,
	TOKEN_WORD,
	TOKEN_OPEN,
	TOKEN_CLOSE,
	TOKEN_SET,
	TOKEN_ADD,
	TOKEN_OTHER
};

struct token {
	enum token_type type;
	struct slice text;	/* of a word, without its quotes */
	int line;
};

struct lexer {
	struct slice rest;
	int line;
};

struct entry {
	struct slice section, title, option;	/* option empty: the section itself */
	int line;
	struct entry *next;
	struct entry *same_hash;
};

struct config_outline {
	struct arena *arena;
	struct entry *first, **tail;
	struct entry *hashed[HEADS];
	size_t n;
};

static void
advance(struct lexer *lx, size_t n)
{
	for (size_t i = 0; i < n && i < lx->rest.len; i++)
		lx->line += lx->rest.p[i] == '\n';
	lx->rest = slice_drop(lx->rest, n);
}

static bool
is_blank(char c)
{
	return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

/* Of the comment, one of three kinds, that s begins with; 0 when it does not.  One that is not
 * closed ends behind s. */
static size_t
comment_len(struct slice s)
{
	if (slice_starts(s, SLICE("#")) || slice_starts(s, SLICE("//")))
		return slice_until(s, '\n').len;
	if (slice_starts(s, SLICE("/*")))
		return slice_find(slice_drop(s, 2), SLICE("*/")) + 4;
	return 0;
}

static void
skip_blank(struct lexer *lx)
{
	while (lx->rest.len > 0) {
		size_t n = is_blank(lx->rest.p[0]) ? 1 : comment_len(lx->rest);

		if (n == 0)
			return;
		advance(lx, n);
	}
}

static size_t
quoted_len(struct slice s)
{
	for (size_t i = 1; i < s.len; i++) {
		if (s.p[i] == '\\')
			i++;
		else if (s.p[i] == s.p[0])
			return i + 1;
	}
	return s.len;
}

static size_t
word_len(struct slice s)
{
	size_t n = 0;

	while (n < s.len && memchr(" \t\r\n\"'#{}()=,", s.p[n], 12) == NULL && s.p[n] != '\0' &&
	    !slice_starts(slice_drop(s, n), SLICE("+=")))
		n++;
	return n;
}

static struct token
next_token(struct lexer *lx)
{
	struct token t = { .type = TOKEN_OTHER };
	size_t n = 1;

	skip_blank(lx);
	t.line = lx->line;
	if (lx->rest.len == 0) {
		t.type = TOKEN_END;
		return t;
	}
	switch (lx->rest.p[0]) {
	case '{':
		t.type = TOKEN_OPEN;
		break;
	case '}':
		t.type = TOKEN_CLOSE;
		break;
	case '=':
		t.type = TOKEN_SET;
		break;
	case '"':
	case '\'':
		n = quoted_len(lx->rest);
		t.type = TOKEN_WORD;
		t.text = slice_of(lx->rest.p + 1, n > 1 ? n - 2 : 0);
		break;
	case ',':
	case '(':
	case ')':
		break;
	default:
		if (slice_starts(lx->rest, SLICE("+="))) {
			t.type = TOKEN_ADD;
			n = 2;
			break;
		}
		n = word_len(lx->rest);
		n = n > 0 ? n : 1;
		t.type = TOKEN_WORD;
		t.text = slice_head(lx->rest, n);
	}
	advance(lx, n);
	return t;
}

/* FNV-1a; the case of titles does not count. */
static size_t
hash_of(struct slice section, struct slice title, struct slice option)
{
	uint32_t h = 2166136261u;

	for (size_t i = 0; i < title.len; i++) {
		uint8_t c = (uint8_t)title.p[i];

		h = (h ^ (c >= 'A' && c <= 'Z' ? c + 32u : c)) * 16777619u;
	}
	for (size_t i = 0; i < section.len; i++)
		h = (h ^ (uint8_t)section.p[i]) * 16777619u;
	for (size_t i = 0; i < option.len; i++)
		h = (h ^ (uint8_t)option.p[i]) * 16777619u;
	return (h ^ h >> 16) & (HEADS - 1);
}

static const struct entry *
find(const struct config_outline *o, struct slice section, struct slice title, struct slice option)
{
	for (const struct entry *e = o->hashed[hash_of(section, title, option)]; e != NULL;
	     e = e->same_hash)
		if (slice_eq(e->option, option) && slice_eq(e->section, section) &&
		    slice_ieq(e->title, title))
			return e;
	return NULL;
}

static int
add(struct config_outline *o, struct entry what, bool again, struct err *err)
{
	const struct entry *old = find(o, what.section, what.title, what.option);
	struct entry **head = &o->hashed[hash_of(what.section, what.title, what.option)], *e;

	if (old != NULL && again)
		return 0;
	if (old != NULL && what.option.len > 0)
		return err_set(err, ERR_CONFIG, "%d: %.*s is given twice (first on line %d)",
		    what.line, SLICE_FMT(what.option), old->line);
	if (old != NULL)
		return err_set(err, ERR_CONFIG,
		    "%d: section %.*s%s%.*s is given twice (first on line %d)", what.line,
		    SLICE_FMT(what.section), what.title.len > 0 ? " " : "", SLICE_FMT(what.title),
		    old->line);
	if (o->n++ >= ENTRIES_MAX || (e = arena_alloc(o->arena, sizeof(*e))) == NULL)
		return err_set(err, ERR_LIMIT, "%d: the config is too large", what.line);
	what.option = arena_copy(o->arena, what.option);
	what.next = NULL;
	*e = what;
	e->same_hash = *head;
	*head = e;
	*o->tail = e;
	o->tail = &e->next;
	return what.option.p != NULL ? 0 : err_set(err, ERR_LIMIT, "%d: the config is too large",
					       what.line);
}

/* Passes over the value of an option: one word or a list in braces. */
static void
skip_value(struct lexer *lx)
{
	struct token t = next_token(lx);

	if (t.type != TOKEN_OPEN)
		return;
	while (t.type != TOKEN_CLOSE && t.type != TOKEN_END)
		t = next_token(lx);
}

int
config_outline_blank(char *text, size_t len)
{
	struct lexer lx = { .rest = slice_of(text, len), .line = 1 };

	while (lx.rest.len > 0) {
		size_t n = comment_len(lx.rest);

		if (n > lx.rest.len)
			return lx.line;
		for (char *p = text + (len - lx.rest.len), *end = p + n; p < end; p++)
			*p = *p == '\n' ? '\n' : ' ';
		if (n > 0 || is_blank(lx.rest.p[0]))
			advance(&lx, n > 0 ? n : 1);
		else
			(void)next_token(&lx);	/* quotes may hold what looks like a comment */
	}
	return 0;
}

struct config_outline *
config_outline_read(struct slice text, struct arena *arena, struct err *err)
{
	struct config_outline *o = arena_alloc(arena, sizeof(*o));
	struct lexer lx = { .rest = text, .line = 1 };
	struct entry in = { 0 };	/* the section that is open */

	if (o == NULL) {
		err_set(err, ERR_LIMIT, "1: the config is too large");
		return NULL;
	}
	o->arena = arena;
	o->tail = &o->first;
	in.section = in.title = in.option = SLICE("");
	for (;;) {
		struct token name = next_token(&lx);
		struct token then;
		struct entry e = in;

		if (name.type == TOKEN_END && in.section.len > 0) { /* libconfuse does not mind */
			err_set(err, ERR_CONFIG, "%d: section %.*s%s%.*s is not closed", in.line,
			    SLICE_FMT(in.section), in.title.len > 0 ? " " : "",
			    SLICE_FMT(in.title));
			return NULL;
		}
		if (name.type == TOKEN_END)
			return o;
		if (name.type == TOKEN_CLOSE)
			in.section = in.title = SLICE("");
		if (name.type != TOKEN_WORD)
			continue;
		then = next_token(&lx);
		e.line = name.line;
		if (then.type == TOKEN_SET || then.type == TOKEN_ADD) {
			e.option = name.text;
			if (add(o, e, then.type == TOKEN_ADD, err) < 0)
				return NULL;
			skip_value(&lx);
			continue;
		}
		in.section = e.section = name.text;
		in.title = e.title = then.type == TOKEN_WORD ? then.text : SLICE("");
		in.line = e.line;
		if (then.type == TOKEN_WORD)
			(void)next_token(&lx);	/* its brace: libconfuse has seen to that */
		if (add(o, e, false, err) < 0)
			return NULL;
	}
}

int
config_outline_line(const struct config_outline *outline, const char *section, const char *title,
    const char *option)
{
	const struct entry *e =
	    find(outline, slice_str(section), slice_str(title), slice_str(option));

	return e != NULL ? e->line : 0;
}

const char *
config_outline_option(const struct config_outline *outline, const char *section,
    const char *title, size_t index)
{
	for (const struct entry *e = outline->first; e != NULL; e = e->next)
		if (e->option.len > 0 && slice_eq(e->section, slice_str(section)) &&
		    slice_ieq(e->title, slice_str(title)) && index-- == 0)
			return e->option.p;
	return NULL;
}
