/* relayd/spool/message.h - the bytes of one message on their way into the log.
 *
 * In memory up to SPOOL_INLINE_MAX; beyond that, or when memory is short, in a file beside the log
 * that nobody else knows yet.  For spool.c alone.
 */
#ifndef RELAYD_SPOOL_MESSAGE_H
#define RELAYD_SPOOL_MESSAGE_H

#include "relayd/core/buf.h"
#include "relayd/core/io.h"
#include "relayd/core/record.h"
#include "relayd/spool/spool.h"
#include "relayd/spool/spooldir.h"

#include <xxhash.h>

struct message_home {
	struct io_dir *log;
	struct id log_id;
	uint64_t memory;    /* limit; 0: none */
	uint64_t in_flight; /* bytes of memory that messages hold */
	uint64_t next_tmp;
};

struct spool_msg {
	struct spool *spool;
	struct message_home *home;
	uint64_t max_bytes, size;
	char *mem; /* bytes from `filed` on; RECORD_ALIGN more than cap */
	size_t len, cap;
	struct io_file *file; /* or NULL: all of it is in mem */
	uint64_t filed;       /* bytes in the file */
	XXH3_state_t *sum;    /* of what is in the file */
	void *map;            /* of spool_peek() */
	struct id id;
	uint16_t type;           /* enum spooldir_record */
	struct io_dir *file_dir; /* of a copy whose file is in another log */
	struct buf head;         /* head, meta and envelope of its record */
	struct err refused; /* why it could not be sealed */
};

struct spool_msg *message_new(struct message_home *home, uint64_t max_bytes, struct err *err);
/* A copy, sealed. */
struct spool_msg *message_of_source(
    struct message_home *home, const struct spool_source *source, struct err *err);
/* With the file, unless that got its final name. */
void message_free(struct spool_msg *msg);
char *message_room(struct spool_msg *msg, size_t want, size_t *room, struct err *err);
int message_peek(struct spool_msg *msg, struct slice *bytes, struct err *err);
/* No more bytes will come: all of a file is written (not synced), and the head is built, but for
 * its sums. */
int message_seal(struct spool_msg *msg, const struct envelope *env, struct err *err);
/* A file goes with it. */
bool message_has_file(const struct spool_msg *msg);
/* Syncs the file and gives it its final name, which lasts with the next sync of the log's
 * directory. Safe in any thread. */
int message_keep_file(struct spool_msg *msg, struct err *err);
/* Its record did not become durable: removes the file under its final name. */
void message_drop_file(struct spool_msg *msg);
/* Bytes of its record. */
uint64_t message_record_bytes(const struct spool_msg *msg);
/* Completes the head for its place, and fills iov; returns how many. */
int message_record(struct spool_msg *msg, const struct record_file *file,
    const struct record_place *place, struct iovec iov[static 2]);

#endif
