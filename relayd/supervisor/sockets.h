/* relayd/supervisor/sockets.h - every socket that relayd listens on: bound once, owned by the supervisor. */
#ifndef RELAYD_SUPERVISOR_SOCKETS_H
#define RELAYD_SUPERVISOR_SOCKETS_H

#include "relayd/supervisor/owner.h"
#include "relayd/supervisor/role.h"

struct sockets;

/* Binds all listeners of cfg: one a worker for SMTP (SO_REUSEPORT), one for the rest, and the
 * unix sockets between the roles.  NULL with *err naming the address. */
struct sockets *sockets_bind(const struct config *cfg, const struct owners *owners, struct err *err);
/* RUN/control.sock, the supervisor's own. */
int sockets_control(const struct sockets *s);
/* The listeners of a role, for worker index. */
size_t sockets_of(const struct sockets *s, enum role_kind kind, unsigned index,
    struct role_listener *out, size_t max);
/* What of cfg would need a restart: the first such thing as text, or NULL. */
const char *sockets_changed(const struct config *old, const struct config *cfg);
void sockets_close(struct sockets *s);

#endif
