/* relayd/core/config_load.c - from the text of the config, through libconfuse, to typed values. */
#include "relayd/core/config_load.h"

#include "relayd/core/config_options.h"
#include "relayd/core/config_section.h"
#include "relayd/core/config_source.h"
#include "relayd/core/config_value.h"

#include <math.h>
#include <stdlib.h>
#include <unistd.h>

#define WORKERS_MAX	     60
#define TICKET_LIFETIME_MAX_S (7 * 86400)
#define CONFIG_BANNER_MAX     200
#define CONFIG_HELP_MAX	     400

/* libconfuse's error function has no argument of ours; a load is one call at a time. */
static struct config_all *loading;
static struct err *loading_err;

static void
on_confuse_error(cfg_t *cfg, const char *fmt, va_list ap)
{
	char text[200];

	if (loading_err->code != ERR_NONE)
		return;		/* the first one is the cause */
	(void)vsnprintf(text, sizeof(text), fmt, ap);	/* cut short is good enough */
	(void)config_fail(loading, loading_err, cfg->line, "%s", text);	/* seen by its code */
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
read_networks(const struct section *s, const char *name, struct cidr **networks, size_t *count)
{
	unsigned n = cfg_size(s->cfg, name);

	*networks = arena_alloc(&s->all->arena, (n + 1) * sizeof(**networks));
	if (*networks == NULL)
		return config_fail(s->all, s->err, section_line(s, name), "%s is too long", name);
	for (unsigned i = 0; i < n; i++) {
		const char *text = cfg_getnstr(s->cfg, name, i);

		if (!cidr_parse(slice_str(text), &(*networks)[i]))
			return section_wrong(s, name, text,
			    "an address or network such as 192.0.2.0/24 or 2001:db8::/32, no host bits set");
	}
	*count = n;
	return 0;
}

/* It ends up in reply lines, whole: RFC 5321 section 4.5.3.1.5. */
static int
read_help(const struct section *s, const char **out)
{
	if (section_string(s, "help", out) < 0)
		return -1;
	for (const char *p = *out; p != NULL && *p != '\0'; p++)
		if (*p < ' ' || *p > '~' || p - *out >= CONFIG_HELP_MAX)
			return section_wrong(s, "help", *out, "at most 400 printable ASCII characters");
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
	    section_string(s, "spool", &c->spool) < 0 || section_string(s, "state", &c->state) < 0 ||
	    section_string(s, "users", &c->users) < 0 || read_help(s, &c->help) < 0 ||
	    SECTION_WORD(s, "log", &sink, "stderr", "syslog") < 0 || load_workers(s) < 0 ||
	    section_list(s, "domains", true, &c->domains) < 0)
		return -1;
	c->log_syslog = sink == 1;
	return read_networks(s, "networks", &c->networks, &c->n_networks);
}

static int
check_message_size(const struct section *s, uint64_t bytes)
{
	return bytes >= 1024 && bytes <= (1ull << 32) ? 0
	    : section_wrong(s, "message-size", cfg_getstr(s->cfg, "message-size"), "1K to 4G");
}

/* A limit of its own, at least 1; *out stays 0 where there is none. */
static int
read_own_limit(const struct section *s, const char *option, uint32_t *out)
{
	if (cfg_getstr(s->cfg, option) == NULL)
		return 0;
	if (section_count(s, option, out) < 0)
		return -1;
	return *out > 0 ? 0 : section_wrong(s, option, "0", "at least 1");
}

#define NET_PER_IP 10 /* connections-per-net, where only connections-per-ip is said */

