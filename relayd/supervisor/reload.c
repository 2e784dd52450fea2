/* relayd/supervisor/reload.c - a new config: load, check in a child, hand over, collect the
 * answers. */
#include "relayd/supervisor/inside.h"

#include "relayd/core/config_source.h"
#include "relayd/core/log.h"

#include <stdio.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#define LOST_LOOKS 5  /* in one run of a filter: it will not answer soon */
#define LATE_LOOKS 20 /* without an answer; relayctl waits for half a minute */

static void
end_reload(struct supervisor *s, const struct err *err)
{
	struct control_request *request = s->reload.request;

	if (err != NULL)
		log_event("reload", kv_str("result", "refused"), kv_err("why", err));
	else
		log_event("reload", kv_str("result", "done"),
		    kv_int("generation", s->cfg->generation),
		    s->reload.renewal ? kv_str("why", "changed-files")
				      : (struct kv){ .type = KV_NONE });
	s->reload.active = s->reload.renewal = false;
	s->reload.request = NULL;
	if (request != NULL)
		control_end(request, err);
	(void)sd_notify(0, "READY=1"); /* no systemd: nothing to tell */
	reload_waiting(s);
}

/* The old config stays in force, and nothing of the fresh one is left. */
static void
refuse(struct supervisor *s, const struct err *err)
{
	struct reload *r = &s->reload;

	for (int i = 0; i < 2; i++)
		if (r->snapshots[i] >= 0)
			(void)close(r->snapshots[i]); /* a memfd: nothing to lose */
	sockets_undo(r->sockets);
	config_unref(r->fresh);
	r->sockets = NULL;
	r->fresh = NULL;
	end_reload(s, err);
}

static void
say_warning(struct supervisor *s, const char *text)
{
	log_event("reload", kv_str("warning", text));
	if (s->reload.request != NULL)
		control_line(s->reload.request, json_pack("{s:s}", "warning", text));
}

static void
say_warnings(struct supervisor *s)
{
	const char *restart = sockets_need_restart(s->cfg, s->reload.fresh);

	for (size_t i = 0; config_warning(s->reload.fresh, i) != NULL; i++)
		say_warning(s, config_warning(s->reload.fresh, i));
	if (restart != NULL)
		say_warning(s, restart);
}

void
reload_answered(struct supervisor *s, const char *why)
{
	struct reload *r = &s->reload;

	if (why != NULL && r->refused.code == ERR_NONE)
		(void)err_set(&r->refused, ERR_CONFIG, "%s", why); /* kept for the end */
	if (--r->answers_due == 0)
		end_reload(s, r->refused.code == ERR_NONE ? NULL : &r->refused);
}

/* ---- who does not answer --------------------------------------------------------------------- */

/* Those who have not answered, and the one of them to be named: a worker that is lost in a filter,
 * else the first. */
struct late {
	const struct counters_page *pages;
	unsigned n, lost;
	const struct supervised *process;
	unsigned page;
	char name[32];
};

static void
look_at(struct late *late, const struct supervised *p, const char *name, unsigned page)
{
	bool lost = process_looks_in_filter(p) >= LOST_LOOKS;

	if (!process_owes_answer(p))
		return;
	if (late->n == 0 || (lost && late->lost == 0)) {
		late->process = p;
		late->page = page;
		(void)snprintf(late->name, sizeof(late->name), "%s", name); /* short */
	}
	late->n++;
	late->lost += lost;
}

static void
look_at_worker(void *arg, const struct supervised *p, unsigned index)
{
	char name[32];

	(void)snprintf(name, sizeof(name), "intake worker %u", index); /* fits any number */
	look_at(arg, p, name, COUNTERS_WORKERS + index);
}

