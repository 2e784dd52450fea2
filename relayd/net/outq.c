/* relayd/net/outq.c - output that waits: copied bytes, and runs of the owner's by reference
 * between them. */
#include "relayd/net/outq.h"

#include <stdlib.h>

void
outq_init(struct outq *q, size_t max_bytes)
{
	*q = (struct outq){ .bytes = buf_heap(max_bytes) };
}

void
outq_fini(struct outq *q)
{
	buf_fini(&q->bytes);
	free(q->refs);
	*q = (struct outq){ 0 };
}

static bool
grow_refs(struct outq *q)
{
	size_t cap = q->cap_refs > 0 ? q->cap_refs * 2 : 8;
	struct outq_ref *refs = reallocarray(q->refs, cap, sizeof(*refs));

	if (refs == NULL)
		return false;
	q->refs = refs;
	q->cap_refs = cap;
	return true;
}

bool
outq_ref(struct outq *q, struct slice run, size_t max_refs)
{
	if (run.len == 0)
		return true;
	if (q->n_refs - q->first_ref >= max_refs || (q->n_refs == q->cap_refs && !grow_refs(q)))
		return false;
	q->refs[q->n_refs++] = (struct outq_ref){ .at = q->bytes.len, .run = run };
	q->ref_bytes += run.len;
	return true;
}

size_t
outq_len(const struct outq *q)
{
	return q->bytes.len - q->done + q->ref_bytes;
}

unsigned
outq_gather(const struct outq *q, uv_buf_t *iov, unsigned max)
{
	size_t at = q->done;
	unsigned n = 0;

	for (size_t i = q->first_ref; i <= q->n_refs && n < max; i++) {
		size_t end = i < q->n_refs ? q->refs[i].at : q->bytes.len;

		if (end > at) {
			iov[n++] = (uv_buf_t){ .base = q->bytes.p + at, .len = end - at };
			at = end;
		}
		if (i < q->n_refs && n < max) /* libuv's base is not const, but it only reads */
			iov[n++] = (uv_buf_t){ .base = (char *)(uintptr_t)q->refs[i].run.p,
				.len = q->refs[i].run.len };
	}
	return n;
}

void
outq_clear(struct outq *q)
{
	size_t max = q->bytes.max;

	q->done = q->n_refs = q->first_ref = q->ref_bytes = 0;
	buf_reset(&q->bytes);
	if (q->bytes.cap > OUTQ_IDLE_BYTES) {
		buf_fini(&q->bytes);
		q->bytes = buf_heap(max);
	}
	free(q->refs);
	q->refs = NULL;
	q->cap_refs = 0;
}

void
outq_consume(struct outq *q, size_t n)
{
	while (n > 0) {
		struct outq_ref *ref = q->first_ref < q->n_refs ? &q->refs[q->first_ref] : NULL;
		size_t copied = (ref != NULL ? ref->at : q->bytes.len) - q->done;
		size_t take = n < copied ? n : copied;

		q->done += take;
		n -= take;
		if (n == 0 || ref == NULL)
			break;
		take = n < ref->run.len ? n : ref->run.len;
		ref->run = slice_drop(ref->run, take);
		q->ref_bytes -= take;
		n -= take;
		if (ref->run.len == 0)
			q->first_ref++;
	}
	if (outq_len(q) == 0 && !q->bytes.overflow)
		outq_clear(q);
}
