/* relayd/auth/identity.h - who we are to a next hop: the client side of SASL (RFC 4422), by gsasl.
 *
 * SCRAM where it is offered, bound to the TLS session where that can be (-PLUS); PLAIN and LOGIN
 * only under TLS.  With SCRAM the next hop proves that it knows the password too, or we are not
 * logged in.  The costly part of SCRAM is done once for a salt, in the loop: it is bounded.
 */
#ifndef RELAYD_AUTH_IDENTITY_H
#define RELAYD_AUTH_IDENTITY_H

#include "relayd/core/config.h"
#include "relayd/smtp/login.h"

#define IDENTITY_ITERATIONS_MAX 600000 /* of SCRAM; some tenths of a second */

struct identity;

/* The route's login; counted.  NULL with *err: ERR_NOT_FOUND, it has none; ERR_CONFIG, its password
 * is not known here. */
struct identity *identity_of(const struct config_route *route, struct err *err);
/* Whether it is still the route's login; NULL is that of a route without one. */
bool identity_is_of(const struct identity *id, const struct config_route *route);
/* Of text that need not live on. */
struct identity *identity_new(struct slice name, struct slice password, struct err *err);
struct identity *identity_ref(struct identity *id);
void identity_unref(struct identity *id); /* accepts NULL; wipes the password with the last */
/* For a client; lives as long as a reference. */
struct smtp_login *identity_login(struct identity *id);
/* Loads now what gsasl loads late, for a process that opens no file later. */
int identity_prepare(struct err *err);

#endif
