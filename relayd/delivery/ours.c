/* relayd/delivery/ours.c - addresses at which mail would come back to this relayd. */
#include "relayd/delivery/ours.h"

#include "relayd/net/sockaddr.h"

#include <arpa/inet.h>
#include <string.h>
#include <unistd.h>

static bool
same_ip(const struct sockaddr *a, const struct sockaddr *b)
{
	if (a->sa_family != b->sa_family)
		return false;
	if (a->sa_family == AF_INET)
		return memcmp(&((const struct sockaddr_in *)(const void *)a)->sin_addr,
			   &((const struct sockaddr_in *)(const void *)b)->sin_addr,
			   sizeof(struct in_addr)) == 0;
	return memcmp(&((const struct sockaddr_in6 *)(const void *)a)->sin6_addr,
		   &((const struct sockaddr_in6 *)(const void *)b)->sin6_addr,
		   sizeof(struct in6_addr)) == 0;
}

/* Where a connection to addr ends: the kernel takes the unspecified address for the loopback one,
 * and a mapped one (RFC 4291 section 2.5.5.2) for what it holds. */
static void
put_reached(const struct sockaddr *addr, struct sockaddr_storage *out)
{
	struct sockaddr_in *in = (struct sockaddr_in *)out;
	struct sockaddr_in6 in6;

	memset(out, 0, sizeof(*out));
	if (addr->sa_family == AF_INET) {
		memcpy(in, addr, sizeof(*in));
	} else {
		memcpy(&in6, addr, sizeof(in6));
		if (IN6_IS_ADDR_UNSPECIFIED(&in6.sin6_addr))
			in6.sin6_addr = in6addr_loopback;
		if (!IN6_IS_ADDR_V4MAPPED(&in6.sin6_addr)) {
			memcpy(out, &in6, sizeof(in6));
			return;
		}
		*in = (struct sockaddr_in){ .sin_family = AF_INET, .sin_port = in6.sin6_port };
		memcpy(&in->sin_addr, &in6.sin6_addr.s6_addr[12], sizeof(in->sin_addr));
	}
	if (in->sin_addr.s_addr == htonl(INADDR_ANY))
		in->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
}

/* All of 127.0.0.0/8 is, although only 127.0.0.1 is sent from. */
static bool
is_loopback(const struct sockaddr *addr)
{
	const struct sockaddr_in *in = (const void *)addr;

	return addr->sa_family == AF_INET && ntohl(in->sin_addr.s_addr) >> 24 == IN_LOOPBACKNET;
}

/* What the kernel would send from to reach it is the address itself.  No packet is sent. */
static bool
is_of_this_host(const struct sockaddr *addr)
{
	socklen_t len =
	    addr->sa_family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
	int fd = socket(addr->sa_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct sockaddr_storage from = { 0 };
	socklen_t from_len = sizeof(from);
	bool ours = is_loopback(addr) ||
		    (fd >= 0 && connect(fd, addr, len) == 0 &&
			getsockname(fd, (struct sockaddr *)&from, &from_len) == 0 &&
			same_ip(addr, (struct sockaddr *)&from));

	if (fd >= 0)
		(void)close(fd); /* nothing was written */
	return ours;
}

bool
ours_has(const struct config *cfg, const struct sockaddr *addr)
{
	struct sockaddr_storage reached;
	char text[SOCKADDR_TEXT_BYTES];
	const char *port;

	put_reached(addr, &reached);
	addr = (const struct sockaddr *)&reached;
	sockaddr_text(addr, text);
	port = strrchr(text, ':');
	for (size_t i = 0; port != NULL && i < cfg->n_listeners; i++) {
		const struct config_strings *own = &cfg->listeners[i].address;

		for (size_t k = 0; k < own->n; k++)
			if (strcmp(own->v[k], text) == 0 ||
			    (own->v[k][0] == '*' && strcmp(own->v[k] + 1, port) == 0 &&
				is_of_this_host(addr)))
				return true;
	}
	return false;
}
