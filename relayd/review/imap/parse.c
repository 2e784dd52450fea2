/* relayd/review/imap/parse.c - the grammar of commands: tag, verb and the simple arguments. */
#include "relayd/review/imap/parse.h"

#include "relayd/review/imap/parse_internal.h"
#include "relayd/review/store.h"

static bool
parse_none(struct imap_lex *lx, struct imap_command *cmd)
{
	(void)lx;
	(void)cmd;
	return true; /* the end of the line is checked for all */
}

/* Whatever follows: what gets a NO does not need arguments that fit. */
static bool
parse_any(struct imap_lex *lx, struct imap_command *cmd)
{
	(void)cmd;
	lx->rest = slice_drop(lx->rest, lx->rest.len);
	return true;
}

static bool
parse_mailbox(struct imap_lex *lx, struct imap_command *cmd)
{
	return imap_lex_argument(lx, &cmd->mailbox, "The name of a mailbox is missing");
}

static bool
parse_login(struct imap_lex *lx, struct imap_command *cmd)
{
	return imap_lex_argument(lx, &cmd->user, "LOGIN takes a name and a password") &&
	       imap_lex_argument(lx, &cmd->password, "LOGIN takes a name and a password");
}

static bool
parse_authenticate(struct imap_lex *lx, struct imap_command *cmd)
{
	if (!imap_lex_space(lx) || !imap_lex_atom(lx, &cmd->mechanism))
		return imap_lex_fail(lx, "AUTHENTICATE takes a mechanism: PLAIN");
	cmd->has_initial = imap_lex_at(lx, ' ');
	return !cmd->has_initial ||
	       (imap_lex_space(lx) && (lx->rest.len == 0 || imap_lex_astring(lx, &cmd->initial)));
}

static bool
parse_list(struct imap_lex *lx, struct imap_command *cmd)
{
	return imap_lex_argument(
		   lx, &cmd->mailbox, "LIST takes a reference and a pattern: \"\" \"*\"") &&
	       imap_lex_space(lx) && imap_lex_pattern(lx, &cmd->pattern);
}

static bool
parse_status(struct imap_lex *lx, struct imap_command *cmd)
{
	static const struct {
		const char *name;
		enum imap_status status;
	} names[] = {
		{ "MESSAGES", IMAP_STATUS_MESSAGES },
		{ "RECENT", IMAP_STATUS_RECENT },
		{ "UIDNEXT", IMAP_STATUS_UIDNEXT },
		{ "UIDVALIDITY", IMAP_STATUS_UIDVALIDITY },
		{ "UNSEEN", IMAP_STATUS_UNSEEN },
	};

	if (!parse_mailbox(lx, cmd) || !imap_lex_space(lx) || !imap_lex_take(lx, '('))
		return imap_lex_fail(
		    lx, "STATUS takes a mailbox and a list in parentheses: (MESSAGES UNSEEN)");
	do {
		struct slice name = imap_lex_name(lx);
		size_t i = 0;

		while (i < ARRAY_LEN(names) && !slice_ieq(name, slice_str(names[i].name)))
			i++;
		if (i == ARRAY_LEN(names))
			return imap_lex_fail(lx, "Unknown STATUS item");
		cmd->status |= names[i].status;
	} while (imap_lex_take(lx, ' '));
	return imap_lex_take(lx, ')') || imap_lex_fail(lx, "A parenthesis is missing");
}

bool
imap_parse_set(struct imap_lex *lx, struct imap_set *set)
{
	if (!imap_lex_space(lx))
		return false;
	return imap_set_parse(&lx->rest, lx->arena, set) ||
	       imap_lex_fail(
		   lx, "A message set is missing or wrong: it looks like 1 or 2:4,7 or 1:*");
}

static bool
parse_copy(struct imap_lex *lx, struct imap_command *cmd)
{
	return imap_parse_set(lx, &cmd->set) && parse_mailbox(lx, cmd);
}

/* EXPUNGE has no argument, UID EXPUNGE a set: RFC 4315 section 2.1. */
static bool
parse_expunge(struct imap_lex *lx, struct imap_command *cmd)
{
	return !cmd->uid || imap_parse_set(lx, &cmd->set);
}

#define WITH_UID true

