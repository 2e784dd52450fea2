/* relayd/review/store_read.c - what sessions read of items: views, descriptions, whole messages. */
#include "relayd/review/store_internal.h"

#include "relayd/review/body.h"
#include "relayd/review/store_admin.h"
#include "relayd/review/top.h"

#include <stdlib.h>

#define VIEW_TOP_MAX     (64u << 20) /* X-Relayd-To of an item with very many recipients */
#define DESCRIPTION_MAX  (256u << 10)
#define DESCRIPTIONS_MAX (64u << 20) /* of one request */

/* What a scope sees of an item. */
struct view {
	struct buf top;
	int64_t body;
	uint64_t body_at; /* where the original begins in the body */
	uint64_t size;    /* of the original */
};

static int
view_to(struct db *db, int64_t item, struct slice scope, struct view *view, struct err *err)
{
	struct arena arena = arena_of(VIEW_TOP_MAX);
	struct item_rcpt *rcpts;
	size_t n, shown = 0;
	int rc = item_rcpts(db, item, &arena, &rcpts, &n, err);

	for (size_t i = 0; rc == 0 && i < n; i++)
		if (scope_has(scope, rcpts[i].path))
			top_put_to(&view->top, shown++, rcpts[i].path);
	top_end_to(&view->top, shown);
	arena_fini(&arena);
	return rc;
}

/* with_top: else only the original is looked up. */
static int
view_begin(
    struct db *db, int64_t item, const struct slice *scope, struct view *view, struct err *err)
{
	sqlite3_stmt *stmt = db_query(db, err, DB_ITEM_GET, "i", item);
	int rc = db_next(db, stmt, err);

	*view = (struct view){ .top = buf_heap(VIEW_TOP_MAX) };
	if (rc == 0)
		return err_set(err, ERR_NOT_FOUND, "the message is not in the quarantine any more");
	if (rc < 0)
		return -1;
	if (scope != NULL)
		buf_put(&view->top, db_bytes(stmt, 0));
	view->body_at = (uint64_t)sqlite3_column_int64(stmt, 1);
	view->body = sqlite3_column_int64(stmt, 2);
	view->size = (uint64_t)sqlite3_column_int64(stmt, 3);
	db_reset(stmt);
	rc = scope != NULL ? view_to(db, item, *scope, view, err) : 0;
	if (rc == 0 && view->top.overflow)
		rc = err_set(err, ERR_NOMEM, "quarantine store: out of memory");
	if (rc < 0)
		buf_fini(&view->top);
	return rc;
}

/* Appends max bytes of a view from offset from on. */
static int
view_read(struct db *db, const struct view *view, uint64_t from, uint64_t max, struct buf *out,
    struct err *err)
{
	uint64_t left;

	if (from < view->top.len) {
		struct slice part = slice_drop(buf_slice(&view->top), (size_t)from);

		part = slice_head(part, max < part.len ? (size_t)max : part.len);
		buf_put(out, part);
		if (out->overflow)
			return err_set(err, ERR_NOMEM, "quarantine store: out of memory");
		max -= part.len;
		from += part.len;
	}
	from -= view->top.len;
	left = from < view->size ? view->size - from : 0;
	if (max > left)
		max = left;
	return max > 0 ? body_read(db, view->body, view->body_at + from, max, out, err) : 0;
}

/* The item must be in the scope of the box; whose id and name never change. */
static int
check_scope(struct db *db, int64_t item, const struct store_box *box, struct err *err)
{
	int64_t top;

	if (db_int(db, err, &top, DB_ENTRY_TOP, "ii", item, box->scope->id) == 0)
		return 0;
	if (err->code != ERR_NOT_FOUND)
		return -1;
	return err_set(err, ERR_NOT_FOUND, "the message is not in the quarantine any more");
}

static int
view_of(
    struct db *db, int64_t item, const struct store_box *box, struct view *view, struct err *err)
{
	struct slice scope = slice_str(box->scope->name);

	if (check_scope(db, item, box, err) < 0)
		return -1;
	return view_begin(db, item, &scope, view, err);
}

/* ---- a range --------------------------------------------------------------------------------- */

