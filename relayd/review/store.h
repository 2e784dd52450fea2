/* relayd/review/store.h - the quarantine: what was held, for whom, and how each scope sees it.
 *
 * An item is one message as LMTP gave it, its original bytes kept exactly, with the recipients that
 * it is held for.  Each recipient is held, releasing, released or dropped, for all users alike.  A
 * scope ("*", a domain, an address) sees the items with a recipient inside it.  Such an item is in
 * exactly one of the scope's mailboxes, by the state of the recipients inside the scope:
 *
 *	INBOX		one is held
 *	Release		none is held, one is on its way out
 *	Released	none of both, one was released
 *	Trash		all were dropped
 *
 * So moving, copying and expunging are changes of state, and the mailboxes of all scopes follow.
 * Every mailbox has UIDs of its own that are never used again; flags belong to the scope.  What a
 * scope reads of an item is its view: the quarantine's fields (Return-Path, X-Relayd-*, with an
 * X-Relayd-To that names only recipients inside the scope), then the original.
 *
 * Everything here is called on the loop and blocks for nothing.  A request is owned by its caller,
 * who fills in the upper half, keeps it and all it points to until done() has run, and then reads
 * the lower half.  done() runs exactly once, on the loop, never inside the call that started it,
 * with req.err.code ERR_NONE when the change is on disk.  There is no cancel: they take
 * milliseconds.  Changes are seen in the order of their commits: a box is up to date, and its
 * watchers were told, before the done() of the request that changed it.
 */
#ifndef RELAYD_REVIEW_STORE_H
#define RELAYD_REVIEW_STORE_H

#include "relayd/core/buf.h"
#include "relayd/core/err.h"
#include "relayd/core/id.h"

#include <uv.h>

struct store;
struct keep;

enum store_box_kind { STORE_INBOX, STORE_RELEASE, STORE_RELEASED, STORE_TRASH, STORE_BOXES };
/* "INBOX", "Release", "Released", "Trash" */
const char *store_box_name(enum store_box_kind kind);

enum store_state { STORE_HELD, STORE_RELEASING, STORE_IS_RELEASED, STORE_DROPPED };
const char *store_state_name(enum store_state state);

/* Common head of all requests; only err is for the caller. */
struct store_req {
	struct err err;

	struct store *store; /* the store's own from here on */
	struct store_req *next;
	const struct store_req_ops *ops;
	struct store_changes *changes;
	struct store_box *box_ref;
};

/* ---- opening --------------------------------------------------------------------------------- */

struct store_options {
	const char *dir;       /* created with mode 0700 */
	uint32_t keep_s;       /* an item goes so long after its last change of state */
	uint32_t lock_wait_ms; /* how long to wait for an owner who is about to leave */
	/* What store_describe() keeps of an item: a pure function of its original bytes, run in the
	 * pool, in several threads at once.  Another version makes it be called again for all.
	 * NULL: descriptions are empty. */
	void (*describe)(struct slice original, struct buf *out);
	uint32_t describe_version;
};

/* Blocks: only for the start of the role, before the loop runs; starts no thread.  Fails with
 * ERR_BUSY while another process owns the store, ERR_VERSION for one made by a newer relayd,
 * ERR_DAMAGED when it is no store or SQLite finds it broken. */
struct store *store_open(uv_loop_t *loop, const struct store_options *options, struct err *err);
/* Runs the loop until no request is under way.  All boxes must have been closed.  NULL is fine. */
void store_close(struct store *st);
void store_set_keep(struct store *st, uint32_t keep_s);
/* True after a commit failed (disk full, I/O error), until the next that does not. */
bool store_failing(const struct store *st);

/* ---- mail in --------------------------------------------------------------------------------- */

#define STORE_CHUNK_BYTES (256u << 10) /* of an original, compressed by itself */

struct store_rcpt {
	struct slice forward_path; /* without <> */
	struct slice params;       /* ESMTP parameters of RCPT to hand on at release, or empty */
};

/* Bytes of a large message, ahead of its store_put(): what is staged and not put is gone after a
 * restart or store_unstage(). */
