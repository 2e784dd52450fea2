/* relayd/pipeline/trace_read.c - finds what became of a message or session, in the files of all
 * roles. */
#include "relayd/core/io.h"
#include "relayd/core/record_file.h"
#include "relayd/pipeline/trace.h"
#include "relayd/pipeline/trace_file.h"

#include <jansson.h>
#include <stdlib.h>
#include <zstd.h>

#define WINDOW_BYTES (256u << 10)

/* ---- what matches ---------------------------------------------------------------------------- */

/* "@example.org" and "example.org" are all of a domain. */
static bool
address_fits(struct slice wanted, struct slice path)
{
	struct slice domain = wanted;
	const char *at = memrchr(path.p, '@', path.len);

	if (slice_ieq(wanted, path))
		return true;
	if (wanted.len > 0 && wanted.p[0] == '@')
		domain = slice_drop(wanted, 1);
	return at != NULL && !slice_has(domain, '@') &&
	       slice_ieq(domain, slice_drop(path, (size_t)(at + 1 - path.p)));
}

static struct slice
text_of(const json_t *value)
{
	return slice_of(json_string_value(value), json_string_length(value));
}

/* value: a string, or a list of them. */
static bool
any_fits(const json_t *value, struct slice wanted)
{
	if (json_is_string(value))
		return address_fits(wanted, text_of(value));
	for (size_t i = 0; i < json_array_size(value); i++)
		if (address_fits(wanted, text_of(json_array_get(value, i))))
			return true;
	return false;
}

/* Refused, or replaced by the targets of an alias. */
static bool
is_about_recipient(struct slice note)
{
	return slice_eq(note, SLICE("recipient")) || slice_eq(note, SLICE("alias"));
}

/* Such a recipient is in no envelope, only in a note of its own. */
static bool
is_noted(const json_t *events, struct slice wanted)
{
	for (size_t i = 0; i < json_array_size(events); i++) {
		const json_t *event = json_array_get(events, i);

		if (is_about_recipient(text_of(json_object_get(event, "note"))) &&
		    any_fits(json_object_get(event, "subject"), wanted))
			return true;
	}
	return false;
}

static bool
json_fits(struct slice json, const struct trace_query *q)
{
	json_t *o = json_loadb(json.p, json.len, JSON_ALLOW_NUL, NULL);
	bool fits = o != NULL;

	if (q->ip.len > 0)
		fits = fits && slice_ieq(text_of(json_object_get(o, "ip")), q->ip);
	if (q->from.len > 0)
		fits = fits && any_fits(json_object_get(o, "from"), q->from);
	if (q->to.len > 0)
		fits = fits && (any_fits(json_object_get(o, "to"), q->to) ||
				   is_noted(json_object_get(o, "events"), q->to));
	json_decref(o);
	return fits;
}

static bool
matches(const struct trace_entry *e, int64_t ms, const struct trace_query *q)
{
	if (ms < q->since_ms)
		return false;
	/* An entry without a message or a session has the id of all zeros there. */
	if (q->has_id &&
	    (id_eq(q->id, (struct id){ 0 }) || (!id_eq(e->id, q->id) && !id_eq(e->session, q->id))))
		return false;
	if (q->from.len + q->to.len + q->ip.len == 0)
		return true;
	return json_fits(e->json, q);
}

/* ---- one file -------------------------------------------------------------------------------- */

/* A file of a day, standing at its next entry that matches. */
struct source {
	struct io_file *file;
	struct record_cursor cursor;
	struct slice block; /* entries of it that are still to come, in plain */
	char *plain;        /* TRACE_BLOCK_MAX bytes, or NULL */
	struct trace_entry entry;
	int64_t ms;
	bool over;
};

static uint64_t
number(const char *p, size_t bytes)
{
	uint64_t n = 0;

	while (bytes-- > 0)
		n = n << 8 | (uint8_t)p[bytes];
	return n;
}

