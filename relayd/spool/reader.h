/* relayd/spool/reader.h - reads every log of the spool: what delivery works from.
 *
 * It finds the logs, reads each on from its place, never past what its living writer made durable;
 * a log without a writer is adopted, synced once more, and read to its end by the rules of
 * recovery.  So a start after a crash is this same reading.  Damage is reported once (event
 * spool.damaged, counter), passed over, and its segment kept.  Segments whose messages
 * are all done are removed here, after the journal has it.
 */
#ifndef RELAYD_SPOOL_READER_H
#define RELAYD_SPOOL_READER_H

#include "relayd/mail/envelope.h"
#include "relayd/spool/journal.h"

struct reader;
struct reader_body;

struct reader_item {
	struct index_msg *msg; /* in the index; what the journal knows is in it */
	struct slice envelope; /* encoded: envelope_decode() */
	struct slice body;     /* the message, unless msg->in_file; both until the next call */
};

/* Reads below a store that is locked and whose journal is open.  Both are borrowed. */
struct reader *reader_open(struct spooldir *st, struct journal *j, struct err *err);
/* The same for a look only, beside a living owner: no lock, no adoption, no report, nothing
 * removed. */
struct reader *reader_open_readonly(struct spooldir *st, struct journal *j, struct err *err);
void reader_close(struct reader *r); /* every body was closed before; accepts NULL */

/* The next message that is not done: 1 and *item; 0 when there is none now; -1 when a disk failed
 * (the others go on with the next call).  A message whose id is open already (a bounce made twice)
 * is recognised and not given.  Call it after a poke and once a second, until it gives 0. */
int reader_next(struct reader *r, struct reader_item *item, struct err *err);
/* A poke without news: the next reader_next() that finds nothing also looks for logs that are not
 * known yet and writers that are gone, as it does by itself once a second. */
void reader_look(struct reader *r);
/* False while some of what was there at reader_open() has not been read yet. */
bool reader_caught_up(const struct reader *r);

/* Reads the record of msg once more, checked, into out (reset first); item->body is empty when
 * msg->in_file.  ERR_DAMAGED, ERR_LIMIT when out is too small, ERR_SYS. */
int reader_fetch(struct reader *r, struct index_msg *msg, struct buf *out, struct reader_item *item,
    struct err *err);
/* The bytes of a message, to be read at any place and by any thread; msg may not be done()
 * before it is closed.  ERR_NOT_FOUND, ERR_DAMAGED when the file is not as long as it was. */
struct reader_body *reader_body_open(struct reader *r, struct index_msg *msg, struct err *err);
void reader_body_close(struct reader *r, struct reader_body *body); /* accepts NULL */
uint64_t reader_body_size(const struct reader_body *body);
/* Fills out with n bytes at `at`, all below the size.  From any thread. */
int reader_body_read(
    const struct reader_body *body, uint64_t at, void *out, size_t n, struct err *err);
/* Reads all of it and compares with the sum made when it came in: ERR_DAMAGED.  From any thread. */
int reader_body_verify(const struct reader_body *body, struct err *err);

/* For whoever makes copies of records (compact.h): the log that he writes them to, in which he says
 * by reader_copied() or reader_not_copied() what each copy is as soon as it is durable. */
void reader_own(struct reader *r, struct id log);
/* All that was there at reader_open() was read, whatever failed meanwhile: each copy of then is
 * decided about.  Before that no segment of then goes. */
bool reader_settled(const struct reader *r);
/* The record of msg once more, checked, as it is: *parts borrows of out (reset first). */
int reader_fetch_record(
    struct index_msg *msg, struct buf *out, struct spooldir_message *parts, struct err *err);
/* The copy at that place, of so many bytes, is the record of msg from here on. */
void reader_copied(struct reader *r, struct index_msg *msg, struct index_segment *to,
    uint32_t place, uint32_t bytes);
/* It is not: the message that was in from is done.  file: its id, where the copy has a file, or
 * NULL. */
void reader_not_copied(struct reader *r, struct index_segment *from, struct index_segment *to,
    uint32_t place, const struct id *file);

/* Takes the steps of removal that are due; also called by itself after each sync of the journal. */
void reader_sweep(struct reader *r);

#endif
