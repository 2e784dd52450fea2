/* tests/unit/filters/spf_ask.h - puts one case to relayd's SPF, over canned facts. */
#ifndef TESTS_UNIT_FILTERS_SPF_ASK_H
#define TESTS_UNIT_FILTERS_SPF_ASK_H

#include "unit/filters/spf_suite.h"

#include "filters/spf/check.h"

/* An empty mailfrom asks about the HELO identity, as the suite has it. */
enum spf_result spf_ask(const struct spf_case *test, struct spf_outcome *outcome);

#endif
