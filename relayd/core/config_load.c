/* relayd/core/config_load.c - from the text of the config, through libconfuse, to typed values. */
#include "relayd/core/config_load.h"

#include "relayd/core/config_source.h"
#include "relayd/core/config_value.h"

#include <confuse.h>
#include <math.h>
#include <stdlib.h>
#include <unistd.h>

#define WORKERS_MAX	     60
#define TICKET_LIFETIME_MAX_S (7 * 86400)
#define CONFIG_BANNER_MAX     200
#define CONFIG_HELP_MAX	     400

/* libconfuse sees every value as text: types, ranges and lines are ours to tell. */
static cfg_opt_t dns_opts[] = {
	CFG_STR_LIST("servers", "{}", CFGF_NONE),
	CFG_STR("timeout", "5s", CFGF_NONE),
	CFG_END(),
};
static cfg_opt_t tls_opts[] = {
	CFG_STR_LIST("certificate", "{}", CFGF_NONE),
	CFG_STR_LIST("key", "{}", CFGF_NONE),
	CFG_STR("client-ca", NULL, CFGF_NONE),
	CFG_STR_LIST("relay-fingerprints", "{}", CFGF_NONE),
	CFG_STR("ticket-lifetime", "2h", CFGF_NONE),
	CFG_END(),
};
static cfg_opt_t sasl_opts[] = {
	CFG_STR_LIST("mechanisms", "{}", CFGF_NONE),
	CFG_STR("without-tls", NULL, CFGF_NONE),
	CFG_STR("senders", NULL, CFGF_NONE),
	CFG_STR("keytab", NULL, CFGF_NONE),
	CFG_STR("realm", NULL, CFGF_NONE),
	CFG_STR("introspect", NULL, CFGF_NONE),
	CFG_STR("introspect-timeout", "5s", CFGF_NONE),
	CFG_END(),
};
static cfg_opt_t listener_opts[] = {
	CFG_STR_LIST("address", "{}", CFGF_NONE),
	CFG_STR("tls", "off", CFGF_NONE),
	CFG_STR("auth", "off", CFGF_NONE),
	CFG_STR("protocol", "smtp", CFGF_NONE),
	CFG_STR("eight-bit", "accept", CFGF_NONE),
	CFG_STR("line-ends", "strict", CFGF_NONE),
	CFG_STR_LIST("xclient", "{}", CFGF_NONE),
	CFG_STR_LIST("xforward", "{}", CFGF_NONE),
	CFG_STR_LIST("mechanisms", "{}", CFGF_NONE),
	CFG_STR("without-tls", NULL, CFGF_NONE),
	CFG_STR("banner", NULL, CFGF_NONE),
	CFG_STR("message-size", NULL, CFGF_NONE),
	CFG_STR("recipients", NULL, CFGF_NONE),
	CFG_STR("connections", NULL, CFGF_NONE),
	CFG_STR("connections-per-ip", NULL, CFGF_NONE),
	CFG_STR("connections-per-net", NULL, CFGF_NONE),
	CFG_STR_LIST("filters", "{}", CFGF_NONE),
	CFG_STR("policy", NULL, CFGF_NONE),
	CFG_STR_LIST("proxy", "{}", CFGF_NONE),
	CFG_STR("proxy-timeout", "5s", CFGF_NONE),
	CFG_END(),
};
static cfg_opt_t limits_opts[] = {
	CFG_STR("message-size", "50M", CFGF_NONE),
	CFG_STR("recipients", "1000", CFGF_NONE),
	CFG_STR("messages", "any", CFGF_NONE),
	CFG_STR("connections", "10000", CFGF_NONE),
	CFG_STR("connections-per-ip", "50", CFGF_NONE),
	CFG_STR("connections-per-net", NULL, CFGF_NONE),
	CFG_STR("session-time", "1h", CFGF_NONE),
	CFG_STR("data-rate", "16K/2m", CFGF_NONE),
	CFG_STR("scanning", "500", CFGF_NONE),
	CFG_STR("memory", "64M", CFGF_NONE),
	CFG_END(),
};
static cfg_opt_t route_opts[] = {
	CFG_STR_LIST("to", "{}", CFGF_NONE),
	CFG_STR_LIST("fallback", "{}", CFGF_NONE),
	CFG_STR("tls", "opportunistic", CFGF_NONE),
	CFG_STR("recipients", "probe", CFGF_NONE),
	CFG_STR_LIST("source", "{}", CFGF_NONE),
	CFG_STR("helo", NULL, CFGF_NONE),
	CFG_STR("connections", "0", CFGF_NONE),
	CFG_STR("rate", NULL, CFGF_NONE),
	CFG_STR("login", NULL, CFGF_NONE),
	CFG_STR("password-file", NULL, CFGF_NONE),
	CFG_END(),
};
static cfg_opt_t recipients_opts[] = {
	CFG_STR("extension", "", CFGF_NONE),
	CFG_STR("known", "1h", CFGF_NONE),
	CFG_STR("unknown", "5m", CFGF_NONE),
	CFG_STR("unreachable", "10s", CFGF_NONE),
	CFG_END(),
};
static cfg_opt_t ldap_opts[] = {
	CFG_STR_LIST("uri", "{}", CFGF_NONE),
	CFG_STR("bind", NULL, CFGF_NONE),
	CFG_STR("password-file", NULL, CFGF_NONE),
	CFG_STR("base", NULL, CFGF_NONE),
	CFG_STR("filter", "(mail=%s)", CFGF_NONE),
	CFG_STR("starttls", "no", CFGF_NONE),
	CFG_STR("ca", NULL, CFGF_NONE),
	CFG_STR("timeout", "5s", CFGF_NONE),
	CFG_STR("known", "10m", CFGF_NONE),
	CFG_STR("unknown", "1m", CFGF_NONE),
	CFG_END(),
};
static cfg_opt_t queue_opts[] = {
	CFG_STR_LIST("retry", "{1m, 5m, 15m, 1h, 4h}", CFGF_NONE),
	CFG_STR("warn", "4h", CFGF_NONE),
	CFG_STR("expire", "5d", CFGF_NONE),
	CFG_STR("bounces", "600", CFGF_NONE),
	CFG_STR("reserve", "1G", CFGF_NONE),
	CFG_END(),
};
/* The union of the options of all built-in filters: which of them a kind knows is checked when
 * the filter is configured. */
