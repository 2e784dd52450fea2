/* relayd/delivery/delivery.c - opens the parts of delivery, and turns the wheel once a loop
 * round. */
#include "relayd/delivery/delivery.h"

#include "relayd/core/clock.h"
#include "relayd/core/counters.h"
#include "relayd/core/log.h"
#include "relayd/delivery/parts.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* Starting and stopping timers, idle, prepare and check handles cannot fail once they have a
 * callback: their results are ignored below. */

#define SAFETY_MS          1000 /* a look at the logs without a poke, at those of the dead too */
#define SWEEP_MS           60000          /* next hops that nobody needs */
#define NAP_MS             2              /* between two looks at the logs while messages flow */
#define TRACE_LEAVES_BYTES (256ull << 20) /* of the disk, beyond the reserve */

/* ---- the wheel ------------------------------------------------------------------------------ */

bool
delivery_may_start(const struct delivery *d)
{
	/* Reports wait for the end of that reading, and so must who could want more of them. */
	return (d->ready || d->n_reports < REPORTS_MAX) && !d->draining && !d->closing &&
	       !d->unhealthy;
}

static void
on_due(uv_timer_t *timer)
{
	struct delivery *d = container_of(timer, struct delivery, due);

	d->due_at_ms = -1; /* on_prepare() looks what is due */
}

static int64_t
earlier(int64_t a, int64_t b)
{
	if (a < 0 || b < 0)
		return a < 0 ? b : a;
	return a < b ? a : b;
}

/* Puts what is due into line. */
static void
run_schedule(struct delivery *d)
{
	int64_t now = clock_mono_ms();
	struct line_slot *slot;

	while ((slot = queue_due(&d->queue, now)) != NULL)
		hop_touch(slot->line->owner);
	hops_wake(d, now);
	providers_wake(d, now);
	if (conns_stall_due_ms(d) >= 0)
		conns_stall(d);
}

static void
set_timer(struct delivery *d)
{
	const struct schedule_node *job = schedule_first(&d->queue.deferred);
	const struct schedule_node *hop = schedule_first(&d->waking);
	const struct schedule_node *pace = schedule_first(&d->pacing);
	const struct schedule_node *provider = schedule_first(&d->providers.pacing);
	int64_t now = clock_mono_ms(), next;

	next = earlier(job != NULL ? job->due_ms : -1, hop != NULL ? hop->due_ms : -1);
	next = earlier(next, pace != NULL ? pace->due_ms : -1);
	next = earlier(next, provider != NULL ? provider->due_ms : -1);
	next = earlier(next, conns_stall_due_ms(d));
	if (next == d->due_at_ms)
		return;
	d->due_at_ms = next;
	if (next < 0)
		(void)uv_timer_stop(&d->due);
	else
		(void)uv_timer_start(&d->due, on_due, (uint64_t)(next > now ? next - now : 1), 0);
}

static void
on_sync_due(uv_timer_t *timer)
{
	struct delivery *d = container_of(timer, struct delivery, sync);

	journal_flush(d->journal);
	trace_flush(d->trace); /* not each round: a trace may be late */
}

/* What changed is written at once, so that our own death loses nothing, and synced with what else
 * comes within DELIVERY_SYNC_MS. */
static void
run_journal(struct delivery *d)
{
	bool unhealthy;

	journal_write(d->journal);
	if (journal_dirty(d->journal) && !uv_is_active((uv_handle_t *)&d->sync))
		(void)uv_timer_start(&d->sync, on_sync_due, DELIVERY_SYNC_MS, 0);
	unhealthy = !journal_healthy(d->journal);
	if (unhealthy == d->unhealthy)
		return;
	d->unhealthy = unhealthy;
	log_event("delivery.alarm", kv_str("what", "journal"),
	    kv_str("why", unhealthy ? "cannot be synced: nothing new is started" : "works again"));
	if (!unhealthy)
		hops_touch_all(d);
}

static void
run_gauges(const struct delivery *d)
{
	counter_set(COUNTER_QUEUE_MESSAGES, (int64_t)d->queue.messages);
	counter_set(COUNTER_QUEUE_RECIPIENTS, (int64_t)d->queue.recipients);
	counter_set(COUNTER_QUEUE_DEFERRED, (int64_t)d->queue.deferred.n);
	counter_set(COUNTER_QUEUE_BYTES, (int64_t)d->queue.bytes);
}

static void
become_ready(struct delivery *d)
{
	if (d->ready || !reader_caught_up(d->reader))
		return;
	d->ready = true;
	log_event("delivery.ready", kv_int("messages", (int64_t)d->queue.messages),
	    kv_int("recipients", (int64_t)d->queue.recipients));
	tail_settle(d);
	reports_go_on(d);
	hops_touch_all(d);
}

