/* relayd/spool/reader_log.h - what the parts of the reader share; for reader*.c and compact.c
 * alone. */
#ifndef RELAYD_SPOOL_READER_LOG_H
#define RELAYD_SPOOL_READER_LOG_H

#include "relayd/core/record_file.h"
#include "relayd/spool/reader.h"

#define READER_FILES_OPEN 128 /* segments with an open handle */

/* One segment, hung at index_segment.reader. */
struct reader_segment {
	struct io_file *file; /* open as long as it is in use */
	struct record_file header;
	bool has_header;
	uint64_t used;       /* when the handle was last wanted, in calls */
	uint64_t retired_at; /* the journal's count of changes */
	bool unfit;          /* something in it could not be copied: it is left as it is */
};

/* One log, hung at index_log.reader. */
struct reader_log {
	struct reader *reader;
	struct index_log *log;
	struct io_dir *dir;
	struct io_file *lock;
	struct spooldir_page *page;    /* or NULL */
	bool live;                     /* its writer holds the lock */
	bool behind;                   /* was there at the start, and is not read to its end */
	bool owed; /* the same, whatever its disk says meanwhile: there may be copies in it */
	bool tidied;                   /* dead, read to its end, and what nobody needs removed */
	bool damaged;                  /* some of it could not be read */
	bool refused;                  /* a newer relayd's: neither read nor removed */
	uint64_t listed;               /* the newest segment when the log was last looked at */
	int64_t retry_ms;              /* monotonic: not before this after a failure */
	struct index_segment *current; /* being read */
	struct record_cursor cursor;   /* of current */
	bool sealed;                   /* the end of current is known, and is cursor.end */
	struct reader_log *next;
};

/* The file of a message that is done, to be removed when the journal has that. */
struct reader_file {
	struct index_log *log;
	struct id id;
	uint64_t done_at; /* the journal's count of changes */
	struct reader_file *next;
};

struct reader {
	struct spooldir *spool;
	struct journal *journal;
	struct index *index;
	bool readonly;
	struct reader_log *logs, *turn; /* turn: who is asked next */
	unsigned turn_items;            /* how many it gave in a row */
	bool look;                      /* for new logs and dead writers, when nothing is to read */
	bool scanned;                   /* once without a failure: all that was there is known */
	bool owes;                      /* some log is owed */
	bool has_own; /* copies in that log were decided about by who made them: */
	struct id own;
	bool sweep_wanted;
	int64_t scanned_ms;
	uint64_t calls;
	unsigned files_open;
	struct reader_file *files;
};

/* Its handle and header.  ERR_NOT_FOUND, ERR_VERSION, ERR_DAMAGED, ERR_SYS. */
struct reader_segment *reader_segment_open(
    struct reader_log *rl, struct index_segment *seg, struct err *err);
void reader_segment_close(struct reader *r, struct index_segment *seg);
/* The file of that message in that log is not wanted any more, after the next change of the journal
 * is safe. */
void reader_forget_file(struct reader *r, struct index_log *log, struct id id);
/* The file of a large message is durable before its record is: one without was refused (its group
 * could not be synced), unless a disk lost what it had promised. */
bool reader_lacks_file(const struct reader_log *rl, struct id id, struct err *why);
/* Whether a copy is a message of its own.  The journal says so, unless a crash came before it: then
 * the older record counts when it was read already, or is done; and when it was not, the copy does
 * from now on, which is as durable.  The older one that is gone with its segment, and the journal
 * does not know the copy: then that has lost something, and nobody else has the message. */
bool reader_copy_counts(
    struct reader_log *rl, uint32_t place, const struct spooldir_message *m, struct id id);
/* The hook of the journal: a message is done. */
void reader_on_done(void *data, const struct index_msg *msg);
/* Removes what starts and removals that were cut short left behind. */
void reader_sweep_strays(struct reader *r);
void reader_log_free(struct reader *r, struct reader_log *rl);
/* Counts and tells, once for each place. */
void reader_damage(
    struct reader *r, struct index_segment *seg, const struct record *rec, const struct err *why);

#endif
