/* relayd/state/state_store.c - the LMDB file behind the state. */
#include "relayd/state/state_store.h"

#include "relayd/state/gcra.h"
#include "relayd/state/witness.h"

#include <errno.h>
#include <fcntl.h>
#include <lmdb.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define STORE_MAGIC  "rlydst"
#define KEY_BYTES    16
#define ENTRY_COST   200  /* bytes of the map for one entry, at the worst fill of a page */
#define SWEEP_FEW    4    /* entries looked at for each request */
#define SWEEP_MANY   2000 /* and for each batch while the store is full */
#define BOOT_ID      "/proc/sys/kernel/random/boot_id"
#define BOOT_SLACK_S 60 /* a clock is set by less, a machine is up for longer */
#define PATH_BYTES   4096

struct store {
	char path[PATH_BYTES], lock_path[PATH_BYTES], mark_path[PATH_BYTES];
	uint64_t map_bytes, max_entries;
	int lock_fd; /* shared lock: somebody uses the store */
	struct witness witness;
	MDB_env *env;
	MDB_dbi dbi;
	ino_t inode; /* of the file that env has open */
	uint8_t salt[16];
	uint8_t swept[KEY_BYTES]; /* where the sweep stands */
};

struct meta {
	char magic[8];
	uint32_t version, unused;
	uint8_t salt[16];
};

/* The value of a key. */
struct entry {
	int64_t expires_ms; /* wall clock */
	int64_t number;     /* counter: TAT in us; mark: first seen, in ms */
};

/* ---- the mark -------------------------------------------------------------------------------- */

/* When the machine started, in seconds, by its clocks: needs no file, but moves when the clock is
 * set. */
static int64_t
boot_time(void)
{
	struct timespec wall, up;

	(void)clock_gettime(CLOCK_REALTIME, &wall); /* neither can fail */
	(void)clock_gettime(CLOCK_BOOTTIME, &up);
	return wall.tv_sec - up.tv_sec;
}

/* "boot 1b4e28ba-..." of now; "since 1789..." where a sandbox hides the id. */
static void
boot_mark(char out[static 64])
{
	char id[48];
	FILE *f = fopen(BOOT_ID, "re");

	if (f != NULL && fscanf(f, "%47s", id) == 1)
		(void)snprintf(out, 64, "boot %s", id); /* fits */
	else
		(void)snprintf(out, 64, "since %lld", (long long)boot_time()); /* fits */
	if (f != NULL)
		(void)fclose(f); /* read only */
}

static bool
same_boot(const char *found, const char *now)
{
	long long then;

	if (sscanf(found, "since %lld", &then) == 1 && strncmp(now, "since ", 6) == 0)
		return llabs(then - boot_time()) < BOOT_SLACK_S;
	return strcmp(found, now) == 0;
}

static void
read_mark(const struct store *st, char out[static 64])
{
	FILE *f = fopen(st->mark_path, "re");

	out[0] = '\0';
	if (f == NULL)
		return;
	if (fgets(out, 64, f) == NULL)
		out[0] = '\0';
	(void)fclose(f); /* read only */
}

