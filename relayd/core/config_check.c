/* relayd/core/config_check.c - what is right by itself but not together, found before anything
 * starts. */
#include "relayd/core/config_load.h"

#include "relayd/core/config_source.h"

static int
line_of(const struct config_all *all, const char *section, const char *option)
{
	int line = config_outline_line(all->outline, section, "", option);

	return line > 0 ? line : config_outline_line(all->outline, section, "", "");
}

/* Letters, digits, hyphens and dots; no empty label (RFC 5321 section 4.1.2, Domain). */
static bool
is_domain(struct slice name)
{
	size_t label = 0;

	if (name.len == 0 || name.len > 253)
		return false;
	for (size_t i = 0; i < name.len; i++) {
		unsigned char c = (unsigned char)name.p[i];

		if (c == '.') {
			if (label == 0)
				return false;
			label = 0;
		} else if (c >= 0x80 ||
			   (slice_lower((char)c) >= 'a' && slice_lower((char)c) <= 'z') ||
			   (c >= '0' && c <= '9') || c == '-' || c == '_') {
			label++;
		} else {
			return false;
		}
	}
	return label > 0;
}

static int
check_names(struct config_all *all, struct err *err)
{
	struct config *c = &all->pub;
	size_t at;

	if (c->hostname == NULL)
		return config_fail(all, err, 1, "hostname is missing: hostname = mx.example.org");
	if (!is_domain(slice_str(c->hostname)))
		return config_fail(all, err, line_of(all, "", "hostname"),
		    "hostname = %s: expected a domain name", c->hostname);
	for (size_t i = 0; i < c->domains.n; i++)
		if (!is_domain(slice_str(c->domains.v[i])))
			return config_fail(all, err, line_of(all, "", "domains"),
			    "domains: %s is no domain name", c->domains.v[i]);
	if (c->postmaster == NULL)
		c->postmaster = arena_printf(&all->arena, "postmaster@%s",
		    c->domains.n > 0 ? c->domains.v[0] : c->hostname);
	if (c->postmaster == NULL)
		return err_set(err, ERR_NOMEM, "no memory for the config");
	at = strlen(c->postmaster) - strlen(strrchr(c->postmaster, '@') != NULL
		? strrchr(c->postmaster, '@') : c->postmaster);
	if (at == 0 || !is_domain(slice_str(c->postmaster + at + 1)))
		return config_fail(all, err, line_of(all, "", "postmaster"),
		    "postmaster = %s: expected an address", c->postmaster);
	return 0;
}

static int
check_paths(struct config_all *all, struct err *err)
{
	const struct config *c = &all->pub;
	const struct {
		const char *section, *option, *path;
	} rows[] = {
		{ "", "run", c->run },
		{ "", "spool", c->spool },
		{ "", "state", c->state },
		{ "", "users", c->users },
		{ "quarantine", "store", c->quarantine.store },
		{ "sasl", "senders", c->sasl.senders },
		{ "sasl", "keytab", c->sasl.keytab },
		{ "sasl", "introspect", c->sasl.introspect },
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++)
		if (rows[i].path != NULL && rows[i].path[0] != '/')
			return config_fail(all, err, line_of(all, rows[i].section, rows[i].option),
			    "%s = %s: expected an absolute path", rows[i].option, rows[i].path);
	return 0;
}

static bool
only_mx(const struct config_route *r)
{
	for (size_t i = 0; i < r->to.n; i++)
		if (strcmp(r->to.v[i], "mx") != 0)
			return false;
	return true;
}

/* A listener judges by it. */
static bool
is_listeners_policy(const struct config *c, const char *name)
{
	for (size_t i = 0; i < c->n_listeners; i++)
		if (c->listeners[i].policy != NULL && strcmp(c->listeners[i].policy, name) == 0)
			return true;
	return false;
}

static struct slice
without_pattern(const char *domain)
{
	struct slice s = slice_str(domain);

	s = slice_drop(s, slice_starts(s, SLICE("*.")) ? 1 : 0);
	return slice_drop(s, slice_starts(s, SLICE(".")) ? 1 : 0);
}

static int
check_routes(struct config_all *all, struct err *err)
{
	const struct config *c = &all->pub;

	for (size_t i = 0; i < c->n_routes; i++)
		if (strcmp(c->routes[i].domain, "*") != 0 &&
		    !is_domain(without_pattern(c->routes[i].domain)))
			return config_fail(all, err, c->routes[i].line,
			    "route %s: expected a domain, \"*.domain\", \".domain\" or \"*\"",
			    c->routes[i].domain);
	for (size_t i = 0; i < c->n_routes; i++)
		if (c->routes[i].helo != NULL && !is_domain(slice_str(c->routes[i].helo)))
			return config_fail(all, err, c->routes[i].line,
			    "helo = %s: expected a domain name", c->routes[i].helo);
	for (size_t i = 0; i < c->domains.n; i++) {
		const struct config_route *r = config_route_for(c, slice_str(c->domains.v[i]));

		if (r == NULL || (strcmp(r->domain, "*") == 0 && only_mx(r)))
			return config_fail(all, err, line_of(all, "", "domains"),
			    "%s has no route: add route %s { to = { \"host:25\" } }",
			    c->domains.v[i], c->domains.v[i]);
	}
	for (size_t i = 0; i < c->n_policies; i++) {
		const struct config_policy *p = &c->policies[i];

		if (strcmp(p->name, "inbound") != 0 && strcmp(p->name, "outbound") != 0 &&
		    !is_listeners_policy(c, p->name) &&
		    !config_is_our_domain(c, slice_str(p->name)))
			return config_fail(all, err, p->line,
			    "policy %s: expected inbound, outbound, one of domains or the policy "
			    "of a listener",
			    p->name);
	}
	return 0;
}

