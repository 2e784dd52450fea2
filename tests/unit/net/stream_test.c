/* tests/unit/net/stream_test.c - bytes that pass through a stream: in, out, kept, paused and
 * bounded. */
#include "unit/net/ends.h"
#include "unit/unit.h"

#include <stdlib.h>
#include <unistd.h>

START_TEST(what_is_written_in_a_round_leaves_in_one_call)
{
	static const char body[] = "body by reference\r\n";
	struct end e = { 0 };
	char packet[200];
	ssize_t n;
	int fds[2];

	ends_begin();
	ends_pair(SOCK_SEQPACKET, fds); /* each send is a packet: they can be counted */
	end_open(&e, fds[0]);
	stream_write(e.s, SLICE("250 one\r\n"));
	buf_printf(stream_out(e.s), "250 %s\r\n", "two");
	stream_write_ref(e.s, slice_str(body));
	stream_write(e.s, SLICE("250 three\r\n"));
	ck_assert_uint_eq(stream_pending(e.s), 9 + 9 + 19 + 11);
	ck_assert_int_lt(
	    recv(fds[1], packet, sizeof(packet), 0), 0); /* not before the round ends */
	ends_rounds(1);
	n = recv(fds[1], packet, sizeof(packet), 0);
	ck_assert_int_eq(n, 48);
	ck_assert_mem_eq(packet, "250 one\r\n250 two\r\nbody by reference\r\n250 three\r\n", 48);
	ck_assert_int_lt(recv(fds[1], packet, sizeof(packet), 0), 0);
	ck_assert_uint_eq(e.drains, 1);
	ck_assert_uint_eq(stream_pending(e.s), 0);
	stream_close(e.s);
	ends_finish();
	close(fds[1]);
	buf_fini(&e.got);
}
END_TEST

START_TEST(an_explicit_flush_does_not_wait_for_the_round)
{
	struct end e = { 0 };
	char packet[10];
	int fd = end_alone(&e);

	stream_write(e.s, SLICE("now"));
	stream_flush(e.s);
	ck_assert_int_eq(recv(fd, packet, sizeof(packet), 0), 3);
	ck_assert_uint_eq(e.drains, 0); /* no callback inside a stream_ function */
	ends_rounds(1);
	ck_assert_uint_eq(e.drains, 1);
	end_over(&e, fd);
}
END_TEST

START_TEST(what_is_not_taken_is_shown_again_with_what_follows)
{
	struct end e = { .take_max = 4 };
	int fd = end_alone(&e);

	ends_say(fd, "aaaabb");
	ends_rounds(2);
	end_is(&e, "aaaa");
	ck_assert_uint_eq(stream_kept(e.s), 2);
	ends_say(fd, "bbcc");
	ends_rounds(2);
	end_is(&e, "aaaabbbb");
	ck_assert_uint_eq(stream_kept(e.s), 2);
	e.take_max = 0;
	ends_say(fd, "cc");
	ends_rounds(2);
	end_is(&e, "aaaabbbbcccc");
	ck_assert_uint_eq(stream_kept(e.s), 0);
	end_over(&e, fd);
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
	int fd = end_alone(&e);

	ends_say(fd, "1122");
	ends_rounds(3);
	end_is(&e, "11");
	ends_say(fd, "33");
	close(fd);
	ends_rounds(5);
	end_is(&e, "11"); /* neither more bytes nor the end */
	ck_assert_uint_eq(e.eofs, 0);
	stream_resume(e.s);
	end_is(&e, "11"); /* from the loop, not at once */
	ends_rounds(3);
	end_is(&e, "1122");
	stream_resume(e.s);
	ends_rounds(3);
	end_is(&e, "112233");
	ck_assert_uint_eq(e.eofs, 0);
	stream_resume(e.s);
	ends_rounds(3);
	ck_assert_uint_eq(e.eofs, 1);
	ends_finish();
	ck_assert_uint_eq(e.closes, 1);
	ck_assert_int_eq(e.why, ERR_NONE);
	buf_fini(&e.got);
}
END_TEST

