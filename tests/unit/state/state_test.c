/* tests/unit/state/state_test.c - the shared store: counters, marks, several processes, damage. */
#include "relayd/core/clock.h"
#include "relayd/core/slice.h"
#include "relayd/state/state.h"
#include "relayd/state/state_store.h"
#include "relayd/state/witness.h"
#include "unit/unit.h"

#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char dir[64];

static int
remove_one(const char *path, const struct stat *sb, int type, struct FTW *ftw)
{
	(void)sb, (void)type, (void)ftw;
	return remove(path);
}

static void
setup(void)
{
	(void)snprintf(dir, sizeof(dir), "/tmp/relayd-state-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(dir));
}

static void
teardown(void)
{
	(void)nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

/* ---- the store alone: time is handed in ------------------------------------------------------ */

#define MINUTE 60000000ll
static const int64_t start_us = 1700000000000000ll;

static struct store *
store(uint64_t map_bytes, const char *expected_said)
{
	char said[STORE_SAID_BYTES];
	struct err err = { 0 };
	struct store *st = state_store_open(dir, map_bytes, said, &err);

	ck_assert_msg(st != NULL, "%s", err.msg);
	if (expected_said[0] == '\0')
		ck_assert_str_eq(said, "");
	else
		ck_assert_msg(strstr(said, expected_said) != NULL, "%s", said);
	return st;
}

static struct state_request
ask(struct store *st, enum state_op op, const char *key, uint64_t count, int64_t now_us)
{
	char said[STORE_SAID_BYTES] = "";
	struct state_request req = {
		.op = op, .key = slice_str(key), .count = count, .period_s = 60
	};

	state_store_run(st, &req, now_us, said);
	ck_assert_str_eq(said, "");
	return req;
}

START_TEST(a_counter_conforms_until_it_is_full_and_again_later)
{
	struct store *st = store(1 << 20, "");
	struct state_request taken;
	char said[STORE_SAID_BYTES];

	for (int i = 0; i < 3; i++)
		ck_assert(ask(st, STATE_TAKE, "a", 3, start_us).conforms);
	ck_assert(!ask(st, STATE_TAKE, "a", 3, start_us).conforms);
	ck_assert_uint_eq(ask(st, STATE_TAKE, "a", 3, start_us).retry_ms, 20000);
	ck_assert(ask(st, STATE_TAKE, "b", 3, start_us).conforms);
	taken = ask(st, STATE_TAKE, "a", 3, start_us + MINUTE / 3);
	ck_assert(taken.conforms);
	ck_assert(!ask(st, STATE_TAKE, "a", 3, start_us + MINUTE / 3).conforms);
	taken.op = STATE_GIVE_BACK;
	state_store_run(st, &taken, start_us + MINUTE / 3, said);
	ck_assert_int_eq(taken.err.code, ERR_NONE);
	ck_assert(ask(st, STATE_TAKE, "a", 3, start_us + MINUTE / 3).conforms);
	state_store_close(st);
}
END_TEST

START_TEST(giving_back_what_nobody_took_is_harmless)
{
	struct store *st = store(1 << 20, "");

	ck_assert_int_eq(ask(st, STATE_GIVE_BACK, "a", 1, start_us).err.code, ERR_NONE);
	ck_assert(ask(st, STATE_TAKE, "a", 1, start_us).conforms);
	ck_assert(!ask(st, STATE_TAKE, "a", 1, start_us).conforms);
	state_store_close(st);
}
END_TEST

START_TEST(a_mark_keeps_when_it_was_first_seen_until_it_expires)
{
	struct store *st = store(1 << 20, "");
	struct state_request req = ask(st, STATE_LOOK, "a", 0, start_us);

	ck_assert_int_eq(req.first_ms, 0); /* and it made none */
	req = ask(st, STATE_MARK, "a", 0, start_us);

	ck_assert(req.created);
	ck_assert_int_eq(req.first_ms, start_us / 1000);
	req = ask(st, STATE_MARK, "a", 0, start_us + MINUTE / 2);
	ck_assert(!req.created);
	ck_assert_int_eq(req.first_ms, start_us / 1000);
	/* Seen again after half a minute, it lives for another whole one. */
	req = ask(st, STATE_MARK, "a", 0, start_us + MINUTE + MINUTE / 4);
	ck_assert(!req.created);
	req = ask(st, STATE_MARK, "a", 0, start_us + 5 * MINUTE);
	ck_assert(req.created);
	/* A counter of that name is another thing. */
	ck_assert(ask(st, STATE_TAKE, "a", 1, start_us + 5 * MINUTE).conforms);
	state_store_close(st);
}
END_TEST

START_TEST(a_number_is_there_until_it_expires)
{
	struct store *st = store(1 << 20, "");
	struct state_request req = {
		.op = STATE_PUT, .key = SLICE("a"), .number = -7, .period_s = 60
	};
	char said[STORE_SAID_BYTES] = "";

	ck_assert(!ask(st, STATE_GET, "a", 0, start_us).found);
	state_store_run(st, &req, start_us, said);
	ck_assert_int_eq(req.err.code, ERR_NONE);
	req = ask(st, STATE_GET, "a", 0, start_us + MINUTE / 2);
	ck_assert(req.found);
	ck_assert_int_eq(req.number, -7);
	ck_assert_int_eq(req.left_ms, 30000);
	ck_assert(!ask(st, STATE_GET, "a", 0, start_us + MINUTE).found);
	/* Marks and counters of that name are other things. */
	ck_assert(ask(st, STATE_MARK, "a", 0, start_us).created);
	state_store_close(st);
}
END_TEST

START_TEST(a_counter_of_nothing_is_refused)
{
	struct store *st = store(1 << 20, "");

	ck_assert_int_eq(ask(st, STATE_TAKE, "a", 0, start_us).err.code, ERR_FORMAT);
	state_store_close(st);
}
END_TEST

START_TEST(what_has_expired_is_swept_away)
{
	struct store *st = store(1 << 22, "");
	char key[32];

	for (int i = 0; i < 2000; i++) {
		(void)snprintf(key, sizeof(key), "old %d", i);
		ck_assert(ask(st, STATE_TAKE, key, 5, start_us).conforms);
	}
	ck_assert_uint_eq(state_store_entries(st), 2000);
	for (int i = 0; i < 1100; i++)
		(void)ask(st, STATE_TAKE, "new", 1000000, start_us + 10 * MINUTE);
	ck_assert_uint_eq(state_store_entries(st), 1);
	state_store_close(st);
}
END_TEST

START_TEST(a_full_store_refuses_new_keys_and_keeps_the_old)
{
	struct store *st = store(1 << 20, "");
	struct state_request req = { .err = { .code = ERR_NONE } };
	char key[32];
	int n = 0;

	ck_assert(ask(st, STATE_TAKE, "first", 2, start_us).conforms);
	for (; n < 100000 && req.err.code == ERR_NONE; n++) {
		(void)snprintf(key, sizeof(key), "key %d", n);
		req = ask(st, STATE_TAKE, key, 2, start_us);
	}
	ck_assert_int_eq(req.err.code, ERR_FULL);
	ck_assert_int_gt(n, 4000);
	ck_assert(ask(st, STATE_TAKE, "first", 2, start_us).conforms);
	ck_assert(!ask(st, STATE_TAKE, "first", 2, start_us).conforms);
	/* When they have expired there is room again. */
	for (int i = 0; i < 5; i++)
		(void)ask(st, STATE_TAKE, "first", 2, start_us + 9 * MINUTE);
	ck_assert_int_eq(ask(st, STATE_TAKE, "later", 2, start_us + 9 * MINUTE).err.code, ERR_NONE);
	state_store_close(st);
}
END_TEST

START_TEST(it_outlives_its_process)
{
	struct store *st = store(1 << 20, "");

	ck_assert(ask(st, STATE_TAKE, "a", 1, start_us).conforms);
	state_store_close(st);
	st = store(1 << 20, "");
	ck_assert(!ask(st, STATE_TAKE, "a", 1, start_us).conforms);
	state_store_close(st);
}
END_TEST

START_TEST(a_store_that_a_killed_process_left_is_whole)
{
	pid_t pid = fork();
	struct store *st;
	int status;

	if (pid == 0) {
		st = store(1 << 20, "");
		if (!ask(st, STATE_TAKE, "a", 1, start_us).conforms)
			_exit(1);
		(void)kill(getpid(), SIGKILL);
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert(WIFSIGNALED(status));
	st = store(1 << 20, "");
	ck_assert(!ask(st, STATE_TAKE, "a", 1, start_us).conforms);
	state_store_close(st);
}
END_TEST

static void
write_file(const char *name, const char *text, off_t at)
{
	char path[100];
	int fd;

	(void)snprintf(path, sizeof(path), "%s/%s", dir, name);
	fd = open(path, O_WRONLY | O_CREAT | (at < 0 ? O_TRUNC : 0), 0600);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(pwrite(fd, text, strlen(text), at < 0 ? 0 : at), (ssize_t)strlen(text));
	(void)close(fd);
}

static const char *const other_boots[] = { "boot of-long-ago", "since 1000000000", "since ", "",
	"boot" };

START_TEST(a_store_of_another_boot_that_was_not_closed_starts_empty)
{
	struct store *st = store(1 << 20, "");

	ck_assert(ask(st, STATE_TAKE, "a", 1, start_us).conforms);
	state_store_close(st);
	write_file("state.mark", other_boots[_i], -1);
	st = store(1 << 20, "starts empty: the machine stopped");
	ck_assert(ask(st, STATE_TAKE, "a", 1, start_us).conforms);
	state_store_close(st);
}
END_TEST

START_TEST(a_closed_store_is_trusted_by_the_next_boot)
{
	struct store *st = store(1 << 20, "");
	char path[100], mark[16] = "";
	FILE *f;

	ck_assert(ask(st, STATE_TAKE, "a", 1, start_us).conforms);
	state_store_close(st);
	(void)snprintf(path, sizeof(path), "%s/state.mark", dir);
	f = fopen(path, "r");
	ck_assert_ptr_nonnull(f);
	ck_assert_ptr_nonnull(fgets(mark, sizeof(mark), f));
	(void)fclose(f);
	ck_assert_str_eq(mark, "clean");
}
END_TEST

START_TEST(a_damaged_file_starts_empty_and_says_so)
{
	struct store *st = store(1 << 20, "");
	char garbage[4097];

	ck_assert(ask(st, STATE_TAKE, "a", 1, start_us).conforms);
	state_store_close(st);
	memset(garbage, 'x', sizeof(garbage) - 1);
	garbage[sizeof(garbage) - 1] = '\0';
	write_file("state.mdb", garbage, 0);
	write_file("state.mdb", garbage, 4096);
	st = store(1 << 20, "state starts empty");
	ck_assert(ask(st, STATE_TAKE, "a", 1, start_us).conforms);
	state_store_close(st);
}
END_TEST

START_TEST(a_store_that_cannot_be_opened_fails_requests_until_it_can)
{
	struct state_request req = {
		.op = STATE_TAKE, .key = SLICE("a"), .count = 1, .period_s = 60
	};
	char path[100], said[STORE_SAID_BYTES];
	struct store *st;

	(void)snprintf(path, sizeof(path), "%s/state.mdb", dir);
	ck_assert_int_eq(mkdir(path, 0700), 0);
	st = store(1 << 20, "state cannot be opened");
	state_store_run(st, &req, start_us, said);
	ck_assert_int_eq(req.err.code, ERR_SYS);
	ck_assert_ptr_nonnull(strstr(req.err.msg, path));
	ck_assert_int_eq(rmdir(path), 0);
	ck_assert(ask(st, STATE_TAKE, "a", 1, start_us).conforms);
	state_store_close(st);
}
END_TEST

START_TEST(a_file_that_was_cut_starts_empty)
{
	struct store *st = store(1 << 20, "");
	char path[100], key[16];

	for (int i = 0; i < 500; i++) {
		(void)snprintf(key, sizeof(key), "%d", i);
		ck_assert(ask(st, STATE_TAKE, key, 1, start_us).conforms);
	}
	state_store_close(st);
	(void)snprintf(path, sizeof(path), "%s/state.mdb", dir);
	ck_assert_int_eq(truncate(path, 2 * 4096), 0);
	st = store(1 << 20, "state starts empty");
	ck_assert(ask(st, STATE_TAKE, "1", 1, start_us).conforms);
	state_store_close(st);
}
END_TEST

START_TEST(pages_of_garbage_start_empty)
{
	struct store *st = store(1 << 20, "");
	char path[100], key[16], page[4096], said[STORE_SAID_BYTES] = "";
	struct state_request req = {
		.op = STATE_TAKE, .key = SLICE("1"), .count = 1, .period_s = 60
	};
	struct stat sb;
	int fd;

	for (int i = 0; i < 500; i++) {
		(void)snprintf(key, sizeof(key), "%d", i);
		ck_assert(ask(st, STATE_TAKE, key, 1, start_us).conforms);
	}
	state_store_close(st);
	(void)snprintf(path, sizeof(path), "%s/state.mdb", dir);
	fd = open(path, O_RDWR);
	ck_assert_int_eq(fstat(fd, &sb), 0);
	memset(page, _i, sizeof(page));
	for (off_t at = 2 * 4096; at < sb.st_size; at += 4096)
		ck_assert_int_eq(pwrite(fd, page, sizeof(page), at), 4096);
	(void)close(fd);
	st = state_store_open(dir, 1 << 20, said, NULL);
	ck_assert_ptr_nonnull(st);
	state_store_run(st, &req, start_us, said);
	ck_assert_int_eq(req.err.code, ERR_NONE);
	ck_assert(req.conforms);
	ck_assert_msg(strstr(said, "starts empty") != NULL, "%s", said);
	state_store_close(st);
}
END_TEST

/* Another process opens the store and takes; whether it lives to say that it could. */
static bool
other_lives(const char *key)
{
	pid_t pid = fork();
	int status;

	if (pid == 0) {
		char said[STORE_SAID_BYTES];
		struct state_request req = {
			.op = STATE_TAKE, .key = slice_str(key), .count = 1, .period_s = 60
		};
		struct store *st;

		(void)freopen("/dev/null", "w", stderr); /* what a sanitizer says of its death */
		st = state_store_open(dir, 1 << 20, said, NULL);
		state_store_run(st, &req, start_us, said);
		_exit(req.err.code == ERR_NONE && req.conforms ? 0 : 1);
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

/* LMDB follows the places that a page gives for its entries, wherever they lead. */
START_TEST(a_store_that_ends_who_looks_at_it_is_given_up)
{
	struct store *st = store(1 << 20, "");
	char path[100], key[16], places[256];
	struct stat sb;
	int fd;

	for (int i = 0; i < 200; i++) {
		(void)snprintf(key, sizeof(key), "%d", i);
		ck_assert(ask(st, STATE_TAKE, key, 1, start_us).conforms);
	}
	state_store_close(st);
	(void)snprintf(path, sizeof(path), "%s/state.mdb", dir);
	fd = open(path, O_RDWR);
	ck_assert_int_eq(fstat(fd, &sb), 0);
	memset(places, 0xff, sizeof(places));
	for (off_t at = 2 * 4096; at < sb.st_size; at += 4096)
		ck_assert_int_eq(pwrite(fd, places, sizeof(places), at + 16), sizeof(places));
	(void)close(fd);
	for (int i = 0; i < WITNESS_DEATHS; i++)
		ck_assert(!other_lives("1"));
	st = store(1 << 20, "state starts empty: processes died at work on");
	ck_assert(ask(st, STATE_TAKE, "1", 1, start_us).conforms);
	state_store_close(st);
}
END_TEST

static int
open_witness(struct witness *w)
{
	char path[100];
	int fd;

	(void)snprintf(path, sizeof(path), "%s/state.lock", dir);
	fd = open(path, O_RDWR | O_CREAT, 0600);
	ck_assert_int_ge(fd, 0);
	witness_open(w, fd);
	ck_assert_ptr_nonnull(w->page);
	return fd;
}

static void
die_at_work(bool at_work)
{
	pid_t pid = fork();
	struct witness w;
	int status;

	if (pid == 0) {
		(void)open_witness(&w);
		witness_enter(&w);
		if (!at_work)
			witness_leave(&w);
		(void)kill(getpid(), SIGKILL);
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert(WIFSIGNALED(status));
}

START_TEST(only_who_died_at_work_is_counted_and_more_than_one)
{
	struct witness living, w;
	int fds[2] = { open_witness(&living), -1 };

	witness_enter(&living);
	die_at_work(true);
	for (int i = 0; i < 3; i++)
		die_at_work(false);
	fds[1] = open_witness(&w);
	ck_assert(!witness_doubts(&w));
	die_at_work(true);
	witness_close(&w);
	(void)close(fds[1]);
	fds[1] = open_witness(&w);
	ck_assert(witness_doubts(&w));
	ck_assert(!witness_doubts(&living));
	witness_close(&w);
	(void)close(fds[1]);
	die_at_work(true);
	die_at_work(true);
	fds[1] = open_witness(&w);
	witness_forget(&w);
	ck_assert(!witness_doubts(&living));
	witness_close(&w);
	witness_close(&living);
	(void)close(fds[1]);
	(void)close(fds[0]);
}
END_TEST

/* Another process opens the store, takes, and says whether it conformed. */
static bool
other_takes(const char *key, uint64_t count)
{
	pid_t pid = fork();
	struct store *st;
	int status;

	if (pid == 0) {
		st = store(1 << 20, "");
		_exit(ask(st, STATE_TAKE, key, count, start_us).conforms ? 0 : 1);
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert(WIFEXITED(status) && WEXITSTATUS(status) <= 1);
	return WEXITSTATUS(status) == 0;
}

START_TEST(workers_share_one_counter)
{
	struct store *st;
	bool first = other_takes("a", 2), second, third;

	ck_assert(first);
	st = store(1 << 20, "");
	ck_assert(ask(st, STATE_TAKE, "a", 2, start_us).conforms);
	second = other_takes("a", 2);
	ck_assert(!second);
	third = other_takes("b", 2);
	ck_assert(third);
	state_store_close(st);
}
END_TEST

START_TEST(a_worker_follows_when_another_started_over)
{
	struct store *st = store(1 << 20, "");
	char path[100];

	ck_assert(ask(st, STATE_TAKE, "a", 1, start_us).conforms);
	(void)snprintf(path, sizeof(path), "%s/state.mdb", dir);
	ck_assert_int_eq(unlink(path), 0);
	strncat(path, "-lock", sizeof(path) - strlen(path) - 1);
	ck_assert_int_eq(unlink(path), 0);
	ck_assert(other_takes("b", 1));
	ck_assert(!ask(st, STATE_TAKE, "b", 1, start_us).conforms);
	ck_assert(ask(st, STATE_TAKE, "a", 1, start_us).conforms);
	state_store_close(st);
}
END_TEST

/* ---- the thread and the loop ----------------------------------------------------------------- */

struct asked {
	struct state_request req;
	char key[24];
	int answered;
};

static void
on_done(struct state_request *req)
{
	container_of(req, struct asked, req)->answered++;
}

static struct state *
open_state(uv_loop_t *loop)
{
	struct err err = { 0 };
	struct state *st;

	ck_assert_int_eq(uv_loop_init(loop), 0);
	st = state_open(loop, dir, 0, &err);
	ck_assert_msg(st != NULL, "%s", err.msg);
	return st;
}

static void
close_state(uv_loop_t *loop, struct state *st)
{
	state_close(st);
	ck_assert_int_eq(uv_run(loop, UV_RUN_DEFAULT), 0);
	ck_assert_int_eq(uv_loop_close(loop), 0);
}

static void
start(struct state *st, struct asked *a, const char *key, uint64_t count)
{
	*a = (struct asked){
		.req = { .op = STATE_TAKE, .count = count, .period_s = 3600, .done = on_done }
	};
	(void)snprintf(a->key, sizeof(a->key), "%s", key);
	a->req.key = slice_str(a->key);
	ck_assert_int_eq(state_start(st, &a->req, NULL), 0);
}

START_TEST(many_requests_are_each_answered_once_and_in_order)
{
	static struct asked asked[5000];
	uv_loop_t loop;
	struct state *st = open_state(&loop);
	size_t conform = 0;

	for (size_t i = 0; i < ARRAY_LEN(asked); i++)
		start(st, &asked[i], i % 2 == 0 ? "even" : "odd", 100);
	ck_assert_int_eq(asked[0].answered, 0);
	/* The loop lives as long as answers are out, no longer. */
	ck_assert_int_eq(uv_run(&loop, UV_RUN_DEFAULT), 0);
	for (size_t i = 0; i < ARRAY_LEN(asked); i++) {
		ck_assert_int_eq(asked[i].answered, 1);
		ck_assert_int_eq(asked[i].req.err.code, ERR_NONE);
		ck_assert(asked[i].req.conforms == (i < 200));
		conform += asked[i].req.conforms;
	}
	ck_assert_uint_eq(conform, 200);
	close_state(&loop, st);
}
END_TEST

START_TEST(what_was_given_back_can_be_taken_again)
{
	uv_loop_t loop;
	struct state *st = open_state(&loop);
	struct asked a, b, c;

	start(st, &a, "k", 1);
	start(st, &b, "k", 1);
	ck_assert_int_eq(uv_run(&loop, UV_RUN_DEFAULT), 0);
	state_give_back(st, &a.req);
	start(st, &c, "k", 1);
	ck_assert_int_eq(uv_run(&loop, UV_RUN_DEFAULT), 0);
	ck_assert(a.req.conforms && !b.req.conforms && c.req.conforms);
	close_state(&loop, st);
}
END_TEST

START_TEST(closing_answers_what_waits)
{
	static struct asked asked[500];
	uv_loop_t loop;
	struct state *st = open_state(&loop);

	for (size_t i = 0; i < ARRAY_LEN(asked); i++)
		start(st, &asked[i], "k", 1000);
	close_state(&loop, st);
	for (size_t i = 0; i < ARRAY_LEN(asked); i++)
		ck_assert_int_eq(asked[i].answered, 1);
}
END_TEST

START_TEST(too_many_requests_are_refused_at_once)
{
	static struct asked asked[STATE_QUEUE_MAX + 1];
	uv_loop_t loop;
	struct state *st = open_state(&loop);
	struct err err = { 0 };

	for (size_t i = 0; i < STATE_QUEUE_MAX; i++)
		start(st, &asked[i], "k", 100000);
	asked[STATE_QUEUE_MAX] = asked[0];
	ck_assert_int_eq(state_start(st, &asked[STATE_QUEUE_MAX].req, &err), -1);
	ck_assert_int_eq(err.code, ERR_LIMIT);
	ck_assert_int_eq(uv_run(&loop, UV_RUN_DEFAULT), 0);
	ck_assert_int_eq(asked[STATE_QUEUE_MAX - 1].answered, 1);
	close_state(&loop, st);
}
END_TEST

START_TEST(a_directory_that_cannot_be_is_an_error_that_names_it)
{
	struct err err = { 0 };
	uv_loop_t loop;

	ck_assert_int_eq(uv_loop_init(&loop), 0);
	ck_assert_ptr_null(state_open(&loop, "/proc/no/such", 0, &err));
	ck_assert_ptr_nonnull(strstr(err.msg, "/proc/no/such"));
	ck_assert_int_eq(uv_loop_close(&loop), 0);
}
END_TEST

UNIT_SUITE(state)
{
	tcase_add_checked_fixture(tc, setup, teardown);
	UNIT_TEST(a_counter_conforms_until_it_is_full_and_again_later);
	UNIT_TEST(giving_back_what_nobody_took_is_harmless);
	UNIT_TEST(a_mark_keeps_when_it_was_first_seen_until_it_expires);
	UNIT_TEST(a_number_is_there_until_it_expires);
	UNIT_TEST(a_counter_of_nothing_is_refused);
	UNIT_TEST(what_has_expired_is_swept_away);
	UNIT_TEST(a_full_store_refuses_new_keys_and_keeps_the_old);
	UNIT_TEST(it_outlives_its_process);
	UNIT_TEST(a_store_that_a_killed_process_left_is_whole);
	UNIT_ROWS(a_store_of_another_boot_that_was_not_closed_starts_empty, other_boots);
	UNIT_TEST(a_closed_store_is_trusted_by_the_next_boot);
	UNIT_TEST(a_damaged_file_starts_empty_and_says_so);
	UNIT_TEST(a_file_that_was_cut_starts_empty);
	tcase_add_loop_test(tc, pages_of_garbage_start_empty, 0, 8);
	UNIT_TEST(a_store_that_ends_who_looks_at_it_is_given_up);
	UNIT_TEST(only_who_died_at_work_is_counted_and_more_than_one);
	UNIT_TEST(a_store_that_cannot_be_opened_fails_requests_until_it_can);
	UNIT_TEST(workers_share_one_counter);
	UNIT_TEST(a_worker_follows_when_another_started_over);
	UNIT_TEST(many_requests_are_each_answered_once_and_in_order);
	UNIT_TEST(what_was_given_back_can_be_taken_again);
	UNIT_TEST(closing_answers_what_waits);
	UNIT_TEST(too_many_requests_are_refused_at_once);
	UNIT_TEST(a_directory_that_cannot_be_is_an_error_that_names_it);
}
