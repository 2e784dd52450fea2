/* filters/rules/match.c - holds a rule against the texts of a message. */
#include "filters/rules/match.h"

#define LIMITS_MAX 4 /* lines that take too long, for one rule */

static enum rules_match
header_match(const struct rules_set *set, const struct rules_rule *rule, struct rules_text *text)
{
	const struct rules_value *value = rules_text_value(text, set, rule->source);
	enum rules_match match;

	if (value == NULL)
		return RULES_MATCH_NO_MEMORY;
	if (rule->exists)
		return value->present ? RULES_MATCH_YES : RULES_MATCH_NO;
	/* Without the field, an empty text: "!~" hits then, and so does "=~ /^$/". */
	match = rules_regex_match(
	    rule->regex, value->present || !rule->has_unset ? value->text : rule->unset);
	if (!rule->negate || match == RULES_MATCH_LIMIT)
		return match;
	return match == RULES_MATCH_YES ? RULES_MATCH_NO : RULES_MATCH_YES;
}

/* A line that takes too long does not hide those behind it; a few of them do end the rule. */
static enum rules_match
body_match(const struct rules_rule *rule, const struct rules_text *text)
{
	unsigned limits = 0;

	for (size_t i = rule->no_subject; i < text->n_lines && limits < LIMITS_MAX; i++) {
		enum rules_match match = rules_regex_match(rule->regex, text->lines[i]);

		if (match == RULES_MATCH_YES)
			return match;
		limits += match == RULES_MATCH_LIMIT;
	}
	return limits > 0 ? RULES_MATCH_LIMIT : RULES_MATCH_NO;
}

enum rules_match
rules_match(const struct rules_set *set, const struct rules_rule *rule, struct rules_text *text)
{
	return rule->body ? body_match(rule, text) : header_match(set, rule, text);
}