START_TEST(bytes_are_read_into_the_room_that_the_owner_offers)
{
	struct end e = { .offer_room = 10 };
	int fd = end_alone(&e);

	ends_say(fd, "0123456789abcde");
	ends_rounds(3);
	end_is(&e, "0123456789abcde");
	ck_assert_uint_eq(e.in_room, 15);
	ck_assert_uint_eq(e.reads, 2); /* ten and five */
	e.offer_room = 0;
	ends_say(fd, "f");
	ends_rounds(2);
	ck_assert_uint_eq(e.in_room, 15);
	end_is(&e, "0123456789abcdef");
	end_over(&e, fd);
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
	static const struct stream_ops deaf = { .on_read = on_read_nothing,
		.on_close = end_on_close };
	struct end e = { 0 }, slow = { .take_max = 1u << 15 };
	int fds[2];

	ends_begin();
	ends_pair(SOCK_STREAM, fds);
	end_open_with(&e, fds[0], &deaf);
	for (int i = 0; i < 20 && e.closes == 0; i++) {
		fill(fds[1], 1u << 14);
		ends_rounds(2);
	}
	ck_assert_int_eq(e.why, ERR_LIMIT);
	close(fds[1]);
	ends_pair(SOCK_STREAM, fds); /* one that takes some each time is shown the rest */
	end_open(&slow, fds[0]);
	stream_pause(slow.s);
	fill(fds[1], 1u << 17);
	ends_rounds(5);
	stream_resume(slow.s);
	ends_rounds(20);
	fill(fds[1], 1u << 14);
	ends_rounds(20);
	ck_assert_uint_ge(slow.got.len, 1u << 14);
	ck_assert_uint_eq(slow.closes, 0);
	stream_close(slow.s);
	ends_finish();
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
	int fd = end_alone(&e);

	for (size_t i = 0; i < size; i++)
		body[i] = (char)(i * 7 + i / 4096);
	stream_write(e.s, SLICE("<"));
	for (size_t i = 0; i < size; i += 1u << 16)
		stream_write_ref(e.s, slice_of(body + i, 1u << 16));
	stream_write(e.s, SLICE(">"));
	ends_rounds(1);
	ck_assert_uint_gt(stream_pending(e.s), 0);
	ck_assert_uint_eq(e.drains, 0);
	stream_write(e.s, SLICE("later"));
	while (at < size + 7) {
		ssize_t n = recv(fd, got + at, size + 10 - at, 0);

		if (n > 0)
			at += (size_t)n;
		else
			uv_run(&ends_loop, UV_RUN_NOWAIT);
	}
	ends_rounds(2);
	ck_assert_uint_eq(e.drains, 1);
	ck_assert_mem_eq(got + 1, body, size);
	ck_assert_mem_eq(got + 1 + size, ">later", 6);
	stream_close(e.s);
	ends_finish();
	close(fd);
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
	int fd = end_alone(&e);

	memset(body, 'x', size);
	stream_write_ref(e.s, slice_of(body, size));
	ends_rounds(2);
	ck_assert_uint_gt(stream_pending(e.s), 0);
	stream_close(e.s);
	free(body); /* it is ours again once stream_close() has returned */
	ends_finish();
	ck_assert_uint_eq(e.closes, 1);
	close(fd);
	buf_fini(&e.got);
}
END_TEST

START_TEST(too_much_output_ends_the_stream)
{
	static char block[1u << 20];
	struct end e = { 0 };
	int fd = end_alone(&e);

	for (int i = 0; i < 9; i++)
		stream_write(e.s, slice_of(block, sizeof(block)));
	ends_rounds(3);
	ck_assert_uint_eq(e.closes, 1);
	ck_assert_int_eq(e.why, ERR_LIMIT);
	end_over(&e, fd);
}
END_TEST

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
}
