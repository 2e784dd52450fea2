/* tests/unit/net/listener_test.c - binding as the supervisor does, accepting as a role does. */
#include "relayd/net/listener.h"

#include "unit/unit.h"

#include "relayd/core/clock.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static const struct form_row {
	const char *address;
	bool good;
} forms[] = {
	{ "*:25", true },
	{ "127.0.0.1:2525", true },
	{ "[::1]:25", true },
	{ "unix:/run/x.sock", true },
	{ "127.0.0.1:0", true },
	{ "127.0.0.1:65535", true },
	{ "127.0.0.1:65536", false },
	{ "127.0.0.1", false },
	{ "127.0.0.1:", false },
	{ ":25", false },
	{ "::1:25", false },
	{ "[127.0.0.1]:25", false },
	{ "[::1:25", false },
	{ "[*]:25", false },
	{ "localhost:25", false },
	{ "127.0.0.1:25x", false },
	{ "127.0.0.1:+25", false },
	{ "[fe80::1%lo]:25", false },
	{ "unix:relative", false },
	{ "unix:", false },
	{ "", false },
	{ "unix:/"
	  "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567"
	  "890"
	  "12345678901234567890",
	    false },
};

START_TEST(an_address_has_one_of_four_forms)
{
	struct err err = { 0 };

	ck_assert_int_eq(listener_check(forms[_i].address, &err), forms[_i].good ? 0 : -1);
	if (!forms[_i].good) {
		ck_assert_int_eq(err.code, ERR_CONFIG);
		ck_assert_ptr_eq(strstr(err.msg, forms[_i].address), err.msg);
	}
}
END_TEST

static uint16_t
port_of(const struct listener_socket *s)
{
	return (uint16_t)atoi(strrchr(s->name, ':') + 1);
}

static void
close_all(struct listener_socket *sockets, size_t n)
{
	for (size_t i = 0; i < n; i++)
		close(sockets[i].fd);
}

START_TEST(each_worker_has_sockets_of_its_own_on_one_port)
{
	struct listener_socket sockets[8];
	struct err err = { 0 };
	bool seen[4] = { 0 };
	size_t n;

	ck_assert_msg(listener_bind("*:0", 4, sockets, &n, &err) == 0, "%s", err.msg);
	ck_assert_msg(n == 8 || n == 4, "%zu", n); /* 4: this host has no IPv6 */
	for (size_t i = 0; i < n; i++) {
		int v6only = 1;
		socklen_t len = sizeof(v6only);

		ck_assert_uint_eq(port_of(&sockets[i]), port_of(&sockets[0]));
		ck_assert_uint_lt(sockets[i].copy, 4);
		seen[sockets[i].copy] = true;
		ck_assert_int_ne(fcntl(sockets[i].fd, F_GETFL) & O_NONBLOCK, 0);
		ck_assert_int_ne(fcntl(sockets[i].fd, F_GETFD) & FD_CLOEXEC, 0);
		if (sockets[i].name[0] == '[') {
			ck_assert_int_eq(
			    getsockopt(sockets[i].fd, IPPROTO_IPV6, IPV6_V6ONLY, &v6only, &len), 0);
			ck_assert_int_eq(v6only, 1);
		}
	}
	ck_assert(seen[0] && seen[1] && seen[2] && seen[3]);
	close_all(sockets, n);
}
END_TEST

START_TEST(a_port_in_use_is_noticed_and_named)
{
	struct listener_socket first[2], second[4];
	struct err err = { 0 };
	char address[64];
	size_t n, m = 99;

	ck_assert_int_eq(listener_bind("127.0.0.1:0", 1, first, &n, &err), 0);
	(void)snprintf(address, sizeof(address), "127.0.0.1:%u", port_of(&first[0]));
	ck_assert_str_eq(first[0].name, address);
	/* The first has SO_REUSEPORT and our uid: without a probe this would work. */
	ck_assert_int_eq(listener_bind(address, 2, second, &m, &err), -1);
	ck_assert_int_eq(err.code, ERR_BUSY);
	ck_assert_ptr_eq(strstr(err.msg, address), err.msg);
	ck_assert_uint_eq(m, 0);
	close_all(first, n);
	ck_assert_msg(listener_bind(address, 2, second, &m, &err) == 0, "%s", err.msg);
	ck_assert_uint_eq(m, 2);
	close_all(second, m);
}
END_TEST

