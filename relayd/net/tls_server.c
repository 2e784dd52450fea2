/* relayd/net/tls_server.c - our side of TLS as a server: which certificate for which name, tickets,
 * client certificates. */
#include "relayd/core/config.h"
#include "relayd/core/counters.h"
#include "relayd/net/tickets.h"
#include "relayd/net/tls_internal.h"

#include <openssl/err.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Forward secrecy and authenticated encryption, or no session (RFC 9325 section 4.2).  Who can do
 * neither is older than TLS 1.2's own ciphers. */
#define CIPHERS "ECDHE+AESGCM:ECDHE+CHACHA20:!aNULL"
/* Of TLS 1.3 the one that every implementation has (RFC 8446 section 9.1) first: 256 bits would
 * cost a handshake a tenth more, and buy nothing against anybody. */
#define SUITES  "TLS_AES_128_GCM_SHA256:TLS_CHACHA20_POLY1305_SHA256:TLS_AES_256_GCM_SHA384"
#define GROUPS  "X25519:P-256:P-384"
#define SIGNATURES                                                                                 \
	"ECDSA+SHA256:ECDSA+SHA384:ECDSA+SHA512:ed25519:RSA-PSS+SHA256:RSA-PSS+SHA384:"            \
	"RSA-PSS+SHA512:RSA+SHA256:RSA+SHA384:RSA+SHA512"
#define KINDS_MAX        3 /* of keys side by side: RSA, ECDSA, Ed25519 */
#define CLIENT_DEPTH     8 /* issuers of a client's certificate */
#define CLIENT_BYTES_MAX (32 << 10)

struct offer {
	struct tls_credential cred;
	struct tls_names names;
};

/* Those of one name, at most one for each kind of key. */
struct choice {
	const struct offer *v[KINDS_MAX];
	size_t n;
};

/* Belongs to the SSL_CTX, and goes with it: a connection holds on to that. */
struct offers {
	struct choice usual; /* for who names no host, or none of ours */
	int64_t expiry_s;
	size_t n;
	struct offer v[];
};

/* ---- which certificate ---------------------------------------------------------------------- */

static void
add_choice(struct choice *c, const struct offer *o)
{
	int kind = EVP_PKEY_get_base_id(o->cred.key);

	for (size_t i = 0; i < c->n; i++)
		if (EVP_PKEY_get_base_id(c->v[i]->cred.key) == kind)
			return;
	if (c->n < KINDS_MAX)
		c->v[c->n++] = o;
}

static struct choice
choose(const struct offers *all, const char *host)
{
	struct choice c = { 0 };

	for (size_t i = 0; i < all->n; i++)
		if (tls_names_fit(&all->v[i].names, host))
			add_choice(&c, &all->v[i]);
	return c;
}

/* The first, and what stands beside it for the same name. */
static struct choice
choose_usual(const struct offers *all)
{
	struct choice c = { .v = { &all->v[0] }, .n = 1 };

	for (size_t i = 1; i < all->n && all->v[0].names.n > 0; i++)
		if (tls_names_fit(&all->v[i].names, all->v[0].names.v[0]))
			add_choice(&c, &all->v[i]);
	return c;
}

static int
use_choice(SSL *ssl, const struct choice *c)
{
	SSL_certs_clear(ssl);
	for (size_t i = 0; i < c->n; i++) {
		const struct tls_credential *cred = &c->v[i]->cred;

		if (SSL_use_cert_and_key(ssl, cred->certificate, cred->key, cred->chain, 1) != 1)
			return 0;
	}
	return 1;
}

/* OpenSSL asks which certificate to show; 1: go on with those that are set. */
static int
on_certificate_wanted(SSL *ssl, void *arg)
{
	const struct offers *all = arg;
	const char *host = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);
	struct choice c;

	if (host == NULL)
		return 1;
	c = choose(all, host);
	if (c.n == 0 || memcmp(&c, &all->usual, sizeof(c)) == 0)
		return 1;
	return use_choice(ssl, &c);
}

/* A name of ours is acknowledged, so that its session is resumed under that name only (RFC 6066
 * section 3); another is no error, as mail servers do not always know how they are called. */
static int
on_servername(SSL *ssl, int *alert, void *arg)
{
	const struct offers *all = arg;
	const char *host = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);

	(void)alert; /* never sent */
	return host != NULL && choose(all, host).n > 0 ? SSL_TLSEXT_ERR_OK : SSL_TLSEXT_ERR_NOACK;
}

/* ---- made and freed ------------------------------------------------------------------------- */

static void
free_offers(void *parent, void *p, CRYPTO_EX_DATA *data, int index, long arg, void *more)
{
	struct offers *all = p;

	(void)parent;
	(void)data;
	(void)index;
	(void)arg;
	(void)more;
	for (size_t i = 0; all != NULL && i < all->n; i++) {
		tls_credential_fini(&all->v[i].cred);
		tls_names_fini(&all->v[i].names);
	}
	free(all);
}

