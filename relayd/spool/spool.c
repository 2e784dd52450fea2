/* relayd/spool/spool.c - the append-only log where a process keeps the mail it accepts. */
#include "relayd/spool/spool.h"

#include "relayd/core/clock.h"
#include "relayd/core/counters.h"
#include "relayd/core/log.h"
#include "relayd/core/record.h"
#include "relayd/spool/message.h"
#include "relayd/spool/round.h"
#include "relayd/spool/segment.h"
#include "relayd/spool/spooldir.h"
#include "relayd/spool/syncer.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#define GROUP_MAX     255        /* messages in one write */
#define GROUP_BYTES   (8u << 20) /* no more is begun after this many */
#define FILES_IN_LOOP (1u << 20) /* bytes of files that may be synced in the loop */
#define FREE_CACHE_MS 100        /* how long the free space is believed */
#define PREWRITE_FREE 16 /* segments that must fit on the disk besides, to write one ahead */
#define SMALL_GROUP   (64u << 10) /* bytes; in larger ones a sync costs little as it is */
#define RETRY_MS      1000        /* between attempts to begin a segment after a failure */

struct commits {
	struct spool_commit *head, **tail;
	unsigned n;
};

/* One write and sync, after a new segment where one is due. */
struct group {
	struct syncer_job job;
	struct spool *spool;
	struct io_dir *log, *spare;
	struct io_file *file; /* in; out: the new one, when rotate was set */
	struct record_file header;
	bool rotate, rotated;
	struct iovec iov[2 * GROUP_MAX + 1];
	int n_iov;
	uint64_t at, end; /* in the segment */
	struct commits commits;
};

/* The files of large messages, before their records. */
struct files {
	struct syncer_job job;
	struct spool *spool;
	struct io_dir *log;
	struct commits commits;
};

/* A spare segment for the next rotation. */
struct spare {
	struct syncer_job job;
	struct io_dir *dir;
	char name[IO_NAME_MAX];
	uint64_t bytes;
};

struct spool {
	struct spool_settings set;
	struct spooldir dir;
	struct message_home home;
	struct id id;
	struct io_file *lock;
	struct spooldir_page *page;
	struct io_file *segment; /* the current one */
	struct record_file header;
	uint64_t at;       /* where its next group starts; all before is durable */
	uint64_t has;      /* bytes that it takes of the disk already, written ahead or by others */
	uint64_t groups;   /* in it */
	struct err broken; /* why it is not to be written any more */
	int64_t retry_ms;  /* monotonic: when a new segment may be tried */
	struct commits pending, large, refused;
	struct group group;
	struct files files;
	struct spare spare;
	struct syncer *syncer, *file_syncer, *spare_syncer;
	struct round *round;
	bool full, closing;
	uint64_t free_bytes;
	int64_t free_read_ms;
};

static const char zeros[SPOOLDIR_BLOCK];

static void
commits_init(struct commits *c)
{
	*c = (struct commits){ .tail = &c->head };
}

static void
commits_push(struct commits *c, struct spool_commit *req)
{
	req->next = NULL;
	*c->tail = req;
	c->tail = &req->next;
	c->n++;
}

static struct spool_commit *
commits_pop(struct commits *c)
{
	struct spool_commit *req = c->head;

	if (req == NULL)
		return NULL;
	c->head = req->next;
	if (c->head == NULL)
		c->tail = &c->head;
	c->n--;
	return req;
}

/* Frees the message and tells: req may be gone afterwards. */
static void
tell(struct spool_commit *req, const struct err *err)
{
	message_free(req->msg);
	req->msg = NULL;
	req->done(req, err);
}

/* Where the next segment starts in the log: where this one ended. */
static uint64_t
log_end(const struct spool *sp)
{
	return sp->header.base + sp->at;
}

static struct record_file
next_header(const struct spool *sp)
{
	return record_file_new(RECORD_SEGMENT, sp->header.number + 1, log_end(sp));
}

static void
publish_end(struct spool *sp)
{
	uint64_t end = log_end(sp), number = sp->header.number;

	atomic_store_explicit(&sp->page->durable, end, memory_order_release);
	atomic_store_explicit(
	    &sp->page->check, spooldir_page_check(end, number), memory_order_release);
}

