/* relayd/auth/sasl.c - the server side of a SASL exchange. */
#include "relayd/auth/sasl.h"

#include "relayd/auth/gsasl_util.h"
#include "relayd/auth/oauth.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>

#define RESPONSE_MAX 12288 /* base64, RFC 4954 section 4 */

struct sasl {
	enum mechanism mechanism;
	struct sasl_about about;
	Gsasl_session *session; /* NULL for a token */
	char *user;             /* who it is or claims to be */
	char *secret;           /* the password or the token */
	char *authzid;          /* of a token, until its owner is known */
	bool as_other, begun;
	unsigned prompts;        /* of LOGIN, so far */
	bool transition;         /* there is a password but no verifier */
	bool last;               /* our last word is out: an empty response ends it */
	enum sasl_status ending; /* then */
};

/* ---- strings ------------------------------------------------------------------------------ */

static char *
property(Gsasl_session *session, Gsasl_property name)
{
	const char *value = gsasl_property_fast(session, name);

	return value != NULL ? strdup(value) : NULL;
}

static int
set_slice(Gsasl_session *session, Gsasl_property name, struct slice value)
{
	return gsasl_property_set_raw(session, name, value.p, value.len);
}

static const struct user *
find(const struct sasl *x, struct slice name)
{
	const struct users *users = x->about.users(x->about.owner);
	const struct user *user = users_find(users, name);

	return user != NULL && !users_is_locked(user) ? user : NULL;
}

/* Sets who it claims to be; -1 when out of memory. */
static int
claim(struct sasl *x, const char *name, const char *authzid)
{
	free(x->user);
	x->user = name != NULL ? strdup(name) : NULL;
	x->as_other = x->user != NULL && authzid != NULL && authzid[0] != '\0' &&
		      strcmp(authzid, x->user) != 0;
	return x->user != NULL ? 0 : -1;
}

/* ---- what gsasl asks ------------------------------------------------------------------------- */

/* gsasl has parsed the response and wants a verdict; ours takes time, so it comes after the
 * exchange (SASL_CHECK). */
static int
take_password(struct sasl *x)
{
	if (claim(x, gsasl_property_fast(x->session, GSASL_AUTHID),
		gsasl_property_fast(x->session, GSASL_AUTHZID)) < 0)
		return GSASL_MALLOC_ERROR;
	gsasl_util_free_secret(x->secret);
	x->secret = property(x->session, GSASL_PASSWORD);
	return x->secret != NULL ? GSASL_OK : GSASL_MALLOC_ERROR;
}

/* Nobody learns from the salt whether a name is a user's: the same name gets the same one from
 * every worker, and no password will fit. */
static int
set_decoy(struct sasl *x, const struct users *users)
{
	unsigned char made[EVP_MAX_MD_SIZE], key[GSASL_HASH_MAX_SIZE];
	unsigned len = 0;
	char storage[GSASL_UTIL_BASE64(GSASL_HASH_MAX_SIZE)];
	struct buf text = buf_over(storage, sizeof(storage));
	bool sha1 =
	    x->mechanism == MECHANISM_SCRAM_SHA_1 || x->mechanism == MECHANISM_SCRAM_SHA_1_PLUS;
	int n = sha1 ? GSASL_HASH_SHA1_SIZE : GSASL_HASH_SHA256_SIZE;

	if (users == NULL ||
	    HMAC(EVP_sha256(), users_secret(users), USERS_SECRET_BYTES,
		(const unsigned char *)x->user, strlen(x->user), made, &len) == NULL)
		return GSASL_CRYPTO_ERROR;
	gsasl_util_base64(&text, made, SCRAM_SALT_BYTES);
	(void)set_slice(x->session, GSASL_SCRAM_SALT, buf_slice(&text)); /* seen when it is used */
	if (getrandom(key, sizeof(key), 0) != (ssize_t)sizeof(key))
		return GSASL_CRYPTO_ERROR;
	buf_reset(&text);
	gsasl_util_base64(&text, key, (size_t)n);
	(void)set_slice(x->session, GSASL_SCRAM_SERVERKEY, buf_slice(&text)); /* the same */
	return set_slice(x->session, GSASL_SCRAM_STOREDKEY, buf_slice(&text));
}

