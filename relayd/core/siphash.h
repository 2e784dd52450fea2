/* relayd/core/siphash.h - SipHash-2-4: a short keyed sum that nobody without the key can make
 * fit. */
#ifndef RELAYD_CORE_SIPHASH_H
#define RELAYD_CORE_SIPHASH_H

#include "relayd/core/slice.h"

uint64_t siphash(const uint8_t key[static 16], struct slice bytes);

#endif
