/* relayd/review/store_admin.c - the store as release, relayctl and the role use it: all scopes. */
#include "relayd/review/store_admin.h"

#include "relayd/mail/header.h"
#include "relayd/review/body.h"
#include "relayd/review/store_internal.h"

#define HEAD_BYTES_MAX (64u << 10)
#define JOBS_BYTES_MAX (1u << 20)
#define LIST_BYTES_MAX (64u << 20)

static int
out_of_memory(struct err *err)
{
	return err_set(err, ERR_NOMEM, "quarantine store: out of memory");
}

/* ---- release --------------------------------------------------------------------------------- */

static struct id
id_of(struct slice bytes)
{
	struct id id = { { 0 } };

	if (bytes.len == sizeof(id.bytes))
		memcpy(id.bytes, bytes.p, sizeof(id.bytes));
	return id;
}

static bool
job_of_row(sqlite3_stmt *stmt, struct arena *arena, struct store_job *job)
{
	*job = (struct store_job){ .rcpt = sqlite3_column_int64(stmt, 0),
		.item = sqlite3_column_int64(stmt, 1),
		.id = id_of(db_bytes(stmt, 2)),
		.reverse_path = arena_copy(arena, db_bytes(stmt, 3)),
		.params = arena_copy(arena, db_bytes(stmt, 4)),
		.forward_path = arena_copy(arena, db_bytes(stmt, 5)),
		.rcpt_params = arena_copy(arena, db_bytes(stmt, 6)),
		.actor = arena_copy(arena, db_bytes(stmt, 7)),
		.size = (uint64_t)sqlite3_column_int64(stmt, 8) };
	return job->reverse_path.p != NULL && job->params.p != NULL &&
	       job->forward_path.p != NULL && job->rcpt_params.p != NULL && job->actor.p != NULL;
}

/* On the writer's queue, so that what was committed before is seen. */
static int
jobs_run(struct store_req *req, struct db *db)
{
	struct store_jobs *jobs = container_of(req, struct store_jobs, req);
	sqlite3_stmt *stmt =
	    db_query(db, &req->err, DB_RCPT_RELEASING, "ii", jobs->after, (int64_t)STORE_JOBS_MAX);
	int rc;

	while ((rc = db_next(db, stmt, &req->err)) > 0) {
		if (!job_of_row(stmt, &jobs->arena, &jobs->jobs[jobs->n])) {
			db_reset(stmt);
			return out_of_memory(&req->err);
		}
		jobs->n++;
	}
	return rc;
}

static void
jobs_settle(struct store_req *req)
{
	struct store_jobs *jobs = container_of(req, struct store_jobs, req);

	jobs->done(jobs);
}

void
store_jobs(struct store *st, struct store_jobs *jobs)
{
	static const struct store_req_ops ops = { STORE_WRITES, jobs_run, jobs_settle };

	jobs->arena = arena_of(JOBS_BYTES_MAX);
	jobs->n = 0;
	store_submit(st, &jobs->req, &ops, NULL);
}

static int
job_done_run(struct store_req *req, struct db *db)
{
	struct store_job_done *done = container_of(req, struct store_job_done, req);

	if (done->state == STORE_RELEASING)
		return db_run(db, &req->err, DB_RCPT_SAID, "is", done->rcpt, done->reply);
	return item_release_done(
	    db, done->rcpt, done->state, done->reply, clock_wall_ms(), req->changes, &req->err);
}

static void
job_done_settle(struct store_req *req)
{
	struct store_job_done *done = container_of(req, struct store_job_done, req);

	done->done(done);
}

void
store_job_done(struct store *st, struct store_job_done *done)
{
	static const struct store_req_ops ops = { STORE_WRITES, job_done_run, job_done_settle };

	store_submit(st, &done->req, &ops, NULL);
}

void
store_on_releasing(struct store *st, void (*on_releasing)(void *arg), void *arg)
{
	st->on_releasing = on_releasing;
	st->releasing_arg = arg;
}

/* ---- lists ----------------------------------------------------------------------------------- */

static int
info_rcpts(struct db *db, struct arena *arena, struct store_info *info, struct err *err)
{
	sqlite3_stmt *stmt = db_query(db, err, DB_RCPT_OF_ITEM, "i", info->item);
	size_t cap = 0;
	int rc;

	while ((rc = db_next(db, stmt, err)) > 0) {
		struct store_rcpt_info *r = info->rcpts;

		if (info->n_rcpts == cap) {
			r = arena_alloc(arena, (cap = cap > 0 ? cap * 2 : 2) * sizeof(*r));
			if (r != NULL && info->n_rcpts > 0)
				memcpy(r, info->rcpts, info->n_rcpts * sizeof(*r));
		}
		if (r == NULL) {
			db_reset(stmt);
			return out_of_memory(err);
		}
		info->rcpts = r;
		r[info->n_rcpts++] = (struct store_rcpt_info){
			.forward_path =
			    slice_of(arena_copy(arena, db_bytes(stmt, 1)).p, db_bytes(stmt, 1).len),
			.state = (enum store_state)(sqlite3_column_int64(stmt, 2) & 3),
			.actor =
			    slice_of(arena_copy(arena, db_bytes(stmt, 3)).p, db_bytes(stmt, 3).len),
			.asked_ms = sqlite3_column_int64(stmt, 4),
			.done_ms = sqlite3_column_int64(stmt, 5),
			.reply =
			    slice_of(arena_copy(arena, db_bytes(stmt, 6)).p, db_bytes(stmt, 6).len),
		};
	}
	return rc;
}

