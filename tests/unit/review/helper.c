/* tests/unit/review/helper.c - a store in a directory of its own, and its requests waited for. */
#include "unit/review/helper.h"

#include <check.h>
#include <dirent.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

void
remove_dir(const char *dir)
{
	char path[512];
	struct dirent *entry;
	DIR *d = opendir(dir);

	ck_assert_ptr_nonnull(d);
	while ((entry = readdir(d)) != NULL) {
		(void)snprintf(path, sizeof(path), "%s/%s", dir, entry->d_name);
		if (entry->d_name[0] != '.')
			ck_assert_int_eq(unlink(path), 0);
	}
	(void)closedir(d); /* read only */
	ck_assert_int_eq(rmdir(dir), 0);
}

void
fixture_reopen(struct fixture *f)
{
	struct err err = { 0 };

	store_close(f->store);
	f->store = store_open(&f->loop, &f->options, &err);
	ck_assert_msg(f->store != NULL, "%s", err.msg);
}

void
fixture_open(struct fixture *f)
{
	*f = (struct fixture){ .dir = "/tmp/relayd-review-XXXXXX" };
	ck_assert_ptr_nonnull(mkdtemp(f->dir));
	ck_assert_int_eq(uv_loop_init(&f->loop), 0);
	f->options = (struct store_options){ .dir = f->dir, .keep_s = 3600 };
	fixture_reopen(f);
}

void
fixture_close(struct fixture *f)
{
	store_close(f->store);
	while (uv_run(&f->loop, UV_RUN_DEFAULT) != 0)
		;
	ck_assert_int_eq(uv_loop_close(&f->loop), 0);
	remove_dir(f->dir);
}

struct id
test_id(unsigned n)
{
	struct id id = { { 0 } };

	memcpy(id.bytes, &n, sizeof(n));
	return id;
}

/* A request of the test: done() of each kind sets the flag. */
#define WAITER(kind)                                                                               \
	struct kind##_wait {                                                                       \
		struct store_##kind r;                                                             \
		bool done;                                                                         \
	};                                                                                         \
	static void on_##kind(struct store_##kind *r)                                              \
	{                                                                                          \
		struct kind##_wait *w = container_of(r, struct kind##_wait, r);                    \
		ck_assert(!w->done);                                                               \
		w->done = true;                                                                    \
	}
#define WAIT(f, start, w)                                                                          \
	do {                                                                                       \
		start((f)->store, &(w).r);                                                         \
		ck_assert(!(w).done); /* never inside the call */                                  \
		while (!(w).done)                                                                  \
			(void)uv_run(&(f)->loop, UV_RUN_ONCE);                                     \
	} while (0)

WAITER(put)
WAITER(box_open)
WAITER(move)
WAITER(set_flags)
WAITER(read)
WAITER(job_done)
WAITER(jobs)

enum err_code
put_bytes(struct fixture *f, struct id id, const char *rcpts, struct slice bytes, int64_t body,
    size_t *n_new)
{
	struct store_rcpt list[64];
	struct slice rest = slice_str(rcpts);
	struct put_wait w = { .r = { .id = id,
				  .bytes = bytes,
				  .body = body,
				  .reverse_path = SLICE("s@example.net"),
				  .params = SLICE("BODY=8BITMIME"),
				  .rcpts = list,
				  .done = on_put } };

	while (rest.len > 0) {
		list[w.r.n_rcpts++] = (struct store_rcpt){ .forward_path = slice_until(rest, ' '),
			.params = SLICE("NOTIFY=NEVER") };
		rest = slice_drop(rest, slice_until(rest, ' ').len + 1);
	}
	WAIT(f, store_put, w);
	if (n_new != NULL)
		*n_new = w.r.n_new;
	return w.r.req.err.code;
}

enum err_code
put(struct fixture *f, struct id id, const char *rcpts, const char *bytes)
{
	return put_bytes(f, id, rcpts, slice_str(bytes), 0, NULL);
}

struct store_box *
box_open(struct fixture *f, const char *scope, enum store_box_kind kind)
{
	struct box_open_wait w = {
		.r = { .scope = slice_str(scope), .kind = kind, .done = on_box_open }
	};

	WAIT(f, store_box_open, w);
	ck_assert_msg(w.r.req.err.code == ERR_NONE, "%s", w.r.req.err.msg);
	return w.r.box;
}

enum err_code
move(struct fixture *f, struct store_box *box, uint32_t uid, enum store_box_kind to,
    const char *actor, uint32_t *new_uid)
{
	struct move_wait w = { .r = { .box = box,
				   .uids = &uid,
				   .n_uids = 1,
				   .to = to,
				   .actor = slice_str(actor),
				   .done = on_move } };

	WAIT(f, store_move, w);
	if (new_uid != NULL)
		*new_uid = w.r.n_moved > 0 ? w.r.moved[0].to : 0;
	store_move_fini(&w.r);
	return w.r.req.err.code;
}

