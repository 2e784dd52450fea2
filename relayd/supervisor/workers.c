/* relayd/supervisor/workers.c - the intake workers, of all generations that still run. */
#include "relayd/supervisor/workers.h"

#include "relayd/core/clock.h"
#include "relayd/core/log.h"

#include <stdlib.h>

#define DRAIN_GRACE_MS 25000 /* from there to SIGKILL */

enum slot_state { SLOT_FREE, SLOT_BEGINNING, SLOT_CURRENT, SLOT_RETIRED, SLOT_DRAINED };

struct slot {
	enum slot_state state;
	struct supervised *process;
	bool lent;        /* silent, so that others have its sockets too */
	int64_t since_ms; /* that it is RETIRED or DRAINED */
};

struct workers {
	struct process_common common;
	struct shared *shared;
	struct counters_page *pages;
	struct owner as;
	const struct workers_events *events;
	void *owner;
	struct slot slots[SHARED_WORKERS];
};

static unsigned
count(const struct workers *w, enum slot_state state)
{
	unsigned n = 0;

	for (unsigned i = 0; i < SHARED_WORKERS; i++)
		n += w->slots[i].state == state;
	return n;
}

/* The place is another's from now on. */
static void
release(struct workers *w, unsigned index)
{
	struct slot *slot = &w->slots[index];

	process_free(slot->process);
	*slot = (struct slot){ .state = SLOT_FREE };
	counters_clear(&w->pages[COUNTERS_WORKERS + index]);
}

/* ---- what processes tell -------------------------------------------------------------------- */

static void
on_answer(void *owner, const char *why)
{
	struct workers *w = owner;

	w->events->on_reload_answer(w->owner, why);
}

static bool
is_current_and(const struct workers *w, unsigned index, enum process_state state)
{
	return w->slots[index].state == SLOT_CURRENT &&
	       process_state(w->slots[index].process) == state;
}

/* The kernel hands a part of the connections to each worker's socket, or all to one, whether it is
 * there or not: while one is down, or silent, the others accept for it. */
static void
lend_sockets(struct workers *w, unsigned down)
{
	for (unsigned i = 0; i < SHARED_WORKERS; i++)
		if (i != down && is_current_and(w, i, PROCESS_UP))
			process_lend(w->slots[i].process, w->slots[down].process);
}

/* One is up again: it serves for itself, and helps with what others are still down. */
static void
take_sockets_back(struct workers *w, unsigned up)
{
	w->slots[up].lent = false;
	for (unsigned i = 0; i < SHARED_WORKERS; i++) {
		if (i != up && is_current_and(w, i, PROCESS_UP))
			process_take_back(w->slots[i].process, w->slots[up].process);
		if (is_current_and(w, i, PROCESS_DOWN) || w->slots[i].lent)
			process_lend(w->slots[up].process, w->slots[i].process);
	}
}

static void
on_ready(void *owner, enum role_kind kind, unsigned index)
{
	struct workers *w = owner;

	(void)kind; /* all are intake */
	if (w->slots[index].state == SLOT_CURRENT)
		take_sockets_back(w, index);
	if (w->slots[index].state != SLOT_BEGINNING)
		return;
	for (unsigned i = 0; i < SHARED_WORKERS; i++)
		if (w->slots[i].state == SLOT_BEGINNING &&
		    process_state(w->slots[i].process) != PROCESS_UP)
			return;
	w->events->on_ready(w->owner);
}

static void
on_ended(void *owner, enum role_kind kind, unsigned index)
{
	struct workers *w = owner;
	bool failed = w->slots[index].state == SLOT_BEGINNING;

	(void)kind;
	shared_clear(w->shared, index); /* its connections died with it */
	if (w->slots[index].state >= SLOT_RETIRED)
		release(w, index);
	else if (w->slots[index].state == SLOT_CURRENT)
		lend_sockets(w, index);
	if (failed)
		w->events->on_failed(w->owner);
	w->events->on_gone(w->owner);
}

