/* relayd/review/store_internal.h - how the parts of the store fit together; for store*.c only.
 *
 * A request waits in one of two queues.  The writer's is worked off by one job at a time, which
 * takes all that waits, makes one transaction of it and so shares one sync (group commit); a
 * savepoint each keeps a request that fails from spoiling the others.  Readers work on one request
 * each, on a connection of their own.  What a request changed is applied to the boxes in memory on
 * the loop, in the order of the queue, so a box that is loaded by a request of the same queue
 * misses nothing.
 */
#ifndef RELAYD_REVIEW_STORE_INTERNAL_H
#define RELAYD_REVIEW_STORE_INTERNAL_H

#include "relayd/core/clock.h"
#include "relayd/net/round.h"
#include "relayd/review/item.h"
#include "relayd/review/scope.h"
#include "relayd/review/store.h"

#define STORE_READERS      2
#define STORE_BATCH_MAX    256 /* requests of one transaction */
#define STORE_EXPIRE_BATCH 50  /* items removed in one request */
#define STORE_EXPIRE_MS    60000
#define STORE_IDLE_BOXES   32     /* kept in memory after their last session has left, */
#define STORE_IDLE_ENTRIES 500000 /* with so many entries in all */

enum store_queue { STORE_WRITES, STORE_READS };

struct store_req_ops {
	enum store_queue queue;
	/* In the pool; touches its request and db alone.  -1 with req->err. */
	int (*run)(struct store_req *req, struct db *db);
	/* On the loop, after the changes were applied: calls done().  The request may be gone
	 * then. */
	void (*settle)(struct store_req *req);
};

struct store_list {
	struct store_req *first, **last;
	size_t n;
};

struct store_reader {
	struct store *store;
	struct db db;
	uv_work_t work;
	struct store_req *req; /* NULL: free */
};

/* A scope of which at least one box is in memory. */
struct store_scope {
	struct store *store;
	struct store_scope *next;
	int64_t id;
	char name[SCOPE_BYTES_MAX + 1];
	char keywords[STORE_KEYWORDS_MAX][STORE_KEYWORD_BYTES + 1];
	size_t n_keywords;
	struct store_box *boxes[STORE_BOXES];
	bool locked; /* by a POP3 session */
};

struct store_box {
	struct store_scope *scope;
	enum store_box_kind kind;
	uint32_t uidvalidity, uidnext, recent;
	struct store_entry *entries;
	size_t n, cap;
	size_t removed; /* tombstones (item 0) among them, while changes are applied */
	size_t refs;
	uint64_t idle_since; /* st->idle_clock when the last reference went */
	struct store_watch *watches;
};

struct store {
	uv_loop_t *loop;
	struct round *round;
	struct round_task ready_task;
	struct store_options options;
	int lock_fd;

	struct db writer;
	uv_work_t write_work;
	struct store_list waiting, batch, reads, ready; /* ready: answered without the pool */
	bool writing, failing, closing;
	struct store_reader readers[STORE_READERS];
	size_t pending; /* requests whose done() has not run */

	struct store_scope *scopes;
	struct store_watch *cursor; /* the next to be told, while watchers are told */
	uint64_t idle_clock;

	uv_timer_t expiry;
	bool timer_open, expiring;
	int64_t held;
	void (*on_releasing)(void *arg);
	void *releasing_arg;
};

/* Queues a request; box is kept in memory until it is settled, and may be NULL. */
void store_submit(struct store *st, struct store_req *req, const struct store_req_ops *ops,
    struct store_box *box);
/* Settles req, whose err is set, from the loop and without the pool. */
void store_settle_soon(struct store *st, struct store_req *req, const struct store_req_ops *ops,
    struct store_box *box);

/* Boxes in memory; store_box.c. */
struct store_box *store_box_loaded(struct store *st, const char *scope, enum store_box_kind kind);
void store_box_hold(struct store_box *box);
void store_apply(struct store *st, struct store_changes *changes);
void store_boxes_free(struct store *st);

void store_expire_start(struct store *st);

#endif