static const struct verb {
	const char *name;
	enum imap_verb verb;
	bool uid; /* "UID" may stand before it */
	bool (*arguments)(struct imap_lex *lx, struct imap_command *cmd);
} verbs[] = {
	{ "CAPABILITY", IMAP_CAPABILITY, false, parse_none },
	{ "NOOP", IMAP_NOOP, false, parse_none },
	{ "LOGOUT", IMAP_LOGOUT, false, parse_none },
	{ "ID", IMAP_ID, false, parse_any },
	{ "LOGIN", IMAP_LOGIN, false, parse_login },
	{ "AUTHENTICATE", IMAP_AUTHENTICATE, false, parse_authenticate },
	{ "STARTTLS", IMAP_STARTTLS, false, parse_none },
	{ "SELECT", IMAP_SELECT, false, parse_mailbox },
	{ "EXAMINE", IMAP_EXAMINE, false, parse_mailbox },
	{ "LIST", IMAP_LIST, false, parse_list },
	{ "LSUB", IMAP_LSUB, false, parse_list },
	{ "SUBSCRIBE", IMAP_SUBSCRIBE, false, parse_mailbox },
	{ "UNSUBSCRIBE", IMAP_UNSUBSCRIBE, false, parse_mailbox },
	{ "STATUS", IMAP_STATUS, false, parse_status },
	{ "NAMESPACE", IMAP_NAMESPACE, false, parse_none },
	{ "IDLE", IMAP_IDLE, false, parse_none },
	{ "CREATE", IMAP_CREATE, false, parse_any },
	{ "DELETE", IMAP_DELETE, false, parse_any },
	{ "RENAME", IMAP_RENAME, false, parse_any },
	{ "APPEND", IMAP_APPEND, false, parse_any },
	{ "CHECK", IMAP_CHECK, false, parse_none },
	{ "CLOSE", IMAP_CLOSE, false, parse_none },
	{ "UNSELECT", IMAP_UNSELECT, false, parse_none },
	{ "EXPUNGE", IMAP_EXPUNGE, WITH_UID, parse_expunge },
	{ "FETCH", IMAP_FETCH, WITH_UID, imap_parse_fetch },
	{ "STORE", IMAP_STORE, WITH_UID, imap_parse_store },
	{ "SEARCH", IMAP_SEARCH, WITH_UID, imap_parse_search },
	{ "COPY", IMAP_COPY, WITH_UID, parse_copy },
	{ "MOVE", IMAP_MOVE, WITH_UID, parse_copy },
	{ "ENABLE", IMAP_OTHER, false, parse_any },
	{ "COMPRESS", IMAP_OTHER, false, parse_any },
	{ "SORT", IMAP_OTHER, WITH_UID, parse_any },
	{ "THREAD", IMAP_OTHER, WITH_UID, parse_any },
	{ "REPLACE", IMAP_OTHER, WITH_UID, parse_any },
	{ "NOTIFY", IMAP_OTHER, false, parse_any },
	{ "XLIST", IMAP_OTHER, false, parse_any },
	{ "GETACL", IMAP_OTHER, false, parse_any },
	{ "SETACL", IMAP_OTHER, false, parse_any },
	{ "DELETEACL", IMAP_OTHER, false, parse_any },
	{ "LISTRIGHTS", IMAP_OTHER, false, parse_any },
	{ "MYRIGHTS", IMAP_OTHER, false, parse_any },
	{ "GETQUOTA", IMAP_OTHER, false, parse_any },
	{ "GETQUOTAROOT", IMAP_OTHER, false, parse_any },
	{ "SETQUOTA", IMAP_OTHER, false, parse_any },
	{ "GETMETADATA", IMAP_OTHER, false, parse_any },
	{ "SETMETADATA", IMAP_OTHER, false, parse_any },
	{ "GETANNOTATION", IMAP_OTHER, false, parse_any },
	{ "SETANNOTATION", IMAP_OTHER, false, parse_any },
};

static const struct verb *
verb_find(struct slice name, bool uid)
{
	for (size_t i = 0; i < ARRAY_LEN(verbs); i++)
		if (slice_ieq(name, slice_str(verbs[i].name)) && (!uid || verbs[i].uid))
			return &verbs[i];
	return NULL;
}

/* tag: ASTRING-CHARs but "+". */
static bool
take_tag(struct imap_lex *lx, struct slice *tag)
{
	struct slice word;

	if (imap_lex_at(lx, '"') || imap_lex_at(lx, '{') || !imap_lex_astring(lx, &word) ||
	    word.len > IMAP_TAG_MAX || slice_has(word, '+'))
		return false;
	*tag = word;
	return true;
}

static const struct verb *
take_verb(struct imap_lex *lx, struct imap_command *cmd)
{
	const struct verb *v;

	if (!imap_lex_space(lx))
		return NULL;
	cmd->name = imap_lex_name(lx);
	if (slice_ieq(cmd->name, SLICE("UID")) && imap_lex_at(lx, ' ')) {
		cmd->uid = true;
		(void)imap_lex_space(lx); /* it is there */
		cmd->name = imap_lex_name(lx);
	}
	v = verb_find(cmd->name, cmd->uid);
	if (v != NULL)
		cmd->verb = v->verb;
	return v;
}

static void
command_init(struct imap_command *cmd)
{
	*cmd = (struct imap_command){ .verb = IMAP_VERBS,
		.tag = SLICE(""),
		.name = SLICE(""),
		.mailbox = SLICE(""),
		.pattern = SLICE(""),
		.user = SLICE(""),
		.password = SLICE(""),
		.mechanism = SLICE(""),
		.initial = SLICE(""),
		.charset = SLICE("") };
}

bool
imap_parse_head(struct slice bytes, struct imap_command *out)
{
	struct imap_lex lx = { .rest = bytes };

	command_init(out);
	return take_tag(&lx, &out->tag) && take_verb(&lx, out) != NULL;
}

static const char *
unknown_verb(struct arena *arena, const struct imap_command *cmd)
{
	const char *text;

	if (cmd->name.len == 0)
		return "A command looks like this: a1 NOOP";
	if (verb_find(cmd->tag, false) != NULL) /* somebody by hand */
		return "Every command starts with a tag of your choice, as in: a1 LOGIN name "
		       "password";
	text = arena_printf(arena, "Unknown command %.*s", SLICE_FMT(slice_head(cmd->name, 40)));
	return text != NULL ? text : "Unknown command";
}

const char *
imap_parse(struct slice bytes, struct arena *arena, struct imap_command *out)
{
	struct imap_lex lx = { .rest = bytes, .arena = arena };
	const struct verb *v;

	command_init(out);
	if (!take_tag(&lx, &out->tag))
		return "Every command starts with a tag of your choice, as in: a1 NOOP";
	v = take_verb(&lx, out);
	if (v == NULL)
		return unknown_verb(arena, out);
	if (!v->arguments(&lx, out) || !imap_lex_end(&lx))
		return lx.error != NULL ? lx.error : "The arguments are wrong";
	return NULL;
}
