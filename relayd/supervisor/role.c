/* relayd/supervisor/role.c - the process of a role: takes over what it was handed, locks itself in,
 * runs. */
#include "relayd/supervisor/role.h"

#include "relayd/core/clock.h"
#include "relayd/core/log.h"
#include "relayd/net/tickets.h"
#include "relayd/supervisor/handover.h"
#include "relayd/supervisor/sandbox.h"
#include "relayd/supervisor/syscalls.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__)
#define SYSCALLS_MODE SYSCALLS_SANITIZED
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SYSCALLS_MODE SYSCALLS_SANITIZED
#endif
#endif
#ifndef SYSCALLS_MODE
#define SYSCALLS_MODE SYSCALLS_STRICT
#endif

#define BEAT_MS		  1000
#define MALLOC_MAP_BYTES  (4 << 20)  /* what is larger is mapped, and unmapped at once */
#define MALLOC_KEEP_BYTES (32 << 20) /* free memory that a process keeps */
#define GRANTS_MAX	  64
#define DRAIN_MS	  20000
#define LAST_ROUND_MS	  2000	/* for close callbacks after the loop has ended */

static const char *const names[] = { "intake", "delivery", "review" };

const struct filter *const *role_filters;

struct process {
	struct role role;
	const struct role_ops *ops;
	struct handover handover;
	struct config *config;		/* role.config, owned */
	struct config *before;		/* while a reload is on its way */
	uv_loop_t loop;
	uv_poll_t supervisor;
	uv_prepare_t round;
	uv_timer_t beat;
	uv_signal_t term;
	uv_timer_t drain;
	uv_timer_t log_due;
	bool draining, finished, gave_up;
	struct role_listener fresh[HANDOVER_LISTENERS_MAX]; /* of the reload that follows */
	size_t n_fresh;
};

static struct process *
process_of(struct role *role)
{
	return container_of(role, struct process, role);
}

void
role_control_path(const struct config *cfg, const char *name, char out[static ROLE_PATH_BYTES])
{
	(void)snprintf(
	    out, ROLE_PATH_BYTES, "%s/%s.sock", cfg->run, name); /* too long: bind refuses it */
}

void
role_lmtp_path(const struct config *cfg, char out[static ROLE_PATH_BYTES])
{
	role_control_path(cfg, "quarantine", out);
}

void
role_release_path(const struct config *cfg, char out[static ROLE_PATH_BYTES])
{
	(void)snprintf(
	    out, ROLE_PATH_BYTES, "%s/release.sock", cfg->quarantine.store); /* as above */
}

void
role_poke(struct role *role)
{
	uint64_t one = 1;

	if (atomic_load(&role->shared->delivery_sleeps) != 0)
		(void)!write(role->poke_fd, &one, sizeof(one));	/* full: it is awake anyway */
}

void
role_finished(struct role *role)
{
	struct process *p = process_of(role);

	if (p->finished)
		return;
	p->finished = true;
	uv_stop(&p->loop);
}

static void
on_drained_too_long(uv_timer_t *timer)
{
	struct process *p = container_of(timer, struct process, drain);

	log_event("limit", kv_str("what", "drain"), kv_int("ms", DRAIN_MS));
	role_finished(&p->role);
}

static void
begin_drain(struct process *p)
{
	if (p->draining)
		return;
	p->draining = true;
	(void)uv_timer_start(
	    &p->drain, on_drained_too_long, DRAIN_MS, 0); /* a live timer: cannot fail */
	p->ops->drain(&p->role);
}

/* The supervisor was killed, and another may want the ports at once; or a port may not be ours any
 * longer. */
static void
give_up_listeners(struct process *p)
{
	if (p->gave_up)
		return;
	p->gave_up = true;
	for (size_t i = 0; i < p->handover.n_listeners; i++)
		(void)close(p->handover.listeners[i].fd); /* nobody accepts from it any more */
}

bool
role_listener_is_door(enum role_listener_kind kind)
{
	return kind >= ROLE_LISTENER_IMAP && kind <= ROLE_LISTENER_HTTP;
}

