/* relayd/intake/intake.c - the intake role: start, listeners, reload, drain. */
#include "relayd/intake/intake.h"

#include "relayd/auth/introspect.h"
#include "relayd/auth/keytab.h"
#include "relayd/core/clock.h"
#include "relayd/core/log.h"
#include "relayd/intake/greeting.h"
#include "relayd/net/steer.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* ---- what sessions tell ------------------------------------------------------------------- */

static void finish(struct intake *in);

void
intake_joined(struct intake *in, struct session *s)
{
	s->next = in->sessions;
	if (s->next != NULL)
		s->next->prev = s;
	in->sessions = s;
	in->n_sessions++;
	in->n_release += s->release;
	counter_add(COUNTER_SESSIONS_OPEN, 1);
}

void
intake_left(struct intake *in, struct session *s)
{
	if (s->prev != NULL)
		s->prev->next = s->next;
	else
		in->sessions = s->next;
	if (s->next != NULL)
		s->next->prev = s->prev;
	in->n_sessions--;
	in->n_release -= s->release;
	counter_add(COUNTER_SESSIONS_OPEN, -1);
	intake_idle(in);
}

void
intake_idle(struct intake *in)
{
	if (in->n_sessions > 0 || in->n_arrivals > 0)
		return;
	if (in->stopping && !in->loading)
		finish(in);
	else if (in->draining || in->retiring)
		role_finished(in->role);
}

static void
on_trace_timer(uv_timer_t *timer)
{
	struct intake *in = container_of(timer, struct intake, trace_timer);

	trace_flush(in->trace);
}

/* Traces wait for each other a moment, so that they cost one write and not one each. */
void
intake_traced(struct intake *in)
{
	if (!in->stopping && !uv_is_active((uv_handle_t *)&in->trace_timer))
		(void)uv_timer_start(&in->trace_timer, on_trace_timer, INTAKE_TRACE_MS,
		    0); /* an open timer: cannot fail */
}

bool
intake_may(struct intake_budget *b, unsigned max)
{
	int64_t second = clock_mono_ms() / 1000;

	if (b->second != second)
		*b = (struct intake_budget){ .second = second };
	return b->used++ < max;
}

static void
on_late_timer(uv_timer_t *timer)
{
	session_try_late(container_of(timer, struct intake, late_timer));
}

void
intake_late(struct intake *in)
{
	if (!uv_is_active((uv_handle_t *)&in->late_timer))
		(void)uv_timer_start(&in->late_timer, on_late_timer, INTAKE_LATE_MS,
		    0); /* an open timer: cannot fail */
}

/* A message is durable: delivery may be asleep. */
static void
on_durable(void *data)
{
	struct intake *in = data;

	role_poke(in->role);
}

/* ---- start -------------------------------------------------------------------------------- */

static struct spool_settings
spool_settings_of(struct intake *in, const struct config *cfg)
{
	return (struct spool_settings){
		.reserve = cfg->queue.reserve,
		.memory = cfg->limits.memory,
		.on_durable = on_durable,
		.data = in,
	};
}

/* Traces stop before the disk is so full that mail has to. */
static void
leave_free(struct intake *in, const struct config *cfg)
{
	trace_leave_free(in->trace, cfg->queue.reserve + INTAKE_TRACE_MARGIN);
}

static int
open_stores(struct intake *in, struct err *err)
{
	const struct config *cfg = in->role->config;
	struct spool_settings settings = spool_settings_of(in, cfg);
	char path[ROLE_PATH_BYTES];

	in->spool = spool_open(in->role->loop, cfg->spool, &settings, err);
	if (in->spool == NULL)
		return -1;
	role_poke(in->role); /* delivery meets a new log before its first message */
	(void)snprintf(path, sizeof(path), "%s/trace", cfg->state); /* too long: open refuses it */
	in->trace = trace_open(path, "intake", in->role->index, err);
	if (in->trace == NULL)
		return -1;
	leave_free(in, cfg);
	(void)snprintf(path, sizeof(path), "%s/db", cfg->state); /* the same */
	in->state = state_open(in->role->loop, path, 0, err);
	return in->state != NULL ? 0 : -1;
}

