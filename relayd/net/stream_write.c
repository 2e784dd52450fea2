/* relayd/net/stream_write.c - output of a stream: gathered all round long, sent in one call at
 * its end. */
#include "relayd/net/stream_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>

#define VECTORS_MAX 64

void
stream_dirty(struct stream *s)
{
	if (s->closing)
		return;
	s->wrote = true;
	round_mark(s->round, &s->flush, ROUND_FLUSH);
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

	if (s->ending) { /* what was written before goes out, and no more */
		nowhere = buf_over(scrap, sizeof(scrap));
		return &nowhere;
	}
	stream_dirty(s);
	return &s->out.bytes;
}

void
stream_write_ref(struct stream *s, struct slice bytes)
{
	if (s->closing || s->ending)
		return;
	if (!outq_ref(&s->out, bytes, STREAM_REFS_MAX))
		stream_failf(s, ERR_LIMIT, 0, "too much output waits");
	stream_dirty(s);
}

/* On its way to the kernel: under TLS what is encrypted. */
static size_t
queued(const struct stream *s)
{
	const struct outq *wire =
	    stream_tls_wire((struct stream *)(uintptr_t)s); /* only looked at */

	return outq_len(wire) + (s->writing != NULL ? outq_len(&s->writing->q) : 0);
}

size_t
stream_pending(const struct stream *s)
{
	return queued(s) + (s->tls != NULL ? outq_len(&s->out) : 0);
}

void
stream_mark(struct stream *s)
{
	s->mark_plain = s->tls != NULL ? outq_len(&s->out) : 0;
	s->mark = s->sent + queued(s);
}

void
stream_encrypted(struct stream *s, size_t n)
{
	if (s->mark_plain == 0)
		return;
	s->mark_plain -= n < s->mark_plain ? n : s->mark_plain;
	s->mark = s->sent + queued(s);
}

bool
stream_passed(const struct stream *s)
{
	return s->mark_plain == 0 && s->sent >= s->mark;
}

void
stream_drop_output(struct stream *s)
{
	outq_fini(&s->out);
	if (s->writing != NULL) {
		outq_fini(&s->writing->q);
		free(s->writing);
		s->writing = NULL;
	}
}

/* Output that nobody will take. */
static void
discard(struct stream *s)
{
	outq_consume(&s->out, outq_len(&s->out));
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

	s->writing = NULL;
	if (status == 0 && !s->closing) {
		s->sent += w->asked;
		outq_consume(&w->q, w->asked);
		status = outq_len(&w->q) > 0 ? send_queue(s, &w->q) : 0;
	}
	outq_fini(&w->q);
	free(w);
	if (s->closing)
		return;
	if (status < 0)
		write_failed(s, status);
	else if (s->writing == NULL)
		stream_run_flush(&s->flush);
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
	s->writing = w;
	return 0;
}

/* 0: all of it is out, or on its way in s->writing. */
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
		s->sent += (size_t)sent;
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
	s->deadline_ms = (int64_t)uv_now(stream_loop(s)) + STREAM_LINGER_MS;
	s->armed_ms = s->deadline_ms;
	(void)uv_timer_start(&s->timer, s->timer.timer_cb, STREAM_LINGER_MS, 0); /* armed before */
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
	if (!s->wrote || s->ops->on_drain == NULL)
		return;
	s->wrote = false;
	if (from_loop) {
		s->ops->on_drain(s, s->owner);
		return;
	}
	s->tell_drain = true;
	round_mark(s->round, &s->work, ROUND_WORK);
}

static void
flush(struct stream *s, bool from_loop)
{
	int more, status;

	if (s->closing || s->connecting || s->writing != NULL)
		return;
	if (s->broken && !s->ending) {
		discard(s);
		return;
	}
	if (s->out.bytes.overflow) {
		stream_failf(s, ERR_LIMIT, 0, "too much output waits");
		return;
	}
	do { /* under TLS some of the output at a time */
		more = stream_tls_encrypt(s);
		status = more < 0 ? 0 : send_queue(s, stream_tls_wire(s));
	} while (more > 0 && status == 0 && s->writing == NULL);
	if (status < 0)
		write_failed(s, status);
	else if (!s->closing && stream_pending(s) == 0)
		all_sent(s, from_loop);
}

void
stream_flush(struct stream *s)
{
	round_unmark(s->round, &s->flush);
	flush(s, false);
}

void
stream_run_flush(struct round_task *task)
{
	flush(container_of(task, struct stream, flush), true);
}