static void
sleeps(struct delivery *d, unsigned value)
{
	if (d->shared != NULL)
		atomic_store(&d->shared->delivery_sleeps, value);
}

static void
on_idle(uv_idle_t *idle)
{
	(void)idle; /* that it is active keeps the loop from sleeping */
}

void
delivery_wake(struct delivery *d)
{
	if (!d->closing)
		(void)uv_idle_start(&d->idle, on_idle);
}

/* True: there is more to do at once. */
static bool
one_round(struct delivery *d)
{
	bool more = tail_read(d);

	become_ready(d);
	run_schedule(d);
	hops_run(d);
	more = control_run(d) || more;
	more = warn_run(d) || more;
	return more || d->turn_head != NULL;
}

static void
on_nap_over(uv_timer_t *timer)
{
	(void)timer; /* on_prepare() looks what came meanwhile */
}

/* While messages flow nobody pokes us: we look every NAP_MS, and take what has come in one go.
 * That saves the writer a system call a message, and us most of the awakenings.  The first message
 * after a pause still goes out at once: only two in a short time make a flow. */
static bool
takes_nap(struct delivery *d)
{
	if (uv_is_active((uv_handle_t *)&d->nap))
		return true;
	if (!d->flowing || d->shared == NULL || d->closing)
		return false;
	if ((int64_t)uv_now(d->loop) - d->taken_ms < FLOW_MS) {
		(void)uv_timer_start(&d->nap, on_nap_over, NAP_MS, 0);
		return true;
	}
	d->flowing = false;
	d->poked = true; /* what a new log brought meanwhile poked nobody either */
	return false;
}

static void
on_prepare(uv_prepare_t *prepare)
{
	struct delivery *d = container_of(prepare, struct delivery, prepare);
	bool more = one_round(d);

	if (!more && !takes_nap(d)) {
		/* In this order: what is committed from here on pokes us, what was before is
		 * seen. */
		sleeps(d, 1);
		more = one_round(d);
		if (more)
			sleeps(d, 0);
	}
	if (d->ready && delivery_may_start(d))
		compact_step(d->compact, more || d->ops != NULL); /* they walk by place */
	run_journal(d);
	run_gauges(d);
	set_timer(d);
	if (more)
		delivery_wake(d);
	else
		(void)uv_idle_stop(&d->idle);
}

static void
on_check(uv_check_t *check)
{
	sleeps(container_of(check, struct delivery, check), 0);
}

static void
on_poke(uv_poll_t *poll, int status, int events)
{
	struct delivery *d = container_of(poll, struct delivery, poke);
	uint64_t count;

	(void)status, (void)events;                     /* only reading was asked for */
	(void)!read(d->poke_fd, &count, sizeof(count)); /* whatever it counts, on_prepare() reads */
	d->poked = true;
}

static void
on_safety(uv_timer_t *timer)
{
	struct delivery *d = container_of(timer, struct delivery, safety);
	int64_t now = clock_mono_ms();

	if (d->unhealthy)
		journal_flush(d->journal);
	tail_retry_keys(d);
	trace_flush(d->trace);
	conns_late(d);
	if (now - d->swept_ms >= SWEEP_MS) {
		d->swept_ms = now;
		hops_sweep(d, false);
	}
}

/* ---- opening -------------------------------------------------------------------------------- */

static struct compact_settings
compact_settings_of(const struct config *cfg)
{
	return (struct compact_settings){ .reserve = cfg->queue.reserve,
		.slack_bytes = COMPACT_SLACK_BYTES };
}

static int
open_spool(struct delivery *d, const struct delivery_options *o, struct err *err)
{
	const struct spool_settings own = { .reserve =
						0, /* a bounce may use what intake leaves alone */
		.memory = d->cfg->limits.memory };
	const struct compact_settings compact = compact_settings_of(d->cfg);

	if (spooldir_open(&d->dir, d->cfg->spool, err) < 0 ||
	    spooldir_lock(&d->dir, o->lock_wait_ms, err) < 0)
		return -1;
	d->journal = journal_open(d->loop, &d->dir, err);
	if (d->journal == NULL)
		return -1;
	d->told = (struct told){ .journal = d->journal, .on_told = settle_told, .data = d };
	d->reader = reader_open(&d->dir, d->journal, err);
	if (d->reader == NULL)
		return -1;
	contents_init(&d->contents, d->loop, d->reader);
	d->own = spool_open(d->loop, d->cfg->spool, &own, err);
	if (d->own == NULL)
		return -1;
	reader_look(d->reader); /* it is one of the logs */
	d->compact = compact_open(d->reader, d->journal, d->own, &compact);
	return d->compact != NULL ? 0 : err_set(err, ERR_NOMEM, "delivery");
}

