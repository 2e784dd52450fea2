/* relayd/core/buf.h - output bytes in a buffer that never grows past its limit.
 *
 * Overflow is sticky: append freely, test buf.overflow once.  What did not fit whole is not
 * there at all, so that a cut is always between two appends.
 */
#ifndef RELAYD_CORE_BUF_H
#define RELAYD_CORE_BUF_H

#include "relayd/core/slice.h"

struct buf {
	char *p;
	size_t len;
	size_t cap;	/* bytes at p */
	size_t max;	/* a heap buffer may grow to this; == cap for borrowed storage */
	bool heap;
	bool overflow;
};

/* Over storage of the caller, fixed. */
static inline struct buf
buf_over(char *storage, size_t cap)
{
	return (struct buf){ .p = storage, .cap = cap, .max = cap };
}

/* An empty heap buffer that grows on demand to at most max bytes; out of memory is overflow. */
static inline struct buf
buf_heap(size_t max)
{
	return (struct buf){ .max = max, .heap = true };
}

/* Frees a heap buffer's storage; harmless on any other and on a zeroed one. */
void buf_fini(struct buf *b);
/* Forgets the content and the overflow, keeps the storage. */
void buf_reset(struct buf *b);
/* Drops n bytes from the front (n <= len). */
void buf_consume(struct buf *b, size_t n);
/* Room for n more bytes at the end, or NULL with overflow set; then buf_commit(). */
char *buf_room(struct buf *b, size_t n);
static inline void
buf_commit(struct buf *b, size_t n)
{
	b->len += n;
}

/* The rare half of buf_put(): the storage grows or overflow is set. */
void buf_put_grown(struct buf *b, struct slice s);

static inline void
buf_put(struct buf *b, struct slice s)
{
	if (b->overflow || s.len > b->cap - b->len) {
		buf_put_grown(b, s);
	} else if (s.len > 0) {
		memcpy(b->p + b->len, s.p, s.len);
		b->len += s.len;
	}
}

static inline void
buf_puts(struct buf *b, const char *s)
{
	buf_put(b, slice_str(s));
}

static inline void
buf_putc(struct buf *b, char c)
{
	if (b->overflow || b->cap == b->len)
		buf_put_grown(b, slice_of(&c, 1));
	else
		b->p[b->len++] = c;
}

/* In decimal, as "%lld" but cheaper: replies and log lines are full of numbers. */
void buf_int(struct buf *b, int64_t n);
/* As "%.1f", but cheaper where x is a number of tenths: scores are, as a rule. */
void buf_tenths(struct buf *b, double x);
void buf_printf(struct buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static inline struct slice
buf_slice(const struct buf *b)
{
	return slice_of(b->p, b->len);
}

#endif
