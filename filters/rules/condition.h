/* filters/rules/condition.h - the conditions of "if" in rule files.
 *
 *	if (version >= 3.004000) && !plugin(Mail::SpamAssassin::Plugin::ReplaceTags)
 *
 * version is that of the SpamAssassin whose language this is (4.0.1); plugin() and has() are
 * false: there are none here; can() is true for what the language itself can do.
 */
#ifndef FILTERS_RULES_CONDITION_H
#define FILTERS_RULES_CONDITION_H

#include <relayd/slice.h>

/* False when text is no condition; else *holds tells. */
bool rules_condition(struct slice text, bool *holds);

#endif
