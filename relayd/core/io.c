/* relayd/core/io.c - the one narrow door to the disk. */
#include "relayd/core/io.h"

#include "relayd/core/io_disk.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct io_dir {
	const struct io_ops *ops;
	int fd;
	char path[];
};

struct io_file {
	const struct io_ops *ops;
	struct io_dir *dir;
	int fd;
	char name[IO_NAME_MAX];
};

static const struct io_ops *current = &io_disk;

void
io_use(const struct io_ops *ops)
{
	current = ops != NULL ? ops : &io_disk;
}

/* err_sys() with the codes that callers of io branch on. */
static int
fail(struct err *err, int sys, const char *what, const struct io_dir *dir, const char *name)
{
	if (name != NULL)
		err_sys(err, sys, "%s %s/%s", what, dir->path, name);
	else
		err_sys(err, sys, "%s %s", what, dir->path);
	if (err != NULL && sys == ENOENT)
		err->code = ERR_NOT_FOUND;
	else if (err != NULL && sys == EEXIST)
		err->code = ERR_EXISTS;
	return -1;
}

static int
fail_file(struct err *err, int sys, const char *what, const struct io_file *file)
{
	return fail(err, sys, what, file->dir, file->name);
}

static struct io_dir *
dir_of(const struct io_ops *ops, int at, const char *name, const char *path, struct err *err)
{
	struct io_dir *dir = malloc(sizeof(*dir) + strlen(path) + 1);

	if (dir == NULL) {
		err_set(err, ERR_NOMEM, "no memory to open %s", path);
		return NULL;
	}
	dir->ops = ops;
	strcpy(dir->path, path); /* sized for it */
	dir->fd = ops->open_dir(at, name);
	if (dir->fd >= 0)
		return dir;
	(void)fail(err, errno, "open", dir, NULL); /* told by NULL */
	free(dir);
	return NULL;
}

struct io_dir *
io_dir_open(const char *path, struct err *err)
{
	return dir_of(current, -1, path, path, err);
}

/* Makes the name of a directory that was just made last. */
static int
sync_parent(const char *path, struct err *err)
{
	char parent[PATH_MAX];
	size_t len = strlen(path);
	struct io_dir *dir;
	int rc;

	while (len > 1 && path[len - 1] == '/')
		len--;
	while (len > 0 && path[len - 1] != '/')
		len--;
	while (len > 1 && path[len - 1] == '/')
		len--;
	(void)snprintf(
	    parent, sizeof(parent), "%.*s", len > 0 ? (int)len : 1, len > 0 ? path : ".");
	dir = io_dir_open(parent, err);
	rc = dir != NULL ? io_sync_dir(dir, err) : -1;
	io_dir_close(dir);
	return rc;
}

struct io_dir *
io_dir_make(const char *path, struct err *err)
{
	if (current->make_dir(-1, path) == 0) {
		if (sync_parent(path, err) < 0)
			return NULL;
	} else if (errno != EEXIST) {
		err_sys(err, errno, "make the directory %s", path);
		return NULL;
	} else {
		(void)sync_parent(path, NULL); /* an earlier start may have died before it did */
	}
	return io_dir_open(path, err);
}

struct io_dir *
io_dir_open_at(struct io_dir *parent, const char *name, struct err *err)
{
	char path[PATH_MAX];

	(void)snprintf(path, sizeof(path), "%s/%s", parent->path, name); /* for messages */
	return dir_of(parent->ops, parent->fd, name, path, err);
}

struct io_dir *
io_dir_make_at(struct io_dir *parent, const char *name, struct err *err)
{
	if (parent->ops->make_dir(parent->fd, name) == 0 || errno == EEXIST)
		return io_dir_open_at(parent, name, err);
	(void)fail(err, errno, "make the directory", parent, name); /* told by NULL */
	return NULL;
}

void
io_dir_close(struct io_dir *dir)
{
	if (dir == NULL)
		return;
	dir->ops->close(dir->fd);
	free(dir);
}

const char *
io_dir_path(const struct io_dir *dir)
{
	return dir->path;
}

static struct io_file *
file_open(struct io_dir *dir, const char *name, int flags, struct err *err)
{
	struct io_file *file = malloc(sizeof(*file));

	if (file == NULL || strlen(name) >= IO_NAME_MAX) {
		free(file);
		err_set(err, ERR_NOMEM, "no memory to open %s/%s", dir->path, name);
		return NULL;
	}
	*file = (struct io_file){ .ops = dir->ops, .dir = dir };
	strcpy(file->name, name); /* its length was checked */
	file->fd = dir->ops->open(dir->fd, name, flags);
	if (file->fd >= 0)
		return file;
	(void)fail_file(err, errno, flags & O_CREAT ? "create" : "open", file); /* told by NULL */
	free(file);
	return NULL;
}

struct io_file *
io_create(struct io_dir *dir, const char *name, struct err *err)
{
	return file_open(dir, name, O_RDWR | O_CREAT | O_EXCL, err);
}

struct io_file *
io_open(struct io_dir *dir, const char *name, bool writable, struct err *err)
{
	return file_open(dir, name, writable ? O_RDWR : O_RDONLY, err);
}

void
io_close(struct io_file *file)
{
	if (file == NULL)
		return;
	file->ops->close(file->fd);
	free(file);
}

const char *
io_name(const struct io_file *file)
{
	return file->name;
}

#define IOV_BATCH 512

