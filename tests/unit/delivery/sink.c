/* tests/unit/delivery/sink.c - an SMTP or LMTP server in threads of its own, which says what it is
 * told to. */
#include "unit/delivery/sink.h"

#include <arpa/inet.h>
#include <check.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define RULES_MAX    32
#define MESSAGES_MAX 20000
#define CONNS_MAX    1000
#define RCPTS_MAX    1000

struct rule {
	char command[16], with[64], reply[200];
	bool drop;
	int times;
};

struct sink {
	int fd;
	unsigned port, slow_ms;
	bool lmtp, closing;
	char path[108];
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t gone;
	struct rule rules[RULES_MAX];
	size_t n_rules;
	struct sink_message messages[MESSAGES_MAX];
	size_t n_messages, n_taken, n_connections, n_rcpts, peak;
	int conns[CONNS_MAX];
	size_t n_conns;
};

struct session {
	struct sink *s;
	int fd;
	char buf[65536];
	size_t len;
	struct sink_message m;
	bool has_mail;
};

/* ---- what is said ---------------------------------------------------------------------------- */

/* Whether a rule applies; its reply in out, or *drop. */
static bool
apply_rule(struct sink *s, const char *command, const char *line, char out[200], bool *drop)
{
	bool found = false;

	pthread_mutex_lock(&s->lock);
	for (size_t i = 0; i < s->n_rules && !found; i++) {
		struct rule *r = &s->rules[i];

		if (r->times <= 0 || strcasecmp(r->command, command) != 0 ||
		    (r->with[0] != '\0' && strstr(line, r->with) == NULL))
			continue;
		r->times--;
		found = true;
		*drop = r->drop;
		strcpy(out, r->reply);
	}
	pthread_mutex_unlock(&s->lock);
	return found;
}

static bool
put(struct session *x, const char *text)
{
	return send(x->fd, text, strlen(text), MSG_NOSIGNAL) == (ssize_t)strlen(text);
}

/* Says usual, or what a rule says.  0: refused; 1: taken; -1: the connection ends. */
static int
say(struct session *x, const char *command, const char *line, const char *usual)
{
	char reply[200], out[260];
	bool drop = false;

	if (!apply_rule(x->s, command, line, reply, &drop))
		return put(x, usual) ? 1 : -1;
	if (drop)
		return -1;
	snprintf(out, sizeof(out), "%s\r\n", reply);
	if (!put(x, out) || strncmp(reply, "421", 3) == 0)
		return -1;
	return reply[0] == '2' ? 1 : 0;
}

/* ---- what is read ---------------------------------------------------------------------------- */

static bool
fill(struct session *x)
{
	ssize_t n = recv(x->fd, x->buf + x->len, sizeof(x->buf) - x->len, 0);

	if (n <= 0)
		return false;
	x->len += (size_t)n;
	return true;
}

/* A line without CRLF; false at the end. */
static bool
get_line(struct session *x, char *out, size_t cap)
{
	char *lf;
	size_t n;

	while ((lf = memchr(x->buf, '\n', x->len)) == NULL)
		if (x->len == sizeof(x->buf) || !fill(x))
			return false;
	n = (size_t)(lf - x->buf);
	snprintf(out, cap, "%.*s", (int)(n > 0 && x->buf[n - 1] == '\r' ? n - 1 : n), x->buf);
	x->len -= n + 1;
	memmove(x->buf, lf + 1, x->len);
	return true;
}

/* The message up to its dot, unstuffed. */
static bool
get_message(struct session *x)
{
	size_t cap = 0;
	bool at_line = true;

	x->m.bytes = NULL;
	x->m.len = 0;
	for (;;) {
		char *lf = memchr(x->buf, '\n', x->len), *from = x->buf;
		size_t n = lf != NULL ? (size_t)(lf + 1 - x->buf) : x->len;

		/* Enough to tell the final dot, unless it is the middle of a long line. */
		if (lf == NULL && (at_line || x->len == 0)) {
			if (x->len == sizeof(x->buf)) {
				n = x->len - 3;
			} else {
				if (!fill(x))
					return false;
				continue;
			}
		}
		if (at_line && n == 3 && memcmp(from, ".\r\n", 3) == 0) {
			x->len -= 3;
			memmove(x->buf, x->buf + 3, x->len);
			return true;
		}
		if (x->m.len + n > cap) {
			cap = 2 * (x->m.len + n);
			x->m.bytes = realloc(x->m.bytes, cap);
		}
		if (at_line && from[0] == '.') {
			memcpy(x->m.bytes + x->m.len, from + 1, n - 1);
			x->m.len += n - 1;
		} else {
			memcpy(x->m.bytes + x->m.len, from, n);
			x->m.len += n;
		}
		at_line = lf != NULL;
		x->len -= n;
		memmove(x->buf, x->buf + n, x->len);
	}
}

static void
free_message(struct sink_message *m)
{
	for (size_t i = 0; i < m->n_forward_paths; i++)
		free(m->forward_paths[i]);
	free(m->forward_paths);
	free(m->bytes);
}

