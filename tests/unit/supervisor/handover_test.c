/* tests/unit/supervisor/handover_test.c - what a role is handed, the lock, and what a child finds
 * in a config. */
#include "unit/unit.h"

#include "relayd/core/buf.h"
#include "relayd/supervisor/check.h"
#include "relayd/supervisor/handover.h"
#include "relayd/supervisor/lock.h"
#include "relayd/supervisor/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

START_TEST(a_manifest_reads_back_as_it_was_written)
{
	struct handover ho = { .config_path = "/etc/\"odd\"/relayd.conf",
		.page = 3,
		.review_uid = 4711,
		.n_listeners = 2,
		.listeners = { { ROLE_LISTENER_SMTP, 9, true, "mx", "127.0.0.1:25" },
		    { ROLE_LISTENER_RELEASE, 10, false, "", "unix:/run/x.sock" } } };
	struct handover got;
	struct buf text = buf_heap(1 << 16);
	struct err err;

	ck_assert_int_eq(handover_encode(&ho, &text, &err), 0);
	ck_assert_int_eq(handover_decode(buf_slice(&text), &got, &err), 0);
	ck_assert_str_eq(got.config_path, ho.config_path);
	ck_assert_uint_eq(got.page, 3);
	ck_assert_uint_eq(got.review_uid, 4711);
	ck_assert_uint_eq(got.n_listeners, 2);
	ck_assert_int_eq(got.listeners[1].kind, ROLE_LISTENER_RELEASE);
	ck_assert_str_eq(got.listeners[0].address, "127.0.0.1:25");
	ck_assert(got.listeners[0].first && !got.listeners[1].first);
	handover_fini(&got);
	ck_assert_int_lt(handover_decode(SLICE("{\"config\":1}"), &got, &err), 0);
	buf_fini(&text);
}
END_TEST

START_TEST(a_packet_carries_a_descriptor_and_ends_with_its_sender)
{
	int socks[2], fd, got;
	char text[HANDOVER_PACKET_BYTES];
	struct err err;

	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, socks), 0);
	fd = handover_memfd("test", SLICE("content"), &err);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(handover_send(socks[0], "reload", fd, &err), 0);
	ck_assert_int_eq(handover_receive(socks[1], text, &got), 6);
	ck_assert_str_eq(text, "reload");
	ck_assert(slice_eq(handover_map(got, &err), SLICE("content")));
	ck_assert_int_lt(write(got, "x", 1), 0);	/* sealed */
	ck_assert_int_lt(handover_receive(socks[1], text, &got), 0);
	(void)close(socks[0]);
	ck_assert_int_eq(handover_receive(socks[1], text, &got), 0);
}
END_TEST

static char dir[] = "/tmp/relayd-unit-XXXXXX";

START_TEST(one_run_directory_has_one_owner)
{
	struct config cfg = { .run = mkdtemp(dir) };
	bool unclean = true;
	struct err err = { 0 };
	int fd = lock_take(&cfg, &unclean, &err);
	char path[64];

	ck_assert_msg(fd >= 0, "%s", err.msg);
	ck_assert(!unclean);
	ck_assert_int_lt(lock_take(&cfg, &unclean, &err), 0);
	ck_assert_int_eq(err.code, ERR_BUSY);
	ck_assert_ptr_nonnull(strstr(err.msg, "runs already"));
	(void)close(fd);	/* as a kill -9 does */
	fd = lock_take(&cfg, &unclean, &err);
	ck_assert(fd >= 0 && unclean);
	lock_release(fd);
	fd = lock_take(&cfg, &unclean, &err);
	ck_assert(fd >= 0 && !unclean);
	lock_release(fd);
	(void)snprintf(path, sizeof(path), "%s/relayd.lock", dir);
	(void)unlink(path);
	(void)rmdir(dir);
}
END_TEST

static int
refuse(const struct config *cfg, void (*warn)(const char *text), struct err *err)
{
	(void)cfg;
	warn("odd");
	return err_set(err, ERR_CONFIG, "/c:7: wrong");
}

static int
crash(const struct config *cfg, void (*warn)(const char *text), struct err *err)
{
	(void)cfg;
	(void)warn;
	(void)err;
	_Exit(7);
}

START_TEST(what_the_checking_child_finds_comes_back)
{
	struct config cfg = { .path = "/c" };
	struct owner self = { .uid = getuid(), .gid = getgid() };
	struct err err = { 0 };
	struct check c;

	ck_assert_int_eq(check_start(&c, &cfg, &self, false, refuse, &err), 0);
	ck_assert_int_lt(check_finish(&c, &err), 0);
	ck_assert_str_eq(err.msg, "/c:7: wrong");
	ck_assert_int_eq(check_start(&c, &cfg, &self, false, crash, &err), 0);
	ck_assert_int_lt(check_finish(&c, &err), 0);
	ck_assert_ptr_nonnull(strstr(err.msg, "module"));
}
END_TEST

/* In a child, for it cannot be undone. */
static int
try_in_sandbox(void)
{
	static const struct sandbox_path grants[] = { { "/usr", false }, { "/nowhere", true } };
	struct err err = { 0 };

	if (sandbox_basics(&err) < 0)
		return 1;
	if (sandbox_files(grants, ARRAY_LEN(grants), &err) < 0)
		return err.code == ERR_NOT_FOUND ? 0 : 2;	/* a kernel without Landlock */
	if (open("/usr", O_RDONLY) < 0)
		return 3;
	if (open("/etc/passwd", O_RDONLY) >= 0 || errno != EACCES)
		return 4;
	return open("/usr/relayd-was-here", O_WRONLY | O_CREAT, 0600) >= 0 ? 5 : 0;
}

START_TEST(only_what_was_granted_can_be_opened)
{
	int status = 0;
	pid_t pid = fork();

	if (pid == 0)
		_exit(try_in_sandbox());
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_int_eq(status, 0);
}
END_TEST

UNIT_SUITE(handover)
{
	UNIT_TEST(a_manifest_reads_back_as_it_was_written);
	UNIT_TEST(a_packet_carries_a_descriptor_and_ends_with_its_sender);
	UNIT_TEST(one_run_directory_has_one_owner);
	UNIT_TEST(what_the_checking_child_finds_comes_back);
	UNIT_TEST(only_what_was_granted_can_be_opened);
}
