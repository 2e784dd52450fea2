/* tests/bench/smtp_load.c - sends messages over many sessions at once, and tells how that went.
 *
 * usage: smtp_load [-t] [-k] [-s SESSIONS] [-m MESSAGES] [-l BYTES] PORT
 *
 * -t STARTTLS with a full handshake in every session, -k many messages a session instead of one.
 * All sessions share one thread and one epoll, as in smtp-source: a thread for each would charge
 * the server for waking it with every reply.  Prints one line of JSON; the exit status is 1 when a
 * message was not accepted.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define SESSIONS_MAX 1000
#define EVENTS       64
#define LINE         72

/* What a session waits for the answer to. */
enum step { BANNER, EHLO, STARTTLS, HANDSHAKE, EHLO_AGAIN, MAIL, RCPT, DATA, BODY, QUIT, GONE };

static const struct {
	int code; /* of the only good answer */
	const char *command;
} steps[] = {
	[BANNER] = { 220, "" },
	[EHLO] = { 250, "EHLO load.example.net\r\n" },
	[STARTTLS] = { 220, "STARTTLS\r\n" },
	[EHLO_AGAIN] = { 250, "EHLO load.example.net\r\n" },
	[MAIL] = { 250, "MAIL FROM:<a@example.net>\r\n" },
	[RCPT] = { 250, "RCPT TO:<b@example.test>\r\n" },
	[DATA] = { 354, "DATA\r\n" },
	[BODY] = { 250, NULL },
	[QUIT] = { 221, "QUIT\r\n" },
};

static struct {
	bool tls, keep;
	int sessions, port, epoll;
	long messages;
	size_t bytes;
	char *body; /* headers, lines and the final dot */
	size_t body_len;
	SSL_CTX *ctx;
	long taken, accepted, open;
	double *took_ms; /* of each message: from MAIL to its 250 */
} load = { .sessions = 20, .messages = 1000, .bytes = 4096 };

struct session {
	int fd;
	SSL *ssl;
	enum step step;
	const char *out; /* what has not been sent yet */
	size_t out_len;
	uint32_t events; /* that are waited for */
	double began_ms;
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

/* ---- bytes ---------------------------------------------------------------------------------- */

static bool
wait_for(struct session *s, uint32_t events)
{
	struct epoll_event e = { .events = events, .data.ptr = s };
	int how = s->events == 0 ? EPOLL_CTL_ADD : EPOLL_CTL_MOD;

	if (s->events == events)
		return true;
	s->events = events;
	return epoll_ctl(load.epoll, how, s->fd, &e) == 0;
}

/* Whether it would only have had to wait; rc is what OpenSSL returned, if it was asked. */
static bool
must_wait(const struct session *s, ssize_t rc)
{
	int why = s->ssl != NULL ? SSL_get_error(s->ssl, (int)rc) : SSL_ERROR_NONE;

	if (s->ssl != NULL)
		return why == SSL_ERROR_WANT_READ || why == SSL_ERROR_WANT_WRITE;
	return errno == EAGAIN;
}

static bool
flush(struct session *s)
{
	while (s->out_len > 0) {
		ssize_t n = s->ssl != NULL ? SSL_write(s->ssl, s->out, (int)s->out_len)
					   : write(s->fd, s->out, s->out_len);

		if (n <= 0)
			return must_wait(s, n) && wait_for(s, EPOLLIN | EPOLLOUT);
		s->out += n;
		s->out_len -= (size_t)n;
	}
	return wait_for(s, EPOLLIN);
}

/* The code of the next reply, all its lines taken; 0: there is more to come, -1: it is no reply. */
static int
take_reply(struct session *s)
{
	char *end;

	while ((end = memchr(s->in, '\n', s->len)) != NULL) {
		size_t line = (size_t)(end + 1 - s->in);
		bool last = line > 3 && s->in[3] != '-';
		int code = atoi(s->in);

		memmove(s->in, end + 1, s->len - line);
		s->len -= line;
		if (last)
			return code > 0 ? code : -1;
	}
	return s->len < sizeof(s->in) ? 0 : -1;
}

/* ---- a session ------------------------------------------------------------------------------ */

static bool
begin(struct session *s)
{
	struct sockaddr_in to = { .sin_family = AF_INET,
		.sin_port = htons((in_port_t)load.port),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK) };

	*s = (struct session){ .fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0) };
	if (s->fd < 0)
		return false;
	load.open++;
	if (connect(s->fd, (struct sockaddr *)&to, sizeof(to)) < 0 && errno != EINPROGRESS)
		return false;
	return wait_for(s, EPOLLIN);
}

static void
end(struct session *s)
{
	SSL_free(s->ssl);
	if (s->fd >= 0) {
		(void)close(s->fd); /* all was answered, or is lost */
		load.open--;
	}
	*s = (struct session){ .fd = -1, .step = GONE };
}

