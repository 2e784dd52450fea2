/* relayd/review/store.c - the store's queues: requests go to the pool, their results to the
 * loop. */
#include "relayd/review/store_internal.h"

#include "relayd/core/counters.h"
#include "relayd/core/log.h"
#include "relayd/review/body.h"
#include "relayd/review/store_admin.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define LOCK_FILE    "lock"
#define LOCK_POLL_US 20000

/* ---- queues ---------------------------------------------------------------------------------- */

static void
push(struct store_list *list, struct store_req *req)
{
	req->next = NULL;
	if (list->first == NULL)
		list->last = &list->first;
	*list->last = req;
	list->last = &req->next;
	list->n++;
}

static struct store_req *
pop(struct store_list *list)
{
	struct store_req *req = list->first;

	if (req != NULL) {
		list->first = req->next;
		list->n--;
	}
	return req;
}

/* Who did what: a release is logged when it has gone out. */
static void
log_audits(const struct store_changes *changes)
{
	for (size_t i = 0; i < changes->n_audits; i++) {
		const struct store_audit *a = &changes->audits[i];

		if (a->to == STORE_DROPPED) {
			counter_add(COUNTER_DROPPED, 1);
			log_event("quarantine.dropped", kv_id("id", a->id),
			    kv_slice("user", changes->actor), kv_int("rcpts", (int64_t)a->n));
		} else if (a->to == STORE_HELD) {
			log_event("quarantine.stored", kv_id("id", a->id),
			    kv_str("why", "restored"), kv_slice("user", changes->actor),
			    kv_int("rcpts", (int64_t)a->n));
		}
	}
}

static void
changes_free(struct store_changes *changes)
{
	if (changes == NULL)
		return;
	free(changes->v);
	free(changes->audits);
	free(changes);
}

/* The result of a request becomes visible; req may be gone afterwards. */
static void
settle(struct store *st, struct store_req *req)
{
	struct store_changes *changes = req->changes;
	struct store_box *box = req->box_ref;

	req->changes = NULL;
	if (changes != NULL && req->err.code == ERR_NONE) {
		log_audits(changes);
		store_apply(st, changes);
	}
	changes_free(changes);
	req->ops->settle(req);
	st->pending--;
	if (box != NULL)
		store_box_close(box);
}

/* ---- writing --------------------------------------------------------------------------------- */

static void
drop_changes(struct store_req *req)
{
	free(req->changes->v);
	free(req->changes->audits);
	*req->changes = (struct store_changes){ .by = req->changes->by };
}

/* Runs one request inside the transaction; it fails alone unless the transaction went with it. */
static void
run_saved(struct store_req *req, struct db *db)
{
	if (db_run(db, &req->err, DB_SAVE, "") < 0)
		return;
	if (req->ops->run(req, db) == 0 && req->changes->nomem)
		(void)err_set(&req->err, ERR_NOMEM, "quarantine store: out of memory");
	if (req->err.code != ERR_NONE) {
		drop_changes(req);
		if (db_in_transaction(db))
			(void)db_run(db, NULL, DB_SAVE_UNDO, ""); /* COMMIT shows what is left */
	}
	if (db_in_transaction(db))
		(void)db_run(db, NULL, DB_SAVE_KEEP, "");
}

static void
fail_batch(struct store *st, const struct err *why)
{
	for (struct store_req *req = st->batch.first; req != NULL; req = req->next) {
		drop_changes(req);
		req->err = *why;
	}
	if (db_in_transaction(&st->writer))
		(void)db_run(&st->writer, NULL, DB_ROLLBACK, ""); /* why is what to tell */
}

static void
batch_in_pool(uv_work_t *work)
{
	struct store *st = container_of(work, struct store, write_work);
	struct err why = { 0 };

	if (db_run(&st->writer, &why, DB_BEGIN, "") < 0) {
		fail_batch(st, &why);
		return;
	}
	for (struct store_req *req = st->batch.first; req != NULL; req = req->next) {
		run_saved(req, &st->writer);
		if (!db_in_transaction(&st->writer)) {
			fail_batch(st, &req->err);
			return;
		}
	}
	if (db_run(&st->writer, &why, DB_COMMIT, "") < 0)
		fail_batch(st, &why);
}

