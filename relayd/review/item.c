/* relayd/review/item.c - what happens to items, inside one transaction of the store's writer. */
#include "relayd/review/item.h"

#include "relayd/review/body.h"
#include "relayd/review/item_box.h"
#include "relayd/review/scope.h"
#include "relayd/review/top.h"

#include <stdlib.h>

#define ITEM_ARENA_BYTES (64u << 20) /* recipients and entries of one item */
#define ARRAY_FIRST      8

/* Room for one more element in an array of the arena; what it had before is forgotten there. */
static void *
grow(struct arena *arena, void *v, size_t n, size_t each)
{
	void *bigger;

	if (n != 0 && (n < ARRAY_FIRST || (n & (n - 1)) != 0))
		return v;
	bigger = arena_alloc(arena, (n == 0 ? ARRAY_FIRST : n * 2) * each);
	if (bigger != NULL && n > 0)
		memcpy(bigger, v, n * each);
	return bigger;
}

static int
too_many(sqlite3_stmt *stmt, struct err *err)
{
	db_reset(stmt);
	return err_set(err, ERR_LIMIT, "quarantine store: the recipients of an item over %u bytes",
	    ITEM_ARENA_BYTES);
}

int
item_rcpts(struct db *db, int64_t item, struct arena *arena, struct item_rcpt **v, size_t *n,
    struct err *err)
{
	sqlite3_stmt *stmt = db_query(db, err, DB_RCPT_OF_ITEM, "i", item);
	int rc;

	*v = NULL;
	*n = 0;
	while ((rc = db_next(db, stmt, err)) > 0) {
		struct slice path = arena_copy(arena, db_bytes(stmt, 1));
		int64_t state = sqlite3_column_int64(stmt, 2);

		*v = grow(arena, *v, *n, sizeof(**v));
		if (*v == NULL || path.p == NULL)
			return too_many(stmt, err);
		(*v)[(*n)++] = (struct item_rcpt){ .id = sqlite3_column_int64(stmt, 0),
			.path = path,
			.state = (enum store_state)(state & 3) };
	}
	return rc;
}

struct store_entry
item_entry_of_row(sqlite3_stmt *stmt)
{
	return (struct store_entry){ .uid = (uint32_t)sqlite3_column_int64(stmt, 0),
		.item = sqlite3_column_int64(stmt, 1),
		.stored_ms = sqlite3_column_int64(stmt, 2),
		.top = (uint32_t)sqlite3_column_int64(stmt, 3),
		.size = (uint64_t)sqlite3_column_int64(stmt, 4),
		.flags = (uint64_t)sqlite3_column_int64(stmt, 5) };
}

int
item_entries(struct db *db, int64_t item, struct arena *arena, struct item_entry **v, size_t *n,
    struct err *err)
{
	sqlite3_stmt *stmt = db_query(db, err, DB_ENTRY_OF_ITEM, "i", item);
	int rc;

	*v = NULL;
	*n = 0;
	while ((rc = db_next(db, stmt, err)) > 0) {
		struct slice name = arena_copy(arena, db_bytes(stmt, 8));
		int64_t box = sqlite3_column_int64(stmt, 7);

		*v = grow(arena, *v, *n, sizeof(**v));
		if (*v == NULL || name.p == NULL)
			return too_many(stmt, err);
		(*v)[(*n)++] = (struct item_entry){ .entry = item_entry_of_row(stmt),
			.scope = sqlite3_column_int64(stmt, 6),
			.box = (enum store_box_kind)(box & 3),
			.scope_name = name };
	}
	return rc;
}

/* ---- mail in --------------------------------------------------------------------------------- */

/* Which recipients are new, as indexes in the arena. */
static int
new_rcpts(struct db *db, struct store_put *put, struct arena *arena, size_t **v, struct err *err)
{
	struct slice msg = slice_of(put->id.bytes, sizeof(put->id.bytes));

	put->n_new = 0;
	*v = arena_alloc(arena, (put->n_rcpts + 1) * sizeof(**v));
	if (*v == NULL)
		return err_set(err, ERR_LIMIT, "quarantine store: too many recipients");
	for (size_t i = 0; i < put->n_rcpts; i++) {
		struct err why = { 0 };
		int64_t one;

		if (db_int(db, &why, &one, DB_RCPT_HAS, "bs", msg, put->rcpts[i].forward_path) == 0)
			continue;
		if (why.code != ERR_NOT_FOUND) {
			*err = why;
			return -1;
		}
		(*v)[put->n_new++] = i;
	}
	return 0;
}

/* The quarantine's fields at the front of the body, wherever that is; a slice of put or of
 * *head. */
