/* relayd/net/stream_write.c - output of a stream: gathered all round long, sent in one call at
 * its end. */
#include "relayd/net/stream_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>

#define VECTORS_MAX 64

struct stream_busy *
stream_dirty(struct stream *s)
{
	struct stream_busy *b = stream_busy(s);

	if (b == NULL || s->closing)
		return b;
	b->wrote = true;
	round_mark(s->round, &b->flush, ROUND_FLUSH);
	return b;
}

void
stream_write(struct stream *s, struct slice bytes)
{
	buf_put(stream_out(s), bytes);
}

struct buf *
stream_out(struct stream *s)
{
	static _Thread_local struct buf nowhere;
	static _Thread_local char scrap[64];
	/* What was written before it ends goes out, and no more; without memory it closes. */
	struct stream_busy *b = s->ending ? NULL : stream_dirty(s);

	if (b != NULL)
		return &b->out.bytes;
	nowhere = buf_over(scrap, sizeof(scrap));
	return &nowhere;
}

void
stream_write_ref(struct stream *s, struct slice bytes)
{
	struct stream_busy *b;

	if (s->closing || s->ending)
		return;
	b = stream_dirty(s);
	if (b != NULL && !outq_ref(&b->out, bytes, STREAM_REFS_MAX))
		stream_failf(s, ERR_LIMIT, 0, "too much output waits");
}

/* On its way to the kernel: under TLS what is encrypted. */
static size_t
queued(const struct stream *s)
{
	const struct stream_write *writing = s->busy != NULL ? s->busy->writing : NULL;
	const struct outq *wire =
	    stream_tls_wire((struct stream *)(uintptr_t)s); /* only looked at */

	return (wire != NULL ? outq_len(wire) : 0) + (writing != NULL ? outq_len(&writing->q) : 0);
}

static size_t
unencrypted(const struct stream *s)
{
	return s->tls != NULL && s->busy != NULL ? outq_len(&s->busy->out) : 0;
}

size_t
stream_pending(const struct stream *s)
{
	return queued(s) + unencrypted(s);
}

void
stream_mark(struct stream *s)
{
	if (s->busy == NULL)
		return; /* all has left */
	s->busy->mark_plain = unencrypted(s);
	s->busy->mark = s->busy->sent + queued(s);
}

void
stream_encrypted(struct stream *s, size_t n)
{
	struct stream_busy *b = s->busy;

	if (b->mark_plain == 0)
		return;
	b->mark_plain -= n < b->mark_plain ? n : b->mark_plain;
	b->mark = b->sent + queued(s);
}

bool
stream_passed(const struct stream *s)
{
	const struct stream_busy *b = s->busy;

	return b == NULL || (b->mark_plain == 0 && b->sent >= b->mark);
}

void
stream_drop_output(struct stream *s)
{
	struct stream_busy *b = s->busy;

	outq_clear(&b->out);
	if (b->writing != NULL) {
		outq_fini(&b->writing->q);
		free(b->writing);
		b->writing = NULL;
	}
}

/* Output that nobody will take. */
static void
discard(struct stream *s)
{
	outq_consume(&s->busy->out, outq_len(&s->busy->out));
	if (s->tls != NULL)
		outq_consume(stream_tls_wire(s), outq_len(stream_tls_wire(s)));
}

/* A server that closes may have said why before it did, and answered what it took: whoever
 * connected to it reads on to the end, which the kernel has to tell now. */
static void
write_failed(struct stream *s, int status)
{
	bool gone = status == UV_EPIPE || status == UV_ECONNRESET;

	if (gone && s->dialled && s->reading && !s->ending) {
		s->broken = true;
		discard(s);
		return;
	}
	stream_failf(s, gone ? ERR_CLOSED : ERR_SYS, -status, gone ? "the peer is gone" : "write");
}

static int send_queue(struct stream *s, struct outq *q);

static void
on_written(uv_write_t *req, int status)
{
	struct stream_write *w = container_of(req, struct stream_write, req);
	struct stream *s = w->s;

	s->busy->writing = NULL;
	if (status == 0 && !s->closing) {
		s->busy->sent += w->asked;
		outq_consume(&w->q, w->asked);
		status = outq_len(&w->q) > 0 ? send_queue(s, &w->q) : 0;
	}
	outq_fini(&w->q);
	free(w);
	if (s->closing)
		return;
	if (status < 0)
		write_failed(s, status);
	else if (s->busy->writing == NULL)
		stream_run_flush(&s->busy->flush);
}

