/* relayd/delivery/route.c - the config's routes as keys of next hops, and keys as next hops. */
#include "relayd/delivery/route.h"

#include "relayd/core/buf.h"
#include "relayd/delivery/ours.h"
#include "relayd/mail/address.h"
#include "relayd/supervisor/role.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>

struct routes {
	const struct config *cfg;
	char *quarantine;
	struct identity **identities; /* of cfg->routes; NULL for one without a login */
	char *keys[]; /* of cfg->routes; NULL for one with "mx", whose key has the domain in it */
};

static const char *const tls_names[] = {
	[CONFIG_TLS_OFF] = "off",
	[CONFIG_TLS_OPPORTUNISTIC] = "opportunistic",
	[CONFIG_TLS_REQUIRED] = "required",
	[CONFIG_TLS_VERIFY] = "verify",
};

static const char *
tls_name(enum config_tls tls)
{
	const char *name = (size_t)tls < ARRAY_LEN(tls_names) ? tls_names[tls] : NULL;

	return name != NULL ? name : tls_names[CONFIG_TLS_OPPORTUNISTIC];
}

#define FALLBACK "fallback:"

/* ---- from the config to keys ------------------------------------------------------------- */

/* One entry of `to` in the form of keys; false when it is none.  A path keeps its case. */
static bool
put_target(struct buf *key, const char *to, struct slice domain, struct err *err)
{
	struct slice text = slice_str(to);
	struct nexthop hop;

	if (nexthop_parse(to, &hop, err) < 0)
		return false;
	if (slice_has(text, ',')) {
		err_set(err, ERR_CONFIG, "%s: a comma is no part of a next hop", to);
		return false;
	}
	text = slice_until(text, ' ');
	if (hop.mx) {
		buf_puts(key, "mx:");
		buf_put(key, domain);
	} else if (hop.path[0] != '\0') {
		buf_put(key, text);
	} else {
		address_lower(text, key);
	}
	if (hop.priority > 0)
		buf_printf(key, " priority=%u", hop.priority);
	if (hop.weight > 1)
		buf_printf(key, " weight=%u", hop.weight);
	return true;
}

/* "verify ", "verify route=example.org " or "verify route=example.org login " */
static void
put_head(struct buf *key, const struct config_route *route, bool login)
{
	buf_printf(key, "%s ", tls_name(route->tls));
	if (route->n_sources > 0 || route->helo != NULL || route->connections > 0 ||
	    route->rate_n > 0 || login)
		buf_printf(key, "route=%s ", route->domain);
	if (login)
		buf_puts(key, "login ");
}

static int
put_key(struct buf *key, const struct config_route *route, struct slice domain, struct err *err)
{
	put_head(key, route, route->login != NULL);
	for (size_t i = 0; i < route->to.n; i++) {
		if (i > 0)
			buf_putc(key, ',');
		if (!put_target(key, route->to.v[i], domain, err))
			return err_prefix(err, "route %s: to", route->domain);
	}
	for (size_t i = 0; i < route->fallback.n; i++) {
		struct nexthop hop;

		buf_puts(key, "," FALLBACK);
		if (!put_target(key, route->fallback.v[i], domain, err))
			return err_prefix(err, "route %s: fallback", route->domain);
		if (nexthop_parse(route->fallback.v[i], &hop, NULL) == 0 && hop.mx)
			return err_set(err, ERR_CONFIG, "route %s: fallback: \"%s\" is no host",
			    route->domain, route->fallback.v[i]);
	}
	if (route->to.n == 0 || route->to.n + route->fallback.n > ROUTE_TARGETS_MAX ||
	    key->overflow)
		return err_set(err, ERR_LIMIT, "route %s: none or over %d next hops", route->domain,
		    ROUTE_TARGETS_MAX);
	return 0;
}

static bool
uses_mx(const struct config_route *route)
{
	struct nexthop hop;

	for (size_t i = 0; i < route->to.n; i++)
		if (nexthop_parse(route->to.v[i], &hop, NULL) == 0 && hop.mx)
			return true;
	return false;
}

