/* relayd/pipeline/story.h - what happened to a message or session, told as JSON while it happens.
 *
 * One event after the other, bounded: what finds no room is left out, and the story says that it
 * was cut.  With the bytes of the message and the config of its generation it
 * holds all that a verdict rests on.  Private to relayd/pipeline.
 */
#ifndef RELAYD_PIPELINE_STORY_H
#define RELAYD_PIPELINE_STORY_H

#include "relayd/core/buf.h"
#include "relayd/pipeline/scope.h"

#define STORY_BYTES_MAX (28u << 10) /* a session's and a transaction's fit into one trace entry */

struct story {
	struct buf events; /* "{...},{...}" */
	bool cut;
};

static inline struct story
pl_story_of(void)
{
	return (struct story){ .events = buf_heap(STORY_BYTES_MAX) };
}

void pl_story_fini(struct story *st);

static inline bool
pl_story_is_empty(const struct story *st)
{
	return st->events.len == 0 && !st->cut;
}

/* How a run of a filter ended.  skipped: a verdict in front of it made it pointless. */
struct story_filter {
	enum filter_stage stage;
	const char *name;
	const char *status; /* "done" "error" "skipped" "late" */
	unsigned runs;
	int64_t took_us; /* from its first run to its last */
};
void pl_story_filter(struct story *st, const struct story_filter *f);
void pl_story_fact(struct story *st, const struct known_fact *kf, int64_t took_us);
void pl_story_counter(struct story *st, const struct reservation *r, int64_t took_us);
void pl_story_finding(struct story *st, const char *filter, const struct finding *f);
void pl_story_auth_result(struct story *st, const char *filter, const struct auth_result *r);
void pl_story_decision(struct story *st, const struct decision *d);
void pl_story_note(struct story *st, const char *what, struct slice subject, struct slice text);

/* "stage" of an event: "connect" ... "message". */
const char *pl_stage_name(enum filter_stage stage);

/* A JSON string: valid UTF-8 as it is; else each byte above ASCII is the code point of its number,
 * which can be undone.  bytes: always the latter. */
void pl_json_text(struct buf *out, struct slice text);
void pl_json_bytes(struct buf *out, struct slice bytes);

#endif
