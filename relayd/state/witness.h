/* relayd/state/witness.h - remembers who died while it worked on the store.
 *
 * LMDB trusts its pages: damage within one can end the process instead of being an error, and each
 * that is started after it.  So every process says in a page of the lock file, which outlives it,
 * that it is at work; a lock on its place there, which does not, tells the next one whether it
 * still is.  Private to relayd/state.
 */
#ifndef RELAYD_STATE_WITNESS_H
#define RELAYD_STATE_WITNESS_H

#include <stdbool.h>
#include <stddef.h>

/* one may be a kill -9 at a bad moment; so many in the store are its fault */
#define WITNESS_DEATHS 2

struct witness_page;

struct witness {
	struct witness_page *page; /* NULL: there is none, and nothing is remembered */
	size_t place;
};

/* Takes a place in the file behind fd, of which byte 0 is somebody else's to lock, and counts the
 * dead.  fd stays open as long as *w. */
void witness_open(struct witness *w, int fd);
void witness_close(struct witness *w);
/* So many have died at work that the store is no good; true once, and all is forgotten. */
bool witness_doubts(struct witness *w);
/* What was counted is forgotten. */
void witness_forget(struct witness *w);
/* Around all that looks at pages of the store. */
void witness_enter(struct witness *w);
void witness_leave(struct witness *w);

#endif
