/* tests/unit/mail/mime_check.h - what holds of any MIME tree; the unit test and the fuzz target
 * share it. */
#ifndef TESTS_UNIT_MAIL_MIME_CHECK_H
#define TESTS_UNIT_MAIL_MIME_CHECK_H

#include "must.h"
#include "relayd/mail/header.h"
#include "relayd/mail/mime.h"

#include <stdlib.h>

static inline uint32_t
mime_count_lf(struct slice s)
{
	uint32_t n = 0;

	for (size_t i = 0; i < s.len; i++)
		n += s.p[i] == '\n' ? 1 : 0;
	return n;
}

static inline void
mime_check_part(const struct mime *mime, uint32_t index)
{
	const struct mime_part *p = &mime->parts[index];
	uint32_t children = 0;

	MUST(p->header <= p->body && p->body <= p->end && p->end <= mime->bytes.len);
	MUST(p->type.len > 0 && p->subtype.len > 0 && p->depth <= MIME_DEPTH_MAX);
	MUST(header_length(mime_header(mime, p)) == p->body - p->header);
	MUST(p->header_lines == mime_count_lf(mime_header(mime, p)));
	MUST(p->body_lines == mime_count_lf(mime_body(mime, p)));
	MUST(p->preamble_end >= p->body && p->preamble_end <= p->epilogue && p->epilogue <= p->end);
	for (uint32_t i = p->first_child; i != MIME_NONE; i = mime->parts[i].next) {
		const struct mime_part *c = &mime->parts[i];

		MUST(i > index && c->parent == index && c->depth == p->depth + 1);
		MUST(c->header >= p->body && c->end <= p->end);
		MUST(c->next == MIME_NONE || mime->parts[c->next].header >= c->end);
		children++;
	}
	MUST(children == p->n_children);
	MUST((p->kind == MIME_LEAF) == (children == 0));
	MUST(p->kind != MIME_MESSAGE || children == 1);
}

/* Aborts where an invariant of mime.h does not hold. */
static inline void
mime_check(const struct mime *mime)
{
	MUST(mime->n_parts >= 1 && mime->n_parts <= MIME_PARTS_MAX);
	MUST(mime->parts[0].header == 0 && mime->parts[0].end == mime->bytes.len);
	for (uint32_t i = 0; i < mime->n_parts; i++)
		mime_check_part(mime, i);
}

#endif
