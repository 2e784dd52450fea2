/* relayd/net/sockaddr.h - socket addresses: how long they are, and how the log and the config
 * write them. */
#ifndef RELAYD_NET_SOCKADDR_H
#define RELAYD_NET_SOCKADDR_H

#include <sys/socket.h>

#define SOCKADDR_TEXT_BYTES 128

/* Of AF_INET, AF_INET6 or AF_UNIX. */
socklen_t sockaddr_len(const struct sockaddr *sa);
/* "192.0.2.1:25", "[2001:db8::1]:25", "unix:/path"; "unix" without a path. */
void sockaddr_text(const struct sockaddr *sa, char out[static SOCKADDR_TEXT_BYTES]);

#endif
