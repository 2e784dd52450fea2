/* relayd/smtp/reply.h - replies: code and text in, bytes out (RFC 5321 section 4.2).
 *
 * A reply line is at most 512 bytes with its CRLF and holds printable ASCII only: whatever a
 * client gave us that a text repeats cannot break the line.
 */
#ifndef RELAYD_SMTP_REPLY_H
#define RELAYD_SMTP_REPLY_H

#include "relayd/core/buf.h"

#define SMTP_REPLY_LINE_MAX 512 /* RFC 5321 section 4.5.3.1.5 */

/* A reply as the role gives it.  Text is borrowed for the call; an empty enhanced is left out. */
struct smtp_answer {
	unsigned code;        /* 220 .. 554 */
	const char *enhanced; /* "5.1.1", "" or NULL */
	struct slice text;    /* one line without the code */
	struct slice help;    /* with 4xx and 5xx: text or an URL for a line of its own, or empty */
	bool named;           /* the text names the id already */
	bool close;           /* the session ends with it, as it does with every 421 */
};

/* Appends one line; more: others of the same reply follow ("250-"). */
void smtp_reply_line(struct buf *out, unsigned code, bool more, struct slice text);
/* Appends a whole reply, which has a second line where there is help.  ref, when not empty, is
 * named at the end of the first ("[id ...]"), which is kept whole even when the text has to be
 * cut. */
void smtp_reply_put(struct buf *out, const struct smtp_answer *answer, struct slice ref);

#endif
