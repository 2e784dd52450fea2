/* relayd/auth/sasl.c - the server side of a SASL exchange, through gsasl. */
#include "relayd/auth/sasl.h"

#include <gsasl.h>
#include <openssl/crypto.h>
#include <stdlib.h>

#define RESPONSE_MAX 12288 /* base64, RFC 4954 section 4 */

struct sasl {
	Gsasl_session *session;
	char *user, *password;
	bool as_other;
	bool begun;
};

static char *
property(Gsasl_session *session, Gsasl_property name)
{
	const char *value = gsasl_property_fast(session, name);

	return value != NULL ? strdup(value) : NULL;
}

/* gsasl has parsed the response and wants a verdict; ours takes time, so it comes after the
 * exchange (SASL_CHECK). */
static int
on_property(Gsasl *ctx, Gsasl_session *session, Gsasl_property prop)
{
	struct sasl *x = gsasl_session_hook_get(session);
	const char *authzid;

	(void)ctx;
	if (prop != GSASL_VALIDATE_SIMPLE)
		return GSASL_NO_CALLBACK;
	x->user = property(session, GSASL_AUTHID);
	x->password = property(session, GSASL_PASSWORD);
	authzid = gsasl_property_fast(session, GSASL_AUTHZID);
	x->as_other = authzid != NULL && authzid[0] != '\0' && x->user != NULL &&
		      strcmp(authzid, x->user) != 0;
	return x->user != NULL && x->password != NULL ? GSASL_OK : GSASL_MALLOC_ERROR;
}

/* One for the process, for life. */
static Gsasl *
context(void)
{
	static Gsasl *ctx;

	if (ctx == NULL && gsasl_init(&ctx) == GSASL_OK)
		gsasl_callback_set(ctx, on_property);
	return ctx;
}

struct sasl *
sasl_start(struct slice mechanism)
{
	struct sasl *x;

	if (!slice_ieq(mechanism, SLICE("PLAIN")) || context() == NULL)
		return NULL;
	x = calloc(1, sizeof(*x));
	if (x == NULL)
		return NULL;
	if (gsasl_server_start(context(), "PLAIN", &x->session) != GSASL_OK) {
		free(x);
		return NULL;
	}
	gsasl_session_hook_set(x->session, x);
	return x;
}

static void
free_secret(char *s)
{
	if (s != NULL)
		OPENSSL_cleanse(s, strlen(s));
	free(s);
}

void
sasl_free(struct sasl *x)
{
	if (x == NULL)
		return;
	gsasl_finish(x->session);
	free(x->user);
	free_secret(x->password);
	free(x);
}

static enum sasl_status
step(struct sasl *x, const char *response, struct buf *challenge)
{
	char *out = NULL;
	int rc = gsasl_step64(x->session, response, &out);

	if (out != NULL && rc == GSASL_NEEDS_MORE)
		buf_puts(challenge, out);
	gsasl_free(out);
	if (rc == GSASL_NEEDS_MORE)
		return SASL_CONTINUE;
	if (rc != GSASL_OK || x->user == NULL)
		return SASL_BAD;
	return x->as_other ? SASL_DENIED : SASL_CHECK;
}

enum sasl_status
sasl_step(struct sasl *x, struct slice response, bool has_response, struct buf *challenge)
{
	char *text;
	enum sasl_status status;

	if (!has_response || (!x->begun && slice_eq(response, SLICE("="))))
		response = SLICE(""); /* none, or an empty one (RFC 4954 section 4) */
	x->begun = true;
	if (response.len > RESPONSE_MAX || slice_has(response, '\0'))
		return SASL_BAD;
	text = strndup(response.p, response.len);
	if (text == NULL)
		return SASL_BAD;
	status = step(x, text, challenge);
	free_secret(text);
	return status;
}

struct slice
sasl_user(const struct sasl *x)
{
	return slice_str(x->user);
}

struct slice
sasl_password(const struct sasl *x)
{
	return slice_str(x->password);
}
