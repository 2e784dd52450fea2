/* relayd/review/imap/view.h - a mailbox as one session numbers it (RFC 3501 section 2.3.1.2, RFC
 * 2180).
 *
 * The store changes a box at any time; a session may tell its client only at certain moments.  A
 * view keeps the numbers that the client knows, and what it has not been told yet.  A message that
 * has gone keeps its number, and can still be read, until its EXPUNGE has been sent.
 */
#ifndef RELAYD_REVIEW_IMAP_VIEW_H
#define RELAYD_REVIEW_IMAP_VIEW_H

#include "relayd/review/imap/set.h"
#include "relayd/review/store.h"

struct imap_message {
	uint32_t uid;
	bool recent;
	bool dirty; /* its flags have changed and the client does not know */
	bool gone;  /* its EXPUNGE has not been sent */
};

struct imap_view {
	struct store_box *box; /* a reference */
	bool read_only;
	const void *self; /* changes made by it with `quiet` set are not news */
	bool quiet;
	void (*on_news)(struct imap_view *view);

	struct imap_message *messages; /* number n is messages[n - 1]; ascending by UID */
	size_t n;

	/* Private. */
	struct store_watch watch;
	size_t cap, n_gone;
	struct store_entry *ghosts; /* of those gone, ascending by UID */
	size_t ghosts_cap;
	bool has_dirty, new_keywords, new_messages, failed;
};

/* Takes the reference to box over, and numbers what is there.  on_news is called when there is
 * something to tell.  -1 when out of memory: then the reference is given back. */
int imap_view_open(struct imap_view *view, struct store_box *box, bool read_only);
/* Harmless on a zeroed one. */
void imap_view_close(struct imap_view *view);
bool imap_view_is_open(const struct imap_view *view);
/* Out of memory while news came: the session cannot go on. */
bool imap_view_failed(const struct imap_view *view);

/* Of messages[index]: as it is in the box, or as it was last.  Valid until the loop runs. */
const struct store_entry *imap_view_entry(const struct imap_view *view, size_t index);
/* n when there is none. */
size_t imap_view_find(const struct imap_view *view, uint32_t uid);
/* The highest UID, or 0. */
uint32_t imap_view_last_uid(const struct imap_view *view);
size_t imap_view_recent(const struct imap_view *view);
bool imap_view_has_news(const struct imap_view *view);

/* Appends what the client does not know: EXPUNGE (if expunge is set), EXISTS and RECENT, FLAGS,
 * FETCH of flags.  Stops after about max_bytes: false, and to be called again. */
bool imap_view_sync(struct imap_view *view, bool expunge, size_t max_bytes, struct buf *out);

/* "FLAGS (...)" of a message. */
void imap_put_flags(
    const struct imap_view *view, const struct store_entry *entry, bool recent, struct buf *out);
/* "(\Answered ...)": the flags that are defined; permanent: those that can be changed for good. */
void imap_put_flag_list(const struct imap_view *view, bool permanent, struct buf *out);

#endif