static cfg_opt_t filter_opts[] = {
	CFG_STR("type", NULL, CFGF_NONE),
	CFG_STR("for", NULL, CFGF_NONE),
	CFG_STR("on-error", NULL, CFGF_NONE),
	CFG_STR("on-release", "no", CFGF_NONE),
	CFG_STR("module", NULL, CFGF_NONE),
	CFG_STR("help", NULL, CFGF_NONE),
	CFG_STR_LIST("options", "{}", CFGF_NONE),
	CFG_STR_LIST("senders", "{}", CFGF_NONE),
	CFG_STR_LIST("clients", "{}", CFGF_NONE),
	CFG_STR_LIST("key", "{}", CFGF_NONE),
	CFG_STR_LIST("rate", "{}", CFGF_NONE),
	CFG_STR_LIST("action", "{}", CFGF_NONE),
	CFG_STR_LIST("count", "{}", CFGF_NONE),
	CFG_STR_LIST("zones", "{}", CFGF_NONE),
	CFG_STR_LIST("fail", "{}", CFGF_NONE),
	CFG_STR_LIST("softfail", "{}", CFGF_NONE),
	CFG_STR_LIST("neutral", "{}", CFGF_NONE),
	CFG_STR_LIST("none", "{}", CFGF_NONE),
	CFG_STR_LIST("pass", "{}", CFGF_NONE),
	CFG_STR_LIST("permerror", "{}", CFGF_NONE),
	CFG_STR_LIST("temperror", "{}", CFGF_NONE),
	CFG_STR_LIST("helo-fail", "{}", CFGF_NONE),
	CFG_STR_LIST("unconfirmed", "{}", CFGF_NONE),
	CFG_STR_LIST("literal", "{}", CFGF_NONE),
	CFG_STR_LIST("bad-literal", "{}", CFGF_NONE),
	CFG_STR_LIST("own-name", "{}", CFGF_NONE),
	CFG_STR_LIST("own", "{}", CFGF_NONE),
	CFG_STR_LIST("not-qualified", "{}", CFGF_NONE),
	CFG_STR_LIST("unresolvable", "{}", CFGF_NONE),
	CFG_STR_LIST("suspect", "{}", CFGF_NONE),
	CFG_STR_LIST("delay", "{}", CFGF_NONE),
	CFG_STR_LIST("remember", "{}", CFGF_NONE),
	CFG_STR_LIST("score", "{}", CFGF_NONE),
	CFG_STR_LIST("files", "{}", CFGF_NONE),
	CFG_STR_LIST("max-text", "{}", CFGF_NONE),
	CFG_STR_LIST("max-time", "{}", CFGF_NONE),
	CFG_END(),
};
static cfg_opt_t policy_opts[] = {
	CFG_STR("tag", NULL, CFGF_NONE),
	CFG_STR("quarantine", NULL, CFGF_NONE),
	CFG_STR("reject", NULL, CFGF_NONE),
	CFG_END(),
};
static cfg_opt_t quarantine_opts[] = {
	CFG_STR("store", "/var/lib/relayd/quarantine", CFGF_NONE),
	CFG_STR("keep", "30d", CFGF_NONE),
	CFG_STR("to", NULL, CFGF_NONE),
	CFG_END(),
};
static cfg_opt_t review_opts[] = {
	CFG_STR("user", "relayd-review", CFGF_NONE),
	CFG_STR_LIST("imap", "{}", CFGF_NONE),
	CFG_STR_LIST("imaps", "{}", CFGF_NONE),
	CFG_STR_LIST("pop3", "{}", CFGF_NONE),
	CFG_STR_LIST("pop3s", "{}", CFGF_NONE),
	CFG_STR("pop3-delete", "no", CFGF_NONE),
	CFG_STR_LIST("http", "{}", CFGF_NONE),
	CFG_END(),
};
#define TITLED (CFGF_MULTI | CFGF_TITLE)
static cfg_opt_t root_opts[] = {
	CFG_STR("hostname", NULL, CFGF_NONE),
	CFG_STR("postmaster", NULL, CFGF_NONE),
	CFG_STR("user", "relayd", CFGF_NONE),
	CFG_STR("run", "/run/relayd", CFGF_NONE),
	CFG_STR("spool", "/var/lib/relayd/spool", CFGF_NONE),
	CFG_STR("state", "/var/lib/relayd/state", CFGF_NONE),
	CFG_STR("users", NULL, CFGF_NONE),
	CFG_STR("help", NULL, CFGF_NONE),
	CFG_STR("log", "stderr", CFGF_NONE),
	CFG_STR("workers", "auto", CFGF_NONE),
	CFG_STR_LIST("domains", "{}", CFGF_NONE),
	CFG_STR_LIST("networks", "{}", CFGF_NONE),
	CFG_SEC("dns", dns_opts, CFGF_NONE),
	CFG_SEC("tls", tls_opts, CFGF_NONE),
	CFG_SEC("sasl", sasl_opts, CFGF_NONE),
	CFG_SEC("listener", listener_opts, TITLED),
	CFG_SEC("limits", limits_opts, CFGF_NONE),
	CFG_SEC("route", route_opts, TITLED),
	CFG_SEC("recipients", recipients_opts, CFGF_NONE),
	CFG_SEC("ldap", ldap_opts, TITLED),
	CFG_SEC("queue", queue_opts, CFGF_NONE),
	CFG_SEC("filter", filter_opts, TITLED),
	CFG_SEC("policy", policy_opts, TITLED),
	CFG_SEC("quarantine", quarantine_opts, CFGF_NONE),
	CFG_SEC("review", review_opts, CFGF_NONE),
	CFG_END(),
};

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

