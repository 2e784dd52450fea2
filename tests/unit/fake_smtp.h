/* tests/unit/fake_smtp.h - a next hop on the test's own loop that does as the test says.
 *
 * Local parts decide: "no..." is unknown, "later..." is put off, all others are taken.  With
 * LMTP the local part "full..." is refused after the dot.
 */
#ifndef TESTS_UNIT_FAKE_SMTP_H
#define TESTS_UNIT_FAKE_SMTP_H

#include "relayd/net/listener.h"
#include "relayd/net/stream.h"

#include <check.h>
#include <netinet/in.h>
#include <sys/un.h>
#include <unistd.h>

struct fake_smtp {
	uv_loop_t *loop;
	struct listener *listener;
	int fd;
	struct sockaddr_storage addr;
	struct fake_session *sessions;

	bool lmtp, no_pipelining, starttls, x_relayd, tls_garbage, silent_at_dot, answers_early;
	struct tls_server *tls;
	unsigned hang_up_after; /* messages: then the connection ends without a word; 0: never */
	const char *greeting, *dot_reply; /* NULL: the usual */

	unsigned connections, ehlos, tls_sessions, mails, rcpts, datas, rsets, quits, messages,
	    reads;
	struct buf commands; /* every line, LF */
	struct buf bodies;   /* as they came, with the final dot */
};

struct fake_session {
	struct fake_smtp *smtp;
	struct fake_session *next;
	struct stream *s;
	bool in_data, at_start, tls, mute, garbage;
	unsigned accepted, full, messages;
};

static inline void
fake_say(struct fake_session *c, const char *text)
{
	stream_write(c->s, slice_str(text));
}

static inline void
fake_ehlo(struct fake_session *c)
{
	struct fake_smtp *f = c->smtp;

	f->ehlos++;
	fake_say(c, "250-fake.test\r\n250-SIZE 100000000\r\n250-8BITMIME\r\n");
	if (!f->no_pipelining)
		fake_say(c, "250-PIPELINING\r\n");
	if (f->starttls && !c->tls)
		fake_say(c, "250-STARTTLS\r\n");
	if (f->x_relayd)
		fake_say(c, "250-X-RELAYD\r\n");
	fake_say(c, "250 ENHANCEDSTATUSCODES\r\n");
}

static inline void
fake_rcpt(struct fake_session *c, struct slice line)
{
	struct slice path = slice_drop(line, strlen("RCPT TO:<"));

	c->smtp->rcpts++;
	if (slice_starts(path, SLICE("no"))) {
		fake_say(c, "550 5.1.1 nobody of that name\r\n");
	} else if (slice_starts(path, SLICE("later"))) {
		fake_say(c, "450 4.2.1 come back later\r\n");
	} else {
		c->accepted++;
		c->full += slice_starts(path, SLICE("full"));
		fake_say(c, "250 2.1.5 ok\r\n");
	}
}

static inline void
fake_starttls(struct fake_session *c)
{
	fake_say(c, "220 go\r\n");
	c->garbage = c->smtp->tls_garbage;
	if (c->garbage)
		return;
	c->tls = true;
	ck_assert_int_eq(stream_tls_accept(c->s, c->smtp->tls, NULL), 0);
}

static inline void
fake_command(struct fake_session *c, struct slice line)
{
	struct fake_smtp *f = c->smtp;

	buf_put(&f->commands, line);
	buf_putc(&f->commands, '\n');
	if (f->hang_up_after != 0 && c->messages >= f->hang_up_after) {
		stream_close(c->s);
	} else if (slice_istarts(line, f->lmtp ? SLICE("LHLO ") : SLICE("EHLO "))) {
		fake_ehlo(c);
	} else if (slice_istarts(line, SLICE("STARTTLS"))) {
		fake_starttls(c);
	} else if (slice_istarts(line, SLICE("MAIL FROM:<"))) {
		f->mails++;
		c->accepted = c->full = 0;
		fake_say(c, "250 2.1.0 ok\r\n");
	} else if (slice_istarts(line, SLICE("RCPT TO:<"))) {
		fake_rcpt(c, line);
	} else if (slice_istarts(line, SLICE("DATA"))) {
		f->datas++;
		c->in_data = c->at_start = c->accepted > 0;
		fake_say(c, c->in_data ? "354 go\r\n" : "554 5.5.1 no recipients\r\n");
		if (f->answers_early)
			fake_say(c, "250 2.0.0 got it before you sent it\r\n");
	} else if (slice_istarts(line, SLICE("RSET"))) {
		f->rsets++;
		fake_say(c, "250 2.0.0 ok\r\n");
	} else if (slice_istarts(line, SLICE("QUIT"))) {
		f->quits++;
		fake_say(c, "221 2.0.0 bye\r\n");
		stream_end(c->s);
	} else {
		fake_say(c, "500 5.5.2 what\r\n");
	}
}

