/* relayd/net/control.c - the role's side of the admin's channel: JSON lines on a unix socket. */
#include "relayd/net/control.h"

#include "relayd/core/log.h"
#include "relayd/net/listener.h"
#include "relayd/net/stream.h"

#include <stdlib.h>
#include <unistd.h>

/* A client's connection; lives until it is closed and its request has ended. */
struct control_session {
	struct control *ctl; /* NULL after control_close() */
	struct control_session *prev, *next;
	struct stream *stream;       /* NULL: gone */
	struct control_request *req; /* the one in work; the next waits in the stream */
	bool wants_more;             /* control_full() was true: on_more() is owed */
};

struct control {
	uv_loop_t *loop;
	struct listener *listener;
	uid_t other;
	control_handler *handler;
	void *owner;
	struct control_session *sessions;
	size_t n;
};

static void
session_free(struct control_session *s)
{
	if (s->stream != NULL || s->req != NULL)
		return;
	if (s->ctl != NULL) {
		*(s->prev != NULL ? &s->prev->next : &s->ctl->sessions) = s->next;
		if (s->next != NULL)
			s->next->prev = s->prev;
		s->ctl->n--;
	}
	free(s);
}

/* ---- answers -------------------------------------------------------------------------------- */

static void
write_json(struct control_session *s, json_t *object)
{
	char *text = object != NULL ? json_dumps(object, JSON_COMPACT) : NULL;

	json_decref(object);
	if (s->stream == NULL || text == NULL) {
		free(text);
		if (s->stream != NULL) /* a line less would be a wrong answer */
			stream_close(s->stream);
		return;
	}
	stream_write(s->stream, slice_str(text));
	stream_write(s->stream, SLICE("\n"));
	free(text);
}

void
control_line(struct control_request *req, json_t *object)
{
	write_json(req->session, object);
}

/* The length of the UTF-8 sequence at the front of s, or 0. */
static size_t
utf8_len(struct slice s)
{
	unsigned char c = (unsigned char)s.p[0];
	size_t n = c < 0x80                ? 1
		   : c >= 0xc2 && c < 0xe0 ? 2
		   : c >= 0xe0 && c < 0xf0 ? 3
		   : c >= 0xf0 && c < 0xf5 ? 4
					   : 0;
	unsigned char second = s.len > 1 ? (unsigned char)s.p[1] : 0;

	if (n > s.len)
		return 0;
	for (size_t i = 1; i < n; i++)
		if (((unsigned char)s.p[i] & 0xc0) != 0x80)
			return 0;
	/* Overlong forms, surrogates, and what lies behind U+10FFFF (RFC 3629 section 4). */
	if ((c == 0xe0 && second < 0xa0) || (c == 0xed && second > 0x9f) ||
	    (c == 0xf0 && second < 0x90) || (c == 0xf4 && second > 0x8f))
		return 0;
	return n;
}

static json_t *
json_text(struct slice text)
{
	struct buf utf8 = buf_heap(text.len * 3 + 1);
	json_t *string;

	while (text.len > 0) {
		size_t n = utf8_len(text);

		buf_put(&utf8, n > 0 ? slice_head(text, n) : SLICE("\xef\xbf\xbd"));
		text = slice_drop(text, n > 0 ? n : 1);
	}
	string = utf8.overflow ? NULL : json_stringn(utf8.len > 0 ? utf8.p : "", utf8.len);
	buf_fini(&utf8);
	return string;
}

void
control_text(struct control_request *req, const char *name, struct slice text)
{
	control_line(req, json_pack("{s:o}", name, json_text(text)));
}

bool
control_full(const struct control_request *req)
{
	struct control_session *s = req->session;
	bool full = s->stream != NULL && stream_pending(s->stream) >= CONTROL_HIGH_BYTES;

	s->wants_more = s->wants_more || full;
	return full;
}

bool
control_gone(const struct control_request *req)
{
	return req->session->stream == NULL;
}

void
control_end(struct control_request *req, const struct err *err)
{
	struct control_session *s = req->session;

	if (s->stream != NULL && err != NULL && err->code != ERR_NONE)
		write_json(s, json_pack("{s:o}", "error", json_text(slice_str(err->msg))));
	else if (s->stream != NULL)
		write_json(s, json_pack("{s:b}", "ok", 1));
	json_decref(req->body);
	free(req);
	s->req = NULL;
	s->wants_more = false;
	if (s->stream != NULL)
		stream_resume(s->stream);
	session_free(s);
}

struct slice
control_string(const struct control_request *req, const char *name)
{
	const json_t *value = json_object_get(req->body, name);

	return slice_of(json_string_value(value), json_string_length(value));
}

/* ---- requests ------------------------------------------------------------------------------- */

static void
fail_session(struct control_session *s, const char *why)
{
	write_json(s, json_pack("{s:s}", "error", why));
	if (s->stream != NULL)
		stream_end(s->stream);
}

