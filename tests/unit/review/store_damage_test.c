/* tests/unit/review/store_damage_test.c - a store that is not ours, damaged, on a full disk, or
 * killed. */
#include "unit/review/helper.h"
#include "unit/unit.h"

#include "relayd/core/counters.h"

#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

START_TEST(a_second_owner_is_refused_and_a_waiting_one_gets_the_store)
{
	struct err err = { 0 };
	struct fixture f;
	pid_t pid;
	int status, fds[2];
	char c;

	fixture_open(&f);
	ck_assert_ptr_null(store_open(&f.loop, &f.options, &err));
	ck_assert_int_eq(err.code, ERR_BUSY);
	store_close(f.store);
	f.store = NULL;
	ck_assert_int_eq(pipe(fds), 0);
	pid = fork();
	ck_assert_int_ge(pid, 0);
	if (pid == 0) {
		uv_loop_t loop;

		if (uv_loop_init(&loop) != 0 || store_open(&loop, &f.options, &err) == NULL ||
		    write(fds[1], "x", 1) != 1)
			_exit(1);
		(void)sleep(60); /* killed long before */
		_exit(0);
	}
	ck_assert_int_eq(read(fds[0], &c, 1), 1);
	f.options.lock_wait_ms = 0;
	ck_assert_ptr_null(store_open(&f.loop, &f.options, &err));
	f.options.lock_wait_ms = 30000;
	ck_assert_int_eq(kill(pid, SIGKILL), 0);
	fixture_reopen(&f);
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	(void)close(fds[0]); /* a pipe that is done with */
	(void)close(fds[1]);
	fixture_close(&f);
}
END_TEST

static const struct {
	const char *sql;
	enum err_code want;
	const char *msg;
} broken[] = {
	{ "PRAGMA user_version = 2", ERR_VERSION, "newer relayd" },
	{ "PRAGMA application_id = 7", ERR_DAMAGED, "no quarantine store" },
	{ "DROP TABLE entry", ERR_SYS, "entry" },
};

START_TEST(a_store_that_is_newer_or_not_ours_is_refused_by_name)
{
	struct err err = { 0 };
	struct fixture f;

	fixture_open(&f);
	store_close(f.store);
	sql(&f, broken[_i].sql);
	f.store = store_open(&f.loop, &f.options, &err);
	ck_assert_ptr_null(f.store);
	ck_assert_int_eq(err.code, broken[_i].want);
	ck_assert_ptr_nonnull(strstr(err.msg, broken[_i].msg));
	fixture_close(&f);
}
END_TEST

START_TEST(a_file_that_is_no_database_is_refused)
{
	struct err err = { 0 };
	struct fixture f;
	char path[128];
	FILE *file;

	fixture_open(&f);
	store_close(f.store);
	(void)snprintf(path, sizeof(path), "%s/quarantine.db", f.dir);
	file = fopen(path, "w");
	ck_assert_ptr_nonnull(file);
	for (int i = 0; i < 4096; i++)
		(void)fputs("not a database ", file); /* fclose() tells */
	ck_assert_int_eq(fclose(file), 0);
	f.store = store_open(&f.loop, &f.options, &err);
	ck_assert_ptr_null(f.store);
	ck_assert_int_eq(err.code, ERR_DAMAGED);
	fixture_close(&f);
}
END_TEST

START_TEST(a_damaged_body_is_told_and_spoils_no_other)
{
	struct buf out = buf_heap(4096);
	struct store_box *box;
	struct fixture f;
	size_t n;

	fixture_open(&f);
	ck_assert_int_eq(put(&f, test_id(1), "a@example.org", MESSAGE), ERR_NONE);
	ck_assert_int_eq(put(&f, test_id(2), "a@example.org", MESSAGE), ERR_NONE);
	sql(&f, "UPDATE chunk SET bytes = substr(bytes, 1, 20) || x'ff' || substr(bytes, 22)"
		" WHERE id = 1 << 20");
	box = box_open(&f, "*", STORE_INBOX);
	ck_assert_int_eq(
	    read_view(&f, box, store_box_entries(box, &n)[0].item, 0, 1000, &out), ERR_DAMAGED);
	ck_assert_int_eq(
	    read_view(&f, box, store_box_entries(box, &n)[1].item, 0, 1000, &out), ERR_NONE);
	ck_assert_int_eq(read_view(&f, box, 4711, 0, 1000, &out), ERR_NOT_FOUND);
	store_box_close(box);
	buf_fini(&out);
	fixture_close(&f);
}
END_TEST

START_TEST(a_full_disk_refuses_says_so_and_recovers)
{
	struct buf message = big_message(1u << 20);
	struct fixture f;

	fixture_open(&f);
	store_limit_pages(f.store, 40);
	ck_assert_int_eq(
	    put_bytes(&f, test_id(1), "a@example.org", buf_slice(&message), 0, NULL), ERR_FULL);
	ck_assert(store_failing(f.store));
	ck_assert_uint_eq(count(&f, "*", STORE_INBOX), 0);
	store_limit_pages(f.store, 100000);
	ck_assert_int_eq(
	    put_bytes(&f, test_id(1), "a@example.org", buf_slice(&message), 0, NULL), ERR_NONE);
	ck_assert(!store_failing(f.store));
	ck_assert_uint_eq(count(&f, "*", STORE_INBOX), 1);
	buf_fini(&message);
	fixture_close(&f);
}
END_TEST

