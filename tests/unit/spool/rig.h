/* tests/unit/spool/rig.h - a loop, a spool in it, and messages that can be told apart. */
#ifndef TESTS_UNIT_SPOOL_RIG_H
#define TESTS_UNIT_SPOOL_RIG_H

#include "relayd/spool/reader.h"
#include "relayd/spool/spool.h"

#define RIG_DIR       "spool"
#define RIG_RCPTS_MAX 4

/* One side that reads: delivery. */
struct rig {
	uv_loop_t loop;
	struct spooldir dir;
	struct journal *journal;
	struct reader *reader;
};

void rig_init(struct rig *rig);
void rig_fini(struct rig *rig); /* closes what is open, the loop too */
/* Runs the loop until nothing is left to do at once. */
void rig_run(struct rig *rig);
/* Opens directory, lock, journal and reader. */
int rig_open(struct rig *rig, struct err *err);
void rig_close(struct rig *rig);

/* A writer below RIG_DIR. */
struct spool *rig_spool(struct rig *rig, uint64_t segment_bytes, struct err *err);

/* A message: its bytes follow from its number, so that it can be known again. */
struct rig_msg {
	struct id id;
	uint32_t number;
	size_t size;
	bool told;          /* the callback ran */
	enum err_code code; /* with this */
	struct spool_commit req;
};
/* Writes and commits one message; -1: it could not even be begun or written (msg->code). */
int rig_send(struct spool *sp, struct rig_msg *msg, uint32_t number, size_t size);
/* Prepares req so that its callback notes in msg what became of it. */
void rig_watch(struct spool_commit *req, struct rig_msg *msg);
/* "message N of S bytes" and then letters that follow from both. */
void rig_fill(char *out, uint32_t number, size_t size);
/* Whether these are the bytes of message `number`, and how many. */
bool rig_is_body(struct slice body, uint32_t *number);
/* The whole body of an item, from its record or its file, checked; NULL: not readable. */
char *rig_body(struct rig *rig, const struct reader_item *item, size_t *size, struct err *err);
/* Syncs the journal and runs what follows. */
void rig_sync(struct rig *rig);

#endif
