/* relayd/mail/transfer.h - base64 and quoted-printable (RFC 2045 sections 6.7 and 6.8, RFC 4648).
 *
 * The tolerant decoders take any bytes and lose nothing that could be meant: they append what
 * can be decoded and stop, between two octets, when out is full (overflow is then set).
 */
#ifndef RELAYD_MAIL_TRANSFER_H
#define RELAYD_MAIL_TRANSFER_H

#include "relayd/core/buf.h"

/* Skips what is not of the alphabet; padding ends a quantum, and what follows starts the next. */
void transfer_base64(struct slice in, struct buf *out);
/* A "=" that begins no valid code stays as it is; blanks at the end of a line are dropped. */
void transfer_qp(struct slice in, struct buf *out);
/* The Q encoding of RFC 2047 section 4.2: "_" is a space, and there are no line ends. */
void transfer_q(struct slice in, struct buf *out);

/* For SASL: exactly RFC 4648 section 4 with padding.  False, and nothing appended, on anything else
 * and when out is full. */
bool transfer_base64_strict(struct slice in, struct buf *out);
/* One run without line ends; line_len > 0: CRLF after so many characters (76), and at the end. */
void transfer_base64_encode(struct slice in, size_t line_len, struct buf *out);

#endif
