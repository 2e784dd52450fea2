/* relayd/supervisor/sockets.h - every socket that relayd listens on: bound once, owned by the
 * supervisor.
 *
 * A reload or an upgrade makes a new set, which takes from the old one the sockets of all addresses
 * that stay: they are never closed, so no connection in their queues is lost.
 */
#ifndef RELAYD_SUPERVISOR_SOCKETS_H
#define RELAYD_SUPERVISOR_SOCKETS_H

#include "relayd/supervisor/owner.h"
#include "relayd/supervisor/role.h"

#include <jansson.h>

struct sockets;

/* Binds all listeners of cfg: one a worker for SMTP (SO_REUSEPORT), one for the rest, and the unix
 * sockets between the roles.  old: a set whose sockets are used where they fit, or NULL; it stays
 * as it is until sockets_commit().  NULL with *err naming the address. */
struct sockets *sockets_bind(const struct config *cfg, const struct owners *owners,
    const struct sockets *old, struct err *err);
/* What fresh has in common with old is fresh's alone now; old and the rest of it are gone. */
void sockets_commit(struct sockets *fresh, struct sockets *old);
/* RUN/control.sock, the supervisor's own. */
int sockets_control(const struct sockets *s);
/* The listeners of a role; for intake of the index-th of n workers, each socket having one. */
size_t sockets_of(const struct sockets *s, enum role_kind kind, unsigned index, unsigned n,
    struct role_listener *out, size_t max);

/* Intake needs a new generation of workers: its listeners or their number changed. */
bool sockets_need_generation(const struct config *old, const struct config *cfg);
bool sockets_same_review(const struct config *a, const struct config *b);
/* What of cfg would need a restart: the first such thing as text, or NULL. */
const char *sockets_need_restart(const struct config *old, const struct config *cfg);

/* As JSON, descriptors by number, for the supervisor that follows by exec; and back
 * (ERR_FORMAT). */
json_t *sockets_encode(const struct sockets *s);
struct sockets *sockets_decode(const json_t *list, struct err *err);
/* Closed on exec, or not. */
void sockets_keep_on_exec(const struct sockets *s, bool keep);
/* Closes what it does not share with another set.  Accepts NULL. */
void sockets_close(struct sockets *s);
/* The same for a set that came to no use: the files of its own unix sockets go too. */
void sockets_undo(struct sockets *s);

#endif