/* file is the segment from here on: its header is durable. */
static void
adopt_segment(struct spool *sp, struct io_file *file, const struct record_file *header)
{
	io_close(sp->segment);
	sp->segment = file;
	sp->header = *header;
	sp->at = SPOOLDIR_BLOCK;
	if (io_size(file, &sp->has, NULL) < 0)
		sp->has = 0; /* then it is taken to need all it gets */
	sp->groups = 0;
	sp->broken.code = ERR_NONE;
	/* The segment first: who sees a durable offset inside it must know that it is there. */
	atomic_store_explicit(&sp->page->segment, header->number, memory_order_release);
	publish_end(sp);
}

static void
break_segment(struct spool *sp, const struct err *err)
{
	if (sp->broken.code == ERR_NONE)
		log_event("spool.error", kv_id("log", sp->id), kv_err("why", err));
	counter_add(COUNTER_SPOOL_ERRORS, 1);
	sp->broken = *err;
	sp->retry_ms = clock_mono_ms();
	/* The header of the next segment says so as well; but there may never be one. */
	atomic_store_explicit(&sp->page->refused, sp->header.number, memory_order_release);
}

static void
mended(struct spool *sp)
{
	log_event(
	    "spool.mended", kv_id("log", sp->id), kv_int("segment", (int64_t)sp->header.number));
}

/* -- segments ahead -- */

/* How many bytes a new segment is written ahead with: none where the disk is small or filling
 * up. */
static uint64_t
prewrite_bytes(const struct spool *sp)
{
	uint64_t bytes, room = sp->set.segment_bytes * PREWRITE_FREE;

	if (io_free_bytes(sp->dir.root, &bytes, NULL) < 0 || bytes < room ||
	    bytes - room < sp->set.reserve)
		return 0;
	return sp->set.segment_bytes;
}

static int
run_spare(struct syncer_job *job, struct err *err)
{
	struct spare *s = container_of(job, struct spare, job);

	return segment_make_spare(s->dir, s->name, s->bytes, err);
}

static void
spare_done(struct syncer_job *job)
{
	(void)job; /* without a spare the next segment grows as it is written */
}

static void
start_spare(struct spool *sp)
{
	struct spare *s = &sp->spare;
	char id[ID_TEXT_LEN + 1];

	s->bytes = prewrite_bytes(sp);
	if (s->bytes == 0 || syncer_busy(sp->spare_syncer))
		return;
	id_text(sp->id, id);
	(void)snprintf(s->name, sizeof(s->name), "%s-after-%08x.seg", id,
	    (unsigned)sp->header.number); /* fits */
	syncer_run(sp->spare_syncer, &s->job, true);
}

/* -- the group: one write, one sync -- */

static int
run_group(struct syncer_job *job, struct err *err)
{
	struct group *g = container_of(job, struct group, job);

	if (g->rotate) {
		struct io_file *file = segment_create(g->log, g->spare, &g->header, 0, err);

		if (file == NULL)
			return -1;
		g->file = file;
		g->rotated = true;
	}
	if (io_write(g->file, g->iov, g->n_iov, g->at, err) < 0)
		return -1;
	return io_sync(g->file, err);
}

static void
publish(struct spool *sp, struct group *g)
{
	counter_add(COUNTER_SPOOL_SYNCS, g->rotated ? 2 : 1);
	counter_add(COUNTER_SPOOL_BYTES, (int64_t)(g->end - g->at));
	sp->at = g->end;
	sp->groups++;
	if (sp->at > sp->has && sp->free_bytes > g->end - g->at)
		sp->free_bytes -= g->end - g->at;
	publish_end(sp);
}

