/* relayd/net/control_client.c - relayctl's side of the admin's channel, blocking. */
#include "relayd/net/control.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#define READ_BYTES     (64u << 10)
#define LINE_MAX_BYTES (256u << 20) /* of an answer: a message body in one line fits */

struct control_client {
	int fd;
	char *line; /* bytes read: len of them, of which done were given out */
	size_t len, cap, done;
};

static int
set_timeout(int fd, uint32_t timeout_ms)
{
	struct timeval tv = { .tv_sec = timeout_ms / 1000, .tv_usec = (timeout_ms % 1000) * 1000 };

	if (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv)) < 0)
		return -1;
	return setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof(tv));
}

static int
connect_error(const char *path, int sys, struct err *err)
{
	err_sys(err, sys, "%s: cannot connect", path);
	if (err == NULL)
		return -1;
	if (sys == ECONNREFUSED || sys == ENOENT)
		err->code = ERR_CLOSED;
	else if (sys == EACCES || sys == EPERM)
		err->code = ERR_DENIED;
	return -1;
}

static int
open_socket(const char *path, uint32_t timeout_ms, struct err *err)
{
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	size_t len = strlen(path);
	int fd;

	if (len >= sizeof(un.sun_path))
		return err_set(err, ERR_LIMIT, "%s: too long for a unix socket", path);
	memcpy(un.sun_path, path, len);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return err_sys(err, errno, "socket");
	if (set_timeout(fd, timeout_ms) < 0 ||
	    connect(fd, (struct sockaddr *)&un, sizeof(un)) < 0) {
		connect_error(path, errno, err);
		(void)close(fd); /* never used */
		return -1;
	}
	return fd;
}

struct control_client *
control_connect(const char *path, uint32_t timeout_ms, struct err *err)
{
	struct control_client *c = calloc(1, sizeof(*c));

	if (c == NULL) {
		err_set(err, ERR_NOMEM, "out of memory");
		return NULL;
	}
	c->fd = open_socket(path, timeout_ms, err);
	if (c->fd < 0) {
		free(c);
		return NULL;
	}
	return c;
}

void
control_disconnect(struct control_client *c)
{
	if (c == NULL)
		return;
	(void)close(c->fd); /* all was read that counts */
	free(c->line);
	free(c);
}

static int
io_error(int sys, const char *what, struct err *err)
{
	if (sys == EAGAIN || sys == EWOULDBLOCK)
		return err_set(err, ERR_TIMEOUT, "%s: no answer in time", what);
	return err_sys(err, sys, "%s", what);
}

int
control_send(struct control_client *c, json_t *request, struct err *err)
{
	char *text = request != NULL ? json_dumps(request, JSON_COMPACT) : NULL;
	size_t len = text != NULL ? strlen(text) : 0, at = 0;
	int rc = 0;

	json_decref(request);
	if (text == NULL)
		return err_set(err, ERR_NOMEM, "out of memory");
	text[len] = '\n'; /* in place of the NUL: the length is known */
	while (at < len + 1 && rc == 0) {
		ssize_t n = send(c->fd, text + at, len + 1 - at, MSG_NOSIGNAL);

		if (n > 0)
			at += (size_t)n;
		else if (errno == EPIPE)
			break; /* the role said why before it hung up: control_next() */
		else if (errno != EINTR)
			rc = io_error(errno, "send", err);
	}
	free(text);
	return rc;
}

static int
make_room(struct control_client *c, struct err *err)
{
	size_t cap = c->cap > 0 ? c->cap * 2 : READ_BYTES;
	char *grown;

	if (c->done > 0) {
		memmove(c->line, c->line + c->done, c->len - c->done);
		c->len -= c->done;
		c->done = 0;
	}
	if (c->len < c->cap)
		return 0;
	if (cap > LINE_MAX_BYTES)
		return err_set(err, ERR_LIMIT, "an answer of over %u bytes", LINE_MAX_BYTES);
	grown = realloc(c->line, cap);
	if (grown == NULL)
		return err_set(err, ERR_NOMEM, "out of memory");
	c->line = grown;
	c->cap = cap;
	return 0;
}

static int
read_more(struct control_client *c, struct err *err)
{
	ssize_t n;

	if (make_room(c, err) < 0)
		return -1;
	do
		n = recv(c->fd, c->line + c->len, c->cap - c->len, 0);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return io_error(errno, "receive", err);
	if (n == 0)
		return err_set(err, ERR_CLOSED, "the connection ended before the answer did");
	c->len += (size_t)n;
	return 0;
}

static int
next_line(struct control_client *c, struct slice *line, struct err *err)
{
	size_t searched = 0;

	for (;;) {
		struct slice rest =
		    slice_of(c->line != NULL ? c->line + c->done : NULL, c->len - c->done);
		const char *lf = memchr(rest.p + searched, '\n', rest.len - searched);

		if (lf != NULL) {
			*line = slice_head(rest, (size_t)(lf - rest.p));
			c->done += line->len + 1;
			return 0;
		}
		searched = rest.len;
		if (read_more(c, err) < 0)
			return -1;
	}
}

/* The last line has one of two members alone. */
static bool
is_end(const json_t *object)
{
	return json_object_size(object) == 1 &&
	       (json_is_true(json_object_get(object, "ok")) ||
		   json_is_string(json_object_get(object, "error")));
}

int
control_next(struct control_client *c, json_t **line, struct err *err)
{
	struct slice text;
	const char *error;
	json_t *object;

	if (next_line(c, &text, err) < 0)
		return -1;
	object = json_loadb(text.p, text.len, 0, NULL);
	if (!json_is_object(object)) {
		json_decref(object);
		return err_set(err, ERR_PROTOCOL, "the answer is no JSON object");
	}
	if (!is_end(object)) {
		*line = object;
		return 1;
	}
	error = json_string_value(json_object_get(object, "error"));
	if (error != NULL)
		err_set(err, ERR_DENIED, "%s", error);
	json_decref(object);
	return error != NULL ? -1 : 0;
}
