/* relayd/core/siphash.c - SipHash-2-4 as Aumasson and Bernstein describe it (INDOCRYPT 2012). */
#include "relayd/core/siphash.h"

#include "relayd/core/le.h"

static inline uint64_t
rotl(uint64_t x, unsigned bits)
{
	return x << bits | x >> (64 - bits);
}

static inline void
rounds(uint64_t v[static 4], int n)
{
	while (n-- > 0) {
		v[0] += v[1];
		v[2] += v[3];
		v[1] = rotl(v[1], 13) ^ v[0];
		v[3] = rotl(v[3], 16) ^ v[2];
		v[0] = rotl(v[0], 32);
		v[2] += v[1];
		v[0] += v[3];
		v[1] = rotl(v[1], 17) ^ v[2];
		v[3] = rotl(v[3], 21) ^ v[0];
		v[2] = rotl(v[2], 32);
	}
}

static inline void
compress(uint64_t v[static 4], uint64_t word)
{
	v[3] ^= word;
	rounds(v, 2);
	v[0] ^= word;
}

uint64_t
siphash(const uint8_t key[static 16], struct slice bytes)
{
	uint64_t k0 = le64_get(key), k1 = le64_get(key + 8);
	uint64_t v[4] = { k0 ^ 0x736f6d6570736575, k1 ^ 0x646f72616e646f6d, k0 ^ 0x6c7967656e657261,
		k1 ^ 0x7465646279746573 };
	uint64_t last = (uint64_t)bytes.len << 56;

	for (; bytes.len >= 8; bytes = slice_drop(bytes, 8))
		compress(v, le64_get(bytes.p));
	for (size_t i = 0; i < bytes.len; i++)
		last |= (uint64_t)(uint8_t)bytes.p[i] << (8 * i);
	compress(v, last);
	v[2] ^= 0xff;
	rounds(v, 4);
	return v[0] ^ v[1] ^ v[2] ^ v[3];
}
