/* relayd/auth/identity.c - who we are to a next hop: the client side of SASL. */
#include "relayd/auth/identity.h"

#include "relayd/auth/gsasl_util.h"
#include "relayd/auth/scram.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>

/* What a salt and a number of iterations make of the password: RFC 5802 section 3,
 * SaltedPassword. */
struct salted {
	char salt[128]; /* base64, or "": none yet */
	uint32_t iterations;
	char hex[2 * GSASL_HASH_MAX_SIZE + 1];
};

struct identity {
	struct smtp_login login; /* first: the client knows us by it */
	unsigned refs;
	char *name, *password;
	struct salted salted[SCRAM_HASHES];
};

struct exchange {
	struct identity *id;
	Gsasl_session *session;
	enum mechanism mechanism;
	struct smtp_login_offer offer;
	bool over;         /* gsasl has nothing more to say and is content */
	bool begun;        /* LOGIN was asked for the name */
	uint32_t too_many; /* iterations that the peer asked for */
};

/* ---- what gsasl asks ------------------------------------------------------------------------- */

static enum scram_hash
hash_of(enum mechanism m)
{
	return m == MECHANISM_SCRAM_SHA_1 || m == MECHANISM_SCRAM_SHA_1_PLUS ? SCRAM_SHA_1
									     : SCRAM_SHA_256;
}

static bool
compute(
    const struct identity *id, enum scram_hash hash, const char *salt, size_t n, struct salted *out)
{
	static const char digits[] = "0123456789abcdef";
	const EVP_MD *md = hash == SCRAM_SHA_1 ? EVP_sha1() : EVP_sha256();
	unsigned char key[GSASL_HASH_MAX_SIZE];
	int len = hash == SCRAM_SHA_1 ? GSASL_HASH_SHA1_SIZE : GSASL_HASH_SHA256_SIZE;
	char *prepared = NULL;
	bool good = gsasl_saslprep(id->password, 0, &prepared, NULL) == GSASL_OK;

	good =
	    good && PKCS5_PBKDF2_HMAC(prepared, (int)strlen(prepared), (const unsigned char *)salt,
			(int)n, (int)out->iterations, md, len, key) == 1;
	for (int i = 0; i < len && good; i++) {
		out->hex[2 * i] = digits[key[i] >> 4];
		out->hex[2 * i + 1] = digits[key[i] & 15];
	}
	out->hex[good ? 2 * len : 0] = '\0';
	if (prepared != NULL)
		OPENSSL_cleanse(prepared, strlen(prepared));
	gsasl_free(prepared);
	OPENSSL_cleanse(key, sizeof(key));
	return good;
}

/* Computed once for a salt: sessions come by the hundred. */
static int
set_salted(struct exchange *x)
{
	const char *salt = gsasl_property_fast(x->session, GSASL_SCRAM_SALT);
	const char *text = gsasl_property_fast(x->session, GSASL_SCRAM_ITER);
	enum scram_hash hash = hash_of(x->mechanism);
	struct salted *s = &x->id->salted[hash];
	uint64_t iterations;
	char *raw = NULL;
	size_t n = 0;
	bool good;

	if (salt == NULL || text == NULL || strlen(salt) >= sizeof(s->salt) ||
	    !slice_u64(slice_str(text), UINT32_MAX, &iterations) || iterations == 0)
		return GSASL_NO_CALLBACK;
	if (iterations > IDENTITY_ITERATIONS_MAX) {
		x->too_many = (uint32_t)iterations;
		return GSASL_NO_CALLBACK;
	}
	if (strcmp(s->salt, salt) != 0 || s->iterations != iterations) {
		s->salt[0] = '\0';
		s->iterations = (uint32_t)iterations;
		if (gsasl_base64_from(salt, strlen(salt), &raw, &n) != GSASL_OK)
			return GSASL_BASE64_ERROR;
		good = compute(x->id, hash, raw, n, s);
		gsasl_free(raw);
		if (!good)
			return GSASL_CRYPTO_ERROR;
		memcpy(s->salt, salt, strlen(salt) + 1);
	}
	return gsasl_property_set(x->session, GSASL_SCRAM_SALTED_PASSWORD, s->hex);
}

/* For -PLUS alone: a client that could bind and sees no -PLUS should say so, for the peer to know
 * whether somebody took it off the list (RFC 5802 section 6), but then gsasl 2.2 gives up. */
