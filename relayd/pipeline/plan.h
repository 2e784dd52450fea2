/* relayd/pipeline/plan.h - the copies of a message that is kept, while they are made.
 *
 * Private to relayd/pipeline.
 */
#ifndef RELAYD_PIPELINE_PLAN_H
#define RELAYD_PIPELINE_PLAN_H

#include "relayd/pipeline/copies.h"
#include "relayd/pipeline/inside.h"

struct copy_plan {
	struct envelope_copy *copies; /* run->copies */
	struct tx_rcpt **heads;       /* the first recipient of each: all of it are judged alike */
	struct edit_set *edits;       /* of each */
	size_t n;
	bool dots, eight_bit; /* that a shaper brought in, in any of them */
};

/* One copy for each kind of outcome among the recipients.  False past the limits. */
bool pl_plan_make(struct pipeline_run *run, struct copy_plan *plan);
/* An edit of a shaper, for one copy. */
enum edit_status pl_plan_edit(
    struct pipeline_tx *tx, struct copy_plan *plan, size_t copy, const struct filter_edit *edit);
/* Puts what goes below a shaper's fields, and hands the copies to run.  False past the limits. */
bool pl_plan_finish(struct pipeline_run *run, struct copy_plan *plan);

#endif
