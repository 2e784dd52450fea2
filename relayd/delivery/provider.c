/* relayd/delivery/provider.c - what next hops share that lead to the same hosts: a number of
 * connections, and a rate.
 *
 * A provider is a section of the config, or any one host that MX records lead to, so that many
 * domains at one host are no more connections to it than one domain is.  Next hops that lack a
 * place for a connection stand in one line, those that wait for the rate in another; each is called
 * for one transaction, one at a time, so that all have their turn and none has to ask again.
 * Nobody else waits for them.
 *
 * Who waits is called: for a place when a connection ends or is of no more use, and for the rate by
 * a timer.
 */
#include "relayd/delivery/parts.h"

#include "relayd/core/clock.h"
#include "relayd/core/counters.h"

#include <stdlib.h>

/* ---- who shares what ------------------------------------------------------------------------ */

static size_t
bucket_of(const char *host, const struct config_route *route)
{
	uint64_t h = 14695981039346656037u ^ (uintptr_t)route;

	for (; *host != '\0'; host++)
		h = (h ^ (uint8_t)slice_lower(*host)) * 1099511628211u;
	return (size_t)(h ^ (h >> 32)) & (PROVIDER_HOSTS - 1);
}

/* Of a host that MX records lead to: each route counts its own connections. */
static struct provider *
host_of(struct delivery *d, const char *host, const struct config_route *route)
{
	struct provider **head = &d->providers.hosts[bucket_of(host, route)], *p;
	size_t len = strlen(host) + 1;

	for (p = *head; p != NULL; p = p->next)
		if (p->route == route && slice_ieq(slice_str(p->name), slice_str(host)))
			return p;
	p = calloc(1, sizeof(*p) + len);
	if (p == NULL)
		return NULL; /* then it is counted with none */
	p->d = d;
	p->route = route;
	p->name = memcpy(p + 1, host, len);
	p->next = *head;
	*head = p;
	return p;
}

struct provider *
provider_of(struct hop *hop, uint16_t target, const char *host)
{
	struct delivery *d = hop->d;
	const struct nexthop *to = &hop->route->targets[target];
	const struct config_provider *conf;

	if (to->path[0] != '\0' || hop->route->quarantine)
		return NULL;
	conf = config_provider_for(d->cfg, slice_str(host), slice_str(to->mx ? to->host : ""));
	if (conf != NULL && d->providers.v != NULL)
		return &d->providers.v[conf - d->cfg->providers];
	return to->mx ? host_of(d, host, routes_named(d->routes, hop->route)) : NULL;
}

void
provider_done(struct provider *p)
{
	struct provider **at;

	if (p->conf != NULL || p->n_conns > 0 || p->places.head != NULL || p->called != NULL)
		return;
	at = &p->d->providers.hosts[bucket_of(p->name, p->route)];
	while (*at != p)
		at = &(*at)->next;
	*at = p->next;
	free(p);
}

unsigned
provider_connections_max(const struct provider *p)
{
	if (p->conf != NULL)
		return p->conf->connections;
	return p->route != NULL && p->route->connections > 0 ? p->route->connections
							     : HOP_CONNECTIONS_MAX;
}

/* ---- the lines ------------------------------------------------------------------------------ */

static void
join(struct provider *p, struct provider_line *line, struct hop *hop)
{
	bool first = hop->was_called;

	hop->was_called = false;
	hop->waits_at = p;
	hop->waits_in = line;
	hop->waits_prev = first ? NULL : line->tail;
	hop->waits_next = first ? line->head : NULL;
	*(hop->waits_prev != NULL ? &hop->waits_prev->waits_next : &line->head) = hop;
	*(hop->waits_next != NULL ? &hop->waits_next->waits_prev : &line->tail) = hop;
	line->n++;
}

static void
leave(struct hop *hop)
{
	struct provider_line *line = hop->waits_in;

	*(hop->waits_prev != NULL ? &hop->waits_prev->waits_next : &line->head) = hop->waits_next;
	*(hop->waits_next != NULL ? &hop->waits_next->waits_prev : &line->tail) = hop->waits_prev;
	line->n--;
	hop->waits_at = NULL;
	hop->waits_in = NULL;
}

/* Between two transactions; 0: it has no rate. */
static int64_t
pace_us(const struct config_provider *conf)
{
	return conf != NULL && conf->rate_n > 0 ? 1000000 * (int64_t)conf->rate_s / conf->rate_n
						: 0;
}

/* In how many microseconds one more may begin.  Evenly spaced, but for what one second may have. */
static int64_t
rate_us(const struct provider *p)
{
	int64_t each = pace_us(p->conf), burst = each < 1000000 ? 1000000 - each : 0, left;

	if (each == 0)
		return 0;
	left = p->next_us - burst - clock_mono_us();
	return left > 0 ? left : 0;
}

/* The one that is to end for a new one; NULL: none, or one is about to. */
static struct conn *
to_end(const struct provider *p)
{
	return p->n_conns - p->n_leaving >= provider_connections_max(p) ? conn_spare(p) : NULL;
}

static bool
has_place(const struct provider *p)
{
	return p->n_conns < provider_connections_max(p) || to_end(p) != NULL;
}

/* One at a time: what he was called for is there when his turn comes. */
static void
call_next(struct provider *p)
{
	struct hop *hop = p->places.head;
	int64_t wait_us;

	if (p->called != NULL || (hop == NULL && p->turns.head == NULL))
		return;
	if (hop == NULL || !has_place(p))
		hop = p->turns.head;
	if (hop == NULL)
		return; /* until a connection ends */
	wait_us = rate_us(p);
	if (wait_us > 0 && schedule_put(&p->d->providers.pacing, &p->pace,
			       clock_mono_ms() + wait_us / 1000 + 1) == 0)
		return;
	leave(hop);
	p->called = hop;
	hop->called_by = p;
	hop->call_used = false;
	hop_touch(hop);
}

