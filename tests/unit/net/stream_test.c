/* tests/unit/net/stream_test.c - streams over socket pairs: what one end sees of the other. */
#include "relayd/net/stream.h"

#include "unit/unit.h"
#include "unit/certs.h"

#include "relayd/core/clock.h"
#include "relayd/net/tls.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/un.h>

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SANITIZED 1
#endif
#endif

/* An end that records what happens to it, and does what the test set. */
struct end {
	struct stream *s;
	struct buf got;
	char room[64];
	size_t in_room; /* bytes that were read there */
	size_t offer_room;
	size_t take_max; /* of one on_read(); 0: all */
	unsigned reads, drains, closes, eofs, deadlines, tls, connects;
	enum err_code why;
	int sys;
	char msg[256];
	void (*then)(struct end *e); /* after each read */
	struct end *other;
	bool keep_after_eof, no_reply;
	struct tls_server *server;
};

static uv_loop_t loop;

static size_t
on_read(struct stream *s, void *owner, struct slice bytes)
{
	struct end *e = owner;
	size_t n = e->take_max != 0 && e->take_max < bytes.len ? e->take_max : bytes.len;

	ck_assert_ptr_eq(s, e->s);
	e->reads++;
	if (bytes.p == e->room)
		e->in_room += bytes.len;
	buf_put(&e->got, slice_head(bytes, n));
	if (e->then != NULL)
		e->then(e);
	return n;
}

static size_t
on_room(struct stream *s, void *owner, char **room)
{
	struct end *e = owner;

	(void)s;
	*room = e->room;
	return e->offer_room;
}

static void
on_eof(struct stream *s, void *owner)
{
	struct end *e = owner;

	e->eofs++;
	if (!e->keep_after_eof)
		stream_end(s);
}

static void
on_drain(struct stream *s, void *owner)
{
	(void)s;
	((struct end *)owner)->drains++;
}

static void
on_tls(struct stream *s, void *owner)
{
	(void)s;
	((struct end *)owner)->tls++;
}

static void
on_connect(struct stream *s, void *owner)
{
	(void)s;
	((struct end *)owner)->connects++;
}

static void
on_deadline(struct stream *s, void *owner)
{
	(void)s;
	((struct end *)owner)->deadlines++;
	uv_stop(&loop);
}

static void
on_close(struct stream *s, void *owner, const struct err *why)
{
	struct end *e = owner;

	ck_assert_ptr_eq(s, e->s);
	e->closes++;
	e->why = why->code;
	e->sys = why->sys;
	(void)snprintf(e->msg, sizeof(e->msg), "%s", why->msg);
	e->s = NULL;
}

static const struct stream_ops ops = {
	.on_connect = on_connect,
	.on_read = on_read,
	.on_room = on_room,
	.on_eof = on_eof,
	.on_drain = on_drain,
	.on_tls = on_tls,
	.on_deadline = on_deadline,
	.on_close = on_close,
};
static const struct stream_ops plain_ops = { .on_read = on_read, .on_close = on_close };

static void
loop_open(void)
{
	(void)signal(SIGPIPE, SIG_IGN); /* as every role does */
	ck_assert_int_eq(uv_loop_init(&loop), 0);
}

/* Nothing may be left in it: no handle, no request. */
static void
loop_close(void)
{
	uv_run(&loop, UV_RUN_DEFAULT);
	ck_assert_int_eq(uv_loop_close(&loop), 0);
}

static void
end_open_with(struct end *e, int fd, const struct stream_ops *which)
{
	struct err err = { 0 };

	e->got = buf_heap(16u << 20);
	e->s = stream_open(&loop, fd, which, e, &err);
	ck_assert_msg(e->s != NULL, "%s", err.msg);
}

static void
end_open(struct end *e, int fd)
{
	end_open_with(e, fd, &ops);
}

static void
end_is(struct end *e, const char *text)
{
	ck_assert_uint_eq(e->got.len, strlen(text));
	ck_assert_mem_eq(e->got.len > 0 ? e->got.p : "", text, e->got.len);
}

