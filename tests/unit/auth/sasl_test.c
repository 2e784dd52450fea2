/* tests/unit/auth/sasl_test.c - exchanges as they stand in the protocol, and against gsasl's own
 * clients. */
#include "unit/unit.h"

#include "relayd/auth/sasl.h"

#include <gsasl.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdio.h>
#include <stdlib.h>

/* Of "pencil", as in the examples of RFC 5802 section 5 and RFC 7677 section 3. */
#define VERIFIERS                                                                                  \
	"SCRAM-SHA-1$4096:QSXCR+Q6sek8bf92$6dlGYMOdZcOPutkcNY8U2g7vK9Y=:"                          \
	"D+CSWLOshSulAsxiupA+qs2/fTE= SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$"                \
	"WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:"                                            \
	"wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU= CRAM-MD5$cGVuY2ls"

static struct users *users;

static const struct users *
users_now(void *owner)
{
	(void)owner;
	return users;
}

static struct sasl_about
about_all(void)
{
	return (struct sasl_about){ .allowed = (1u << MECHANISM_COUNT) - 1,
		.wants_scram = true,
		.has_tokens = true,
		.has_keytab = true,
		.tls = true,
		.service = "smtp",
		.hostname = "mx.test",
		.peer = "ann",
		.exporter = { "exporter of these two, 32 bytes..", 32 },
		.users = users_now };
}

static void
set_up(void)
{
	users = users_parse(SLICE("ann:$y$x:*:relay:" VERIFIERS "\nold:$y$x:*:\nkey:*:*:\n"
				  "gone:!x:*::" VERIFIERS "\n"),
	    "users", NULL);
	ck_assert_ptr_nonnull(users);
}

static void
tear_down(void)
{
	users_free(users);
	users = NULL;
}

/* ---- PLAIN, LOGIN ---------------------------------------------------------------------------- */

static const struct {
	const char *response; /* base64 of authzid NUL authcid NUL password */
	enum sasl_status status;
	const char *user, *password;
} plains[] = {
	{ "AGFubgBzM2NyZXQ=", SASL_CHECK, "ann", "s3cret" },
	{ "YW5uAGFubgBzM2NyZXQ=", SASL_CHECK, "ann", "s3cret" },
	{ "cm9vdABhbm4AczNjcmV0", SASL_DENIED, NULL, NULL },
	{ "AGFubg==", SASL_BAD, NULL, NULL },
	{ "YW5u", SASL_BAD, NULL, NULL },
	{ "!!!!", SASL_BAD, NULL, NULL },
	{ "AGFubgBzM2NyZXQ", SASL_BAD, NULL, NULL },
	{ "AGFubgBhAGI=", SASL_BAD, NULL, NULL },
	{ "AABz", SASL_BAD, NULL, NULL },
	{ "*", SASL_BAD, NULL, NULL },
};

static void
check_plain(int row, bool initial)
{
	struct sasl_about about = about_all();
	struct sasl *x = sasl_start(MECHANISM_PLAIN, &about);
	char storage[100];
	struct buf challenge = buf_over(storage, sizeof(storage));

	ck_assert_ptr_nonnull(x);
	if (!initial) {
		ck_assert_int_eq(sasl_step(x, SLICE(""), false, &challenge), SASL_CONTINUE);
		ck_assert_uint_eq(challenge.len, 0);
	}
	ck_assert_int_eq(
	    sasl_step(x, slice_str(plains[row].response), true, &challenge), plains[row].status);
	if (plains[row].status == SASL_CHECK) {
		ck_assert(slice_eq(sasl_user(x), slice_str(plains[row].user)));
		ck_assert(slice_eq(sasl_password(x), slice_str(plains[row].password)));
	}
	sasl_free(x);
}

START_TEST(plain_gives_user_and_password)
{
	set_up();
	check_plain(_i, true);
	check_plain(_i, false);
	tear_down();
}
END_TEST

