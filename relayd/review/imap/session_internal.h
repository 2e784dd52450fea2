/* relayd/review/imap/session_internal.h - what the commands of a session share; for session*.c
 * only.
 *
 * A command is work: its arguments and a step() that is called again and again, until imap_end()
 * has written the tagged reply.  A step does a bounded piece; when it has started a request to the
 * store it calls imap_wait(), and the request's done() calls imap_go_on().
 */
#ifndef RELAYD_REVIEW_IMAP_SESSION_INTERNAL_H
#define RELAYD_REVIEW_IMAP_SESSION_INTERNAL_H

#include "relayd/auth/sasl.h"
#include "relayd/review/imap/describe.h"
#include "relayd/review/imap/parse.h"
#include "relayd/review/imap/scan.h"
#include "relayd/review/imap/search.h"
#include "relayd/review/imap/section.h"
#include "relayd/review/imap/session.h"
#include "relayd/review/imap/view.h"
#include "relayd/review/scope.h"

#define IMAP_HOST_MAX    255
#define IMAP_ACTOR_MAX   128
#define IMAP_BATCH       STORE_VISIT_MAX
#define IMAP_BATCH_BYTES (16u << 20) /* of messages that are searched in one request */

enum imap_state {
	IMAP_STATE_GREETED, /* RFC 3501 section 3.1: not authenticated */
	IMAP_STATE_AUTHENTICATED,
	IMAP_STATE_SELECTED,
	IMAP_STATE_LOGOUT,
};

enum imap_ending { IMAP_OK, IMAP_NO, IMAP_BAD };

struct imap_session;

/* Some of the messages that a command is for, with their descriptions where it wants them. */
struct imap_batch {
	struct imap_session *session;
	size_t first, n; /* of work->indexes */
	bool asked;      /* describe holds an answer */
	struct store_describe describe;
	struct arena arena;
	struct imap_description descriptions[IMAP_BATCH];
	bool described[IMAP_BATCH];
	int64_t items[IMAP_BATCH];
};

struct imap_fetch_work {
	size_t at;                 /* in the batch */
	size_t item;               /* of the message */
	bool begun;                /* "* n FETCH (" was written */
	bool first;                /* nothing stands behind it yet */
	struct imap_extent extent; /* what is left of the section that is being written */
	bool in_section;           /* "{n}" was written */
	bool missing;              /* something could not be read */
	bool told_flags;
};

struct imap_search_work {
	struct imap_candidate candidates[IMAP_BATCH]; /* of the batch */
	enum imap_found found[IMAP_BATCH];
	size_t undecided[IMAP_BATCH]; /* places in candidates; visited up to done */
	size_t n_undecided, done, n_visiting;
	int64_t items[IMAP_BATCH]; /* of those that are visited */
	bool *hits;                /* of all messages, by index */
	size_t looked_at;          /* of indexes[], by entry alone */
	size_t told;
};

struct imap_work {
	struct imap_session *session;
	struct arena arena;
	struct imap_command cmd;
	void (*step)(struct imap_session *s);
	void (*on_line)(struct imap_session *s, struct slice line); /* IDLE, AUTHENTICATE */
	enum imap_ending ending;
	char text[400];  /* of the tagged reply */
	struct buf code; /* its "[...] ", or empty */

	size_t *indexes; /* in the view: the messages of the set */
	size_t n_indexes;
	uint32_t *uids; /* of those that a change is for */
	size_t n_uids;
	bool gone;  /* one of them has been expunged by somebody else */
	bool moved; /* move was used */

	struct store_box_open open;
	struct store_box *target;
	union { /* one request at a time */
		struct store_set_flags flags;
		struct store_move move;
		struct store_read read;
		struct store_visit visit;
	};
	struct imap_batch *batch; /* FETCH, SEARCH */
	struct imap_fetch_work fetch;
	struct imap_search_work *search;
	struct sasl *sasl;
};

#define IMAP_CAPABILITIES_MAX 400

struct imap_session {
	struct store *store;
	const struct imap_session_ops *ops;
	void *owner;
	enum imap_state state;
	bool may_login;
	bool waiting;  /* no step before something has happened */
	bool in_store; /* namely the end of a request to the store */
	bool running, closing;
	unsigned bad_in_a_row, failed_logins;
	struct imap_scanner scanner;
	struct imap_work *work; /* NULL between commands */
	struct imap_view view;  /* open in IMAP_STATE_SELECTED */
	char *bye;              /* text of a BYE that waits */
	char hostname[IMAP_HOST_MAX + 1];
	char capabilities[IMAP_CAPABILITIES_MAX]; /* as they were last said */
	char user[IMAP_ACTOR_MAX + 1];
	char scope[SCOPE_BYTES_MAX + 1];
};

static inline struct buf *
imap_out(struct imap_session *s)
{
	return s->ops->out(s->owner);
}

/* A request is under way: no step until imap_go_on(). */
void imap_wait(struct imap_session *s);
void imap_go_on(struct imap_session *s);
/* The command ends: what the mailbox has to tell comes first, then "tag OK text". */
void imap_end(struct imap_session *s, enum imap_ending ending, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* NO with what went wrong in the store. */
void imap_end_err(struct imap_session *s, const struct err *err);
/* Fills work->indexes from cmd->set.  False when the command has ended with a BAD or out of
 * memory. */
bool imap_pick_messages(struct imap_session *s);
/* Fills work->uids with those of indexes[] that are still there. */
bool imap_pick_uids(struct imap_session *s);
/* Opens another mailbox as work->target, or leaves open.req.err; then() is the next step. */
void imap_open_target(
    struct imap_session *s, enum store_box_kind kind, void (*then)(struct imap_session *s));
const char *imap_capabilities(struct imap_session *s);
/* What AUTHENTICATE can use now. */
struct sasl_about imap_sasl_about(const struct imap_session *s);
/* The kind of a mailbox by its name, INBOX in any case; false for any other. */
bool imap_box_named(struct slice name, enum store_box_kind *kind);

/* The next messages of indexes[] into work->batch.  describe: with their descriptions; then a
 * request is under way and then() the next step; else then() follows at once.  False: there are no
 * more. */
bool imap_batch_next(struct imap_session *s, bool describe, void (*then)(struct imap_session *s));
/* The entry of message i of the batch; NULL when it is nowhere any more. */
const struct store_entry *imap_batch_entry(const struct imap_session *s, size_t i);
/* Its place in the view. */
size_t imap_batch_index(const struct imap_session *s, size_t i);
void imap_batch_free(struct imap_batch *batch);

void imap_run_fetch(struct imap_session *s);
void imap_run_search(struct imap_session *s);
void imap_run_store(struct imap_session *s);
void imap_run_copy(struct imap_session *s); /* and MOVE */
void imap_run_expunge(struct imap_session *s);
void imap_run_close(struct imap_session *s);
void imap_run_select(struct imap_session *s); /* and EXAMINE */
void imap_run_status(struct imap_session *s);
void imap_run_list(struct imap_session *s);      /* and LSUB */
void imap_run_subscribe(struct imap_session *s); /* and UNSUBSCRIBE */
void imap_run_refused(struct imap_session *s);   /* CREATE and its like */
void imap_run_login(struct imap_session *s);
void imap_run_authenticate(struct imap_session *s);
void imap_run_idle(struct imap_session *s);

#endif
