/* tests/fuzz/fuzz_imap.c - IMAP input: cut anywhere it gives the same commands, parsed within
 * bounds; and a session on a real mailbox answers every tag and comes to rest.
 *
 * The first octet says where to cut; the rest is what a client sends after it has logged in and
 * selected.
 */
#include "must.h"
#include "relayd/review/imap/describe.h"
#include "relayd/review/imap/parse.h"
#include "relayd/review/imap/scan.h"
#include "relayd/review/imap/session.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <uv.h>

#define OUT_MAX  (8u << 20)
#define MESSAGES 4

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* ---- scanner and parser ---- */

static void
parse(struct slice text, struct buf *log)
{
	struct arena arena = arena_of(IMAP_ARENA_BYTES + IMAP_COMMAND_MAX);
	struct slice copy = arena_copy(&arena, text);
	struct imap_command cmd;
	const char *bad = imap_parse(copy, &arena, &cmd);

	MUST(cmd.tag.len <= IMAP_TAG_MAX && cmd.n_items <= IMAP_ITEMS_MAX);
	MUST(cmd.n_keywords <= IMAP_FLAGS_MAX && cmd.set.n <= IMAP_RANGES_MAX);
	MUST(bad != NULL || cmd.verb < IMAP_VERBS);
	imap_set_resolve(&cmd.set, 7);
	for (size_t i = 1; bad == NULL && i < cmd.set.n; i++)
		MUST(cmd.set.ranges[i - 1].last < cmd.set.ranges[i].first);
	buf_printf(log, "%s:%d;", bad != NULL ? "bad" : "ok", (int)cmd.verb);
	arena_fini(&arena);
}

static void
scan(struct slice in, size_t cut, struct buf *log)
{
	struct slice pieces[2] = { slice_head(in, cut), slice_drop(in, cut) };
	struct imap_scanner sc;

	imap_scan_init(&sc);
	for (int i = 0; i < 2; i++)
		while (pieces[i].len > 0) {
			enum imap_scan event = imap_scan(&sc, &pieces[i]);

			MUST(sc.text.len <= IMAP_COMMAND_MAX);
			if (event == IMAP_SCAN_MORE)
				continue;
			buf_printf(log, "%d ", (int)event);
			if (event == IMAP_SCAN_LITERAL) {
				if (imap_scan_accept(&sc))
					continue;
				imap_scan_refuse(&sc);
				if (!imap_scan_literal_waits(&sc))
					continue;
			}
			if (event == IMAP_SCAN_COMMAND)
				parse(imap_scan_command(&sc), log);
			imap_scan_next(&sc);
		}
	imap_scan_fini(&sc);
}

static void
same_commands(struct slice in, size_t cut)
{
	struct buf whole = buf_heap(OUT_MAX), parts = buf_heap(OUT_MAX);

	scan(in, 0, &whole);
	scan(in, cut, &parts);
	MUST(slice_eq(buf_slice(&whole), buf_slice(&parts)));
	buf_fini(&whole);
	buf_fini(&parts);
}

/* ---- a session ---- */

static struct {
	uv_loop_t loop;
	char dir[40];
	struct store *store;
} world;

struct client {
	struct imap_session *session;
	struct buf out;
	bool progress, bye, closed, logging_in;
};

static struct buf *
client_out(void *owner)
{
	return &((struct client *)owner)->out;
}

static bool
client_is_full(void *owner)
{
	struct client *c = owner;

	return c->out.len > OUT_MAX / 4;
}

static void
client_on_progress(void *owner)
{
	((struct client *)owner)->progress = true;
}

static void
client_login(void *owner, struct slice user, struct slice password)
{
	(void)user;
	(void)password;
	((struct client *)owner)->logging_in = true;
}

static void
client_on_bye(void *owner)
{
	((struct client *)owner)->bye = true;
}

static void
client_on_closed(void *owner)
{
	((struct client *)owner)->closed = true;
}

static void
settle(struct client *c)
{
	for (bool busy = true; busy;) {
		busy = !imap_session_is_waiting(c->session) && !c->bye;
		c->out.len = 0;
		if (c->logging_in) {
			c->logging_in = false;
			imap_session_login_done(c->session, "admin", "*", "", false);
			busy = true;
		} else if (c->progress) {
			c->progress = false;
			imap_session_run(c->session);
			busy = true;
		} else if (busy) {
			(void)uv_run(&world.loop, UV_RUN_ONCE);
			imap_session_run(c->session);
		}
	}
	MUST(!c->out.overflow);
	c->out.len = 0;
}

