/* relayd/review/store_box.c - mailboxes in memory: loaded once, kept up to date, shared by
 * sessions. */
#include "relayd/review/store_internal.h"

#include "relayd/core/counters.h"

#include <assert.h>
#include <stdlib.h>

#define ENTRIES_FIRST 64

const char *
store_box_name(enum store_box_kind kind)
{
	static const char *const names[STORE_BOXES] = { "INBOX", "Release", "Released", "Trash" };

	return names[kind];
}

const char *
store_state_name(enum store_state state)
{
	static const char *const names[] = { "held", "releasing", "released", "dropped" };

	return names[state];
}

/* ---- the boxes that are there ---------------------------------------------------------------- */

static struct store_scope *
scope_by_id(struct store *st, int64_t id)
{
	for (struct store_scope *scope = st->scopes; scope != NULL; scope = scope->next)
		if (scope->id == id)
			return scope;
	return NULL;
}

struct store_box *
store_box_loaded(struct store *st, const char *name, enum store_box_kind kind)
{
	for (struct store_scope *scope = st->scopes; scope != NULL; scope = scope->next)
		if (strcmp(scope->name, name) == 0)
			return scope->boxes[kind];
	return NULL;
}

static void
scope_free(struct store_scope *scope)
{
	struct store_scope **at = &scope->store->scopes;

	while (*at != scope)
		at = &(*at)->next;
	*at = scope->next;
	free(scope);
}

static void
box_free(struct store_box *box)
{
	struct store_scope *scope = box->scope;

	scope->boxes[box->kind] = NULL;
	free(box->entries);
	free(box);
	for (int kind = 0; kind < STORE_BOXES; kind++)
		if (scope->boxes[kind] != NULL)
			return;
	scope_free(scope);
}

/* The idle box that was left longest ago; counts all idle ones and their entries. */
static struct store_box *
oldest_idle(struct store *st, size_t *boxes, size_t *entries)
{
	struct store_box *oldest = NULL;

	*boxes = *entries = 0;
	for (struct store_scope *scope = st->scopes; scope != NULL; scope = scope->next) {
		for (int kind = 0; kind < STORE_BOXES; kind++) {
			struct store_box *box = scope->boxes[kind];

			if (box == NULL || box->refs > 0)
				continue;
			(*boxes)++;
			*entries += box->n;
			if (oldest == NULL || box->idle_since < oldest->idle_since)
				oldest = box;
		}
	}
	return oldest;
}

void
store_box_hold(struct store_box *box)
{
	box->refs++;
}

void
store_box_close(struct store_box *box)
{
	struct store *st = box->scope->store;
	size_t boxes, entries;

	assert(box->refs > 0);
	if (--box->refs > 0)
		return;
	box->idle_since = ++st->idle_clock;
	while ((box = oldest_idle(st, &boxes, &entries)) != NULL &&
	       (boxes > STORE_IDLE_BOXES || entries > STORE_IDLE_ENTRIES))
		box_free(box);
}

void
store_boxes_free(struct store *st)
{
	size_t boxes, entries;
	struct store_box *box;

	while ((box = oldest_idle(st, &boxes, &entries)) != NULL)
		box_free(box);
	assert(st->scopes == NULL);
}

/* ---- loading --------------------------------------------------------------------------------- */

/* What the pool hands over: a box and a scope that are not yet those of the store. */
struct load {
	struct store_req req;
	char name[SCOPE_BYTES_MAX + 1];
	enum store_box_kind kind;
	struct store_scope *scope;
	struct store_box *box;
	struct store_box_open *open;
};

static int
load_keywords(struct db *db, struct store_scope *scope, struct err *err)
{
	sqlite3_stmt *stmt = db_query(db, err, DB_KEYWORD_ALL, "i", scope->id);
	int rc;

	while ((rc = db_next(db, stmt, err)) > 0) {
		int64_t n = sqlite3_column_int64(stmt, 0);
		struct slice name = slice_head(db_bytes(stmt, 1), STORE_KEYWORD_BYTES);

		if (n < 0 || n >= STORE_KEYWORDS_MAX)
			continue;
		memcpy(scope->keywords[n], name.p, name.len);
		scope->n_keywords = (size_t)n + 1;
	}
	return rc;
}

static bool
box_append(struct store_box *box, const struct store_entry *entry)
{
	if (box->n == box->cap) {
		size_t cap = box->cap > 0 ? box->cap * 2 : ENTRIES_FIRST;
		struct store_entry *v = realloc(box->entries, cap * sizeof(*v));

		if (v == NULL)
			return false;
		box->entries = v;
		box->cap = cap;
	}
	box->entries[box->n++] = *entry;
	return true;
}

