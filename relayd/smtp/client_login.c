/* relayd/smtp/client_login.c - the login of a client's session: AUTH and its replies. */
#include "relayd/smtp/client_login.h"

#include <openssl/crypto.h>
#include <stdio.h>

#define RESPONSE_MAX  12288 /* base64, RFC 4954 section 4 */
#define AUTH_LINE_MAX 500   /* of AUTH: with its CRLF and some air at most RFC 5321's 512 */

static void
forget(struct buf *secret)
{
	if (secret->p != NULL)
		OPENSSL_cleanse(secret->p, secret->cap);
	buf_fini(secret);
	*secret = (struct buf){ 0 };
}

static void
end_exchange(struct smtp_client_login *l)
{
	if (l->exchange != NULL)
		l->login->ops->free(l->exchange);
	l->exchange = NULL;
	forget(&l->held);
	l->holds = false;
}

void
smtp_client_login_fini(struct smtp_client_login *l)
{
	end_exchange(l);
	OPENSSL_cleanse(&l->offer, sizeof(l->offer));
}

void
smtp_client_login_reset(struct smtp_client_login *l)
{
	l->offer.mechanisms = 0;
}

void
smtp_client_login_learn(struct smtp_client_login *l, struct slice rest)
{
	while ((rest = slice_trim(rest)).len > 0) {
		struct slice word = slice_until(rest, ' ');
		enum mechanism m = mechanism_named(word);

		rest = slice_drop(rest, word.len);
		if (m != MECHANISM_COUNT)
			l->offer.mechanisms |= MECHANISM_BIT(m);
	}
}

/* An initial response that is empty is "="; one that makes the line too long waits for an empty
 * challenge (RFC 4954 section 4). */
static void
put_auth(struct smtp_client_login *l, bool initial, struct slice response, struct buf *out)
{
	snprintf(l->name, sizeof(l->name), "AUTH %s", mechanism_name(l->mechanism));
	buf_puts(out, l->name);
	l->holds = initial && strlen(l->name) + 1 + response.len > AUTH_LINE_MAX;
	if (initial && !l->holds) {
		buf_putc(out, ' ');
		buf_put(out, response.len > 0 ? response : SLICE("="));
	}
	buf_puts(out, "\r\n");
}

int
smtp_client_login_begin(struct smtp_client_login *l, struct buf *out, struct err *err)
{
	const struct smtp_login_ops *ops = l->login->ops;
	struct smtp_login_offer offer = l->offer;
	struct buf response = buf_heap(RESPONSE_MAX);
	enum smtp_login_step step;

	end_exchange(l);
	offer.mechanisms &= ~l->tried;
	l->exchange = ops->start(l->login, &offer, &l->mechanism, err);
	if (l->exchange == NULL)
		return -1;
	step = ops->step(l->exchange, NULL, &response, err);
	if (step != SMTP_LOGIN_GIVE_UP && response.overflow) {
		err_set(err, ERR_LIMIT, "the response is too long");
		step = SMTP_LOGIN_GIVE_UP;
	}
	if (step == SMTP_LOGIN_GIVE_UP) {
		forget(&response);
		end_exchange(l);
		return -1;
	}
	put_auth(l, step == SMTP_LOGIN_ANSWER, buf_slice(&response), out);
	if (l->holds)
		l->held = response;
	else
		forget(&response);
	return 0;
}

static enum smtp_client_login_event
challenged(struct smtp_client_login *l, struct slice challenge, struct buf *out, struct err *err)
{
	struct buf response = buf_heap(RESPONSE_MAX);
	enum smtp_login_step step = SMTP_LOGIN_ANSWER;

	if (l->holds) {
		buf_put(&response, buf_slice(&l->held));
		forget(&l->held);
		l->holds = false;
	} else {
		step = l->login->ops->step(l->exchange, &challenge, &response, err);
	}
	if (step != SMTP_LOGIN_ANSWER || response.overflow) {
		if (step != SMTP_LOGIN_GIVE_UP)
			err_set(err, ERR_PROTOCOL, "%s: a challenge out of place", l->name);
		forget(&response);
		end_exchange(l);
		return SMTP_CLIENT_LOGIN_FAILED;
	}
	buf_put(out, buf_slice(&response));
	buf_puts(out, "\r\n");
	forget(&response);
	return SMTP_CLIENT_LOGIN_ON;
}

/* The peer knows us, but not by this mechanism: 504 is "unrecognized", 432 and 534 say that it has
 * no verifier for it or wants another one (RFC 4954 section 6).  Whoever could forge that could as
 * well have left the mechanism out of the list. */
static bool
wants_another(unsigned code)
{
	return code == 432 || code == 504 || code == 534;
}

enum smtp_client_login_event
smtp_client_login_reply(struct smtp_client_login *l, const struct smtp_client_reply *reply,
    struct buf *out, struct err *err)
{
	if (reply->code == 334)
		return challenged(l, smtp_client_reply_text(reply), out, err);
	if (reply->code == 235) {
		int rc = l->login->ops->accepted(l->exchange, err);

		end_exchange(l);
		return rc == 0 ? SMTP_CLIENT_LOGIN_DONE : SMTP_CLIENT_LOGIN_FAILED;
	}
	if (reply->code < 400) {
		err_set(err, ERR_PROTOCOL, "%s was answered %u", l->name, reply->code);
		end_exchange(l);
		return SMTP_CLIENT_LOGIN_FAILED;
	}
	l->tried |= MECHANISM_BIT(l->mechanism);
	if (wants_another(reply->code)) {
		struct err none = { 0 };
		char name[sizeof(l->name)];

		memcpy(name, l->name, sizeof(name));
		if (smtp_client_login_begin(l, out, &none) == 0)
			return SMTP_CLIENT_LOGIN_ON;
		memcpy(l->name, name, sizeof(name)); /* the reply is to that one */
	}
	end_exchange(l);
	return SMTP_CLIENT_LOGIN_REFUSED;
}