/* A section while it is read; the lines of its options are known by section and title. */
struct section {
	struct config_all *all;
	cfg_t *cfg;
	const char *name, *title;	/* "" at the top */
	struct err *err;
};

static int
line_of(const struct section *s, const char *option)
{
	int line = config_outline_line(s->all->outline, s->name, s->title, option);

	return line > 0 ? line : config_outline_line(s->all->outline, s->name, s->title, "");
}

static int
wrong(const struct section *s, const char *option, const char *value, const char *expected)
{
	return config_fail(s->all, s->err, line_of(s, option), "%s = %s: expected %s", option, value,
	    expected);
}

static const char *
keep(const struct section *s, const char *text)
{
	return text != NULL ? arena_copy(&s->all->arena, slice_str(text)).p : NULL;
}

static const char *
keep_lower(const struct section *s, const char *text)
{
	struct slice copy = arena_copy(&s->all->arena, slice_str(text));
	char *p = (char *)(uintptr_t)copy.p;	/* ours: just copied */

	for (size_t i = 0; i < copy.len && p != NULL; i++)
		p[i] = slice_lower(p[i]);
	return p;
}

static int
read_string(const struct section *s, const char *option, const char **out)
{
	const char *text = cfg_getstr(s->cfg, option);

	if (text != NULL && *text == '\0')
		return wrong(s, option, "\"\"", "a value");
	*out = keep(s, text);
	return 0;
}