static bool
read_entry(struct source *s, struct slice bytes)
{
	if (bytes.len < TRACE_HEAD_BYTES)
		return false;
	s->ms = (int64_t)number(bytes.p, 8);
	memcpy(s->entry.id.bytes, bytes.p + 8, 16);
	memcpy(s->entry.session.bytes, bytes.p + 24, 16);
	s->entry.json = slice_drop(bytes, TRACE_HEAD_BYTES);
	return true;
}

/* The next entry of the block; false at its end, or where it makes no sense. */
static bool
next_in_block(struct source *s)
{
	uint64_t len;

	if (s->block.len < TRACE_LEN_BYTES)
		return false;
	len = number(s->block.p, TRACE_LEN_BYTES);
	s->block = slice_drop(s->block, TRACE_LEN_BYTES);
	if (len > s->block.len || !read_entry(s, slice_head(s->block, (size_t)len))) {
		s->block = SLICE(""); /* where the next one begins is not known */
		return false;
	}
	s->block = slice_drop(s->block, (size_t)len);
	return true;
}

/* One that cannot be read, of a version to come perhaps, holds nothing for us. */
static void
open_block(struct source *s, struct slice packed)
{
	size_t n;

	if (s->plain == NULL)
		s->plain = malloc(TRACE_BLOCK_MAX);
	if (s->plain == NULL)
		return;
	n = ZSTD_decompress(s->plain, TRACE_BLOCK_MAX, packed.p, packed.len);
	s->block = slice_of(s->plain, ZSTD_isError(n) ? 0 : n);
}

static int
next_entry(struct source *s, uint64_t *damaged, struct err *err)
{
	struct record rec;

	while (!next_in_block(s)) {
		switch (record_cursor_next(&s->cursor, &rec, err)) {
		case RECORD_WHOLE:
			if (rec.type == TRACE_RECORD && read_entry(s, rec.payload))
				return 0;
			if (rec.type == TRACE_BLOCK)
				open_block(s, rec.payload);
			break;
		case RECORD_DAMAGE:
			if (damaged != NULL)
				++*damaged;
			break;
		case RECORD_MORE:
		case RECORD_END:
			s->over = true;
			return 0;
		default:
			return -1;
		}
	}
	return 0;
}

static int
next_match(struct source *s, const struct trace_query *q, uint64_t *damaged, struct err *err)
{
	int rc;

	do
		rc = next_entry(s, damaged, err);
	while (rc == 0 && !s->over && !matches(&s->entry, s->ms, q));
	return rc;
}

static void
source_close(struct source *s)
{
	record_cursor_fini(&s->cursor);
	io_close(s->file);
	free(s->plain);
}

/* A file that cannot be read at all is damage, not the end of the search. */
static int
source_open(struct source *s, struct io_dir *dir, const char *name, const struct trace_query *q,
    uint64_t *damaged, struct err *err)
{
	*s = (struct source){ .over = true };
	s->file = io_open(dir, name, false, err);
	if (s->file == NULL)
		return err->code == ERR_NOT_FOUND ? 0 : -1; /* removed meanwhile */
	if (record_cursor_init(&s->cursor, s->file, RECORD_TRACE, 0, WINDOW_BYTES, err) < 0) {
		if (damaged != NULL)
			++*damaged;
		return 0;
	}
	s->over = false;
	return next_match(s, q, damaged, err);
}

/* ---- all files ------------------------------------------------------------------------------- */

struct name {
	char text[IO_NAME_MAX];
	size_t dir;
};

struct names {
	struct name *v;
	size_t n, dir;
	bool failed;
	char from[TRACE_DATE_BYTES]; /* no day before it is of interest */
};

static void
add_name(void *data, const char *name)
{
	struct names *all = data;
	struct name *grown;

	if (!pl_trace_is_file(name) || strlen(name) >= IO_NAME_MAX ||
	    strncmp(name, all->from, TRACE_DATE_BYTES - 1) < 0)
		return;
	grown = realloc(all->v, (all->n + 1) * sizeof(*grown));
	if (grown == NULL) {
		all->failed = true;
		return;
	}
	all->v = grown;
	memcpy(grown[all->n].text, name, strlen(name) + 1);
	grown[all->n++].dir = all->dir;
}