/* ---- kill -9 --------------------------------------------------------------------------------- */

#define CHILD_MESSAGES 400

struct child_put {
	struct store_put r;
	struct store_rcpt rcpt[2];
	unsigned n;
	int fd;
};

static void
on_child_put(struct store_put *r)
{
	struct child_put *p = container_of(r, struct child_put, r);

	if (r->req.err.code == ERR_NONE && write(p->fd, &p->n, sizeof(p->n)) != sizeof(p->n))
		_exit(1);
}

/* Puts, ten at a time, drops every third and releases every fourth, and says what is done. */
static void
child(struct fixture *f, int fd)
{
	static struct child_put puts[CHILD_MESSAGES];

	ck_assert_int_eq(uv_loop_init(&f->loop), 0);
	f->store = NULL;
	fixture_reopen(f);
	for (unsigned i = 0; i < CHILD_MESSAGES; i++) {
		struct child_put *p = &puts[i];

		*p = (struct child_put){ .r = { .id = test_id(i),
					     .bytes = SLICE(TOP("x") MESSAGE),
					     .rcpts = p->rcpt,
					     .n_rcpts = 2,
					     .done = on_child_put },
			.rcpt = { { SLICE("a@example.org"), SLICE("") },
			    { SLICE("b@example.net"), SLICE("") } },
			.n = i,
			.fd = fd };
		store_put(f->store, &p->r);
		if (i % 10 == 9) {
			struct store_box *box =
			    box_open(f, i % 20 == 9 ? "*" : "example.org", STORE_INBOX);

			(void)move(f, box, i / 3 + 1, STORE_TRASH, "adm", NULL);
			(void)move(f, box, i / 2 + 1, STORE_RELEASE, "adm", NULL);
			store_box_close(box);
		}
	}
	_exit(0);
}

START_TEST(after_kill_9_at_any_moment_all_that_was_confirmed_is_there_and_whole)
{
	unsigned confirmed = 0, n;
	struct fixture f;
	int fds[2], status;
	pid_t pid;

	fixture_open(&f);
	ck_assert_uint_eq(count(&f, "*", STORE_INBOX) + count(&f, "example.org", STORE_INBOX), 0);
	store_close(f.store);
	ck_assert_int_eq(pipe(fds), 0);
	pid = fork();
	ck_assert_int_ge(pid, 0);
	if (pid == 0)
		child(&f, fds[1]);
	(void)close(fds[1]); /* the child has it */
	while (confirmed < (unsigned)_i * 23 + 1 && read(fds[0], &n, sizeof(n)) == sizeof(n))
		confirmed++;
	ck_assert_int_eq(kill(pid, SIGKILL), 0);
	while (read(fds[0], &n, sizeof(n)) == sizeof(n))
		confirmed++;
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	(void)close(fds[0]); /* a pipe that is done with */
	f.store = NULL;
	fixture_reopen(&f);
	ck_assert_int_ge(sql_int(&f, "SELECT count(DISTINCT msg) FROM item"), confirmed);
	ck_assert_int_eq(
	    sql_int(&f, "SELECT count(*) FROM item") * 2, sql_int(&f, "SELECT count(*) FROM rcpt"));
	ck_assert_int_eq(sql_int(&f, "SELECT count(*) FROM item") * 2,
	    sql_int(&f, "SELECT count(*) FROM entry"));
	ck_assert_int_eq(
	    sql_int(&f, "SELECT count(*) FROM item"), sql_int(&f, "SELECT count(*) FROM chunk"));
	/* Every scope sees every item where the states say. */
	ck_assert_int_eq(
	    sql_int(&f,
		"SELECT count(*) FROM entry JOIN scope ON scope.id = scope WHERE box <>"
		" (SELECT CASE WHEN sum(state = 0) > 0 THEN 0 WHEN sum(state = 1) > 0 THEN 1"
		"  WHEN sum(state = 2) > 0 THEN 2 ELSE 3 END FROM rcpt"
		"  WHERE rcpt.item = entry.item AND (name = '*' OR domain = name))"),
	    0);
	ck_assert_int_eq(sql_int(&f, "SELECT count(*) FROM entry JOIN box USING (scope, box)"
				     " WHERE uid >= uidnext"),
	    0);
	ck_assert_int_eq(
	    sql_int(&f, "SELECT count(*) FROM pragma_quick_check WHERE quick_check <> 'ok'"), 0);
	ck_assert_int_eq((int64_t)jobs(&f, NULL) > 0,
	    sql_int(&f, "SELECT count(*) > 0 FROM rcpt WHERE state = 1"));
	fixture_close(&f);
}
END_TEST

UNIT_SUITE(store_damage)
{
	UNIT_TEST(a_second_owner_is_refused_and_a_waiting_one_gets_the_store);
	UNIT_ROWS(a_store_that_is_newer_or_not_ours_is_refused_by_name, broken);
	UNIT_TEST(a_file_that_is_no_database_is_refused);
	UNIT_TEST(a_damaged_body_is_told_and_spoils_no_other);
	UNIT_TEST(a_full_disk_refuses_says_so_and_recovers);
	tcase_add_loop_test(
	    tc, after_kill_9_at_any_moment_all_that_was_confirmed_is_there_and_whole, 0, 12);
}
