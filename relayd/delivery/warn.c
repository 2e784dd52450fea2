/* relayd/delivery/warn.c - tells senders, once a message, that it is late.
 *
 * Every minute all messages are looked at, some each round, and none any more when there are as
 * many bounces and warnings as a minute may have: most of them would be read from the disk in vain.
 * The warning's id derives from the message, and that it was given is in the journal, so that a
 * restart gives no second one.
 */
#include "relayd/delivery/parts.h"

#include "relayd/core/clock.h"
#include "relayd/core/counters.h"
#include "relayd/core/log.h"
#include "relayd/delivery/bounce.h"

#include <stdlib.h>

#define LOOKS_A_ROUND  20000 /* messages; of those that are not late nothing is read */
#define WARN_RCPTS_MAX 100   /* that one warning names */
#define WARN_ARENA_MAX (4u << 20)
#define HEAD_BYTES     (64u << 10) /* of a large message */

/* A warning that is being written. */
struct warning {
	struct delivery *d;
	struct queue_msg *msg; /* pinned */
	struct content *content;
	struct arena arena;
	struct envelope env;
	struct spool_commit commit;
};

/* "450 4.2.1 text" as it was kept. */
static struct report_rcpt
reply_of(uint32_t ordinal, struct slice text)
{
	struct report_rcpt r = { .ordinal = ordinal, .local = true, .enhanced = SLICE("") };
	struct slice word = slice_until(text, ' ');
	uint64_t code;

	r.text = text;
	if (word.len != 3 || !slice_u64(word, 599, &code) || code < 400)
		return r;
	r.code = (unsigned)code;
	r.local = false;
	r.text = slice_drop(text, word.len + 1);
	word = slice_until(r.text, ' ');
	if ((slice_starts(word, SLICE("4.")) || slice_starts(word, SLICE("5."))) && word.len < 12) {
		r.enhanced = word;
		r.text = slice_drop(r.text, word.len + 1);
	}
	return r;
}

static struct slice
why_of(const struct queue_job *job, const struct queue_rcpt *rcpt)
{
	struct slice why = queue_reason_text(rcpt->why);

	if (why.len == 0 || hop_quiet_until(hop_of(job)) != 0)
		why = slice_str(hop_of(job)->why.text);
	return why.len > 0 ? why : SLICE("it waits for its turn");
}

/* The open recipients who are to be told about. */
static size_t
gather(const struct warning *w, struct bounce_rcpt *v)
{
	const struct envelope_copy *copy;
	size_t n = 0;

	for (const struct queue_job *job = w->msg->jobs; job != NULL; job = job->sibling) {
		if (hop_of(job)->route->quarantine)
			continue;
		for (uint32_t i = 0; i < job->n_rcpts && n < WARN_RCPTS_MAX; i++) {
			const struct index_rcpt *known =
			    index_rcpt(w->msg->entry, job->rcpts[i].ordinal);

			v[n].reply = reply_of(job->rcpts[i].ordinal, why_of(job, &job->rcpts[i]));
			v[n].reply.tried_ms = known != NULL ? known->tried_ms : 0;
			if (content_rcpt(w->content, job->rcpts[i].ordinal, &copy, &v[n].rcpt) &&
			    outcome_warns(&w->content->env, v[n].rcpt->params))
				n++;
		}
	}
	return n;
}

static void
warning_free(struct warning *w)
{
	struct delivery *d = w->d;
	struct queue_msg *msg = w->msg;
	struct id id = msg->entry->id;

	content_unref(w->content);
	arena_fini(&w->arena);
	free(w);
	d->n_reports--;
	settle_unpin(d, msg);
	if (!d->closing)
		tail_park_id(d, id);
	delivery_ended_one(d);
}

static void
on_committed(struct spool_commit *req, const struct err *err)
{
	struct warning *w = container_of(req, struct warning, commit);
	struct index_msg *entry = w->msg->entry;

	if (err->code != ERR_NONE) {
		log_event("delivery.alarm", kv_str("what", "warning"), kv_id("id", entry->id),
		    kv_err("why", err));
	} else {
		log_event("delivery.warned", kv_id("id", entry->id), kv_id("report", w->env.id));
		journal_order(w->d->journal, entry, entry->flags | INDEX_WARNED,
		    entry->via != NULL ? slice_str(entry->via) : SLICE(""));
	}
	warning_free(w);
}

static int
head_of(struct warning *w, struct slice *head, struct err *err)
{
	size_t n = w->content->env.size < HEAD_BYTES ? (size_t)w->content->env.size : HEAD_BYTES;
	char *p;

	*head = w->content->body;
	if (content_open(w->content, w->msg->entry, err) < 0)
		return -1;
	if (w->content->file == NULL)
		return 0;
	p = arena_alloc(&w->arena, n);
	*head = slice_of(p, n);
	return p == NULL ? err_set(err, ERR_NOMEM, "warning")
			 : reader_body_read(w->content->file, 0, p, n, err);
}