static void write_next(struct store *st);

/* What the operator must see: once when it begins, and once when something could be written
 * again. */
static void
note_health(struct store *st, const struct store_req *req)
{
	const struct err *err = &req->err;
	bool failing = err->code == ERR_SYS || err->code == ERR_FULL || err->code == ERR_DAMAGED ||
		       err->code == ERR_NOMEM || err->code == ERR_BUSY;

	if (failing && !st->failing)
		log_event("limit", kv_str("what", "quarantine-store"),
		    kv_str("why", err_code_name(err->code)), kv_err("error", err));
	else if (st->failing && err->code == ERR_NONE && req->changes->n > 0)
		log_event("limit", kv_str("what", "quarantine-store"), kv_str("why", "recovered"));
	else
		return;
	st->failing = failing;
}

static void
on_batch(uv_work_t *work, int status)
{
	struct store *st = container_of(work, struct store, write_work);
	struct store_req *req;

	(void)status; /* never cancelled: store_close() waits */
	/* Still writing: what a done() submits must wait, and not join the batch that ends here. */
	while ((req = pop(&st->batch)) != NULL) {
		note_health(st, req);
		settle(st, req);
	}
	st->writing = false;
	write_next(st);
}

static void
write_next(struct store *st)
{
	struct store_req *req;

	if (st->writing || st->waiting.first == NULL)
		return;
	while (st->batch.n < STORE_BATCH_MAX && (req = pop(&st->waiting)) != NULL)
		push(&st->batch, req);
	st->writing = true;
	/* Fails only without a work callback. */
	(void)uv_queue_work(st->loop, &st->write_work, batch_in_pool, on_batch);
}

/* ---- reading --------------------------------------------------------------------------------- */

static void
read_in_pool(uv_work_t *work)
{
	struct store_reader *reader = container_of(work, struct store_reader, work);
	struct store_req *req = reader->req;

	/* One view of the database for all statements of the request. */
	if (db_run(&reader->db, &req->err, DB_BEGIN_READ, "") < 0)
		return;
	if (req->ops->run(req, &reader->db) < 0 && req->err.code == ERR_NONE)
		(void)err_set(&req->err, ERR_SYS, "quarantine store: cannot read");
	if (db_in_transaction(&reader->db))
		(void)db_run(&reader->db, NULL, DB_COMMIT, ""); /* it has read all it wanted */
}

static void read_next(struct store *st);

static void
on_read(uv_work_t *work, int status)
{
	struct store_reader *reader = container_of(work, struct store_reader, work);
	struct store_req *req = reader->req;

	(void)status; /* never cancelled: store_close() waits */
	reader->req = NULL;
	settle(reader->store, req);
	read_next(reader->store);
}

static void
read_next(struct store *st)
{
	for (size_t i = 0; i < STORE_READERS && st->reads.first != NULL; i++) {
		struct store_reader *reader = &st->readers[i];

		if (reader->req != NULL)
			continue;
		reader->req = pop(&st->reads);
		/* Fails only without a work callback. */
		(void)uv_queue_work(st->loop, &reader->work, read_in_pool, on_read);
	}
}

/* ---- all requests ---------------------------------------------------------------------------- */

static void
on_ready(struct round_task *task)
{
	struct store *st = container_of(task, struct store, ready_task);
	struct store_list list = st->ready;
	struct store_req *req;

	st->ready = (struct store_list){ 0 };
	while ((req = pop(&list)) != NULL)
		settle(st, req);
}

static void
accept_request(
    struct store *st, struct store_req *req, const struct store_req_ops *ops, struct store_box *box)
{
	req->store = st;
	req->ops = ops;
	req->changes = NULL;
	req->box_ref = box;
	if (box != NULL)
		store_box_hold(box);
	st->pending++;
}

void
store_settle_soon(
    struct store *st, struct store_req *req, const struct store_req_ops *ops, struct store_box *box)
{
	accept_request(st, req, ops, box);
	push(&st->ready, req);
	round_mark(st->round, &st->ready_task, ROUND_WORK);
}

void
store_submit(
    struct store *st, struct store_req *req, const struct store_req_ops *ops, struct store_box *box)
{
	struct store_changes *changes = NULL;

