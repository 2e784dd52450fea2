/* relayd/delivery/hop.c - next hops: who waits for them, how they fare, and whose turn it is.
 *
 * A next hop that cannot be reached is left alone for a while, and all that stands in its line
 * waits with it and goes out as soon as one attempt gets through; so a dead next hop costs one
 * attempt at a time, whatever its line is, and delays nobody else's.
 */
#include "relayd/delivery/parts.h"

#include "relayd/core/clock.h"
#include "relayd/core/counters.h"
#include "relayd/core/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

/* Review is on this machine and back within seconds. */
static const uint32_t quarantine_retry_s[] = { 1, 2, 5, 10, 30 };

/* ---- the table of next hops ----------------------------------------------------------------- */

static size_t
hash_of(const char *key)
{
	uint64_t h = 14695981039346656037u;

	for (; *key != '\0'; key++)
		h = (h ^ (uint8_t)*key) * 1099511628211u;
	return (size_t)(h ^ (h >> 32));
}

static int
grow(struct delivery *d, struct err *err)
{
	size_t cap = d->cap_hops > 0 ? 2 * d->cap_hops : 64;
	struct hop **heads;

	if (d->n_hops < d->cap_hops)
		return 0;
	heads = calloc(cap, sizeof(struct hop *));
	if (heads == NULL)
		return d->cap_hops > 0 ? 0 : err_set(err, ERR_NOMEM, "next hops");
	for (size_t i = 0; i < d->cap_hops; i++) {
		while (d->hops[i] != NULL) {
			struct hop *hop = d->hops[i];
			size_t at = hash_of(hop->route->key) & (cap - 1);

			d->hops[i] = hop->next;
			hop->next = heads[at];
			heads[at] = hop;
		}
	}
	free(d->hops);
	d->hops = heads;
	d->cap_hops = cap;
	return 0;
}

static struct hop *
hop_new(struct delivery *d, const char *key, struct err *err)
{
	struct hop *hop = calloc(1, sizeof(*hop));

	if (hop == NULL) {
		err_set(err, ERR_NOMEM, "next hop");
		return NULL;
	}
	hop->route = route_hop_new(key, err);
	if (hop->route == NULL) {
		free(hop);
		return NULL;
	}
	hop->d = d;
	hop->line.owner = hop->failing.owner = hop;
	hop->window = HOP_CONNECTIONS_NEW;
	hop->used_ms = hop->recent.since_ms = clock_mono_ms();
	return hop;
}

struct hop *
hop_get(struct delivery *d, const char *key, struct err *err)
{
	size_t hash = hash_of(key);
	struct hop *hop;

	if (grow(d, err) < 0)
		return NULL;
	for (hop = d->hops[hash & (d->cap_hops - 1)]; hop != NULL; hop = hop->next)
		if (strcmp(hop->route->key, key) == 0)
			return hop;
	hop = hop_new(d, key, err);
	if (hop == NULL)
		return NULL;
	hop->next = d->hops[hash & (d->cap_hops - 1)];
	d->hops[hash & (d->cap_hops - 1)] = hop;
	d->n_hops++;
	return hop;
}

struct hop *
hop_of(const struct queue_job *job)
{
	return job->slot.line->owner;
}

int64_t
hop_slot_born_ms(const struct line_slot *slot)
{
	const struct schedule_now now = { .mono_ms = clock_mono_ms(), .wall_ms = clock_wall_ms() };

	if (!slot->parked)
		return container_of(slot, const struct queue_job, slot)->msg->born_ms;
	return schedule_born_ms(now, id_wall_ms(queue_slot_entry(slot)->id));
}

static bool
is_needed(const struct hop *hop, int64_t now_ms)
{
	return hop->line.jobs > 0 || hop->failing.jobs > 0 || hop->n_conns > 0 || hop->in_turn ||
	       hop->starving || hop->waits_at != NULL || hop->resolving != NULL ||
	       now_ms - hop->used_ms < HOP_IDLE_MS ||
	       hop->next_us > 1000 * now_ms; /* what it has had of its rate */
}

