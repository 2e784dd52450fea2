/* relayd/core/config_titled.h - the sections that have a title, each read into an item of its kind;
 * for config*.c alone.
 *
 * item is zeroed, and of the type that the reader is named for.  All return -1 with s->err,
 * "FILE:LINE: ...".
 */
#ifndef RELAYD_CORE_CONFIG_TITLED_H
#define RELAYD_CORE_CONFIG_TITLED_H

#include "relayd/core/config_section.h"

/* struct config_listener; the sasl section was read. */
int config_load_listener(const struct section *s, void *item);
/* struct config_ldap. */
int config_load_ldap(const struct section *s, void *item);
/* struct config_route; the directories were read. */
int config_load_route(const struct section *s, void *item);
/* struct config_provider. */
int config_load_provider(const struct section *s, void *item);
/* struct config_filter, with the files that it will read. */
int config_load_filter(const struct section *s, void *item);
/* struct config_policy. */
int config_load_policy(const struct section *s, void *item);

#endif
