/* relayd/supervisor/supervisor.c - binds, starts, restarts, reloads and ends the roles; parses no
 * mail. */
#include "relayd/supervisor/supervisor.h"

#include "relayd/core/buf.h"
#include "relayd/core/clock.h"
#include "relayd/core/config_source.h"
#include "relayd/core/log.h"
#include "relayd/supervisor/inside.h"
#include "relayd/supervisor/lock.h"
#include "relayd/supervisor/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <systemd/sd-daemon.h>
#include <time.h>
#include <unistd.h>

#define BIND_WAIT_MS  30000	/* for the roles of a killed supervisor to let go of the ports */
#define BIND_RETRY_MS 100
#define KILL_AFTER_MS 25000	/* a drain takes at most so long */
#define BEAT_MS       1000
#define SNAPSHOT_MAX  (1u << 30)
#define LAST_ROUNDS   10 /* of the loop, for answers to go out before another program takes over */

static const enum role_kind fixed_kinds[] = { ROLE_DELIVERY, ROLE_REVIEW };
static const enum role_kind ticket_kinds[UPGRADE_TICKETS] = { ROLE_INTAKE, ROLE_REVIEW };

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

int
supervisor_snapshots(const struct config *cfg, int fds[static 2], struct err *err)
{
	fds[0] = snapshot_fd(cfg, false, err);
	fds[1] = fds[0] >= 0 ? snapshot_fd(cfg, true, err) : -1;
	if (fds[1] >= 0)
		return 0;
	if (fds[0] >= 0)
		(void)close(fds[0]);	/* given up */
	fds[0] = -1;
	return -1;
}

void
supervisor_use_config(struct supervisor *s, struct config *cfg, const int snapshots[static 2])
{
	for (int i = 0; i < 2; i++) {
		if (s->snapshots[i] >= 0)
			(void)close(s->snapshots[i]);	/* the roles have their own */
		s->snapshots[i] = snapshots[i];
	}
	s->cfg = cfg;
	watch_files(&s->watch, cfg);
	for (size_t i = 0; i < ARRAY_LEN(s->fixed); i++) /* delivery, the first, sees no secrets */
		process_set_config(s->fixed[i], s->config_path, s->snapshots[i]);
	workers_set_config(s->workers, s->config_path, s->snapshots[1]);
}

/* ---- the end ------------------------------------------------------------------------------ */

static void
drain_all(struct supervisor *s, bool hard)
{
	for (size_t i = 0; i < ARRAY_LEN(s->fixed); i++) {
		process_drain(s->fixed[i], hard);
		if (s->change.old[i] != NULL)
			process_drain(s->change.old[i], hard);
	}
	workers_drain(s->workers, hard);
}

static bool
all_gone(const struct supervisor *s)
{
	for (size_t i = 0; i < ARRAY_LEN(s->fixed); i++)
		if (process_state(s->fixed[i]) != PROCESS_DOWN || s->change.old[i] != NULL)
			return false;
	return workers_are_gone(s->workers);
}

static void
on_kill_time(uv_timer_t *timer)
{
	drain_all(container_of(timer, struct supervisor, kill), true);
}

static void
stop_if_gone(struct supervisor *s)
{
	if (s->stopping && all_gone(s))
		uv_stop(&s->loop);
}

static void
begin_stop(struct supervisor *s)
{
	bool hard = s->stopping;	/* asked twice: now */

	s->stopping = true;
	(void)sd_notify(0, "STOPPING=1");	/* no systemd: nothing to tell */
	drain_all(s, hard);
	(void)uv_timer_start(
	    &s->kill, on_kill_time, KILL_AFTER_MS, 1000); /* a live timer: cannot fail */
	stop_if_gone(s);	/* all may be between two starts */
}

/* ---- what processes tell ------------------------------------------------------------------ */

static void
on_reload_answer(void *owner, const char *why)
{
	reload_answered(owner, why);
}

static void
on_fixed_ready(void *owner, enum role_kind kind, unsigned index)
{
	(void)owner;	/* the beat looks at all of them */
	(void)kind;
	(void)index;
}

static void
on_fixed_exit(void *owner, enum role_kind kind, unsigned index)
{
	(void)kind;
	(void)index;
	stop_if_gone(owner);
}

