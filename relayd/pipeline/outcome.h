/* relayd/pipeline/outcome.h - from what the filters said to replies and copies; private to relayd/pipeline. */
#ifndef RELAYD_PIPELINE_OUTCOME_H
#define RELAYD_PIPELINE_OUTCOME_H

#include "relayd/pipeline/copies.h"
#include "relayd/pipeline/inside.h"

/* After a stage before the message: run->answer, reply and check. */
void pl_outcome_of_stage(struct pipeline_run *run, enum filter_stage stage, struct tx_rcpt *rcpt);
/* After the message was judged: everything in run but the copies. */
void pl_outcome_of_message(struct pipeline_run *run);

/* The copies of a message that is kept, while they are made. */
struct copy_plan {
	struct envelope_copy *copies; /* run->copies */
	struct tx_rcpt **heads;       /* the first recipient of each: all of it are judged alike */
	struct edit_set *edits;       /* of each */
	size_t n;
};
/* One copy for each kind of outcome among the recipients.  False past the limits. */
bool pl_outcome_plan(struct pipeline_run *run, struct copy_plan *plan);
/* An edit of a shaper, for one copy. */
enum edit_status pl_outcome_edit(
    struct pipeline_tx *tx, struct copy_plan *plan, size_t copy, const struct filter_edit *edit);
/* Puts what goes below a shaper's fields, and hands the copies to run.  False past the limits. */
bool pl_outcome_finish(struct pipeline_run *run, struct copy_plan *plan);
/* Nothing can be kept: a 451 for all; and where trying again would not help, a 550. */
void pl_outcome_defer(struct pipeline_run *run, const char *check, const char *text);
void pl_outcome_refuse(struct pipeline_run *run, const char *check, const char *text);

#endif