/* "listen KIND ADDRESS": one of those that the next reload brings. */
static void
take_listener(struct process *p, const char *text, int fd)
{
	struct role_listener *l = &p->fresh[p->n_fresh];
	char *rest;
	unsigned long kind = strtoul(text, &rest, 10);

	if (p->n_fresh == HANDOVER_LISTENERS_MAX || *rest != ' ' ||
	    !role_listener_is_door((enum role_listener_kind)kind)) {
		(void)close(fd);	/* no use for it */
		return;
	}
	*l = (struct role_listener){ .kind = (enum role_listener_kind)kind, .fd = fd, .name = "",
		.address = strdup(rest + 1) };
	p->n_fresh++;
}

static void
close_doors(struct role_listener *list, size_t *n)
{
	size_t kept = 0;

	for (size_t i = 0; i < *n; i++) {
		if (role_listener_is_door(list[i].kind))
			(void)close(list[i].fd);	/* nobody accepts from it any more */
		else
			list[kept++] = list[i];
	}
	*n = kept;
}

/* After a reload: the fresh listeners stand in for the old ones, or are given up. */
static void
settle_listeners(struct process *p, bool taken)
{
	struct handover *ho = &p->handover;

	p->role.fresh = NULL;
	if (p->n_fresh == 0)
		return;
	if (!taken) {
		close_doors(p->fresh, &p->n_fresh);
		return;
	}
	close_doors(ho->listeners, &ho->n_listeners);
	for (size_t i = 0; i < p->n_fresh && ho->n_listeners < HANDOVER_LISTENERS_MAX; i++)
		ho->listeners[ho->n_listeners++] = p->fresh[i];
	p->n_fresh = 0;
	p->role.n_listeners = ho->n_listeners;
}

void
role_reloaded(struct role *role, const struct err *why)
{
	struct process *p = process_of(role);
	char answer[HANDOVER_PACKET_BYTES] = "reloaded";

	settle_listeners(p, why == NULL);
	if (why == NULL) {
		config_unref(p->before);
		counter_add(COUNTER_RELOADS, 1);
	} else {
		config_unref(p->config);
		p->config = p->before;
		p->role.config = p->before;
		(void)snprintf(
		    answer, sizeof(answer), "refused %s", why->msg); /* fits: msg is short */
	}
	p->before = NULL;
	(void)handover_send(HANDOVER_SOCKET, answer, -1, NULL);	/* gone: end of file comes */
}

static void
take_config(struct process *p, int fd)
{
	struct err err = { 0 };
	struct slice bytes = handover_map(fd, &err);
	struct config_source *src = bytes.p != NULL ? config_source_snapshot(bytes, &err) : NULL;
	struct config *fresh = NULL;
	int rc;

	if (src != NULL) {
		config_source_own_map(src);
		fresh = config_load(p->config->path, src, &err);
	}
	(void)close(fd);	/* the mapping stays, as long as its source */
	p->before = p->config;
	if (fresh == NULL) {
		p->config = config_ref(p->before);	/* to be dropped as the one that failed */
		role_reloaded(&p->role, &err);
		return;
	}
	p->config = fresh;
	p->role.config = fresh;
	p->role.fresh = p->n_fresh > 0 ? p->fresh : NULL;
	p->role.n_fresh = p->n_fresh;
	rc = p->ops->reload(&p->role, p->before, &err);
	if (rc != ROLE_RELOAD_LATER)
		role_reloaded(&p->role, rc == 0 ? NULL : &err);
}

/* "lend WORKER SOCKET LISTENER".  True: fd is the role's from here on. */
static bool
take_loan(struct process *p, const char *text, int fd)
{
	unsigned worker, number, listener;

	if (fd < 0 || p->draining || p->gave_up || p->ops->lend == NULL ||
	    sscanf(text, "lend %u %u %u", &worker, &number, &listener) != 3 ||
	    listener >= p->role.n_listeners)
		return false;
	p->ops->lend(&p->role, worker, number, listener, fd);
	return true;
}

