/* relayd/net/tls_pem.c - certificates and keys out of PEM files. */
#include "relayd/net/tls_internal.h"

#include <openssl/err.h>
#include <openssl/pem.h>

/* A key under a passphrase is refused: nobody is there to type it. */
static int
no_passphrase(char *buf, int size, int writing, void *arg)
{
	(void)buf;
	(void)size;
	(void)writing;
	(void)arg;
	return 0;
}

static BIO *
pem_open(struct slice pem, const char *path, struct err *err)
{
	BIO *bio = pem.len < INT32_MAX ? BIO_new_mem_buf(pem.p, (int)pem.len) : NULL;

	if (bio == NULL)
		err_set(err, ERR_NOMEM, "%s: out of memory", path);
	return bio;
}

static int
fail(const char *path, struct err *err)
{
	tls_error(err, NULL, path);
	if (err != NULL)
		err->code = ERR_CONFIG;
	return -1;
}

/* All that follows in the file, onto *list, which is made when there is one. */
static int
read_rest(BIO *bio, STACK_OF(X509) * *list, const char *path, struct err *err)
{
	X509 *next;

	while ((next = PEM_read_bio_X509(bio, NULL, no_passphrase, NULL)) != NULL) {
		if (*list == NULL)
			*list = sk_X509_new_null();
		if (*list == NULL || sk_X509_push(*list, next) == 0) {
			X509_free(next);
			return fail(path, err);
		}
	}
	if (ERR_GET_REASON(ERR_peek_last_error()) != PEM_R_NO_START_LINE)
		return fail(path, err);
	ERR_clear_error(); /* that was the end of the file */
	return 0;
}

static int
read_certificate(struct tls_credential *cred, const struct tls_pair *pair, struct err *err)
{
	BIO *bio = pem_open(pair->certificate, pair->certificate_path, err);
	int rc = -1;

	if (bio == NULL)
		return -1;
	cred->certificate = PEM_read_bio_X509_AUX(bio, NULL, no_passphrase, NULL);
	if (cred->certificate != NULL) {
		rc = read_rest(bio, &cred->chain, pair->certificate_path, err);
	} else {
		ERR_clear_error(); /* said in our own words */
		err_set(err, ERR_CONFIG, "%s: unreadable certificate: no PEM block that is one",
		    pair->certificate_path);
	}
	BIO_free(bio);
	return rc;
}

static int
read_key(struct tls_credential *cred, const struct tls_pair *pair, struct err *err)
{
	BIO *bio = pem_open(pair->key, pair->key_path, err);
	int rc = -1;

	if (bio == NULL)
		return -1;
	cred->key = PEM_read_bio_PrivateKey(bio, NULL, no_passphrase, NULL);
	if (cred->key == NULL)
		err_set(err, ERR_CONFIG,
		    "%s: unreadable key: no PEM block that is one, or under a passphrase",
		    pair->key_path);
	else if (X509_check_private_key(cred->certificate, cred->key) != 1)
		err_set(err, ERR_CONFIG, "%s: the key does not fit the certificate in %s",
		    pair->key_path, pair->certificate_path);
	else
		rc = 0;
	ERR_clear_error(); /* said in our own words above */
	BIO_free(bio);
	return rc;
}

int
tls_credential_read(struct tls_credential *cred, const struct tls_pair *pair, struct err *err)
{
	*cred = (struct tls_credential){ 0 };
	if (read_certificate(cred, pair, err) == 0 && read_key(cred, pair, err) == 0)
		return 0;
	tls_credential_fini(cred);
	return -1;
}

void
tls_credential_fini(struct tls_credential *cred)
{
	X509_free(cred->certificate);
	sk_X509_pop_free(cred->chain, X509_free);
	EVP_PKEY_free(cred->key);
	*cred = (struct tls_credential){ 0 };
}

STACK_OF(X509) * tls_pem_certificates(struct slice pem, const char *path, struct err *err)
{
	BIO *bio = pem_open(pem, path, err);
	STACK_OF(X509) *list = NULL;
	int rc = bio != NULL ? read_rest(bio, &list, path, err) : -1;

	BIO_free(bio);
	if (rc == 0 && list != NULL)
		return list;
	if (rc == 0)
		err_set(err, ERR_CONFIG, "%s: no PEM block that is a certificate", path);
	sk_X509_pop_free(list, X509_free);
	return NULL;
}
