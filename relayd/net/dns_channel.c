/* relayd/net/dns_channel.c - c-ares on a loop: its sockets watched, its clock driven. */
#include "relayd/net/dns_channel.h"

#include <arpa/inet.h>
#include <arpa/nameser.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#define TRIES      2
#define TRY_MS_MIN 300
#define EDNS_BYTES 1232 /* of a UDP answer: no fragments, as the DNS flag day of 2020 has it */

/* A descriptor of c-ares. */
struct watch {
	uv_poll_t poll;
	struct watch *next;
	struct dns_channel *ch;
	ares_socket_t fd;
};

struct dns_channel {
	uv_loop_t *loop;
	ares_channel ares;
	struct watch *watches;
	unsigned refs; /* by watches that are not closed yet, and the owner */
};

static void
unref(struct dns_channel *ch)
{
	if (--ch->refs == 0)
		free(ch);
}

/* ---- descriptors ---------------------------------------------------------------------------- */

static void
on_ready(uv_poll_t *poll, int status, int events)
{
	struct watch *w = poll->data;
	bool readable = status < 0 || (events & UV_READABLE) != 0;
	bool writable = status < 0 || (events & UV_WRITABLE) != 0;

	ares_process_fd(
	    w->ch->ares, readable ? w->fd : ARES_SOCKET_BAD, writable ? w->fd : ARES_SOCKET_BAD);
}

static void
on_watch_closed(uv_handle_t *handle)
{
	struct watch *w = handle->data;

	unref(w->ch);
	free(w);
}

static struct watch *
watch_new(struct dns_channel *ch, ares_socket_t fd)
{
	struct watch *w = calloc(1, sizeof(*w));

	if (w == NULL || uv_poll_init(ch->loop, &w->poll, fd) < 0) {
		free(w);
		return NULL;
	}
	w->poll.data = w;
	w->ch = ch;
	w->fd = fd;
	w->next = ch->watches;
	ch->watches = w;
	ch->refs++;
	return w;
}

/* c-ares says what it waits for on a descriptor; nothing: it is about to close it. */
static void
on_sock_state(void *arg, ares_socket_t fd, int readable, int writable)
{
	struct dns_channel *ch = arg;
	struct watch **at = &ch->watches, *w;
	int events = (readable ? UV_READABLE : 0) | (writable ? UV_WRITABLE : 0);

	while (*at != NULL && (*at)->fd != fd)
		at = &(*at)->next;
	w = *at;
	if (events == 0) {
		if (w == NULL)
			return;
		*at = w->next;
		uv_close((uv_handle_t *)&w->poll, on_watch_closed);
		return;
	}
	if (w == NULL && (w = watch_new(ch, fd)) == NULL)
		return;                                  /* out of memory: the question times out */
	(void)uv_poll_start(&w->poll, events, on_ready); /* fails only while closing */
}

/* ---- servers -------------------------------------------------------------------------------- */

/* Cuts "192.0.2.53", "127.0.0.1:5353", "::1" or "[::1]:53" in two; port is 53 where none is
 * given. */
static bool
split_server(struct slice text, struct slice *ip, struct slice *port)
{
	struct slice rest;

	*port = SLICE("53");
	if (slice_starts(text, SLICE("["))) {
		*ip = slice_until(slice_drop(text, 1), ']');
		rest = slice_drop(text, 1 + ip->len);
		if (slice_eq(rest, SLICE("]")))
			return true;
		*port = slice_drop(rest, 2);
		return slice_starts(rest, SLICE("]:"));
	}
	*ip = slice_until(text, ':');
	rest = slice_drop(text, ip->len + 1);
	if (ip->len == text.len)
		return true;
	if (slice_has(rest, ':')) /* an IPv6 address as it stands */
		*ip = text;
	else
		*port = rest;
	return true;
}

