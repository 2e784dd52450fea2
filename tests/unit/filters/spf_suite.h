/* tests/unit/filters/spf_suite.h - the test suite of RFC 7208, read from its YAML as it stands. */
#ifndef TESTS_UNIT_FILTERS_SPF_SUITE_H
#define TESTS_UNIT_FILTERS_SPF_SUITE_H

#include "unit/filters/canned.h"

struct spf_zone_entry {
	char owner[300];
	char type[8]; /* "A", "TXT", ... or "TIMEOUT" */
	char *data;   /* raw bytes; for MX the exchange */
	size_t len;
	int preference;
};

struct spf_case {
	char scenario[64], name[64];
	char host[64], helo[300], mailfrom[400];
	char allowed[4][16]; /* results */
	size_t n_allowed;
	char explanation[300];             /* "" where the suite has none */
	const struct spf_zone_entry *zone; /* of its scenario */
	size_t n_zone;
};

struct spf_suite {
	struct spf_case *cases;
	size_t n_cases;
	struct spf_zone_entry *zone;
	size_t n_zone;
};

/* False when the file is missing; aborts on one that is not the suite. */
bool spf_suite_load(struct spf_suite *suite, const char *path);
void spf_suite_free(struct spf_suite *suite);
/* The facts that a case can ask for, CNAMEs followed; *rows is the caller's to free. */
size_t spf_suite_facts(const struct spf_case *test, struct canned_fact **rows);
bool spf_case_allows(const struct spf_case *test, const char *result);
/* "4.3.2.1.in-addr.arpa" for an address, IPv4-mapped as IPv4. */
void spf_arpa_name(const char *ip, char out[static 80]);

#endif
