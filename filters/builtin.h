/* filters/builtin.h - the filters that come with relayd. */
#ifndef FILTERS_BUILTIN_H
#define FILTERS_BUILTIN_H

#include <relayd/filter.h>

extern const struct filter filter_allow, filter_dnsbl, filter_helo, filter_pregreet,
    filter_ratelimit, filter_rdns, filter_rules, filter_spf;

/* All of them; ends with NULL. */
extern const struct filter *const filters_builtin[];

#endif
