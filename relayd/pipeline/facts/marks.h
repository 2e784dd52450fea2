/* relayd/pipeline/facts/marks.h - what the workers remember together, as facts: FACT_SEEN,
 * FACT_MARK. */
#ifndef RELAYD_PIPELINE_FACTS_MARKS_H
#define RELAYD_PIPELINE_FACTS_MARKS_H

#include "relayd/pipeline/facts/facts.h"

/* Its source is a struct state, or NULL: every question fails. */
extern const struct fact_source fact_source_marks;

#endif