static int offers_index;

static void
make_offers_index(void)
{
	offers_index = SSL_CTX_get_ex_new_index(0, NULL, NULL, NULL, free_offers);
	if (offers_index < 0)
		abort(); /* out of memory before the first context */
}

static struct offers *
attach_offers(SSL_CTX *ctx, size_t n, struct err *err)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	struct offers *all = calloc(1, sizeof(*all) + n * sizeof(all->v[0]));

	(void)pthread_once(&once, make_offers_index); /* cannot fail */
	if (all == NULL || SSL_CTX_set_ex_data(ctx, offers_index, all) != 1) {
		free(all);
		err_set(err, ERR_NOMEM, "no memory for certificates");
		return NULL;
	}
	return all;
}

static int64_t
expiry_of(X509 *certificate)
{
	struct tm tm;

	return ASN1_TIME_to_tm(X509_get0_notAfter(certificate), &tm) == 1 ? timegm(&tm) : 0;
}

static int
use_on_ctx(SSL_CTX *ctx, const struct tls_credential *cred, const char *path, struct err *err)
{
	if (SSL_CTX_use_cert_and_key(ctx, cred->certificate, cred->key, cred->chain, 1) == 1)
		return 0;
	tls_error(err, NULL, "unusable certificate");
	if (err != NULL)
		err->code = ERR_CONFIG;
	return err_prefix(err, "%s", path);
}

/* Each is tried on a context of its own: what OpenSSL refuses is said now, not in a handshake. */
static int
read_offers(struct offers *all, const struct tls_pair *pairs, size_t n, struct err *err)
{
	SSL_CTX *trial = tls_ctx_new(TLS_server_method(), CIPHERS, err);
	int rc = trial != NULL ? 0 : -1;

	for (size_t i = 0; i < n && rc == 0; i++) {
		struct offer *o = &all->v[i];
		int64_t expiry;

		rc = tls_credential_read(&o->cred, &pairs[i], err);
		if (rc < 0)
			break;
		all->n++;
		if (tls_names_of(&o->names, o->cred.certificate, err) < 0 ||
		    use_on_ctx(trial, &o->cred, pairs[i].certificate_path, err) < 0)
			rc = -1;
		expiry = expiry_of(o->cred.certificate);
		if (i == 0 || expiry < all->expiry_s)
			all->expiry_s = expiry;
	}
	SSL_CTX_free(trial);
	return rc;
}

static int
set_up(SSL_CTX *ctx, struct offers *all, const struct tls_pair *pairs, size_t n, struct err *err)
{
	static const unsigned char context[] = "relayd";

	if (SSL_CTX_set_ciphersuites(ctx, SUITES) != 1 ||
	    SSL_CTX_set1_groups_list(ctx, GROUPS) != 1 ||
	    SSL_CTX_set1_sigalgs_list(ctx, SIGNATURES) != 1)
		return tls_error(err, NULL, "TLS set-up");
	if (read_offers(all, pairs, n, err) < 0)
		return -1;
	all->usual = choose_usual(all);
	for (size_t i = 0; i < all->usual.n; i++)
		if (use_on_ctx(ctx, &all->usual.v[i]->cred, "tls", err) < 0)
			return -1;
	(void)SSL_CTX_set_options(ctx, SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_PRIORITIZE_CHACHA);
	/* Tickets resume a session; a cache of our own would only hold memory. */
	(void)SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
	(void)SSL_CTX_set_num_tickets(ctx, 1); /* of a client that keeps one session: cannot fail */
	(void)SSL_CTX_set_session_id_context(ctx, context, sizeof(context) - 1); /* it is short */
	if (tickets_in_use() != NULL)
		(void)SSL_CTX_set_tlsext_ticket_key_evp_cb(ctx, tickets_in_use()); /* cannot fail */
	if (n > 1) {
		SSL_CTX_set_cert_cb(ctx, on_certificate_wanted, all);
		(void)SSL_CTX_set_tlsext_servername_callback(ctx, on_servername); /* the same */
		(void)SSL_CTX_set_tlsext_servername_arg(ctx, all);
	}
	return 0;
}

struct tls_server *
tls_server_new(const struct tls_pair *pairs, size_t n, struct err *err)
{
	SSL_CTX *ctx = tls_ctx_new(TLS_server_method(), CIPHERS, err);
	struct offers *all = ctx != NULL ? attach_offers(ctx, n, err) : NULL;

	if (all != NULL && set_up(ctx, all, pairs, n, err) == 0)
		return (struct tls_server *)(void *)ctx;
	SSL_CTX_free(ctx);
	return NULL;
}

struct tls_server *
tls_server_ref(struct tls_server *server)
{
	(void)SSL_CTX_up_ref(tls_server_ctx(server)); /* cannot fail on a live one */
	return server;
}

