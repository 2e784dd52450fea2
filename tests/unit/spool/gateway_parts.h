/* tests/unit/spool/gateway_parts.h - what the parts of the gateway share; for gateway*.c alone. */
#ifndef TESTS_UNIT_SPOOL_GATEWAY_PARTS_H
#define TESTS_UNIT_SPOOL_GATEWAY_PARTS_H

#include "relayd/core/clock.h"
#include "relayd/spool/compact.h"
#include "relayd/spool/reader.h"
#include "relayd/spool/spool.h"
#include "relayd/spool/told.h"
#include "unit/spool/gateway.h"
#include "unit/spool/rig.h"

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>

#define POSTS_MAX   400
#define RCPTS_MAX   3
#define BODY_MAX    60000
#define SEGMENT     (64u << 10) /* the shortest that is kept to be written over */
#define OWN_SEGMENT (8u << 10)
#define ROUNDS      9
#define FIRST_MS    1800000000000
#define STARTS_MAX  32 /* of the journal, before it makes its files one */

enum role { DELIVERY, WRITER_A, WRITER_B, ROLES };

/* What the next hop will say to a recipient, attempt by attempt. */
enum plan { SEND, DEFER_SEND, DEFER_LONG_SEND, BOUNCE, DEFER_BOUNCE, PLANS };

/* How safe the record of what became of a recipient is. */
enum level { NOTHING, IN_MEMORY, WRITTEN, SYNCED, FORGOTTEN };

struct fate {
	enum plan plan;
	unsigned delivered; /* times that the next hop took it */
	bool bounced;       /* a bounce about it is durable */
	enum level level;
	bool syncing;
};

/* A message that somebody handed in; how it is known again. */
struct post {
	struct id id;
	uint32_t number;
	size_t size;
	unsigned n_rcpts;
	unsigned key; /* of a release, or 0 */
	bool is_bounce;
	struct id origin; /* of a bounce: the message, and whom of it it is about */
	uint32_t about;
	bool told, promised; /* there was an answer; and once it was 250 */
	bool orphaned;       /* who handed it in, or would have told, is gone */
	enum err_code code;
	struct spool_commit req;
	struct fate fates[RCPTS_MAX];
};

struct writer {
	uv_loop_t loop;
	struct spool *spool;
	uint64_t memory;
};

/* A message that delivery has in its hands. */
struct job {
	struct index_msg *entry; /* NULL: done */
	struct post *post;
	bool checked, waits;
	const struct index_segment *segment; /* where it lay when it was checked */
	uint32_t place;
	struct delivery *d;
	struct journal_sync waits_for; /* of the journal */
	bool untold; /* a bounce of an earlier delivery: not before what it tells is safe */
	struct spool_commit bounce;
	uint32_t ordinal; /* that the bounce is about */
};

struct delivery {
	uv_loop_t loop;
	struct spooldir dir;
	struct journal *journal;
	struct reader *reader;
	struct spool *own;
	struct compact *compact;
	struct job *jobs[POSTS_MAX];
	unsigned n_jobs;
	bool ready, settled, syncing;
	struct journal_sync sync, telling;
	struct told bounces; /* that an earlier delivery made */
};

struct letter {
	struct envelope env;
	struct envelope_copy copies[2];
	struct envelope_rcpt rcpts[RCPTS_MAX];
	char paths[RCPTS_MAX][32], key[32];
	uint32_t about;
};

struct gateway {
	struct post posts[POSTS_MAX];
	unsigned n_posts, keys;
	uint64_t random;
	int64_t now_ms;
	struct writer *writers[ROLES];
	struct delivery *delivery;
	enum role role;
	jmp_buf death;
	unsigned amount;
};
extern struct gateway gw;

/* What follows is the same for a seed. */
unsigned gw_dice(unsigned n);
void gw_pass_time(int64_t ms);
void gw_run_loop(uv_loop_t *loop);

/* ---- gateway_mail.c ---- */

struct post *gw_post_of(struct id id); /* or NULL */
struct post *gw_new_post(struct id id, size_t size, unsigned n_rcpts);
void gw_write_letter(const struct post *p, struct letter *l);
/* Hands it to the spool; req->done() tells.  False: refused at once. */
bool gw_submit(struct spool *sp, struct post *p, struct spool_commit *req);
bool gw_is_same_envelope(const struct post *p, struct slice encoded);
/* For the writer whose role it is. */
void gw_open_writer(void);
void gw_close_writer(void);
void gw_send_some(void);
/* Review submits a release, and does not hear the answer: it submits it again. */
void gw_send_release(void);

/* ---- gateway_delivery.c ---- */

void gw_open_delivery(void);
void gw_close_delivery(void);
void gw_free_delivery(struct delivery *d);
void gw_deliver_some(void);
void gw_sync_journal(void);
void gw_each_fate(void (*what)(struct fate *f));
void gw_forget_unwritten(struct fate *f);
void gw_forget_unsynced(struct fate *f);

#endif
