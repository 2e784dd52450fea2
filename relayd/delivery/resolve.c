/* relayd/delivery/resolve.c - looks up where a next hop is: all its targets, in the order of
 * failover. */
#include "relayd/delivery/parts.h"

#include "relayd/core/clock.h"
#include "relayd/delivery/ours.h"

#include <stdio.h>
#include <stdlib.h>

struct hop_resolve {
	struct hop *hop; /* NULL: cancelled */
	struct nexthop_resolve req;
	size_t target; /* the one that is looked up */
	struct hop_address *found;
	size_t n;
	struct hop_failure failure; /* of a target: permanent ones count only when all are */
	bool temporary;
};

static void on_resolved(struct nexthop_resolve *req, const struct err *err);

/* By priority; those of one keep their order. */
static void
sort_addresses(struct hop *hop)
{
	struct hop_address *v = hop->addresses;

	hop->shares = false;
	for (size_t i = 1; i < hop->n_addresses; i++) {
		struct hop_address a = v[i];
		size_t at = i;

		for (; at > 0 && v[at - 1].priority > a.priority; at--)
			v[at] = v[at - 1];
		v[at] = a;
	}
	for (size_t i = 1; i < hop->n_addresses; i++)
		if (v[i].priority == v[i - 1].priority && v[i].target != v[i - 1].target)
			hop->shares = true;
}

static void
finish(struct hop_resolve *r)
{
	struct hop *hop = r->hop;

	hop->resolving = NULL;
	if (r->n == 0) {
		r->failure.permanent = !r->temporary;
		hop_failed(hop, &r->failure);
	} else {
		free(hop->addresses);
		hop->addresses = r->found;
		hop->n_addresses = r->n;
		sort_addresses(hop);
		hop->resolved_ms = clock_mono_ms();
		r->found = NULL;
		hop_touch(hop);
	}
	free(r->found);
	free(r);
}

/* What the DNS said about the target, as a reply would say it (RFC 7505 section 4.2, RFC 3463). */
static void
note_failure(struct hop_resolve *r, const struct nexthop *target, const struct err *err)
{
	struct hop_failure *f = &r->failure;
	bool permanent = target->mx && err->code == ERR_NOT_FOUND;

	/* A static host that is not in the DNS now is the admin's mistake, to be mended. */
	if (permanent && r->temporary)
		return;
	*f = (struct hop_failure){ 0 };
	if (permanent) {
		f->code = r->req.null_mx ? 556 : 550;
		snprintf(f->enhanced, sizeof(f->enhanced), "%s",
		    r->req.null_mx ? "5.1.10"
		    : r->req.loop  ? "5.4.6"
				   : "5.1.2");
	} else {
		r->temporary = true;
		snprintf(f->enhanced, sizeof(f->enhanced), "4.4.3");
	}
	hop_failure_say(f, "%s", err->msg);
}

static bool
is_ours(void *owner, const struct sockaddr *addr)
{
	const struct hop_resolve *r = owner;

	return r->hop != NULL && ours_has(r->hop->d->cfg, addr);
}

static void
start_target(struct hop_resolve *r)
{
	struct route_hop *route = r->hop->route;
	struct err err;

	for (; r->target < route->n_targets; r->target++) {
		/* A domain that is not there, or takes no mail, is no host that cannot be
		 * reached. */
		if (r->target >= route->n_normal && r->n == 0 && !r->temporary)
			break;
		r->req = (struct nexthop_resolve){ .done = on_resolved,
			.owner = r,
			.hostname = r->hop->d->cfg->hostname,
			.is_ours = is_ours };
		if (nexthop_resolve_start(
			r->hop->d->dns, &r->req, &route->targets[r->target], &err) == 0)
			return;
		note_failure(r, &route->targets[r->target], &err);
	}
	finish(r);
}

/* Addresses that rest or went without TLS before still do. */
static void
inherit(const struct hop *hop, struct hop_address *a)
{
	for (size_t i = 0; i < hop->n_addresses; i++) {
		const struct hop_address *old = &hop->addresses[i];

		if (memcmp(&old->addr, &a->addr, sizeof(a->addr)) == 0) {
			a->rests_until_ms = old->rests_until_ms;
			a->failures = old->failures;
			a->no_bdat = old->no_bdat;
			a->plain_until_ms = old->plain_until_ms;
			memcpy(a->plain_why, old->plain_why, sizeof(a->plain_why));
		}
	}
}

/* Where the route says which addresses of ours send its mail, none leaves from another: an address
 * of a family without one is not used. */
static bool
has_source(const struct config_route *route, const struct sockaddr_storage *addr)
{
	size_t want = addr->ss_family == AF_INET ? 4 : addr->ss_family == AF_INET6 ? 16 : 0;
	bool has = route == NULL || route->n_sources == 0 || want == 0;

	for (size_t i = 0; !has && i < route->n_sources; i++)
		has = route->sources[i].len == want;
	return has;
}

static void
note_no_source(struct hop_resolve *r, const char *host)
{
	r->temporary = true;
	r->failure = (struct hop_failure){ .enhanced = "4.4.4" };
	hop_failure_say(
	    &r->failure, "%s has addresses, but none of the family of the route's source", host);
}

static void
add_addresses(struct hop_resolve *r)
{
	const struct nexthop *target = &r->hop->route->targets[r->target];
	const struct config_route *route = routes_named(r->hop->d->routes, r->hop->route);
	struct hop_address *v = realloc(r->found, (r->n + r->req.n) * sizeof(*v));
	size_t had = r->n;

	if (v == NULL) {
		r->temporary = true;
		return;
	}
	r->found = v;
	for (size_t i = 0; i < r->req.n; i++) {
		struct hop_address *a;

		if (!has_source(route, &r->req.addresses[i].addr))
			continue;
		a = &v[r->n++];
		*a = (struct hop_address){ .addr = r->req.addresses[i].addr,
			.lmtp = target->lmtp,
			.implicit_tls = target->implicit_tls,
			.target = (uint16_t)r->target,
			.priority = target->priority,
			.weight = target->weight };
		snprintf(a->name, sizeof(a->name), "%s", r->req.addresses[i].host);
		a->tls =
		    tls_policy_of(r->hop->route, r->target, a->name, a->addr.ss_family == AF_UNIX);
		inherit(r->hop, a);
	}
	if (r->n == had)
		note_no_source(r, r->req.addresses[0].host);
}

static void
on_resolved(struct nexthop_resolve *req, const struct err *err)
{
	struct hop_resolve *r = req->owner;

	if (r->hop == NULL) {
		free(r->found);
		free(r);
		return;
	}
	if (err != NULL)
		note_failure(r, &r->hop->route->targets[r->target], err);
	else
		add_addresses(r);
	r->target++;
	start_target(r);
}

void
resolve_start(struct hop *hop)
{
	struct hop_resolve *r;

	if (hop->resolving != NULL)
		return;
	r = calloc(1, sizeof(*r));
	if (r == NULL) {
		hop_failed(hop, &(struct hop_failure){ .text = "out of memory" });
		return;
	}
	r->hop = hop;
	hop->resolving = r;
	start_target(r);
}

void
resolve_cancel(struct hop *hop)
{
	struct hop_resolve *r = hop->resolving;

	if (r == NULL)
		return;
	hop->resolving = NULL;
	r->hop = NULL;
	nexthop_resolve_cancel(&r->req);
}
