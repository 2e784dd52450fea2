/* relayd/supervisor/syscalls.c - the system calls that a role may make, by a seccomp filter. */
#include "relayd/supervisor/syscalls.h"

#include <errno.h>
#include <linux/netlink.h>
#include <sched.h>
#include <seccomp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <ucontext.h>

/* Files, memory, time, threads, sockets, and waiting for them.  Names that an architecture does not
 * have are passed over. */
static const char *const common[] = { "accept", "accept4", "access", "arch_prctl", "bind", "brk",
	"chmod", "clock_getres", "clock_gettime", "clock_nanosleep", "close", "close_range",
	"connect", "dup", "dup2", "dup3", "epoll_create", "epoll_create1", "epoll_ctl",
	"epoll_pwait", "epoll_pwait2", "epoll_wait", "eventfd2", "exit", "exit_group", "faccessat",
	"faccessat2", "fadvise64", "fallocate", "fchmod", "fchmodat", "fcntl", "fdatasync", "flock",
	"fstat", "fstatfs", "fsync", "ftruncate", "futex", "get_robust_list", "getcpu", "getcwd",
	"getdents64", "getegid", "geteuid", "getgid", "getgroups", "getpeername", "getpid",
	"getppid", "getrandom", "getresgid", "getresuid", "getrlimit", "getrusage", "getsockname",
	"getsockopt", "gettid", "gettimeofday", "getuid", "inotify_add_watch", "inotify_init1",
	"inotify_rm_watch", "linkat", "listen", "lseek", "lstat", "madvise", "membarrier",
	"memfd_create", "mkdir", "mkdirat", "mlock", "mmap", "mprotect", "mremap", "msync",
	"munlock", "munmap", "nanosleep", "newfstatat", "open", "openat", "pipe", "pipe2", "poll",
	"ppoll", "prctl", "pread64", "preadv", "preadv2", "pselect6", "pwrite64", "pwritev",
	"pwritev2", "read", "readlink", "readlinkat", "readv", "recvfrom", "recvmmsg", "recvmsg",
	"rename", "renameat", "renameat2", "restart_syscall", "rmdir", "rseq", "rt_sigaction",
	"rt_sigpending", "rt_sigprocmask", "rt_sigreturn", "rt_sigtimedwait", "sched_getaffinity",
	"sched_getparam", "sched_getscheduler", "sched_yield", "select", "sendfile", "sendmmsg",
	"sendmsg", "sendto", "set_robust_list", "set_tid_address", "setsockopt", "shutdown",
	"sigaltstack", "socketpair", "stat", "statfs", "statx", "sync_file_range", "sysinfo",
	"tgkill", "time", "timerfd_create", "timerfd_settime", "times", "umask", "uname", "unlink",
	"unlinkat", "utimensat", "write", "writev" };

/* SQLite gives its files the owner of the database. */
static const char *const review[] = { "fchown", "fchown32" };

/* Nothing of ours or of a library ever calls these: whoever does has taken the process over. */
static const char *const never[] = { "acct", "add_key", "bpf", "chroot", "delete_module", "execve",
	"execveat", "finit_module", "fsconfig", "fsmount", "fsopen", "init_module", "ioperm",
	"iopl", "kcmp", "kexec_file_load", "kexec_load", "keyctl", "mount", "move_mount",
	"open_by_handle_at", "open_tree", "perf_event_open", "pidfd_getfd", "pivot_root",
	"process_vm_writev", "quotactl", "reboot", "request_key", "setdomainname", "setfsgid",
	"setfsuid", "setgid", "setgroups", "sethostname", "setns", "setregid", "setresgid",
	"setresuid", "setreuid", "setuid", "swapoff", "swapon", "umount2", "unshare",
	"userfaultfd" };

/* The same, but for the leak checker of a sanitizer, which traces its own process. */
static const char *const never_strictly[] = { "process_vm_readv", "ptrace" };

/* Asked for by libraries that have another way: not worth a line in the log.  clone3() hides its
 * flags from a filter. */
static const char *const quiet[] = { "clone3", "io_uring_setup", "openat2" };

/* ---- what was refused ------------------------------------------------------------------------ */

static _Atomic unsigned refused;
static _Atomic int last_refused;

/* The call has not happened: it returns what the kernel would say to one that it does not know. */
static void
on_refused(int sig, siginfo_t *info, void *context)
{
	ucontext_t *uc = context;

	(void)sig;
	last_refused = info->si_syscall;
	refused++;
#if defined(__x86_64__)
	uc->uc_mcontext.gregs[REG_RAX] = -ENOSYS;
#elif defined(__aarch64__)
	uc->uc_mcontext.regs[0] = (unsigned long long)-ENOSYS;
#else
	(void)uc; /* it keeps the call's number, which is no error: such a machine traps none */
#endif
}

#if defined(__x86_64__) || defined(__aarch64__)
#define OTHERS SCMP_ACT_TRAP
#else
#define OTHERS SCMP_ACT_ERRNO(ENOSYS)
#endif

unsigned
syscalls_refused(const char **name)
{
	static char *text;
	unsigned n = atomic_exchange(&refused, 0);

	*name = "";
	if (n == 0)
		return 0;
	free(text);
	text = seccomp_syscall_resolve_num_arch(SCMP_ARCH_NATIVE, last_refused);
	*name = text != NULL ? text : "unknown";
	return n;
}

