/* tests/fuzz/fuzz_auth.c - any bytes as users file, sender map, token answer, and as the responses
 * of a login.
 *
 * The first byte picks what is read.  Of a login: no response proves a password that nobody knows,
 * nor makes anybody of the name in the certificate but its own.
 */
#include "must.h"
#include "relayd/auth/oauth.h"
#include "relayd/auth/sasl.h"
#include "relayd/auth/senders.h"

#include <openssl/evp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
read_users(struct slice bytes)
{
	struct err err = { 0 };
	struct users *u = users_parse(bytes, "users", &err);
	struct scram_verifier v;

	MUST((u == NULL) == (err.code != ERR_NONE));
	for (size_t i = 0; u != NULL && i < users_count(u); i++) {
		const struct user *user = users_at(u, i);

		MUST(users_name_is_good(user->name) && users_scope_is_good(user->scope));
		MUST(users_find(u, user->name) == user);
		MUST(user->hash.len > 0);
		if (users_scram(user, SCRAM_SHA_1, &v) || users_scram(user, SCRAM_SHA_256, &v))
			MUST(v.iterations >= SCRAM_ITERATIONS_MIN && v.server_key.len > 0);
		MUST(users_cram_md5(user).len <= user->verifiers.len);
	}
	users_free(u);
}

static void
read_senders(struct slice bytes)
{
	struct err err = { 0 };
	struct senders *s = senders_parse(bytes, "senders", &err);

	MUST((s == NULL) == (err.code != ERR_NONE));
	if (s != NULL) {
		MUST(senders_allow(s, SLICE("ann"), SLICE("")));
		MUST(senders_count(s) > 0 || !senders_allow(s, SLICE("ann"), SLICE("a@b.test")));
	}
	senders_free(s);
}

static void
read_token(struct slice bytes)
{
	char storage[64];
	struct buf name = buf_over(storage, sizeof(storage));
	struct oauth_request request;

	if (oauth_read(bytes, 1000, &name) != OAUTH_ACTIVE)
		MUST(name.len == 0);
	if (oauth_parse(bytes, &request))
		MUST(request.token.len + request.authzid.len < bytes.len);
}

/* ---- logins ---------------------------------------------------------------------------------- */

static const struct users *
users_now(void *owner)
{
	static struct users *users;

	(void)owner;
	if (users == NULL) /* the keys are of no password */
		users = users_parse(
		    SLICE("ann:$y$x:*::SCRAM-SHA-1$4096:QSXCR+Q6sek8bf92$"
			  "AAECAwQFBgcICQoLDA0ODxAREhM=:ExIREA8ODQwLCgkIBwYFBAMCAQA= "
			  "CRAM-MD5$bm9ib2R5IGtub3dzIHRoaXMgb25l\nold:$y$x:*:\nbob:*:*:\n"),
		    "users", NULL);
	MUST(users != NULL);
	return users;
}

/* A line as base64, as a client that keeps to the rules sends it; or as it is. */
static enum sasl_status
say(struct sasl *x, struct slice line, bool raw)
{
	char challenge_storage[SASL_CHALLENGE_MAX];
	struct buf challenge = buf_over(challenge_storage, sizeof(challenge_storage));
	char *text = malloc(4 * ((line.len + 2) / 3) + 1);
	enum sasl_status status;
	int n;

	MUST(text != NULL);
	n = EVP_EncodeBlock((unsigned char *)text, (const unsigned char *)line.p, (int)line.len);
	status = sasl_step(x, raw ? line : slice_of(text, (size_t)n), true, &challenge);
	MUST(!challenge.overflow || status == SASL_BAD);
	free(text);
	return status;
}

static void
log_in(enum mechanism m, struct slice bytes, bool raw)
{
	struct sasl_about about = { .allowed = ~0u,
		.wants_scram = true,
		.has_tokens = true,
		.tls = true,
		.service = "smtp",
		.hostname = "mx.test",
		.peer = "bob",
		.exporter = { "0123456789", 10 },
		.users = users_now };
	struct sasl *x = sasl_start(m, &about);
	enum sasl_status status = SASL_CONTINUE;

	MUST(x != NULL);
	while (status == SASL_CONTINUE && bytes.len > 0) {
		struct slice line = slice_until(bytes, '\n');

		bytes = slice_drop(bytes, line.len + 1);
		status = say(x, line, raw);
	}
	if (status == SASL_OK)
		MUST(m == MECHANISM_EXTERNAL && slice_eq(sasl_user(x), SLICE("bob")));
	if (status == SASL_CHECK)
		MUST(sasl_user(x).len > 0 && (m == MECHANISM_PLAIN || m == MECHANISM_LOGIN));
	MUST(status != SASL_TOKEN ||
	     ((MECHANISM_BIT(m) & MECHANISMS_TOKEN) != 0 && sasl_token(x).len > 0));
	sasl_free(x);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct slice bytes = slice_drop(slice_of(data, size), 1);
	uint8_t choice = size > 0 ? data[0] : 0;
	enum mechanism m = (enum mechanism)((choice & 0x3f) % MECHANISM_COUNT);

	if (choice == 'u')
		read_users(bytes);
	else if (choice == 's')
		read_senders(bytes);
	else if (choice == 't')
		read_token(bytes);
	else if (m != MECHANISM_GSSAPI) /* a library of others, with files of its own */
		log_in(m, bytes, (choice & 0x80) != 0);
	return 0;
}