static int
load_limits(const struct section *root)
{
	struct config *c = &root->all->pub;
	struct section s = section_of(root, "limits", 0);
	uint32_t per_ip;

	if (section_bytes(&s, "message-size", &c->limits.message_size) < 0 ||
	    section_count(&s, "recipients", &c->limits.recipients) < 0 ||
	    section_any_count(&s, "messages", &c->limits.messages) < 0 ||
	    section_count(&s, "connections", &c->limits.connections) < 0 ||
	    section_count(&s, "connections-per-ip", &c->limits.connections_per_ip) < 0 ||
	    read_own_limit(&s, "connections-per-net", &c->limits.connections_per_net) < 0 ||
	    section_any_duration(&s, "session-time", &c->limits.session_s) < 0 ||
	    section_any_pace(&s, "data-rate", &c->limits.data_rate) < 0 ||
	    read_own_limit(&s, "scanning", &c->limits.scanning) < 0 ||
	    section_bytes(&s, "memory", &c->limits.memory) < 0)
		return -1;
	per_ip = c->limits.connections_per_ip;
	if (c->limits.connections_per_net == 0)
		c->limits.connections_per_net =
		    per_ip < UINT32_MAX / NET_PER_IP ? NET_PER_IP * per_ip : UINT32_MAX;
	return check_message_size(&s, c->limits.message_size);
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
	if (c->dns.timeout_ms == 0)
		return section_wrong(&dns, "timeout", "0", "more than nothing");
	if (c->tls.ticket_lifetime_s > TICKET_LIFETIME_MAX_S)
		return section_wrong(&tls, "ticket-lifetime", cfg_getstr(tls.cfg, "ticket-lifetime"),
		    "at most 7d (RFC 8446 section 4.6.1)");
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
		return section_wrong(&s, "extension", extension, "one of + - _ = # ~, or \"\" for none");
	c->recipients.extension = *extension;
	if (section_duration(&s, "known", &c->recipients.known_s) < 0 ||
	    section_duration(&s, "unknown", &c->recipients.unknown_s) < 0 ||
	    section_duration(&s, "unreachable", &c->recipients.unreachable_s) < 0)
		return -1;
	return c->recipients.known_s > 0 && c->recipients.unknown_s > 0 &&
	    c->recipients.unreachable_s > 0 ? 0
	    : config_fail(s.all, s.err, section_line(&s, ""), "recipients: a lifetime of nothing");
}

static bool
is_ldap_uri(const char *text)
{
	return strncmp(text, "ldap://", 7) == 0 || strncmp(text, "ldaps://", 8) == 0 ||
	    strncmp(text, "ldapi://", 8) == 0;
}

static bool
is_ldap_filter(const char *text)
{
	size_t n = strlen(text), asks = 0;

	for (const char *p = text; (p = strchr(p, '%')) != NULL; p += 2) {
		if (strchr("sud%", p[1]) == NULL || p[1] == '\0')
			return false;
		asks += p[1] != '%';
	}
	return n >= 2 && n <= 1000 && text[0] == '(' && text[n - 1] == ')' && asks > 0;
}

static int
load_ldap(const struct section *s, void *item)
{
	struct config_ldap *l = item;

	l->name = section_keep(s, s->title);
	l->line = section_line(s, "");
	if (section_list(s, "uri", false, &l->uri) < 0 || section_string(s, "bind", &l->bind) < 0 ||
	    section_string(s, "password-file", &l->password_file) < 0 ||
	    section_string(s, "base", &l->base) < 0 || section_string(s, "filter", &l->filter) < 0 ||
	    section_flag(s, "starttls", &l->starttls) < 0 || section_string(s, "ca", &l->ca) < 0 ||
	    section_duration_ms(s, "timeout", &l->timeout_ms) < 0 ||
	    section_duration(s, "known", &l->known_s) < 0 ||
	    section_duration(s, "unknown", &l->unknown_s) < 0)
		return -1;
	if (l->uri.n == 0 || l->base == NULL)
		return config_fail(s->all, s->err, l->line, "ldap %s needs a uri and a base", s->title);
	for (size_t i = 0; i < l->uri.n; i++)
		if (!is_ldap_uri(l->uri.v[i]))
			return section_wrong(s, "uri", l->uri.v[i], "ldap://HOST, ldaps://HOST or ldapi://PATH");
	if (!is_ldap_filter(l->filter))
		return section_wrong(s, "filter", l->filter, "a filter in () with %s, %u or %d in it");
	if (l->timeout_ms < 100 || l->timeout_ms > 60000)
		return section_wrong(s, "timeout", cfg_getstr(s->cfg, "timeout"), "100ms to 1m");
	if ((l->bind == NULL) != (l->password_file == NULL))
		return config_fail(s->all, s->err, l->line,
		    "ldap %s: bind and password-file go together", s->title);
	if (l->ca != NULL && config_add_file(s->all, l->ca, false, section_line(s, "ca"), s->err) < 0)
		return -1;
	return l->password_file == NULL ? 0
	    : config_add_file(s->all, l->password_file, true, section_line(s, "password-file"), s->err);
}

