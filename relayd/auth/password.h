/* relayd/auth/password.h - passwords against their crypt(3) hashes, checked in libuv's pool.
 *
 * A check costs milliseconds and megabytes on purpose, so a loop runs at most PASSWORD_POOL_MAX at
 * once and lets PASSWORD_QUEUE_MAX wait.  An unknown user costs as much as a known one.
 */
#ifndef RELAYD_AUTH_PASSWORD_H
#define RELAYD_AUTH_PASSWORD_H

#include "relayd/auth/users.h"

#include <uv.h>

#define PASSWORD_MAX       512 /* bytes with a NUL, the limit of crypt(3) */
#define PASSWORD_HASH_MAX  384
#define PASSWORD_POOL_MAX  2
#define PASSWORD_QUEUE_MAX 256

struct password_pool; /* of one loop */

struct password_pool *password_pool_new(uv_loop_t *loop);
/* Nothing may wait in it any more; NULL is fine. */
void password_pool_free(struct password_pool *pool);

/* Owned by the caller until done has run. */
struct password_check {
	void (*done)(struct password_check *req);
	bool ok; /* the password fits */

	/* private */
	struct password_pool *pool;
	struct password_check *next;
	uv_work_t work;
	bool known, cancelled;
	char hash[PASSWORD_HASH_MAX];
	char password[PASSWORD_MAX];
};

/* Checks password against the hash of user, which may be NULL (nobody: never ok).  Both are copied.
 * done runs once, from the loop, never inside this call; -1 with ERR_BUSY when too many wait. */
int password_check_start(struct password_pool *pool, struct password_check *req,
    const struct user *user, struct slice password, struct err *err);
/* done still runs once, with ok false. */
void password_check_cancel(struct password_check *req);

/* The hash of a new password (yescrypt), NUL-terminated.  ERR_FORMAT for one with a NUL, empty or
 * too long. */
int password_hash(struct slice password, char out[static PASSWORD_HASH_MAX], struct err *err);
/* Blocks; for tools and tests. */
bool password_fits(const char *hash, struct slice password);

#endif
