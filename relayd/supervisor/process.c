/* relayd/supervisor/process.c - one role process as the supervisor sees it: started, watched,
 * started again. */
#include "relayd/supervisor/process.h"

#include "relayd/core/buf.h"
#include "relayd/core/clock.h"
#include "relayd/core/log.h"

#include <errno.h>
#include <stdio.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define RESTART_FIRST_MS 50
#define RESTART_MAX_MS   10000
#define STEADY_MS        10000	/* up so long: the next death starts from the first back-off */
#define MANIFEST_MAX     (1u << 20)

static const char *const names[] = { "intake", "delivery", "review" };

struct supervised {
	const struct process_common *common;
	enum role_kind kind;
	unsigned index, page;
	struct owner owner;
	struct role_listener *listeners;
	size_t n_listeners;
	const char *config_path;
	int snapshot_fd;

	enum process_state state;
	bool stopping, reloading, freed;
	struct hang_watch watch;
	enum hang hung;		/* killed for that */
	char filter[COUNTERS_FILTER_BYTES];	/* the one where it hung */
	uint64_t backoff_ms;
	int64_t started_ms;
	unsigned handles;	/* not closed yet */
	int sock;		/* our end, or -1 */
	uv_process_t child;
	bool child_open, poll_open;
	uv_poll_t poll;		/* of sock; of pidfd where it was adopted */
	int adopted, pidfd;	/* its pid, or 0 */
	uv_timer_t again;
};

static void
free_listeners(struct supervised *p)
{
	for (size_t i = 0; i < p->n_listeners; i++) {
		free((void *)(uintptr_t)p->listeners[i].name);	/* ours: strdup() */
		free((void *)(uintptr_t)p->listeners[i].address);
	}
	free(p->listeners);
	p->listeners = NULL;
	p->n_listeners = 0;
}

static void
maybe_free(struct supervised *p)
{
	if (!p->freed || p->handles > 0)
		return;
	free_listeners(p);
	free(p);
}

static void
on_closed(uv_handle_t *handle)
{
	struct supervised *p = handle->data;

	p->handles--;
	maybe_free(p);
}

static void
close_handle(struct supervised *p, uv_handle_t *handle)
{
	handle->data = p;
	uv_close(handle, on_closed);
}

struct supervised *
process_new(const struct process_common *common, enum role_kind kind, unsigned index,
    unsigned page, struct owner owner, const struct role_listener *listeners, size_t n_listeners)
{
	struct supervised *p = calloc(1, sizeof(*p));

	if (p == NULL || !process_set_listeners(p, listeners, n_listeners) ||
	    uv_timer_init(common->loop, &p->again) < 0) {
		if (p != NULL)
			free_listeners(p);
		free(p);
		return NULL;
	}
	p->handles = 1;
	p->common = common;
	p->kind = kind;
	p->index = index;
	p->page = page;
	p->owner = owner;
	p->snapshot_fd = p->sock = p->pidfd = -1;
	p->backoff_ms = RESTART_FIRST_MS;
	return p;
}

bool
process_set_listeners(struct supervised *p, const struct role_listener *listeners, size_t n)
{
	struct role_listener *copy = calloc(n + 1, sizeof(*copy));
	struct supervised made = { .listeners = copy, .n_listeners = n };

	for (size_t i = 0; i < n && copy != NULL; i++) {
		copy[i] = listeners[i];
		copy[i].name = strdup(listeners[i].name);
		copy[i].address = strdup(listeners[i].address);
	}
	for (size_t i = 0; i < n && copy != NULL; i++) {
		if (copy[i].name == NULL || copy[i].address == NULL) {
			free_listeners(&made);
			copy = NULL;
		}
	}
	if (copy == NULL)
		return false;
	free_listeners(p);
	p->listeners = copy;
	p->n_listeners = n;
	return true;
}

void
process_set_config(struct supervised *p, const char *config_path, int snapshot_fd)
{
	p->config_path = config_path;
	p->snapshot_fd = snapshot_fd;
}

enum process_state
process_state(const struct supervised *p)
{
	return p->state;
}

int
process_pid(const struct supervised *p)
{
	if (p->adopted > 0)
		return p->adopted;
	return p->child_open && p->state != PROCESS_DOWN ? p->child.pid : 0;
}

int
process_sock(const struct supervised *p)
{
	return p->sock;
}

static void
answer_reload(struct supervised *p, const char *why)
{
	if (!p->reloading)
		return;
	p->reloading = false;
	p->common->events->on_reload_answer(p->common->owner, why);
}

static void
ready(struct supervised *p)
{
	p->state = PROCESS_UP;
	p->common->events->on_ready(p->common->owner, p->kind, p->index);
}