static const struct process_events events = { on_answer, on_ready, on_ended };

/* ---- beginning and end ----------------------------------------------------------------------- */

struct workers *
workers_new(const struct process_common *common, struct shared *shared, struct counters_page *pages,
    struct owner as, const struct workers_events *told, void *owner)
{
	struct workers *w = calloc(1, sizeof(*w));

	if (w == NULL)
		return NULL;
	w->common = *common;
	w->common.events = &events;
	w->common.owner = w;
	w->shared = shared;
	w->pages = pages;
	w->as = as;
	w->events = told;
	w->owner = owner;
	return w;
}

/* The processes' memory goes with the loop's next rounds; they do not look at us then. */
void
workers_free(struct workers *w)
{
	if (w == NULL)
		return;
	for (unsigned i = 0; i < SHARED_WORKERS; i++)
		process_free(w->slots[i].process);
	free(w);
}

/* ---- generations ----------------------------------------------------------------------------- */

static int
begin_one(struct workers *w, unsigned index, const struct sockets *sockets, unsigned ordinal,
    unsigned n, struct err *err)
{
	struct role_listener listeners[HANDOVER_LISTENERS_MAX];
	size_t n_listeners =
	    sockets_of(sockets, ROLE_INTAKE, ordinal, n, listeners, HANDOVER_LISTENERS_MAX);
	struct slot *slot = &w->slots[index];

	slot->process = process_new(&w->common, ROLE_INTAKE, index, COUNTERS_WORKERS + index, w->as,
	    listeners, n_listeners);
	if (slot->process == NULL)
		return err_set(err, ERR_NOMEM, "no memory for a process");
	slot->state = SLOT_BEGINNING;
	return 0;
}

int
workers_begin(struct workers *w, const struct sockets *sockets, unsigned n, const char *config_path,
    int snapshot_fd, struct err *err)
{
	unsigned made = 0;

	if (count(w, SLOT_FREE) < n)
		return err_set(err, ERR_BUSY,
		    "too many workers of earlier configs still have sessions; try again later");
	for (unsigned i = 0; i < SHARED_WORKERS && made < n; i++) {
		if (w->slots[i].state != SLOT_FREE)
			continue;
		if (begin_one(w, i, sockets, made, n, err) < 0) {
			workers_abort(w); /* none of them runs yet */
			return -1;
		}
		process_set_config(w->slots[i].process, config_path, snapshot_fd);
		made++;
	}
	for (unsigned i = 0; i < SHARED_WORKERS; i++)
		if (w->slots[i].state == SLOT_BEGINNING)
			process_start(w->slots[i].process);
	return 0;
}

bool
workers_are_beginning(const struct workers *w)
{
	return count(w, SLOT_BEGINNING) > 0;
}

/* Ends by itself, or was not running at all. */
static void
leave(struct workers *w, unsigned index, enum slot_state state)
{
	struct slot *slot = &w->slots[index];

	slot->state = state;
	slot->since_ms = clock_mono_ms();
	if (process_state(slot->process) == PROCESS_DOWN)
		release(w, index);
}

void
workers_commit(struct workers *w)
{
	for (unsigned i = 0; i < SHARED_WORKERS; i++) {
		struct slot *slot = &w->slots[i];

		if (slot->state == SLOT_BEGINNING) {
			slot->state = SLOT_CURRENT;
		} else if (slot->state == SLOT_CURRENT) {
			process_retire(slot->process);
			leave(w, i, SLOT_RETIRED);
		}
	}
}

void
workers_abort(struct workers *w)
{
	for (unsigned i = 0; i < SHARED_WORKERS; i++) {
		if (w->slots[i].state != SLOT_BEGINNING)
			continue;
		process_drain(w->slots[i].process, false);
		leave(w, i, SLOT_DRAINED);
	}
}