struct store_stage {
	struct store_req req;
	int64_t *body;      /* 0 before the first; then the same for all parts */
	struct slice bytes; /* a multiple of STORE_CHUNK_BYTES */
	void (*done)(struct store_stage *stage);

	int64_t made; /* the store's own */
};
void store_stage(struct store *st, struct store_stage *stage);
/* Forgets what was staged; needs no request. */
void store_unstage(struct store *st, int64_t body);

/* Unique on (id, forward-path): recipients that are there already are left as they are, and when
 * none is new the message is not stored again; that is success. */
struct store_put {
	struct store_req req;
	struct id id;
	int64_t body;              /* staged before, or 0 */
	struct slice bytes;        /* what follows it, quarantine fields on top included */
	struct slice reverse_path; /* without <> */
	struct slice params;       /* ESMTP parameters of MAIL to hand on at release, or empty */
	const struct store_rcpt *rcpts;
	size_t n_rcpts;
	void (*done)(struct store_put *put);

	size_t n_new;  /* recipients that were not there yet */
	uint64_t size; /* of the original */
};
void store_put(struct store *st, struct store_put *put);

/* ---- mailboxes ------------------------------------------------------------------------------- */

enum store_flag {
	STORE_SEEN = 1,
	STORE_ANSWERED = 2,
	STORE_FLAGGED = 4,
	STORE_DELETED = 8, /* never in Release, Released and Trash */
	STORE_DRAFT = 16,
};
/* Keyword number n of a scope is bit STORE_KEYWORD_BIT(n). */
#define STORE_KEYWORDS_MAX    48
#define STORE_KEYWORD_BYTES   64
#define STORE_KEYWORD_BIT(n)  ((uint64_t)1 << (8 + (n)))
/* Set by the store on an item that came back to INBOX because its release was refused for good. */
#define STORE_KEYWORD_REFUSED "$ReleaseRefused"

struct store_entry {
	uint32_t uid;
	uint32_t top; /* bytes of the view before the original */
	int64_t item;
	int64_t stored_ms; /* INTERNALDATE, wall clock */
	uint64_t flags;    /* enum store_flag and keywords */
	uint64_t size;     /* of the view */
};

/* A mailbox in memory, one for all sessions that have it open. */
struct store_box;

struct store_box_open {
	struct store_req req;
	struct slice scope; /* any case; made, and filled with what is held, when it is new */
	enum store_box_kind kind;
	void (*done)(struct store_box_open *open);

	struct store_box *box; /* a reference, to be given back with store_box_close() */
};
void store_box_open(struct store *st, struct store_box_open *open);
void store_box_close(struct store_box *box);

enum store_box_kind store_box_kind(const struct store_box *box);
const char *store_box_scope(const struct store_box *box);
uint32_t store_box_uidvalidity(const struct store_box *box);
uint32_t store_box_uidnext(const struct store_box *box);
/* In ascending order of UID; valid until the loop runs again. */
const struct store_entry *store_box_entries(const struct store_box *box, size_t *n);
const struct store_entry *store_box_find(const struct store_box *box, uint32_t uid);
/* The name of keyword n of the scope, or NULL past the last; they only grow. */
const char *store_box_keyword(const struct store_box *box, size_t n);
/* UIDs from the result on are \Recent to the session that asks; each is told to one session. */
uint32_t store_box_take_recent(struct store_box *box);
uint32_t store_box_peek_recent(const struct store_box *box);

enum store_change_kind {
	STORE_ADDED,
	STORE_REMOVED, /* entry as it was last */
	STORE_FLAGS_CHANGED,
	STORE_KEYWORDS_CHANGED, /* entry is empty */
};
struct store_change {
	enum store_change_kind kind;
	struct store_entry entry;
	const void *by; /* of the request that made it, or NULL */
};

/* Told of each change once the box shows it, and all that were committed with it. */
struct store_watch {
	void (*on_change)(struct store_watch *watch, const struct store_change *change);

	struct store_watch *next, **prev; /* the store's own */
	struct store *store;
};
/* A watch may be removed inside any on_change(), and its memory be freed then. */
void store_watch(struct store_box *box, struct store_watch *watch);
void store_unwatch(struct store_watch *watch);

