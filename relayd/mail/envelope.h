/* relayd/mail/envelope.h - who sent a message to whom, and what becomes of each copy.
 *
 * The bytes as received (CRLF, not dot-stuffed) plus an envelope is all that relayd keeps of a
 * message.  A copy is a set of edits, the forward-paths it goes to and the kind of route it takes;
 * the bytes themselves are never rewritten.  The encoding is what the spool stores.
 */
#ifndef RELAYD_MAIL_ENVELOPE_H
#define RELAYD_MAIL_ENVELOPE_H

#include "relayd/core/arena.h"
#include "relayd/core/buf.h"
#include "relayd/core/err.h"
#include "relayd/core/id.h"

#define ENVELOPE_VERSION        4	/* what is written; older ones are read */
#define ENVELOPE_BYTES_MAX      (4u << 20)	/* encoded, and of all that its edits insert */
#define ENVELOPE_COPIES_MAX     1000
#define ENVELOPE_RCPTS_MAX      100000
#define ENVELOPE_EDITS_MAX      10000

enum envelope_flag {
	ENVELOPE_8BIT = 1,	/* BODY=8BITMIME */
	ENVELOPE_UTF8 = 2,	/* SMTPUTF8, and header or reverse-path need it */
	ENVELOPE_DOTS = 4,	/* a line of the message begins with a dot: stuff it when sending */
	ENVELOPE_OUTBOUND = 8,
	ENVELOPE_AUTHENTIC = 16, /* SPF passed: a permanent failure may become a bounce */
	ENVELOPE_BOUNCE = 32,	/* made by us: never bounced again */
	/* Since version 2: */
	ENVELOPE_BINARY = 64,	/* BODY=BINARYMIME, and no other way can carry it (RFC 3030) */
	ENVELOPE_REQUIRETLS = 128, /* verified TLS all the way (RFC 8689) */
	ENVELOPE_TLS_OPTIONAL = 256, /* TLS-Required: no */
};

enum envelope_route {
	ENVELOPE_FORWARD,	/* by the route of each forward-path's domain */
	ENVELOPE_QUARANTINE,	/* to the quarantine */
};

/* What a message of ours says about its origin. */
enum envelope_tells {
	ENVELOPE_TELLS_NOTHING,
	ENVELOPE_TELLS_SENT,	/* recipients have it: a report that somebody asked for */
	ENVELOPE_TELLS_BOUNCED,	/* they failed for good, or the like of SENT beside such */
	ENVELOPE_TELLS_QUARANTINED, /* they failed for good: a copy for the quarantine */
	ENVELOPE_TELLS_LATE,	/* the message as a whole is late */
};

/* At byte `at` of the message, `remove` bytes go and `insert` comes.  Sorted by at, disjoint. */
struct envelope_edit {
	uint64_t at, remove;
	struct slice insert;
};

struct envelope_rcpt {
	struct slice forward_path;	/* without <> */
	struct slice params; /* ESMTP parameters to hand on ("NOTIFY=NEVER ORCPT=..."), or empty */
};

struct envelope_copy {
	enum envelope_route route;
	struct slice reason;		/* quarantine: why ("score", "undeliverable"), else empty */
	struct envelope_edit *edits;
	size_t n_edits;
	struct envelope_rcpt *rcpts;
	size_t n_rcpts;
};

struct envelope {
	struct id id;
	int64_t received_ms;		/* wall clock */
	uint32_t flags;			/* set of enum envelope_flag */
	uint64_t size;			/* bytes of the message as received */
	struct slice reverse_path;	/* without <>; empty: the null reverse-path */
	struct slice params;		/* ESMTP parameters of MAIL to hand on (RET=, ENVID=) */
	struct slice client_ip;		/* as text */
	struct slice client_addr;	/* 4 or 16 bytes, or empty */
	struct slice helo;
	struct slice auth_user;
	struct slice listener;
	struct slice release_key; /* item and recipient: delivered once for one key; else empty */
	struct id origin;		/* release, bounce: the message it comes from; else zero */
	struct envelope_copy *copies;
	size_t n_copies;
	enum envelope_tells tells;	/* since version 3 */
	uint32_t *about; /* whom of the origin's recipients, counted over all its copies */
	size_t n_about;
};

/* Appends the encoding to out; out->overflow when it did not fit, or its edits insert too much. */
void envelope_encode(const struct envelope *env, struct buf *out);
/* All slices and arrays are copied into the arena.  ERR_FORMAT on anything malformed, also on edits
 * that overlap or leave the message, ERR_VERSION on a newer one, ERR_LIMIT past a bound or the
 * arena. */
int envelope_decode(struct slice bytes, struct arena *arena, struct envelope *env, struct err *err);

/* The id alone, without decoding the rest.  ERR_FORMAT, ERR_VERSION. */
int envelope_peek_id(struct slice bytes, struct id *id, struct err *err);

/* The size of a copy in bytes, edits applied. */
uint64_t envelope_copy_size(const struct envelope *env, const struct envelope_copy *copy);

/* Walks a copy as runs of bytes: each is either a slice of an edit or a range of the message. */
struct envelope_walk {
	const struct envelope *env;
	const struct envelope_copy *copy;
	size_t next_edit;
	uint64_t at;		/* in the message */
	bool inserted;
};
struct envelope_run {
	struct slice literal;	/* of an edit, when len > 0 */
	uint64_t from, len;	/* else this range of the message */
};
struct envelope_walk envelope_walk_of(const struct envelope *env, const struct envelope_copy *copy);
/* False at the end. */
bool envelope_walk_next(struct envelope_walk *walk, struct envelope_run *run);

#endif
