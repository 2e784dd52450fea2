/* relayd/mail/address_list.c - address lists of header fields, obsolete syntax and nonsense
 * included.
 *
 * Words are collected until a special decides what they were: before "<" or ":" a display name,
 * before "@" a local part, at a "," or the end an address without a domain.
 */
#include "relayd/mail/address.h"

#include "relayd/mail/header.h"

#define ITEM_TEXT_MAX 4096 /* octets of name, route, local part and domain together */

/* What one item is made of, while its end is looked for. */
struct gather {
	struct arena *arena;
	struct buf words; /* with a space between where the list had one */
	struct buf domain;
	struct buf route;
	struct buf comment;
	bool at;    /* words are a local part, what follows is the domain */
	bool angle; /* inside <> */
	bool had_angle;
	struct slice name; /* set at "<" */
	char words_store[ITEM_TEXT_MAX], domain_store[ITEM_TEXT_MAX], route_store[ITEM_TEXT_MAX],
	    comment_store[ITEM_TEXT_MAX];
};

static char
peek(const struct address_list *list)
{
	return list->rest.len > 0 ? list->rest.p[0] : '\0';
}

static void
skip(struct address_list *list, size_t n)
{
	list->rest = slice_drop(list->rest, n);
}

static bool
is_blank(char c)
{
	return c == ' ' || c == '\t' || c == '\r' || c == '\n' || c == '\0';
}

static bool
is_special(char c)
{
	return is_blank(c) || strchr("()<>[]:;@,\"", c) != NULL;
}

/* Appends one octet of text; what could break a line does not pass. */
static void
put_octet(struct buf *out, char c)
{
	if (c != '\r' && c != '\n' && c != '\0')
		buf_putc(out, c);
}

/* Takes a comment off the list; its text replaces what *out holds. */
static void
take_comment(struct address_list *list, struct buf *out)
{
	unsigned depth = 0;

	buf_reset(out);
	while (list->rest.len > 0) {
		char c = peek(list);

		if (c == '\\' && list->rest.len > 1) {
			skip(list, 1);
			put_octet(out, peek(list));
		} else if (c == '(' && depth < ADDRESS_LIST_DEPTH) {
			if (depth++ > 0)
				put_octet(out, c);
		} else if (c == ')' && --depth == 0) {
			skip(list, 1);
			return;
		} else {
			put_octet(out, c);
		}
		skip(list, 1);
	}
}

/* Takes a quoted string off the list, or a domain literal, which keeps its brackets. */
static void
take_quoted(struct address_list *list, char close, struct buf *out)
{
	skip(list, 1);
	while (list->rest.len > 0 && peek(list) != close) {
		if (peek(list) == '\\' && list->rest.len > 1)
			skip(list, 1);
		put_octet(out, peek(list));
		skip(list, 1);
	}
	skip(list, 1);
}

static void
take_atom(struct address_list *list, struct buf *out)
{
	size_t n = 0;

	while (n < list->rest.len && !is_special(list->rest.p[n]))
		n++;
	buf_put(out, slice_head(list->rest, n > 0 ? n : 1));
	skip(list, n > 0 ? n : 1);
}

static void
gather_init(struct gather *g, struct arena *arena)
{
	g->arena = arena;
	g->words = buf_over(g->words_store, sizeof(g->words_store));
	g->domain = buf_over(g->domain_store, sizeof(g->domain_store));
	g->route = buf_over(g->route_store, sizeof(g->route_store));
	g->comment = buf_over(g->comment_store, sizeof(g->comment_store));
	g->at = g->angle = g->had_angle = false;
	g->name = SLICE("");
}

/* Where the next word goes, with a space before it if it is not the first of a display name. */
static struct buf *
word_place(struct gather *g, bool spaced)
{
	if (g->at)
		return &g->domain;
	if (spaced && g->words.len > 0 && !g->angle)
		buf_putc(&g->words, ' ');
	return &g->words;
}

/* "<": what came so far was a display name. */
static void
open_angle(struct gather *g)
{
	if (g->at) { /* "a@b <c@d>", seen in the wild: the first was a name */
		buf_putc(&g->words, '@');
		buf_put(&g->words, buf_slice(&g->domain));
	}
	g->name = arena_copy(g->arena, slice_trim(buf_slice(&g->words)));
	buf_reset(&g->words);
	buf_reset(&g->domain);
	g->at = false;
	g->angle = g->had_angle = true;
}

