/* relayd/auth/gsasl_util.c - what both sides of SASL need of gsasl. */
#include "relayd/auth/gsasl_util.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <stdlib.h>

Gsasl *
gsasl_util_context(Gsasl **ctx, Gsasl_callback_function on_property)
{
	if (*ctx == NULL && gsasl_init(ctx) == GSASL_OK)
		gsasl_callback_set(*ctx, on_property);
	return *ctx;
}

void
gsasl_util_base64(struct buf *out, const void *bytes, size_t n)
{
	char *room = buf_room(out, GSASL_UTIL_BASE64(n));

	if (room != NULL)
		buf_commit(out, (size_t)EVP_EncodeBlock((unsigned char *)room, bytes, (int)n));
}

void
gsasl_util_finish(Gsasl_session *session, const Gsasl_property *secrets, size_t n)
{
	if (session == NULL)
		return;
	for (size_t i = 0; i < n; i++) {
		const char *value = gsasl_property_fast(session, secrets[i]);

		if (value != NULL) /* the session's own copy */
			OPENSSL_cleanse((char *)(uintptr_t)value, strlen(value));
	}
	gsasl_finish(session);
}

void
gsasl_util_free_secret(char *s)
{
	if (s != NULL)
		OPENSSL_cleanse(s, strlen(s));
	free(s);
}
