/* relayd/auth/introspect_agent.c - the process that runs the command, and how a token gets to
 * it. */
#include "relayd/auth/introspect_internal.h"

#include "relayd/auth/introspect.h"
#include "relayd/core/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

static int agent = -1; /* our end */
static char *agent_command;
static uint32_t agent_timeout_ms;

/* ---- one descriptor over a socket ------------------------------------------------------------ */

union control {
	struct cmsghdr header;
	char bytes[CMSG_SPACE(sizeof(int))];
};

static int
send_fd(int to, int fd)
{
	union control control = { 0 };
	char one = 1;
	struct iovec iov = { .iov_base = &one, .iov_len = 1 };
	struct msghdr msg = { .msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = &control,
		.msg_controllen = sizeof(control) };

	control.header.cmsg_level = SOL_SOCKET;
	control.header.cmsg_type = SCM_RIGHTS;
	control.header.cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(&control.header), &fd, sizeof(fd));
	return sendmsg(to, &msg, MSG_NOSIGNAL) == 1 ? 0 : -1;
}

/* -1 at the end; *fd is -1 for a message without one. */
static int
receive_fd(int from, int *fd)
{
	union control control = { 0 };
	char one;
	struct iovec iov = { .iov_base = &one, .iov_len = 1 };
	struct msghdr msg = { .msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = &control,
		.msg_controllen = sizeof(control) };
	ssize_t n;

	*fd = -1;
	do
		n = recvmsg(from, &msg, MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	if (n <= 0)
		return -1;
	if (CMSG_FIRSTHDR(&msg) != NULL && control.header.cmsg_type == SCM_RIGHTS)
		memcpy(fd, CMSG_DATA(&control.header), sizeof(*fd));
	return 0;
}

/* ---- the agent ------------------------------------------------------------------------------- */

/* The alarm outlives execve(2), and kills what does not expect it. */
static _Noreturn void
run_command(int fd, const char *command, unsigned timeout_ms)
{
	struct itimerval limit = { .it_value = { .tv_sec = timeout_ms / 1000,
				       .tv_usec = (suseconds_t)(timeout_ms % 1000) * 1000 } };
	char *const argv[] = { (char *)(uintptr_t)command, NULL }; /* execv() only reads */

	(void)signal(SIGPIPE, SIG_DFL);             /* a valid signal: cannot fail */
	(void)setitimer(ITIMER_REAL, &limit, NULL); /* the role has its own deadline too */
	if (dup2(fd, STDIN_FILENO) >= 0 && dup2(fd, STDOUT_FILENO) >= 0)
		(void)execv(command, argv);
	_exit(127);
}

/* Waits for the command, and spoils the answer of one that failed or was killed: what it wrote
 * until then, a whole answer maybe, is not its last word. */
static _Noreturn void
see_to_it(int fd, const char *command, unsigned timeout_ms)
{
	int status = -1;
	pid_t pid;

	(void)signal(SIGCHLD, SIG_DFL); /* a valid signal: cannot fail */
	pid = fork();
	if (pid == 0)
		run_command(fd, command, timeout_ms);
	if (pid < 0 || waitpid(pid, &status, 0) != pid || !WIFEXITED(status) ||
	    WEXITSTATUS(status) != 0)
		(void)send(fd, "", 1, MSG_NOSIGNAL); /* nobody waits any more: all the same */
	_exit(EXIT_SUCCESS);
}

_Noreturn void
introspect_agent(int fd, const char *command, unsigned timeout_ms)
{
	int client;

	(void)fcntl(fd, F_SETFD, FD_CLOEXEC); /* valid: cannot fail */
	(void)signal(SIGCHLD, SIG_IGN);       /* who sees to a command leaves nothing behind */
	(void)signal(SIGINT, SIG_IGN);        /* the end is the end of the role */
	(void)signal(SIGTERM, SIG_IGN);
	(void)signal(SIGHUP, SIG_IGN);
	while (receive_fd(fd, &client) == 0) {
		if (client < 0)
			continue;
		if (fork() == 0)
			see_to_it(client, command, timeout_ms);
		(void)close(client); /* the command's, or nobody's: the role reads the end */
	}
	_exit(EXIT_SUCCESS);
}

/* In the child: nothing of the role's goes along but standard error. */
static _Noreturn void
become_agent(int fd, const char *command, uint32_t timeout_ms)
{
	char text[16], path[] = "/proc/self/exe", option[] = INTROSPECT_AGENT_OPTION;
	char *const argv[] = { path, option, (char *)(uintptr_t)command, text, NULL };
	int null = open("/dev/null", O_RDWR);

	(void)snprintf(text, sizeof(text), "%u", timeout_ms); /* fits */
	if (null >= 0 && dup2(null, STDIN_FILENO) >= 0 && dup2(null, STDOUT_FILENO) >= 0 &&
	    (fd == INTROSPECT_AGENT_FD || dup2(fd, INTROSPECT_AGENT_FD) >= 0)) {
		(void)fcntl(INTROSPECT_AGENT_FD, F_SETFD, 0); /* valid: cannot fail */
		if (close_range(INTROSPECT_AGENT_FD + 1, ~0u, 0) == 0)
			(void)execv(path, argv);
	}
	_exit(127);
}

int
introspect_open(const char *command, uint32_t timeout_ms, struct err *err)
{
	int pair[2];
	pid_t pid;

	agent_command = strdup(command);
	if (agent_command == NULL)
		return err_set(err, ERR_NOMEM, "no memory for the introspection agent");
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return err_sys(err, errno, "a socket for the introspection agent");
	pid = fork();
	if (pid == 0)
		become_agent(pair[1], command, timeout_ms);
	(void)close(pair[1]); /* the agent's */
	if (pid < 0) {
		err_sys(err, errno, "start the introspection agent");
		(void)close(pair[0]); /* nothing was sent */
		return -1;
	}
	agent = pair[0];
	agent_timeout_ms = timeout_ms;
	return 0;
}

const char *
introspect_command(void)
{
	return agent_command;
}

/* ---- asking, in the pool --------------------------------------------------------------------- */

static bool
send_token(int fd, const char *token)
{
	size_t n = strlen(token);

	/* It fits the socket's buffer whole. */
	return send(fd, token, n, MSG_NOSIGNAL) == (ssize_t)n &&
	       send(fd, "\n", 1, MSG_NOSIGNAL) == 1 && shutdown(fd, SHUT_WR) == 0;
}

static bool
read_answer(int fd, struct buf *answer)
{
	int64_t end = clock_mono_ms() + agent_timeout_ms;

	for (;;) {
		struct pollfd p = { .fd = fd, .events = POLLIN };
		int64_t left = end - clock_mono_ms();
		char *room = buf_room(answer, 4096);
		ssize_t n;

		if (room == NULL || left <= 0 || poll(&p, 1, (int)left) <= 0)
			return false;
		n = read(fd, room, 4096);
		if (n <= 0)
			return n == 0;
		buf_commit(answer, (size_t)n);
	}
}

bool
introspect_ask(const char *token, struct buf *answer)
{
	int pair[2], size = (int)INTROSPECT_TOKEN_MAX * 8;
	bool ok = false;

	if (agent < 0 || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		return false;
	(void)setsockopt(pair[0], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size)); /* a wish */
	ok = send_fd(agent, pair[1]) == 0;
	(void)close(pair[1]); /* the agent's */
	ok = ok && send_token(pair[0], token) && read_answer(pair[0], answer);
	(void)close(pair[0]); /* a command that still writes ends by that */
	return ok;
}