static void
on_message(uv_poll_t *poll, int status, int events)
{
	struct supervised *p = container_of(poll, struct supervised, poll);
	char text[HANDOVER_PACKET_BYTES];
	ssize_t n;
	int fd = -1;

	(void)events;	/* only reading was asked for */
	n = status < 0 ? 0 : handover_receive(p->sock, text, &fd);
	if (fd >= 0)
		(void)close(fd);	/* roles hand us nothing */
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0)
		uv_poll_stop(poll);	/* its exit is told by the signal */
	else if (strcmp(text, "ready") == 0 && p->state == PROCESS_STARTING)
		ready(p);
	else if (strcmp(text, "reloaded") == 0)
		answer_reload(p, NULL);
	else if (strncmp(text, "refused ", 8) == 0)
		answer_reload(p, text + 8);
}

static void
on_again(uv_timer_t *timer)
{
	process_start(container_of(timer, struct supervised, again));
}

/* After a failure to start, or a death. */
static void
start_later(struct supervised *p)
{
	p->state = PROCESS_DOWN;
	if (p->stopping)
		return;
	if (clock_mono_ms() - p->started_ms > STEADY_MS)
		p->backoff_ms = RESTART_FIRST_MS;
	(void)uv_timer_start(&p->again, on_again, p->backoff_ms, 0); /* a live timer: cannot fail */
	p->backoff_ms = p->backoff_ms * 2 < RESTART_MAX_MS ? p->backoff_ms * 2 : RESTART_MAX_MS;
}

static void
forget_child(struct supervised *p)
{
	if (p->poll_open)
		close_handle(p, (uv_handle_t *)&p->poll);
	if (p->child_open)
		close_handle(p, (uv_handle_t *)&p->child);
	p->poll_open = p->child_open = false;
	if (p->sock >= 0)
		(void)close(p->sock);	/* nobody at the other end */
	if (p->pidfd >= 0)
		(void)close(p->pidfd);	/* a process handle: nothing to lose */
	p->sock = p->pidfd = -1;
	p->adopted = 0;
}

static struct kv
why_it_ended(const struct supervised *p, int signal)
{
	if (signal == SIGSYS)
		return kv_str("why", "a system call that the sandbox forbids");
	if (p->hung == HANG_FILTER)
		return kv_str("why", "killed: the filter did not return");
	if (p->hung == HANG_POOL)
		return kv_str("why", "killed: no heavy filter came back, and mail waits for them");
	return (struct kv){ .type = KV_NONE };
}

static void
ended(struct supervised *p, int pid, int64_t status, int signal)
{
	if (!p->stopping || status != 0 || signal != 0)
		log_event("role.exit", kv_str("name", names[p->kind]), kv_int("worker", p->index),
		    kv_int("pid", pid), kv_int("status", status), kv_int("signal", signal),
		    p->hung == HANG_FILTER ? kv_str("filter", p->filter)
					   : (struct kv){ .type = KV_NONE },
		    why_it_ended(p, signal));
	forget_child(p);
	/* The next one starts with the new config: who was killed by us has not failed at it. */
	answer_reload(p, p->hung != HANG_NONE ? NULL
	    : "a role ended meanwhile; it starts with the new config");
	if (!p->stopping)
		counter_add(COUNTER_RESTARTS, 1);
	start_later(p);
	p->common->events->on_exit(p->common->owner, p->kind, p->index);
}

static void
on_ended(uv_process_t *child, int64_t status, int signal)
{
	ended(container_of(child, struct supervised, child), child->pid, status, signal);
}

/* The process handle of an adopted child became readable: it is dead, and ours to reap. */
static void
on_adopted_ended(uv_poll_t *poll, int status, int events)
{
	struct supervised *p = container_of(poll, struct supervised, poll);
	int pid = p->adopted, how = 0;

	(void)status;	/* a failed poll: the child is asked all the same */
	(void)events;
	if (waitpid(pid, &how, WNOHANG) == 0)
		return;
	ended(p, pid, WIFEXITED(how) ? WEXITSTATUS(how) : 0, WIFSIGNALED(how) ? WTERMSIG(how) : 0);
}

struct supervised *
process_adopt(const struct process_common *common, enum role_kind kind, unsigned index, int pid,
    int sock, struct err *err)
{
	struct supervised *p = process_new(common, kind, index, 0, (struct owner){ 0 }, NULL, 0);

	if (p == NULL) {
		err_set(err, ERR_NOMEM, "no memory for a process");
		return NULL;
	}
	p->adopted = pid;
	p->sock = sock;
	p->stopping = true;
	p->state = PROCESS_UP;
	p->pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	if (p->pidfd < 0 || fcntl(sock, F_SETFD, FD_CLOEXEC) < 0 ||
	    uv_poll_init(common->loop, &p->poll, p->pidfd) < 0) {
		err_sys(err, errno, "take over %s, process %d", names[kind], pid);
		process_free(p);
		return NULL;
	}
	p->poll_open = true;
	p->handles++;
	(void)uv_poll_start(&p->poll, UV_READABLE, on_adopted_ended);	/* a fresh handle */
	return p;
}