static int
set_verifier(struct sasl *x, const struct scram_verifier *v)
{
	char text[16];

	(void)snprintf(text, sizeof(text), "%u", v->iterations);      /* fits */
	(void)gsasl_property_set(x->session, GSASL_SCRAM_ITER, text); /* seen when it is used */
	(void)set_slice(x->session, GSASL_SCRAM_SALT, v->salt);       /* the same */
	(void)set_slice(x->session, GSASL_SCRAM_SERVERKEY, v->server_key);
	return set_slice(x->session, GSASL_SCRAM_STOREDKEY, v->stored_key);
}

/* All of what SCRAM asks, when it asks the first of it: by then the name is known. */
static int
take_scram(struct sasl *x)
{
	bool sha1 =
	    x->mechanism == MECHANISM_SCRAM_SHA_1 || x->mechanism == MECHANISM_SCRAM_SHA_1_PLUS;
	const struct user *user;
	struct scram_verifier v;
	char text[16];

	if (x->user != NULL)
		return GSASL_NO_CALLBACK; /* it was all said */
	if (claim(x, gsasl_property_fast(x->session, GSASL_AUTHID),
		gsasl_property_fast(x->session, GSASL_AUTHZID)) < 0)
		return GSASL_MALLOC_ERROR;
	user = find(x, slice_str(x->user));
	if (user != NULL && users_scram(user, sha1 ? SCRAM_SHA_1 : SCRAM_SHA_256, &v))
		return set_verifier(x, &v);
	x->transition = user != NULL && user->hash.p[0] != '*';
	(void)snprintf(text, sizeof(text), "%d", SCRAM_ITERATIONS);   /* fits */
	(void)gsasl_property_set(x->session, GSASL_SCRAM_ITER, text); /* seen when it is used */
	return set_decoy(x, x->about.users(x->about.owner));
}

static bool
is_plus_offered(const struct sasl *x)
{
	unsigned offer = sasl_offer(&x->about);

	return (offer & (x->mechanism == MECHANISM_SCRAM_SHA_1 ||
				    x->mechanism == MECHANISM_SCRAM_SHA_1_PLUS
				? MECHANISM_BIT(MECHANISM_SCRAM_SHA_1_PLUS)
				: MECHANISM_BIT(MECHANISM_SCRAM_SHA_256_PLUS))) != 0;
}

/* Also for SCRAM without -PLUS: a client that could bind, but saw no -PLUS in a list that had it,
 * was lied to on the way (RFC 5802 section 6). */
static int
set_binding(struct sasl *x, Gsasl_property name, const struct sasl_binding *binding)
{
	char storage[GSASL_UTIL_BASE64(SASL_BINDING_MAX)];
	struct buf text = buf_over(storage, sizeof(storage));

	if (binding->len == 0 || !is_plus_offered(x))
		return GSASL_NO_CALLBACK;
	gsasl_util_base64(&text, binding->bytes, binding->len);
	return set_slice(x->session, name, buf_slice(&text));
}

/* CRAM-MD5 computes with the password itself. */
static int
set_password(struct sasl *x)
{
	const struct user *user;
	unsigned char key[24];
	char *password = NULL, text[GSASL_UTIL_BASE64(sizeof(key))];
	struct slice kept;
	size_t n = 0;
	int rc;

	if (x->mechanism != MECHANISM_CRAM_MD5)
		return GSASL_NO_CALLBACK;
	if (claim(x, gsasl_property_fast(x->session, GSASL_AUTHID), NULL) < 0)
		return GSASL_MALLOC_ERROR;
	user = find(x, slice_str(x->user));
	kept = user != NULL ? users_cram_md5(user) : SLICE("");
	if (kept.len > 0 && gsasl_base64_from(kept.p, kept.len, &password, &n) == GSASL_OK) {
		rc = gsasl_property_set_raw(x->session, GSASL_PASSWORD, password, n);
		OPENSSL_cleanse(password, n);
		gsasl_free(password);
		return rc;
	}
	x->transition = user != NULL && user->hash.p[0] != '*';
	if (getrandom(key, sizeof(key), 0) != (ssize_t)sizeof(key))
		return GSASL_CRYPTO_ERROR;
	(void)EVP_EncodeBlock((unsigned char *)text, key, sizeof(key)); /* fits */
	return gsasl_property_set(x->session, GSASL_PASSWORD, text);
}

static int
take_external(struct sasl *x)
{
	if (x->about.peer[0] == '\0')
		return GSASL_AUTHENTICATION_ERROR;
	return claim(x, x->about.peer, gsasl_property_fast(x->session, GSASL_AUTHZID)) < 0
		   ? GSASL_MALLOC_ERROR
		   : GSASL_OK;
}

