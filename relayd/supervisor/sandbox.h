/* relayd/supervisor/sandbox.h - what a process gives up before it meets the outside. */
#ifndef RELAYD_SUPERVISOR_SANDBOX_H
#define RELAYD_SUPERVISOR_SANDBOX_H

#include "relayd/core/err.h"

#include <stdbool.h>
#include <stddef.h>

/* No core dumps (mail and keys would be in them), no tracing by others of the same user, no new
 * privileges, no SIGPIPE. */
int sandbox_basics(struct err *err);
/* The supervisor as root keeps only what it binds, starts, stops and creates with. */
int sandbox_keep_supervisor_caps(struct err *err);

struct sandbox_path {
	const char *path;
	bool write;	/* and create, rename, remove below it */
};
/* From here on only these paths, and what is below them, can be opened (Landlock).  Before any
 * thread starts.  A path that does not exist is passed over.  ERR_NOT_FOUND when the kernel has no
 * Landlock: to be said, not fatal. */
int sandbox_files(const struct sandbox_path *paths, size_t n, struct err *err);

#endif
