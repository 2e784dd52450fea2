/* relayd/net/tls_internal.h - what the files of TLS share, for net/tls*.c alone. */
#ifndef RELAYD_NET_TLS_INTERNAL_H
#define RELAYD_NET_TLS_INTERNAL_H

#include "relayd/net/tls.h"

#include <openssl/ssl.h>

/* What both sides share, with this list of ciphers for TLS 1.2; NULL with *err. */
SSL_CTX *tls_ctx_new(const SSL_METHOD *method, const char *ciphers, struct err *err);

static inline SSL_CTX *
tls_server_ctx(struct tls_server *server)
{
	return (SSL_CTX *)(void *)server;
}

/* tls_pem.c: a certificate with the issuers behind it, and its key; ERR_CONFIG names the file. */
struct tls_credential {
	X509 *certificate;
	STACK_OF(X509) * chain; /* may be NULL */
	EVP_PKEY *key;
};
int tls_credential_read(struct tls_credential *cred, const struct tls_pair *pair, struct err *err);
void tls_credential_fini(struct tls_credential *cred); /* of an empty one too */
/* The certificates of a file, at least one; NULL with *err. */
STACK_OF(X509) * tls_pem_certificates(struct slice pem, const char *path, struct err *err);

/* tls_names.c: the DNS names that a certificate is for, those of its subjectAltName or, where it
 * has none, its common name (RFC 9525 section 6.3 knows the latter no more; self-made ones do). */
struct tls_names {
	char **v;
	size_t n;
};
int tls_names_of(struct tls_names *names, X509 *certificate, struct err *err);
void tls_names_fini(struct tls_names *names);
bool tls_names_fit(const struct tls_names *names, const char *host);

/* tls_resume.c: what a connection of a client's is for, and the sessions of its kind. */
#define TLS_RESUME_MAX  512 /* sessions of a client's context */
#define TLS_RESUME_EACH 8   /* of them for one peer */
/* from a handshake that verified, sessions follow from one another so long */
#define TLS_RESUME_S 7200
struct tls_out {
	char key[600];        /* "": no session is kept */
	int64_t born_ms;      /* when the peer was verified, clock_mono_ms() */
	SSL_SESSION *offered; /* or NULL; a reference */
	int64_t resumes_ms;   /* when its peer was verified */
	char detail[200];     /* what was wrong with the peer's certificate, or "" */
};
/* For a context that is to resume sessions; what it keeps goes with it. */
int tls_resume_init(SSL_CTX *ctx, struct err *err);
/* Notes what the connection is for, and offers a session.  where: the peer's address as text, or
 * "".  -1: out of memory. */
int tls_resume_start(SSL *ssl, enum tls_verify verify, const char *host, const char *where);
/* The handshake is done. */
void tls_resume_done(SSL *ssl);
/* NULL for one of a server. */
struct tls_out *tls_out_of(const SSL *ssl);

/* tls_peer.c: what the certificate of a client says. */
void tls_describe_client(const SSL *ssl, struct tls_info *info);

#endif