/* Copies what is left of iov, its first `done` bytes being written, into out; returns how many. */
static int
iov_rest(const struct iovec *iov, int n, size_t done, struct iovec out[static IOV_BATCH])
{
	int used = 0;

	for (int i = 0; i < n && used < IOV_BATCH; i++) {
		if (done >= iov[i].iov_len) {
			done -= iov[i].iov_len;
			continue;
		}
		out[used].iov_base = (char *)iov[i].iov_base + done;
		out[used++].iov_len = iov[i].iov_len - done;
		done = 0;
	}
	return used;
}

int
io_write(struct io_file *file, const struct iovec *iov, int n, uint64_t offset, struct err *err)
{
	struct iovec rest[IOV_BATCH];
	size_t total = 0, done = 0;

	for (int i = 0; i < n; i++)
		total += iov[i].iov_len;
	while (done < total) {
		bool whole = done == 0 && n <= IOV_BATCH;
		int left = whole ? n : iov_rest(iov, n, done, rest);
		ssize_t got = file->ops->pwritev(file->fd, whole ? iov : rest, left, offset + done);

		if (got < 0)
			return fail_file(err, errno, "write", file);
		if (got == 0) /* never from a disk that works */
			return fail_file(err, EIO, "write", file);
		done += (size_t)got;
	}
	return 0;
}

ssize_t
io_read(struct io_file *file, void *out, size_t n, uint64_t offset, struct err *err)
{
	size_t done = 0;

	while (done < n) {
		ssize_t got =
		    file->ops->pread(file->fd, (char *)out + done, n - done, offset + done);

		if (got < 0)
			return fail_file(err, errno, "read", file);
		if (got == 0)
			break;
		done += (size_t)got;
	}
	return (ssize_t)done;
}

int
io_sync(struct io_file *file, struct err *err)
{
	return file->ops->sync(file->fd) == 0 ? 0 : fail_file(err, errno, "sync", file);
}

int
io_size(struct io_file *file, uint64_t *bytes, struct err *err)
{
	return file->ops->size(file->fd, bytes) == 0 ? 0 : fail_file(err, errno, "size of", file);
}

int
io_rename(struct io_file *file, const char *name, struct err *err)
{
	if (strlen(name) >= IO_NAME_MAX)
		return fail_file(err, ENAMETOOLONG, "rename", file);
	if (file->ops->rename(file->dir->fd, file->name, file->dir->fd, name) < 0)
		return fail_file(err, errno, "rename", file);
	strcpy(file->name, name); /* its length was checked */
	return 0;
}

int
io_move(
    struct io_dir *from, const char *name, struct io_dir *to, const char *new_name, struct err *err)
{
	if (from->ops->rename(from->fd, name, to->fd, new_name) == 0)
		return 0;
	return fail(err, errno, "move", from, name);
}

int
io_link(
    struct io_dir *from, const char *name, struct io_dir *to, const char *new_name, struct err *err)
{
	if (from->ops->link(from->fd, name, to->fd, new_name) == 0)
		return 0;
	return fail(err, errno, "link", from, name);
}

int
io_dir_rename(struct io_dir *parent, struct io_dir *dir, const char *name, struct err *err)
{
	char *old = strrchr(dir->path, '/');

	if (old == NULL || strlen(name) > strlen(old + 1))
		return fail(err, EINVAL, "rename", dir, NULL);
	if (parent->ops->rename(parent->fd, old + 1, parent->fd, name) < 0)
		return fail(err, errno, "rename", dir, NULL);
	strcpy(old + 1, name); /* not longer than what stood there */
	return 0;
}

int
io_unlink(struct io_dir *dir, const char *name, struct err *err)
{
	return dir->ops->unlink(dir->fd, name, false) == 0 ? 0
							   : fail(err, errno, "remove", dir, name);
}

int
io_remove_dir(struct io_dir *parent, const char *name, struct err *err)
{
	return parent->ops->unlink(parent->fd, name, true) == 0
		   ? 0
		   : fail(err, errno, "remove the directory", parent, name);
}

int
io_sync_dir(struct io_dir *dir, struct err *err)
{
	return dir->ops->sync_dir(dir->fd) == 0 ? 0
						: fail(err, errno, "sync the directory", dir, NULL);
}

int
io_list(struct io_dir *dir, void (*each)(void *data, const char *name), void *data, struct err *err)
{
	return dir->ops->list(dir->fd, each, data) == 0 ? 0 : fail(err, errno, "list", dir, NULL);
}

int
io_free_bytes(struct io_dir *dir, uint64_t *bytes, struct err *err)
{
	return dir->ops->free_bytes(dir->fd, bytes) == 0
		   ? 0
		   : fail(err, errno, "free space of", dir, NULL);
}

int
io_lock(struct io_file *file, struct err *err)
{
	if (file->ops->lock(file->fd) == 0)
		return 0;
	if (errno != EAGAIN && errno != EACCES)
		return fail_file(err, errno, "lock", file);
	return err_set(
	    err, ERR_BUSY, "%s/%s is locked by another process", file->dir->path, file->name);
}

int
io_locked(struct io_file *file, bool *locked, struct err *err)
{
	return file->ops->locked(file->fd, locked) == 0 ? 0
							: fail_file(err, errno, "lock of", file);
}

void *
io_map(struct io_file *file, size_t n, bool writable, struct err *err)
{
	void *map = file->ops->map(file->fd, n, writable);

	if (map == NULL)
		(void)fail_file(err, errno, "map", file); /* told by NULL */
	return map;
}

void
io_unmap(void *map, size_t n)
{
	if (map != NULL)
		current->unmap(map, n);
}