/* "<@a,@b:": RFC 5322 section 4.4.  False, and nothing taken, where no colon ends it. */
static bool
take_route(struct address_list *list, struct buf *out)
{
	size_t n = 0;

	while (n < list->rest.len && list->rest.p[n] != ':' && list->rest.p[n] != '>' &&
	       list->rest.p[n] != '<' && list->rest.p[n] != ';')
		n++;
	if (n >= list->rest.len || list->rest.p[n] != ':')
		return false;
	for (size_t i = 0; i < n; i++)
		if (!is_blank(list->rest.p[i]))
			buf_putc(out, list->rest.p[i]);
	skip(list, n + 1);
	return true;
}

static bool
gather_empty(const struct gather *g)
{
	return g->words.len == 0 && g->domain.len == 0 && !g->had_angle;
}

/* Hands the item over: its text moves to the arena.  False when that is full. */
static bool
gather_done(struct gather *g, struct address_item *item)
{
	item->kind = ADDRESS_ITEM_MAILBOX;
	item->name = g->had_angle ? g->name : SLICE("");
	if (item->name.p != NULL && item->name.len == 0 && g->comment.len > 0)
		item->name = arena_copy(g->arena, slice_trim(buf_slice(&g->comment)));
	item->route = arena_copy(g->arena, buf_slice(&g->route));
	item->local = arena_copy(g->arena, buf_slice(&g->words));
	item->domain = arena_copy(g->arena, buf_slice(&g->domain));
	return item->name.p != NULL && item->route.p != NULL && item->local.p != NULL &&
	       item->domain.p != NULL;
}

static bool
group_start(struct gather *g, struct address_item *item)
{
	item->kind = ADDRESS_ITEM_GROUP;
	item->name = arena_copy(g->arena, slice_trim(buf_slice(&g->words)));
	item->route = item->local = item->domain = SLICE("");
	return item->name.p != NULL;
}

/* Takes one thing that is no end of an item. */
static void
gather_one(struct gather *g, struct address_list *list, bool spaced)
{
	char c = peek(list);

	if (c == '(') {
		take_comment(list, &g->comment);
	} else if (c == '"') {
		take_quoted(list, '"', word_place(g, spaced));
	} else if (c == '[') {
		struct buf *out = word_place(g, spaced);

		buf_putc(out, '[');
		take_quoted(list, ']', out);
		buf_putc(out, ']');
	} else if (c == '@' && !g->at) {
		skip(list, 1);
		if (g->words.len == 0 && g->angle) {
			list->rest = (struct slice){ list->rest.p - 1, list->rest.len + 1 };
			if (take_route(list, &g->route))
				return;
			skip(list, 1);
		}
		g->at = true;
	} else if (c == '<' && !g->angle) {
		skip(list, 1);
		open_angle(g);
	} else if (c == '>') {
		skip(list, 1);
		g->angle = false;
	} else if (g->had_angle && !g->angle) {
		char dropped[1];
		struct buf none = buf_over(dropped, 0);

		take_atom(list, &none); /* text behind "<a@b>" means nothing */
	} else {
		take_atom(list, word_place(g, spaced));
	}
}

/* Takes the end of an item off the list, if it stands there: true, and what the item is. */
static bool
at_end(struct gather *g, struct address_list *list, struct address_item *item, bool *full)
{
	char c = peek(list);
	bool ends = list->rest.len == 0 || (c == ',' && !g->angle) || (c == ';' && !g->angle);

	if (c == ':' && !g->angle && !g->at && !g->had_angle && !list->in_group) {
		skip(list, 1);
		list->in_group = true;
		*full = !group_start(g, item);
		return true;
	}
	if (!ends || gather_empty(g))
		return false;
	if (c == ',' && list->rest.len > 0)
		skip(list, 1); /* ";" stays, to end the group */
	*full = !gather_done(g, item);
	return true;
}

bool
address_list_next(struct address_list *list, struct arena *arena, struct address_item *item)
{
	struct gather g;
	bool spaced = false, full = false;

	gather_init(&g, arena);
	for (;;) {
		if (list->rest.len > 0 && is_blank(peek(list))) {
			skip(list, 1);
			spaced = true;
			continue;
		}
		if (at_end(&g, list, item, &full))
			return !full;
		if (list->rest.len == 0 || peek(list) == ';') {
			bool ended = list->in_group;

			skip(list, 1);
			list->in_group = false;
			if (ended) {
				*item = (struct address_item){ ADDRESS_ITEM_GROUP_END, SLICE(""),
					SLICE(""), SLICE(""), SLICE("") };
				return true;
			}
			if (list->rest.len == 0)
				return false;
			continue;
		}
		if (peek(list) == ',' && !g.angle)
			skip(list, 1);
		else
			gather_one(&g, list, spaced);
		spaced = false;
	}
}