/* A principal of our realm is the user of its name, any other one only under its whole name. */
static int
take_principal(struct sasl *x)
{
	char *name = property(x->session, GSASL_GSSAPI_DISPLAY_NAME);
	char *at = name != NULL ? strrchr(name, '@') : NULL;
	int rc;

	if (at != NULL && x->about.realm != NULL && strcmp(at + 1, x->about.realm) == 0)
		*at = '\0';
	rc = claim(x, name, gsasl_property_fast(x->session, GSASL_AUTHZID));
	free(name);
	return rc < 0 ? GSASL_MALLOC_ERROR : GSASL_OK;
}

static int
on_property(Gsasl *ctx, Gsasl_session *session, Gsasl_property prop)
{
	struct sasl *x = session != NULL ? gsasl_session_hook_get(session) : NULL;

	(void)ctx;
	if (x == NULL)
		return GSASL_NO_CALLBACK;
	switch ((int)prop) { /* of many */
	case GSASL_VALIDATE_SIMPLE:
		return take_password(x);
	case GSASL_SCRAM_ITER:
	case GSASL_SCRAM_SALT:
	case GSASL_SCRAM_SERVERKEY:
	case GSASL_SCRAM_STOREDKEY:
		return take_scram(x);
	case GSASL_CB_TLS_EXPORTER:
		return set_binding(x, prop, &x->about.exporter);
	case GSASL_CB_TLS_UNIQUE:
		return set_binding(x, prop, &x->about.unique);
	case GSASL_PASSWORD:
		return set_password(x);
	case GSASL_VALIDATE_EXTERNAL:
		return take_external(x);
	case GSASL_VALIDATE_GSSAPI:
		return take_principal(x);
	case GSASL_SERVICE:
		return gsasl_property_set(session, prop, x->about.service);
	case GSASL_HOSTNAME:
		return gsasl_property_set(session, prop, x->about.hostname);
	default:
		return GSASL_NO_CALLBACK;
	}
}

/* One for the process, for life. */
static Gsasl *
context(void)
{
	static Gsasl *ctx;

	return gsasl_util_context(&ctx, on_property);
}

/* ---- beginning and end ----------------------------------------------------------------------- */

void
sasl_peer(struct sasl_about *about, const char *name)
{
	size_t len = strlen(name);

	about->peer[0] = '\0';
	if (len < sizeof(about->peer))
		memcpy(about->peer, name, len + 1);
}

unsigned
sasl_offer(const struct sasl_about *about)
{
	unsigned set = about->allowed;

	if (!about->tls)
		set &= about->without_tls;
	if (!about->tls || (about->exporter.len == 0 && about->unique.len == 0))
		set &= ~MECHANISMS_PLUS;
	if (!about->has_tokens)
		set &= ~MECHANISMS_TOKEN;
	if (!about->has_keytab)
		set &= ~MECHANISM_BIT(MECHANISM_GSSAPI);
	if (about->peer[0] == '\0')
		set &= ~MECHANISM_BIT(MECHANISM_EXTERNAL);
	if ((set & MECHANISMS_SCRAM) != 0 && !about->wants_scram &&
	    !users_all_scram(about->users(about->owner)))
		set &= ~MECHANISMS_SCRAM;
	return set;
}

struct sasl *
sasl_start(enum mechanism m, const struct sasl_about *about)
{
	struct sasl *x = calloc(1, sizeof(*x));

	if (x == NULL)
		return NULL;
	x->mechanism = m;
	x->about = *about;
	if ((MECHANISM_BIT(m) & MECHANISMS_TOKEN) != 0)
		return x;
	if (context() == NULL ||
	    gsasl_server_start(context(), mechanism_name(m), &x->session) != GSASL_OK) {
		free(x);
		return NULL;
	}
	gsasl_session_hook_set(x->session, x);
	return x;
}

void
sasl_free(struct sasl *x)
{
	static const Gsasl_property secrets[] = { GSASL_PASSWORD, GSASL_SCRAM_SERVERKEY,
		GSASL_SCRAM_STOREDKEY };

	if (x == NULL)
		return;
	gsasl_util_finish(x->session, secrets, ARRAY_LEN(secrets));
	free(x->user);
	free(x->authzid);
	gsasl_util_free_secret(x->secret);
	OPENSSL_cleanse(&x->about, sizeof(x->about));
	free(x);
}

