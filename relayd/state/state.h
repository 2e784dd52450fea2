/* relayd/state/state.h - small shared facts that every worker sees: counters and first-seen marks.
 *
 * LMDB here, another engine beyond one machine: only this interface knows.  One thread does all
 * the work, taking whatever waits into one transaction, so that the loop never blocks and a
 * hundred requests cost one commit.  Nothing is synced and everything is disposable: after damage,
 * a power cut or a newer relayd the store starts empty, with a log line; so it does when processes
 * have died at work on it.  Keys are hashed with a secret of the store and every entry expires.
 */
#ifndef RELAYD_STATE_STATE_H
#define RELAYD_STATE_STATE_H

#include "relayd/core/err.h"
#include "relayd/core/slice.h"

#include <uv.h>

#define STATE_QUEUE_MAX 20000 /* requests waiting; the next one fails with ERR_LIMIT */
#define STATE_MAP_BYTES (256ull << 20)

struct state;

/* Opens, or creates with mode 0700, the store in dir; several processes may.  map_bytes 0:
 * STATE_MAP_BYTES.  NULL with *err when the directory cannot be used; while only the store cannot
 * be opened (a full disk), requests fail, and it is tried again. */
struct state *state_open(uv_loop_t *loop, const char *dir, uint64_t map_bytes, struct err *err);
/* Requests that wait are answered before it returns.  Run the loop once more for its handle to
 * close.  NULL is fine. */
void state_close(struct state *st);

enum state_op {
	STATE_TAKE,      /* one of count in period_s, GCRA: result says whether it conformed */
	STATE_GIVE_BACK, /* undoes one STATE_TAKE that conformed */
	STATE_MARK,      /* get or create: when was this key first seen? */
	STATE_LOOK,      /* the same without creating it or lengthening its life */
	STATE_GET,       /* the number that was put under this key */
	STATE_PUT,       /* puts number, for period_s */
};

/* A request, owned by whoever waits for it. */
struct state_request {
	enum state_op op;
	struct slice key;  /* borrowed until done */
	uint64_t count;    /* TAKE, GIVE_BACK: 1 .. */
	uint32_t period_s; /* of the counter; MARK: lives so long after it was last seen */
	int64_t number;    /* PUT; result of GET; of TAKE, for GIVE_BACK */
	void (*done)(struct state_request *req); /* from the loop, once */

	struct err err;    /* code ERR_NONE when it was done */
	bool conforms;     /* TAKE */
	bool created;      /* MARK: it was not there */
	int64_t first_ms;  /* MARK: wall clock when it was created; LOOK: that, or 0 */
	bool found;        /* GET */
	int64_t left_ms;   /* GET: it lives so long from now */
	uint32_t retry_ms; /* TAKE that does not conform: the next one would in so long */

	struct state_request *next; /* private */
};

/* -1 with *err (ERR_LIMIT): done never runs. */
int state_start(struct state *st, struct state_request *req, struct err *err);
/* Gives back what a STATE_TAKE that conformed has taken, as far as it still counts, and tells
 * nobody; copies key. */
void state_give_back(struct state *st, const struct state_request *taken);

#endif