static int
read_list(const struct section *s, const char *option, bool lower, struct config_strings *out)
{
	unsigned n = cfg_size(s->cfg, option);

	*out = (struct config_strings){ .n = n };
	out->v = arena_alloc(&s->all->arena, (n + 1) * sizeof(*out->v));
	for (unsigned i = 0; i < n; i++) {
		const char *text = cfg_getnstr(s->cfg, option, i);

		if (text == NULL || *text == '\0')
			return wrong(s, option, "\"\"", "a value");
		if (out->v == NULL || (out->v[i] = lower ? keep_lower(s, text) : keep(s, text)) == NULL)
			return config_fail(s->all, s->err, line_of(s, option), "%s is too long", option);
	}
	return 0;
}

static bool
any_count(const char *text, uint32_t *out)
{
	*out = 0;
	return strcmp(text, "any") == 0 || config_count(text, out);
}

static bool
any_duration(const char *text, uint32_t *out)
{
	*out = UINT32_MAX;
	return strcmp(text, "any") == 0 || (config_duration(text, out) && *out > 0);
}

static bool
any_pace(const char *text, struct config_pace *out)
{
	*out = (struct config_pace){ 0 };
	return strcmp(text, "any") == 0 || config_pace(text, &out->bytes, &out->seconds);
}

#define READ_WITH(name, type, parse, expected)                                                     \
	static int read_##name(const struct section *s, const char *option, type *out)             \
	{                                                                                          \
		const char *text = cfg_getstr(s->cfg, option);                                     \
                                                                                                   \
		return parse(text, out) ? 0 : wrong(s, option, text, expected);                    \
	}
READ_WITH(duration, uint32_t, config_duration, "a duration such as 30s, 5m, 4h or 7d")
READ_WITH(duration_ms, uint32_t, config_duration_ms, "a duration such as 500ms, 5s or 1m")
READ_WITH(bytes, uint64_t, config_bytes, "a size such as 64K, 50M or 1G")
READ_WITH(count, uint32_t, config_count, "a number")
READ_WITH(any_count, uint32_t, any_count, "a number, or any")
READ_WITH(any_duration, uint32_t, any_duration, "a duration such as 30s, 5m, 4h or 7d, or any")
READ_WITH(any_pace, struct config_pace, any_pace, "a size over a duration such as 16K/2m, or any")
READ_WITH(flag, bool, config_flag, "yes or no")

/* One of the words; *out is its place among them. */
static int
read_word(const struct section *s, const char *option, const char *const *words, size_t n, int *out)
{
	const char *text = cfg_getstr(s->cfg, option);
	char expected[160] = "";
	size_t used = 0;

	for (size_t i = 0; i < n; i++) {
		if (strcmp(text, words[i]) == 0) {
			*out = (int)i;
			return 0;
		}
		if (used < sizeof(expected))
			used += (size_t)snprintf(expected + used, sizeof(expected) - used, "%s%s",
			    i == 0 ? "" : i + 1 < n ? ", " : " or ", words[i]);
	}
	return wrong(s, option, text, expected);
}
#define READ_WORD(s, option, out, ...)                                                             \
	read_word(s, option, (const char *const[]){ __VA_ARGS__ },                                 \
	    ARRAY_LEN(((const char *const[]){ __VA_ARGS__ })), out)

static struct section
section_of(const struct section *root, const char *name, unsigned n)
{
	cfg_t *cfg = cfg_getnsec(root->cfg, name, n);
	const char *title = cfg_title(cfg);

	return (struct section){ .all = root->all, .cfg = cfg, .name = name,
		.title = title != NULL ? title : "", .err = root->err };
}

static int
load_workers(const struct section *s)
{
	struct config *c = &s->all->pub;
	const char *text = cfg_getstr(s->cfg, "workers");
	long cores = sysconf(_SC_NPROCESSORS_ONLN);
	uint32_t n = cores < 1 ? 1 : cores > WORKERS_MAX ? WORKERS_MAX : (uint32_t)cores;

	if (strcmp(text, "auto") != 0 && (!config_count(text, &n) || n < 1 || n > WORKERS_MAX))
		return wrong(s, "workers", text, "auto or a number from 1 to 60");
	c->workers = n;
	return 0;
}

static int
read_networks(const struct section *s, const char *name, struct cidr **networks, size_t *count)
{
	unsigned n = cfg_size(s->cfg, name);

	*networks = arena_alloc(&s->all->arena, (n + 1) * sizeof(**networks));
	if (*networks == NULL)
		return config_fail(s->all, s->err, line_of(s, name), "%s is too long", name);
	for (unsigned i = 0; i < n; i++) {
		const char *text = cfg_getnstr(s->cfg, name, i);

		if (!cidr_parse(slice_str(text), &(*networks)[i]))
			return wrong(s, name, text,
			    "an address or network such as 192.0.2.0/24 or 2001:db8::/32, no host bits set");
	}
	*count = n;
	return 0;
}

