/* relayd/smtp/client_reply.h - replies of a peer: bytes in, one reply out (RFC 5321 section
 * 4.2). */
#ifndef RELAYD_SMTP_CLIENT_REPLY_H
#define RELAYD_SMTP_CLIENT_REPLY_H

#include "relayd/smtp/client.h"

struct smtp_client_reply {
	unsigned code;     /* of the last line, 200 .. 599 */
	char enhanced[12]; /* of the first, where its class is that of the code; or empty */
	size_t lines;
	size_t len;
	char text[SMTP_CLIENT_TEXT_MAX];
};

enum smtp_client_line {
	SMTP_LINE_MORE,      /* *in holds an unfinished line, or nothing */
	SMTP_LINE_CONTINUES, /* a line of a reply that goes on; *line is its text */
	SMTP_LINE_LAST,      /* the last one: *reply is whole */
	SMTP_LINE_BAD,       /* no reply, or over a limit of smtp/client.h */
};

/* Takes one line off the front of *in into *reply, which starts zeroed for each reply.  Lines
 * may end in a bare LF; what is not printable becomes "?", as the text goes to logs and
 * bounces. */
enum smtp_client_line smtp_client_reply_line(
    struct smtp_client_reply *reply, struct slice *in, struct slice *line);
/* Its text as a slice. */
struct slice smtp_client_reply_text(const struct smtp_client_reply *reply);

#endif
