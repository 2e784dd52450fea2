/* relayd/auth/password.c - passwords against their crypt(3) hashes, checked in libuv's pool. */
#include "relayd/auth/password.h"

#include "relayd/core/slice.h"

#include <assert.h>
#include <crypt.h>
#include <errno.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <stdlib.h>

_Static_assert(PASSWORD_HASH_MAX == CRYPT_OUTPUT_SIZE, "room for any hash");
_Static_assert(PASSWORD_MAX == CRYPT_MAX_PASSPHRASE_SIZE, "as long as crypt(3) takes");

/* Of a password that nobody knows; the same method and cost as a new one. */
#define NOBODY "$y$j9T$rA2PDiLsD6.3Y3FQh5jHn/$8Vu3vRvQ15rJqG9EXqTSzII1RqDd7R3lspdgSZSkUR8"

struct password_pool {
	uv_loop_t *loop;
	unsigned running, waiting;
	struct password_check *first, **last; /* those that wait */
};

/* ---- crypt(3) ----------------------------------------------------------------------------- */

static bool
same(const char *a, const char *b)
{
	size_t n = strlen(a);

	return n == strlen(b) && CRYPTO_memcmp(a, b, n) == 0;
}

/* password is NUL-terminated. */
static bool
matches(const char *hash, const char *password)
{
	struct crypt_data *data = calloc(1, sizeof(*data)); /* 32 KiB: too much for a stack */
	const char *made = data != NULL ? crypt_rn(password, hash, data, sizeof(*data)) : NULL;
	bool ok = made != NULL && made[0] != '*' && same(made, hash);

	if (data != NULL)
		OPENSSL_cleanse(data, sizeof(*data));
	free(data);
	return ok;
}

static bool
is_password(struct slice password)
{
	return password.len > 0 && password.len < PASSWORD_MAX && !slice_has(password, '\0');
}

bool
password_fits(const char *hash, struct slice password)
{
	char text[PASSWORD_MAX];
	bool ok;

	if (!is_password(password))
		return false;
	memcpy(text, password.p, password.len);
	text[password.len] = '\0';
	ok = matches(hash, text);
	OPENSSL_cleanse(text, sizeof(text));
	return ok;
}

int
password_hash(struct slice password, char out[static PASSWORD_HASH_MAX], struct err *err)
{
	struct crypt_data *data;
	char text[PASSWORD_MAX], *setting = NULL, *made = NULL;

	if (!is_password(password))
		return err_set(
		    err, ERR_FORMAT, "a password has 1 to %d bytes and no NUL", PASSWORD_MAX - 1);
	memcpy(text, password.p, password.len);
	text[password.len] = '\0';
	data = calloc(1, sizeof(*data));
	setting = crypt_gensalt_ra("$y$", 0, NULL, 0);
	if (data != NULL && setting != NULL)
		made = crypt_rn(text, setting, data, sizeof(*data));
	if (made != NULL)
		(void)snprintf(out, PASSWORD_HASH_MAX, "%s", made); /* fits: asserted above */
	else
		err_sys(err, errno, "hash a password");
	OPENSSL_cleanse(text, sizeof(text));
	if (data != NULL)
		OPENSSL_cleanse(data, sizeof(*data));
	free(data);
	free(setting);
	return made != NULL ? 0 : -1;
}

/* ---- the pool ----------------------------------------------------------------------------- */

struct password_pool *
password_pool_new(uv_loop_t *loop)
{
	struct password_pool *pool = calloc(1, sizeof(*pool));

	if (pool == NULL)
		return NULL;
	pool->loop = loop;
	pool->last = &pool->first;
	return pool;
}

void
password_pool_free(struct password_pool *pool)
{
	assert(pool == NULL || (pool->running == 0 && pool->waiting == 0));
	free(pool);
}

static void
check_in_pool(uv_work_t *work)
{
	struct password_check *req = container_of(work, struct password_check, work);
	bool fits = matches(req->hash, req->password);

	req->ok = fits && req->known;
}

static void start_next(struct password_pool *pool);

static void
on_checked(uv_work_t *work, int status)
{
	struct password_check *req = container_of(work, struct password_check, work);
	struct password_pool *pool = req->pool;

	OPENSSL_cleanse(req->password, sizeof(req->password));
	OPENSSL_cleanse(req->hash, sizeof(req->hash));
	req->ok = req->ok && status == 0 && !req->cancelled;
	pool->running--;
	req->done(req); /* may free req */
	start_next(pool);
}

static void
start_next(struct password_pool *pool)
{
	while (pool->running < PASSWORD_POOL_MAX && pool->first != NULL) {
		struct password_check *req = pool->first;

		pool->first = req->next;
		if (pool->first == NULL)
			pool->last = &pool->first;
		pool->waiting--;
		pool->running++;
		/* Fails only without a callback. */
		(void)uv_queue_work(pool->loop, &req->work, check_in_pool, on_checked);
		if (req->cancelled)
			(void)uv_cancel((uv_req_t *)&req->work); /* else it is checked in vain */
	}
}

int
password_check_start(struct password_pool *pool, struct password_check *req,
    const struct user *user, struct slice password, struct err *err)
{
	struct slice hash = user != NULL ? user->hash : SLICE("*");
	/* A locked user and an impossible password cost as much as any other. */
	bool known = hash.len < sizeof(req->hash) && hash.p[0] != '*' && hash.p[0] != '!' &&
		     is_password(password);

	if (pool->waiting >= PASSWORD_QUEUE_MAX)
		return err_set(err, ERR_BUSY, "too many logins at once");
	hash = known ? hash : SLICE(NOBODY);
	password = is_password(password) ? password : SLICE("x");
	memcpy(req->hash, hash.p, hash.len);
	req->hash[hash.len] = '\0';
	memcpy(req->password, password.p, password.len);
	req->password[password.len] = '\0';
	req->pool = pool;
	req->known = known;
	req->ok = req->cancelled = false;
	req->next = NULL;
	*pool->last = req;
	pool->last = &req->next;
	pool->waiting++;
	start_next(pool);
	return 0;
}

void
password_check_cancel(struct password_check *req)
{
	req->cancelled = true;
}
