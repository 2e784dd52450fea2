/* relayd/delivery/content.h - a message in memory while it is worked on: envelope and bytes.
 *
 * What was just read from a log is kept until it is sent, so that a message that goes out at once
 * is read once; under memory pressure, and for a later attempt, it is read again.  A large message
 * is a file and read in pieces, in libuv's pool.  Counted; given back before the message is done.
 */
#ifndef RELAYD_DELIVERY_CONTENT_H
#define RELAYD_DELIVERY_CONTENT_H

#include "relayd/mail/envelope.h"
#include "relayd/spool/reader.h"

#include <uv.h>

#define CONTENT_KEPT_BYTES  (32u << 20) /* of fresh messages that wait in memory */
#define CONTENT_CHUNK_BYTES (256u << 10)

/* All contents of a process. */
struct contents {
	uv_loop_t *loop;
	struct reader *reader;
	size_t bytes;         /* in memory now */
	struct content *free; /* with their memory, to be used again */
	size_t n_free;
	struct buf record; /* scratch of the reader */
};

struct content {
	struct contents *owner;
	unsigned refs;
	struct arena arena;
	struct envelope env;
	struct slice body;        /* all of it, unless file is set */
	struct reader_body *file; /* of a large message */
	size_t bytes;
	struct content *next;
};

void contents_init(struct contents *cs, uv_loop_t *loop, struct reader *reader);
/* All were given back. */
void contents_fini(struct contents *cs);

/* A copy of what the reader just gave.  NULL with *err: ERR_FORMAT for an envelope that is none,
 * ERR_NOMEM. */
struct content *content_of(struct contents *cs, const struct reader_item *item, struct err *err);
/* Whether another one may be kept although nobody works on it yet. */
bool content_has_room(const struct contents *cs);
/* Reads a message again.  NULL with *err as reader_fetch(). */
struct content *content_fetch(struct contents *cs, struct index_msg *msg, struct err *err);
struct content *content_ref(struct content *c);
void content_unref(struct content *c); /* accepts NULL */
/* Opens the file of a large message; nothing to do for any other. */
int content_open(struct content *c, struct index_msg *msg, struct err *err);

/* The copy and recipient that an ordinal stands for; false when there is none. */
bool content_rcpt(const struct content *c, uint32_t ordinal, const struct envelope_copy **copy,
    const struct envelope_rcpt **rcpt);

/* A piece of a large message, read in the pool.  The first one of a body checks the whole file
 * first.  done() runs once, from the loop. */
struct content_read {
	void (*done)(struct content_read *req, const struct err *err);
	void *owner;
	struct content *content; /* with its file open; the request holds a reference */
	bool verify;
	uint64_t at;
	size_t n;
	char *out;
	uv_work_t work;
	struct err err;
};
int content_read_start(struct content_read *req, struct err *err);

#endif
