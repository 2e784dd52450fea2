/* tests/unit/review/wire.c - a client on the loop of a test: says lines, waits for what it
 * hears. */
#include "unit/review/wire.h"

#include "relayd/core/clock.h"
#include "relayd/net/stream.h"

#include <check.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define WAIT_MS 20000

struct wire {
	uv_loop_t *loop;
	struct stream *stream;
	struct buf heard;
	size_t given; /* bytes at the front that were given out */
};

static size_t
on_read(struct stream *stream, void *owner, struct slice bytes)
{
	struct wire *w = owner;

	(void)stream;
	buf_put(&w->heard, bytes);
	return bytes.len;
}

static void
on_close(struct stream *stream, void *owner, const struct err *why)
{
	struct wire *w = owner;

	(void)stream;
	(void)why; /* the test looks at what it heard */
	w->stream = NULL;
}

static const struct stream_ops ops = { .on_read = on_read, .on_close = on_close };

static struct wire *
wire_new(uv_loop_t *loop)
{
	struct wire *w = calloc(1, sizeof(*w));

	ck_assert_ptr_nonnull(w);
	w->loop = loop;
	w->heard = buf_heap(256u << 20);
	return w;
}

static struct sockaddr_un
address(const char *path)
{
	struct sockaddr_un un = { .sun_family = AF_UNIX };

	ck_assert_uint_lt(strlen(path), sizeof(un.sun_path));
	memcpy(un.sun_path, path, strlen(path) + 1);
	return un;
}

int
wire_listen(const char *path)
{
	struct sockaddr_un un = address(path);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	ck_assert_int_ge(fd, 0);
	(void)unlink(path); /* of a run before, if at all */
	ck_assert_int_eq(bind(fd, (struct sockaddr *)&un, sizeof(un)), 0);
	ck_assert_int_eq(listen(fd, 64), 0);
	return fd;
}

struct wire *
wire_open(uv_loop_t *loop, const char *path)
{
	struct sockaddr_un un = address(path);
	struct wire *w = wire_new(loop);
	struct err err = { 0 };

	w->stream = stream_connect(loop, (struct sockaddr *)&un, NULL, &ops, w, &err);
	ck_assert_msg(w->stream != NULL, "%s", err.msg);
	return w;
}

struct wire *
wire_pair(uv_loop_t *loop, int *fd)
{
	struct wire *w = wire_new(loop);
	struct err err = { 0 };
	int fds[2];

	ck_assert_int_eq(
	    socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
	w->stream = stream_open(loop, fds[0], &ops, w, &err);
	ck_assert_msg(w->stream != NULL, "%s", err.msg);
	*fd = fds[1];
	return w;
}

void
wire_say(struct wire *w, struct slice bytes)
{
	ck_assert_ptr_nonnull(w->stream);
	stream_write(w->stream, bytes);
}

static void
on_tick(uv_timer_t *timer)
{
	(void)timer; /* wakes the loop, so that the test sees how late it is */
}

static void
on_tick_closed(uv_handle_t *handle)
{
	handle->data = handle;
}

/* Runs the loop while go_on(arg), at most WAIT_MS. */
static void
run_while(uv_loop_t *loop, bool (*go_on)(void *arg), void *arg)
{
	int64_t until = clock_mono_ms() + WAIT_MS;
	uv_timer_t tick;

	ck_assert_int_eq(uv_timer_init(loop, &tick), 0);
	ck_assert_int_eq(uv_timer_start(&tick, on_tick, 100, 100), 0);
	while (go_on(arg)) {
		ck_assert_msg(clock_mono_ms() < until, "nothing came in %d ms", WAIT_MS);
		(void)uv_run(loop, UV_RUN_ONCE); /* the timer keeps it alive */
	}
	tick.data = NULL;
	uv_close((uv_handle_t *)&tick, on_tick_closed);
	while (tick.data == NULL)
		(void)uv_run(loop, UV_RUN_NOWAIT); /* the handle is on this stack */
}

struct wanted {
	struct wire *w;
	struct slice end;
	size_t lines;
};

static size_t
count_lines(struct slice s)
{
	size_t n = 0;

	for (size_t i = 0; i < s.len; i++)
		n += s.p[i] == '\n';
	return n;
}

static bool
not_heard(void *arg)
{
	struct wanted *wanted = arg;
	struct slice fresh = slice_drop(buf_slice(&wanted->w->heard), wanted->w->given);

	if ((wanted->end.len > 0 && slice_ends(fresh, wanted->end)) ||
	    (wanted->lines > 0 && count_lines(fresh) >= wanted->lines))
		return false;
	if (wanted->w->stream == NULL && (wanted->end.len > 0 || wanted->lines > 0))
		ck_abort_msg("the connection closed after: %.*s", SLICE_FMT(fresh));
	return wanted->w->stream != NULL;
}

static const char *
give(struct wire *w)
{
	const char *text;

	buf_putc(&w->heard, '\0');
	text = w->heard.p + w->given;
	w->heard.len--;
	w->given = w->heard.len;
	return text;
}

static const char *
hear(struct wire *w, struct slice end, size_t lines)
{
	struct wanted wanted = { w, end, lines };

	buf_consume(&w->heard, w->given);
	w->given = 0;
	run_while(w->loop, not_heard, &wanted);
	return give(w);
}

const char *
wire_hear(struct wire *w, const char *end)
{
	return hear(w, slice_str(end), 0);
}

const char *
wire_lines(struct wire *w, const char *line, size_t n)
{
	wire_say(w, slice_str(line));
	return hear(w, SLICE(""), n);
}

const char *
wire_ask(struct wire *w, const char *line, const char *end)
{
	wire_say(w, slice_str(line));
	return wire_hear(w, end);
}

const char *
wire_hear_end(struct wire *w)
{
	return wire_hear(w, "");
}

bool
wire_is_open(const struct wire *w)
{
	return w->stream != NULL;
}

static bool
is_open(void *arg)
{
	return ((struct wire *)arg)->stream != NULL;
}

void
wire_close(struct wire *w)
{
	if (w->stream != NULL)
		stream_close(w->stream);
	run_while(w->loop, is_open, w);
	buf_fini(&w->heard);
	free(w);
}

static bool
not_set(void *arg)
{
	return !*(const bool *)arg;
}

void
run_until(uv_loop_t *loop, const bool *flag)
{
	run_while(loop, not_set, (void *)(uintptr_t)flag);
}
