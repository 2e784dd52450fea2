/* tests/unit/spool/fakedisk.h - a disk in memory that fails as real ones do.
 *
 * It knows what was written and what was synced, so that the power can be cut at any write point
 * (a write, a sync, a name made, renamed or removed), with what was not synced kept, dropped,
 * reordered or torn. It fills up, writes short and fails calls on demand; a hook sees every call
 * before it is made, and may have it fail.
 */
#ifndef TESTS_UNIT_SPOOL_FAKEDISK_H
#define TESTS_UNIT_SPOOL_FAKEDISK_H

#include "relayd/core/io.h"

enum fakedisk_loss {
	FAKEDISK_KEPT,        /* all that was written is there */
	FAKEDISK_DROPPED,     /* only what was synced is there */
	FAKEDISK_REORDERED,   /* each unsynced write and name, as a whole, is there or not */
	FAKEDISK_TORN_512,    /* each unsynced sector and name is there or not */
	FAKEDISK_TORN_4096,   /* the same by pages */
	FAKEDISK_GARBAGE_512, /* the same as 512, or anything at all */
	FAKEDISK_LOSSES,
};

enum fakedisk_op {
	FAKEDISK_WRITE,
	FAKEDISK_SYNC,
	FAKEDISK_SYNC_DIR,
	FAKEDISK_CREATE,
	FAKEDISK_RENAME,
	FAKEDISK_LINK,
	FAKEDISK_UNLINK,
	FAKEDISK_READ, /* from here on: what changes nothing */
	FAKEDISK_OPEN, /* of a file or directory that is there */
	FAKEDISK_LIST,
	FAKEDISK_STAT, /* size, free space */
	FAKEDISK_LOCK,
	FAKEDISK_MAP,
	FAKEDISK_OPS,
};

/* What a hook wants of the call that is about to be made. */
struct fakedisk_fault {
	int sys;      /* it fails with that, or 0 */
	size_t takes; /* of a write: no more than so many bytes, or 0; with sys: so many first */
	void (*then)(void); /* called after those, instead of going on; or NULL */
	bool lose;          /* of a failed sync: what it covered reads as it was before, too */
};
typedef struct fakedisk_fault (*fakedisk_hook)(enum fakedisk_op op, size_t bytes);
/* Sees every call from here on, before it does anything; NULL: none does. */
void fakedisk_watch(fakedisk_hook hook);

/* Who opens handles from here on; to take the handles and locks of one who died. */
void fakedisk_owner(int owner);
void fakedisk_close_all(int owner);

/* An empty disk, which io.h uses from here on; whatever was open before is gone. */
void fakedisk_use(void);
void fakedisk_free(void);

/* Cuts the power at the k-th write point from now (1: the next); from then on every call fails. */
void fakedisk_cut_at(uint64_t k);
void fakedisk_off(void); /* now */
bool fakedisk_is_off(void);
/* Write points so far. */
uint64_t fakedisk_points(void);
/* The power is back, every handle and lock is gone.  seed: for what is torn. */
void fakedisk_reboot(enum fakedisk_loss loss, uint64_t seed);
/* Every process was killed: handles and locks are gone, and no more. */
void fakedisk_kill(void);

/* The next `times` calls of op after `skip` more fail with sys. */
void fakedisk_fail(enum fakedisk_op op, unsigned skip, unsigned times, int sys);
unsigned fakedisk_calls(enum fakedisk_op op);
/* Every read that touches bytes from `from` up to before `to` of a file fails with EIO; NULL: none
 * does. */
void fakedisk_bad(const char *path, uint64_t from, uint64_t to);
/* No write takes more than n bytes at once; 0: no such limit. */
void fakedisk_short_writes(size_t n);
/* How many bytes fit; 0: any number. */
void fakedisk_capacity(uint64_t bytes);

/* The bytes of a file by path ("spool/x/1.seg"), to look at or to spoil, or NULL. */
uint8_t *fakedisk_bytes(const char *path, size_t *len);
/* Calls each with the path of every file. */
void fakedisk_files(void (*each)(void *data, const char *path), void *data);

#endif