static int
write_mark(const struct store *st, const char *mark, struct err *err)
{
	int fd = open(st->mark_path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	size_t len = strlen(mark);
	int rc = 0;

	if (fd < 0)
		return err_sys(err, errno, "create %s", st->mark_path);
	if (write(fd, mark, len) != (ssize_t)len || fsync(fd) < 0)
		rc = err_sys(err, errno, "write %s", st->mark_path);
	(void)close(fd); /* synced or reported */
	return rc;
}

/* ---- the file -------------------------------------------------------------------------------- */

static int
lock_store(const struct store *st, short type, bool wait)
{
	struct flock lock = { .l_type = type, .l_whence = SEEK_SET, .l_len = 1 };

	return fcntl(st->lock_fd, wait ? F_OFD_SETLKW : F_OFD_SETLK, &lock);
}

static void
remove_files(const struct store *st)
{
	char lock[PATH_BYTES + 8];

	(void)snprintf(lock, sizeof(lock), "%s-lock", st->path); /* fits */
	(void)unlink(st->path);                                  /* may not exist */
	(void)unlink(lock);                                      /* may not exist */
}

static int
put_meta(struct store *st, MDB_txn *txn)
{
	struct meta meta = { .magic = STORE_MAGIC, .version = STORE_VERSION };
	MDB_val key = { 4, "meta" }, value = { sizeof(meta), &meta };

	if (getrandom(meta.salt, sizeof(meta.salt), 0) != (ssize_t)sizeof(meta.salt))
		return EIO;
	memcpy(st->salt, meta.salt, sizeof(st->salt));
	return mdb_put(txn, st->dbi, &key, &value, 0);
}

static int
check_meta(struct store *st, MDB_txn *txn)
{
	MDB_val key = { 4, "meta" }, value;
	struct meta meta;
	int rc = mdb_get(txn, st->dbi, &key, &value);

	if (rc == MDB_NOTFOUND)
		return put_meta(st, txn);
	if (rc != 0)
		return rc;
	if (value.mv_size != sizeof(meta))
		return MDB_INVALID;
	memcpy(&meta, value.mv_data, sizeof(meta));
	if (memcmp(meta.magic, STORE_MAGIC, sizeof(STORE_MAGIC)) != 0)
		return MDB_INVALID;
	memcpy(st->salt, meta.salt, sizeof(st->salt));
	return meta.version == STORE_VERSION ? 0 : MDB_VERSION_MISMATCH;
}

static void
close_env(struct store *st)
{
	if (st->env != NULL)
		mdb_env_close(st->env);
	st->env = NULL;
}

static int
open_dbi(struct store *st)
{
	MDB_txn *txn;
	int rc = mdb_txn_begin(st->env, NULL, 0, &txn);

	if (rc != 0)
		return rc;
	witness_enter(&st->witness);
	rc = mdb_dbi_open(txn, NULL, 0, &st->dbi);
	if (rc == 0)
		rc = check_meta(st, txn);
	if (rc == 0)
		rc = mdb_txn_commit(txn);
	else
		mdb_txn_abort(txn);
	witness_leave(&st->witness);
	return rc;
}

/* All pages that it speaks of are there: a page behind the end of the file would be a SIGBUS. */
static int
check_size(struct store *st)
{
	MDB_envinfo info;
	MDB_stat stat_env;
	struct stat sb;

	if (stat(st->path, &sb) < 0)
		return errno;
	(void)mdb_env_info(st->env, &info); /* neither fails on an open environment */
	(void)mdb_env_stat(st->env, &stat_env);
	st->inode = sb.st_ino;
	return (uint64_t)sb.st_size >= (info.me_last_pgno + 1) * stat_env.ms_psize ? 0
										   : MDB_CORRUPTED;
}

static int
open_env(struct store *st)
{
	int rc = mdb_env_create(&st->env);

	if (rc != 0)
		return rc;
	rc = mdb_env_set_mapsize(st->env, st->map_bytes);
	if (rc == 0)
		rc = mdb_env_open(st->env, st->path,
		    MDB_NOSUBDIR | MDB_NOSYNC | MDB_NOMETASYNC | MDB_NOTLS | MDB_NORDAHEAD, 0600);
	if (rc == 0)
		rc = check_size(st);
	if (rc == 0)
		rc = open_dbi(st);
	if (rc != 0)
		close_env(st);
	memset(st->swept, 0, sizeof(st->swept));
	return rc;
}

/* What LMDB says of a file that starting empty would cure.  Positive numbers are errno, and
 * stay. */
static bool
is_damage(int rc)
{
	return rc == MDB_CORRUPTED || rc == MDB_INVALID || rc == MDB_VERSION_MISMATCH ||
	       rc == MDB_PAGE_NOTFOUND || rc == MDB_PANIC || rc == MDB_BAD_TXN ||
	       rc == MDB_BAD_DBI || rc == MDB_BAD_VALSIZE || rc == MDB_INCOMPATIBLE ||
	       rc == MDB_MAP_FULL;
}

/* Another worker has replaced the file already. */
static bool
is_replaced(const struct store *st)
{
	struct stat sb;

	return stat(st->path, &sb) < 0 || sb.st_ino != st->inode;
}

/* Closes a store that is no good, and opens a new and empty one, or that which another worker
 * made. */
static int
start_over(struct store *st, int why, char said[static STORE_SAID_BYTES])
{
	bool replaced = st->env != NULL && is_replaced(st);

	close_env(st);
	if (!replaced) {
		remove_files(st);
		(void)snprintf(said, STORE_SAID_BYTES, "state starts empty: %.150s: %.60s",
		    st->path, mdb_strerror(why)); /* cut short is good enough */
	}
	return open_env(st);
}

static int
open_trusted(struct store *st, char said[static STORE_SAID_BYTES])
{
	int rc = open_env(st);

	return rc != 0 && is_damage(rc) ? start_over(st, rc, said) : rc;
}

/* The first to open it decides whether what lies there can be trusted. */
static int
check_mark(struct store *st, char said[static STORE_SAID_BYTES], struct err *err)
{
	char found[64], now[64];

	read_mark(st, found);
	boot_mark(now);
	if (same_boot(found, now))
		return 0;
	if (strcmp(found, "clean") != 0) {
		if (access(st->path, F_OK) == 0)
			(void)snprintf(said, STORE_SAID_BYTES,
			    "state starts empty: the machine stopped under %.150s", st->path);
		remove_files(st);
	}
	if (write_mark(st, now, err) == 0)
		return 0;
	/* No mark is as good as that of another boot; an old "clean" would be a lie. */
	return unlink(st->mark_path) == 0 || errno == ENOENT ? 0 : -1;
}

static int
set_paths(struct store *st, const char *dir, struct err *err)
{
	if (strlen(dir) + sizeof("/state.mdb-lock") > PATH_BYTES)
		return err_set(err, ERR_LIMIT, "the path of the state directory is too long");
	(void)snprintf(st->path, sizeof(st->path), "%s/state.mdb", dir); /* measured just above */
	(void)snprintf(st->lock_path, sizeof(st->lock_path), "%s/state.lock", dir);
	(void)snprintf(st->mark_path, sizeof(st->mark_path), "%s/state.mark", dir);
	if (mkdir(dir, 0700) < 0 && errno != EEXIST)
		return err_sys(err, errno, "create %s", dir);
	st->lock_fd = open(st->lock_path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	return st->lock_fd < 0 ? err_sys(err, errno, "open %s", st->lock_path) : 0;
}

struct store *
state_store_open(
    const char *dir, uint64_t map_bytes, char said[static STORE_SAID_BYTES], struct err *err)
{
	struct store *st = calloc(1, sizeof(*st));
	int rc;

	said[0] = '\0';
	if (st == NULL) {
		err_set(err, ERR_NOMEM, "out of memory for the state");
		return NULL;
	}
	st->lock_fd = -1;
	st->map_bytes = map_bytes != 0 ? map_bytes : STATE_MAP_BYTES;
	st->max_entries = st->map_bytes / ENTRY_COST;
	if (set_paths(st, dir, err) < 0)
		goto fail;
	if (lock_store(st, F_WRLCK, false) == 0 && check_mark(st, said, err) < 0)
		goto fail;
	/* From alone to one of many, or waiting for the first one to be done. */
	if (lock_store(st, F_RDLCK, true) < 0) {
		err_sys(err, errno, "lock %s", st->lock_path);
		goto fail;
	}
	witness_open(&st->witness, st->lock_fd);
	if (witness_doubts(&st->witness)) {
		remove_files(st);
		(void)snprintf(said, STORE_SAID_BYTES,
		    "state starts empty: processes died at work on %.150s", st->path);
	}
	rc = open_trusted(st, said);
	/* A full disk, say: requests fail until it can be opened. */
	if (rc != 0)
		(void)snprintf(said, STORE_SAID_BYTES, "state cannot be opened: %.150s: %.60s",
		    st->path, mdb_strerror(rc));
	return st;
fail:
	state_store_close(st);
	return NULL;
}

void
state_store_close(struct store *st)
{
	if (st == NULL)
		return;
	/* The last one leaves it fit for another boot. */
	if (st->env != NULL && lock_store(st, F_WRLCK, false) == 0 &&
	    mdb_env_sync(st->env, 1) == 0) {
		(void)write_mark(st, "clean", NULL); /* else it starts empty after the next boot */
		witness_forget(&st->witness);
	}
	close_env(st);
	witness_close(&st->witness);
	if (st->lock_fd >= 0)
		(void)close(st->lock_fd); /* only the lock hangs on it */
	free(st);
}

/* ---- entries --------------------------------------------------------------------------------- */

/* Nobody without the salt can make two keys meet, and no key tells whom it counts. */
static bool
hash_key(const struct store *st, const struct state_request *req, uint8_t out[static KEY_BYTES])
{
	EVP_MD_CTX *md = EVP_MD_CTX_new();
	uint8_t digest[EVP_MAX_MD_SIZE];
	uint8_t kind = req->op == STATE_MARK || req->op == STATE_LOOK ? 1
		       : req->op == STATE_GET || req->op == STATE_PUT ? 2
								      : 0;
	bool ok = md != NULL && EVP_DigestInit_ex(md, EVP_sha256(), NULL) == 1 &&
		  EVP_DigestUpdate(md, st->salt, sizeof(st->salt)) == 1 &&
		  EVP_DigestUpdate(md, &kind, 1) == 1 &&
		  EVP_DigestUpdate(md, req->key.p, req->key.len) == 1 &&
		  EVP_DigestFinal_ex(md, digest, NULL) == 1;

	EVP_MD_CTX_free(md);
	if (ok)
		memcpy(out, digest, KEY_BYTES);
	return ok;
}

/* A transaction, and what it is about. */
struct work {
	struct store *st;
	MDB_txn *txn;
	int64_t now_us;
};

/* MDB_NOTFOUND also for one that has expired: it is as good as gone. */
static int
get(const struct work *w, MDB_val *key, struct entry *e)
{
	MDB_val value;
	int rc = mdb_get(w->txn, w->st->dbi, key, &value);

	if (rc != 0)
		return rc;
	if (value.mv_size != sizeof(*e))
		return MDB_INVALID;
	memcpy(e, value.mv_data, sizeof(*e));
	return e->expires_ms > w->now_us / 1000 ? 0 : MDB_NOTFOUND;
}

static int
put(const struct work *w, MDB_val *key, struct entry *e)
{
	MDB_val value = { sizeof(*e), e };

	return mdb_put(w->txn, w->st->dbi, key, &value, 0);
}

static bool
has_room(const struct work *w)
{
	MDB_stat stat;

	return mdb_stat(w->txn, w->st->dbi, &stat) == 0 && stat.ms_entries < w->st->max_entries;
}

static int
no_room(const struct store *st, struct state_request *req)
{
	(void)err_set(&req->err, ERR_FULL, "%s is full", st->path);
	return 0;
}

static int
run_take(const struct work *w, struct state_request *req, MDB_val *key)
{
	struct gcra g = { .count = req->count, .period_s = req->period_s };
	struct entry e = { 0 };
	int64_t before;
	int rc = get(w, key, &e);

	if (rc != 0 && rc != MDB_NOTFOUND)
		return rc;
	if (rc == MDB_NOTFOUND) {
		if (!has_room(w))
			return no_room(w->st, req);
		e = (struct entry){ 0 };
	}
	before = e.number;
	req->conforms = gcra_take(&g, &e.number, w->now_us, &req->retry_ms);
	req->number = e.number;
	if (e.number == before)
		return 0;
	e.expires_ms = e.number / 1000 + 1000;
	return put(w, key, &e);
}

static int
run_give_back(const struct work *w, struct state_request *req, MDB_val *key)
{
	struct gcra g = { .count = req->count, .period_s = req->period_s };
	struct entry e;
	int rc = get(w, key, &e);

	if (rc != 0)
		return rc == MDB_NOTFOUND ? 0 : rc;
	gcra_give_back(&g, &e.number, req->number, w->now_us);
	return put(w, key, &e);
}

static int
run_mark(const struct work *w, struct state_request *req, MDB_val *key)
{
	struct entry e;
	int rc = get(w, key, &e);

	if (rc != 0 && rc != MDB_NOTFOUND)
		return rc;
	req->created = rc == MDB_NOTFOUND;
	if (req->created) {
		if (!has_room(w))
			return no_room(w->st, req);
		e.number = w->now_us / 1000;
	}
	req->first_ms = e.number;
	e.expires_ms = w->now_us / 1000 + (int64_t)req->period_s * 1000;
	return put(w, key, &e);
}

static int
run_look(const struct work *w, struct state_request *req, MDB_val *key)
{
	struct entry e = { 0 };
	int rc = get(w, key, &e);

	req->first_ms = rc == 0 ? e.number : 0;
	return rc == MDB_NOTFOUND ? 0 : rc;
}

static int
run_get(const struct work *w, struct state_request *req, MDB_val *key)
{
	struct entry e;
	int rc = get(w, key, &e);

	if (rc != 0)
		return rc == MDB_NOTFOUND ? 0 : rc;
	req->found = true;
	req->number = e.number;
	req->left_ms = e.expires_ms - w->now_us / 1000;
	return 0;
}

static int
run_put(const struct work *w, struct state_request *req, MDB_val *key)
{
	struct entry e = { .number = req->number,
		.expires_ms = w->now_us / 1000 + (int64_t)req->period_s * 1000 };

	return has_room(w) ? put(w, key, &e) : no_room(w->st, req);
}

static int
run_one(const struct work *w, struct state_request *req)
{
	uint8_t bytes[KEY_BYTES];
	MDB_val key = { sizeof(bytes), bytes };

	req->err = (struct err){ .code = ERR_NONE };
	req->conforms = req->created = req->found = false;
	req->retry_ms = 0;
	if (req->count == 0 && (req->op == STATE_TAKE || req->op == STATE_GIVE_BACK)) {
		(void)err_set(&req->err, ERR_FORMAT, "a counter of 0");
		return 0;
	}
	if (!hash_key(w->st, req, bytes)) {
		(void)err_set(&req->err, ERR_NOMEM, "out of memory for a digest");
		return 0;
	}
	switch (req->op) {
	case STATE_TAKE:
		return run_take(w, req, &key);
	case STATE_GIVE_BACK:
		return run_give_back(w, req, &key);
	case STATE_MARK:
		return run_mark(w, req, &key);
	case STATE_LOOK:
		return run_look(w, req, &key);
	case STATE_GET:
		return run_get(w, req, &key);
	case STATE_PUT:
		return run_put(w, req, &key);
	}
	return 0;
}

/* ---- sweeping -------------------------------------------------------------------------------- */

/* Looks at the next entries in the order of their keys and removes what has expired: every request
 * pays for a few, so that the store does not grow with what is gone. */
static int
sweep(const struct work *w, size_t n)
{
	MDB_cursor *cursor;
	MDB_val key = { KEY_BYTES, w->st->swept }, value;
	int rc = mdb_cursor_open(w->txn, w->st->dbi, &cursor);

	if (rc != 0)
		return rc;
	rc = mdb_cursor_get(cursor, &key, &value, MDB_SET_RANGE);
	for (; rc == 0 && n > 0; n--) {
		int64_t expires_ms;

		if (key.mv_size == KEY_BYTES)
			memcpy(w->st->swept, key.mv_data, KEY_BYTES);
		if (key.mv_size == KEY_BYTES && value.mv_size == sizeof(struct entry)) {
			memcpy(&expires_ms, value.mv_data, sizeof(expires_ms));
			if (expires_ms <= w->now_us / 1000 && (rc = mdb_cursor_del(cursor, 0)) != 0)
				break;
		}
		rc = mdb_cursor_get(cursor, &key, &value, MDB_NEXT);
	}
	mdb_cursor_close(cursor);
	if (rc == MDB_NOTFOUND)
		memset(w->st->swept, 0, KEY_BYTES); /* and from the front again */
	return rc == MDB_NOTFOUND ? 0 : rc;
}

/* ---- a batch --------------------------------------------------------------------------------- */

static int
run_batch(struct store *st, struct state_request *list, int64_t now_us)
{
	struct work w = { .st = st, .now_us = now_us };
	size_t n = 0;
	int rc = mdb_txn_begin(st->env, NULL, 0, &w.txn);

	if (rc != 0)
		return rc;
	witness_enter(&st->witness);
	for (struct state_request *req = list; req != NULL && rc == 0; req = req->next) {
		rc = run_one(&w, req);
		n++;
	}
	if (rc == 0)
		rc = sweep(&w, has_room(&w) ? n * SWEEP_FEW : SWEEP_MANY);
	if (rc == 0)
		rc = mdb_txn_commit(w.txn);
	else
		mdb_txn_abort(w.txn);
	witness_leave(&st->witness);
	return rc;
}

static void
fail_all(struct store *st, struct state_request *list, int rc)
{
	for (struct state_request *req = list; req != NULL; req = req->next)
		(void)err_set(&req->err, ERR_SYS, "%s: %s", st->path, mdb_strerror(rc));
}

void
state_store_run(struct store *st, struct state_request *list, int64_t now_us,
    char said[static STORE_SAID_BYTES])
{
	int rc = 0;

	/* Asked for by path each time, so that a store another worker made anew is followed. */
	if (st->env == NULL || is_replaced(st)) {
		close_env(st);
		rc = open_trusted(st, said);
	}
	if (rc == 0)
		rc = run_batch(st, list, now_us);
	if (rc != 0 && is_damage(rc)) {
		rc = start_over(st, rc, said);
		if (rc == 0)
			rc = run_batch(st, list, now_us);
	}
	if (rc != 0)
		fail_all(st, list, rc);
}

uint64_t
state_store_entries(struct store *st)
{
	MDB_stat stat;

	return st->env != NULL && mdb_env_stat(st->env, &stat) == 0 ? stat.ms_entries - 1 : 0;
}
