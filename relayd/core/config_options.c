/* relayd/core/config_options.c - the sections and options that a config may have, and their
 * defaults. */
#include "relayd/core/config_options.h"

#include "relayd/core/slice.h"

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
	CFG_STR("filter-time", "1m", CFGF_NONE),
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
static cfg_opt_t provider_opts[] = {
	CFG_STR_LIST("hosts", "{}", CFGF_NONE),
	CFG_STR_LIST("domains", "{}", CFGF_NONE),
	CFG_STR("connections", "20", CFGF_NONE),
	CFG_STR("rate", NULL, CFGF_NONE),
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
	CFG_SEC("provider", provider_opts, TITLED),
	CFG_SEC("recipients", recipients_opts, CFGF_NONE),
	CFG_SEC("ldap", ldap_opts, TITLED),
	CFG_SEC("queue", queue_opts, CFGF_NONE),
	CFG_SEC("filter", filter_opts, TITLED),
	CFG_SEC("policy", policy_opts, TITLED),
	CFG_SEC("quarantine", quarantine_opts, CFGF_NONE),
	CFG_SEC("review", review_opts, CFGF_NONE),
	CFG_END(),
};

cfg_opt_t *
config_options(void)
{
	return root_opts;
}

size_t
config_filter_options(void)
{
	return ARRAY_LEN(filter_opts);
}
