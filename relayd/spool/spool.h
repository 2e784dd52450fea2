/* relayd/spool/spool.h - the append-only log where a process keeps the mail it accepts.
 *
 * A message is durable once the sync that covers it is: only the callback of
 * spool_commit() may lead to a 250 (RFC 5321 section 6.1).  A log has one writer, for
 * life.  After a crash its reader passes over the unacknowledged tail, and reports any
 * other damage without cutting anything off.
 *
 * All that is committed in one round of the loop, and by the events that are there when it looks
 * once more, goes out in one write and one sync: in the loop while the disk is fast, in a thread of
 * this log when it is not.  When a write or sync fails, the messages it covered get the error, the
 * segment is left for good, and spool_begin() fails until a new one could be begun.
 */
#ifndef RELAYD_SPOOL_SPOOL_H
#define RELAYD_SPOOL_SPOOL_H

#include "relayd/mail/envelope.h"
#include "relayd/spool/spooldir.h"

#include <uv.h>

#define SPOOL_BYTES_MAX     ((uint64_t)4 << 30) /* of one message */
#define SPOOL_INLINE_MAX    (256u << 10)        /* a longer message is a file of its own */
#define SPOOL_SEGMENT_BYTES (16u << 20)         /* the next segment begins about here */

struct spool;     /* the log of one process */
struct spool_msg; /* a message on its way in; no reader sees it yet */

struct spool_settings {
	uint64_t reserve;       /* bytes of the disk left alone; 0 where the reserve may be used */
	uint64_t memory;        /* bytes in flight above which a message becomes a file; 0: any */
	uint64_t segment_bytes; /* 0: SPOOL_SEGMENT_BYTES */
	/* After each sync that made something durable: to wake the reader.  Or NULL. */
	void (*on_durable)(void *data);
	void *data;
};

/* A request (STYLE.md section 8): the caller owns it until done() runs, which may free it.
 * err->code is ERR_NONE: the message is durable.  ERR_SYS, ERR_FULL: it is not kept.
 * ERR_CANCELLED: the spool was closed, and it may be kept or not. */
struct spool_commit {
	void (*done)(struct spool_commit *req, const struct err *err);
	void *data; /* the caller's */
	/* Where its record is, place in RECORD_ALIGN units; after an error: where it may be whole,
	 * and nothing else will ever be; segment 0: nowhere. */
	uint32_t segment, place;
	struct spool_msg *msg; /* the spool's, as what follows */
	struct spool_commit *next;
};

/* Opens a new log below the spool directory, making that (mode 0700) when it is not there.  NULL
 * with *err set on failure: ERR_VERSION when the spool belongs to a newer relayd. */
struct spool *spool_open(
    uv_loop_t *loop, const char *dir, const struct spool_settings *set, struct err *err);
/* Waits for the sync that is running; what was committed and is not synced is told ERR_CANCELLED
 * before this returns.  Every message was ended before.  Memory goes when the loop runs once
 * more.  Accepts NULL. */
void spool_close(struct spool *sp);
/* Takes over other settings from here on. */
void spool_configure(struct spool *sp, const struct spool_settings *set);
/* The name of the log, which is its directory's. */
struct id spool_id(const struct spool *sp);

/* Whether a message of about this size would be let in now: -1 with ERR_FULL (452 4.3.1) when it
 * would touch the reserve, ERR_SYS when the disk fails (451 4.3.0). */
int spool_check(struct spool *sp, uint64_t bytes, struct err *err);
/* Begins a message of at most max_bytes (1 .. SPOOL_BYTES_MAX).  It borrows sp and is
 * ended by exactly one spool_commit() or spool_abort().  Fails as spool_check(). */
struct spool_msg *spool_begin(struct spool *sp, uint64_t max_bytes, struct err *err);
/* Appends bytes.  ERR_LIMIT past max_bytes, ERR_SYS, ERR_FULL and ERR_NOMEM: then only
 * spool_abort() is valid. */
int spool_write(struct spool_msg *msg, struct slice bytes, struct err *err);
/* The same without a copy: room for at least 1 byte and at best `want`, of which spool_wrote()
 * then takes over the first n.  Errors as spool_write(). */
char *spool_room(struct spool_msg *msg, size_t want, size_t *room, struct err *err);
void spool_wrote(struct spool_msg *msg, size_t n);
/* Bytes appended so far. */
uint64_t spool_msg_size(const struct spool_msg *msg);
/* All bytes appended so far, in one piece, until the next spool_write(), spool_room(), commit or
 * abort; may be read from any thread. */
int spool_peek(struct spool_msg *msg, struct slice *bytes, struct err *err);
/* Seals msg with its envelope and consumes it; env->size is set to the bytes appended in what is
 * kept. req->done runs once, from the loop: after the sync that covers msg, or with the error that
 * prevented it. */
void spool_commit(struct spool_commit *req, struct spool_msg *msg, const struct envelope *env);
void spool_abort(struct spool_msg *msg); /* accepts NULL */

/* A record of another segment, of another log or of this one, to be written once more: what its
 * payload holds.  Everything is borrowed until spool_copy() returns, but for file_dir. */
struct spool_source {
	struct id id;
	struct spooldir_copy copy;
	struct slice envelope; /* encoded */
	struct slice body;     /* empty when */
	bool in_file;
	/* where its file is, until done(); NULL: in this log, or it has none */
	struct io_dir *file_dir;
	uint64_t file_bytes, file_sum;
};
/* Writes a copy (SPOOLDIR_COPY) as spool_commit() writes a message; its file gets a second name in
 * this log.  No reader takes the copy for a message before the journal says so.  -1: ERR_SYS,
 * ERR_NOMEM, and done() is not called. */
int spool_copy(
    struct spool_commit *req, struct spool *sp, const struct spool_source *source, struct err *err);

#endif
