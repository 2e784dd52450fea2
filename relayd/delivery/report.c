/* relayd/delivery/report.c - tells about recipients that failed for good: by a bounce to the
 * sender, or by a copy in the quarantine.
 *
 * Either is a message of its own in our log, and tells in its envelope whom it is about: a start
 * after a crash notes that in the journal (spool/told.h) before anything is sent.  Its id derives
 * from the message, the attempt and the recipients.
 */
#include "relayd/delivery/parts.h"

#include "relayd/core/clock.h"
#include "relayd/core/counters.h"
#include "relayd/core/log.h"
#include "relayd/delivery/bounce.h"

#include <stdlib.h>

#define REPORT_ARENA_MAX (4u << 20)

struct report {
	struct report *next, **prev; /* of the delivery */
	struct delivery *d;
	struct queue_job *job;
	struct content *content;
	enum outcome kind;
	int64_t due_ms; /* for what is left of the job */
	struct arena arena;
	struct report_rcpt *rcpts;
	size_t n;
	char *nexthop, *remote;
	struct id id;
	struct envelope env;
	struct spool_msg *msg;
	struct spool_commit commit;
	struct content_read read; /* of a large message: its head for a bounce, all for a copy */
	char *chunk;
	uint64_t at;
	bool waits; /* for all that was there at the start: it may be made already */
};

bool
report_may_start(const struct delivery *d)
{
	return d->ready && d->n_reports < REPORTS_MAX && delivery_may_start(d);
}

int64_t
report_limited_ms(struct delivery *d)
{
	int64_t now = clock_mono_ms();

	if (now - d->bounces_ms >= REPORT_LIMIT_MS || d->bounces_ms == 0) {
		d->bounces_ms = now;
		d->bounces = 0;
	}
	if (d->cfg->queue.bounces == 0 || d->bounces < d->cfg->queue.bounces)
		return 0;
	if (d->bounces == d->cfg->queue.bounces) /* said once a minute */
		log_event("limit", kv_str("what", "bounces"), kv_int("max", d->cfg->queue.bounces));
	counter_add(COUNTER_LIMIT_HITS, 1);
	d->bounces = d->cfg->queue.bounces + 1;
	return d->bounces_ms + REPORT_LIMIT_MS;
}

bool
report_within_limit(struct delivery *d)
{
	if (report_limited_ms(d) != 0)
		return false;
	d->bounces++;
	return true;
}

/* When one that the limit holds back is made: as many of them have a minute as it lets have one, or
 * each would cost its next hop an attempt a minute.  None waits for longer than the longest of the
 * times between attempts. */
static int64_t
place_ms(struct delivery *d)
{
	int64_t first_ms = d->bounces_ms + REPORT_LIMIT_MS;
	int64_t last_ms = clock_mono_ms() + schedule_delay_ms(&d->schedule, UINT_MAX);

	if (d->place_ms < first_ms) {
		d->place_ms = first_ms;
		d->places = 0;
	} else if (d->places >= d->cfg->queue.bounces) {
		d->place_ms += REPORT_LIMIT_MS;
		d->places = 0;
	}
	if (d->place_ms > last_ms && last_ms >= first_ms)
		d->place_ms = last_ms;
	d->places++;
	return d->place_ms;
}

/* ---- the end -------------------------------------------------------------------------------- */

static void
report_free(struct report *r)
{
	*r->prev = r->next;
	if (r->next != NULL)
		r->next->prev = r->prev;
	r->d->n_reports--;
	free(r->chunk);
	arena_fini(&r->arena);
	free(r);
}

static void
tell(const struct report *r)
{
	const struct envelope_copy *copy;
	const struct envelope_rcpt *rcpt;

	for (size_t i = 0; i < r->n; i++)
		if (!r->rcpts[i].good && /* that was told when it was sent */
		    content_rcpt(r->content, r->rcpts[i].ordinal, &copy, &rcpt))
			settle_tell_report(r->d, r->job, r->kind, &r->rcpts[i], rcpt->forward_path,
			    r->nexthop, r->id);
}