static int
open_sources(struct intake *in, struct err *err)
{
	in->dns = dns_open_config(in->role->loop, in->role->config, err);
	if (in->dns == NULL)
		return -1;
	in->facts = facts_open(in->role->loop, in->dns, in->state);
	if (in->facts != NULL)
		facts_use_client_source(in->facts, &fact_source_greeting, in->role->loop);
	in->passwords = password_pool_new(in->role->loop);
	in->backoff = &in->role->shared->logins;
	if (in->facts == NULL || in->passwords == NULL)
		return err_set(err, ERR_NOMEM, "no memory for intake");
	facts_configure(in->facts, in->role->config);
	return 0;
}

/* Once a config wants it, there is one for good.  Without authorities every probe of a next hop
 * that must be verified fails, which its reply says. */
static int
open_probe(struct intake *in, struct generation *gen, struct err *err)
{
	struct probe_options options = {
		.hostname = gen->cfg->hostname,
		.dns = in->dns,
		.state = in->state,
		.known_s = gen->cfg->recipients.known_s,
		.unknown_s = gen->cfg->recipients.unknown_s,
		.unreachable_s = gen->cfg->recipients.unreachable_s,
	};
	struct err why;

	if (!gen->wants_probe || in->probe != NULL)
		return 0;
	in->tls_client = tls_client_new(NULL, &why);
	if (in->tls_client == NULL)
		log_event("limit", kv_str("what", "authorities"), kv_err("why", &why));
	options.tls_client = in->tls_client;
	in->probe = probe_new(in->role->loop, &options, err);
	if (in->probe == NULL) {
		tls_client_unref(in->tls_client);
		in->tls_client = NULL;
		return -1;
	}
	in->probe_gen = generation_ref(gen); /* the probe borrows its host name */
	return 0;
}

/* A kernel that cannot do it spreads connections over all workers. */
static void
steer(struct intake *in, int64_t now_ms)
{
	in->steered_ms = now_ms;
	for (size_t i = 0; i < in->role->n_listeners; i++)
		if (in->role->listeners[i].first)
			(void)steer_to_first(in->role->listeners[i].fd, in->spread.now);
}

/* Only who has the first socket of each port is sure to get connections: it decides for all. */
static void
spread_over_workers(struct intake *in)
{
	size_t open = in->n_sessions + in->n_arrivals;
	int64_t now_ms = (int64_t)uv_now(in->role->loop);

	if (!spread_is_due(&in->spread, open, now_ms))
		return;
	/* Again also when nothing changed: workers of a config that did not come to be may have
	 * steered. */
	if (spread_update(&in->spread, open, now_ms, clock_cpu_us()) ||
	    now_ms - in->steered_ms >= STEER_MS)
		steer(in, now_ms);
}

static void
on_accept(void *owner, int fd, const struct sockaddr *peer)
{
	struct entrance *at = owner;

	spread_over_workers(at->in);
	arrival_open(at, fd, peer);
}

static int
open_entrances(struct intake *in, struct err *err)
{
	const struct role *role = in->role;
	int64_t now_ms = (int64_t)uv_now(role->loop);
	bool leads = false;

	in->entrances = calloc(role->n_listeners + 1, sizeof(*in->entrances));
	if (in->entrances == NULL)
		return err_set(err, ERR_NOMEM, "no memory for the listeners");
	for (size_t i = 0; i < role->n_listeners; i++) {
		struct entrance *at = &in->entrances[in->n_entrances];

		if (role->listeners[i].kind != ROLE_LISTENER_SMTP &&
		    role->listeners[i].kind != ROLE_LISTENER_RELEASE)
			continue;
		*at = (struct entrance){ .in = in, .index = i };
		at->listener = listener_open(role->loop, role->listeners[i].fd, on_accept, at, err);
		if (at->listener == NULL)
			return err_prefix(err, "listen on %s", role->listeners[i].address);
		in->n_entrances++;
		leads = leads || role->listeners[i].first;
	}
	if (!leads)
		return 0;
	spread_init(&in->spread, role->config->workers, now_ms, clock_cpu_us());
	steer(in, now_ms);
	return 0;
}

static void
say_warnings(const struct generation *gen)
{
	const char *text;

	for (size_t i = 0; (text = pipeline_warning(gen->pipeline, i)) != NULL; i++)
		log_event("limit", kv_str("what", "config"), kv_slice("why", slice_str(text)));
}

