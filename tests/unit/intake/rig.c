/* tests/unit/intake/rig.c - the intake role in this process, on loopback, with a client in a
 * thread. */
#include "unit/intake/rig.h"

#include "relayd/core/buf.h"
#include "relayd/core/log.h"
#include "relayd/net/listener.h"
#include "relayd/spool/journal.h"
#include "relayd/spool/reader.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <ftw.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define CONFIG_BYTES 8000

struct rig {
	const struct rig_setup *setup;
	uv_loop_t loop;
	struct role role;
	struct config *config;
	struct role_listener listeners[4];
	struct listener_socket sockets[8];
	struct counters_page pages[COUNTERS_PAGES];
	pthread_t thread;
	uv_async_t asked;
	pthread_mutex_t mutex;
	pthread_cond_t done;
	const char *reload;    /* what the client wants, under mutex */
	struct config *before; /* while it is on its way */
	bool drain, client_done, finished;
	int stderr_fd; /* as it was */
};

static char dir[] = "/tmp/relayd-intake-XXXXXX";
static bool have_dir;
struct rig_message rig_kept[100];
size_t rig_n_kept;
char rig_log[100000];

static const struct filter *const no_filters[] = { NULL };

/* In place of those of relayd/supervisor/role.c. */
const struct filter *const *role_filters;

void
role_poke(struct role *role)
{
	(void)role; /* nobody sleeps here */
}

/* The mutex is held. */
static void
reloaded(struct rig *rig)
{
	config_unref(rig->before);
	rig->before = NULL;
	rig->reload = NULL;
	pthread_cond_broadcast(&rig->done);
}

void
role_reloaded(struct role *role, const struct err *why)
{
	struct rig *rig = container_of(role, struct rig, role);

	ck_assert_msg(why == NULL, "%s", why != NULL ? why->msg : "");
	pthread_mutex_lock(&rig->mutex);
	reloaded(rig);
	pthread_mutex_unlock(&rig->mutex);
}

void
role_finished(struct role *role)
{
	struct rig *rig = container_of(role, struct rig, role);

	rig->finished = true;
	uv_stop(&rig->loop);
}

static void
make_dir(void)
{
	if (!have_dir)
		ck_assert_ptr_nonnull(mkdtemp(dir));
	have_dir = true;
}

void
rig_file(const char *name, const char *text)
{
	char path[200];
	FILE *f;

	make_dir();
	(void)snprintf(path, sizeof(path), "%s/%s", dir, name); /* short names */
	f = fopen(path, "w");
	ck_assert_ptr_nonnull(f);
	ck_assert_int_ge(fputs(text, f), 0);
	ck_assert_int_eq(fclose(f), 0);
}

/* ---- config ---------------------------------------------------------------------------------- */

static struct config *
load(const char *text)
{
	char storage[CONFIG_BYTES], path[200];
	struct buf b = buf_over(storage, sizeof(storage) - 1);
	struct err err = { 0 };
	struct config *cfg;

	buf_printf(&b,
	    "hostname = mx.example.test\nspool = %s/spool\nstate = %s/state\nrun = %s/run\n"
	    "quarantine { store = %s/store }\n"
	    "%slistener mx { address = { \"127.0.0.1:25\" } tls = starttls }\n",
	    dir, dir, dir, dir, strstr(text, "queue {") != NULL ? "" : "queue { reserve = 0 }\n");
	for (const char *at = text; *at != '\0'; at++) {
		if (strncmp(at, "@DIR@", 5) == 0) {
			buf_puts(&b, dir);
			at += 4;
		} else {
			buf_putc(&b, *at);
		}
	}
	ck_assert(!b.overflow);
	storage[b.len] = '\0';
	rig_file("relayd.conf", storage);
	(void)snprintf(path, sizeof(path), "%s/relayd.conf", dir); /* short */
	cfg = config_load(path, config_source_disk(), &err);
	ck_assert_msg(cfg != NULL, "%s", err.msg);
	return cfg;
}

/* ---- the loop's side ------------------------------------------------------------------------- */

static void
on_asked(uv_async_t *async)
{
	struct rig *rig = container_of(async, struct rig, asked);
	struct err err = { 0 };

	pthread_mutex_lock(&rig->mutex);
	if (rig->reload != NULL && rig->before == NULL) {
		int rc;

		rig->before = rig->config;
		rig->config = load(rig->reload);
		rig->role.config = rig->config;
		rc = intake_role.reload(&rig->role, rig->before, &err);
		ck_assert_msg(rc >= 0, "%s", err.msg);
		if (rc == 0)
			reloaded(rig);
	}
	if (rig->drain || rig->client_done)
		intake_role.drain(&rig->role);
	pthread_cond_broadcast(&rig->done);
	pthread_mutex_unlock(&rig->mutex);
}

static void *
client_thread(void *arg)
{
	struct rig *rig = arg;

	rig->setup->client(rig);
	pthread_mutex_lock(&rig->mutex);
	rig->client_done = true;
	pthread_mutex_unlock(&rig->mutex);
	uv_async_send(&rig->asked);
	return NULL;
}

