/* relayd/net/steer.h - which sockets of one port get the connections to come. */
#ifndef RELAYD_NET_STEER_H
#define RELAYD_NET_STEER_H

#include <stdbool.h>

/* Connections to the port of fd, a listening socket that shares it with others (SO_REUSEPORT), go
 * to the first n of these, in the order in which they began to listen, any of them alike; those
 * that wait already stay where they are.  Where there are fewer sockets than n the kernel chooses
 * among all.  False for a socket that shares no port (of a unix path, say): nothing is changed. */
bool steer_to_first(int fd, unsigned n);

#endif