static void
group_done(struct syncer_job *job)
{
	struct group *g = container_of(job, struct group, job);
	struct spool *sp = g->spool;
	struct err err = job->err;
	struct commits commits = g->commits;
	struct spool_commit *req;
	bool was_broken = sp->broken.code != ERR_NONE;

	commits_init(&g->commits);
	if (g->rotated) {
		bool small = sp->at < sp->groups * SMALL_GROUP;

		adopt_segment(sp, g->file, &g->header);
		if (small && !sp->closing)
			start_spare(sp);
	}
	if (err.code == ERR_NONE) {
		publish(sp, g);
		if (was_broken)
			mended(sp);
	} else {
		break_segment(sp, &err);
	}
	while ((req = commits_pop(&commits)) != NULL) {
		if (err.code != ERR_NONE)
			message_drop_file(req->msg);
		if (g->rotate && !g->rotated)
			req->segment = 0; /* it was not written */
		tell(req, &err);
	}
	if (err.code == ERR_NONE && sp->set.on_durable != NULL)
		sp->set.on_durable(sp->set.data);
	if (sp->pending.n > 0 && !sp->closing)
		round_arm(sp->round);
}

/* How many bytes the messages take that go into the next group; *n of them. */
static uint64_t
measure(const struct spool *sp, unsigned *n)
{
	uint64_t bytes = 0;

	*n = 0;
	for (const struct spool_commit *req = sp->pending.head; req != NULL; req = req->next) {
		if (*n == GROUP_MAX || bytes > GROUP_BYTES)
			break;
		bytes += message_record_bytes(req->msg);
		++*n;
	}
	return bytes;
}

static uint64_t
block_end(uint64_t offset)
{
	return (offset + SPOOLDIR_BLOCK - 1) & ~(uint64_t)(SPOOLDIR_BLOCK - 1);
}

/* Moves n pending messages into the group.  The last one leaves a gap up to the next block, so
 * that no block with durable bytes is ever written again. */
static void
fill_group(struct group *g, struct commits *pending, unsigned n)
{
	uint64_t at = g->at;

	g->n_iov = 0;
	for (; n > 0; n--) {
		struct spool_commit *req = commits_pop(pending);
		uint64_t end = at + message_record_bytes(req->msg);
		struct record_place place = {
			.at = at,
			.type = req->msg->type,
			.gap = n == 1 ? (uint32_t)(block_end(end) - end) : 0,
		};

		req->segment = (uint32_t)g->header.number;
		req->place = (uint32_t)(at / RECORD_ALIGN);
		g->n_iov += message_record(req->msg, &g->header, &place, g->iov + g->n_iov);
		commits_push(&g->commits, req);
		at = end + place.gap;
		if (place.gap > 0)
			g->iov[g->n_iov++] = (struct iovec){ (void *)(uintptr_t)zeros, place.gap };
	}
	g->end = at;
}

static void
start_group(struct spool *sp)
{
	struct group *g = &sp->group;
	unsigned n;
	uint64_t bytes = measure(sp, &n);
	bool over = sp->at > SPOOLDIR_BLOCK && bytes > sp->set.segment_bytes - sp->at;

	g->rotate = sp->broken.code != ERR_NONE || sp->at >= sp->set.segment_bytes || over;
	g->rotated = false;
	g->header = g->rotate ? next_header(sp) : sp->header;
	g->file = sp->segment;
	g->at = g->rotate ? SPOOLDIR_BLOCK : sp->at;
	fill_group(g, &sp->pending, n);
	syncer_run(sp->syncer, &g->job, false);
}

/* -- the files of large messages -- */

static int
run_files(struct syncer_job *job, struct err *err)
{
	struct files *f = container_of(job, struct files, job);

	for (struct spool_commit *req = f->commits.head; req != NULL; req = req->next)
		if (message_keep_file(req->msg, err) < 0)
			return -1;
	return io_sync_dir(f->log, err);
}

/* Those whose files are safe get their records next.  A failed one fails all that were synced with
 * it: they are few, and the disk is in trouble. */
static void
files_done(struct syncer_job *job)
{
	struct files *f = container_of(job, struct files, job);
	struct spool *sp = f->spool;
	struct commits commits = f->commits;
	struct err err = job->err;
	struct spool_commit *req;

	commits_init(&f->commits);
	if (err.code != ERR_NONE) {
		counter_add(COUNTER_SPOOL_ERRORS, 1);
		log_event("spool.error", kv_id("log", sp->id), kv_err("why", &err));
	}
	while ((req = commits_pop(&commits)) != NULL) {
		if (err.code == ERR_NONE) {
			commits_push(&sp->pending, req);
			continue;
		}
		message_drop_file(req->msg);
		tell(req, &err);
	}
	if (!sp->closing)
		round_arm(sp->round);
}

