/* relayd/auth/gsasl_util.h - what both sides of SASL need of gsasl: a context, base64, and secrets
 * that do not stay behind in memory that was freed.
 */
#ifndef RELAYD_AUTH_GSASL_UTIL_H
#define RELAYD_AUTH_GSASL_UTIL_H

#include "relayd/core/buf.h"

#include <gsasl.h>

/* Room for n octets as base64, and a NUL. */
#define GSASL_UTIL_BASE64(n) (4 * (((n) + 2) / 3) + 1)

/* The context at *ctx, for life: made when it is NULL, with on_property() to be asked by its
 * sessions.  NULL when out of memory. */
Gsasl *gsasl_util_context(Gsasl **ctx, Gsasl_callback_function on_property);
/* Appends the n octets as base64, one line. */
void gsasl_util_base64(struct buf *out, const void *bytes, size_t n);
/* Wipes these properties and ends the session; accepts NULL.  gsasl alone frees what it holds as it
 * is. */
void gsasl_util_finish(Gsasl_session *session, const Gsasl_property *secrets, size_t n);
/* Wipes a string of ours and frees it; accepts NULL. */
void gsasl_util_free_secret(char *s);

#endif