static void
add_listener(struct rig *rig, const char *name, enum role_listener_kind kind, const char *address)
{
	size_t i = rig->role.n_listeners++, n;
	struct err err;

	ck_assert_msg(
	    listener_bind(address, 1, &rig->sockets[2 * i], &n, &err) == 0, "%s", err.msg);
	rig->listeners[i] = (struct role_listener){ .kind = kind,
		.fd = rig->sockets[2 * i].fd,
		.name = name,
		.address = rig->sockets[2 * i].name };
}

/* What goes to standard error meanwhile is the log. */
static void
catch_log(struct rig *rig)
{
	char path[200];
	int fd;

	(void)snprintf(path, sizeof(path), "%s/log", dir); /* short */
	fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	rig->stderr_fd = dup(STDERR_FILENO);
	ck_assert(fd >= 0 && rig->stderr_fd >= 0 && dup2(fd, STDERR_FILENO) >= 0);
	(void)close(fd); /* it has another number now */
}

static void
read_log(struct rig *rig)
{
	ssize_t n;

	log_drain(1000);
	n = pread(STDERR_FILENO, rig_log, sizeof(rig_log) - 1, 0);
	rig_log[n > 0 ? n : 0] = '\0';
	ck_assert_int_ge(dup2(rig->stderr_fd, STDERR_FILENO), 0);
	(void)close(rig->stderr_fd); /* the same as standard error again */
}

static void
open_rig(struct rig *rig)
{
	char path[200];
	struct err err = { 0 };
	int fd;

	(void)signal(SIGPIPE, SIG_IGN);
	make_dir();
	catch_log(rig);
	rig->config = load(rig->setup->config);
	(void)snprintf(path, sizeof(path), "%s/state", dir); /* short */
	ck_assert_int_eq(mkdir(path, 0700), 0);
	ck_assert_int_eq(uv_loop_init(&rig->loop), 0);
	fd = shared_create(&err);
	rig->role = (struct role){ .kind = ROLE_INTAKE,
		.loop = &rig->loop,
		.config = rig->config,
		.listeners = rig->listeners,
		.shared = shared_map(fd, &err),
		.pages = rig->pages,
		.poke_fd = -1,
		.review_uid = rig->setup->release ? getuid() : (uid_t)-2 };
	(void)close(fd); /* mapped */
	ck_assert_ptr_nonnull(rig->role.shared);
	counters_use(&rig->pages[0], "intake", 0);
	add_listener(rig, "mx", ROLE_LISTENER_SMTP, "127.0.0.1:0");
	add_listener(rig, "submission", ROLE_LISTENER_SMTP, "127.0.0.1:0");
	(void)snprintf(path, sizeof(path), "unix:%s/release.sock", dir); /* short */
	add_listener(rig, "", ROLE_LISTENER_RELEASE, path);
	role_filters = rig->setup->filters != NULL ? rig->setup->filters : no_filters;
	ck_assert_int_eq(pthread_mutex_init(&rig->mutex, NULL), 0);
	ck_assert_int_eq(pthread_cond_init(&rig->done, NULL), 0);
	ck_assert_int_eq(uv_async_init(&rig->loop, &rig->asked, on_asked), 0);
	ck_assert_msg(intake_role.start(&rig->role, &err) == 0, "%s", err.msg);
}

/* ---- reading back ---------------------------------------------------------------------------- */

static char *
first_copy(const struct envelope *env, struct slice body)
{
	struct buf b = buf_heap(64u << 20);
	struct envelope_walk walk = envelope_walk_of(env, &env->copies[0]);
	struct envelope_run run;

	while (envelope_walk_next(&walk, &run))
		buf_put(&b, run.literal.len > 0 ? run.literal
						: slice_head(slice_drop(body, run.from), run.len));
	buf_putc(&b, '\0');
	ck_assert(!b.overflow);
	return b.p;
}

static void
read_kept(void)
{
	char path[200];
	struct spooldir store;
	struct journal *j;
	struct reader *r;
	struct reader_item item;
	static struct arena arena;
	struct err err = { 0 };

	arena = arena_of(100u << 20);
	(void)snprintf(path, sizeof(path), "%s/spool", dir); /* short */
	ck_assert_int_eq(spooldir_open_readonly(&store, path, &err), 0);
	j = journal_open(NULL, &store, &err);
	ck_assert_msg(j != NULL, "%s", err.msg);
	r = reader_open_readonly(&store, j, &err);
	ck_assert_msg(r != NULL, "%s", err.msg);
	while (reader_next(r, &item, &err) > 0) {
		struct rig_message *m = &rig_kept[rig_n_kept++];

		ck_assert_int_eq(envelope_decode(item.envelope, &arena, &m->env, &err), 0);
		m->body = arena_copy(&arena, item.body);
		m->copy = first_copy(&m->env, m->body);
	}
	reader_close(r);
	journal_close(j);
	spooldir_close(&store);
}

