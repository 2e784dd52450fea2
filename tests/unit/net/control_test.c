/* tests/unit/net/control_test.c - the role's side on this thread, relayctl's side on another,
 * as it blocks. */
#include "relayd/net/control.h"

#include "unit/unit.h"

#include "relayd/net/listener.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define MANY 20000

static uv_loop_t loop;
static uv_async_t client_ended;
static char path[64];

struct role {
	struct control *ctl;
	struct listener_socket socket;
	unsigned requests, gone, fulls;
	int to_say;                   /* lines of "many" that are left */
	struct control_request *held; /* of "hold" */
	uv_timer_t timer;
};

static void
on_timer_closed(uv_handle_t *handle)
{
	(void)handle;
}

static void
end_held(uv_timer_t *timer)
{
	struct role *r = timer->data;

	control_end(r->held, NULL);
	uv_close((uv_handle_t *)timer, on_timer_closed);
}

static void
say_many(struct control_request *req)
{
	struct role *r = req->state;

	if (control_gone(req)) {
		r->gone++;
		control_end(req, NULL);
		return;
	}
	while (r->to_say > 0) {
		if (control_full(req)) {
			r->fulls++;
			return;
		}
		control_line(req,
		    json_pack("{s:i,s:s}", "n", r->to_say--, "pad",
			"0123456789012345678901234567890123456789012345678901234567890123456789"));
	}
	control_end(req, NULL);
}

static void
handle(void *owner, struct control_request *req)
{
	struct role *r = owner;
	struct slice cmd = control_string(req, "cmd");
	struct err err = { 0 };

	r->requests++;
	req->state = r;
	ck_assert_uint_eq(req->uid, geteuid());
	if (slice_eq(cmd, SLICE("hello"))) {
		control_line(req, json_pack("{s:s}", "hello", "there"));
		control_text(req, "text", SLICE("caf\xc3\xa9 \xff\xed\xa0\x80."));
		control_end(req, NULL);
	} else if (slice_eq(cmd, SLICE("many"))) {
		r->to_say = MANY;
		req->on_more = say_many;
		say_many(req);
	} else if (slice_eq(cmd, SLICE("hold"))) {
		r->held = req;
		uv_timer_init(&loop, &r->timer);
		r->timer.data = r;
		uv_timer_start(&r->timer, end_held, 30, 0);
	} else {
		err_set(&err, ERR_NOT_FOUND, "no command \"%.*s\"", SLICE_FMT(cmd));
		control_end(req, &err);
	}
}

static void
on_client_ended(uv_async_t *async)
{
	struct role *r = async->data;

	control_close(r->ctl);
	uv_close((uv_handle_t *)async, NULL);
}

static void *
run_client(void *body)
{
	((void (*)(void))(uintptr_t)body)();
	uv_async_send(&client_ended);
	return NULL;
}

/* Runs the role until the client's function has returned and all is closed. */
static void
with_role(struct role *r, uid_t other, void (*client)(void))
{
	struct err err = { 0 };
	char address[80];
	pthread_t thread;
	size_t n;

	(void)signal(SIGPIPE, SIG_IGN);
	(void)snprintf(path, sizeof(path), "/tmp/relayd-test-%d.sock", (int)getpid());
	(void)snprintf(address, sizeof(address), "unix:%s", path);
	ck_assert_int_eq(uv_loop_init(&loop), 0);
	ck_assert_msg(listener_bind(address, 1, &r->socket, &n, &err) == 0, "%s", err.msg);
	r->ctl = control_open(&loop, r->socket.fd, other, handle, r, &err);
	ck_assert_msg(r->ctl != NULL, "%s", err.msg);
	uv_async_init(&loop, &client_ended, on_client_ended);
	client_ended.data = r;
	ck_assert_int_eq(pthread_create(&thread, NULL, run_client, (void *)(uintptr_t)client), 0);
	uv_run(&loop, UV_RUN_DEFAULT);
	pthread_join(thread, NULL);
	ck_assert_int_eq(uv_loop_close(&loop), 0);
	close(r->socket.fd);
	unlink(path);
}

