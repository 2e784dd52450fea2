/* relayd/net/bind.c - binds the listening sockets of the config (net/listener.h). */
#include "relayd/net/listener.h"

#include "relayd/net/sockaddr.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

union address {
	struct sockaddr sa;
	struct sockaddr_in in;
	struct sockaddr_in6 in6;
	struct sockaddr_un un;
};

struct parsed {
	union address addr[2]; /* for "*" IPv4 and IPv6 */
	size_t n;
	bool any; /* "*": a host without IPv6 has the other */
};

/* ---- the form ------------------------------------------------------------------------------- */

static int
parse_unix(const char *text, struct slice path, struct parsed *out, struct err *err)
{
	struct sockaddr_un *un = &out->addr[0].un;

	if (path.len == 0 || path.p[0] != '/')
		return err_set(
		    err, ERR_CONFIG, "%s: the path of a unix socket begins with /", text);
	if (path.len >= sizeof(un->sun_path))
		return err_set(err, ERR_CONFIG,
		    "%s: the path of a unix socket has at most %zu bytes", text,
		    sizeof(un->sun_path) - 1);
	un->sun_family = AF_UNIX;
	memcpy(un->sun_path, path.p, path.len);
	out->n = 1;
	return 0;
}

static void
set_v4(union address *a, struct in_addr ip, in_port_t port)
{
	a->in = (struct sockaddr_in){ .sin_family = AF_INET, .sin_port = port, .sin_addr = ip };
}

static void
set_v6(union address *a, struct in6_addr ip, in_port_t port)
{
	a->in6 =
	    (struct sockaddr_in6){ .sin6_family = AF_INET6, .sin6_port = port, .sin6_addr = ip };
}

/* host without brackets, NUL-terminated. */
static bool
parse_host(const char *host, bool brackets, in_port_t port, struct parsed *out)
{
	struct in_addr v4;
	struct in6_addr v6;

	out->n = 1;
	if (!brackets && strcmp(host, "*") == 0) {
		out->any = true;
		out->n = 2;
		set_v4(&out->addr[0], (struct in_addr){ .s_addr = htonl(INADDR_ANY) }, port);
		set_v6(&out->addr[1], in6addr_any, port);
	} else if (!brackets && inet_pton(AF_INET, host, &v4) == 1) {
		set_v4(&out->addr[0], v4, port);
	} else if (brackets && inet_pton(AF_INET6, host, &v6) == 1) {
		set_v6(&out->addr[0], v6, port);
	} else {
		return false;
	}
	return true;
}

static int
parse(const char *text, struct parsed *out, struct err *err)
{
	struct slice all = slice_str(text), host;
	const char *colon = strrchr(text, ':');
	char name[64];
	uint64_t port;
	bool brackets;

	*out = (struct parsed){ 0 };
	if (slice_starts(all, SLICE("unix:")))
		return parse_unix(text, slice_drop(all, 5), out, err);
	if (colon == NULL || !slice_u64(slice_str(colon + 1), UINT16_MAX, &port))
		return err_set(err, ERR_CONFIG, "%s: not of the form ADDRESS:PORT", text);
	host = slice_head(all, (size_t)(colon - text));
	brackets = slice_starts(host, SLICE("[")) && slice_chop(&host, "]");
	if (brackets)
		host = slice_drop(host, 1);
	(void)snprintf(
	    name, sizeof(name), "%.*s", SLICE_FMT(host)); /* cut: then it is no address */
	if (slice_has(host, '\0') || !parse_host(name, brackets, htons((uint16_t)port), out))
		return err_set(err, ERR_CONFIG,
		    "%s: \"%.*s\" is not *, an IPv4 address or [an IPv6 address]", text,
		    SLICE_FMT(host));
	return 0;
}

int
listener_check(const char *address, struct err *err)
{
	struct parsed parsed;

	return parse(address, &parsed, err);
}

/* ---- the sockets ---------------------------------------------------------------------------- */

static int
bind_error(const char *address, int sys, struct err *err)
{
	if (sys == EADDRINUSE)
		return err_set(
		    err, ERR_BUSY, "%s: the address is in use by another process", address);
	return err_sys(err, sys, "%s: cannot listen", address);
}

/* A socket bound to a; -1 with errno. */
static int
bound_socket(const union address *a, bool share)
{
	int fd = socket(a->sa.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	int on = 1, sys;

	if (fd < 0)
		return -1;
	if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0 ||
	    (share && setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on)) < 0) ||
	    (a->sa.sa_family == AF_INET6 &&
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on)) < 0) ||
	    bind(fd, &a->sa, sockaddr_len(&a->sa)) < 0) {
		sys = errno;
		(void)close(fd); /* never used */
		errno = sys;
		return -1;
	}
	return fd;
}

/* With SO_REUSEPORT a second process of the same uid would share the port unnoticed: so first a
 * bind, and a listen, without it. */
static int
probe(const union address *a)
{
	int fd = bound_socket(a, false), rc = -1, sys;

	if (fd < 0)
		return -1;
	rc = listen(fd, 1);
	sys = errno;
	(void)close(fd); /* it has shown what it was for */
	errno = sys;
	return rc;
}

