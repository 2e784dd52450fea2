/* relayd/spool/compact.h - gives the disk back that a few late messages keep.
 *
 * A segment goes when its last message is done, and one that is deferred for days would keep all of
 * it.  So the open messages of a segment that is mostly done are copied to the log that delivery
 * writes itself.  In this order: the copy is durable; the journal says that the message lies there
 * now, with all that is known of it; that is durable; the old segment goes as any other one.
 *
 * The disk that the logs take is at most COMPACT_SLACK_BYTES, and what is open four times over, and
 * a segment for each writer; a quarter of the slack where the disk is nearly full.
 */
#ifndef RELAYD_SPOOL_COMPACT_H
#define RELAYD_SPOOL_COMPACT_H

#include "relayd/spool/reader.h"
#include "relayd/spool/spool.h"

#define COMPACT_OPEN_PERCENT 25           /* of a segment's bytes, at most, for it to be worth it */
#define COMPACT_SLACK_BYTES  (64u << 20)  /* what such segments may hold in vain, together */
#define COMPACT_NEAR_BYTES   (256u << 20) /* above the reserve: less free is nearly full */
#define COMPACT_ROOM_BYTES   (1u << 20)   /* with less free nothing is copied */
#define COMPACT_MESSAGES     32           /* in one step, */
#define COMPACT_BYTES        (256u << 10) /* and about so many bytes */
#define COMPACT_LOOK_MS      1000
#define COMPACT_RETRY_MS     60000 /* after a disk failed */

struct compact;

struct compact_settings {
	uint64_t reserve;     /* of the disk, as intake keeps it */
	uint64_t slack_bytes; /* COMPACT_SLACK_BYTES, but in tests */
};

/* All are borrowed; own is the log that copies go to.  NULL: out of memory. */
struct compact *compact_open(
    struct reader *r, struct journal *j, struct spool *own, const struct compact_settings *set);
void compact_configure(struct compact *c, const struct compact_settings *set);
/* Takes the next step if there is one to be taken now: reads a few messages and commits their
 * copies. Once a loop round; busy: other work waits, so that it is done only where twice the slack
 * is reached. */
void compact_step(struct compact *c, bool busy);
/* own was closed, reader and journal were not.  Accepts NULL. */
void compact_close(struct compact *c);

#endif