static struct control_client *
connect_client(void)
{
	struct err err = { 0 };
	struct control_client *c = control_connect(path, 10000, &err);

	ck_assert_msg(c != NULL, "%s", err.msg);
	return c;
}

static void
client_asks(void)
{
	struct control_client *c = connect_client();
	struct err err = { 0 };
	json_t *line;

	ck_assert_int_eq(control_send(c, json_pack("{s:s}", "cmd", "hello"), &err), 0);
	ck_assert_int_eq(control_next(c, &line, &err), 1);
	ck_assert_str_eq(json_string_value(json_object_get(line, "hello")), "there");
	json_decref(line);
	ck_assert_int_eq(control_next(c, &line, &err), 1);
	ck_assert_str_eq(json_string_value(json_object_get(line, "text")),
	    "caf\xc3\xa9 \xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd.");
	json_decref(line);
	ck_assert_int_eq(control_next(c, &line, &err), 0);
	ck_assert_int_eq(control_send(c, json_pack("{s:s}", "cmd", "fly"), &err), 0);
	ck_assert_int_eq(control_next(c, &line, &err), -1);
	ck_assert_int_eq(err.code, ERR_DENIED);
	ck_assert_str_eq(err.msg, "no command \"fly\"");
	ck_assert_int_eq(control_send(c, json_pack("{s:s}", "cmd", "hold"), &err), 0);
	ck_assert_int_eq(control_next(c, &line, &err), 0);
	control_disconnect(c);
}

START_TEST(a_request_has_lines_and_an_end)
{
	struct role r = { 0 };

	with_role(&r, (uid_t)-1, client_asks);
	ck_assert_uint_eq(r.requests, 3);
}
END_TEST

static void
client_reads_slowly(void)
{
	struct control_client *c = connect_client();
	struct err err = { 0 };
	json_t *line;
	int n = 0, rc;

	ck_assert_int_eq(control_send(c, json_pack("{s:s}", "cmd", "many"), &err), 0);
	usleep(50000); /* the role has to wait for us */
	while ((rc = control_next(c, &line, &err)) == 1) {
		ck_assert_int_eq(json_integer_value(json_object_get(line, "n")), MANY - n);
		json_decref(line);
		n++;
	}
	ck_assert_int_eq(rc, 0);
	ck_assert_int_eq(n, MANY);
	control_disconnect(c);
}

START_TEST(a_long_answer_waits_for_its_reader)
{
	struct role r = { 0 };

	with_role(&r, (uid_t)-1, client_reads_slowly);
	ck_assert_uint_gt(r.fulls, 0);
	ck_assert_uint_eq(r.gone, 0);
}
END_TEST

static void
client_leaves(void)
{
	struct control_client *c = connect_client();
	struct err err = { 0 };
	json_t *line;

	ck_assert_int_eq(control_send(c, json_pack("{s:s}", "cmd", "many"), &err), 0);
	ck_assert_int_eq(control_next(c, &line, &err), 1);
	json_decref(line);
	control_disconnect(c);
	c = connect_client();
	ck_assert_int_eq(control_send(c, json_pack("{s:s}", "cmd", "hold"), &err), 0);
	control_disconnect(c); /* the role ends it later */
	usleep(100000);
}

START_TEST(a_client_that_leaves_ends_its_requests)
{
	struct role r = { 0 };

	with_role(&r, (uid_t)-1, client_leaves);
	ck_assert_uint_eq(r.gone, 1);
	ck_assert_uint_eq(r.requests, 2);
}
END_TEST

static int
raw_client(void)
{
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	(void)snprintf(un.sun_path, sizeof(un.sun_path), "%s", path);
	ck_assert_int_eq(connect(fd, (struct sockaddr *)&un, sizeof(un)), 0);
	return fd;
}

