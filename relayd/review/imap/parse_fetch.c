/* relayd/review/imap/parse_fetch.c - the data items of FETCH and the flags of STORE. */
#include "relayd/review/imap/parse_internal.h"

#include "relayd/core/buf.h"
#include "relayd/review/imap/reply.h"
#include "relayd/review/store.h"

#include <stdlib.h>

#define LABEL_MAX (16u << 10)

/* RFC 3501 section 6.4.5: macros and plain items. */
static const struct {
	const char *name;
	enum imap_item_kind kind;
} plain_items[] = {
	{ "FLAGS", IMAP_ITEM_FLAGS },
	{ "UID", IMAP_ITEM_UID },
	{ "INTERNALDATE", IMAP_ITEM_DATE },
	{ "RFC822.SIZE", IMAP_ITEM_SIZE },
	{ "ENVELOPE", IMAP_ITEM_ENVELOPE },
	{ "BODY", IMAP_ITEM_BODY },
	{ "BODYSTRUCTURE", IMAP_ITEM_BODYSTRUCTURE },
};

static const struct {
	const char *name;
	enum imap_item_kind items[5];
	size_t n;
} macros[] = {
	{ "ALL", { IMAP_ITEM_FLAGS, IMAP_ITEM_DATE, IMAP_ITEM_SIZE, IMAP_ITEM_ENVELOPE }, 4 },
	{ "FAST", { IMAP_ITEM_FLAGS, IMAP_ITEM_DATE, IMAP_ITEM_SIZE }, 3 },
	{ "FULL",
	    { IMAP_ITEM_FLAGS, IMAP_ITEM_DATE, IMAP_ITEM_SIZE, IMAP_ITEM_ENVELOPE, IMAP_ITEM_BODY },
	    5 },
};

/* The items of before there were sections, and what they are short for. */
static const struct {
	const char *name;
	enum imap_section_text text;
	bool peek;
} old_items[] = {
	{ "RFC822", IMAP_SECTION_ALL, false },
	{ "RFC822.HEADER", IMAP_SECTION_HEADER, true },
	{ "RFC822.TEXT", IMAP_SECTION_TEXT, false },
};

static const struct {
	const char *name;
	enum imap_section_text text;
} section_texts[] = {
	{ "HEADER", IMAP_SECTION_HEADER },
	{ "HEADER.FIELDS", IMAP_SECTION_FIELDS },
	{ "HEADER.FIELDS.NOT", IMAP_SECTION_FIELDS_NOT },
	{ "TEXT", IMAP_SECTION_TEXT },
	{ "MIME", IMAP_SECTION_MIME },
};

/* Takes "1.2." or "1.2" off a name; what is left is the text, or nothing. */
static bool
take_numbers(struct imap_lex *lx, struct slice *name, struct imap_item *item)
{
	while (name->len > 0 && name->p[0] >= '0' && name->p[0] <= '9') {
		struct slice digits = slice_until(*name, '.');
		uint64_t n;

		if (!slice_u64(digits, UINT32_MAX, &n) || n == 0)
			return imap_lex_fail(lx, "A part number is wrong");
		if (item->n_numbers == IMAP_DEPTH_MAX)
			return imap_lex_fail(lx, "A part number is too deep");
		item->number[item->n_numbers++] = (uint32_t)n;
		*name = slice_drop(*name, digits.len);
		if (name->len == 1)
			return imap_lex_fail(lx, "A part number is wrong");
		*name = slice_drop(*name, 1);
	}
	return true;
}

/* " (name name)" */
static bool
take_fields(struct imap_lex *lx, struct imap_item *item)
{
	item->fields = arena_alloc(lx->arena, IMAP_FIELDS_MAX * sizeof(item->fields[0]));
	if (item->fields == NULL)
		return imap_lex_fail(lx, "The command is too long");
	if (!imap_lex_space(lx) || !imap_lex_take(lx, '('))
		return imap_lex_fail(lx, "HEADER.FIELDS takes names in parentheses");
	do {
		if (item->n_fields == IMAP_FIELDS_MAX)
			return imap_lex_fail(lx, "Too many header fields");
		if (!imap_lex_astring(lx, &item->fields[item->n_fields++]))
			return false;
	} while (imap_lex_take(lx, ' '));
	return imap_lex_take(lx, ')') || imap_lex_fail(lx, "A parenthesis is missing");
}

