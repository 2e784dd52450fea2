/* tests/unit/net/stream_tls_test.c - streams under TLS, and STARTTLS in the middle of one. */
#include "unit/certs.h"
#include "unit/net/ends.h"
#include "unit/unit.h"

#include "relayd/net/tls.h"

#include <malloc.h>
#include <stdlib.h>
#include <unistd.h>

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SANITIZED 1
#endif
#endif

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

	ends_pair(SOCK_STREAM, t->fds);
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

	ends_begin();
	t.server.server = server_new(types[_i], "mx.example.test");
	client = client_new();
	tls_connect_ends(&t, client, TLS_VERIFY_HOST, "mx.example.test");
	stream_write(t.client.s, SLICE("hello, written before the handshake"));
	end_until_got(&t.client, 35);
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
	ends_finish();
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

	ends_begin();
	t.server.server = server_new("EC", row->certified);
	test_file(row->trusted ? cert.certificate : other.certificate, path);
	client = tls_client_new(path, NULL);
	unlink(path);
	tls_connect_ends(&t, client, row->verify, row->host);
	if (row->good) {
		ends_until(&t.client.tls, 1);
		stream_close(t.client.s);
	} else {
		ends_until(&t.client.closes, 1);
		ck_assert_uint_eq(t.client.tls, 0);
		ck_assert_int_eq(t.client.why, ERR_TLS);
		ck_assert_msg(
		    strstr(t.client.msg, "TLS handshake: ") == t.client.msg, "%s", t.client.msg);
	}
	ends_finish();
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

	ends_begin();
	t.server.server = server_new("EC", "mx.example.test");
	client = client_new();
	tls_connect_ends(&t, client, TLS_VERIFY_HOST, "mx.example.test");
	stream_write(t.client.s, SLICE("0123456789abcde"));
	end_until_got(&t.server, 15);
	end_is(&t.server, "0123456789abcde");
	ck_assert_uint_eq(t.server.in_room, 15);
	stream_pause(t.server.s);
	stream_write(t.client.s, SLICE("later"));
	ends_rounds(5);
	end_is(&t.server, "0123456789abcde");
	ck_assert_uint_eq(stream_kept(t.server.s), 5);
	stream_resume(t.server.s);
	end_until_got(&t.server, 20);
	stream_close(t.client.s);
	ends_finish();
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

	ends_begin();
	server.server = server_new("EC", "mx.example.test");
	trust = client_new();
	ends_pair(SOCK_STREAM, fds);
	end_open(&server, fds[0]);
	server.take_max = 10; /* the rest would be kept */
	ends_say(fds[1], "STARTTLS\r\nMAIL FROM:<injected@example.test>\r\n");
	ends_rounds(3);
	ck_assert_uint_eq(stream_kept(server.s), 0);
	ck_assert_int_eq(recv(fds[1], reply, sizeof(reply), 0), 8); /* in plain text */
	ck_assert_mem_eq(reply, "220 go\r\n", 8);
	server.take_max = 0;
	end_open(&client, fds[1]);
	ck_assert_int_eq(
	    stream_tls_connect(client.s, trust, TLS_VERIFY_HOST, "mx.example.test", NULL), 0);
	stream_write(client.s, SLICE("EHLO again\r\n"));
	end_until_got(&server, 12);
	end_is(&server, "EHLO again\r\n");
	stream_close(client.s);
	ends_finish();
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

	ends_begin();
	server.server = server_new("EC", "mx.example.test");
	ends_pair(SOCK_STREAM, fds);
	end_open(&server, fds[0]);
	ck_assert_int_eq(stream_tls_accept(server.s, server.server, NULL), 0);
	ck_assert_int_eq(stream_tls_accept(server.s, server.server, NULL), -1);
	ends_say(fds[1], "EHLO I speak no TLS at all, sorry for that\r\n");
	ends_until(&server.closes, 1);
	ck_assert_int_eq(server.why, ERR_TLS);
	(void)recv(fds[1], alert, sizeof(alert), 0); /* there may be one */
	ends_finish();
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

	ends_begin();
	t.server.server = server_new("EC", "mx.example.test");
	client = client_new();
	tls_connect_ends(&t, client, TLS_VERIFY_HOST, "mx.example.test");
	for (size_t i = 0; i < size; i++)
		body[i] = (char)(i * 31 + i / 1000);
	stream_write_ref(t.client.s, slice_of(body, size));
	stream_write(t.client.s, SLICE("end"));
	end_until_got(&t.server, size + 3);
	ck_assert_mem_eq(t.server.got.p, body, size);
	ck_assert_uint_eq(t.client.drains, 1);
	stream_write_ref(t.server.s, slice_of(body, size));
	stream_end(t.server.s); /* all of it still goes out */
	end_until_got(&t.client, size);
	ck_assert_mem_eq(t.client.got.p, body, size);
	ends_finish();
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

	ends_begin();
	server = server_new("EC", "mx.example.test");
	client = client_new();
	memset(t, 0, sizeof(t));
	before = heap_bytes();
	for (int i = 0; i < SESSIONS; i++) {
		ends_pair(SOCK_STREAM, fds);
		t[i].server.server = server;
		t[i].server.keep_after_eof = true;
		end_open(&t[i].server, fds[0]);
		end_open(&t[i].client, fds[1]);
		stream_write(t[i].server.s, SLICE("220 mx.example.test ESMTP\r\n"));
	}
	ends_rounds(5);
	plain = (heap_bytes() - before) / (2 * SESSIONS);
	for (int i = 0; i < SESSIONS; i++) {
		ck_assert_int_eq(stream_tls_accept(t[i].server.s, server, NULL), 0);
		ck_assert_int_eq(
		    stream_tls_connect(t[i].client.s, client, TLS_VERIFY_NONE, NULL, NULL), 0);
	}
	for (int i = 0; i < SESSIONS; i++) {
		ends_until(&t[i].client.tls, 1);
		ends_until(&t[i].server.tls, 1);
	}
	ends_rounds(10);                   /* tickets are read */
	for (int i = 0; i < SESSIONS; i++) /* a client's certificates and tickets are not ours */
		stream_close(t[i].client.s);
	ends_rounds(5);
	tls = (heap_bytes() - before) / SESSIONS;
	ck_assert_msg(plain < 1024, "%zu bytes for an idle plain end", plain);
	ck_assert_msg(tls < 24 * 1024, "%zu bytes for an idle TLS end", tls);
	for (int i = 0; i < SESSIONS; i++) {
		ck_assert_uint_eq(t[i].server.closes, 0);
		stream_close(t[i].server.s);
	}
	ends_finish();
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

UNIT_SUITE(stream_tls)
{
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