static void
give_back(struct report *r, int64_t due_ms)
{
	struct delivery *d = r->d;
	struct queue_job *job = r->job;

	content_unref(r->content);
	report_free(r);
	if (job->attempts < UINT16_MAX)
		job->attempts++; /* of those that are left */
	settle_go_on(d, job, due_ms);
	if (d->n_reports == REPORTS_MAX - 1)
		hops_touch_all(d); /* some may have waited for it */
	delivery_ended_one(d);
}

static void
succeed(struct report *r)
{
	uint32_t ordinals[QUEUE_JOB_RCPTS];

	if (r->kind == OUTCOME_BOUNCED)
		counter_add(COUNTER_BOUNCED, 1);
	tell(r);
	for (size_t i = 0; i < r->n; i++)
		ordinals[i] = r->rcpts[i].ordinal;
	settle_finish(r->d, r->job, ordinals, r->n, r->kind);
	give_back(r, r->due_ms);
}

/* The failure is not told, so it has not happened: the recipients are tried again.  Those that have
 * the message are not: their report is lost. */
static void
fail_until(struct report *r, const struct err *err, int64_t due_ms)
{
	if (err->code != ERR_CANCELLED)
		log_event("delivery.alarm", kv_str("what", "report"),
		    kv_id("id", r->job->msg->entry->id), kv_err("why", err));
	spool_abort(r->msg);
	r->msg = NULL;
	give_back(r, due_ms);
}

static void
fail(struct report *r, const struct err *err)
{
	fail_until(r, err, clock_mono_ms() + REPORT_WAIT_MS);
}

/* ---- writing -------------------------------------------------------------------------------- */

static void
on_committed(struct spool_commit *req, const struct err *err)
{
	struct report *r = container_of(req, struct report, commit);

	if (err->code != ERR_NONE)
		fail(r, err);
	else
		succeed(r);
}

static void
commit(struct report *r)
{
	struct spool_msg *msg = r->msg;

	r->msg = NULL;
	r->commit = (struct spool_commit){ .done = on_committed };
	spool_commit(&r->commit, msg, &r->env);
}

/* For the next start, should what we note in the journal be lost. */
static int
say_about(struct report *r, struct err *err)
{
	r->env.tells = r->kind == OUTCOME_RELAYED       ? ENVELOPE_TELLS_SENT
		       : r->kind == OUTCOME_QUARANTINED ? ENVELOPE_TELLS_QUARANTINED
							: ENVELOPE_TELLS_BOUNCED;
	r->env.about = arena_alloc(&r->arena, r->n * sizeof(r->env.about[0]));
	if (r->env.about == NULL)
		return err_set(err, ERR_NOMEM, "report");
	for (size_t i = 0; i < r->n; i++)
		r->env.about[i] = r->rcpts[i].ordinal;
	r->env.n_about = r->n;
	return 0;
}

static int
bounce_of(struct report *r, struct slice head, struct buf *out, struct err *err)
{
	struct bounce b = { .cfg = r->d->cfg,
		.id = r->id,
		.original = &r->content->env,
		.head = head,
		.remote = slice_str(r->remote),
		.now_ms = clock_wall_ms() };
	struct bounce_rcpt *rcpts = arena_alloc(&r->arena, r->n * sizeof(*rcpts));
	const struct envelope_copy *copy;

	if (rcpts == NULL)
		return err_set(err, ERR_NOMEM, "bounce");
	for (size_t i = 0; i < r->n; i++) {
		rcpts[i].reply = r->rcpts[i];
		if (!content_rcpt(r->content, r->rcpts[i].ordinal, &copy, &rcpts[i].rcpt))
			return err_set(err, ERR_FORMAT, "no such recipient");
	}
	b.rcpts = rcpts;
	b.n_rcpts = r->n;
	return bounce_build(&b, out, &r->arena, &r->env, err) < 0 ? -1 : say_about(r, err);
}

