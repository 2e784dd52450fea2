/* filters/rules/text.h - what rules match against: the fields and the text of one message.
 *
 * As SpamAssassin hands them out.  A field is decoded, its folds are single spaces, it ends with
 * LF; fields of one name follow each other.  The text is the subject, then the text of all parts,
 * white space collapsed, a paragraph a line.  All of it is UTF-8, and matched as bytes.
 *
 * Memory comes from the run (filter_host.alloc) and is gone after it.  Bounded: no more than
 * RULES_FIELDS_MAX fields and RULES_HEADER_BYTES_MAX of header are looked at, and max_text of text;
 * cut tells when there was more.
 */
#ifndef FILTERS_RULES_TEXT_H
#define FILTERS_RULES_TEXT_H

#include "filters/rules/ruleset.h"

#define RULES_FIELDS_MAX       4096
#define RULES_HEADER_BYTES_MAX (256u * 1024)
#define RULES_LINE_TEXT_MAX    2048 /* of a line of text; a longer one is two */

struct rules_value {
	bool known, present;
	struct slice text;
};

struct rules_text {
	struct filter_tx *tx;
	struct filter_field *fields;
	size_t n_fields;
	struct rules_value *values; /* of each source of the set, once asked for */
	struct slice *lines;        /* lines[0] is the subject */
	size_t n_lines;
	bool cut;
};

/* Both: false past the memory budget of the message. */
bool rules_text_init(
    struct rules_text *text, struct filter_tx *tx, const struct rules_set *set, size_t max_text);
/* The value of a source; NULL past the budget. */
const struct rules_value *rules_text_value(
    struct rules_text *text, const struct rules_set *set, size_t source);

#endif
