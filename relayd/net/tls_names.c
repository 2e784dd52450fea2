/* relayd/net/tls_names.c - the DNS names that a certificate is for. */
#include "relayd/net/tls_internal.h"

#include <openssl/x509v3.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static int
add(struct tls_names *names, const ASN1_STRING *text)
{
	int len = ASN1_STRING_length(text);
	const char *p = (const char *)ASN1_STRING_get0_data(text);
	char **grown;

	/* A NUL inside is no name, but an attempt to look like another. */
	if (len <= 0 || memchr(p, '\0', (size_t)len) != NULL)
		return 0;
	grown = realloc(names->v, (names->n + 1) * sizeof(*grown));
	if (grown == NULL)
		return -1;
	names->v = grown;
	names->v[names->n] = strndup(p, (size_t)len);
	return names->v[names->n++] != NULL ? 0 : -1;
}

static int
add_alternatives(struct tls_names *names, const GENERAL_NAMES *list)
{
	for (int i = 0; i < sk_GENERAL_NAME_num(list); i++) {
		const GENERAL_NAME *name = sk_GENERAL_NAME_value(list, i);

		if (name->type == GEN_DNS && add(names, name->d.dNSName) < 0)
			return -1;
	}
	return 0;
}

static int
add_common_name(struct tls_names *names, X509 *certificate)
{
	X509_NAME *subject = X509_get_subject_name(certificate);
	int at = X509_NAME_get_index_by_NID(subject, NID_commonName, -1);

	return at < 0 ? 0 : add(names, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at)));
}

int
tls_names_of(struct tls_names *names, X509 *certificate, struct err *err)
{
	GENERAL_NAMES *list = X509_get_ext_d2i(certificate, NID_subject_alt_name, NULL, NULL);
	int rc;

	*names = (struct tls_names){ 0 };
	rc = list != NULL ? add_alternatives(names, list) : add_common_name(names, certificate);
	GENERAL_NAMES_free(list);
	return rc == 0 ? 0 : err_set(err, ERR_NOMEM, "no memory for a certificate's names");
}

void
tls_names_fini(struct tls_names *names)
{
	for (size_t i = 0; i < names->n; i++)
		free(names->v[i]);
	free(names->v);
	*names = (struct tls_names){ 0 };
}

/* A wildcard is the whole of the leftmost label, and stands for one label (RFC 9525 section
 * 6.3). */
static bool
fits(const char *name, const char *host)
{
	const char *rest = strchr(host, '.');

	if (name[0] == '*' && name[1] == '.')
		return rest != NULL && rest > host && strcasecmp(name + 1, rest) == 0;
	return strcasecmp(name, host) == 0;
}

bool
tls_names_fit(const struct tls_names *names, const char *host)
{
	for (size_t i = 0; i < names->n; i++)
		if (fits(names->v[i], host))
			return true;
	return false;
}
