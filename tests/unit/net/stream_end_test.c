/* tests/unit/net/stream_end_test.c - how a stream begins and ends: connecting, deadlines, closing,
 * last words. */
#include "unit/net/ends.h"
#include "unit/unit.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/un.h>
#include <unistd.h>

static void
pause_end(struct end *e)
{
	stream_pause(e->s);
}

START_TEST(a_deadline_can_be_moved_and_fires_once)
{
	struct end e = { 0 };
	int64_t start;
	int fd = end_alone(&e);

	uv_update_time(&ends_loop);
	start = (int64_t)uv_now(&ends_loop);
	stream_deadline(e.s, start + 20);
	stream_deadline(e.s, start + 60); /* later: the timer is not touched */
	uv_run(&ends_loop, UV_RUN_DEFAULT);
	ck_assert_uint_eq(e.deadlines, 1);
	ck_assert_int_ge((int64_t)uv_now(&ends_loop), start + 60);
	start = (int64_t)uv_now(&ends_loop);
	stream_deadline(e.s, start + 60000);
	stream_deadline(e.s, start + 30); /* earlier */
	uv_run(&ends_loop, UV_RUN_DEFAULT);
	ck_assert_uint_eq(e.deadlines, 2);
	ck_assert_int_lt((int64_t)uv_now(&ends_loop), start + 30000);
	stream_deadline(e.s, 0);
	end_over(&e, fd);
}
END_TEST

START_TEST(without_a_callback_a_deadline_closes)
{
	struct end e = { 0 };
	int fds[2];

	ends_begin();
	ends_pair(SOCK_STREAM, fds);
	end_open_with(&e, fds[0], &end_plain_ops);
	stream_deadline(e.s, (int64_t)uv_now(&ends_loop) + 5);
	ends_finish();
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

	ends_begin();
	ends_pair(SOCK_STREAM, fds);
	end_open_with(&e, fds[0], &end_plain_ops);
	ends_say(fds[1], "x");
	shutdown(fds[1], SHUT_WR);
	stream_write(e.s, SLICE("reply"));
	ends_finish();
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
	int fd = end_alone(&e);

	ends_say(fd, "x");
	ends_rounds(2);
	ck_assert_uint_eq(e.reads, 1);
	ends_finish();
	ck_assert_uint_eq(e.closes, 1);
	ck_assert_int_eq(e.why, ERR_NONE);
	close(fd);
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

	ends_begin();
	listening = tcp_listener(&addr);
	client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	ck_assert_int_eq(connect(client, (struct sockaddr *)&addr, sizeof(addr)), 0);
	server = accept(listening, NULL, NULL);
	end_open(&e, server);
	memset(more, 'x', sizeof(more));
	ends_say(client, "x");
	ends_rounds(3);
	ck_assert_int_eq(send(client, more, sizeof(more), 0), sizeof(more));
	ends_rounds(3);
	stream_write(e.s, SLICE("554 no\r\n"));
	stream_end(e.s);
	ends_rounds(3);
	ck_assert_int_eq(send(client, more, sizeof(more), MSG_NOSIGNAL), sizeof(more));
	ends_rounds(3);
	ck_assert_int_eq(recv(client, reply, sizeof(reply), 0), 8);
	ck_assert_int_eq(recv(client, reply, sizeof(reply), 0), 0); /* an end, and no reset */
	ck_assert_uint_eq(e.closes, 0);
	close(client);
	ends_finish();
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

	ends_begin();
	listening = tcp_listener(&addr);
	e.s = stream_connect(&ends_loop, (struct sockaddr *)&addr, NULL, &end_ops, &e, NULL);
	ck_assert_ptr_nonnull(e.s);
	stream_write(e.s, SLICE("before the connection"));
	ends_until(&e.connects, 1);
	stream_close(e.s);
	ends_rounds(2);
	close(listening);
	refused.s =
	    stream_connect(&ends_loop, (struct sockaddr *)&addr, NULL, &end_ops, &refused, NULL);
	ck_assert_ptr_nonnull(refused.s);
	ends_until(&refused.closes, 1);
	ck_assert_uint_eq(refused.connects, 0);
	ck_assert_int_eq(refused.why, ERR_SYS);
	ck_assert_int_eq(refused.sys, ECONNREFUSED);
	ends_finish();
}
END_TEST

START_TEST(what_is_written_after_the_end_changes_nothing_before_it)
{
	struct end e = { 0 };
	char got[100];
	int fd = end_alone(&e);

	stream_write(e.s, SLICE("last words"));
	stream_end(e.s);
	stream_write(e.s, SLICE("354 go"));
	buf_puts(stream_out(e.s), "more");
	stream_write_ref(e.s, SLICE("and more"));
	ends_rounds(2);
	ck_assert_int_eq(recv(fd, got, sizeof(got), 0), 10);
	ck_assert_mem_eq(got, "last words", 10);
	end_over(&e, fd);
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
	ends_begin();
	e.s = stream_connect(&ends_loop, (struct sockaddr *)&un, NULL, &end_ops, &e, NULL);
	ck_assert_ptr_nonnull(e.s);
	ends_until(&e.connects, 1);
	fd = accept(listening, NULL, NULL);
	ck_assert_int_eq(send(fd, "421 bye", 7, MSG_NOSIGNAL), 7);
	close(fd);
	stream_write(e.s, SLICE("MAIL FROM:<>\r\n"));
	stream_flush(e.s); /* EPIPE */
	stream_write(e.s, SLICE("RCPT TO:<a@example.org>\r\n"));
	ends_until(&e.closes, 1);
	ck_assert(slice_eq(buf_slice(&e.got), SLICE("421 bye")));
	ck_assert_int_eq(e.why, ERR_CLOSED);
	ck_assert_uint_eq(e.eofs, 0);
	ends_finish();
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

	ends_begin();
	ck_assert_ptr_null(
	    stream_connect(&ends_loop, (struct sockaddr *)&un, NULL, &end_ops, &e, &err));
	ck_assert_int_eq(err.sys, ENOENT);
	ends_finish();
	ck_assert_uint_eq(e.closes, 0);
}
END_TEST

UNIT_SUITE(stream_end)
{
	UNIT_TEST(a_deadline_can_be_moved_and_fires_once);
	UNIT_TEST(without_a_callback_a_deadline_closes);
	UNIT_TEST(without_a_callback_the_end_of_input_closes_after_the_output);
	UNIT_TEST(after_a_close_every_call_is_harmless_and_on_close_comes_once);
	UNIT_TEST(a_last_reply_survives_input_that_nobody_reads);
	UNIT_TEST(connecting_tells_how_it_went);
	UNIT_TEST(what_is_written_after_the_end_changes_nothing_before_it);
	UNIT_TEST(who_connected_reads_the_last_words_of_a_peer_that_closed);
	UNIT_TEST(a_unix_socket_that_is_not_there_is_an_error_at_once);
}
