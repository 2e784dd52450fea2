/* relayd/supervisor/syscalls.h - the system calls that a role may make, by a seccomp filter.
 *
 * An allow list.  A call that no role ever makes and an intruder would (running a program, tracing,
 * mounting, changing user, ...) kills the process: the supervisor says so in role.exit, and starts
 * it again.  Any other call that is not on the list does not happen: it gets ENOSYS, for which
 * libraries have a second way, and is counted for syscalls_refused(), so that a list that is too
 * short for some new library is a line in the log and not an outage.
 */
#ifndef RELAYD_SUPERVISOR_SYSCALLS_H
#define RELAYD_SUPERVISOR_SYSCALLS_H

#include "relayd/core/err.h"
#include "relayd/supervisor/role.h"

enum syscalls_mode {
	SYSCALLS_STRICT,
	/* Only what kills: the leak checker of a sanitizer makes calls of its own in its own ways,
	 * and hangs where one of them is refused. */
	SYSCALLS_SANITIZED,
};

/* For all threads of this process, for good; after set-up.  ERR_NOT_FOUND: this kernel cannot. */
int syscalls_restrict(enum role_kind kind, enum syscalls_mode mode, struct err *err);
/* How many were refused with ENOSYS since the last call; *name is the last one's. */
unsigned syscalls_refused(const char **name);

#endif
