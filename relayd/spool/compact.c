/* relayd/spool/compact.c - gives the disk back that a few late messages keep.
 *
 * A segment that is being emptied is held (bodies) until each of its copies is decided about: a
 * copy whose older record is gone and that the journal knows nothing of would be taken for a
 * message that the journal has lost.
 */
#include "relayd/spool/compact.h"

#include "relayd/core/clock.h"
#include "relayd/core/counters.h"
#include "relayd/core/log.h"
#include "relayd/spool/reader_log.h"

#include <stdlib.h>

/* One copy on its way. */
struct item {
	struct spool_commit commit;
	struct compact *compact;
	struct id id;
	uint32_t place, bytes; /* where it was; of the copy's record */
	bool in_file;
};

struct compact {
	struct reader *reader;
	struct journal *journal;
	struct spool *own;
	struct compact_settings set;
	struct index_segment *segment; /* that is being emptied */
	uint32_t next;                 /* place: those before were looked at */
	uint32_t copied;
	uint64_t copied_bytes;
	struct item items[COMPACT_MESSAGES];
	unsigned n_items, waiting;
	bool failed; /* one of them */
	bool hold;   /* one of them is not decided about */
	bool closed;
	int64_t look_ms; /* monotonic: not before */
	bool pressing;   /* twice the slack, or the disk is nearly full */
	struct buf record;
};

struct compact *
compact_open(
    struct reader *r, struct journal *j, struct spool *own, const struct compact_settings *set)
{
	struct compact *c = calloc(1, sizeof(*c));

	if (c == NULL)
		return NULL;
	c->reader = r;
	c->journal = j;
	c->own = own;
	c->record = buf_heap(RECORD_PAYLOAD_MAX + 4096);
	compact_configure(c, set);
	reader_own(r, spool_id(own));
	return c;
}

void
compact_configure(struct compact *c, const struct compact_settings *set)
{
	c->set = *set;
}

void
compact_close(struct compact *c)
{
	if (c == NULL)
		return;
	/* The segment stays held: what became of the last copies is for the next start to see. */
	buf_fini(&c->record);
	free(c);
}

/* -- which segment -- */

static bool
is_worth_it(const struct index_segment *seg)
{
	const struct reader_segment *rs = seg->reader;

	return seg->read && !seg->retired && !seg->damaged && seg->open > 0 && seg->unnamed == 0 &&
	       (rs == NULL || !rs->unfit) &&
	       seg->open_bytes * 100 <= seg->bytes * COMPACT_OPEN_PERCENT;
}

/* The one that gives the most for the least; *slack: what all of them would. */
static struct index_segment *
best_segment(const struct reader *r, uint64_t *slack)
{
	struct index_segment *best = NULL;
	uint64_t best_gain = 0;

	*slack = 0;
	for (struct reader_log *rl = r->logs; rl != NULL; rl = rl->next)
		for (struct index_segment *s = rl->log->segments; s != NULL; s = s->next) {
			uint64_t gain;

			if (rl->refused || !is_worth_it(s))
				continue;
			*slack += s->bytes - s->open_bytes;
			gain = s->bytes / (s->open_bytes / 1024 + 1);
			if (best == NULL || gain > best_gain) {
				best = s;
				best_gain = gain;
			}
		}
	return best;
}

static void
pick_segment(struct compact *c)
{
	struct reader *r = c->reader;
	uint64_t slack, room = 0;
	struct index_segment *seg = best_segment(r, &slack);
	bool full;

	if (seg == NULL || io_free_bytes(r->spool->root, &room, NULL) < 0 ||
	    room < COMPACT_ROOM_BYTES)
		return;
	full = room < c->set.reserve + COMPACT_NEAR_BYTES;
	if (slack <= c->set.slack_bytes / (full ? 4 : 1))
		return;
	c->pressing = full || slack > 2 * c->set.slack_bytes;
	c->segment = seg;
	c->segment->bodies++;
	c->next = 0;
	c->copied = 0;
	c->copied_bytes = 0;
}

/* -- the end of one -- */

static void
let_go(struct compact *c, struct index_segment *seg)
{
	seg->bodies--;
	c->reader->sweep_wanted = true;
}

static void
end_segment(struct compact *c)
{
	struct index_segment *seg = c->segment;
	char name[SPOOLDIR_SEGMENT_NAME_BYTES];

	spooldir_segment_name(seg->number, name);
	log_event("spool.compacted", kv_id("log", seg->log->id), kv_str("file", name),
	    kv_int("messages", c->copied), kv_int("copied", (int64_t)c->copied_bytes),
	    kv_int("bytes", (int64_t)seg->bytes));
	c->segment = NULL;
	c->look_ms = 0; /* for the next one at once */
	let_go(c, seg);
}

static bool
is_through(const struct compact *c)
{
	const struct index_segment *seg = c->segment;

	return seg->open == 0 || seg->msgs[seg->open - 1]->place < c->next;
}

/* It is left as it is. */
static void
give_up(struct compact *c)
{
	if (!c->hold)
		let_go(c, c->segment); /* else it is held as long as we live */
	c->segment = NULL;
	c->failed = c->hold = false;
	c->look_ms = clock_mono_ms() + COMPACT_RETRY_MS;
}

