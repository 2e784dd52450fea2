/* relayd/supervisor/check.h - the config and its modules, tried out in an unprivileged child. */
#ifndef RELAYD_SUPERVISOR_CHECK_H
#define RELAYD_SUPERVISOR_CHECK_H

#include "relayd/core/config.h"
#include "relayd/supervisor/owner.h"

/* What main() checks beyond the config itself: builds the filters.  Warnings go to warn(). */
typedef int (*check_config)(
    const struct config *cfg, void (*warn)(const char *text), struct err *err);

struct check {
	int fd;		/* readable when the child is done */
	int pid;
};

/* Forks a child that runs in_child(), which says what is wrong to out and then exits, 0 when
 * nothing is.  -1 with *err when it cannot. */
int check_in_child(
    struct check *c, void (*in_child)(int out, const void *arg), const void *arg, struct err *err);
/* In a child that becomes owner (when root) and tries cfg.  -1 with *err when it cannot. */
int check_start(struct check *c, const struct config *cfg, const struct owner *owner, bool root,
    check_config check, struct err *err);
/* Waits for the child.  0; or -1 with what it found, ERR_CONFIG "FILE:LINE: ...". */
int check_finish(struct check *c, struct err *err);

/* The same at once, for `relayd -n`: as root, in a child that becomes the config's user, or nobody
 * where that does not exist yet. */
int check_unprivileged(const struct config *cfg, check_config check, void (*warn)(const char *text),
    struct err *err);

#endif
