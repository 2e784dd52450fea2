/* relayd/supervisor/watch.h - notices that files of the config changed which are renewed by
 * themselves.
 *
 * By looking at them, not by inotify: certificates come and go through symbolic links, renamed
 * directories and network file systems.  A change counts when it has been still from one look to
 * the next, so that who writes a certificate and then its key has a moment for it.
 */
#ifndef RELAYD_SUPERVISOR_WATCH_H
#define RELAYD_SUPERVISOR_WATCH_H

#include "relayd/core/config.h"

#include <time.h>

#define WATCH_MS 1000 /* between two looks */

struct watch_stamp;
struct watch {
	const struct config *cfg; /* borrowed */
	struct watch_stamp *known, *last;
	size_t n;
};

/* From here on the files of cfg, which were read a moment ago.  Out of memory: nothing is
 * noticed. */
void watch_files(struct watch *w, const struct config *cfg);
/* A look: true once for each change. */
bool watch_look(struct watch *w);
void watch_fini(struct watch *w);

#endif