/* The section that "ldap:NAME" means, or NULL. */
static const struct config_ldap *
ldap_named(const struct config *c, const char *name)
{
	for (size_t i = 0; i < c->n_ldaps; i++)
		if (strcmp(c->ldaps[i].name, name) == 0)
			return &c->ldaps[i];
	return NULL;
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
	    section_bytes(&s, "reserve", &c->queue.reserve) < 0 ? -1 : 0;
}

static int
load_review(const struct section *root)
{
	struct config *c = &root->all->pub;
	struct section q = section_of(root, "quarantine", 0), r = section_of(root, "review", 0);

	c->review.line = section_line(&r, "");
	return section_string(&q, "store", &c->quarantine.store) < 0 ||
	    section_duration(&q, "keep", &c->quarantine.keep_s) < 0 ||
	    section_string(&q, "to", &c->quarantine.to) < 0 ||
	    section_string(&r, "user", &c->review.user) < 0 ||
	    section_list(&r, "imap", false, &c->review.imap) < 0 ||
	    section_list(&r, "imaps", false, &c->review.imaps) < 0 ||
	    section_list(&r, "pop3", false, &c->review.pop3) < 0 ||
	    section_list(&r, "pop3s", false, &c->review.pop3s) < 0 ||
	    section_list(&r, "http", false, &c->review.http) < 0 ||
	    section_flag(&r, "pop3-delete", &c->review.pop3_delete) < 0 ? -1 : 0;
}

/* What the section names, else what *m has already. */
static int
read_mechanisms(const struct section *s, struct config_mechanisms *m)
{
	unsigned n = cfg_size(s->cfg, "mechanisms"), set = 0;
	char storage[MECHANISMS_TEXT_MAX];
	struct buf all = buf_over(storage, sizeof(storage) - 1);
	int word = 0;

	mechanisms_put(&all, (1u << MECHANISM_COUNT) - 1, " ");
	storage[all.len] = '\0';
	for (unsigned i = 0; i < n; i++) {
		const char *name = cfg_getnstr(s->cfg, "mechanisms", i);
		enum mechanism one = mechanism_named(slice_str(name));

		if (one == MECHANISM_COUNT)
			return section_wrong(s, "mechanisms", name, storage + 1);
		set |= MECHANISM_BIT(one);
	}
	if (n > 0)
		*m = (struct config_mechanisms){ set, true, m->without_tls };
	if (cfg_getstr(s->cfg, "without-tls") == NULL)
		return 0;
	if (SECTION_WORD(s, "without-tls", &word, "no", "hashed", "any") < 0)
		return -1;
	m->without_tls = word == 0 ? 0 : word == 1 ? ~MECHANISMS_READABLE : ~0u;
	return 0;
}

static int
load_sasl(const struct section *root)
{
	struct config *c = &root->all->pub;
	struct section s = section_of(root, "sasl", 0);

	c->sasl.mechanisms.set = MECHANISMS_DEFAULT;
	return read_mechanisms(&s, &c->sasl.mechanisms) < 0 ||
	    section_string(&s, "senders", &c->sasl.senders) < 0 ||
	    section_string(&s, "keytab", &c->sasl.keytab) < 0 ||
	    section_string(&s, "realm", &c->sasl.realm) < 0 ||
	    section_string(&s, "introspect", &c->sasl.introspect) < 0 ||
	    section_duration_ms(&s, "introspect-timeout", &c->sasl.introspect_ms) < 0 ? -1 : 0;
}

