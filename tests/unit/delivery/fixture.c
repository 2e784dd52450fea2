/* tests/unit/delivery/fixture.c - a spool, a config and a delivery in a directory of their own. */
#include "unit/delivery/fixture.h"

#include "relayd/core/clock.h"
#include "relayd/core/log.h"
#include "relayd/delivery/parts.h"
#include "unit/fake_dns.h"

#include <check.h>
#include <ftw.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>

#define PATIENCE_MS 20000
#define ROUND_MS    1000 /* a round of the loop that took longer was not ours alone */

/* ---- the world ------------------------------------------------------------------------------ */

void
fixture_init(struct fixture *f)
{
	*f = (struct fixture){ .poke_fd = eventfd(0, EFD_NONBLOCK) };
	strcpy(f->dir, "/tmp/relayd-delivery.XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(f->dir));
	ck_assert_int_eq(uv_loop_init(&f->loop), 0);
	ck_assert_int_ge(f->poke_fd, 0);
	log_open(LOG_SINK_STDERR, "delivery", -1);
	if (getenv("RELAYD_TEST_LOG") == NULL)
		(void)!freopen("/dev/null", "w", stderr); /* events are not looked at here */
}

static int
remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st, (void)type, (void)ftw;
	return remove(path);
}

static void
run_out(struct fixture *f)
{
	int64_t limit = fixture_limit();

	while (uv_run(&f->loop, UV_RUN_NOWAIT) != 0) {
		ck_assert_msg(!fixture_over(limit), "handles are still open");
		usleep(500);
	}
}

void
fixture_fini(struct fixture *f)
{
	delivery_close(f->delivery);
	spool_close(f->intake);
	if (f->dns != NULL)
		fake_dns_close(f->dns);
	run_out(f);
	free(f->dns);
	ck_assert_int_eq(uv_loop_close(&f->loop), 0);
	config_unref(f->cfg);
	close(f->poke_fd);
	ck_assert_int_eq(nftw(f->dir, remove_one, 16, FTW_DEPTH | FTW_PHYS), 0);
	log_drain(100);
}

void
fixture_dns(struct fixture *f, const char *zone)
{
	f->dns = calloc(1, sizeof(*f->dns));
	ck_assert_ptr_nonnull(f->dns);
	fake_dns_open(f->dns, &f->loop, zone);
	uv_unref((uv_handle_t *)&f->dns->udp); /* it stays while delivery comes and goes */
}

void
fixture_config(struct fixture *f, const char *fmt, ...)
{
	char path[128];
	struct err err;
	va_list ap;
	FILE *out;

	snprintf(path, sizeof(path), "%s/relayd.conf", f->dir);
	out = fopen(path, "w");
	ck_assert_ptr_nonnull(out);
	fprintf(out,
	    "hostname = mx.ours.test\npostmaster = \"postmaster@ours.test\"\n"
	    "run = \"%s\"\nspool = \"%s/spool\"\nstate = \"%s/state\"\nworkers = 1\n"
	    "dns { servers = { \"%s\" }  timeout = 1s }\n"
	    "quarantine { store = \"%s/quarantine\" }\n",
	    f->dir, f->dir, f->dir, f->dns != NULL ? f->dns->name : "127.0.0.1:9", f->dir);
	va_start(ap, fmt);
	vfprintf(out, fmt, ap);
	va_end(ap);
	fclose(out);
	config_unref(f->cfg);
	f->cfg = config_load(path, config_source_disk(), &err);
	ck_assert_msg(f->cfg != NULL, "%s", f->cfg == NULL ? err.msg : "");
	snprintf(path, sizeof(path), "%s/state", f->dir);
	(void)mkdir(path, 0700); /* it may be there */
}

void
fixture_config_to(struct fixture *f, unsigned port)
{
	fixture_config(f,
	    "route \"*\" { to = { \"127.0.0.1:%u\" }  tls = off  recipients = any }\n"
	    "queue { retry = { 1s }  expire = 1h  warn = 30m  reserve = 0K }\n",
	    port);
}

