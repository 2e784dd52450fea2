/* filters/builtin.c - the filters that come with relayd. */
#include "filters/builtin.h"

const struct filter *const filters_builtin[] = {
	&filter_allow,
	&filter_dnsbl,
	&filter_helo,
	&filter_pregreet,
	&filter_ratelimit,
	&filter_rdns,
	&filter_rules,
	&filter_spf,
	NULL,
};
