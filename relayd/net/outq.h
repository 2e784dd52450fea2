/* relayd/net/outq.h - output that waits: copied bytes, and runs of the owner's by reference
 * between them. */
#ifndef RELAYD_NET_OUTQ_H
#define RELAYD_NET_OUTQ_H

#include "relayd/core/buf.h"

#include <uv.h>

/* A run by reference, in front of bytes.p[at]. */
struct outq_ref {
	size_t at;
	struct slice run;
};

struct outq {
	struct buf bytes; /* append to it directly if you like */
	size_t done;      /* of bytes, that have left */
	struct outq_ref *refs;
	size_t n_refs, first_ref, cap_refs;
	size_t ref_bytes; /* in the refs that wait */
};

/* max_bytes: of copied output; over it bytes.overflow is set. */
void outq_init(struct outq *q, size_t max_bytes);
void outq_fini(struct outq *q);
/* Nothing waits any more; memory over OUTQ_IDLE_BYTES is given back. */
void outq_clear(struct outq *q);
/* False out of memory or over max_refs. */
bool outq_ref(struct outq *q, struct slice run, size_t max_refs);
/* Waiting bytes. */
size_t outq_len(const struct outq *q);
/* The first of what waits as at most max vectors; returns how many. */
unsigned outq_gather(const struct outq *q, uv_buf_t *iov, unsigned max);
/* The first n bytes have left; once empty, as outq_clear(). */
void outq_consume(struct outq *q, size_t n);

#define OUTQ_IDLE_BYTES 512

#endif