/* Lines of an exchange: "C " what the client sends, "S " the challenge, "=" how it ends. */
static const struct {
	enum mechanism mechanism;
	const char *lines, *user;
} talks[] = {
	{ MECHANISM_LOGIN, "C-|S VXNlcm5hbWU6|C YW5u|S UGFzc3dvcmQ6|C cGVuY2ls|=1", "ann" },
	{ MECHANISM_LOGIN, "C YW5u|S UGFzc3dvcmQ6|C cGVuY2ls|=1", "ann" },
	{ MECHANISM_LOGIN, "C-|S VXNlcm5hbWU6|C |=7", "" },
	{ MECHANISM_LOGIN, "C-|S VXNlcm5hbWU6|C YW5u|S UGFzc3dvcmQ6|C !|=7", "" },
	/* "=": an empty response, with which the name is that of the certificate */
	{ MECHANISM_EXTERNAL, "C =|=3", "ann" },
	{ MECHANISM_EXTERNAL, "C-|S |C |=3", "ann" },
	{ MECHANISM_EXTERNAL, "C YW5u|=3", "ann" },
	{ MECHANISM_EXTERNAL, "C cm9vdA==|=5", "ann" },
	{ MECHANISM_EXTERNAL, "C YQBi|=7", "" },
	/* RFC 7628 section 4.1: "n,a=ann,^Ahost=mx^Aauth=Bearer vF9dft4qmT^A^A" */
	{ MECHANISM_OAUTHBEARER, "C bixhPWFubiwBaG9zdD1teAFhdXRoPUJlYXJlciB2RjlkZnQ0cW1UAQE=|=2",
	    "" },
	{ MECHANISM_OAUTHBEARER,
	    "C-|S |C bixhPWFubiwBaG9zdD1teAFhdXRoPUJlYXJlciB2RjlkZnQ0cW1UAQE=|=2", "" },
	/* without a token: "n,,^Aauth=^A^A", which is told what is wrong */
	{ MECHANISM_OAUTHBEARER,
	    "C biwsAWF1dGg9AQE=|S eyJzdGF0dXMiOiJpbnZhbGlkX3Rva2VuIn0=|C AQ==|=4", "" },
	{ MECHANISM_OAUTHBEARER, "C biwsAWF1dGg9QmVhcmVyIGEBAQEx|=7", "" },
	{ MECHANISM_OAUTHBEARER, "C cD10bHMtZXhwb3J0ZXIsLAFhdXRoPUJlYXJlciBhAQE=|=7", "" },
	/* "user=ann^Aauth=Bearer vF9dft4qmT^A^A" */
	{ MECHANISM_XOAUTH2, "C dXNlcj1hbm4BYXV0aD1CZWFyZXIgdkY5ZGZ0NHFtVAEB|=2", "" },
	{ MECHANISM_XOAUTH2, "C-|S |C dXNlcj1hbm4BYXV0aD1CZWFyZXIgdkY5ZGZ0NHFtVAEB|=2", "" },
	{ MECHANISM_XOAUTH2, "C dXNlcj1hbm4BYXV0aD1CZWFyZXIgdkY5ZGZ0NHFtVAE=|=7", "" },
	{ MECHANISM_CRAM_MD5, "C-|S *|C YW5uIDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAw|=4",
	    "ann" },
	{ MECHANISM_CRAM_MD5, "C-|S *|C b2xkIDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAw|=6",
	    "old" },
	{ MECHANISM_CRAM_MD5, "C-|S *|C ZXZlIDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAw|=4",
	    "eve" },
	{ MECHANISM_CRAM_MD5, "C-|S *|C ZXZl|=7", "" },
	/* "n,,n=ann,r=abc", and then no final message */
	{ MECHANISM_SCRAM_SHA_256, "C biwsbj1hbm4scj1hYmM=|S *|C biws|=7", "ann" },
	/* "n,,n=old,r=abc": there is a password, but no verifier; "n=key": no password at all */
	{ MECHANISM_SCRAM_SHA_256, "C biwsbj1vbGQscj1hYmM=|=6", "old" },
	{ MECHANISM_SCRAM_SHA_256, "C biwsbj1rZXkscj1hYmM=|S *|C biws|=7", "key" },
	/* "y,,n=ann,r=abc": could bind and saw no -PLUS, which was in our list */
	{ MECHANISM_SCRAM_SHA_256, "C eSwsbj1hbm4scj1hYmM=|=4", "" },
	/* "p=tls-unique,,n=ann,r=abc" and "n,,n=..." where -PLUS was said */
	{ MECHANISM_SCRAM_SHA_256_PLUS, "C biwsbj1hbm4scj1hYmM=|=4", "" },
	{ MECHANISM_SCRAM_SHA_1, "C biws|=7", "" },
	{ MECHANISM_SCRAM_SHA_1, "C =|S |C =|=7", "" },
};

