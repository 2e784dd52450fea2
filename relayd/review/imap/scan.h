/* relayd/review/imap/scan.h - commands out of bytes: lines, and the literals in them (RFC 3501
 * section 4.3).
 *
 * Sans-I/O.  A command is gathered in one buffer, its literals in place ("{5}\r\nhello"), until the
 * line that ends it.  Whether a literal may come is the caller's to say, before its octets are
 * there.
 */
#ifndef RELAYD_REVIEW_IMAP_SCAN_H
#define RELAYD_REVIEW_IMAP_SCAN_H

#include "relayd/core/buf.h"

#define IMAP_LINE_MAX    (64u << 10)  /* octets of a line with its CRLF */
#define IMAP_COMMAND_MAX (128u << 10) /* of a command with its literals */
#define IMAP_LITERAL_MAX (64u << 10)  /* of one literal that is kept */

enum imap_scan {
	IMAP_SCAN_MORE,    /* all was taken; the command goes on */
	IMAP_SCAN_COMMAND, /* imap_scan_command() is whole, without its last line end */
	/* A literal is announced: answer with imap_scan_accept() or imap_scan_refuse().
	 * imap_scan_command() is what came so far. */
	IMAP_SCAN_LITERAL,
	IMAP_SCAN_LONG, /* dropped a command over a limit; imap_scan_command() is its beginning */
	IMAP_SCAN_REFUSED, /* a refused literal, which its sender did not wait with, has gone by */
	IMAP_SCAN_NUL,     /* dropped a line with a NUL */
};

struct imap_scanner {
	struct buf text;
	size_t line_at;   /* in text: where the current line starts */
	uint64_t literal; /* octets announced, or still to come */
	bool in_literal;
	bool waits;    /* the sender of the literal wants "+" first */
	bool dropping; /* up to the end of the command */
	bool refused, has_nul;
	char tail[16]; /* while dropping: the last octets of the line */
};

void imap_scan_init(struct imap_scanner *sc);
void imap_scan_fini(struct imap_scanner *sc);
/* Takes bytes off the front of *in up to the next event. */
enum imap_scan imap_scan(struct imap_scanner *sc, struct slice *in);
/* Valid until imap_scan_next(). */
struct slice imap_scan_command(const struct imap_scanner *sc);
/* The command was dealt with: forgets it, and its memory. */
void imap_scan_next(struct imap_scanner *sc);

/* After IMAP_SCAN_LITERAL. */
uint64_t imap_scan_literal_size(const struct imap_scanner *sc);
/* True: the client waits for "+ " before it sends (no LITERAL+). */
bool imap_scan_literal_waits(const struct imap_scanner *sc);
/* The octets may come.  Only up to IMAP_LITERAL_MAX and what is left of IMAP_COMMAND_MAX; otherwise
 * false, and it is to be refused. */
bool imap_scan_accept(struct imap_scanner *sc);
/* They may not: when the client waits, the command ends here and imap_scan_next() follows; else the
 * octets and the rest of the command are dropped and IMAP_SCAN_REFUSED comes. */
void imap_scan_refuse(struct imap_scanner *sc);

#endif
