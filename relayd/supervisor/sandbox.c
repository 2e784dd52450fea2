/* relayd/supervisor/sandbox.c - what a process gives up before it meets the outside. */
#include "relayd/supervisor/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/landlock.h>
#include <signal.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define READ_FILES (LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR)
#define WRITE_FILES                                                                                \
	(LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_REMOVE_DIR |                           \
	    LANDLOCK_ACCESS_FS_REMOVE_FILE | LANDLOCK_ACCESS_FS_MAKE_DIR |                         \
	    LANDLOCK_ACCESS_FS_MAKE_REG | LANDLOCK_ACCESS_FS_MAKE_SOCK)
/* Never granted: running programs, devices, pipes, links. */
#define NEVER                                                                                      \
	(LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_MAKE_CHAR |                               \
	    LANDLOCK_ACCESS_FS_MAKE_BLOCK | LANDLOCK_ACCESS_FS_MAKE_FIFO |                         \
	    LANDLOCK_ACCESS_FS_MAKE_SYM)

#if defined(__SANITIZE_ADDRESS__)
#define LEAK_CHECKED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define LEAK_CHECKED 1
#endif
#endif

int
sandbox_basics(struct err *err)
{
	struct rlimit none = { 0, 0 };

	if (setrlimit(RLIMIT_CORE, &none) < 0)
		return err_sys(err, errno, "no core dumps");
#ifndef LEAK_CHECKED	/* the leak checker traces its own process */
	if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
		return err_sys(err, errno, "not dumpable");
#endif
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return err_sys(err, errno, "no new privileges");
	(void)signal(SIGPIPE, SIG_IGN);		/* SIG_IGN for a valid signal cannot fail */
	return 0;
}

int
sandbox_keep_supervisor_caps(struct err *err)
{
	static const int keep[] = { CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_FOWNER,
		CAP_KILL, CAP_NET_BIND_SERVICE, CAP_SETGID, CAP_SETUID };
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct had[2], data[2] = { 0 };

	if (syscall(SYS_capget, &header, had) < 0)
		return err_sys(err, errno, "capabilities");
	for (size_t i = 0; i < sizeof(keep) / sizeof(keep[0]); i++)
		data[CAP_TO_INDEX(keep[i])].permitted |= CAP_TO_MASK(keep[i]);
	for (size_t i = 0; i < 2; i++) {
		data[i].permitted &= had[i].permitted;	/* a container may have fewer */
		data[i].effective = data[i].permitted;
	}
	if (syscall(SYS_capset, &header, data) < 0)
		return err_sys(err, errno, "capabilities");
	return 0;
}

static int
grant(int ruleset, const struct sandbox_path *path, uint64_t handled, struct err *err)
{
	struct landlock_path_beneath_attr rule = { .allowed_access = READ_FILES };
	struct stat st;
	int rc;

	rule.parent_fd = open(path->path, O_PATH | O_CLOEXEC);
	if (rule.parent_fd < 0)
		return errno == ENOENT ? 0 : err_sys(err, errno, "%s", path->path);
	if (path->write)
		rule.allowed_access |= WRITE_FILES | (handled & ~(uint64_t)NEVER);
	if (fstat(rule.parent_fd, &st) == 0 && !S_ISDIR(st.st_mode))
		rule.allowed_access &= LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_WRITE_FILE;
	rule.allowed_access &= handled;
	rc = (int)syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &rule, 0);
	if (rc < 0)
		err_sys(err, errno, "landlock %s", path->path);
	(void)close(rule.parent_fd);	/* a path handle: nothing to lose */
	return rc;
}

int
sandbox_files(const struct sandbox_path *paths, size_t n, struct err *err)
{
	struct landlock_ruleset_attr attr = { .handled_access_fs =
						  READ_FILES | WRITE_FILES | NEVER };
	long version =
	    syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
	int ruleset, rc = -1;

	if (version < 0)
		return err_set(err, ERR_NOT_FOUND, "this kernel has no Landlock");
	if (version >= 2)
		attr.handled_access_fs |= LANDLOCK_ACCESS_FS_REFER;
	ruleset = (int)syscall(SYS_landlock_create_ruleset, &attr, sizeof(attr), 0);
	if (ruleset < 0)
		return err_sys(err, errno, "landlock");
	for (size_t i = 0; i < n; i++)
		if (grant(ruleset, &paths[i], attr.handled_access_fs, err) < 0)
			goto out;
	rc = syscall(SYS_landlock_restrict_self, ruleset, 0) < 0 ? err_sys(err, errno, "landlock")
								 : 0;
out:
	(void)close(ruleset);	/* in force, or given up */
	return rc;
}