static void
give_back(struct process *p, const char *text)
{
	unsigned worker;

	if (p->ops->take_back != NULL && sscanf(text, "return %u", &worker) == 1)
		p->ops->take_back(&p->role, worker);
}

static void
on_supervisor(uv_poll_t *poll, int status, int events)
{
	struct process *p = container_of(poll, struct process, supervisor);
	char text[HANDOVER_PACKET_BYTES];
	ssize_t n;
	int fd = -1;

	(void)events;	/* only reading was asked for */
	n = status < 0 ? 0 : handover_receive(HANDOVER_SOCKET, text, &fd);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		uv_poll_stop(poll);
		log_event("limit", kv_str("what", "supervisor"), kv_str("why", "gone, finishing"));
		begin_drain(p);
		give_up_listeners(p);
	} else if (strcmp(text, "drain") == 0) {
		begin_drain(p);
	} else if (strcmp(text, "retire") == 0 && !p->gave_up && !p->draining &&
	    p->ops->retire != NULL) {
		log_event("role.retire", kv_int("pid", getpid()));
		p->ops->retire(&p->role);
		give_up_listeners(p);
	} else if (strncmp(text, "listen ", 7) == 0 && fd >= 0) {
		take_listener(p, text + 7, fd);
		fd = -1;
	} else if (strcmp(text, "reload") == 0 && fd >= 0) {
		take_config(p, fd);
		fd = -1;
	} else if (strncmp(text, "lend ", 5) == 0) {
		fd = take_loan(p, text, fd) ? -1 : fd;
	} else {
		give_back(p, text);
	}
	if (fd >= 0)
		(void)close(fd);	/* sent with a message that has no use for it */
}

static void
on_term(uv_signal_t *sig, int number)
{
	(void)number;
	begin_drain(container_of(sig, struct process, term));
}

static void
on_log_due(uv_timer_t *timer)
{
	(void)timer;
	log_flush();
}

static void
on_round(uv_prepare_t *prepare)
{
	struct process *p = container_of(prepare, struct process, round);

	if (log_waiting() >= LOG_FLUSH_BYTES)
		log_flush();
	else if (log_waiting() > 0 && !uv_is_active((uv_handle_t *)&p->log_due))
		(void)uv_timer_start(&p->log_due, on_log_due, LOG_FLUSH_MS, 0); /* cannot fail */
}

static void
say_refused_calls(void)
{
	const char *name;
	unsigned n = syscalls_refused(&name);

	if (n == 0)
		return;
	counter_add(COUNTER_SYSCALLS_REFUSED, n);
	log_event("limit", kv_str("what", "system-call"), kv_str("name", name), kv_int("count", n),
	    kv_str("why", "the sandbox of this role does not know it"));
}

static void
on_beat(uv_timer_t *timer)
{
	(void)timer;
	counter_beat();
	say_refused_calls();
	counter_set(COUNTER_LOG_DROPPED, (int64_t)log_dropped());
}

static int
watch(struct process *p, struct err *err)
{
	int rc;

	if ((rc = uv_poll_init(&p->loop, &p->supervisor, HANDOVER_SOCKET)) < 0 ||
	    (rc = uv_poll_start(&p->supervisor, UV_READABLE, on_supervisor)) < 0 ||
	    (rc = uv_prepare_init(&p->loop, &p->round)) < 0 ||
	    (rc = uv_prepare_start(&p->round, on_round)) < 0 ||
	    (rc = uv_timer_init(&p->loop, &p->beat)) < 0 ||
	    (rc = uv_timer_start(&p->beat, on_beat, BEAT_MS, BEAT_MS)) < 0 ||
	    (rc = uv_timer_init(&p->loop, &p->drain)) < 0 ||
	    (rc = uv_timer_init(&p->loop, &p->log_due)) < 0 ||
	    (rc = uv_signal_init(&p->loop, &p->term)) < 0 ||
	    (rc = uv_signal_start(&p->term, on_term, SIGTERM)) < 0)
		return err_sys(err, -rc, "watch the supervisor");
	return 0;
}

