/* relayd/core/shared.h - the memory that the roles of one relayd share: who sleeps, who is
 * connected.
 *
 * Made by the supervisor as a memfd, mapped by every role.  Connection counts are kept per worker,
 * so that the supervisor can zero those of a worker that died.  They are exact: a client is known
 * by a keyed hash of 64 bits, and no limit is passed even by workers that count at the same moment.
 */
#ifndef RELAYD_CORE_SHARED_H
#define RELAYD_CORE_SHARED_H

#include "relayd/core/backoff.h"
#include "relayd/core/err.h"
#include "relayd/core/slice.h"
#include "relayd/core/tally.h"

#include <stdatomic.h>

#define SHARED_WORKERS   128	/* of all generations that still run */
#define SHARED_VERSION   4	/* of what stands behind it; a new layout takes the next number */

struct shared_worker {
	_Atomic uint32_t open;			/* connections */
	struct tally by;			/* listener, address and net */
};

struct shared {
	/* 1: delivery is about to sleep, poke it after a commit */
	_Atomic uint32_t delivery_sleeps;
	uint32_t version;			/* these two stay where they are in every version */
	_Atomic uint32_t slots;			/* workers[0 .. slots - 1] were used so far */
	uint8_t hash_key[16];			/* random, so that nobody can aim at a place */
	struct shared_worker workers[SHARED_WORKERS]; /* pages that nobody used take no memory */
	struct backoff logins;			/* that failed, of SMTP, IMAP and POP3 together */
};

/* A connection as it is counted; 0: not by this. */
struct shared_client {
	uint64_t listener, ip, net;
};

/* The net of a client: all that one owner of addresses is likely to have. */
#define SHARED_NET_V4 24
#define SHARED_NET_V6 48

/* Where a client is refused; UINT32_MAX: nowhere. */
struct shared_limits {
	uint32_t open, listener, ip, net;
};

enum shared_answer {
	SHARED_IN,
	SHARED_FULL,
	SHARED_LISTENER_FULL,
	SHARED_IP_FULL,
	SHARED_NET_FULL
};

/* A memfd of the right size, hash_key and version filled; -1 with *err set. */
int shared_create(struct err *err);
struct shared *shared_map(int fd, struct err *err);

/* True when what fd holds is of this version: made by another relayd, of an upgrade. */
bool shared_fits(int fd);

/* A client by its whole IPv4 address or the /64 of its IPv6 one, v4-mapped taken as IPv4; 0 for no
 * address (a unix socket).  addr is a struct in_addr (len 4) or in6_addr (len 16).  apart: the name
 * of the listener where its clients are counted by themselves, or "". */
uint64_t shared_ip(const uint8_t hash_key[static 16], struct slice addr, const char *apart);
/* The same for its net, SHARED_NET_V4 or SHARED_NET_V6 bits of it; 0 also for loopback, which is
 * nobody's. */
uint64_t shared_net(const uint8_t hash_key[static 16], struct slice addr, const char *apart);
uint64_t shared_listener(const struct shared *sh, const char *name);
/* Counts a connection of worker; counts nothing when it would pass a limit.  A part of *client for
 * which there is no room (core/tally.h) becomes 0. */
enum shared_answer shared_join(struct shared *sh, unsigned worker, struct shared_client *client,
    const struct shared_limits *limits);
void shared_leave(struct shared *sh, unsigned worker, const struct shared_client *client);
/* The worker's counts are looked at from here on. */
void shared_use(struct shared *sh, unsigned worker);
uint32_t shared_open(const struct shared *sh);
/* The worker is dead: its connections are gone. */
void shared_clear(struct shared *sh, unsigned worker);

#endif