static void
start_files(struct spool *sp)
{
	struct files *f = &sp->files;
	struct spool_commit *req;
	uint64_t bytes = 0;

	while ((req = commits_pop(&sp->large)) != NULL) {
		bytes += req->msg->size;
		commits_push(&f->commits, req);
		counter_add(COUNTER_SPOOL_SYNCS, 1);
	}
	counter_add(COUNTER_SPOOL_BYTES, (int64_t)bytes);
	syncer_run(sp->file_syncer, &f->job, bytes > FILES_IN_LOOP);
}

static void
on_round(void *data)
{
	struct spool *sp = data;
	struct commits refused = sp->refused;
	struct spool_commit *req;

	commits_init(&sp->refused);
	while ((req = commits_pop(&refused)) != NULL) {
		struct err err = req->msg->refused;

		tell(req, &err);
	}
	if (sp->large.n > 0 && !syncer_busy(sp->file_syncer))
		start_files(sp);
	if (sp->pending.n > 0 && !syncer_busy(sp->syncer))
		start_group(sp);
}

/* -- room -- */

static int
begin_segment(struct spool *sp, struct err *err)
{
	struct record_file header = next_header(sp);
	struct io_file *file = segment_create(sp->home.log, sp->dir.spare, &header, 0, err);

	if (file == NULL) {
		sp->retry_ms = clock_mono_ms() + RETRY_MS;
		counter_add(COUNTER_SPOOL_ERRORS, 1);
		return -1;
	}
	adopt_segment(sp, file, &header);
	return 0;
}

/* After a failure a new segment is tried at once, then once a second, by whoever asks. */
static int
check_segment(struct spool *sp, struct err *err)
{
	if (sp->broken.code == ERR_NONE || syncer_busy(sp->syncer))
		return 0;
	if (clock_mono_ms() < sp->retry_ms) {
		if (err != NULL)
			*err = sp->broken;
		return -1;
	}
	if (begin_segment(sp, err) < 0)
		return -1;
	mended(sp);
	return 0;
}

/* On a full disk the current segment must not be written on: what lies in it leaves the disk only
 * with the whole of it, and nobody removes a segment that has a writer. */
static void
leave_segment(struct spool *sp)
{
	if (sp->at > SPOOLDIR_BLOCK && sp->pending.n == 0 && sp->broken.code == ERR_NONE &&
	    !syncer_busy(sp->syncer) && clock_mono_ms() >= sp->retry_ms)
		(void)begin_segment(sp, NULL); /* else the next one to ask tries again */
}

static void
tell_full(struct spool *sp, bool full)
{
	if (sp->full == full)
		return;
	sp->full = full;
	if (full)
		counter_add(COUNTER_LIMIT_HITS, 1);
	log_event("limit", kv_str("what", "reserve"), kv_str("state", full ? "reached" : "over"),
	    kv_int("free", (int64_t)sp->free_bytes), kv_int("limit", (int64_t)sp->set.reserve));
}

/* What goes into blocks that the segment has already takes nothing of the disk. */
static bool
fits(const struct spool *sp, uint64_t bytes)
{
	uint64_t need = bytes + sp->home.in_flight;

	if (sp->free_bytes < sp->set.reserve)
		return false;
	if (bytes <= SPOOL_INLINE_MAX && sp->has > sp->at && sp->has - sp->at > need + SMALL_GROUP)
		return true;
	return sp->free_bytes - sp->set.reserve >= need;
}

