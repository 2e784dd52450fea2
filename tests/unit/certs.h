/* tests/unit/certs.h - certificates made on the spot, for tests of TLS. */
#ifndef TESTS_UNIT_CERTS_H
#define TESTS_UNIT_CERTS_H

#include "relayd/core/slice.h"

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* A certificate and its key as PEM, NUL-terminated, the caller's to free(). */
struct test_cert {
	char *certificate, *key;
};

static inline char *
test_cert_take(BIO *bio)
{
	char *bytes;
	long n = BIO_get_mem_data(bio, &bytes);
	char *out = calloc(1, (size_t)n + 1);

	if (out == NULL)
		abort();
	memcpy(out, bytes, (size_t)n);
	BIO_free(bio);
	return out;
}

/* Self-signed by a new key of this type ("RSA" or "EC") for a DNS name or, "IP:127.0.0.1", an
 * address. */
static inline struct test_cert
test_cert_new(const char *type, const char *name)
{
	EVP_PKEY *key = strcmp(type, "RSA") == 0 ? EVP_RSA_gen(2048) : EVP_EC_gen("P-256");
	bool address = strncmp(name, "IP:", 3) == 0;
	X509 *x = X509_new();
	BIO *cert_bio = BIO_new(BIO_s_mem()), *key_bio = BIO_new(BIO_s_mem());
	X509_EXTENSION *san, *ca;
	char text[300];

	(void)snprintf(text, sizeof(text), "%s%s", address ? "" : "DNS:", name);
	X509_set_version(x, 2);
	ASN1_INTEGER_set(X509_get_serialNumber(x), (long)getpid());
	X509_gmtime_adj(X509_getm_notBefore(x), -60);
	X509_gmtime_adj(X509_getm_notAfter(x), 3600);
	X509_set_pubkey(x, key);
	X509_NAME_add_entry_by_txt(X509_get_subject_name(x), "CN", MBSTRING_ASC,
	    (const unsigned char *)"relayd test", -1, -1, 0);
	X509_set_issuer_name(x, X509_get_subject_name(x));
	san = X509V3_EXT_conf_nid(NULL, NULL, NID_subject_alt_name, text);
	ca = X509V3_EXT_conf_nid(NULL, NULL, NID_basic_constraints, "critical,CA:TRUE");
	if (san == NULL || ca == NULL || X509_add_ext(x, san, -1) != 1 ||
	    X509_add_ext(x, ca, -1) != 1 || X509_sign(x, key, EVP_sha256()) == 0 ||
	    PEM_write_bio_X509(cert_bio, x) != 1 ||
	    PEM_write_bio_PrivateKey(key_bio, key, NULL, NULL, 0, NULL, NULL) != 1)
		abort();
	X509_EXTENSION_free(san);
	X509_EXTENSION_free(ca);
	X509_free(x);
	EVP_PKEY_free(key);
	return (struct test_cert){ test_cert_take(cert_bio), test_cert_take(key_bio) };
}

static inline void
test_cert_free(struct test_cert *c)
{
	free(c->certificate);
	free(c->key);
}

/* Writes text to a new file below /tmp; its name goes to path, the caller unlinks it. */
static inline void
test_file(const char *text, char path[static 32])
{
	int fd;

	(void)snprintf(path, 32, "/tmp/relayd-test-XXXXXX");
	fd = mkstemp(path);
	if (fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text) || close(fd) < 0)
		abort();
}

#endif
