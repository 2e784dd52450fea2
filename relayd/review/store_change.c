/* relayd/review/store_change.c - what users change: flags, and the mailbox that a message is in. */
#include "relayd/review/store_internal.h"

#include <stdlib.h>

static int
entry_get(struct db *db, int64_t scope, enum store_box_kind box, uint32_t uid,
    struct store_entry *entry, struct err *err)
{
	sqlite3_stmt *stmt =
	    db_query(db, err, DB_ENTRY_GET, "iii", scope, (int64_t)box, (int64_t)uid);
	int rc = db_next(db, stmt, err);

	if (rc > 0) {
		*entry = item_entry_of_row(stmt);
		db_reset(stmt);
	}
	return rc;
}

/* ---- flags ----------------------------------------------------------------------------------- */

static int
keyword_bits(struct store_set_flags *set, struct db *db, uint64_t *bits)
{
	int64_t scope = set->box->scope->id;

	*bits = 0;
	for (size_t i = 0; i < set->n_keywords; i++) {
		uint64_t bit;

		if (item_keyword(db, scope, set->keywords[i], set->how != STORE_FLAGS_REMOVE, &bit,
			set->req.changes, &set->req.err) < 0)
			return -1;
		*bits |= bit;
	}
	return 0;
}

static uint64_t
flags_after(const struct store_set_flags *set, uint64_t before, uint64_t bits)
{
	switch (set->how) {
	case STORE_FLAGS_ADD:
		return before | bits;
	case STORE_FLAGS_REMOVE:
		return before & ~bits;
	case STORE_FLAGS_SET:
		break;
	}
	return bits;
}

/* The id and kind of a box never change, so the pool may look at them. */
static int
set_flags_run(struct store_req *req, struct db *db)
{
	struct store_set_flags *set = container_of(req, struct store_set_flags, req);
	int64_t scope = set->box->scope->id;
	uint64_t bits;

	req->changes->by = set->by;
	if (keyword_bits(set, db, &bits) < 0)
		return -1;
	bits |= set->flags;
	for (size_t i = 0; i < set->n_uids; i++) {
		struct store_entry entry;
		int rc = entry_get(db, scope, set->box->kind, set->uids[i], &entry, &req->err);

		if (rc < 0)
			return -1;
		if (rc > 0 && item_set_flags(db, scope, set->box->kind, entry,
				  flags_after(set, entry.flags, bits), req->changes, &req->err) < 0)
			return -1;
	}
	return 0;
}

static void
set_flags_settle(struct store_req *req)
{
	struct store_set_flags *set = container_of(req, struct store_set_flags, req);

	set->done(set);
}

void
store_set_flags(struct store *st, struct store_set_flags *set)
{
	static const struct store_req_ops ops = { STORE_WRITES, set_flags_run, set_flags_settle };

	store_submit(st, &set->req, &ops, set->box);
}

/* ---- moves ----------------------------------------------------------------------------------- */

/* The change of state that a move between two mailboxes asks for; a sentence where there is
 * none. */
static const char *
meaning(enum store_box_kind from, enum store_box_kind to, struct item_action *act)
{
	static const struct {
		enum store_box_kind from, to;
		enum store_state before, after;
	} moves[] = {
		{ STORE_INBOX, STORE_RELEASE, STORE_HELD, STORE_RELEASING },
		{ STORE_INBOX, STORE_TRASH, STORE_HELD, STORE_DROPPED },
		{ STORE_TRASH, STORE_RELEASE, STORE_DROPPED, STORE_RELEASING },
		{ STORE_TRASH, STORE_INBOX, STORE_DROPPED, STORE_HELD },
	};

	for (size_t i = 0; i < ARRAY_LEN(moves); i++) {
		if (moves[i].from == from && moves[i].to == to) {
			act->from = moves[i].before;
			act->to = moves[i].after;
			return NULL;
		}
	}
	if (from == STORE_RELEASED)
		return "it was released already: it stays here until it expires";
	if (from == STORE_RELEASE)
		return "it is being released: that cannot be taken back";
	return "move it to Release or to Trash: Released shows what was delivered";
}

/* The UID that an item has in a box of the scope, as the changes of this request tell; 0 for
 * none. */
static uint32_t
uid_after(const struct store_changes *changes, size_t first, int64_t scope, enum store_box_kind box,
    int64_t item)
{
	for (size_t i = first; i < changes->n; i++) {
		const struct store_note *note = &changes->v[i];

		if (note->change.kind == STORE_ADDED && note->scope == scope && note->box == box &&
		    note->change.entry.item == item)
			return note->change.entry.uid;
	}
	return 0;
}

static int
move_one(struct store_move *move, struct db *db, const struct item_action *act, uint32_t uid)
{
	struct store_changes *changes = move->req.changes;
	int64_t scope = move->box->scope->id;
	size_t first = changes->n, n;
	struct store_entry entry;
	int rc = entry_get(db, scope, move->box->kind, uid, &entry, &move->req.err);

	if (rc <= 0 || (move->only_deleted && !(entry.flags & STORE_DELETED)))
		return rc < 0 ? -1 : 0;
	if (item_act(db, entry.item, act, &n, changes, &move->req.err) < 0)
		return -1;
	move->moved[move->n_moved++] = (struct store_moved){ .from = uid,
		.to = uid_after(changes, first, scope, move->to, entry.item) };
	return 0;
}

static int
move_run(struct store_req *req, struct db *db)
{
	struct store_move *move = container_of(req, struct store_move, req);
	struct item_action act = { .scope = slice_str(move->box->scope->name),
		.actor = move->actor,
		.now_ms = clock_wall_ms() };
	const char *why;

	req->changes->by = move->by;
	if (move->to == move->box->kind)
		return 0;
	if ((why = meaning(move->box->kind, move->to, &act)) != NULL)
		return err_set(&req->err, ERR_DENIED, "%s", why);
	move->moved = calloc(move->n_uids + 1, sizeof(*move->moved));
	if (move->moved == NULL)
		return err_set(&req->err, ERR_NOMEM, "quarantine store: out of memory");
	for (size_t i = 0; i < move->n_uids; i++)
		if (move_one(move, db, &act, move->uids[i]) < 0)
			return -1;
	return 0;
}

static void
move_settle(struct store_req *req)
{
	struct store_move *move = container_of(req, struct store_move, req);
	struct store *st = req->store;
	bool releasing =
	    move->to == STORE_RELEASE && move->n_moved > 0 && req->err.code == ERR_NONE;

	if (req->err.code != ERR_NONE)
		store_move_fini(move);
	if (releasing && st->on_releasing != NULL)
		st->on_releasing(st->releasing_arg);
	move->done(move);
}

void
store_move(struct store *st, struct store_move *move)
{
	static const struct store_req_ops ops = { STORE_WRITES, move_run, move_settle };

	move->moved = NULL;
	move->n_moved = 0;
	store_submit(st, &move->req, &ops, move->box);
}

void
store_move_fini(struct store_move *move)
{
	free(move->moved);
	move->moved = NULL;
	move->n_moved = 0;
}
