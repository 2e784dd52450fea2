/* tests/unit/supervisor/syscalls_test.c - what a role may ask of the kernel, tried in a child. */
#include "unit/unit.h"

#include "relayd/supervisor/syscalls.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* The status of a child that ran what() as a role: its exit status, or 128 + its signal. */
static int
as_role(enum role_kind kind, int (*what)(void))
{
	int pid = fork(), status;

	ck_assert_int_ge(pid, 0);
	if (pid == 0) {
		struct err err = { 0 };

		if (syscalls_restrict(kind, SYSCALLS_STRICT, &err) < 0) {
			fprintf(stderr, "%s\n", err.msg);
			_exit(99);
		}
		_exit(what());
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

static int
run_a_program(void)
{
	(void)execl("/bin/true", "true", (char *)NULL);
	return 1;
}

static int
mount_something(void)
{
	(void)syscall(SYS_mount, "none", "/tmp", "tmpfs", 0, NULL);
	return 1;
}

static int
become_root(void)
{
	(void)syscall(SYS_setuid, 0);
	return 1;
}

static const struct {
	int (*what)(void);
} deadly[] = { { run_a_program }, { mount_something }, { become_root } };

START_TEST(what_only_an_intruder_asks_for_is_the_end)
{
	for (enum role_kind kind = ROLE_INTAKE; kind < ROLE_KINDS; kind++)
		ck_assert_int_eq(as_role(kind, deadly[_i].what), 128 + SIGSYS);
}
END_TEST

/* Not on any list: it fails, is counted by name, and the process goes on. */
static int
ask_for_the_unknown(void)
{
	const char *name;

	if (syscalls_refused(&name) != 0)
		return 1;
	if (syscall(SYS_vhangup) != -1 || errno != ENOSYS)
		return 2;
	if (syscalls_refused(&name) != 1 || strcmp(name, "vhangup") != 0)
		return 3;
	return syscalls_refused(&name) == 0 ? 0 : 4;
}

static int
open_a_raw_socket(void)
{
	return socket(AF_INET, SOCK_RAW, 1) == -1 && errno == ENOSYS &&
		       socket(AF_PACKET, SOCK_DGRAM, 0) == -1 && errno == ENOSYS
		   ? 0
		   : 1;
}

static void *
in_thread(void *arg)
{
	return arg;
}

static int
do_its_work(void)
{
	int fds[2], fd = open("/dev/null", O_WRONLY | O_CLOEXEC);
	pthread_t thread;
	void *got = NULL;

	if (fd < 0 || write(fd, "x", 1) != 1 || pipe(fds) < 0)
		return 1;
	if (socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0) < 0 ||
	    socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0) < 0 ||
	    socket(AF_UNIX, SOCK_STREAM, 0) < 0)
		return 2;
	if (pthread_create(&thread, NULL, in_thread, fds) != 0 || pthread_join(thread, &got) != 0 ||
	    got != fds)
		return 3;
	return getuid() == geteuid() ? 0 : 4;
}

static const struct {
	int (*what)(void);
} harmless[] = { { ask_for_the_unknown }, { open_a_raw_socket }, { do_its_work } };

START_TEST(the_rest_is_refused_or_done_and_the_role_goes_on)
{
	for (enum role_kind kind = ROLE_INTAKE; kind < ROLE_KINDS; kind++)
		ck_assert_int_eq(as_role(kind, harmless[_i].what), 0);
}
END_TEST

UNIT_SUITE(syscalls)
{
	UNIT_ROWS(what_only_an_intruder_asks_for_is_the_end, deadly);
	UNIT_ROWS(the_rest_is_refused_or_done_and_the_role_goes_on, harmless);
}
