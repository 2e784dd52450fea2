/* relayd/delivery/control_top.c - the queue and its next hops in figures. */
#include "relayd/delivery/control_parts.h"

#include "relayd/core/clock.h"

#include <stdlib.h>

#define LOOKS_A_ROUND 20000 /* messages; nothing of them is read from the disk */
#define TOP_DEFAULT   20
#define TOP_MAX       1000

static json_t *
hop_line(const struct hop *hop)
{
	int64_t quiet = hop_quiet_until(hop);
	char waits_for[HOP_WAIT_BYTES];
	struct slice waits = hop_waits_for(hop, waits_for);
	json_t *line = json_pack("{s:s, s:s, s:I, s:I, s:I, s:I}", "nexthop", hop->route->name,
	    "state", quiet != 0 ? "down" : "up", "jobs",
	    (json_int_t)(hop->line.jobs + hop->failing.jobs), "waiting", (json_int_t)hop->line.n,
	    "connections", (json_int_t)hop->n_conns, "usual_ms",
	    (json_int_t)(hop->usual_us / 1000));

	if (line != NULL && quiet != 0) {
		json_object_set_new(line, "next_s", json_integer(show_seconds_until(quiet)));
		json_object_set_new(line, "why", show_text(slice_str(hop->why.text)));
	}
	if (line != NULL && waits.len > 0)
		json_object_set_new(line, "waits_for", show_text(waits));
	return line;
}

/* When the oldest message came, wall clock; now where there is none. */
static int64_t
oldest_wall_ms(const struct delivery *d)
{
	int64_t oldest = clock_wall_ms();

	for (const struct index_log *log = journal_index(d->journal)->logs; log != NULL;
	     log = log->next) {
		const struct index_segment *seg = log->segments;

		while (seg != NULL && seg->open == 0)
			seg = seg->next;
		if (seg != NULL && seg->msgs[0]->user != NULL &&
		    id_wall_ms(seg->msgs[0]->id) < oldest)
			oldest = id_wall_ms(seg->msgs[0]->id);
	}
	return oldest;
}

static void
put_totals(struct delivery *d, struct control_request *req)
{
	control_line(
	    req, json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:b, s:s}", "role", "delivery",
		     "messages", (json_int_t)d->queue.messages, "recipients",
		     (json_int_t)d->queue.recipients, "deferred", (json_int_t)d->queue.deferred.n,
		     "bytes", (json_int_t)d->queue.bytes, "oldest_s",
		     (json_int_t)((clock_wall_ms() - oldest_wall_ms(d)) / 1000), "connections",
		     (json_int_t)d->n_conns, "attempts", (json_int_t)d->n_attempts, "ready",
		     d->ready, "journal", d->unhealthy ? "failing" : "ok"));
}

static bool
is_busy(const struct hop *hop)
{
	return hop->line.jobs > 0 || hop->failing.jobs > 0 || hop->n_conns > 0;
}

void
top_status(struct delivery *d, struct control_request *req)
{
	put_totals(d, req);
	for (size_t i = 0; i < d->cap_hops; i++)
		for (const struct hop *hop = d->hops[i]; hop != NULL; hop = hop->next)
			if (is_busy(hop))
				control_line(req, hop_line(hop));
	control_end(req, NULL);
}

/* ---- the next hops with most to do ---------------------------------------------------------- */

/* Deepest first. */
static int
compare_hops(const void *a, const void *b)
{
	const struct hop *x = *(struct hop *const *)a, *y = *(struct hop *const *)b;
	size_t nx = x->line.jobs + x->failing.jobs, ny = y->line.jobs + y->failing.jobs;

	return nx < ny ? 1 : nx > ny ? -1 : strcmp(x->route->key, y->route->key);
}

static json_t *
top_line(struct hop *hop)
{
	json_t *line = hop_line(hop);

	if (line == NULL)
		return NULL;
	json_object_set_new(line, "oldest_s",
	    json_integer(hop->oldest_ms != INT64_MAX && hop->line.jobs + hop->failing.jobs > 0
			     ? (clock_mono_ms() - hop->oldest_ms) / 1000
			     : 0));
	json_object_set_new(line, "rate", json_integer(recent_rate(&hop->recent, clock_mono_ms())));
	json_object_set_new(line, "sent", json_integer((json_int_t)hop->sent));
	json_object_set_new(line, "error", show_text(slice_str(hop->last_error)));
	return line;
}

