/* relayd/net/tls.c - TLS contexts made from certificates in memory, and what a session agreed
 * on. */
#include "relayd/net/tls.h"

#include "relayd/core/config.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>

/* Forward secrecy first; CBC stays for old mail servers, which would else fall back to plain text
 * (RFC 7435).  TLS 1.3 has its own list, and OpenSSL's is good. */
#define CIPHERS                                                                                    \
	"ECDHE+AESGCM:ECDHE+CHACHA20:DHE+AESGCM:DHE+CHACHA20:ECDHE+AES:DHE+AES:"                   \
	"!aNULL:!eNULL:!MD5:!DSS:!3DES:!RC4"
#define SYSTEM_BUNDLE "/etc/ssl/certs/ca-certificates.crt"

struct tls_server; /* each is an SSL_CTX, which counts its users itself */
struct tls_client;

static SSL_CTX *
server_ctx(struct tls_server *server)
{
	return (SSL_CTX *)(void *)server;
}

static SSL_CTX *
client_ctx(struct tls_client *client)
{
	return (SSL_CTX *)(void *)client;
}

/* What both sides share; NULL with *err. */
static SSL_CTX *
ctx_new(const SSL_METHOD *method, struct err *err)
{
	SSL_CTX *ctx = SSL_CTX_new(method);

	if (ctx == NULL || SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION) != 1 ||
	    SSL_CTX_set_cipher_list(ctx, CIPHERS) != 1) {
		tls_error(err, NULL, "TLS set-up");
		SSL_CTX_free(ctx);
		return NULL;
	}
	(void)SSL_CTX_set_mode(
	    ctx, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE |
		     SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER); /* returns the new set */
	(void)SSL_CTX_set_options(ctx,
	    SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION |
		SSL_OP_IGNORE_UNEXPECTED_EOF); /* mail ends by the protocol, not by the socket */
	return ctx;
}

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

/* The issuers that follow the certificate in its file. */
static int
add_chain(SSL_CTX *ctx, BIO *bio, const char *path, struct err *err)
{
	X509 *issuer;

	while ((issuer = PEM_read_bio_X509(bio, NULL, no_passphrase, NULL)) != NULL) {
		if (SSL_CTX_add0_chain_cert(ctx, issuer) != 1) {
			X509_free(issuer);
			return tls_error(err, NULL, path);
		}
	}
	if (ERR_GET_REASON(ERR_peek_last_error()) != PEM_R_NO_START_LINE)
		return tls_error(err, NULL, path);
	ERR_clear_error(); /* that was the end of the file */
	return 0;
}

static int
use_certificate(SSL_CTX *ctx, const struct tls_pair *pair, struct err *err)
{
	BIO *bio = pem_open(pair->certificate, pair->certificate_path, err);
	X509 *cert = NULL;
	int rc = -1;

	if (bio == NULL)
		return -1;
	cert = PEM_read_bio_X509_AUX(bio, NULL, no_passphrase, NULL);
	if (cert == NULL) {
		ERR_clear_error();
		err_set(err, ERR_CONFIG, "%s: unreadable certificate: no PEM block that is one",
		    pair->certificate_path);
		goto out;
	}
	if (SSL_CTX_use_certificate(ctx, cert) != 1) {
		tls_error(err, NULL, "unusable certificate");
		err_prefix(err, "%s", pair->certificate_path);
		goto out;
	}
	rc = add_chain(ctx, bio, pair->certificate_path, err);
out:
	X509_free(cert);
	BIO_free(bio);
	return rc;
}

static int
use_key(SSL_CTX *ctx, const struct tls_pair *pair, struct err *err)
{
	BIO *bio = pem_open(pair->key, pair->key_path, err);
	EVP_PKEY *key = NULL;
	int rc = -1;

	if (bio == NULL)
		return -1;
	key = PEM_read_bio_PrivateKey(bio, NULL, no_passphrase, NULL);
	if (key == NULL)
		err_set(err, ERR_CONFIG,
		    "%s: unreadable key: no PEM block that is one, or under a passphrase",
		    pair->key_path);
	else if (X509_check_private_key(SSL_CTX_get0_certificate(ctx), key) != 1 ||
		 SSL_CTX_use_PrivateKey(ctx, key) != 1)
		err_set(err, ERR_CONFIG, "%s: the key does not fit the certificate in %s",
		    pair->key_path, pair->certificate_path);
	else
		rc = 0;
	ERR_clear_error(); /* said in our own words above */
	EVP_PKEY_free(key);
	BIO_free(bio);
	return rc;
}

