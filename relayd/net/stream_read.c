/* relayd/net/stream_read.c - input of a stream: where it is read to, and what the owner left of it.
 *
 * All streams of a thread share one buffer to read into, so an idle one has none of its own.
 * Pausing only sets a flag: the kernel is told when the peer does send more, which it seldom does.
 */
#include "relayd/net/stream_internal.h"

#include <errno.h>
#include <stdlib.h>

/* Used between one allocation callback and the read callback that follows it, never longer. */
static _Thread_local char shared_cipher[STREAM_READ_BYTES];
static _Thread_local char shared_plain[STREAM_READ_BYTES];

struct slice
stream_room(struct stream *s)
{
	bool direct = stream_kept(s) == 0 && !s->paused && !s->ending && s->ops->on_room != NULL;
	char *p = NULL;
	size_t n = direct ? s->ops->on_room(s, s->owner, &p) : 0;

	return n > 0 ? slice_of(p, n) : slice_of(shared_plain, sizeof(shared_plain));
}

static void
on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
	struct stream *s = handle->data;
	struct slice room;

	(void)suggested; /* always 64 KiB */
	room = s->tls != NULL ? slice_of(shared_cipher, sizeof(shared_cipher)) : stream_room(s);
	*buf =
	    uv_buf_init((char *)(uintptr_t)room.p, (unsigned)room.len); /* only it writes there */
}

void
stream_keep_none(struct stream *s)
{
	if (s->busy == NULL)
		return;
	buf_fini(&s->busy->keep);
	s->busy->keep = buf_heap(STREAM_KEEP_BYTES + STREAM_READ_BYTES);
}

static void
keep(struct stream *s, struct slice rest)
{
	struct stream_busy *b = stream_busy(s);

	if (b == NULL)
		return;
	buf_put(&b->keep, rest);
	if (b->keep.overflow)
		stream_failf(s, ERR_NOMEM, 0, "out of memory for input");
}

/* After input was shown from what is kept: the end, more of it, or a peer that has to wait. */
static void
go_on_reading(struct stream *s, size_t taken)
{
	if (s->paused || s->closing)
		return;
	if (s->eof) {
		stream_at_eof(s);
	} else if (stream_kept(s) >= STREAM_KEEP_BYTES && taken == 0) {
		stream_failf(s, ERR_LIMIT, 0, "too much unread input");
	} else if (stream_kept(s) >= STREAM_KEEP_BYTES) {
		stream_read_stop(s);
		stream_later(s, &s->busy->show_kept); /* again, until less is left */
	} else if (stream_read_start(s) < 0) {
		stream_failf(s, ERR_NOMEM, 0, "read");
	}
}

void
stream_show_kept(struct stream *s)
{
	size_t taken = 0;

	if (s->paused || s->closing || s->ending)
		return;
	if (stream_kept(s) > 0) {
		taken = s->ops->on_read(s, s->owner, buf_slice(&s->busy->keep));
		if (s->closing || s->ending || stream_kept(s) == 0)
			return; /* 0: dropped for TLS */
		buf_consume(&s->busy->keep, taken);
		if (stream_kept(s) == 0)
			stream_keep_none(s);
	}
	go_on_reading(s, taken);
}

void
stream_show(struct stream *s, struct slice bytes)
{
	struct stream_tls *tls = s->tls;
	size_t taken;

	if (s->ending) {
		s->unread = true;
		return;
	}
	if (s->paused || stream_kept(s) > 0) {
		keep(s, bytes);
		if (s->paused)
			stream_read_stop(
			    s); /* one read's worth is enough to know that there is some */
		else
			stream_show_kept(s);
		return;
	}
	taken = s->ops->on_read(s, s->owner, bytes);
	/* What a client pipelined behind STARTTLS was not said under TLS: it is not kept. */
	if (taken < bytes.len && !s->closing && !s->ending && s->tls == tls)
		keep(s, slice_drop(bytes, taken));
}

void
stream_at_eof(struct stream *s)
{
	s->eof = true;
	stream_read_stop(s);
	if (s->eof_told || (s->paused && !s->ending))
		return; /* what was kept comes first */
	s->eof_told = true;
	if (s->lingering)
		stream_close(s);
	else if (s->broken)
		stream_failf(s, ERR_CLOSED, EPIPE, "the peer is gone");
	else if (s->ops->on_eof != NULL && !s->ending)
		s->ops->on_eof(s, s->owner);
	else
		stream_end_with(s, ERR_CLOSED, "the peer closed the connection");
}

static void
on_read(uv_stream_t *socket, ssize_t n, const uv_buf_t *buf)
{
	struct stream *s = socket->data;

	if (s->closing || n == 0)
		return;
	if (n == UV_EOF)
		stream_at_eof(s);
	else if (n == UV_ECONNRESET || n == UV_EPIPE)
		stream_failf(s, ERR_CLOSED, (int)-n, "the peer is gone");
	else if (n < 0)
		stream_failf(s, ERR_SYS, (int)-n, "read");
	else if (s->tls != NULL)
		stream_tls_input(s, slice_of(buf->base, (size_t)n));
	else
		stream_show(s, slice_of(buf->base, (size_t)n));
	stream_rest(s);
}

int
stream_read_start(struct stream *s)
{
	int status;

	if (s->reading || s->eof || s->closing)
		return 0;
	status = uv_read_start((uv_stream_t *)&s->socket, on_alloc, on_read);
	s->reading = status == 0;
	return status;
}

void
stream_read_stop(struct stream *s)
{
	if (!s->reading || s->closing)
		return;
	s->reading = false;
	(void)uv_read_stop((uv_stream_t *)&s->socket); /* always 0 */
}

void
stream_pause(struct stream *s)
{
	s->paused = true;
}

void
stream_resume(struct stream *s)
{
	if (!s->paused || s->closing)
		return;
	s->paused = false;
	if (stream_kept(s) == 0 && s->reading)
		return;
	if (stream_busy(s) != NULL)
		stream_later(s, &s->busy->show_kept);
}

size_t
stream_kept(const struct stream *s)
{
	return s->busy != NULL ? s->busy->keep.len : 0;
}

size_t
stream_peek(const struct stream *s, char *p, size_t n)
{
	struct slice kept =
	    s->busy != NULL ? slice_head(buf_slice(&s->busy->keep), n) : SLICE("");
	uv_os_fd_t fd;
	ssize_t got;

	if (kept.len > 0) {
		memcpy(p, kept.p, kept.len);
		return kept.len;
	}
	if (s->tls != NULL || s->closing ||
	    uv_fileno((const uv_handle_t *)&s->socket, &fd) < 0)
		return 0;
	got = recv(fd, p, n, MSG_PEEK | MSG_DONTWAIT);
	return got > 0 ? (size_t)got : 0; /* an error comes again when it is read */
}