static void
put_hops(struct delivery *d, struct control_request *req, size_t limit)
{
	struct hop **v = calloc(d->n_hops + 1, sizeof(struct hop *));
	size_t n = 0;

	for (size_t i = 0; i < d->cap_hops && v != NULL; i++)
		for (struct hop *hop = d->hops[i]; hop != NULL && n < d->n_hops; hop = hop->next)
			if (is_busy(hop) || recent_rate(&hop->recent, clock_mono_ms()) > 0)
				v[n++] = hop;
	if (n > 0)
		qsort(v, n, sizeof(*v), compare_hops);
	for (size_t i = 0; i < n && i < limit; i++)
		control_line(req, top_line(v[i]));
	if (n > limit)
		control_line(req, json_pack("{s:I}", "more", (json_int_t)(n - limit)));
	free(v);
}

static json_t *
provider_line(const struct provider *p)
{
	return json_pack("{s:s, s:I, s:I, s:I, s:I, s:I}", p->conf != NULL ? "provider" : "host",
	    p->name, "connections", (json_int_t)p->n_conns, "max",
	    (json_int_t)provider_connections_max(p), "rate",
	    (json_int_t)recent_rate(&p->recent, clock_mono_ms()), "lack_connection",
	    (json_int_t)p->places.n, "wait_for_rate", (json_int_t)p->turns.n);
}

/* Those of the config that have to do, and hosts whose limit makes somebody wait. */
static void
put_providers(struct delivery *d, struct control_request *req, size_t limit)
{
	const struct providers *all = &d->providers;
	int64_t now = clock_mono_ms();
	size_t n = 0;

	for (size_t i = 0; i < all->n; i++)
		if (all->v[i].n_conns + all->v[i].turns.n + all->v[i].places.n > 0 ||
		    recent_rate(&all->v[i].recent, now) > 0)
			control_line(req, provider_line(&all->v[i]));
	for (size_t i = 0; i < PROVIDER_HOSTS; i++)
		for (const struct provider *p = all->hosts[i]; p != NULL; p = p->next)
			if (p->places.n > 0 && n++ < limit)
				control_line(req, provider_line(p));
}

static void
note_slot(const struct line_slot *slot)
{
	struct hop *hop = slot->line->owner;
	int64_t born_ms = hop_slot_born_ms(slot);

	if (born_ms < hop->oldest_ms)
		hop->oldest_ms = born_ms;
}

static void
note_age(const struct index_msg *entry)
{
	const struct queue_msg *msg = entry->user;

	if (entry->parked)
		note_slot(&((const struct queue_parked *)entry->user)->slot);
	else if (msg != NULL)
		for (const struct queue_job *job = msg->jobs; job != NULL; job = job->sibling)
			note_slot(&job->slot);
}

/* Who is oldest of a next hop's is known when all messages were looked at. */
static bool
top_step(struct control_op *op)
{
	json_int_t limit = json_integer_value(json_object_get(op->req->body, "limit"));
	struct index_msg *entry = NULL;

	for (unsigned i = 0; i < LOOKS_A_ROUND; i++) {
		entry = index_cursor_next(journal_index(op->d->journal), &op->cursor);
		if (entry == NULL)
			break;
		note_age(entry);
	}
	if (entry != NULL)
		return false;
	limit = limit <= 0 || limit > TOP_MAX ? TOP_DEFAULT : limit;
	put_totals(op->d, op->req);
	put_hops(op->d, op->req, (size_t)limit);
	put_providers(op->d, op->req, (size_t)limit);
	return true;
}

void
top_start(struct delivery *d, struct control_request *req)
{
	for (size_t i = 0; i < d->cap_hops; i++)
		for (struct hop *hop = d->hops[i]; hop != NULL; hop = hop->next)
			hop->oldest_ms = INT64_MAX;
	(void)op_start(d, req, top_step); /* the client was told */
}
