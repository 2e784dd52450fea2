/* relayd/supervisor/process.h - one role process as the supervisor sees it: started, watched, started again. */
#ifndef RELAYD_SUPERVISOR_PROCESS_H
#define RELAYD_SUPERVISOR_PROCESS_H

#include "relayd/supervisor/handover.h"
#include "relayd/supervisor/owner.h"

enum process_state {
	PROCESS_DOWN,		/* not started, or waiting for its back-off to end */
	PROCESS_STARTING,
	PROCESS_UP,
	PROCESS_DRAINING,
};

struct process_events {
	/* It serves. */
	void (*on_ready)(void *owner, enum role_kind kind, unsigned index);
	/* Its answer to a reload: why is NULL when it took it.  Also when it dies meanwhile. */
	void (*on_reload_answer)(void *owner, const char *why);
	/* It has ended, and will be started again unless it was told to drain. */
	void (*on_exit)(void *owner, enum role_kind kind, unsigned index);
};

/* What all processes are started with. */
struct process_common {
	uv_loop_t *loop;
	const char *program;		/* path of relayd itself */
	int shared_fd, counters_fd, poke_fd;
	int tickets_fd[ROLE_KINDS];	/* -1: none */
	uid_t review_uid;
	bool root;
	const struct process_events *events;
	void *owner;
};

struct supervised;

/* Describes a process; process_start() runs it.  The listeners are copied, their descriptors stay the
 * supervisor's.  page: of the counters.  NULL when out of memory. */
struct supervised *process_new(const struct process_common *common, enum role_kind kind,
    unsigned index, unsigned page, struct owner owner, const struct role_listener *listeners,
    size_t n_listeners);
/* The snapshot (memfd, borrowed) and config path that the next start uses. */
void process_set_config(struct supervised *p, const char *config_path, int snapshot_fd);
/* Starts it now; when it dies it is started again with back-off, until process_drain(). */
void process_start(struct supervised *p);
/* Sends the new snapshot; answered by on_reload_answer exactly once when this returns true. */
bool process_reload(struct supervised *p);
/* Has the process, which is up, accept from the sockets of another worker that is down; and no more. */
void process_lend(struct supervised *p, const struct supervised *down);
void process_take_back(struct supervised *p, const struct supervised *up);
/* Tells it to finish; it is not started again.  kill: at once and hard. */
void process_drain(struct supervised *p, bool kill);
enum process_state process_state(const struct supervised *p);
int process_pid(const struct supervised *p);	/* 0 when down */
/* Closes its handles; the memory goes with the loop's next round. */
void process_free(struct supervised *p);

#endif