static int
front_of(struct db *db, const struct store_put *put, struct buf *head, struct slice *top,
    struct err *err)
{
	struct slice front = put->bytes;

	if (put->body != 0) {
		if (body_read(db, put->body, 0, TOP_BYTES_MAX, head, err) < 0)
			return -1;
		front = buf_slice(head);
	}
	*top = slice_head(front, top_length(front));
	return 0;
}

static int
add_item(
    struct db *db, struct store_put *put, int64_t now_ms, struct item_core *core, struct err *err)
{
	struct buf head = buf_heap(TOP_BYTES_MAX), fixed = buf_heap(TOP_BYTES_MAX);
	struct slice msg = slice_of(put->id.bytes, sizeof(put->id.bytes)), top;
	int64_t body = put->body;
	uint64_t size;
	int rc = -1;

	if (front_of(db, put, &head, &top, err) < 0 ||
	    body_append(db, &body, put->bytes, false, err) < 0 || body_keep(db, body, err) < 0 ||
	    body_size(db, body, &size, err) < 0)
		goto out;
	top_without_to(top, &fixed);
	if (fixed.overflow) {
		(void)err_set(err, ERR_NOMEM, "quarantine store: out of memory");
		goto out;
	}
	put->size = size - top.len;
	if (db_run(db, err, DB_ITEM_ADD, "bissbiii", msg, now_ms, put->reverse_path, put->params,
		buf_slice(&fixed), (int64_t)top.len, body, (int64_t)put->size) < 0)
		goto out;
	*core = (struct item_core){
		.id = db_last_id(db), .stored_ms = now_ms, .top_fixed = fixed.len, .size = put->size
	};
	rc = 0;
out:
	buf_fini(&head);
	buf_fini(&fixed);
	return rc;
}

static void
lower(struct slice s, char *out)
{
	for (size_t i = 0; i < s.len; i++)
		out[i] = slice_lower(s.p[i]);
}

/* Adds one recipient; address and domain are its keys for the scopes, in lower case. */
static int
add_rcpt(struct db *db, const struct store_put *put, const struct store_rcpt *rcpt,
    const struct item_core *core, struct arena *arena, struct item_rcpt *out, struct err *err)
{
	struct slice msg = slice_of(put->id.bytes, sizeof(put->id.bytes)), domain, address;
	char *key = arena_alloc(arena, rcpt->forward_path.len + 1);

	if (key == NULL)
		return err_set(err, ERR_LIMIT, "quarantine store: too many recipients");
	lower(rcpt->forward_path, key);
	address = slice_of(key, rcpt->forward_path.len);
	domain = scope_domain(address);
	if (db_run(db, err, DB_RCPT_ADD, "ibssssi", core->id, msg, rcpt->forward_path, rcpt->params,
		address, domain, core->stored_ms) < 0)
		return -1;
	*out = (struct item_rcpt){ .id = db_last_id(db), .path = address, .state = STORE_HELD };
	return 0;
}

static int
compare_slices(const void *a, const void *b)
{
	const struct slice *x = a, *y = b;
	int order = memcmp(x->p, y->p, x->len < y->len ? x->len : y->len);

	if (order != 0)
		return order;
	return x->len < y->len ? -1 : x->len > y->len;
}

/* Shows a new item in every scope that exists and has one of its recipients. */
static int
show_item(struct db *db, const struct item_core *core, struct arena *arena,
    struct store_changes *changes, struct err *err)
{
	size_t n = 0;
	struct slice *names = arena_alloc(arena, (2 * core->n_rcpts + 1) * sizeof(*names));

	if (names == NULL)
		return err_set(err, ERR_LIMIT, "quarantine store: too many recipients");
	names[n++] = SLICE("*");
	for (size_t i = 0; i < core->n_rcpts; i++) {
		names[n++] = core->rcpts[i].path;
		names[n++] = scope_domain(core->rcpts[i].path);
	}
	qsort(names, n, sizeof(*names), compare_slices);
	for (size_t i = 0; i < n; i++) {
		struct err why = { 0 };
		int64_t scope;

		if (names[i].len == 0 || (i > 0 && slice_eq(names[i], names[i - 1])))
			continue;
		if (db_int(db, &why, &scope, DB_SCOPE_ID, "s", names[i]) < 0) {
			if (why.code == ERR_NOT_FOUND)
				continue;
			*err = why;
			return -1;
		}
		if (box_add(db, scope, names[i], core, changes, err) < 0)
			return -1;
	}
	return 0;
}

