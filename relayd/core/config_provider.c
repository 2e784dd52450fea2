/* relayd/core/config_provider.c - a provider of the config: hosts and domains that share limits. */
#include "relayd/core/config_titled.h"

#include "relayd/core/config_section.h"

#include <string.h>

/* "host.example.org", "*.example.org" or ".example.org"; in ASCII, as the DNS has names.  A "*"
 * elsewhere would never fit. */
static bool
is_pattern(struct slice text)
{
	text = slice_drop(text, slice_starts(text, SLICE("*.")) ? 1 : 0);
	text = slice_drop(text, slice_starts(text, SLICE(".")) ? 1 : 0);
	if (text.len == 0 || text.len > 253 || text.p[0] == '.' || text.p[text.len - 1] == '.')
		return false;
	for (size_t i = 0; i < text.len; i++) {
		char c = text.p[i];

		if (!(c >= 'a' && c <= 'z') && !(c >= '0' && c <= '9') && c != '-' && c != '_' &&
		    (c != '.' || text.p[i - 1] == '.'))
			return false;
	}
	return true;
}

/* Who has that pattern already, or NULL. */
static const struct config_provider *
who_has(const struct config *c, const struct config_provider *p, const char *pattern, bool hosts)
{
	for (const struct config_provider *q = c->providers; q < p; q++) {
		const struct config_strings *list = hosts ? &q->hosts : &q->domains;

		for (size_t i = 0; i < list->n; i++)
			if (strcmp(list->v[i], pattern) == 0)
				return q;
	}
	return NULL;
}

static int
load_patterns(const struct section *s, const struct config_provider *p, const char *option,
    struct config_strings *list)
{
	if (section_list(s, option, true, list) < 0)
		return -1;
	for (size_t i = 0; i < list->n; i++) {
		const char *text = list->v[i];
		const struct config_provider *other =
		    who_has(&s->all->pub, p, text, list == &p->hosts);

		if (strcmp(text, "*") != 0 && !is_pattern(slice_str(text)))
			return section_wrong(
			    s, option, text, "names, \"*.domain\", \".domain\" or \"*\"");
		if (other != NULL)
			return config_fail(s->all, s->err, section_line(s, option),
			    "provider %s: %s = %s is in provider %s already", s->title, option,
			    text, other->name);
	}
	return 0;
}

int
config_load_provider(const struct section *s, void *item)
{
	struct config_provider *p = item;

	p->name = section_keep(s, s->title);
	p->line = section_line(s, "");
	if (load_patterns(s, p, "hosts", &p->hosts) < 0 ||
	    load_patterns(s, p, "domains", &p->domains) < 0 ||
	    section_own_count(s, "connections", &p->connections) < 0 ||
	    section_rate(s, "rate", &p->rate_n, &p->rate_s) < 0)
		return -1;
	if (p->hosts.n + p->domains.n == 0)
		return config_fail(
		    s->all, s->err, p->line, "provider %s needs hosts or domains", s->title);
	return 0;
}