static void
talk(const char *lines, struct sasl *x)
{
	char storage[SASL_CHALLENGE_MAX];
	struct buf challenge = buf_over(storage, sizeof(storage));
	struct slice rest = slice_str(lines);
	enum sasl_status status = SASL_CONTINUE;

	while (rest.len > 0) {
		struct slice line = slice_until(rest, '|'), text = slice_drop(line, 2);

		rest = slice_drop(rest, line.len + 1);
		if (line.p[0] == 'C') {
			ck_assert_int_eq(status, SASL_CONTINUE);
			buf_reset(&challenge);
			status = sasl_step(x, text, line.p[1] == ' ', &challenge);
		} else if (line.p[0] == 'S') {
			ck_assert_int_eq(status, SASL_CONTINUE);
			ck_assert(slice_eq(text, SLICE("*"))
				      ? challenge.len > 0
				      : slice_eq(text, buf_slice(&challenge)));
		} else {
			ck_assert_int_eq((int)status, line.p[1] - '0');
		}
	}
}

START_TEST(an_exchange_goes_as_its_mechanism_says)
{
	struct sasl_about about = about_all();
	struct sasl *x;

	set_up();
	x = sasl_start(talks[_i].mechanism, &about);
	ck_assert_ptr_nonnull(x);
	talk(talks[_i].lines, x);
	ck_assert_msg(
	    slice_eq(sasl_user(x), slice_str(talks[_i].user)), "%.*s", SLICE_FMT(sasl_user(x)));
	sasl_free(x);
	tear_down();
}
END_TEST

/* ---- against clients ------------------------------------------------------------------------- */

struct client {
	const char *user, *password, *authzid;
	const struct sasl_binding *exporter;
};

static int
on_client_property(Gsasl *ctx, Gsasl_session *session, Gsasl_property prop)
{
	const struct client *c = gsasl_session_hook_get(session);
	char text[100];

	(void)ctx;
	if (prop == GSASL_AUTHID)
		return gsasl_property_set(session, prop, c->user);
	if (prop == GSASL_PASSWORD)
		return gsasl_property_set(session, prop, c->password);
	if (prop == GSASL_AUTHZID && c->authzid != NULL)
		return gsasl_property_set(session, prop, c->authzid);
	if (prop == GSASL_CB_TLS_EXPORTER && c->exporter != NULL) {
		(void)EVP_EncodeBlock(
		    (unsigned char *)text, c->exporter->bytes, (int)c->exporter->len);
		return gsasl_property_set(session, prop, text);
	}
	return GSASL_NO_CALLBACK;
}

/* How an exchange between a client of gsasl and us ends; a proof of ours that is wrong is a
 * failure. */
static enum sasl_status
meet(enum mechanism m, struct client *c, const struct sasl_about *about)
{
	char storage[SASL_CHALLENGE_MAX];
	struct buf challenge = buf_over(storage, sizeof(storage));
	struct sasl *x = sasl_start(m, about);
	enum sasl_status status = SASL_CONTINUE;
	Gsasl_session *client;
	bool first = true;
	Gsasl *ctx;

	ck_assert_int_eq(gsasl_init(&ctx), GSASL_OK);
	gsasl_callback_set(ctx, on_client_property);
	ck_assert_int_eq(gsasl_client_start(ctx, mechanism_name(m), &client), GSASL_OK);
	gsasl_session_hook_set(client, c);
	if (m == MECHANISM_CRAM_MD5) {
		status = sasl_step(x, SLICE(""), false, &challenge);
		first = false;
	}
	while (status == SASL_CONTINUE) {
		char *said = NULL, text[SASL_CHALLENGE_MAX];
		int rc;

		(void)snprintf(text, sizeof(text), "%.*s", SLICE_FMT(buf_slice(&challenge)));
		rc = gsasl_step64(client, text, &said);
		ck_assert_msg(rc == GSASL_OK || rc == GSASL_NEEDS_MORE, "%s", gsasl_strerror(rc));
		buf_reset(&challenge);
		status = sasl_step(x, slice_str(said), true, &challenge);
		gsasl_free(said);
		ck_assert(!first || status != SASL_OK);
		first = false;
	}
	if (status == SASL_OK)
		ck_assert(slice_eq(sasl_user(x), slice_str(c->user)));
	gsasl_finish(client);
	gsasl_done(ctx);
	sasl_free(x);
	return status;
}

static const enum mechanism proofs[] = { MECHANISM_SCRAM_SHA_1, MECHANISM_SCRAM_SHA_256,
	MECHANISM_SCRAM_SHA_1_PLUS, MECHANISM_SCRAM_SHA_256_PLUS, MECHANISM_CRAM_MD5 };

