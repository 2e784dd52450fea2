/* relayd/review/visitors.h - how many connections there are, in all and from one client.
 *
 * For IMAP, POP3 and HTTP together, against `limits { connections  connections-per-ip }`.  Clients
 * are counted by their address, an IPv6 one by its /64.
 */
#ifndef RELAYD_REVIEW_VISITORS_H
#define RELAYD_REVIEW_VISITORS_H

#include "relayd/core/config.h"

#include <sys/socket.h>

struct visitors;

struct visitors *visitors_new(const struct config *cfg, struct err *err);
/* Other limits from now on. */
void visitors_reload(struct visitors *v, const struct config *cfg);
void visitors_free(struct visitors *v); /* accepts NULL */

/* Counts a connection and returns its ticket; 0, and nothing is counted, at a limit: then the
 * limit was logged and the connection is to be refused.  service: "imap". */
uint64_t visitors_join(struct visitors *v, const struct sockaddr *peer, const char *service);
void visitors_leave(struct visitors *v, uint64_t ticket);

#endif
