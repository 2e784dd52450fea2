/* relayd/supervisor/inside.h - what the files of the supervisor itself share; nobody else includes
 * it.
 *
 *	supervisor.c	start, signals, relayctl, the end, and becoming another program
 *	reload.c	a new config: load, check in a child, hand over, collect the answers
 */
#ifndef RELAYD_SUPERVISOR_INSIDE_H
#define RELAYD_SUPERVISOR_INSIDE_H

#include "relayd/net/control.h"
#include "relayd/net/tickets.h"
#include "relayd/supervisor/upgrade.h"
#include "relayd/supervisor/watch.h"

/* A reload on its way. */
struct reload {
	bool active;
	bool renewal; /* of watched files alone, by ourselves */
	struct config *fresh;
	struct check check;
	uv_poll_t check_done;
	struct sockets *sockets; /* with the listeners of fresh; NULL where they are the same */
	int snapshots[2];        /* of fresh */
	bool beginning;          /* its generation of workers starts */
	unsigned answers_due;
	unsigned looks; /* since they are due, up to the one that found them late */
	struct err refused;              /* the first role that said no */
	struct control_request *request; /* relayctl's, or NULL for SIGHUP */
	bool again;                      /* asked for while this, or an upgrade, was on its way */
};

/* An upgrade: asked for, or just done. */
struct change {
	char program[ROLE_PATH_BYTES];
	struct check check;
	uv_poll_t check_done;
	struct control_request *request; /* to begin one; NULL when none is on its way */
	struct control_request *waiter;  /* to hear of its end */
	bool due;                        /* leave the loop and become it */
	unsigned count;
	/* delivery and review of the supervisor before, until they end */
	struct supervised *old[2];
	int64_t old_since_ms; /* that they are to */
};

struct supervisor {
	uv_loop_t loop;
	const char *config_path;
	check_config check;
	struct config *cfg;
	struct owners owners;
	struct sockets *sockets;
	struct shared *shared;
	struct counters_page *pages;
	struct process_common common, old_common;
	struct supervised *fixed[2]; /* delivery and review */
	struct workers *workers;
	int snapshots[2]; /* without and with secrets */
	int lock;
	struct control *control;
	uv_signal_t signals[3];
	uv_timer_t beat, kill, look;
	struct watch watch;         /* of certificates */
	struct tickets *tickets[2]; /* keys of intake's and review's session tickets */
	struct reload reload;
	struct change change;
	bool stopping, announced;
};

/* Without and with secrets; -1 with *err and none of them open. */
int supervisor_snapshots(const struct config *cfg, int fds[static 2], struct err *err);
/* The roles started from now on begin with cfg and these; the old snapshots are closed. */
void supervisor_use_config(struct supervisor *s, struct config *cfg, const int snapshots[static 2]);

void reload_begin(struct supervisor *s, struct control_request *request);
/* What was asked for while something else was on its way begins now. */
void reload_waiting(struct supervisor *s);
/* A look at the certificates and what goes with them: when they changed, they are taken over. */
void reload_renewed(struct supervisor *s);
void reload_answered(struct supervisor *s, const char *why);
/* A look about once a second: who has not taken the new config for too long is named, and relayctl
 * waits no more. */
void reload_look(struct supervisor *s);
/* What became of the generation of workers that a reload began. */
void reload_workers_ready(struct supervisor *s);
void reload_workers_failed(struct supervisor *s);

#endif