static int
load_entries(struct db *db, struct load *load, struct err *err)
{
	sqlite3_stmt *stmt =
	    db_query(db, err, DB_ENTRY_OF_BOX, "ii", load->scope->id, (int64_t)load->kind);
	int rc;

	while ((rc = db_next(db, stmt, err)) > 0) {
		struct store_entry entry = item_entry_of_row(stmt);

		if (!box_append(load->box, &entry)) {
			db_reset(stmt);
			return err_set(err, ERR_NOMEM, "quarantine store: out of memory");
		}
	}
	return rc;
}

static int
load_box(struct db *db, struct load *load, struct err *err)
{
	sqlite3_stmt *stmt =
	    db_query(db, err, DB_BOX_GET, "ii", load->scope->id, (int64_t)load->kind);
	int rc = db_next(db, stmt, err);

	if (rc == 0)
		return err_set(err, ERR_DAMAGED, "quarantine store: a scope without mailboxes");
	if (rc < 0)
		return -1;
	load->box->uidvalidity = (uint32_t)sqlite3_column_int64(stmt, 0);
	load->box->uidnext = load->box->recent = (uint32_t)sqlite3_column_int64(stmt, 1);
	db_reset(stmt);
	return load_entries(db, load, err);
}

static int
load_run(struct store_req *req, struct db *db)
{
	struct load *load = container_of(req, struct load, req);

	load->scope = calloc(1, sizeof(*load->scope));
	load->box = calloc(1, sizeof(*load->box));
	if (load->scope == NULL || load->box == NULL)
		return err_set(&req->err, ERR_NOMEM, "quarantine store: out of memory");
	memcpy(load->scope->name, load->name, sizeof(load->name));
	load->box->kind = load->kind;
	if (item_scope(db, load->name, &load->scope->id, req->changes, &req->err) < 0 ||
	    load_keywords(db, load->scope, &req->err) < 0)
		return -1;
	return load_box(db, load, &req->err);
}

/* The scope in memory becomes that of the store, unless another request was first. */
static struct store_scope *
adopt_scope(struct store *st, struct load *load)
{
	struct store_scope *scope = scope_by_id(st, load->scope->id);

	if (scope != NULL)
		return scope;
	scope = load->scope;
	load->scope = NULL;
	scope->store = st;
	scope->next = st->scopes;
	st->scopes = scope;
	return scope;
}

static struct store_box *
adopt_box(struct store_scope *scope, struct load *load)
{
	struct store_box **at = &scope->boxes[load->kind];

	if (*at == NULL) {
		*at = load->box;
		load->box = NULL;
		(*at)->scope = scope;
	}
	return *at;
}

static void
load_settle(struct store_req *req)
{
	struct load *load = container_of(req, struct load, req);
	struct store_box_open *open = load->open;

	open->req.err = req->err;
	if (req->err.code == ERR_NONE) {
		open->box = adopt_box(adopt_scope(req->store, load), load);
		store_box_hold(open->box);
	}
	if (load->box != NULL)
		free(load->box->entries);
	free(load->box);
	free(load->scope);
	free(load);
	open->done(open);
}

static void
open_settle(struct store_req *req)
{
	struct store_box_open *open = container_of(req, struct store_box_open, req);

	open->done(open);
}

void
store_box_open(struct store *st, struct store_box_open *open)
{
	static const struct store_req_ops load_ops = { STORE_WRITES, load_run, load_settle };
	static const struct store_req_ops ready_ops = { STORE_WRITES, NULL, open_settle };
	struct load *load = calloc(1, sizeof(*load));

	open->box = NULL;
	open->req.err = (struct err){ 0 };
	if (load == NULL) {
		(void)err_set(&open->req.err, ERR_NOMEM, "quarantine store: out of memory");
	} else if (!scope_name(open->scope, load->name)) {
		(void)err_set(&open->req.err, ERR_DENIED, "this user has no scope: nothing to see");
	} else if ((open->box = store_box_loaded(st, load->name, open->kind)) == NULL) {
		load->kind = open->kind;
		load->open = open;
		store_submit(st, &load->req, &load_ops, NULL);
		return;
	} else {
		store_box_hold(open->box);
	}
	free(load);
	store_settle_soon(st, &open->req, &ready_ops, NULL);
}

/* ---- looking --------------------------------------------------------------------------------- */

enum store_box_kind
store_box_kind(const struct store_box *box)
{
	return box->kind;
}

const char *
store_box_scope(const struct store_box *box)
{
	return box->scope->name;
}

uint32_t
store_box_uidvalidity(const struct store_box *box)
{
	return box->uidvalidity;
}

uint32_t
store_box_uidnext(const struct store_box *box)
{
	return box->uidnext;
}

const struct store_entry *
store_box_entries(const struct store_box *box, size_t *n)
{
	*n = box->n;
	return box->entries;
}

static struct store_entry *
find(const struct store_box *box, uint32_t uid)
{
	size_t low = 0, high = box->n;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (box->entries[middle].uid < uid)
			low = middle + 1;
		else
			high = middle;
	}
	return low < box->n && box->entries[low].uid == uid ? &box->entries[low] : NULL;
}

