/* relayd/review/item.h - what happens to items, inside one transaction of the store's writer.
 *
 * In the pool only.  Whatever a function changes it notes in a struct store_changes; the loop makes
 * the notes seen after the commit, or forgets them when there was none.
 */
#ifndef RELAYD_REVIEW_ITEM_H
#define RELAYD_REVIEW_ITEM_H

#include "relayd/core/arena.h"
#include "relayd/review/db.h"
#include "relayd/review/store.h"

/* One change of one mailbox. */
struct store_note {
	int64_t scope;
	enum store_box_kind box;
	struct store_change change;
	unsigned keyword; /* with STORE_KEYWORDS_CHANGED: its number and name */
	char keyword_name[STORE_KEYWORD_BYTES + 1];
};

/* What a user did to an item, for the log. */
struct store_audit {
	struct id id;
	enum store_state to;
	size_t n; /* recipients */
};

struct store_changes {
	struct store_note *v;
	size_t n, cap;
	struct store_audit *audits;
	size_t n_audits, cap_audits;
	struct slice actor; /* of all audits; the request's */
	const void *by;
	int64_t held; /* how many more items have a recipient that is held */
	bool nomem;   /* a note is missing: the transaction must not stand */
};

struct item_rcpt {
	int64_t id;
	struct slice path;
	enum store_state state;
};

/* An entry with where it is. */
struct item_entry {
	struct store_entry entry;
	int64_t scope;
	enum store_box_kind box;
	struct slice scope_name;
};

/* All recipients, or all entries, of an item, in the arena. */
int item_rcpts(struct db *db, int64_t item, struct arena *arena, struct item_rcpt **v, size_t *n,
    struct err *err);
int item_entries(struct db *db, int64_t item, struct arena *arena, struct item_entry **v, size_t *n,
    struct err *err);
/* Reads an entry from a row that begins with uid, item, stored_ms, top, size, flags. */
struct store_entry item_entry_of_row(sqlite3_stmt *stmt);

/* Stores a message as store_put() says. */
int item_put(struct db *db, struct store_put *put, int64_t now_ms, struct store_changes *changes,
    struct err *err);

/* A change of state by a user. */
struct item_action {
	struct slice scope; /* only recipients inside it */
	enum store_state from, to;
	struct slice actor;
	int64_t now_ms;
};
/* *n: how many recipients it changed; then the mailboxes of all scopes follow. */
int item_act(struct db *db, int64_t item, const struct item_action *act, size_t *n,
    struct store_changes *changes, struct err *err);

/* The end of a release: state is STORE_IS_RELEASED, or STORE_HELD when it was refused for good.
 * Harmless when the recipient is not (any more) releasing. */
int item_release_done(struct db *db, int64_t rcpt, enum store_state state, struct slice reply,
    int64_t now_ms, struct store_changes *changes, struct err *err);

/* The scope's id; a new one gets its mailboxes, filled with what the store holds for it. */
int item_scope(struct db *db, const char *name, int64_t *scope, struct store_changes *changes,
    struct err *err);
/* The bit of a keyword of a scope, made when create says so; *bit is 0 when there is none. */
int item_keyword(struct db *db, int64_t scope, struct slice name, bool create, uint64_t *bit,
    struct store_changes *changes, struct err *err);
int item_set_flags(struct db *db, int64_t scope, enum store_box_kind box, struct store_entry entry,
    uint64_t flags, struct store_changes *changes, struct err *err);

/* Removes up to max items whose last change of state lies before a time; *n: how many. */
int item_expire(struct db *db, int64_t before_ms, size_t max, size_t *n,
    struct store_changes *changes, struct err *err);

#endif