/* ---- the filter ------------------------------------------------------------------------------ */

static int
add(scmp_filter_ctx ctx, uint32_t action, const char *const *names, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		int number = seccomp_syscall_resolve_name(names[i]);
		int rc = number < 0 ? 0 : seccomp_rule_add(ctx, action, number, 0);

		if (rc < 0 && rc != -EEXIST)
			return rc;
	}
	return 0;
}

/* Threads, not processes. */
static int
add_threads(scmp_filter_ctx ctx)
{
	return seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(clone), 1,
	    SCMP_A0(SCMP_CMP_MASKED_EQ, CLONE_THREAD, CLONE_THREAD));
}

/* Limits can be read, not changed. */
static int
add_limits(scmp_filter_ctx ctx)
{
	return seccomp_rule_add(
	    ctx, SCMP_ACT_ALLOW, SCMP_SYS(prlimit64), 1, SCMP_A2(SCMP_CMP_EQ, 0, 0));
}

/* No raw, packet or vsock sockets; of netlink only the list of interfaces. */
static int
add_sockets(scmp_filter_ctx ctx)
{
	static const int families[] = { AF_UNIX, AF_INET, AF_INET6 };
	int rc = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(socket), 2,
	    SCMP_A0(SCMP_CMP_EQ, AF_NETLINK, 0), SCMP_A2(SCMP_CMP_EQ, NETLINK_ROUTE, 0));

	for (size_t i = 0; i < ARRAY_LEN(families) && rc == 0; i++)
		for (scmp_datum_t type = SOCK_STREAM; type <= SOCK_SEQPACKET && rc == 0; type++)
			if (type != SOCK_RAW && type != SOCK_RDM)
				rc = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(socket), 2,
				    SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)families[i], 0),
				    SCMP_A1(SCMP_CMP_MASKED_EQ, 0xf, type));
	return rc;
}

/* None that feeds a terminal, say. */
static int
add_ioctls(scmp_filter_ctx ctx)
{
	static const scmp_datum_t requests[] = { FIONBIO, FIOCLEX, FIONCLEX, FIONREAD, TCGETS };
	int rc = 0;

	for (size_t i = 0; i < ARRAY_LEN(requests) && rc == 0; i++)
		rc = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(ioctl), 1,
		    SCMP_A1(SCMP_CMP_MASKED_EQ, 0xffffffff, requests[i]));
	return rc;
}

static int
fill(scmp_filter_ctx ctx, enum role_kind kind)
{
	int rc = 0;

	if ((rc = add(ctx, SCMP_ACT_ALLOW, common, ARRAY_LEN(common))) < 0 ||
	    (kind == ROLE_REVIEW &&
		(rc = add(ctx, SCMP_ACT_ALLOW, review, ARRAY_LEN(review))) < 0) ||
	    (rc = add_sockets(ctx)) < 0 || (rc = add_ioctls(ctx)) < 0 ||
	    (rc = add(ctx, SCMP_ACT_ERRNO(ENOSYS), quiet, ARRAY_LEN(quiet))) < 0)
		return rc;
	if ((rc = add_threads(ctx)) < 0 || (rc = add_limits(ctx)) < 0)
		return rc;
	return add(ctx, SCMP_ACT_KILL_PROCESS, never_strictly, ARRAY_LEN(never_strictly));
}

static int
load(scmp_filter_ctx ctx, enum role_kind kind, enum syscalls_mode mode)
{
	int rc = mode == SYSCALLS_STRICT ? fill(ctx, kind) : 0;

	if (rc == 0)
		rc = add(ctx, SCMP_ACT_KILL_PROCESS, never, ARRAY_LEN(never));
	if (rc == 0)
		rc = seccomp_attr_set(ctx, SCMP_FLTATR_CTL_TSYNC, 1);
	if (rc == 0)
		rc = seccomp_attr_set(ctx, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);
	if (rc == 0)
		rc = seccomp_attr_set(ctx, SCMP_FLTATR_CTL_OPTIMIZE, 2); /* a tree, not a list */
	return rc == 0 ? seccomp_load(ctx) : rc;
}

int
syscalls_restrict(enum role_kind kind, enum syscalls_mode mode, struct err *err)
{
	struct sigaction action = { .sa_sigaction = on_refused,
		.sa_flags = SA_SIGINFO | SA_NODEFER | SA_RESTART };
	scmp_filter_ctx ctx = seccomp_init(mode == SYSCALLS_STRICT ? OTHERS : SCMP_ACT_ALLOW);
	int rc;

	if (ctx == NULL)
		return err_set(err, ERR_NOT_FOUND, "seccomp does not work here");
	(void)sigemptyset(&action.sa_mask); /* cannot fail */
	rc = sigaction(SIGSYS, &action, NULL) < 0 ? -errno : load(ctx, kind, mode);
	seccomp_release(ctx);
	if (rc == -EINVAL || rc == -ENOSYS || rc == -EOPNOTSUPP)
		return err_set(err, ERR_NOT_FOUND, "this kernel has no seccomp filters");
	return rc < 0 ? err_sys(err, -rc, "seccomp") : 0;
}
