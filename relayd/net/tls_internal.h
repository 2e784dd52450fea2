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

/* tls_names.c: the DNS names that a certificate is for, those of its subjectAltName or, where it has
 * none, its common name (RFC 9525 section 6.3 knows the latter no more; self-made ones do). */
struct tls_names {
	char **v;
	size_t n;
};
int tls_names_of(struct tls_names *names, X509 *certificate, struct err *err);
void tls_names_fini(struct tls_names *names);
bool tls_names_fit(const struct tls_names *names, const char *host);

/* tls_peer.c: what the certificate of a client says. */
void tls_describe_client(const SSL *ssl, struct tls_info *info);

#endif
