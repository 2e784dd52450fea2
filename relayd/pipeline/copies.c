/* relayd/pipeline/copies.c - what is delivered, as data: edits of the bytes as received. */
#include "relayd/pipeline/copies.h"

#include "relayd/mail/header.h"
#include "relayd/pipeline/fields.h"
#include "relayd/pipeline/verdict.h"

/* ---- edits ----------------------------------------------------------------------------------- */

/* The first edit at or behind a place. */
static size_t
find_place(const struct edit_set *set, uint64_t at)
{
	size_t from = 0, to = set->n;

	/* Most come in order. */
	if (to > 0 && set->v[to - 1].at < at)
		return to;
	while (from < to) {
		size_t mid = from + (to - from) / 2;

		if (set->v[mid].at < at)
			from = mid + 1;
		else
			to = mid;
	}
	return from;
}

static bool
make_room(struct edit_set *set)
{
	struct envelope_edit *v;

	if (set->n >= ENVELOPE_EDITS_MAX)
		return false;
	v = arena_grow(set->arena, set->v, set->n, &set->cap, sizeof(*v));
	if (v == NULL)
		return false;
	set->v = v;
	return true;
}

/* Two edits at one place become one, of which at most one removes. */
static enum edit_status
join(struct edit_set *set, struct envelope_edit *into, const struct envelope_edit *edit)
{
	char *both = arena_alloc(set->arena, into->insert.len + edit->insert.len);

	if (both == NULL)
		return EDIT_FULL;
	memcpy(both, into->insert.p, into->insert.len);
	memcpy(both + into->insert.len, edit->insert.p, edit->insert.len);
	into->insert = slice_of(both, into->insert.len + edit->insert.len);
	into->remove += edit->remove;
	return EDIT_OK;
}

enum edit_status
pl_edit_set_add(struct edit_set *set, const struct envelope_edit *edit)
{
	size_t i = find_place(set, edit->at);
	bool meets = i < set->n && set->v[i].at == edit->at;
	size_t next = meets ? i + 1 : i;

	if (edit->at > set->size || edit->remove > set->size - edit->at)
		return EDIT_CLASH;
	if (i > 0 && set->v[i - 1].remove > edit->at - set->v[i - 1].at)
		return EDIT_CLASH;
	if (next < set->n && edit->remove > set->v[next].at - edit->at)
		return EDIT_CLASH;
	if (meets)
		return set->v[i].remove > 0 && edit->remove > 0 ? EDIT_CLASH
								: join(set, &set->v[i], edit);
	if (!make_room(set))
		return EDIT_FULL;
	memmove(&set->v[i + 1], &set->v[i], (set->n - i) * sizeof(set->v[0]));
	set->v[i] = *edit;
	set->n++;
	return EDIT_OK;
}

static bool
cuts_crlf(struct slice message, uint64_t at)
{
	return at > 0 && at < message.len && message.p[at - 1] == '\r' && message.p[at] == '\n';
}

bool
pl_edit_is_text(struct slice message, const struct envelope_edit *edit)
{
	struct slice s = edit->insert;

	for (size_t i = 0; i < s.len; i++)
		if (s.p[i] == '\0' || (s.p[i] == '\r' && (i + 1 == s.len || s.p[i + 1] != '\n')) ||
		    (s.p[i] == '\n' && (i == 0 || s.p[i - 1] != '\r')))
			return false;
	return !cuts_crlf(message, edit->at) && !cuts_crlf(message, edit->at + edit->remove);
}

bool
pl_edit_brings_dots(struct slice message, const struct envelope_edit *edit)
{
	struct slice rest = slice_drop(message, (size_t)(edit->at + edit->remove));

	return slice_starts(edit->insert, SLICE(".")) || slice_starts(rest, SLICE(".")) ||
	       slice_find(edit->insert, SLICE("\n.")) < edit->insert.len;
}

/* ---- what is not to come in ------------------------------------------------------------------ */

/* The quoted string, behind its first quote, says this, whatever of it is a quoted pair.  A final
 * dot makes no other name of it. */
static bool
quotes(struct slice s, struct slice text)
{
	for (size_t i = 0; i < text.len; i++) {
		if (s.len > 0 && s.p[0] == '\\')
			s = slice_drop(s, 1);
		if (s.len == 0 || slice_lower(s.p[0]) != slice_lower(text.p[i]))
			return false;
		s = slice_drop(s, 1);
	}
	return slice_starts(s, SLICE("\"")) || slice_starts(s, SLICE(".\""));
}

/* The authserv-id of an Authentication-Results field is ours (RFC 8601 section 2.2): a token or a
 * quoted string, and a reader may take a final dot for nothing. */
static bool
bears(struct slice body, struct slice hostname)
{
	struct slice s = body;
	size_t n = 0;

	header_skip_cfws(&s);
	if (s.len > 0 && s.p[0] == '"')
		return quotes(slice_drop(s, 1), hostname);
	while (n < s.len && strchr(" \t\r\n;(", s.p[n]) == NULL)
		n++;
	s = slice_head(s, n);
	(void)slice_chop(&s, ".");
	return slice_ieq(s, hostname);
}

static bool
is_ours(const struct header_field *field, struct slice hostname)
{
	if (slice_istarts(field->name, SLICE("X-Relayd-")))
		return true;
	return slice_ieq(field->name, SLICE("Authentication-Results")) &&
	       bears(field->body, hostname);
}

/* The next field up to the empty line.  A line that is none ends the header for us, but not for
 * every reader behind us: such lines are passed over. */
