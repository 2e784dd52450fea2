/* filters/rules/lines.h - a rule file as directives: comments, translations and "if" blocks are
 * gone.
 *
 * Pure: no I/O, no allocation.  A comment starts at "#"; "\#" is a "#".  There is no continuation
 * of lines.  "ifplugin" never holds, for there are no plugins.
 */
#ifndef FILTERS_RULES_LINES_H
#define FILTERS_RULES_LINES_H

#include <relayd/slice.h>

#define RULES_LINE_BYTES_MAX  65536
#define RULES_BLOCK_DEPTH_MAX 64

struct rules_lines {
	struct slice rest;
	unsigned line;   /* of the directive last returned, or of the fault */
	const char *why; /* of the fault */
	/* Inside: whether the lines in each open block count, and where it was opened. */
	bool counts[RULES_BLOCK_DEPTH_MAX + 1];
	unsigned opened[RULES_BLOCK_DEPTH_MAX + 1];
	unsigned depth;
	char buf[RULES_LINE_BYTES_MAX];
};

/* Borrows text. */
void rules_lines_init(struct rules_lines *in, struct slice text);
/* The next directive that counts, in lower case and with "_" for "-", and its arguments without
 * blanks at their ends; both are good until the next call.  1; 0 at the end; -1 for a fault. */
int rules_lines_next(struct rules_lines *in, struct slice *directive, struct slice *args);
/* Takes the first word off the front of *in, and the blanks behind it. */
struct slice rules_word_take(struct slice *in);

#endif