/* What the kernel bound, port 0 being a free one. */
static int
learn_port(int fd, struct parsed *parsed)
{
	union address bound;
	socklen_t len = sizeof(bound);

	if (getsockname(fd, &bound.sa, &len) < 0)
		return -1;
	for (size_t i = 0; i < parsed->n; i++) { /* both families have the port at one place */
		if (bound.sa.sa_family == AF_INET6)
			parsed->addr[i].in.sin_port = bound.in6.sin6_port;
		else
			parsed->addr[i].in.sin_port = bound.in.sin_port;
	}
	return 0;
}

static int
listen_on(
    struct listener_socket *out, struct parsed *parsed, size_t i, unsigned copy, bool alone)
{
	union address *a = &parsed->addr[i];
	bool free_port = a->in.sin_port == 0;
	int on = 1, sys;

	if (alone && copy == 0 && !free_port && probe(a) < 0)
		return -1;
	out->fd = bound_socket(a, true);
	if (out->fd < 0)
		return -1;
	(void)setsockopt(out->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)); /* a speed-up */
	if (listen(out->fd, LISTENER_BACKLOG) < 0 ||
	    (free_port && learn_port(out->fd, parsed) < 0)) {
		sys = errno;
		(void)close(out->fd); /* nothing came yet */
		errno = sys;
		return -1;
	}
	out->copy = copy;
	sockaddr_text(&a->sa, out->name);
	return 0;
}

static bool
no_such_family(int sys)
{
	return sys == EAFNOSUPPORT || sys == EADDRNOTAVAIL || sys == EPROTONOSUPPORT;
}

static int
bind_tcp(struct parsed *parsed, unsigned copies, bool alone, struct listener_socket *sockets,
    size_t *n)
{
	for (unsigned copy = 0; copy < copies; copy++) {
		for (size_t i = 0; i < parsed->n; i++) {
			if (listen_on(&sockets[*n], parsed, i, copy, alone) == 0)
				(*n)++;
			else if (!(parsed->any && no_such_family(errno)))
				return -1;
		}
	}
	if (*n == 0)
		errno = EAFNOSUPPORT;
	return *n > 0 ? 0 : -1;
}

/* ---- unix sockets --------------------------------------------------------------------------- */

/* A file left behind by a process that died is in the way, one that answers is somebody's. */
static int
clear_path(const union address *a, const char *address, struct err *err)
{
	struct stat st;
	int fd, rc;

	if (lstat(a->un.sun_path, &st) < 0)
		return errno == ENOENT ? 0 : bind_error(address, errno, err);
	if (!S_ISSOCK(st.st_mode))
		return err_set(
		    err, ERR_EXISTS, "%s: a file that is no socket is in the way", address);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return bind_error(address, errno, err);
	rc = connect(fd, &a->sa, sizeof(a->un)) < 0 ? errno : 0;
	(void)close(fd); /* nothing was said on it */
	if (rc != ECONNREFUSED)
		return bind_error(address, rc == 0 || rc == EAGAIN ? EADDRINUSE : rc, err);
	return unlink(a->un.sun_path) < 0 ? bind_error(address, errno, err) : 0;
}

static int
bind_unix(const union address *a, const char *address, struct listener_socket *out, struct err *err)
{
	int fd, sys;

	if (clear_path(a, address, err) < 0)
		return -1;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	/* Linux gives the file the mode of the descriptor: nobody finds it open for a moment. */
	if (fd < 0 || fchmod(fd, S_IRUSR | S_IWUSR) < 0 || bind(fd, &a->sa, sizeof(a->un)) < 0 ||
	    listen(fd, LISTENER_BACKLOG) < 0) {
		sys = errno;
		if (fd >= 0)
			(void)close(fd); /* never used */
		return bind_error(address, sys, err);
	}
	*out = (struct listener_socket){ .fd = fd };
	sockaddr_text(&a->sa, out->name);
	return 0;
}

static int
bind_all(const char *address, unsigned copies, bool alone, struct listener_socket *sockets,
    size_t *n, struct err *err)
{
	struct parsed parsed;
	int sys;

	*n = 0;
	if (parse(address, &parsed, err) < 0)
		return -1;
	if (parsed.addr[0].sa.sa_family == AF_UNIX) {
		if (bind_unix(&parsed.addr[0], address, &sockets[0], err) < 0)
			return -1;
		*n = 1;
		return 0;
	}
	if (bind_tcp(&parsed, copies, alone, sockets, n) == 0)
		return 0;
	sys = errno;
	while (*n > 0)
		(void)close(sockets[--*n].fd); /* nothing came yet */
	return bind_error(address, sys, err);
}

int
listener_bind(const char *address, unsigned copies, struct listener_socket *sockets, size_t *n,
    struct err *err)
{
	return bind_all(address, copies, true, sockets, n, err);
}

int
listener_bind_more(const char *address, unsigned copies, struct listener_socket *sockets, size_t *n,
    struct err *err)
{
	return bind_all(address, copies, false, sockets, n, err);
}