static int
make_manifest(const struct supervised *p, struct err *err)
{
	struct handover *ho = calloc(1, sizeof(*ho));
	struct buf text = buf_heap(MANIFEST_MAX);
	int fd = -1;

	if (ho == NULL)
		return err_set(err, ERR_NOMEM, "no memory for a manifest");
	ho->config_path = p->config_path;
	ho->page = p->page;
	ho->review_uid = p->common->review_uid;
	ho->n_listeners = p->n_listeners;
	for (size_t i = 0; i < p->n_listeners; i++) {
		ho->listeners[i] = p->listeners[i];
		ho->listeners[i].fd = HANDOVER_LISTENERS + (int)i;
	}
	if (handover_encode(ho, &text, err) == 0)
		fd = handover_memfd("relayd-manifest", buf_slice(&text), err);
	buf_fini(&text);
	free(ho);
	return fd;
}

static void
inherit(uv_stdio_container_t *slot, int fd)
{
	slot->flags = UV_INHERIT_FD;
	slot->data.fd = fd;
}

static int
spawn(struct supervised *p, int manifest, int child_sock)
{
	uv_stdio_container_t stdio[HANDOVER_LISTENERS + HANDOVER_LISTENERS_MAX] = { 0 };
	char index[12], title[32];
	char role_arg[] = "--role", index_arg[] = "--index";
	char *args[] = { title, role_arg, (char *)(uintptr_t)names[p->kind], index_arg, index,
		NULL };
	uv_process_options_t options = {
		.exit_cb = on_ended, .file = p->common->program, .args = args, .stdio = stdio,
		.stdio_count = HANDOVER_LISTENERS + (int)p->n_listeners,
	};

	(void)snprintf(index, sizeof(index), "%u", p->index);	/* fits any unsigned */
	(void)snprintf(title, sizeof(title), "relayd");
	stdio[0].flags = UV_IGNORE;
	inherit(&stdio[1], STDERR_FILENO);
	inherit(&stdio[2], STDERR_FILENO);
	inherit(&stdio[HANDOVER_SOCKET], child_sock);
	inherit(&stdio[HANDOVER_MANIFEST], manifest);
	inherit(&stdio[HANDOVER_SNAPSHOT], p->snapshot_fd);
	inherit(&stdio[HANDOVER_SHARED], p->common->shared_fd);
	inherit(&stdio[HANDOVER_COUNTERS], p->common->counters_fd);
	inherit(&stdio[HANDOVER_POKE], p->common->poke_fd);
	if (p->common->tickets_fd[p->kind] >= 0)
		inherit(&stdio[HANDOVER_TICKETS], p->common->tickets_fd[p->kind]);
	for (size_t i = 0; i < p->n_listeners; i++)
		inherit(&stdio[HANDOVER_LISTENERS + i], p->listeners[i].fd);
	if (p->common->root) {
		options.flags = UV_PROCESS_SETUID | UV_PROCESS_SETGID;
		options.uid = p->owner.uid;
		options.gid = p->owner.gid;
	}
	return uv_spawn(p->common->loop, &p->child, &options);
}

static int
start(struct supervised *p, struct err *err)
{
	int socks[2], manifest, rc;

	manifest = make_manifest(p, err);
	if (manifest < 0)
		return -1;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, socks) < 0) {
		err_sys(err, errno, "socketpair");
		(void)close(manifest);	/* given up */
		return -1;
	}
	rc = spawn(p, manifest, socks[1]);
	(void)close(manifest);	/* the child has its own */
	(void)close(socks[1]);	/* as above */
	p->child_open = true;	/* uv_spawn() has begun the handle also where it failed */
	p->handles++;
	p->sock = socks[0];
	if (rc < 0)
		return err_sys(err, -rc, "start %s", p->common->program);
	rc = uv_poll_init(p->common->loop, &p->poll, p->sock);
	if (rc < 0)
		return err_sys(err, -rc, "watch %s", names[p->kind]);
	p->poll_open = true;
	p->handles++;
	rc = uv_poll_start(&p->poll, UV_READABLE, on_message);
	return rc < 0 ? err_sys(err, -rc, "watch %s", names[p->kind]) : 0;
}

