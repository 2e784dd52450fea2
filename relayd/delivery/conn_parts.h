/* relayd/delivery/conn_parts.h - a connection to a next hop, for conn*.c alone.
 *
 *	conn.c		how it begins, where it counts, and what its end means
 *	conn_pick.c	which one takes the next message, and which is left to others
 */
#ifndef RELAYD_DELIVERY_CONN_PARTS_H
#define RELAYD_DELIVERY_CONN_PARTS_H

#include "relayd/delivery/parts.h"

struct conn {
	struct hop *hop;
	struct conn *next; /* of the hop */
	struct peer *peer;
	struct sockaddr_storage addr;
	struct smtp_outcome refusal; /* what the peer said to end the session, with its text here */
	unsigned in_flight;
	bool ready, leaving, lmtp;
	enum smtp_client_tls tls;
	bool probing; /* whether its address is back: it takes nothing before it is ready */
	struct identity *identity; /* or NULL */
	char login[128];           /* its name, or "" */
	char refusal_text[300];
	char host[256];
	char hostname[256];
	char name[400];
	struct conn_list *list; /* of the delivery, or NULL */
	struct conn *list_prev, *list_next;
	int64_t since_ms; /* when it joined that */
	bool stalled;
	uint16_t target; /* of the next hop */
	bool implicit_tls;
	struct tls_policy policy;           /* that it was opened with */
	struct provider *provider;          /* or NULL */
	struct conn *idle_prev, *idle_next; /* of its idle ones */
	bool idle_there;
	bool offered;    /* its next hop had its share, and others wait there */
	uint64_t before; /* messages sent on it for other next hops */
};

/* Its address, as the next hop has it; NULL: it was looked up again meanwhile. */
struct hop_address *conn_address(const struct conn *conn);
/* It has more or less to do than before: it is the last of those that are as it is now. */
void conn_join_list(struct conn *conn);
/* Its next hop has no use for it, or had its share. */
bool conn_to_spare(const struct conn *conn);
/* It is another next hop's from now on. */
void conn_move(struct conn *conn, struct hop *hop);
/* A new one, which counts at p where that is not NULL; NULL: hop->trouble says why. */
struct conn *conn_open(struct hop *hop, const struct hop_address *a, struct provider *p);

#endif