/* It ends up in reply lines, whole: RFC 5321 section 4.5.3.1.5. */
static int
read_help(const struct section *s, const char **out)
{
	if (read_string(s, "help", out) < 0)
		return -1;
	for (const char *p = *out; p != NULL && *p != '\0'; p++)
		if (*p < ' ' || *p > '~' || p - *out >= CONFIG_HELP_MAX)
			return wrong(s, "help", *out, "at most 400 printable ASCII characters");
	return 0;
}

static int
load_top(const struct section *s)
{
	struct config *c = &s->all->pub;
	int sink = 0;

	if (read_string(s, "hostname", &c->hostname) < 0 ||
	    read_string(s, "postmaster", &c->postmaster) < 0 ||
	    read_string(s, "user", &c->user) < 0 || read_string(s, "run", &c->run) < 0 ||
	    read_string(s, "spool", &c->spool) < 0 || read_string(s, "state", &c->state) < 0 ||
	    read_string(s, "users", &c->users) < 0 || read_help(s, &c->help) < 0 ||
	    READ_WORD(s, "log", &sink, "stderr", "syslog") < 0 || load_workers(s) < 0 ||
	    read_list(s, "domains", true, &c->domains) < 0)
		return -1;
	c->log_syslog = sink == 1;
	return read_networks(s, "networks", &c->networks, &c->n_networks);
}

static int
check_message_size(const struct section *s, uint64_t bytes)
{
	return bytes >= 1024 && bytes <= (1ull << 32) ? 0
	    : wrong(s, "message-size", cfg_getstr(s->cfg, "message-size"), "1K to 4G");
}

/* A limit of its own, at least 1; *out stays 0 where there is none. */
static int
read_own_limit(const struct section *s, const char *option, uint32_t *out)
{
	if (cfg_getstr(s->cfg, option) == NULL)
		return 0;
	if (read_count(s, option, out) < 0)
		return -1;
	return *out > 0 ? 0 : wrong(s, option, "0", "at least 1");
}

#define NET_PER_IP 10 /* connections-per-net, where only connections-per-ip is said */