static void
hop_free(struct hop *hop)
{
	schedule_remove(&hop->d->waking, &hop->wake);
	schedule_remove(&hop->d->pacing, &hop->pace);
	provider_forget(hop);
	resolve_cancel(hop);
	queue_dialogue(&hop->d->queue, &hop->dialogue, SLICE(""));
	route_hop_free(hop->route);
	free(hop->addresses);
	free(hop);
}

void
hops_sweep(struct delivery *d, bool all)
{
	int64_t now = clock_mono_ms();

	for (size_t i = 0; i < d->cap_hops; i++) {
		struct hop **at = &d->hops[i];

		while (*at != NULL) {
			struct hop *hop = *at;

			if (!all && is_needed(hop, now)) {
				at = &hop->next;
				continue;
			}
			*at = hop->next;
			hop_free(hop);
			d->n_hops--;
		}
	}
	if (all) {
		free(d->hops);
		d->hops = NULL;
		d->cap_hops = 0;
	}
}

static void
each_hop(struct delivery *d, void (*each)(struct hop *hop))
{
	for (size_t i = 0; i < d->cap_hops; i++)
		for (struct hop *hop = d->hops[i]; hop != NULL; hop = hop->next)
			each(hop);
}

/* ---- whose turn it is ----------------------------------------------------------------------- */

void
hop_touch(struct hop *hop)
{
	struct delivery *d = hop->d;

	if (hop->in_turn)
		return;
	delivery_wake(d);
	hop->in_turn = true;
	hop->turn_next = NULL;
	if (d->turn_tail != NULL)
		d->turn_tail->turn_next = hop;
	else
		d->turn_head = hop;
	d->turn_tail = hop;
}

void
hops_touch_all(struct delivery *d)
{
	each_hop(d, hop_touch);
}

static bool
fail_one(struct hop *hop)
{
	struct delivery *d = hop->d;
	struct queue_job *job = tail_take(d, &hop->failing);
	struct hop_failure why = hop->why;
	struct err err;
	struct settle s = { .d = d, .job = job, .failure = &why, .nexthop = hop->route->name };

	if (job == NULL)
		return false;
	queue_job_move(job, &hop->line);
	s.content = tail_content(d, job->msg, &err);
	if (s.content == NULL)
		settle_unreadable(d, job, &err);
	else
		settle(&s);
	return true;
}

/* It is a route again, or the admin's choice for this message. */
static void
stay(struct hop *hop, struct queue_job *job)
{
	hop->gone = false;
	queue_ready(job, false);
	tail_park(hop->d, job->msg);
}

/* Who was deferred, held or on its way when the routes changed is in line only now. */
static bool
has_stragglers(const struct hop *hop)
{
	const struct line_slot *slot = hop->gone ? line_peek(&hop->line) : NULL;

	return slot != NULL &&
	       (slot->parked ||
		   container_of(slot, const struct queue_job, slot)->planned != hop->d->generation);
}

/* No route leads here any more: each job is read again and goes where it belongs now. */
static void
move_out(struct hop *hop)
{
	struct delivery *d = hop->d;

	for (unsigned i = 0; i < HOP_MOVES_A_ROUND && hop->to_move > 0 && hop->line.n > 0; i++) {
		struct queue_job *job = tail_take(d, &hop->line);
		struct err err;
		struct content *content;

		if (job == NULL)
			break;
		content = tail_content(d, job->msg, &err);
		if (content == NULL)
			settle_unreadable(d, job, &err);
		else if (tail_replan(d, job, content))
			stay(hop, job);
		content_unref(content);
		hop->to_move--;
	}
	if (hop->line.n == 0)
		hop->to_move = 0;
	if (hop->to_move > 0)
		hop_touch(hop);
}