static bool
next_of_any(struct header_iter *it, struct header_field *field)
{
	while (!header_next(it, field)) {
		size_t n = slice_until(it->rest, '\n').len + 1;
		struct slice name;

		if (it->rest.len == 0 ||
		    header_line_kind(slice_head(it->rest, n), &name) == HEADER_LINE_END)
			return false;
		it->rest = slice_drop(it->rest, n);
	}
	return true;
}

bool
pl_copies_remove_ours(struct edit_set *set, struct slice message, struct slice hostname)
{
	struct header_iter it = header_iter_of(message);
	struct header_field field;

	if (pl_copies_needs_empty_line(message))
		return true; /* all of it is body, below a header of ours */
	while (next_of_any(&it, &field)) {
		struct envelope_edit edit = { .at = (uint64_t)(field.raw.p - message.p),
			.remove = field.raw.len,
			.insert = SLICE("") };

		if (is_ours(&field, hostname) && pl_edit_set_add(set, &edit) != EDIT_OK)
			return false;
	}
	return true;
}

bool
pl_copies_needs_empty_line(struct slice message)
{
	struct slice line = slice_until(message, '\n');
	struct slice name;
	enum header_line kind;

	if (message.len == 0)
		return false; /* a header alone is a message (RFC 5322 section 2.1) */
	line.len += line.len < message.len;
	kind = header_line_kind(line, &name);
	return kind == HEADER_LINE_FOLD || kind == HEADER_LINE_OTHER;
}

/* ---- what is added --------------------------------------------------------------------------- */

/* "ptype.property=value" with the value quoted where it must be: it is somebody else's text. */
static void
put_property(struct buf *word, struct slice property)
{
	struct slice name = slice_until(property, '=');

	if (name.len == property.len)
		return;
	buf_putc(word, ' ');
	pl_field_token(word, name);
	buf_putc(word, '=');
	pl_field_value(word, slice_drop(property, name.len + 1));
}

static void
put_result(struct field *f, const struct auth_result *r, bool last)
{
	char storage[FIELD_LINE_MUST];
	struct buf word = buf_over(storage, sizeof(storage) - 1);
	struct slice rest = r->properties;

	pl_field_token(&word, r->method);
	buf_putc(&word, '=');
	pl_field_token(&word, r->result);
	/* One property a line. */
	while (rest.len > 0) {
		struct slice property = slice_until(rest, '\n');

		put_property(&word, slice_head(property, 600));
		rest = slice_drop(rest, property.len + 1);
	}
	word.overflow = false; /* a property too many is left out */
	if (!last)
		buf_putc(&word, ';');
	pl_field_word(f, buf_slice(&word));
}

void
pl_copies_auth_field(struct buf *out, struct slice hostname, const struct scope *const *scopes,
    size_t n_scopes, const struct decision *final)
{
	struct field f = pl_field_begin(out, "Authentication-Results");
	const struct auth_result *held = NULL;

	pl_field_wordf(&f, "%.*s;", SLICE_FMT(hostname));
	for (size_t i = 0; i < n_scopes; i++) {
		const struct auth_result *r = scopes[i] != NULL ? scopes[i]->auth_results : NULL;

		for (; r != NULL; r = r->next) {
			if (!pl_judge_counts(final, r->position))
				continue;
			if (held != NULL)
				put_result(&f, held, false);
			held = r;
		}
	}
	if (held != NULL)
		put_result(&f, held, true);
	else
		pl_field_word(&f, SLICE("none")); /* RFC 8601 section 2.2: no-result */
	pl_field_end(&f);
}

void
pl_copies_finding_fields(struct buf *out, const struct copy_fields *cf)
{
	struct field f;
	struct slice rest = cf->findings;
	char storage[32];
	struct buf score = buf_over(storage, sizeof(storage));

	buf_tenths(&score, cf->score);
	pl_field_put(out, "X-Relayd-Id", cf->id);
	pl_field_put(out, "X-Relayd-Verdict", cf->verdict);
	pl_field_put(out, "X-Relayd-Score", buf_slice(&score));
	f = pl_field_begin(out, "X-Relayd-Findings");
	while (rest.len > 0) {
		struct slice pair = slice_until(rest, ',');

		rest = slice_drop(rest, pair.len + 1);
		pl_field_wordf(&f, "%.*s%s", SLICE_FMT(pair), rest.len > 0 ? "," : "");
	}
	pl_field_end(&f);
}

static void
put_path(struct field *f, struct slice path, const char *end)
{
	char storage[FIELD_LINE_MUST];
	struct buf word = buf_over(storage, sizeof(storage));

	buf_printf(&word, "<%.*s>%s", SLICE_FMT(slice_head(path, 900)), end);
	pl_field_word(f, buf_slice(&word));
}

void
pl_copies_quarantine_fields(
    struct buf *out, const struct copy_fields *cf, const struct envelope_copy *copy)
{
	struct field f = pl_field_begin(out, "Return-Path");

	put_path(&f, cf->reverse_path, "");
	pl_field_end(&f);
	pl_copies_finding_fields(out, cf);
	pl_field_put(out, "X-Relayd-Client", cf->client_ip);
	pl_field_put(out, "X-Relayd-Helo", cf->helo.len > 0 ? cf->helo : SLICE("none"));
	f = pl_field_begin(out, "X-Relayd-From");
	put_path(&f, cf->reverse_path, "");
	pl_field_end(&f);
	f = pl_field_begin(out, "X-Relayd-To");
	for (size_t i = 0; i < copy->n_rcpts; i++)
		put_path(&f, copy->rcpts[i].forward_path, i + 1 < copy->n_rcpts ? "," : "");
	pl_field_end(&f);
}
