/* relayd/review/store_admin.h - the store as release, relayctl and the role use it: all scopes.
 *
 * Requests as in store.h.
 */
#ifndef RELAYD_REVIEW_STORE_ADMIN_H
#define RELAYD_REVIEW_STORE_ADMIN_H

#include "relayd/core/arena.h"
#include "relayd/review/store.h"

/* ---- release --------------------------------------------------------------------------------- */

#define STORE_JOBS_MAX 64

/* A recipient whose release is decided and on disk, and has not been confirmed. */
struct store_job {
	int64_t rcpt; /* never used again: with id the key of the release */
	int64_t item;
	struct id id; /* of the message */
	struct slice reverse_path, params, forward_path, rcpt_params, actor;
	uint64_t size; /* of the original */
};

/* The next jobs behind a recipient, by its number. */
struct store_jobs {
	struct store_req req;
	int64_t after;
	void (*done)(struct store_jobs *jobs);

	struct arena arena; /* what the jobs point into: arena_fini() by the caller */
	struct store_job jobs[STORE_JOBS_MAX];
	size_t n; /* fewer than STORE_JOBS_MAX: these were all */
};
void store_jobs(struct store *st, struct store_jobs *jobs);

/* What became of a job: STORE_IS_RELEASED, STORE_HELD (refused for good), or STORE_RELEASING: not
 * yet, the reply is kept to be shown. */
struct store_job_done {
	struct store_req req;
	int64_t rcpt;
	enum store_state state;
	struct slice reply;
	void (*done)(struct store_job_done *done);
};
void store_job_done(struct store *st, struct store_job_done *done);

/* Called on the loop when there are jobs that were not there before, before done() of what made
 * them. */
void store_on_releasing(struct store *st, void (*on_releasing)(void *arg), void *arg);

/* Bytes of an original, the quarantine's fields left out. */
struct store_original {
	struct store_req req;
	int64_t item;
	uint64_t from;
	size_t max; /* at most STORE_READ_MAX */
	void (*done)(struct store_original *read);

	struct buf bytes; /* fewer than max only at the end; buf_fini() by the caller */
};
void store_original(struct store *st, struct store_original *read);

/* ---- relayctl -------------------------------------------------------------------------------- */

#define STORE_LIST_MAX 100

struct store_rcpt_info {
	struct slice forward_path, actor, reply;
	enum store_state state;
	int64_t asked_ms, done_ms; /* wall clock; 0 when it never was */
};

struct store_info {
	int64_t item;
	struct id id;
	int64_t stored_ms;
	uint64_t size; /* of the original */
	struct slice reverse_path;
	struct slice top;  /* top_field() finds what is in it */
	struct slice head; /* the first bytes of the original, at most 64 KiB of its header */
	struct store_rcpt_info *rcpts;
	size_t n_rcpts;
};

/* Items, newest first: all before an item (INT64_MAX at first), or those of one message id. */
struct store_list_items {
	struct store_req req;
	int64_t before;
	const struct id *id; /* or NULL */
	void (*done)(struct store_list_items *list);

	struct arena arena; /* arena_fini() by the caller */
	struct store_info items[STORE_LIST_MAX];
	size_t n; /* fewer than STORE_LIST_MAX: these were the last */
};
void store_list_items(struct store *st, struct store_list_items *list);

/* Releases or drops all items of a message id, for all recipients: those that are held; to release,
 * those dropped too when none is held.  ERR_NOT_FOUND for an id that is not there; with n 0
 * nothing was left to do. */
struct store_act {
	struct store_req req;
	struct id id;
	bool release; /* else drop */
	struct slice actor;
	void (*done)(struct store_act *act);

	size_t n; /* recipients that it changed */
};
void store_act(struct store *st, struct store_act *act);

/* Items with a recipient that is held. */
int64_t store_held(const struct store *st);

/* For tests: what the timer does every minute, and a disk of so many pages. */
void store_expire_now(struct store *st);
void store_limit_pages(struct store *st, unsigned pages);

#endif