static void
converse(struct client *c, struct slice in)
{
	while (in.len > 0 && !c->bye) {
		size_t n = imap_session_read(c->session, in);

		in = slice_drop(in, n);
		settle(c);
		MUST(n > 0 || c->bye || imap_session_is_waiting(c->session));
	}
}

static void
session(struct slice in)
{
	static const struct imap_session_ops ops = { .out = client_out,
		.is_full = client_is_full,
		.on_progress = client_on_progress,
		.login = client_login,
		.on_bye = client_on_bye,
		.on_closed = client_on_closed };
	struct client c = { .out = buf_heap(OUT_MAX) };
	const struct imap_session_options options = { .store = world.store,
		.ops = &ops,
		.owner = &c,
		.hostname = "fuzz.test",
		.may_login = true };

	c.session = imap_session_open(&options);
	MUST(c.session != NULL);
	converse(&c, SLICE("l LOGIN a b\r\ns SELECT INBOX\r\n"));
	converse(&c, in);
	imap_session_close(c.session);
	while (!c.closed)
		(void)uv_run(&world.loop, UV_RUN_ONCE);
	buf_fini(&c.out);
}

/* ---- the world ---- */

static void
on_put(struct store_put *put)
{
	MUST(put->req.err.code == ERR_NONE);
	put->n_new = 99;
}

static void
put_message(unsigned n, const char *bytes)
{
	struct store_rcpt rcpt = { .forward_path = SLICE("bob@example.org"), .params = SLICE("") };
	struct store_put put = { .bytes = slice_str(bytes),
		.reverse_path = SLICE("s@example.net"),
		.params = SLICE(""),
		.rcpts = &rcpt,
		.n_rcpts = 1,
		.done = on_put };

	put.id.bytes[0] = (uint8_t)n;
	store_put(world.store, &put);
	while (put.n_new != 99)
		(void)uv_run(&world.loop, UV_RUN_ONCE);
}

static void
remove_world(void)
{
	char command[80];

	(void)snprintf(command, sizeof(command), "rm -rf %s", world.dir);
	(void)!system(command); /* a directory of ours in /tmp */
}

static void
make_world(void)
{
	static const char nested[] =
	    "Received: x\r\nContent-Type: multipart/mixed; "
	    "boundary=b\r\n\r\n--b\r\n\r\none\r\n--b\r\n"
	    "Content-Type: message/rfc822\r\n\r\nSubject: in\r\n\r\ntwo\r\n--b--\r\n";
	static const char *const messages[MESSAGES] = {
		"X-Relayd-To: bob@example.org\r\nReceived: x\r\nSubject: plain\r\nFrom: A "
		"<a@b>\r\n\r\nbody\r\n",
		nested,
		"Received: x\r\nSubject: =?utf-8?q?J=C3=A4ger?=\r\nDate: Mon, 2 Mar 2026 10:15:42 "
		"+0000\r\n\r\n\xe4\r\n",
		"no header at all\r\n",
	};
	struct store_options options = { .dir = world.dir,
		.keep_s = 1u << 30,
		.describe = imap_describe,
		.describe_version = IMAP_DESCRIBE_VERSION };
	struct err err;

	(void)snprintf(world.dir, sizeof(world.dir), "/tmp/relayd-fuzz-XXXXXX");
	MUST(mkdtemp(world.dir) != NULL);
	(void)atexit(remove_world); /* what is left otherwise is a directory in /tmp */
	MUST(uv_loop_init(&world.loop) == 0);
	world.store = store_open(&world.loop, &options, &err);
	MUST(world.store != NULL);
	for (unsigned n = 0; n < MESSAGES; n++)
		put_message(n + 1, messages[n]);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct slice in = slice_of(data, size);

	if (world.store == NULL)
		make_world();
	if (size < 2)
		return 0;
	in = slice_drop(in, 1);
	same_commands(in, data[0] % in.len);
	session(in);
	return 0;
}