START_TEST(a_client_proves_who_it_is)
{
	struct sasl_about about = about_all();
	struct sasl_binding other = { "somebody in the middle, 32 bytes", 32 };
	bool plus = (MECHANISM_BIT(proofs[_i]) & MECHANISMS_PLUS) != 0;
	struct client good = { "ann", "pencil", NULL, plus ? &about.exporter : NULL };
	struct client wrong = { "ann", "pencils", NULL, good.exporter };
	struct client unknown = { "eve", "pencil", NULL, good.exporter };
	struct client locked = { "gone", "pencil", NULL, good.exporter };
	struct client as_other = { "ann", "pencil", "root", good.exporter };
	struct client tapped = { "ann", "pencil", NULL, &other };

	set_up();
	ck_assert_int_eq(meet(proofs[_i], &good, &about), SASL_OK);
	ck_assert_int_eq(meet(proofs[_i], &wrong, &about), SASL_FAILED);
	ck_assert_int_eq(meet(proofs[_i], &unknown, &about), SASL_FAILED);
	ck_assert_int_eq(meet(proofs[_i], &locked, &about), SASL_FAILED);
	if (proofs[_i] != MECHANISM_CRAM_MD5)
		ck_assert_int_eq(meet(proofs[_i], &as_other, &about), SASL_DENIED);
	if (plus)
		ck_assert_int_eq(meet(proofs[_i], &tapped, &about), SASL_FAILED);
	tear_down();
}
END_TEST

/* What a client sees of a name must not tell whether it is a user's. */
START_TEST(an_unknown_name_has_a_salt_that_stays)
{
	struct sasl_about about = about_all();
	struct slice salts[2];
	char *texts[2];

	set_up();
	for (int i = 0; i < 2; i++) {
		char storage[SASL_CHALLENGE_MAX];
		struct buf challenge = buf_over(storage, sizeof(storage));
		struct sasl *x = sasl_start(MECHANISM_SCRAM_SHA_1, &about);
		size_t n;

		/* "n,,n=eve,r=abc" */
		ck_assert_int_eq(
		    sasl_step(x, SLICE("biwsbj1ldmUscj1hYmM="), true, &challenge), SASL_CONTINUE);
		ck_assert_int_eq(
		    gsasl_base64_from(challenge.p, challenge.len, &texts[i], &n), GSASL_OK);
		salts[i] = slice_of(texts[i], n);
		salts[i] = slice_drop(salts[i], slice_find(salts[i], SLICE(",s=")));
		ck_assert(slice_ends(salts[i], SLICE(",i=10000")));
		sasl_free(x);
	}
	ck_assert_uint_gt(salts[0].len, 20);
	ck_assert(slice_eq(salts[0], salts[1]));
	gsasl_free(texts[0]);
	gsasl_free(texts[1]);
	tear_down();
}
END_TEST

/* ---- the examples of the RFCs ---------------------------------------------------------------- */

static const struct {
	enum scram_hash hash;
	const char *auth_message, *proof, *signature;
} examples[] = {
	{ SCRAM_SHA_1,
	    "n=user,r=fyko+d2lbbFgONRv9qkxdawL,"
	    "r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,s=QSXCR+Q6sek8bf92,i=4096,"
	    "c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j",
	    "v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=", "rmF9pqV8S7suAoZWja4dJRkFsKQ=" },
	{ SCRAM_SHA_256,
	    "n=user,r=rOprNGfwEbeRWgbNEkqO,"
	    "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,"
	    "i=4096,c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0",
	    "dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
	    "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=" },
};

static unsigned
decode(struct slice base64, unsigned char out[static 64])
{
	char *bytes;
	size_t n;

	ck_assert_int_eq(gsasl_base64_from(base64.p, base64.len, &bytes, &n), GSASL_OK);
	ck_assert_uint_le(n, 64);
	memcpy(out, bytes, n);
	gsasl_free(bytes);
	return (unsigned)n;
}

static void
hmac(const EVP_MD *md, struct slice key, const char *message, unsigned char out[static 64])
{
	unsigned char bytes[64];
	unsigned n = decode(key, bytes), len = 0;

	ck_assert_ptr_nonnull(
	    HMAC(md, bytes, (int)n, (const unsigned char *)message, strlen(message), out, &len));
}

/* RFC 5802 section 3: H(ClientProof XOR HMAC(StoredKey, AuthMessage)) is StoredKey, and
 * HMAC(ServerKey, AuthMessage) what the server signs with. */