static int
check_room(struct spool *sp, uint64_t bytes, struct err *err)
{
	int64_t now = clock_mono_ms();

	if (sp->set.reserve == 0)
		return 0;
	if (sp->free_read_ms == 0 || now - sp->free_read_ms >= FREE_CACHE_MS) {
		if (io_free_bytes(sp->dir.root, &sp->free_bytes, err) < 0)
			return -1;
		sp->free_read_ms = now;
	}
	if (fits(sp, bytes)) {
		tell_full(sp, false);
		return 0;
	}
	tell_full(sp, true);
	leave_segment(sp);
	return err_set(err, ERR_FULL,
	    "%s has %llu bytes left, queue { reserve } keeps %llu of them",
	    io_dir_path(sp->dir.root), (unsigned long long)sp->free_bytes,
	    (unsigned long long)sp->set.reserve);
}

int
spool_check(struct spool *sp, uint64_t bytes, struct err *err)
{
	return check_room(sp, bytes, err) < 0 || check_segment(sp, err) < 0 ? -1 : 0;
}

/* -- messages -- */

struct spool_msg *
spool_begin(struct spool *sp, uint64_t max_bytes, struct err *err)
{
	struct spool_msg *msg;

	assert(max_bytes >= 1 && max_bytes <= SPOOL_BYTES_MAX);
	if (spool_check(sp, 0, err) < 0)
		return NULL;
	msg = message_new(&sp->home, max_bytes, err);
	if (msg != NULL)
		msg->spool = sp;
	return msg;
}

char *
spool_room(struct spool_msg *msg, size_t want, size_t *room, struct err *err)
{
	return message_room(msg, want, room, err);
}

void
spool_wrote(struct spool_msg *msg, size_t n)
{
	assert(n <= msg->cap - msg->len);
	msg->len += n;
	msg->size += n;
}

int
spool_write(struct spool_msg *msg, struct slice bytes, struct err *err)
{
	if (bytes.len > msg->max_bytes - msg->size)
		return err_set(err, ERR_LIMIT, "the message is over %llu bytes",
		    (unsigned long long)msg->max_bytes);
	while (bytes.len > 0) {
		size_t room;
		char *p = message_room(msg, bytes.len, &room, err);

		if (p == NULL)
			return -1;
		room = room < bytes.len ? room : bytes.len;
		memcpy(p, bytes.p, room);
		spool_wrote(msg, room);
		bytes = slice_drop(bytes, room);
	}
	return 0;
}

uint64_t
spool_msg_size(const struct spool_msg *msg)
{
	return msg->size;
}

int
spool_peek(struct spool_msg *msg, struct slice *bytes, struct err *err)
{
	return message_peek(msg, bytes, err);
}

void
spool_commit(struct spool_commit *req, struct spool_msg *msg, const struct envelope *env)
{
	struct spool *sp = msg->spool;

	req->msg = msg;
	if (message_seal(msg, env, &msg->refused) < 0)
		commits_push(&sp->refused, req);
	else
		commits_push(message_has_file(msg) ? &sp->large : &sp->pending, req);
	round_arm(sp->round);
}

int
spool_copy(
    struct spool_commit *req, struct spool *sp, const struct spool_source *source, struct err *err)
{
	if (check_segment(sp, err) < 0)
		return -1;
	req->msg = message_of_source(&sp->home, source, err);
	if (req->msg == NULL)
		return -1;
	req->msg->spool = sp;
	commits_push(message_has_file(req->msg) ? &sp->large : &sp->pending, req);
	round_arm(sp->round);
	return 0;
}

void
spool_abort(struct spool_msg *msg)
{
	if (msg != NULL)
		message_free(msg);
}

/* -- the log -- */

static struct io_file *
make_page(struct io_dir *log, struct spooldir_page **page, struct err *err)
{
	struct io_file *file = io_create(log, SPOOLDIR_PAGE, err);
	const struct iovec iov = { (void *)(uintptr_t)zeros, SPOOLDIR_PAGE_BYTES };

	if (file == NULL || io_write(file, &iov, 1, 0, err) < 0 ||
	    (*page = io_map(file, SPOOLDIR_PAGE_BYTES, true, err)) == NULL) {
		io_close(file);
		return NULL;
	}
	return file;
}

