/* relayd/core/le.h - numbers in files: little-endian, at any address. */
#ifndef RELAYD_CORE_LE_H
#define RELAYD_CORE_LE_H

#include <endian.h>
#include <stdint.h>
#include <string.h>

#define LE_CODEC(bits)                                                                             \
	static inline uint##bits##_t le##bits##_get(const void *p)                                 \
	{                                                                                          \
		uint##bits##_t v;                                                                  \
		memcpy(&v, p, sizeof(v));                                                          \
		return le##bits##toh(v);                                                           \
	}                                                                                          \
	static inline void le##bits##_put(void *p, uint##bits##_t v)                               \
	{                                                                                          \
		v = htole##bits(v);                                                                \
		memcpy(p, &v, sizeof(v));                                                          \
	}
LE_CODEC(16)
LE_CODEC(32)
LE_CODEC(64)
#undef LE_CODEC

#endif
