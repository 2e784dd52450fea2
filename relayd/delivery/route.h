/* relayd/delivery/route.h - which next hop the mail for a domain goes to.
 *
 * A next hop is named by its key, a text: "opportunistic mail1.corp:25,mail2.corp:25", "verify
 * mx:example.org", "quarantine off lmtp:/run/relayd/quarantine.sock".  Where the route says more
 * than hosts and TLS, its name is in the key: "off route=example.org mail1.corp:25", and "login"
 * behind it where we log in.  "fallback:" stands in front of a target that is used when the others
 * cannot be reached.  Equal keys share connections, back-off and a place in the queue, whichever
 * domains or configs they come from; so a reload that changes no route changes no key.  No I/O
 * here.
 */
#ifndef RELAYD_DELIVERY_ROUTE_H
#define RELAYD_DELIVERY_ROUTE_H

#include "relayd/auth/identity.h"
#include "relayd/core/config.h"
#include "relayd/core/err.h"
#include "relayd/smtp/nexthop.h"

#define ROUTE_KEY_BYTES         4096
#define ROUTE_TARGETS_MAX       32
#define ROUTE_FALLBACK_PRIORITY 1000 /* the largest of the others */

struct routes; /* of one config; immutable */

struct routes *routes_new(const struct config *cfg, struct err *err);
void routes_free(struct routes *r);

/* The key of the next hop for a forward-path without <>.  A domain that no route names, not
 * even "*", goes by its MX records; an address literal there is its own next hop (RFC 5321 section
 * 4.1.3); a path without a domain is that of the config's postmaster.  ERR_FORMAT when the
 * domain can have no next hop, and the recipient has failed for good. */
int routes_key(const struct routes *r, struct slice forward_path, char out[static ROUTE_KEY_BYTES],
    struct err *err);
/* The same with another TLS policy in it, for one message: ERR_LIMIT when it does not fit. */
int routes_set_tls(char key[static ROUTE_KEY_BYTES], enum config_tls tls, struct err *err);
/* The key leads to MX records, whose TLS policy is ours and not agreed with anybody. */
bool routes_by_mx(const char *key);
/* Next hops that the admin chose instead of a route ("mail3.corp:25,mail4.corp"), in the form that
 * keys and the journal have.  ERR_FORMAT: what is wrong. */
int routes_via(const char *text, char *out, size_t out_len, struct err *err);
/* The key of such for a forward-path: with the TLS that its route asks for, and without its login,
 * which is for the route's own hosts. */
void routes_via_key(const struct routes *r, struct slice forward_path, const char *via,
    char out[static ROUTE_KEY_BYTES]);
/* That of all quarantine copies. */
const char *routes_quarantine_key(const struct routes *r);
/* The forward-path as it is sent: the config's postmaster for a path without a domain. */
struct slice routes_path(const struct routes *r, struct slice forward_path);
/* Whether a next hop with this key is still some route's; for "mx:" keys that of its domain.  False
 * for an address literal's: who asks has to look at the paths. */
bool routes_has(const struct routes *r, const char *key);

/* A next hop, read back from its key.  Targets stand in the order of the config, each with its
 * priority: those of a fallback, the last ones, from ROUTE_FALLBACK_PRIORITY on. */
struct route_hop {
	const char *key;   /* a copy */
	const char *name;  /* the part of it that is shown: the targets */
	const char *route; /* whose source, helo, connections and rate are used; or NULL */
	bool login;        /* no mail goes out before it */
	enum config_tls tls;
	bool quarantine; /* never expires, never bounces: any refusal leaves the message queued */
	size_t n_targets;
	size_t n_normal; /* of them: the others are for when none of these can be reached */
	struct nexthop targets[];
};

/* The route that a next hop names, or NULL. */
const struct config_route *routes_named(const struct routes *r, const struct route_hop *hop);
/* Who we are there: for a hop with login, else NULL.  NULL with *err also when the route is gone,
 * or its password is not known. */
struct identity *routes_identity(
    const struct routes *r, const struct route_hop *hop, struct err *err);
/* ERR_FORMAT for what no routes_key() ever gave. */
struct route_hop *route_hop_new(const char *key, struct err *err);
void route_hop_free(struct route_hop *hop);

#endif
