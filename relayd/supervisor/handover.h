/* relayd/supervisor/handover.h - what the supervisor hands a role process, by descriptor number.
 *
 * Messages between the two are single packets of text: to the role `reload` (with the snapshot's
 * descriptor), `retire`, `drain`, `lend WORKER SOCKET LISTENER` (with a socket of a worker that is
 * down or silent, to be served as that listener of one's own) and `return WORKER`; back `ready`,
 * `reloaded`, `refused WHY` and `finished`.
 */
#ifndef RELAYD_SUPERVISOR_HANDOVER_H
#define RELAYD_SUPERVISOR_HANDOVER_H

#include "relayd/supervisor/role.h"

enum handover_fd {
	HANDOVER_SOCKET = 3, /* SOCK_SEQPACKET; end of file: the supervisor is gone */
	HANDOVER_MANIFEST,   /* memfd: struct handover as JSON */
	HANDOVER_SNAPSHOT,   /* memfd: config and files, config_source_snapshot() */
	HANDOVER_SHARED,     /* memfd: struct shared */
	HANDOVER_COUNTERS,   /* file: counter pages */
	HANDOVER_POKE,       /* eventfd */
	HANDOVER_TICKETS,    /* memfd: net/tickets.h; /dev/null for delivery, which serves no TLS */
	HANDOVER_LISTENERS,  /* the first listener; the others follow */
};

#define HANDOVER_PACKET_BYTES 1024
#define HANDOVER_LISTENERS_MAX 512

struct handover {
	const char *config_path;
	unsigned page;			/* of the counters */
	uid_t review_uid;
	struct role_listener listeners[HANDOVER_LISTENERS_MAX];
	size_t n_listeners;
};

/* A sealed memfd with the bytes, or -1. */
int handover_memfd(const char *name, struct slice bytes, struct err *err);
/* The whole of a memfd, mapped read only for the life of the process; p NULL on failure. */
struct slice handover_map(int fd, struct err *err);

/* As text, and back; after a success handover_fini() frees the strings, which a role never does. */
int handover_encode(const struct handover *ho, struct buf *out, struct err *err);
int handover_decode(struct slice text, struct handover *ho, struct err *err);
void handover_fini(struct handover *ho);

/* One packet; fd < 0: none goes with it. */
int handover_send(int sock, const char *text, int fd, struct err *err);
/* The length, 0 at end of file, -1 when nothing is there or on an error.  *fd is -1 or the
 * caller's. */
ssize_t handover_receive(int sock, char text[static HANDOVER_PACKET_BYTES], int *fd);

#endif
