/* relayd/core/config_load.c - from the text of the config, through libconfuse, to typed values. */
#include "relayd/core/config_load.h"

#include "relayd/core/config_options.h"
#include "relayd/core/config_section.h"
#include "relayd/core/config_titled.h"
#include "relayd/core/config_value.h"

#include <unistd.h>

#define WORKERS_MAX           60
#define TICKET_LIFETIME_MAX_S (7 * 86400)

/* libconfuse's error function has no argument of ours; a load is one call at a time. */
static struct config_all *loading;
static struct err *loading_err;

static void
on_confuse_error(cfg_t *cfg, const char *fmt, va_list ap)
{
	char text[200];

	if (loading_err->code != ERR_NONE)
		return;                               /* the first one is the cause */
	(void)vsnprintf(text, sizeof(text), fmt, ap); /* cut short is good enough */
	(void)config_fail(loading, loading_err, cfg->line, "%s", text); /* seen by its code */
}

static int
load_workers(const struct section *s)
{
	struct config *c = &s->all->pub;
	const char *text = cfg_getstr(s->cfg, "workers");
	long cores = sysconf(_SC_NPROCESSORS_ONLN);
	uint32_t n = cores < 1 ? 1 : cores > WORKERS_MAX ? WORKERS_MAX : (uint32_t)cores;

	if (strcmp(text, "auto") != 0 && (!config_count(text, &n) || n < 1 || n > WORKERS_MAX))
		return section_wrong(s, "workers", text, "auto or a number from 1 to 60");
	c->workers = n;
	return 0;
}

static int
load_top(const struct section *s)
{
	struct config *c = &s->all->pub;
	int sink = 0;

	if (section_string(s, "hostname", &c->hostname) < 0 ||
	    section_string(s, "postmaster", &c->postmaster) < 0 ||
	    section_string(s, "user", &c->user) < 0 || section_string(s, "run", &c->run) < 0 ||
	    section_string(s, "spool", &c->spool) < 0 ||
	    section_string(s, "state", &c->state) < 0 ||
	    section_string(s, "users", &c->users) < 0 || section_help(s, &c->help) < 0 ||
	    SECTION_WORD(s, "log", &sink, "stderr", "syslog") < 0 || load_workers(s) < 0 ||
	    section_list(s, "domains", true, &c->domains) < 0)
		return -1;
	c->log_syslog = sink == 1;
	return section_networks(s, "networks", &c->networks, &c->n_networks);
}

#define NET_PER_IP 10 /* connections-per-net, where only connections-per-ip is said */

static int
load_limits(const struct section *root)
{
	struct config *c = &root->all->pub;
	struct section s = section_of(root, "limits", 0);
	uint32_t per_ip;

	if (section_bytes(&s, "message-size", &c->limits.message_size) < 0 ||
	    section_own_count(&s, "recipients", &c->limits.recipients) < 0 ||
	    section_any_count(&s, "messages", &c->limits.messages) < 0 ||
	    section_own_count(&s, "connections", &c->limits.connections) < 0 ||
	    section_own_count(&s, "connections-per-ip", &c->limits.connections_per_ip) < 0 ||
	    section_own_count(&s, "connections-per-net", &c->limits.connections_per_net) < 0 ||
	    section_any_duration(&s, "session-time", &c->limits.session_s) < 0 ||
	    section_any_pace(&s, "data-rate", &c->limits.data_rate) < 0 ||
	    section_duration(&s, "filter-time", &c->limits.filter_s) < 0 ||
	    section_own_count(&s, "scanning", &c->limits.scanning) < 0 ||
	    section_bytes(&s, "memory", &c->limits.memory) < 0)
		return -1;
	if (c->limits.filter_s < CONFIG_FILTER_S_MIN || c->limits.filter_s > CONFIG_FILTER_S_MAX)
		return section_wrong(
		    &s, "filter-time", cfg_getstr(s.cfg, "filter-time"), "1s to 3m");
	per_ip = c->limits.connections_per_ip;
	if (c->limits.connections_per_net == 0)
		c->limits.connections_per_net =
		    per_ip < UINT32_MAX / NET_PER_IP ? NET_PER_IP * per_ip : UINT32_MAX;
	return section_message_size(&s, c->limits.message_size);
}

/* "192.0.2.53", "2001:db8::53", and with a port "192.0.2.53:53", "[2001:db8::53]:53". */
static bool
is_dns_server(const char *text)
{
	struct slice s = slice_str(text), ip = slice_until(s, ':'),
		     port = slice_drop(s, ip.len + 1);
	struct cidr net;
	uint64_t number;

	if (slice_starts(s, SLICE("["))) {
		ip = slice_until(slice_drop(s, 1), ']');
		port = slice_drop(s, ip.len + 2);
		if (port.len > 0 && port.p[0] != ':')
			return false;
		port = slice_drop(port, 1);
	} else if (slice_has(port, ':')) {
		ip = s;
		port = SLICE("");
	}
	if (slice_has(ip, '/') || !cidr_parse(ip, &net))
		return false;
	return port.len == 0 || (slice_u64(port, UINT16_MAX, &number) && number > 0);
}

