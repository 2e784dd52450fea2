/* relayd/delivery/outcome.h - what a reply of the next hop means for one recipient.
 *
 * One table decides who is told: the sender by a bounce, the admin by a copy in the
 * quarantine, or nobody but the log.  Pure.
 */
#ifndef RELAYD_DELIVERY_OUTCOME_H
#define RELAYD_DELIVERY_OUTCOME_H

#include "relayd/mail/envelope.h"
#include "relayd/smtp/client.h"

enum outcome {
	OUTCOME_SENT,
	OUTCOME_DEFERRED,    /* tried again by the schedule */
	OUTCOME_BOUNCED,     /* failed for good: the sender is told (RFC 5321 section 6.1) */
	OUTCOME_QUARANTINED, /* failed for good: a copy is held, reason undeliverable */
	OUTCOME_LOST,        /* failed for good, and there is nobody to tell */
	OUTCOME_DUPLICATE,   /* a release that was made before */
	OUTCOME_DROPPED,     /* by the admin */
	OUTCOME_RELAYED, /* sent, and the sender wants to know: the next hop would not tell him */
	OUTCOME_LEFT,    /* not asked for: the transaction was full (RFC 9422) */
};

struct outcome_case {
	unsigned code;      /* of the reply; 0: there was none */
	bool over_limit;    /* 552 to one RCPT among others that were taken: outcome_over_limit() */
	bool expired;       /* too old for another attempt */
	bool quarantine;    /* the next hop is the quarantine */
	bool to_postmaster; /* it is a bounce of ours, and none about a bounce */
	bool to_nobody;     /* the null reverse-path, or NOTIFY does not ask for failures */
	bool as_ascii;      /* it is a report, and bounce_wants_ascii() */
	bool left_over;     /* smtp_outcome's */
	bool wants_relayed; /* outcome_wants_relayed() */
	uint32_t flags;     /* of the envelope */
};

enum outcome outcome_of(const struct outcome_case *c);
/* "sent", "deferred", "bounced", "quarantined", "lost", "duplicate", "dropped": in traces and
 * journals. */
const char *outcome_name(enum outcome outcome);

/* What the next attempt after a deferral should be. */
enum outcome_next {
	OUTCOME_NEXT_BY_SCHEDULE,
	OUTCOME_NEXT_SOON, /* greylisted (RFC 6647): after delay_s, or by the schedule if sooner */
	OUTCOME_NEXT_AT_ONCE, /* too many recipients: the rest in another transaction */
	OUTCOME_NEXT_HOST,    /* that host is in trouble: another one of the next hop at once */
};

#define OUTCOME_SOON_S     300 /* where the reply names no time */
#define OUTCOME_SOON_MIN_S 10
#define OUTCOME_SOON_MAX_S 900

struct outcome_advice {
	enum outcome_next next;
	uint32_t delay_s; /* with SOON */
};

/* By a table of codes.  command: as in struct smtp_outcome, or NULL where the session was refused
 * or ended; n_taken: recipients of the transaction that were taken. */
struct outcome_advice outcome_advice(
    unsigned code, struct slice enhanced, struct slice text, const char *command, size_t n_taken);

/* RFC 5321 section 4.5.3.1.10: 552 to a RCPT may stand for 452, too many recipients.  True where
 * another recipient was taken and the enhanced code does not say otherwise ("5.2.2"). */
bool outcome_over_limit(const struct smtp_outcome *reply, size_t n_taken);

/* The reverse-path is null, or NOTIFY=NEVER, or another NOTIFY without FAILURE (RFC 3461 section
 * 4.1): no bounce. */
bool outcome_to_nobody(const struct envelope *env, struct slice rcpt_params);

/* NOTIFY asks for success, and a next hop with these capabilities does not report it (RFC 3461
 * section 5.2.2).  Nobody hears of it whose sender did not prove himself: he may not be the
 * sender. */
bool outcome_wants_relayed(const struct envelope *env, struct slice rcpt_params, unsigned caps);

/* Its sender may be told that it is late: he is known to be who he says, and NOTIFY asks for DELAY
 * or was not given. */
bool outcome_warns(const struct envelope *env, struct slice rcpt_params);

/* The enhanced status code for a report: that of the reply, else the nearest to its code
 * ("5.0.0"), else for an expired message 4.4.7 (RFC 3463 section 3.5). */
struct slice outcome_status(unsigned code, struct slice enhanced, bool expired);

#endif
