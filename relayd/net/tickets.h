/* relayd/net/tickets.h - the keys that session tickets are sealed with (RFC 5077, RFC 8446 section
 * 4.6.1).
 *
 * They lie in memory that the supervisor writes and the workers of one role read, so that a client
 * resumes with whichever worker takes its next connection, also after a reload or a crash.  A key
 * seals for half of a ticket's lifetime and then opens for all of it; after that it is gone, and
 * with it what was recorded under it.
 */
#ifndef RELAYD_NET_TICKETS_H
#define RELAYD_NET_TICKETS_H

#include "relayd/core/err.h"

#include <stdint.h>

struct tickets;

/* Fresh keys: the writer's view, and in *fd a memfd that nobody else can map for writing.  NULL
 * with *err. */
struct tickets *tickets_create(int *fd, struct err *err);
/* As tickets_create(), for a writer that takes the place of another, which can write no more: with
 * the keys in the memfd before, unless its form is another. */
struct tickets *tickets_follow(int before, int *fd, struct err *err);
/* A reader's view of that memfd.  NULL with *err. */
const struct tickets *tickets_map(int fd, struct err *err);
/* Makes a new key when the time has come; lifetime_s: of a ticket. */
void tickets_turn(struct tickets *t, int64_t now_ms, uint32_t lifetime_s);

/* From here on this process seals and opens with these.  Servers made before keep keys of their
 * own. */
void tickets_use(const struct tickets *t);

/* For net/tls_server.c: OpenSSL's callback, or NULL where the process has no keys. */
struct ssl_st;
struct evp_cipher_ctx_st;
struct evp_mac_ctx_st;
typedef int (*tickets_callback)(struct ssl_st *, unsigned char *, unsigned char *,
    struct evp_cipher_ctx_st *, struct evp_mac_ctx_st *, int);
tickets_callback tickets_in_use(void);

#endif