static void
forget(struct session *x)
{
	free_message(&x->m);
	x->m = (struct sink_message){ 0 };
	x->has_mail = false;
}

static void
keep(struct session *x, bool answered)
{
	struct sink *s = x->s;

	pthread_mutex_lock(&s->lock);
	ck_assert_uint_lt(s->n_messages, MESSAGES_MAX);
	x->m.answered = answered;
	s->messages[s->n_messages++] = x->m;
	if (answered) {
		s->n_taken++;
		s->n_rcpts += x->m.n_forward_paths;
	}
	pthread_mutex_unlock(&s->lock);
	x->m = (struct sink_message){ 0 }; /* the sink's now */
	forget(x);
}

/* ---- the session ----------------------------------------------------------------------------- */

static int
run_message(struct session *x)
{
	size_t replies = x->s->lmtp ? x->m.n_forward_paths : 1;
	int rc = 1;

	if (!get_message(x))
		return -1;
	if (x->s->slow_ms > 0)
		usleep(x->s->slow_ms * 1000);
	for (size_t i = 0; i < replies && rc >= 0; i++) {
		int one = say(x, ".", x->m.n_forward_paths > i ? x->m.forward_paths[i] : "",
		    "250 2.0.0 taken\r\n");

		rc = one < rc ? one : rc;
	}
	keep(x, rc > 0);
	return rc;
}

static void
add_path(struct session *x, const char *line)
{
	char path[300] = "";

	(void)sscanf(line, "%*[^<]<%299[^>]", path);
	x->m.forward_paths =
	    realloc(x->m.forward_paths, (x->m.n_forward_paths + 1) * sizeof(char *));
	x->m.forward_paths[x->m.n_forward_paths++] = strdup(path);
}

static int
run_command(struct session *x, const char *line)
{
	char verb[16] = "";
	int rc;

	(void)sscanf(line, "%15s", verb);
	if (strcasecmp(verb, "EHLO") == 0 || strcasecmp(verb, "LHLO") == 0)
		return say(x, verb, line,
		    x->s->lmtp ? "250-sink\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-DSN\r\n"
				 "250-X-RELAYD\r\n250 ENHANCEDSTATUSCODES\r\n"
			       : "250-sink\r\n250-PIPELINING\r\n250-SIZE 0\r\n250-8BITMIME\r\n"
				 "250-SMTPUTF8\r\n250 ENHANCEDSTATUSCODES\r\n");
	if (strcasecmp(verb, "MAIL") == 0) {
		rc = say(x, "MAIL", line, "250 2.1.0 ok\r\n");
		if (rc > 0) {
			forget(x);
			x->has_mail = true;
			(void)sscanf(line, "%*[^<]<%299[^>]", x->m.reverse_path);
			(void)sscanf(strchr(line, '>') != NULL ? strchr(line, '>') : ">",
			    "> %599[^\n]", x->m.mail_params);
		}
		return rc;
	}
	if (strcasecmp(verb, "RCPT") == 0) {
		if (!x->has_mail)
			return put(x, "503 5.5.1 MAIL first\r\n") ? 0 : -1;
		rc = say(x, "RCPT", line, "250 2.1.5 ok\r\n");
		if (rc > 0)
			add_path(x, line);
		return rc;
	}
	if (strcasecmp(verb, "DATA") == 0) {
		if (x->m.n_forward_paths == 0)
			return put(x, "554 5.5.1 no recipients\r\n") ? 0 : -1;
		rc = say(x, "DATA", line, "354 go on\r\n");
		return rc > 0 ? run_message(x) : rc;
	}
	if (strcasecmp(verb, "QUIT") == 0) {
		(void)put(x, "221 2.0.0 bye\r\n");
		return -1;
	}
	if (strcasecmp(verb, "RSET") == 0)
		forget(x);
	if (strcasecmp(verb, "STARTTLS") == 0) { /* and is not up to it */
		(void)put(x, "220 2.0.0 go on\r\n");
		return -1;
	}
	return say(x, verb, line, "250 2.0.0 ok\r\n");
}

static void *
serve(void *arg)
{
	struct session *x = arg;
	struct sink *s = x->s;
	char line[4096];
	int rc = say(x, "CONNECT", "", "220 sink ESMTP\r\n");

	while (rc >= 0 && get_line(x, line, sizeof(line)))
		rc = run_command(x, line);
	forget(x);
	pthread_mutex_lock(&s->lock);
	for (size_t i = 0; i < s->n_conns; i++)
		if (s->conns[i] == x->fd)
			s->conns[i] = s->conns[--s->n_conns];
	close(x->fd);
	pthread_cond_broadcast(&s->gone);
	pthread_mutex_unlock(&s->lock);
	free(x);
	return NULL;
}