	req->err = (struct err){ 0 };
	if (ops->queue == STORE_WRITES && (changes = calloc(1, sizeof(*changes))) == NULL) {
		(void)err_set(&req->err, ERR_NOMEM, "quarantine store: out of memory");
		store_settle_soon(st, req, ops, box);
		return;
	}
	accept_request(st, req, ops, box);
	req->changes = changes;
	if (ops->queue == STORE_WRITES) {
		push(&st->waiting, req);
		write_next(st);
	} else {
		push(&st->reads, req);
		read_next(st);
	}
}

/* ---- mail in --------------------------------------------------------------------------------- */

static int
put_run(struct store_req *req, struct db *db)
{
	struct store_put *put = container_of(req, struct store_put, req);

	return item_put(db, put, clock_wall_ms(), req->changes, &req->err);
}

static void
put_settle(struct store_req *req)
{
	struct store_put *put = container_of(req, struct store_put, req);

	put->done(put);
}

void
store_put(struct store *st, struct store_put *put)
{
	static const struct store_req_ops ops = { STORE_WRITES, put_run, put_settle };

	store_submit(st, &put->req, &ops, NULL);
}

static int
stage_run(struct store_req *req, struct db *db)
{
	struct store_stage *stage = container_of(req, struct store_stage, req);

	return body_append(db, &stage->made, stage->bytes, true, &req->err);
}

static void
stage_settle(struct store_req *req)
{
	struct store_stage *stage = container_of(req, struct store_stage, req);

	if (req->err.code == ERR_NONE)
		*stage->body = stage->made;
	stage->done(stage);
}

void
store_stage(struct store *st, struct store_stage *stage)
{
	static const struct store_req_ops ops = { STORE_WRITES, stage_run, stage_settle };

	stage->made = *stage->body;
	store_submit(st, &stage->req, &ops, NULL);
}

/* A request of the store's own. */
struct unstage {
	struct store_req req;
	int64_t body;
};

static int
unstage_run(struct store_req *req, struct db *db)
{
	return body_drop(db, container_of(req, struct unstage, req)->body, &req->err);
}

static void
unstage_settle(struct store_req *req)
{
	free(container_of(
	    req, struct unstage, req)); /* a failure is made up for at the next start */
}

void
store_unstage(struct store *st, int64_t body)
{
	static const struct store_req_ops ops = { STORE_WRITES, unstage_run, unstage_settle };
	struct unstage *u = body != 0 ? calloc(1, sizeof(*u)) : NULL;

	if (u == NULL)
		return;
	u->body = body;
	store_submit(st, &u->req, &ops, NULL);
}

/* ---- expiry ---------------------------------------------------------------------------------- */

struct expire {
	struct store_req req;
	int64_t before_ms;
	size_t n;
};

static int
expire_run(struct store_req *req, struct db *db)
{
	struct expire *e = container_of(req, struct expire, req);

	return item_expire(db, e->before_ms, STORE_EXPIRE_BATCH, &e->n, req->changes, &req->err);
}

static void
expire_settle(struct store_req *req)
{
	struct expire *e = container_of(req, struct expire, req);
	struct store *st = req->store;
	bool more = req->err.code == ERR_NONE && e->n == STORE_EXPIRE_BATCH;

	free(e);
	st->expiring = false;
	if (more && !st->closing)
		store_expire_start(st);
}

void
store_expire_start(struct store *st)
{
	static const struct store_req_ops ops = { STORE_WRITES, expire_run, expire_settle };
	struct expire *e;

	if (st->expiring || st->options.keep_s == 0 || (e = calloc(1, sizeof(*e))) == NULL)
		return;
	e->before_ms = clock_wall_ms() - (int64_t)st->options.keep_s * 1000;
	st->expiring = true;
	store_submit(st, &e->req, &ops, NULL);
}

void
store_expire_now(struct store *st)
{
	store_expire_start(st);
}

void
store_limit_pages(struct store *st, unsigned pages)
{
	char pragma[64];

	(void)snprintf(pragma, sizeof(pragma), "PRAGMA max_page_count = %u", pages);
	(void)sqlite3_exec(
	    st->writer.sql, pragma, NULL, NULL, NULL); /* the test sees whether it did */
}

static void
on_expiry(uv_timer_t *timer)
{
	store_expire_start(timer->data);
}

