/* tests/fuzz/fuzz_pop3.c - POP3 input: cut anywhere, and answered at once or late, it gives the
 * same replies; every reply is whole lines; and what RETR and TOP send undoes to the message that
 * is held, or to its top.
 *
 * The first octet says where to cut, the second how: bit 0 the login is known already, bit 1 DELE
 * is allowed, bit 2 the peer is private, bits 3.. how many octets of a message are read at a time.
 * The rest is what a client sends.
 */
#include "must.h"
#include "relayd/review/pop3/session.h"

#include <stdlib.h>

#define OUT_MAX (8u << 20)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *const bodies[] = {
	"Subject: one\r\n\r\n.dot\r\n..\r\n\r\nlast\r\n",
	"Subject: two\r\n \r\n\r\nno end",
	"no header at all",
	"\r\nbody\r\n",
	"",
	"X: y\r\n\r\n.\r\n",
};
enum { N = ARRAY_LEN(bodies) };

enum question { NOTHING, LOGIN, MESSAGE, UPDATE };

struct world {
	struct pop3_session *s;
	struct pop3_turn turn;
	struct buf out, heard; /* of this call, of the session */
	struct pop3_message messages[N];
	size_t piece;
	bool late, may_delete, is_private;
	enum question asked;
	bool good, quit;
	size_t index;
};

/* ---- answers ---- */

/* Undoes the dots of a multi-line reply; the first of its lines and the last are not part of it. */
static void
undo(struct slice reply, struct buf *text)
{
	MUST(slice_chop(&reply, ".\r\n"));
	reply = slice_drop(reply, slice_until(reply, '\n').len + 1);
	while (reply.len > 0) {
		struct slice line = slice_until(reply, '\n');

		MUST(line.len < reply.len);
		line.len++;
		reply = slice_drop(reply, line.len);
		if (line.p[0] == '.') {
			MUST(line.len > 3); /* else the client takes it for the end */
			line = slice_drop(line, 1);
		}
		buf_put(text, line);
	}
}

/* The reply is the message or, of TOP, its front; a last line without an end has been given one. */
static void
check_message(const struct world *w, size_t from)
{
	struct buf text = buf_heap(OUT_MAX);
	struct slice body = slice_str(bodies[w->index]), sent;

	undo(slice_drop(buf_slice(&w->out), from), &text);
	sent = buf_slice(&text);
	if (sent.len > body.len) {
		MUST(sent.len == body.len + 2);
		(void)slice_chop(&sent, "\r\n");
	}
	MUST(slice_eq(sent, slice_head(body, sent.len)));
	buf_fini(&text);
}

static void
send_message(struct world *w)
{
	struct slice body = slice_str(bodies[w->index]), piece;
	size_t from = w->out.len;

	do {
		piece = slice_head(body, w->piece);
		body = slice_drop(body, piece.len);
	} while (pop3_body(w->s, &w->turn, piece, body.len == 0));
	check_message(w, from);
}

static void
answer(struct world *w)
{
	enum question asked = w->asked;

	w->asked = NOTHING;
	if (asked == LOGIN && w->good)
		pop3_maildrop(w->s, &w->turn, w->messages, N, 77);
	else if (asked == LOGIN)
		pop3_refuse(w->s, &w->turn, "AUTH", "wrong name or password");
	else if (asked == MESSAGE)
		send_message(w);
	else if (asked == UPDATE)
		pop3_updated(w->s, &w->turn, true);
}

static void
asks(struct world *w, enum question what)
{
	MUST(w->asked == NOTHING);
	w->asked = what;
	if (!w->late)
		answer(w);
}

static void
on_login(void *user, struct slice name, struct slice password)
{
	struct world *w = user;

	MUST(w->is_private && name.len > 0 && name.len <= POP3_NAME_MAX);
	w->good = slice_eq(name, SLICE("a")) && slice_eq(password, SLICE("b"));
	asks(w, LOGIN);
}

static void
on_message(void *user, size_t index)
{
	struct world *w = user;

	MUST(index < N && !pop3_is_deleted(w->s, index));
	w->index = index;
	asks(w, MESSAGE);
}

static void
on_update(void *user)
{
	struct world *w = user;
	size_t n = 0;

	for (size_t i = 0; i < N; i++)
		n += pop3_is_deleted(w->s, i);
	MUST(w->may_delete && n > 0 && !w->quit);
	w->quit = true;
	asks(w, UPDATE);
}

static void
on_bad(void *user)
{
	(void)user;
}

/* ---- a session ---- */

static void
flush(struct world *w)
{
	struct slice out = buf_slice(&w->out);

	MUST(!w->out.overflow && out.len < POP3_OUT_HIGH + (1u << 16));
	if (out.len > 0)
		MUST(slice_chop(&out, "\r\n"));
	buf_put(&w->heard, buf_slice(&w->out));
	w->out.len = 0;
}

/* How many octets were taken: what is left is the front of a line. */
static size_t
feed(struct world *w, struct slice in)
{
	size_t sum = 0, n = 0;
	bool answered;

	do {
		n = pop3_session_input(w->s, &w->turn, slice_drop(in, sum));
		sum += n;
		MUST(sum <= in.len);
		answered = w->asked != NOTHING;
		flush(w);
		answer(w);
		flush(w);
	} while (n > 0 || answered || pop3_session_has_more(w->s));
	MUST(in.len - sum < POP3_LINE_MAX && !pop3_session_is_asking(w->s));
	return sum;
}

static void
converse(struct world *w, struct slice in, size_t cut, bool known)
{
	static const struct pop3_ops ops = { .on_login = on_login,
		.on_message = on_message,
		.on_update = on_update,
		.on_bad = on_bad };
	const struct pop3_settings settings = { .hostname = "fuzz.test",
		.is_private = w->is_private,
		.may_delete = w->may_delete,
		.keep_days = 30 };

	w->s = pop3_session_new(&settings, &ops, w, &w->turn);
	MUST(w->s != NULL);
	if (known)
		(void)feed(w, SLICE("USER a\r\nPASS b\r\n"));
	(void)feed(w, slice_drop(in, feed(w, slice_head(in, cut))));
	pop3_session_shutdown(w->s, &w->turn);
	MUST(pop3_session_is_over(w->s));
	flush(w);
	pop3_session_free(w->s);
}

static void
run(const uint8_t *how, struct slice in, bool whole, struct buf *heard)
{
	struct world w = { .out = buf_heap(OUT_MAX), .heard = buf_heap(OUT_MAX) };

	w.turn.out = &w.out;
	w.late = !whole;
	w.may_delete = how[1] & 2;
	w.is_private = how[1] & 4;
	w.piece = whole || how[1] >> 3 == 0 ? SIZE_MAX : how[1] >> 3;
	for (size_t i = 0; i < N; i++)
		w.messages[i] =
		    (struct pop3_message){ .uid = (uint32_t)i + 10, .octets = strlen(bodies[i]) };
	converse(&w, in, whole ? 0 : how[0] % in.len, (how[1] & 5) == 5);
	*heard = w.heard;
	buf_fini(&w.out);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct buf whole, parts;

	if (size < 3)
		return 0;
	run(data, slice_of(data + 2, size - 2), true, &whole);
	run(data, slice_of(data + 2, size - 2), false, &parts);
	MUST(slice_eq(buf_slice(&whole), buf_slice(&parts)));
	buf_fini(&whole);
	buf_fini(&parts);
	return 0;
}
