/* relayd/config_try.h - builds what a config describes, to find what it alone does not show.
 *
 * Listeners, certificates, logins, recipients, routes and filters, as the roles will, and whether
 * the spool is one that this relayd can read, where the caller may look; nothing else is opened or
 * asked.  `relayd -n`, a reload and `relayctl check` all go by it.
 */
#ifndef RELAYD_CONFIG_TRY_H
#define RELAYD_CONFIG_TRY_H

#include "relayd/core/config.h"

/* -1 with *err, ERR_CONFIG "FILE:LINE: what is wrong" ("FILE: ..." of the spool).  Filters that
 * look odd are told to warn(). */
int config_try(const struct config *cfg, void (*warn)(const char *text), struct err *err);

#endif