static int
by_name(const void *a, const void *b)
{
	return strcmp(((const struct name *)a)->text, ((const struct name *)b)->text);
}

/* The search: where to look and whom to tell. */
struct search {
	struct io_dir **dirs;
	const struct trace_query *query;
	bool (*on_entry)(void *arg, const struct trace_entry *entry);
	void *arg;
	uint64_t *damaged;
	bool stopped;
};

static struct source *
earliest(struct source *sources, size_t n)
{
	struct source *first = NULL;

	for (size_t i = 0; i < n; i++)
		if (!sources[i].over && (first == NULL || sources[i].ms < first->ms))
			first = &sources[i];
	return first;
}

/* Merges the files of one day. */
static int
read_day(struct search *s, const struct name *names, size_t n, struct err *err)
{
	struct source *sources = calloc(n, sizeof(*sources)), *next;
	size_t open = 0;
	int rc = sources != NULL ? 0 : err_set(err, ERR_NOMEM, "out of memory to read traces");

	for (; rc == 0 && open < n; open++)
		rc = source_open(&sources[open], s->dirs[names[open].dir], names[open].text,
		    s->query, s->damaged, err);
	while (rc == 0 && !s->stopped && (next = earliest(sources, n)) != NULL) {
		s->stopped = !s->on_entry(s->arg, &next->entry);
		rc = next_match(next, s->query, s->damaged, err);
	}
	for (size_t i = 0; i < open; i++)
		source_close(&sources[i]);
	free(sources);
	return rc;
}

static int
read_days(struct search *s, const struct names *names, struct err *err)
{
	size_t from = 0;
	int rc = 0;

	while (rc == 0 && from < names->n && !s->stopped) {
		size_t to = from + 1;

		while (to < names->n &&
		       strncmp(names->v[to].text, names->v[from].text, TRACE_DATE_BYTES - 1) == 0)
			to++;
		rc = read_day(s, names->v + from, to - from, err);
		from = to;
	}
	return rc;
}

static int
list_dirs(
    struct search *s, const char *const *paths, size_t n, struct names *names, struct err *err)
{
	for (names->dir = 0; names->dir < n; names->dir++) {
		s->dirs[names->dir] = io_dir_open(paths[names->dir], err);
		if (s->dirs[names->dir] == NULL && err->code == ERR_NOT_FOUND)
			continue;
		if (s->dirs[names->dir] == NULL ||
		    io_list(s->dirs[names->dir], add_name, names, err) < 0)
			return -1;
	}
	return names->failed ? err_set(err, ERR_NOMEM, "out of memory for the names of traces") : 0;
}

int
trace_read(const char *const *dirs, size_t n_dirs, const struct trace_query *query,
    bool (*on_entry)(void *arg, const struct trace_entry *entry), void *arg, uint64_t *damaged,
    struct err *err)
{
	struct search s = { .query = query, .on_entry = on_entry, .arg = arg, .damaged = damaged };
	struct names names = { 0 };
	struct err ignored;
	int rc;

	err = err != NULL ? err : &ignored;
	if (damaged != NULL)
		*damaged = 0;
	pl_trace_date(query->since_ms, names.from);
	s.dirs = calloc(n_dirs + 1, sizeof(struct io_dir *));
	rc = s.dirs != NULL ? list_dirs(&s, dirs, n_dirs, &names, err)
			    : err_set(err, ERR_NOMEM, "out of memory to read traces");
	if (rc == 0 && names.n > 0)
		qsort(names.v, names.n, sizeof(names.v[0]), by_name);
	if (rc == 0)
		rc = read_days(&s, &names, err);
	for (size_t i = 0; s.dirs != NULL && i < n_dirs; i++)
		io_dir_close(s.dirs[i]);
	free(s.dirs);
	free(names.v);
	return rc;
}
