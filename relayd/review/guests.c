/* relayd/review/guests.c - the connections of one service of the review role. */
#include "relayd/review/guests.h"

#include "relayd/core/cidr.h"
#include "relayd/core/clock.h"
#include "relayd/core/log.h"

#include <stdlib.h>
#include <unistd.h>

#define TLS_MS 30000 /* for a handshake */

void
guests_init(struct guests *all, const struct guests_service *service, uv_loop_t *loop,
    struct visitors *visitors)
{
	*all = (struct guests){ .service = service, .loop = loop, .visitors = visitors };
}

void
guests_fini(struct guests *all)
{
	tls_server_unref(all->tls);
	all->tls = NULL;
}

void
guests_set_tls(struct guests *all, struct tls_server *tls)
{
	struct tls_server *old = all->tls;

	all->tls = tls != NULL ? tls_server_ref(tls) : NULL;
	tls_server_unref(old);
}

/* ---- one comes ------------------------------------------------------------------------------- */

static void
count(const struct guests *all, int by)
{
	if (all->service->told)
		counter_add(all->service->open, by);
}

static struct guest *
guest_new(struct guests *all, const struct sockaddr *peer, uint64_t ticket)
{
	struct guest *g = calloc(1, all->service->bytes);
	struct slice addr;

	if (g == NULL)
		return NULL;
	g->all = all;
	g->session = id_new();
	g->ticket = ticket;
	addr = ip_of(peer, g->addr);
	if (addr.p != (const char *)g->addr)
		memcpy(g->addr, addr.p, addr.len);
	g->addr_len = addr.len;
	g->next = all->first;
	g->prev = &all->first;
	if (g->next != NULL)
		g->next->prev = &g->next;
	all->first = g;
	count(all, 1);
	return g;
}

static void
turn_away(struct guests *all, int fd, uint64_t ticket, bool tls)
{
	const char *busy = all->service->busy;

	if (!tls && busy != NULL)
		(void)send(fd, busy, strlen(busy), MSG_NOSIGNAL); /* a courtesy: it closes anyway */
	(void)close(fd);                                          /* nothing that could be lost */
	visitors_leave(all->visitors, ticket);
}

static void
log_connect(const struct guest *g, bool tls)
{
	const struct guests_service *service = g->all->service;
	char ip[IP_TEXT_BYTES];

	ip_text(guest_addr(g), ip);
	log_event("connect", kv_id("session", g->session),
	    kv_str("service", tls ? service->name_tls : service->name), kv_str("ip", ip));
}

void
guests_accept(struct guests *all, int fd, const struct sockaddr *peer, bool tls)
{
	const struct guests_service *service = all->service;
	uint64_t ticket = all->draining ? 0 : visitors_join(all->visitors, peer, service->name);
	struct guest *g = ticket != 0 ? guest_new(all, peer, ticket) : NULL;
	struct err err = { 0 };

	if (g == NULL) {
		turn_away(all, fd, ticket, tls);
		return;
	}
	g->stream = stream_open(all->loop, fd, service->stream, g, &err);
	if (g->stream == NULL) {
		log_event("limit", kv_str("what", service->name), kv_err("error", &err));
		guest_free(g);
		return;
	}
	if (service->told)
		log_connect(g, tls);
	if (!tls) {
		service->on_begin(g);
		return;
	}
	stream_deadline(g->stream, clock_mono_ms() + TLS_MS);
	if (all->tls == NULL || stream_tls_accept(g->stream, all->tls, &err) < 0)
		stream_close(g->stream);
}

void
guest_on_tls(struct stream *stream, void *owner)
{
	struct guest *g = owner;

	(void)stream;
	g->all->service->on_begin(g);
}

/* ---- what it is ------------------------------------------------------------------------------ */

struct slice
guest_addr(const struct guest *g)
{
	return slice_of(g->addr, g->addr_len);
}

static bool
is_loopback(const struct guest *g)
{
	static const uint8_t v6[16] = { [15] = 1 };

	if (g->addr_len == 4)
		return g->addr[0] == 127;
	return g->addr_len == 0 || memcmp(g->addr, v6, sizeof(v6)) == 0;
}

bool
guest_is_private(const struct guest *g)
{
	struct tls_info info;

	return stream_tls_info(g->stream, &info) || is_loopback(g);
}

/* ---- it goes --------------------------------------------------------------------------------- */

void
guest_leaves(struct guest *g, const struct err *why)
{
	if (g->all->service->told)
		log_event("disconnect", kv_id("session", g->session),
		    kv_str("service", g->all->service->name),
		    kv_str("why", why->code == ERR_NONE ? "done" : err_code_name(why->code)));
	g->stream = NULL;
}

static void
check_drained(struct guests *all)
{
	void (*done)(void *) = all->on_drained;

	if (done == NULL || all->first != NULL)
		return;
	all->on_drained = NULL;
	done(all->drained_arg);
}

void
guest_free(struct guest *g)
{
	struct guests *all = g->all;

	if (g->next != NULL)
		g->next->prev = g->prev;
	*g->prev = g->next;
	visitors_leave(all->visitors, g->ticket);
	count(all, -1);
	free(g);
	check_drained(all);
}

void
guests_drain(struct guests *all, void (*done)(void *arg), void *arg)
{
	all->draining = true;
	all->on_drained = done;
	all->drained_arg = arg;
	for (struct guest *g = all->first; g != NULL; g = g->next)
		if (g->stream != NULL)
			all->service->on_goodbye(g);
	check_drained(all);
}

void
guests_close(struct guests *all)
{
	all->draining = true;
	for (struct guest *g = all->first; g != NULL; g = g->next)
		if (g->stream != NULL)
			stream_close(g->stream);
}

bool
guests_is_idle(const struct guests *all)
{
	return all->first == NULL;
}
