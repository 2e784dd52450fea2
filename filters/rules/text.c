/* filters/rules/text.c - builds the texts that rules look at out of fields and parts. */
#include "filters/rules/text.h"

#include "filters/rules/address.h"

struct out {
	char *p;
	size_t len;
};

/* Room for the largest text that the caller will put there. */
static bool
out_init(struct out *out, struct filter_tx *tx, size_t cap)
{
	out->len = 0;
	out->p = tx->host->alloc(tx, cap + 1);
	return out->p != NULL;
}

static void
put(struct out *out, struct slice s)
{
	memcpy(out->p + out->len, s.p, s.len);
	out->len += s.len;
}

/* ---- fields ---------------------------------------------------------------------------------- */

/* The bytes behind the colon. */
static struct slice
raw_value(const struct filter_field *field)
{
	return slice_drop(field->raw, slice_until(field->raw, ':').len + 1);
}

/* As it stands, with LF alone at the ends of lines; one at the very end. */
static void
put_raw(struct out *out, struct slice raw)
{
	for (size_t i = 0; i < raw.len; i++)
		if (raw.p[i] != '\r' || i + 1 == raw.len || raw.p[i + 1] != '\n')
			out->p[out->len++] = raw.p[i];
	if (raw.len == 0 || raw.p[raw.len - 1] != '\n')
		put(out, SLICE("\n"));
}

/* One line; each fold with the blanks behind it is one space. */
static void
put_unfolded(struct out *out, struct slice raw)
{
	raw = slice_trim(raw);
	for (size_t i = 0; i < raw.len; i++) {
		if (raw.p[i] == '\r' && i + 1 < raw.len && raw.p[i + 1] == '\n')
			continue;
		if (raw.p[i] != '\n') {
			out->p[out->len++] = raw.p[i];
			continue;
		}
		while (i + 1 < raw.len && (raw.p[i + 1] == ' ' || raw.p[i + 1] == '\t'))
			i++;
		out->p[out->len++] = ' ';
	}
}

/* Fields in which "=?" is no encoded word: RFC 2047 section 5 has none there. */
static bool
is_structured(struct slice name)
{
	static const char *const names[] = { "Received", "Message-ID", "Resent-Message-ID", "Date",
		"Resent-Date", "MIME-Version", "References", "In-Reply-To" };

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (slice_ieq(name, slice_str(names[i])))
			return true;
	return slice_istarts(name, SLICE("List-"));
}

/* The value as one line, encoded words and other charsets decoded. */
static void
put_decoded(struct out *out, const struct filter_field *field)
{
	size_t start = out->len;

	if (is_structured(field->name) || slice_eq(field->decoded, field->value)) {
		put_unfolded(out, raw_value(field));
		return;
	}
	put(out, field->decoded);
	for (size_t i = start; i < out->len; i++) /* what is left of folds */
		if (out->p[i] == '\t')
			out->p[i] = ' ';
}

/* Octets that any form of a field fits in. */
static size_t
room_of(const struct filter_field *field)
{
	size_t longest = field->raw.len > field->decoded.len ? field->raw.len : field->decoded.len;

	return field->name.len + longest + sizeof(": \n");
}

static bool
fields_take(struct rules_text *text)
{
	struct filter_tx *tx = text->tx;
	struct filter_field *fields = NULL, field;
	size_t bytes = 0, cap = 0;

	while (tx->host->field(tx, text->n_fields, &field)) {
		bytes += field.raw.len;
		text->cut = text->n_fields == RULES_FIELDS_MAX || bytes > RULES_HEADER_BYTES_MAX;
		if (text->cut)
			break;
		if (text->n_fields == cap) {
			cap = cap > 0 ? 2 * cap : 64;
			fields = tx->host->alloc(tx, cap * sizeof(*fields));
			if (fields == NULL)
				return false;
			if (text->n_fields > 0)
				memcpy(fields, text->fields, text->n_fields * sizeof(*fields));
			text->fields = fields;
		}
		text->fields[text->n_fields++] = field;
	}
	return true;
}

/* ---- sources --------------------------------------------------------------------------------- */