enum err_code
set_flags(struct fixture *f, struct store_box *box, uint32_t uid, enum store_flags_how how,
    uint64_t flags, const char *keyword)
{
	struct slice name = slice_str(keyword);
	struct set_flags_wait w = { .r = { .box = box,
					.uids = &uid,
					.n_uids = 1,
					.how = how,
					.flags = flags,
					.keywords = &name,
					.n_keywords = keyword != NULL,
					.done = on_set_flags } };

	WAIT(f, store_set_flags, w);
	return w.r.req.err.code;
}

enum err_code
read_view(struct fixture *f, struct store_box *box, int64_t item, uint64_t from, size_t max,
    struct buf *out)
{
	struct read_wait w = {
		.r = { .box = box, .item = item, .from = from, .max = max, .done = on_read }
	};

	WAIT(f, store_read, w);
	buf_put(out, buf_slice(&w.r.bytes));
	buf_fini(&w.r.bytes);
	return w.r.req.err.code;
}

enum err_code
job_done(struct fixture *f, int64_t rcpt, enum store_state state, const char *reply)
{
	struct job_done_wait w = { .r = { .rcpt = rcpt,
				       .state = state,
				       .reply = slice_str(reply),
				       .done = on_job_done } };

	WAIT(f, store_job_done, w);
	return w.r.req.err.code;
}

size_t
jobs(struct fixture *f, int64_t *rcpt)
{
	struct jobs_wait w = { .r = { .done = on_jobs } };

	WAIT(f, store_jobs, w);
	ck_assert_int_eq(w.r.req.err.code, ERR_NONE);
	if (rcpt != NULL)
		*rcpt = w.r.n > 0 ? w.r.jobs[0].rcpt : 0;
	arena_fini(&w.r.arena);
	return w.r.n;
}

const char *
uids(struct fixture *f, const char *scope, enum store_box_kind kind)
{
	static char text[4096];
	struct buf out = buf_over(text, sizeof(text) - 1);
	struct store_box *box = box_open(f, scope, kind);
	size_t n;
	const struct store_entry *entries = store_box_entries(box, &n);

	for (size_t i = 0; i < n; i++)
		buf_printf(&out, "%s%u", i > 0 ? " " : "", entries[i].uid);
	text[out.len] = '\0';
	store_box_close(box);
	return text;
}

size_t
count(struct fixture *f, const char *scope, enum store_box_kind kind)
{
	struct store_box *box = box_open(f, scope, kind);
	size_t n;

	(void)store_box_entries(box, &n); /* only how many */
	store_box_close(box);
	return n;
}

static void
opened(const char *path, sqlite3 **db)
{
	char file[256];

	(void)snprintf(file, sizeof(file), "%s/quarantine.db", path);
	ck_assert_int_eq(sqlite3_open(file, db), SQLITE_OK);
}

void
sql(struct fixture *f, const char *text)
{
	sqlite3 *db;

	opened(f->dir, &db);
	ck_assert_msg(
	    sqlite3_exec(db, text, NULL, NULL, NULL) == SQLITE_OK, "%s", sqlite3_errmsg(db));
	ck_assert_int_eq(sqlite3_close(db), SQLITE_OK);
}

int64_t
sql_int(struct fixture *f, const char *text)
{
	sqlite3 *db;
	sqlite3_stmt *stmt;
	int64_t n;

	opened(f->dir, &db);
	ck_assert_int_eq(sqlite3_prepare_v2(db, text, -1, &stmt, NULL), SQLITE_OK);
	ck_assert_int_eq(sqlite3_step(stmt), SQLITE_ROW);
	n = sqlite3_column_int64(stmt, 0);
	ck_assert_int_eq(sqlite3_finalize(stmt), SQLITE_OK);
	ck_assert_int_eq(sqlite3_close(db), SQLITE_OK);
	return n;
}

struct store_entry
only(struct store_box *box)
{
	size_t n;
	const struct store_entry *entries = store_box_entries(box, &n);

	ck_assert_uint_eq(n, 1);
	return entries[0];
}

void
assert_view(struct fixture *f, const char *scope, enum store_box_kind kind, const char *want)
{
	struct store_box *box = box_open(f, scope, kind);
	struct store_entry entry = only(box);
	struct buf out = buf_heap(1u << 20);

	ck_assert_int_eq(read_view(f, box, entry.item, 0, STORE_READ_MAX, &out), ERR_NONE);
	buf_putc(&out, '\0');
	ck_assert_str_eq(out.p, want);
	ck_assert_uint_eq(entry.size, strlen(want));
	buf_fini(&out);
	store_box_close(box);
}

struct buf
big_message(size_t bytes)
{
	struct buf b = buf_heap(bytes + 64);
	uint64_t x = 88172645463325252u;

	buf_puts(&b, "Return-Path: <s@example.net>\r\n");
	while (b.len < bytes) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		buf_putc(&b, (char)(b.len % 70 == 0 ? '\n' : ' ' + (char)(x % 90)));
	}
	return b;
}
