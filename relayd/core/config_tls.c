/* relayd/core/config_tls.c - the tls section: files that are there, fit each other and are in
 * time. */
#include "relayd/core/config_load.h"
#include "relayd/core/config_source.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <time.h>

#define FINGERPRINT_BYTES 32
#define FINGERPRINTS_MAX  100000

static int
line_of(const struct config_all *all, const char *option)
{
	int line = config_outline_line(all->outline, "tls", "", option);

	return line > 0 ? line : config_outline_line(all->outline, "tls", "", "");
}

/* ---- certificates --------------------------------------------------------------------------- */

/* What is wrong with a certificate and its key, both PEM; NULL when they fit. */
static const char *
pair_fault(struct slice certificate, struct slice key)
{
	BIO *cert_bio = BIO_new_mem_buf(certificate.p, (int)certificate.len);
	BIO *key_bio = BIO_new_mem_buf(key.p, (int)key.len);
	X509 *cert = cert_bio != NULL ? PEM_read_bio_X509(cert_bio, NULL, NULL, NULL) : NULL;
	EVP_PKEY *pkey = key_bio != NULL ? PEM_read_bio_PrivateKey(key_bio, NULL, NULL, (void *)"")
					 : NULL;
	const char *fault = NULL;

	if (cert == NULL)
		fault = "is no certificate in PEM form";
	else if (pkey == NULL)
		fault = "has a key that is no private key in PEM form (or it has a pass phrase)";
	else if (X509_check_private_key(cert, pkey) != 1)
		fault = "and its key do not belong together";
	X509_free(cert);
	EVP_PKEY_free(pkey);
	BIO_free(cert_bio);
	BIO_free(key_bio);
	ERR_clear_error();
	return fault;
}

static void
warn_of_time(struct config_all *all, const char *path, struct slice pem, int line)
{
	BIO *bio = BIO_new_mem_buf(pem.p, (int)pem.len);
	X509 *cert = bio != NULL ? PEM_read_bio_X509(bio, NULL, NULL, NULL) : NULL;
	char day[32] = "";
	struct tm tm;

	if (cert != NULL && X509_cmp_current_time(X509_get0_notAfter(cert)) < 0) {
		if (ASN1_TIME_to_tm(X509_get0_notAfter(cert), &tm) == 1)
			(void)strftime(day, sizeof(day), " on %Y-%m-%d", &tm);	/* it fits */
		config_warn(
		    all, line, "%s expired%s: clients that verify will refuse us", path, day);
	} else if (cert != NULL && X509_cmp_current_time(X509_get0_notBefore(cert)) > 0) {
		config_warn(all, line, "%s is not valid yet", path);
	}
	X509_free(cert);
	BIO_free(bio);
	ERR_clear_error();
}

static int
check_pair(struct config_all *all, size_t i, int line, struct err *err)
{
	const struct config *c = &all->pub;
	const char *path = c->tls.certificates.v[i];
	/* One file may hold both: then it is the secret that a key is. */
	bool both = strcmp(path, c->tls.keys.v[i]) == 0;
	struct slice certificate, key;
	const char *fault;

	if (config_add_watched(all, path, both, line, err) < 0 ||
	    config_add_watched(all, c->tls.keys.v[i], true, line_of(all, "key"), err) < 0)
		return -1;
	if (!config_file(c, path, &certificate) || !config_file(c, c->tls.keys.v[i], &key))
		return 0;	/* no secrets here: checked where they are */
	fault = pair_fault(certificate, key);
	if (fault != NULL)
		return config_fail(all, err, line, "%s %s", path, fault);
	warn_of_time(all, path, certificate, line);
	return 0;
}

static int
check_pairs(struct config_all *all, struct err *err)
{
	const struct config *c = &all->pub;
	int line = line_of(all, "certificate");

	if (c->tls.certificates.n != c->tls.keys.n)
		return config_fail(all, err, line, "tls: %zu certificates but %zu keys",
		    c->tls.certificates.n, c->tls.keys.n);
	for (size_t i = 0; i < c->tls.certificates.n; i++)
		if (check_pair(all, i, line, err) < 0)
			return -1;
	return 0;
}

