/* tests/unit/net/steer_test.c - which sockets of one port the kernel gives connections to. */
#include "relayd/net/steer.h"

#include "relayd/net/listener.h"
#include "unit/unit.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define COPIES      4
#define CONNECTIONS 64

static struct listener_socket sockets[COPIES];

static void
bind_all(void)
{
	struct err err = { 0 };
	size_t n = 0;

	ck_assert_msg(listener_bind("127.0.0.1:0", COPIES, sockets, &n, &err) == 0, "%s", err.msg);
	ck_assert_uint_eq(n, COPIES);
}

static void
close_all(void)
{
	for (size_t i = 0; i < COPIES; i++)
		if (sockets[i].fd >= 0)
			(void)close(sockets[i].fd);
}

/* Connects so often; taken[i]: how many of them socket i has. */
static void
connect_many(unsigned taken[static COPIES])
{
	struct sockaddr_in addr = { 0 };
	socklen_t len = sizeof(addr);
	int fd;

	ck_assert_int_eq(getsockname(sockets[0].fd, (struct sockaddr *)&addr, &len), 0);
	for (int i = 0; i < CONNECTIONS; i++) {
		fd = socket(AF_INET, SOCK_STREAM, 0);
		ck_assert_int_eq(connect(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
		(void)close(fd);
	}
	for (size_t i = 0; i < COPIES; i++) {
		taken[i] = 0;
		while (sockets[i].fd >= 0 && (fd = accept(sockets[i].fd, NULL, NULL)) >= 0) {
			(void)close(fd);
			taken[i]++;
		}
	}
}

START_TEST(the_first_get_them_and_alike)
{
	unsigned taken[COPIES];

	bind_all();
	for (unsigned n = 1; n <= COPIES; n++) {
		unsigned all = 0;

		/* By whichever socket of the port. */
		ck_assert(steer_to_first(sockets[n - 1].fd, n));
		connect_many(taken);
		for (unsigned i = 0; i < COPIES; i++) {
			ck_assert_uint_eq(taken[i] > 0, i < n); /* else 1 in 10^7 */
			all += taken[i];
		}
		ck_assert_uint_eq(all, CONNECTIONS);
	}
	ck_assert(steer_to_first(sockets[0].fd, 1)); /* and back */
	connect_many(taken);
	ck_assert_uint_eq(taken[0], CONNECTIONS);
	close_all();
}
END_TEST

START_TEST(a_socket_that_is_gone_loses_no_connection)
{
	unsigned taken[COPIES], all = 0;

	bind_all();
	ck_assert(steer_to_first(sockets[0].fd, COPIES));
	(void)close(sockets[1].fd);
	(void)close(sockets[2].fd);
	sockets[1].fd = sockets[2].fd = -1;
	connect_many(taken);
	for (size_t i = 0; i < COPIES; i++)
		all += taken[i];
	ck_assert_uint_eq(all, CONNECTIONS);
	close_all();
}
END_TEST

START_TEST(a_unix_socket_has_nothing_to_steer)
{
	struct err err = { 0 };
	char address[64];
	size_t n = 0;

	(void)snprintf(address, sizeof(address), "unix:/tmp/relayd-steer.%d", (int)getpid());
	ck_assert_msg(listener_bind(address, 1, sockets, &n, &err) == 0, "%s", err.msg);
	ck_assert(!steer_to_first(sockets[0].fd, 1));
	(void)close(sockets[0].fd);
	(void)unlink(address + 5);
}
END_TEST

UNIT_SUITE(net_steer)
{
	UNIT_TEST(the_first_get_them_and_alike);
	UNIT_TEST(a_socket_that_is_gone_loses_no_connection);
	UNIT_TEST(a_unix_socket_has_nothing_to_steer);
}
