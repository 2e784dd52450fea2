/* tests/bench/bench_fill.c - fills a spool with messages, as an intake that nobody delivers for
 * would.
 *
 *	bench_fill DIR MESSAGES BYTES DOMAINS SENDERS
 *
 * Message n comes from s<n % SENDERS>@example.net and goes to r<n>@d<n % DOMAINS>.test, or to
 * r<n>@example.test when DOMAINS is 0.  The files belong to the caller.
 */
#include "relayd/core/clock.h"
#include "relayd/spool/spool.h"

#include <stdio.h>
#include <stdlib.h>

#define GROUP 1000 /* in one sync */

struct fill {
	uv_loop_t loop;
	struct spool *spool;
	char *body;
	size_t bytes;
	uint64_t domains, senders;
	unsigned waiting;
	struct spool_commit commits[GROUP];
};

static void
die(const char *why)
{
	fprintf(stderr, "bench_fill: %s\n", why);
	exit(EXIT_FAILURE);
}

static void
on_done(struct spool_commit *req, const struct err *err)
{
	struct fill *f = req->data;

	if (err->code != ERR_NONE)
		die(err->msg);
	f->waiting--;
}

static void
put_one(struct fill *f, struct spool_commit *req, uint64_t n)
{
	char sender[64], path[64];
	struct envelope_rcpt rcpt = { .forward_path = slice_str(path), .params = SLICE("") };
	struct envelope_copy copy = { .reason = SLICE(""), .rcpts = &rcpt, .n_rcpts = 1 };
	struct envelope env = { .id = id_new(),
		.received_ms = clock_wall_ms(),
		.params = SLICE(""),
		.client_ip = SLICE("192.0.2.1"),
		.client_addr = SLICE("\300\000\002\001"),
		.helo = SLICE("mx.example.net"),
		.auth_user = SLICE(""),
		.listener = SLICE("mx"),
		.release_key = SLICE(""),
		.copies = &copy,
		.n_copies = 1 };
	struct err err = { 0 };
	struct spool_msg *msg = spool_begin(f->spool, f->bytes, &err);

	(void)snprintf(sender, sizeof(sender), "s%llu@example.net", /* they fit */
	    (unsigned long long)(n % f->senders));
	if (f->domains > 0)
		(void)snprintf(path, sizeof(path), "r%llu@d%llu.test", (unsigned long long)n,
		    (unsigned long long)(n % f->domains));
	else
		(void)snprintf(path, sizeof(path), "r%llu@example.test", (unsigned long long)n);
	rcpt.forward_path = slice_str(path);
	env.reverse_path = slice_str(sender);
	if (msg == NULL || spool_write(msg, slice_of(f->body, f->bytes), &err) < 0)
		die(err.msg);
	*req = (struct spool_commit){ .done = on_done, .data = f };
	f->waiting++;
	spool_commit(req, msg, &env);
}

/* A header and lines of 72 characters, ended by CRLF. */
static void
make_body(struct fill *f)
{
	static const char header[] = "Subject: old mail\r\n\r\n";

	f->body = malloc(f->bytes);
	if (f->body == NULL || f->bytes < sizeof(header) + 2)
		die("BYTES");
	for (size_t i = 0; i < f->bytes; i++)
		f->body[i] = i % 74 == 72 ? '\r' : i % 74 == 73 ? '\n' : 'x';
	memcpy(f->body, header, sizeof(header) - 1);
	f->body[f->bytes - 2] = '\r';
	f->body[f->bytes - 1] = '\n';
	if (f->body[f->bytes - 3] == '\r')
		f->body[f->bytes - 3] = 'x';
}

int
main(int argc, char **argv)
{
	const struct spool_settings set = { .memory = 64 << 20 };
	static struct fill f;
	struct err err = { 0 };
	uint64_t messages;

	if (argc != 6)
		die("DIR MESSAGES BYTES DOMAINS SENDERS");
	messages = strtoull(argv[2], NULL, 10);
	f.bytes = strtoul(argv[3], NULL, 10);
	f.domains = strtoull(argv[4], NULL, 10);
	f.senders = strtoull(argv[5], NULL, 10);
	if (f.senders == 0)
		die("SENDERS");
	make_body(&f);
	(void)uv_loop_init(&f.loop); /* fails without memory; then nothing works */
	f.spool = spool_open(&f.loop, argv[1], &set, &err);
	if (f.spool == NULL)
		die(err.msg);
	for (uint64_t n = 0; n < messages;) {
		for (unsigned i = 0; i < GROUP && n < messages; i++)
			put_one(&f, &f.commits[i], n++);
		while (f.waiting > 0)
			(void)uv_run(&f.loop, UV_RUN_ONCE); /* alive while anybody waits */
	}
	spool_close(f.spool);
	(void)uv_run(&f.loop, UV_RUN_DEFAULT); /* the handles close */
	(void)uv_loop_close(&f.loop);
	free(f.body);
	return EXIT_SUCCESS;
}