static struct spool_msg *
write_it(struct warning *w, const struct bounce *b, struct err *err)
{
	struct buf out = buf_heap(BOUNCE_BYTES_MAX);
	struct spool_msg *msg = NULL;

	if (bounce_build(b, &out, &w->arena, &w->env, err) == 0)
		msg = spool_begin(w->d->own, out.len, err);
	w->env.tells = ENVELOPE_TELLS_LATE;
	if (msg != NULL && spool_write(msg, buf_slice(&out), err) < 0) {
		spool_abort(msg);
		msg = NULL;
	}
	buf_fini(&out);
	return msg;
}

/* Nobody is to be told about this one, now or later. */
static void
pass_over(struct delivery *d, struct index_msg *entry)
{
	journal_order(d->journal, entry, entry->flags | INDEX_WARNED,
	    entry->via != NULL ? slice_str(entry->via) : SLICE(""));
}

static void
begin(struct warning *w)
{
	struct delivery *d = w->d;
	struct index_msg *entry = w->msg->entry;
	struct bounce_rcpt rcpts[WARN_RCPTS_MAX];
	struct bounce b = { .cfg = d->cfg,
		.id = id_derive(entry->id, SLICE("delayed")),
		.original = &w->content->env,
		.remote = SLICE(""),
		.rcpts = rcpts,
		.n_rcpts = gather(w, rcpts),
		.now_ms = clock_wall_ms(),
		.delayed = true };
	struct spool_msg *msg = NULL;
	struct err err = { 0 };

	if (b.n_rcpts > 0 && index_find(journal_index(d->journal), b.id) == NULL) {
		if (!report_within_limit(d) || head_of(w, &b.head, &err) < 0 ||
		    (msg = write_it(w, &b, &err)) == NULL) {
			if (err.code != ERR_NONE)
				log_event("delivery.alarm", kv_str("what", "warning"),
				    kv_id("id", entry->id), kv_err("why", &err));
			warning_free(w); /* in a minute again */
			return;
		}
		w->commit = (struct spool_commit){ .done = on_committed };
		spool_commit(&w->commit, msg, &w->env);
		return;
	}
	pass_over(d, entry);
	warning_free(w);
}

static void
warn(struct delivery *d, struct queue_msg *msg)
{
	struct content *content = msg->content != NULL
				      ? content_ref(msg->content)
				      : content_fetch(&d->contents, msg->entry, NULL);
	struct warning *w = content != NULL ? calloc(1, sizeof(*w)) : NULL;

	if (w == NULL) {
		content_unref(content); /* in a minute again */
		tail_park(d, msg);
		return;
	}
	*w = (struct warning){ .d = d, .msg = msg, .content = content };
	w->arena = arena_of(WARN_ARENA_MAX);
	msg->pins++;
	d->n_reports++;
	begin(w);
}

/* It was tried, or its next hop was for it. */
static bool
was_tried(const struct queue_msg *msg)
{
	for (const struct queue_job *job = msg->jobs; job != NULL; job = job->sibling)
		if (job->attempts > 0 || hop_of(job)->missed != job->missed ||
		    hop_quiet_until(hop_of(job)) != 0)
			return true;
	return false;
}

static bool
is_late(const struct delivery *d, const struct index_msg *entry, int64_t now_ms)
{
	const struct queue_msg *msg = entry->parked ? NULL : entry->user;
	const struct line_slot *slot;

	if ((entry->flags & (INDEX_WARNED | INDEX_HELD)) != 0 || entry->user == NULL)
		return false;
	if (msg != NULL)
		return msg->open > 0 && !msg->dropped && was_tried(msg) &&
		       now_ms - msg->born_ms >= 1000 * (int64_t)d->cfg->queue.warn_s;
	slot = &((const struct queue_parked *)entry->user)->slot;
	return now_ms - hop_slot_born_ms(slot) >= 1000 * (int64_t)d->cfg->queue.warn_s &&
	       (slot->told || entry->n_rcpts > 0 || hop_quiet_until(slot->line->owner) != 0);
}

bool
warn_run(struct delivery *d)
{
	int64_t now = clock_mono_ms(), limited_ms;
	unsigned looks = LOOKS_A_ROUND;

	if (!d->ready || !delivery_may_start(d) || now < d->warn_ms || d->cfg->queue.warn_s == 0)
		return false;
	if (d->warn_ms != 0) {
		d->warn_ms = 0;
		d->warning = (struct index_cursor){ .log = 0 };
	}
	while (looks-- > 0 && report_may_start(d)) {
		struct index_msg *entry = index_cursor_next(journal_index(d->journal), &d->warning);
		struct queue_msg *msg;
		struct err err;

		if (entry == NULL) {
			d->warn_ms = now + WARN_EVERY_MS;
			return false;
		}
		if (!is_late(d, entry, now))
			continue;
		limited_ms = report_limited_ms(d);
		if (limited_ms != 0) {
			d->warn_ms = limited_ms;
			return false;
		}
		if ((msg = tail_whole(d, entry, &err)) != NULL)
			warn(d, msg);
	}
	return report_may_start(d); /* else the end of a report wakes us */
}

void
warn_stop(struct delivery *d)
{
	d->warn_ms = INT64_MAX;
}