/* Whether a source takes from this field. */
static bool
takes(const struct rules_source *source, struct slice name)
{
	switch (source->field) {
	case RULES_FIELD_ALL:
		return true;
	case RULES_FIELD_TOCC:
		return slice_ieq(name, SLICE("To")) || slice_ieq(name, SLICE("Cc"));
	case RULES_FIELD_MESSAGE_ID:
		return slice_ieq(name, SLICE("Message-Id")) ||
		       slice_ieq(name, SLICE("X-Message-Id")) ||
		       slice_ieq(name, SLICE("Resent-Message-Id")) ||
		       slice_ieq(name, SLICE("X-Original-Message-ID"));
	default:
		return slice_ieq(name, source->name);
	}
}

/* Takes what stands before the address of a mailbox, and that, off the front of *decoded: the
 * decoded field, in which a name may hold whatever separates mailboxes.  All that is left where the
 * address is not found. */
static struct slice
decoded_take(struct slice *decoded, const struct rules_mailbox *box, bool last)
{
	const char *angle = memrchr(decoded->p, '<', decoded->len);
	size_t at = slice_find(*decoded, box->address);
	struct slice before;

	if (last && angle != NULL)
		at = (size_t)(angle - decoded->p);
	before = slice_head(*decoded, at);
	*decoded = slice_drop(*decoded, at + box->address.len);
	while (before.len > 0 && strchr(">,; \t", before.p[0]) != NULL)
		before = slice_drop(before, 1);
	before = slice_trim(before);
	(void)slice_chop(&before, "<");
	return slice_trim(before);
}

/* The phrase of the next mailbox, decoded where it holds encoded words. */
static struct slice
decoded_phrase(struct slice *decoded, const struct rules_mailbox *box, bool last)
{
	struct slice before =
	    box->address.len > 0 ? decoded_take(decoded, box, last) : SLICE("");

	if (before.len == 0 || slice_find(box->phrase, SLICE("=?")) == box->phrase.len)
		return box->phrase;
	return before;
}

/* SpamAssassin takes white space in a name as one space, and single quotes around it off. */
static void
put_name(struct out *out, struct slice phrase)
{
	size_t start = out->len;
	struct slice name = rules_phrase_plain(phrase, out->p + start);

	if (name.len > 1 && name.p[0] == '\'' && name.p[name.len - 1] == '\'')
		name = slice_of(name.p + 1, name.len - 2);
	for (size_t i = 0; i < name.len; i++) {
		char c = name.p[i] == '\t' ? ' ' : name.p[i];

		if (c != ' ' || out->len == start || out->p[out->len - 1] != ' ')
			out->p[out->len++] = c;
	}
}

/* The addresses or the names of a field, a line each.  scratch is as large as the field. */
static void
put_mailboxes(struct out *out, const struct filter_field *field, const struct rules_source *source,
    char *scratch)
{
	struct out line = { scratch, 0 };
	struct slice rest, decoded = field->decoded;
	struct rules_mailbox box, next;

	put_unfolded(&line, raw_value(field));
	rest = slice_of(line.p, line.len);
	for (bool more = rules_mailbox_take(&rest, &box); more; box = next) {
		struct slice phrase = box.phrase;

		more = rules_mailbox_take(&rest, &next);
		if (!source->addr && !source->raw)
			phrase = decoded_phrase(&decoded, &box, !more);
		if ((source->addr ? box.address : phrase).len == 0)
			continue;
		if (source->addr)
			put(out, box.address);
		else
			put_name(out, phrase);
		put(out, SLICE("\n"));
	}
}

static void
put_field(struct out *out, const struct filter_field *field, const struct rules_source *source,
    char *scratch)
{
	if (source->addr || source->display_name) {
		put_mailboxes(out, field, source, scratch);
		return;
	}
	if (source->field == RULES_FIELD_ALL && source->raw) {
		put_raw(out, field->raw);
		return;
	}
	if (source->field == RULES_FIELD_ALL) {
		put(out, field->name);
		put(out, SLICE(": "));
	}
	if (source->raw) {
		put_raw(out, raw_value(field));
		return;
	}
	put_decoded(out, field);
	put(out, SLICE("\n"));
}

