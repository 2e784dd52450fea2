/* relayd/net/listener.h - binds listening sockets, and accepts from those handed over.
 *
 * The supervisor binds; a role accepts from the descriptors it was given and never closes them.
 */
#ifndef RELAYD_NET_LISTENER_H
#define RELAYD_NET_LISTENER_H

#include "relayd/core/err.h"
#include "relayd/core/slice.h"

#include <sys/socket.h>
#include <uv.h>

#define LISTENER_ACCEPT_MAX 64  /* connections taken in one loop round */
#define LISTENER_RETRY_MS   200 /* out of descriptors: try again after */
#define LISTENER_BACKLOG    1024

/* ---- accepting ------------------------------------------------------------------------------ */

struct listener;

/* A connection: fd is non-blocking, close-on-exec, TCP_NODELAY, and the callee's (for
 * stream_open()).  An IPv4-mapped peer comes as AF_INET. */
typedef void listener_on_accept(void *owner, int fd, const struct sockaddr *peer);

/* Accepts from fd (listening, non-blocking), which stays the caller's and open until
 * listener_close() has returned.  Connections are counted; running out of descriptors is logged
 * as event=limit and waited out. */
struct listener *listener_open(
    uv_loop_t *loop, int fd, listener_on_accept *on_accept, void *owner, struct err *err);
/* Leaves connections in the kernel's queue, and takes them again. */
void listener_pause(struct listener *l);
void listener_resume(struct listener *l);
/* Takes what waits in the kernel's queue, however much: the last before listener_close(). */
void listener_last_call(struct listener *l);
/* No callback runs after it; the memory goes with the loop's next round.  Accepts NULL. */
void listener_close(struct listener *l);

/* ---- binding -------------------------------------------------------------------------------- */

#define LISTENER_NAME_BYTES 128 /* SOCKADDR_TEXT_BYTES */

struct listener_socket {
	int fd;        /* bound, listening, non-blocking, close-on-exec */
	unsigned copy; /* 0 .. copies - 1: for which worker */
	/* As bound: "127.0.0.1:25", "[::]:25", "unix:/run/x.sock". */
	char name[LISTENER_NAME_BYTES];
};

/* Checks the form of "*:25", "127.0.0.1:2525", "[::1]:25" or "unix:/path" without binding. */
int listener_check(const char *address, struct err *err);
/* Binds address `copies` times with SO_REUSEPORT, after a bind without it has shown that nobody
 * else has the port; "*" is an IPv4 and an IPv6 socket for each copy, a unix socket one for all
 * (mode 0600; a dead socket file in its way is removed).  Fills sockets[0 .. *n - 1],
 * at most two for each copy.  Port 0 takes a free one, the same for all.  -1 with *err naming the
 * address, nothing left open: ERR_BUSY when it is in use, ERR_CONFIG for a bad form, ERR_SYS. */
int listener_bind(const char *address, unsigned copies, struct listener_socket *sockets, size_t *n,
    struct err *err);
/* The same where the port is ours already, so that there is nothing to show. */
int listener_bind_more(const char *address, unsigned copies, struct listener_socket *sockets,
    size_t *n, struct err *err);

#endif
