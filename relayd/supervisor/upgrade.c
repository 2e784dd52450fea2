/* relayd/supervisor/upgrade.c - becomes another relayd by exec: the same process, a new program. */
#include "relayd/supervisor/upgrade.h"

#include "relayd/core/buf.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define MANIFEST_MAX (4u << 20)

void
upgrade_program(char out[static ROLE_PATH_BYTES])
{
	ssize_t n = readlink("/proc/self/exe", out, ROLE_PATH_BYTES - 1);

	out[n > 0 ? n : 0] = '\0';
}

/* ---- the question first ---------------------------------------------------------------------- */

struct question {
	const char *program, *config_path;
};

static void
ask_program(int out, const void *arg)
{
	static const char cannot[] = "the program cannot be started";
	const struct question *q = arg;
	char version[12];

	(void)snprintf(version, sizeof(version), "%d", UPGRADE_VERSION); /* fits */
	(void)dup2(out, STDOUT_FILENO);                                  /* else it is silent */
	(void)dup2(out, STDERR_FILENO);
	(void)execl(
	    q->program, "relayd", "-c", q->config_path, "-n", "--takes", version, (char *)NULL);
	(void)!write(out, cannot, sizeof(cannot) - 1); /* the exit status tells too */
	_exit(127);
}

int
upgrade_check(struct check *c, const char *program, const char *config_path, struct err *err)
{
	const struct question question = { program, config_path };

	return check_in_child(c, ask_program, &question, err);
}

/* ---- handing over ---------------------------------------------------------------------------- */

void
upgrade_add(struct upgrade *up, enum role_kind kind, unsigned index, const struct supervised *p)
{
	int pid = process_pid(p), sock = process_sock(p);

	if (pid > 0 && sock >= 0)
		up->roles[up->n_roles++] = (struct upgrade_role){ kind, index, pid, sock };
}

static json_t *
encode_roles(const struct upgrade *up)
{
	json_t *list = json_array();

	for (size_t i = 0; i < up->n_roles; i++)
		if (json_array_append_new(
			list, json_pack("{s:i, s:i, s:i, s:i}", "kind", (int)up->roles[i].kind,
				  "index", (int)up->roles[i].index, "pid", up->roles[i].pid, "sock",
				  up->roles[i].sock)) < 0) {
			json_decref(list);
			return NULL;
		}
	return list;
}

/* A memfd that outlives exec, or -1. */
static int
write_manifest(const struct upgrade *up, struct err *err)
{
	json_t *all = json_pack("{s:i, s:i, s:i, s:i, s:i, s:i, s:[i, i], s:o, s:o}", "version",
	    UPGRADE_VERSION, "count", (int)up->count + 1, "lock", up->lock, "shared", up->shared_fd,
	    "counters", up->counters_fd, "poke", up->poke_fd, "tickets", up->tickets_fd[0],
	    up->tickets_fd[1], "sockets", sockets_encode(up->sockets), "roles", encode_roles(up));
	char *text = all != NULL ? json_dumps(all, JSON_COMPACT) : NULL;
	int fd = -1;

	if (text == NULL || strlen(text) > MANIFEST_MAX)
		err_set(err, ERR_NOMEM, "no memory for a manifest");
	else
		fd = handover_memfd("relayd-upgrade", slice_str(text), err);
	free(text);
	json_decref(all);
	return fd;
}

static void
keep_on_exec(const struct upgrade *up, int manifest, bool keep)
{
	const int fds[] = { up->lock, up->shared_fd, up->counters_fd, up->poke_fd,
		up->tickets_fd[0], up->tickets_fd[1], manifest };

	for (size_t i = 0; i < ARRAY_LEN(fds); i++)
		(void)fcntl(fds[i], F_SETFD, keep ? 0 : FD_CLOEXEC); /* valid: cannot fail */
	for (size_t i = 0; i < up->n_roles; i++)
		(void)fcntl(up->roles[i].sock, F_SETFD, keep ? 0 : FD_CLOEXEC);
	sockets_keep_on_exec(up->sockets, keep);
}

void
upgrade_hold_signals(bool hold)
{
	sigset_t set;

	(void)sigemptyset(&set); /* none of these fails with valid arguments */
	(void)sigaddset(&set, SIGHUP);
	(void)sigaddset(&set, SIGINT);
	(void)sigaddset(&set, SIGTERM);
	(void)sigprocmask(hold ? SIG_BLOCK : SIG_UNBLOCK, &set, NULL);
}

void
upgrade_exec(
    const struct upgrade *up, const char *program, const char *config_path, struct err *err)
{
	int manifest = write_manifest(up, err);
	char number[12];

	if (manifest < 0)
		return;
	(void)snprintf(number, sizeof(number), "%d", manifest); /* fits */
	keep_on_exec(up, manifest, true);
	(void)execl(program, "relayd", "-c", config_path, "--upgrade", number, (char *)NULL);
	err_sys(err, errno, "start %s", program);
	keep_on_exec(up, manifest, false);
	(void)close(manifest); /* nobody reads it */
}

/* ---- taking over ----------------------------------------------------------------------------- */

void
upgrade_arrived(void)
{
	upgrade_hold_signals(false);
}

static int
decode_roles(const json_t *list, struct upgrade *up)
{
	json_t *item;
	size_t i;

	json_array_foreach(list, i, item)
	{
		int kind, index;
		struct upgrade_role *r = &up->roles[up->n_roles];

		if (up->n_roles == ARRAY_LEN(up->roles) ||
		    json_unpack(item, "{s:i, s:i, s:i, s:i}", "kind", &kind, "index", &index, "pid",
			&r->pid, "sock", &r->sock) < 0)
			return -1;
		r->kind = (enum role_kind)kind; /* written by a relayd */
		r->index = (unsigned)index;
		up->n_roles++;
	}
	return 0;
}

static int
decode(json_t *all, struct upgrade *up, struct err *err)
{
	json_t *sockets, *roles;
	int version, times;

	if (json_unpack(all, "{s:i, s:i, s:i, s:i, s:i, s:i, s:[i, i], s:o, s:o}", "version",
		&version, "count", &times, "lock", &up->lock, "shared", &up->shared_fd, "counters",
		&up->counters_fd, "poke", &up->poke_fd, "tickets", &up->tickets_fd[0],
		&up->tickets_fd[1], "sockets", &sockets, "roles", &roles) < 0 ||
	    version != UPGRADE_VERSION || decode_roles(roles, up) < 0)
		return err_set(err, ERR_FORMAT, "what was handed over cannot be read");
	up->count = (unsigned)times;
	up->sockets = sockets_decode(sockets, err);
	return up->sockets != NULL ? 0 : -1;
}

int
upgrade_take(int fd, struct upgrade *up, struct err *err)
{
	struct slice text = handover_map(fd, err);
	json_t *all = text.p != NULL ? json_loadb(text.p, text.len, 0, NULL) : NULL;
	int rc;

	*up = (struct upgrade){ .lock = -1 };
	if (all == NULL)
		return err_set(err, ERR_FORMAT, "--upgrade is for relayd itself");
	rc = decode(all, up, err);
	json_decref(all);
	if (rc == 0)
		keep_on_exec(up, fd, false);
	(void)close(fd); /* read */
	return rc;
}
