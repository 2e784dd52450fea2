/* relayd/review/imap/search.c - does a message fit the keys of a SEARCH? */
#include "relayd/review/imap/search.h"

#include "relayd/mail/charset.h"
#include "relayd/mail/header.h"
#include "relayd/review/imap/section.h"

#define DAY_MS    86400000
#define FIELD_MAX (256u << 10) /* octets of one header field, decoded, that are searched */

/* ---- making ready ---- */

struct prepare {
	struct slice charset;
	const struct store_box *box;
	uint32_t last_number, last_uid;
	struct arena *arena;
};

/* The text to be found: UTF-8, without case. */
static bool
prepare_text(struct prepare *pr, struct slice *text)
{
	struct buf utf8 = buf_heap(4 * text->len + 16), folded = buf_heap(8 * text->len + 16);
	struct slice copy = { NULL, 0 };

	(void)charset_to_utf8(pr->charset, *text, &utf8); /* best there is */
	utf8_fold(buf_slice(&utf8), &folded);
	if (!utf8.overflow && !folded.overflow)
		copy = arena_copy(pr->arena, buf_slice(&folded));
	buf_fini(&utf8);
	buf_fini(&folded);
	if (copy.p != NULL)
		*text = copy;
	return copy.p != NULL;
}

static uint64_t
keyword_bit(const struct store_box *box, struct slice name)
{
	const char *keyword;

	for (size_t n = 0; (keyword = store_box_keyword(box, n)) != NULL; n++)
		if (slice_ieq(name, slice_str(keyword)))
			return STORE_KEYWORD_BIT(n);
	return 0;
}

static bool
prepare_key(struct prepare *pr, struct imap_key *key)
{
	struct imap_key *child;

	switch (key->kind) {
	case IMAP_KEY_KEYWORD:
	case IMAP_KEY_NO_KEYWORD:
		key->flag = keyword_bit(pr->box, key->name);
		return true;
	case IMAP_KEY_SEQUENCE:
		imap_set_resolve(&key->set, pr->last_number);
		return true;
	case IMAP_KEY_UID:
		imap_set_resolve(&key->set, pr->last_uid);
		return true;
	case IMAP_KEY_HEADER:
	case IMAP_KEY_BODY:
	case IMAP_KEY_TEXT:
		return prepare_text(pr, &key->text);
	case IMAP_KEY_NOT:
		return prepare_key(pr, key->a);
	case IMAP_KEY_OR:
		return prepare_key(pr, key->a) && prepare_key(pr, key->b);
	case IMAP_KEY_AND:
		for (child = key->a; child != NULL; child = child->next)
			if (!prepare_key(pr, child))
				return false;
		return true;
	default:
		return true;
	}
}

int
imap_search_prepare(struct imap_key *key, struct slice charset, const struct store_box *box,
    uint32_t last_number, uint32_t last_uid, struct arena *arena)
{
	struct prepare pr = { charset, box, last_number, last_uid, arena };

	if (charset.len == 0)
		pr.charset = SLICE("UTF-8"); /* a superset of US-ASCII, and what clients mean */
	if (!charset_known(pr.charset))
		return -1;
	return prepare_key(&pr, key) ? 0 : -1;
}

/* ---- looking for text ---- */

static enum imap_found
found(bool yes)
{
	return yes ? IMAP_FOUND_YES : IMAP_FOUND_NO;
}

/* text: UTF-8 in any case. */
static bool
has_text(struct slice text, struct slice wanted)
{
	struct buf folded = buf_heap(2 * text.len + 16);
	bool has;

	utf8_fold(text, &folded);
	has = wanted.len == 0 || slice_find(buf_slice(&folded), wanted) < folded.len;
	buf_fini(&folded);
	return has;
}

static bool
field_has(struct slice body, struct slice wanted)
{
	struct buf text = buf_heap(FIELD_MAX);
	bool has;

	header_decode(body, &text);
	has = has_text(buf_slice(&text), wanted);
	buf_fini(&text);
	return has;
}

/* Any field of that name; without a name, any field, its name included. */
static bool
header_has(struct slice header, const struct slice *name, struct slice wanted)
{
	struct header_iter it = header_iter_of(header);
	struct header_field field;

	while (header_next(&it, &field)) {
		if (name != NULL ? slice_ieq(field.name, *name) && field_has(field.body, wanted)
				 : has_text(field.name, wanted) || field_has(field.body, wanted))
			return true;
	}
	return false;
}

static bool
part_has(const struct mime *mime, const struct mime_part *p, struct slice wanted)
{
	struct buf text;
	bool has;

	if (!mime_is_text(p))
		return false;
	text = buf_heap(IMAP_SEARCH_TEXT_MAX);
	mime_text(mime, p, &text);
	has = has_text(buf_slice(&text), wanted);
	buf_fini(&text);
	return has;
}

/* The texts of all parts, and the headers of messages within the message. */
static bool
body_has(struct slice view, struct slice wanted)
{
	struct arena arena = arena_of(MIME_ARENA_BYTES(view.len));
	struct mime mime;
	bool has = false;

	if (mime_parse(view, &arena, &mime) == 0)
		for (size_t i = 0; i < mime.n_parts && !has; i++) {
			const struct mime_part *p = &mime.parts[i];

			has = part_has(&mime, p, wanted) ||
			      (i > 0 && mime.parts[p->parent].kind == MIME_MESSAGE &&
				  header_has(mime_header(&mime, p), NULL, wanted));
		}
	arena_fini(&arena);
	return has;
}