/* Two connected sockets; the second non-blocking, for the test itself. */
static void
pair_of(int type, int fds[2])
{
	ck_assert_int_eq(socketpair(AF_UNIX, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
}

static void
say(int fd, const char *text)
{
	ck_assert_int_eq(send(fd, text, strlen(text), MSG_NOSIGNAL), (ssize_t)strlen(text));
}

static void
rounds(int n)
{
	while (n-- > 0)
		uv_run(&loop, UV_RUN_NOWAIT);
}

static void
run_until(const unsigned *counter, unsigned n)
{
	int64_t end = clock_mono_ms() + 20000;

	while (*counter < n && clock_mono_ms() < end)
		uv_run(&loop, UV_RUN_ONCE);
	ck_assert_uint_ge(*counter, n);
}

static void
run_until_got(struct end *e, size_t n)
{
	int64_t end = clock_mono_ms() + 20000;

	while (e->got.len < n && e->closes == 0 && clock_mono_ms() < end)
		uv_run(&loop, UV_RUN_ONCE);
	ck_assert_uint_eq(e->got.len, n);
}

START_TEST(what_is_written_in_a_round_leaves_in_one_call)
{
	static const char body[] = "body by reference\r\n";
	struct end e = { 0 };
	char packet[200];
	ssize_t n;
	int fds[2];

	loop_open();
	pair_of(SOCK_SEQPACKET, fds); /* each send is a packet: they can be counted */
	end_open(&e, fds[0]);
	stream_write(e.s, SLICE("250 one\r\n"));
	buf_printf(stream_out(e.s), "250 %s\r\n", "two");
	stream_write_ref(e.s, slice_str(body));
	stream_write(e.s, SLICE("250 three\r\n"));
	ck_assert_uint_eq(stream_pending(e.s), 9 + 9 + 19 + 11);
	ck_assert_int_lt(
	    recv(fds[1], packet, sizeof(packet), 0), 0); /* not before the round ends */
	rounds(1);
	n = recv(fds[1], packet, sizeof(packet), 0);
	ck_assert_int_eq(n, 48);
	ck_assert_mem_eq(packet, "250 one\r\n250 two\r\nbody by reference\r\n250 three\r\n", 48);
	ck_assert_int_lt(recv(fds[1], packet, sizeof(packet), 0), 0);
	ck_assert_uint_eq(e.drains, 1);
	ck_assert_uint_eq(stream_pending(e.s), 0);
	stream_close(e.s);
	loop_close();
	close(fds[1]);
	buf_fini(&e.got);
}
END_TEST

START_TEST(an_explicit_flush_does_not_wait_for_the_round)
{
	struct end e = { 0 };
	char packet[10];
	int fds[2];

	loop_open();
	pair_of(SOCK_STREAM, fds);
	end_open(&e, fds[0]);
	stream_write(e.s, SLICE("now"));
	stream_flush(e.s);
	ck_assert_int_eq(recv(fds[1], packet, sizeof(packet), 0), 3);
	ck_assert_uint_eq(e.drains, 0); /* no callback inside a stream_ function */
	rounds(1);
	ck_assert_uint_eq(e.drains, 1);
	stream_close(e.s);
	loop_close();
	close(fds[1]);
	buf_fini(&e.got);
}
END_TEST

START_TEST(what_is_not_taken_is_shown_again_with_what_follows)
{
	struct end e = { .take_max = 4 };
	int fds[2];

	loop_open();
	pair_of(SOCK_STREAM, fds);
	end_open(&e, fds[0]);
	say(fds[1], "aaaabb");
	rounds(2);
	end_is(&e, "aaaa");
	ck_assert_uint_eq(stream_kept(e.s), 2);
	say(fds[1], "bbcc");
	rounds(2);
	end_is(&e, "aaaabbbb");
	ck_assert_uint_eq(stream_kept(e.s), 2);
	e.take_max = 0;
	say(fds[1], "cc");
	rounds(2);
	end_is(&e, "aaaabbbbcccc");
	ck_assert_uint_eq(stream_kept(e.s), 0);
	stream_close(e.s);
	loop_close();
	close(fds[1]);
	buf_fini(&e.got);
}
END_TEST

static void
pause_end(struct end *e)
{
	stream_pause(e->s);
}

START_TEST(a_paused_stream_shows_nothing_until_it_is_resumed)
{
	struct end e = { .take_max = 2, .then = pause_end };
	int fds[2];

	loop_open();
	pair_of(SOCK_STREAM, fds);
	end_open(&e, fds[0]);
	say(fds[1], "1122");
	rounds(3);
	end_is(&e, "11");
	say(fds[1], "33");
	close(fds[1]);
	rounds(5);
	end_is(&e, "11"); /* neither more bytes nor the end */
	ck_assert_uint_eq(e.eofs, 0);
	stream_resume(e.s);
	end_is(&e, "11"); /* from the loop, not at once */
	rounds(3);
	end_is(&e, "1122");
	stream_resume(e.s);
	rounds(3);
	end_is(&e, "112233");
	ck_assert_uint_eq(e.eofs, 0);
	stream_resume(e.s);
	rounds(3);
	ck_assert_uint_eq(e.eofs, 1);
	loop_close();
	ck_assert_uint_eq(e.closes, 1);
	ck_assert_int_eq(e.why, ERR_NONE);
	buf_fini(&e.got);
}
END_TEST

START_TEST(bytes_are_read_into_the_room_that_the_owner_offers)
{
	struct end e = { .offer_room = 10 };
	int fds[2];

	loop_open();
	pair_of(SOCK_STREAM, fds);
	end_open(&e, fds[0]);
	say(fds[1], "0123456789abcde");
	rounds(3);
	end_is(&e, "0123456789abcde");
	ck_assert_uint_eq(e.in_room, 15);
	ck_assert_uint_eq(e.reads, 2); /* ten and five */
	e.offer_room = 0;
	say(fds[1], "f");
	rounds(2);
	ck_assert_uint_eq(e.in_room, 15);
	end_is(&e, "0123456789abcdef");
	stream_close(e.s);
	loop_close();
	close(fds[1]);
	buf_fini(&e.got);
}
END_TEST

static void
fill(int fd, size_t bytes)
{
	static char block[1u << 14];

	memset(block, 'x', sizeof(block));
	for (; bytes > 0; bytes -= sizeof(block))
		ck_assert_int_eq(send(fd, block, sizeof(block), MSG_NOSIGNAL), sizeof(block));
}

static size_t
on_read_nothing(struct stream *s, void *owner, struct slice bytes)
{
	(void)s;
	(void)bytes;
	((struct end *)owner)->reads++;
	return 0;
}

START_TEST(input_that_nobody_takes_is_bounded)
{
	static const struct stream_ops deaf = { .on_read = on_read_nothing, .on_close = on_close };
	struct end e = { 0 }, slow = { .take_max = 1u << 15 };
	int fds[2];

	loop_open();
	pair_of(SOCK_STREAM, fds);
	end_open_with(&e, fds[0], &deaf);
	for (int i = 0; i < 20 && e.closes == 0; i++) {
		fill(fds[1], 1u << 14);
		rounds(2);
	}
	ck_assert_int_eq(e.why, ERR_LIMIT);
	close(fds[1]);
	pair_of(SOCK_STREAM, fds); /* one that takes some each time is shown the rest */
	end_open(&slow, fds[0]);
	stream_pause(slow.s);
	fill(fds[1], 1u << 17);
	rounds(5);
	stream_resume(slow.s);
	rounds(20);
	fill(fds[1], 1u << 14);
	rounds(20);
	ck_assert_uint_ge(slow.got.len, 1u << 14);
	ck_assert_uint_eq(slow.closes, 0);
	stream_close(slow.s);
	loop_close();
	close(fds[1]);
	buf_fini(&e.got);
	buf_fini(&slow.got);
}
END_TEST

START_TEST(a_big_body_by_reference_arrives_whole_at_a_slow_reader)
{
	size_t size = 5u << 20, at = 0;
	char *body = malloc(size), *got = malloc(size + 10);
	struct end e = { 0 };
	int fds[2];

	loop_open();
	pair_of(SOCK_STREAM, fds);
	end_open(&e, fds[0]);
	for (size_t i = 0; i < size; i++)
		body[i] = (char)(i * 7 + i / 4096);
	stream_write(e.s, SLICE("<"));
	for (size_t i = 0; i < size; i += 1u << 16)
		stream_write_ref(e.s, slice_of(body + i, 1u << 16));
	stream_write(e.s, SLICE(">"));
	rounds(1);
	ck_assert_uint_gt(stream_pending(e.s), 0);
	ck_assert_uint_eq(e.drains, 0);
	stream_write(e.s, SLICE("later"));
	while (at < size + 7) {
		ssize_t n = recv(fds[1], got + at, size + 10 - at, 0);

		if (n > 0)
			at += (size_t)n;
		else
			uv_run(&loop, UV_RUN_NOWAIT);
	}
	rounds(2);
	ck_assert_uint_eq(e.drains, 1);
	ck_assert_mem_eq(got + 1, body, size);
	ck_assert_mem_eq(got + 1 + size, ">later", 6);
	stream_close(e.s);
	loop_close();
	close(fds[1]);
	free(body);
	free(got);
	buf_fini(&e.got);
}
END_TEST

START_TEST(a_close_with_output_under_way_touches_it_no_more)
{
	size_t size = 4u << 20;
	char *body = malloc(size);
	struct end e = { 0 };
	int fds[2];

	loop_open();
	pair_of(SOCK_STREAM, fds);
	end_open(&e, fds[0]);
	memset(body, 'x', size);
	stream_write_ref(e.s, slice_of(body, size));
	rounds(2);
	ck_assert_uint_gt(stream_pending(e.s), 0);
	stream_close(e.s);
	free(body); /* it is ours again once stream_close() has returned */
	loop_close();
	ck_assert_uint_eq(e.closes, 1);
	close(fds[1]);
	buf_fini(&e.got);
}
END_TEST

START_TEST(too_much_output_ends_the_stream)
{
	static char block[1u << 20];
	struct end e = { 0 };
	int fds[2];

	loop_open();
	pair_of(SOCK_STREAM, fds);
	end_open(&e, fds[0]);
	for (int i = 0; i < 9; i++)
		stream_write(e.s, slice_of(block, sizeof(block)));
	rounds(3);
	ck_assert_uint_eq(e.closes, 1);
	ck_assert_int_eq(e.why, ERR_LIMIT);
	loop_close();
	close(fds[1]);
	buf_fini(&e.got);
}
END_TEST

START_TEST(a_deadline_can_be_moved_and_fires_once)
{
	struct end e = { 0 };
	int64_t start;
	int fds[2];

	loop_open();
	pair_of(SOCK_STREAM, fds);
	end_open(&e, fds[0]);
	uv_update_time(&loop);
	start = (int64_t)uv_now(&loop);
	stream_deadline(e.s, start + 20);
	stream_deadline(e.s, start + 60); /* later: the timer is not touched */
	uv_run(&loop, UV_RUN_DEFAULT);
	ck_assert_uint_eq(e.deadlines, 1);
	ck_assert_int_ge((int64_t)uv_now(&loop), start + 60);
	start = (int64_t)uv_now(&loop);
	stream_deadline(e.s, start + 60000);
	stream_deadline(e.s, start + 30); /* earlier */
	uv_run(&loop, UV_RUN_DEFAULT);
	ck_assert_uint_eq(e.deadlines, 2);
	ck_assert_int_lt((int64_t)uv_now(&loop), start + 30000);
	stream_deadline(e.s, 0);
	stream_close(e.s);
	loop_close();
	close(fds[1]);
	buf_fini(&e.got);
}
END_TEST

START_TEST(without_a_callback_a_deadline_closes)
{
	struct end e = { 0 };
	int fds[2];

	loop_open();
	pair_of(SOCK_STREAM, fds);
	end_open_with(&e, fds[0], &plain_ops);
	stream_deadline(e.s, (int64_t)uv_now(&loop) + 5);
	loop_close();
	ck_assert_int_eq(e.why, ERR_TIMEOUT);
	close(fds[1]);
	buf_fini(&e.got);
}
END_TEST

START_TEST(without_a_callback_the_end_of_input_closes_after_the_output)
{
	struct end e = { 0 };
	char packet[10];
	int fds[2];

	loop_open();
	pair_of(SOCK_STREAM, fds);
	end_open_with(&e, fds[0], &plain_ops);
	say(fds[1], "x");
	shutdown(fds[1], SHUT_WR);
	stream_write(e.s, SLICE("reply"));
	loop_close();
	end_is(&e, "x");
	ck_assert_int_eq(e.why, ERR_CLOSED);
	ck_assert_int_eq(recv(fds[1], packet, sizeof(packet), 0), 5);
	close(fds[1]);
	buf_fini(&e.got);
}
END_TEST

static void
close_end(struct end *e)
{
	stream_close(e->s);
	stream_write(e->s, SLICE("all of these are harmless now"));
	stream_write_ref(e->s, SLICE("x"));
	stream_flush(e->s);
	stream_pause(e->s);
	stream_resume(e->s);
	stream_deadline(e->s, 1);
	stream_end(e->s);
	stream_close(e->s);
}

START_TEST(after_a_close_every_call_is_harmless_and_on_close_comes_once)
{
	struct end e = { .then = close_end };
	int fds[2];

	loop_open();
	pair_of(SOCK_STREAM, fds);
	end_open(&e, fds[0]);
	say(fds[1], "x");
	rounds(2);
	ck_assert_uint_eq(e.reads, 1);
	loop_close();
	ck_assert_uint_eq(e.closes, 1);
	ck_assert_int_eq(e.why, ERR_NONE);
	close(fds[1]);
	buf_fini(&e.got);
}
END_TEST

static int
tcp_listener(struct sockaddr_in *addr)
{
	socklen_t len = sizeof(*addr);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	*addr = (struct sockaddr_in){ .sin_family = AF_INET,
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(bind(fd, (struct sockaddr *)addr, sizeof(*addr)), 0);
	ck_assert_int_eq(listen(fd, 10), 0);
	ck_assert_int_eq(getsockname(fd, (struct sockaddr *)addr, &len), 0);
	return fd;
}

START_TEST(a_last_reply_survives_input_that_nobody_reads)
{
	struct end e = { .then = pause_end };
	struct sockaddr_in addr;
	int listening, client, server;
	char reply[100], more[4000];

	loop_open();
	listening = tcp_listener(&addr);
	client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	ck_assert_int_eq(connect(client, (struct sockaddr *)&addr, sizeof(addr)), 0);
	server = accept(listening, NULL, NULL);
	end_open(&e, server);
	memset(more, 'x', sizeof(more));
	say(client, "x");
	rounds(3);
	ck_assert_int_eq(send(client, more, sizeof(more), 0), sizeof(more));
	rounds(3);
	stream_write(e.s, SLICE("554 no\r\n"));
	stream_end(e.s);
	rounds(3);
	ck_assert_int_eq(send(client, more, sizeof(more), MSG_NOSIGNAL), sizeof(more));
	rounds(3);
	ck_assert_int_eq(recv(client, reply, sizeof(reply), 0), 8);
	ck_assert_int_eq(recv(client, reply, sizeof(reply), 0), 0); /* an end, and no reset */
	ck_assert_uint_eq(e.closes, 0);
	close(client);
	loop_close();
	ck_assert_uint_eq(e.closes, 1);
	close(listening);
	buf_fini(&e.got);
}
END_TEST

START_TEST(connecting_tells_how_it_went)
{
	struct end e = { .got = buf_heap(100) }, refused = { .got = buf_heap(100) };
	struct sockaddr_in addr;
	int listening;

	loop_open();
	listening = tcp_listener(&addr);
	e.s = stream_connect(&loop, (struct sockaddr *)&addr, NULL, &ops, &e, NULL);
	ck_assert_ptr_nonnull(e.s);
	stream_write(e.s, SLICE("before the connection"));
	run_until(&e.connects, 1);
	stream_close(e.s);
	rounds(2);
	close(listening);
	refused.s = stream_connect(&loop, (struct sockaddr *)&addr, NULL, &ops, &refused, NULL);
	ck_assert_ptr_nonnull(refused.s);
	run_until(&refused.closes, 1);
	ck_assert_uint_eq(refused.connects, 0);
	ck_assert_int_eq(refused.why, ERR_SYS);
	ck_assert_int_eq(refused.sys, ECONNREFUSED);
	loop_close();
}
END_TEST

START_TEST(what_is_written_after_the_end_changes_nothing_before_it)
{
	struct end e = { 0 };
	char got[100];
	int fds[2];

	loop_open();
	pair_of(SOCK_STREAM, fds);
	end_open(&e, fds[0]);
	stream_write(e.s, SLICE("last words"));
	stream_end(e.s);
	stream_write(e.s, SLICE("354 go"));
	buf_puts(stream_out(e.s), "more");
	stream_write_ref(e.s, SLICE("and more"));
	rounds(2);
	ck_assert_int_eq(recv(fds[1], got, sizeof(got), 0), 10);
	ck_assert_mem_eq(got, "last words", 10);
	loop_close();
	close(fds[1]);
	buf_fini(&e.got);
}
END_TEST

/* A write fails before what the peer said is read: it is shown all the same. */
START_TEST(who_connected_reads_the_last_words_of_a_peer_that_closed)
{
	struct end e = { .got = buf_heap(100) };
	struct sockaddr_un un = { .sun_family = AF_UNIX, .sun_path = "" };
	char folder[] = "/tmp/relayd-test-XXXXXX";
	int listening = socket(AF_UNIX, SOCK_STREAM, 0), fd;

	ck_assert_ptr_nonnull(mkdtemp(folder));
	(void)snprintf(un.sun_path, sizeof(un.sun_path), "%s/s", folder);
	ck_assert_int_eq(bind(listening, (struct sockaddr *)&un, sizeof(un)), 0);
	ck_assert_int_eq(listen(listening, 1), 0);
	loop_open();
	e.s = stream_connect(&loop, (struct sockaddr *)&un, NULL, &ops, &e, NULL);
	ck_assert_ptr_nonnull(e.s);
	run_until(&e.connects, 1);
	fd = accept(listening, NULL, NULL);
	ck_assert_int_eq(send(fd, "421 bye", 7, MSG_NOSIGNAL), 7);
	close(fd);
	stream_write(e.s, SLICE("MAIL FROM:<>\r\n"));
	stream_flush(e.s); /* EPIPE */
	stream_write(e.s, SLICE("RCPT TO:<a@example.org>\r\n"));
	run_until(&e.closes, 1);
	ck_assert(slice_eq(buf_slice(&e.got), SLICE("421 bye")));
	ck_assert_int_eq(e.why, ERR_CLOSED);
	ck_assert_uint_eq(e.eofs, 0);
	loop_close();
	close(listening);
	(void)unlink(un.sun_path);
	(void)rmdir(folder);
	buf_fini(&e.got);
}
END_TEST

START_TEST(a_unix_socket_that_is_not_there_is_an_error_at_once)
{
	struct sockaddr_un un = { .sun_family = AF_UNIX,
		.sun_path = "/tmp/relayd-test-no-such-socket" };
	struct err err = { 0 };
	struct end e = { 0 };

	loop_open();
	ck_assert_ptr_null(stream_connect(&loop, (struct sockaddr *)&un, NULL, &ops, &e, &err));
	ck_assert_int_eq(err.sys, ENOENT);
	loop_close();
	ck_assert_uint_eq(e.closes, 0);
}
END_TEST

/* ---- TLS ------------------------------------------------------------------------------------ */

static struct test_cert cert;

static struct tls_server *
server_new(const char *type, const char *name)
{
	struct err err = { 0 };
	struct tls_pair pair = { .certificate_path = "cert.pem", .key_path = "key.pem" };
	struct tls_server *server;

	cert = test_cert_new(type, name);
	pair.certificate = slice_str(cert.certificate);
	pair.key = slice_str(cert.key);
	server = tls_server_new(&pair, 1, &err);
	ck_assert_msg(server != NULL, "%s", err.msg);
	return server;
}

static struct tls_client *
client_new(void)
{
	struct tls_client *client;
	char path[32];

	test_file(cert.certificate, path);
	client = tls_client_new(path, NULL);
	ck_assert_ptr_nonnull(client);
	unlink(path);
	return client;
}

/* Answers STARTTLS and goes on under TLS. */
static void
start_tls(struct end *e)
{
	struct err err = { 0 };

	if (e->tls > 0 || e->got.len == 0)
		return;
	stream_write(e->s, SLICE("220 go\r\n"));
	ck_assert_msg(stream_tls_accept(e->s, e->server, &err) == 0, "%s", err.msg);
	buf_reset(&e->got);
	e->then = NULL;
}

struct tls_pair_of_ends {
	struct end server, client;
	int fds[2];
};

static void
tls_connect_ends(
    struct tls_pair_of_ends *t, struct tls_client *client, enum tls_verify verify, const char *host)
{
	struct err err = { 0 };

	pair_of(SOCK_STREAM, t->fds);
	t->server.server = t->server.server;
	end_open(&t->server, t->fds[0]);
	end_open(&t->client, t->fds[1]);
	ck_assert_int_eq(stream_tls_accept(t->server.s, t->server.server, &err), 0);
	ck_assert_msg(
	    stream_tls_connect(t->client.s, client, verify, host, &err) == 0, "%s", err.msg);
}

static void
echo_to_other(struct end *e)
{
	if (e->s != NULL && !e->no_reply)
		stream_write(e->s, buf_slice(&e->got));
	buf_reset(&e->got);
}

START_TEST(bytes_pass_both_ways_under_tls)
{
	static const char *const types[] = { "RSA", "EC" };
	struct tls_pair_of_ends t = { .server = { .then = echo_to_other } };
	struct tls_info info;
	struct tls_client *client;

	loop_open();
	t.server.server = server_new(types[_i], "mx.example.test");
	client = client_new();
	tls_connect_ends(&t, client, TLS_VERIFY_HOST, "mx.example.test");
	stream_write(t.client.s, SLICE("hello, written before the handshake"));
	run_until_got(&t.client, 35);
	ck_assert_mem_eq(t.client.got.p, "hello, written before the handshake", 35);
	ck_assert_uint_eq(t.client.tls, 1);
	ck_assert_uint_eq(t.server.tls, 1);
	ck_assert(stream_tls_info(t.client.s, &info));
	ck_assert_str_eq(info.version, "TLSv1.3");
	ck_assert(info.verified);
	ck_assert_int_ge(info.bits, 128);
	ck_assert(stream_tls_info(t.server.s, &info));
	ck_assert(!info.verified);
	stream_end(t.client.s);
	loop_close();
	ck_assert_uint_eq(t.server.eofs, 1); /* by close_notify */
	ck_assert_int_eq(t.server.why, ERR_NONE);
	tls_client_unref(client);
	tls_server_unref(t.server.server);
	test_cert_free(&cert);
	buf_fini(&t.server.got);
	buf_fini(&t.client.got);
}
END_TEST

static const struct verify_row {
	const char *certified, *host;
	enum tls_verify verify;
	bool trusted, good;
} verify_rows[] = {
	{ "mx.example.test", "mx.example.test", TLS_VERIFY_HOST, true, true },
	{ "mx.example.test", "MX.Example.Test", TLS_VERIFY_HOST, true, true },
	{ "mx.example.test", "other.example.test", TLS_VERIFY_HOST, true, false },
	{ "*.example.test", "mx.example.test", TLS_VERIFY_HOST, true, true },
	{ "*.example.test", "a.b.example.test", TLS_VERIFY_HOST, true, false },
	{ "IP:127.0.0.1", "127.0.0.1", TLS_VERIFY_HOST, true, true },
	{ "IP:127.0.0.1", "127.0.0.2", TLS_VERIFY_HOST, true, false },
	{ "mx.example.test", "mx.example.test", TLS_VERIFY_HOST, false, false },
	{ "mx.example.test", "other.example.test", TLS_VERIFY_NONE, false, true },
	{ "mx.example.test", NULL, TLS_VERIFY_NONE, false, true },
};

START_TEST(a_certificate_is_checked_as_the_policy_says)
{
	const struct verify_row *row = &verify_rows[_i];
	struct tls_pair_of_ends t = { 0 };
	struct test_cert other = test_cert_new("EC", "unrelated.test");
	struct tls_client *client;
	char path[32];

	loop_open();
	t.server.server = server_new("EC", row->certified);
	test_file(row->trusted ? cert.certificate : other.certificate, path);
	client = tls_client_new(path, NULL);
	unlink(path);
	tls_connect_ends(&t, client, row->verify, row->host);
	if (row->good) {
		run_until(&t.client.tls, 1);
		stream_close(t.client.s);
	} else {
		run_until(&t.client.closes, 1);
		ck_assert_uint_eq(t.client.tls, 0);
		ck_assert_int_eq(t.client.why, ERR_TLS);
		ck_assert_msg(
		    strstr(t.client.msg, "TLS handshake: ") == t.client.msg, "%s", t.client.msg);
	}
	loop_close();
	ck_assert_uint_eq(t.server.closes, 1);
	tls_client_unref(client);
	tls_server_unref(t.server.server);
	test_cert_free(&cert);
	test_cert_free(&other);
	buf_fini(&t.server.got);
	buf_fini(&t.client.got);
}
END_TEST

START_TEST(room_is_used_under_tls_too)
{
	struct tls_pair_of_ends t = { .server = { .offer_room = 10 } };
	struct tls_client *client;

	loop_open();
	t.server.server = server_new("EC", "mx.example.test");
	client = client_new();
	tls_connect_ends(&t, client, TLS_VERIFY_HOST, "mx.example.test");
	stream_write(t.client.s, SLICE("0123456789abcde"));
	run_until_got(&t.server, 15);
	end_is(&t.server, "0123456789abcde");
	ck_assert_uint_eq(t.server.in_room, 15);
	stream_pause(t.server.s);
	stream_write(t.client.s, SLICE("later"));
	rounds(5);
	end_is(&t.server, "0123456789abcde");
	ck_assert_uint_eq(stream_kept(t.server.s), 5);
	stream_resume(t.server.s);
	run_until_got(&t.server, 20);
	stream_close(t.client.s);
	loop_close();
	tls_client_unref(client);
	tls_server_unref(t.server.server);
	test_cert_free(&cert);
	buf_fini(&t.server.got);
	buf_fini(&t.client.got);
}
END_TEST

START_TEST(nothing_said_before_starttls_counts_under_it)
{
	struct end server = { .then = start_tls }, client = { 0 };
	struct tls_client *trust;
	char reply[20];
	int fds[2];

	loop_open();
	server.server = server_new("EC", "mx.example.test");
	trust = client_new();
	pair_of(SOCK_STREAM, fds);
	end_open(&server, fds[0]);
	server.take_max = 10; /* the rest would be kept */
	say(fds[1], "STARTTLS\r\nMAIL FROM:<injected@example.test>\r\n");
	rounds(3);
	ck_assert_uint_eq(stream_kept(server.s), 0);
	ck_assert_int_eq(recv(fds[1], reply, sizeof(reply), 0), 8); /* in plain text */
	ck_assert_mem_eq(reply, "220 go\r\n", 8);
	server.take_max = 0;
	end_open(&client, fds[1]);
	ck_assert_int_eq(
	    stream_tls_connect(client.s, trust, TLS_VERIFY_HOST, "mx.example.test", NULL), 0);
	stream_write(client.s, SLICE("EHLO again\r\n"));
	run_until_got(&server, 12);
	end_is(&server, "EHLO again\r\n");
	stream_close(client.s);
	loop_close();
	tls_client_unref(trust);
	tls_server_unref(server.server);
	test_cert_free(&cert);
	buf_fini(&server.got);
	buf_fini(&client.got);
}
END_TEST

START_TEST(what_is_no_handshake_ends_the_stream)
{
	struct end server = { 0 };
	char alert[100];
	int fds[2];

	loop_open();
	server.server = server_new("EC", "mx.example.test");
	pair_of(SOCK_STREAM, fds);
	end_open(&server, fds[0]);
	ck_assert_int_eq(stream_tls_accept(server.s, server.server, NULL), 0);
	ck_assert_int_eq(stream_tls_accept(server.s, server.server, NULL), -1);
	say(fds[1], "EHLO I speak no TLS at all, sorry for that\r\n");
	run_until(&server.closes, 1);
	ck_assert_int_eq(server.why, ERR_TLS);
	(void)recv(fds[1], alert, sizeof(alert), 0); /* there may be one */
	loop_close();
	close(fds[1]);
	tls_server_unref(server.server);
	test_cert_free(&cert);
	buf_fini(&server.got);
}
END_TEST

START_TEST(megabytes_pass_under_tls_with_bounded_memory)
{
	size_t size = 6u << 20;
	char *body = malloc(size);
	struct tls_pair_of_ends t = { 0 };
	struct tls_client *client;

	loop_open();
	t.server.server = server_new("EC", "mx.example.test");
	client = client_new();
	tls_connect_ends(&t, client, TLS_VERIFY_HOST, "mx.example.test");
	for (size_t i = 0; i < size; i++)
		body[i] = (char)(i * 31 + i / 1000);
	stream_write_ref(t.client.s, slice_of(body, size));
	stream_write(t.client.s, SLICE("end"));
	run_until_got(&t.server, size + 3);
	ck_assert_mem_eq(t.server.got.p, body, size);
	ck_assert_uint_eq(t.client.drains, 1);
	stream_write_ref(t.server.s, slice_of(body, size));
	stream_end(t.server.s); /* all of it still goes out */
	run_until_got(&t.client, size);
	ck_assert_mem_eq(t.client.got.p, body, size);
	loop_close();
	free(body);
	tls_client_unref(client);
	tls_server_unref(t.server.server);
	test_cert_free(&cert);
	buf_fini(&t.server.got);
	buf_fini(&t.client.got);
}
END_TEST

#ifndef SANITIZED
#define SESSIONS 50

static size_t
heap_bytes(void)
{
	malloc_trim(0);
	return mallinfo2().uordblks;
}

START_TEST(idle_sessions_are_small)
{
	static struct tls_pair_of_ends t[SESSIONS];
	struct tls_server *server;
	struct tls_client *client;
	size_t before, plain, tls;
	int fds[2];

	loop_open();
	server = server_new("EC", "mx.example.test");
	client = client_new();
	memset(t, 0, sizeof(t));
	before = heap_bytes();
	for (int i = 0; i < SESSIONS; i++) {
		pair_of(SOCK_STREAM, fds);
		t[i].server.server = server;
		t[i].server.keep_after_eof = true;
		end_open(&t[i].server, fds[0]);
		end_open(&t[i].client, fds[1]);
		stream_write(t[i].server.s, SLICE("220 mx.example.test ESMTP\r\n"));
	}
	rounds(5);
	plain = (heap_bytes() - before) / (2 * SESSIONS);
	for (int i = 0; i < SESSIONS; i++) {
		ck_assert_int_eq(stream_tls_accept(t[i].server.s, server, NULL), 0);
		ck_assert_int_eq(
		    stream_tls_connect(t[i].client.s, client, TLS_VERIFY_NONE, NULL, NULL), 0);
	}
	for (int i = 0; i < SESSIONS; i++) {
		run_until(&t[i].client.tls, 1);
		run_until(&t[i].server.tls, 1);
	}
	rounds(10);                        /* tickets are read */
	for (int i = 0; i < SESSIONS; i++) /* a client's certificates and tickets are not ours */
		stream_close(t[i].client.s);
	rounds(5);
	tls = (heap_bytes() - before) / SESSIONS;
	ck_assert_msg(plain < 1024, "%zu bytes for an idle plain end", plain);
	ck_assert_msg(tls < 24 * 1024, "%zu bytes for an idle TLS end", tls);
	for (int i = 0; i < SESSIONS; i++) {
		ck_assert_uint_eq(t[i].server.closes, 0);
		stream_close(t[i].server.s);
	}
	loop_close();
	for (int i = 0; i < SESSIONS; i++) {
		buf_fini(&t[i].server.got);
		buf_fini(&t[i].client.got);
	}
	tls_client_unref(client);
	tls_server_unref(server);
	test_cert_free(&cert);
}
END_TEST
#endif

UNIT_SUITE(stream)
{
	UNIT_TEST(what_is_written_in_a_round_leaves_in_one_call);
	UNIT_TEST(an_explicit_flush_does_not_wait_for_the_round);
	UNIT_TEST(what_is_not_taken_is_shown_again_with_what_follows);
	UNIT_TEST(a_paused_stream_shows_nothing_until_it_is_resumed);
	UNIT_TEST(bytes_are_read_into_the_room_that_the_owner_offers);
	UNIT_TEST(input_that_nobody_takes_is_bounded);
	UNIT_TEST(a_big_body_by_reference_arrives_whole_at_a_slow_reader);
	UNIT_TEST(a_close_with_output_under_way_touches_it_no_more);
	UNIT_TEST(too_much_output_ends_the_stream);
	UNIT_TEST(a_deadline_can_be_moved_and_fires_once);
	UNIT_TEST(without_a_callback_a_deadline_closes);
	UNIT_TEST(without_a_callback_the_end_of_input_closes_after_the_output);
	UNIT_TEST(after_a_close_every_call_is_harmless_and_on_close_comes_once);
	UNIT_TEST(a_last_reply_survives_input_that_nobody_reads);
	UNIT_TEST(connecting_tells_how_it_went);
	UNIT_TEST(what_is_written_after_the_end_changes_nothing_before_it);
	UNIT_TEST(who_connected_reads_the_last_words_of_a_peer_that_closed);
	UNIT_TEST(a_unix_socket_that_is_not_there_is_an_error_at_once);
	tcase_add_loop_test(tc, bytes_pass_both_ways_under_tls, 0, 2);
	UNIT_ROWS(a_certificate_is_checked_as_the_policy_says, verify_rows);
	UNIT_TEST(room_is_used_under_tls_too);
	UNIT_TEST(nothing_said_before_starttls_counts_under_it);
	UNIT_TEST(what_is_no_handshake_ends_the_stream);
	UNIT_TEST(megabytes_pass_under_tls_with_bounded_memory);
#ifndef SANITIZED
	UNIT_TEST(idle_sessions_are_small);
#endif
}
