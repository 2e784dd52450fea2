/* relayd/supervisor/upgrade.h - becomes another relayd by exec: the same process, a new program.
 *
 * The program is asked first whether it takes the config and this form of handing over.  Then all
 * that must not be closed goes on by number: the listening sockets, the lock, the shared memory,
 * the keys of session tickets, and our end of the sockets of the roles that run.  The new
 * supervisor starts roles of its own, and lets the old ones finish.
 */
#ifndef RELAYD_SUPERVISOR_UPGRADE_H
#define RELAYD_SUPERVISOR_UPGRADE_H

#include "relayd/supervisor/check.h"
#include "relayd/supervisor/process.h"
#include "relayd/supervisor/sockets.h"
#include "relayd/supervisor/workers.h"

#define UPGRADE_VERSION 1 /* of what is handed over */
#define UPGRADE_TICKETS 2 /* intake's and review's */

/* The file that this program was started from, which a package may replace: into a buffer of
 * ROLE_PATH_BYTES.  "" when it cannot be known. */
void upgrade_program(char out[static ROLE_PATH_BYTES]);
/* Starts the program with the config and -n; check_finish() tells. */
int upgrade_check(struct check *c, const char *program, const char *config_path, struct err *err);

struct upgrade_role {
	enum role_kind kind;
	unsigned index;
	int pid, sock;
};

struct upgrade {
	struct sockets *sockets;
	int lock, shared_fd, counters_fd, poke_fd;
	int tickets_fd[UPGRADE_TICKETS];
	unsigned count; /* how often it was done since the first start */
	struct upgrade_role roles[SHARED_WORKERS + 2];
	size_t n_roles;
};

void upgrade_add(
    struct upgrade *up, enum role_kind kind, unsigned index, const struct supervised *p);
/* The signals that supervisors watch wait, for the one who follows: one that a handler has already
 * taken would end with the program, and before the new one listens it would be the end of that. */
void upgrade_hold_signals(bool hold);
/* Becomes program, while signals are held; the new one lets them come by upgrade_arrived().  Comes
 * back only when it cannot: all is as it was, and *err says why. */
void upgrade_exec(
    const struct upgrade *up, const char *program, const char *config_path, struct err *err);

/* The other side: what fd holds; its sockets and descriptors are the caller's.  ERR_FORMAT. */
int upgrade_take(int fd, struct upgrade *up, struct err *err);
void upgrade_arrived(void);

#endif
