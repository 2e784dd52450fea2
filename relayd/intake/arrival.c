/* relayd/intake/arrival.c - a connection through a proxy, which first says whose it is. */
#include "relayd/core/log.h"
#include "relayd/intake/intake.h"
#include "relayd/net/proxy_wait.h"

#include <netinet/in.h>
#include <stdlib.h>
#include <unistd.h>

struct arrival {
	/* a copy: that of a sibling's socket is gone when the sibling is back */
	struct entrance at;
	struct arrival *prev, *next;
	struct sockaddr_storage peer; /* the proxy */
	struct proxy_wait wait;
};

static void
unlink_arrival(struct arrival *a)
{
	struct intake *in = a->at.in;

	if (a->prev != NULL)
		a->prev->next = a->next;
	else
		in->arrivals = a->next;
	if (a->next != NULL)
		a->next->prev = a->prev;
	in->n_arrivals--;
}

static void
link_arrival(struct arrival *a)
{
	struct intake *in = a->at.in;

	a->next = in->arrivals;
	if (a->next != NULL)
		a->next->prev = a;
	in->arrivals = a;
	in->n_arrivals++;
}

/* The client that the header tells; false where it tells none, and the peer is the client. */
static bool
client_of(const struct proxy_header *h, struct sockaddr_storage *out)
{
	struct sockaddr_in *in = (struct sockaddr_in *)(void *)out;
	struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)(void *)out;

	*out = (struct sockaddr_storage){ 0 };
	if (h->addr_len == 4) {
		*in = (struct sockaddr_in){ .sin_family = AF_INET,
			.sin_port = htons(h->client_port) };
		memcpy(&in->sin_addr, h->client, 4);
	} else if (h->addr_len == 16) {
		*in6 = (struct sockaddr_in6){ .sin6_family = AF_INET6,
			.sin6_port = htons(h->client_port) };
		memcpy(&in6->sin6_addr, h->client, 16);
	}
	return h->addr_len > 0;
}

static void
let_in(struct arrival *a)
{
	const struct sockaddr *peer = (const struct sockaddr *)&a->peer;
	struct sockaddr_storage client;
	uint8_t storage[16];

	if (client_of(&a->wait.header, &client))
		session_open(
		    &a->at, a->wait.fd, (const struct sockaddr *)&client, ip_of(peer, storage));
	else
		session_open(&a->at, a->wait.fd, peer, SLICE(""));
}

static void
on_header(struct proxy_wait *w)
{
	struct arrival *a = container_of(w, struct arrival, wait);
	struct intake *in = a->at.in;

	unlink_arrival(a);
	if (w->err.code == ERR_NONE) {
		let_in(a);
	} else if (w->err.code == ERR_CANCELLED) {
		(void)close(w->fd); /* nothing was said on it */
		intake_idle(in);    /* else the end of the session sees to it */
	} else {
		session_refuse_proxy(&a->at, w->fd, (const struct sockaddr *)&a->peer, w->err.msg);
	}
	free(a);
}

static void
wait_for_header(struct entrance *at, int fd, const struct sockaddr *peer, uint32_t timeout_ms)
{
	struct arrival *a = calloc(1, sizeof(*a));
	struct err err;

	if (a == NULL) {
		(void)close(fd); /* no memory to say more */
		return;
	}
	a->at = *at;
	memcpy(&a->peer, peer,
	    peer->sa_family == AF_INET    ? sizeof(struct sockaddr_in)
	    : peer->sa_family == AF_INET6 ? sizeof(struct sockaddr_in6)
					  : sizeof(struct sockaddr));
	a->wait.fd = fd;
	a->wait.timeout_ms = timeout_ms;
	a->wait.done = on_header;
	if (proxy_wait_start(at->in->role->loop, &a->wait, &err) == 0) {
		link_arrival(a);
		return;
	}
	log_event("limit", kv_str("what", "proxy"), kv_err("why", &err));
	(void)close(fd); /* the same */
	free(a);
}

void
arrival_open(struct entrance *at, int fd, const struct sockaddr *peer)
{
	struct intake *in = at->in;
	const struct config_listener *conf = in->gen->listeners[at->index].conf;
	uint8_t storage[16];

	if (conf == NULL || conf->n_proxy == 0 || !config_is_proxy(conf, ip_of(peer, storage)))
		session_open(at, fd, peer, SLICE(""));
	else if (in->n_arrivals >= in->gen->cfg->limits.connections)
		session_refuse_proxy(at, fd, peer, "too many connections wait for their header");
	else
		wait_for_header(at, fd, peer, conf->proxy_timeout_ms);
}

void
arrival_cancel_all(struct intake *in)
{
	for (struct arrival *a = in->arrivals; a != NULL; a = a->next)
		proxy_wait_cancel(&a->wait);
}
