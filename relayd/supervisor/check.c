/* relayd/supervisor/check.c - the config and its modules, tried out in an unprivileged child. */
#include "relayd/supervisor/check.h"

#include "relayd/supervisor/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#define NOBODY        65534
#define CHILD_SECONDS 120	/* a module that never returns must not stop reloads for good */

static void
no_warning(const char *text)
{
	(void)text;	/* the roles and relayd -n say it */
}

static int
drop_to(const struct owner *owner, struct err *err)
{
	if (setgroups(0, NULL) < 0 || setresgid(owner->gid, owner->gid, owner->gid) < 0 ||
	    setresuid(owner->uid, owner->uid, owner->uid) < 0)
		return err_sys(err, errno, "become uid %u", (unsigned)owner->uid);
	return 0;
}

struct trial {
	const struct config *cfg;
	const struct owner *owner;
	bool root;
	check_config check;
	void (*warn)(const char *text);
};

static void
try_config(int out, const void *arg)
{
	const struct trial *trial = arg;
	struct err err = { 0 };
	int rc = 0;

	(void)alarm(CHILD_SECONDS);	/* no alarm was set before */
	if ((trial->root && drop_to(trial->owner, &err) < 0) || sandbox_basics(&err) < 0 ||
	    trial->check(trial->cfg, trial->warn, &err) < 0)
		rc = 1;
	if (rc != 0)
		(void)!write(out, err.msg, strlen(err.msg));	/* the exit status tells too */
	_exit(rc);
}

int
check_in_child(
    struct check *c, void (*in_child)(int out, const void *arg), const void *arg, struct err *err)
{
	int fds[2];

	if (pipe2(fds, O_CLOEXEC) < 0)
		return err_sys(err, errno, "pipe");
	c->pid = fork();
	if (c->pid == 0) {
		in_child(fds[1], arg);
		_exit(1);	/* it does that itself: two supervisors would be worse */
	}
	(void)close(fds[1]);	/* the child's */
	if (c->pid < 0) {
		err_sys(err, errno, "fork");
		(void)close(fds[0]);	/* nobody writes to it */
		return -1;
	}
	c->fd = fds[0];
	return 0;
}

int
check_start(struct check *c, const struct config *cfg, const struct owner *owner, bool root,
    check_config check, struct err *err)
{
	const struct trial trial = { cfg, owner, root, check, no_warning };

	return check_in_child(c, try_config, &trial, err);
}

int
check_finish(struct check *c, struct err *err)
{
	char text[sizeof(err->msg)];
	size_t used = 0;
	ssize_t n;
	int status = 0;

	while ((n = read(c->fd, text + used, sizeof(text) - 1 - used)) > 0 ||
	       (n < 0 && errno == EINTR))
		used += n > 0 ? (size_t)n : 0;
	text[used] = '\0';
	(void)close(c->fd);	/* read to its end */
	while (waitpid(c->pid, &status, 0) < 0 && errno == EINTR)
		continue;
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
		return 0;
	if (used > 0)
		return err_set(err, ERR_CONFIG, "%s", text);
	return err_set(err, ERR_CONFIG, "checking the config ended with signal %d: a filter module "
	    "is at fault", WIFSIGNALED(status) ? WTERMSIG(status) : 0);
}

int
check_unprivileged(const struct config *cfg, check_config check, void (*warn)(const char *text),
    struct err *err)
{
	struct owner nobody = { .uid = NOBODY, .gid = NOBODY };
	struct owners owners = { 0 };
	const struct trial trial = { cfg, &owners.mail, true, check, warn };
	struct err none;
	struct check c;

	if (geteuid() != 0)
		return check(cfg, warn, err);
	if (owners_find(cfg, &owners, &none) < 0)
		owners.mail = nobody;	/* not installed yet: relayctl check tells */
	return check_in_child(&c, try_config, &trial, err) < 0 ? -1 : check_finish(&c, err);
}