/* The Kerberos library is loaded, and finds the key, when a first token comes: let it be this
 * one. */
static int
try_gssapi(const char *service, const char *hostname, struct err *err)
{
	static const char token[] = "no token of any mechanism";
	struct sasl_about about = { .service = service, .hostname = hostname, .users = NULL };
	struct sasl *x = sasl_start(MECHANISM_GSSAPI, &about);
	char *out = NULL;
	size_t n = 0;
	int rc;

	if (x == NULL)
		return err_set(err, ERR_NOT_FOUND, "gsasl has no GSSAPI");
	rc = gsasl_step(x->session, token, sizeof(token) - 1, &out, &n);
	gsasl_free(out);
	sasl_free(x);
	if (rc == GSASL_GSSAPI_ACCEPT_SEC_CONTEXT_ERROR)
		return 0; /* as far as a token without a ticket gets */
	return err_set(err, ERR_NOT_FOUND, "the keytab has no key of %s@%s that can be used",
	    service, hostname);
}

int
sasl_prepare(const char *service, const char *hostname, struct err *err)
{
	if (context() == NULL)
		return err_set(err, ERR_NOMEM, "no memory for gsasl");
	return service != NULL ? try_gssapi(service, hostname, err) : 0;
}

/* ---- OAUTHBEARER, XOAUTH2 -------------------------------------------------------------------- */

/* saslname of RFC 5801 section 4: "=2C" is a comma, "=3D" the sign itself. */
static char *
decode_saslname(struct slice name)
{
	char *out = malloc(name.len + 1);
	size_t n = 0;

	while (out != NULL && name.len > 0) {
		struct slice three = slice_head(name, 3);
		bool comma = slice_eq(three, SLICE("=2C")), sign = slice_eq(three, SLICE("=3D"));

		if (name.p[0] == '=' && !comma && !sign) {
			free(out);
			return NULL;
		}
		out[n++] = comma ? ',' : name.p[0];
		name = slice_drop(name, comma || sign ? 3 : 1);
	}
	if (out != NULL)
		out[n] = '\0';
	return out;
}

/* The client is told why, and answers with one octet, %x01 (RFC 7628 section 3.2.3), or with
 * nothing. */
static enum sasl_status
refuse_token(struct sasl *x, struct buf *challenge)
{
	const char *why = x->mechanism == MECHANISM_XOAUTH2 ? XOAUTH2_REFUSAL : OAUTH_REFUSAL;

	x->last = true;
	x->ending = SASL_FAILED;
	gsasl_util_base64(challenge, why, strlen(why));
	return SASL_CONTINUE;
}

static enum sasl_status
take_request(struct sasl *x, struct slice message, struct buf *challenge)
{
	struct oauth_request request;
	bool old = x->mechanism == MECHANISM_XOAUTH2;

	if (!(old ? xoauth2_parse(message, &request) : oauth_parse(message, &request)))
		return SASL_BAD;
	x->authzid = old ? strndup(request.authzid.p, request.authzid.len)
			 : decode_saslname(request.authzid);
	if (x->authzid == NULL)
		return SASL_BAD;
	if (request.token.len == 0)
		return refuse_token(x, challenge);
	x->secret = strndup(request.token.p, request.token.len);
	return x->secret != NULL ? SASL_TOKEN : SASL_BAD;
}

/* ---- steps ---------------------------------------------------------------------------------- */

/* gsasl is content: is it a user, and nobody else? */
static enum sasl_status
proven(struct sasl *x)
{
	/* A name of no octets is none (RFC 4616 section 2), which gsasl does not mind. */
	if (x->user == NULL || x->user[0] == '\0')
		return SASL_BAD;
	if (x->as_other)
		return SASL_DENIED;
	if (x->mechanism == MECHANISM_PLAIN || x->mechanism == MECHANISM_LOGIN)
		return SASL_CHECK;
	return find(x, slice_str(x->user)) != NULL ? SASL_OK : SASL_FAILED;
}

enum sasl_status
sasl_told(struct sasl *x, struct slice name, struct buf *challenge)
{
	char text[USERS_NAME_MAX + 1];

	if (name.len == 0 || name.len > USERS_NAME_MAX)
		return refuse_token(x, challenge);
	(void)snprintf(text, sizeof(text), "%.*s", SLICE_FMT(name)); /* fits */
	if (claim(x, text, x->authzid) < 0)
		return SASL_BAD;
	return proven(x);
}

