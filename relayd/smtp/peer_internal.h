/* relayd/smtp/peer_internal.h - a connection to a next hop, for the files that make it up.
 *
 * peer.c holds the session and what the owner asks; peer_connect.c gets a stream for it,
 * peer_sends.c keeps the messages that are queued, peer_body.c hands the bytes of one to the
 * stream.
 */
#ifndef RELAYD_SMTP_PEER_INTERNAL_H
#define RELAYD_SMTP_PEER_INTERNAL_H

#include "relayd/net/round.h"
#include "relayd/net/sockaddr.h"
#include "relayd/smtp/dialogue.h"
#include "relayd/smtp/peer.h"

struct peer {
	uv_loop_t *loop;
	struct round *round;
	struct round_task work; /* what a peer_ function left for the loop */
	struct peer_target target;
	const struct peer_ops *ops;
	void *owner;
	struct race *race; /* while it goes on, stream is NULL */
	struct sockaddr_storage missed[RACE_MAX];
	size_t n_missed;
	struct stream *stream;
	struct smtp_client *client;
	struct peer_send *first, *last; /* those not done, in order: at most SMTP_CLIENT_AHEAD */
	struct peer_send *dropped;      /* cancelled before they began */
	size_t n_sends, n_begun;        /* of them the client has the first n_begun */
	struct peer_send *body;         /* whose message is going out */
	bool body_waits;                /* until peer_body_ready() */
	bool connected, shaking, ready, pumping;
	bool no_tls;            /* a handshake failed: this time in plain text */
	struct err tls_failure; /* then: why */
	bool refs_out;          /* the stream may hold runs of a body */
	bool marked;            /* its end is where stream_mark() was called */
	bool quitting, closing;
	uint64_t count;
	struct err why; /* it closes, where that is known better than by the stream */
	struct smtp_outcome refusal;
	char refusal_text[SMTP_CLIENT_TEXT_MAX];
	char name[SOCKADDR_TEXT_BYTES];
	struct dialogue dialogue;
};

/* ---- peer.c ---- */

extern const struct stream_ops peer_stream_ops;
/* The stream is there; the session begins. */
void peer_on_connect(struct stream *s, void *owner);
/* The deadline is in so many milliseconds. */
void peer_wait(struct peer *p, uint32_t ms);
/* Closes, for that reason where there is none yet; peer_gone() follows, from the loop. */
void peer_drop(struct peer *p, enum err_code code, const char *what);
/* There is no stream any more: tells all, and frees the peer. */
void peer_gone(struct peer *p);

/* ---- peer_connect.c ---- */

/* Begins a session, in plain text where p->no_tls; peer_on_connect() or peer_gone() tells how it
 * went.  -1 with *err when it cannot begin. */
int peer_connect(struct peer *p, struct err *err);
/* The stream has closed.  True: for TLS that failed, and another session has begun, without. */
bool peer_connect_again(struct peer *p, const struct err *why);

/* ---- peer_sends.c ---- */

/* Queues one behind all others, as new. */
void peer_add_send(struct peer *p, struct peer_send *req);
struct peer_send *peer_nth_send(struct peer *p, size_t n); /* there are more than n */
/* The first, with which the client is done, is done: by its outcomes, or by p->why where they
 * lack. */
void peer_end_send(struct peer *p);
/* The peer answered the first before it had all of its message. */
void peer_forget_yes(struct peer_send *req);
/* Takes out one that has not begun; peer_tell_dropped() will tell it. */
void peer_drop_send(struct peer *p, struct peer_send *req);
void peer_tell_dropped(struct peer *p);
/* All that are queued fail, for p->why. */
void peer_fail_sends(struct peer *p);

/* ---- peer_body.c ---- */

/* Writes the next runs of p->body. */
void peer_write_body(struct peer *p);
/* Runs of a body are still to be sent: they may go only when the connection is closed. */
bool peer_runs_wait(const struct peer *p);

#endif
