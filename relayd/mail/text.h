/* relayd/mail/text.h - what a reader sees of a part: its text, html as visible text. */
#ifndef RELAYD_MAIL_TEXT_H
#define RELAYD_MAIL_TEXT_H

#include "relayd/mail/mime.h"

/* Appends the text of UTF-8 html: no tags, comments, scripts, styles or head; entities resolved; an
 * empty line where a paragraph begins or ends, a new line for other blocks; other white space is
 * one space.  Linear in the input; stops when out is full. */
void text_of_html(struct slice html, struct buf *out);
/* Appends the text of a leaf that mime_is_text(): decoded to UTF-8, and text/html as above.
 * scratch is for the decoded html and is reset first. */
void text_of_part(
    const struct mime *mime, const struct mime_part *part, struct buf *scratch, struct buf *out);

#endif