int
workers_adopt(struct workers *w, unsigned index, int pid, int sock, struct err *err)
{
	if (index >= SHARED_WORKERS || w->slots[index].state != SLOT_FREE)
		return err_set(err, ERR_FORMAT, "a worker was handed over that has no place");
	w->slots[index].process = process_adopt(&w->common, ROLE_INTAKE, index, pid, sock, err);
	if (w->slots[index].process == NULL)
		return -1;
	w->slots[index].state = SLOT_CURRENT;
	return 0;
}

/* ---- the current generation ------------------------------------------------------------------ */

void
workers_set_config(struct workers *w, const char *config_path, int snapshot_fd)
{
	for (unsigned i = 0; i < SHARED_WORKERS; i++)
		if (w->slots[i].state == SLOT_CURRENT || w->slots[i].state == SLOT_BEGINNING)
			process_set_config(w->slots[i].process, config_path, snapshot_fd);
}

unsigned
workers_reload(struct workers *w)
{
	unsigned n = 0;

	for (unsigned i = 0; i < SHARED_WORKERS; i++)
		if (w->slots[i].state == SLOT_CURRENT)
			n += process_reload(w->slots[i].process);
	return n;
}

bool
workers_serve(const struct workers *w)
{
	for (unsigned i = 0; i < SHARED_WORKERS; i++)
		if (w->slots[i].state == SLOT_CURRENT &&
		    process_state(w->slots[i].process) != PROCESS_UP)
			return false;
	return count(w, SLOT_CURRENT) > 0 && count(w, SLOT_BEGINNING) == 0;
}

/* ---- all of them ----------------------------------------------------------------------------- */

void
workers_drain(struct workers *w, bool kill)
{
	for (unsigned i = 0; i < SHARED_WORKERS; i++) {
		if (w->slots[i].state == SLOT_FREE)
			continue;
		process_drain(w->slots[i].process, kill);
		leave(w, i, SLOT_DRAINED);
	}
}

bool
workers_are_gone(const struct workers *w)
{
	return count(w, SLOT_FREE) == SHARED_WORKERS;
}

void
workers_beat(struct workers *w)
{
	int64_t now = clock_mono_ms();

	for (unsigned i = 0; i < SHARED_WORKERS; i++) {
		struct slot *slot = &w->slots[i];

		if (slot->state == SLOT_RETIRED && now - slot->since_ms > WORKERS_RETIRE_MS) {
			log_event("limit", kv_str("what", "retired"), kv_int("worker", i),
			    kv_int("ms", WORKERS_RETIRE_MS));
			process_drain(slot->process, false);
			leave(w, i, SLOT_DRAINED);
		} else if (slot->state == SLOT_DRAINED && now - slot->since_ms > DRAIN_GRACE_MS) {
			process_drain(slot->process, true);
		}
	}
}

/* While few connections come, the first worker has all of them. */
static void
help_while_silent(struct workers *w, unsigned index)
{
	struct slot *slot = &w->slots[index];
	bool silent = process_is_silent(slot->process);

	if (slot->state != SLOT_CURRENT || silent == slot->lent)
		return;
	if (silent)
		lend_sockets(w, index);
	else if (process_state(slot->process) == PROCESS_UP)
		take_sockets_back(w, index);
	slot->lent = silent;
}

void
workers_look(struct workers *w, unsigned most)
{
	for (unsigned i = 0; i < SHARED_WORKERS; i++) {
		if (w->slots[i].state == SLOT_FREE)
			continue;
		process_look(w->slots[i].process, &w->pages[COUNTERS_WORKERS + i], most);
		help_while_silent(w, i);
	}
}

void
workers_each(const struct workers *w,
    void (*each)(void *arg, const struct supervised *p, unsigned index), void *arg)
{
	for (unsigned i = 0; i < SHARED_WORKERS; i++)
		if (w->slots[i].state != SLOT_FREE)
			each(arg, w->slots[i].process, i);
}