static void
unwatch(struct process *p)
{
	uv_close((uv_handle_t *)&p->supervisor, NULL);
	uv_close((uv_handle_t *)&p->round, NULL);
	uv_close((uv_handle_t *)&p->beat, NULL);
	uv_close((uv_handle_t *)&p->drain, NULL);
	uv_close((uv_handle_t *)&p->log_due, NULL);
	uv_close((uv_handle_t *)&p->term, NULL);
}

/* What a role may open: its own directories, and of the system what libraries open late (the
 * authorities of TLS, the tables of iconv, the resolver's files). */
static int
lock_in(struct process *p, struct err *err)
{
	const struct config *c = p->config;
	struct sandbox_path grants[GRANTS_MAX] = { { "/etc/ssl", false }, { "/usr/lib", false },
		{ "/usr/share", false }, { "/lib", false }, { "/usr/local/lib", false },
		{ "/etc/resolv.conf", false }, { "/etc/hosts", false },
		{ "/etc/nsswitch.conf", false }, { "/etc/services", false },
		{ "/etc/krb5.conf", false }, { "/etc/krb5.conf.d", false },
		{ "/etc/localtime", false }, { "/dev/urandom", false }, { "/dev/null", true },
		{ "/proc/self", false }, { "/sys/devices/system/cpu", false } };
	static const char *const variables[] = { "KRB5_CONFIG", "SSL_CERT_FILE", "SSL_CERT_DIR" };
	size_t n = 0;
	char dirs[GRANTS_MAX][256];

	while (grants[n].path != NULL)
		n++;
	/* Of Kerberos and of OpenSSL, which names the admin's own authorities. */
	for (size_t i = 0; i < ARRAY_LEN(variables); i++) {
		grants[n].path = secure_getenv(variables[i]);
		n += grants[n].path != NULL;
	}
	if (p->role.kind == ROLE_REVIEW) {
		grants[n++] = (struct sandbox_path){ c->quarantine.store, true };
	} else {
		grants[n++] = (struct sandbox_path){ c->spool, true };
		grants[n++] = (struct sandbox_path){ c->state, true };
	}
	for (size_t i = 0; i < c->n_filters && n < GRANTS_MAX; i++) {
		if (c->filters[i].module == NULL ||
		    snprintf(dirs[n], sizeof(dirs[n]), "%s", c->filters[i].module) >=
			(int)sizeof(dirs[n]))
			continue;
		grants[n].path = dirname(dirs[n]);
		n++;
	}
	return sandbox_files(grants, n, err);
}

static int
take_over(struct process *p, enum role_kind kind, unsigned index, struct err *err)
{
	struct slice manifest = handover_map(HANDOVER_MANIFEST, err);
	struct slice snapshot = handover_map(HANDOVER_SNAPSHOT, err);
	struct config_source *src;
	struct counters_page *pages;
	int rc;

	if (manifest.p == NULL || snapshot.p == NULL ||
	    handover_decode(manifest, &p->handover, err) < 0 ||
	    (src = config_source_snapshot(snapshot, err)) == NULL ||
	    (p->config = config_load(p->handover.config_path, src, err)) == NULL ||
	    (p->role.shared = shared_map(HANDOVER_SHARED, err)) == NULL ||
	    counters_map(HANDOVER_COUNTERS, true, &pages, err) < 0)
		return -1;
	if (kind != ROLE_DELIVERY) {
		const struct tickets *tickets = tickets_map(HANDOVER_TICKETS, err);

		if (tickets == NULL)
			return -1;
		tickets_use(tickets);
	}
	rc = uv_loop_init(&p->loop);
	if (rc < 0)
		return err_sys(err, -rc, "loop");
	log_open(p->config->log_syslog ? LOG_SINK_SYSLOG : LOG_SINK_STDERR, names[kind],
	    kind == ROLE_INTAKE ? (int)index : -1);
	counters_use(&pages[p->handover.page], names[kind], index);
	p->role.kind = kind;
	p->role.index = index;
	p->role.loop = &p->loop;
	p->role.config = p->config;
	p->role.listeners = p->handover.listeners;
	p->role.n_listeners = p->handover.n_listeners;
	p->role.pages = pages;
	p->role.poke_fd = HANDOVER_POKE;
	p->role.review_uid = p->handover.review_uid;
	/* Nothing that a role starts may inherit what is its own. */
	for (int fd = HANDOVER_SOCKET; fd < HANDOVER_LISTENERS + (int)p->handover.n_listeners; fd++)
		(void)fcntl(fd, F_SETFD, FD_CLOEXEC);	/* valid descriptors: cannot fail */
	return 0;
}