struct sink *
fixture_init_upstream(struct fixture *f)
{
	struct sink *upstream;

	fixture_init(f);
	upstream = sink_open(NULL);
	fixture_config_to(f, sink_port(upstream));
	return upstream;
}

void
fixture_start(struct fixture *f)
{
	struct delivery_options o = { .loop = &f->loop,
		.cfg = f->cfg,
		.shared = &f->shared,
		.poke_fd = f->poke_fd,
		.lock_wait_ms = 2000,
		.whole = 2 /* so that most tests with more messages have some parked */ };
	struct err err;

	f->delivery = delivery_open(&o, &err);
	ck_assert_msg(f->delivery != NULL, "%s", f->delivery == NULL ? err.msg : "");
}

static void
on_drained(void *data)
{
	*(bool *)data = true;
}

void
fixture_stop(struct fixture *f, bool drain)
{
	bool over = false;

	if (drain) {
		delivery_drain(f->delivery, on_drained, &over);
		UNTIL(f, over);
	}
	delivery_close(f->delivery);
	f->delivery = NULL;
	spool_close(f->intake);
	f->intake = NULL;
	run_out(f);
}

/* ---- mail ----------------------------------------------------------------------------------- */

struct commit {
	struct spool_commit req;
	bool done;
};

static void
on_committed(struct spool_commit *req, const struct err *err)
{
	struct commit *c = container_of(req, struct commit, req);

	ck_assert_msg(err->code == ERR_NONE, "%s", err->msg);
	c->done = true;
}

static void
start_commit(struct fixture *f, const struct mail *m, struct commit *c, struct id id)
{
	static char paths[1000][64];
	static uint32_t first = 0;
	struct envelope_rcpt rcpts[1000];
	struct slice bytes = m->bytes == NULL ? SLICE("Subject: x\r\n\r\nHello\r\n")
			     : m->len > 0     ? slice_of(m->bytes, m->len)
					      : slice_str(m->bytes);
	struct envelope_edit edit = { .insert = slice_str(m->top) };
	struct envelope_copy copy = { .route = m->route,
		.reason = SLICE(""),
		.edits = &edit,
		.n_edits = m->top != NULL,
		.rcpts = rcpts };
	struct envelope env = { .id = id,
		.received_ms = clock_wall_ms() - m->age_ms,
		.flags = m->flags,
		.size = bytes.len,
		.reverse_path = slice_str(m->from),
		.params = slice_str(m->params),
		.client_ip = SLICE("192.0.2.7"),
		.client_addr = SLICE("\xc0\x00\x02\x07"),
		.helo = SLICE("client.test"),
		.auth_user = SLICE(""),
		.listener = SLICE("mx"),
		.release_key = slice_str(m->release_key),
		.origin = m->origin,
		.copies = &copy,
		.n_copies = 1,
		.tells = m->tells,
		.about = &first,
		.n_about = m->tells != ENVELOPE_TELLS_LATE };
	struct spool_msg *msg;
	struct err err;

	if (f->intake == NULL) {
		char dir[128];
		struct spool_settings set = { 0 };

		snprintf(dir, sizeof(dir), "%s/spool", f->dir);
		f->intake = spool_open(&f->loop, dir, &set, &err);
		ck_assert_msg(f->intake != NULL, "%s", f->intake == NULL ? err.msg : "");
	}
	for (size_t i = 0; i < m->n_to || (m->n_to == 0 && i < 8 && m->to[i] != NULL); i++) {
		snprintf(paths[i], sizeof(paths[i]), "user%zu@%s", i, m->domain);
		rcpts[copy.n_rcpts++] = (struct envelope_rcpt){
			.forward_path = slice_str(m->n_to > 0 ? paths[i] : m->to[i]),
			.params = slice_str(m->rcpt_params),
		};
	}
	msg = spool_begin(f->intake, bytes.len + 1, &err);
	ck_assert_msg(msg != NULL, "%s", msg == NULL ? err.msg : "");
	ck_assert_int_eq(spool_write(msg, bytes, &err), 0);
	c->req = (struct spool_commit){ .done = on_committed };
	spool_commit(&c->req, msg, &env);
}