static int
read_run(struct store_req *req, struct db *db)
{
	struct store_read *read = container_of(req, struct store_read, req);
	struct view view;
	int rc;

	if (read->max > STORE_READ_MAX)
		return err_set(&req->err, ERR_LIMIT, "over %u bytes at once", STORE_READ_MAX);
	if (view_of(db, read->item, read->box, &view, &req->err) < 0)
		return -1;
	rc = view_read(db, &view, read->from, read->max, &read->bytes, &req->err);
	buf_fini(&view.top);
	return rc;
}

static void
read_settle(struct store_req *req)
{
	struct store_read *read = container_of(req, struct store_read, req);

	if (req->err.code != ERR_NONE)
		buf_fini(&read->bytes);
	read->done(read);
}

void
store_read(struct store *st, struct store_read *read)
{
	static const struct store_req_ops ops = { STORE_READS, read_run, read_settle };

	read->bytes = buf_heap(STORE_READ_MAX);
	store_submit(st, &read->req, &ops, read->box);
}

/* ---- the original, for release --------------------------------------------------------------- */

static int
original_run(struct store_req *req, struct db *db)
{
	struct store_original *read = container_of(req, struct store_original, req);
	struct view view;
	int rc;

	if (read->max > STORE_READ_MAX)
		return err_set(&req->err, ERR_LIMIT, "over %u bytes at once", STORE_READ_MAX);
	if (view_begin(db, read->item, NULL, &view, &req->err) < 0)
		return -1;
	rc = view_read(db, &view, read->from, read->max, &read->bytes, &req->err);
	buf_fini(&view.top);
	return rc;
}

static void
original_settle(struct store_req *req)
{
	struct store_original *read = container_of(req, struct store_original, req);

	if (req->err.code != ERR_NONE)
		buf_fini(&read->bytes);
	read->done(read);
}

void
store_original(struct store *st, struct store_original *read)
{
	static const struct store_req_ops ops = { STORE_READS, original_run, original_settle };

	read->bytes = buf_heap(STORE_READ_MAX);
	store_submit(st, &read->req, &ops, NULL);
}

/* ---- whole messages -------------------------------------------------------------------------- */

/* An item that has gone is an empty view, not an error. */
static int
visit_one(struct store_visit *visit, struct db *db, size_t i)
{
	struct err *err = &visit->req.err;
	struct buf bytes = { 0 };
	struct view view = { 0 };
	int rc = view_of(db, visit->items[i], visit->box, &view, err);

	if (rc == 0) {
		bytes = buf_heap(view.top.len + view.size);
		rc = view_read(db, &view, 0, view.top.len + view.size, &bytes, err);
	} else if (err->code == ERR_NOT_FOUND) {
		*err = (struct err){ 0 };
		rc = 0;
	}
	if (rc == 0)
		visit->visit(visit, i, buf_slice(&bytes), view.top.len);
	buf_fini(&view.top);
	buf_fini(&bytes);
	return rc;
}

static int
visit_run(struct store_req *req, struct db *db)
{
	struct store_visit *visit = container_of(req, struct store_visit, req);

	if (visit->n_items > STORE_VISIT_MAX)
		return err_set(&req->err, ERR_LIMIT, "over %d messages at once", STORE_VISIT_MAX);
	for (size_t i = 0; i < visit->n_items; i++)
		if (visit_one(visit, db, i) < 0)
			return -1;
	return 0;
}

static void
visit_settle(struct store_req *req)
{
	struct store_visit *visit = container_of(req, struct store_visit, req);

	visit->done(visit);
}

void
store_visit(struct store *st, struct store_visit *visit)
{
	static const struct store_req_ops ops = { STORE_READS, visit_run, visit_settle };

	store_submit(st, &visit->req, &ops, visit->box);
}

/* ---- descriptions ---------------------------------------------------------------------------- */

/* A description that was made now and is to be kept. */
struct keep {
	struct store_req req;
	struct keep *next;
	int64_t item;
	uint32_t version;
	struct buf bytes;
};

static int
keep_run(struct store_req *req, struct db *db)
{
	struct keep *keep = container_of(req, struct keep, req);

	return db_run(db, &req->err, DB_DESCRIPTION_SET, "iib", keep->item, (int64_t)keep->version,
	    buf_slice(&keep->bytes));
}

static void
keep_settle(struct store_req *req)
{
	struct keep *keep = container_of(req, struct keep, req);

	buf_fini(&keep->bytes); /* when it could not be kept it is made again next time */
	free(keep);
}

