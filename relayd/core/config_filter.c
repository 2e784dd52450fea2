/* relayd/core/config_filter.c - a filter of the config with its files, and a policy. */
#include "relayd/core/config_titled.h"

#include "relayd/core/config_options.h"
#include "relayd/core/config_section.h"
#include "relayd/core/config_source.h"
#include "relayd/core/config_value.h"

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
	return config_add_file(
	    p->section->all, path, false, section_line(p->section, p->option), err);
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
			return config_fail(
			    s->all, s->err, o->line, "cannot read %s: no such file", pattern);
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

int
config_load_filter(const struct section *s, void *item)
{
	struct config_filter *f = item;
	int word = 0;

	f->name = section_keep(s, s->title);
	f->line = section_line(s, "");
	if (section_string(s, "type", &f->type) < 0 ||
	    section_string(s, "module", &f->module) < 0 || section_help(s, &f->help) < 0 ||
	    section_flag(s, "on-release", &f->on_release) < 0)
		return -1;
	if (f->type == NULL)
		f->type = f->name;
	if (cfg_getstr(s->cfg, "for") != NULL) {
		if (SECTION_WORD(s, "for", &word, "both", "inbound", "outbound") < 0)
			return -1;
		f->direction = (enum config_for)word; /* in the order of the enum */
		f->direction_set = true;
	}
	if (cfg_getstr(s->cfg, "on-error") != NULL) {
		if (SECTION_WORD(s, "on-error", &word, "defer", "accept", "quarantine") < 0)
			return -1;
		f->on_error = (enum config_on_error)(word + 1); /* behind the default */
	}
	if (f->module == NULL && cfg_size(s->cfg, "options") > 0)
		return config_fail(s->all, s->err, section_line(s, "options"),
		    "options is for filters with a module; name the option itself");
	return load_filter_options(s, f);
}

int
config_load_policy(const struct section *s, void *item)
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
