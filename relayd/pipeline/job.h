/* relayd/pipeline/job.h - filters at work on one stage, each in a slot, in order.
 *
 * A slot runs its filter again whenever what it waited for is there.  What a run found is taken
 * over when all slots in front have ended; until then it may only run ahead, to have cheap facts
 * fetched.  Private to relayd/pipeline.
 */
#ifndef RELAYD_PIPELINE_JOB_H
#define RELAYD_PIPELINE_JOB_H

#include "relayd/pipeline/inside.h"

#define JOB_RUNS_MAX      200 /* of one filter on one stage: more is a filter that never settles */
#define JOB_RUN_BYTES_MAX (16u << 20) /* of what one run allocates and finds */

struct pipeline_job;
struct copy_plan;

enum slot_state {
	SLOT_NEW,
	SLOT_WAITING, /* for facts */
	SLOT_BLOCKED, /* for its turn, to ask for what is costly */
	SLOT_READY,   /* ran ahead to its end; taken over when its turn comes */
	SLOT_WORKING, /* in the pool, or in line for it */
	SLOT_DONE,
};

/* What a run asked for and did not get. */
struct want {
	struct want *next;
	enum fact_kind kind;
	struct slice name;
	const struct filter_limit *limit; /* a counter instead of a fact */
	struct known_fact *fact;          /* once it is asked for */
	struct reservation *reservation;
};

struct slot_edit {
	struct slot_edit *next;
	struct filter_edit edit;
};

/* What a heavy run may see of the outside. */
struct frozen {
	struct known_fact *facts;
	struct reservation_answer {
		struct reservation_answer *next;
		struct slice key;
		int answer;
	} * answers;
	struct filter_session session;
};

struct slot {
	struct filter_tx face; /* first: the host finds the slot by it */
	struct pipeline_job *job;
	const struct module *module;
	enum filter_stage stage;
	enum slot_state state;
	bool turn;                  /* all slots in front have ended */
	struct frozen *frozen;      /* runs in the pool */
	struct content *content;    /* NULL before FILTER_MESSAGE */
	struct content own_content; /* of a heavy one: over own_bytes */
	char *own_bytes;
	struct filter_envelope envelope;
	unsigned copy; /* of a shaper: index of the copy */

	/* of its latest run, all in out.arena */
	enum filter_status status, pool_status;
	struct scope out;
	struct want *wants, **wants_end;
	struct slot_edit *edits, **edits_end;
	bool exhausted;

	unsigned runs;
	int64_t first_us;
	struct facts_work work;
};

struct pipeline_job {
	unsigned refs;            /* its owner, its open timer, each slot in the pool */
	struct pipeline_run *run; /* NULL once it is over */
	struct pipeline_session *session;
	struct pipeline_tx *tx;  /* or NULL */
	struct tx_rcpt *rcpt;    /* FILTER_RCPT */
	enum filter_stage stage; /* what it is for; slots may be of earlier ones */
	struct copy_plan *plan;  /* of shapers, for their owner */
	bool late;               /* past its deadline: facts fail at once */
	bool stopped;            /* refused before the message: no other filter matters */
	bool no_room;            /* for a verdict: the message has to wait */
	uv_timer_t timer;
	bool timer_open;
	void (*finished)(
	    struct pipeline_job *job); /* from the loop; not when pl_job_start() was true */
	size_t n_slots, cap_slots;
	struct slot slots[];
};

extern const struct filter_host pl_job_host;

/* NULL when out of memory.  It takes references of session and tx. */
struct pipeline_job *pl_job_new(struct pipeline_run *run, size_t max_slots);
/* Adds a slot; at most max_slots. */
struct slot *pl_job_add(struct pipeline_job *job, const struct module *m, enum filter_stage stage);
/* True: all slots have ended.  Else finished() will be called, within the deadline of its stage. */
bool pl_job_start(struct pipeline_job *job);
/* Ends it early: done() of the run is called, from the loop, as cancelled. */
void pl_job_cancel(struct pipeline_job *job);
/* The owner is done with it. */
void pl_job_free(struct pipeline_job *job);

/* The scopes that a slot sees, outermost first; its own is the last that is not NULL. */
void pl_slot_scopes(const struct slot *slot, const struct scope *out[static JUDGE_SCOPES]);
struct scope *pl_slot_scope(struct slot *slot);
/* Of the session or the transaction, as its stage is. */
struct story *pl_slot_story(const struct slot *slot);
/* Something came back: goes on as far as it can.  May end the job. */
void pl_job_advance(struct pipeline_job *job);

/* want.c: asks for all that the slot's run wanted; false when a counter has to wait for its
 * turn. */
bool pl_want_all(struct slot *s);
/* Something it wanted is still on its way. */
bool pl_want_pending(const struct slot *s);
/* Nothing that the job asked for in a scope comes back any more; or all of it has failed. */
void pl_want_forget(struct pipeline_job *job, struct scope *sc);
void pl_want_fail(struct pipeline_job *job, struct scope *sc);

/* freeze.c: copies all that the filter may see, because the client may be gone, or have said
 * something else, before the pool is done.  False when out of memory. */
bool pl_slot_freeze(struct slot *s);

/* take.c: what the slot's last run found counts; or it is not to run, because of a final verdict in
 * front of it for everybody. */
void pl_slot_take(struct slot *s);
void pl_slot_skip(struct slot *s);
bool pl_slot_is_pointless(const struct slot *s);

#endif