static int
remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

static void
close_rig(struct rig *rig)
{
	intake_role.stop(&rig->role);
	uv_close((uv_handle_t *)&rig->asked, NULL);
	ck_assert_int_eq(uv_run(&rig->loop, UV_RUN_DEFAULT), 0);
	ck_assert_int_eq(uv_loop_close(&rig->loop), 0);
	for (size_t i = 0; i < rig->role.n_listeners; i++)
		(void)close(rig->listeners[i].fd); /* nobody accepts any more */
	ck_assert_uint_eq(shared_open(rig->role.shared), 0);
	config_unref(rig->config);
}

void
rig_run(const struct rig_setup *setup)
{
	static struct rig rig;

	rig = (struct rig){ .setup = setup };
	open_rig(&rig);
	ck_assert_int_eq(pthread_create(&rig.thread, NULL, client_thread, &rig), 0);
	while (!rig.finished)
		(void)uv_run(&rig.loop, UV_RUN_DEFAULT);
	ck_assert_int_eq(pthread_join(rig.thread, NULL), 0);
	close_rig(&rig);
	read_log(&rig);
	read_kept();
	ck_assert_int_eq(nftw(dir, remove_one, 10, FTW_DEPTH | FTW_PHYS), 0);
}

/* ---- the client's side ----------------------------------------------------------------------- */

static void
ask_loop(struct rig *rig)
{
	uv_async_send(&rig->asked);
	pthread_cond_wait(&rig->done, &rig->mutex);
}

void
rig_reload(struct rig *rig, const char *config)
{
	pthread_mutex_lock(&rig->mutex);
	rig->reload = config;
	ask_loop(rig);
	while (rig->reload != NULL) /* files of recipients are being read */
		pthread_cond_wait(&rig->done, &rig->mutex);
	pthread_mutex_unlock(&rig->mutex);
}

void
rig_drain(struct rig *rig)
{
	pthread_mutex_lock(&rig->mutex);
	rig->drain = true;
	ask_loop(rig);
	pthread_mutex_unlock(&rig->mutex);
}

static int
connect_tcp(const char *address)
{
	struct sockaddr_in to = { .sin_family = AF_INET,
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	to.sin_port = htons((uint16_t)atoi(strrchr(address, ':') + 1));
	ck_assert_int_eq(connect(fd, (struct sockaddr *)&to, sizeof(to)), 0);
	return fd;
}

static int
connect_unix(void)
{
	struct sockaddr_un to = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	(void)snprintf(to.sun_path, sizeof(to.sun_path), "%s/release.sock", dir); /* short */
	ck_assert_int_eq(connect(fd, (struct sockaddr *)&to, sizeof(to)), 0);
	return fd;
}

struct chat *
chat_open(struct rig *rig, const char *listener)
{
	struct chat *c = calloc(1, sizeof(*c));

	ck_assert_ptr_nonnull(c);
	c->fd = -1;
	for (size_t i = 0; i < rig->role.n_listeners; i++)
		if (strcmp(rig->listeners[i].name, listener) == 0)
			c->fd = listener[0] == '\0' ? connect_unix()
						    : connect_tcp(rig->listeners[i].address);
	ck_assert_int_ge(c->fd, 0);
	return c;
}

void
chat_close(struct chat *c)
{
	(void)close(c->fd); /* all was said */
	free(c);
}

void
chat_send(struct chat *c, const char *bytes)
{
	size_t n = strlen(bytes);

	while (n > 0) {
		ssize_t done = write(c->fd, bytes, n);

		ck_assert_int_gt(done, 0);
		bytes += done;
		n -= (size_t)done;
	}
}

static bool
next_line(struct chat *c)
{
	char *lf;
	size_t n;

	while ((lf = memchr(c->in, '\n', c->len)) == NULL) {
		ssize_t got = read(c->fd, c->in + c->len, sizeof(c->in) - c->len);

		if (got <= 0)
			return false;
		c->len += (size_t)got;
	}
	n = (size_t)(lf + 1 - c->in);
	ck_assert_uint_lt(n, sizeof(c->line));
	(void)snprintf(c->line, sizeof(c->line), "%.*s", (int)n, c->in); /* as just checked */
	memmove(c->in, c->in + n, c->len - n);
	c->len -= n;
	return true;
}

void
chat_expect(struct chat *c, const char *start)
{
	do
		ck_assert_msg(next_line(c), "hung up instead of \"%s\"", start);
	while (c->line[3] == '-');
	ck_assert_msg(strncmp(c->line, start, strlen(start)) == 0, "wanted \"%s\", got \"%s\"",
	    start, c->line);
}

void
chat_ask(struct chat *c, const char *line, const char *start)
{
	chat_send(c, line);
	chat_send(c, "\r\n");
	chat_expect(c, start);
}

void
chat_expect_end(struct chat *c)
{
	ck_assert_msg(!next_line(c), "no end but \"%s\"", c->line);
}