static bool
take_section_text(struct imap_lex *lx, struct slice name, struct imap_item *item)
{
	size_t i = 0;

	if (name.len == 0)
		return true;
	while (i < ARRAY_LEN(section_texts) && !slice_ieq(name, slice_str(section_texts[i].name)))
		i++;
	if (i == ARRAY_LEN(section_texts))
		return imap_lex_fail(
		    lx, "Unknown section: it is HEADER, HEADER.FIELDS, TEXT, MIME or numbers");
	item->text = section_texts[i].text;
	if (item->text == IMAP_SECTION_MIME && item->n_numbers == 0)
		return imap_lex_fail(lx, "MIME needs a part number");
	return (item->text != IMAP_SECTION_FIELDS && item->text != IMAP_SECTION_FIELDS_NOT) ||
	       take_fields(lx, item);
}

/* "<0.2048>" */
static bool
take_partial(struct imap_lex *lx, struct imap_item *item)
{
	uint64_t from, count;

	if (!imap_lex_take(lx, '<'))
		return true;
	if (!imap_lex_number(lx, UINT32_MAX, &from) || !imap_lex_take(lx, '.') ||
	    !imap_lex_number(lx, UINT32_MAX, &count) || !imap_lex_take(lx, '>') || count == 0)
		return imap_lex_fail(lx, "A partial fetch looks like <0.2048>");
	item->partial = true;
	item->from = (uint32_t)from;
	item->count = (uint32_t)count;
	return true;
}

/* What the response calls it: numbers and text in upper case, fields as the client wrote them. */
static bool
make_label(struct imap_lex *lx, struct imap_item *item)
{
	struct buf out = buf_heap(LABEL_MAX);
	const char *text = "";

	for (size_t i = 0; i < ARRAY_LEN(section_texts); i++)
		if (item->text == section_texts[i].text)
			text = section_texts[i].name;
	buf_puts(&out, "BODY[");
	for (size_t i = 0; i < item->n_numbers; i++)
		buf_printf(&out, "%s%u", i > 0 ? "." : "", item->number[i]);
	buf_printf(&out, "%s%s", item->n_numbers > 0 && text[0] != '\0' ? "." : "", text);
	for (size_t i = 0; i < item->n_fields; i++) {
		buf_puts(&out, i == 0 ? " (" : " ");
		imap_put_astring(&out, item->fields[i]);
	}
	buf_puts(&out, item->n_fields > 0 ? ")]" : "]");
	if (item->partial)
		buf_printf(&out, "<%u>", item->from);
	item->label =
	    out.overflow ? (struct slice){ NULL, 0 } : arena_copy(lx->arena, buf_slice(&out));
	buf_fini(&out);
	return item->label.p != NULL || imap_lex_fail(lx, "The command is too long");
}

/* "[...]<...>" behind BODY or BODY.PEEK */
static bool
take_section(struct imap_lex *lx, struct imap_item *item)
{
	struct slice name;

	item->kind = IMAP_ITEM_SECTION;
	(void)imap_lex_take(lx, '['); /* seen by the caller */
	name = imap_lex_name(lx);
	if (!take_numbers(lx, &name, item) || !take_section_text(lx, name, item))
		return false;
	if (!imap_lex_take(lx, ']'))
		return imap_lex_fail(lx, "A bracket is missing");
	return take_partial(lx, item) && make_label(lx, item);
}

static bool
take_item(struct imap_lex *lx, struct imap_item *item)
{
	struct slice name = imap_lex_name(lx);

	*item = (struct imap_item){ .label = SLICE("") };
	item->peek = slice_ieq(name, SLICE("BODY.PEEK"));
	if (imap_lex_at(lx, '[') && (item->peek || slice_ieq(name, SLICE("BODY"))))
		return take_section(lx, item);
	for (size_t i = 0; i < ARRAY_LEN(plain_items); i++)
		if (slice_ieq(name, slice_str(plain_items[i].name))) {
			item->kind = plain_items[i].kind;
			return true;
		}
	for (size_t i = 0; i < ARRAY_LEN(old_items); i++)
		if (slice_ieq(name, slice_str(old_items[i].name))) {
			item->kind = IMAP_ITEM_SECTION;
			item->text = old_items[i].text;
			item->peek = old_items[i].peek;
			item->label = slice_str(old_items[i].name);
			return true;
		}
	return imap_lex_fail(lx, "Unknown FETCH item: try (FLAGS ENVELOPE) or BODY[]");
}

