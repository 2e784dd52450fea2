/* relayd/core/config_options.h - what libconfuse is told of our config; for config*.c alone. */
#ifndef RELAYD_CORE_CONFIG_OPTIONS_H
#define RELAYD_CORE_CONFIG_OPTIONS_H

#include <confuse.h>
#include <stddef.h>

/* Of the file as a whole, for cfg_init(), which copies them. */
cfg_opt_t *config_options(void);
/* How many options a filter can have, at most, besides those of its module. */
size_t config_filter_options(void);

#endif