static int
make_static_key(struct routes *r, size_t i, struct err *err)
{
	const struct config_route *route = &r->cfg->routes[i];
	char storage[ROUTE_KEY_BYTES];
	struct buf key = buf_over(storage, sizeof(storage) - 1);

	if (put_key(&key, route, slice_str(route->domain), err) < 0)
		return err_prefix(err, "%s:%d", r->cfg->path, route->line);
	if (uses_mx(route))
		return 0; /* only checked */
	r->keys[i] = strndup(key.p, key.len);
	return r->keys[i] != NULL ? 0 : err_set(err, ERR_NOMEM, "routes");
}

static int
make_quarantine_key(struct routes *r, struct err *err)
{
	char path[ROLE_PATH_BYTES], storage[ROUTE_KEY_BYTES];
	struct buf key = buf_over(storage, sizeof(storage) - 1);
	const char *to = r->cfg->quarantine.to;

	buf_puts(&key, "quarantine off ");
	if (to == NULL) {
		role_lmtp_path(r->cfg, path);
		buf_puts(&key, "lmtp:");
		buf_puts(&key, path);
	} else if (!put_target(&key, to, SLICE(""), err)) {
		return err_prefix(
		    err, "%s:%d: quarantine: to", r->cfg->path, r->cfg->quarantine.line);
	}
	if (key.overflow)
		return err_set(err, ERR_LIMIT, "quarantine: the next hop is too long");
	r->quarantine = strndup(key.p, key.len);
	return r->quarantine != NULL ? 0 : err_set(err, ERR_NOMEM, "routes");
}

/* Without its password (relayctl) a route has no identity, which is found out when one is
 * wanted. */
static int
make_identities(struct routes *r, struct err *err)
{
	struct err why = { 0 };

	r->identities = calloc(r->cfg->n_routes + 1, sizeof(struct identity *));
	if (r->identities == NULL)
		return err_set(err, ERR_NOMEM, "routes");
	for (size_t i = 0; i < r->cfg->n_routes; i++)
		if (r->cfg->routes[i].login != NULL)
			r->identities[i] = identity_of(&r->cfg->routes[i], &why);
	return 0;
}

struct routes *
routes_new(const struct config *cfg, struct err *err)
{
	struct routes *r = calloc(1, sizeof(*r) + cfg->n_routes * sizeof(r->keys[0]));

	if (r == NULL) {
		err_set(err, ERR_NOMEM, "routes");
		return NULL;
	}
	r->cfg = config_ref(cfg);
	if (make_identities(r, err) < 0)
		goto fail;
	for (size_t i = 0; i < cfg->n_routes; i++)
		if (make_static_key(r, i, err) < 0)
			goto fail;
	if (make_quarantine_key(r, err) < 0)
		goto fail;
	return r;
fail:
	routes_free(r);
	return NULL;
}

void
routes_free(struct routes *r)
{
	if (r == NULL)
		return;
	for (size_t i = 0; i < r->cfg->n_routes; i++)
		free(r->keys[i]);
	for (size_t i = 0; r->identities != NULL && i < r->cfg->n_routes; i++)
		identity_unref(r->identities[i]);
	free(r->identities);
	free(r->quarantine);
	config_unref((struct config *)(uintptr_t)r->cfg);
	free(r);
}

const char *
routes_quarantine_key(const struct routes *r)
{
	return r->quarantine;
}

/* ---- from a forward-path to a key ------------------------------------------------------------ */

static struct slice
domain_of(struct slice path)
{
	struct slice local, domain;

	return address_split(path, &local, &domain) ? domain : SLICE("");
}

struct slice
routes_path(const struct routes *r, struct slice forward_path)
{
	return domain_of(forward_path).len > 0 ? forward_path : slice_str(r->cfg->postmaster);
}