/* Leaves what the kernel does not take now to a request; it takes the content of *q over. */
static int
send_later(struct stream *s, struct outq *q)
{
	struct stream_write *w = calloc(1, sizeof(*w));
	size_t max = q->bytes.max;
	uv_buf_t iov[VECTORS_MAX];
	unsigned n = outq_gather(q, iov, VECTORS_MAX);
	int status;

	if (w == NULL)
		return UV_ENOMEM;
	for (unsigned i = 0; i < n; i++)
		w->asked += iov[i].len;
	w->s = s;
	w->q = *q; /* the vectors point into its memory, which does not move */
	outq_init(q, max);
	status = uv_write(&w->req, (uv_stream_t *)&s->socket, iov, n, on_written);
	if (status < 0) {
		outq_fini(&w->q);
		free(w);
		return status;
	}
	s->busy->writing = w;
	return 0;
}

/* 0: all of it is out, or on its way in busy->writing. */
static int
send_queue(struct stream *s, struct outq *q)
{
	uv_buf_t iov[VECTORS_MAX];
	unsigned n;

	while ((n = outq_gather(q, iov, VECTORS_MAX)) > 0) {
		int sent = uv_try_write((uv_stream_t *)&s->socket, iov, n);
		size_t asked = 0;

		if (sent == UV_EAGAIN)
			return send_later(s, q);
		if (sent < 0)
			return sent;
		for (unsigned i = 0; i < n; i++)
			asked += iov[i].len;
		s->busy->sent += (size_t)sent;
		outq_consume(q, (size_t)sent);
		if ((size_t)sent < asked)
			return send_later(s, q);
	}
	return 0;
}

static void
on_shutdown(uv_shutdown_t *req, int status)
{
	(void)status; /* the close that follows says what there is to say */
	free(req);
}

/* A close with unread input makes the kernel send a reset, and our last reply may be lost with it:
 * say that no more comes, and read on for a moment. */
static void
linger(struct stream *s)
{
	uv_shutdown_t *req = malloc(sizeof(*req));

	if (req == NULL || uv_shutdown(req, (uv_stream_t *)&s->socket, on_shutdown) < 0) {
		free(req);
		stream_close(s);
		return;
	}
	s->lingering = true;
	stream_set_deadline(s, (int64_t)uv_now(stream_loop(s)) + STREAM_LINGER_MS);
	if (stream_read_start(s) < 0)
		stream_close(s);
}

static void
all_sent(struct stream *s, bool from_loop)
{
	if (s->ending && !s->lingering) {
		if (s->unread && !s->eof)
			linger(s);
		else
			stream_close(s);
		return;
	}
	if (!s->busy->wrote || s->ops->on_drain == NULL)
		return;
	s->busy->wrote = false;
	if (from_loop)
		s->ops->on_drain(s, s->owner);
	else
		stream_later(s, &s->busy->tell_drain);
}

static void
flush(struct stream *s, bool from_loop)
{
	int more, status;

	if (s->closing || s->connecting || s->busy == NULL || s->busy->writing != NULL)
		return;
	if (s->broken && !s->ending) {
		discard(s);
		return;
	}
	if (s->busy->out.bytes.overflow) {
		stream_failf(s, ERR_LIMIT, 0, "too much output waits");
		return;
	}
	do { /* under TLS some of the output at a time */
		more = stream_tls_encrypt(s);
		status = more < 0 ? 0 : send_queue(s, stream_tls_wire(s));
	} while (more > 0 && status == 0 && s->busy->writing == NULL);
	if (status < 0)
		write_failed(s, status);
	else if (!s->closing && stream_pending(s) == 0)
		all_sent(s, from_loop);
}

void
stream_flush(struct stream *s)
{
	if (s->busy == NULL)
		return;
	round_unmark(s->round, &s->busy->flush);
	flush(s, false);
}

void
stream_run_flush(struct round_task *task)
{
	struct stream *s = container_of(task, struct stream_busy, flush)->s;

	flush(s, true);
	stream_rest(s);
}
