/* relayd/mail/received.h - the Received field that we add, and the loop that many of them show.
 *
 * RFC 5321 section 4.4, with-protocol names of RFC 3848, date in UTC.
 */
#ifndef RELAYD_MAIL_RECEIVED_H
#define RELAYD_MAIL_RECEIVED_H

#include "relayd/core/buf.h"

#define RECEIVED_MAX       50 /* fields; with more it goes in circles (RFC 5321 section 6.3) */
#define RECEIVED_FIELD_MAX 2000 /* bytes of the field that received_put() makes, at most */

struct received {
	struct slice helo;        /* as given by the client */
	struct slice client_addr; /* 4 or 16 bytes; empty: a unix socket */
	const char *hostname;     /* ours */
	bool extended, tls, auth, lmtp;
	bool utf8;                 /* MAIL said SMTPUTF8 */
	const char *tls_version;   /* "TLSv1.3", or NULL */
	const char *tls_cipher;    /* "TLS_AES_256_GCM_SHA384", or NULL */
	struct slice id;           /* of the message, as text */
	struct slice forward_path; /* the for-clause; empty unless there is exactly one recipient */
	int64_t wall_ms;
};

/* Appends the whole field, folded, with its final CRLF. */
void received_put(struct buf *out, const struct received *r);

/* Counts Received fields in the header of a message that is fed piece by piece.  Begins zeroed. */
struct received_counter {
	uint32_t fields;
	bool done;       /* the header has ended */
	uint8_t matched; /* bytes of "received:" that the line has matched so far */
	bool elsewhere;  /* this line is settled */
};
void received_count(struct received_counter *c, struct slice bytes);

#endif
