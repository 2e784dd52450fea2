/* relayd/review/item_box.h - the entries of mailboxes, and the notes of what changed in them.
 *
 * Between item.c and item_box.c only.
 */
#ifndef RELAYD_REVIEW_ITEM_BOX_H
#define RELAYD_REVIEW_ITEM_BOX_H

#include "relayd/review/item.h"

/* What an item has in common for all scopes. */
struct item_core {
	int64_t id;
	struct id msg;
	int64_t stored_ms;
	uint64_t top_fixed; /* bytes of its top without X-Relayd-To */
	uint64_t size;      /* of the original */
	struct item_rcpt *rcpts;
	size_t n_rcpts;
};

/* Where a scope sees an item, by the states of its recipients inside the scope. */
enum store_box_kind item_box(struct slice scope, const struct item_core *core);
/* Reads all of it but the recipients. */
int item_core_get(struct db *db, int64_t item, struct item_core *core, struct err *err);

int box_add(struct db *db, int64_t scope, struct slice scope_name, const struct item_core *core,
    struct store_changes *changes, struct err *err);
/* Moves entries to where their scopes see the item now. */
int box_follow(struct db *db, struct item_entry *entries, size_t n, const struct item_core *core,
    struct store_changes *changes, struct err *err);
int box_remove(
    struct db *db, const struct item_entry *entry, struct store_changes *changes, struct err *err);

#endif
