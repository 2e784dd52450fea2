/* relayd/supervisor/supervisor.c - binds, starts, restarts, reloads and ends the roles; parses no mail. */
#include "relayd/supervisor/supervisor.h"

#include "relayd/core/buf.h"
#include "relayd/core/clock.h"
#include "relayd/core/config_source.h"
#include "relayd/core/log.h"
#include "relayd/net/control.h"
#include "relayd/net/tickets.h"
#include "relayd/supervisor/lock.h"
#include "relayd/supervisor/process.h"
#include "relayd/supervisor/sandbox.h"
#include "relayd/supervisor/sockets.h"
#include "relayd/supervisor/watch.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <systemd/sd-daemon.h>
#include <time.h>
#include <unistd.h>

#define FIRST_WORKER    2	/* behind delivery and review */
#define PROCESSES_MAX   (SHARED_WORKERS + FIRST_WORKER)
#define BIND_WAIT_MS    30000	/* for the roles of a killed supervisor to let go of the ports */
#define BIND_RETRY_MS   100
#define KILL_AFTER_MS   25000	/* a drain takes at most so long */
#define BEAT_MS         1000
#define SNAPSHOT_MAX    (1u << 30)

/* A reload on its way: load, check in a child, hand over, collect the answers. */
struct reload {
	bool active;
	bool renewal;			/* of watched files alone, by ourselves */
	struct config *fresh;
	struct check check;
	uv_poll_t check_done;
	unsigned answers_due;
	struct err refused;		/* the first role that said no */
	struct control_request *request; /* relayctl's, or NULL for SIGHUP */
	bool again;			/* asked for once more meanwhile */
};

struct supervisor {
	uv_loop_t loop;
	const char *config_path;
	check_config check;
	struct config *cfg;
	struct owners owners;
	struct sockets *sockets;
	struct shared *shared;
	struct process_common common;
	struct supervised *processes[PROCESSES_MAX];
	unsigned n_processes;
	int snapshots[2];		/* without and with secrets */
	int lock;
	struct control *control;
	uv_signal_t signals[3];
	uv_timer_t beat, kill, look;
	struct watch watch;		/* of certificates */
	struct tickets *tickets[2];	/* keys of intake's and review's session tickets */
	struct reload reload;
	bool stopping, announced;
};

static int
snapshot_fd(const struct config *cfg, bool secrets, struct err *err)
{
	struct buf bytes = buf_heap(SNAPSHOT_MAX);
	int fd;

	config_snapshot(cfg, secrets, &bytes);
	fd = bytes.overflow ? err_set(err, ERR_LIMIT, "the files of the config are over 1 GiB")
			    : handover_memfd("relayd-config", buf_slice(&bytes), err);
	if (bytes.p != NULL)
		explicit_bzero(bytes.p, bytes.len);	/* keys */
	buf_fini(&bytes);
	return fd;
}

/* The roles started from now on begin with cfg. */
static int
use_config(struct supervisor *s, struct config *cfg, struct err *err)
{
	int fds[2];

	fds[0] = snapshot_fd(cfg, false, err);
	fds[1] = fds[0] >= 0 ? snapshot_fd(cfg, true, err) : -1;
	if (fds[1] < 0) {
		if (fds[0] >= 0)
			(void)close(fds[0]);	/* given up */
		return -1;
	}
	for (int i = 0; i < 2; i++) {
		if (s->snapshots[i] >= 0)
			(void)close(s->snapshots[i]);	/* the roles have their own */
		s->snapshots[i] = fds[i];
	}
	s->cfg = cfg;
	watch_files(&s->watch, cfg);
	for (unsigned i = 0; i < s->n_processes; i++)	/* delivery, the first, sees no secrets */
		process_set_config(s->processes[i], cfg->path, s->snapshots[i > 0]);
	return 0;
}

/* ---- reload ------------------------------------------------------------------------------- */

static void begin_reload(struct supervisor *s, struct control_request *request);
static void check_fresh(struct supervisor *s, struct err *err);

static void
end_reload(struct supervisor *s, const struct err *err)
{
	struct control_request *request = s->reload.request;
	bool again = s->reload.again;

	if (err != NULL)
		log_event("reload", kv_str("result", "refused"), kv_err("why", err));
	else
		log_event("reload", kv_str("result", "done"),
		    kv_int("generation", s->cfg->generation),
		    s->reload.renewal ? kv_str("why", "certificates") : (struct kv){ .type = KV_NONE });
	s->reload.active = s->reload.again = s->reload.renewal = false;
	s->reload.request = NULL;
	if (request != NULL)
		control_end(request, err);
	(void)sd_notify(0, "READY=1");	/* no systemd: nothing to tell */
	if (again)
		begin_reload(s, NULL);
}

