/* relayd/pipeline/outcome.h - from what the filters said to the answer of a stage; private to
 * relayd/pipeline. */
#ifndef RELAYD_PIPELINE_OUTCOME_H
#define RELAYD_PIPELINE_OUTCOME_H

#include "relayd/pipeline/inside.h"

/* After a stage before the message: run->answer, reply and check. */
void pl_outcome_of_stage(struct pipeline_run *run, enum filter_stage stage, struct tx_rcpt *rcpt);
/* After the message was judged: everything in run but the copies. */
void pl_outcome_of_message(struct pipeline_run *run);
/* Nothing can be kept: a 451 for all; and where trying again would not help, a 550. */
void pl_outcome_defer(struct pipeline_run *run, const char *check, const char *text);
void pl_outcome_refuse(struct pipeline_run *run, const char *check, const char *text);

/* The scopes that see the message for a recipient; and the word for why it is not just accepted. */
void pl_outcome_scopes(const struct pipeline_run *run, const struct tx_rcpt *rcpt,
    const struct scope *out[static JUDGE_SCOPES]);
const char *pl_outcome_reason(const struct judgement *j);

#endif
