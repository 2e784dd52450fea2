/* relayd/core/slice.h - the slice of the public ABI, and container_of. */
#ifndef RELAYD_CORE_SLICE_H
#define RELAYD_CORE_SLICE_H

#include <relayd/slice.h>

#define container_of(ptr, type, member)                                                            \
	((type *)(void *)((char *)(ptr)-offsetof(type, member)))
#define ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))

#endif