static bool
value_build(struct rules_text *text, const struct rules_source *source, struct rules_value *value)
{
	bool mailboxes = source->addr || source->display_name;
	size_t room = 0, longest = 0, first = text->n_fields, last = 0;
	struct out out;
	char *scratch = NULL;

	for (size_t i = 0; i < text->n_fields; i++) {
		if (!takes(source, text->fields[i].name))
			continue;
		room += room_of(&text->fields[i]);
		longest = longest < room_of(&text->fields[i]) ? room_of(&text->fields[i]) : longest;
		first = first < i ? first : i;
		last = i;
	}
	value->present = first < text->n_fields;
	if (!value->present)
		return true;
	if (mailboxes && (scratch = text->tx->host->alloc(text->tx, longest)) == NULL)
		return false;
	/* Names are from the raw field or the decoded one, and each is first made plain in the room
	 * behind what is there. */
	if (!out_init(&out, text->tx, mailboxes ? 3 * room : room))
		return false;
	if (source->first)
		last = first;
	for (size_t i = source->last ? last : first; i <= last; i++)
		if (takes(source, text->fields[i].name))
			put_field(&out, &text->fields[i], source, scratch);
	/* Addresses and names are lines between, not at the end; without one there is no value. */
	if (mailboxes) {
		value->present = out.len > 0;
		out.len -= out.len > 0;
	}
	value->text = slice_of(out.p, out.len);
	return true;
}

const struct rules_value *
rules_text_value(struct rules_text *text, const struct rules_set *set, size_t source)
{
	struct rules_value *value = &text->values[source];

	if (value->known)
		return value;
	value->known = true;
	value->text = SLICE("");
	if (set->sources[source].field == RULES_FIELD_ENVELOPE_FROM) {
		value->present = true;
		value->text = filter_envelope(text->tx)->reverse_path;
		return value;
	}
	return value_build(text, &set->sources[source], value) ? value : NULL;
}

/* ---- text ------------------------------------------------------------------------------------ */

static bool
is_space(char c)
{
	return c == ' ' || (c >= '\t' && c <= '\r');
}

/* Octets of a white space character at the front of s: ASCII's, or one of Unicode's in UTF-8. */
static size_t
space_len(struct slice s)
{
	static const char *const wide[] = { "\xc2\xa0", "\xc2\x85", "\xe1\x9a\x80", "\xe2\x80\xa8",
		"\xe2\x80\xa9", "\xe2\x80\xaf", "\xe2\x81\x9f", "\xe3\x80\x80" };

	if (s.len == 0 || is_space(s.p[0]))
		return s.len > 0;
	if ((unsigned char)s.p[0] < 0xc2 || (unsigned char)s.p[0] > 0xe3)
		return 0;
	for (size_t i = 0; i < sizeof(wide) / sizeof(wide[0]); i++)
		if (slice_starts(s, slice_str(wide[i])))
			return strlen(wide[i]);
	/* U+2000 to U+200A */
	return s.len > 2 && memcmp(s.p, "\xe2\x80", 2) == 0 && (unsigned char)s.p[2] <= 0x8a ? 3
											     : 0;
}

/* Takes the white space off the front of *in.  It becomes one space; with more than one line end in
 * it, those and what is between them become one LF, with a space for blanks before or behind. */
static struct slice
space_take(struct slice *in)
{
	bool before = false, behind = false;
	size_t line_ends = 0, n;

	for (; (n = space_len(*in)) > 0; *in = slice_drop(*in, n)) {
		if (in->p[0] == '\n') {
			line_ends++;
			behind = false;
		} else if (in->p[0] != '\r' || in->len < 2 || in->p[1] != '\n') {
			before = before || line_ends == 0;
			behind = true;
		}
	}
	if (line_ends < 2)
		return SLICE(" ");
	if (before)
		return behind ? SLICE(" \n ") : SLICE(" \n");
	return behind ? SLICE("\n ") : SLICE("\n");
}