static int
set_binding(struct exchange *x, Gsasl_property name, const unsigned char *bytes, size_t n)
{
	char text[GSASL_UTIL_BASE64(SMTP_LOGIN_BINDING_MAX)];

	if (n == 0 || (MECHANISM_BIT(x->mechanism) & MECHANISMS_PLUS) == 0)
		return GSASL_NO_CALLBACK;
	(void)EVP_EncodeBlock((unsigned char *)text, bytes, (int)n); /* fits */
	return gsasl_property_set(x->session, name, text);
}

static int
on_property(Gsasl *ctx, Gsasl_session *session, Gsasl_property prop)
{
	struct exchange *x = session != NULL ? gsasl_session_hook_get(session) : NULL;

	(void)ctx;
	if (x == NULL)
		return GSASL_NO_CALLBACK;
	switch ((int)prop) { /* of many */
	case GSASL_AUTHID:
		return gsasl_property_set(session, prop, x->id->name);
	case GSASL_PASSWORD:
		/* SCRAM has what set_salted() gave it, or is to fail. */
		if (x->mechanism != MECHANISM_PLAIN && x->mechanism != MECHANISM_LOGIN)
			return GSASL_NO_CALLBACK;
		return gsasl_property_set(session, prop, x->id->password);
	case GSASL_SCRAM_SALTED_PASSWORD:
		return set_salted(x);
	case GSASL_CB_TLS_EXPORTER:
		return set_binding(x, prop, x->offer.exporter, x->offer.exporter_len);
	case GSASL_CB_TLS_UNIQUE:
		return set_binding(x, prop, x->offer.unique, x->offer.unique_len);
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

int
identity_prepare(struct err *err)
{
	return context() != NULL ? 0 : err_set(err, ERR_NOMEM, "no memory for gsasl");
}

/* ---- one login ------------------------------------------------------------------------------ */

/* The best first.  What can be read on the way goes under TLS alone, whatever the peer offers. */
static enum mechanism
choose(const struct smtp_login_offer *offer)
{
	static const enum mechanism order[] = { MECHANISM_SCRAM_SHA_256_PLUS,
		MECHANISM_SCRAM_SHA_1_PLUS, MECHANISM_SCRAM_SHA_256, MECHANISM_SCRAM_SHA_1,
		MECHANISM_PLAIN, MECHANISM_LOGIN };
	unsigned set = offer->mechanisms;

	if (!offer->tls)
		set &= ~(MECHANISMS_READABLE | MECHANISMS_PLUS);
	if (offer->exporter_len + offer->unique_len == 0)
		set &= ~MECHANISMS_PLUS;
	for (size_t i = 0; i < ARRAY_LEN(order); i++)
		if ((set & MECHANISM_BIT(order[i])) != 0)
			return order[i];
	return MECHANISM_COUNT;
}

static void
say_none(const struct smtp_login_offer *offer, struct err *err)
{
	char text[MECHANISMS_TEXT_MAX];
	struct buf names = buf_over(text, sizeof(text) - 1);

	mechanisms_put(&names, offer->mechanisms, " ");
	err_set(err, ERR_DENIED, "no login is offered that will do (offered:%s)%s",
	    names.len > 0 ? (text[names.len] = '\0', text) : " none",
	    !offer->tls && (offer->mechanisms & MECHANISMS_READABLE) != 0
		? "; a password goes out under TLS alone"
		: "");
}

static void
exchange_free(void *exchange)
{
	static const Gsasl_property secrets[] = { GSASL_PASSWORD, GSASL_SCRAM_SALTED_PASSWORD };
	struct exchange *x = exchange;

	gsasl_util_finish(x->session, secrets, ARRAY_LEN(secrets));
	identity_unref(x->id);
	OPENSSL_cleanse(&x->offer, sizeof(x->offer));
	free(x);
}

static void *
exchange_start(struct smtp_login *login, const struct smtp_login_offer *offer,
    enum mechanism *mechanism, struct err *err)
{
	struct exchange *x;

	*mechanism = choose(offer);
	if (*mechanism == MECHANISM_COUNT) {
		say_none(offer, err);
		return NULL;
	}
	x = calloc(1, sizeof(*x));
	if (x == NULL || context() == NULL ||
	    gsasl_client_start(context(), mechanism_name(*mechanism), &x->session) != GSASL_OK) {
		free(x);
		err_set(err, ERR_NOMEM, "gsasl has no %s", mechanism_name(*mechanism));
		return NULL;
	}
	x->id = identity_ref((struct identity *)(void *)login);
	x->mechanism = *mechanism;
	x->offer = *offer;
	gsasl_session_hook_set(x->session, x);
	return x;
}

static enum smtp_login_step
give_up(const struct exchange *x, int rc, struct err *err)
{
	if (x->too_many > 0)
		err_set(err, ERR_LIMIT, "%s: %u iterations are asked for, more than %d",
		    mechanism_name(x->mechanism), x->too_many, IDENTITY_ITERATIONS_MAX);
	else
		err_set(
		    err, ERR_PROTOCOL, "%s: %s", mechanism_name(x->mechanism), gsasl_strerror(rc));
	return SMTP_LOGIN_GIVE_UP;
}

static enum smtp_login_step
exchange_step(void *exchange, const struct slice *challenge, struct buf *out, struct err *err)
{
	struct exchange *x = exchange;
	char *in = NULL, *said = NULL;
	size_t in_len = 0, len = 0;
	int rc;

	if (challenge == NULL && x->mechanism == MECHANISM_LOGIN)
		return SMTP_LOGIN_WAIT; /* the name is asked for */
	if (x->over)
		return give_up(x, GSASL_MECHANISM_CALLED_TOO_MANY_TIMES, err);
	if (challenge != NULL && challenge->len > 0 &&
	    gsasl_base64_from(challenge->p, challenge->len, &in, &in_len) != GSASL_OK)
		return give_up(x, GSASL_BASE64_ERROR, err);
	rc = gsasl_step(x->session, in, in_len, &said, &len);
	gsasl_free(in);
	if (rc == GSASL_OK || rc == GSASL_NEEDS_MORE) {
		x->over = rc == GSASL_OK;
		gsasl_util_base64(out, said != NULL ? said : "", len);
	}
	if (said != NULL)
		OPENSSL_cleanse(said, len);
	gsasl_free(said);
	return rc == GSASL_OK || rc == GSASL_NEEDS_MORE ? SMTP_LOGIN_ANSWER : give_up(x, rc, err);
}

static int
exchange_accepted(void *exchange, struct err *err)
{
	const struct exchange *x = exchange;

	return x->over
		   ? 0
		   : err_set(err, ERR_DENIED, "%s: it has not proven that it knows the password",
			 mechanism_name(x->mechanism));
}

static const struct smtp_login_ops ops = {
	.start = exchange_start,
	.step = exchange_step,
	.accepted = exchange_accepted,
	.free = exchange_free,
};

/* ---- identities ----------------------------------------------------------------------------- */

static void
identity_free(struct identity *id)
{
	free(id->name);
	gsasl_util_free_secret(id->password);
	OPENSSL_cleanse(id->salted, sizeof(id->salted));
	free(id);
}

struct identity *
identity_new(struct slice name, struct slice password, struct err *err)
{
	struct identity *id = calloc(1, sizeof(*id));

	if (id != NULL) {
		id->login.ops = &ops;
		id->refs = 1;
		id->name = strndup(name.p, name.len);
		id->password = strndup(password.p, password.len);
		if (id->name != NULL && id->password != NULL)
			return id;
		identity_free(id);
	}
	err_set(err, ERR_NOMEM, "no memory for a login");
	return NULL;
}

struct identity *
identity_of(const struct config_route *route, struct err *err)
{
	if (route->login == NULL) {
		err_set(err, ERR_NOT_FOUND, "route %s has no login", route->domain);
		return NULL;
	}
	if (route->password.len == 0) {
		err_set(err, ERR_CONFIG, "route %s: the password is not known here", route->domain);
		return NULL;
	}
	return identity_new(slice_str(route->login), route->password, err);
}

bool
identity_is_of(const struct identity *id, const struct config_route *route)
{
	if (id == NULL || route->login == NULL)
		return id == NULL && route->login == NULL;
	return strcmp(id->name, route->login) == 0 &&
	       slice_eq(slice_str(id->password), route->password);
}

struct identity *
identity_ref(struct identity *id)
{
	id->refs++;
	return id;
}

void
identity_unref(struct identity *id)
{
	if (id != NULL && --id->refs == 0)
		identity_free(id);
}

struct smtp_login *
identity_login(struct identity *id)
{
	return &id->login;
}