/* A-labels in lower case without a final dot, or a literal as it is; false for what is neither. */
static bool
normalise(struct slice domain, char out[static ADDRESS_DOMAIN_MAX + 1])
{
	struct buf name = buf_over(out, ADDRESS_DOMAIN_MAX);

	slice_chop(&domain, ".");
	if (address_domain(domain, ADDRESS_UTF8) != ADDRESS_OK)
		return false;
	if (slice_starts(domain, SLICE("[")))
		address_lower(domain, &name);
	else if (!address_domain_ascii(domain, &name))
		return false;
	if (name.overflow)
		return false;
	out[name.len] = '\0';
	return true;
}

/* Port 25 there is a listener of ours: mail would go in circles. */
static bool
leads_to_us(const struct routes *r, const struct cidr *ip)
{
	struct sockaddr_in in = { .sin_family = AF_INET, .sin_port = htons(25) };
	struct sockaddr_in6 in6 = { .sin6_family = AF_INET6, .sin6_port = htons(25) };

	if (ip->len == 4) {
		memcpy(&in.sin_addr, ip->addr, 4);
		return ours_has(r->cfg, (const struct sockaddr *)&in);
	}
	memcpy(&in6.sin6_addr, ip->addr, 16);
	return ours_has(r->cfg, (const struct sockaddr *)&in6);
}

/* "[192.0.2.1]" and "[IPv6:2001:db8::1]" (RFC 5321 section 4.1.3); false for any other literal, and
 * for one of ourselves. */
static bool
put_literal(const struct routes *r, struct buf *key, struct slice domain)
{
	struct slice inside = slice_drop(slice_head(domain, domain.len - 1), 1);
	bool v6 = slice_istarts(inside, SLICE("IPv6:"));
	struct cidr ip;

	if (v6)
		inside = slice_drop(inside, strlen("IPv6:"));
	if (!cidr_parse(inside, &ip) || slice_has(inside, '/') || (slice_has(inside, ':') != v6) ||
	    leads_to_us(r, &ip))
		return false;
	buf_puts(key, v6 ? "[" : "");
	buf_put(key, inside);
	buf_puts(key, v6 ? "]:25" : ":25");
	return true;
}

/* A copy in out; keys are shorter than that by construction. */
static int
give(const char *key, char out[static ROUTE_KEY_BYTES])
{
	memcpy(out, key, strlen(key) + 1);
	return 0;
}

int
routes_key(const struct routes *r, struct slice forward_path, char out[static ROUTE_KEY_BYTES],
    struct err *err)
{
	static const char *const mx[] = { "mx" };
	const struct config_route direct = { .domain = "*",
		.to = { (const char **)(uintptr_t)mx, 1 },
		.tls = CONFIG_TLS_OPPORTUNISTIC };
	struct slice domain = domain_of(routes_path(r, forward_path));
	struct buf key = buf_over(out, ROUTE_KEY_BYTES - 1);
	const struct config_route *route;
	char name[ADDRESS_DOMAIN_MAX + 1];

	if (!normalise(domain, name))
		return err_set(err, ERR_FORMAT, "no domain name");
	route = config_route_for(r->cfg, slice_str(name));
	if (route != NULL && r->keys[route - r->cfg->routes] != NULL)
		return give(r->keys[route - r->cfg->routes], out);
	if (route == NULL)
		route = &direct;
	if (name[0] != '[') {
		if (put_key(&key, route, slice_str(name), err) < 0)
			return -1;
	} else {
		put_head(&key, route, false);
		if (!put_literal(r, &key, slice_str(name)))
			return err_set(err, ERR_FORMAT, "no address literal");
	}
	out[key.len] = '\0';
	return 0;
}