START_TEST(verifiers_are_those_of_the_examples)
{
	const EVP_MD *md = examples[_i].hash == SCRAM_SHA_1 ? EVP_sha1() : EVP_sha256();
	unsigned char mac[64], proof[64], stored[64], made[64];
	struct scram_verifier v;
	unsigned n;

	set_up();
	ck_assert(users_scram(users_at(users, 0), examples[_i].hash, &v));
	hmac(md, v.server_key, examples[_i].auth_message, mac);
	n = decode(slice_str(examples[_i].signature), proof);
	ck_assert_mem_eq(mac, proof, n);
	hmac(md, v.stored_key, examples[_i].auth_message, mac);
	ck_assert_uint_eq(decode(slice_str(examples[_i].proof), proof), n);
	for (unsigned i = 0; i < n; i++)
		proof[i] ^= mac[i];
	ck_assert_int_eq(EVP_Digest(proof, n, made, NULL, md, NULL), 1);
	ck_assert_uint_eq(decode(v.stored_key, stored), n);
	ck_assert_mem_eq(made, stored, n);
	tear_down();
}
END_TEST

START_TEST(a_new_password_has_verifiers_that_work)
{
	struct sasl_about about = about_all();
	struct client c = { "ann", "p\xc3\xa9ncil=,", NULL, NULL };
	char storage[USERS_VERIFIERS_MAX], line[USERS_VERIFIERS_MAX + 100];
	struct buf text = buf_over(storage, sizeof(storage));
	struct err err = { 0 };

	ck_assert_int_eq(scram_make(slice_str(c.password), &text, &err), 0);
	(void)snprintf(line, sizeof(line), "ann:$y$:*::%.*s\n", SLICE_FMT(buf_slice(&text)));
	users = users_parse(slice_str(line), "users", &err);
	ck_assert_msg(users != NULL, "%s", err.msg);
	ck_assert(users_all_scram(users));
	about.exporter.len = 0;
	ck_assert_int_eq(meet(MECHANISM_SCRAM_SHA_1, &c, &about), SASL_OK);
	ck_assert_int_eq(meet(MECHANISM_SCRAM_SHA_256, &c, &about), SASL_OK);
	tear_down();
	/* Neither UTF-8 nor a control character is what SASLprep takes. */
	ck_assert_int_eq(scram_make(SLICE("\xff"), &text, &err), -1);
	ck_assert_int_eq(err.code, ERR_FORMAT);
	ck_assert_int_eq(scram_make(SLICE("a\x07"), &text, &err), -1);
}
END_TEST

/* ---- what is offered ------------------------------------------------------------------------- */

static const struct {
	const char *what, *offer;
	unsigned without_tls;
	bool tls, binding, tokens, keytab, peer, named;
} offers[] = {
	{ "nothing without TLS", "", 0, false, false, true, true, true, true },
	{ "only what shows no password", " GSSAPI EXTERNAL SCRAM-SHA-256 SCRAM-SHA-1 CRAM-MD5",
	    ~MECHANISMS_READABLE, false, false, true, true, true, true },
	{ "all of it",
	    " SCRAM-SHA-256-PLUS SCRAM-SHA-1-PLUS GSSAPI EXTERNAL OAUTHBEARER XOAUTH2 "
	    "SCRAM-SHA-256 SCRAM-SHA-1 PLAIN LOGIN CRAM-MD5",
	    0, true, true, true, true, true, true },
	{ "what has all it needs", " SCRAM-SHA-256 SCRAM-SHA-1 PLAIN LOGIN CRAM-MD5", 0, true,
	    false, false, false, false, true },
	{ "no SCRAM by itself while a user has no verifier", " PLAIN LOGIN CRAM-MD5", 0, true, true,
	    false, false, false, false },
};

START_TEST(an_offer_holds_what_can_be_used)
{
	struct sasl_about about = about_all();
	char storage[MECHANISMS_TEXT_MAX];
	struct buf names = buf_over(storage, sizeof(storage));

	set_up();
	about.without_tls = offers[_i].without_tls;
	about.tls = offers[_i].tls;
	about.exporter.len = offers[_i].binding ? 32 : 0;
	about.has_tokens = offers[_i].tokens;
	about.has_keytab = offers[_i].keytab;
	sasl_peer(&about, offers[_i].peer ? "ann" : "");
	about.wants_scram = offers[_i].named;
	mechanisms_put(&names, sasl_offer(&about), " ");
	ck_assert_msg(slice_eq(buf_slice(&names), slice_str(offers[_i].offer)), "%s: %.*s",
	    offers[_i].what, SLICE_FMT(buf_slice(&names)));
	tear_down();
}
END_TEST

