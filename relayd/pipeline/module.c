/* relayd/pipeline/module.c - takes a filter section into force, from the built-in table or a shared
 * object. */
#include "relayd/pipeline/module.h"

#include "relayd/core/config_value.h"

#include <dlfcn.h>
#include <fnmatch.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#define STAGES_ALL      (FILTER_AT(FILTER_MESSAGE + 1) - 1)
/* The least that a module must have: all of the first version. */
#define FILTER_SIZE_MIN (offsetof(struct filter, run) + sizeof(((struct filter *)0)->run))

/* What a filter's configure() is handed, and what it says. */
struct taking {
	struct filter_config face; /* first: the filter holds this */
	const struct config *cfg;
	const struct config_filter *section;
	module_warn warn;
	void *arg;
	struct err *err;
	bool failed;
};

static int
fail_at(const struct config *cfg, int line, struct err *err, const char *fmt, ...)
{
	char text[200];
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(text, sizeof(text), fmt, ap); /* cut short is good enough */
	va_end(ap);
	return err_set(err, ERR_CONFIG, "%s:%d: %s", cfg->path, line, text);
}

/* ---- the config as a filter sees it --------------------------------------------------------- */

static const struct config_option *
option_of(const struct config_filter *section, const char *name)
{
	for (size_t i = 0; i < section->n_options; i++)
		if (strcmp(section->options[i].name, name) == 0)
			return &section->options[i];
	return NULL;
}

static const char *
face_value(const struct filter_config *face, const char *option, size_t index)
{
	const struct taking *t = (const struct taking *)face;
	const struct config_option *o = option_of(t->section, option);

	return o != NULL && index < o->values.n ? o->values.v[index] : NULL;
}

/* The index-th file of the config that the pattern fits; how many it skipped goes off *index. */
static const struct config_file *
file_fitting(const struct config *cfg, const char *pattern, size_t *index)
{
	for (size_t i = 0; i < cfg->n_files; i++) {
		const struct config_file *f = &cfg->files[i];

		/* A key or password file is nobody's rule file, whatever a pattern says. */
		if (f->secret || fnmatch(pattern, f->path, FNM_PATHNAME | FNM_PERIOD) != 0)
			continue;
		if ((*index)-- == 0)
			return f;
	}
	return NULL;
}

static const char *
face_file(const struct filter_config *face, const char *option, size_t index, struct slice *bytes)
{
	const struct taking *t = (const struct taking *)face;
	const struct config_option *o = option_of(t->section, option);

	for (size_t i = 0; o != NULL && i < o->values.n; i++) {
		const struct config_file *f = file_fitting(t->cfg, o->values.v[i], &index);

		if (f != NULL) {
			*bytes = f->bytes;
			return f->path;
		}
	}
	return NULL;
}

static int
face_fail(const struct filter_config *face, const char *option, const char *file, unsigned line,
    const char *text)
{
	struct taking *t = (struct taking *)(uintptr_t)face; /* ours, not const */
	const struct config_option *o = option != NULL ? option_of(t->section, option) : NULL;
	int at = line != 0 ? (int)line : o != NULL ? o->line : t->section->line;

	if (t->failed)
		return -1; /* the first complaint is the one to show */
	t->failed = true;
	if (file != NULL)
		return err_set(t->err, ERR_CONFIG, "%s:%u: %s", file, line, text);
	if (option != NULL)
		return fail_at(
		    t->cfg, at, t->err, "filter %s: %s: %s", t->section->name, option, text);
	return fail_at(t->cfg, at, t->err, "filter %s: %s", t->section->name, text);
}

static void
face_warn(const struct filter_config *face, const char *file, unsigned line, const char *text)
{
	const struct taking *t = (const struct taking *)face;
	char out[512];

	if (file != NULL)
		(void)snprintf(out, sizeof(out), "%s:%u: %s", file, line, text);
	else
		(void)snprintf(out, sizeof(out), "%s:%d: filter %s: %s", t->cfg->path,
		    line != 0 ? (int)line : t->section->line, t->section->name, text);
	t->warn(t->arg, out);
}

/* ---- options --------------------------------------------------------------------------------- */

