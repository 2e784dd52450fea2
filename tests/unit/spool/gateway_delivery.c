/* tests/unit/spool/gateway_delivery.c - the delivery of the gateway: what next hops say, and what
 * it notes of that. */
#include "unit/spool/gateway_parts.h"

static void
finish_rcpt(struct job *job, uint32_t ordinal, enum index_outcome outcome, uint32_t attempts)
{
	struct index_rcpt rcpt = { .ordinal = ordinal,
		.outcome = (uint8_t)outcome,
		.attempts = attempts,
		.tried_ms = gw.now_ms,
		.reply = SLICE("") };
	unsigned open = 0;

	for (uint32_t i = 0; i < job->post->n_rcpts; i++) {
		const struct index_rcpt *known = index_rcpt(job->entry, i);

		open += i != ordinal && (known == NULL || known->outcome == INDEX_PENDING);
	}
	job->post->fates[ordinal].level = IN_MEMORY;
	job->post->fates[ordinal].syncing = false;
	if (open > 0) {
		journal_rcpt(job->d->journal, job->entry, &rcpt);
		return;
	}
	journal_done(job->d->journal, job->entry);
	job->entry = NULL;
}

static void
defer_rcpt(struct job *job, uint32_t ordinal, uint32_t attempts)
{
	struct index_rcpt rcpt = { .ordinal = ordinal,
		.attempts = attempts,
		.tried_ms = gw.now_ms,
		.next_ms = gw.now_ms + 1000,
		.reply = SLICE("450 4.2.0 later") };

	journal_rcpt(job->d->journal, job->entry, &rcpt);
}

/* The next hop says 250: what is noted of that before may not have been forgotten. */
static void
deliver(struct job *job, uint32_t ordinal, uint32_t attempts)
{
	struct post *p = job->post;
	struct fate *f = &p->fates[ordinal];

	gateway_must(f->delivered == 0 || f->level == FORGOTTEN,
	    "message %u is delivered twice to recipient %u, which was recorded (%d)", p->number,
	    ordinal, (int)f->level);
	for (unsigned i = 0; i < gw.n_posts && p->key != 0; i++)
		gateway_must(&gw.posts[i] == p || gw.posts[i].key != p->key ||
				 gw.posts[i].fates[0].delivered == 0,
		    "release %u is delivered as message %u and %u", p->key, i, p->number);
	f->delivered++;
	finish_rcpt(job, ordinal, INDEX_SENT, attempts);
}

static uint32_t
attempts_of(const struct job *job, uint32_t ordinal)
{
	const struct index_rcpt *known = index_rcpt(job->entry, ordinal);

	return known != NULL ? known->attempts : 0;
}

static void
bounced(struct job *job)
{
	struct fate *f = &job->post->fates[job->ordinal];

	gateway_must(
	    !f->bounced || f->level == FORGOTTEN, "message %u is bounced twice", job->post->number);
	f->bounced = true;
	finish_rcpt(job, job->ordinal, INDEX_BOUNCED, attempts_of(job, job->ordinal) + 1);
}

static void
on_bounce_answer(struct spool_commit *req, const struct err *err)
{
	struct job *job = container_of(req, struct job, bounce);
	struct post *p = req->data;

	job->waits = false;
	p->told = true;
	p->code = err->code;
	if (err->code != ERR_NONE)
		return; /* it has not happened: tried again */
	p->promised = true;
	bounced(job);
}

/* A bounce about one recipient, of which there is one for an attempt, however often that is
 * made. */
