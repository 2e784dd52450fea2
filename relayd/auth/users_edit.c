/* relayd/auth/users_edit.c - changes one line of the users file and leaves the others alone. */
#include "relayd/auth/users.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

struct edit {
	char path[PATH_MAX]; /* without symbolic links, so that a rename replaces the file itself */
	char tmp[PATH_MAX + 8];
	int fd; /* of the file as it is, locked */
	struct stat st;
	struct buf in, out;
};

/* ---- the file ----------------------------------------------------------------------------- */

static int
resolve(struct edit *e, const char *path, bool create, struct err *err)
{
	int fd;

	if (create) {
		fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
		if (fd < 0)
			return err_sys(err, errno, "create %s", path);
		(void)close(fd); /* nothing was written */
	}
	if (realpath(path, e->path) == NULL)
		return err_sys(err, errno, "%s", path);
	return 0;
}

/* Locks the file that has the name now: the one we opened may have been replaced while we
 * waited for its lock. */
static int
lock(struct edit *e, struct err *err)
{
	struct stat named;

	for (;;) {
		e->fd = open(e->path, O_RDWR | O_CLOEXEC);
		if (e->fd < 0)
			return err_sys(err, errno, "open %s", e->path);
		if (flock(e->fd, LOCK_EX) < 0 || fstat(e->fd, &e->st) < 0)
			return err_sys(err, errno, "lock %s", e->path);
		if (stat(e->path, &named) == 0 && named.st_ino == e->st.st_ino &&
		    named.st_dev == e->st.st_dev)
			return 0;
		(void)close(e->fd); /* only its lock was wanted */
		e->fd = -1;
	}
}

static int
read_all(struct edit *e, struct err *err)
{
	ssize_t n;
	char *room;

	if (e->st.st_size > (off_t)USERS_FILE_MAX)
		return err_set(err, ERR_LIMIT, "%s is over %u bytes", e->path, USERS_FILE_MAX);
	do {
		room = buf_room(&e->in, 65536);
		if (room == NULL)
			return err_set(err, ERR_LIMIT, "%s: too large", e->path);
		n = read(e->fd, room, 65536);
		if (n < 0)
			return err_sys(err, errno, "read %s", e->path);
		buf_commit(&e->in, (size_t)n);
	} while (n > 0);
	return 0;
}

static int
write_all(int fd, struct slice bytes)
{
	while (bytes.len > 0) {
		ssize_t n = write(fd, bytes.p, bytes.len);

		if (n < 0 && errno != EINTR)
			return -1;
		bytes = slice_drop(bytes, n > 0 ? (size_t)n : 0);
	}
	return 0;
}

static int
sync_folder(const char *path)
{
	char folder[PATH_MAX];
	char *slash;
	int fd, rc;

	(void)snprintf(folder, sizeof(folder), "%s", path); /* as long as path, which fitted */
	slash = strrchr(folder, '/');
	if (slash != NULL)
		slash[slash == folder ? 1 : 0] = '\0';
	fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return -1;
	rc = fsync(fd);
	(void)close(fd); /* read only */
	return rc;
}

/* Owner and mode first, then the secrets. */
static int
replace(struct edit *e, struct err *err)
{
	int fd, rc = -1;

	(void)snprintf(e->tmp, sizeof(e->tmp), "%s.XXXXXX", e->path); /* sized for it */
	fd = mkostemp(e->tmp, O_CLOEXEC);
	if (fd < 0)
		return err_sys(err, errno, "create a file beside %s", e->path);
	if (fchmod(fd, e->st.st_mode & 07777) < 0 ||
	    ((e->st.st_uid != geteuid() || e->st.st_gid != getegid()) &&
		fchown(fd, e->st.st_uid, e->st.st_gid) < 0))
		err_sys(err, errno, "owner and mode of %s", e->tmp);
	else if (write_all(fd, buf_slice(&e->out)) < 0 || fsync(fd) < 0)
		err_sys(err, errno, "write %s", e->tmp);
	else if (rename(e->tmp, e->path) < 0 || sync_folder(e->path) < 0)
		err_sys(err, errno, "replace %s", e->path);
	else
		rc = 0;
	(void)close(fd); /* synced above, or given up */
	if (rc < 0)
		(void)unlink(e->tmp); /* gone already when only the last sync failed */
	return rc;
}

