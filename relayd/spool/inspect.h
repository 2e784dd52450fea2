/* relayd/spool/inspect.h - every record of a spool, for its admin to look at; changes nothing.
 *
 * Beside a living owner, too: what its writers have not made durable is not looked at, and a
 * segment that goes meanwhile is passed over.
 */
#ifndef RELAYD_SPOOL_INSPECT_H
#define RELAYD_SPOOL_INSPECT_H

#include "relayd/core/record.h"
#include "relayd/spool/spooldir.h"

enum inspect_what {
	INSPECT_MESSAGE, /* a whole record of one; its file, if it has one, is whole, too */
	INSPECT_CHANGES, /* of the journal */
	INSPECT_OTHER,   /* a whole record of another type */
	INSPECT_DAMAGE,  /* bytes that were a record, a file that cannot be read: why */
	INSPECT_ORPHAN,  /* the file of a large message without a record in this directory */
};

enum inspect_state {
	INSPECT_UNKNOWN, /* what became of it is not to be known: its segment was put aside */
	INSPECT_OPEN,
	INSPECT_DONE, /* nothing more is to be done for it */
	INSPECT_COPY, /* a copy that the journal does not know (yet); its record is there */
};

struct inspect_found {
	enum inspect_what what;
	const char *dir, *file; /* names below the spool */
	bool live;              /* its writer runs */
	uint64_t at, next;      /* in the file */
	uint16_t type;          /* of a record */
	struct slice payload;
	struct err why; /* of damage */
	/* Of a message; after damage what its head still tells, if has_id. */
	bool has_id;
	struct id id;
	enum inspect_state state;
	bool in_file;
	uint64_t size; /* of its bytes */
	struct slice envelope, body;
	struct io_file *body_file; /* when in_file and whole */
};

/* All of it, until the next call of it; false ends the look. */
typedef bool (*inspect_cb)(void *data, const struct inspect_found *found);

/* Looks at every log, at the journal and at what was put aside; or at one file alone when only
 * ("LOG/00000001.seg", "journal/00000001.jnl") is not NULL.  ERR_NOT_FOUND, ERR_VERSION, ERR_SYS.
 * *files: how many were read, or NULL. */
int inspect_spool(const char *path, const char *only, inspect_cb cb, void *data, uint64_t *files,
    struct err *err);

#endif
