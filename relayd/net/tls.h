/* relayd/net/tls.h - TLS contexts made from certificates in memory, and what a session agreed
 * on.
 *
 * TLS 1.2 and later (RFC 8996, RFC 9325).  A context is counted: a connection keeps what it
 * needs of it, so a reload may drop the old context at once.  Streams do the rest
 * (net/stream.h).
 */
#ifndef RELAYD_NET_TLS_H
#define RELAYD_NET_TLS_H

#include "relayd/core/err.h"
#include "relayd/core/slice.h"

struct config;
struct tls_server; /* our certificates and keys */
struct tls_client; /* the certificate authorities that we trust */

/* A certificate chain and its key, both PEM; the paths are for error messages only. */
struct tls_pair {
	const char *certificate_path, *key_path;
	struct slice certificate, key;
};

/* A client that names a host (SNI, RFC 6066 section 3) is shown the pairs whose certificates have
 * that name, or a wildcard for it; any other the first pair and those that have its name too.  Of
 * one name, the first pair of each kind of key is offered (RSA and ECDSA side by side).  NULL with
 * *err: ERR_CONFIG, msg "PATH: what is wrong".  The PEM bytes are not needed afterwards. */
struct tls_server *tls_server_new(const struct tls_pair *pairs, size_t n, struct err *err);
/* Of the config's tls section; counts its expiry.  NULL with err->code ERR_NOT_FOUND when it names
 * no certificate. */
struct tls_server *tls_server_of(const struct config *cfg, struct err *err);
/* Asks clients for a certificate, and lets them in whatever they show: the session has info.client.
 * authorities: PEM, those whose certificates are verified; empty for none. */
int tls_server_ask_clients(
    struct tls_server *server, struct slice authorities, const char *path, struct err *err);
/* Of a session ticket; 0 for no tickets at all. */
void tls_server_ticket_lifetime(struct tls_server *server, uint32_t seconds);
/* When the first of its certificates expires: seconds of the wall clock. */
int64_t tls_server_expiry(const struct tls_server *server);
struct tls_server *tls_server_ref(struct tls_server *server);
void tls_server_unref(struct tls_server *server); /* accepts NULL */

/* Reads the certificate authorities now, for a role that opens no file later: those of ca_file, or
 * with NULL those of the system.  NULL with *err: ERR_CONFIG naming the file. */
struct tls_client *tls_client_new(const char *ca_file, struct err *err);
struct tls_client *tls_client_ref(struct tls_client *client);
void tls_client_unref(struct tls_client *client); /* accepts NULL */

#define TLS_FINGERPRINT_BYTES 32
#define TLS_NAME_BYTES        128

enum tls_verify {
	TLS_VERIFY_NONE, /* any certificate will do: opportunistic (RFC 7435) */
	TLS_VERIFY_HOST, /* a trusted chain and the host's name, or no session */
};

/* What a session agreed on, for Received and the log. */
struct tls_info {
	char version[12]; /* "TLSv1.3" */
	char cipher[48];  /* "TLS_AES_256_GCM_SHA384" */
	int bits;
	bool verified; /* the peer's chain is good, and of a server the host name */
	bool resumed;
	/* Of a server: the client showed a certificate and has its key. */
	bool client;
	uint8_t client_sha256[TLS_FINGERPRINT_BYTES]; /* of the certificate (DER) */
	/* When it is verified: the mail address, DNS name or common name that it is for, or "". */
	char client_name[TLS_NAME_BYTES];
};

/* Of one connection; for net/stream.c.  ssl_st is OpenSSL's SSL.  NULL with *err. */
struct ssl_st;
struct ssl_st *tls_accept(struct tls_server *server, struct err *err);
/* where: the peer's address as text.  A session that was agreed on with the same verify, host and
 * where is resumed; "": none is. */
struct ssl_st *tls_connect(struct tls_client *client, enum tls_verify verify, const char *host,
    const char *where, struct err *err);
/* Once, when the handshake is done. */
void tls_connected(struct ssl_st *ssl);
void tls_describe(const struct ssl_st *ssl, struct tls_info *info);
/* Writes what binds another layer to this session alone (RFC 5056) and returns its bytes: 0 where
 * the session cannot give it safely. */
enum tls_binding {
	TLS_BINDING_EXPORTER, /* RFC 9266: TLS 1.3, or 1.2 with an extended master secret */
	TLS_BINDING_UNIQUE,   /* RFC 5929 section 3: TLS 1.2 with an extended master secret */
};
#define TLS_BINDING_MAX 64
size_t tls_bind(
    const struct ssl_st *ssl, enum tls_binding kind, unsigned char out[static TLS_BINDING_MAX]);
/* The newest of OpenSSL's error queue as one sentence after "context: "; empties the queue.
 * Returns -1. */
int tls_error(struct err *err, const struct ssl_st *ssl, const char *context);

#endif
