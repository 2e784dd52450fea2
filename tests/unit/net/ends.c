/* tests/unit/net/ends.c - streams over socket pairs, and what one end sees of the other. */
#include "unit/net/ends.h"

#include "unit/unit.h"

#include "relayd/core/clock.h"

#include <signal.h>
#include <stdio.h>
#include <unistd.h>

uv_loop_t ends_loop;

static size_t
on_read(struct stream *s, void *owner, struct slice bytes)
{
	struct end *e = owner;
	size_t n = e->take_max != 0 && e->take_max < bytes.len ? e->take_max : bytes.len;

	ck_assert_ptr_eq(s, e->s);
	e->reads++;
	if (bytes.p == e->room)
		e->in_room += bytes.len;
	buf_put(&e->got, slice_head(bytes, n));
	if (e->then != NULL)
		e->then(e);
	return n;
}

static size_t
on_room(struct stream *s, void *owner, char **room)
{
	struct end *e = owner;

	(void)s;
	*room = e->room;
	return e->offer_room;
}

static void
on_eof(struct stream *s, void *owner)
{
	struct end *e = owner;

	e->eofs++;
	if (!e->keep_after_eof)
		stream_end(s);
}

static void
on_drain(struct stream *s, void *owner)
{
	(void)s;
	((struct end *)owner)->drains++;
}

static void
on_tls(struct stream *s, void *owner)
{
	(void)s;
	((struct end *)owner)->tls++;
}

static void
on_connect(struct stream *s, void *owner)
{
	(void)s;
	((struct end *)owner)->connects++;
}

static void
on_deadline(struct stream *s, void *owner)
{
	(void)s;
	((struct end *)owner)->deadlines++;
	uv_stop(&ends_loop);
}

void
end_on_close(struct stream *s, void *owner, const struct err *why)
{
	struct end *e = owner;

	ck_assert_ptr_eq(s, e->s);
	e->closes++;
	e->why = why->code;
	e->sys = why->sys;
	(void)snprintf(e->msg, sizeof(e->msg), "%s", why->msg);
	e->s = NULL;
}

const struct stream_ops end_ops = {
	.on_connect = on_connect,
	.on_read = on_read,
	.on_room = on_room,
	.on_eof = on_eof,
	.on_drain = on_drain,
	.on_tls = on_tls,
	.on_deadline = on_deadline,
	.on_close = end_on_close,
};
const struct stream_ops end_plain_ops = { .on_read = on_read, .on_close = end_on_close };

void
ends_begin(void)
{
	(void)signal(SIGPIPE, SIG_IGN); /* as every role does */
	ck_assert_int_eq(uv_loop_init(&ends_loop), 0);
}

void
ends_finish(void)
{
	uv_run(&ends_loop, UV_RUN_DEFAULT);
	ck_assert_int_eq(uv_loop_close(&ends_loop), 0);
}

void
end_open_with(struct end *e, int fd, const struct stream_ops *which)
{
	struct err err = { 0 };

	e->got = buf_heap(16u << 20);
	e->s = stream_open(&ends_loop, fd, which, e, &err);
	ck_assert_msg(e->s != NULL, "%s", err.msg);
}

void
end_open(struct end *e, int fd)
{
	end_open_with(e, fd, &end_ops);
}

void
end_is(struct end *e, const char *text)
{
	ck_assert_uint_eq(e->got.len, strlen(text));
	ck_assert_mem_eq(e->got.len > 0 ? e->got.p : "", text, e->got.len);
}

int
end_alone(struct end *e)
{
	int fds[2];

	ends_begin();
	ends_pair(SOCK_STREAM, fds);
	end_open(e, fds[0]);
	return fds[1];
}

void
end_over(struct end *e, int fd)
{
	if (e->s != NULL)
		stream_close(e->s);
	ends_finish();
	(void)close(fd); /* the test's own */
	buf_fini(&e->got);
}

void
ends_pair(int type, int fds[2])
{
	ck_assert_int_eq(socketpair(AF_UNIX, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
}

void
ends_say(int fd, const char *text)
{
	ck_assert_int_eq(send(fd, text, strlen(text), MSG_NOSIGNAL), (ssize_t)strlen(text));
}

void
ends_rounds(int n)
{
	while (n-- > 0)
		uv_run(&ends_loop, UV_RUN_NOWAIT);
}

void
ends_until(const unsigned *counter, unsigned n)
{
	int64_t end = clock_mono_ms() + 20000;

	while (*counter < n && clock_mono_ms() < end)
		uv_run(&ends_loop, UV_RUN_ONCE);
	ck_assert_uint_ge(*counter, n);
}

void
end_until_got(struct end *e, size_t n)
{
	int64_t end = clock_mono_ms() + 20000;

	while (e->got.len < n && e->closes == 0 && clock_mono_ms() < end)
		uv_run(&ends_loop, UV_RUN_ONCE);
	ck_assert_uint_eq(e->got.len, n);
}
