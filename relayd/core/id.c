/* relayd/core/id.c - the one id of a message or session: 128 bits of time and random. */
#include "relayd/core/id.h"

#include "relayd/core/clock.h"

#include <openssl/evp.h>
#include <stdlib.h>
#include <sys/random.h>

static const char alphabet[] = "abcdefghijklmnopqrstuvwxyz234567";

/* Random bytes in gulps, so that an id costs no system call. */
static void
random_bytes(uint8_t *out, size_t n)
{
	static uint8_t pool[2000];
	static size_t left;

	if (left < n) {
		if (getrandom(pool, sizeof(pool), 0) != (ssize_t)sizeof(pool))
			abort();	/* without random numbers no id is one of a kind */
		left = sizeof(pool);
	}
	left -= n;
	memcpy(out, pool + left, n);
}

static void
put_time(struct id *id, int64_t ms)
{
	for (int i = 0; i < 6; i++)
		id->bytes[i] = (uint8_t)(ms >> (40 - 8 * i));
}

struct id
id_new(void)
{
	struct id id;

	put_time(&id, clock_wall_ms());
	random_bytes(id.bytes + 6, sizeof(id.bytes) - 6);
	return id;
}

struct id
id_derive(struct id from, struct slice label)
{
	uint8_t digest[EVP_MAX_MD_SIZE];
	EVP_MD_CTX *md = EVP_MD_CTX_new();
	struct id id = from;

	if (md == NULL || EVP_DigestInit_ex(md, EVP_sha256(), NULL) != 1 ||
	    EVP_DigestUpdate(md, from.bytes, sizeof(from.bytes)) != 1 ||
	    EVP_DigestUpdate(md, label.p, label.len) != 1 ||
	    EVP_DigestFinal_ex(md, digest, NULL) != 1)
		abort();	/* out of memory for a digest: nothing sane can follow */
	EVP_MD_CTX_free(md);
	memcpy(id.bytes + 6, digest, sizeof(id.bytes) - 6);
	return id;
}

void
id_text(struct id id, char out[static ID_TEXT_LEN + 1])
{
	unsigned bits = 0, n = 0;
	size_t at = 0;

	for (size_t i = 0; i < sizeof(id.bytes); i++) {
		bits = (bits << 8 | id.bytes[i]) & 0xffff;
		for (n += 8; n >= 5; n -= 5)
			out[at++] = alphabet[bits >> (n - 5) & 31];
	}
	out[at++] = alphabet[bits << (5 - n) & 31];
	out[at] = '\0';
}

bool
id_parse(struct slice text, struct id *out)
{
	unsigned bits = 0, n = 0;
	size_t at = 0;

	if (text.len != ID_TEXT_LEN)
		return false;
	for (size_t i = 0; i < text.len; i++) {
		char c = slice_lower(text.p[i]);
		const char *hit = c != '\0' ? strchr(alphabet, c) : NULL;

		if (hit == NULL)
			return false;
		bits = (bits << 5 | (unsigned)(hit - alphabet)) & 0xffff;
		n += 5;
		if (n >= 8) {
			n -= 8;
			out->bytes[at++] = (uint8_t)(bits >> n);
		}
	}
	return (bits & ((1u << n) - 1)) == 0;	/* the two bits past 128 are zero */
}

int64_t
id_wall_ms(struct id id)
{
	int64_t ms = 0;

	for (int i = 0; i < 6; i++)
		ms = ms << 8 | id.bytes[i];
	return ms;
}