static int
describe_cached(struct store_describe *d, struct db *db, size_t i)
{
	const struct store_options *options = d->made.options;
	sqlite3_stmt *stmt = db_query(db, &d->req.err, DB_DESCRIPTION_GET, "ii", d->items[i],
	    (int64_t)options->describe_version);
	int rc = db_next(db, stmt, &d->req.err);

	if (rc > 0) {
		struct slice bytes = db_bytes(stmt, 0);

		buf_put(&d->storage, bytes);
		d->descriptions[i].len = bytes.len;
		db_reset(stmt);
	}
	return rc;
}

static int
describe_now(struct store_describe *d, struct db *db, size_t i)
{
	struct err *err = &d->req.err;
	struct keep *keep = calloc(1, sizeof(*keep));
	struct buf original = { 0 };
	struct view view;
	int rc = -1;

	if (keep == NULL)
		return err_set(err, ERR_NOMEM, "quarantine store: out of memory");
	*keep = (struct keep){ .item = d->items[i],
		.version = d->made.options->describe_version,
		.bytes = buf_heap(DESCRIPTION_MAX) };
	if (view_begin(db, d->items[i], NULL, &view, err) < 0)
		goto out;
	original = buf_heap(view.size);
	rc = view_read(db, &view, 0, view.size, &original, err);
	if (rc == 0)
		d->made.options->describe(buf_slice(&original), &keep->bytes);
	buf_put(&d->storage, buf_slice(&keep->bytes));
	d->descriptions[i].len = keep->bytes.len;
	if (rc == 0) {
		keep->next = d->made.keep;
		d->made.keep = keep;
		keep = NULL;
	}
	buf_fini(&original);
	buf_fini(&view.top);
out:
	if (keep != NULL)
		buf_fini(&keep->bytes);
	free(keep);
	return rc;
}

static int
describe_one(struct store_describe *d, struct db *db, size_t i)
{
	struct err *err = &d->req.err;
	int rc = check_scope(db, d->items[i], d->box, err);

	if (rc == 0)
		rc = describe_cached(d, db, i);
	if (rc == 0 && d->made.options->describe != NULL)
		rc = describe_now(d, db, i);
	if (rc < 0 && err->code == ERR_NOT_FOUND) {
		*err = (struct err){ 0 };
		rc = 0;
	}
	return rc < 0 ? -1 : 0;
}

static int
describe_run(struct store_req *req, struct db *db)
{
	struct store_describe *d = container_of(req, struct store_describe, req);
	size_t at = 0;

	if (d->n_items > STORE_VISIT_MAX)
		return err_set(&req->err, ERR_LIMIT, "over %d messages at once", STORE_VISIT_MAX);
	d->descriptions = calloc(d->n_items + 1, sizeof(*d->descriptions));
	if (d->descriptions == NULL)
		return err_set(&req->err, ERR_NOMEM, "quarantine store: out of memory");
	for (size_t i = 0; i < d->n_items; i++)
		if (describe_one(d, db, i) < 0)
			return -1;
	if (d->storage.overflow)
		return err_set(&req->err, ERR_NOMEM, "quarantine store: out of memory");
	for (size_t i = 0; i < d->n_items; i++) { /* the storage may have moved before */
		d->descriptions[i] = slice_of(d->storage.p + at, d->descriptions[i].len);
		at += d->descriptions[i].len;
	}
	return 0;
}

static void
describe_settle(struct store_req *req)
{
	static const struct store_req_ops keep_ops = { STORE_WRITES, keep_run, keep_settle };
	struct store_describe *d = container_of(req, struct store_describe, req);
	struct keep *keep;

	while ((keep = d->made.keep) != NULL) {
		d->made.keep = keep->next;
		store_submit(req->store, &keep->req, &keep_ops, NULL);
	}
	if (req->err.code != ERR_NONE)
		store_describe_fini(d);
	d->done(d);
}

void
store_describe(struct store *st, struct store_describe *d)
{
	static const struct store_req_ops ops = { STORE_READS, describe_run, describe_settle };

	d->descriptions = NULL;
	d->storage = buf_heap(DESCRIPTIONS_MAX);
	d->made.keep = NULL;
	d->made.options = &st->options;
	store_submit(st, &d->req, &ops, d->box);
}

void
store_describe_fini(struct store_describe *d)
{
	free(d->descriptions);
	d->descriptions = NULL;
	buf_fini(&d->storage);
}
