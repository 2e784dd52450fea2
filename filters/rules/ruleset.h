/* filters/rules/ruleset.h - rule files in SpamAssassin's syntax, read into rules that can be run.
 *
 * Understood: header, body, score, describe, tflags, if, ifplugin, else, endif and lang.  Every
 * other directive is passed over and named in one warning with its first place and its number of
 * lines, and so are the forms of header that need a whole SpamAssassin (eval:, relay metadata).
 * What is understood but wrong is an error with file and line.
 *
 *	struct rules_set *set = rules_set_new();
 *
 *	while (... rules_set_read(set, cfg, path, bytes) == 0 ...)
 *		;
 *	rules_set_finish(set, cfg);
 */
#ifndef FILTERS_RULES_RULESET_H
#define FILTERS_RULES_RULESET_H

#include "filters/rules/regex.h"

#include <relayd/filter.h>

#define RULES_NAME_BYTES_MAX 100
#define RULES_SCORE_DEFAULT  1.0
#define RULES_SCORE_TESTING  0.01 /* of a name that starts with "T_" */

enum rules_field {
	RULES_FIELD_NAMED,
	RULES_FIELD_ALL, /* all fields, each with its name */
	RULES_FIELD_TOCC,
	RULES_FIELD_MESSAGE_ID, /* MESSAGEID: Message-Id and what lists and resenders make of it */
	RULES_FIELD_ENVELOPE_FROM,
};

/* What a header rule looks at: "From:addr".  Rules that look at the same share it. */
struct rules_source {
	enum rules_field field;
	struct slice name; /* RULES_FIELD_NAMED */
	bool raw, addr, display_name, first, last;
};

struct rules_rule {
	struct slice name, describe;
	bool body;     /* else header */
	size_t source; /* header: index into sources */
	bool exists;   /* header: only that the field is there; no pattern */
	bool negate;   /* header: !~ */
	bool has_unset;
	struct slice unset; /* header: [if-unset: this] */
	bool no_subject;    /* body: tflags nosubject */
	const struct rules_regex *regex;
	double score;
};

struct rules_set {
	/* In the order of definition, those with a score only, unless keep_all was set. */
	struct rules_rule *rules;
	size_t n_rules;
	struct rules_source *sources;
	size_t n_sources;
	double cut_score,
	    limit_score;             /* of the findings RULES_CUT and RULES_LIMIT; 0 if not given */
	bool keep_all;               /* set before finish: rules without a score, too */
	struct rules_reader *reader; /* until finish; owns nothing of the above */
	struct rules_string *strings;
};

/* NULL when out of memory. */
struct rules_set *rules_set_new(void);
void rules_set_free(struct rules_set *set);
/* Reads one file; a rule that is there already is replaced.  -1 after cfg->fail(). */
int rules_set_read(
    struct rules_set *set, const struct filter_config *cfg, const char *file, struct slice text);
/* Ends reading: sorts out what counts, and warns of what was passed over.  -1 after cfg->fail(). */
int rules_set_finish(struct rules_set *set, const struct filter_config *cfg);

#endif