/* What a login needs and could not open later. */
static int
prepare(struct role *role, struct err *err)
{
	const struct config *cfg = role->config;
	struct err why = { 0 };
	struct slice keytab;

	if (cfg->sasl.keytab != NULL && config_file(cfg, cfg->sasl.keytab, &keytab) &&
	    keytab_open(keytab, cfg->state, err) < 0)
		return -1;
	if (sasl_prepare(keytab_is_open() ? "smtp" : NULL, cfg->hostname, &why) < 0)
		log_event("limit", kv_str("what", "config"), kv_err("why", &why));
	return cfg->sasl.introspect != NULL
		   ? introspect_open(cfg->sasl.introspect, cfg->sasl.introspect_ms, err)
		   : 0;
}

/* The same, as far as it can change while the role runs. */
static void
prepare_again(const struct config *cfg)
{
	const char *command = introspect_command();
	struct err err = { 0 };
	struct slice keytab;

	if (cfg->sasl.introspect != NULL &&
	    (command == NULL || strcmp(command, cfg->sasl.introspect) != 0))
		log_event("limit", kv_str("what", "config"),
		    kv_str("why", "another introspect needs a restart"));
	if (cfg->sasl.keytab != NULL && config_file(cfg, cfg->sasl.keytab, &keytab) &&
	    keytab_replace(keytab, &err) < 0)
		log_event("limit", kv_str("what", "config"), kv_err("why", &err));
}

static int
start(struct role *role, struct err *err)
{
	struct intake *in = calloc(1, sizeof(*in));
	struct recipients_tables *recipients;

	if (in == NULL)
		return err_set(err, ERR_NOMEM, "no memory for intake");
	role->state = in;
	in->role = role;
	shared_use(role->shared, role->index);
	(void)uv_timer_init(role->loop, &in->trace_timer); /* cannot fail */
	(void)uv_timer_init(role->loop, &in->late_timer);  /* the same */
	recipients = recipients_tables_new(role->config, err);
	in->gen = recipients != NULL ? generation_new(role, NULL, recipients, err) : NULL;
	/* The listeners last: who gets in finds all the rest ready. */
	if (in->gen == NULL || open_stores(in, err) < 0 || open_sources(in, err) < 0 ||
	    open_probe(in, in->gen, err) < 0 || open_entrances(in, err) < 0)
		return -1; /* the process exits */
	say_warnings(in->gen);
	return 0;
}

/* ---- for a sibling that is down -------------------------------------------------------------- */

static bool
has_lent(const struct intake *in, unsigned worker, unsigned number)
{
	const struct lent *lent = in->lent;

	while (lent != NULL && (lent->worker != worker || lent->number != number))
		lent = lent->next;
	return lent != NULL;
}

/* A worker that dies again before it was ready has us given the same once more. */
static void
lend(struct role *role, unsigned worker, unsigned number, size_t index, int fd)
{
	struct intake *in = role->state;
	struct lent *lent = has_lent(in, worker, number) ? NULL : calloc(1, sizeof(*lent));
	struct err err;

	if (lent != NULL) {
		*lent = (struct lent){ .at = { .in = in, .index = index },
			.worker = worker,
			.number = number,
			.fd = fd };
		lent->at.listener = listener_open(role->loop, fd, on_accept, &lent->at, &err);
	}
	if (lent == NULL ||
	    lent->at.listener == NULL) { /* without memory its clients wait for it */
		(void)close(fd);         /* the supervisor has it too */
		free(lent);
		return;
	}
	lent->next = in->lent;
	in->lent = lent;
}

static void
return_lent(struct lent **place)
{
	struct lent *lent = *place;

	*place = lent->next;
	listener_close(lent->at.listener);
	(void)close(lent->fd); /* nobody watches it any more */
	free(lent);
}

static void
take_back(struct role *role, unsigned worker)
{
	struct intake *in = role->state;
	struct lent **place = &in->lent;

	while (*place != NULL) {
		if ((*place)->worker == worker)
			return_lent(place);
		else
			place = &(*place)->next;
	}
}

/* ---- reload, drain, stop -------------------------------------------------------------------- */