static void
on_last_round(uv_timer_t *timer)
{
	uv_close((uv_handle_t *)timer, NULL);
	uv_stop(timer->loop);
}

/* Lets close callbacks run, so that everything is freed; bounded. */
static void
wind_up(struct process *p)
{
	uv_timer_t limit;

	unwatch(p);
	if (uv_timer_init(&p->loop, &limit) == 0 &&
	    uv_timer_start(&limit, on_last_round, LAST_ROUND_MS, 0) == 0) {
		uv_unref((uv_handle_t *)&limit);
		(void)uv_run(&p->loop, UV_RUN_DEFAULT);	/* what is left is reported below */
		if (!uv_is_closing((uv_handle_t *)&limit))
			uv_close((uv_handle_t *)&limit, NULL);
	}
	(void)uv_run(&p->loop, UV_RUN_NOWAIT);	/* the limit's own close callback */
	if (uv_loop_close(&p->loop) != 0)
		log_event("role.exit", kv_str("why", "handles were still open"));
}

static int
serve(struct process *p, struct err *err)
{
	struct err why = { 0 };

	if (p->ops->prepare != NULL && p->ops->prepare(&p->role, err) < 0)
		return -1;
	if (lock_in(p, &why) < 0) {
		if (why.code != ERR_NOT_FOUND) {
			*err = why;
			return -1;
		}
		log_event("limit", kv_str("what", "landlock"), kv_err("why", &why));
	}
	if (watch(p, err) < 0 || p->ops->start(&p->role, err) < 0)
		return -1;
	if (syscalls_restrict(p->role.kind, SYSCALLS_MODE, &why) < 0) {
		if (why.code != ERR_NOT_FOUND) {
			*err = why;
			return -1;
		}
		log_event("limit", kv_str("what", "seccomp"), kv_err("why", &why));
	}
	log_event("role.start", kv_int("pid", getpid()));
	if (handover_send(HANDOVER_SOCKET, "ready", -1, err) < 0)
		return -1;
	counter_serving();
	while (!p->finished && uv_run(&p->loop, UV_RUN_DEFAULT) != 0)
		continue;
	say_refused_calls();	/* of the time since the last beat */
	return 0;
}

/* The buffer of a large message, given back to the kernel after each, comes back page fault by page
 * fault: a third of what a message of 100 KiB cost. */
static void
keep_memory(void)
{
	(void)mallopt(M_MMAP_THRESHOLD, MALLOC_MAP_BYTES); /* fails only for other values */
	(void)mallopt(M_TRIM_THRESHOLD, MALLOC_KEEP_BYTES);
}

int
role_run(enum role_kind kind, unsigned index, const struct role_ops *ops)
{
	static struct process process;
	struct process *p = &process;
	struct err err = { 0 };
	int status = EXIT_FAILURE;

	p->ops = ops;
	keep_memory();
	if (sandbox_basics(&err) < 0 || take_over(p, kind, index, &err) < 0) {
		fprintf(stderr, "relayd: %s: %s\n", names[kind], err.msg);
		return EXIT_FAILURE;
	}
	(void)signal(SIGINT, SIG_IGN);	/* Ctrl-C reaches the supervisor, which tells us */
	(void)signal(SIGHUP, SIG_IGN);
	if (serve(p, &err) == 0) {
		p->ops->stop(&p->role);
		wind_up(p);
		(void)handover_send(HANDOVER_SOCKET, "finished", -1, NULL);	/* it may be gone */
		status = EXIT_SUCCESS;
	} else {
		log_event("role.exit", kv_err("why", &err));
	}
	config_unref(p->config);
	log_drain(500);
	return status;
}
