/* relayd/pipeline/reply.h - a refusal in words: which check, which id, and whom to ask.
 *
 * "Listed in zen.test [check dnsbl, id agrapx..., contact postmaster@example.org]", in printable
 * ASCII whatever a filter said.  Private to relayd/pipeline.
 */
#ifndef RELAYD_PIPELINE_REPLY_H
#define RELAYD_PIPELINE_REPLY_H

#include "relayd/pipeline/inside.h"

struct wording {
	enum filter_stage stage;
	bool reject;
	unsigned code; /* 0: the default */
	struct slice enhanced, text;
	const char *check;
	const char *id;
	const char *postmaster;
	const char *help; /* or NULL */
};

/* A code or enhanced code that does not fit the verdict is not used. */
void pl_reply_word(struct pipeline_reply *reply, const struct wording *w);
/* What a filter decided. */
void pl_reply_decision(struct pipeline_reply *reply, const struct pipeline_run *run,
    enum filter_stage stage, const struct decision *d);
/* What the score decided. */
void pl_reply_score(
    struct pipeline_reply *reply, const struct pipeline_run *run, const struct judgement *j);
/* Whom a sender can write to. */
const char *pl_reply_contact(const struct pipeline_session *s);

#endif
