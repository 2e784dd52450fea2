/* relayd/core/shared.h - the memory that the roles of one relayd share: who sleeps, who is connected.
 *
 * Made by the supervisor as a memfd, mapped by every role.  Connection counts are kept per worker,
 * so that the supervisor can zero those of a worker that died.
 */
#ifndef RELAYD_CORE_SHARED_H
#define RELAYD_CORE_SHARED_H

#include "relayd/core/err.h"
#include "relayd/core/slice.h"

#include <stdatomic.h>

#define SHARED_WORKERS 60
#define SHARED_BUCKETS 4096	/* clients by hash of address; a collision only makes a limit stricter */

struct shared_worker {
	_Atomic uint32_t open;			/* connections */
	_Atomic uint16_t by_ip[SHARED_BUCKETS];
};

struct shared {
	_Atomic uint32_t delivery_sleeps;	/* 1: delivery is about to sleep, poke it after a commit */
	uint8_t hash_key[16];			/* random, so that nobody can aim at a bucket */
	struct shared_worker workers[SHARED_WORKERS];
};

/* A memfd of the right size, hash_key filled; -1 with *err set. */
int shared_create(struct err *err);
struct shared *shared_map(int fd, struct err *err);

/* The bucket of a client: the whole IPv4 address, the /64 of an IPv6 one, v4-mapped taken as IPv4.
 * addr is a struct in_addr (len 4) or in6_addr (len 16). */
unsigned shared_bucket(const struct shared *sh, struct slice addr);
/* Counts a connection of worker, returning false, and counting nothing, when it would pass a limit. */
bool shared_join(struct shared *sh, unsigned worker, unsigned bucket, uint32_t max_open,
    uint32_t max_per_ip);
void shared_leave(struct shared *sh, unsigned worker, unsigned bucket);
uint32_t shared_open(const struct shared *sh);
/* The worker is dead: its connections are gone. */
void shared_clear(struct shared *sh, unsigned worker);

#endif
