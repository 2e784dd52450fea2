/* relayd/supervisor/lock.h - one relayd a run directory: RUN/relayd.lock, with its pid inside. */
#ifndef RELAYD_SUPERVISOR_LOCK_H
#define RELAYD_SUPERVISOR_LOCK_H

#include "relayd/core/config.h"

/* ERR_BUSY "relayd runs already (pid N)".  *unclean: the last owner was killed, its roles may still
 * be finishing.  Returns the descriptor to lock_release(). */
int lock_take(const struct config *cfg, bool *unclean, struct err *err);
/* A clean end. */
void lock_release(int fd);

#endif
