/* filters/rules/match.h - whether one rule hits one message. */
#ifndef FILTERS_RULES_MATCH_H
#define FILTERS_RULES_MATCH_H

#include "filters/rules/text.h"

/* rule is one of set, whose texts are in text. */
enum rules_match rules_match(
    const struct rules_set *set, const struct rules_rule *rule, struct rules_text *text);

#endif