/* The lock of a POP3 session (RFC 1939 section 4) on the INBOX of a scope: false while another has
 * it. */
bool store_box_lock(struct store_box *box);
void store_box_unlock(struct store_box *box);

/* ---- changes --------------------------------------------------------------------------------- */

enum store_flags_how { STORE_FLAGS_SET, STORE_FLAGS_ADD, STORE_FLAGS_REMOVE };

/* UIDs that are not there (any more) are passed over.  ERR_LIMIT past STORE_KEYWORDS_MAX. */
struct store_set_flags {
	struct store_req req;
	struct store_box *box;
	const uint32_t *uids;
	size_t n_uids;
	enum store_flags_how how;
	uint64_t flags;               /* system flags and keywords that are known */
	const struct slice *keywords; /* others by name; an unknown one is made (unless REMOVE) */
	size_t n_keywords;
	const void *by;
	void (*done)(struct store_set_flags *set);
};
void store_set_flags(struct store *st, struct store_set_flags *set);

struct store_moved {
	uint32_t from, to; /* UIDs; to is 0 when it went elsewhere than asked for */
};

/* What MOVE and COPY to a mailbox, EXPUNGE, DELE mean, for the recipients inside the box's scope:
 *
 *	INBOX -> Release, Trash -> Release	release
 *	INBOX -> Trash				drop
 *	Trash -> INBOX				hold again
 *
 * any other way is ERR_DENIED with a sentence for the user, and changes nothing.  A copy to where
 * it is already is no error and moves nothing.  UIDs that are not there are passed over: it was
 * somebody else, and nothing is done twice. */
struct store_move {
	struct store_req req;
	struct store_box *box;
	const uint32_t *uids;
	size_t n_uids;
	enum store_box_kind to;
	bool only_deleted;  /* of these only what has STORE_DELETED: EXPUNGE */
	struct slice actor; /* who: the login, for the audit */
	const void *by;
	void (*done)(struct store_move *move);

	struct store_moved *moved; /* in the order of from; store_move_fini() */
	size_t n_moved;
};
void store_move(struct store *st, struct store_move *move);
void store_move_fini(struct store_move *move);

/* ---- reading: in the pool, a bounded number at a time ---------------------------------------- */

#define STORE_READ_MAX  (1u << 20)
#define STORE_VISIT_MAX 256 /* items a request: a long list is asked for piece by piece */

/* Bytes of a view.  ERR_NOT_FOUND when the item has expired, or is not in the box's scope. */
struct store_read {
	struct store_req req;
	struct store_box *box;
	int64_t item;
	uint64_t from;
	size_t max; /* at most STORE_READ_MAX */
	void (*done)(struct store_read *read);

	struct buf bytes; /* fewer than max only at the end; buf_fini() by the caller */
};
void store_read(struct store *st, struct store_read *read);

/* What options.describe makes of each item, from the cache or made now and cached. */
struct store_describe {
	struct store_req req;
	struct store_box *box;
	const int64_t *items;
	size_t n_items; /* at most STORE_VISIT_MAX */
	void (*done)(struct store_describe *describe);

	/* n_items; empty where the item has gone: store_describe_fini() */
	struct slice *descriptions;
	struct buf storage;
	struct { /* the store's own */
		struct keep *keep;
		const struct store_options *options;
	} made;
};
void store_describe(struct store *st, struct store_describe *describe);
void store_describe_fini(struct store_describe *describe);

/* Calls visit() in the pool with the whole view of each item, in order: SEARCH TEXT, a part
 * decoded.  An item that has gone comes as an empty view.  It may touch its request and nothing
 * else. */
struct store_visit {
	struct store_req req;
	struct store_box *box;
	const int64_t *items;
	size_t n_items; /* at most STORE_VISIT_MAX */
	void (*visit)(struct store_visit *visit, size_t index, struct slice view, size_t top);
	void (*done)(struct store_visit *visit);
};
void store_visit(struct store *st, struct store_visit *visit);

#endif
