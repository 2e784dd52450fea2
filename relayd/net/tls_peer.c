/* relayd/net/tls_peer.c - what the certificate of a client says about it. */
#include "relayd/net/tls_internal.h"

#include <openssl/evp.h>
#include <openssl/x509v3.h>
#include <string.h>

static bool
take_text(const ASN1_STRING *text, char out[static TLS_NAME_BYTES])
{
	int len = ASN1_STRING_length(text);
	const char *p = (const char *)ASN1_STRING_get0_data(text);

	if (len <= 0 || len >= TLS_NAME_BYTES || memchr(p, '\0', (size_t)len) != NULL)
		return false;
	memcpy(out, p, (size_t)len);
	out[len] = '\0';
	return true;
}

static bool
take_alternative(const GENERAL_NAMES *list, int type, char out[static TLS_NAME_BYTES])
{
	for (int i = 0; i < sk_GENERAL_NAME_num(list); i++) {
		const GENERAL_NAME *name = sk_GENERAL_NAME_value(list, i);

		/* Both kinds are IA5Strings in the same place of the union. */
		if (name->type == type && take_text(name->d.ia5, out))
			return true;
	}
	return false;
}

/* A person before a host, and a name that was meant as one before the common name. */
static void
take_identity(X509 *certificate, char out[static TLS_NAME_BYTES])
{
	GENERAL_NAMES *list = X509_get_ext_d2i(certificate, NID_subject_alt_name, NULL, NULL);
	X509_NAME *subject = X509_get_subject_name(certificate);
	int at = X509_NAME_get_index_by_NID(subject, NID_commonName, -1);

	if (!take_alternative(list, GEN_EMAIL, out) && !take_alternative(list, GEN_DNS, out) &&
	    at >= 0)
		(void)take_text(X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at)),
		    out); /* without one it has no name */
	GENERAL_NAMES_free(list);
}

void
tls_describe_client(const SSL *ssl, struct tls_info *info)
{
	X509 *certificate = SSL_get0_peer_certificate(ssl);

	if (certificate == NULL || !SSL_is_server(ssl) ||
	    X509_digest(certificate, EVP_sha256(), info->client_sha256, NULL) != 1)
		return;
	info->client = true;
	if (info->verified)
		take_identity(certificate, info->client_name);
}