static void *
accept_all(void *arg)
{
	struct sink *s = arg;

	for (;;) {
		int fd = accept(s->fd, NULL, NULL);
		struct session *x;
		pthread_t thread;

		pthread_mutex_lock(&s->lock);
		if (fd < 0 || s->closing || s->n_conns == CONNS_MAX) {
			bool over = s->closing || fd < 0;

			pthread_mutex_unlock(&s->lock);
			if (fd >= 0)
				close(fd);
			if (over)
				return NULL;
			continue;
		}
		s->conns[s->n_conns++] = fd;
		s->n_connections++;
		if (s->n_conns > s->peak)
			s->peak = s->n_conns;
		pthread_mutex_unlock(&s->lock);
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){ 1 }, sizeof(int));
		x = calloc(1, sizeof(*x));
		x->s = s;
		x->fd = fd;
		ck_assert_int_eq(pthread_create(&thread, NULL, serve, x), 0);
		pthread_detach(thread);
	}
}

/* ---- from outside ---------------------------------------------------------------------------- */

static struct sink *
begin(int fd)
{
	struct sink *s = calloc(1, sizeof(*s));

	ck_assert_ptr_nonnull(s);
	s->fd = fd;
	pthread_mutex_init(&s->lock, NULL);
	pthread_cond_init(&s->gone, NULL);
	ck_assert_int_eq(listen(fd, 1024), 0);
	return s;
}

struct sink *
sink_open_port(unsigned port)
{
	struct sockaddr_in sin = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };
	socklen_t len = sizeof(sin);
	int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1;
	struct sink *s;

	sin.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	ck_assert_int_eq(bind(fd, (struct sockaddr *)&sin, sizeof(sin)), 0);
	ck_assert_int_eq(getsockname(fd, (struct sockaddr *)&sin, &len), 0);
	s = begin(fd);
	s->port = ntohs(sin.sin_port);
	ck_assert_int_eq(pthread_create(&s->thread, NULL, accept_all, s), 0);
	return s;
}

struct sink *
sink_open(const char *path)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	struct sink *s;
	int fd;

	if (path == NULL)
		return sink_open_port(0);
	fd = socket(AF_UNIX, SOCK_STREAM, 0);
	snprintf(sun.sun_path, sizeof(sun.sun_path), "%s", path);
	unlink(path);
	ck_assert_int_eq(bind(fd, (struct sockaddr *)&sun, sizeof(sun)), 0);
	s = begin(fd);
	s->lmtp = true;
	snprintf(s->path, sizeof(s->path), "%s", path);
	ck_assert_int_eq(pthread_create(&s->thread, NULL, accept_all, s), 0);
	return s;
}

void
sink_close(struct sink *s)
{
	if (s == NULL)
		return;
	pthread_mutex_lock(&s->lock);
	s->closing = true;
	shutdown(s->fd, SHUT_RDWR);
	for (size_t i = 0; i < s->n_conns; i++)
		shutdown(s->conns[i], SHUT_RDWR);
	while (s->n_conns > 0)
		pthread_cond_wait(&s->gone, &s->lock);
	pthread_mutex_unlock(&s->lock);
	pthread_join(s->thread, NULL);
	close(s->fd);
	if (s->path[0] != '\0')
		unlink(s->path);
	for (size_t i = 0; i < s->n_messages; i++)
		free_message(&s->messages[i]);
	free(s);
}

unsigned
sink_port(const struct sink *s)
{
	return s->port;
}

void
sink_say(struct sink *s, const char *command, const char *with, const char *reply, int times)
{
	struct rule *r;

	pthread_mutex_lock(&s->lock);
	ck_assert_uint_lt(s->n_rules, RULES_MAX);
	r = &s->rules[s->n_rules++];
	*r = (struct rule){ .drop = reply == NULL, .times = times };
	snprintf(r->command, sizeof(r->command), "%s", command);
	snprintf(r->with, sizeof(r->with), "%s", with != NULL ? with : "");
	snprintf(r->reply, sizeof(r->reply), "%s", reply != NULL ? reply : "");
	pthread_mutex_unlock(&s->lock);
}

void
sink_slow(struct sink *s, unsigned ms)
{
	s->slow_ms = ms;
}

static size_t
read_locked(struct sink *s, const size_t *value)
{
	size_t n;

	pthread_mutex_lock(&s->lock);
	n = *value;
	pthread_mutex_unlock(&s->lock);
	return n;
}

size_t
sink_count(struct sink *s)
{
	return read_locked(s, &s->n_taken);
}

size_t
sink_whole(struct sink *s)
{
	return read_locked(s, &s->n_messages);
}

size_t
sink_connections(struct sink *s)
{
	return read_locked(s, &s->n_connections);
}

size_t
sink_peak(struct sink *s)
{
	return read_locked(s, &s->peak);
}

size_t
sink_recipients(struct sink *s)
{
	return read_locked(s, &s->n_rcpts);
}

const struct sink_message *
sink_message(struct sink *s, size_t n)
{
	return n < sink_whole(s) ? &s->messages[n] : NULL;
}
