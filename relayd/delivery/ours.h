/* relayd/delivery/ours.h - addresses at which mail would come back to this relayd. */
#ifndef RELAYD_DELIVERY_OURS_H
#define RELAYD_DELIVERY_OURS_H

#include "relayd/core/config.h"

#include <stdbool.h>
#include <sys/socket.h>

/* A listener of cfg takes what is sent to addr (AF_INET or AF_INET6, with its port): it has that
 * address, or all of this host. */
bool ours_has(const struct config *cfg, const struct sockaddr *addr);

#endif