static bool
take_macro(struct imap_lex *lx, struct imap_command *cmd)
{
	struct imap_lex probe = *lx;
	struct slice name = imap_lex_name(&probe);

	for (size_t i = 0; i < ARRAY_LEN(macros); i++) {
		if (!slice_ieq(name, slice_str(macros[i].name)))
			continue;
		for (size_t k = 0; k < macros[i].n; k++)
			cmd->items[k] =
			    (struct imap_item){ .kind = macros[i].items[k], .label = SLICE("") };
		cmd->n_items = macros[i].n;
		lx->rest = probe.rest;
		return true;
	}
	return false;
}

static bool
take_item_list(struct imap_lex *lx, struct imap_command *cmd)
{
	do {
		if (cmd->n_items == IMAP_ITEMS_MAX)
			return imap_lex_fail(lx, "Too many FETCH items");
		if (!take_item(lx, &cmd->items[cmd->n_items++]))
			return false;
		if (imap_lex_at(lx, ' '))
			(void)imap_lex_space(lx); /* it is there */
	} while (!imap_lex_at(lx, ')') && lx->rest.len > 0);
	return imap_lex_take(lx, ')') || imap_lex_fail(lx, "A parenthesis is missing");
}

bool
imap_parse_fetch(struct imap_lex *lx, struct imap_command *cmd)
{
	if (!imap_parse_set(lx, &cmd->set) || !imap_lex_space(lx))
		return false;
	cmd->items = arena_alloc(lx->arena, IMAP_ITEMS_MAX * sizeof(cmd->items[0]));
	if (cmd->items == NULL)
		return imap_lex_fail(lx, "The command is too long");
	if (imap_lex_take(lx, '('))
		return take_item_list(lx, cmd);
	if (take_macro(lx, cmd))
		return true;
	cmd->n_items = 1;
	return take_item(lx, &cmd->items[0]);
}

/* ---- STORE ---- */

static bool
take_flag(struct imap_lex *lx, struct imap_command *cmd)
{
	static const struct {
		const char *name;
		uint64_t flag;
	} flags[] = {
		{ "Seen", STORE_SEEN },
		{ "Answered", STORE_ANSWERED },
		{ "Flagged", STORE_FLAGGED },
		{ "Deleted", STORE_DELETED },
		{ "Draft", STORE_DRAFT },
	};
	bool system = imap_lex_take(lx, '\\');
	struct slice name;

	if (!imap_lex_atom(lx, &name))
		return imap_lex_fail(lx, "A flag is missing");
	for (size_t i = 0; system && i < ARRAY_LEN(flags); i++)
		if (slice_ieq(name, slice_str(flags[i].name))) {
			cmd->flags |= flags[i].flag;
			return true;
		}
	if (system)
		return imap_lex_fail(lx,
		    "Unknown system flag: it is \\Seen \\Answered \\Flagged \\Deleted or \\Draft");
	if (cmd->n_keywords == IMAP_FLAGS_MAX)
		return imap_lex_fail(lx, "Too many flags");
	if (name.len > STORE_KEYWORD_BYTES)
		return imap_lex_fail(lx, "A keyword is too long");
	cmd->keywords[cmd->n_keywords++] = name;
	return true;
}

static bool
take_flags(struct imap_lex *lx, struct imap_command *cmd)
{
	bool list = imap_lex_take(lx, '(');

	if (list && imap_lex_take(lx, ')'))
		return true;
	do {
		if (!take_flag(lx, cmd))
			return false;
	} while (imap_lex_take(lx, ' '));
	return !list || imap_lex_take(lx, ')') || imap_lex_fail(lx, "A parenthesis is missing");
}

bool
imap_parse_store(struct imap_lex *lx, struct imap_command *cmd)
{
	struct slice name;

	if (!imap_parse_set(lx, &cmd->set) || !imap_lex_space(lx))
		return false;
	cmd->how = imap_lex_take(lx, '+')   ? IMAP_STORE_ADD
		   : imap_lex_take(lx, '-') ? IMAP_STORE_REMOVE
					    : IMAP_STORE_SET;
	name = imap_lex_name(lx);
	cmd->silent = slice_ieq(name, SLICE("FLAGS.SILENT"));
	if (!cmd->silent && !slice_ieq(name, SLICE("FLAGS")))
		return imap_lex_fail(
		    lx, "STORE takes FLAGS, +FLAGS or -FLAGS, then flags: +FLAGS (\\Seen)");
	cmd->keywords = arena_alloc(lx->arena, IMAP_FLAGS_MAX * sizeof(cmd->keywords[0]));
	if (cmd->keywords == NULL)
		return imap_lex_fail(lx, "The command is too long");
	return imap_lex_space(lx) && take_flags(lx, cmd);
}
