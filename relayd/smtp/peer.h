/* relayd/smtp/peer.h - glue: a connection to a next hop that sends message after message.
 *
 * One peer is one connection: SMTP or LMTP, TCP or unix socket, with TLS as the policy says.  It
 * opens with the first send, stays open for the next ones, and leaves by QUIT when it has been
 * idle for idle_ms.  Hand it the next message while one is on its way (peer_can_send()): it then
 * leaves in the same system call as the end of the one before.
 */
#ifndef RELAYD_SMTP_PEER_H
#define RELAYD_SMTP_PEER_H

#include "relayd/net/race.h"
#include "relayd/net/stream.h"
#include "relayd/net/tls.h"
#include "relayd/smtp/client.h"

#define PEER_RIVALS_MAX (RACE_MAX - 1)

struct peer;

struct peer_target {
	struct sockaddr_storage addr;  /* AF_INET, AF_INET6 or AF_UNIX */
	struct sockaddr_storage local; /* to bind to; AF_UNSPEC: any */
	/* Other addresses of the same host, which race with it (net/race.h). */
	struct race_way rivals[PEER_RIVALS_MAX];
	size_t n_rivals;
	bool lmtp;
	enum smtp_client_tls tls;      /* MUST verifies the chain and tls_name, */
	bool any_certificate;          /* but not with this */
	bool implicit_tls;             /* from the first byte; with MUST */
	bool no_bdat;                  /* as if CHUNKING were not offered */
	struct tls_client *tls_client; /* unless tls is OFF */
	const char *tls_name;          /* host name for SNI and verification */
	const char *hostname;          /* ours, for EHLO */
	struct smtp_login *login;      /* no message goes out before it; NULL: none is wanted */
	uint32_t connect_ms;           /* 0: 30 s */
	uint32_t reply_ms;             /* upper limit on RFC 5321's timeouts; 0: none */
	uint32_t idle_ms;              /* 0: 5 s */
};

enum peer_body {
	PEER_BODY_MORE,   /* runs were given, and more are to come */
	PEER_BODY_END,    /* these were the last (there may be none) */
	PEER_BODY_WAIT,   /* none yet: peer_body_ready() will tell */
	PEER_BODY_FAILED, /* the message cannot be read: the connection is dropped, ERR_SYS */
};

#define PEER_RUNS       32
#define PEER_RUNS_BYTES (4u << 20) /* of all runs of one call together, at most */

/* A message on its way.  A request: done() runs exactly once, never inside peer_send_start(). */
struct peer_send {
	struct smtp_tx tx; /* paths and flags in, outcomes out */
	/* Gives the next runs of the body, at most PEER_RUNS and PEER_RUNS_BYTES in all; they stay
	 * valid until it is called again or done() runs.  Runs of 64 KiB to 1 MiB are best.  NULL
	 * with SMTP_TX_PROBE. */
	enum peer_body (*body)(struct peer_send *req, struct slice *runs, size_t *n);
	/* err is NULL when every recipient has an outcome; else recipients with code 0 have none:
	 * the connection failed.  Outcomes' texts live until done() returns. */
	void (*done)(struct peer_send *req, const struct err *err);

	/* Filled in before done(), and of use with err alone. */

	/* The connection broke, or was ended by 421, before the peer said a word about it, by no
	 * fault of this message: another connection may do, at once. */
	bool untried;
	bool maybe; /* with err: the final dot was sent, the peer may have taken the message */
	struct smtp_outcome refusal; /* what the peer said to end the session, or code 0 */

	/* smtp/peer.c's own from here on: zero */
	struct peer *peer;
	struct peer_send *next;
	struct smtp_stuffer stuffer;
	bool cancelled, body_out, ends_cr, not_crlf;
	uint64_t body_bytes; /* of the body, so far */
};

struct peer_ops {
	/* May be NULL: the session is open, or one send less is queued: peer_can_send(). */
	void (*on_ready)(struct peer *p, void *owner);
	/* Once, after the last done(); the peer is gone when it returns. */
	void (*on_close)(struct peer *p, void *owner, const struct err *why);
};

/* Begins to connect.  target is copied, its strings are borrowed for the life of the peer. */
struct peer *peer_open(uv_loop_t *loop, const struct peer_target *target,
    const struct peer_ops *ops, void *owner, struct err *err);
/* True when a send would be taken: fewer than SMTP_CLIENT_AHEAD are queued and the peer stays
 * open. */
bool peer_can_send(const struct peer *p);
/* Queues req, also before the connection is there.  Only where peer_can_send() is true. */
void peer_send_start(struct peer *p, struct peer_send *req);
/* done() comes with ERR_CANCELLED.  One that has begun takes the connection with it. */
void peer_send_cancel(struct peer_send *req);
/* After PEER_BODY_WAIT. */
void peer_body_ready(struct peer_send *req);
/* Leaves by QUIT after what is queued; no send is taken any more. */
void peer_quit(struct peer *p);
/* Drops the connection; what is queued is done with ERR_CANCELLED. */
void peer_close(struct peer *p);

bool peer_idle(const struct peer *p);
/* What was said of late, without messages and the secrets of a login: lines "C: ..." and "S: ...",
 * each cut, DIALOGUE_BYTES at most of them: the older ones are forgotten. */
struct slice peer_dialogue(const struct peer *p);
/* Messages that were sent on it so far. */
uint64_t peer_count(const struct peer *p);
/* Set of enum smtp_client_cap; 0 until it is ready. */
unsigned peer_caps(const struct peer *p);
/* RCPTMAX of the peer; 0: none, or not known yet. */
uint32_t peer_rcpt_max(const struct peer *p);
bool peer_tls_info(const struct peer *p, struct tls_info *info);
/* TLS was tried and failed, and this is a session without: why.  Else NULL. */
const char *peer_tls_failure(const struct peer *p);
/* It offers CHUNKING and does not know BDAT. */
bool peer_knows_no_bdat(const struct peer *p);
/* The one that it is connected to, or else the first. */
const struct sockaddr_storage *peer_addr(const struct peer *p);
/* Addresses that lost a race although they had a head start, or failed; NULL: there are no more
 * than i. */
const struct sockaddr_storage *peer_missed(const struct peer *p, size_t i);
/* "192.0.2.1:25" or "unix:/path", for log and errors. */
const char *peer_name(const struct peer *p);

#endif
