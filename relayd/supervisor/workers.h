/* relayd/supervisor/workers.h - the intake workers, of all generations that still run.
 *
 * A generation is begun, and becomes the current one once all of it serve (workers_commit()); then
 * the one before retires: it accepts no more, and each of its workers ends with its last session.
 * Until then both accept from the sockets they share, so that nobody is refused.
 *
 * A worker's index, its counters page and its place in the shared counts are its own among all
 * that run.
 */
#ifndef RELAYD_SUPERVISOR_WORKERS_H
#define RELAYD_SUPERVISOR_WORKERS_H

#include "relayd/supervisor/process.h"
#include "relayd/supervisor/sockets.h"

#define WORKERS_RETIRE_MS 600000 /* sessions of a retired worker may go on so long; then 421 */

struct workers;

struct workers_events {
	/* All of the generation that was begun serve: time to commit. */
	void (*on_ready)(void *owner);
	/* One of them ended before that. */
	void (*on_failed)(void *owner);
	/* As in process_events. */
	void (*on_reload_answer)(void *owner, const char *why);
	/* Some worker has ended. */
	void (*on_gone)(void *owner);
};

/* common is copied, but for its events and owner.  pages: of the counters.  NULL when out of
 * memory. */
struct workers *workers_new(const struct process_common *common, struct shared *shared,
    struct counters_page *pages, struct owner as, const struct workers_events *events, void *owner);
void workers_free(struct workers *w);

/* Starts a generation of n workers on sockets, while the current one goes on.  -1 with *err and
 * nothing begun: ERR_BUSY when too many of the older ones still run. */
int workers_begin(struct workers *w, const struct sockets *sockets, unsigned n,
    const char *config_path, int snapshot_fd, struct err *err);
bool workers_are_beginning(const struct workers *w);
/* What was begun is current; what was current retires. */
void workers_commit(struct workers *w);
/* What was begun ends. */
void workers_abort(struct workers *w);
/* A worker of the supervisor that was before us: current, until the first generation of ours is. */
int workers_adopt(struct workers *w, unsigned index, int pid, int sock, struct err *err);

/* For the current generation. */
void workers_set_config(struct workers *w, const char *config_path, int snapshot_fd);
unsigned workers_reload(struct workers *w);  /* how many will answer */
bool workers_serve(const struct workers *w); /* there are some, and all are up */

/* All, of every generation. */
void workers_drain(struct workers *w, bool kill);
bool workers_are_gone(const struct workers *w);
/* Once a second or so: whoever retired too long ago is told to drain. */
void workers_beat(struct workers *w);
/* process_look() at each: who hangs is killed, and while one is silent its siblings accept for it.
 * Delivery and review run no filters. */
void workers_look(struct workers *w, unsigned most);
void workers_each(const struct workers *w,
    void (*each)(void *arg, const struct supervised *p, unsigned index), void *arg);

#endif