static void
bounce(struct job *job, uint32_t ordinal)
{
	char label[64];
	struct id id;
	struct post *p;

	(void)snprintf(label, sizeof(label), "bounced attempt %u part %u",
	    attempts_of(job, ordinal) + 1, ordinal);
	id = id_derive(job->entry->id, slice_str(label));
	job->ordinal = ordinal;
	if (index_find(journal_index(job->d->journal), id) != NULL) {
		bounced(job);
		return;
	}
	p = gw_post_of(id);
	gateway_must(p == NULL || !p->promised, "message %u is bounced again", job->post->number);
	if (p == NULL)
		p = gw_new_post(id, 600 + job->post->number, 1);
	p->is_bounce = true;
	p->origin = job->entry->id;
	p->about = ordinal;
	job->bounce = (struct spool_commit){ .done = on_bounce_answer, .data = p };
	job->waits = gw_submit(job->d->own, p, &job->bounce);
}

static bool
attempt(struct job *job, uint32_t ordinal)
{
	static const unsigned deferrals[PLANS] = {
		[DEFER_SEND] = 1, [DEFER_LONG_SEND] = 7, [DEFER_BOUNCE] = 3
	};
	const struct index_rcpt *known = index_rcpt(job->entry, ordinal);
	enum plan plan = job->post->fates[ordinal].plan;
	uint32_t attempts = known != NULL ? known->attempts : 0;

	if (known != NULL && known->outcome != INDEX_PENDING)
		return true;
	if (attempts < deferrals[plan])
		defer_rcpt(job, ordinal, attempts + 1);
	else if (plan == BOUNCE || plan == DEFER_BOUNCE)
		bounce(job, ordinal);
	else
		deliver(job, ordinal, attempts + 1);
	return job->entry != NULL && !job->waits;
}

/* The bytes as they were handed in; false: not to be had now. */
static bool
check_body(struct job *job)
{
	struct err err = { 0 };
	struct post *p = job->post;
	struct reader_body *body = reader_body_open(job->d->reader, job->entry, &err);
	static char bytes[BODY_MAX], expected[BODY_MAX];
	size_t size = body != NULL ? (size_t)reader_body_size(body) : 0;
	bool got = body != NULL && size <= sizeof(bytes) &&
		   reader_body_read(body, 0, bytes, size, &err) == 0 &&
		   reader_body_verify(body, &err) == 0;

	reader_body_close(job->d->reader, body);
	gateway_must(
	    got || err.code != ERR_DAMAGED, "message %u is half there: %s", p->number, err.msg);
	rig_fill(expected, p->number, p->size);
	gateway_must(!got || (size == p->size && memcmp(bytes, expected, size) == 0),
	    "message %u is another one", p->number);
	return got;
}

static void
on_waited(struct journal_sync *req, const struct err *err)
{
	struct job *job = container_of(req, struct job, waits_for);

	if (err->code == ERR_NONE)
		job->waits = false;
	else if (err->code != ERR_CANCELLED)
		journal_sync_start(&job->waits_for, job->d->journal);
}

/* Not before all that was noted so far is safe. */
static void
wait_for_sync(struct job *job)
{
	job->waits = true;
	job->waits_for = (struct journal_sync){ .done = on_waited };
	journal_sync_start(&job->waits_for, job->d->journal);
}

/* What an earlier delivery told is as if this one had. */
static void
on_told(void *data, struct index_msg *msg, struct id report, enum envelope_tells tells)
{
	const struct post *bounce = gw_post_of(report);
	struct post *p = gw_post_of(msg->id);

	(void)data;
	gateway_must(bounce != NULL && p != NULL && tells == ENVELOPE_TELLS_BOUNCED &&
			 bounce->about < p->n_rcpts,
	    "a bounce that nobody made");
	p->fates[bounce->about].bounced = true;
	p->fates[bounce->about].level = IN_MEMORY;
	p->fates[bounce->about].syncing = false;
}

static void
look_who_is_told(struct delivery *d, const struct reader_item *item)
{
	struct arena arena = arena_of(64 << 10);
	struct envelope env;
	struct err err = { 0 };

	told_of(&d->bounces, item->msg);
	gateway_must(envelope_decode(item->envelope, &arena, &env, &err) == 0, "no envelope");
	if (item->msg->n_rcpts == 0)
		told_report(&d->bounces, &env);
	arena_fini(&arena);
}