static bool
has_filter(const struct config *c, const char *name)
{
	for (size_t i = 0; i < c->n_filters; i++)
		if (strcmp(c->filters[i].name, name) == 0)
			return true;
	return false;
}

/* What a listener names is there. */
static int
check_listener_names(struct config_all *all, const struct config_listener *l, struct err *err)
{
	const struct config *c = &all->pub;

	for (size_t i = 0; i < l->filters.n; i++)
		if (!has_filter(c, l->filters.v[i]))
			return config_fail(all, err, l->line, "listener %s: there is no filter %s",
			    l->name, l->filters.v[i]);
	if (l->policy != NULL && config_policy_named(c, slice_str(l->policy)) == NULL)
		return config_fail(all, err, l->line, "listener %s: there is no policy %s", l->name,
		    l->policy);
	return 0;
}

static int
check_listeners(struct config_all *all, struct err *err)
{
	struct config *c = &all->pub;
	bool certificate = c->tls.certificates.n > 0;

	for (size_t i = 0; i < c->n_listeners; i++) {
		struct config_listener *l = &c->listeners[i];

		if (check_listener_names(all, l, err) < 0)
			return -1;
		if (l->tls >= CONFIG_TLS_REQUIRED && !certificate)
			return config_fail(all, err, l->line,
			    "listener %s: tls = %s needs tls { certificate key }", l->name,
			    l->tls == CONFIG_TLS_IMPLICIT ? "implicit" : "required");
		if (l->auth_required && c->users == NULL)
			return config_fail(all, err, l->line,
			    "listener %s: auth = required needs users = FILE", l->name);
		if (l->tls == CONFIG_TLS_STARTTLS && !certificate) {
			l->tls = CONFIG_TLS_OFF;
			config_warn(all, l->line,
			    "listener %s: starttls is off: no tls { certificate }", l->name);
		}
		if (l->auth_required && l->tls == CONFIG_TLS_OFF &&
		    (l->mechanisms.set & l->mechanisms.without_tls) == 0)
			config_warn(all, l->line,
			    "listener %s: nobody can log in, because AUTH is only offered under "
			    "TLS",
			    l->name);
	}
	if (c->n_listeners == 0)
		config_warn(all, 1, "no listener: relayd takes no mail");
	else if (c->domains.n + c->n_networks + c->tls.fingerprints.n == 0 && c->users == NULL)
		config_warn(all, 1,
		    "neither domains nor networks, users or relay-fingerprints: relayd "
		    "takes mail from nobody");
	if (!certificate && (c->review.imaps.n > 0 || c->review.pop3s.n > 0))
		return config_fail(all, err,
		    line_of(all, "review", c->review.imaps.n > 0 ? "imaps" : "pop3s"),
		    "%s needs tls { certificate key }", c->review.imaps.n > 0 ? "imaps" : "pop3s");
	return 0;
}

static int
check_sasl(struct config_all *all, struct err *err)
{
	const struct config *c = &all->pub;

	if (c->sasl.introspect != NULL &&
	    (c->sasl.introspect_ms < 100 || c->sasl.introspect_ms > 60000))
		return config_fail(all, err, line_of(all, "sasl", "introspect-timeout"),
		    "introspect-timeout: expected 100ms to 60s");
	if (c->sasl.senders != NULL && config_add_file(all, c->sasl.senders, false,
	    line_of(all, "sasl", "senders"), err) < 0)
		return -1;
	return c->sasl.keytab != NULL ? config_add_file(all, c->sasl.keytab, true,
	    line_of(all, "sasl", "keytab"), err) : 0;
}

int
config_check(struct config_all *all, struct err *err)
{
	const struct config *c = &all->pub;

	if (check_names(all, err) < 0 || check_paths(all, err) < 0 || check_routes(all, err) < 0 ||
	    config_check_tls(all, err) < 0 || check_listeners(all, err) < 0 ||
	    check_sasl(all, err) < 0)
		return -1;
	if (c->users != NULL &&
	    config_add_file(all, c->users, true, line_of(all, "", "users"), err) < 0)
		return -1;
	if (c->limits.memory < c->limits.message_size / 64)
		config_warn(all, line_of(all, "limits", "memory"), "limits: memory is very small");
	if (c->limits.connections_per_net < c->limits.connections_per_ip)
		config_warn(all, line_of(all, "limits", "connections-per-net"),
		    "limits: connections-per-net is below connections-per-ip, which means nothing "
		    "then");
	return 0;
}
