/* relayd/net/proxy_wait.c - waits for the PROXY header of a fresh connection. */
#include "relayd/net/proxy_wait.h"

#include <errno.h>
#include <sys/socket.h>

static void
on_closed(uv_handle_t *handle)
{
	struct proxy_wait *w = handle->data;

	if (--w->open_handles == 0)
		w->done(w); /* nobody watches the descriptor any more */
}

static void
finish(struct proxy_wait *w)
{
	if (uv_is_closing((uv_handle_t *)&w->timer))
		return;
	uv_close((uv_handle_t *)&w->poll, on_closed);
	uv_close((uv_handle_t *)&w->timer, on_closed);
}

static void
fail(struct proxy_wait *w, enum err_code code, const char *why)
{
	if (uv_is_closing((uv_handle_t *)&w->timer))
		return;
	(void)err_set(&w->err, code, "%s", why); /* kept for done() */
	finish(w);
}

/* Takes n of the bytes that were looked at; they are there. */
static bool
take(struct proxy_wait *w, size_t n)
{
	ssize_t got = recv(w->fd, w->bytes + w->used, n, 0);

	if (got != (ssize_t)n) {
		fail(w, ERR_SYS, "the header could not be read");
		return false;
	}
	w->used += n;
	return true;
}

/* While the header is not whole, all that has come belongs to it and is taken: else the loop would
 * be woken for it again and again. */
static void
look(struct proxy_wait *w, size_t fresh)
{
	switch (proxy_scan(slice_of(w->bytes, w->used + fresh), &w->header)) {
	case PROXY_MORE:
		(void)take(w, fresh); /* a failure has ended it */
		return;
	case PROXY_DONE:
		if (take(w, w->header.bytes - w->used))
			finish(w);
		return;
	case PROXY_NONE:
	case PROXY_BAD:
		fail(w, ERR_PROTOCOL, w->header.why);
		return;
	}
}

static void
on_readable(uv_poll_t *poll, int status, int events)
{
	struct proxy_wait *w = poll->data;
	ssize_t n =
	    status < 0 ? -1 : recv(w->fd, w->bytes + w->used, sizeof(w->bytes) - w->used, MSG_PEEK);

	(void)events; /* only UV_READABLE was asked for */
	if (n > 0)
		look(w, (size_t)n);
	else if (n == 0)
		fail(w, ERR_CLOSED, "closed before its PROXY header");
	else if (status < 0 || (errno != EAGAIN && errno != EINTR))
		fail(w, ERR_CLOSED, "lost before its PROXY header");
}

static void
on_timeout(uv_timer_t *timer)
{
	struct proxy_wait *w = timer->data;

	fail(w, ERR_TIMEOUT,
	    w->used > 0 ? "the PROXY header did not come to its end" : "no PROXY header came");
}

int
proxy_wait_start(uv_loop_t *loop, struct proxy_wait *w, struct err *err)
{
	int status = uv_poll_init(loop, &w->poll, w->fd);

	if (status < 0)
		return err_sys(err, -status, "watch a connection");
	(void)uv_timer_init(loop, &w->timer); /* cannot fail */
	w->poll.data = w->timer.data = w;
	w->open_handles = 2;
	w->used = 0;
	w->err = (struct err){ 0 };
	(void)uv_poll_start(&w->poll, UV_READABLE, on_readable);       /* a fresh handle */
	(void)uv_timer_start(&w->timer, on_timeout, w->timeout_ms, 0); /* the same */
	return 0;
}

void
proxy_wait_cancel(struct proxy_wait *w)
{
	fail(w, ERR_CANCELLED, "cancelled");
}
