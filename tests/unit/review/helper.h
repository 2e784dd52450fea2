/* tests/unit/review/helper.h - a store in a directory of its own, and its requests waited for. */
#ifndef TESTS_UNIT_REVIEW_HELPER_H
#define TESTS_UNIT_REVIEW_HELPER_H

#include "relayd/core/buf.h"
#include "relayd/review/store.h"
#include "relayd/review/store_admin.h"

#include <uv.h>

struct fixture {
	uv_loop_t loop;
	char dir[64];
	struct store *store;
	struct store_options options;
};

void fixture_open(struct fixture *f);
/* The store alone, as after a restart. */
void fixture_reopen(struct fixture *f);
/* Removes the directory too. */
void fixture_close(struct fixture *f);
void remove_dir(const char *dir);

/* An id that is the same for the same number. */
struct id test_id(unsigned n);
/* A message of at least so many bytes, which hardly compress; to be freed. */
struct buf big_message(size_t bytes);
/* What the gateway puts on top of a message for the quarantine, with this X-Relayd-To. */
#define TOP(to)                                                                                    \
	"Return-Path: <s@example.net>\r\nX-Relayd-Id: x\r\nX-Relayd-To: " to                       \
	"\r\nX-Relayd-Findings: GTUBE=1000,\r\n\tSPF=1\r\n"
#define MESSAGE "Received: from x\r\nSubject: hello\r\n\r\n.dot\r\nbye\r\n"

/* rcpts: separated by spaces.  Each waits for its request and returns its error code. */
enum err_code put(struct fixture *f, struct id id, const char *rcpts, const char *bytes);
enum err_code put_bytes(struct fixture *f, struct id id, const char *rcpts, struct slice bytes,
    int64_t body, size_t *n_new);
struct store_box *box_open(struct fixture *f, const char *scope, enum store_box_kind kind);
enum err_code move(struct fixture *f, struct store_box *box, uint32_t uid, enum store_box_kind to,
    const char *actor, uint32_t *new_uid);
enum err_code set_flags(struct fixture *f, struct store_box *box, uint32_t uid,
    enum store_flags_how how, uint64_t flags, const char *keyword);
/* The view of the first entry of a box from `from` on, NUL-terminated into out. */
enum err_code read_view(struct fixture *f, struct store_box *box, int64_t item, uint64_t from,
    size_t max, struct buf *out);
enum err_code job_done(struct fixture *f, int64_t rcpt, enum store_state state, const char *reply);
/* How many jobs there are; the first one's recipient in *rcpt. */
size_t jobs(struct fixture *f, int64_t *rcpt);

/* "1 2 5": the UIDs in the mailbox of a scope, opened and closed for this. */
const char *uids(struct fixture *f, const char *scope, enum store_box_kind kind);
size_t count(struct fixture *f, const char *scope, enum store_box_kind kind);
/* The only entry of a box. */
struct store_entry only(struct store_box *box);
/* All that is seen of the only message in that mailbox. */
void assert_view(struct fixture *f, const char *scope, enum store_box_kind kind, const char *want);

/* A statement, or a query for one number, on the database behind the store's back. */
void sql(struct fixture *f, const char *text);
int64_t sql_int(struct fixture *f, const char *text);

#endif