/* The hop may take what there is: it was called for it, or nobody waits. */
static bool
is_next(const struct provider *p, const struct hop *hop, bool others)
{
	if (hop->called_by == p && !hop->call_used)
		return true;
	return !others && (p->called == NULL || p->called == hop);
}

bool
provider_within_rate(struct provider *p, struct hop *hop)
{
	if (pace_us(p->conf) == 0)
		return true;
	if (is_next(p, hop, p->turns.head != NULL || (p->places.head != NULL && has_place(p))) &&
	    rate_us(p) == 0)
		return true;
	join(p, &p->turns, hop);
	call_next(p);
	return false;
}

bool
provider_is_open_to(const struct provider *p, const struct hop *hop)
{
	return is_next(p, hop, p->places.head != NULL);
}

bool
provider_has_place(struct provider *p, struct hop *hop, size_t address)
{
	struct conn *spare;

	if (provider_is_open_to(p, hop)) {
		if (p->n_conns < provider_connections_max(p))
			return true;
		spare = to_end(p);
		if (spare != NULL)
			conn_give_up(spare);
		hop->was_called = hop->called_by == p; /* its end comes soon */
	}
	if (hop->n_conns > 0)
		return false; /* it has its turn with what it has */
	counter_add(COUNTER_LIMIT_HITS, 1);
	hop->wants = address;
	join(p, &p->places, hop);
	call_next(p);
	return false;
}

void
provider_count(struct provider *p, struct hop *hop)
{
	int64_t each = pace_us(p->conf), now;

	if (hop->called_by == p)
		hop->call_used = true;
	if (p->conf == NULL)
		return;
	recent_count(&p->recent, clock_mono_ms());
	if (each == 0)
		return;
	now = clock_mono_us();
	p->next_us = (p->next_us > now ? p->next_us : now) + each;
}

void
provider_turn_over(struct hop *hop)
{
	struct provider *p = hop->called_by;
	struct conn *spare;

	/* What it was called for goes on to the next one, and it is the first again when it is
	 * ready. */
	hop->was_called = hop->waits_at == NULL && hop->resolving != NULL && !hop->call_used;
	hop->called_by = NULL;
	p->called = NULL;
	call_next(p);
	spare = p->called == NULL ? conn_spare(p) : NULL;
	if (spare != NULL)
		hop_touch(conn_hop(spare)); /* it was offered in vain */
	provider_done(p);
}

void
provider_spare(struct provider *p)
{
	if (p->places.head != NULL)
		call_next(p);
}

void
provider_left(struct provider *p)
{
	p->n_conns--;
	call_next(p);
	provider_done(p);
}

void
provider_forget(struct hop *hop)
{
	struct provider *p = hop->waits_at != NULL ? hop->waits_at : hop->called_by;

	if (p == NULL)
		return;
	if (hop->waits_at != NULL)
		leave(hop);
	if (hop->called_by == p)
		p->called = NULL;
	hop->called_by = NULL;
	call_next(p);
	provider_done(p);
}

void
providers_wake(struct delivery *d, int64_t now_ms)
{
	struct schedule_node *node;

	while ((node = schedule_first(&d->providers.pacing)) != NULL && node->due_ms <= now_ms) {
		schedule_remove(&d->providers.pacing, node);
		call_next(container_of(node, struct provider, pace));
	}
}

/* ---- with the config ------------------------------------------------------------------------ */

/* What an earlier config let through counts on, as far as this one's rate goes. */
static void
inherit(struct provider *p, const struct providers *old)
{
	int64_t next_us = clock_mono_us() + pace_us(p->conf);

	for (size_t i = 0; i < old->n; i++) {
		if (strcmp(old->v[i].name, p->name) != 0)
			continue;
		p->next_us = old->v[i].next_us < next_us ? old->v[i].next_us : next_us;
		p->recent = old->v[i].recent;
	}
}

static void
free_hosts(struct providers *all)
{
	for (size_t i = 0; i < PROVIDER_HOSTS; i++) {
		struct provider *p = all->hosts[i], *next;

		for (; p != NULL; p = next) {
			next = p->next;
			free(p);
		}
	}
	free(all->v);
	schedule_heap_fini(&all->pacing);
}

int
providers_init(
    struct providers *fresh, struct delivery *d, const struct config *cfg, struct err *err)
{
	*fresh = (struct providers){ .n = cfg->n_providers };
	fresh->v = calloc(fresh->n + 1, sizeof(*fresh->v));
	if (fresh->v == NULL)
		return err_set(err, ERR_NOMEM, "providers");
	for (size_t i = 0; i < fresh->n; i++) {
		fresh->v[i].d = d;
		fresh->v[i].conf = &cfg->providers[i];
		fresh->v[i].name = cfg->providers[i].name;
	}
	return 0;
}

void
providers_replace(struct delivery *d, struct providers *fresh)
{
	struct providers old;

	hops_forget_providers(d);
	old = d->providers; /* less the hosts that were waited for */
	for (size_t i = 0; i < fresh->n; i++)
		inherit(&fresh->v[i], &old);
	d->providers = *fresh;
	*fresh = (struct providers){ .n = 0 };
	free_hosts(&old);
	conns_count_again(d);
}

void
providers_fini(struct providers *all)
{
	free_hosts(all);
	*all = (struct providers){ .n = 0 };
}