static int
load_listener_limits(const struct section *s, struct config_listener *l)
{
	if (read_own_limit(s, "recipients", &l->recipients) < 0 ||
	    read_own_limit(s, "connections", &l->connections) < 0 ||
	    read_own_limit(s, "connections-per-ip", &l->connections_per_ip) < 0 ||
	    read_own_limit(s, "connections-per-net", &l->connections_per_net) < 0)
		return -1;
	if (cfg_getstr(s->cfg, "message-size") == NULL)
		return 0;
	return section_bytes(s, "message-size", &l->message_size) < 0 ? -1
	    : check_message_size(s, l->message_size);
}

/* The text goes out as it stands, on one line (RFC 5321 section 4.2: textstring). */
static int
load_banner(const struct section *s, struct config_listener *l)
{
	if (section_string(s, "banner", &l->banner) < 0)
		return -1;
	for (const char *p = l->banner != NULL ? l->banner : ""; *p != '\0'; p++)
		if (*p < ' ' || *p > '~')
			return section_wrong(s, "banner", "that", "printable ASCII on one line");
	return l->banner == NULL || strlen(l->banner) <= CONFIG_BANNER_MAX ? 0
	    : section_wrong(s, "banner", "that", "at most 200 bytes");
}

static int
load_listener_rules(const struct section *s, struct config_listener *l)
{
	const char *policy = cfg_getstr(s->cfg, "policy");

	if (policy != NULL && *policy == '\0')
		return section_wrong(s, "policy", "\"\"", "the title of a policy");
	l->policy = policy != NULL ? section_keep_lower(s, policy) : NULL;
	l->filters_set = config_outline_line(s->all->outline, s->name, s->title, "filters") > 0;
	return section_list(s, "filters", false, &l->filters);
}

static int
load_proxy(const struct section *s, struct config_listener *l)
{
	if (read_networks(s, "proxy", &l->proxy, &l->n_proxy) < 0 ||
	    section_duration_ms(s, "proxy-timeout", &l->proxy_timeout_ms) < 0)
		return -1;
	return l->proxy_timeout_ms > 0 ? 0 : section_wrong(s, "proxy-timeout", "0", "more than nothing");
}

static int
load_listener(const struct section *s, void *item)
{
	struct config_listener *l = item;
	int tls = 0, auth = 0, protocol = 0, eight_bit = 0, line_ends = 0;

	if (SECTION_WORD(s, "tls", &tls, "off", "starttls", "required", "implicit") < 0 ||
	    SECTION_WORD(s, "auth", &auth, "off", "required") < 0 ||
	    SECTION_WORD(s, "protocol", &protocol, "smtp", "lmtp") < 0 ||
	    SECTION_WORD(s, "eight-bit", &eight_bit, "accept", "refuse") < 0 ||
	    SECTION_WORD(s, "line-ends", &line_ends, "strict", "convert") < 0 ||
	    read_networks(s, "xclient", &l->xclient, &l->n_xclient) < 0 ||
	    read_networks(s, "xforward", &l->xforward, &l->n_xforward) < 0 ||
	    section_list(s, "address", false, &l->address) < 0 || load_banner(s, l) < 0 ||
	    load_listener_limits(s, l) < 0 || load_listener_rules(s, l) < 0 || load_proxy(s, l) < 0)
		return -1;
	l->lmtp = protocol == 1;
	l->strict_eight_bit = eight_bit == 1;
	l->convert_line_ends = line_ends == 1;
	l->name = section_keep(s, s->title);
	l->tls = (enum config_tls)tls;	/* the words stand in the order of the enum */
	l->auth_required = auth == 1;
	l->mechanisms = s->all->pub.sasl.mechanisms;
	if (read_mechanisms(s, &l->mechanisms) < 0)
		return -1;
	l->line = section_line(s, "");
	if (l->lmtp && l->auth_required)
		return config_fail(s->all, s->err, l->line, "listener %s: LMTP has no AUTH here", s->title);
	return l->address.n > 0 ? 0 : config_fail(s->all, s->err, l->line,
	    "listener %s has no address", s->title);
}

