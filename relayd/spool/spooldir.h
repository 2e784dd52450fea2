/* relayd/spool/spooldir.h - the spool directory: what lies where, its version, its one owner.
 *
 * 	SPOOL/format		"relayd spool 3"; a newer number is refused
 * 	SPOOL/lock		held by the owner (delivery) as long as it lives
 * 	SPOOL/<id>/		a log: one process instance wrote it
 * 	    lock		held by that process, then by whoever adopted the log
 * 	    durable		how far it is synced (struct spooldir_page), while the writer lives
 * 	    00000001.seg ...	segments
 * 	    <id>.msg		a large message, whole before its record is; *.tmp before that
 * 	SPOOL/journal/		what became of whom
 * 	SPOOL/spare/		finished segments to be written over: their blocks are there
 * 	SPOOL/damaged/		finished segments that could not all be read, for the admin
 */
#ifndef RELAYD_SPOOL_SPOOLDIR_H
#define RELAYD_SPOOL_SPOOLDIR_H

#include "relayd/core/id.h"
#include "relayd/core/io.h"

#include <stdatomic.h>

#define SPOOLDIR_VERSION    3
#define SPOOLDIR_LOCK       "lock"
#define SPOOLDIR_PAGE       "durable"
#define SPOOLDIR_PAGE_BYTES 4096
/* A group of records starts at a multiple, so that no synced block is written again. */
#define SPOOLDIR_BLOCK      4096
#define SPOOLDIR_SPARES     8 /* finished segments kept for the next writer */

/* Type of a record in a segment.  A copy stands for an older record of the same message, once the
 * journal says so. */
enum spooldir_record { SPOOLDIR_MESSAGE = 1, SPOOLDIR_COPY };

/* The page that a writer shares with its readers.  Written in this order: segment, durable, check;
 * read in the other one.  What a crash leaves of it is believed only when check fits. */
struct spooldir_page {
	_Atomic uint64_t durable; /* bytes of the log, counted over all segments */
	_Atomic uint64_t segment; /* number of the newest one, whose header is durable */
	_Atomic uint64_t check;   /* spooldir_page_check() of both */
	/* Number of a segment that is not written any more, as a write or sync of it failed: what
	 * lies in it behind durable was refused. */
	_Atomic uint64_t refused;
};
uint64_t spooldir_page_check(uint64_t durable, uint64_t segment);

struct spooldir {
	struct io_dir *root;
	struct io_dir *spare, *damaged, *journal; /* or NULL, for a look only */
	struct io_file *lock;                     /* of the owner, else NULL */
};

/* Opens the spool at path, making what is missing; ERR_VERSION when it is a newer one's.  An older
 * one's is this one's from here on. */
int spooldir_open(struct spooldir *dir, const char *path, struct err *err);
/* The same for a look only: makes nothing, ERR_NOT_FOUND when there is none. */
int spooldir_open_readonly(struct spooldir *dir, const char *path, struct err *err);
/* Becomes the owner, waiting up to wait_ms for another to end; ERR_BUSY. */
int spooldir_lock(struct spooldir *dir, int64_t wait_ms, struct err *err);
void spooldir_close(struct spooldir *dir); /* also a zeroed one, or one that failed to open */

#define SPOOLDIR_SEGMENT_NAME_BYTES 16
/* "00000001.seg" */
void spooldir_segment_name(uint32_t number, char out[static SPOOLDIR_SEGMENT_NAME_BYTES]);
/* False when name is no segment's. */
bool spooldir_segment_number(const char *name, uint32_t *number);
#define SPOOLDIR_MESSAGE_NAME_BYTES (ID_TEXT_LEN + 5)
/* "<id>.msg" */
void spooldir_message_name(struct id id, char out[static SPOOLDIR_MESSAGE_NAME_BYTES]);
bool spooldir_message_id(const char *name, struct id *id);
bool spooldir_is_tmp(const char *name);

/* The payload of a message's record: this, the encoded envelope, and the message itself unless it
 * is a file of its own. */
#define SPOOLDIR_META_BYTES 24
struct spooldir_meta {
	bool in_file; /* its bytes are in <id>.msg */
	uint32_t envelope_bytes;
	uint64_t file_bytes;
	uint64_t file_sum; /* XXH3-64 of the file, with spooldir_file_seed() */
};
uint64_t spooldir_file_seed(struct id log);
void spooldir_meta_encode(
    const struct spooldir_meta *meta, uint8_t out[static SPOOLDIR_META_BYTES]);
/* The start of a payload of that many bytes; ERR_FORMAT. */
int spooldir_meta_peek(
    struct slice start, size_t payload, struct spooldir_meta *meta, struct err *err);
/* Splits a payload; ERR_FORMAT. */
int spooldir_meta_decode(struct slice payload, struct spooldir_meta *meta, struct slice *envelope,
    struct slice *body, struct err *err);

/* The payload of a copy's record: this, then what a message's record has.  Its file, if it has one,
 * is a second name of the file that was there. */
#define SPOOLDIR_COPY_BYTES 32
struct spooldir_copy {
	struct id log;           /* where the record stands that it was made of */
	uint32_t segment, place; /* in RECORD_ALIGN units */
	uint64_t file_seed;      /* of meta.file_sum */
};
void spooldir_copy_encode(
    const struct spooldir_copy *copy, uint8_t out[static SPOOLDIR_COPY_BYTES]);
/* Takes it off the front of a payload; ERR_FORMAT. */
int spooldir_copy_take(struct slice *payload, struct spooldir_copy *copy, struct err *err);

/* Either of both records, split. */
struct spooldir_message {
	bool is_copy;
	struct spooldir_copy copy; /* then */
	struct spooldir_meta meta;
	struct slice envelope, body;
};
/* ERR_FORMAT. */
int spooldir_message_decode(
    uint16_t type, struct slice payload, struct spooldir_message *m, struct err *err);

#endif