static void
write_bounce(struct report *r, struct slice head)
{
	struct buf out = buf_heap(BOUNCE_BYTES_MAX);
	struct err err;
	int rc = bounce_of(r, head, &out, &err);

	if (rc == 0) {
		r->msg = spool_begin(r->d->own, out.len, &err);
		rc = r->msg != NULL ? spool_write(r->msg, buf_slice(&out), &err) : -1;
	}
	buf_fini(&out);
	if (rc < 0)
		fail(r, &err);
	else
		commit(r);
}

static void read_on(struct report *r);

static void
on_read(struct content_read *req, const struct err *err)
{
	struct report *r = container_of(req, struct report, read);
	struct slice piece = slice_of(r->chunk, req->n);
	struct err failed;

	if (err != NULL) {
		fail(r, err);
	} else if (r->kind != OUTCOME_QUARANTINED) {
		write_bounce(r, piece);
	} else if (r->d->closing) {
		err_set(&failed, ERR_CANCELLED, "ends");
		fail(r, &failed);
	} else if (spool_write(r->msg, piece, &failed) < 0) {
		fail(r, &failed);
	} else {
		r->at += req->n;
		read_on(r);
	}
}

static void
read_on(struct report *r)
{
	uint64_t left = r->content->env.size - r->at;
	struct err err = { .msg = "out of memory" };

	if (left == 0) {
		commit(r);
		return;
	}
	if (r->chunk == NULL)
		r->chunk = malloc(CONTENT_CHUNK_BYTES);
	r->read = (struct content_read){ .done = on_read,
		.owner = r,
		.content = r->content,
		.verify = r->at == 0,
		.at = r->at,
		.n = left < CONTENT_CHUNK_BYTES ? (size_t)left : CONTENT_CHUNK_BYTES,
		.out = r->chunk };
	if (r->chunk == NULL || content_read_start(&r->read, &err) < 0)
		fail(r, &err);
}

/* The message as received, with an envelope that leads to the quarantine. */
static void
write_copy(struct report *r)
{
	const struct envelope *env = &r->content->env;
	struct err err;

	if (undeliverable_envelope(env, r->id, r->rcpts, r->n, &r->arena, &r->env, &err) < 0 ||
	    say_about(r, &err) < 0)
		goto fail;
	r->msg = spool_begin(r->d->own, env->size > 0 ? env->size : 1, &err);
	if (r->msg == NULL)
		goto fail;
	if (r->content->file != NULL) {
		read_on(r);
		return;
	}
	if (spool_write(r->msg, r->content->body, &err) < 0)
		goto fail;
	commit(r);
	return;
fail:
	fail(r, &err);
}

/* ---- those of an earlier delivery ----------------------------------------------------------- */

void
report_told(struct delivery *d, const struct index_msg *entry)
{
	for (struct report *r = d->reports; r != NULL; r = r->next) {
		size_t kept = 0;

		if (!r->waits || r->job->msg->entry != entry)
			continue;
		for (size_t i = 0; i < r->n; i++)
			if (!told_is_finished(entry, r->rcpts[i].ordinal))
				r->rcpts[kept++] = r->rcpts[i];
		r->n = kept;
	}
}

/* ---- the start ------------------------------------------------------------------------------ */

/* Which attempt it was for those that failed now: as the journal knows it, which is the same after
 * a crash, whatever it noted about the job's other recipients meanwhile. */
static unsigned
attempt_of(const struct report *r)
{
	unsigned attempts = 0;

	for (size_t i = 0; i < r->n; i++) {
		const struct index_rcpt *known =
		    r->rcpts[i].good ? NULL /* noted a moment ago */
				     : index_rcpt(r->job->msg->entry, r->rcpts[i].ordinal);

		if (known != NULL && known->attempts > attempts)
			attempts = known->attempts;
	}
	return (r->kind == OUTCOME_RELAYED ? r->job->attempts : attempts) + 1u;
}