static void
begin_request(struct control_session *s, struct slice line)
{
	json_t *body = json_loadb(line.p, line.len, JSON_REJECT_DUPLICATES, NULL);

	if (body == NULL || !json_is_object(body) || s->ctl == NULL) {
		json_decref(body);
		fail_session(s, "a request is one JSON object on a line");
		return;
	}
	s->req = calloc(1, sizeof(*s->req));
	if (s->req == NULL) {
		json_decref(body);
		stream_close(s->stream);
		return;
	}
	*s->req = (struct control_request){
		.body = body, .uid = stream_peer_uid(s->stream), .session = s
	};
	stream_deadline(s->stream, 0); /* the handler takes the time it needs */
	stream_pause(s->stream);
	s->ctl->handler(s->ctl->owner, s->req);
}

static void
expect_request(struct control_session *s)
{
	stream_deadline(s->stream, (int64_t)uv_now(stream_loop(s->stream)) + CONTROL_IDLE_MS);
}

/* One request after the other: the next waits until the handler has ended this one. */
static size_t
on_read(struct stream *stream, void *owner, struct slice bytes)
{
	struct control_session *s = owner;
	struct slice rest = bytes;

	(void)stream; /* the session's own */
	expect_request(s);
	while (s->req == NULL && rest.len > 0) {
		struct slice line = slice_until(rest, '\n');

		if (line.len > CONTROL_REQUEST_MAX) {
			fail_session(s, "the request is too long");
			return bytes.len;
		}
		if (line.len == rest.len)
			break; /* not whole yet */
		rest = slice_drop(rest, line.len + 1);
		if (slice_trim(line).len > 0)
			begin_request(s, line);
	}
	return bytes.len - rest.len;
}

static void
tell_more(struct control_session *s)
{
	if (s->req == NULL || s->req->on_more == NULL || !s->wants_more)
		return;
	s->wants_more = false;
	s->req->on_more(s->req);
}

static void
on_drain(struct stream *stream, void *owner)
{
	(void)stream;
	tell_more(owner);
}

static void
on_eof(struct stream *stream, void *owner)
{
	(void)owner; /* its request, if any, has ended: reading is paused till then */
	stream_end(stream);
}

static void
on_close(struct stream *stream, void *owner, const struct err *why)
{
	struct control_session *s = owner;

	(void)stream;
	(void)why; /* relayctl says what it saw */
	s->stream = NULL;
	if (s->req != NULL && s->req->on_more != NULL)
		s->req->on_more(s->req); /* it finds control_gone(), and ends now or later */
	else
		session_free(s);
}

static const struct stream_ops session_ops = {
	.on_read = on_read,
	.on_eof = on_eof,
	.on_drain = on_drain,
	.on_close = on_close,
};

/* ---- connections ---------------------------------------------------------------------------- */

static bool
may_enter(const struct control *ctl, uid_t uid)
{
	return uid == 0 || uid == geteuid() || (ctl->other != (uid_t)-1 && uid == ctl->other);
}

static void
admit(struct control *ctl, struct control_session *s)
{
	uid_t uid = stream_peer_uid(s->stream);

	if (!may_enter(ctl, uid)) {
		log_event("limit", kv_str("what", "control"), kv_str("why", "uid"),
		    kv_int("uid", (int64_t)uid));
		fail_session(s, "permission denied");
	} else if (ctl->n > CONTROL_CLIENTS_MAX) {
		log_event("limit", kv_str("what", "control"), kv_str("why", "clients"));
		fail_session(s, "too many clients at a time");
	} else {
		expect_request(s);
	}
}

static void
on_accept(void *owner, int fd, const struct sockaddr *peer)
{
	struct control *ctl = owner;
	struct control_session *s = calloc(1, sizeof(*s));

	(void)peer; /* nothing depends on it */
	if (s == NULL) {
		(void)close(fd); /* out of memory: the client sees an end of file */
		return;
	}
	s->stream = stream_open(ctl->loop, fd, &session_ops, s, NULL);
	if (s->stream == NULL) {
		free(s);
		return;
	}
	s->ctl = ctl;
	s->next = ctl->sessions;
	if (s->next != NULL)
		s->next->prev = s;
	ctl->sessions = s;
	ctl->n++;
	admit(ctl, s);
}

struct control *
control_open(
    uv_loop_t *loop, int fd, uid_t other, control_handler *handler, void *owner, struct err *err)
{
	struct control *ctl = calloc(1, sizeof(*ctl));

	if (ctl == NULL) {
		err_set(err, ERR_NOMEM, "out of memory");
		return NULL;
	}
	*ctl = (struct control){ .loop = loop, .other = other, .handler = handler, .owner = owner };
	ctl->listener = listener_open(loop, fd, on_accept, ctl, err);
	if (ctl->listener == NULL) {
		free(ctl);
		return NULL;
	}
	return ctl;
}

void
control_close(struct control *ctl)
{
	struct control_session *s;

	if (ctl == NULL)
		return;
	listener_close(ctl->listener);
	while ((s = ctl->sessions) != NULL) {
		ctl->sessions = s->next;
		s->ctl = NULL;
		if (s->stream != NULL)
			stream_end(s->stream); /* an answer that is written still goes out */
	}
	free(ctl);
}
