/* relayd/supervisor/role.h - what a role process is given, and what it gives back.
 *
 * The supervisor execs `relayd --role NAME --index N` with its descriptors by number.  role_run()
 * takes them over, drops what it does not need, loads the config from the snapshot it was handed,
 * calls start(), locks itself in and runs the loop.  End of file on the supervisor's socket means
 * finish and exit.  The index of a worker is its own among all that run, of any generation.
 */
#ifndef RELAYD_SUPERVISOR_ROLE_H
#define RELAYD_SUPERVISOR_ROLE_H

#include "relayd/core/config.h"
#include "relayd/core/counters.h"
#include "relayd/core/err.h"
#include "relayd/core/shared.h"

#include <uv.h>

enum role_kind { ROLE_INTAKE, ROLE_DELIVERY, ROLE_REVIEW, ROLE_KINDS };

enum role_listener_kind {
	ROLE_LISTENER_SMTP,	/* intake: name is the listener section's */
	ROLE_LISTENER_RELEASE,	/* intake: unix, from the review user only */
	ROLE_LISTENER_LMTP,	/* review: unix, from delivery */
	ROLE_LISTENER_IMAP,
	ROLE_LISTENER_IMAPS,
	ROLE_LISTENER_POP3,
	ROLE_LISTENER_POP3S,
	ROLE_LISTENER_HTTP,
	ROLE_LISTENER_CONTROL,	/* delivery, review: RUN/<role>.sock, JSON lines (net/control.h) */
};

/* A bound, listening, non-blocking socket.  The role accepts from it and never closes it. */
struct role_listener {
	enum role_listener_kind kind;
	int fd;
	bool first; /* of the sockets that share its port: of those who have one, this role leads */
	const char *name;	/* of the section, or "" */
	const char *address;	/* as bound: "127.0.0.1:25" or a path */
};

struct role {
	enum role_kind kind;
	unsigned index;			/* of the worker */
	uv_loop_t *loop;
	const struct config *config;	/* replaced by a reload; take a config_ref() to keep one */
	const struct role_listener *listeners;
	size_t n_listeners;
	/* Within reload(), for review, when its listeners for mail clients or monitoring changed:
	 * all of them anew, in place of the old ones; else NULL. */
	const struct role_listener *fresh;
	size_t n_fresh;
	struct shared *shared;
	const struct counters_page *pages; /* of all roles, to read */
	int poke_fd;			/* eventfd: intake writes, delivery reads */
	uid_t review_uid;		/* the peer uid that the release listener lets in */
	void *state;			/* of the role */
};

#define ROLE_RELOAD_LATER 1

struct role_ops {
	/* Before the process locks itself in and before any thread: opens what cannot be opened
	 * later.  May be NULL.  As start(). */
	int (*prepare)(struct role *role, struct err *err);
	/* Begins to serve.  -1 with *err: the process exits and is started again later. */
	int (*start)(struct role *role, struct err *err);
	/* role->config is new already; old is valid until this returns unless referenced.  -1: keep
	 * the old one (the supervisor reports it).  ROLE_RELOAD_LATER: role_reloaded() tells,
	 * once. */
	int (*reload)(struct role *role, const struct config *old, struct err *err);
	/* A newer generation serves from now on: stop accepting, go on with the sessions that there
	 * are until they end by themselves, then call role_finished().  drain() may come meanwhile.
	 * NULL for a role that has no generations. */
	void (*retire)(struct role *role);
	/* Stop accepting, finish what is short, then call role_finished(). */
	void (*drain)(struct role *role);
	/* A sibling is down: accept from its socket fd, the number-th of that worker, as from
	 * role->listeners[listener], until it is taken back.  fd is the role's own.  NULL, both,
	 * where a role has no siblings. */
	void (*lend)(struct role *role, unsigned worker, unsigned number, size_t listener, int fd);
	void (*take_back)(struct role *role, unsigned worker);
	/* The loop has ended: free everything, so that a leak checker stays quiet. */
	void (*stop)(struct role *role);
};

/* The filters that are built in, NULL-terminated; set by main() before role_run(). */
struct filter;
extern const struct filter *const *role_filters;

/* Wakes delivery if it sleeps; after a commit, once per loop round. */
void role_poke(struct role *role);
/* The end of a reload that was ROLE_RELOAD_LATER; until then no other comes.  why NULL: done; else
 * role->config is the old one again, and the new one is gone unless referenced. */
void role_reloaded(struct role *role, const struct err *why);
/* The drain is done: leave the loop. */
void role_finished(struct role *role);
/* The kinds that role->fresh holds. */
bool role_listener_is_door(enum role_listener_kind kind);

extern const struct role_ops intake_role, delivery_role, review_role;

/* The process of a role, from main(): returns its exit status. */
int role_run(enum role_kind kind, unsigned index, const struct role_ops *ops);
/* Where things are: all below the config's directories, NUL-terminated into a buffer of
 * ROLE_PATH_BYTES. */
#define ROLE_PATH_BYTES 4096
void role_control_path(
    const struct config *cfg, const char *name, char out[static ROLE_PATH_BYTES]);
void role_lmtp_path(
    const struct config *cfg, char out[static ROLE_PATH_BYTES]); /* RUN/quarantine.sock */
void role_release_path(
    const struct config *cfg, char out[static ROLE_PATH_BYTES]); /* STORE/release.sock */

#endif
