/* relayd/supervisor/lock.c - one relayd a run directory: RUN/relayd.lock, with its pid inside. */
#include "relayd/supervisor/lock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

int
lock_take(const struct config *cfg, bool *unclean, struct err *err)
{
	struct flock whole = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
	char path[4096], pid[24] = "";
	int fd;
	ssize_t n;

	if (snprintf(path, sizeof(path), "%s/relayd.lock", cfg->run) >= (int)sizeof(path))
		return err_set(err, ERR_CONFIG, "run: the path is too long");
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return err_sys(err, errno, "open %s", path);
	n = pread(fd, pid, sizeof(pid) - 1, 0);
	pid[n > 0 ? n : 0] = '\0';
	pid[strcspn(pid, "\n")] = '\0';
	if (fcntl(fd, F_OFD_SETLK, &whole) < 0) {
		if (errno == EAGAIN || errno == EACCES)
			err_set(err, ERR_BUSY, "relayd runs already (pid %s, %s)", pid, path);
		else
			err_sys(err, errno, "lock %s", path);
		(void)close(fd);	/* nothing was written */
		return -1;
	}
	*unclean = pid[0] != '\0';
	n = snprintf(pid, sizeof(pid), "%d\n", (int)getpid());
	if (ftruncate(fd, 0) < 0 || pwrite(fd, pid, (size_t)n, 0) != n) {
		err_sys(err, errno, "write %s", path);
		(void)close(fd);	/* gives the lock back */
		return -1;
	}
	return fd;
}

void
lock_release(int fd)
{
	(void)!ftruncate(fd, 0);	/* the next start only waits a little longer */
	(void)close(fd);		/* gives the lock back */
}