static int
load_limits(const struct section *root)
{
	struct config *c = &root->all->pub;
	struct section s = section_of(root, "limits", 0);
	uint32_t per_ip;

	if (read_bytes(&s, "message-size", &c->limits.message_size) < 0 ||
	    read_count(&s, "recipients", &c->limits.recipients) < 0 ||
	    read_any_count(&s, "messages", &c->limits.messages) < 0 ||
	    read_count(&s, "connections", &c->limits.connections) < 0 ||
	    read_count(&s, "connections-per-ip", &c->limits.connections_per_ip) < 0 ||
	    read_own_limit(&s, "connections-per-net", &c->limits.connections_per_net) < 0 ||
	    read_any_duration(&s, "session-time", &c->limits.session_s) < 0 ||
	    read_any_pace(&s, "data-rate", &c->limits.data_rate) < 0 ||
	    read_own_limit(&s, "scanning", &c->limits.scanning) < 0 ||
	    read_bytes(&s, "memory", &c->limits.memory) < 0)
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

	if (read_list(&dns, "servers", false, &c->dns.servers) < 0 ||
	    read_duration_ms(&dns, "timeout", &c->dns.timeout_ms) < 0 ||
	    read_list(&tls, "certificate", false, &c->tls.certificates) < 0 ||
	    read_list(&tls, "key", false, &c->tls.keys) < 0 ||
	    read_string(&tls, "client-ca", &c->tls.client_ca) < 0 ||
	    read_list(&tls, "relay-fingerprints", false, &c->tls.fingerprints) < 0 ||
	    read_duration(&tls, "ticket-lifetime", &c->tls.ticket_lifetime_s) < 0)
		return -1;
	if (c->dns.timeout_ms == 0)
		return wrong(&dns, "timeout", "0", "more than nothing");
	if (c->tls.ticket_lifetime_s > TICKET_LIFETIME_MAX_S)
		return wrong(&tls, "ticket-lifetime", cfg_getstr(tls.cfg, "ticket-lifetime"),
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
		return wrong(&s, "extension", extension, "one of + - _ = # ~, or \"\" for none");
	c->recipients.extension = *extension;
	if (read_duration(&s, "known", &c->recipients.known_s) < 0 ||
	    read_duration(&s, "unknown", &c->recipients.unknown_s) < 0 ||
	    read_duration(&s, "unreachable", &c->recipients.unreachable_s) < 0)
		return -1;
	return c->recipients.known_s > 0 && c->recipients.unknown_s > 0 &&
	    c->recipients.unreachable_s > 0 ? 0
	    : config_fail(s.all, s.err, line_of(&s, ""), "recipients: a lifetime of nothing");
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

	l->name = keep(s, s->title);
	l->line = line_of(s, "");
	if (read_list(s, "uri", false, &l->uri) < 0 || read_string(s, "bind", &l->bind) < 0 ||
	    read_string(s, "password-file", &l->password_file) < 0 ||
	    read_string(s, "base", &l->base) < 0 || read_string(s, "filter", &l->filter) < 0 ||
	    read_flag(s, "starttls", &l->starttls) < 0 || read_string(s, "ca", &l->ca) < 0 ||
	    read_duration_ms(s, "timeout", &l->timeout_ms) < 0 ||
	    read_duration(s, "known", &l->known_s) < 0 ||
	    read_duration(s, "unknown", &l->unknown_s) < 0)
		return -1;
	if (l->uri.n == 0 || l->base == NULL)
		return config_fail(s->all, s->err, l->line, "ldap %s needs a uri and a base", s->title);
	for (size_t i = 0; i < l->uri.n; i++)
		if (!is_ldap_uri(l->uri.v[i]))
			return wrong(s, "uri", l->uri.v[i], "ldap://HOST, ldaps://HOST or ldapi://PATH");
	if (!is_ldap_filter(l->filter))
		return wrong(s, "filter", l->filter, "a filter in () with %s, %u or %d in it");
	if (l->timeout_ms < 100 || l->timeout_ms > 60000)
		return wrong(s, "timeout", cfg_getstr(s->cfg, "timeout"), "100ms to 1m");
	if ((l->bind == NULL) != (l->password_file == NULL))
		return config_fail(s->all, s->err, l->line,
		    "ldap %s: bind and password-file go together", s->title);
	if (l->ca != NULL && config_add_file(s->all, l->ca, false, line_of(s, "ca"), s->err) < 0)
		return -1;
	return l->password_file == NULL ? 0
	    : config_add_file(s->all, l->password_file, true, line_of(s, "password-file"), s->err);
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
		return wrong(&s, "retry", "{}", "at least one duration");
	for (unsigned i = 0; i < n; i++)
		if (!config_duration(cfg_getnstr(s.cfg, "retry", i), &c->queue.retry_s[i]) ||
		    c->queue.retry_s[i] == 0)
			return wrong(&s, "retry", cfg_getnstr(s.cfg, "retry", i),
			    "durations such as 1m, 5m, 1h");
	c->queue.n_retry = n;
	return read_duration(&s, "warn", &c->queue.warn_s) < 0 ||
	    read_duration(&s, "expire", &c->queue.expire_s) < 0 ||
	    read_count(&s, "bounces", &c->queue.bounces) < 0 ||
	    read_bytes(&s, "reserve", &c->queue.reserve) < 0 ? -1 : 0;
}

static int
load_review(const struct section *root)
{
	struct config *c = &root->all->pub;
	struct section q = section_of(root, "quarantine", 0), r = section_of(root, "review", 0);

	c->review.line = line_of(&r, "");
	return read_string(&q, "store", &c->quarantine.store) < 0 ||
	    read_duration(&q, "keep", &c->quarantine.keep_s) < 0 ||
	    read_string(&q, "to", &c->quarantine.to) < 0 ||
	    read_string(&r, "user", &c->review.user) < 0 ||
	    read_list(&r, "imap", false, &c->review.imap) < 0 ||
	    read_list(&r, "imaps", false, &c->review.imaps) < 0 ||
	    read_list(&r, "pop3", false, &c->review.pop3) < 0 ||
	    read_list(&r, "pop3s", false, &c->review.pop3s) < 0 ||
	    read_list(&r, "http", false, &c->review.http) < 0 ||
	    read_flag(&r, "pop3-delete", &c->review.pop3_delete) < 0 ? -1 : 0;
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
			return wrong(s, "mechanisms", name, storage + 1);
		set |= MECHANISM_BIT(one);
	}
	if (n > 0)
		*m = (struct config_mechanisms){ set, true, m->without_tls };
	if (cfg_getstr(s->cfg, "without-tls") == NULL)
		return 0;
	if (READ_WORD(s, "without-tls", &word, "no", "hashed", "any") < 0)
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
	    read_string(&s, "senders", &c->sasl.senders) < 0 ||
	    read_string(&s, "keytab", &c->sasl.keytab) < 0 ||
	    read_string(&s, "realm", &c->sasl.realm) < 0 ||
	    read_string(&s, "introspect", &c->sasl.introspect) < 0 ||
	    read_duration_ms(&s, "introspect-timeout", &c->sasl.introspect_ms) < 0 ? -1 : 0;
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
	return read_bytes(s, "message-size", &l->message_size) < 0 ? -1
	    : check_message_size(s, l->message_size);
}

