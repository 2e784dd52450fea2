/* relayd/review/item_box.c - the entries of mailboxes, and the notes of what changed in them. */
#include "relayd/review/item_box.h"

#include "relayd/core/clock.h"
#include "relayd/review/scope.h"
#include "relayd/review/top.h"

#include <stdlib.h>

#define NOTES_FIRST     8
#define RCPTS_BYTES_MAX (64u << 20) /* of the recipients of one item in memory */
#define NO_DELETED(box) ((box) == STORE_INBOX ? 0 : (uint64_t)STORE_DELETED)

static struct store_note *
note(struct store_changes *changes, int64_t scope, enum store_box_kind box,
    enum store_change_kind kind)
{
	if (changes->n == changes->cap) {
		size_t cap = changes->cap > 0 ? changes->cap * 2 : NOTES_FIRST;
		struct store_note *v = realloc(changes->v, cap * sizeof(*v));

		if (v == NULL) {
			changes->nomem = true;
			return NULL;
		}
		changes->v = v;
		changes->cap = cap;
	}
	changes->v[changes->n] = (struct store_note){
		.scope = scope, .box = box, .change = { .kind = kind, .by = changes->by }
	};
	return &changes->v[changes->n++];
}

static int
note_entry(struct store_changes *changes, int64_t scope, enum store_box_kind box,
    enum store_change_kind kind, const struct store_entry *entry, struct err *err)
{
	struct store_note *n = note(changes, scope, box, kind);

	if (n == NULL)
		return err_set(err, ERR_NOMEM, "quarantine store: out of memory");
	n->change.entry = *entry;
	return 0;
}

enum store_box_kind
item_box(struct slice scope, const struct item_core *core)
{
	size_t count[4] = { 0 };

	for (size_t i = 0; i < core->n_rcpts; i++)
		if (scope_has(scope, core->rcpts[i].path))
			count[core->rcpts[i].state]++;
	if (count[STORE_HELD] > 0)
		return STORE_INBOX;
	if (count[STORE_RELEASING] > 0)
		return STORE_RELEASE;
	return count[STORE_IS_RELEASED] > 0 ? STORE_RELEASED : STORE_TRASH;
}

int
item_core_get(struct db *db, int64_t item, struct item_core *core, struct err *err)
{
	sqlite3_stmt *stmt = db_query(db, err, DB_ITEM_GET, "i", item);
	int rc = db_next(db, stmt, err);

	if (rc == 0)
		return err_set(err, ERR_NOT_FOUND, "the message is not in the quarantine any more");
	if (rc < 0)
		return -1;
	*core = (struct item_core){ .id = item,
		.top_fixed = db_bytes(stmt, 0).len,
		.size = (uint64_t)sqlite3_column_int64(stmt, 3),
		.stored_ms = sqlite3_column_int64(stmt, 4) };
	if (db_bytes(stmt, 5).len == sizeof(core->msg.bytes))
		memcpy(core->msg.bytes, db_bytes(stmt, 5).p, sizeof(core->msg.bytes));
	db_reset(stmt);
	return 0;
}

static int
take_uid(struct db *db, int64_t scope, enum store_box_kind box, uint32_t *uid, struct err *err)
{
	int64_t n;

	if (db_int(db, err, &n, DB_BOX_TAKE_UID, "ii", scope, (int64_t)box) < 0)
		return -1;
	if (n <= 0 || n > UINT32_MAX)
		return err_set(err, ERR_LIMIT, "quarantine store: a mailbox is out of UIDs");
	*uid = (uint32_t)n;
	return 0;
}

static int
insert(struct db *db, int64_t scope, enum store_box_kind box, struct store_entry *entry,
    struct store_changes *changes, struct err *err)
{
	if (take_uid(db, scope, box, &entry->uid, err) < 0 ||
	    db_run(db, err, DB_ENTRY_ADD, "iiiiiiii", scope, (int64_t)box, (int64_t)entry->uid,
		entry->item, entry->stored_ms, (int64_t)entry->top, (int64_t)entry->size,
		(int64_t)entry->flags) < 0)
		return -1;
	return note_entry(changes, scope, box, STORE_ADDED, entry, err);
}

int
box_add(struct db *db, int64_t scope, struct slice scope_name, const struct item_core *core,
    struct store_changes *changes, struct err *err)
{
	size_t n = 0, bytes = 0;
	struct store_entry entry = { .item = core->id, .stored_ms = core->stored_ms };

	for (size_t i = 0; i < core->n_rcpts; i++) {
		if (scope_has(scope_name, core->rcpts[i].path)) {
			n++;
			bytes += core->rcpts[i].path.len;
		}
	}
	entry.top = (uint32_t)(core->top_fixed + top_to_bytes(n, bytes));
	entry.size = entry.top + core->size;
	return insert(db, scope, item_box(scope_name, core), &entry, changes, err);
}

int
box_remove(
    struct db *db, const struct item_entry *e, struct store_changes *changes, struct err *err)
{
	if (db_run(db, err, DB_ENTRY_DROP, "iii", e->scope, (int64_t)e->box,
		(int64_t)e->entry.uid) < 0)
		return -1;
	return note_entry(changes, e->scope, e->box, STORE_REMOVED, &e->entry, err);
}

int
box_follow(struct db *db, struct item_entry *entries, size_t n, const struct item_core *core,
    struct store_changes *changes, struct err *err)
{
	for (size_t i = 0; i < n; i++) {
		struct item_entry *e = &entries[i];
		enum store_box_kind box = item_box(e->scope_name, core);

		if (box == e->box)
			continue;
		if (box_remove(db, e, changes, err) < 0)
			return -1;
		e->box = box;
		e->entry.flags &= ~(uint64_t)STORE_DELETED; /* it said: move it there */
		if (insert(db, e->scope, box, &e->entry, changes, err) < 0)
			return -1;
	}
	return 0;
}

