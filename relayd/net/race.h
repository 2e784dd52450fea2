/* relayd/net/race.h - connects to the first of several addresses that answers (RFC 8305 section 5).
 *
 * They are tried in the order given, which is the caller's (AAAA before A).  Each has RACE_DELAY_MS
 * before the next one is tried beside it, and none when it fails; the first to answer wins, and the
 * others are closed.
 */
#ifndef RELAYD_NET_RACE_H
#define RELAYD_NET_RACE_H

#include "relayd/net/stream.h"

#define RACE_DELAY_MS 250
#define RACE_MAX      4

struct race;

struct race_way {
	struct sockaddr_storage to;
	struct sockaddr_storage local; /* to bind to; AF_UNSPEC: any */
};

/* One of the two runs, once, never inside race_start(); the race is gone when it returns.  missed:
 * set of 1 << i, the ways that failed, or had a head start and were not there in time. */
struct race_ops {
	/* The stream is the owner's from here on: stream_own(). */
	void (*on_connect)(void *owner, struct stream *s, size_t which, unsigned missed);
	/* None is left, or ERR_CANCELLED. */
	void (*on_fail)(void *owner, const struct err *why, unsigned missed);
};

/* n: 1 .. RACE_MAX; timeout_ms: of each.  NULL with *err when not one of them can be begun. */
struct race *race_start(uv_loop_t *loop, const struct race_way *ways, size_t n, uint32_t timeout_ms,
    const struct race_ops *ops, void *owner, struct err *err);
void race_cancel(struct race *race);

#endif
