/* relayd/net/stream.c - one connection: its beginning, its deadline and its only end. */
#include "relayd/net/stream.h"

#include "relayd/net/sockaddr.h"
#include "relayd/net/stream_internal.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/un.h>
#include <unistd.h>

/* ---- what it needs while it has something to do ---------------------------------------------- */

static void run_work(struct round_task *task);

/* Of this thread; a stream that answers one command after the other takes it and gives it back. */
static _Thread_local struct stream_busy *spare;

static struct stream_busy *
take_busy(void)
{
	struct stream_busy *b = spare;

	spare = NULL;
	if (b == NULL && (b = calloc(1, sizeof(*b))) != NULL)
		outq_init(&b->out, STREAM_OUT_BYTES);
	return b;
}

static void
give_busy(struct stream_busy *b)
{
	struct outq out = b->out; /* with its memory: the next one writes as much */

	if (spare != NULL) {
		outq_fini(&out);
		free(b);
		return;
	}
	*b = (struct stream_busy){ .out = out };
	spare = b;
}

struct stream_busy *
stream_busy(struct stream *s)
{
	if (s->busy != NULL)
		return s->busy;
	s->busy = take_busy();
	if (s->busy == NULL) {
		stream_failf(s, ERR_NOMEM, 0, "out of memory");
		return NULL;
	}
	s->busy->s = s;
	s->busy->flush.run = stream_run_flush;
	s->busy->work.run = run_work;
	stream_keep_none(s);
	return s->busy;
}

static void
free_busy(struct stream *s)
{
	struct stream_busy *b = s->busy;

	if (b == NULL)
		return;
	stream_drop_output(s);
	buf_fini(&b->keep);
	free(b->why);
	s->busy = NULL;
	give_busy(b);
}

void
stream_rest(struct stream *s)
{
	const struct stream_busy *b = s->busy;

	if (b == NULL || s->closing || b->flush.marked || b->work.marked || b->writing != NULL ||
	    b->keep.len > 0 || b->why != NULL || b->out.bytes.overflow || outq_len(&b->out) > 0)
		return;
	if (s->tls != NULL && outq_len(stream_tls_wire(s)) > 0)
		return; /* what was sent is counted until all of it is */
	free_busy(s);
}

void
stream_later(struct stream *s, bool *what)
{
	*what = true;
	round_mark(s->round, &s->busy->work, ROUND_WORK);
}

/* ---- the end -------------------------------------------------------------------------------- */

static void
on_handle_closed(uv_handle_t *handle)
{
	static const struct err none = { .code = ERR_NONE };
	struct stream *s = handle->data;
	const struct stream_busy *b = s->busy;

	if (s->ops->on_close != NULL)
		s->ops->on_close(s, s->owner, b != NULL && b->why != NULL ? b->why : &none);
	free_busy(s);
	stream_tls_free(s);
	round_unref(s->round);
	free(s);
}

static void
keep_reason(struct stream *s, const struct err *why)
{
	struct stream_busy *b = stream_busy(s); /* without memory it closes without a reason */

	if (b == NULL || b->why != NULL)
		return;
	b->why = malloc(sizeof(*b->why));
	if (b->why != NULL)
		*b->why = *why;
}

void
stream_fail(struct stream *s, const struct err *why)
{
	if (s->closing)
		return;
	s->closing = true;
	if (why != NULL && why->code != ERR_NONE)
		keep_reason(s, why);
	if (s->busy != NULL) {
		round_unmark(s->round, &s->busy->flush);
		round_unmark(s->round, &s->busy->work);
	}
	round_timer_drop(s->round, &s->timer);
	uv_close((uv_handle_t *)&s->socket, on_handle_closed);
}

void
stream_failf(struct stream *s, enum err_code code, int sys, const char *what)
{
	struct err err = { 0 };

	if (sys != 0)
		err_sys(&err, sys, "%s", what);
	else
		err_set(&err, code, "%s", what);
	err.code = code;
	stream_fail(s, &err);
}

void
stream_close(struct stream *s)
{
	stream_fail(s, NULL);
}

/* ---- the deadline --------------------------------------------------------------------------- */

static void
on_timer(struct round_timer *timer)
{
	struct stream *s = container_of(timer, struct stream, timer);

	if (s->lingering)
		stream_fail(s, NULL);
	else if (s->ending || s->ops->on_deadline == NULL)
		stream_failf(s, ERR_TIMEOUT, 0, "timed out");
	else
		s->ops->on_deadline(s, s->owner);
	stream_rest(s);
}

void
stream_set_deadline(struct stream *s, int64_t at_ms)
{
	round_timer_set(s->round, &s->timer, at_ms);
}

void
stream_deadline(struct stream *s, int64_t at_ms)
{
	if (!s->closing && !s->ending) /* from stream_end() on it has its own */
		stream_set_deadline(s, at_ms);
}

/* ---- the beginning -------------------------------------------------------------------------- */

static const struct stream_ops silent; /* of a stream that never was the owner's */

static void
run_work(struct round_task *task)
{
	struct stream_busy *b = container_of(task, struct stream_busy, work);
	struct stream *s = b->s;

	if (b->tell_connect) {
		b->tell_connect = false;
		if (s->ops->on_connect != NULL)
			s->ops->on_connect(s, s->owner);
	}
	if (b->tell_drain && !s->closing) {
		b->tell_drain = false;
		if (s->ops->on_drain != NULL && !s->ending)
			s->ops->on_drain(s, s->owner);
	}
	if (b->show_kept && !s->closing) {
		b->show_kept = false;
		stream_show_kept(s);
	}
	stream_rest(s);
}