static int
put_new(struct db *db, struct store_put *put, const size_t *fresh, struct arena *arena,
    int64_t now_ms, struct store_changes *changes, struct err *err)
{
	struct item_core core;

	if (add_item(db, put, now_ms, &core, err) < 0)
		return -1;
	core.rcpts = arena_alloc(arena, put->n_new * sizeof(*core.rcpts));
	if (core.rcpts == NULL)
		return err_set(err, ERR_LIMIT, "quarantine store: too many recipients");
	for (size_t i = 0; i < put->n_new; i++)
		if (add_rcpt(db, put, &put->rcpts[fresh[i]], &core, arena,
			&core.rcpts[core.n_rcpts++], err) < 0)
			return -1;
	changes->held++;
	return show_item(db, &core, arena, changes, err);
}

int
item_put(struct db *db, struct store_put *put, int64_t now_ms, struct store_changes *changes,
    struct err *err)
{
	struct arena arena = arena_of(ITEM_ARENA_BYTES);
	size_t *fresh;
	int rc = new_rcpts(db, put, &arena, &fresh, err);

	if (rc == 0 && put->n_new > 0)
		rc = put_new(db, put, fresh, &arena, now_ms, changes, err);
	else if (rc == 0 && put->body != 0)
		rc = body_drop(db, put->body, err); /* a redo: it is here already */
	arena_fini(&arena);
	return rc;
}

/* ---- changes of state ------------------------------------------------------------------------ */

/* An item on its way from one set of states to another. */
struct turn {
	struct arena arena;
	struct item_core core;
	struct item_entry *entries;
	size_t n_entries;
	bool was_held;
};

static bool
is_held(const struct item_core *core)
{
	for (size_t i = 0; i < core->n_rcpts; i++)
		if (core->rcpts[i].state == STORE_HELD)
			return true;
	return false;
}

static int
turn_begin(struct turn *t, struct db *db, int64_t item, struct err *err)
{
	struct item_core core;

	*t = (struct turn){ .arena = arena_of(ITEM_ARENA_BYTES) };
	if (item_core_get(db, item, &core, err) < 0 ||
	    item_rcpts(db, item, &t->arena, &core.rcpts, &core.n_rcpts, err) < 0 ||
	    item_entries(db, item, &t->arena, &t->entries, &t->n_entries, err) < 0) {
		arena_fini(&t->arena);
		return -1;
	}
	t->core = core;
	t->was_held = is_held(&core);
	return 0;
}

/* The mailboxes follow the recipients. */
static int
turn_end(
    struct turn *t, struct db *db, int64_t now_ms, struct store_changes *changes, struct err *err)
{
	changes->held += (int64_t)is_held(&t->core) - (int64_t)t->was_held;
	if (db_run(db, err, DB_ITEM_TOUCH, "ii", t->core.id, now_ms) < 0)
		return -1;
	return box_follow(db, t->entries, t->n_entries, &t->core, changes, err);
}

static int
act_on_rcpts(
    struct turn *t, struct db *db, const struct item_action *act, size_t *n, struct err *err)
{
	for (size_t i = 0; i < t->core.n_rcpts; i++) {
		struct item_rcpt *rcpt = &t->core.rcpts[i];

		if (rcpt->state != act->from || !scope_has(act->scope, rcpt->path))
			continue;
		if (db_run(db, err, DB_RCPT_SET, "iisin", rcpt->id, (int64_t)act->to, act->actor,
			act->now_ms) < 0)
			return -1;
		rcpt->state = act->to;
		(*n)++;
	}
	return 0;
}

static int
note_audit(struct store_changes *changes, const struct turn *t, const struct item_action *act,
    size_t n, struct err *err)
{
	if (changes->n_audits == changes->cap_audits) {
		size_t cap = changes->cap_audits > 0 ? changes->cap_audits * 2 : ARRAY_FIRST;
		struct store_audit *v = realloc(changes->audits, cap * sizeof(*v));

		if (v == NULL)
			return err_set(err, ERR_NOMEM, "quarantine store: out of memory");
		changes->audits = v;
		changes->cap_audits = cap;
	}
	changes->actor = act->actor;
	changes->audits[changes->n_audits++] =
	    (struct store_audit){ .id = t->core.msg, .to = act->to, .n = n };
	return 0;
}

int
item_act(struct db *db, int64_t item, const struct item_action *act, size_t *n,
    struct store_changes *changes, struct err *err)
{
	struct turn t;
	int rc;

	*n = 0;
	if (turn_begin(&t, db, item, err) < 0)
		return -1;
	rc = act_on_rcpts(&t, db, act, n, err);
	if (rc == 0 && *n > 0)
		rc = turn_end(&t, db, act->now_ms, changes, err);
	if (rc == 0 && *n > 0)
		rc = note_audit(changes, &t, act, *n, err);
	arena_fini(&t.arena);
	return rc;
}