static void
put_collapsed(struct out *out, struct slice in)
{
	while (in.len > 0) {
		size_t n = 0;

		if (space_len(in) > 0) {
			put(out, space_take(&in));
			continue;
		}
		while (n < in.len && space_len(slice_drop(in, n)) == 0)
			n++;
		put(out, slice_head(in, n));
		in = slice_drop(in, n);
	}
}

/* Octets of the first line of s with its LF; of its first half, cut at a space, where it is
 * long. */
static size_t
line_len(struct slice s)
{
	size_t n = slice_until(s, '\n').len;
	const char *space;

	n += n < s.len;
	if (n <= RULES_LINE_TEXT_MAX)
		return n;
	space = memrchr(s.p, ' ', RULES_LINE_TEXT_MAX);
	return space != NULL ? (size_t)(space + 1 - s.p) : RULES_LINE_TEXT_MAX;
}

static bool
lines_split(struct rules_text *text, struct slice all)
{
	size_t n = 0;

	for (struct slice rest = all; rest.len > 0; rest = slice_drop(rest, line_len(rest)))
		n++;
	text->lines = text->tx->host->alloc(text->tx, (n + 1) * sizeof(*text->lines));
	if (text->lines == NULL)
		return false;
	for (; all.len > 0; all = slice_drop(all, line_len(all)))
		text->lines[text->n_lines++] = slice_head(all, line_len(all));
	return true;
}

/* The last one counts; without one there is an empty line in its place. */
static void
put_subject(struct out *out, const struct rules_text *text)
{
	for (size_t i = text->n_fields; i-- > 0;)
		if (slice_ieq(text->fields[i].name, SLICE("Subject"))) {
			put_decoded(out, &text->fields[i]);
			break;
		}
	put(out, SLICE("\n"));
}

/* What all parts come to, with a line end behind each, when none gives more than share. */
static size_t
sum_of_parts(struct filter_tx *tx, size_t share)
{
	struct filter_part part;
	size_t sum = 0;

	for (size_t i = 0; tx->host->part(tx, i, &part); i++)
		sum += slice_head(part.text, share).len + 1;
	return sum;
}

/* The most that each part may give, so that all come to no more than max: a long part cannot
 * crowd out a short one behind it. */
static size_t
share_of_part(struct filter_tx *tx, size_t max)
{
	size_t low = 0, high = max;

	while (low < high) {
		size_t share = low + (high - low + 1) / 2;

		if (sum_of_parts(tx, share) <= max)
			low = share;
		else
			high = share - 1;
	}
	return low;
}

/* The text of all parts, a line end between two. */
static bool
parts_join(struct rules_text *text, size_t max_text, struct out *joined)
{
	struct filter_tx *tx = text->tx;
	size_t room = sum_of_parts(tx, SIZE_MAX), share = SIZE_MAX;
	struct filter_part part;

	if (room > max_text + 1) { /* the last line end does not count */
		text->cut = true;
		share = share_of_part(tx, max_text + 1);
		room = sum_of_parts(tx, share);
	}
	if (!out_init(joined, tx, room))
		return false;
	for (size_t i = 0; tx->host->part(tx, i, &part); i++) {
		if (joined->len > 0)
			put(joined, SLICE("\n"));
		put(joined, slice_head(part.text, share));
	}
	return true;
}

static bool
lines_build(struct rules_text *text, size_t max_text)
{
	struct out joined, all;
	size_t subject = sizeof("\n");

	for (size_t i = 0; i < text->n_fields; i++)
		if (slice_ieq(text->fields[i].name, SLICE("Subject")))
			subject = subject < room_of(&text->fields[i]) ? room_of(&text->fields[i])
								      : subject;
	if (!parts_join(text, max_text, &joined) || !out_init(&all, text->tx, subject + joined.len))
		return false;
	put_subject(&all, text);
	put_collapsed(&all, slice_of(joined.p, joined.len));
	return lines_split(text, slice_of(all.p, all.len));
}

bool
rules_text_init(
    struct rules_text *text, struct filter_tx *tx, const struct rules_set *set, size_t max_text)
{
	*text = (struct rules_text){ .tx = tx };
	text->values = tx->host->alloc(tx, (set->n_sources + 1) * sizeof(*text->values));
	return text->values != NULL && fields_take(text) && lines_build(text, max_text);
}