/* The reload goes on: a worker that is killed in its filter begins with the new config. */
static void
tell_late(struct supervisor *s, const struct late *late)
{
	struct control_request *request = s->reload.request;
	struct err err = { 0 };
	char why[128] = "it does not answer", others[48] = "all others have";

	if (late->lost > 0)
		(void)snprintf(why, sizeof(why),
		    "its filter %.*s does not return (limits { filter-time } ends that)",
		    COUNTERS_FILTER_BYTES - 1, late->pages[late->page].filter);
	if (late->n > 1)
		(void)snprintf(others, sizeof(others), "nor have %u more", late->n - 1);
	(void)err_set(&err, ERR_TIMEOUT, "%s (pid %d) has not taken the config yet: %s; %s",
	    late->name, process_pid(late->process), why, others);
	log_event("reload", kv_str("result", "late"), kv_err("why", &err));
	s->reload.request = NULL;
	if (request != NULL)
		control_end(request, &err);
}

void
reload_look(struct supervisor *s)
{
	struct late late = { .pages = s->pages };
	struct reload *r = &s->reload;

	if (r->answers_due == 0 || r->looks >= LATE_LOOKS)
		return;
	r->looks++;
	look_at(&late, s->fixed[0], "delivery", 0);
	look_at(&late, s->fixed[1], "review", 0);
	workers_each(s->workers, look_at_worker, &late);
	if (late.n == 0 || (late.lost == 0 && r->looks < LATE_LOOKS))
		return;
	r->looks = LATE_LOOKS; /* once is enough */
	tell_late(s, &late);
}

/* ---- the new config is in force -------------------------------------------------------------- */

/* The sockets of the fresh config are those of relayd from now on. */
static void
take_sockets(struct supervisor *s)
{
	static const enum role_kind kinds[] = { ROLE_DELIVERY, ROLE_REVIEW };
	struct role_listener listeners[HANDOVER_LISTENERS_MAX];

	sockets_commit(s->reload.sockets, s->sockets);
	s->sockets = s->reload.sockets;
	s->reload.sockets = NULL;
	for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
		size_t n = sockets_of(s->sockets, kinds[i], 0, 1, listeners, ARRAY_LEN(listeners));

		if (!process_set_listeners(s->fixed[i], listeners, n))
			say_warning(s, "no memory for the listeners: restart");
	}
}

/* Nothing can stop it any more, but a role that says no. */
static void
take_effect(struct supervisor *s)
{
	struct reload *r = &s->reload;
	struct config *old = s->cfg;
	bool doors = !sockets_same_review(old, r->fresh);

	if (r->sockets != NULL)
		take_sockets(s);
	supervisor_use_config(s, r->fresh, r->snapshots);
	r->fresh = NULL;
	config_unref(old);
	r->refused = (struct err){ 0 };
	r->looks = 0;
	r->answers_due = 1; /* our own, so that it cannot end before all are asked */
	if (doors)
		process_send_doors(s->fixed[1]);
	for (size_t i = 0; i < ARRAY_LEN(s->fixed); i++)
		r->answers_due += process_reload(s->fixed[i]);
	if (r->beginning)
		workers_commit(s->workers); /* they began with it */
	else
		r->answers_due += workers_reload(s->workers);
	r->beginning = false;
	reload_answered(s, NULL);
}

void
reload_workers_ready(struct supervisor *s)
{
	if (s->reload.beginning)
		take_effect(s);
}

void
reload_workers_failed(struct supervisor *s)
{
	struct err err = { 0 };

	if (!s->reload.beginning)
		return;
	s->reload.beginning = false;
	workers_abort(s->workers);
	(void)err_set(&err, ERR_CONFIG, "the new intake workers did not start: the log says why");
	refuse(s, &err);
}

static int
prepare(struct supervisor *s, bool generation, struct err *err)
{
	struct reload *r = &s->reload;

	if (supervisor_snapshots(r->fresh, r->snapshots, err) < 0)
		return -1;
	if (!generation && sockets_same_review(s->cfg, r->fresh))
		return 0;
	r->sockets = sockets_bind(r->fresh, &s->owners, s->sockets, err);
	return r->sockets != NULL ? 0 : -1;
}

