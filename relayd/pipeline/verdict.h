/* relayd/pipeline/verdict.h - from findings and verdicts to what becomes of each recipient.
 *
 * Filters judge in the order of the config: the first of them that gave a final verdict (any but
 * FILTER_QUARANTINE) is followed, and what those behind it found at an earlier stage does not
 * count.  A FILTER_QUARANTINE in front of it holds the message where it would have been accepted.
 * Without a final verdict the score decides, by the recipient's policy.  Pure; private to
 * relayd/pipeline.
 */
#ifndef RELAYD_PIPELINE_VERDICT_H
#define RELAYD_PIPELINE_VERDICT_H

#include "relayd/pipeline/scope.h"

/* From mild to harsh. */
enum outcome {
	OUTCOME_ACCEPT,
	OUTCOME_TAG,
	OUTCOME_QUARANTINE,
	OUTCOME_DISCARD,
	OUTCOME_REJECT,
	OUTCOME_DEFER,
};
const char *pl_outcome_name(enum outcome outcome);

/* Scores from which on it applies; INFINITY where it never does. */
struct thresholds {
	double tag, quarantine, reject;
};
/* The policy for a recipient: outbound, or that of its domain over inbound (INTERFACE.md section
 * 3). listener: where the mail came in, whose policy, if it has one, stands in place of inbound and
 * outbound; may be NULL. */
struct thresholds pl_thresholds_for(const struct config *cfg,
    const struct config_listener *listener, bool outbound, struct slice forward_path);

struct judgement {
	enum outcome outcome;
	double score;
	const struct decision *by;  /* the filter that decided; NULL: the score did */
	const struct finding *most; /* that which weighs most, or NULL */
	double threshold;           /* that the score reached, when it decided */
};

/* The scopes that see a message for one recipient: any of them may be NULL. */
#define JUDGE_SCOPES 4
struct judgement pl_judge(
    const struct scope *const scopes[static JUDGE_SCOPES], struct thresholds t);

/* The final verdict that is in force, or NULL; filters behind its position do not run. */
const struct decision *pl_judge_final(const struct scope *const scopes[static JUDGE_SCOPES]);
/* Whether a finding of that position counts under a final verdict. */
bool pl_judge_counts(const struct decision *final, unsigned position);

/* What the client is told for all recipients together (DESIGN.md section 3).  outcomes[] are as
 * judged and become what is done: a reject among others is OUTCOME_QUARANTINE then, unless each
 * recipient is answered by itself.  Returns ACCEPT (250, each by its own), DISCARD, REJECT or
 * DEFER. */
enum outcome pl_combine(enum outcome *outcomes, size_t n, bool outbound, bool per_recipient);

#endif