START_TEST(a_token_has_an_owner_or_none)
{
	struct sasl_about about = about_all();
	static const struct {
		const char *owner;
		enum sasl_status status;
	} rows[] = { { "ann", SASL_OK }, { "eve", SASL_FAILED }, { "gone", SASL_FAILED },
		{ "key", SASL_DENIED }, { "", SASL_CONTINUE } };
	char storage[SASL_CHALLENGE_MAX];

	set_up();
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct buf challenge = buf_over(storage, sizeof(storage));
		struct sasl *x = sasl_start(MECHANISM_OAUTHBEARER, &about);
		/* "n,a=ann,^Aauth=Bearer a^A^A", and without an authzid */
		struct slice said = i == 0 || i == 3 ? SLICE("bixhPWFubiwBYXV0aD1CZWFyZXIgYQEB")
						     : SLICE("biwsAWF1dGg9QmVhcmVyIGEBAQ==");

		ck_assert_int_eq(sasl_step(x, said, true, &challenge), SASL_TOKEN);
		ck_assert(slice_eq(sasl_token(x), SLICE("a")));
		ck_assert_int_eq(
		    sasl_told(x, slice_str(rows[i].owner), &challenge), rows[i].status);
		if (rows[i].status == SASL_CONTINUE)
			ck_assert_int_eq(
			    sasl_step(x, SLICE("AQ=="), true, &challenge), SASL_FAILED);
		sasl_free(x);
	}
	tear_down();
}
END_TEST

START_TEST(an_old_token_has_the_owner_that_it_names)
{
	struct sasl_about about = about_all();
	static const struct {
		const char *owner;
		enum sasl_status status;
	} rows[] = { { "ann", SASL_OK }, { "key", SASL_DENIED }, { "", SASL_CONTINUE } };
	char storage[SASL_CHALLENGE_MAX];

	set_up();
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct buf challenge = buf_over(storage, sizeof(storage));
		struct sasl *x = sasl_start(MECHANISM_XOAUTH2, &about);

		ck_assert_int_eq(
		    sasl_step(x, SLICE("dXNlcj1hbm4BYXV0aD1CZWFyZXIgYQEB"), true, &challenge),
		    SASL_TOKEN); /* "user=ann^Aauth=Bearer a^A^A" */
		ck_assert(slice_eq(sasl_token(x), SLICE("a")));
		ck_assert_int_eq(
		    sasl_told(x, slice_str(rows[i].owner), &challenge), rows[i].status);
		if (rows[i].status == SASL_CONTINUE) {
			ck_assert(slice_eq(buf_slice(&challenge),
			    SLICE("eyJzdGF0dXMiOiI0MDEiLCJzY2hlbWVzIjoiYmVhcmVyIn0=")));
			ck_assert_int_eq(sasl_step(x, SLICE(""), true, &challenge), SASL_FAILED);
		}
		sasl_free(x);
	}
	tear_down();
}
END_TEST

START_TEST(names_of_mechanisms_have_no_case)
{
	ck_assert_int_eq(
	    mechanism_named(SLICE("scram-sha-256-plus")), MECHANISM_SCRAM_SHA_256_PLUS);
	ck_assert_int_eq(mechanism_named(SLICE("ANONYMOUS")), MECHANISM_COUNT);
	ck_assert_int_eq(mechanism_named(SLICE("")), MECHANISM_COUNT);
	ck_assert_int_eq(mechanism_named(SLICE("PLAI")), MECHANISM_COUNT);
	sasl_free(NULL);
}
END_TEST

UNIT_SUITE(auth_sasl)
{
	UNIT_ROWS(plain_gives_user_and_password, plains);
	UNIT_ROWS(an_exchange_goes_as_its_mechanism_says, talks);
	UNIT_ROWS(a_client_proves_who_it_is, proofs);
	UNIT_TEST(an_unknown_name_has_a_salt_that_stays);
	UNIT_ROWS(verifiers_are_those_of_the_examples, examples);
	UNIT_TEST(a_new_password_has_verifiers_that_work);
	UNIT_ROWS(an_offer_holds_what_can_be_used, offers);
	UNIT_TEST(a_token_has_an_owner_or_none);
	UNIT_TEST(an_old_token_has_the_owner_that_it_names);
	UNIT_TEST(names_of_mechanisms_have_no_case);
}