/* Everything is made below a temporary name, and locked, before any reader can find it. */
static int
make_log(struct spool *sp, struct err *err)
{
	char name[ID_TEXT_LEN + 1], tmp[IO_NAME_MAX];
	struct io_file *page, *segment;
	struct record_file header;

	sp->id = sp->home.log_id = id_new();
	id_text(sp->id, name);
	(void)snprintf(tmp, sizeof(tmp), "%s.tmp", name);
	sp->home.log = io_dir_make_at(sp->dir.root, tmp, err);
	if (sp->home.log == NULL ||
	    (sp->lock = io_create(sp->home.log, SPOOLDIR_LOCK, err)) == NULL ||
	    io_lock(sp->lock, err) < 0 || (page = make_page(sp->home.log, &sp->page, err)) == NULL)
		return -1;
	io_close(page); /* the mapping stays */
	header = record_file_new(RECORD_SEGMENT, 1, 0);
	segment = segment_create(sp->home.log, sp->dir.spare, &header, prewrite_bytes(sp), err);
	if (segment == NULL)
		return -1;
	adopt_segment(sp, segment, &header);
	if (io_dir_rename(sp->dir.root, sp->home.log, name, err) < 0)
		return -1;
	return io_sync_dir(sp->dir.root, err);
}

static int
make_workers(struct spool *sp, uv_loop_t *loop, struct err *err)
{
	sp->round = round_open(loop, on_round, sp);
	if (sp->round == NULL)
		return err_set(err, ERR_NOMEM, "no memory for the spool");
	sp->syncer = syncer_open(loop, err);
	sp->file_syncer = sp->syncer != NULL ? syncer_open(loop, err) : NULL;
	sp->spare_syncer = sp->file_syncer != NULL ? syncer_open(loop, err) : NULL;
	return sp->spare_syncer != NULL ? 0 : -1;
}

struct spool *
spool_open(uv_loop_t *loop, const char *dir, const struct spool_settings *set, struct err *err)
{
	struct spool *sp = calloc(1, sizeof(*sp));

	if (sp == NULL) {
		err_set(err, ERR_NOMEM, "no memory for the spool");
		return NULL;
	}
	spool_configure(sp, set);
	commits_init(&sp->pending);
	commits_init(&sp->large);
	commits_init(&sp->refused);
	commits_init(&sp->group.commits);
	commits_init(&sp->files.commits);
	if (spooldir_open(&sp->dir, dir, err) < 0 || make_log(sp, err) < 0 ||
	    make_workers(sp, loop, err) < 0) {
		spool_close(sp);
		return NULL;
	}
	sp->group.spool = sp->files.spool = sp;
	sp->group.log = sp->files.log = sp->home.log;
	sp->group.spare = sp->dir.spare;
	sp->group.job.run = run_group;
	sp->group.job.done = group_done;
	sp->files.job.run = run_files;
	sp->files.job.done = files_done;
	sp->spare.dir = sp->dir.spare;
	sp->spare.job.run = run_spare;
	sp->spare.job.done = spare_done;
	start_spare(sp);
	return sp;
}

void
spool_configure(struct spool *sp, const struct spool_settings *set)
{
	sp->set = *set;
	if (sp->set.segment_bytes == 0)
		sp->set.segment_bytes = SPOOL_SEGMENT_BYTES;
	sp->home.memory = set->memory;
}

struct id
spool_id(const struct spool *sp)
{
	return sp->id;
}

static void
cancel(struct commits *commits)
{
	struct err err = { 0 };
	struct spool_commit *req;

	err_set(&err, ERR_CANCELLED, "the spool was closed");
	while ((req = commits_pop(commits)) != NULL)
		tell(req, &err);
}

void
spool_close(struct spool *sp)
{
	if (sp == NULL)
		return;
	sp->closing = true;
	syncer_close(sp->spare_syncer);
	syncer_close(sp->file_syncer);
	syncer_close(sp->syncer);
	round_close(sp->round);
	cancel(&sp->pending);
	cancel(&sp->large);
	cancel(&sp->refused);
	io_close(sp->segment);
	io_unmap(sp->page, SPOOLDIR_PAGE_BYTES);
	io_close(sp->lock);
	io_dir_close(sp->home.log);
	spooldir_close(&sp->dir);
	free(sp);
}