static enum sasl_status
failed(const struct sasl *x, int rc)
{
	switch (rc) {
	case GSASL_BASE64_ERROR:
	case GSASL_MECHANISM_PARSE_ERROR:
	case GSASL_MECHANISM_CALLED_TOO_MANY_TIMES:
	case GSASL_MALLOC_ERROR:
		return SASL_BAD;
	default:
		return x->transition ? SASL_TRANSITION : SASL_FAILED;
	}
}

/* Old clients look for these words, which are not gsasl's. */
static struct slice
prompt(struct sasl *x)
{
	x->prompts++;
	return x->prompts == 1 ? SLICE("Username:") : SLICE("Password:");
}

static enum sasl_status
settle(struct sasl *x, int rc, struct slice said, struct buf *challenge)
{
	/* Said at once: the client need not spend its iterations for nothing. */
	if (x->transition)
		return SASL_TRANSITION;
	if (rc != GSASL_OK && rc != GSASL_NEEDS_MORE)
		return failed(x, rc);
	if (rc == GSASL_NEEDS_MORE && x->mechanism == MECHANISM_LOGIN)
		said = prompt(x);
	gsasl_util_base64(challenge, said.p, said.len);
	if (challenge->overflow)
		return SASL_BAD;
	if (rc == GSASL_NEEDS_MORE)
		return SASL_CONTINUE;
	if (said.len == 0)
		return proven(x);
	/* RFC 4954 section 4: success carries no data, so that our proof is one more challenge. */
	x->last = true;
	x->ending = proven(x);
	return SASL_CONTINUE;
}

/* message: NULL when the client sent none, which is not the same as an empty one. */
static enum sasl_status
step(struct sasl *x, const char *message, size_t n, struct buf *challenge)
{
	enum sasl_status status;
	char *said = NULL;
	size_t len = 0;
	int rc;

	bool token = (MECHANISM_BIT(x->mechanism) & MECHANISMS_TOKEN) != 0;

	if (token && n == 0)
		return SASL_CONTINUE; /* it is asked for */
	if (token)
		return x->authzid == NULL ? take_request(x, slice_of(message, n), challenge)
					  : SASL_BAD;
	/* gsasl's LOGIN asks for the name first, whatever came along. */
	if (x->mechanism == MECHANISM_LOGIN && x->prompts == 0 && n > 0) {
		(void)gsasl_step(x->session, NULL, 0, &said, &len); /* wrong? seen below */
		gsasl_free(said);
		said = NULL;
		x->prompts = 1;
	}
	rc = gsasl_step(x->session, message, n, &said, &len);
	status = settle(x, rc, slice_of(said, said != NULL ? len : 0), challenge);
	gsasl_free(said);
	return status;
}

static enum sasl_status
step_base64(struct sasl *x, struct slice response, bool has_response, struct buf *challenge)
{
	enum sasl_status status;
	char *message = NULL;
	size_t n = 0;

	if (response.len == 0)
		return step(x, has_response ? "" : NULL, 0, challenge);
	if (gsasl_base64_from(response.p, response.len, &message, &n) != GSASL_OK)
		return SASL_BAD;
	status = step(x, message, n, challenge);
	OPENSSL_cleanse(message, n);
	gsasl_free(message);
	return status;
}

enum sasl_status
sasl_step(struct sasl *x, struct slice response, bool has_response, struct buf *challenge)
{
	bool first = !x->begun;

	x->begun = true;
	if (!has_response || (first && slice_eq(response, SLICE("="))))
		response = SLICE(""); /* none, or an empty one (RFC 4954 section 4) */
	if (response.len > RESPONSE_MAX || slice_has(response, '\0'))
		return SASL_BAD;
	/* OAUTHBEARER ends with an octet that means nothing. */
	if (x->last)
		return response.len == 0 || x->mechanism == MECHANISM_OAUTHBEARER ? x->ending
										  : SASL_BAD;
	return step_base64(x, response, has_response, challenge);
}

enum sasl_status
sasl_said(const struct sasl *x)
{
	return x->last ? x->ending : SASL_CONTINUE;
}

enum mechanism
sasl_mechanism(const struct sasl *x)
{
	return x->mechanism;
}

struct slice
sasl_user(const struct sasl *x)
{
	return slice_str(x->user != NULL ? x->user : "");
}

struct slice
sasl_password(const struct sasl *x)
{
	return slice_str(x->secret);
}

struct slice
sasl_token(const struct sasl *x)
{
	return slice_str(x->secret);
}
