/* relayd/auth/sasl.h - the server side of a SASL exchange (RFC 4422), for SMTP, IMAP and POP3.
 *
 * No socket and no clock: responses go in as they stand in the protocol (base64, "=" for an empty
 * initial response), challenges come out the same way.  gsasl does the mechanisms, but those of
 * OAuth.  What takes time is the caller's: PLAIN and LOGIN end with SASL_CHECK, for a
 * password_check; OAUTHBEARER and XOAUTH2 ask with SASL_TOKEN, which sasl_told() answers.  SASL_OK
 * alone means that sasl_user() was proven and is a user who may log in.
 *
 *	struct sasl *x = sasl_start(MECHANISM_PLAIN, &about);
 *	switch (sasl_step(x, response, has_response, &challenge)) ...
 */
#ifndef RELAYD_AUTH_SASL_H
#define RELAYD_AUTH_SASL_H

#include "relayd/auth/users.h"
#include "relayd/core/mechanism.h"

#define SASL_BINDING_MAX   64
#define SASL_CHALLENGE_MAX 4096 /* base64; more is SASL_BAD */

struct sasl;

enum sasl_status {
	SASL_CONTINUE, /* send the challenge, step again with the response */
	SASL_CHECK,    /* over: user and password are there, not yet proven */
	SASL_TOKEN,    /* whose is sasl_token()?  then sasl_told() */
	SASL_OK,       /* over: it is sasl_user() */
	SASL_FAILED,   /* over: not proven, or may not log in; SMTP 535 5.7.8 */
	SASL_DENIED,   /* over: asks to act as somebody else (authzid); SMTP 535 5.7.8 */
	SASL_TRANSITION, /* over: no verifier for it, a password would do; SMTP 432 4.7.12 */
	SASL_BAD,        /* over: not base64 or not of the mechanism; SMTP 501 5.5.2 */
};

/* A channel binding as it comes from TLS; len 0: there is none. */
struct sasl_binding {
	unsigned char bytes[SASL_BINDING_MAX];
	size_t len;
};

/* What surrounds an exchange. */
struct sasl_about {
	unsigned allowed;     /* set of MECHANISM_BIT(): the config's */
	unsigned without_tls; /* the same: those that may be used without TLS */
	bool tls;
	bool wants_scram;     /* allowed names SCRAM: also where it is not for all users */
	bool has_tokens;      /* OAUTHBEARER, XOAUTH2: there is somebody to ask */
	bool has_keytab;      /* GSSAPI: there is a key of the service */
	const char *service;  /* "smtp", "imap", "pop": GSSAPI */
	const char *hostname; /* of the service, the same */
	const char *realm;    /* of Kerberos: whose names are users without "@REALM"; or NULL */
	/* EXTERNAL: the name in a certificate that was verified, or "": sasl_peer(). */
	char peer[USERS_NAME_MAX + 1];
	struct sasl_binding exporter, unique; /* RFC 9266, RFC 5929 */
	/* The users of now, or NULL; asked whenever they are needed. */
	const struct users *(*users)(void *owner);
	void *owner;
};

/* name: of the certificate; one that can be no user's is none. */
void sasl_peer(struct sasl_about *about, const char *name);

/* The set that can be used here and now, for EHLO and CAPABILITY. */
unsigned sasl_offer(const struct sasl_about *about);

/* m is one of sasl_offer().  What about points to lives until sasl_free(), about itself need not.
 * NULL when out of memory. */
struct sasl *sasl_start(enum mechanism m, const struct sasl_about *about);
/* Wipes what is secret; NULL is fine. */
void sasl_free(struct sasl *x);

/* has_response: the client sent a response with the command, or this is an answer to a challenge.
 * Appends the challenge (base64) to challenge, which has room for SASL_CHALLENGE_MAX. */
enum sasl_status sasl_step(
    struct sasl *x, struct slice response, bool has_response, struct buf *challenge);
/* Answers SASL_TOKEN: whose it is, or empty for nobody's. */
enum sasl_status sasl_told(struct sasl *x, struct slice name, struct buf *challenge);

/* How it ended where the client was told so in a challenge and has still to say that it heard it;
 * else SASL_CONTINUE.  Who goes now knows as much as who answers. */
enum sasl_status sasl_said(const struct sasl *x);
enum mechanism sasl_mechanism(const struct sasl *x);
/* Who it is, or claims to be while nothing is proven; empty until that was said. */
struct slice sasl_user(const struct sasl *x);
/* After SASL_CHECK; borrowed from x. */
struct slice sasl_password(const struct sasl *x);
/* After SASL_TOKEN; the same. */
struct slice sasl_token(const struct sasl *x);

/* Loads now what the mechanisms load late, for a process that opens no file later.  service is for
 * GSSAPI, when a keytab is open; else NULL.  ERR_NOT_FOUND: it has no key of service@hostname. */
int sasl_prepare(const char *service, const char *hostname, struct err *err);

#endif