/* A role of the supervisor before us has let go of its lock: now ours can have it. */
static void
on_old_exit(void *owner, enum role_kind kind, unsigned index)
{
	struct supervisor *s = owner;
	size_t i = kind == fixed_kinds[1];

	(void)index;
	process_free(s->change.old[i]);
	s->change.old[i] = NULL;
	if (s->stopping)
		stop_if_gone(s);
	else
		process_start(s->fixed[i]);
}

static void
on_workers_ready(void *owner)
{
	struct supervisor *s = owner;

	if (s->reload.active) {
		reload_workers_ready(s);
		return;
	}
	workers_commit(s->workers);	/* of a start after an upgrade */
	reload_waiting(s);
}

static void
on_workers_failed(void *owner)
{
	reload_workers_failed(owner);
}

static void
on_workers_gone(void *owner)
{
	stop_if_gone(owner);
}

/* ---- becoming another program ---------------------------------------------------------------- */

static void
end_change(struct supervisor *s, const struct err *err)
{
	struct control_request *request = s->change.request;

	if (err != NULL)
		log_event("upgrade", kv_str("result", "refused"), kv_err("why", err));
	else
		control_line(request, json_pack("{s:i}", "upgrades", (int)s->change.count));
	s->change.request = NULL;
	control_end(request, err);
}

static void
on_change_checked(uv_handle_t *handle)
{
	struct supervisor *s = handle->data;
	struct err err = { 0 };
	bool good = check_finish(&s->change.check, &err) == 0;

	end_change(s, good ? NULL : &err);
	s->change.due = good && !s->stopping;
	if (s->change.due)
		uv_stop(&s->loop);
	else
		reload_waiting(s);
}

static void
on_change_check_done(uv_poll_t *poll, int status, int events)
{
	(void)status;	/* a failed poll ends the same way: check_finish() waits */
	(void)events;
	uv_close((uv_handle_t *)poll, on_change_checked);
}

static void
tell_changed(struct supervisor *s)
{
	struct control_request *waiter = s->change.waiter;

	s->change.waiter = NULL;
	if (waiter == NULL)
		return;
	control_line(waiter, json_pack("{s:i, s:s, s:i}", "upgrades", (int)s->change.count,
				 "version", RELAYD_VERSION, "pid", (int)getpid()));
	control_end(waiter, NULL);
}

static bool
all_serve(const struct supervisor *s)
{
	for (size_t i = 0; i < ARRAY_LEN(s->fixed); i++)
		if (process_state(s->fixed[i]) != PROCESS_UP)
			return false;
	return workers_serve(s->workers);
}

/* Once, when everyone serves. */
static void
announce(struct supervisor *s)
{
	if (s->announced || !all_serve(s))
		return;
	s->announced = true;
	counter_serving();
	uv_timer_set_repeat(&s->beat, BEAT_MS);
	log_event("role.start", kv_int("pid", getpid()), kv_str("ready", "yes"),
	    kv_str("version", RELAYD_VERSION));
	if (s->change.count > 0)
		log_event("upgrade", kv_str("result", "done"), kv_int("count", s->change.count));
	tell_changed(s);
	(void)sd_notify(0, "READY=1");	/* no systemd: nothing to tell */
}

/* What the program that follows could not take over: it starts with the config as it is now, and
 * there is no way back.  So its listeners are bound once by us. */
static int
can_change(const struct supervisor *s, struct err *err)
{
	struct config *cfg = config_load(s->config_path, config_source_disk(), err);
	struct sockets *trial = NULL;
	const char *restart;

	if (cfg == NULL)
		return -1;
	restart = sockets_need_restart(s->cfg, cfg);
	if (cfg->workers >
	    s->cfg->workers) /* one more socket of a port that serves would get connections */
		cfg->workers = s->cfg->workers;
	if (restart != NULL)
		(void)err_set(err, ERR_CONFIG, "%s, and no upgrade", restart);	/* told below */
	else
		trial = sockets_bind(cfg, &s->owners, s->sockets, err);
	config_unref(cfg);
	if (trial == NULL)
		return -1;
	sockets_undo(trial);
	return 0;
}