/* Takes fd over, also when it fails. */
static struct stream *
stream_new(uv_loop_t *loop, int fd, struct err *err)
{
	struct stream *s = calloc(1, sizeof(*s));
	int status = UV_ENOMEM;

	if (s == NULL || (s->round = round_ref(loop)) == NULL)
		goto fail;
	(void)uv_tcp_init(loop, &s->socket); /* cannot fail */
	s->socket.data = s;
	s->timer.run = on_timer;
	status = uv_tcp_open(&s->socket, fd);
	if (status == 0)
		return s;
	/* The handle still has to be closed, and nobody is to hear of it. */
	s->ops = &silent;
	stream_close(s);
	s = NULL;
fail:
	if (s != NULL)
		free(s);
	(void)close(fd); /* nothing was written */
	err_sys(err, -status, "take over a connection");
	return NULL;
}

struct stream *
stream_open(uv_loop_t *loop, int fd, const struct stream_ops *ops, void *owner, struct err *err)
{
	struct stream *s = stream_new(loop, fd, err);
	int status;

	if (s == NULL)
		return NULL;
	s->ops = ops;
	s->owner = owner;
	status = stream_read_start(s);
	if (status < 0) /* told by on_close(), as the owner is not to be told twice */
		stream_failf(s, ERR_SYS, -status, "read");
	return s;
}

static int
open_socket(const struct sockaddr *to, const struct sockaddr *local, struct err *err)
{
	int fd = socket(to->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	int on = 1;

	if (fd < 0)
		return err_sys(err, errno, "socket");
	if (to->sa_family != AF_UNIX) /* a speed-up: it does not matter when it fails */
		(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	if (local != NULL && local->sa_family != AF_UNSPEC &&
	    bind(fd, local, sockaddr_len(local)) < 0) {
		err_sys(err, errno, "bind to the local address");
		(void)close(fd); /* never used */
		return -1;
	}
	return fd;
}

static void
connected(struct stream *s, int status)
{
	s->connecting = false;
	if (status == 0)
		status = stream_read_start(s);
	if (status < 0) {
		stream_failf(s, ERR_SYS, -status, "connect");
		return;
	}
	if (stream_busy(s) != NULL)
		stream_later(s, &s->busy->tell_connect);
}

static void
on_connected(uv_connect_t *req, int status)
{
	struct stream *s = req->handle->data;

	free(req);
	if (!s->closing)
		connected(s, status);
}

/* A unix socket answers at once; a full queue there is an error, not a wait. */
static int
connect_unix(struct stream *s, int fd, const struct sockaddr *to, struct err *err)
{
	if (connect(fd, to, sizeof(struct sockaddr_un)) < 0)
		return err_sys(err, errno, "connect");
	connected(s, 0);
	return 0;
}

static int
connect_tcp(struct stream *s, const struct sockaddr *to, struct err *err)
{
	uv_connect_t *req = malloc(sizeof(*req));
	int status;

	if (req == NULL)
		return err_set(err, ERR_NOMEM, "out of memory");
	s->connecting = true;
	status = uv_tcp_connect(req, &s->socket, to, on_connected);
	if (status == 0)
		return 0;
	free(req);
	return err_sys(err, -status, "connect");
}

struct stream *
stream_connect(uv_loop_t *loop, const struct sockaddr *to, const struct sockaddr *local,
    const struct stream_ops *ops, void *owner, struct err *err)
{
	int fd = open_socket(to, local, err);
	struct stream *s = fd >= 0 ? stream_new(loop, fd, err) : NULL;
	int rc;

	if (s == NULL)
		return NULL;
	s->ops = ops;
	s->owner = owner;
	s->dialled = true;
	rc = to->sa_family == AF_UNIX ? connect_unix(s, fd, to, err) : connect_tcp(s, to, err);
	if (rc == 0)
		return s;
	s->ops = &silent; /* the caller knows by our result */
	stream_close(s);
	return NULL;
}

void
stream_own(struct stream *s, const struct stream_ops *ops, void *owner)
{
	s->ops = ops;
	s->owner = owner;
}

/* ---- an orderly end ------------------------------------------------------------------------- */

void
stream_end_with(struct stream *s, enum err_code code, const char *what)
{
	struct err why = { 0 };

	if (s->closing || s->ending)
		return;
	if (s->connecting) {
		stream_close(s); /* nobody is there to be told anything */
		return;
	}
	s->ending = true;
	if (code != ERR_NONE) {
		err_set(&why, code, "%s", what);
		keep_reason(s, &why);
	}
	s->unread = stream_kept(s) > 0 || !s->reading;
	stream_keep_none(s);
	stream_set_deadline(s, (int64_t)uv_now(stream_loop(s)) + STREAM_END_MS);
	stream_dirty(s); /* the flush that leaves nothing closes */
}

void
stream_end(struct stream *s)
{
	stream_end_with(s, ERR_NONE, "");
}

/* ---- what is known about it ----------------------------------------------------------------- */

uid_t
stream_peer_uid(const struct stream *s)
{
	struct ucred cred;
	socklen_t len = sizeof(cred);
	uv_os_fd_t fd;

	if (uv_fileno((const uv_handle_t *)&s->socket, &fd) < 0 ||
	    getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) < 0 || len != sizeof(cred))
		return (uid_t)-1;
	return cred.uid;
}

uv_loop_t *
stream_loop(const struct stream *s)
{
	return s->socket.loop;
}