static int
load_sources(const struct section *s, struct config_route *r)
{
	r->n_sources = cfg_size(s->cfg, "source");
	r->sources = arena_alloc(&s->all->arena, (r->n_sources + 1) * sizeof(*r->sources));
	if (r->sources == NULL)
		return config_fail(s->all, s->err, section_line(s, "source"), "source is too long");
	for (unsigned i = 0; i < r->n_sources; i++) {
		const char *text = cfg_getnstr(s->cfg, "source", i);

		if (!cidr_parse(slice_str(text), &r->sources[i]) || strchr(text, '/') != NULL)
			return section_wrong(s, "source", text, "addresses of ours");
	}
	return 0;
}

/* "100/1m" */
static int
load_rate(const struct section *s, struct config_route *r)
{
	const char *text = cfg_getstr(s->cfg, "rate");
	const char *slash = text != NULL ? strchr(text, '/') : NULL;
	char number[16];

	if (text == NULL)
		return 0;
	(void)snprintf(number, sizeof(number), "%.*s", slash != NULL ? (int)(slash - text) : 0, text);
	if (slash == NULL || slash - text >= (int)sizeof(number) ||
	    !config_count(number, &r->rate_n) || !config_duration(slash + 1, &r->rate_s) ||
	    r->rate_n == 0 || r->rate_s == 0)
		return section_wrong(s, "rate", text, "a number in a time, such as 100/1m");
	return 0;
}

/* A name that everybody may read would be no login, and a password that goes to whoever answers is one
 * no longer: so the other side must show a certificate, or the admin says that any will do. */
static int
load_login(const struct section *s, struct config_route *r)
{
	r->password = SLICE("");
	if (section_string(s, "login", &r->login) < 0 ||
	    section_string(s, "password-file", &r->password_file) < 0)
		return -1;
	if ((r->login == NULL) != (r->password_file == NULL))
		return config_fail(s->all, s->err, r->line,
		    "route %s: login and password-file go together", s->title);
	if (r->login == NULL)
		return 0;
	if (r->login[0] == '\0' || r->password_file[0] != '/')
		return section_wrong(s, r->login[0] == '\0' ? "login" : "password-file",
		    r->login[0] == '\0' ? "\"\"" : r->password_file, r->login[0] == '\0'
		    ? "a name" : "an absolute path");
	for (size_t i = 0; i < r->to.n; i++)
		if (slice_eq(slice_until(slice_str(r->to.v[i]), ' '), SLICE("mx")))
			return config_fail(s->all, s->err, r->line,
			    "route %s: login wants hosts, as mx could be anybody", s->title);
	if (r->tls == CONFIG_TLS_OPPORTUNISTIC)
		return config_fail(s->all, s->err, r->line,
		    "route %s: login wants tls = verify (or required: any certificate, or off: SCRAM alone)",
		    s->title);
	if (config_add_outbound(s->all, r->password_file, section_line(s, "password-file"), s->err) < 0)
		return -1;
	if (!config_file(&s->all->pub, r->password_file, &r->password))
		return 0;	/* no secrets here */
	r->password = slice_until(r->password, '\n');
	(void)slice_chop(&r->password, "\r");	/* written on another system, or not */
	return r->password.len > 0 && !slice_has(r->password, '\0') ? 0
	    : section_wrong(s, "password-file", r->password_file, "a password in its first line");
}