static int
load_singles(const struct section *root)
{
	struct config *c = &root->all->pub;
	struct section dns = section_of(root, "dns", 0), tls = section_of(root, "tls", 0);

	if (section_list(&dns, "servers", false, &c->dns.servers) < 0 ||
	    section_duration_ms(&dns, "timeout", &c->dns.timeout_ms) < 0 ||
	    section_list(&tls, "certificate", false, &c->tls.certificates) < 0 ||
	    section_list(&tls, "key", false, &c->tls.keys) < 0 ||
	    section_string(&tls, "client-ca", &c->tls.client_ca) < 0 ||
	    section_list(&tls, "relay-fingerprints", false, &c->tls.fingerprints) < 0 ||
	    section_duration(&tls, "ticket-lifetime", &c->tls.ticket_lifetime_s) < 0)
		return -1;
	for (size_t i = 0; i < c->dns.servers.n; i++)
		if (!is_dns_server(c->dns.servers.v[i]))
			return section_wrong(&dns, "servers", c->dns.servers.v[i],
			    "an address, or ADDRESS:PORT, such as 127.0.0.1:5353 or [::1]:5353");
	if (c->dns.timeout_ms == 0)
		return section_wrong(&dns, "timeout", "0", "more than nothing");
	if (c->tls.ticket_lifetime_s > TICKET_LIFETIME_MAX_S)
		return section_wrong(&tls, "ticket-lifetime",
		    cfg_getstr(tls.cfg, "ticket-lifetime"), "at most 7d (RFC 8446 section 4.6.1)");
	return 0;
}

static int
load_recipients(const struct section *root)
{
	struct config *c = &root->all->pub;
	struct section s = section_of(root, "recipients", 0);
	const char *extension = cfg_getstr(s.cfg, "extension");

	/* No atext of a letter or digit, and nothing that a domain begins with. */
	if (strlen(extension) > 1 || (*extension != '\0' && strchr("+-_=#~", *extension) == NULL))
		return section_wrong(
		    &s, "extension", extension, "one of + - _ = # ~, or \"\" for none");
	c->recipients.extension = *extension;
	if (section_duration(&s, "known", &c->recipients.known_s) < 0 ||
	    section_duration(&s, "unknown", &c->recipients.unknown_s) < 0 ||
	    section_duration(&s, "unreachable", &c->recipients.unreachable_s) < 0)
		return -1;
	return c->recipients.known_s > 0 && c->recipients.unknown_s > 0 &&
		       c->recipients.unreachable_s > 0
		   ? 0
		   : config_fail(
			 s.all, s.err, section_line(&s, ""), "recipients: a lifetime of nothing");
}

static int
load_queue(const struct section *root)
{
	struct config *c = &root->all->pub;
	struct section s = section_of(root, "queue", 0);
	unsigned n = cfg_size(s.cfg, "retry");

	c->queue.retry_s = arena_alloc(&s.all->arena, (n + 1) * sizeof(*c->queue.retry_s));
	if (n == 0 || c->queue.retry_s == NULL)
		return section_wrong(&s, "retry", "{}", "at least one duration");
	for (unsigned i = 0; i < n; i++)
		if (!config_duration(cfg_getnstr(s.cfg, "retry", i), &c->queue.retry_s[i]) ||
		    c->queue.retry_s[i] == 0)
			return section_wrong(&s, "retry", cfg_getnstr(s.cfg, "retry", i),
			    "durations such as 1m, 5m, 1h");
	c->queue.n_retry = n;
	return section_duration(&s, "warn", &c->queue.warn_s) < 0 ||
		       section_duration(&s, "expire", &c->queue.expire_s) < 0 ||
		       section_count(&s, "bounces", &c->queue.bounces) < 0 ||
		       section_bytes(&s, "reserve", &c->queue.reserve) < 0
		   ? -1
		   : 0;
}