struct tls_server *
tls_server_new(const struct tls_pair *pairs, size_t n, struct err *err)
{
	static const unsigned char context[] = "relayd";
	SSL_CTX *ctx = ctx_new(TLS_server_method(), err);

	if (ctx == NULL)
		return NULL;
	for (size_t i = 0; i < n; i++) {
		if (use_certificate(ctx, &pairs[i], err) < 0 || use_key(ctx, &pairs[i], err) < 0) {
			if (err != NULL)
				err->code = ERR_CONFIG;
			SSL_CTX_free(ctx);
			return NULL;
		}
	}
	(void)SSL_CTX_set_options(ctx, SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_PRIORITIZE_CHACHA);
	(void)SSL_CTX_set_dh_auto(ctx, 1); /* both return the new setting */
	/* Tickets resume a session; a cache of our own would only hold memory. */
	(void)SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
	(void)SSL_CTX_set_num_tickets(ctx, 1); /* of a client that keeps one session: cannot fail */
	(void)SSL_CTX_set_session_id_context(ctx, context, sizeof(context) - 1);
	return (struct tls_server *)(void *)ctx;
}

struct tls_server *
tls_server_of(const struct config *cfg, struct err *err)
{
	size_t n = cfg->tls.certificates.n;
	struct tls_pair *pairs;
	struct tls_server *server = NULL;

	if (n == 0) {
		err_set(err, ERR_NOT_FOUND, "no tls { certificate }");
		return NULL;
	}
	pairs = calloc(n, sizeof(*pairs));
	if (pairs == NULL || cfg->tls.keys.n != n) {
		err_set(err, pairs == NULL ? ERR_NOMEM : ERR_CONFIG,
		    "tls: %zu certificates, %zu keys", n, cfg->tls.keys.n);
		goto out;
	}
	for (size_t i = 0; i < n; i++) {
		pairs[i].certificate_path = cfg->tls.certificates.v[i];
		pairs[i].key_path = cfg->tls.keys.v[i];
		if (!config_file(cfg, pairs[i].certificate_path, &pairs[i].certificate) ||
		    !config_file(cfg, pairs[i].key_path, &pairs[i].key)) {
			err_set(err, ERR_CONFIG, "tls: %s or %s was not read with the config",
			    pairs[i].certificate_path, pairs[i].key_path);
			goto out;
		}
	}
	server = tls_server_new(pairs, n, err);
out:
	free(pairs);
	return server;
}

struct tls_server *
tls_server_ref(struct tls_server *server)
{
	(void)SSL_CTX_up_ref(server_ctx(server)); /* cannot fail on a live one */
	return server;
}

void
tls_server_unref(struct tls_server *server)
{
	SSL_CTX_free(server_ctx(server));
}

/* ---- trust ---------------------------------------------------------------------------------- */

static const char *
environment_or(const char *variable, const char *fallback)
{
	const char *value = secure_getenv(variable);

	return value != NULL && value[0] != '\0' ? value : fallback;
}

/* Every file of a directory of certificates, read now: OpenSSL itself would look in it at each
 * handshake, when this process opens no files any more. */
static void
load_directory(X509_STORE *store, const char *path)
{
	DIR *dir = opendir(path);
	struct dirent *entry;
	char name[4096];

	if (dir == NULL)
		return;
	while ((entry = readdir(dir)) != NULL) {
		if (entry->d_name[0] == '.')
			continue;
		(void)snprintf(name, sizeof(name), "%s/%s", path, entry->d_name);
		(void)X509_STORE_load_file(
		    store, name); /* a file that is no certificate is passed over */
	}
	(void)closedir(dir); /* read only */
}

static void
load_system(X509_STORE *store)
{
	const char *file =
	    environment_or(X509_get_default_cert_file_env(), X509_get_default_cert_file());

	if (X509_STORE_load_file(store, file) != 1 &&
	    X509_STORE_load_file(store, SYSTEM_BUNDLE) != 1)
		load_directory(store,
		    environment_or(X509_get_default_cert_dir_env(), X509_get_default_cert_dir()));
	ERR_clear_error(); /* no authority at all: then no peer verifies, and says so */
}

