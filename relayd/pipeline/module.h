/* relayd/pipeline/module.h - a filter section in force: a filter, its settings, its place in the
 * order.
 *
 * Private to relayd/pipeline.
 */
#ifndef RELAYD_PIPELINE_MODULE_H
#define RELAYD_PIPELINE_MODULE_H

#include "relayd/core/config.h"

#include <relayd/filter.h>

struct module {
	struct filter filter; /* a copy; members it was built without are zero */
	const struct config_filter *section;
	unsigned position;             /* in the config, from 1 */
	enum config_for direction;     /* resolved */
	enum config_on_error on_error; /* resolved, never DEFAULT */
	void *settings;
	void *handle; /* of dlopen(), or NULL */
};

/* Where warnings about a section go. */
typedef void (*module_warn)(void *arg, const char *text);

/* Finds or loads the section's filter, checks its options and configures it.  -1 with *err:
 * ERR_CONFIG. */
int pl_module_init(struct module *m, const struct config *cfg, const struct config_filter *section,
    const struct filter *const *builtin, module_warn warn, void *arg, struct err *err);
void pl_module_fini(struct module *m);

/* Looks at mail of this direction, at this stage, and is not a shaper. */
bool pl_module_judges(const struct module *m, enum filter_stage stage, bool outbound);

#endif
