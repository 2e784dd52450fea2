/* relayd/pipeline/pipeline.c - a generation: the filters of one config, ready to run. */
#include "relayd/pipeline/inside.h"

#include <stdio.h>
#include <stdlib.h>

#define WARNINGS_MAX 1000 /* the next ones are not kept */

static void
keep_warning(void *arg, const char *text)
{
	struct pipeline *pl = arg;
	char **grown;

	if (pl->n_warnings >= WARNINGS_MAX)
		return;
	grown = realloc(pl->warnings, (pl->n_warnings + 2) * sizeof(*grown));
	if (grown == NULL)
		return; /* a warning less */
	pl->warnings = grown;
	grown[pl->n_warnings] = strdup(text);
	if (grown[pl->n_warnings] != NULL)
		pl->n_warnings++;
}

static void
pipeline_free(struct pipeline *pl)
{
	for (size_t i = 0; i < pl->n_modules; i++)
		pl_module_fini(&pl->modules[i]);
	for (size_t i = 0; i < pl->n_warnings; i++)
		free(pl->warnings[i]);
	free(pl->warnings);
	free(pl->modules);
	config_unref((struct config *)(uintptr_t)pl->cfg); /* counted, so not const behind */
	free(pl);
}

struct pipeline *
pipeline_new(const struct config *cfg, const struct filter *const *builtin, struct err *err)
{
	struct pipeline *pl = calloc(1, sizeof(*pl));

	if (pl == NULL) {
		err_set(err, ERR_NOMEM, "out of memory for the filters");
		return NULL;
	}
	pl->refs = 1;
	pl->cfg = config_ref(cfg);
	(void)snprintf(pl->generation, sizeof(pl->generation), "%08x", cfg->generation); /* fits */
	pl->modules = calloc(cfg->n_filters + 1, sizeof(*pl->modules));
	for (size_t i = 0; i < cfg->n_filters; i++) {
		struct module *m = &pl->modules[i];

		if (pl->modules == NULL ||
		    pl_module_init(m, cfg, &cfg->filters[i], builtin, keep_warning, pl, err) < 0) {
			pipeline_free(pl);
			return NULL;
		}
		m->position = (unsigned)i + 1;
		pl->n_modules++;
		pl->any_session =
		    pl->any_session ||
		    (m->filter.stages & (FILTER_AT(FILTER_CONNECT) | FILTER_AT(FILTER_HELO))) != 0;
	}
	return pl;
}

struct pipeline *
pipeline_ref(struct pipeline *pl)
{
	pl->refs++;
	return pl;
}

void
pipeline_unref(struct pipeline *pl)
{
	if (pl != NULL && --pl->refs == 0)
		pipeline_free(pl);
}

const char *
pipeline_warning(const struct pipeline *pl, size_t n)
{
	return n < pl->n_warnings ? pl->warnings[n] : NULL;
}
