/* relayd/review/imap/parse.h - the grammar of commands: RFC 3501 section 9, with RFC 4315 (UID
 * EXPUNGE), 6851 (MOVE), 4959 (SASL-IR), 2971 (ID), 2342 (NAMESPACE) and 3691 (UNSELECT).
 *
 * Pure: bytes of a whole command in, a struct out; what it holds is in the arena or points into the
 * bytes. Every list is bounded.
 */
#ifndef RELAYD_REVIEW_IMAP_PARSE_H
#define RELAYD_REVIEW_IMAP_PARSE_H

#include "relayd/core/arena.h"
#include "relayd/review/imap/set.h"

#define IMAP_TAG_MAX     64
#define IMAP_ITEMS_MAX   64           /* of a FETCH */
#define IMAP_FIELDS_MAX  256          /* of a HEADER.FIELDS */
#define IMAP_DEPTH_MAX   32           /* numbers of a section, parentheses of a SEARCH */
#define IMAP_KEYS_MAX    1000         /* of a SEARCH */
#define IMAP_FLAGS_MAX   60           /* of a STORE */
#define IMAP_ARENA_BYTES (512u << 10) /* enough for any command of IMAP_COMMAND_MAX */

enum imap_verb {
	IMAP_CAPABILITY,
	IMAP_NOOP,
	IMAP_LOGOUT,
	IMAP_ID,
	IMAP_LOGIN,
	IMAP_AUTHENTICATE,
	IMAP_STARTTLS,
	IMAP_SELECT,
	IMAP_EXAMINE,
	IMAP_LIST,
	IMAP_LSUB,
	IMAP_SUBSCRIBE,
	IMAP_UNSUBSCRIBE,
	IMAP_STATUS,
	IMAP_NAMESPACE,
	IMAP_IDLE,
	IMAP_CREATE,
	IMAP_DELETE,
	IMAP_RENAME,
	IMAP_APPEND,
	IMAP_CHECK,
	IMAP_CLOSE,
	IMAP_UNSELECT,
	IMAP_EXPUNGE,
	IMAP_FETCH,
	IMAP_STORE,
	IMAP_SEARCH,
	IMAP_COPY,
	IMAP_MOVE,
	IMAP_OTHER, /* an extension that we know and do not have: a NO, whatever its arguments */
	IMAP_VERBS,
};

/* ---- FETCH ---- */

enum imap_item_kind {
	IMAP_ITEM_FLAGS,
	IMAP_ITEM_UID,
	IMAP_ITEM_DATE,
	IMAP_ITEM_SIZE,
	IMAP_ITEM_ENVELOPE,
	IMAP_ITEM_BODY,
	IMAP_ITEM_BODYSTRUCTURE,
	IMAP_ITEM_SECTION,
};

enum imap_section_text {
	IMAP_SECTION_ALL,
	IMAP_SECTION_HEADER,
	IMAP_SECTION_FIELDS,
	IMAP_SECTION_FIELDS_NOT,
	IMAP_SECTION_TEXT,
	IMAP_SECTION_MIME,
};

struct imap_item {
	enum imap_item_kind kind;
	/* The rest is for sections; RFC822, RFC822.HEADER and RFC822.TEXT are sections with a
	 * label. */
	struct slice label; /* as the response names it: "BODY[1.HEADER]<0>", without a count */
	uint32_t number[IMAP_DEPTH_MAX];
	size_t n_numbers;
	enum imap_section_text text;
	struct slice *fields;
	size_t n_fields;
	bool peek; /* \Seen stays as it is */
	bool partial;
	uint32_t from, count; /* octets; count is not 0 */
};

/* ---- SEARCH ---- */

enum imap_key_kind {
	IMAP_KEY_ALL,
	IMAP_KEY_FLAG,
	IMAP_KEY_NO_FLAG,
	IMAP_KEY_KEYWORD,
	IMAP_KEY_NO_KEYWORD,
	IMAP_KEY_RECENT,
	IMAP_KEY_NEW,
	IMAP_KEY_OLD,
	IMAP_KEY_BEFORE,
	IMAP_KEY_ON,
	IMAP_KEY_SINCE,
	IMAP_KEY_SENTBEFORE,
	IMAP_KEY_SENTON,
	IMAP_KEY_SENTSINCE,
	IMAP_KEY_LARGER,
	IMAP_KEY_SMALLER,
	IMAP_KEY_HEADER,
	IMAP_KEY_BODY,
	IMAP_KEY_TEXT,
	IMAP_KEY_SEQUENCE,
	IMAP_KEY_UID,
	IMAP_KEY_NOT,
	IMAP_KEY_OR,
	IMAP_KEY_AND,
};

struct imap_key {
	enum imap_key_kind kind;
	struct imap_key *next;  /* in the list of an AND */
	struct imap_key *a, *b; /* NOT: a; OR: both; AND: a is the first of its list */
	uint64_t flag;          /* enum store_flag */
	int64_t number;         /* octets, or days since 1970 */
	struct slice name;      /* of a header field or keyword */
	struct slice text;      /* to be found, as it came; empty finds all that have the field */
	struct imap_set set;
};

/* ---- the command ---- */

enum imap_store_how { IMAP_STORE_SET, IMAP_STORE_ADD, IMAP_STORE_REMOVE };
enum imap_status { /* RFC 3501 section 6.3.10 */
	IMAP_STATUS_MESSAGES = 1,
	IMAP_STATUS_RECENT = 2,
	IMAP_STATUS_UIDNEXT = 4,
	IMAP_STATUS_UIDVALIDITY = 8,
	IMAP_STATUS_UNSEEN = 16,
};

struct imap_command {
	struct slice tag, name; /* as written; both also when it could not be parsed */
	enum imap_verb verb;
	bool uid;                        /* UID FETCH and so on */
	struct imap_set set;             /* FETCH, STORE, COPY, MOVE, UID EXPUNGE */
	struct slice mailbox;            /* decoded, as written */
	struct slice pattern;            /* LIST, LSUB; mailbox is their reference */
	struct slice user, password;     /* LOGIN */
	struct slice mechanism, initial; /* AUTHENTICATE */
	bool has_initial;
	struct imap_item *items; /* FETCH */
	size_t n_items;
	struct imap_key *key;    /* SEARCH: an AND */
	struct slice charset;    /* SEARCH; empty: US-ASCII */
	unsigned status;         /* STATUS: set of enum imap_status */
	enum imap_store_how how; /* STORE */
	bool silent;
	uint64_t flags; /* STORE: enum store_flag */
	struct slice *keywords;
	size_t n_keywords;
};

/* NULL when it is a command; else the text of the BAD that it gets, in the arena or static. */
const char *imap_parse(struct slice bytes, struct arena *arena, struct imap_command *out);
/* Tag and verb of a command that is not whole yet: for a literal.  False when not even these
 * fit. */
bool imap_parse_head(struct slice bytes, struct imap_command *out);

#endif