static void
say_warning(struct supervisor *s, const char *text)
{
	log_event("reload", kv_str("warning", text));
	if (s->reload.request != NULL)
		control_line(s->reload.request, json_pack("{s:s}", "warning", text));
}

static void
on_reload_answer(void *owner, const char *why)
{
	struct supervisor *s = owner;

	if (why != NULL && s->reload.refused.code == ERR_NONE)
		(void)err_set(&s->reload.refused, ERR_CONFIG, "%s", why);	/* kept for the end */
	if (--s->reload.answers_due == 0)
		end_reload(s, s->reload.refused.code == ERR_NONE ? NULL : &s->reload.refused);
}

static void
hand_over(struct supervisor *s)
{
	struct config *old = s->cfg;
	struct err err = { 0 };
	const char *restart = sockets_changed(old, s->reload.fresh);

	for (size_t i = 0; config_warning(s->reload.fresh, i) != NULL; i++)
		say_warning(s, config_warning(s->reload.fresh, i));
	if (restart != NULL)
		say_warning(s, restart);
	if (use_config(s, s->reload.fresh, &err) < 0) {
		config_unref(s->reload.fresh);
		end_reload(s, &err);
		return;
	}
	config_unref(old);
	s->reload.refused = (struct err){ 0 };
	s->reload.answers_due = 1;	/* our own, so that it cannot end before all are asked */
	for (unsigned i = 0; i < s->n_processes; i++)
		s->reload.answers_due += process_reload(s->processes[i]);
	on_reload_answer(s, NULL);
}

static void
on_check_closed(uv_handle_t *handle)
{
	struct supervisor *s = handle->data;
	struct err err = { 0 };

	if (check_finish(&s->reload.check, &err) == 0) {
		hand_over(s);
		return;
	}
	config_unref(s->reload.fresh);
	end_reload(s, &err);
}

static void
on_check_done(uv_poll_t *poll, int status, int events)
{
	(void)status;	/* a failed poll ends the same way: check_finish() waits */
	(void)events;
	uv_close((uv_handle_t *)poll, on_check_closed);
}

static void
begin_reload(struct supervisor *s, struct control_request *request)
{
	struct err err = { 0 };

	if (s->reload.active) {
		s->reload.again = true;
		if (request != NULL) {
			(void)err_set(&err, ERR_BUSY, "a reload is on its way; another follows it");
			control_end(request, &err);
		}
		return;
	}
	s->reload.active = true;
	s->reload.request = request;
	(void)sd_notify(0, "RELOADING=1");	/* no systemd: nothing to tell */
	s->reload.fresh = config_load(s->config_path, config_source_disk(), &err);
	check_fresh(s, &err);
}

static void
check_fresh(struct supervisor *s, struct err *err)
{
	if (s->reload.fresh == NULL) {
		end_reload(s, err);
		return;
	}
	if (check_start(&s->reload.check, s->reload.fresh, &s->owners.mail, s->owners.root, s->check,
		err) < 0 || uv_poll_init(&s->loop, &s->reload.check_done, s->reload.check.fd) < 0) {
		config_unref(s->reload.fresh);
		end_reload(s, err);
		return;
	}
	s->reload.check_done.data = s;
	(void)uv_poll_start(&s->reload.check_done, UV_READABLE | UV_DISCONNECT, on_check_done);	/* a fresh handle */
}

/* Certificates and what goes with them, as they are now, under the config that serves: what else was
 * edited meanwhile waits for its reload.  A pair that does not fit, half written maybe, changes nothing. */
static void
begin_renewal(struct supervisor *s)
{
	struct err err = { 0 };
	struct config *fresh = config_renew(s->cfg, &err);

	if (fresh != NULL && config_same_files(fresh, s->cfg)) {
		config_unref(fresh);
		return;
	}
	s->reload.active = s->reload.renewal = true;
	s->reload.fresh = fresh;
	(void)sd_notify(0, "RELOADING=1");	/* no systemd: nothing to tell */
	check_fresh(s, &err);
}