static void
hand_over(struct supervisor *s)
{
	struct reload *r = &s->reload;
	bool generation = sockets_need_generation(s->cfg, r->fresh);
	struct err err = { 0 };

	say_warnings(s);
	r->beginning = generation;
	if (prepare(s, generation, &err) < 0 ||
	    (generation && workers_begin(s->workers, r->sockets, r->fresh->workers, s->config_path,
			       r->snapshots[1], &err) < 0)) {
		r->beginning = false;
		refuse(s, &err);
	} else if (!generation) {
		take_effect(s);
	}
}

static void
on_check_closed(uv_handle_t *handle)
{
	struct supervisor *s = handle->data;
	struct err err = { 0 };

	if (check_finish(&s->reload.check, &err) < 0 ||
	    (s->stopping && err_set(&err, ERR_CANCELLED, "relayd is about to end") < 0))
		refuse(s, &err);
	else
		hand_over(s);
}

static void
on_check_done(uv_poll_t *poll, int status, int events)
{
	(void)status; /* a failed poll ends the same way: check_finish() waits */
	(void)events;
	uv_close((uv_handle_t *)poll, on_check_closed);
}

/* The program that follows reads the config as it starts, and workers that begin under one more
 * would have sockets which it does not know. */
static bool
changes(const struct supervisor *s)
{
	return s->change.request != NULL || s->change.due;
}

static void
is_busy(struct supervisor *s, struct control_request *request)
{
	struct err err = { 0 };

	s->reload.again = true;
	if (request == NULL)
		return;
	(void)err_set(&err, ERR_BUSY,
	    changes(s) ? "an upgrade is on its way, and takes the config along"
		       : "a reload is on its way; another follows it");
	control_end(request, &err);
}

/* r->fresh, with *err where that is NULL, on its way. */
static void
check_fresh(struct supervisor *s, struct err *err)
{
	struct reload *r = &s->reload;

	r->active = true;
	r->snapshots[0] = r->snapshots[1] = -1;
	(void)sd_notify(0, "RELOADING=1"); /* no systemd: nothing to tell */
	if (r->fresh == NULL ||
	    check_start(&r->check, r->fresh, &s->owners.mail, s->owners.root, s->check, err) < 0 ||
	    uv_poll_init(&s->loop, &r->check_done, r->check.fd) < 0) {
		refuse(s, err);
		return;
	}
	r->check_done.data = s;
	(void)uv_poll_start(
	    &r->check_done, UV_READABLE | UV_DISCONNECT, on_check_done); /* a fresh handle */
}

void
reload_begin(struct supervisor *s, struct control_request *request)
{
	struct err err = { 0 };

	if (s->reload.active || workers_are_beginning(s->workers) || changes(s)) {
		is_busy(s, request);
		return;
	}
	s->reload.again = false;
	s->reload.request = request;
	s->reload.fresh = config_load(s->config_path, config_source_disk(), &err);
	check_fresh(s, &err);
}

void
reload_waiting(struct supervisor *s)
{
	if (s->reload.again && !s->stopping)
		reload_begin(s, NULL);
}

/* As they are now, under the config that serves: what else was edited meanwhile waits for its
 * reload. A pair that does not fit, half written maybe, changes nothing. */
void
reload_renewed(struct supervisor *s)
{
	struct config *fresh;
	struct err err = { 0 };

	if (s->reload.active || workers_are_beginning(s->workers) || changes(s) ||
	    !watch_look(&s->watch))
		return;
	fresh = config_renew(s->cfg, &err);
	if (fresh != NULL && config_same_files(fresh, s->cfg)) {
		config_unref(fresh);
		return;
	}
	s->reload.renewal = true;
	s->reload.fresh = fresh;
	check_fresh(s, &err);
}
