/* relayd/core/shared.h - the memory that the roles of one relayd share: who sleeps, who is connected.
 *
 * Made by the supervisor as a memfd, mapped by every role.  Connection counts are kept per worker,
 * so that the supervisor can zero those of a worker that died.
 */
#ifndef RELAYD_CORE_SHARED_H
#define RELAYD_CORE_SHARED_H

#include "relayd/core/backoff.h"
#include "relayd/core/err.h"
#include "relayd/core/slice.h"

#include <stdatomic.h>

#define SHARED_WORKERS   128	/* of all generations that still run */
#define SHARED_BUCKETS   4096	/* clients by hash of address; a collision only makes a limit stricter */
#define SHARED_LISTENERS 256	/* by hash of name; the same */
#define SHARED_VERSION   2	/* of what stands behind it; a new layout takes the next number */

struct shared_worker {
	_Atomic uint32_t open;			/* connections */
	_Atomic uint32_t by_listener[SHARED_LISTENERS];
	_Atomic uint16_t by_ip[SHARED_BUCKETS];
};

struct shared {
	_Atomic uint32_t delivery_sleeps;	/* 1: delivery is about to sleep, poke it after a commit */
	uint32_t version;			/* these two stay where they are in every version */
	_Atomic uint32_t slots;			/* workers[0 .. slots - 1] were used so far */
	uint8_t hash_key[16];			/* random, so that nobody can aim at a bucket */
	struct shared_worker workers[SHARED_WORKERS];
	struct backoff logins;			/* that failed, of SMTP, IMAP and POP3 together */
};

/* A connection as it is counted. */
struct shared_client {
	unsigned bucket;	/* shared_bucket() */
	unsigned listener;	/* shared_listener() */
};

/* Where a client is refused; UINT32_MAX: nowhere. */
struct shared_limits {
	uint32_t open, listener, ip;
};

enum shared_answer { SHARED_IN, SHARED_FULL, SHARED_LISTENER_FULL, SHARED_IP_FULL };

/* A memfd of the right size, hash_key and version filled; -1 with *err set. */
int shared_create(struct err *err);
struct shared *shared_map(int fd, struct err *err);

/* True when what fd holds is of this version: made by another relayd, of an upgrade. */
bool shared_fits(int fd);

/* The bucket of a client: the whole IPv4 address, the /64 of an IPv6 one, v4-mapped taken as IPv4.
 * addr is a struct in_addr (len 4) or in6_addr (len 16).  apart: the name of the listener where its
 * clients are counted by themselves, or "". */
unsigned shared_bucket(const struct shared *sh, struct slice addr, const char *apart);
unsigned shared_listener(const struct shared *sh, const char *name);
/* Counts a connection of worker; counts nothing when it would pass a limit. */
enum shared_answer shared_join(struct shared *sh, unsigned worker, const struct shared_client *client,
    const struct shared_limits *limits);
void shared_leave(struct shared *sh, unsigned worker, const struct shared_client *client);
/* The worker's counts are looked at from here on. */
void shared_use(struct shared *sh, unsigned worker);
uint32_t shared_open(const struct shared *sh);
/* The worker is dead: its connections are gone. */
void shared_clear(struct shared *sh, unsigned worker);

#endif
