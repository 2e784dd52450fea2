/* relayd/net/listener.c - accepts from a listening descriptor, a queue at a time. */
#include "relayd/net/listener.h"

#include "relayd/core/counters.h"
#include "relayd/core/log.h"
#include "relayd/net/round.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>

#define BUSY_ROUNDS 4 /* since the last connection: then more than one may wait */

struct listener {
	uv_poll_t poll;
	uv_timer_t retry; /* runs while we are out of descriptors */
	int fd;
	listener_on_accept *on_accept;
	void *owner;
	bool paused, closing;
	bool exhausted; /* and it was said */
	struct round *round;
	uint64_t last; /* number of the round of the last connection */
	unsigned open_handles;
};

static void on_readable(uv_poll_t *poll, int status, int events);

static void
watch(struct listener *l)
{
	int status = uv_poll_start(&l->poll, UV_READABLE, on_readable);

	if (status < 0) /* never seen; a listener that says nothing would be worse */
		log_event("limit", kv_str("what", "listener"), kv_str("why", uv_strerror(status)));
}

static void
on_retry(uv_timer_t *timer)
{
	struct listener *l = timer->data;

	if (!l->paused && !l->closing)
		watch(l);
}

/* The connection stays in the kernel's queue.  Polling on would spin, as it stays readable. */
static void
out_of_descriptors(struct listener *l, int sys)
{
	if (!l->exhausted) {
		counter_add(COUNTER_LIMIT_HITS, 1);
		log_event("limit", kv_str("what", "descriptors"), kv_str("why", strerror(sys)));
	}
	l->exhausted = true;
	(void)uv_poll_stop(&l->poll);                                    /* always 0 */
	(void)uv_timer_start(&l->retry, on_retry, LISTENER_RETRY_MS, 0); /* not closing: 0 */
}

static void
unmap(struct sockaddr_storage *peer)
{
	struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)(void *)peer;
	struct sockaddr_in in = { .sin_family = AF_INET };

	if (peer->ss_family != AF_INET6 || !IN6_IS_ADDR_V4MAPPED(&in6->sin6_addr))
		return;
	in.sin_port = in6->sin6_port;
	memcpy(&in.sin_addr, in6->sin6_addr.s6_addr + 12, 4);
	memcpy(peer, &in, sizeof(in));
}

static bool
is_exhaustion(int sys)
{
	return sys == EMFILE || sys == ENFILE || sys == ENOBUFS || sys == ENOMEM;
}

/* False when the queue is empty, or there is no accepting now. */
static bool
accept_one(struct listener *l)
{
	struct sockaddr_storage peer = { .ss_family = AF_UNIX };
	socklen_t len = sizeof(peer);
	int fd = accept4(l->fd, (struct sockaddr *)&peer, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);

	if (fd < 0) {
		int sys = errno;

		if (is_exhaustion(sys))
			out_of_descriptors(l, sys);
		/* Else EAGAIN, or a connection that died in the queue: the next is as good. */
		return sys == ECONNABORTED || sys == EINTR || sys == EPROTO || sys == EPERM;
	}
	l->exhausted = false;
	unmap(&peer);
	counter_add(COUNTER_CONNECTIONS, 1);
	l->on_accept(l->owner, fd, (struct sockaddr *)&peer);
	return !l->paused && !l->closing;
}

/* One that comes after a calm is alone as a rule: asking for another would be a call for nothing,
 * and the kernel says in the next round if there was one. */
static unsigned
how_many(struct listener *l)
{
	uint64_t now = round_number(l->round);
	bool calm = now - l->last > BUSY_ROUNDS;

	l->last = now;
	return calm ? 1 : LISTENER_ACCEPT_MAX;
}

static void
on_readable(uv_poll_t *poll, int status, int events)
{
	struct listener *l = poll->data;
	unsigned max;

	(void)events; /* only UV_READABLE was asked for */
	if (status < 0 || l->paused || l->closing)
		return;
	max = how_many(l);
	for (unsigned n = 0; n < max && accept_one(l); n++)
		;
}

struct listener *
listener_open(uv_loop_t *loop, int fd, listener_on_accept *on_accept, void *owner, struct err *err)
{
	struct listener *l = calloc(1, sizeof(*l));
	int status = UV_ENOMEM, on = 1;

	if (l == NULL || (l->round = round_ref(loop)) == NULL ||
	    (status = uv_poll_init(loop, &l->poll, fd)) < 0) {
		if (l != NULL && l->round != NULL)
			round_unref(l->round);
		free(l);
		err_sys(err, -status, "watch a listening socket");
		return NULL;
	}
	(void)uv_timer_init(loop, &l->retry); /* cannot fail */
	l->poll.data = l->retry.data = l;
	l->open_handles = 2;
	l->fd = fd;
	l->on_accept = on_accept;
	l->owner = owner;
	/* Accepted sockets inherit it: one system call less for each.  A unix socket refuses it. */
	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	watch(l);
	return l;
}

void
listener_pause(struct listener *l)
{
	l->paused = true;
	(void)uv_poll_stop(&l->poll); /* both always 0 */
	(void)uv_timer_stop(&l->retry);
}

void
listener_resume(struct listener *l)
{
	if (!l->paused)
		return;
	l->paused = false;
	watch(l);
}

void
listener_last_call(struct listener *l)
{
	while (accept_one(l))
		;
}

static void
on_closed(uv_handle_t *handle)
{
	struct listener *l = handle->data;

	if (--l->open_handles == 0)
		free(l);
}

void
listener_close(struct listener *l)
{
	if (l == NULL || l->closing)
		return;
	l->closing = true;
	round_unref(l->round); /* no event comes any more */
	uv_close((uv_handle_t *)&l->poll, on_closed);
	uv_close((uv_handle_t *)&l->retry, on_closed);
}