int
routes_set_tls(char key[static ROUTE_KEY_BYTES], enum config_tls tls, struct err *err)
{
	const char *targets = strchr(key, ' ');
	char other[ROUTE_KEY_BYTES];
	struct buf b = buf_over(other, sizeof(other) - 1);

	buf_puts(&b, tls_name(tls));
	buf_puts(&b, targets != NULL ? targets : "");
	if (b.overflow)
		return err_set(err, ERR_LIMIT, "the next hop is too long");
	memcpy(key, other, b.len);
	key[b.len] = '\0';
	return 0;
}

bool
routes_by_mx(const char *key)
{
	return strstr(key, " mx:") != NULL;
}

int
routes_via(const char *text, char *out, size_t out_len, struct err *err)
{
	struct slice rest = slice_str(text);
	struct buf key = buf_over(out, out_len - 1);

	for (size_t n = 0; rest.len > 0; n++) {
		struct slice word = slice_until(rest, ',');
		char to[ROUTE_KEY_BYTES];
		struct nexthop hop;

		rest = slice_drop(rest, word.len + 1);
		snprintf(to, sizeof(to), "%.*s", SLICE_FMT(slice_trim(word)));
		if (n > 0)
			buf_putc(&key, ',');
		if (nexthop_parse(to, &hop, err) < 0)
			return -1;
		if (hop.mx || !put_target(&key, to, SLICE(""), NULL))
			return err_set(err, ERR_FORMAT, "\"%.60s\" is no host", to);
		if (n == ROUTE_TARGETS_MAX)
			return err_set(err, ERR_LIMIT, "over %d next hops", ROUTE_TARGETS_MAX);
	}
	if (key.len == 0 || key.overflow)
		return err_set(err, ERR_FORMAT, "no next hop, or too long");
	out[key.len] = '\0';
	return 0;
}

void
routes_via_key(const struct routes *r, struct slice forward_path, const char *via,
    char out[static ROUTE_KEY_BYTES])
{
	static const struct config_route direct = { .tls = CONFIG_TLS_OPPORTUNISTIC };
	char name[ADDRESS_DOMAIN_MAX + 1];
	const struct config_route *route = NULL;
	struct buf key = buf_over(out, ROUTE_KEY_BYTES - 1);

	if (normalise(domain_of(routes_path(r, forward_path)), name))
		route = config_route_for(r->cfg, slice_str(name));
	put_head(&key, route != NULL ? route : &direct, false);
	buf_puts(&key, via); /* at most INDEX_VIA_MAX bytes */
	out[key.len] = '\0';
}

const struct config_route *
routes_named(const struct routes *r, const struct route_hop *hop)
{
	for (size_t i = 0; hop->route != NULL && i < r->cfg->n_routes; i++)
		if (strcmp(r->cfg->routes[i].domain, hop->route) == 0)
			return &r->cfg->routes[i];
	return NULL;
}

struct identity *
routes_identity(const struct routes *r, const struct route_hop *hop, struct err *err)
{
	const struct config_route *route = routes_named(r, hop);
	struct identity *id = NULL;

	if (!hop->login)
		return NULL;
	if (route == NULL || route->login == NULL)
		err_set(err, ERR_CONFIG, "login: the config has none any more");
	else if ((id = r->identities[route - r->cfg->routes]) == NULL)
		err_set(err, ERR_CONFIG, "login: the password is not known");
	return id;
}

bool
routes_has(const struct routes *r, const char *key)
{
	const char *mx = strstr(key, "mx:");
	struct slice domain =
	    mx != NULL ? slice_until(slice_until(slice_str(mx + 3), ','), ' ') : SLICE("");
	char path[ADDRESS_DOMAIN_MAX + 3], now[ROUTE_KEY_BYTES];

	if (strcmp(key, r->quarantine) == 0)
		return true;
	for (size_t i = 0; i < r->cfg->n_routes; i++)
		if (r->keys[i] != NULL && strcmp(key, r->keys[i]) == 0)
			return true;
	snprintf(path, sizeof(path), "x@%.*s", SLICE_FMT(domain));
	return domain.len > 0 && routes_key(r, slice_str(path), now, NULL) == 0 &&
	       strcmp(key, now) == 0;
}