static void
begin_change(struct supervisor *s, struct control_request *request)
{
	struct change *ch = &s->change;
	struct err err = { 0 };

	announce(s);	/* who sees all roles up may ask before the next beat */
	if (s->stopping || s->reload.active || ch->request != NULL || !s->announced) {
		(void)err_set(&err, ERR_BUSY, "%s is on its way; try again in a moment",
		    s->stopping ? "a stop" : s->reload.active ? "a reload" : ch->request != NULL ?
		    "an upgrade" : "the start");
		control_end(request, &err);
		return;
	}
	ch->request = request;
	if (can_change(s, &err) < 0 ||
	    upgrade_check(&ch->check, ch->program, s->config_path, &err) < 0 ||
	    uv_poll_init(&s->loop, &ch->check_done, ch->check.fd) < 0) {
		end_change(s, &err);
		return;
	}
	ch->check_done.data = s;
	(void)uv_poll_start(&ch->check_done, UV_READABLE | UV_DISCONNECT,
	    on_change_check_done);	/* a fresh handle */
}

static void
add_worker(void *arg, const struct supervised *p, unsigned index)
{
	upgrade_add(arg, ROLE_INTAKE, index, p);
}

/* Comes back only when it fails. */
static void
become(struct supervisor *s)
{
	struct upgrade up = { .sockets = s->sockets,
		.lock = s->lock,
		.shared_fd = s->common.shared_fd,
		.counters_fd = s->common.counters_fd,
		.poke_fd = s->common.poke_fd,
		.count = s->change.count };
	struct err err = { 0 };

	upgrade_hold_signals(true);	/* what comes from here on is for who follows */
	for (int i = 0; i < LAST_ROUNDS; i++)
		(void)uv_run(&s->loop, UV_RUN_NOWAIT); /* what it returns is whether more is open */
	if (s->stopping) {
		s->change.due = false;
		upgrade_hold_signals(false);
		return;
	}
	for (size_t i = 0; i < UPGRADE_TICKETS; i++)
		up.tickets_fd[i] = s->common.tickets_fd[ticket_kinds[i]];
	for (size_t i = 0; i < ARRAY_LEN(s->fixed); i++)
		upgrade_add(&up, fixed_kinds[i], 0, s->fixed[i]);
	workers_each(s->workers, add_worker, &up);
	log_event(
	    "upgrade", kv_str("result", "handing-over"), kv_str("program", s->change.program));
	log_drain(500);
	upgrade_exec(&up, s->change.program, s->config_path, &err);
	upgrade_hold_signals(false);
	log_event("upgrade", kv_str("result", "failed"), kv_err("why", &err));
	s->change.due = false;
	reload_waiting(s);
}

static void
wait_for_change(struct supervisor *s, struct control_request *request)
{
	struct err err = { 0 };

	if (s->change.waiter != NULL) {
		(void)err_set(&err, ERR_BUSY, "somebody else waits for it");
		control_end(request, &err);
		return;
	}
	s->change.waiter = request;
	if (s->announced)
		tell_changed(s);
}

/* ---- signals and time ------------------------------------------------------------------------ */

static void
on_signal(uv_signal_t *sig, int number)
{
	struct supervisor *s = sig->data;

	if (number != SIGHUP)
		begin_stop(s);
	else if (!s->stopping)
		reload_begin(s, NULL);
}

static void
on_beat(uv_timer_t *timer)
{
	struct supervisor *s = container_of(timer, struct supervisor, beat);

	counter_beat();
	workers_beat(s->workers);
	announce(s);
	log_flush();
}

/* While one of them stands still its lock keeps ours from starting. */
static void
end_old(struct supervisor *s)
{
	for (size_t i = 0; i < ARRAY_LEN(s->change.old); i++) {
		if (s->change.old[i] == NULL ||
		    clock_mono_ms() - s->change.old_since_ms < KILL_AFTER_MS)
			continue;
		log_event("limit", kv_str("what", "drain"),
		    kv_int("pid", process_pid(s->change.old[i])), kv_int("ms", KILL_AFTER_MS),
		    kv_str("why", "killed: it did not end after an upgrade"));
		process_drain(s->change.old[i], true);
	}
}

static void
on_look(uv_timer_t *timer)
{
	struct supervisor *s = container_of(timer, struct supervisor, look);

	for (size_t i = 0; i < UPGRADE_TICKETS; i++)
		tickets_turn(s->tickets[i], clock_mono_ms(), s->cfg->tls.ticket_lifetime_s);
	workers_look(s->workers, s->cfg->limits.filter_s * 1000 / WATCH_MS);
	end_old(s);
	reload_look(s);
	if (!s->stopping)
		reload_renewed(s);
}