const struct store_entry *
store_box_find(const struct store_box *box, uint32_t uid)
{
	return find(box, uid);
}

const char *
store_box_keyword(const struct store_box *box, size_t n)
{
	return n < box->scope->n_keywords ? box->scope->keywords[n] : NULL;
}

uint32_t
store_box_peek_recent(const struct store_box *box)
{
	return box->recent;
}

uint32_t
store_box_take_recent(struct store_box *box)
{
	uint32_t from = box->recent;

	box->recent = box->uidnext;
	return from;
}

bool
store_box_lock(struct store_box *box)
{
	if (box->scope->locked)
		return false;
	box->scope->locked = true;
	return true;
}

void
store_box_unlock(struct store_box *box)
{
	box->scope->locked = false;
}

/* ---- watching -------------------------------------------------------------------------------- */

void
store_watch(struct store_box *box, struct store_watch *watch)
{
	watch->next = box->watches;
	watch->prev = &box->watches;
	if (watch->next != NULL)
		watch->next->prev = &watch->next;
	box->watches = watch;
	watch->store = box->scope->store;
}

void
store_unwatch(struct store_watch *watch)
{
	if (watch->store->cursor == watch)
		watch->store->cursor = watch->next;
	if (watch->next != NULL)
		watch->next->prev = watch->prev;
	*watch->prev = watch->next;
}

static void
tell(struct store *st, struct store_box *box, const struct store_change *change)
{
	st->cursor = box->watches;
	while (st->cursor != NULL) {
		struct store_watch *watch = st->cursor;

		st->cursor = watch->next;
		watch->on_change(watch, change);
	}
}

static void
add_keyword(struct store_scope *scope, const struct store_note *note)
{
	memcpy(scope->keywords[note->keyword], note->keyword_name, sizeof(note->keyword_name));
	if (scope->n_keywords <= note->keyword)
		scope->n_keywords = note->keyword + 1;
}

static void
change_box(struct store_box *box, const struct store_note *note)
{
	const struct store_entry *entry = &note->change.entry;
	struct store_entry *at;

	switch (note->change.kind) {
	case STORE_ADDED:
		assert(entry->uid >= box->uidnext);
		/* Out of memory it is not seen before the box is loaded again; the disk has it. */
		(void)box_append(box, entry);
		box->uidnext = entry->uid + 1;
		break;
	case STORE_REMOVED:
		at = find(box, entry->uid);
		if (at != NULL) {
			at->item = 0;
			box->removed++;
		}
		break;
	case STORE_FLAGS_CHANGED:
		at = find(box, entry->uid);
		if (at != NULL)
			at->flags = entry->flags;
		break;
	case STORE_KEYWORDS_CHANGED:
		break;
	}
}

/* Drops what was removed, in one pass however much it was. */
static void
compact(struct store_box *box)
{
	size_t kept = 0;

	if (box->removed == 0)
		return;
	for (size_t i = 0; i < box->n; i++)
		if (box->entries[i].item != 0)
			box->entries[kept++] = box->entries[i];
	box->n = kept;
	box->removed = 0;
}

static struct store_box *
box_of(struct store *st, const struct store_note *note)
{
	struct store_scope *scope = scope_by_id(st, note->scope);

	return scope != NULL ? scope->boxes[note->box] : NULL;
}

static void
tell_scope(struct store *st, const struct store_note *note)
{
	struct store_scope *scope = scope_by_id(st, note->scope);

	for (int kind = 0; scope != NULL && kind < STORE_BOXES; kind++) {
		struct store_box *box = scope->boxes[kind];

		if (box != NULL)
			tell(st, box, &note->change);
		scope = scope_by_id(st, note->scope); /* a watcher may have closed the last box */
	}
}

void
store_apply(struct store *st, struct store_changes *changes)
{
	struct store_box *box;

	st->held += changes->held;
	counter_set(COUNTER_HELD, st->held);
	for (size_t i = 0; i < changes->n; i++) {
		struct store_scope *scope = scope_by_id(st, changes->v[i].scope);

		if (scope != NULL && changes->v[i].change.kind == STORE_KEYWORDS_CHANGED)
			add_keyword(scope, &changes->v[i]);
		else if ((box = box_of(st, &changes->v[i])) != NULL)
			change_box(box, &changes->v[i]);
	}
	for (size_t i = 0; i < changes->n; i++)
		if ((box = box_of(st, &changes->v[i])) != NULL)
			compact(box);
	for (size_t i = 0; i < changes->n; i++) {
		if (changes->v[i].change.kind == STORE_KEYWORDS_CHANGED)
			tell_scope(st, &changes->v[i]);
		else if ((box = box_of(st, &changes->v[i])) != NULL)
			tell(st, box, &changes->v[i].change);
	}
}