static void
on_look(uv_timer_t *timer)
{
	struct supervisor *s = container_of(timer, struct supervisor, look);

	for (size_t i = 0; i < ARRAY_LEN(s->tickets); i++)
		tickets_turn(s->tickets[i], clock_mono_ms(), s->cfg->tls.ticket_lifetime_s);
	if (!s->reload.active && !s->stopping && watch_look(&s->watch))
		begin_renewal(s);
}

/* ---- workers for each other --------------------------------------------------------------- */

/* The kernel hands a part of the connections to each worker's socket, whether it is there or not:
 * while one is down the others accept for it. */
static void
lend_sockets(struct supervisor *s, unsigned index)
{
	const struct supervised *down = s->processes[FIRST_WORKER + index];

	for (unsigned i = FIRST_WORKER; i < s->n_processes; i++)
		if (process_state(s->processes[i]) == PROCESS_UP)
			process_lend(s->processes[i], down);
}

/* One is up again: it serves for itself, and helps with what others are still down. */
static void
take_sockets_back(struct supervisor *s, unsigned index)
{
	struct supervised *up = s->processes[FIRST_WORKER + index];

	for (unsigned i = FIRST_WORKER; i < s->n_processes; i++) {
		if (s->processes[i] == up)
			continue;
		if (process_state(s->processes[i]) == PROCESS_UP)
			process_take_back(s->processes[i], up);
		else if (process_state(s->processes[i]) == PROCESS_DOWN)
			process_lend(up, s->processes[i]);
	}
}

/* ---- the end ------------------------------------------------------------------------------ */

static void
on_kill_time(uv_timer_t *timer)
{
	struct supervisor *s = container_of(timer, struct supervisor, kill);

	for (unsigned i = 0; i < s->n_processes; i++)
		process_drain(s->processes[i], true);
}

static void
end_if_over(struct supervisor *s)
{
	for (unsigned i = 0; i < s->n_processes; i++)
		if (process_state(s->processes[i]) != PROCESS_DOWN)
			return;
	uv_stop(&s->loop);
}

static void
begin_stop(struct supervisor *s)
{
	bool hard = s->stopping;	/* asked twice: now */

	s->stopping = true;
	(void)sd_notify(0, "STOPPING=1");	/* no systemd: nothing to tell */
	for (unsigned i = 0; i < s->n_processes; i++)
		process_drain(s->processes[i], hard);
	(void)uv_timer_start(&s->kill, on_kill_time, KILL_AFTER_MS, 1000);	/* a live timer: cannot fail */
	end_if_over(s);	/* all may wait to be started again: then nobody else ends it */
}

static void
on_ended(void *owner, enum role_kind kind, unsigned index)
{
	struct supervisor *s = owner;

	if (kind == ROLE_INTAKE)
		shared_clear(s->shared, index);	/* its connections died with it */
	if (s->stopping)
		end_if_over(s);
	else if (kind == ROLE_INTAKE)
		lend_sockets(s, index);
}

static void
on_ready(void *owner, enum role_kind kind, unsigned index)
{
	struct supervisor *s = owner;

	if (kind == ROLE_INTAKE && !s->stopping)
		take_sockets_back(s, index);
}

static void
on_signal(uv_signal_t *sig, int number)
{
	struct supervisor *s = sig->data;

	if (number == SIGHUP)
		begin_reload(s, NULL);
	else
		begin_stop(s);
}

static void
on_beat(uv_timer_t *timer)
{
	struct supervisor *s = container_of(timer, struct supervisor, beat);
	bool up = true;

	counter_beat();
	for (unsigned i = 0; i < s->n_processes; i++)
		up = up && process_state(s->processes[i]) == PROCESS_UP;
	if (up && !s->announced) {
		s->announced = true;
		uv_timer_set_repeat(&s->beat, BEAT_MS);
		log_event("role.start", kv_int("pid", getpid()), kv_str("ready", "yes"));
		(void)sd_notify(0, "READY=1");	/* no systemd: nothing to tell */
	}
	log_flush();
}

/* ---- relayctl ----------------------------------------------------------------------------- */

static void
tell_status(struct supervisor *s, struct control_request *req)
{
	static const char *const states[] = { "down", "starting", "up", "draining" };

	for (unsigned i = 0; i < s->n_processes; i++)
		control_line(req, json_pack("{s:s, s:i, s:i, s:s}", "role",
		    i == 0 ? "delivery" : i == 1 ? "review" : "intake", "index", i > 1 ? (int)i - 2 : 0,
		    "pid", process_pid(s->processes[i]), "state", states[process_state(s->processes[i])]));
	control_end(req, NULL);
}

