/* relayd/delivery/bounce.h - the messages that delivery itself writes: what is in them, and their
 * envelopes.
 *
 * Pure: the same input gives the same message.
 */
#ifndef RELAYD_DELIVERY_BOUNCE_H
#define RELAYD_DELIVERY_BOUNCE_H

#include "relayd/core/arena.h"
#include "relayd/core/buf.h"
#include "relayd/core/config.h"
#include "relayd/mail/envelope.h"

#define BOUNCE_BYTES_MAX (1u << 20)
/* Listeners in the envelopes of reports: a bounce whose own delivery fails goes to the postmaster,
 * the others are about nothing that can be mended. */
#define BOUNCE_LISTENER  "bounce"
#define DOUBLE_LISTENER  "double-bounce"
#define WARNING_LISTENER "warning"

/* A recipient that failed for good, or has what its sender wants to know of, and what was said. */
struct report_rcpt {
	uint32_t ordinal;
	unsigned code;    /* 0: no reply */
	bool local;       /* it was us who said so */
	bool good;        /* it has it, or a host that does not report has */
	bool delivered;   /* good: that was the last hop */
	int64_t tried_ms; /* of a warning: the last attempt, wall clock; 0: there was none */
	struct slice enhanced, text;
};

struct bounce_rcpt {
	const struct envelope_rcpt *rcpt;
	struct report_rcpt reply;
};

struct bounce {
	const struct config *cfg;
	struct id id;
	const struct envelope *original; /* of a report: see bounce_wants_ascii() */
	struct slice head;   /* the message, or as much as is at hand: its header at least */
	struct slice remote; /* the host that answered, or empty */
	const struct bounce_rcpt *rcpts;
	size_t n_rcpts;
	int64_t now_ms; /* wall clock */
	bool delayed;   /* not failed: a warning */
};

/* Appends the report (RFC 3464) to the original's reverse-path, or where that is null to the
 * config's postmaster, and fills in its envelope: the null reverse-path, ENVELOPE_BOUNCE, origin.
 * *env borrows of the original and arena. */
int bounce_build(const struct bounce *b, struct buf *out, struct arena *arena, struct envelope *env,
    struct err *err);

/* A report of ours that a next hop cannot take, for want of 8BITMIME.  Nobody would hear of it:
 * what bounce_build() makes of it is the same report in ASCII, to its own receiver. */
bool bounce_wants_ascii(
    const struct envelope *env, unsigned code, struct slice enhanced, bool local);

/* The envelope of a copy for the quarantine, reason undeliverable, of the original's bytes: the
 * fields that a quarantine gets on top, then what the recipients' own copy has. */
int undeliverable_envelope(const struct envelope *original, struct id id,
    const struct report_rcpt *rcpts, size_t n, struct arena *arena, struct envelope *env,
    struct err *err);

#endif