/* ---- relayctl ----------------------------------------------------------------------------- */

static void
tell_process(
    struct control_request *req, const char *role, unsigned index, const struct supervised *p)
{
	static const char *const states[] = { "down", "starting", "up", "draining" };

	control_line(req, json_pack("{s:s, s:i, s:i, s:s}", "role", role, "index", (int)index,
			      "pid", process_pid(p), "state", states[process_state(p)]));
}

static void
tell_worker(void *arg, const struct supervised *p, unsigned index)
{
	tell_process(arg, "intake", index, p);
}

static void
tell_status(struct supervisor *s, struct control_request *req)
{
	tell_process(req, "delivery", 0, s->fixed[0]);
	tell_process(req, "review", 0, s->fixed[1]);
	workers_each(s->workers, tell_worker, req);
	control_end(req, NULL);
}

static void
on_request(void *owner, struct control_request *req)
{
	struct supervisor *s = owner;
	struct slice op = control_string(req, "op");
	struct err err = { 0 };

	if (slice_eq(op, SLICE("reload")) && !s->stopping) {
		reload_begin(s, req);
	} else if (slice_eq(op, SLICE("upgrade"))) {
		begin_change(s, req);
	} else if (slice_eq(op, SLICE("upgraded"))) {
		wait_for_change(s, req);
	} else if (slice_eq(op, SLICE("stop"))) {
		control_end(req, NULL);
		if (!s->stopping)
			begin_stop(s);
	} else if (slice_eq(op, SLICE("status"))) {
		tell_status(s, req);
	} else {
		(void)err_set(
		    &err, ERR_PROTOCOL, s->stopping ? "relayd is about to end" : "unknown op");
		control_end(req, &err);
	}
}

/* ---- the start ---------------------------------------------------------------------------- */

/* Waits for the roles of a supervisor that was killed, which let go of their ports as they
 * finish. */
static struct sockets *
bind_sockets(const struct config *cfg, const struct owners *owners, bool wait, struct err *err)
{
	struct timespec pause = { .tv_nsec = BIND_RETRY_MS * 1000000L };
	int64_t end = clock_mono_ms() + (wait ? BIND_WAIT_MS : 0);
	struct sockets *made;

	for (;;) {
		made = sockets_bind(cfg, owners, NULL, err);
		if (made != NULL || err->code != ERR_BUSY || clock_mono_ms() >= end)
			return made;
		(void)nanosleep(&pause, NULL);	/* a signal only makes it shorter */
	}
}

/* What the supervisor before us had is used on, unless its form is another. */
static int
take_memory(struct supervisor *s, const struct upgrade *before, struct err *err)
{
	_Atomic uint32_t *sleeps;
	char path[ROLE_PATH_BYTES];

	s->common.shared_fd = s->common.counters_fd = -1;
	if (before != NULL && shared_fits(before->shared_fd)) {
		s->common.shared_fd = before->shared_fd;
	} else if (before != NULL) {
		/* Its workers look there whether delivery sleeps: so they wake it always. */
		sleeps = mmap(NULL, sizeof(*sleeps), PROT_READ | PROT_WRITE, MAP_SHARED,
		    before->shared_fd, 0);
		if (sleeps != MAP_FAILED)
			*sleeps = 1;
	}
	if (s->common.shared_fd < 0)
		s->common.shared_fd = shared_create(err);
	(void)snprintf(
	    path, sizeof(path), "%s/counters", s->cfg->run); /* too long: create refuses it */
	if (before != NULL && counters_fit(before->counters_fd))
		s->common.counters_fd = before->counters_fd;
	else if (s->common.shared_fd >= 0)
		s->common.counters_fd = counters_create(path, err);
	return s->common.counters_fd < 0 ? -1 : 0;
}

/* Keys that the supervisor before us sealed tickets with go on to open them. */
static int
take_tickets(struct supervisor *s, const struct upgrade *before, struct err *err)
{
	s->common.tickets_fd[ROLE_DELIVERY] = -1;	/* it serves no TLS */
	for (size_t i = 0; i < UPGRADE_TICKETS; i++) {
		int *fd = &s->common.tickets_fd[ticket_kinds[i]];

		s->tickets[i] = before != NULL ? tickets_follow(before->tickets_fd[i], fd, err)
					       : tickets_create(fd, err);
		if (before != NULL)
			(void)close(before->tickets_fd[i]);	/* the old roles have their own */
		if (s->tickets[i] == NULL)
			return -1;
	}
	return 0;
}

