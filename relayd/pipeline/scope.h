/* relayd/pipeline/scope.h - what is known within one scope: facts, findings, verdicts, counters
 * taken.
 *
 * There is one scope for what was asked at connect, one for HELO, one for a transaction and one
 * for each recipient.  A stage sees its own scope and those around it.  Private to
 * relayd/pipeline.
 */
#ifndef RELAYD_PIPELINE_SCOPE_H
#define RELAYD_PIPELINE_SCOPE_H

#include "relayd/core/arena.h"
#include "relayd/pipeline/facts/facts.h"
#include "relayd/pipeline/module.h"
#include "relayd/state/state.h"

#define SCOPE_BYTES_MAX (8u << 20) /* of facts and findings, each scope */
#define SCOPE_FACTS_MAX 1000       /* asking for more is an error of the filter */

struct pipeline_job;

struct known_fact {
	struct known_fact *next;
	enum fact_kind kind;
	struct slice name; /* in lower case */
	bool ready;
	struct fact fact; /* once ready; values in the scope's arena */
	struct scope *scope;
	/* while it is fetched */
	struct pipeline_job *job;
	const char *asker; /* name of the filter */
	struct fact_query query;
	int64_t asked_us;
};

struct finding {
	struct finding *next;
	unsigned position; /* of the filter, in the config */
	double score;
	struct slice name, why;
};

struct auth_result {
	struct auth_result *next;
	unsigned position;
	struct slice method, result, properties;
};

struct decision {
	struct decision *next;
	unsigned position;
	enum filter_stage stage;
	enum filter_verdict verdict;
	bool by_error;      /* on-error said so */
	const char *filter; /* name of the section */
	unsigned code;
	struct slice enhanced, text;
};

/* A counter asked for.  Its memory is its own, because the state thread may answer after all else
 * is gone. */
struct reservation {
	struct reservation *next;
	const struct module *module; /* compared only */
	enum filter_stage stage;
	struct pipeline_job *job; /* NULL: nobody waits any more */
	struct state *state;
	struct state_request req;
	enum { RESERVATION_ASKED, RESERVATION_TAKEN, RESERVATION_OVER, RESERVATION_FAILED } status;
	bool count_accepted;
	bool orphan; /* given back and freed when the answer comes */
	const char *asker;
	int64_t asked_us;
	size_t key_len; /* of what the filter gave; its name follows, behind a NUL */
	char key[];
};

struct scope {
	struct arena arena;
	struct known_fact *facts;
	size_t n_facts;
	struct finding *findings, **findings_end; /* oldest first; _end NULL: empty */
	struct auth_result *auth_results, **auth_results_end;
	struct decision *decisions, **decisions_end;
	struct reservation *reservations;
};

static inline struct scope
pl_scope_of(void)
{
	return (struct scope){ .arena = { .max = SCOPE_BYTES_MAX } };
}

/* Nothing is known, and no counter taken. */
bool pl_scope_is_empty(const struct scope *sc);
/* Forgets all of it but the counters taken, which are taken once whatever is asked again. */
void pl_scope_reset(struct scope *sc);
/* What no later stage looks at goes: all but findings, verdicts and counters taken. */
void pl_scope_trim(struct scope *sc);
/* The counters too.  kept: those for accepted mail alone keep their count as well. */
void pl_scope_fini(struct scope *sc, bool kept);
/* Forgets facts that failed, so that a later stage asks again, and those nobody waits for. */
void pl_scope_drop_failed(struct scope *sc);

struct known_fact *pl_scope_fact(const struct scope *sc, enum fact_kind kind, struct slice name);
/* A fact to be fetched, not ready; name is copied.  NULL past the limits. */
struct known_fact *pl_scope_add_fact(struct scope *sc, enum fact_kind kind, struct slice name);
/* Copies *fact; on lack of room it is FACT_FAILED. */
void pl_scope_fact_ready(struct known_fact *kf, const struct fact *fact);

/* Copy what they are given; false past the limits. */
bool pl_scope_add_finding(struct scope *sc, const struct finding *f);
bool pl_scope_add_auth_result(struct scope *sc, const struct auth_result *r);
bool pl_scope_add_decision(struct scope *sc, const struct decision *d);

struct reservation *pl_scope_reservation(
    const struct scope *sc, const struct module *m, enum filter_stage stage, struct slice key);
struct reservation *pl_scope_add_reservation(struct scope *sc, const struct module *m,
    enum filter_stage stage, const struct filter_limit *limit);
/* The answer of the state thread has come: frees an orphan and returns false. */
bool pl_reservation_answered(struct reservation *r);

/* "a" "txt" ...: the kind of a fact in a trace. */
const char *pl_fact_kind_name(enum fact_kind kind);
const char *pl_fact_state_name(enum fact_state state);

#endif
