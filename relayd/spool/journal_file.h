/* relayd/spool/journal_file.h - the files of the journal; for journal.c alone.
 *
 * Files of changes (%08x.jnl) follow one another.  A snapshot (%08x.snap) gives the index as it
 * was at the end of the file with its number, and makes that and all before it superfluous.
 */
#ifndef RELAYD_SPOOL_JOURNAL_FILE_H
#define RELAYD_SPOOL_JOURNAL_FILE_H

#include "relayd/core/io.h"
#include "relayd/core/record.h"
#include "relayd/spool/index.h"

/* What is synced of a file of changes shares no sector with what is written later, and the header
 * none with either: a torn one spoils nothing that was synced. */
#define JOURNAL_SECTOR 512

struct journal_replay {
	struct io_dir *dir;
	struct index *index; /* emptied first */
	bool owner;          /* syncs what it reads, and reports damage */
	bool damaged;        /* out, as what follows */
	uint64_t newest;     /* number of the newest file, or 0 */
	uint64_t bytes;      /* that were read */
	unsigned files;
};
/* Reads the newest snapshot and every file of changes behind it.  Passes over damage; fails for a
 * newer version and for a disk that does not read. */
int journal_replay(struct journal_replay *r, struct err *err);

/* A new file with that header and those records behind it, under its name, which lasts with the
 * next sync of the directory.  What a failed attempt left is replaced. */
struct io_file *journal_file_create(struct io_dir *dir, const struct record_file *header,
    const struct buf *records, struct err *err);
/* Removes what the snapshot of that number made superfluous; with damaged, moves it there. */
void journal_file_remove_old(struct io_dir *dir, struct io_dir *damaged, uint64_t number);

#endif