/* Between two transactions of the hop, by its route; 0: it has no rate. */
static int64_t
pace_us(const struct hop *hop)
{
	const struct config_route *route = routes_named(hop->d->routes, hop->route);

	return route != NULL && route->rate_n > 0 ? 1000000 * (int64_t)route->rate_s / route->rate_n
						  : 0;
}

/* Whether the route lets one more transaction begin; else the hop has its turn when it does.  They
 * are evenly spaced, but for what one second may have. */
static bool
within_rate(struct hop *hop)
{
	int64_t now = clock_mono_us(), each = pace_us(hop);
	int64_t burst = each < 1000000 ? 1000000 - each : 0;

	if (each == 0 || hop->next_us - burst <= now)
		return true;
	(void)schedule_put(&hop->d->pacing, &hop->pace, /* else the next turn looks again */
	    clock_mono_ms() + (hop->next_us - burst - now) / 1000 + 1);
	return false;
}

static void
count_in_rate(struct hop *hop)
{
	int64_t now = clock_mono_us();

	hop->next_us = (hop->next_us > now ? hop->next_us : now) + pace_us(hop);
}

static void
take_turn(struct hop *hop)
{
	struct delivery *d = hop->d;
	struct conn *conn;

	if (!delivery_may_start(d))
		return;
	if (hop->to_move == 0 && has_stragglers(hop))
		hop->to_move = hop->line.n;
	if (hop->to_move > 0)
		move_out(hop);
	if (hop->condemned && hop->line.n > 0)
		hop_failed(hop, &hop->why);
	while (hop->failing.n > 0 && report_may_start(d) && fail_one(hop))
		;
	if (hop->failing.n > 0 && report_may_start(d))
		hop_touch(hop);
	if (hop->wake.at != 0 || hop->pace.at != 0 || hop->waits_at != NULL)
		return;
	/* In this order: none is opened for what has to wait. */
	while (hop->line.n > 0 && within_rate(hop) && (conn = conn_for(hop)) != NULL) {
		struct queue_job *job = tail_take(d, &hop->line);

		if (job == NULL) {
			hop_touch(hop);
			break;
		}
		if (attempt_start(conn, job)) {
			count_in_rate(hop);
			conn_count(conn);
		}
	}
}

void
hops_run(struct delivery *d)
{
	struct hop *hop = d->turn_head, *next;

	/* Who is touched meanwhile has his turn in the next round. */
	d->turn_head = d->turn_tail = NULL;
	for (; hop != NULL; hop = next) {
		next = hop->turn_next;
		hop->in_turn = false;
		hop->used_ms = clock_mono_ms();
		take_turn(hop);
		if (hop->called_by != NULL)
			provider_turn_over(hop);
	}
	/* Who was offered the place of a connection may have had no use for it: on to the next one,
	 * as there may be no other end of a connection to wait for. */
	for (unsigned n = d->n_conns - d->n_stalled;
	     n < HOPS_CONNECTIONS_MAX && d->starving_head != NULL; n++)
		conns_feed_starving(d);
}

/* ---- health --------------------------------------------------------------------------------- */

void
hop_failure_say(struct hop_failure *f, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(f->text, sizeof(f->text), fmt, ap); /* cut short is good enough */
	va_end(ap);
}

int64_t
hop_quiet_until(const struct hop *hop)
{
	return hop->wake.at != 0 ? hop->wake.due_ms : 0;
}

int64_t
hop_delay_ms(const struct hop *hop, unsigned attempts)
{
	static const struct schedule quarantine = { .retry_s = quarantine_retry_s,
		.n_retry = ARRAY_LEN(quarantine_retry_s) };

	return schedule_delay_ms(
	    hop->route->quarantine ? &quarantine : &hop->d->schedule, attempts);
}

static void
leave_alone(struct hop *hop, int64_t until_ms)
{
	/* Without memory for it, the next one to join its line has it tried again. */
	(void)schedule_put(&hop->d->waking, &hop->wake, until_ms);
	delivery_wake(hop->d);
}