static struct id
id_of(const struct report *r)
{
	char label[64 + 11 * QUEUE_JOB_RCPTS];
	struct buf b = buf_over(label, sizeof(label));

	buf_printf(&b, "%s attempt %u of", outcome_name(r->kind), attempt_of(r));
	for (size_t i = 0; i < r->n; i++)
		buf_printf(&b, " %u", (unsigned)r->rcpts[i].ordinal);
	return id_derive(r->content->env.id, buf_slice(&b));
}

static bool
keep(struct report *r, const struct settle *s, const struct report_rcpt *rcpts)
{
	r->arena = arena_of(REPORT_ARENA_MAX);
	r->rcpts = arena_alloc(&r->arena, r->n * sizeof(*r->rcpts));
	r->nexthop = arena_printf(&r->arena, "%s", s->nexthop);
	r->remote = arena_printf(&r->arena, "%s", s->remote != NULL ? s->remote : "");
	if (r->rcpts == NULL || r->nexthop == NULL || r->remote == NULL)
		return false;
	for (size_t i = 0; i < r->n; i++) {
		r->rcpts[i] = rcpts[i];
		r->rcpts[i].enhanced = arena_copy(&r->arena, rcpts[i].enhanced);
		r->rcpts[i].text = arena_copy(&r->arena, rcpts[i].text);
		if (r->rcpts[i].enhanced.p == NULL || r->rcpts[i].text.p == NULL)
			return false;
	}
	return true;
}

static void
make(struct report *r)
{
	struct delivery *d = r->d;
	struct err err;

	if (r->n == 0) { /* an earlier delivery told about all of them */
		give_back(r, r->due_ms);
		return;
	}
	r->id = id_of(r);
	if (index_find(journal_index(d->journal), r->id) != NULL) {
		succeed(r);
	} else if (r->kind == OUTCOME_BOUNCED && !report_within_limit(d)) {
		err_set(
		    &err, ERR_CANCELLED, "too many bounces in this minute"); /* told by the limit */
		fail_until(r, &err, place_ms(d));
	} else if (r->kind == OUTCOME_QUARANTINED) {
		write_copy(r);
	} else if (r->content->file != NULL) {
		read_on(r);
	} else {
		write_bounce(r, r->content->body);
	}
}

void
report_start(const struct settle *s, enum outcome kind, const struct report_rcpt *rcpts, size_t n,
    int64_t due_ms)
{
	struct delivery *d = s->d;
	struct report *r = calloc(1, sizeof(*r));
	struct err err = { .code = ERR_NOMEM, .msg = "out of memory" };

	if (r == NULL) {
		content_unref(s->content);
		settle_unreadable(d, s->job, &err);
		return;
	}
	*r = (struct report){ .d = d,
		.job = s->job,
		.content = s->content,
		.kind = kind,
		.n = n,
		.due_ms = due_ms,
		.prev = &d->reports,
		.next = d->reports };
	if (r->next != NULL)
		r->next->prev = &r->next;
	d->reports = r;
	d->n_reports++;
	if (!keep(r, s, rcpts) || content_open(r->content, r->job->msg->entry, &err) < 0) {
		fail(r, &err);
		return;
	}
	r->waits = !d->ready;
	if (d->closing) {
		err_set(&err, ERR_CANCELLED, "delivery ends");
		fail(r, &err);
	} else if (!r->waits) {
		make(r);
	}
}

void
reports_go_on(struct delivery *d)
{
	struct err err = { .code = ERR_CANCELLED, .msg = "delivery ends" };
	struct report *r, *next;

	for (r = d->reports; r != NULL; r = next) {
		next = r->next;
		if (!r->waits)
			continue;
		r->waits = false;
		if (d->closing)
			fail(r, &err);
		else
			make(r);
	}
}
