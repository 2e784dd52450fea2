/* relayd/net/control.h - the admin's channel between relayctl and a role: JSON lines on a unix
 * socket.
 *
 * The client sends one JSON object on a line; the answer is any number of JSON objects, one a
 * line, and a last one: {"ok":true} or {"error":"..."}.  Then the next request may come on the
 * same connection.  The server lets in root, its own uid and one more that it is told.
 */
#ifndef RELAYD_NET_CONTROL_H
#define RELAYD_NET_CONTROL_H

#include "relayd/core/err.h"
#include "relayd/core/slice.h"

#include <jansson.h>
#include <sys/types.h>
#include <uv.h>

#define CONTROL_REQUEST_MAX (64u << 10) /* bytes of a request */
#define CONTROL_CLIENTS_MAX 32
#define CONTROL_HIGH_BYTES  (256u << 10) /* output that waits: control_full() */
#define CONTROL_IDLE_MS     300000       /* for a request to come */

/* ---- the role's side ------------------------------------------------------------------------ */

struct control;

/* One request.  Ends with control_end(), at once or later; freed by it. */
struct control_request {
	json_t *body; /* an object; borrowed */
	uid_t uid;    /* of the client */
	void *state;  /* the handler's */
	/* Set by a handler that has more to say than control_full() lets it: called from the
	 * loop when there is room again, or when the client is gone (control_gone()).  Never
	 * inside a control_ call. */
	void (*on_more)(struct control_request *req);
	struct control_session *session; /* net/control.c's own */
};

typedef void control_handler(void *owner, struct control_request *req);

/* Serves the listening descriptor fd, which stays the caller's.  other: a uid to let in, or -1. */
struct control *control_open(
    uv_loop_t *loop, int fd, uid_t other, control_handler *handler, void *owner, struct err *err);
/* No handler runs after it.  Requests that go on must still be ended; their output is dropped. */
void control_close(struct control *ctl);

/* One object, one line; takes the reference over (also of NULL: out of memory). */
void control_line(struct control_request *req, json_t *object);
/* "name" and a long text or bytes as one object {"name":"..."}; bytes that are not UTF-8 become
 * U+FFFD. */
void control_text(struct control_request *req, const char *name, struct slice text);
/* Enough output waits: stop, and go on in on_more(). */
bool control_full(const struct control_request *req);
/* Nobody listens any more: end soon. */
bool control_gone(const struct control_request *req);
/* NULL or ERR_NONE: {"ok":true}; else {"error": err->msg}. */
void control_end(struct control_request *req, const struct err *err);

/* The member of a request as a slice; empty where there is none or it is no string. */
struct slice control_string(const struct control_request *req, const char *name);

/* ---- relayctl's side, blocking -------------------------------------------------------------- */

struct control_client;

/* timeout_ms: for the connection and between two lines.  ERR_SYS, ERR_DENIED, ERR_CLOSED when
 * nobody listens there. */
struct control_client *control_connect(const char *path, uint32_t timeout_ms, struct err *err);
void control_disconnect(struct control_client *c);
/* Sends a request; takes the reference over. */
int control_send(struct control_client *c, json_t *request, struct err *err);
/* 1: *line is an object, the caller's to json_decref(); 0: the end, {"ok":true}; -1: *err says
 * what the role did (ERR_DENIED: it answered {"error"}) or what broke. */
int control_next(struct control_client *c, json_t **line, struct err *err);

#endif