void
hop_retry(struct hop *hop)
{
	schedule_remove(&hop->d->waking, &hop->wake);
	for (size_t i = 0; i < hop->n_addresses; i++)
		hop->addresses[i].rests_until_ms = 0;
	hop_touch(hop);
}

void
hop_hurry(struct hop *hop)
{
	int64_t soon = clock_mono_ms() + hop_delay_ms(hop, 1);

	if (hop->wake.at != 0 && hop->wake.due_ms > soon)
		leave_alone(hop, soon);
}

unsigned
hop_connections_max(const struct hop *hop)
{
	const struct config_route *route = routes_named(hop->d->routes, hop->route);
	unsigned max =
	    route != NULL && route->connections > 0 ? route->connections : HOP_CONNECTIONS_MAX;
	bool full = hop->full_at > 0 && clock_mono_ms() < hop->full_until_ms;

	return full && hop->full_at < max ? hop->full_at : max;
}

void
hop_is_full(struct hop *hop, unsigned n)
{
	hop->full_at = n;
	hop->full_until_ms = clock_mono_ms() + HOP_FULL_MS;
	if (hop->window > n)
		hop->window = n;
}

void
recent_count(struct recent *r, int64_t now_ms)
{
	int64_t past = now_ms - r->since_ms;

	if (past >= HOP_RATE_MS) {
		r->before = past < 2 * HOP_RATE_MS ? r->now : 0;
		r->now = 0;
		r->since_ms = past < 2 * HOP_RATE_MS ? r->since_ms + HOP_RATE_MS : now_ms;
	}
	r->now++;
}

unsigned
recent_rate(const struct recent *r, int64_t now_ms)
{
	int64_t past = now_ms - r->since_ms;
	int64_t before = past < HOP_RATE_MS ? r->before : r->now;
	int64_t now = past < HOP_RATE_MS ? r->now : 0;

	if (past >= 2 * HOP_RATE_MS)
		return 0;
	return (unsigned)(now + before * (HOP_RATE_MS - past % HOP_RATE_MS) / HOP_RATE_MS);
}

struct slice
hop_waits_for(const struct hop *hop, char out[static HOP_WAIT_BYTES])
{
	const struct config_route *route = routes_named(hop->d->routes, hop->route);
	const struct provider *p = hop->waits_at;
	struct buf b = buf_over(out, HOP_WAIT_BYTES - 1);

	if (hop->pace.at != 0 && route != NULL)
		buf_printf(&b, "the rate of route %s", route->domain);
	else if (p != NULL && hop->waits_in == &p->turns)
		buf_printf(&b, "the rate of provider %s", p->name);
	else if (p != NULL)
		buf_printf(&b, "one of the %u connections to %s%s", provider_connections_max(p),
		    p->conf != NULL ? "provider " : "", p->name);
	return buf_slice(&b);
}

void
hop_note_error(struct hop *hop, struct slice text)
{
	snprintf(hop->last_error, sizeof(hop->last_error), "%.*s",
	    SLICE_FMT(slice_head(text, sizeof(hop->last_error) - 1)));
}

void
hop_worked(struct hop *hop)
{
	recent_count(&hop->recent, clock_mono_ms());
	if (hop->window < HOP_CONNECTIONS_START)
		hop->window = HOP_CONNECTIONS_START;
	else if (hop->window < hop_connections_max(hop))
		hop->window++;
	hop->failures = 0;
	schedule_remove(&hop->d->waking, &hop->wake);
}

/* Once a minute is enough to be heard. */
void
hop_alarm(struct hop *hop, const char *why)
{
	struct delivery *d = hop->d;
	int64_t now = clock_mono_ms();

	if (d->alarm_ms != 0 && now - d->alarm_ms < 60000)
		return;
	d->alarm_ms = now;
	log_event("delivery.alarm", kv_str("what", "quarantine"),
	    kv_str("nexthop", hop->route->name), kv_slice("why", slice_str(why)),
	    kv_int("waiting", (int64_t)hop->line.jobs));
}

