/* tests/unit/net/race_test.c - several addresses of which the first that answers is used. */
#include "relayd/net/race.h"

#include "unit/unit.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <unistd.h>

static uv_loop_t loop;

/* What came of it. */
struct outcome {
	struct stream *s;
	size_t which;
	unsigned missed, wins, failures, closes;
	enum err_code why;
	char msg[256];
};

static size_t
on_read(struct stream *s, void *owner, struct slice bytes)
{
	(void)s, (void)owner;
	return bytes.len;
}

static void
on_close(struct stream *s, void *owner, const struct err *why)
{
	struct outcome *o = owner;

	(void)s, (void)why;
	o->closes++;
}

static const struct stream_ops stream_ops = { .on_read = on_read, .on_close = on_close };

static void
on_connect(void *owner, struct stream *s, size_t which, unsigned missed)
{
	struct outcome *o = owner;

	o->s = s;
	o->which = which;
	o->missed = missed;
	o->wins++;
	stream_own(s, &stream_ops, o);
}

static void
on_fail(void *owner, const struct err *why, unsigned missed)
{
	struct outcome *o = owner;

	o->failures++;
	o->missed = missed;
	o->why = why->code;
	snprintf(o->msg, sizeof(o->msg), "%s", why->msg);
}

static const struct race_ops ops = { .on_connect = on_connect, .on_fail = on_fail };

/* A socket bound to a free port of an address; its address in *way. */
static int
bound(const char *text, struct race_way *way)
{
	struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)&way->to;
	struct sockaddr_in *in = (struct sockaddr_in *)&way->to;
	bool v6 = strchr(text, ':') != NULL;
	socklen_t len = v6 ? sizeof(*in6) : sizeof(*in);
	int fd = socket(v6 ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	memset(way, 0, sizeof(*way));
	way->to.ss_family = v6 ? AF_INET6 : AF_INET;
	ck_assert_int_eq(inet_pton(way->to.ss_family, text,
			     v6 ? (void *)&in6->sin6_addr : (void *)&in->sin_addr),
	    1);
	ck_assert_int_eq(bind(fd, (struct sockaddr *)&way->to, len), 0);
	ck_assert_int_eq(getsockname(fd, (struct sockaddr *)&way->to, &len), 0);
	return fd;
}

static int
listening(const char *text, struct race_way *way)
{
	int fd = bound(text, way);

	ck_assert_int_eq(listen(fd, 10), 0);
	return fd;
}