/* Whether the scope of an entry covers a recipient that was just refused. */
static bool
shows_refusal(const struct item_entry *e, const struct item_rcpt *rcpt, enum store_state state)
{
	return state == STORE_HELD && e->box == STORE_INBOX && scope_has(e->scope_name, rcpt->path);
}

/* Marks the entries that are back in INBOX with STORE_KEYWORD_REFUSED, and takes the mark off those
 * that have left it.  A scope that has no such keyword gets none for a release that went well. */
static int
mark_refused(struct turn *t, struct db *db, const struct item_rcpt *rcpt, enum store_state state,
    struct store_changes *changes, struct err *err)
{
	for (size_t i = 0; i < t->n_entries; i++) {
		struct item_entry *e = &t->entries[i];
		bool refused = shows_refusal(e, rcpt, state);
		uint64_t bit, flags = e->entry.flags;

		if (item_keyword(db, e->scope, SLICE(STORE_KEYWORD_REFUSED), refused, &bit, changes,
			err) < 0)
			return -1;
		if (refused)
			flags |= bit;
		else if (e->box != STORE_INBOX)
			flags &= ~bit;
		if (item_set_flags(db, e->scope, e->box, e->entry, flags, changes, err) < 0)
			return -1;
	}
	return 0;
}

static struct item_rcpt *
rcpt_of(struct turn *t, int64_t id)
{
	for (size_t i = 0; i < t->core.n_rcpts; i++)
		if (t->core.rcpts[i].id == id)
			return &t->core.rcpts[i];
	return NULL;
}

static int
done_with(struct turn *t, struct db *db, int64_t id, enum store_state state, struct slice reply,
    int64_t now_ms, struct store_changes *changes, struct err *err)
{
	struct item_rcpt *rcpt = rcpt_of(t, id);

	if (rcpt == NULL)
		return err_set(err, ERR_DAMAGED, "quarantine store: recipient %lld has no item",
		    (long long)id);
	if (db_run(db, err, DB_RCPT_DONE, "iiis", id, (int64_t)state, now_ms, reply) < 0)
		return -1;
	rcpt->state = state;
	if (turn_end(t, db, now_ms, changes, err) < 0)
		return -1;
	return mark_refused(t, db, rcpt, state, changes, err);
}

int
item_release_done(struct db *db, int64_t rcpt, enum store_state state, struct slice reply,
    int64_t now_ms, struct store_changes *changes, struct err *err)
{
	struct err why = { 0 };
	struct turn t;
	int64_t item;
	int rc;

	if (db_int(db, &why, &item, DB_RCPT_ITEM, "i", rcpt) < 0) {
		if (why.code == ERR_NOT_FOUND)
			return 0;
		*err = why;
		return -1;
	}
	if (turn_begin(&t, db, item, err) < 0)
		return -1;
	rc = done_with(&t, db, rcpt, state, reply, now_ms, changes, err);
	arena_fini(&t.arena);
	return rc;
}

/* ---- expiry ---------------------------------------------------------------------------------- */

static int
remove_item(
    struct db *db, int64_t item, int64_t body, struct store_changes *changes, struct err *err)
{
	struct turn t;
	int rc = 0;

	if (turn_begin(&t, db, item, err) < 0)
		return -1;
	for (size_t i = 0; rc == 0 && i < t.n_entries; i++)
		rc = box_remove(db, &t.entries[i], changes, err);
	changes->held -= t.was_held;
	arena_fini(&t.arena);
	if (rc < 0 || db_run(db, err, DB_RCPT_DROP, "i", item) < 0 ||
	    db_run(db, err, DB_DESCRIPTION_DROP, "i", item) < 0 ||
	    db_run(db, err, DB_ITEM_DROP, "i", item) < 0)
		return -1;
	return body_drop(db, body, err);
}

int
item_expire(struct db *db, int64_t before_ms, size_t max, size_t *n, struct store_changes *changes,
    struct err *err)
{
	sqlite3_stmt *stmt = db_query(db, err, DB_ITEM_OLD, "ii", before_ms, (int64_t)max);
	int64_t(*old)[2] = calloc(max, sizeof(*old));
	size_t found = 0;
	int rc = 0;

	*n = 0;
	if (old == NULL)
		return err_set(err, ERR_NOMEM, "quarantine store: out of memory");
	while (found < max && (rc = db_next(db, stmt, err)) > 0) {
		old[found][0] = sqlite3_column_int64(stmt, 0);
		old[found++][1] = sqlite3_column_int64(stmt, 1);
	}
	db_reset(stmt);
	for (; rc >= 0 && *n < found; (*n)++)
		if (remove_item(db, old[*n][0], old[*n][1], changes, err) < 0)
			rc = -1;
	free(old);
	return rc < 0 ? -1 : 0;
}
