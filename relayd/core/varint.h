/* relayd/core/varint.h - numbers in few bytes: seven bits a byte, low ones first, the top bit says
 * that more follow. */
#ifndef RELAYD_CORE_VARINT_H
#define RELAYD_CORE_VARINT_H

#include "relayd/core/buf.h"

#define VARINT_BYTES_MAX 10

static inline void
varint_put(struct buf *out, uint64_t n)
{
	char bytes[VARINT_BYTES_MAX];
	size_t len = 0;

	for (; n >= 0x80; n >>= 7)
		bytes[len++] = (char)(0x80 | (n & 0x7f));
	bytes[len++] = (char)n;
	buf_put(out, slice_of(bytes, len));
}

/* Takes one off the front of *in; false when it is cut short or over 64 bits. */
static inline bool
varint_take(struct slice *in, uint64_t *n)
{
	*n = 0;
	for (unsigned shift = 0; shift < 64 && in->len > 0; shift += 7) {
		uint8_t byte = (uint8_t)in->p[0];

		*in = slice_drop(*in, 1);
		if (shift == 63 && byte > 1)
			return false;
		*n |= (uint64_t)(byte & 0x7f) << shift;
		if ((byte & 0x80) == 0)
			return true;
	}
	return false;
}

#endif
