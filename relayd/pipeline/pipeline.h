/* relayd/pipeline/pipeline.h - filters judge a message, stage by stage, before it is answered.
 *
 * A pipeline is the filters and policies of one config generation: immutable and counted.  A
 * session is one client connection, a transaction one message of it.  A run takes one of them
 * through one stage; its result is as if the filters had run one after the other, in the order of
 * the config, each waiting for its facts (include/relayd/filter.h).
 *
 *	run->session = s;  run->tx = tx;  run->rcpt = ...;  run->done = on_rcpt_judged;
 *	if (pipeline_start(run, FILTER_RCPT))
 *		on_rcpt_judged(run);		// the common case: nothing to wait for
 *
 * Everything here belongs to one loop.  A session has at most one run at a time.
 */
#ifndef RELAYD_PIPELINE_PIPELINE_H
#define RELAYD_PIPELINE_PIPELINE_H

#include "relayd/core/config.h"
#include "relayd/core/id.h"
#include "relayd/mail/envelope.h"

#include <relayd/filter.h>

struct pipeline;
struct pipeline_session;
struct pipeline_tx;
struct facts; /* where facts come from, facts/facts.h; one a process */
struct trace; /* where traces go, trace.h; may be NULL */

/* ---- a generation ------------------------------------------------------------------------- */

/* Builds the filters of cfg, of which it takes a reference.  builtin ends with NULL (it is
 * role_filters).  NULL with *err: ERR_CONFIG, "FILE:LINE: what is wrong". */
struct pipeline *pipeline_new(
    const struct config *cfg, const struct filter *const *builtin, struct err *err);
struct pipeline *pipeline_ref(struct pipeline *pl);
void pipeline_unref(struct pipeline *pl);
/* "FILE:LINE: what is odd"; n counts from 0, NULL at the end. */
const char *pipeline_warning(const struct pipeline *pl, size_t n);

/* ---- sessions ------------------------------------------------------------------------------ */

struct pipeline_client {
	struct id id;         /* of the session */
	struct slice addr;    /* 4 or 16 bytes, v4-mapped normalised; empty: unix socket */
	const char *listener; /* its name in the config; lives as long as the process */
	bool auth_required;   /* the listener's: mail from here is never inbound */
	bool trusted;         /* from networks */
	bool release;         /* released mail: only filters marked on-release, no fields */
	void *owner;          /* for the source of facts about clients; may be NULL */
	bool dry;             /* scan: no reservations, no trace, no events */
};

/* Copies what it is given, but for the listener's name, and takes references of pl; facts and trace
 * outlive it.  NULL when out of memory. */
struct pipeline_session *pipeline_session_new(struct pipeline *pl, struct facts *facts,
    struct trace *trace, const struct pipeline_client *client);
/* What changed about the client.  Facts and findings that rest on the old value are dropped; run
 * FILTER_HELO again after a new HELO.  Never during a run.  False when out of memory. */
bool pipeline_session_helo(struct pipeline_session *s, struct slice helo);
/* As given; empty before it, and after STARTTLS until it is given again. */
struct slice pipeline_session_name(const struct pipeline_session *s);
/* HELO is to be given again, and AUTH; trusted: what the client is without a login. */
bool pipeline_session_tls(struct pipeline_session *s, bool trusted);
/* The client showed a certificate that may relay. */
void pipeline_session_trust(struct pipeline_session *s);
bool pipeline_session_auth(struct pipeline_session *s, struct slice user, bool trusted);
/* The transactions to come are judged by pl (after a reload), which may trust the client more or
 * less.  Never within a transaction. */
void pipeline_session_move(struct pipeline_session *s, struct pipeline *pl, bool trusted);
/* Something that the trace should tell ("recipient" "550 no such user"); tx may be NULL. */
void pipeline_note(struct pipeline_session *s, struct pipeline_tx *tx, const char *what,
    struct slice subject, struct slice text);
/* Ends the session; its transactions have ended.  Writes the session's trace when it ended
 * refused: after a note or verdict outside any transaction that was accepted.  NULL is fine. */
void pipeline_session_free(struct pipeline_session *s);

/* ---- transactions --------------------------------------------------------------------------- */

/* Begins a message: at MAIL, before FILTER_MAIL runs.  reverse_path without <>.  NULL when out
 * of memory. */
struct pipeline_tx *pipeline_tx_begin(
    struct pipeline_session *s, struct id id, struct slice reverse_path);
