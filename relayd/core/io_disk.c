/* relayd/core/io_disk.c - the real disk behind io.h: system calls, made again when interrupted. */
#include "relayd/core/io_disk.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define RETRY(rc, call)                                                                            \
	do                                                                                         \
		rc = (call);                                                                       \
	while (rc < 0 && errno == EINTR)

static int
disk_open_dir(int at, const char *name)
{
	int fd;

	RETRY(fd, openat(at < 0 ? AT_FDCWD : at, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
	return fd;
}

static int
disk_make_dir(int at, const char *name)
{
	return mkdirat(at < 0 ? AT_FDCWD : at, name, 0700);
}

/* A time of access would have the inode written at every sync of a file that somebody reads as it
 * grows: of a segment and of nothing else, for 4 KiB each.  Only the owner of a file may do without
 * (open(2)). */
static int
disk_open(int dir, const char *name, int flags)
{
	int fd;

	flags |= O_CLOEXEC | O_NOFOLLOW;
	RETRY(fd, openat(dir, name, flags | O_NOATIME, 0600));
	if (fd < 0 && errno == EPERM)
		RETRY(fd, openat(dir, name, flags, 0600));
	return fd;
}

static void
disk_close(int fd)
{
	(void)close(fd); /* what had to be safe was synced; EINTR closes too on Linux */
}

static ssize_t
disk_pwritev(int fd, const struct iovec *iov, int n, uint64_t offset)
{
	ssize_t done;

	RETRY(done, pwritev(fd, iov, n, (off_t)offset));
	return done;
}

static ssize_t
disk_pread(int fd, void *out, size_t n, uint64_t offset)
{
	ssize_t done;

	RETRY(done, pread(fd, out, n, (off_t)offset));
	return done;
}

static int
disk_sync(int fd)
{
	/* Never again after a failure: the kernel may have dropped what it could not write. */
	return fdatasync(fd);
}

static int
disk_sync_dir(int fd)
{
	return fsync(fd);
}

static int
disk_size(int fd, uint64_t *bytes)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return -1;
	*bytes = (uint64_t)st.st_size;
	return 0;
}

static int
disk_rename(int from, const char *name, int to, const char *new_name)
{
	return renameat(from, name, to, new_name);
}

static int
disk_link(int from, const char *name, int to, const char *new_name)
{
	return linkat(from, name, to, new_name, 0);
}

static int
disk_unlink(int dir, const char *name, bool is_dir)
{
	return unlinkat(dir, name, is_dir ? AT_REMOVEDIR : 0);
}

static int
disk_list(int dir, void (*each)(void *data, const char *name), void *data)
{
	/* A handle of its own: the position of the caller's stays where it is. */
	int fd = disk_open_dir(dir, ".");
	DIR *stream = fd >= 0 ? fdopendir(fd) : NULL;
	struct dirent *entry;
	int saved;

	if (stream == NULL) {
		saved = errno;
		if (fd >= 0)
			disk_close(fd);
		errno = saved;
		return -1;
	}
	while (errno = 0, (entry = readdir(stream)) != NULL)
		if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
			each(data, entry->d_name);
	saved = errno;
	(void)closedir(stream); /* read only */
	errno = saved;
	return saved == 0 ? 0 : -1;
}

static int
disk_free_bytes(int dir, uint64_t *bytes)
{
	struct statvfs fs;

	if (fstatvfs(dir, &fs) < 0)
		return -1;
	*bytes = (uint64_t)fs.f_bavail * fs.f_frsize;
	return 0;
}

static int
disk_lock(int fd)
{
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };

	return fcntl(fd, F_OFD_SETLK, &lock);
}

static int
disk_locked(int fd, bool *locked)
{
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };

	if (fcntl(fd, F_OFD_GETLK, &lock) < 0)
		return -1;
	*locked = lock.l_type != F_UNLCK;
	return 0;
}

static void *
disk_map(int fd, size_t n, bool writable)
{
	void *map = mmap(NULL, n, writable ? PROT_READ | PROT_WRITE : PROT_READ, MAP_SHARED, fd, 0);

	return map != MAP_FAILED ? map : NULL;
}

static void
disk_unmap(void *map, size_t n)
{
	(void)munmap(map, n); /* ours, or a bug */
}

const struct io_ops io_disk = {
	.open_dir = disk_open_dir,
	.make_dir = disk_make_dir,
	.open = disk_open,
	.close = disk_close,
	.pwritev = disk_pwritev,
	.pread = disk_pread,
	.sync = disk_sync,
	.sync_dir = disk_sync_dir,
	.size = disk_size,
	.rename = disk_rename,
	.link = disk_link,
	.unlink = disk_unlink,
	.list = disk_list,
	.free_bytes = disk_free_bytes,
	.lock = disk_lock,
	.locked = disk_locked,
	.map = disk_map,
	.unmap = disk_unmap,
};