static bool
value_fits(enum filter_option_type type, const char *text)
{
	uint64_t bytes;
	uint32_t n;
	double number;
	bool flag;

	switch (type) {
	case FILTER_OPTION_NUMBER:
		return config_number(text, &number);
	case FILTER_OPTION_COUNT:
		return config_count(text, &n);
	case FILTER_OPTION_DURATION:
		return config_duration(text, &n);
	case FILTER_OPTION_SIZE:
		return config_bytes(text, &bytes);
	case FILTER_OPTION_FLAG:
		return config_flag(text, &flag);
	case FILTER_OPTION_STRING:
	case FILTER_OPTION_LIST:
	case FILTER_OPTION_FILES:
		return true;
	}
	return false;
}

static const char *
type_name(enum filter_option_type type)
{
	static const char *const names[] = {
		[FILTER_OPTION_STRING] = "one value",
		[FILTER_OPTION_LIST] = "a list",
		[FILTER_OPTION_NUMBER] = "a number such as 4.5",
		[FILTER_OPTION_COUNT] = "a count such as 20",
		[FILTER_OPTION_DURATION] = "a duration such as 30s",
		[FILTER_OPTION_SIZE] = "a size such as 64K",
		[FILTER_OPTION_FLAG] = "yes or no",
		[FILTER_OPTION_FILES] = "paths",
	};

	return names[type];
}

static const struct filter_option *
known_option(const struct filter *f, const char *name)
{
	for (const struct filter_option *o = f->options; o != NULL && o->name != NULL; o++)
		if (strcmp(o->name, name) == 0)
			return o;
	return NULL;
}

static int
check_option(const struct config *cfg, const struct config_filter *section,
    const struct config_option *o, const struct filter *f, struct err *err)
{
	const struct filter_option *known = known_option(f, o->name);
	bool list;

	if (known == NULL)
		return fail_at(cfg, o->line, err, "filter %s: unknown option %s (type %s)",
		    section->name, o->name, f->name);
	if ((unsigned)known->type > FILTER_OPTION_FILES)
		return fail_at(cfg, o->line, err,
		    "filter %s: the module gives %s a type unknown here", section->name, o->name);
	list = known->type == FILTER_OPTION_LIST || known->type == FILTER_OPTION_FILES;
	if (!list && o->values.n != 1)
		return fail_at(cfg, o->line, err, "filter %s: %s takes %s, not %zu values",
		    section->name, o->name, type_name(known->type), o->values.n);
	for (size_t i = 0; i < o->values.n; i++)
		if (!value_fits(known->type, o->values.v[i]))
			return fail_at(cfg, o->line, err, "filter %s: %s = %s: expected %s",
			    section->name, o->name, o->values.v[i], type_name(known->type));
	return 0;
}

/* ---- where filters come from ----------------------------------------------------------------- */

static int
check_filter(const struct config *cfg, const struct config_filter *section, const struct filter *f,
    struct err *err)
{
	const char *from = section->module != NULL ? section->module : section->type;

	if (f->abi != RELAYD_FILTER_ABI)
		return fail_at(cfg, section->line, err,
		    "filter %s: %s is built for ABI %u, this relayd has %u", section->name, from,
		    f->abi, RELAYD_FILTER_ABI);
	if (f->size < FILTER_SIZE_MIN)
		return fail_at(cfg, section->line, err,
		    "filter %s: %s has a struct filter of %u bytes, at least %zu are needed",
		    section->name, from, f->size, FILTER_SIZE_MIN);
	if (f->name == NULL || f->run == NULL || f->stages == 0 || (f->stages & ~STAGES_ALL) != 0)
		return fail_at(cfg, section->line, err,
		    "filter %s: %s has no name, no run() or no known stages", section->name, from);
	if ((f->flags & FILTER_SHAPER) && f->stages != FILTER_AT(FILTER_MESSAGE))
		return fail_at(cfg, section->line, err,
		    "filter %s: %s is a shaper and belongs to the message stage alone",
		    section->name, from);
	return 0;
}