static bool
has_failed(const struct hop *hop, const struct line_slot *slot, int64_t now_ms)
{
	if (hop->route->quarantine)
		return false;
	return hop->why.permanent ||
	       schedule_expired(&hop->d->schedule, now_ms, hop_slot_born_ms(slot));
}

/* It will be a while. */
static void
forget_content(struct queue_msg *msg)
{
	content_unref(msg->content);
	msg->content = NULL;
}

void
hop_failed(struct hop *hop, const struct hop_failure *why)
{
	struct delivery *d = hop->d;
	int64_t now = clock_mono_ms();
	struct line_slot *slot = NULL, *next;

	hop->why = *why;
	hop_note_error(hop, slice_str(why->text));
	hop->failures++;
	hop->missed++;
	hop->window = 1;
	hop->resolved_ms = 0;
	for (size_t i = 0; i < hop->n_addresses; i++)
		hop->addresses[i].rests_until_ms = 0; /* all are tried again next time */
	/* Most often nothing is to be done about a long line that was looked through before. */
	if (hop->line.untold > 0 || why->permanent || now >= hop->expires_ms) {
		slot = line_first(&hop->line);
		hop->expires_ms = INT64_MAX;
	}
	for (; slot != NULL; slot = next) {
		int64_t expires_ms = hop_slot_born_ms(slot) + 1000 * (int64_t)d->schedule.expire_s;

		next = line_next(&hop->line, slot);
		if (has_failed(hop, slot, now)) {
			queue_slot_move(slot, &hop->failing);
			continue;
		}
		if (expires_ms < hop->expires_ms)
			hop->expires_ms = expires_ms;
		settle_tell(d, slot, why);
		if (!slot->parked)
			forget_content(container_of(slot, struct queue_job, slot)->msg);
	}
	if (hop->route->quarantine)
		hop_alarm(hop, hop->why.text);
	if (!hop->condemned)
		leave_alone(hop, now + hop_delay_ms(hop, hop->failures));
	if (hop->failing.n > 0)
		hop_touch(hop);
}

void
hops_wake(struct delivery *d, int64_t now_ms)
{
	struct schedule_node *node;

	while ((node = schedule_first(&d->waking)) != NULL && node->due_ms <= now_ms) {
		struct hop *hop = container_of(node, struct hop, wake);

		schedule_remove(&d->waking, node);
		hop_touch(hop);
	}
	while ((node = schedule_first(&d->pacing)) != NULL && node->due_ms <= now_ms) {
		schedule_remove(&d->pacing, node);
		hop_touch(container_of(node, struct hop, pace));
	}
}

void
hops_forget_providers(struct delivery *d)
{
	each_hop(d, provider_forget);
}

static void
forget_dialogue(struct hop *hop)
{
	queue_dialogue(&hop->d->queue, &hop->dialogue, SLICE(""));
}

void
hops_forget_dialogues(struct delivery *d)
{
	each_hop(d, forget_dialogue);
}

void
hops_cancel(struct delivery *d)
{
	each_hop(d, resolve_cancel);
}

/* ---- after a reload ------------------------------------------------------------------------- */

static void
reroute(struct hop *hop)
{
	int64_t next_us = clock_mono_us() + pace_us(hop);

	hop->resolved_ms = 0;       /* the config may have other sources */
	hop->expires_ms = 0;        /* and another time */
	if (hop->next_us > next_us) /* and another rate */
		hop->next_us = next_us;
	schedule_remove(&hop->d->pacing, &hop->pace);
	hop->gone = !hop->condemned && !routes_has(hop->d->routes, hop->route->key);
	if (!hop->gone)
		return;
	hop->to_move = hop->line.n;
	hop_retry(hop);
}

void
hops_reroute(struct delivery *d)
{
	each_hop(d, reroute);
}
