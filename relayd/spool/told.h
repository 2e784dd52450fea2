/* relayd/spool/told.h - what reports that an earlier delivery made say of the messages they are
 * about.
 *
 * A bounce can be safe before the record that its recipients are bounced is: delivery was killed
 * between the two.  The next start meets both, in any order, and notes in the journal what the
 * report tells.  So a recipient who was told about is not tried again, however often delivery
 * starts.  The rest of that promise is the caller's: no report is sent before all that was there at
 * the start was read, and what was noted meanwhile is synced; a new one, not before the record is
 * synced.
 */
#ifndef RELAYD_SPOOL_TOLD_H
#define RELAYD_SPOOL_TOLD_H

#include "relayd/mail/envelope.h"
#include "relayd/spool/journal.h"

struct told {
	struct journal *journal;
	/* The journal knows now what report tells of msg, some of which was new. */
	void (*on_told)(
	    void *data, struct index_msg *msg, struct id report, enum envelope_tells tells);
	void *data;
	struct table waiting; /* reports whose origin was not read so far, by that */
};

/* Forgets reports that wait: all that was there at the start was read. */
void told_fini(struct told *t);
/* A report was read.  Its origin is told at once where that was read, or else by told_of().  Out of
 * memory: its recipients may be told about again. */
void told_report(struct told *t, const struct envelope *report);
/* msg was read, and is to be looked at by its owner after this. */
void told_of(struct told *t, struct index_msg *msg);
/* Nothing is to be done for that recipient any more, as far as the journal knows. */
bool told_is_finished(const struct index_msg *msg, uint32_t ordinal);

#endif