static const struct filter *
find_builtin(const struct config *cfg, const struct config_filter *section,
    const struct filter *const *builtin, struct err *err)
{
	char kinds[160] = "";
	size_t used = 0;

	for (size_t i = 0; builtin != NULL && builtin[i] != NULL; i++) {
		if (strcmp(builtin[i]->name, section->type) == 0)
			return builtin[i];
		if (used < sizeof(kinds))
			used += (size_t)snprintf(kinds + used, sizeof(kinds) - used, "%s%s",
			    used > 0 ? ", " : "", builtin[i]->name);
	}
	(void)fail_at(cfg, section->line, err, "filter %s: unknown type %s; built in: %s",
	    section->name, section->type, kinds);
	return NULL;
}

static const struct filter *
load(struct module *m, const struct config *cfg, const struct config_filter *section,
    struct err *err)
{
	const struct filter *f;

	m->handle = dlopen(section->module, RTLD_NOW | RTLD_LOCAL);
	if (m->handle == NULL) {
		(void)fail_at(cfg, section->line, err, "filter %s: %s", section->name, dlerror());
		return NULL;
	}
	f = dlsym(m->handle, "relayd_filter");
	if (f == NULL)
		(void)fail_at(cfg, section->line, err, "filter %s: %s exports no relayd_filter",
		    section->name, section->module);
	return f;
}

static void
resolve_defaults(struct module *m, const struct config_filter *section)
{
	m->direction = section->direction;
	if (!section->direction_set)
		m->direction =
		    m->filter.flags & FILTER_INBOUND ? CONFIG_FOR_INBOUND : CONFIG_FOR_BOTH;
	m->on_error = section->on_error;
	if (m->on_error == CONFIG_ON_ERROR_DEFAULT)
		m->on_error = m->filter.flags & FILTER_SECURITY ? CONFIG_ON_ERROR_DEFER
								: CONFIG_ON_ERROR_ACCEPT;
}

static int
configure(struct module *m, struct taking *t)
{
	if (m->filter.configure == NULL)
		return 0;
	if (m->filter.configure(&t->face, &m->settings) == 0 && !t->failed)
		return 0;
	if (!t->failed)
		(void)fail_at(t->cfg, t->section->line, t->err, "filter %s: refused its settings",
		    t->section->name);
	return -1;
}

int
pl_module_init(struct module *m, const struct config *cfg, const struct config_filter *section,
    const struct filter *const *builtin, module_warn warn, void *arg, struct err *err)
{
	struct taking t = {
		.face = { .size = sizeof(t.face),
		    .name = section->name,
		    .value = face_value,
		    .file = face_file,
		    .fail = face_fail,
		    .warn = face_warn,
		    .duration = config_duration,
		    .bytes = config_bytes,
		    .number = config_number },
		.cfg = cfg,
		.section = section,
		.warn = warn,
		.arg = arg,
		.err = err,
	};
	const struct filter *f;

	*m = (struct module){ .section = section };
	f = section->module != NULL ? load(m, cfg, section, err)
				    : find_builtin(cfg, section, builtin, err);
	if (f == NULL || check_filter(cfg, section, f, err) < 0)
		goto fail;
	/* A newer module's struct may be longer than ours, an older one's shorter. */
	memcpy(&m->filter, f, f->size < sizeof(*f) ? f->size : sizeof(*f));
	resolve_defaults(m, section);
	for (size_t i = 0; i < section->n_options; i++)
		if (check_option(cfg, section, &section->options[i], &m->filter, err) < 0)
			goto fail;
	if (configure(m, &t) == 0)
		return 0;
fail:
	pl_module_fini(m);
	return -1;
}

void
pl_module_fini(struct module *m)
{
	if (m->settings != NULL && m->filter.release != NULL)
		m->filter.release(m->settings);
	if (m->handle != NULL)
		(void)dlclose(m->handle); /* nothing to do about a failure */
	*m = (struct module){ 0 };
}

bool
pl_module_judges(const struct module *m, enum filter_stage stage, bool outbound)
{
	return !(m->filter.flags & FILTER_SHAPER) && (m->filter.stages & FILTER_AT(stage)) != 0 &&
	       (m->direction == CONFIG_FOR_BOTH ||
		   (m->direction == CONFIG_FOR_OUTBOUND) == outbound);
}
