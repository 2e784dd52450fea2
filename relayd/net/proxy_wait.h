/* relayd/net/proxy_wait.h - waits for the PROXY header of a fresh connection, and takes no byte
 * more.
 *
 * What the client itself sends behind the header stays in the socket, so that whoever gets the
 * connection next (TLS from the first byte, say) reads it as if it had been alone.
 */
#ifndef RELAYD_NET_PROXY_WAIT_H
#define RELAYD_NET_PROXY_WAIT_H

#include "relayd/core/err.h"
#include "relayd/net/proxy.h"

#include <uv.h>

struct proxy_wait {
	/* set by the caller */
	int fd; /* connected, non-blocking; the caller's again in done() */
	uint32_t timeout_ms;
	void (*done)(struct proxy_wait *w);

	/* the result */
	struct proxy_header header;
	/* ERR_NONE; ERR_PROTOCOL: no header, or a bad one; ERR_TIMEOUT; ERR_CLOSED; ERR_SYS;
	 * ERR_CANCELLED. */
	struct err err;

	/* private */
	uv_poll_t poll;
	uv_timer_t timer;
	unsigned open_handles;
	size_t used;
	char bytes[PROXY_HEADER_MAX];
};

/* Starts.  -1 with *err: done() is not called. */
int proxy_wait_start(uv_loop_t *loop, struct proxy_wait *w, struct err *err);
/* done() comes soon, from the loop.  Harmless when it is on its way. */
void proxy_wait_cancel(struct proxy_wait *w);

#endif
