/* relayd/core/config_route.c - a route of the config, and a directory that knows its recipients. */
#include "relayd/core/config_titled.h"

#include "relayd/core/config_section.h"

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

int
config_load_ldap(const struct section *s, void *item)
{
	struct config_ldap *l = item;

	l->name = section_keep(s, s->title);
	l->line = section_line(s, "");
	if (section_list(s, "uri", false, &l->uri) < 0 || section_string(s, "bind", &l->bind) < 0 ||
	    section_string(s, "password-file", &l->password_file) < 0 ||
	    section_string(s, "base", &l->base) < 0 ||
	    section_string(s, "filter", &l->filter) < 0 ||
	    section_flag(s, "starttls", &l->starttls) < 0 || section_string(s, "ca", &l->ca) < 0 ||
	    section_duration_ms(s, "timeout", &l->timeout_ms) < 0 ||
	    section_duration(s, "known", &l->known_s) < 0 ||
	    section_duration(s, "unknown", &l->unknown_s) < 0)
		return -1;
	if (l->uri.n == 0 || l->base == NULL)
		return config_fail(
		    s->all, s->err, l->line, "ldap %s needs a uri and a base", s->title);
	for (size_t i = 0; i < l->uri.n; i++)
		if (!is_ldap_uri(l->uri.v[i]))
			return section_wrong(
			    s, "uri", l->uri.v[i], "ldap://HOST, ldaps://HOST or ldapi://PATH");
	if (!is_ldap_filter(l->filter))
		return section_wrong(
		    s, "filter", l->filter, "a filter in () with %s, %u or %d in it");
	if (l->timeout_ms < 100 || l->timeout_ms > 60000)
		return section_wrong(s, "timeout", cfg_getstr(s->cfg, "timeout"), "100ms to 1m");
	if ((l->bind == NULL) != (l->password_file == NULL))
		return config_fail(s->all, s->err, l->line,
		    "ldap %s: bind and password-file go together", s->title);
	if (l->ca != NULL &&
	    config_add_file(s->all, l->ca, false, section_line(s, "ca"), s->err) < 0)
		return -1;
	return l->password_file == NULL ? 0
					: config_add_file(s->all, l->password_file, true,
					      section_line(s, "password-file"), s->err);
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

/* A name that everybody may read would be no login, and a password that goes to whoever answers is
 * one no longer: so the other side must show a certificate, or the admin says that any will do. */
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
		    r->login[0] == '\0' ? "\"\"" : r->password_file,
		    r->login[0] == '\0' ? "a name" : "an absolute path");
	for (size_t i = 0; i < r->to.n; i++)
		if (slice_eq(slice_until(slice_str(r->to.v[i]), ' '), SLICE("mx")))
			return config_fail(s->all, s->err, r->line,
			    "route %s: login wants hosts, as mx could be anybody", s->title);
	if (r->tls == CONFIG_TLS_OPPORTUNISTIC)
		return config_fail(s->all, s->err, r->line,
		    "route %s: login wants tls = verify (or required: any certificate, or off: "
		    "SCRAM alone)",
		    s->title);
	if (config_add_outbound(
		s->all, r->password_file, section_line(s, "password-file"), s->err) < 0)
		return -1;
	if (!config_file(&s->all->pub, r->password_file, &r->password))
		return 0; /* no secrets here */
	r->password = slice_until(r->password, '\n');
	(void)slice_chop(&r->password, "\r"); /* written on another system, or not */
	return r->password.len > 0 && !slice_has(r->password, '\0')
		   ? 0
		   : section_wrong(
			 s, "password-file", r->password_file, "a password in its first line");
}

int
config_load_route(const struct section *s, void *item)
{
	struct config_route *r = item;
	const char *recipients = cfg_getstr(s->cfg, "recipients");
	int tls = 0;

	if (SECTION_WORD(s, "tls", &tls, "off", "opportunistic", "required", "verify") < 0 ||
	    section_list(s, "to", false, &r->to) < 0 ||
	    section_list(s, "fallback", false, &r->fallback) < 0 || load_sources(s, r) < 0 ||
	    section_rate(s, "rate", &r->rate_n, &r->rate_s) < 0 ||
	    section_string(s, "helo", &r->helo) < 0 ||
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
			return section_wrong(
			    s, "recipients", recipients, "ldap: and the name of a section ldap");
	} else if (recipients[0] != '/')
		return section_wrong(
		    s, "recipients", recipients, "probe, any, ldap:NAME or the path of a file");
	else {
		r->recipients = CONFIG_RECIPIENTS_FILE;
		r->recipients_file = section_keep(s, recipients);
		return config_add_watched(
		    s->all, recipients, false, section_line(s, "recipients"), s->err);
	}
	return 0;
}