/* ---- from a key to a next hop ---------------------------------------------------------------- */

/* The first word of *rest. */
static struct slice
take_word(struct slice *rest, char end)
{
	struct slice word = slice_until(*rest, end);

	*rest = slice_drop(*rest, word.len + 1);
	return word;
}

static bool
parse_tls(struct slice word, enum config_tls *tls)
{
	for (size_t i = 0; i < ARRAY_LEN(tls_names); i++) {
		if (tls_names[i] != NULL && slice_eq(word, slice_str(tls_names[i]))) {
			*tls = (enum config_tls)i;
			return true;
		}
	}
	return false;
}

static bool
parse_target(struct slice text, struct nexthop *hop)
{
	char target[ROUTE_KEY_BYTES];

	if (slice_starts(text, SLICE("mx:"))) {
		struct slice domain = slice_until(slice_drop(text, 3), ' ');
		struct nexthop mx;

		snprintf(
		    target, sizeof(target), "mx%.*s", SLICE_FMT(slice_drop(text, 3 + domain.len)));
		if (nexthop_parse(target, &mx, NULL) < 0 || nexthop_mx(hop, domain, NULL) < 0)
			return false;
		hop->priority = mx.priority;
		hop->weight = mx.weight;
		return true;
	}
	snprintf(target, sizeof(target), "%.*s", SLICE_FMT(text));
	return nexthop_parse(target, hop, NULL) == 0 && !hop->mx;
}

static bool
parse_hop(struct route_hop *hop, struct slice targets)
{
	for (size_t i = 0; targets.len > 0; i++) {
		struct nexthop *target = &hop->targets[i];
		struct slice text = take_word(&targets, ',');
		bool fallback = slice_starts(text, SLICE(FALLBACK));

		if (!parse_target(slice_drop(text, fallback ? strlen(FALLBACK) : 0), target))
			return false;
		if (target->priority == 0)
			target->priority = (uint16_t)(i + 1);
		if (fallback)
			target->priority += ROUTE_FALLBACK_PRIORITY;
		else
			hop->n_normal = i + 1;
	}
	return hop->n_normal > 0;
}

struct route_hop *
route_hop_new(const char *key, struct err *err)
{
	size_t len = strlen(key) + 1, n = 1, head;
	struct slice rest = slice_str(key), word = take_word(&rest, ' '), named = SLICE("");
	bool quarantine = slice_eq(word, SLICE("quarantine")), login;
	struct route_hop *hop;

	for (size_t i = 0; i < rest.len; i++)
		n += rest.p[i] == ',';
	head = sizeof(*hop) + n * sizeof(hop->targets[0]);
	hop = calloc(1, head + 2 * len); /* behind it the key, and the name of a route */
	if (hop == NULL) {
		err_set(err, ERR_NOMEM, "next hop");
		return NULL;
	}
	if (quarantine)
		word = take_word(&rest, ' ');
	if (slice_starts(rest, SLICE("route=")))
		named = slice_drop(take_word(&rest, ' '), strlen("route="));
	login = named.len > 0 && slice_starts(rest, SLICE("login "));
	if (login)
		(void)take_word(&rest, ' ');
	memcpy((char *)hop + head + len, named.p, named.len);
	hop->route = named.len > 0 ? (char *)hop + head + len : NULL;
	hop->key = memcpy((char *)hop + head, key, len);
	hop->name = hop->key + (rest.p - key);
	hop->quarantine = quarantine;
	hop->login = login;
	hop->n_targets = n;
	if (rest.len > 0 && n <= ROUTE_TARGETS_MAX && parse_tls(word, &hop->tls) &&
	    parse_hop(hop, rest))
		return hop;
	err_set(err, ERR_FORMAT, "\"%.100s\" is no next hop", key);
	free(hop);
	return NULL;
}

void
route_hop_free(struct route_hop *hop)
{
	free(hop);
}
