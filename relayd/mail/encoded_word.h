/* relayd/mail/encoded_word.h - RFC 2047 encoded words to UTF-8. */
#ifndef RELAYD_MAIL_ENCODED_WORD_H
#define RELAYD_MAIL_ENCODED_WORD_H

#include "relayd/core/buf.h"

/* Appends text, one unfolded line, with its encoded words decoded; blanks between two of them go
 * (section 6.2).  Adjacent words of one charset are joined before they are converted, for those who
 * split a character between them.  What only looks like a word stays.  Octets above ASCII outside
 * of words are taken as UTF-8 or guessed.  The result is valid UTF-8 without CR, LF and NUL. */
void encoded_word_decode(struct slice text, struct buf *out);

#endif