struct tls_client *
tls_client_new(const char *ca_file, struct err *err)
{
	SSL_CTX *ctx = ctx_new(TLS_client_method(), err);

	if (ctx == NULL)
		return NULL;
	if (ca_file == NULL)
		load_system(SSL_CTX_get_cert_store(ctx));
	else if (X509_STORE_load_file(SSL_CTX_get_cert_store(ctx), ca_file) != 1) {
		ERR_clear_error();
		err_set(err, ERR_CONFIG, "%s: no readable certificates", ca_file);
		SSL_CTX_free(ctx);
		return NULL;
	}
	return (struct tls_client *)(void *)ctx;
}

struct tls_client *
tls_client_ref(struct tls_client *client)
{
	(void)SSL_CTX_up_ref(client_ctx(client)); /* cannot fail on a live one */
	return client;
}

void
tls_client_unref(struct tls_client *client)
{
	SSL_CTX_free(client_ctx(client));
}

/* ---- one connection ------------------------------------------------------------------------- */

SSL *
tls_accept(struct tls_server *server, struct err *err)
{
	SSL *ssl = SSL_new(server_ctx(server));

	if (ssl == NULL)
		tls_error(err, NULL, "TLS session");
	else
		SSL_set_accept_state(ssl);
	return ssl;
}

static bool
is_address(const char *host)
{
	unsigned char addr[16];

	return inet_pton(AF_INET, host, addr) == 1 || inet_pton(AF_INET6, host, addr) == 1;
}

/* SNI names hosts only (RFC 6066 section 3); either kind is checked against the certificate. */
static int
expect_host(SSL *ssl, enum tls_verify verify, const char *host)
{
	bool address = host != NULL && is_address(host);

	if (host != NULL && !address && SSL_set_tlsext_host_name(ssl, host) != 1)
		return -1;
	if (verify == TLS_VERIFY_NONE)
		return 0;
	SSL_set_verify(ssl, SSL_VERIFY_PEER, NULL);
	SSL_set_hostflags(ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
	if (host == NULL || host[0] == '\0') /* an empty name would fit any certificate */
		return -1;
	if (address)
		return X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), host) == 1 ? 0 : -1;
	return SSL_set1_host(ssl, host) == 1 ? 0 : -1;
}

SSL *
tls_connect(struct tls_client *client, enum tls_verify verify, const char *host, struct err *err)
{
	SSL *ssl = SSL_new(client_ctx(client));

	if (ssl == NULL || expect_host(ssl, verify, host) < 0) {
		tls_error(err, NULL, "TLS session");
		SSL_free(ssl);
		return NULL;
	}
	SSL_set_connect_state(ssl);
	return ssl;
}

void
tls_describe(const SSL *ssl, struct tls_info *info)
{
	*info = (struct tls_info){ 0 };
	(void)snprintf(info->version, sizeof(info->version), "%s", SSL_get_version(ssl));
	(void)snprintf(info->cipher, sizeof(info->cipher), "%s", SSL_get_cipher_name(ssl));
	info->bits = SSL_get_cipher_bits(ssl, NULL);
	info->resumed = SSL_session_reused(ssl) == 1;
	info->verified = (SSL_get_verify_mode(ssl) & SSL_VERIFY_PEER) != 0 &&
			 SSL_get_verify_result(ssl) == X509_V_OK;
}

int
tls_error(struct err *err, const SSL *ssl, const char *context)
{
	unsigned long code = ERR_peek_last_error();
	const char *reason = ERR_reason_error_string(code);
	long verify = ssl != NULL ? SSL_get_verify_result(ssl) : X509_V_OK;

	ERR_clear_error();
	if (verify != X509_V_OK && (SSL_get_verify_mode(ssl) & SSL_VERIFY_PEER) != 0)
		return err_set(
		    err, ERR_TLS, "%s: %s", context, X509_verify_cert_error_string(verify));
	return err_set(err, ERR_TLS, "%s: %s", context, reason != NULL ? reason : "failed");
}
