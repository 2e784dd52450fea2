/* relayd/auth/oauth.h - OAUTHBEARER (RFC 7628) and XOAUTH2: what the client says, and what is known
 * of a token.
 *
 * Pure.  Who is asked about tokens is auth/introspect.h's.
 */
#ifndef RELAYD_AUTH_OAUTH_H
#define RELAYD_AUTH_OAUTH_H

#include "relayd/core/buf.h"

/* What is told for a token that is nobody's; RFC 7628 section 3.2.2. */
#define OAUTH_REFUSAL   "{\"status\":\"invalid_token\"}"
#define XOAUTH2_REFUSAL "{\"status\":\"401\",\"schemes\":\"bearer\"}"

struct oauth_request {
	struct slice authzid; /* as written, "=2C" and "=3D" and all; or empty */
	struct slice token;   /* empty: the client only wants to hear what it would need */
};

/* Reads a client's first message.  False when it is none (section 3.1), asks for channel binding,
 * or has a scheme other than Bearer. */
bool oauth_parse(struct slice message, struct oauth_request *out);

/* The same for XOAUTH2, which has no RFC: "user=" name ^A "auth=Bearer " token ^A ^A.  There is
 * always a name, as it is, and a token. */
bool xoauth2_parse(struct slice message, struct oauth_request *out);

enum oauth_verdict {
	OAUTH_ACTIVE,
	OAUTH_INACTIVE,
	OAUTH_UNKNOWN, /* no answer that can be understood: ask again later */
};

/* Reads an introspection response (RFC 7662 section 2.2): active, exp and username, or sub where
 * there is no username.  Appends the name.  wall_s: now, in seconds since 1970. */
enum oauth_verdict oauth_read(struct slice json, int64_t wall_s, struct buf *name);

#endif