static void
read_all(int fd, char out[static 400])
{
	size_t n = 0;
	ssize_t got;

	while (n < 399 && (got = recv(fd, out + n, 399 - n, 0)) > 0)
		n += (size_t)got;
	out[n] = '\0';
	close(fd);
}

static void
client_says_nonsense(void)
{
	static char big[CONTROL_REQUEST_MAX + 1000];
	char got[400];
	int fd = raw_client();

	ck_assert_int_eq(send(fd, "[1]\n", 4, MSG_NOSIGNAL), 4);
	read_all(fd, got);
	ck_assert_str_eq(got, "{\"error\":\"a request is one JSON object on a line\"}\n");
	fd = raw_client();
	ck_assert_int_eq(send(fd, "{\"a\":1,\"a\":2}\n", 14, MSG_NOSIGNAL), 14);
	read_all(fd, got);
	ck_assert_ptr_nonnull(strstr(got, "\"error\""));
	fd = raw_client();
	memset(big, ' ', sizeof(big));
	ck_assert_int_gt(send(fd, big, sizeof(big), MSG_NOSIGNAL), 0);
	read_all(fd, got);
	ck_assert_str_eq(got, "{\"error\":\"the request is too long\"}\n");
	fd = raw_client();
	ck_assert_int_gt(send(fd, "\n \n{\"cmd\":\"x\"}\n{\"cmd\":\"y\"}\n", 27, MSG_NOSIGNAL), 0);
	shutdown(fd, SHUT_WR);
	read_all(fd, got);
	ck_assert_str_eq(
	    got, "{\"error\":\"no command \\\"x\\\"\"}\n{\"error\":\"no command \\\"y\\\"\"}\n");
}

START_TEST(nonsense_is_answered_and_ended)
{
	struct role r = { 0 };

	with_role(&r, (uid_t)-1, client_says_nonsense);
	ck_assert_uint_eq(r.requests, 2);
}
END_TEST

/* As another user, where this test may become one; its exit status tells. */
static int
as_nobody(void)
{
	struct err err = { 0 };
	struct control_client *c;
	json_t *line;
	int rc;

	if (setuid(65534) < 0)
		return 1;
	c = control_connect(path, 10000, &err);
	if (c == NULL)
		return 2;
	(void)control_send(c, json_pack("{s:s}", "cmd", "hello"), &err);
	rc = control_next(c, &line, &err);
	if (rc == 1)
		return 3; /* let in */
	return rc < 0 && strcmp(err.msg, "permission denied") == 0 ? 0 : 4;
}

static int nobody_status;

static void
client_is_nobody(void)
{
	pid_t pid;
	int status = 0;

	ck_assert_int_eq(chmod(path, 0666), 0);
	pid = fork();
	if (pid == 0)
		_exit(as_nobody());
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	nobody_status = WEXITSTATUS(status);
}

START_TEST(other_users_are_kept_out)
{
	struct role out = { 0 };

	if (geteuid() != 0)
		return; /* only root can become somebody else */
	with_role(&out, (uid_t)-1, client_is_nobody);
	ck_assert_int_eq(nobody_status, 0);
	ck_assert_uint_eq(out.requests, 0);
}
END_TEST

START_TEST(nobody_there_is_an_error_of_its_own)
{
	struct err err = { 0 };

	ck_assert_ptr_null(control_connect("/tmp/relayd-test-no-such-role.sock", 1000, &err));
	ck_assert_int_eq(err.code, ERR_CLOSED);
}
END_TEST

UNIT_SUITE(control)
{
	UNIT_TEST(a_request_has_lines_and_an_end);
	UNIT_TEST(a_long_answer_waits_for_its_reader);
	UNIT_TEST(a_client_that_leaves_ends_its_requests);
	UNIT_TEST(nonsense_is_answered_and_ended);
	UNIT_TEST(other_users_are_kept_out);
	UNIT_TEST(nobody_there_is_an_error_of_its_own);
}