/* The header of the original, as far as it is in its first bytes. */
static int
info_head(struct db *db, struct arena *arena, struct store_info *info, int64_t body, uint64_t at,
    struct err *err)
{
	struct buf head = buf_heap(HEAD_BYTES_MAX);
	uint64_t max = info->size < HEAD_BYTES_MAX ? info->size : HEAD_BYTES_MAX;
	int rc = body_read(db, body, at, max, &head, err);

	if (rc == 0) {
		size_t length = header_length(buf_slice(&head));

		info->head = arena_copy(arena, slice_head(buf_slice(&head), length));
		if (info->head.p == NULL)
			rc = out_of_memory(err);
	} else if (err->code == ERR_DAMAGED) { /* the list is to be seen all the same */
		*err = (struct err){ 0 };
		rc = 0;
	}
	buf_fini(&head);
	return rc;
}

static int
info_get(struct db *db, int64_t item, struct arena *arena, struct store_info *info, struct err *err)
{
	sqlite3_stmt *stmt = db_query(db, err, DB_ITEM_INFO, "i", item);
	int rc = db_next(db, stmt, err);
	int64_t body;
	uint64_t at;

	if (rc <= 0)
		return rc < 0 ? -1 : err_set(err, ERR_NOT_FOUND, "the item has gone");
	*info = (struct store_info){ .item = item,
		.id = id_of(db_bytes(stmt, 1)),
		.stored_ms = sqlite3_column_int64(stmt, 2),
		.reverse_path = arena_copy(arena, db_bytes(stmt, 3)),
		.top = arena_copy(arena, db_bytes(stmt, 4)),
		.head = SLICE(""),
		.size = (uint64_t)sqlite3_column_int64(stmt, 7) };
	at = (uint64_t)sqlite3_column_int64(stmt, 5);
	body = sqlite3_column_int64(stmt, 6);
	db_reset(stmt);
	if (info->reverse_path.p == NULL || info->top.p == NULL)
		return out_of_memory(err);
	if (info_rcpts(db, arena, info, err) < 0)
		return -1;
	return info_head(db, arena, info, body, at, err);
}

static int
list_run(struct store_req *req, struct db *db)
{
	struct store_list_items *list = container_of(req, struct store_list_items, req);
	int64_t items[STORE_LIST_MAX];
	sqlite3_stmt *stmt;
	size_t n = 0;
	int rc = 0;

	if (list->id != NULL)
		stmt = db_query(db, &req->err, DB_ITEM_OF_MSG, "b",
		    slice_of(list->id->bytes, sizeof(list->id->bytes)));
	else
		stmt = db_query(
		    db, &req->err, DB_ITEM_BEFORE, "ii", list->before, (int64_t)STORE_LIST_MAX);
	while (n < STORE_LIST_MAX && (rc = db_next(db, stmt, &req->err)) > 0)
		items[n++] = sqlite3_column_int64(stmt, 0);
	if (rc > 0)
		db_reset(stmt);
	for (size_t i = 0; rc >= 0 && i < n; i++, list->n++)
		if (info_get(db, items[i], &list->arena, &list->items[i], &req->err) < 0)
			rc = -1;
	return rc < 0 ? -1 : 0;
}

static void
list_settle(struct store_req *req)
{
	struct store_list_items *list = container_of(req, struct store_list_items, req);

	list->done(list);
}

void
store_list_items(struct store *st, struct store_list_items *list)
{
	static const struct store_req_ops ops = { STORE_READS, list_run, list_settle };

	list->arena = arena_of(LIST_BYTES_MAX);
	list->n = 0;
	store_submit(st, &list->req, &ops, NULL);
}

/* ---- release and drop by id ------------------------------------------------------------------ */

#define ACT_ITEMS_MAX 1000 /* items of one message id */

static int
act_on_item(struct store_act *act, struct db *db, int64_t item)
{
	struct item_action action = { .scope = SLICE("*"),
		.from = STORE_HELD,
		.to = act->release ? STORE_RELEASING : STORE_DROPPED,
		.actor = act->actor,
		.now_ms = clock_wall_ms() };
	size_t n;

	if (item_act(db, item, &action, &n, act->req.changes, &act->req.err) < 0)
		return -1;
	if (n == 0 && act->release) {
		action.from = STORE_DROPPED;
		if (item_act(db, item, &action, &n, act->req.changes, &act->req.err) < 0)
			return -1;
	}
	act->n += n;
	return 0;
}

static int
act_run(struct store_req *req, struct db *db)
{
	struct store_act *act = container_of(req, struct store_act, req);
	sqlite3_stmt *stmt = db_query(
	    db, &req->err, DB_ITEM_OF_MSG, "b", slice_of(act->id.bytes, sizeof(act->id.bytes)));
	int64_t items[ACT_ITEMS_MAX];
	size_t n = 0;
	int rc = 0;

	while (n < ACT_ITEMS_MAX && (rc = db_next(db, stmt, &req->err)) > 0)
		items[n++] = sqlite3_column_int64(stmt, 0);
	if (rc < 0)
		return -1;
	if (rc > 0)
		db_reset(stmt);
	if (n == 0)
		return err_set(&req->err, ERR_NOT_FOUND, "no such message in the quarantine");
	for (size_t i = 0; i < n; i++)
		if (act_on_item(act, db, items[i]) < 0)
			return -1;
	return 0;
}

static void
act_settle(struct store_req *req)
{
	struct store_act *act = container_of(req, struct store_act, req);
	struct store *st = req->store;

	if (req->err.code == ERR_NONE && act->release && act->n > 0 && st->on_releasing != NULL)
		st->on_releasing(st->releasing_arg);
	act->done(act);
}

void
store_act(struct store *st, struct store_act *act)
{
	static const struct store_req_ops ops = { STORE_WRITES, act_run, act_settle };

	act->n = 0;
	store_submit(st, &act->req, &ops, NULL);
}

int64_t
store_held(const struct store *st)
{
	return st->held;
}
