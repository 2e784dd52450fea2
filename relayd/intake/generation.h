/* relayd/intake/generation.h - all that one config means to intake: immutable and counted.
 *
 * A reload makes another; a transaction ends under the one it began with.
 */
#ifndef RELAYD_INTAKE_GENERATION_H
#define RELAYD_INTAKE_GENERATION_H

#include "relayd/auth/users.h"
#include "relayd/core/arena.h"
#include "relayd/intake/recipients_load.h"
#include "relayd/net/tls.h"
#include "relayd/pipeline/facts/directory.h"
#include "relayd/pipeline/pipeline.h"
#include "relayd/smtp/session.h"
#include "relayd/supervisor/role.h"

struct generation {
	unsigned refs;
	struct config *cfg;
	struct pipeline *pipeline;
	struct users *users;            /* NULL: nobody can log in */
	struct senders *senders;        /* NULL: any user may use any reverse-path */
	struct tls_server *tls;         /* NULL: no certificate */
	struct recipients_tables *recipients;
	struct directory **directories; /* as cfg->ldaps */
	struct generation_listener {
		struct smtp_service service;
		const char *greeting;               /* "HOSTNAME BANNER", or NULL: the usual one */
		struct shared_limits limits;
		/* shared_ip(), shared_net(): clients are counted for this listener alone, or "" */
		const char *apart, *nets_apart;
		uint64_t shared; /* shared_listener() */
		bool implicit;   /* TLS from the first byte */
		bool submission; /* auth = required */
		bool strict_eight_bit;
		const struct config_listener *conf; /* NULL: the config does not name it any more */
		struct config_mechanisms mechanisms;
	} * listeners; /* as those of the role */
	size_t n_listeners;
	struct arena texts; /* of the listeners */
	bool wants_probe;   /* a route asks its next hop for recipients */
};

/* Takes recipients, those of role->config, over in any case.  NULL with *err (ERR_CONFIG with
 * FILE:LINE where a file is wrong).  A listener that the config
 * does not name any more keeps what `old` (or NULL) says, until the restart that it needs. */
struct generation *generation_new(const struct role *role, const struct generation *old,
    struct recipients_tables *recipients, struct err *err);
struct generation *generation_ref(struct generation *gen);
void generation_unref(struct generation *gen);

/* The file of the route's recipients, or NULL. */
const struct recipients *generation_recipients(
    const struct generation *gen, const struct config_route *route);

/* The directory of the route's recipients, or NULL. */
struct directory *generation_directory(
    const struct generation *gen, const struct config_route *route);

#endif