static void
take_in(struct delivery *d, const struct reader_item *item)
{
	struct post *p = gw_post_of(item->msg->id);
	struct job *job = calloc(1, sizeof(*job));
	struct letter l;

	gateway_must(p != NULL, "a message that nobody sent");
	gateway_must(job != NULL && d->n_jobs < POSTS_MAX, "the test reads too much");
	gateway_must(
	    gw_is_same_envelope(p, item->envelope), "message %u has another envelope", p->number);
	*job = (struct job){ .entry = item->msg, .post = p, .d = d };
	if (!d->ready)
		look_who_is_told(d, item);
	gw_write_letter(p, &l);
	if (p->key != 0 && journal_key_seen(d->journal, l.env.release_key, item->msg)) {
		journal_done(d->journal, item->msg);
		free(job);
		return;
	}
	d->jobs[d->n_jobs++] = job;
	job->untold = p->is_bounce && !d->ready;
	if (p->key != 0 || (p->is_bounce && d->ready))
		wait_for_sync(job);
}

static void
drop_finished(struct delivery *d)
{
	unsigned kept = 0;

	for (unsigned i = 0; i < d->n_jobs; i++)
		if (d->jobs[i]->entry != NULL || d->jobs[i]->waits)
			d->jobs[kept++] = d->jobs[i];
		else
			free(d->jobs[i]);
	d->n_jobs = kept;
}

/* Its recipients were all told about by an earlier delivery. */
static void
finish_told(struct job *job)
{
	for (uint32_t i = 0; i < job->post->n_rcpts; i++)
		if (!told_is_finished(job->entry, i))
			return;
	journal_done(job->d->journal, job->entry);
	job->entry = NULL;
}

/* It was copied since. */
static bool
is_elsewhere(struct job *job)
{
	bool moved = job->segment != job->entry->segment || job->place != job->entry->place;

	job->segment = job->entry->segment;
	job->place = job->entry->place;
	return moved;
}

static void
attempt_all(struct delivery *d)
{
	for (unsigned i = 0; i < d->n_jobs; i++) {
		struct job *job = d->jobs[i];

		if (job->waits || job->entry == NULL || (job->untold && !d->settled) ||
		    !journal_healthy(d->journal))
			continue;
		if (!job->checked || is_elsewhere(job))
			job->checked = check_body(job);
		for (uint32_t r = 0; job->checked && r < job->post->n_rcpts; r++)
			if (!attempt(job, r))
				break;
		if (job->entry != NULL && !job->waits)
			finish_told(job);
	}
}

void
gw_each_fate(void (*what)(struct fate *f))
{
	for (unsigned i = 0; i < gw.n_posts; i++)
		for (unsigned r = 0; r < gw.posts[i].n_rcpts; r++)
			what(&gw.posts[i].fates[r]);
}

static void
note_written(struct fate *f)
{
	if (f->level == IN_MEMORY)
		f->level = WRITTEN;
}

static void
note_syncing(struct fate *f)
{
	f->syncing = f->level == IN_MEMORY || f->level == WRITTEN;
}

static void
note_synced(struct fate *f)
{
	if (f->syncing)
		f->level = SYNCED;
	f->syncing = false;
}

void
gw_forget_unwritten(struct fate *f)
{
	if (f->level == IN_MEMORY)
		f->level = FORGOTTEN;
}

void
gw_forget_unsynced(struct fate *f)
{
	if (f->level == IN_MEMORY || f->level == WRITTEN)
		f->level = FORGOTTEN;
}

static void
on_synced(struct journal_sync *req, const struct err *err)
{
	struct delivery *d = container_of(req, struct delivery, sync);

	d->syncing = false;
	if (err->code == ERR_NONE)
		gw_each_fate(note_synced);
}

