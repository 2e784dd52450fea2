/* relayd/review/imap/parse_search.c - the keys of SEARCH (RFC 3501 section 6.4.4). */
#include "relayd/review/imap/parse_internal.h"

#include "relayd/mail/date.h"
#include "relayd/review/store.h"

/* What stands behind the name of a key. */
enum argument {
	NOTHING,
	STRING,
	FIELD_OF_NAME,
	FIELD_AND_STRING,
	DAY,
	NUMBER,
	KEYWORD,
	SET,
	KEY,
	TWO_KEYS
};

static const struct key_name {
	const char *name;
	enum imap_key_kind kind;
	enum argument argument;
	uint64_t flag;
} key_names[] = {
	{ "ALL", IMAP_KEY_ALL, NOTHING, 0 },
	{ "ANSWERED", IMAP_KEY_FLAG, NOTHING, STORE_ANSWERED },
	{ "DELETED", IMAP_KEY_FLAG, NOTHING, STORE_DELETED },
	{ "DRAFT", IMAP_KEY_FLAG, NOTHING, STORE_DRAFT },
	{ "FLAGGED", IMAP_KEY_FLAG, NOTHING, STORE_FLAGGED },
	{ "SEEN", IMAP_KEY_FLAG, NOTHING, STORE_SEEN },
	{ "UNANSWERED", IMAP_KEY_NO_FLAG, NOTHING, STORE_ANSWERED },
	{ "UNDELETED", IMAP_KEY_NO_FLAG, NOTHING, STORE_DELETED },
	{ "UNDRAFT", IMAP_KEY_NO_FLAG, NOTHING, STORE_DRAFT },
	{ "UNFLAGGED", IMAP_KEY_NO_FLAG, NOTHING, STORE_FLAGGED },
	{ "UNSEEN", IMAP_KEY_NO_FLAG, NOTHING, STORE_SEEN },
	{ "RECENT", IMAP_KEY_RECENT, NOTHING, 0 },
	{ "NEW", IMAP_KEY_NEW, NOTHING, 0 },
	{ "OLD", IMAP_KEY_OLD, NOTHING, 0 },
	{ "KEYWORD", IMAP_KEY_KEYWORD, KEYWORD, 0 },
	{ "UNKEYWORD", IMAP_KEY_NO_KEYWORD, KEYWORD, 0 },
	{ "BEFORE", IMAP_KEY_BEFORE, DAY, 0 },
	{ "ON", IMAP_KEY_ON, DAY, 0 },
	{ "SINCE", IMAP_KEY_SINCE, DAY, 0 },
	{ "SENTBEFORE", IMAP_KEY_SENTBEFORE, DAY, 0 },
	{ "SENTON", IMAP_KEY_SENTON, DAY, 0 },
	{ "SENTSINCE", IMAP_KEY_SENTSINCE, DAY, 0 },
	{ "LARGER", IMAP_KEY_LARGER, NUMBER, 0 },
	{ "SMALLER", IMAP_KEY_SMALLER, NUMBER, 0 },
	{ "BCC", IMAP_KEY_HEADER, FIELD_OF_NAME, 0 },
	{ "CC", IMAP_KEY_HEADER, FIELD_OF_NAME, 0 },
	{ "FROM", IMAP_KEY_HEADER, FIELD_OF_NAME, 0 },
	{ "SUBJECT", IMAP_KEY_HEADER, FIELD_OF_NAME, 0 },
	{ "TO", IMAP_KEY_HEADER, FIELD_OF_NAME, 0 },
	{ "HEADER", IMAP_KEY_HEADER, FIELD_AND_STRING, 0 },
	{ "BODY", IMAP_KEY_BODY, STRING, 0 },
	{ "TEXT", IMAP_KEY_TEXT, STRING, 0 },
	{ "UID", IMAP_KEY_UID, SET, 0 },
	{ "NOT", IMAP_KEY_NOT, KEY, 0 },
	{ "OR", IMAP_KEY_OR, TWO_KEYS, 0 },
};

struct parser {
	struct imap_lex *lx;
	unsigned depth;
	size_t n_keys;
};

static struct imap_key *parse_key(struct parser *ps);

static struct imap_key *
new_key(struct parser *ps, enum imap_key_kind kind)
{
	struct imap_key *key = NULL;

	if (ps->n_keys < IMAP_KEYS_MAX)
		key = arena_alloc(ps->lx->arena, sizeof(*key));
	if (key == NULL) {
		(void)imap_lex_fail(ps->lx, "Too many search keys");
		return NULL;
	}
	ps->n_keys++;
	*key = (struct imap_key){ .kind = kind, .name = SLICE(""), .text = SLICE("") };
	return key;
}

/* "1-Feb-1994", in quotes or not */
static bool
take_day(struct imap_lex *lx, int64_t *day)
{
	struct slice text;

	if (!imap_lex_space(lx) || !imap_lex_astring(lx, &text))
		return false;
	return date_parse_imap_day(text, day) || imap_lex_fail(lx, "A date looks like 1-Feb-1994");
}

