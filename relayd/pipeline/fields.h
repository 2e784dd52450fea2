/* relayd/pipeline/fields.h - header fields made here: folded, and of clean text whatever goes in.
 *
 * Nothing given to these functions can end a line or begin a field.  Lines fold before a word that
 * would pass 78 characters (RFC 5322 section 2.1.1) and never reach 998.
 */
#ifndef RELAYD_PIPELINE_FIELDS_H
#define RELAYD_PIPELINE_FIELDS_H

#include "relayd/core/buf.h"

#define FIELD_LINE_SHOULD 78
#define FIELD_LINE_MUST   998

struct field {
	struct buf *out;
	size_t column;
	bool begun; /* a word stands on the line already */
};

/* "Name:", then words, each with a blank in front, then the line end. */
struct field pl_field_begin(struct buf *out, const char *name);
void pl_field_word(struct field *f, struct slice word);
void pl_field_wordf(struct field *f, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void pl_field_end(struct field *f);
/* A field with one word. */
void pl_field_put(struct buf *out, const char *name, struct slice word);

/* Appends text fit for a field: a control character, and what is not UTF-8, becomes '?'. */
void pl_field_clean(struct buf *out, struct slice text);
/* Appends a name of letters, digits and "_-.:"; anything else becomes '_'. */
void pl_field_token(struct buf *out, struct slice text);
/* Appends text as a value of RFC 2045: as it is where that is allowed, else as a quoted string.
 * "a@b" stays as it is (RFC 8601 section 2.2). */
void pl_field_value(struct buf *out, struct slice text);
/* Appends text fit for the text of an SMTP reply: printable ASCII (RFC 5321 section 4.2). */
void pl_field_reply(struct buf *out, struct slice text);

#endif