void
store_set_keep(struct store *st, uint32_t keep_s)
{
	st->options.keep_s = keep_s;
}

bool
store_failing(const struct store *st)
{
	return st->failing;
}

/* ---- opening and closing --------------------------------------------------------------------- */

/* Takes the lock that says whose store this is; its owner may be about to leave. */
static int
lock(struct store *st, const char *path, struct err *err)
{
	struct flock whole = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
	int64_t until = clock_mono_ms() + st->options.lock_wait_ms;

	st->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (st->lock_fd < 0)
		return err_sys(err, errno, "%s", path);
	while (fcntl(st->lock_fd, F_OFD_SETLK, &whole) < 0) {
		if (errno != EAGAIN && errno != EACCES)
			return err_sys(err, errno, "lock %s", path);
		if (clock_mono_ms() >= until)
			return err_set(err, ERR_BUSY, "%s: another relayd owns this quarantine",
			    st->options.dir);
		(void)usleep(LOCK_POLL_US); /* woken early it only looks sooner */
	}
	return 0;
}

static int
open_files(struct store *st, struct err *err)
{
	char path[4096];
	int n = snprintf(path, sizeof(path), "%s/%s", st->options.dir, LOCK_FILE);

	if (n < 0 || (size_t)n + sizeof(DB_FILE) > sizeof(path))
		return err_set(err, ERR_CONFIG, "quarantine store: the path is too long");
	if (mkdir(st->options.dir, 0700) < 0 && errno != EEXIST)
		return err_sys(err, errno, "create %s", st->options.dir);
	if (lock(st, path, err) < 0)
		return -1;
	(void)snprintf(path, sizeof(path), "%s/%s", st->options.dir, DB_FILE); /* fits: see above */
	if (db_open(&st->writer, path, true, err) < 0 || body_drop_staged(&st->writer, err) < 0 ||
	    db_int(&st->writer, err, &st->held, DB_HELD_COUNT, "") < 0)
		return -1;
	for (size_t i = 0; i < STORE_READERS; i++) {
		st->readers[i].store = st;
		if (db_open(&st->readers[i].db, path, false, err) < 0)
			return -1;
	}
	return 0;
}

static int
open_timer(struct store *st, struct err *err)
{
	int rc = uv_timer_init(st->loop, &st->expiry);

	if (rc < 0)
		return err_set(err, ERR_SYS, "timer: %s", uv_strerror(rc));
	st->timer_open = true;
	st->expiry.data = st;
	/* Fails only for a timer that is closing. */
	(void)uv_timer_start(&st->expiry, on_expiry, STORE_EXPIRE_MS, STORE_EXPIRE_MS);
	uv_unref((uv_handle_t *)&st->expiry);
	return 0;
}

struct store *
store_open(uv_loop_t *loop, const struct store_options *options, struct err *err)
{
	struct store *st = calloc(1, sizeof(*st));

	if (st == NULL || (st->round = round_ref(loop)) == NULL) {
		(void)err_set(err, ERR_NOMEM, "quarantine store: out of memory");
		free(st);
		return NULL;
	}
	st->loop = loop;
	st->options = *options;
	st->lock_fd = -1;
	st->ready_task.run = on_ready;
	if (open_files(st, err) < 0 || open_timer(st, err) < 0) {
		store_close(st);
		return NULL;
	}
	counter_set(COUNTER_HELD, st->held);
	return st;
}

static void
on_timer_closed(uv_handle_t *handle)
{
	struct store *st = handle->data;

	st->timer_open = false;
}

void
store_close(struct store *st)
{
	if (st == NULL)
		return;
	st->closing = true;
	if (st->timer_open)
		uv_close((uv_handle_t *)&st->expiry, on_timer_closed);
	while (st->pending > 0 || st->timer_open)
		(void)uv_run(st->loop, UV_RUN_ONCE); /* what it returns is whether more is open */
	store_boxes_free(st);
	for (size_t i = 0; i < STORE_READERS; i++)
		db_close(&st->readers[i].db);
	db_close(&st->writer);
	if (st->lock_fd >= 0)
		(void)close(st->lock_fd); /* nothing was written to it */
	round_unmark(st->round, &st->ready_task);
	round_unref(st->round);
	free(st);
}
