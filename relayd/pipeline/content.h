/* relayd/pipeline/content.h - the fields and parts of a message as filters see them.
 *
 * Nothing is parsed before a filter asks, and everything once.  Bounded: what does not fit is not
 * there.  Used by one thread at a time.  Private to relayd/pipeline.
 */
#ifndef RELAYD_PIPELINE_CONTENT_H
#define RELAYD_PIPELINE_CONTENT_H

#include "relayd/core/arena.h"
#include "relayd/mail/mime.h"

#include <relayd/filter.h>

#define CONTENT_TEXT_MAX  (8u << 20)  /* of the decoded text of all parts */
#define CONTENT_FIELD_MAX (64u << 10) /* of one field, unfolded or decoded */
#define CONTENT_FIELDS    5000

struct content_field;

struct content {
	struct slice message;
	struct arena arena;
	bool has_fields, has_parts;
	struct content_field *fields;
	size_t n_fields;
	struct filter_part *parts;
	size_t n_parts, cap_parts;
};

/* Its arena holds what is parsed and decoded, and the tree of any message of that size. */
static inline struct content
pl_content_of(struct slice message)
{
	return (struct content){ .message = message,
		.arena = { .max = MIME_ARENA_BYTES(message.len) + 4 * (size_t)CONTENT_TEXT_MAX } };
}
void pl_content_fini(struct content *c);

/* False past the last one. */
bool pl_content_field(struct content *c, size_t index, struct filter_field *out);
bool pl_content_part(struct content *c, size_t index, struct filter_part *out);

#endif
