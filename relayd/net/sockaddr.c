/* relayd/net/sockaddr.c - socket addresses: how long they are, and how the log and the config
 * write them. */
#include "relayd/net/sockaddr.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <sys/un.h>

socklen_t
sockaddr_len(const struct sockaddr *sa)
{
	switch (sa->sa_family) {
	case AF_INET:
		return sizeof(struct sockaddr_in);
	case AF_INET6:
		return sizeof(struct sockaddr_in6);
	default:
		return sizeof(struct sockaddr_un);
	}
}

void
sockaddr_text(const struct sockaddr *sa, char out[static SOCKADDR_TEXT_BYTES])
{
	const struct sockaddr_in *in = (const void *)sa;
	const struct sockaddr_in6 *in6 = (const void *)sa;
	const struct sockaddr_un *un = (const void *)sa;
	char ip[INET6_ADDRSTRLEN] = "";

	/* All of them fit. */
	if (sa->sa_family == AF_INET) {
		(void)inet_ntop(AF_INET, &in->sin_addr, ip, sizeof(ip));
		(void)snprintf(out, SOCKADDR_TEXT_BYTES, "%s:%u", ip, ntohs(in->sin_port));
	} else if (sa->sa_family == AF_INET6) {
		(void)inet_ntop(AF_INET6, &in6->sin6_addr, ip, sizeof(ip));
		(void)snprintf(out, SOCKADDR_TEXT_BYTES, "[%s]:%u", ip, ntohs(in6->sin6_port));
	} else {
		(void)snprintf(out, SOCKADDR_TEXT_BYTES, "unix%s%s",
		    un->sun_path[0] != '\0' ? ":" : "", un->sun_path);
	}
}