void
tls_server_unref(struct tls_server *server)
{
	SSL_CTX_free(tls_server_ctx(server));
}

int64_t
tls_server_expiry(const struct tls_server *server)
{
	const SSL_CTX *ctx = (const SSL_CTX *)(const void *)server;
	const struct offers *all = SSL_CTX_get_ex_data(ctx, offers_index);

	return all->expiry_s;
}

void
tls_server_ticket_lifetime(struct tls_server *server, uint32_t seconds)
{
	SSL_CTX *ctx = tls_server_ctx(server);

	(void)SSL_CTX_set_timeout(ctx, seconds); /* returns the old one */
	if (seconds > 0)
		return;
	(void)SSL_CTX_set_options(ctx, SSL_OP_NO_TICKET); /* returns the new set */
	(void)SSL_CTX_set_num_tickets(ctx, 0);            /* cannot fail */
}

/* ---- client certificates -------------------------------------------------------------------- */

/* A certificate that does not verify gives no rights and takes none: the mail is welcome all the
 * same. */
static int
on_verified(int ok, X509_STORE_CTX *store)
{
	(void)ok;
	(void)store; /* keeps the first error, which the session sees */
	return 1;
}

static int
trust(SSL_CTX *ctx, const STACK_OF(X509) * list, const char *path, struct err *err)
{
	unsigned char context[SHA256_DIGEST_LENGTH] = { 0 }, digest[SHA256_DIGEST_LENGTH];

	for (int i = 0; i < sk_X509_num(list); i++) {
		X509 *authority = sk_X509_value(list, i);

		if (X509_STORE_add_cert(SSL_CTX_get_cert_store(ctx), authority) != 1 ||
		    SSL_CTX_add_client_CA(ctx, authority) != 1 ||
		    X509_digest(authority, EVP_sha256(), digest, NULL) != 1)
			return tls_error(err, NULL, path);
		for (size_t b = 0; b < sizeof(context); b++)
			context[b] ^= digest[b];
	}
	/* A ticket holds that its client was verified, which was so by these authorities only. */
	return SSL_CTX_set_session_id_context(ctx, context, sizeof(context)) == 1
		   ? 0
		   : tls_error(err, NULL, path);
}

int
tls_server_ask_clients(
    struct tls_server *server, struct slice authorities, const char *path, struct err *err)
{
	SSL_CTX *ctx = tls_server_ctx(server);
	STACK_OF(X509) * list;
	int rc;

	SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, on_verified);
	SSL_CTX_set_verify_depth(ctx, CLIENT_DEPTH);
	(void)SSL_CTX_set_max_cert_list(ctx, CLIENT_BYTES_MAX); /* returns the old one */
	if (authorities.len == 0)
		return 0;
	list = tls_pem_certificates(authorities, path, err);
	if (list == NULL)
		return -1;
	rc = trust(ctx, list, path, err);
	sk_X509_pop_free(list, X509_free);
	return rc;
}

/* ---- of the config -------------------------------------------------------------------------- */

static struct tls_server *
server_of_files(const struct config *cfg, struct err *err)
{
	size_t n = cfg->tls.certificates.n;
	struct tls_pair *pairs = calloc(n, sizeof(*pairs));
	struct tls_server *server = NULL;

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

static int
ask_as_configured(struct tls_server *server, const struct config *cfg, struct err *err)
{
	struct slice authorities = SLICE("");

	if (cfg->tls.client_ca == NULL && cfg->tls.n_relay_fingerprints == 0)
		return 0;
	if (cfg->tls.client_ca != NULL && !config_file(cfg, cfg->tls.client_ca, &authorities))
		return err_set(
		    err, ERR_CONFIG, "tls: %s was not read with the config", cfg->tls.client_ca);
	return tls_server_ask_clients(server, authorities, cfg->tls.client_ca, err);
}

struct tls_server *
tls_server_of(const struct config *cfg, struct err *err)
{
	struct tls_server *server;

	if (cfg->tls.certificates.n == 0) {
		err_set(err, ERR_NOT_FOUND, "no tls { certificate }");
		return NULL;
	}
	server = server_of_files(cfg, err);
	if (server == NULL)
		return NULL;
	if (ask_as_configured(server, cfg, err) < 0) {
		tls_server_unref(server);
		return NULL;
	}
	tls_server_ticket_lifetime(server, cfg->tls.ticket_lifetime_s);
	counter_set(COUNTER_TLS_EXPIRY, tls_server_expiry(server));
	return server;
}

/* ---- one connection ------------------------------------------------------------------------- */

SSL *
tls_accept(struct tls_server *server, struct err *err)
{
	SSL *ssl = SSL_new(tls_server_ctx(server));

	if (ssl == NULL)
		tls_error(err, NULL, "TLS session");
	else
		SSL_set_accept_state(ssl);
	return ssl;
}