static void
tell_failure(const struct compact *c, const struct err *err)
{
	log_event("spool.error", kv_id("log", c->segment->log->id), kv_err("why", err));
}

static void
mark_unfit(const struct compact *c)
{
	struct reader_segment *rs = c->segment->reader;

	if (rs != NULL)
		rs->unfit = true; /* else it is tried again */
}

/* -- copies -- */

/* The copy is durable and counts, unless the message was delivered meanwhile; one that failed may
 * be there whole, and never does. */
static void
decide(struct compact *c, const struct item *item, bool durable)
{
	struct index_log *log = journal_log(c->journal, spool_id(c->own));
	struct index_segment *to = log != NULL ? index_segment(log, item->commit.segment) : NULL;
	struct index_msg *msg = index_at(c->segment, item->place);

	if (to == NULL) { /* no memory: the next start decides */
		c->failed = c->hold = true;
	} else if (durable && msg != NULL) {
		reader_copied(c->reader, msg, to, item->commit.place, item->bytes);
		counter_add(COUNTER_COMPACTED, 1);
		c->copied++;
		c->copied_bytes += item->bytes;
	} else {
		reader_not_copied(c->reader, c->segment, to, item->commit.place,
		    durable && item->in_file ? &item->id : NULL);
	}
}

static void
on_committed(struct spool_commit *req, const struct err *err)
{
	struct item *item = container_of(req, struct item, commit);
	struct compact *c = item->compact;

	c->waiting--;
	if (err->code == ERR_CANCELLED) {
		c->closed = true;
		return;
	}
	if (err->code != ERR_NONE && !c->failed)
		tell_failure(c, err);
	c->failed = c->failed || err->code != ERR_NONE;
	if (req->segment != 0)
		decide(c, item, err->code == ERR_NONE);
	else if (item->in_file)
		mark_unfit(c); /* its file cannot be given another name */
	if (c->waiting > 0)
		return;
	if (c->failed)
		give_up(c);
	else if (is_through(c))
		end_segment(c);
}

static int
copy(struct compact *c, struct index_msg *msg, struct item *item, struct err *err)
{
	struct reader_log *rl = c->segment->log->reader;
	struct spooldir_message m;
	struct spool_source source;
	size_t payload;

	if (reader_fetch_record(msg, &c->record, &m, err) < 0) {
		mark_unfit(c);
		return -1;
	}
	payload = SPOOLDIR_COPY_BYTES + SPOOLDIR_META_BYTES + m.envelope.len + m.body.len;
	*item = (struct item){ .commit = { .done = on_committed },
		.compact = c,
		.id = msg->id,
		.place = msg->place,
		.bytes = (uint32_t)record_bytes(payload),
		.in_file = m.meta.in_file };
	source = (struct spool_source){ .id = msg->id,
		.copy = { .log = rl->log->id,
		    .segment = c->segment->number,
		    .place = msg->place,
		    .file_seed = m.is_copy ? m.copy.file_seed : spooldir_file_seed(rl->log->id) },
		.envelope = m.envelope,
		.body = m.body,
		.in_file = m.meta.in_file,
		.file_bytes = m.meta.file_bytes,
		.file_sum = m.meta.file_sum };
	if (m.meta.in_file && !id_eq(rl->log->id, spool_id(c->own)))
		source.file_dir = rl->dir;
	if (spool_copy(&item->commit, c->own, &source, err) < 0)
		return -1;
	c->waiting++;
	return 0;
}

/* Those that are looked at next; false: one could not be copied. */
static bool
copy_some(struct compact *c)
{
	const struct index_segment *seg = c->segment;
	uint64_t bytes = 0;
	struct err err = { 0 };

	c->n_items = 0;
	for (uint32_t i = 0; i < seg->open && c->n_items < COMPACT_MESSAGES; i++) {
		struct index_msg *msg = seg->msgs[i];

		if (msg->place < c->next)
			continue;
		if (c->n_items > 0 && bytes + msg->bytes > COMPACT_BYTES)
			break;
		if (copy(c, msg, &c->items[c->n_items], &err) < 0) {
			tell_failure(c, &err);
			return false;
		}
		c->n_items++;
		c->next = msg->place + 1;
		bytes += msg->bytes;
	}
	return true;
}

/* The log that copies go to is known to the reader, which all of them will be read through. */
static bool
may_step(const struct compact *c)
{
	const struct index_log *log = index_log_find(c->reader->index, spool_id(c->own));

	return !c->closed && c->waiting == 0 && journal_healthy(c->journal) &&
	       reader_settled(c->reader) && log != NULL && log->reader != NULL;
}

void
compact_step(struct compact *c, bool busy)
{
	int64_t now = clock_mono_ms();

	if ((c->segment == NULL && now < c->look_ms) || !may_step(c))
		return;
	if (c->segment == NULL) {
		c->look_ms = now + COMPACT_LOOK_MS;
		/* What was copied may be copied again, and whoever finds both must know the
		 * first. */
		if (journal_decided(c->journal) > journal_synced(c->journal))
			return;
		pick_segment(c);
	}
	if (c->segment == NULL || (busy && !c->pressing))
		return;
	if (!copy_some(c)) {
		c->failed = true;
		if (c->waiting == 0)
			give_up(c); /* else when those are decided about */
	} else if (c->waiting == 0) {
		end_segment(c); /* the rest was delivered meanwhile */
	}
}
