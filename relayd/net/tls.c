/* relayd/net/tls.c - what both sides of TLS share, the client's context, and what a session agreed
 * on. */
#include "relayd/core/buf.h"
#include "relayd/net/tls_internal.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>

/* Of a client: forward secrecy first; CBC stays for old mail servers, which would else get the mail
 * in plain text (RFC 7435).  TLS 1.3 has its own list, and OpenSSL's is good. */
#define CIPHERS                                                                                    \
	"ECDHE+AESGCM:ECDHE+CHACHA20:DHE+AESGCM:DHE+CHACHA20:ECDHE+AES:DHE+AES:"                   \
	"!aNULL:!eNULL:!MD5:!DSS:!3DES:!RC4"
#define SYSTEM_BUNDLE "/etc/ssl/certs/ca-certificates.crt"

struct tls_client; /* an SSL_CTX, which counts its users itself */

static SSL_CTX *
client_ctx(struct tls_client *client)
{
	return (SSL_CTX *)(void *)client;
}

SSL_CTX *
tls_ctx_new(const SSL_METHOD *method, const char *ciphers, struct err *err)
{
	SSL_CTX *ctx = SSL_CTX_new(method);

	if (ctx == NULL || SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION) != 1 ||
	    SSL_CTX_set_cipher_list(ctx, ciphers) != 1) {
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
	SSL_CTX *ctx = tls_ctx_new(TLS_client_method(), CIPHERS, err);

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
	if (tls_resume_init(ctx, err) < 0) {
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

static bool
is_address(const char *host)
{
	unsigned char addr[16];

	return inet_pton(AF_INET, host, addr) == 1 || inet_pton(AF_INET6, host, addr) == 1;
}

/* "it is for a.example, b.example" */
static void
note_names(X509 *certificate, struct buf *out)
{
	struct tls_names names;

	if (tls_names_of(&names, certificate, NULL) < 0)
		return;
	buf_puts(out, names.n > 0 ? "it is for" : "it names no host");
	for (size_t i = 0; i < names.n; i++)
		buf_printf(out, "%s %s", i > 0 ? "," : "", names.v[i]);
	tls_names_fini(&names);
}

/* Keeps what the admin needs to know of a certificate that will not do: OpenSSL forgets it. */
static int
on_verify(int good, X509_STORE_CTX *store)
{
	SSL *ssl = X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx());
	struct tls_out *out = ssl != NULL ? tls_out_of(ssl) : NULL;
	X509 *certificate = X509_STORE_CTX_get_current_cert(store);
	struct buf text;

	if (good == 1 || out == NULL || certificate == NULL)
		return good;
	text = buf_over(out->detail, sizeof(out->detail) - 1);
	if (X509_STORE_CTX_get_error(store) == X509_V_ERR_HOSTNAME_MISMATCH) {
		note_names(certificate, &text);
	} else {
		char name[120];

		buf_puts(&text, "of ");
		buf_puts(&text,
		    X509_NAME_oneline(X509_get_subject_name(certificate), name, sizeof(name)));
	}
	out->detail[text.len] = '\0';
	for (size_t i = 0; i < text.len; i++)
		if (out->detail[i] < ' ' || out->detail[i] > '~')
			out->detail[i] = '?';
	return good;
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
	SSL_set_verify(ssl, SSL_VERIFY_PEER, on_verify);
	SSL_set_hostflags(ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
	if (host == NULL || host[0] == '\0') /* an empty name would fit any certificate */
		return -1;
	if (address)
		return X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), host) == 1 ? 0 : -1;
	return SSL_set1_host(ssl, host) == 1 ? 0 : -1;
}

SSL *
tls_connect(struct tls_client *client, enum tls_verify verify, const char *host, const char *where,
    struct err *err)
{
	SSL *ssl = SSL_new(client_ctx(client));

	if (ssl == NULL || expect_host(ssl, verify, host) < 0 ||
	    tls_resume_start(ssl, verify, host, where) < 0) {
		tls_error(err, NULL, "TLS session");
		SSL_free(ssl);
		return NULL;
	}
	SSL_set_connect_state(ssl);
	return ssl;
}

void
tls_connected(SSL *ssl)
{
	tls_resume_done(ssl);
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
			 SSL_get0_peer_certificate(ssl) != NULL &&
			 SSL_get_verify_result(ssl) == X509_V_OK;
	tls_describe_client(ssl, info);
}

int
tls_error(struct err *err, const SSL *ssl, const char *context)
{
	unsigned long code = ERR_peek_last_error();
	const char *reason = ERR_reason_error_string(code);
	long verify = ssl != NULL ? SSL_get_verify_result(ssl) : X509_V_OK;

	ERR_clear_error();
	if (verify != X509_V_OK && (SSL_get_verify_mode(ssl) & SSL_VERIFY_PEER) != 0) {
		const struct tls_out *out = tls_out_of(ssl);
		const char *detail = out != NULL ? out->detail : "";

		return err_set(err, ERR_TLS, "%s: %s%s%s%s", context,
		    X509_verify_cert_error_string(verify), detail[0] != '\0' ? " (" : "", detail,
		    detail[0] != '\0' ? ")" : "");
	}
	return err_set(err, ERR_TLS, "%s: %s", context, reason != NULL ? reason : "failed");
}
