/* relayd/net/tls_binding.c - what binds an exchange above TLS to one TLS session. */
#include "relayd/net/tls.h"

#include <openssl/ssl.h>

#define EXPORTER_LABEL "EXPORTER-Channel-Binding" /* RFC 9266 section 2 */
#define EXPORTER_BYTES 32

/* Without an extended master secret two sessions can be made to share their secrets (RFC 7627
 * section 1); TLS 1.3 always has what it gives. */
static bool
is_bound(const SSL *ssl)
{
	return SSL_version(ssl) >= TLS1_3_VERSION ||
	       SSL_get_extms_support((SSL *)(uintptr_t)ssl) == 1; /* it only reads */
}

static size_t
exporter(const SSL *ssl, unsigned char *out)
{
	int rc = SSL_export_keying_material((SSL *)(uintptr_t)ssl, out, EXPORTER_BYTES,
	    EXPORTER_LABEL, sizeof(EXPORTER_LABEL) - 1, (const unsigned char *)"", 0, 1);

	return rc == 1 ? EXPORTER_BYTES : 0;
}

/* The first Finished message of the handshake: the client's, or the server's when it resumed. */
static size_t
unique(const SSL *ssl, unsigned char *out)
{
	bool ours = (SSL_is_server(ssl) == 1) == (SSL_session_reused(ssl) == 1);
	size_t n = ours ? SSL_get_finished(ssl, out, TLS_BINDING_MAX)
			: SSL_get_peer_finished(ssl, out, TLS_BINDING_MAX);

	return n <= TLS_BINDING_MAX ? n : 0;
}

size_t
tls_bind(const SSL *ssl, enum tls_binding kind, unsigned char out[static TLS_BINDING_MAX])
{
	if (!is_bound(ssl))
		return 0;
	if (kind == TLS_BINDING_EXPORTER)
		return exporter(ssl, out);
	/* TLS 1.3 has no tls-unique (RFC 9266 section 1). */
	return SSL_version(ssl) < TLS1_3_VERSION ? unique(ssl, out) : 0;
}