static void
on_request(void *owner, struct control_request *req)
{
	struct supervisor *s = owner;
	struct slice op = control_string(req, "op");
	struct err err = { 0 };

	if (slice_eq(op, SLICE("reload"))) {
		begin_reload(s, req);
	} else if (slice_eq(op, SLICE("stop"))) {
		control_end(req, NULL);
		if (!s->stopping)
			begin_stop(s);
	} else if (slice_eq(op, SLICE("status"))) {
		tell_status(s, req);
	} else {
		(void)err_set(&err, ERR_PROTOCOL, "unknown op");
		control_end(req, &err);
	}
}

/* ---- the start ---------------------------------------------------------------------------- */

/* Waits for the roles of a supervisor that was killed, which let go of their ports as they finish. */
static struct sockets *
bind_sockets(const struct config *cfg, const struct owners *owners, bool wait, struct err *err)
{
	struct timespec pause = { .tv_nsec = BIND_RETRY_MS * 1000000L };
	int64_t end = clock_mono_ms() + (wait ? BIND_WAIT_MS : 0);
	struct sockets *made;

	for (;;) {
		made = sockets_bind(cfg, owners, err);
		if (made != NULL || err->code != ERR_BUSY || clock_mono_ms() >= end)
			return made;
		(void)nanosleep(&pause, NULL);	/* a signal only makes it shorter */
	}
}

static int
make_common(struct supervisor *s, struct err *err)
{
	static const struct process_events events = { on_ready, on_reload_answer, on_ended };
	char path[ROLE_PATH_BYTES];
	struct counters_page *pages;

	(void)snprintf(path, sizeof(path), "%s/counters", s->cfg->run);	/* too long: create refuses it */
	s->common = (struct process_common){ .loop = &s->loop, .program = "/proc/self/exe",
		.review_uid = s->owners.review.uid, .root = s->owners.root, .events = &events, .owner = s };
	s->common.tickets_fd[ROLE_DELIVERY] = -1;
	s->tickets[0] = tickets_create(&s->common.tickets_fd[ROLE_INTAKE], err);
	s->tickets[1] = s->tickets[0] != NULL
		? tickets_create(&s->common.tickets_fd[ROLE_REVIEW], err) : NULL;
	if (s->tickets[1] == NULL)
		return -1;
	s->common.shared_fd = shared_create(err);
	if (s->common.shared_fd < 0 || (s->shared = shared_map(s->common.shared_fd, err)) == NULL)
		return -1;
	s->common.counters_fd = counters_create(path, err);
	if (s->common.counters_fd < 0 ||
	    counters_map(s->common.counters_fd, true, &pages, err) < 0)
		return -1;
	counters_use(&pages[0], "supervisor", 0);
	s->common.poke_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	return s->common.poke_fd < 0 ? err_sys(err, errno, "eventfd") : 0;
}

static int
add_process(struct supervisor *s, enum role_kind kind, unsigned index, struct err *err)
{
	struct role_listener listeners[HANDOVER_LISTENERS_MAX];
	size_t n = sockets_of(s->sockets, kind, index, listeners, ARRAY_LEN(listeners));
	struct owner owner = kind == ROLE_REVIEW ? s->owners.review : s->owners.mail;
	struct supervised *p = process_new(&s->common, kind, index, s->n_processes + 1, owner,
	    listeners, n);

	if (p == NULL)
		return err_set(err, ERR_NOMEM, "no memory for a process");
	s->processes[s->n_processes++] = p;
	return 0;
}

static int
watch(struct supervisor *s, struct err *err)
{
	static const int numbers[] = { SIGTERM, SIGINT, SIGHUP };
	int rc = 0;

	for (size_t i = 0; i < ARRAY_LEN(numbers) && rc == 0; i++) {
		s->signals[i].data = s;
		rc = uv_signal_init(&s->loop, &s->signals[i]);
		if (rc == 0)
			rc = uv_signal_start(&s->signals[i], on_signal, numbers[i]);
	}
	if (rc < 0 || (rc = uv_timer_init(&s->loop, &s->kill)) < 0 ||
	    (rc = uv_timer_init(&s->loop, &s->beat)) < 0 ||
	    (rc = uv_timer_init(&s->loop, &s->look)) < 0 ||
	    (rc = uv_timer_start(&s->look, on_look, WATCH_MS, WATCH_MS)) < 0 ||
	    (rc = uv_timer_start(&s->beat, on_beat, 20, 20)) < 0)
		return err_sys(err, -rc, "loop");
	s->control = control_open(&s->loop, sockets_control(s->sockets), s->owners.mail.uid, on_request,
	    s, err);
	return s->control != NULL ? 0 : -1;
}

