/* relayd/pipeline/facts/directory_ldap.h - a connection to an LDAP server, for one thread that may
 * block.
 *
 * Private to directory.c.
 */
#ifndef RELAYD_PIPELINE_FACTS_DIRECTORY_LDAP_H
#define RELAYD_PIPELINE_FACTS_DIRECTORY_LDAP_H

#include "relayd/pipeline/facts/directory.h"

struct directory_ldap;

/* A search: outcome is set where answered. */
struct directory_search {
	const char *filter;
	enum directory_outcome outcome;
	bool answered, found;
	int id; /* of its message */
};

/* Connects when first used, and again after a failure.  Borrows all.  authorities: PEM of conf->ca.
 * A server whose certificate they do not vouch for, for the name in its URI, is not spoken to. */
struct directory_ldap *directory_ldap_new(
    const struct config_ldap *conf, struct slice password, struct slice authorities);
void directory_ldap_free(struct directory_ldap *l);
/* Makes n searches, at most DIRECTORY_BATCH_MAX, within the timeout of the config for the
 * connection and again for the answers.  All are answered; "" in said, or why some could not be. */
#define DIRECTORY_SAID_BYTES 256
void directory_ldap_run(struct directory_ldap *l, struct directory_search *searches, size_t n,
    char said[static DIRECTORY_SAID_BYTES]);

#endif