/* ---- the lines ---------------------------------------------------------------------------- */

static void
put_user(struct buf *out, const struct user *user)
{
	buf_put(out, user->name);
	buf_putc(out, ':');
	buf_put(out, user->hash);
	buf_putc(out, ':');
	buf_put(out, user->scope);
	buf_puts(out, user->relay ? ":relay" : ":");
	if (user->verifiers.len > 0)
		buf_putc(out, ':');
	buf_put(out, user->verifiers);
	buf_putc(out, '\n');
}

static bool
is_line_of(struct slice line, struct slice name)
{
	return line.len > name.len && slice_starts(line, name) && line.p[name.len] == ':';
}

static void
change_line(
    struct edit *e, enum users_change change, const struct users *old, const struct user *user)
{
	struct user changed = *users_find(old, user->name);

	if (change == USERS_REMOVE)
		return;
	changed.hash = user->hash;
	changed.verifiers = user->verifiers;
	put_user(&e->out, &changed);
}

static int
rewrite(struct edit *e, enum users_change change, const struct users *old, const struct user *user,
    struct err *err)
{
	struct slice rest = buf_slice(&e->in);

	while (rest.len > 0) {
		struct slice line = slice_until(rest, '\n');

		rest = slice_drop(rest, line.len + 1);
		if (change != USERS_ADD && is_line_of(line, user->name)) {
			change_line(e, change, old, user);
			continue;
		}
		buf_put(&e->out, line);
		buf_putc(&e->out, '\n');
	}
	if (change == USERS_ADD)
		put_user(&e->out, user);
	if (e->out.overflow || e->out.len > USERS_FILE_MAX)
		return err_set(
		    err, ERR_LIMIT, "%s would be over %u bytes", e->path, USERS_FILE_MAX);
	return 0;
}

static int
check(const struct users *old, enum users_change change, const struct user *user, struct err *err)
{
	bool there = users_find(old, user->name) != NULL;

	if (!users_name_is_good(user->name))
		return err_set(err, ERR_FORMAT, "not a name that a user can have");
	if (change == USERS_ADD && !users_scope_is_good(user->scope))
		return err_set(err, ERR_FORMAT, "not a scope: \"*\", a domain or an address");
	if (change == USERS_ADD && there)
		return err_set(
		    err, ERR_EXISTS, "user %.*s is there already", SLICE_FMT(user->name));
	if (change != USERS_ADD && !there)
		return err_set(err, ERR_NOT_FOUND, "there is no user %.*s", SLICE_FMT(user->name));
	return 0;
}

/* It holds what passwords can be tried against, or a password. */
static void
forget(struct buf *b)
{
	if (b->p != NULL)
		explicit_bzero(b->p, b->cap);
	buf_fini(b);
}

int
users_edit(const char *path, enum users_change change, const struct user *user, struct err *err)
{
	struct edit e = { .fd = -1 };
	struct users *old = NULL;
	int rc = -1;

	e.in = buf_heap(USERS_FILE_MAX + 65536);
	e.out = buf_heap(USERS_FILE_MAX + 65536);
	if (resolve(&e, path, change == USERS_ADD, err) < 0 || lock(&e, err) < 0 ||
	    read_all(&e, err) < 0 || (old = users_parse(buf_slice(&e.in), e.path, err)) == NULL ||
	    check(old, change, user, err) < 0 || rewrite(&e, change, old, user, err) < 0 ||
	    replace(&e, err) < 0)
		goto out;
	rc = 0;
out:
	users_free(old);
	forget(&e.in);
	forget(&e.out);
	if (e.fd >= 0)
		(void)close(e.fd); /* and with it the lock */
	return rc;
}
