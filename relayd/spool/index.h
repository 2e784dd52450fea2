/* relayd/spool/index.h - which messages are still open, what is known of them, and where they lie.
 *
 * Memory only.  The journal is what changes it and makes the change last; readers of this header
 * look, and hang what they need at msg->user.  A message costs about 115 bytes, a finished one
 * four until its segment goes.
 */
#ifndef RELAYD_SPOOL_INDEX_H
#define RELAYD_SPOOL_INDEX_H

#include "relayd/core/id.h"
#include "relayd/spool/table.h"

#include <stdint.h>

/* What became of a recipient, as its last attempt left it. */
enum index_outcome {
	INDEX_PENDING, /* tried, to be tried again at next_ms */
	INDEX_SENT,
	INDEX_BOUNCED,     /* failed for good; the bounce, if any is due, is durable */
	INDEX_QUARANTINED, /* failed for good and went to the quarantine instead */
	INDEX_DROPPED,     /* by the admin, or no bounce may be sent */
};

struct index_rcpt {
	uint32_t ordinal; /* of the recipient: counted over all copies of the envelope */
	uint8_t outcome;  /* enum index_outcome */
	uint32_t attempts;
	int64_t tried_ms;   /* wall clock, of the last attempt */
	int64_t next_ms;    /* wall clock, while pending */
	struct slice reply; /* the last reply or reason, NUL-terminated */
};
#define INDEX_REPLY_MAX 512

/* What holds for a message as a whole, beside what its envelope says. */
enum index_flag {
	INDEX_HELD = 1,   /* by the admin: not sent before it is let go */
	INDEX_WARNED = 2, /* its sender was told that it is late */
	INDEX_COPIED = 4, /* its record is a copy of an older one, in whose place it counts */
};
#define INDEX_FLAGS   (INDEX_HELD | INDEX_WARNED | INDEX_COPIED)
#define INDEX_VIA_MAX 1024

struct index_log {
	struct id id;
	uint32_t number;                /* short name in the journal */
	struct index_segment *segments; /* by number, rising */
	void *reader;                   /* the reader's */
	struct index_log *next;
};

struct index_segment {
	struct index_log *log;
	uint32_t number;
	uint32_t open;                /* messages not done, read or known from the journal */
	uint32_t unnamed;             /* of them, known from the journal alone so far */
	uint32_t bodies;              /* handles that somebody reads through */
	uint64_t bytes;               /* of the file, once it was read to its end */
	uint64_t open_bytes;          /* of records, of the open messages that were read */
	uint64_t decided_at; /* the journal's count of changes: which of two copies counts */
	struct index_msg **msgs;      /* those that are open, by place, rising */
	uint32_t gone_msgs, cap_msgs; /* room before and for them all */
	uint32_t *done;               /* places of those that are done */
	uint32_t n_done, done_cap, done_sorted;
	bool read_begun;
	bool retired; /* nothing in it is wanted any more: to be removed */
	bool read;    /* to its end */
	bool damaged;
	bool was_there; /* at the start: unread copies of what is in it may be there */
	void *reader;   /* the reader's */
	struct index_segment *next;
};

/* A message that is not done. */
struct index_msg {
	struct id id; /* set once it was read */
	struct index_segment *segment;
	uint32_t place; /* offset of its record in RECORD_ALIGN units */
	uint32_t bytes; /* of its record; 0 until it was read */
	bool in_file;   /* its bytes are <id>.msg */
	uint8_t flags;  /* set of enum index_flag */
	bool parked;    /* delivery's: what user is */
	bool damaged;   /* delivery's: it was when it was read last */
	bool waits;     /* delivery's: not before what it tells of another message is safe */
	uint32_t n_rcpts;
	struct index_rcpt *rcpts; /* those that something is known of, by ordinal, rising */
	char *via;  /* next hops that the admin chose instead of the routes, or NULL */
	void *user; /* delivery's */
	struct table_link by_id;
};

/* A release key that was seen, and the message that brought it. */
struct index_key {
	struct id hash;
	struct id msg;
	int64_t seen_ms;
	struct table_link link;
};

struct index {
	struct index_log *logs;
	uint32_t next_log;
	struct table by_id, keys;
	uint64_t forgotten;   /* segments so far: a cursor looks where it is again */
	uint64_t open, facts; /* messages; recipients that something is known of */
};

void index_init(struct index *ix);
void index_fini(struct index *ix);

/* The open message with that id, or NULL. */
struct index_msg *index_find(const struct index *ix, struct id id);
/* What is known of a recipient, or NULL. */
const struct index_rcpt *index_rcpt(const struct index_msg *msg, uint32_t ordinal);

/* A place among all messages by log, segment and place in it, which is about the order of their
 * arrival; all zero: before the first.  It survives every change. */
struct index_cursor {
	uint32_t log, segment, place; /* of the last answer; or of the segment, at its beginning */
	bool within;                  /* place counts */
	struct index_segment *seg;    /* that one, unless some were forgotten since */
	uint64_t forgotten;
	uint32_t at; /* about where in it */
};
/* The next message that was read and is not done, or NULL at the end. */
struct index_msg *index_cursor_next(const struct index *ix, struct index_cursor *c);

/* For the journal and the reader alone, from here on.  NULL and false are out of memory, unless
 * said. */
struct index_log *index_log_find(const struct index *ix, struct id id); /* or NULL */
struct index_log *index_log_add(struct index *ix, struct id id, uint32_t number);
struct index_log *index_log_numbered(const struct index *ix, uint32_t number); /* or NULL */
void index_log_forget(struct index *ix, struct index_log *log);              /* without segments */
struct index_segment *index_segment(struct index_log *log, uint32_t number); /* found or made */
void index_segment_forget(struct index *ix, struct index_segment *seg);
/* The segment was read to its end: what the journal knew and nobody found is not there. */
void index_segment_settle(struct index *ix, struct index_segment *seg);
struct index_msg *index_at(const struct index_segment *seg, uint32_t place); /* or NULL */
struct index_msg *index_add(struct index *ix, struct index_segment *seg, uint32_t place);
/* It was read. */
bool index_name(struct index *ix, struct index_msg *msg, struct id id, uint32_t bytes);
/* The same of a record of other length. */
void index_resize(struct index_msg *msg, uint32_t bytes);
bool index_is_done(struct index_segment *seg, uint32_t place);
/* The same at any time, but slow. */
bool index_has_done(const struct index_segment *seg, uint32_t place);
bool index_set_done(struct index *ix, struct index_segment *seg, uint32_t place);
bool index_set_rcpt(struct index *ix, struct index_msg *msg, const struct index_rcpt *rcpt);
/* A message lies at to_place of to from here on, where a copy of its record is; at its old place it
 * is done.  What is known of it goes along, behind what is known of the new place.  from: NULL when
 * that is not known any more.  The message that was at the old place stays the same struct, and
 * what was read of it holds on, unless there was one at the new place. */
bool index_move(struct index *ix, struct index_segment *from, uint32_t place,
    struct index_segment *to, uint32_t to_place);
/* via: at most INDEX_VIA_MAX bytes, copied; empty: none.  INDEX_COPIED stays set. */
bool index_set_order(struct index_msg *msg, unsigned flags, struct slice via);
struct index_key *index_key(const struct index *ix, struct id hash); /* or NULL */
bool index_set_key(struct index *ix, struct id hash, struct id msg, int64_t seen_ms);
void index_expire_keys(struct index *ix, int64_t before_ms);

#endif
