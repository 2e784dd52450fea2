/* relayd/auth/sasl.h - the server side of a SASL exchange (RFC 4422), through gsasl, for SMTP and IMAP.
 *
 * No socket and no users: responses go in as they stand in the protocol (base64, "=" for an empty
 * initial response), challenges come out the same way.  PLAIN (RFC 4616) ends with SASL_CHECK: the
 * caller checks sasl_user() and sasl_password() with a password_check and decides.
 *
 *	struct sasl *x = sasl_start(SLICE("PLAIN"));
 *	switch (sasl_step(x, response, &challenge)) ...
 */
#ifndef RELAYD_AUTH_SASL_H
#define RELAYD_AUTH_SASL_H

#include "relayd/core/buf.h"

struct sasl;

enum sasl_status {
	SASL_CONTINUE, /* send the challenge, step again with the response */
	SASL_CHECK,    /* over: user and password are there, not yet proven */
	SASL_BAD,    /* over: the response is not base64 or not of the mechanism; SMTP 501 5.5.2 */
	SASL_DENIED, /* over: asks to act as somebody else (authzid); SMTP 535 5.7.8 */
};

/* Mechanisms that sasl_start() takes, separated by spaces, for EHLO and CAPABILITY. */
#define SASL_MECHANISMS "PLAIN"

/* NULL when the mechanism, in any case of letters, is not one of ours. */
struct sasl *sasl_start(struct slice mechanism);
/* Wipes the password; NULL is fine. */
void sasl_free(struct sasl *x);

/* has_initial: the client sent a response with the command.  Appends the challenge (base64) to out. */
enum sasl_status sasl_step(
    struct sasl *x, struct slice response, bool has_response, struct buf *challenge);

/* After SASL_CHECK; borrowed from x. */
struct slice sasl_user(const struct sasl *x);
struct slice sasl_password(const struct sasl *x);

#endif