static inline void
fake_message(struct fake_session *c)
{
	struct fake_smtp *f = c->smtp;

	c->in_data = false;
	f->messages++;
	c->messages++;
	c->mute = f->silent_at_dot;
	if (c->mute)
		return;
	if (f->dot_reply != NULL) {
		fake_say(c, f->dot_reply);
		return;
	}
	for (unsigned i = 0; i < (f->lmtp ? c->accepted : 1); i++)
		fake_say(c,
		    i < c->full && f->lmtp ? "452 4.2.2 mailbox full\r\n" : "250 2.0.0 taken\r\n");
}

/* Takes what is there of a message; false: more is needed. */
static inline bool
fake_data(struct fake_session *c, struct slice *rest)
{
	bool empty = c->at_start && slice_starts(*rest, SLICE(".\r\n"));
	size_t n = slice_find(*rest, SLICE("\r\n.\r\n")), take;

	if (c->at_start && rest->len < 3)
		return false;
	c->at_start = false;
	take = empty ? 3 : n < rest->len ? n + 5 : rest->len > 4 ? rest->len - 4 : 0;
	buf_put(&c->smtp->bodies, slice_head(*rest, take));
	if (empty || n < rest->len)
		fake_message(c);
	*rest = slice_drop(*rest, take);
	return take > 0;
}

static inline size_t
fake_on_read(struct stream *s, void *owner, struct slice bytes)
{
	struct fake_session *c = owner;
	struct slice rest = bytes;

	(void)s;
	c->smtp->reads++;
	if (c->garbage)
		fake_say(c, "this is no TLS at all, but long enough to look at\r\n");
	while (rest.len > 0 && !c->mute && !c->garbage) {
		size_t n = slice_find(rest, SLICE("\r\n"));

		if (c->in_data) {
			if (!fake_data(c, &rest))
				break;
		} else if (n == rest.len) {
			break;
		} else {
			fake_command(c, slice_head(rest, n));
			rest = slice_drop(rest, n + 2);
		}
	}
	return c->mute || c->garbage ? bytes.len : bytes.len - rest.len;
}

static inline void
fake_on_tls(struct stream *s, void *owner)
{
	(void)s;
	((struct fake_session *)owner)->smtp->tls_sessions++;
}

static inline void
fake_on_close(struct stream *s, void *owner, const struct err *why)
{
	struct fake_session *c = owner, **at = &c->smtp->sessions;

	(void)s;
	(void)why;
	while (*at != c)
		at = &(*at)->next;
	*at = c->next;
	free(c);
}

static const struct stream_ops fake_ops = {
	.on_read = fake_on_read,
	.on_tls = fake_on_tls,
	.on_close = fake_on_close,
};

static inline void
fake_on_accept(void *owner, int fd, const struct sockaddr *peer)
{
	struct fake_smtp *f = owner;
	struct fake_session *c = calloc(1, sizeof(*c));

	(void)peer; /* nothing depends on it */
	ck_assert_ptr_nonnull(c);
	f->connections++;
	c->smtp = f;
	c->next = f->sessions;
	f->sessions = c;
	c->s = stream_open(f->loop, fd, &fake_ops, c, NULL);
	ck_assert_ptr_nonnull(c->s);
	fake_say(c, f->greeting != NULL ? f->greeting : "220 fake.test ESMTP\r\n");
}

/* address: "127.0.0.1:0" or "unix:/path". */
static inline void
fake_open(struct fake_smtp *f, uv_loop_t *loop, const char *address)
{
	struct listener_socket sockets[2];
	socklen_t len = sizeof(f->addr);
	struct err err = { 0 };
	size_t n;

	f->loop = loop;
	f->commands = buf_heap(1u << 20);
	f->bodies = buf_heap(64u << 20);
	ck_assert_msg(listener_bind(address, 1, sockets, &n, &err) == 0, "%s", err.msg);
	f->fd = sockets[0].fd;
	ck_assert_int_eq(getsockname(f->fd, (struct sockaddr *)&f->addr, &len), 0);
	f->listener = listener_open(loop, f->fd, fake_on_accept, f, &err);
	ck_assert_msg(f->listener != NULL, "%s", err.msg);
}

static inline void
fake_hang_up(struct fake_smtp *f)
{
	for (struct fake_session *c = f->sessions; c != NULL; c = c->next)
		stream_close(c->s);
}

/* Then the loop has to run once more. */
static inline void
fake_close(struct fake_smtp *f)
{
	listener_close(f->listener);
	fake_hang_up(f);
	close(f->fd);
	buf_fini(&f->commands);
	buf_fini(&f->bodies);
}

/* "127.0.0.1:PORT", for a route. */
static inline const char *
fake_name(const struct fake_smtp *f, char out[static 32])
{
	const struct sockaddr_in *in = (const struct sockaddr_in *)(const void *)&f->addr;

	(void)snprintf(out, 32, "127.0.0.1:%u", ntohs(in->sin_port));
	return out;
}

#endif