/* The text goes out as it stands, on one line (RFC 5321 section 4.2: textstring). */
static int
load_banner(const struct section *s, struct config_listener *l)
{
	if (read_string(s, "banner", &l->banner) < 0)
		return -1;
	for (const char *p = l->banner != NULL ? l->banner : ""; *p != '\0'; p++)
		if (*p < ' ' || *p > '~')
			return wrong(s, "banner", "that", "printable ASCII on one line");
	return l->banner == NULL || strlen(l->banner) <= CONFIG_BANNER_MAX ? 0
	    : wrong(s, "banner", "that", "at most 200 bytes");
}

static int
load_listener_rules(const struct section *s, struct config_listener *l)
{
	const char *policy = cfg_getstr(s->cfg, "policy");

	if (policy != NULL && *policy == '\0')
		return wrong(s, "policy", "\"\"", "the title of a policy");
	l->policy = policy != NULL ? keep_lower(s, policy) : NULL;
	l->filters_set = config_outline_line(s->all->outline, s->name, s->title, "filters") > 0;
	return read_list(s, "filters", false, &l->filters);
}

static int
load_proxy(const struct section *s, struct config_listener *l)
{
	if (read_networks(s, "proxy", &l->proxy, &l->n_proxy) < 0 ||
	    read_duration_ms(s, "proxy-timeout", &l->proxy_timeout_ms) < 0)
		return -1;
	return l->proxy_timeout_ms > 0 ? 0 : wrong(s, "proxy-timeout", "0", "more than nothing");
}

