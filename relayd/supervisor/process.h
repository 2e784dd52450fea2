/* relayd/supervisor/process.h - one role process as the supervisor sees it: started, watched,
 * started again. */
#ifndef RELAYD_SUPERVISOR_PROCESS_H
#define RELAYD_SUPERVISOR_PROCESS_H

#include "relayd/supervisor/handover.h"
#include "relayd/supervisor/hang.h"
#include "relayd/supervisor/owner.h"

enum process_state {
	PROCESS_DOWN,		/* not started, or waiting for its back-off to end */
	PROCESS_STARTING,
	PROCESS_UP,
	PROCESS_DRAINING,	/* or retiring */
};

struct process_events {
	/* Its answer to a reload: why is NULL when it took it.  Also when it dies meanwhile. */
	void (*on_reload_answer)(void *owner, const char *why);
	/* It serves. */
	void (*on_ready)(void *owner, enum role_kind kind, unsigned index);
	/* It has ended, and will be started again unless it was told to drain or retire. */
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

/* Describes a process; process_start() runs it.  common is borrowed.  The listeners are copied,
 * their descriptors stay the supervisor's.  page: of the counters.  NULL when out of memory. */
struct supervised *process_new(const struct process_common *common, enum role_kind kind,
    unsigned index, unsigned page, struct owner owner, const struct role_listener *listeners,
    size_t n_listeners);
/* A process that another supervisor started, before it became this one by exec: a child of ours,
 * with our end of its socket, which is taken over.  It can be told to retire or drain, and its end
 * is told.  NULL with *err. */
struct supervised *process_adopt(const struct process_common *common, enum role_kind kind,
    unsigned index, int pid, int sock, struct err *err);
/* Other listeners from the next start on.  False when out of memory: the old ones stay. */
bool process_set_listeners(struct supervised *p, const struct role_listener *listeners, size_t n);
/* The snapshot (memfd, borrowed) and config path that the next start uses. */
void process_set_config(struct supervised *p, const char *config_path, int snapshot_fd);
/* Starts it now; when it dies it is started again with back-off, until process_drain(). */
void process_start(struct supervised *p);
/* Hands the role its doors (role_listener_is_door()), to be taken over by the reload that
 * follows. */
void process_send_doors(struct supervised *p);
/* Sends the new snapshot; answered by on_reload_answer exactly once when this returns true. */
bool process_reload(struct supervised *p);
/* That answer has not come yet. */
bool process_owes_answer(const struct supervised *p);
/* Has the process, which is up, accept from the sockets of another worker that is down or silent;
 * and no more. */
void process_lend(struct supervised *p, const struct supervised *down);
void process_take_back(struct supervised *p, const struct supervised *up);
/* Tells it that a newer generation serves: it ends with its last session, and is not started
 * again. */
void process_retire(struct supervised *p);
/* Tells it to finish; it is not started again.  kill: at once and hard. */
void process_drain(struct supervised *p, bool kill);
/* A look (hang.h), page being its own: once it hangs, by most of them, it is killed, and started
 * again as after any other end. */
void process_look(struct supervised *p, const struct counters_page *page, unsigned most);
/* At that look it was up, and silent. */
bool process_is_silent(const struct supervised *p);
/* For so many looks, that one too, it has been in one and the same run of a filter. */
unsigned process_looks_in_filter(const struct supervised *p);
enum process_state process_state(const struct supervised *p);
int process_pid(const struct supervised *p);	/* 0 when down */
int process_sock(const struct supervised *p);	/* our end; -1 when down */
/* Closes its handles; the memory goes with the loop's next round. */
void process_free(struct supervised *p);

#endif
