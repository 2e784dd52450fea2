/* relayd/core/io.h - the one narrow door to the disk.
 *
 * Directories and files by handle, whole reads and writes, nothing else.  All calls go through a
 * table of operations, so that a test can stand in for the disk: cut the power, tear a write, fill
 * the disk or fail a sync at any single call.
 *
 * What is written is safe after io_sync(); a name made, renamed or removed is safe after
 * io_sync_dir() of its directory.  Functions return 0 or -1 (or NULL) with *err set:
 * ERR_NOT_FOUND, ERR_EXISTS, ERR_BUSY and ERR_FULL where they apply, else ERR_SYS.  A handle may
 * be read and synced from any thread; err->sys is always set.
 */
#ifndef RELAYD_CORE_IO_H
#define RELAYD_CORE_IO_H

#include "relayd/core/err.h"

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#define IO_NAME_MAX 64 /* bytes of a name within a directory, with its NUL */

struct io_dir; /* an open directory; outlives the files opened in it */
struct io_file;

/* Opens a directory by path, or by name below another. */
struct io_dir *io_dir_open(const char *path, struct err *err);
struct io_dir *io_dir_open_at(struct io_dir *parent, const char *name, struct err *err);
/* Creates it with mode 0700 when it is not there, then opens it.  The parent exists; by path, its
 * name is made to last, else the next io_sync_dir(parent) does that. */
struct io_dir *io_dir_make(const char *path, struct err *err);
struct io_dir *io_dir_make_at(struct io_dir *parent, const char *name, struct err *err);
void io_dir_close(struct io_dir *dir);             /* accepts NULL */
const char *io_dir_path(const struct io_dir *dir); /* as opened, for messages */

/* A new, empty file with mode 0600, to read and write; ERR_EXISTS when the name is taken. */
struct io_file *io_create(struct io_dir *dir, const char *name, struct err *err);
struct io_file *io_open(struct io_dir *dir, const char *name, bool writable, struct err *err);
void io_close(struct io_file *file); /* accepts NULL; releases its lock */
const char *io_name(const struct io_file *file);

/* Writes all of it at offset.  On failure any part may have been written. */
int io_write(
    struct io_file *file, const struct iovec *iov, int n, uint64_t offset, struct err *err);
/* Reads up to n bytes at offset; less only at the end of the file.  -1 on failure. */
ssize_t io_read(struct io_file *file, void *out, size_t n, uint64_t offset, struct err *err);
int io_sync(struct io_file *file, struct err *err);
int io_size(struct io_file *file, uint64_t *bytes, struct err *err);

/* Gives an open file another name in its directory, replacing what has that name. */
int io_rename(struct io_file *file, const char *name, struct err *err);
/* The same by name, also into another directory of the same file system (or for a directory). */
int io_move(struct io_dir *from, const char *name, struct io_dir *to, const char *new_name,
    struct err *err);
/* Gives a file a second name, in another directory of the same file system.  ERR_EXISTS. */
int io_link(struct io_dir *from, const char *name, struct io_dir *to, const char *new_name,
    struct err *err);
/* Gives an open directory below parent a name that is no longer than the one it was opened by. */
int io_dir_rename(struct io_dir *parent, struct io_dir *dir, const char *name, struct err *err);
int io_unlink(struct io_dir *dir, const char *name, struct err *err);
int io_remove_dir(struct io_dir *parent, const char *name, struct err *err); /* an empty one */
int io_sync_dir(struct io_dir *dir, struct err *err);
/* Calls each with every name but "." and ".."; the directory may change meanwhile. */
int io_list(
    struct io_dir *dir, void (*each)(void *data, const char *name), void *data, struct err *err);
/* Bytes that an unprivileged process may still use of the disk below dir. */
int io_free_bytes(struct io_dir *dir, uint64_t *bytes, struct err *err);

/* Takes the file for this open handle alone (OFD lock), until it is closed or the process dies.
 * ERR_BUSY when another handle has it. */
int io_lock(struct io_file *file, struct err *err);
/* Whether another handle has it, without taking it. */
int io_locked(struct io_file *file, bool *locked, struct err *err);

/* Maps the first n bytes, which exist, shared with every other mapping of the file. */
void *io_map(struct io_file *file, size_t n, bool writable, struct err *err);
void io_unmap(void *map, size_t n); /* accepts NULL */

/* The system calls behind it: -1 with errno, like the calls they are named after. */
struct io_ops {
	int (*open_dir)(int at, const char *name); /* at -1: name is a path */
	int (*make_dir)(int at, const char *name);
	int (*open)(int dir, const char *name, int flags);
	void (*close)(int fd);
	ssize_t (*pwritev)(int fd, const struct iovec *iov, int n, uint64_t offset);
	ssize_t (*pread)(int fd, void *out, size_t n, uint64_t offset);
	int (*sync)(int fd);
	int (*sync_dir)(int fd);
	int (*size)(int fd, uint64_t *bytes);
	int (*rename)(int from, const char *name, int to, const char *new_name);
	int (*link)(int from, const char *name, int to, const char *new_name);
	int (*unlink)(int dir, const char *name, bool is_dir);
	int (*list)(int dir, void (*each)(void *data, const char *name), void *data);
	int (*free_bytes)(int dir, uint64_t *bytes);
	int (*lock)(int fd);
	int (*locked)(int fd, bool *locked);
	void *(*map)(int fd, size_t n, bool writable); /* NULL on failure */
	void (*unmap)(void *map, size_t n);
};

/* Tests only: all that is opened from here on lives on this disk; NULL for the real one. */
void io_use(const struct io_ops *ops);

#endif