void
process_start(struct supervised *p)
{
	struct err err = { 0 };

	if (p->handles > 1) {	/* of the one before: not yet closed */
		(void)uv_timer_start(&p->again, on_again, 1, 0); /* a live timer: cannot fail */
		return;
	}
	p->started_ms = clock_mono_ms();
	p->state = PROCESS_STARTING;
	p->watch = (struct hang_watch){ 0 };
	p->hung = HANG_NONE;
	if (start(p, &err) == 0)
		return;
	log_event("role.exit", kv_str("name", names[p->kind]), kv_err("why", &err));
	forget_child(p);
	start_later(p);
}

void
process_send_doors(struct supervised *p)
{
	char text[HANDOVER_PACKET_BYTES];

	for (size_t i = 0; i < p->n_listeners; i++) {
		const struct role_listener *l = &p->listeners[i];

		if (!role_listener_is_door(l->kind) || p->sock < 0)
			continue;
		(void)snprintf(
		    text, sizeof(text), "listen %d %s", (int)l->kind, l->address); /* short */
		(void)handover_send(p->sock, text, l->fd, NULL); /* dying: it starts with them */
	}
}

bool
process_reload(struct supervised *p)
{
	struct err err;

	if (p->stopping || (p->state != PROCESS_UP && p->state != PROCESS_STARTING))
		return false;	/* it will start with the new one */
	p->reloading = handover_send(p->sock, "reload", p->snapshot_fd, &err) == 0;
	return p->reloading;
}

bool
process_owes_answer(const struct supervised *p)
{
	return p->reloading;
}

/* The listener of p that does what l, of another worker, does; n_listeners where it has none. */
static size_t
counterpart(const struct supervised *p, const struct role_listener *l)
{
	size_t i = 0;

	while (i < p->n_listeners && (p->listeners[i].kind != l->kind ||
	    strcmp(p->listeners[i].name, l->name) != 0))
		i++;
	return i;
}

void
process_lend(struct supervised *p, const struct supervised *down)
{
	char text[64];

	for (size_t i = 0; i < down->n_listeners; i++) {
		const struct role_listener *l = &down->listeners[i];
		size_t mine = counterpart(p, l);

		if (strncmp(l->address, "unix:", 5) == 0 || mine == p->n_listeners)
			continue;	/* all workers have it as it is, or of another supervisor */
		(void)snprintf(
		    text, sizeof(text), "lend %u %zu %zu", down->index, i, mine); /* fits */
		(void)handover_send(p->sock, text, l->fd, NULL); /* else its clients wait for it */
	}
}

void
process_take_back(struct supervised *p, const struct supervised *up)
{
	char text[32];

	(void)snprintf(text, sizeof(text), "return %u", up->index);	/* fits */
	(void)handover_send(p->sock, text, -1, NULL);	/* two that accept do no harm */
}

void
process_retire(struct supervised *p)
{
	p->stopping = true;
	(void)uv_timer_stop(&p->again);	/* cannot fail */
	if (p->state == PROCESS_DOWN)
		return;
	p->state = PROCESS_DRAINING;
	(void)handover_send(p->sock, "retire", -1, NULL); /* dead already: its exit is on the way */
}

static void
kill_child(struct supervised *p)
{
	if (p->adopted > 0)
		(void)kill(p->adopted, SIGKILL); /* not reaped yet, so it is still this one */
	else
		(void)uv_process_kill(
		    &p->child, SIGKILL); /* dead already: its exit is on the way */
}

void
process_look(struct supervised *p, const struct counters_page *page, unsigned most)
{
	if ((p->state != PROCESS_UP && p->state != PROCESS_DRAINING) || p->hung != HANG_NONE)
		return;	/* what stands on the page is of the one before, or it is dying */
	p->hung = hang_look(&p->watch, page, process_pid(p), most);
	if (p->hung == HANG_NONE)
		return;
	(void)snprintf(p->filter, sizeof(p->filter), "%.*s", (int)sizeof(page->filter) - 1,
	    page->filter);	/* as long as that one */
	kill_child(p);
}

bool
process_is_silent(const struct supervised *p)
{
	return p->state == PROCESS_UP && hang_is_silent(&p->watch);
}

unsigned
process_looks_in_filter(const struct supervised *p)
{
	return p->watch.in_filter;
}

void
process_drain(struct supervised *p, bool kill)
{
	p->stopping = true;
	(void)uv_timer_stop(&p->again);	/* cannot fail */
	if (p->state == PROCESS_DOWN)
		return;
	p->state = PROCESS_DRAINING;
	if (kill)
		kill_child(p);
	else
		(void)handover_send(p->sock, "drain", -1, NULL);	/* as above */
}

void
process_free(struct supervised *p)
{
	if (p == NULL)
		return;
	p->freed = true;
	forget_child(p);
	close_handle(p, (uv_handle_t *)&p->again);
}