static void
write_journal(struct delivery *d)
{
	journal_write(d->journal);
	if (journal_healthy(d->journal))
		gw_each_fate(note_written);
}

static void
on_settled(struct journal_sync *req, const struct err *err)
{
	struct delivery *d = container_of(req, struct delivery, telling);

	d->settled = err->code == ERR_NONE;
	if (!d->settled && err->code != ERR_CANCELLED)
		journal_sync_start(&d->telling, d->journal);
}

/* All that was there at the start has been read. */
static void
become_ready(struct delivery *d)
{
	if (d->ready || !reader_caught_up(d->reader))
		return;
	d->ready = true;
	told_fini(&d->bounces);
	d->telling = (struct journal_sync){ .done = on_settled };
	journal_sync_start(&d->telling, d->journal);
}

void
gw_deliver_some(void)
{
	struct delivery *d = gw.delivery;
	struct reader_item item;
	struct err err = { 0 };
	bool first;

	reader_look(d->reader);
	while (reader_next(d->reader, &item, &err) > 0)
		take_in(d, &item);
	become_ready(d);
	/* What is delivered while it is copied, and what is copied after that. */
	first = gw_dice(2) == 0;
	if (first)
		compact_step(d->compact, false);
	if (d->ready)
		attempt_all(d);
	if (!first)
		compact_step(d->compact, false);
	write_journal(d);
	gw_run_loop(&d->loop);
	write_journal(d); /* for what the bounces told, and the copies */
	drop_finished(d);
}

void
gw_sync_journal(void)
{
	struct delivery *d = gw.delivery;

	if (!d->syncing) {
		gw_each_fate(note_syncing);
		d->syncing = true;
		d->sync = (struct journal_sync){ .done = on_synced };
		journal_sync_start(&d->sync, d->journal);
	}
	gw_run_loop(&d->loop);
	drop_finished(d);
}

void
gw_free_delivery(struct delivery *d)
{
	spool_close(d->own);
	compact_close(d->compact);
	reader_close(d->reader);
	journal_close(d->journal);
	spooldir_close(&d->dir);
	gw_run_loop(&d->loop);
	gateway_must(uv_loop_close(&d->loop) == 0, "a closed delivery leaves handles");
	while (d->n_jobs > 0)
		free(d->jobs[--d->n_jobs]);
	told_fini(&d->bounces);
	free(d);
}

static void
fail_delivery(struct delivery *d)
{
	gw_free_delivery(d);
	gw_each_fate(gw_forget_unwritten);
}

void
gw_open_delivery(void)
{
	struct delivery *d = calloc(1, sizeof(*d));
	struct err err = { 0 };
	const struct spool_settings set = { .segment_bytes = OWN_SEGMENT };
	const struct compact_settings all = { .slack_bytes = 0 };

	gateway_must(d != NULL && uv_loop_init(&d->loop) == 0, "no loop");
	if (spooldir_open(&d->dir, RIG_DIR, &err) < 0 || spooldir_lock(&d->dir, 0, &err) < 0 ||
	    (d->journal = journal_open(&d->loop, &d->dir, &err)) == NULL ||
	    (d->reader = reader_open(&d->dir, d->journal, &err)) == NULL ||
	    (d->own = spool_open(&d->loop, RIG_DIR, &set, &err)) == NULL) {
		fail_delivery(d);
		return;
	}
	d->bounces = (struct told){ .journal = d->journal, .on_told = on_told, .data = d };
	d->compact = compact_open(d->reader, d->journal, d->own, &all);
	gateway_must(d->compact != NULL, "no memory");
	gw.delivery = d;
}

void
gw_close_delivery(void)
{
	struct delivery *d = gw.delivery;

	gw.delivery = NULL;
	gw_free_delivery(d);
	/* It writes and syncs what is left, but does not wait to hear whether that worked. */
	gw_each_fate(gw_forget_unwritten);
}