static int
check_once(struct supervisor *s, struct err *err)
{
	struct check c;

	return check_start(&c, s->cfg, &s->owners.mail, s->owners.root, s->check, err) < 0 ||
	    check_finish(&c, err) < 0 ? -1 : 0;
}

static int
set_up(struct supervisor *s, struct err *err)
{
	bool unclean = false;

	s->cfg = config_load(s->config_path, config_source_disk(), err);
	if (s->cfg == NULL || owners_find(s->cfg, &s->owners, err) < 0 || check_once(s, err) < 0 ||
	    owners_make_dirs(s->cfg, &s->owners, err) < 0)
		return -1;
	s->lock = lock_take(s->cfg, &unclean, err);
	if (s->lock < 0)
		return -1;
	s->sockets = bind_sockets(s->cfg, &s->owners, unclean, err);
	if (s->sockets == NULL || make_common(s, err) < 0 || watch(s, err) < 0 ||
	    add_process(s, ROLE_DELIVERY, 0, err) < 0 || add_process(s, ROLE_REVIEW, 0, err) < 0)
		return -1;
	for (unsigned i = 0; i < s->cfg->workers; i++)
		if (add_process(s, ROLE_INTAKE, i, err) < 0)
			return -1;
	if (s->owners.root && sandbox_keep_supervisor_caps(err) < 0)
		return -1;
	return sandbox_basics(err) < 0 ? -1 : use_config(s, s->cfg, err);
}

static void
close_any(uv_handle_t *handle, void *arg)
{
	(void)arg;
	if (!uv_is_closing(handle))
		uv_close(handle, NULL);
}

static void
tear_down(struct supervisor *s)
{
	for (unsigned i = 0; i < s->n_processes; i++)
		process_free(s->processes[i]);
	control_close(s->control);
	(void)uv_run(&s->loop, UV_RUN_NOWAIT);	/* close callbacks */
	uv_walk(&s->loop, close_any, NULL);
	(void)uv_run(&s->loop, UV_RUN_NOWAIT);	/* as above */
	(void)uv_loop_close(&s->loop);		/* what is still open ends with the process */
	sockets_close(s->sockets);
	watch_fini(&s->watch);
	config_unref(s->cfg);
	for (int i = 0; i < 2; i++)
		if (s->snapshots[i] >= 0)
			(void)close(s->snapshots[i]);	/* a memfd: nothing to lose */
	if (s->lock >= 0)
		lock_release(s->lock);
}

int
supervisor_run(const char *config_path, check_config check)
{
	static struct supervisor supervisor;
	struct supervisor *s = &supervisor;
	struct err err = { 0 };

	s->config_path = config_path;
	s->check = check;
	s->snapshots[0] = s->snapshots[1] = s->lock = -1;
	if (uv_loop_init(&s->loop) < 0)
		return EXIT_FAILURE;
	if (set_up(s, &err) < 0) {
		fprintf(stderr, "%s%s\n", err.code == ERR_CONFIG ? "" : "relayd: ", err.msg);
		tear_down(s);
		return EXIT_FAILURE;
	}
	log_open(s->cfg->log_syslog ? LOG_SINK_SYSLOG : LOG_SINK_STDERR, "supervisor", -1);
	for (size_t i = 0; config_warning(s->cfg, i) != NULL; i++)
		log_event("reload", kv_str("warning", config_warning(s->cfg, i)));
	if (!s->owners.root)
		log_event("limit", kv_str("what", "privileges"),
		    kv_str("why", "not started as root: all roles share one uid"));
	for (unsigned i = 0; i < s->n_processes; i++)
		process_start(s->processes[i]);
	(void)uv_run(&s->loop, UV_RUN_DEFAULT);	/* ends by uv_stop() */
	log_drain(500);
	tear_down(s);
	return EXIT_SUCCESS;
}