static int
make_common(struct supervisor *s, const struct upgrade *before, struct err *err)
{
	static const struct process_events events = { on_reload_answer, on_fixed_ready,
		on_fixed_exit };
	static const struct process_events old_events = { on_reload_answer, on_fixed_ready,
		on_old_exit };
	static const struct workers_events workers = { on_workers_ready, on_workers_failed,
		on_reload_answer, on_workers_gone };

	s->common = (struct process_common){ .loop = &s->loop,
		.program = "/proc/self/exe",
		.review_uid = s->owners.review.uid,
		.root = s->owners.root,
		.events = &events,
		.owner = s };
	if (take_memory(s, before, err) < 0 || take_tickets(s, before, err) < 0 ||
	    (s->shared = shared_map(s->common.shared_fd, err)) == NULL ||
	    counters_map(s->common.counters_fd, true, &s->pages, err) < 0)
		return -1;
	counters_use(&s->pages[0], "supervisor", 0);
	s->common.poke_fd =
	    before != NULL ? before->poke_fd : eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (s->common.poke_fd < 0)
		return err_sys(err, errno, "eventfd");
	s->old_common = s->common;
	s->old_common.events = &old_events;
	s->workers = workers_new(&s->common, s->shared, s->pages, s->owners.mail, &workers, s);
	return s->workers != NULL ? 0 : err_set(err, ERR_NOMEM, "no memory for the workers");
}

static int
add_fixed(struct supervisor *s, size_t i, struct err *err)
{
	struct role_listener listeners[HANDOVER_LISTENERS_MAX];
	size_t n = sockets_of(s->sockets, fixed_kinds[i], 0, 1, listeners, ARRAY_LEN(listeners));
	struct owner owner = fixed_kinds[i] == ROLE_REVIEW ? s->owners.review : s->owners.mail;

	s->fixed[i] =
	    process_new(&s->common, fixed_kinds[i], 0, (unsigned)i + 1, owner, listeners, n);
	return s->fixed[i] != NULL ? 0 : err_set(err, ERR_NOMEM, "no memory for a process");
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
	s->control = control_open(
	    &s->loop, sockets_control(s->sockets), s->owners.mail.uid, on_request, s, err);
	return s->control != NULL ? 0 : -1;
}

static int
check_once(struct supervisor *s, struct err *err)
{
	struct check c;

	return check_start(&c, s->cfg, &s->owners.mail, s->owners.root, s->check, err) < 0 ||
	    check_finish(&c, err) < 0 ? -1 : 0;
}

/* The lock and the sockets: ours alone, or those of the supervisor before us. */
static int
take_places(struct supervisor *s, struct upgrade *before, struct err *err)
{
	bool unclean = false;

	if (before == NULL) {
		s->lock = lock_take(s->cfg, &unclean, err);
		if (s->lock >= 0)
			s->sockets = bind_sockets(s->cfg, &s->owners, unclean, err);
		return s->sockets != NULL ? 0 : -1;
	}
	s->lock = before->lock;
	s->sockets = sockets_bind(s->cfg, &s->owners, before->sockets, err);
	if (s->sockets == NULL)
		return -1;
	sockets_commit(s->sockets, before->sockets);
	before->sockets = NULL;
	return 0;
}

static int
adopt(struct supervisor *s, const struct upgrade *before, struct err *err)
{
	for (size_t i = 0; i < before->n_roles; i++) {
		const struct upgrade_role *r = &before->roles[i];
		size_t at = r->kind == fixed_kinds[1];

		if (r->kind == ROLE_INTAKE) {
			if (workers_adopt(s->workers, r->index, r->pid, r->sock, err) < 0)
				return -1;
			continue;
		}
		s->change.old[at] = process_adopt(&s->old_common, r->kind, 0, r->pid, r->sock, err);
		if (s->change.old[at] == NULL)
			return -1;
	}
	s->change.count = before->count;
	return 0;
}