static bool
parse_server(const char *text, struct ares_addr_port_node *node)
{
	char host[INET6_ADDRSTRLEN + 1];
	struct slice ip, port;
	uint64_t number;

	if (!split_server(slice_str(text), &ip, &port) || ip.len >= sizeof(host) ||
	    !slice_u64(port, UINT16_MAX, &number) || number == 0)
		return false;
	(void)snprintf(host, sizeof(host), "%.*s", SLICE_FMT(ip)); /* fits */
	node->udp_port = node->tcp_port = (int)number;
	node->family = AF_INET;
	if (inet_pton(AF_INET, host, &node->addr.addr4) == 1)
		return true;
	node->family = AF_INET6;
	return inet_pton(AF_INET6, host, &node->addr.addr6) == 1;
}

static int
set_servers(struct dns_channel *ch, const struct dns_options *options, struct err *err)
{
	struct ares_addr_port_node *nodes = calloc(options->n_servers, sizeof(*nodes));
	int status = ARES_ENOMEM;

	for (size_t i = 0; nodes != NULL && i < options->n_servers; i++) {
		if (!parse_server(options->servers[i], &nodes[i])) {
			free(nodes);
			return err_set(err, ERR_CONFIG,
			    "dns: server \"%s\" is no address, nor ADDRESS:PORT",
			    options->servers[i]);
		}
		nodes[i].next = i + 1 < options->n_servers ? &nodes[i + 1] : NULL;
	}
	if (nodes != NULL)
		status = ares_set_servers_ports(ch->ares, nodes);
	free(nodes);
	if (status != ARES_SUCCESS)
		return err_set(err, ERR_CONFIG, "dns: %s", ares_strerror(status));
	return 0;
}

/* ---- the channel ---------------------------------------------------------------------------- */

/* For one try, so that all of them end in time: c-ares waits twice as long in its second round. */
static int
try_ms(uint32_t timeout_ms, size_t n_servers)
{
	uint32_t ms = timeout_ms / (uint32_t)(3 * (n_servers > 0 ? n_servers : 1));

	return (int)(ms > TRY_MS_MIN ? ms : TRY_MS_MIN);
}

static void
init_library(void)
{
	(void)ares_library_init(ARES_LIB_INIT_ALL); /* a no-op but on Windows */
}

struct dns_channel *
dns_channel_open(
    uv_loop_t *loop, const struct dns_options *options, uint32_t timeout_ms, struct err *err)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	struct dns_channel *ch = calloc(1, sizeof(*ch));
	struct ares_options ares = {
		.flags = ARES_FLAG_EDNS | ARES_FLAG_NOSEARCH | ARES_FLAG_NOALIASES,
		.ednspsz = EDNS_BYTES,
		.tries = TRIES,
		.timeout = try_ms(timeout_ms, options->n_servers),
		.sock_state_cb = on_sock_state,
		.sock_state_cb_data = ch,
	};
	int status = ARES_ENOMEM;

	(void)pthread_once(&once, init_library); /* cannot fail */
	if (ch != NULL)
		status = ares_init_options(&ch->ares, &ares,
		    ARES_OPT_FLAGS | ARES_OPT_EDNSPSZ | ARES_OPT_TRIES | ARES_OPT_TIMEOUTMS |
			ARES_OPT_SOCK_STATE_CB);
	if (status != ARES_SUCCESS) {
		free(ch);
		err_set(err, ERR_SYS, "dns: %s", ares_strerror(status));
		return NULL;
	}
	ch->loop = loop;
	ch->refs = 1;
	if (options->n_servers == 0 || set_servers(ch, options, err) == 0)
		return ch;
	dns_channel_close(ch);
	return NULL;
}

void
dns_channel_close(struct dns_channel *ch)
{
	if (ch == NULL)
		return;
	ares_destroy(ch->ares);
	unref(ch);
}

void
dns_channel_ask(struct dns_channel *ch, const char *name, int type, ares_callback done, void *arg)
{
	ares_query(ch->ares, name, ns_c_in, type, done, arg);
}

void
dns_channel_tick(struct dns_channel *ch)
{
	ares_process_fd(ch->ares, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
}
