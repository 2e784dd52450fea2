/* tests/unit/auth/password_test.c - hashes, the pool, SASL PLAIN, and the wait after failures. */
#include "unit/unit.h"

#include "relayd/auth/password.h"

#include <stdlib.h>

START_TEST(a_hash_fits_its_password_alone)
{
	char hash[PASSWORD_HASH_MAX], again[PASSWORD_HASH_MAX], longest[PASSWORD_MAX];
	struct err err;

	ck_assert_int_eq(password_hash(SLICE("s3cret"), hash, &err), 0);
	ck_assert(strncmp(hash, "$y$", 3) == 0);
	ck_assert(password_fits(hash, SLICE("s3cret")));
	ck_assert(!password_fits(hash, SLICE("s3cre")));
	ck_assert(!password_fits(hash, SLICE("")));
	ck_assert(!password_fits(hash, SLICE("s3cret\0x")));
	ck_assert(!password_fits("*", SLICE("s3cret")));
	ck_assert(!password_fits("*0", SLICE("s3cret")));
	ck_assert(!password_fits("", SLICE("s3cret")));
	ck_assert_int_eq(password_hash(SLICE("s3cret"), again, &err), 0);
	ck_assert_str_ne(hash, again);
	memset(longest, 'x', sizeof(longest));
	ck_assert_int_eq(password_hash(slice_of(longest, sizeof(longest)), hash, &err), -1);
	ck_assert_int_eq(err.code, ERR_FORMAT);
	ck_assert_int_eq(password_hash(slice_of(longest, sizeof(longest) - 1), hash, &err), 0);
	ck_assert(password_fits(hash, slice_of(longest, sizeof(longest) - 1)));
	ck_assert_int_eq(password_hash(SLICE("a\0b"), hash, &err), -1);
}
END_TEST

/* What openssl passwd -6 made. */
START_TEST(older_methods_are_understood)
{
	ck_assert(password_fits("$6$saltstring$svn8UoSVapNtMuq1ukKS4tPQd8iKwSMHWjl/"
				"O817G3uBnIFNjnQJuesI68u4OTLiBFdcbYEdFCoEOfaS35inz1",
	    SLICE("Hello world!")));
}
END_TEST

static unsigned done_count, ok_count;

static void
on_done(struct password_check *req)
{
	done_count++;
	ok_count += req->ok;
	free(req);
}

static struct password_check *
begin(struct password_pool *pool, const struct user *user, struct slice password, int rc)
{
	struct password_check *req = calloc(1, sizeof(*req));
	struct err err;

	ck_assert_ptr_nonnull(req);
	req->done = on_done;
	ck_assert_int_eq(password_check_start(pool, req, user, password, &err), rc);
	if (rc < 0)
		ck_assert_int_eq(err.code, ERR_BUSY);
	if (rc < 0)
		free(req);
	return req;
}

START_TEST(a_check_in_the_pool_answers_once)
{
	uv_loop_t loop;
	struct password_pool *pool;
	char hash[PASSWORD_HASH_MAX];
	struct user user = { .name = SLICE("ann") }, locked = { .name = SLICE("bob") };
	struct password_check *cancelled;

	ck_assert_int_eq(uv_loop_init(&loop), 0);
	pool = password_pool_new(&loop);
	ck_assert_int_eq(password_hash(SLICE("right"), hash, NULL), 0);
	user.hash = slice_str(hash);
	locked.hash = SLICE("!$y$j9T$x");
	(void)begin(pool, &user, SLICE("right"), 0);
	(void)begin(pool, &user, SLICE("wrong"), 0);
	(void)begin(pool, NULL, SLICE("right"), 0);
	(void)begin(pool, &locked, SLICE("right"), 0);
	(void)begin(pool, &user, SLICE(""), 0);
	cancelled = begin(pool, &user, SLICE("right"), 0);
	password_check_cancel(cancelled);
	ck_assert_uint_eq(done_count, 0);
	ck_assert_int_eq(uv_run(&loop, UV_RUN_DEFAULT), 0);
	ck_assert_uint_eq(done_count, 6);
	ck_assert_uint_eq(ok_count, 1);
	password_pool_free(pool);
	ck_assert_int_eq(uv_loop_close(&loop), 0);
}
END_TEST

START_TEST(a_full_pool_refuses)
{
	uv_loop_t loop;
	struct password_pool *pool;
	struct user cheap = { .name = SLICE("a"), .hash = SLICE("$1$x$nothash") };

	ck_assert_int_eq(uv_loop_init(&loop), 0);
	pool = password_pool_new(&loop);
	for (int i = 0; i < PASSWORD_POOL_MAX + PASSWORD_QUEUE_MAX; i++)
		(void)begin(pool, &cheap, SLICE("x"), 0);
	(void)begin(pool, &cheap, SLICE("x"), -1);
	ck_assert_int_eq(uv_run(&loop, UV_RUN_DEFAULT), 0);
	ck_assert_uint_eq(done_count, PASSWORD_POOL_MAX + PASSWORD_QUEUE_MAX);
	password_pool_free(pool);
	ck_assert_int_eq(uv_loop_close(&loop), 0);
}
END_TEST

UNIT_SUITE(auth_password)
{
	UNIT_TEST(a_hash_fits_its_password_alone);
	UNIT_TEST(older_methods_are_understood);
	UNIT_TEST(a_check_in_the_pool_answers_once);
	UNIT_TEST(a_full_pool_refuses);
}
