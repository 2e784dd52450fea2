/* relayd/smtp/scan.h - command lines and message data: bytes in, events out.
 *
 * Lines end with CRLF and with nothing else (RFC 5321 section 2.3.8).  The same events come out
 * however the bytes are cut.  What breaks a rule is reported, never repaired: after a fault in
 * message data no more of it is handed out, and nothing but <CRLF>.<CRLF> ends it, so that no
 * second message can hide in the first.
 */
#ifndef RELAYD_SMTP_SCAN_H
#define RELAYD_SMTP_SCAN_H

#include "relayd/core/slice.h"

#define SMTP_COMMAND_MAX   512   /* bytes with CRLF, RFC 5321 section 4.5.3.1.4 */
#define SMTP_AUTH_LINE_MAX 12288 /* bytes with CRLF, RFC 4954 section 4 */
#define SMTP_TEXT_LINE_MAX 1000  /* bytes with CRLF, RFC 5321 section 4.5.3.1.6 */

/* ---- command lines ------------------------------------------------------------------------- */

enum smtp_scan {
	SMTP_SCAN_COMMAND,
	SMTP_SCAN_MORE,
	SMTP_SCAN_LONG,
	SMTP_SCAN_BARE,
};

/* Begins zeroed. */
struct smtp_scanner {
	bool dropping; /* inside a line of which nothing counts */
	bool told;     /* and that was reported */
	bool cr;       /* the last byte of it is a CR */
};

struct smtp_command {
	struct slice line; /* without CRLF */
	struct slice verb; /* up to the first space */
	struct slice args; /* the rest, with its leading space */
};

/* Takes one command line of at most max bytes, CRLF counted, off the front of *in.
 *
 * SMTP_SCAN_COMMAND: *cmd holds slices into those bytes.
 * SMTP_SCAN_MORE:    *in holds an unfinished line; call again with it and what follows.
 * SMTP_SCAN_LONG:    dropped a line over max.
 * SMTP_SCAN_BARE:    drops a line with a NUL, or a CR or LF alone.
 *
 * A line is one command up to its CRLF, whatever stands in it: what follows an LF alone is
 * dropped with it, so that nobody's argument becomes our command.  Such a line is reported at that
 * LF, for who ends every line so and waits for an answer.
 */
enum smtp_scan smtp_scan_command(
    struct smtp_scanner *sc, struct slice *in, size_t max, struct smtp_command *cmd);

/* ---- message data ---------------------------------------------------------------------------- */

/* What can be wrong with message data; a set of bits, so that it does not depend on the cut. */
enum smtp_fault {
	SMTP_FAULT_NUL = 1,
	SMTP_FAULT_BARE_LF = 2,
	SMTP_FAULT_BARE_CR = 4,
	SMTP_FAULT_LINE = 8, /* a line over SMTP_TEXT_LINE_MAX */
};

enum smtp_data_state {
	SMTP_DATA_BOL,    /* at the beginning of a line */
	SMTP_DATA_DOT,    /* behind a dot that begins a line and was not handed out */
	SMTP_DATA_DOT_CR, /* behind that dot and a CR */
	SMTP_DATA_TEXT,
	SMTP_DATA_CR, /* behind a CR, which was handed out */
	/* With convert: a line end is owed, */
	SMTP_DATA_OWES_LF,   /* of which the CR was handed out */
	SMTP_DATA_OWES_CRLF, /* in place of a CR that was not */
	SMTP_DATA_AT_LF,     /* in place of the LF that comes next */
	SMTP_DATA_CONVERTED, /* and behind it, where a dot is a dot of the text and ends nothing */
};

/* Begins zeroed, but for convert. */
struct smtp_data {
	enum smtp_data_state state;
	bool convert;    /* a CR or LF alone becomes CRLF, and is no fault */
	unsigned faults; /* set of enum smtp_fault */
	bool dots;       /* a line, dots unstuffed, begins with a dot */
	bool eight_bit;  /* a byte over 127 */
	uint32_t line;   /* bytes of the current line, stuffing not counted */
	uint64_t bytes;  /* handed out so far */
};

enum smtp_data_event {
	SMTP_DATA_BYTES, /* *out is the next run of the message, a slice of *in */
	SMTP_DATA_MORE,  /* all of *in is used up */
	SMTP_DATA_END,   /* the final dot was taken; *in holds what follows it */
};

/* Takes the next run of message data off the front of *in, dots unstuffed (RFC 5321 section 4.5.2).
 * After a fault BYTES does not come any more.  With convert *out may be a line end of our own, and
 * what is handed out has no other; the data still ends with <CRLF>.<CRLF> as it came, and only
 * there. */
enum smtp_data_event smtp_scan_data(struct smtp_data *d, struct slice *in, struct slice *out);

/* The same for a run of a BDAT chunk, which has no final dot and no stuffing (RFC 3030 section 2):
 * looks at all of it.  The lines go on from chunk to chunk. */
void smtp_scan_chunk(struct smtp_data *d, struct slice run);
/* Behind the last one: a CR that ends the message is alone. */
void smtp_scan_chunk_end(struct smtp_data *d);

/* The gravest of a set of faults as the value of why= in a log event, "bare-lf"; "" for none. */
const char *smtp_fault_name(unsigned faults);

#endif