static bool
take_size(struct imap_lex *lx, int64_t *out)
{
	uint64_t n;

	if (!imap_lex_space(lx) || !imap_lex_number(lx, UINT32_MAX, &n))
		return false;
	*out = (int64_t)n;
	return true;
}

static bool
take_keyword(struct imap_lex *lx, struct slice *out)
{
	return imap_lex_space(lx) && imap_lex_atom(lx, out);
}

static bool
take_argument(struct parser *ps, const struct key_name *k, struct imap_key *key)
{
	static const char missing[] = "A search key lacks its text";
	struct imap_lex *lx = ps->lx;

	switch (k->argument) {
	case NOTHING:
		return true;
	case STRING:
		return imap_lex_argument(lx, &key->text, missing);
	case FIELD_OF_NAME:
		key->name = slice_str(k->name);
		return imap_lex_argument(lx, &key->text, missing);
	case FIELD_AND_STRING:
		return imap_lex_argument(lx, &key->name, missing) &&
		       imap_lex_argument(lx, &key->text, missing);
	case DAY:
		return take_day(lx, &key->number);
	case NUMBER:
		return take_size(lx, &key->number);
	case KEYWORD:
		return take_keyword(lx, &key->name);
	case SET:
		return imap_parse_set(lx, &key->set);
	case KEY:
		return imap_lex_space(lx) && (key->a = parse_key(ps)) != NULL;
	case TWO_KEYS:
		return imap_lex_space(lx) && (key->a = parse_key(ps)) != NULL &&
		       imap_lex_space(lx) && (key->b = parse_key(ps)) != NULL;
	}
	return false;
}

/* Keys with a space between them, up to a parenthesis or the end. */
static struct imap_key *
parse_keys(struct parser *ps)
{
	struct imap_key *all = new_key(ps, IMAP_KEY_AND), **last = all != NULL ? &all->a : NULL;

	while (all != NULL) {
		*last = parse_key(ps);
		if (*last == NULL)
			return NULL;
		last = &(*last)->next;
		if (!imap_lex_at(ps->lx, ' '))
			return all;
		(void)imap_lex_space(ps->lx); /* it is there */
		if (ps->lx->rest.len == 0)
			return all; /* blanks at the end of the line */
	}
	return NULL;
}

static struct imap_key *
parse_parenthesis(struct parser *ps)
{
	struct imap_key *all;

	(void)imap_lex_take(ps->lx, '('); /* seen by the caller */
	all = parse_keys(ps);
	if (all != NULL && !imap_lex_take(ps->lx, ')')) {
		(void)imap_lex_fail(ps->lx, "A parenthesis is missing");
		return NULL;
	}
	return all;
}

static struct imap_key *
parse_named(struct parser *ps)
{
	struct slice name = imap_lex_name(ps->lx);

	for (size_t i = 0; i < ARRAY_LEN(key_names); i++) {
		struct imap_key *key;

		if (!slice_ieq(name, slice_str(key_names[i].name)))
			continue;
		key = new_key(ps, key_names[i].kind);
		if (key == NULL)
			return NULL;
		key->flag = key_names[i].flag;
		return take_argument(ps, &key_names[i], key) ? key : NULL;
	}
	(void)imap_lex_fail(ps->lx, "Unknown search key");
	return NULL;
}

static struct imap_key *
parse_sequence(struct parser *ps)
{
	struct imap_key *key = new_key(ps, IMAP_KEY_SEQUENCE);

	if (key == NULL)
		return NULL;
	if (imap_set_parse(&ps->lx->rest, ps->lx->arena, &key->set))
		return key;
	(void)imap_lex_fail(ps->lx, "A message set is wrong");
	return NULL;
}

static struct imap_key *
parse_key(struct parser *ps)
{
	struct imap_key *key;
	char c = ps->lx->rest.len > 0 ? ps->lx->rest.p[0] : '\0';

	if (ps->depth == IMAP_DEPTH_MAX) {
		(void)imap_lex_fail(ps->lx, "Search keys are nested too deep");
		return NULL;
	}
	ps->depth++;
	if (c == '(')
		key = parse_parenthesis(ps);
	else if (c == '*' || (c >= '0' && c <= '9'))
		key = parse_sequence(ps);
	else
		key = parse_named(ps);
	ps->depth--;
	return key;
}

bool
imap_parse_search(struct imap_lex *lx, struct imap_command *cmd)
{
	struct parser ps = { .lx = lx };
	struct imap_lex probe = *lx;

	if (imap_lex_space(&probe) && slice_ieq(imap_lex_name(&probe), SLICE("CHARSET"))) {
		if (!imap_lex_argument(&probe, &cmd->charset, "CHARSET takes a name"))
			return imap_lex_fail(lx, probe.error);
		*lx = probe;
	}
	if (!imap_lex_space(lx))
		return imap_lex_fail(
		    lx, "SEARCH takes keys: ALL, UNSEEN, FROM name, SUBJECT text ...");
	cmd->key = parse_keys(&ps);
	return cmd->key != NULL;
}