static int
load_listener(const struct section *s, void *item)
{
	struct config_listener *l = item;
	int tls = 0, auth = 0, protocol = 0, eight_bit = 0, line_ends = 0;

	if (READ_WORD(s, "tls", &tls, "off", "starttls", "required", "implicit") < 0 ||
	    READ_WORD(s, "auth", &auth, "off", "required") < 0 ||
	    READ_WORD(s, "protocol", &protocol, "smtp", "lmtp") < 0 ||
	    READ_WORD(s, "eight-bit", &eight_bit, "accept", "refuse") < 0 ||
	    READ_WORD(s, "line-ends", &line_ends, "strict", "convert") < 0 ||
	    read_networks(s, "xclient", &l->xclient, &l->n_xclient) < 0 ||
	    read_networks(s, "xforward", &l->xforward, &l->n_xforward) < 0 ||
	    read_list(s, "address", false, &l->address) < 0 || load_banner(s, l) < 0 ||
	    load_listener_limits(s, l) < 0 || load_listener_rules(s, l) < 0 || load_proxy(s, l) < 0)
		return -1;
	l->lmtp = protocol == 1;
	l->strict_eight_bit = eight_bit == 1;
	l->convert_line_ends = line_ends == 1;
	l->name = keep(s, s->title);
	l->tls = (enum config_tls)tls;	/* the words stand in the order of the enum */
	l->auth_required = auth == 1;
	l->mechanisms = s->all->pub.sasl.mechanisms;
	if (read_mechanisms(s, &l->mechanisms) < 0)
		return -1;
	l->line = line_of(s, "");
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
		return config_fail(s->all, s->err, line_of(s, "source"), "source is too long");
	for (unsigned i = 0; i < r->n_sources; i++) {
		const char *text = cfg_getnstr(s->cfg, "source", i);

		if (!cidr_parse(slice_str(text), &r->sources[i]) || strchr(text, '/') != NULL)
			return wrong(s, "source", text, "addresses of ours");
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
		return wrong(s, "rate", text, "a number in a time, such as 100/1m");
	return 0;
}

/* A name that everybody may read would be no login, and a password that goes to whoever answers is one
 * no longer: so the other side must show a certificate, or the admin says that any will do. */
static int
load_login(const struct section *s, struct config_route *r)
{
	r->password = SLICE("");
	if (read_string(s, "login", &r->login) < 0 ||
	    read_string(s, "password-file", &r->password_file) < 0)
		return -1;
	if ((r->login == NULL) != (r->password_file == NULL))
		return config_fail(s->all, s->err, r->line,
		    "route %s: login and password-file go together", s->title);
	if (r->login == NULL)
		return 0;
	if (r->login[0] == '\0' || r->password_file[0] != '/')
		return wrong(s, r->login[0] == '\0' ? "login" : "password-file",
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
	if (config_add_outbound(s->all, r->password_file, line_of(s, "password-file"), s->err) < 0)
		return -1;
	if (!config_file(&s->all->pub, r->password_file, &r->password))
		return 0;	/* no secrets here */
	r->password = slice_until(r->password, '\n');
	(void)slice_chop(&r->password, "\r");	/* written on another system, or not */
	return r->password.len > 0 && !slice_has(r->password, '\0') ? 0
	    : wrong(s, "password-file", r->password_file, "a password in its first line");
}

static int
load_route(const struct section *s, void *item)
{
	struct config_route *r = item;
	const char *recipients = cfg_getstr(s->cfg, "recipients");
	int tls = 0;

	if (READ_WORD(s, "tls", &tls, "off", "opportunistic", "required", "verify") < 0 ||
	    read_list(s, "to", false, &r->to) < 0 ||
	    read_list(s, "fallback", false, &r->fallback) < 0 || load_sources(s, r) < 0 ||
	    load_rate(s, r) < 0 || read_string(s, "helo", &r->helo) < 0 ||
	    read_count(s, "connections", &r->connections) < 0)
		return -1;
	r->domain = keep_lower(s, s->title);
	r->tls = ((const enum config_tls[]){ CONFIG_TLS_OFF, CONFIG_TLS_OPPORTUNISTIC,
	    CONFIG_TLS_REQUIRED, CONFIG_TLS_VERIFY })[tls];
	r->line = line_of(s, "");
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
			return wrong(s, "recipients", recipients, "ldap: and the name of a section ldap");
	} else if (recipients[0] != '/')
		return wrong(s, "recipients", recipients,
		    "probe, any, ldap:NAME or the path of a file");
	else {
		r->recipients = CONFIG_RECIPIENTS_FILE;
		r->recipients_file = keep(s, recipients);
		return config_add_watched(
		    s->all, recipients, false, line_of(s, "recipients"), s->err);
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

	p->name = keep_lower(s, s->title);
	p->line = line_of(s, "");
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		const char *text = cfg_getstr(s->cfg, rows[i].option);

		*rows[i].has = text != NULL;
		if (text != NULL && !config_number(text, rows[i].value))
			return wrong(s, rows[i].option, text, "a score such as 5.0");
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
	return config_add_file(p->section->all, path, false, line_of(p->section, p->option), err);
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
			return wrong(s, "files", pattern, "absolute paths");
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
		return wrong(s, "options", text, "key=value");
	for (size_t i = 0; i < f->n_options; i++)
		if (slice_eq(slice_str(f->options[i].name), key))
			o = &f->options[i];
	if (o == NULL) {
		o = &f->options[f->n_options++];
		o->name = arena_copy(&s->all->arena, key).p;
		o->line = line_of(s, "options");
	}
	grown = arena_alloc(&s->all->arena, (o->values.n + 1) * sizeof(*grown));
	if (grown == NULL || o->name == NULL)
		return config_fail(s->all, s->err, o->line, "options is too long");
	if (o->values.n > 0)
		memcpy(grown, o->values.v, o->values.n * sizeof(*grown));
	grown[o->values.n++] = keep(s, text + key.len + 1);
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
	size_t max = cfg_size(s->cfg, "options") + ARRAY_LEN(filter_opts);
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
		o->line = line_of(s, name);
		if (read_list(s, name, false, &o->values) < 0 || load_files(s, o) < 0)
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

	f->name = keep(s, s->title);
	f->line = line_of(s, "");
	if (read_string(s, "type", &f->type) < 0 || read_string(s, "module", &f->module) < 0 ||
	    read_help(s, &f->help) < 0 ||
	    read_flag(s, "on-release", &f->on_release) < 0)
		return -1;
	if (f->type == NULL)
		f->type = f->name;
	if (cfg_getstr(s->cfg, "for") != NULL) {
		if (READ_WORD(s, "for", &word, "both", "inbound", "outbound") < 0)
			return -1;
		f->direction = (enum config_for)word;	/* in the order of the enum */
		f->direction_set = true;
	}
	if (cfg_getstr(s->cfg, "on-error") != NULL) {
		if (READ_WORD(s, "on-error", &word, "defer", "accept", "quarantine") < 0)
			return -1;
		f->on_error = (enum config_on_error)(word + 1);	/* behind the default */
	}
	if (f->module == NULL && cfg_size(s->cfg, "options") > 0)
		return config_fail(s->all, s->err, line_of(s, "options"),
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
	root.cfg = cfg_init(root_opts, CFGF_NONE);
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