/* ---- clients -------------------------------------------------------------------------------- */

static int
hex_digit(char c)
{
	c = slice_lower(c);
	return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* "sha256:" and 64 hexadecimal digits, with colons between the bytes or without. */
static bool
read_fingerprint(struct slice text, uint8_t out[static FINGERPRINT_BYTES])
{
	size_t n = 0;

	if (!slice_starts(text, SLICE("sha256:")))
		return false;
	text = slice_drop(text, 7);
	while (text.len >= 2 && n < FINGERPRINT_BYTES) {
		int high = hex_digit(text.p[0]), low = hex_digit(text.p[1]);

		if (high < 0 || low < 0)
			return false;
		out[n++] = (uint8_t)(high << 4 | low);
		text = slice_drop(text, 2);
		if (text.len > 0 && text.p[0] == ':' && n < FINGERPRINT_BYTES)
			text = slice_drop(text, 1);
	}
	return n == FINGERPRINT_BYTES && text.len == 0;
}

static int
add_fingerprint(struct config_all *all, struct slice text, size_t *max)
{
	struct config *c = &all->pub;
	size_t n = c->tls.n_relay_fingerprints;

	if (n == *max) {
		size_t more = *max == 0 ? 16 : *max * 2;
		uint8_t(*grown)[FINGERPRINT_BYTES] = n < FINGERPRINTS_MAX
			? arena_alloc(&all->arena, more * FINGERPRINT_BYTES) : NULL;

		if (grown == NULL)
			return -1;
		if (n > 0)
			memcpy(grown, c->tls.relay_fingerprints, n * FINGERPRINT_BYTES);
		c->tls.relay_fingerprints = grown;
		*max = more;
	}
	if (!read_fingerprint(text, c->tls.relay_fingerprints[n]))
		return -1;
	c->tls.n_relay_fingerprints++;
	return 0;
}

/* One a line; what stands behind it and lines with # are for people. */
static int
add_fingerprint_file(struct config_all *all, const char *path, size_t *max, struct err *err)
{
	int line = line_of(all, "relay-fingerprints"), number = 0;
	struct slice rest;

	if (config_add_watched(all, path, false, line, err) < 0 ||
	    !config_file(&all->pub, path, &rest))
		return -1;
	while (rest.len > 0) {
		struct slice text = slice_until(rest, '\n');
		struct slice word;

		rest = slice_drop(rest, text.len + 1);
		word = slice_until(slice_until(slice_until(text, ' '), '\t'), '\r');
		number++;
		if (word.len > 0 && word.p[0] != '#' && add_fingerprint(all, word, max) < 0)
			return err_set(
			    err, ERR_CONFIG, "%s:%d: expected sha256: and 64 digits", path, number);
	}
	return 0;
}

static int
check_clients(struct config_all *all, struct err *err)
{
	const struct config *c = &all->pub;
	size_t max = 0;

	if (c->tls.client_ca != NULL &&
	    config_add_watched(all, c->tls.client_ca, false, line_of(all, "client-ca"), err) < 0)
		return -1;
	for (size_t i = 0; i < c->tls.fingerprints.n; i++) {
		const char *text = c->tls.fingerprints.v[i];

		if (text[0] == '/') {
			if (add_fingerprint_file(all, text, &max, err) < 0)
				return -1;
		} else if (add_fingerprint(all, slice_str(text), &max) < 0) {
			return config_fail(all, err, line_of(all, "relay-fingerprints"),
			    "relay-fingerprints = %s: expected sha256: and 64 digits, or a path",
			    text);
		}
	}
	return 0;
}

int
config_check_tls(struct config_all *all, struct err *err)
{
	return check_pairs(all, err) < 0 || check_clients(all, err) < 0 ? -1 : 0;
}
