/* relayd/supervisor/owner.h - the two users, and the directories that each owns. */
#ifndef RELAYD_SUPERVISOR_OWNER_H
#define RELAYD_SUPERVISOR_OWNER_H

#include "relayd/core/config.h"

#include <sys/types.h>

struct owner {
	uid_t uid;
	gid_t gid;
};

struct owners {
	bool root;		/* false: every role runs as ourselves */
	struct owner mail;	/* user: intake and delivery */
	struct owner review;	/* review { user } */
};

/* ERR_CONFIG naming the user that does not exist. */
int owners_find(const struct config *cfg, struct owners *out, struct err *err);
/* Creates run, spool, state and the quarantine where they are missing: mode 0700, owned by the user
 * of their role; parents 0755.  ERR_DENIED when one exists but its owner cannot use it. */
int owners_make_dirs(const struct config *cfg, const struct owners *owners, struct err *err);

#endif
