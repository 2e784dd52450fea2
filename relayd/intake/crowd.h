/* relayd/intake/crowd.h - notices when every client seems to be one private address.
 *
 * Behind NAT, a container bridge or a balancer without the PROXY protocol all clients look like
 * one, and whatever rests on addresses sees nothing.
 */
#ifndef RELAYD_INTAKE_CROWD_H
#define RELAYD_INTAKE_CROWD_H

#include "relayd/core/slice.h"

#include <stdint.h>

#define CROWD_CLIENTS 100            /* connections in a row before it says so */
#define CROWD_AGAIN   (3600 * 1000u) /* ms until it says so again */

/* Zeroed before its first use. */
struct crowd {
	uint8_t addr[16], addr_len;
	uint32_t same; /* connections in a row from addr */
	uint64_t quiet_until_ms;
};

/* Counts a client (4 or 16 bytes; empty, a unix socket, counts as none).  True when it is time to
 * say that the last CROWD_CLIENTS or more all came from this one private or loopback address. */
bool crowd_is_one(struct crowd *c, struct slice addr, uint64_t now_ms);

#endif