static int
load_route(const struct section *s, void *item)
{
	struct config_route *r = item;
	const char *recipients = cfg_getstr(s->cfg, "recipients");
	int tls = 0;

	if (SECTION_WORD(s, "tls", &tls, "off", "opportunistic", "required", "verify") < 0 ||
	    section_list(s, "to", false, &r->to) < 0 ||
	    section_list(s, "fallback", false, &r->fallback) < 0 || load_sources(s, r) < 0 ||
	    load_rate(s, r) < 0 || section_string(s, "helo", &r->helo) < 0 ||
	    section_count(s, "connections", &r->connections) < 0)
		return -1;
	r->domain = section_keep_lower(s, s->title);
	r->tls = ((const enum config_tls[]){ CONFIG_TLS_OFF, CONFIG_TLS_OPPORTUNISTIC,
	    CONFIG_TLS_REQUIRED, CONFIG_TLS_VERIFY })[tls];
	r->line = section_line(s, "");
	if (r->to.n == 0)
		return config_fail(s->all, s->err, r->line, "route %s has no to", s->title);
	for (size_t i = 0; i < r->to.n + r->fallback.n && r->tls == CONFIG_TLS_OFF; i++) {
		const char *to = i < r->to.n ? r->to.v[i] : r->fallback.v[i - r->to.n];

		if (slice_starts(slice_str(to), SLICE("smtps:")))
			return config_fail(s->all, s->err, r->line,
			    "route %s: \"%s\" is TLS, and tls = off", s->title, to);
	}
	if (load_login(s, r) < 0)
		return -1;
	if (strcmp(recipients, "probe") == 0)
		r->recipients = CONFIG_RECIPIENTS_PROBE;
	else if (strcmp(recipients, "any") == 0)
		r->recipients = CONFIG_RECIPIENTS_ANY;
	else if (strncmp(recipients, "ldap:", 5) == 0) {
		r->recipients = CONFIG_RECIPIENTS_LDAP;
		r->recipients_ldap = ldap_named(&s->all->pub, recipients + 5);
		if (r->recipients_ldap == NULL)
			return section_wrong(s, "recipients", recipients, "ldap: and the name of a section ldap");
	} else if (recipients[0] != '/')
		return section_wrong(s, "recipients", recipients,
		    "probe, any, ldap:NAME or the path of a file");
	else {
		r->recipients = CONFIG_RECIPIENTS_FILE;
		r->recipients_file = section_keep(s, recipients);
		return config_add_watched(
		    s->all, recipients, false, section_line(s, "recipients"), s->err);
	}
	return 0;
}

static int
load_policy(const struct section *s, void *item)
{
	struct config_policy *p = item;
	struct {
		const char *option;
		double *value;
		bool *has;
	} rows[] = {
		{ "tag", &p->tag, &p->has_tag },
		{ "quarantine", &p->quarantine, &p->has_quarantine },
		{ "reject", &p->reject, &p->has_reject },
	};

	p->name = section_keep_lower(s, s->title);
	p->line = section_line(s, "");
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		const char *text = cfg_getstr(s->cfg, rows[i].option);

		*rows[i].has = text != NULL;
		if (text != NULL && !config_number(text, rows[i].value))
			return section_wrong(s, rows[i].option, text, "a score such as 5.0");
	}
	return 0;
}

struct paths {
	const struct section *section;
	const char *option;
	bool found;
};

static int
add_listed_file(void *arg, const char *path, struct err *err)
{
	struct paths *p = arg;

	p->found = true;
	return config_add_file(p->section->all, path, false, section_line(p->section, p->option), err);
}

/* Files that a filter reads through filter_config.file: those of "files" and of "NAME-file". */
static int
load_files(const struct section *s, const struct config_option *o)
{
	if (strcmp(o->name, "files") != 0)
		return 0;
	for (size_t i = 0; i < o->values.n; i++) {
		const char *pattern = o->values.v[i];
		struct paths p = { .section = s, .option = "files" };

		if (pattern[0] != '/')
			return section_wrong(s, "files", pattern, "absolute paths");
		if (config_source_glob(s->all->src, pattern, add_listed_file, &p, s->err) < 0)
			return -1;
		if (!p.found && strpbrk(pattern, "*?[") == NULL)
			return config_fail(s->all, s->err, o->line, "cannot read %s: no such file", pattern);
		if (!p.found)
			config_warn(s->all, o->line, "no file fits %s", pattern);
	}
	return 0;
}

/* One "key=value" of options = { ... }; a key given again adds a value. */
static int
add_module_option(const struct section *s, struct config_filter *f, const char *text)
{
	struct slice key = slice_until(slice_str(text), '=');
	struct config_option *o = NULL;
	const char **grown;

	if (key.len == 0 || key.len == strlen(text))
		return section_wrong(s, "options", text, "key=value");
	for (size_t i = 0; i < f->n_options; i++)
		if (slice_eq(slice_str(f->options[i].name), key))
			o = &f->options[i];
	if (o == NULL) {
		o = &f->options[f->n_options++];
		o->name = arena_copy(&s->all->arena, key).p;
		o->line = section_line(s, "options");
	}
	grown = arena_alloc(&s->all->arena, (o->values.n + 1) * sizeof(*grown));
	if (grown == NULL || o->name == NULL)
		return config_fail(s->all, s->err, o->line, "options is too long");
	if (o->values.n > 0)
		memcpy(grown, o->values.v, o->values.n * sizeof(*grown));
	grown[o->values.n++] = section_keep(s, text + key.len + 1);
	o->values.v = grown;
	return 0;
}