static void
poke(struct fixture *f)
{
	uint64_t one = 1;

	/* We are one process: it never sleeps while we run.  As if it had. */
	ck_assert_int_eq(write(f->poke_fd, &one, sizeof(one)), sizeof(one));
}

struct id
fixture_mail(struct fixture *f, const struct mail *m)
{
	struct commit c = { .done = false };
	struct id id = id_wall_ms(m->id) != 0 ? m->id : id_new();

	start_commit(f, m, &c, id);
	UNTIL(f, c.done);
	poke(f);
	return id;
}

void
fixture_mails(struct fixture *f, const struct mail *m, size_t n)
{
	struct commit *c = calloc(n, sizeof(*c));

	for (size_t i = 0; i < n; i++)
		start_commit(f, m, &c[i], id_new());
	for (size_t i = 0; i < n; i++)
		UNTIL(f, c[i].done);
	poke(f);
	free(c);
}

/* ---- time ----------------------------------------------------------------------------------- */

/* Without the time in which this process was stopped, or the machine had no turn for it. */
static int64_t
our_ms(void)
{
	static int64_t seen_ms, lost_ms;
	int64_t now = clock_mono_ms();

	if (seen_ms > 0 && now - seen_ms > ROUND_MS)
		lost_ms += now - seen_ms - ROUND_MS;
	seen_ms = now;
	return now - lost_ms;
}

int64_t
fixture_limit(void)
{
	return our_ms() + PATIENCE_MS;
}

bool
fixture_over(int64_t limit)
{
	return our_ms() > limit;
}

static void
on_turn(uv_timer_t *timer)
{
	(void)timer; /* the loop has woken: that is all */
}

static void
on_turn_closed(uv_handle_t *handle)
{
	*(bool *)handle->data = true;
}

void
fixture_turn(struct fixture *f)
{
	uv_timer_t timer;
	bool closed = false;

	uv_timer_init(&f->loop, &timer);
	timer.data = &closed;
	uv_timer_start(&timer, on_turn, 10, 0);
	uv_run(&f->loop, UV_RUN_ONCE);
	uv_close((uv_handle_t *)&timer, on_turn_closed);
	while (!closed)
		uv_run(&f->loop, UV_RUN_NOWAIT);
	log_flush();
}

void
fixture_run_ms(struct fixture *f, unsigned ms)
{
	int64_t end = clock_mono_ms() + ms;

	while (clock_mono_ms() < end)
		fixture_turn(f);
}

/* ---- what is in the queue -------------------------------------------------------------------- */

size_t
fixture_queued(const struct fixture *f)
{
	return f->delivery->queue.messages;
}

size_t
fixture_queued_rcpts(const struct fixture *f)
{
	return f->delivery->queue.recipients;
}

void
fixture_never_stall(struct fixture *f)
{
	f->delivery->stall_ms = INT64_MAX / 2;
}

unsigned
fixture_connections(const struct fixture *f)
{
	return f->delivery->n_conns;
}

size_t
fixture_whole(const struct fixture *f)
{
	return f->delivery->queue.whole;
}

bool
fixture_ready(const struct fixture *f)
{
	return f->delivery->ready;
}

size_t
fixture_at(const struct fixture *f, const char *name)
{
	size_t n = 0;

	for (size_t i = 0; i < f->delivery->cap_hops; i++)
		for (const struct hop *hop = f->delivery->hops[i]; hop != NULL; hop = hop->next)
			if (strcmp(hop->route->name, name) == 0)
				n += hop->line.jobs;
	return n;
}