/* Takes recipients over in any case. */
static int
use_config(struct role *role, struct recipients_tables *recipients, struct err *err)
{
	struct intake *in = role->state;
	struct generation *fresh = generation_new(role, in->gen, recipients, err);
	struct generation *before = in->gen;
	struct spool_settings settings = spool_settings_of(in, role->config);

	if (fresh == NULL)
		return -1;
	if (open_probe(in, fresh, err) < 0) {
		generation_unref(fresh);
		return -1;
	}
	spool_configure(in->spool, &settings);
	facts_configure(in->facts, role->config);
	if (in->probe != NULL)
		probe_set_lifetimes(in->probe, fresh->cfg->recipients.known_s,
		    fresh->cfg->recipients.unknown_s, fresh->cfg->recipients.unreachable_s);
	leave_free(in, role->config);
	prepare_again(role->config);
	in->gen = fresh;
	generation_unref(before);
	say_warnings(fresh);
	return 0;
}

static void
on_recipients_loaded(struct recipients_load *load)
{
	struct intake *in = container_of(load, struct intake, load);
	struct role *role = in->role;
	bool failed = load->tables == NULL;

	in->loading = false;
	if (in->stopping) {
		recipients_tables_unref(load->tables);
		role_reloaded(role, &(struct err){ .code = ERR_CANCELLED, .msg = "stopping" });
		intake_idle(in);
		return;
	}
	failed = failed || use_config(role, load->tables, &load->err) < 0;
	role_reloaded(role, failed ? &load->err : NULL);
}

/* Sessions go on under the old config while a large file of recipients is read. */
static int
reload(struct role *role, const struct config *old, struct err *err)
{
	struct intake *in = role->state;
	struct recipients_tables *ready;

	(void)old; /* sessions hold on to their generation */
	in->load.done = on_recipients_loaded;
	if (recipients_load_start(
		role->loop, &in->load, role->config, in->gen->recipients, &ready, err) < 0)
		return -1;
	if (ready != NULL)
		return use_config(role, ready, err);
	in->loading = true;
	return ROLE_RELOAD_LATER;
}

static void
close_entrances(struct intake *in)
{
	for (size_t i = 0; i < in->n_entrances; i++) {
		listener_close(in->entrances[i].listener);
		in->entrances[i].listener = NULL;
	}
	while (in->lent != NULL)
		return_lent(&in->lent);
}

/* What waits in the queues is still served here: a socket of a listener that the config does not
 * name any more has nobody else. */
static void
retire(struct role *role)
{
	struct intake *in = role->state;

	for (size_t i = 0; i < in->n_entrances; i++)
		listener_last_call(in->entrances[i].listener);
	close_entrances(in);
	in->retiring = true;
	intake_idle(in);
}

static void
drain(struct role *role)
{
	struct intake *in = role->state;

	if (in->draining)
		return;
	in->draining = true;
	close_entrances(in);
	arrival_cancel_all(in);
	session_try_late(in);
	for (struct session *s = in->sessions, *next; s != NULL; s = next) {
		next = s->next;
		if (s->server != NULL)
			smtp_server_shutdown(s->server, SMTP_END_SERVICE);
	}
	intake_idle(in);
}

static void
on_timer_closed(uv_handle_t *timer)
{
	struct intake *in = timer->data;

	if (--in->timers == 0)
		free(in);
}

static void
close_timer(struct intake *in, uv_timer_t *timer)
{
	timer->data = in;
	in->timers++;
	uv_close((uv_handle_t *)timer, on_timer_closed);
}

/* The last session is gone, and nothing is on its way. */
static void
finish(struct intake *in)
{
	probe_free(in->probe);
	tls_client_unref(in->tls_client);
	facts_close(in->facts);
	state_close(in->state);
	dns_close(in->dns);
	spool_close(in->spool);
	trace_close(in->trace);
	password_pool_free(in->passwords);
	generation_unref(in->probe_gen);
	generation_unref(in->gen);
	free(in->entrances);
	close_timer(in, &in->trace_timer);
	close_timer(in, &in->late_timer);
}

static void
stop(struct role *role)
{
	struct intake *in = role->state;

	role->state = NULL;
	in->draining = true;
	close_entrances(in);
	arrival_cancel_all(in);
	session_try_late(in);
	in->stopping = true;
	for (struct session *s = in->sessions; s != NULL; s = s->next)
		if (s->server != NULL)
			smtp_server_close(s->server);
	intake_idle(in);
}

const struct role_ops intake_role = {
	.prepare = prepare,
	.start = start,
	.reload = reload,
	.retire = retire,
	.drain = drain,
	.lend = lend,
	.take_back = take_back,
	.stop = stop,
};
