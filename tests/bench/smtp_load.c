/* tests/bench/smtp_load.c - sends messages over many sessions at once, and tells how that went.
 *
 * usage: smtp_load [-t] [-k] [-s SESSIONS] [-m MESSAGES] [-l BYTES] PORT
 *
 * -t STARTTLS with a full handshake in every session, -k many messages a session instead of one.  A
 * session is a thread with a blocking socket: the generator's own CPU does not count.  Prints one line
 * of JSON; the exit status is 1 when a message was not accepted.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define SESSIONS_MAX 1000
#define LINE	     72

static struct {
	bool tls, keep;
	int sessions, port;
	long messages;
	size_t bytes;
	char *body; /* headers, lines and the final dot */
	size_t body_len;
	SSL_CTX *ctx;
	atomic_long taken, accepted, failed;
	double *took_ms; /* of each message: from MAIL to its 250 */
} load = { .sessions = 20, .messages = 1000, .bytes = 4096 };

struct session {
	int fd;
	SSL *ssl;
	char in[4096];
	size_t len;
};

static double
now_ms(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_MONOTONIC, &t); /* exists */
	return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static bool
put(struct session *s, const char *p, size_t n)
{
	while (n > 0) {
		ssize_t done = s->ssl != NULL ? SSL_write(s->ssl, p, (int)n) : write(s->fd, p, n);

		if (done <= 0)
			return false;
		p += done;
		n -= (size_t)done;
	}
	return true;
}

/* The code of the next reply, all its lines read; 0 when the connection is gone. */
static int
reply(struct session *s)
{
	for (;;) {
		char *end = memchr(s->in, '\n', s->len);
		ssize_t n;

		if (end != NULL) {
			size_t line = (size_t)(end + 1 - s->in);
			bool last = line > 3 && s->in[3] != '-';
			int code = atoi(s->in);

			memmove(s->in, end + 1, s->len - line);
			s->len -= line;
			if (last)
				return code;
			continue;
		}
		if (s->len == sizeof(s->in))
			return 0;
		n = s->ssl != NULL
			? SSL_read(s->ssl, s->in + s->len, (int)(sizeof(s->in) - s->len))
			: read(s->fd, s->in + s->len, sizeof(s->in) - s->len);
		if (n <= 0)
			return 0;
		s->len += (size_t)n;
	}
}

static bool
ask(struct session *s, const char *command, int want)
{
	return put(s, command, strlen(command)) && reply(s) == want;
}

static bool
open_session(struct session *s)
{
	struct sockaddr_in to = { .sin_family = AF_INET,
		.sin_port = htons((in_port_t)load.port),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK) };

	*s = (struct session){ .fd = socket(AF_INET, SOCK_STREAM, 0) };
	if (s->fd < 0 || connect(s->fd, (struct sockaddr *)&to, sizeof(to)) < 0 ||
	    reply(s) != 220 || !ask(s, "EHLO load.example.net\r\n", 250))
		return false;
	if (!load.tls)
		return true;
	if (!ask(s, "STARTTLS\r\n", 220))
		return false;
	s->ssl = SSL_new(load.ctx);
	return s->ssl != NULL && SSL_set_fd(s->ssl, s->fd) == 1 && SSL_connect(s->ssl) == 1 &&
	       ask(s, "EHLO load.example.net\r\n", 250);
}

static void
close_session(struct session *s, bool well)
{
	if (well)
		(void)ask(s, "QUIT\r\n", 221); /* measured servers may leave without a word */
	SSL_free(s->ssl);
	if (s->fd >= 0)
		(void)close(s->fd); /* all was answered */
}

static bool
send_one(struct session *s, long number)
{
	double began = now_ms();

	if (!ask(s, "MAIL FROM:<a@example.net>\r\n", 250) ||
	    !ask(s, "RCPT TO:<b@example.test>\r\n", 250) || !ask(s, "DATA\r\n", 354) ||
	    !put(s, load.body, load.body_len) || reply(s) != 250)
		return false;
	load.took_ms[number] = now_ms() - began;
	return true;
}

static void *
run(void *arg)
{
	struct session s = { .fd = -1 };
	bool open = false, ok;
	long number;

	while ((number = atomic_fetch_add(&load.taken, 1)) < load.messages) {
		if (!open)
			open = open_session(&s);
		ok = open && send_one(&s, number);
		atomic_fetch_add(ok ? &load.accepted : &load.failed, 1);
		if (!ok || !load.keep) {
			close_session(&s, ok);
			open = false;
		}
	}
	if (open)
		close_session(&s, true);
	return arg;
}

static bool
make_body(void)
{
	static const char head[] = "From: <a@example.net>\r\nTo: <b@example.test>\r\n"
				   "Subject: load\r\n\r\n";
	size_t at = sizeof(head) - 1;

	load.body = malloc(load.bytes + sizeof(head) + LINE + 8);
	if (load.body == NULL)
		return false;
	memcpy(load.body, head, at);
	while (at < load.bytes) {
		memset(load.body + at, 'x', LINE);
		memcpy(load.body + at + LINE, "\r\n", 2);
		at += LINE + 2;
	}
	memcpy(load.body + at, ".\r\n", 3);
	load.body_len = at + 3;
	return true;
}

static int
by_size(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static int
parse(int argc, char **argv)
{
	int opt;

	while ((opt = getopt(argc, argv, "tks:m:l:")) != -1) {
		if (opt == 't')
			load.tls = true;
		else if (opt == 'k')
			load.keep = true;
		else if (opt == 's')
			load.sessions = atoi(optarg);
		else if (opt == 'm')
			load.messages = atol(optarg);
		else if (opt == 'l')
			load.bytes = (size_t)atol(optarg);
		else
			return -1;
	}
	load.port = optind + 1 == argc ? atoi(argv[optind]) : 0;
	return load.port > 0 && load.messages > 0 && load.sessions > 0 &&
		       load.sessions <= SESSIONS_MAX
		   ? 0
		   : -1;
}

int
main(int argc, char **argv)
{
	static pthread_t threads[SESSIONS_MAX];
	double began, took;

	if (parse(argc, argv) < 0) {
		fprintf(stderr, "usage: smtp_load [-t] [-k] [-s SESSIONS] [-m MESSAGES] [-l BYTES] PORT\n");
		return 2;
	}
	(void)signal(SIGPIPE, SIG_IGN); /* cannot fail */
	load.took_ms = calloc((size_t)load.messages, sizeof(*load.took_ms));
	load.ctx = SSL_CTX_new(TLS_client_method());
	if (load.took_ms == NULL || load.ctx == NULL || !make_body())
		return 1;
	SSL_CTX_set_session_cache_mode(load.ctx, SSL_SESS_CACHE_OFF);
	began = now_ms();
	for (int i = 0; i < load.sessions; i++)
		if (pthread_create(&threads[i], NULL, run, NULL) != 0)
			return 1;
	for (int i = 0; i < load.sessions; i++)
		(void)pthread_join(threads[i], NULL); /* was created */
	took = (now_ms() - began) / 1e3;
	qsort(load.took_ms, (size_t)load.messages, sizeof(double), by_size);
	printf("{\"accepted\":%ld,\"failed\":%ld,\"seconds\":%.3f,\"p50_ms\":%.2f,\"p99_ms\":%.2f}\n",
	    atomic_load(&load.accepted), atomic_load(&load.failed), took,
	    load.took_ms[load.messages / 2], load.took_ms[load.messages * 99 / 100]);
	return atomic_load(&load.failed) == 0 ? 0 : 1;
}