/* Nobody answers: its queue is full, so that what comes next is dropped without a word. */
static int
silent(const char *text, struct race_way *way, int held[static 2])
{
	int fd = bound(text, way);
	socklen_t len = way->to.ss_family == AF_INET6 ? sizeof(struct sockaddr_in6)
						      : sizeof(struct sockaddr_in);

	ck_assert_int_eq(listen(fd, 0), 0);
	for (int i = 0; i < 2; i++) {
		held[i] = socket(way->to.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
		(void)connect(held[i], (struct sockaddr *)&way->to, len); /* one gets in */
	}
	return fd;
}

static struct outcome
run(const struct race_way *ways, size_t n, uint32_t timeout_ms)
{
	struct outcome o = { 0 };
	struct race *race;

	uv_loop_init(&loop);
	race = race_start(&loop, ways, n, timeout_ms, &ops, &o, &(struct err){ 0 });
	ck_assert_ptr_nonnull(race);
	while (o.wins + o.failures == 0)
		uv_run(&loop, UV_RUN_ONCE);
	if (o.s != NULL)
		stream_close(o.s);
	uv_run(&loop, UV_RUN_DEFAULT); /* until nothing is left of the losers either */
	ck_assert_uint_eq(o.wins + o.failures, 1);
	ck_assert_uint_eq(o.closes, o.wins);
	ck_assert_int_eq(uv_loop_close(&loop), 0);
	return o;
}

static bool
was_called(int fd)
{
	int got;

	fcntl(fd, F_SETFL, O_NONBLOCK);
	got = accept(fd, NULL, NULL);
	if (got >= 0)
		close(got);
	return got >= 0;
}

START_TEST(the_first_wins_when_it_answers_and_the_second_is_not_asked)
{
	struct race_way ways[2];
	int a = listening("::1", &ways[0]), b = listening("127.0.0.1", &ways[1]);
	struct outcome o = run(ways, 2, 30000);

	ck_assert_uint_eq(o.wins, 1);
	ck_assert_uint_eq(o.which, 0);
	ck_assert_uint_eq(o.missed, 0);
	ck_assert(was_called(a) && !was_called(b));
	close(a);
	close(b);
}
END_TEST

START_TEST(one_that_is_silent_is_overtaken_after_its_head_start)
{
	struct race_way ways[3];
	int held[2], a = silent("::1", &ways[0], held), b = listening("127.0.0.1", &ways[1]);
	int c = listening("127.0.0.2", &ways[2]);
	uint64_t begun = uv_hrtime();
	struct outcome o = run(ways, 3, 60000);
	uint64_t took_ms = (uv_hrtime() - begun) / 1000000;

	ck_assert_uint_eq(o.wins, 1);
	ck_assert_uint_eq(o.which, 1);
	ck_assert_uint_eq(o.missed, 1);
	ck_assert_uint_ge(took_ms, RACE_DELAY_MS - 10);
	ck_assert_uint_lt(took_ms, 30000); /* far from the time that the first one had */
	ck_assert(!was_called(c));
	close(held[0]);
	close(held[1]);
	close(a);
	close(b);
	close(c);
}
END_TEST

START_TEST(one_that_refuses_has_no_head_start)
{
	struct race_way ways[3];
	int a = bound("::1", &ways[0]), b = bound("127.0.0.1", &ways[1]);
	int c = listening("127.0.0.2", &ways[2]);
	struct outcome o = run(ways, 3, 30000);

	ck_assert_uint_eq(o.which, 2);
	ck_assert_uint_eq(o.missed, 3);
	close(a);
	close(b);
	close(c);
}
END_TEST

START_TEST(when_all_fail_the_last_one_says_why)
{
	struct race_way ways[2];
	int held[2], a = silent("::1", &ways[0], held), b = bound("127.0.0.1", &ways[1]);
	struct outcome o = run(ways, 2, 400);

	ck_assert_uint_eq(o.failures, 1);
	ck_assert_uint_eq(o.missed, 3);
	ck_assert_int_eq(o.why, ERR_TIMEOUT);
	ck_assert_msg(strstr(o.msg, "::1") != NULL, "%s", o.msg);
	close(held[0]);
	close(held[1]);
	close(a);
	close(b);
}
END_TEST

START_TEST(a_cancelled_one_fails_once_and_from_the_loop)
{
	struct race_way ways[2];
	int held[2], a = silent("::1", &ways[0], held), b = listening("127.0.0.1", &ways[1]);
	struct outcome o = { 0 };
	struct race *race;

	uv_loop_init(&loop);
	race = race_start(&loop, ways, 2, 30000, &ops, &o, &(struct err){ 0 });
	ck_assert_ptr_nonnull(race);
	race_cancel(race);
	ck_assert_uint_eq(o.failures, 0);
	uv_run(&loop, UV_RUN_DEFAULT);
	ck_assert_uint_eq(o.failures, 1);
	ck_assert_int_eq(o.why, ERR_CANCELLED);
	ck_assert_uint_eq(o.wins, 0);
	ck_assert_int_eq(uv_loop_close(&loop), 0);
	close(held[0]);
	close(held[1]);
	close(a);
	close(b);
}
END_TEST

UNIT_SUITE(race)
{
	UNIT_TEST(the_first_wins_when_it_answers_and_the_second_is_not_asked);
	UNIT_TEST(one_that_is_silent_is_overtaken_after_its_head_start);
	UNIT_TEST(one_that_refuses_has_no_head_start);
	UNIT_TEST(when_all_fail_the_last_one_says_why);
	UNIT_TEST(a_cancelled_one_fails_once_and_from_the_loop);
}