/* ---- the keys ---- */

static enum imap_found
match_header(const struct imap_key *key, const struct imap_candidate *c)
{
	if (c->has_view)
		return found(header_has(c->view, &key->name, key->text));
	if (c->description == NULL || c->description->header.len == 0 ||
	    imap_is_top_field(key->name))
		return IMAP_FOUND_UNKNOWN;
	return found(header_has(c->description->header, &key->name, key->text));
}

static enum imap_found
match_text(const struct imap_key *key, const struct imap_candidate *c)
{
	if (c->has_view)
		return found(header_has(c->view, NULL, key->text) || body_has(c->view, key->text));
	if (c->description != NULL && header_has(c->description->header, NULL, key->text))
		return IMAP_FOUND_YES;
	return IMAP_FOUND_UNKNOWN;
}

/* Days are of UTC, as INTERNALDATE is shown. */
static enum imap_found
match_date(const struct imap_key *key, const struct imap_candidate *c)
{
	int64_t day = c->entry.stored_ms / DAY_MS;

	switch (key->kind) {
	case IMAP_KEY_BEFORE:
		return found(day < key->number);
	case IMAP_KEY_ON:
		return found(day == key->number);
	default:
		return found(day >= key->number);
	}
}

static enum imap_found
match_sent(const struct imap_key *key, const struct imap_candidate *c)
{
	int64_t day;

	if (c->description == NULL)
		return c->has_view ? IMAP_FOUND_NO : IMAP_FOUND_UNKNOWN;
	if (!c->description->has_sent)
		return IMAP_FOUND_NO;
	day = c->description->sent_day;
	switch (key->kind) {
	case IMAP_KEY_SENTBEFORE:
		return found(day < key->number);
	case IMAP_KEY_SENTON:
		return found(day == key->number);
	default:
		return found(day >= key->number);
	}
}

static enum imap_found
match_not(const struct imap_key *key, const struct imap_candidate *c)
{
	enum imap_found a = imap_search_match(key->a, c);

	return a == IMAP_FOUND_UNKNOWN ? a : found(a == IMAP_FOUND_NO);
}

static enum imap_found
match_or(const struct imap_key *key, const struct imap_candidate *c)
{
	enum imap_found a = imap_search_match(key->a, c), b;

	if (a == IMAP_FOUND_YES)
		return a;
	b = imap_search_match(key->b, c);
	return b == IMAP_FOUND_YES || a == IMAP_FOUND_NO ? b : a;
}

static enum imap_found
match_and(const struct imap_key *key, const struct imap_candidate *c)
{
	enum imap_found all = IMAP_FOUND_YES;

	for (const struct imap_key *child = key->a; child != NULL; child = child->next) {
		enum imap_found one = imap_search_match(child, c);

		if (one == IMAP_FOUND_NO)
			return one;
		if (one == IMAP_FOUND_UNKNOWN)
			all = one;
	}
	return all;
}

/* As deep as IMAP_DEPTH_MAX lets keys be nested. */
enum imap_found
imap_search_match(const struct imap_key *key, const struct imap_candidate *c)
{
	uint64_t flags = c->entry.flags;

	switch (key->kind) {
	case IMAP_KEY_ALL:
		return IMAP_FOUND_YES;
	case IMAP_KEY_FLAG:
	case IMAP_KEY_KEYWORD:
		return found((flags & key->flag) != 0);
	case IMAP_KEY_NO_FLAG:
	case IMAP_KEY_NO_KEYWORD:
		return found((flags & key->flag) == 0);
	case IMAP_KEY_RECENT:
		return found(c->recent);
	case IMAP_KEY_OLD:
		return found(!c->recent);
	case IMAP_KEY_NEW:
		return found(c->recent && (flags & STORE_SEEN) == 0);
	case IMAP_KEY_BEFORE:
	case IMAP_KEY_ON:
	case IMAP_KEY_SINCE:
		return match_date(key, c);
	case IMAP_KEY_SENTBEFORE:
	case IMAP_KEY_SENTON:
	case IMAP_KEY_SENTSINCE:
		return match_sent(key, c);
	case IMAP_KEY_LARGER:
		return found(c->entry.size > (uint64_t)key->number);
	case IMAP_KEY_SMALLER:
		return found(c->entry.size < (uint64_t)key->number);
	case IMAP_KEY_SEQUENCE:
		return found(imap_set_has(&key->set, c->number));
	case IMAP_KEY_UID:
		return found(imap_set_has(&key->set, c->entry.uid));
	case IMAP_KEY_HEADER:
		return match_header(key, c);
	case IMAP_KEY_BODY:
		return c->has_view ? found(body_has(c->view, key->text)) : IMAP_FOUND_UNKNOWN;
	case IMAP_KEY_TEXT:
		return match_text(key, c);
	case IMAP_KEY_NOT:
		return match_not(key, c);
	case IMAP_KEY_OR:
		return match_or(key, c);
	case IMAP_KEY_AND:
		return match_and(key, c);
	}
	return IMAP_FOUND_NO;
}
