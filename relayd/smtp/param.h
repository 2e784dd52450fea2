/* relayd/smtp/param.h - ESMTP parameters of MAIL and RCPT, and the text form of their bytes.
 *
 * RFC 5321 section 4.1.1.11 and the xtext of RFC 3461 section 4.  Both sides of the protocol use
 * it.
 */
#ifndef RELAYD_SMTP_PARAM_H
#define RELAYD_SMTP_PARAM_H

#include "relayd/core/buf.h"

enum smtp_param {
	SMTP_PARAM_END, /* nothing is left */
	SMTP_PARAM_ONE,
	SMTP_PARAM_BAD, /* what comes next is no esmtp-param */
};

/* Takes the next parameter and the spaces before it off the front of *in; slices point into it.
 * value is empty where there is no "=". */
enum smtp_param smtp_param_next(struct slice *in, struct slice *name, struct slice *value);

/* Appends bytes as xtext. */
void smtp_xtext_put(struct buf *out, struct slice bytes);
/* Appends what text stands for; false, and out as it may be, when it is not xtext or does not
 * fit. */
bool smtp_xtext_decode(struct slice text, struct buf *out);

#endif
