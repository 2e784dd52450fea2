/* relayd/review/imap/structure.h - ENVELOPE, BODY and BODYSTRUCTURE (RFC 3501 section 7.4.2). */
#ifndef RELAYD_REVIEW_IMAP_STRUCTURE_H
#define RELAYD_REVIEW_IMAP_STRUCTURE_H

#include "relayd/mail/mime.h"

#define IMAP_ADDRESSES_MAX (8u << 10) /* octets of one address list; what lies beyond is left out */

/* Appends "(...)" of the header that bytes begin with. */
void imap_put_envelope(struct slice bytes, struct buf *out);
/* Appends "(...)" of the whole message; extended: with what BODYSTRUCTURE says more than BODY. */
void imap_put_structure(const struct mime *mime, bool extended, struct buf *out);

#endif