static int
open_trace(struct delivery *d, struct err *err)
{
	char dir[TRACE_PATH_BYTES];

	snprintf(dir, sizeof(dir), "%s/trace", d->cfg->state);
	d->trace = trace_open(dir, "delivery", 0, err);
	if (d->trace == NULL)
		return -1;
	trace_leave_free(d->trace, d->cfg->queue.reserve + TRACE_LEAVES_BYTES);
	return 0;
}

static int
start_handles(struct delivery *d, struct err *err)
{
	int rc;

	/* None of these can fail on a loop that works, but for the descriptor. */
	(void)uv_prepare_init(d->loop, &d->prepare);
	(void)uv_check_init(d->loop, &d->check);
	(void)uv_idle_init(d->loop, &d->idle);
	(void)uv_timer_init(d->loop, &d->due);
	(void)uv_timer_init(d->loop, &d->sync);
	(void)uv_timer_init(d->loop, &d->safety);
	(void)uv_timer_init(d->loop, &d->finish);
	(void)uv_timer_init(d->loop, &d->nap);
	d->open_handles = 8;
	(void)uv_prepare_start(&d->prepare, on_prepare);
	(void)uv_check_start(&d->check, on_check);
	(void)uv_idle_start(&d->idle, on_idle);
	(void)uv_timer_start(&d->safety, on_safety, SAFETY_MS, SAFETY_MS);
	if (d->poke_fd < 0)
		return 0;
	rc = uv_poll_init(d->loop, &d->poke, d->poke_fd);
	if (rc < 0)
		return err_sys(err, -rc, "watch the pokes");
	d->open_handles++;
	(void)uv_poll_start(&d->poke, UV_READABLE, on_poke); /* it was taken just now */
	return 0;
}

struct delivery *
delivery_open(const struct delivery_options *o, struct err *err)
{
	struct delivery *d = calloc(1, sizeof(*d));

	if (d == NULL) {
		err_set(err, ERR_NOMEM, "delivery");
		return NULL;
	}
	d->loop = o->loop;
	d->cfg = config_ref(o->cfg);
	d->shared = o->shared;
	d->poke_fd = o->poke_fd;
	d->due_at_ms = -1;
	d->swept_ms = clock_mono_ms();
	d->warn_ms = 1; /* as soon as all is read */
	d->disk_alarm_ms = INT64_MIN / 2;
	d->schedule = schedule_of(d->cfg);
	d->stall_ms = HOP_STALL_MS;
	queue_init(&d->queue);
	if (o->whole > 0)
		d->queue.whole_max = o->whole;
	d->routes = routes_new(d->cfg, err);
	if (d->routes == NULL || providers_init(&d->providers, d, d->cfg, err) < 0 ||
	    identity_prepare(err) < 0 || open_spool(d, o, err) < 0 || open_trace(d, err) < 0)
		goto fail;
	d->tls = tls_client_new(o->ca_file, err);
	if (d->tls == NULL)
		goto fail;
	d->dns = dns_open_config(d->loop, d->cfg, err);
	if (d->dns == NULL || start_handles(d, err) < 0)
		goto fail;
	return d;
fail:
	delivery_close(d);
	return NULL;
}

/* ---- a new config --------------------------------------------------------------------------- */

static bool
same_strings(const struct config_strings *a, const struct config_strings *b)
{
	for (size_t i = 0; i < a->n && i < b->n; i++)
		if (strcmp(a->v[i], b->v[i]) != 0)
			return false;
	return a->n == b->n;
}

static int
renew_dns(struct delivery *d, const struct config *cfg, struct err *err)
{
	struct dns *dns;

	if (same_strings(&d->cfg->dns.servers, &cfg->dns.servers) &&
	    d->cfg->dns.timeout_ms == cfg->dns.timeout_ms)
		return 0;
	dns = dns_open_config(d->loop, cfg, err);
	if (dns == NULL)
		return -1;
	dns_close(d->dns);
	d->dns = dns;
	return 0;
}

int
delivery_reload(struct delivery *d, const struct config *cfg, struct err *err)
{
	struct routes *routes = routes_new(cfg, err);
	const struct config *old = d->cfg;
	struct providers providers = { .n = 0 };
	struct compact_settings compact;

	if (routes == NULL)
		return -1;
	if (providers_init(&providers, d, cfg, err) < 0 || renew_dns(d, cfg, err) < 0) {
		providers_fini(&providers);
		routes_free(routes);
		return -1;
	}
	hops_cancel(d); /* what is looked up borrows of the old one, and is looked up again */
	routes_free(d->routes);
	d->routes = routes;
	d->generation++;
	d->cfg = config_ref(cfg);
	d->schedule = schedule_of(cfg);
	compact = compact_settings_of(cfg);
	compact_configure(d->compact, &compact);
	providers_replace(d, &providers);
	config_unref((struct config *)(uintptr_t)old);
	conns_leave(d, false); /* they were opened as the old one wanted it: source, HELO, login */
	hops_reroute(d);
	hops_touch_all(d);
	return 0;
}

