/* relayd/core/config_listener.c - a listener of the config. */
#include "relayd/core/config_titled.h"

#include "relayd/core/config_section.h"

#define CONFIG_BANNER_MAX 200

static int
load_listener_limits(const struct section *s, struct config_listener *l)
{
	if (section_own_count(s, "recipients", &l->recipients) < 0 ||
	    section_own_count(s, "connections", &l->connections) < 0 ||
	    section_own_count(s, "connections-per-ip", &l->connections_per_ip) < 0 ||
	    section_own_count(s, "connections-per-net", &l->connections_per_net) < 0)
		return -1;
	if (cfg_getstr(s->cfg, "message-size") == NULL)
		return 0;
	return section_bytes(s, "message-size", &l->message_size) < 0
		   ? -1
		   : section_message_size(s, l->message_size);
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
	return l->banner == NULL || strlen(l->banner) <= CONFIG_BANNER_MAX
		   ? 0
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
	if (section_networks(s, "proxy", &l->proxy, &l->n_proxy) < 0 ||
	    section_duration_ms(s, "proxy-timeout", &l->proxy_timeout_ms) < 0)
		return -1;
	return l->proxy_timeout_ms > 0
		   ? 0
		   : section_wrong(s, "proxy-timeout", "0", "more than nothing");
}

int
config_load_listener(const struct section *s, void *item)
{
	struct config_listener *l = item;
	int tls = 0, auth = 0, protocol = 0, eight_bit = 0, line_ends = 0;

	if (SECTION_WORD(s, "tls", &tls, "off", "starttls", "required", "implicit") < 0 ||
	    SECTION_WORD(s, "auth", &auth, "off", "required") < 0 ||
	    SECTION_WORD(s, "protocol", &protocol, "smtp", "lmtp") < 0 ||
	    SECTION_WORD(s, "eight-bit", &eight_bit, "accept", "refuse") < 0 ||
	    SECTION_WORD(s, "line-ends", &line_ends, "strict", "convert") < 0 ||
	    section_networks(s, "xclient", &l->xclient, &l->n_xclient) < 0 ||
	    section_networks(s, "xforward", &l->xforward, &l->n_xforward) < 0 ||
	    section_list(s, "address", false, &l->address) < 0 || load_banner(s, l) < 0 ||
	    load_listener_limits(s, l) < 0 || load_listener_rules(s, l) < 0 || load_proxy(s, l) < 0)
		return -1;
	l->lmtp = protocol == 1;
	l->strict_eight_bit = eight_bit == 1;
	l->convert_line_ends = line_ends == 1;
	l->name = section_keep(s, s->title);
	l->tls = (enum config_tls)tls; /* the words stand in the order of the enum */
	l->auth_required = auth == 1;
	l->mechanisms = s->all->pub.sasl.mechanisms;
	if (section_mechanisms(s, &l->mechanisms) < 0)
		return -1;
	l->line = section_line(s, "");
	if (l->lmtp && l->auth_required)
		return config_fail(
		    s->all, s->err, l->line, "listener %s: LMTP has no AUTH here", s->title);
	return l->address.n > 0
		   ? 0
		   : config_fail(s->all, s->err, l->line, "listener %s has no address", s->title);
}
