/* relayd/mail/header.h - the fields of a header, with their place in the message.
 *
 * Lines end with CRLF or LF.  A header ends with its empty line, or before the first line that is
 * neither a field nor a continuation: that line belongs to the body, so that no text hides from a
 * scan in a header.  An mbox "From " line before the first field is passed over.
 */
#ifndef RELAYD_MAIL_HEADER_H
#define RELAYD_MAIL_HEADER_H

#include "relayd/core/buf.h"

#define HEADER_NAME_MAX 998 /* RFC 5322 section 2.1.1; a longer one is no field */

struct header_field {
	struct slice name; /* without the colon and blanks before it (RFC 5322 section 4.5) */
	struct slice raw;  /* all of it: folds and the last line end */
	struct slice body; /* behind the colon, folds as they are, without the last line end */
};

struct header_iter {
	struct slice rest; /* starts with the next field; at the end, where the header ends */
	bool begun;
};

/* bytes: a header, or a message or part that starts with one. */
static inline struct header_iter
header_iter_of(struct slice bytes)
{
	return (struct header_iter){ .rest = bytes };
}

/* False at the end of the header; then rest begins with the empty line or with the body. */
bool header_next(struct header_iter *it, struct header_field *field);

enum header_line {
	HEADER_LINE_FIELD,
	HEADER_LINE_FOLD,  /* begins with a blank: continues the field before it */
	HEADER_LINE_END,   /* empty */
	HEADER_LINE_OTHER, /* the header ended before it */
};
/* What a line with its line end is; *name is set for a field. */
enum header_line header_line_kind(struct slice line, struct slice *name);

/* Octets of the header with its empty line: where the body starts. */
size_t header_length(struct slice message);
/* The nth (from 0) field of that name, in any case. */
bool header_find(struct slice bytes, struct slice name, size_t nth, struct header_field *field);
/* Drops blanks, folds and comments, however nested, off the front of a body (RFC 5322 section
 * 3.2.2). */
void header_skip_cfws(struct slice *s);
/* Appends body as one line: CRLF gone, blanks at both ends too (RFC 5322 section 2.2.3).  Other CR,
 * LF and NUL become a space. */
void header_unfold(struct slice body, struct buf *out);
/* Appends body unfolded with encoded words decoded to UTF-8. */
void header_decode(struct slice body, struct buf *out);

#endif