/* ---- the end -------------------------------------------------------------------------------- */

static void
on_last_sync(struct journal_sync *req, const struct err *err)
{
	struct delivery *d = container_of(req, struct delivery, last_sync);
	void (*done)(void *data) = d->drained;

	(void)err; /* what could not be synced will be done again */
	d->drained = NULL;
	d->n_waits--;
	if (done != NULL)
		done(d->drained_data);
	if (d->closing)
		delivery_ended_one(d);
}

static void
finish_drain(struct delivery *d)
{
	if (d->last_sync.done != NULL)
		return;
	(void)uv_timer_stop(&d->finish);
	d->last_sync.done = on_last_sync;
	d->n_waits++;
	journal_sync_start(&d->last_sync, d->journal);
}

static void
on_finish(uv_timer_t *timer)
{
	struct delivery *d = container_of(timer, struct delivery, finish);

	log_event("limit", kv_str("what", "drain"), kv_int("attempts", d->n_attempts));
	finish_drain(d);
}

void
delivery_drain(struct delivery *d, void (*done)(void *data), void *data)
{
	d->draining = true;
	d->drained = done;
	d->drained_data = data;
	(void)uv_timer_start(&d->finish, on_finish, DELIVERY_FINISH_MS, 0);
	conns_leave(d, false); /* by QUIT, after what is under way */
	delivery_ended_one(d);
}

static void
free_parked(struct delivery *d)
{
	struct index_cursor c = { .log = 0 };
	struct index_msg *entry;

	while (d->journal != NULL &&
	       (entry = index_cursor_next(journal_index(d->journal), &c)) != NULL)
		if (entry->parked)
			queue_parked_free(&d->queue, entry->user);
}

static void
free_all(struct delivery *d)
{
	free_parked(d);
	for (struct queue_msg *msg = d->queue.head; msg != NULL; msg = msg->next) {
		content_unref(msg->content);
		msg->content = NULL;
	}
	hops_forget_dialogues(d);
	queue_fini(&d->queue);
	hops_sweep(d, true);
	providers_fini(&d->providers);
	schedule_heap_fini(&d->waking);
	schedule_heap_fini(&d->pacing);
	contents_fini(&d->contents);
	told_fini(&d->told);
	compact_close(d->compact);
	reader_close(d->reader);
	journal_close(d->journal);
	spooldir_close(&d->dir);
	trace_close(d->trace);
	tls_client_unref(d->tls);
	routes_free(d->routes);
	config_unref((struct config *)(uintptr_t)d->cfg);
	free(d);
}

/* Frees d when nobody can call back any more. */
static void
free_if_over(struct delivery *d)
{
	if (d->closing && d->open_handles == 0 && d->n_conns == 0 && d->n_attempts == 0 &&
	    d->n_reports == 0 && d->n_waits == 0 && d->ops == NULL)
		free_all(d);
}

void
delivery_ended_one(struct delivery *d)
{
	if (d->closing)
		free_if_over(d);
	else if (d->draining && d->n_attempts == 0 && d->n_reports == 0)
		finish_drain(d);
}

static void
on_handle_closed(uv_handle_t *handle)
{
	struct delivery *d = handle->data;

	d->open_handles--;
	free_if_over(d);
}

static void
close_handle(struct delivery *d, uv_handle_t *handle)
{
	handle->data = d;
	uv_close(handle, on_handle_closed);
}

static void
close_handles(struct delivery *d)
{
	if (d->open_handles == 0)
		return; /* they were never opened */
	close_handle(d, (uv_handle_t *)&d->prepare);
	close_handle(d, (uv_handle_t *)&d->check);
	close_handle(d, (uv_handle_t *)&d->idle);
	close_handle(d, (uv_handle_t *)&d->due);
	close_handle(d, (uv_handle_t *)&d->sync);
	close_handle(d, (uv_handle_t *)&d->safety);
	close_handle(d, (uv_handle_t *)&d->finish);
	close_handle(d, (uv_handle_t *)&d->nap);
	if (d->open_handles > 8)
		close_handle(d, (uv_handle_t *)&d->poke);
}

void
delivery_close(struct delivery *d)
{
	if (d == NULL)
		return;
	d->closing = true;
	if (d->journal != NULL)
		journal_write(d->journal);
	control_stop(d);
	warn_stop(d);
	conns_leave(d, true);
	reports_go_on(d);
	spool_close(d->own);
	d->own = NULL;
	hops_cancel(d);
	dns_close(d->dns);
	d->dns = NULL;
	tail_retry_keys(d);
	close_handles(d);
	free_if_over(d);
}
