/* relayd/core/mechanism.h - the SASL mechanisms that there are: names for the config and the
 * protocols. */
#ifndef RELAYD_CORE_MECHANISM_H
#define RELAYD_CORE_MECHANISM_H

#include "relayd/core/buf.h"

/* The best first: the order in which a server lists them. */
enum mechanism {
	MECHANISM_SCRAM_SHA_256_PLUS, /* RFC 7677 */
	MECHANISM_SCRAM_SHA_1_PLUS,   /* RFC 5802 */
	MECHANISM_GSSAPI,             /* RFC 4752 */
	MECHANISM_EXTERNAL,           /* RFC 4422 appendix A */
	MECHANISM_OAUTHBEARER,        /* RFC 7628 */
	MECHANISM_XOAUTH2,            /* what was there before it, and many clients still say */
	MECHANISM_SCRAM_SHA_256,
	MECHANISM_SCRAM_SHA_1,
	MECHANISM_PLAIN,    /* RFC 4616 */
	MECHANISM_LOGIN,    /* what old clients say for PLAIN */
	MECHANISM_CRAM_MD5, /* RFC 2195 */
	MECHANISM_COUNT,    /* and: none of them */
};
#define MECHANISM_BIT(m) (1u << (m))
/* Shows a secret that is as good as a password to whoever reads along. */
#define MECHANISMS_READABLE                                                                        \
	(MECHANISM_BIT(MECHANISM_PLAIN) | MECHANISM_BIT(MECHANISM_LOGIN) | MECHANISMS_TOKEN)
/* An OAuth token says who it is. */
#define MECHANISMS_TOKEN (MECHANISM_BIT(MECHANISM_OAUTHBEARER) | MECHANISM_BIT(MECHANISM_XOAUTH2))
#define MECHANISMS_PLUS                                                                            \
	(MECHANISM_BIT(MECHANISM_SCRAM_SHA_256_PLUS) | MECHANISM_BIT(MECHANISM_SCRAM_SHA_1_PLUS))
#define MECHANISMS_SCRAM                                                                           \
	(MECHANISMS_PLUS | MECHANISM_BIT(MECHANISM_SCRAM_SHA_256) |                                \
	    MECHANISM_BIT(MECHANISM_SCRAM_SHA_1))
/* CRAM-MD5 alone must be asked for: it wants the password itself in the users file. */
#define MECHANISMS_DEFAULT  (((1u << MECHANISM_COUNT) - 1) & ~MECHANISM_BIT(MECHANISM_CRAM_MD5))
#define MECHANISMS_TEXT_MAX 160 /* of all names and the spaces between them, with a NUL */

const char *mechanism_name(enum mechanism m);
/* In any case of letters; MECHANISM_COUNT for a name that is none of them. */
enum mechanism mechanism_named(struct slice name);
/* Appends the names of a set, each behind sep. */
void mechanisms_put(struct buf *out, unsigned set, const char *sep);

#endif