static int
set_up(struct supervisor *s, struct upgrade *before, struct err *err)
{
	int snapshots[2];

	s->cfg = config_load(s->config_path, config_source_disk(), err);
	if (s->cfg == NULL || owners_find(s->cfg, &s->owners, err) < 0 ||
	    (before == NULL && check_once(s, err) < 0) ||	/* else it was just checked */
	    owners_make_dirs(s->cfg, &s->owners, err) < 0 || take_places(s, before, err) < 0 ||
	    make_common(s, before, err) < 0 || watch(s, err) < 0 ||
	    (before != NULL && adopt(s, before, err) < 0))
		return -1;
	for (size_t i = 0; i < ARRAY_LEN(s->fixed); i++)
		if (add_fixed(s, i, err) < 0)
			return -1;
	if ((s->owners.root && sandbox_keep_supervisor_caps(err) < 0) || sandbox_basics(err) < 0 ||
	    supervisor_snapshots(s->cfg, snapshots, err) < 0)
		return -1;
	supervisor_use_config(s, s->cfg, snapshots);
	return 0;
}

static int
start_roles(struct supervisor *s, bool fresh, struct err *err)
{
	if (workers_begin(s->workers, s->sockets, s->cfg->workers, s->config_path, s->snapshots[1],
		err) < 0)
		return -1;
	if (fresh)
		workers_commit(s->workers);	/* nobody serves meanwhile */
	s->change.old_since_ms = clock_mono_ms();
	for (size_t i = 0; i < ARRAY_LEN(s->fixed); i++) {
		if (s->change.old[i] != NULL)
			process_drain(s->change.old[i], false);	/* its end starts ours */
		else
			process_start(s->fixed[i]);
	}
	return 0;
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
	for (size_t i = 0; i < ARRAY_LEN(s->fixed); i++) {
		process_free(s->fixed[i]);
		process_free(s->change.old[i]);
	}
	workers_free(s->workers);
	control_close(s->control);
	uv_walk(&s->loop, close_any, NULL);	/* no timer may still look at what is freed */
	(void)uv_run(&s->loop, UV_RUN_NOWAIT);	/* close callbacks */
	(void)uv_run(&s->loop, UV_RUN_NOWAIT);	/* those that they close in turn */
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

static void
say_start(const struct supervisor *s)
{
	log_open(s->cfg->log_syslog ? LOG_SINK_SYSLOG : LOG_SINK_STDERR, "supervisor", -1);
	for (size_t i = 0; config_warning(s->cfg, i) != NULL; i++)
		log_event("reload", kv_str("warning", config_warning(s->cfg, i)));
	if (!s->owners.root)
		log_event("limit", kv_str("what", "privileges"),
		    kv_str("why", "not started as root: all roles share one uid"));
}

/* A role may hold as many files as the admin allows, not as few as a shell starts with: connections
 * are bounded by the config.  Roles inherit it. */
static void
raise_files(void)
{
	struct rlimit files;

	if (getrlimit(RLIMIT_NOFILE, &files) < 0 || files.rlim_cur == files.rlim_max)
		return;
	files.rlim_cur = files.rlim_max;
	(void)setrlimit(RLIMIT_NOFILE, &files);	/* relayctl check tells of too few */
}

int
supervisor_run(const char *config_path, check_config check, int upgrade_fd)
{
	static struct supervisor supervisor;
	static struct upgrade before;
	struct supervisor *s = &supervisor;
	struct err err = { 0 };
	bool fresh = upgrade_fd < 0;

	s->config_path = config_path;
	s->check = check;
	s->snapshots[0] = s->snapshots[1] = s->lock = -1;
	raise_files();
	upgrade_program(s->change.program);
	if (uv_loop_init(&s->loop) < 0)
		return EXIT_FAILURE;
	if ((!fresh && upgrade_take(upgrade_fd, &before, &err) < 0) ||
	    set_up(s, fresh ? NULL : &before, &err) < 0) {
		fprintf(stderr, "%s%s\n", err.code == ERR_CONFIG ? "" : "relayd: ", err.msg);
		tear_down(s);
		return EXIT_FAILURE;
	}
	upgrade_arrived();
	say_start(s);
	if (start_roles(s, fresh, &err) < 0) {
		log_event("role.exit", kv_err("why", &err));
		begin_stop(s);
	}
	do {
		(void)uv_run(&s->loop, UV_RUN_DEFAULT);	/* ends by uv_stop() */
		if (s->change.due)
			become(s);
	} while (!s->stopping || !all_gone(s));
	log_drain(500);
	tear_down(s);
	return EXIT_SUCCESS;
}
