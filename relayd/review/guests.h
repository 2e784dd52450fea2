/* relayd/review/guests.h - the connections of one service of the review role (IMAP, POP3, HTTP):
 * taken over, under TLS from the first byte where that is wanted, counted among the visitors, told
 * in the log, and waited for until the last has gone.
 *
 * What a service keeps for a connection begins with a struct guest and is allocated here, zeroed.
 * It is also the owner of the stream.  The service calls guest_leaves() in on_close() and
 * guest_free() when nothing of its own is under way either, then or later.
 */
#ifndef RELAYD_REVIEW_GUESTS_H
#define RELAYD_REVIEW_GUESTS_H

#include "relayd/core/counters.h"
#include "relayd/core/id.h"
#include "relayd/net/stream.h"
#include "relayd/review/visitors.h"

struct guests;

/* For the service to read. */
struct guest {
	struct guests *all;
	struct guest *next, **prev;
	struct stream *stream; /* NULL: the connection is gone */
	struct id session;
	uint64_t ticket;  /* of visitors_join() */
	uint8_t addr[16]; /* ip_of() the client */
	size_t addr_len;
};

/* What a service is; it outlives its guests. */
struct guests_service {
	const char *name, *name_tls; /* "imap", "imaps": for the log */
	size_t bytes;                /* of what begins with a struct guest */
	bool told;                   /* connections are logged, and counted in open */
	enum counter open;
	const struct stream_ops *stream;     /* on_tls: guest_on_tls() */
	void (*on_begin)(struct guest *g);   /* there is a stream, and TLS if it was wanted */
	void (*on_goodbye)(struct guest *g); /* the role is to end: it should leave soon */
	const char *busy; /* said in plain text to who cannot be taken in; or NULL */
};

struct guests {
	const struct guests_service *service;
	uv_loop_t *loop;
	struct visitors *visitors;
	struct tls_server *tls; /* referenced; NULL: nobody comes in under TLS */
	struct guest *first;
	bool draining;
	void (*on_drained)(void *arg);
	void *drained_arg;
};

/* All three are borrowed. */
void guests_init(struct guests *all, const struct guests_service *service, uv_loop_t *loop,
    struct visitors *visitors);
/* After guests_close(), when there are none. */
void guests_fini(struct guests *all);

/* For connections from now on; takes a reference; may be NULL. */
void guests_set_tls(struct guests *all, struct tls_server *tls);
/* Takes over a connected socket.  Nobody comes in after guests_drain() or over a limit. */
void guests_accept(struct guests *all, int fd, const struct sockaddr *peer, bool tls);
/* Says goodbye to all; done() comes once, when the last has left, from the loop or at once. */
void guests_drain(struct guests *all, void (*done)(void *arg), void *arg);
/* Drops all connections; the loop must run until guests_is_idle(). */
void guests_close(struct guests *all);
bool guests_is_idle(const struct guests *all);

/* For the service's stream_ops. */
void guest_on_tls(struct stream *stream, void *owner);
/* Under TLS, or on this machine: a password may be said. */
bool guest_is_private(const struct guest *g);
struct slice guest_addr(const struct guest *g);
/* The stream has closed, for the reason that on_close() has. */
void guest_leaves(struct guest *g, const struct err *why);
/* The last that is done with it; its stream is gone. */
void guest_free(struct guest *g);

#endif