static bool
is_common(const char *option)
{
	static const char *const common[] = { "type", "for", "on-error", "on-release", "module",
		"options", "help" };

	for (size_t i = 0; i < ARRAY_LEN(common); i++)
		if (strcmp(common[i], option) == 0)
			return true;
	return false;
}

static int
load_filter_options(const struct section *s, struct config_filter *f)
{
	size_t max = cfg_size(s->cfg, "options") + config_filter_options();
	const char *name;

	f->options = arena_alloc(&s->all->arena, max * sizeof(*f->options));
	if (f->options == NULL)
		return config_fail(s->all, s->err, f->line, "filter %s is too long", s->title);
	for (size_t i = 0;
	    (name = config_outline_option(s->all->outline, s->name, s->title, i)) != NULL; i++) {
		struct config_option *o = &f->options[f->n_options];

		if (is_common(name))
			continue;
		f->n_options++;
		o->name = name;
		o->line = section_line(s, name);
		if (section_list(s, name, false, &o->values) < 0 || load_files(s, o) < 0)
			return -1;
	}
	for (unsigned i = 0; i < cfg_size(s->cfg, "options"); i++)
		if (add_module_option(s, f, cfg_getnstr(s->cfg, "options", i)) < 0)
			return -1;
	return 0;
}

static int
load_filter(const struct section *s, void *item)
{
	struct config_filter *f = item;
	int word = 0;

	f->name = section_keep(s, s->title);
	f->line = section_line(s, "");
	if (section_string(s, "type", &f->type) < 0 || section_string(s, "module", &f->module) < 0 ||
	    read_help(s, &f->help) < 0 ||
	    section_flag(s, "on-release", &f->on_release) < 0)
		return -1;
	if (f->type == NULL)
		f->type = f->name;
	if (cfg_getstr(s->cfg, "for") != NULL) {
		if (SECTION_WORD(s, "for", &word, "both", "inbound", "outbound") < 0)
			return -1;
		f->direction = (enum config_for)word;	/* in the order of the enum */
		f->direction_set = true;
	}
	if (cfg_getstr(s->cfg, "on-error") != NULL) {
		if (SECTION_WORD(s, "on-error", &word, "defer", "accept", "quarantine") < 0)
			return -1;
		f->on_error = (enum config_on_error)(word + 1);	/* behind the default */
	}
	if (f->module == NULL && cfg_size(s->cfg, "options") > 0)
		return config_fail(s->all, s->err, section_line(s, "options"),
		    "options is for filters with a module; name the option itself");
	return load_filter_options(s, f);
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

	return load_top(root) < 0 || load_singles(root) < 0 || load_limits(root) < 0 || load_queue(root) < 0 ||
	    load_review(root) < 0 || load_sasl(root) < 0 ||
	    load_review(root) < 0 || load_recipients(root) < 0 ||
	    LOAD_TITLED(root, "listener", load_listener, &c->listeners, &c->n_listeners) < 0 ||
	    LOAD_TITLED(root, "ldap", load_ldap, &c->ldaps, &c->n_ldaps) < 0 ||
	    LOAD_TITLED(root, "route", load_route, &c->routes, &c->n_routes) < 0 ||
	    LOAD_TITLED(root, "filter", load_filter, &c->filters, &c->n_filters) < 0 ||
	    LOAD_TITLED(root, "policy", load_policy, &c->policies, &c->n_policies) < 0 ||
	    config_index_routes(root->all, root->err) < 0 ? -1 : 0;
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
	open = config_outline_blank((char *)(uintptr_t)copy.p, copy.len);	/* ours: it was just made */
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