/* All items that a new scope sees, collected before they are added: *n in *items, malloc'd. */
static int
items_of_scope(struct db *db, struct slice name, int64_t **items, size_t *n, struct err *err)
{
	bool all = slice_eq(name, SLICE("*"));
	size_t cap = 0;
	sqlite3_stmt *stmt;
	int rc;

	if (all)
		stmt = db_query(db, err, DB_ITEM_ALL, "");
	else
		stmt = db_query(db, err,
		    slice_has(name, '@') ? DB_ITEM_OF_ADDRESS : DB_ITEM_OF_DOMAIN, "s", name);
	while ((rc = db_next(db, stmt, err)) > 0) {
		if (*n == cap) {
			int64_t *v = realloc(*items, (cap = cap > 0 ? cap * 2 : 64) * sizeof(*v));

			if (v == NULL) {
				db_reset(stmt);
				return err_set(err, ERR_NOMEM, "quarantine store: out of memory");
			}
			*items = v;
		}
		(*items)[(*n)++] = sqlite3_column_int64(stmt, 0);
	}
	return rc;
}

static int
fill_scope(
    struct db *db, int64_t scope, struct slice name, struct store_changes *changes, struct err *err)
{
	struct arena arena = arena_of(RCPTS_BYTES_MAX);
	int64_t *items = NULL;
	size_t n = 0;
	int rc = items_of_scope(db, name, &items, &n, err);

	for (size_t i = 0; rc == 0 && i < n; i++) {
		struct item_core core;

		rc = item_core_get(db, items[i], &core, err);
		if (rc == 0)
			rc = item_rcpts(db, items[i], &arena, &core.rcpts, &core.n_rcpts, err);
		if (rc == 0)
			rc = box_add(db, scope, name, &core, changes, err);
		/* Nobody can have a mailbox open that is only now being made. */
		changes->n = 0;
		arena_reset(&arena);
	}
	arena_fini(&arena);
	free(items);
	return rc;
}

int
item_scope(
    struct db *db, const char *name, int64_t *scope, struct store_changes *changes, struct err *err)
{
	/* Later than any before it, should the store ever be made anew: RFC 3501 section
	 * 2.3.1.1. */
	int64_t uidvalidity = clock_wall_ms() / 1000 & UINT32_MAX;
	struct err why = { 0 };

	if (db_int(db, &why, scope, DB_SCOPE_ID, "s", slice_str(name)) == 0)
		return 0;
	if (why.code != ERR_NOT_FOUND) {
		*err = why;
		return -1;
	}
	if (db_run(db, err, DB_SCOPE_ADD, "s", slice_str(name)) < 0)
		return -1;
	*scope = db_last_id(db);
	for (int box = 0; box < STORE_BOXES; box++)
		if (db_run(db, err, DB_BOX_ADD, "iii", *scope, (int64_t)box, uidvalidity) < 0)
			return -1;
	return fill_scope(db, *scope, slice_str(name), changes, err);
}

/* 1 with *bit when the scope has the keyword, else 0 with *next, the first free number. */
static int
find_keyword(
    struct db *db, int64_t scope, struct slice name, uint64_t *bit, int64_t *next, struct err *err)
{
	sqlite3_stmt *stmt = db_query(db, err, DB_KEYWORD_ALL, "i", scope);
	int rc;

	*next = 0;
	while ((rc = db_next(db, stmt, err)) > 0) {
		int64_t n = sqlite3_column_int64(stmt, 0);

		if (n >= 0 && n < STORE_KEYWORDS_MAX && slice_ieq(db_bytes(stmt, 1), name)) {
			*bit = STORE_KEYWORD_BIT(n);
			db_reset(stmt);
			return 1;
		}
		*next = n + 1;
	}
	return rc;
}

int
item_keyword(struct db *db, int64_t scope, struct slice name, bool create, uint64_t *bit,
    struct store_changes *changes, struct err *err)
{
	struct store_note *n;
	int64_t next;
	int rc;

	*bit = 0;
	if (name.len == 0 || name.len > STORE_KEYWORD_BYTES)
		return create ? err_set(err, ERR_LIMIT, "a keyword has 1 to %d bytes",
				    STORE_KEYWORD_BYTES)
			      : 0;
	rc = find_keyword(db, scope, name, bit, &next, err);
	if (rc != 0 || !create)
		return rc < 0 ? -1 : 0;
	if (next >= STORE_KEYWORDS_MAX)
		return err_set(err, ERR_LIMIT, "no more than %d keywords", STORE_KEYWORDS_MAX);
	if (db_run(db, err, DB_KEYWORD_ADD, "iis", scope, next, name) < 0)
		return -1;
	n = note(changes, scope, STORE_INBOX, STORE_KEYWORDS_CHANGED);
	if (n == NULL)
		return err_set(err, ERR_NOMEM, "quarantine store: out of memory");
	n->keyword = (unsigned)next;
	memcpy(n->keyword_name, name.p, name.len);
	*bit = STORE_KEYWORD_BIT(next);
	return 0;
}

int
item_set_flags(struct db *db, int64_t scope, enum store_box_kind box, struct store_entry entry,
    uint64_t flags, struct store_changes *changes, struct err *err)
{
	flags &= ~NO_DELETED(box);
	if (flags == entry.flags)
		return 0;
	entry.flags = flags;
	if (db_run(db, err, DB_ENTRY_FLAGS, "iiii", scope, (int64_t)box, (int64_t)entry.uid,
		(int64_t)flags) < 0)
		return -1;
	return note_entry(changes, scope, box, STORE_FLAGS_CHANGED, &entry, err);
}