static bool
say(struct session *s, enum step step)
{
	s->step = step;
	if (step == MAIL) {
		load.taken++;
		s->began_ms = now_ms();
	}
	s->out = step == BODY ? load.body : steps[step].command;
	s->out_len = step == BODY ? load.body_len : strlen(s->out);
	return flush(s);
}

static bool
handshake(struct session *s)
{
	int rc = SSL_do_handshake(s->ssl);

	if (rc != 1)
		return must_wait(s, rc) && wait_for(s, EPOLLIN);
	return say(s, EHLO_AGAIN);
}

static bool
start_tls(struct session *s)
{
	s->step = HANDSHAKE;
	s->ssl = SSL_new(load.ctx);
	if (s->ssl == NULL || SSL_set_fd(s->ssl, s->fd) != 1)
		return false;
	SSL_set_connect_state(s->ssl);
	return handshake(s);
}

/* The next message, or the end of the session when all are taken or it has had its one. */
static bool
next_message(struct session *s)
{
	return say(s, load.taken < load.messages && (load.keep || s->step != BODY) ? MAIL : QUIT);
}

static bool
answered(struct session *s, int code)
{
	if (code != steps[s->step].code)
		return false;
	switch (s->step) {
	case BANNER:
		return say(s, EHLO);
	case EHLO:
		return load.tls ? say(s, STARTTLS) : next_message(s);
	case STARTTLS:
		return start_tls(s);
	case EHLO_AGAIN:
		return next_message(s);
	case MAIL:
	case RCPT:
	case DATA:
		return say(s, s->step + 1);
	case BODY:
		load.took_ms[load.accepted++] = now_ms() - s->began_ms;
		return next_message(s);
	default:
		return false;
	}
}

/* False: the session is over. */
static bool
read_some(struct session *s)
{
	int code;

	for (;;) {
		ssize_t n = s->ssl != NULL
				? SSL_read(s->ssl, s->in + s->len, (int)(sizeof(s->in) - s->len))
				: read(s->fd, s->in + s->len, sizeof(s->in) - s->len);

		if (n <= 0)
			return must_wait(s, n);
		s->len += (size_t)n;
		while ((code = take_reply(s)) != 0) {
			if (!answered(s, code))
				return false;
			if (s->step == HANDSHAKE)
				return true; /* what comes now is not ours to read */
		}
		if (s->ssl == NULL || SSL_pending(s->ssl) == 0)
			return true;
	}
}

static void
run(struct session *s, uint32_t events)
{
	bool goes_on = s->step == HANDSHAKE ? handshake(s) : (events & EPOLLOUT) == 0 || flush(s);

	if (goes_on && s->step != HANDSHAKE && (events & ~(uint32_t)EPOLLOUT) != 0)
		goes_on = read_some(s);
	if (goes_on)
		return;
	if (s->step < MAIL)
		load.taken++; /* the message that it was opened for fails with it */
	end(s);
	if (load.taken < load.messages && !begin(s)) {
		load.taken = load.messages; /* no socket: no use going on */
		end(s);
	}
}

/* ---- all of them ---------------------------------------------------------------------------- */

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

static void
run_all(void)
{
	static struct session sessions[SESSIONS_MAX];
	struct epoll_event events[EVENTS];

	for (int i = 0; i < load.sessions; i++)
		if (!begin(&sessions[i]))
			return;
	while (load.open > 0) {
		int n = epoll_wait(load.epoll, events, EVENTS, -1);

		for (int i = 0; i < n; i++)
			run(events[i].data.ptr, events[i].events);
	}
}

int
main(int argc, char **argv)
{
	double began, took;

	if (parse(argc, argv) < 0) {
		fprintf(stderr,
		    "usage: smtp_load [-t] [-k] [-s SESSIONS] [-m MESSAGES] [-l BYTES] PORT\n");
		return 2;
	}
	(void)signal(SIGPIPE, SIG_IGN); /* cannot fail */
	if (load.sessions > load.messages)
		load.sessions = (int)load.messages;
	load.took_ms = calloc((size_t)load.messages, sizeof(*load.took_ms));
	load.ctx = SSL_CTX_new(TLS_client_method());
	load.epoll = epoll_create1(0);
	if (load.took_ms == NULL || load.ctx == NULL || load.epoll < 0 || !make_body())
		return 1;
	(void)SSL_CTX_set_mode(
	    load.ctx, SSL_MODE_ENABLE_PARTIAL_WRITE |
			  SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);             /* returns the set */
	(void)SSL_CTX_set_session_cache_mode(load.ctx, SSL_SESS_CACHE_OFF); /* the same */
	began = now_ms();
	run_all();
	took = (now_ms() - began) / 1e3;
	qsort(load.took_ms, (size_t)load.accepted, sizeof(double), by_size);
	printf(
	    "{\"accepted\":%ld,\"failed\":%ld,\"seconds\":%.3f,\"p50_ms\":%.2f,\"p99_ms\":%.2f}\n",
	    load.accepted, load.messages - load.accepted, took, load.took_ms[load.accepted / 2],
	    load.took_ms[load.accepted * 99 / 100]);
	return load.accepted == load.messages ? 0 : 1;
}
