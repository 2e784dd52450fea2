/* relayd/pipeline/copies.h - what is delivered, as data: edits of the bytes as received.
 *
 * The original is never rewritten (DESIGN.md section 3).  Pure.  Delivery makes copies for the
 * quarantine with it, too; else private to relayd/pipeline.
 */
#ifndef RELAYD_PIPELINE_COPIES_H
#define RELAYD_PIPELINE_COPIES_H

#include "relayd/core/arena.h"
#include "relayd/mail/envelope.h"
#include "relayd/pipeline/scope.h"

#define COPIES_TOP_MAX (2u << 20) /* bytes of all fields put on top of one copy */

/* Edits of a message of size bytes: always sorted, disjoint and one for each place. */
struct edit_set {
	struct arena *arena;
	uint64_t size;
	struct envelope_edit *v;
	size_t n, cap;
};

enum edit_status {
	EDIT_OK,
	EDIT_CLASH, /* leaves the message, or meets an edit added earlier: not taken */
	EDIT_FULL,  /* past ENVELOPE_EDITS_MAX or the arena: not taken */
	EDIT_TEXT,  /* would leave a CR or LF alone, or a NUL: not taken */
};

/* insert is borrowed.  What is inserted at one place stands in the order it was added. */
enum edit_status pl_edit_set_add(struct edit_set *set, const struct envelope_edit *edit);

/* Whether an edit of message leaves text text: what it inserts has no NUL, no CR and no LF alone,
 * and it cuts no CRLF in two. */
bool pl_edit_is_text(struct slice message, const struct envelope_edit *edit);
/* Whether a line may begin with a dot where it did not before. */
bool pl_edit_brings_dots(struct slice message, const struct envelope_edit *edit);

/* Removes the fields of a header that only we may set: X-Relayd-*, and Authentication-Results that
 * bears hostname (RFC 8601 section 5).  Call it first: then none clashes.  False past the
 * limits. */
bool pl_copies_remove_ours(struct edit_set *set, struct slice message, struct slice hostname);
/* The message begins with text: what stands in front needs an empty line behind it. */
bool pl_copies_needs_empty_line(struct slice message);

/* "host; spf=pass smtp.mailfrom=..." (RFC 8601 section 2.2) of the results that count under
 * final. */
struct decision;
void pl_copies_auth_field(struct buf *out, struct slice hostname, const struct scope *const *scopes,
    size_t n_scopes, const struct decision *final);

/* The fields that tell what we found, and those that only a quarantine gets. */
struct copy_fields {
	struct slice id, verdict, findings; /* findings: "A=1.0,B=2.0" */
	double score;
	struct slice client_ip, helo, reverse_path;
};
void pl_copies_finding_fields(struct buf *out, const struct copy_fields *f);
void pl_copies_quarantine_fields(
    struct buf *out, const struct copy_fields *f, const struct envelope_copy *copy);

#endif
