/* relayd/delivery/delivery.h - sends what is in the spool on its way, until nothing is left to
 * send.
 *
 * It owns the spool: it reads every log, keeps the journal of what became of whom, and writes a log
 * of its own for bounces and undeliverable copies.  A start is a recovery and a recovery is a
 * start: what the journal does not know is done again, so an accepted message is sent at least
 * once, and twice only where the reply to its last byte, or our note of it, was lost.
 */
#ifndef RELAYD_DELIVERY_DELIVERY_H
#define RELAYD_DELIVERY_DELIVERY_H

#include "relayd/core/config.h"
#include "relayd/core/err.h"
#include "relayd/core/shared.h"

#include <uv.h>

#define DELIVERY_LOCK_WAIT_MS 30000 /* for an owner of the spool who is about to end */
#define DELIVERY_FINISH_MS    10000 /* for transactions under way, when draining */
#define DELIVERY_SYNC_MS      20    /* between two syncs of the journal, at least */

struct delivery;

struct delivery_options {
	uv_loop_t *loop;
	const struct config *cfg; /* a reference is taken */
	struct shared *shared;    /* delivery_sleeps; or NULL: nobody pokes */
	int poke_fd;              /* an eventfd, or -1 */
	uint32_t lock_wait_ms;
	const char *ca_file; /* NULL: the system's authorities */
	uint64_t whole; /* messages that are kept whole in memory while they wait; 0: QUEUE_WHOLE */
};

/* Opens the spool and begins to read it; the first attempts follow from the loop.  Blocks while it
 * waits for the lock.  NULL with *err: ERR_BUSY, ERR_VERSION, ERR_CONFIG, ERR_SYS. */
struct delivery *delivery_open(const struct delivery_options *options, struct err *err);
/* Routes, limits and retry times of cfg from now on; what is queued for a route that has gone is
 * routed again.  -1 with *err, and nothing changed. */
int delivery_reload(struct delivery *d, const struct config *cfg, struct err *err);
/* Starts no attempt any more; done runs once when those under way have ended, or after
 * DELIVERY_FINISH_MS. */
void delivery_drain(struct delivery *d, void (*done)(void *data), void *data);
/* Ends now: what was not finished will be done by the next start.  The loop must run until its
 * handles are closed.  Accepts NULL. */
void delivery_close(struct delivery *d);

#endif