static int
load_review(const struct section *root)
{
	struct config *c = &root->all->pub;
	struct section q = section_of(root, "quarantine", 0), r = section_of(root, "review", 0);

	c->review.line = section_line(&r, "");
	c->quarantine.line = section_line(&q, "to");
	return section_string(&q, "store", &c->quarantine.store) < 0 ||
		       section_duration(&q, "keep", &c->quarantine.keep_s) < 0 ||
		       section_string(&q, "to", &c->quarantine.to) < 0 ||
		       section_string(&r, "user", &c->review.user) < 0 ||
		       section_list(&r, "imap", false, &c->review.imap) < 0 ||
		       section_list(&r, "imaps", false, &c->review.imaps) < 0 ||
		       section_list(&r, "pop3", false, &c->review.pop3) < 0 ||
		       section_list(&r, "pop3s", false, &c->review.pop3s) < 0 ||
		       section_list(&r, "http", false, &c->review.http) < 0 ||
		       section_flag(&r, "pop3-delete", &c->review.pop3_delete) < 0
		   ? -1
		   : 0;
}

static int
load_sasl(const struct section *root)
{
	struct config *c = &root->all->pub;
	struct section s = section_of(root, "sasl", 0);

	c->sasl.mechanisms.set = MECHANISMS_DEFAULT;
	return section_mechanisms(&s, &c->sasl.mechanisms) < 0 ||
		       section_string(&s, "senders", &c->sasl.senders) < 0 ||
		       section_string(&s, "keytab", &c->sasl.keytab) < 0 ||
		       section_string(&s, "realm", &c->sasl.realm) < 0 ||
		       section_string(&s, "introspect", &c->sasl.introspect) < 0 ||
		       section_duration_ms(&s, "introspect-timeout", &c->sasl.introspect_ms) < 0
		   ? -1
		   : 0;
}

static int
load_titled(const struct section *root, const char *name, size_t size,
    int (*load)(const struct section *, void *), void **items, size_t *count)
{
	unsigned n = cfg_size(root->cfg, name);
	char *at = arena_alloc(&root->all->arena, (n + 1) * size);

	if (at == NULL)
		return config_fail(root->all, root->err, 1, "too many sections %s", name);
	*items = at;
	*count = n;
	for (unsigned i = 0; i < n; i++) {
		struct section s = section_of(root, name, i);

		if (load(&s, at + i * size) < 0)
			return -1;
	}
	return 0;
}
#define LOAD_TITLED(root, name, load, items, count)                                                \
	load_titled(root, name, sizeof(**(items)), load, (void **)(void *)(items), count)

static int
load_all(const struct section *root)
{
	struct config *c = &root->all->pub;

	return load_top(root) < 0 || load_singles(root) < 0 || load_limits(root) < 0 ||
		       load_queue(root) < 0 || load_review(root) < 0 || load_sasl(root) < 0 ||
		       load_recipients(root) < 0 ||
		       LOAD_TITLED(root, "listener", config_load_listener, &c->listeners,
			   &c->n_listeners) < 0 ||
		       LOAD_TITLED(root, "ldap", config_load_ldap, &c->ldaps, &c->n_ldaps) < 0 ||
		       LOAD_TITLED(root, "route", config_load_route, &c->routes, &c->n_routes) <
			   0 ||
		       LOAD_TITLED(root, "provider", config_load_provider, &c->providers,
			   &c->n_providers) < 0 ||
		       LOAD_TITLED(root, "filter", config_load_filter, &c->filters, &c->n_filters) <
			   0 ||
		       LOAD_TITLED(
			   root, "policy", config_load_policy, &c->policies, &c->n_policies) < 0 ||
		       config_index_routes(root->all, root->err) < 0
		   ? -1
		   : 0;
}

int
config_load_values(struct config_all *all, struct slice text, struct err *err)
{
	struct section root = { .all = all, .name = "", .title = "", .err = err };
	struct slice copy = arena_copy(&all->arena, text);
	struct err why = { 0 };
	int rc = -1, open;

	if (copy.p == NULL || memchr(copy.p, '\0', copy.len) != NULL)
		return config_fail(all, err, 1, "not a text file");
	open =
	    config_outline_blank((char *)(uintptr_t)copy.p, copy.len); /* ours: it was just made */
	if (open > 0)
		return config_fail(all, err, open, "a comment begins here that is not closed");
	root.cfg = cfg_init(config_options(), CFGF_NONE);
	if (root.cfg == NULL)
		return err_set(err, ERR_NOMEM, "no memory for the config");
	cfg_set_error_function(root.cfg, on_confuse_error);
	loading = all;
	loading_err = &why;
	if (cfg_parse_buf(root.cfg, copy.p) != CFG_SUCCESS) {
		if (why.code == ERR_NONE)
			(void)config_fail(all, &why, 1, "not in the syntax of a config");
		*err = why;
		goto out;
	}
	all->outline = config_outline_read(copy, &all->arena, &why);
	if (all->outline == NULL) {
		err_set(err, why.code, "%s:%s", all->pub.path, why.msg);
		goto out;
	}
	rc = load_all(&root);
out:
	cfg_free(root.cfg);
	return rc;
}
