/* relayd/auth/scram.c - what the server keeps of a password for SCRAM. */
#include "relayd/auth/scram.h"

#include <errno.h>
#include <gsasl.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <sys/random.h>

static const struct {
	struct slice name; /* with what follows it */
	Gsasl_hash gsasl;
	size_t bytes;
} hashes[SCRAM_HASHES] = {
	[SCRAM_SHA_1] = { SLICE("SCRAM-SHA-1$"), GSASL_HASH_SHA1, GSASL_HASH_SHA1_SIZE },
	[SCRAM_SHA_256] = { SLICE("SCRAM-SHA-256$"), GSASL_HASH_SHA256, GSASL_HASH_SHA256_SIZE },
};

/* ---- reading ------------------------------------------------------------------------------ */

static bool
is_base64_char(char c)
{
	return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ||
	       c == '+' || c == '/';
}

/* How many bytes it stands for; 0 when it is not base64 with its padding. */
static size_t
base64_bytes(struct slice text)
{
	size_t padding = 0;

	if (text.len == 0 || text.len % 4 != 0)
		return 0;
	while (padding < 2 && text.p[text.len - 1 - padding] == '=')
		padding++;
	for (size_t i = 0; i < text.len - padding; i++)
		if (!is_base64_char(text.p[i]))
			return 0;
	return text.len / 4 * 3 - padding;
}

static struct slice
take_until(struct slice *in, char c)
{
	struct slice part = slice_until(*in, c);

	*in = slice_drop(*in, part.len + 1);
	return part;
}

bool
scram_parse(struct slice word, enum scram_hash hash, struct scram_verifier *out)
{
	uint64_t iterations;

	if (word.len > SCRAM_WORD_MAX || !slice_starts(word, hashes[hash].name))
		return false;
	word = slice_drop(word, hashes[hash].name.len);
	if (!slice_u64(take_until(&word, ':'), SCRAM_ITERATIONS_MAX, &iterations) ||
	    iterations < SCRAM_ITERATIONS_MIN)
		return false;
	out->iterations = (uint32_t)iterations;
	out->salt = take_until(&word, '$');
	out->stored_key = take_until(&word, ':');
	out->server_key = word;
	return base64_bytes(out->salt) >= 4 &&
	       base64_bytes(out->stored_key) == hashes[hash].bytes &&
	       base64_bytes(out->server_key) == hashes[hash].bytes;
}

/* ---- making ------------------------------------------------------------------------------- */

static void
put_base64(struct buf *out, const char *bytes, size_t n)
{
	char text[4 * ((GSASL_HASH_MAX_SIZE + 2) / 3) + 1];
	int len = EVP_EncodeBlock((unsigned char *)text, (const unsigned char *)bytes, (int)n);

	buf_put(out, slice_of(text, (size_t)len));
}

struct secrets {
	char salt[SCRAM_SALT_BYTES];
	char salted[GSASL_HASH_MAX_SIZE], client_key[GSASL_HASH_MAX_SIZE];
	char server_key[GSASL_HASH_MAX_SIZE], stored_key[GSASL_HASH_MAX_SIZE];
};

static int
make_one(const char *password, enum scram_hash hash, struct buf *out, struct err *err)
{
	struct secrets k;
	size_t n = hashes[hash].bytes;
	int rc = -1;

	if (getrandom(k.salt, sizeof(k.salt), 0) != (ssize_t)sizeof(k.salt))
		return err_sys(err, errno, "a random salt");
	if (gsasl_scram_secrets_from_password(hashes[hash].gsasl, password, SCRAM_ITERATIONS,
		k.salt, sizeof(k.salt), k.salted, k.client_key, k.server_key,
		k.stored_key) != GSASL_OK) {
		err_set(err, ERR_FORMAT, "the password is not text that SASLprep (RFC 4013) takes");
		goto out;
	}
	buf_put(out, hashes[hash].name);
	buf_printf(out, "%d:", SCRAM_ITERATIONS);
	put_base64(out, k.salt, sizeof(k.salt));
	buf_putc(out, '$');
	put_base64(out, k.stored_key, n);
	buf_putc(out, ':');
	put_base64(out, k.server_key, n);
	rc = 0;
out:
	OPENSSL_cleanse(&k, sizeof(k));
	return rc;
}

int
scram_make(struct slice password, struct buf *out, struct err *err)
{
	char *text = strndup(password.p, password.len);
	int rc = 0;

	if (text == NULL)
		return err_set(err, ERR_NOMEM, "no memory for a verifier");
	for (unsigned hash = 0; hash < SCRAM_HASHES && rc == 0; hash++) {
		if (hash > 0)
			buf_putc(out, ' ');
		rc = make_one(text, (enum scram_hash)hash, out, err);
	}
	OPENSSL_cleanse(text, password.len);
	free(text);
	return rc == 0 && out->overflow ? err_set(err, ERR_LIMIT, "verifiers too long") : rc;
}