/* Only the first n recipients stay: what was counted for the others is given back. */
void pipeline_tx_trim(struct pipeline_tx *tx, size_t n);
/* It is to leave no trace: one of a flood. */
void pipeline_tx_hush(struct pipeline_tx *tx);
/* Ends it, whatever became of it; accepted: it got a 250 (then counters are kept), and answer (may
 * be empty) is what the client was told.  The trace is written but after pipeline_tx_hush().  tx
 * and the copies are gone then; a filter that still runs in the pool has its own copy of what it
 * reads.  NULL is fine. */
void pipeline_tx_end(struct pipeline_tx *tx, bool accepted, struct slice answer);

/* The bytes as received.  The transaction takes it over when FILTER_MESSAGE starts and calls
 * release exactly once, in pipeline_tx_end(); after the run is done nobody reads the bytes. */
struct pipeline_message {
	struct slice bytes;
	void (*release)(struct pipeline_message *msg); /* may be NULL */
};

enum pipeline_answer {
	PIPELINE_GO_ON,   /* 250: next command; after FILTER_MESSAGE: keep the copies */
	PIPELINE_DISCARD, /* after FILTER_MESSAGE only: 250, keep nothing */
	PIPELINE_DEFER,   /* reply is a 4xx, nothing is kept */
	PIPELINE_REJECT,  /* reply is a 5xx, nothing is kept */
	PIPELINE_CANCELLED,
};

struct pipeline_reply {
	unsigned code;     /* 450, 550, ...; 0 with GO_ON and DISCARD */
	char enhanced[12]; /* "5.7.1" */
	char text[320];    /* printable ASCII; names the check and the id to look up */
	const char *help;  /* the filter's own, of the config; or NULL */
};

/* What became of one recipient after FILTER_MESSAGE, in the order they were added. */
struct pipeline_rcpt_result {
	enum pipeline_answer answer; /* GO_ON also where it goes to the quarantine */
	bool quarantine;
	const struct pipeline_reply *reply; /* for PRDR and LMTP; NULL with GO_ON and DISCARD */
	double score;
};

struct pipeline_job;

/* One stage.  Owned by the caller, zeroed before its first use, reusable. */
struct pipeline_run {
	/* set by the caller */
	struct pipeline_session *session;
	struct pipeline_tx *tx;           /* NULL at FILTER_CONNECT and FILTER_HELO */
	struct envelope_rcpt rcpt;        /* FILTER_RCPT: added to tx when the answer is GO_ON */
	struct pipeline_message *message; /* FILTER_MESSAGE */
	struct slice fields;              /* FILTER_MESSAGE: whole lines to put on top (Received) */
	bool per_recipient; /* FILTER_MESSAGE: the client takes a reply for each (PRDR, LMTP) */
	void (*done)(struct pipeline_run *run);

	/* the result; strings and arrays live as long as tx (at CONNECT and HELO: the session) */
	enum pipeline_answer answer;
	struct pipeline_reply reply;
	const char *check; /* the filter or finding that decided, or "" */
	/* after FILTER_MESSAGE */
	const char *verdict;          /* "accept" "tag" "quarantine" "reject" "defer" "discard" */
	const char *reason;           /* "" "score" "filter" "error" */
	double score;                 /* of the recipient judged most harshly */
	struct slice findings;        /* "ZEN=4.0,SPF_FAIL=5.0" */
	struct envelope_copy *copies; /* with GO_ON */
	size_t n_copies;
	const struct pipeline_rcpt_result *rcpts;
	size_t n_rcpts;
	bool authentic; /* SPF passed: ENVELOPE_AUTHENTIC */
	bool outbound;  /* ENVELOPE_OUTBOUND */
	bool dots, eight_bit; /* an edit of a filter wants ENVELOPE_DOTS, ENVELOPE_8BIT */

	struct pipeline_job *job; /* private */
};

/* True: the stage is over and the result is there; done is not called.  False: done will be
 * called once, from the loop.  Out of memory is a DEFER. */
bool pipeline_start(struct pipeline_run *run, enum filter_stage stage);
/* Ends a run that was started with false and is not done: done is called soon, from the loop, with
 * PIPELINE_CANCELLED.  Harmless on any other. */
void pipeline_cancel(struct pipeline_run *run);

/* The direction of mail from this session now (INTERFACE.md section 3). */
bool pipeline_outbound(const struct pipeline_session *s);

#endif