START_TEST(an_address_of_somebody_else_is_named)
{
	struct listener_socket sockets[2];
	struct err err = { 0 };
	size_t n;

	ck_assert_int_eq(listener_bind("192.0.2.1:2525", 1, sockets, &n, &err), -1);
	ck_assert_ptr_eq(strstr(err.msg, "192.0.2.1:2525: cannot listen"), err.msg);
}
END_TEST

START_TEST(a_dead_unix_socket_is_replaced_and_a_live_one_is_not)
{
	struct listener_socket first[2], second[2];
	struct err err = { 0 };
	struct stat st;
	char dir[] = "/tmp/relayd-test-XXXXXX", address[64];
	size_t n;
	int fd;

	ck_assert_ptr_nonnull(mkdtemp(dir));
	(void)snprintf(address, sizeof(address), "unix:%s/s", dir);
	ck_assert_msg(listener_bind(address, 3, first, &n, &err) == 0, "%s", err.msg);
	ck_assert_uint_eq(n, 1); /* one for all */
	ck_assert_str_eq(first[0].name, address);
	ck_assert_int_eq(stat(address + 5, &st), 0);
	ck_assert_uint_eq(st.st_mode & 0777, 0600);
	ck_assert_int_eq(listener_bind(address, 1, second, &n, &err), -1);
	ck_assert_int_eq(err.code, ERR_BUSY);
	close(first[0].fd);
	ck_assert_msg(listener_bind(address, 1, second, &n, &err) == 0, "%s", err.msg);
	close(second[0].fd);
	unlink(address + 5);
	fd = open(address + 5, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	close(fd);
	ck_assert_int_eq(listener_bind(address, 1, second, &n, &err), -1);
	ck_assert_int_eq(err.code, ERR_EXISTS);
	ck_assert_int_eq(stat(address + 5, &st), 0); /* left alone */
	unlink(address + 5);
	rmdir(dir);
}
END_TEST

/* ---- accepting ------------------------------------------------------------------------------ */

static uv_loop_t loop;

struct owner {
	struct listener *l;
	unsigned n;
	int fds[200];
	int family;
	bool pause;
};

static void
on_accept(void *arg, int fd, const struct sockaddr *peer)
{
	struct owner *o = arg;

	ck_assert_int_ne(fcntl(fd, F_GETFL) & O_NONBLOCK, 0);
	ck_assert_int_ne(fcntl(fd, F_GETFD) & FD_CLOEXEC, 0);
	o->family = peer->sa_family;
	o->fds[o->n++] = fd;
	if (o->pause)
		listener_pause(o->l);
}

static void
open_owner(struct owner *o, struct listener_socket *s)
{
	struct err err = { 0 };
	size_t n;

	ck_assert_int_eq(uv_loop_init(&loop), 0);
	ck_assert_msg(listener_bind("127.0.0.1:0", 1, s, &n, &err) == 0, "%s", err.msg);
	o->l = listener_open(&loop, s->fd, on_accept, o, &err);
	ck_assert_msg(o->l != NULL, "%s", err.msg);
}

static void
close_owner(struct owner *o, struct listener_socket *s)
{
	listener_close(o->l);
	uv_run(&loop, UV_RUN_DEFAULT);
	ck_assert_int_eq(uv_loop_close(&loop), 0);
	ck_assert_int_ge(fcntl(s->fd, F_GETFD), 0); /* still the caller's */
	close(s->fd);
	for (unsigned i = 0; i < o->n; i++)
		close(o->fds[i]);
}

static int
connect_to(const struct listener_socket *s)
{
	struct sockaddr_in addr = { .sin_family = AF_INET,
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
		.sin_port = htons(port_of(s)) };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	ck_assert_int_eq(connect(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	return fd;
}

START_TEST(the_queue_is_drained_in_one_round_up_to_a_limit)
{
	struct listener_socket s;
	struct owner o = { 0 };
	int clients[LISTENER_ACCEPT_MAX + 10], on = 0;
	socklen_t len = sizeof(on);

	open_owner(&o, &s);
	for (unsigned i = 0; i < LISTENER_ACCEPT_MAX + 10; i++)
		clients[i] = connect_to(&s);
	uv_run(&loop, UV_RUN_NOWAIT);
	ck_assert_uint_eq(o.n, LISTENER_ACCEPT_MAX);
	uv_run(&loop, UV_RUN_NOWAIT);
	ck_assert_uint_eq(o.n, LISTENER_ACCEPT_MAX + 10);
	ck_assert_int_eq(o.family, AF_INET);
	ck_assert_int_eq(getsockopt(o.fds[0], IPPROTO_TCP, TCP_NODELAY, &on, &len), 0);
	ck_assert_int_ne(on, 0);
	for (unsigned i = 0; i < LISTENER_ACCEPT_MAX + 10; i++)
		close(clients[i]);
	close_owner(&o, &s);
}
END_TEST

START_TEST(a_paused_listener_leaves_them_in_the_queue)
{
	struct listener_socket s;
	struct owner o = { .pause = true };
	int a, b;

	open_owner(&o, &s);
	a = connect_to(&s);
	b = connect_to(&s);
	uv_run(&loop, UV_RUN_NOWAIT);
	uv_run(&loop, UV_RUN_NOWAIT);
	ck_assert_uint_eq(o.n, 1); /* it was paused by the first */
	listener_resume(o.l);
	uv_run(&loop, UV_RUN_NOWAIT);
	ck_assert_uint_eq(o.n, 2);
	close(a);
	close(b);
	close_owner(&o, &s);
}
END_TEST

START_TEST(without_descriptors_it_waits_and_does_not_spin)
{
	struct rlimit old, none;
	struct listener_socket s;
	struct owner o = { 0 };
	unsigned rounds = 0;
	int64_t begin;
	int client;

	open_owner(&o, &s);
	client = connect_to(&s);
	ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &old), 0);
	none = (struct rlimit){ .rlim_cur = (rlim_t)client, .rlim_max = old.rlim_max };
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &none), 0);
	begin = clock_mono_ms();
	while (clock_mono_ms() - begin < LISTENER_RETRY_MS + 100) {
		uv_run(&loop, UV_RUN_ONCE);
		rounds++;
	}
	ck_assert_uint_eq(o.n, 0);
	ck_assert_uint_lt(rounds, 20);
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &old), 0);
	while (o.n == 0 && clock_mono_ms() - begin < 10000)
		uv_run(&loop, UV_RUN_ONCE);
	ck_assert_uint_eq(o.n, 1);
	close(client);
	close_owner(&o, &s);
}
END_TEST

UNIT_SUITE(listener)
{
	UNIT_ROWS(an_address_has_one_of_four_forms, forms);
	UNIT_TEST(each_worker_has_sockets_of_its_own_on_one_port);
	UNIT_TEST(a_port_in_use_is_noticed_and_named);
	UNIT_TEST(an_address_of_somebody_else_is_named);
	UNIT_TEST(a_dead_unix_socket_is_replaced_and_a_live_one_is_not);
	UNIT_TEST(the_queue_is_drained_in_one_round_up_to_a_limit);
	UNIT_TEST(a_paused_listener_leaves_them_in_the_queue);
	UNIT_TEST(without_descriptors_it_waits_and_does_not_spin);
}
