/* relayd/delivery/settle.c - what replies mean for queue, journal, log and trace. */
#include "relayd/delivery/parts.h"

#include "relayd/core/clock.h"
#include "relayd/core/counters.h"
#include "relayd/core/log.h"
#include "relayd/pipeline/story.h"

#include <stdio.h>

#define REPLY_BYTES   700
#define UNREADABLE_MS 60000   /* a message that the disk does not give is tried again after */
#define DAMAGED_MS    3600000 /* and one that it gives damaged after */

/* ---- what is said about it ------------------------------------------------------------------- */

struct saying {
	const char *event;
	struct id id, second; /* of the message, and of the bounce or copy that tells about it */
	struct slice rcpt, reply;
	struct slice tls; /* what came of it, or empty */
	const char *outcome, *nexthop;
	unsigned code, attempt;
	int64_t delay_ms;
};

static void
put_key(struct buf *b, const char *key)
{
	buf_puts(b, ",\"");
	buf_puts(b, key);
	buf_puts(b, "\":");
}

static void
put_text(struct buf *b, const char *key, struct slice text)
{
	put_key(b, key);
	pl_json_text(b, text);
}

static void
tell_trace(struct delivery *d, const struct saying *t)
{
	char storage[4096], now[CLOCK_ISO_BYTES], id[ID_TEXT_LEN + 1];
	struct buf b = buf_over(storage, sizeof(storage));

	clock_iso(clock_wall_ms(), now);
	buf_puts(&b, "{\"t\":\"");
	buf_puts(&b, now);
	buf_putc(&b, '"');
	put_text(&b, "delivery", slice_str(t->outcome));
	if (t->rcpt.len > 0)
		put_text(&b, "rcpt", t->rcpt);
	put_text(&b, "nexthop", slice_str(t->nexthop));
	put_key(&b, "code");
	buf_int(&b, t->code);
	put_text(&b, "reply", t->reply);
	put_key(&b, "attempt");
	buf_int(&b, t->attempt);
	put_key(&b, "delay_ms");
	buf_int(&b, t->delay_ms);
	if (t->tls.len > 0)
		put_text(&b, "tls", t->tls);
	if (id_wall_ms(t->second) != 0) {
		id_text(t->second, id);
		put_text(&b, "report", slice_of(id, ID_TEXT_LEN));
	}
	buf_putc(&b, '}');
	if (!b.overflow)
		trace_append(d->trace, t->id, (struct id){ { 0 } }, buf_slice(&b));
}

static void
tell_log(const struct saying *t)
{
	struct kv kvs[11];
	size_t n = 0;

	kvs[n++] = kv_id("id", t->id);
	if (t->rcpt.len > 0)
		kvs[n++] = kv_slice("rcpt", t->rcpt);
	kvs[n++] = kv_slice("nexthop", slice_str(t->nexthop));
	kvs[n++] = kv_int("code", t->code);
	kvs[n++] = kv_slice("reply", t->reply);
	kvs[n++] = kv_int("attempt", t->attempt);
	kvs[n++] = kv_int("delay_ms", t->delay_ms);
	if (t->tls.len > 0)
		kvs[n++] = kv_slice("tls", t->tls);
	if (strcmp(t->event, "delivery.sent") != 0 && strcmp(t->event, "delivery.deferred") != 0)
		kvs[n++] = kv_str("outcome", t->outcome);
	if (id_wall_ms(t->second) != 0)
		kvs[n++] = kv_id("report", t->second);
	log_event_list(t->event, kvs, n);
}

static void
tell(struct delivery *d, const struct saying *t)
{
	tell_log(t);
	tell_trace(d, t);
}

static const char *
event_of(enum outcome outcome)
{
	switch (outcome) {
	case OUTCOME_SENT:
	case OUTCOME_RELAYED:
		return "delivery.sent";
	case OUTCOME_DEFERRED:
	case OUTCOME_LEFT:
		return "delivery.deferred";
	case OUTCOME_QUARANTINED:
		return "message.quarantined";
	case OUTCOME_DUPLICATE:
	case OUTCOME_DROPPED:
		return "delivery.dropped";
	case OUTCOME_BOUNCED:
	case OUTCOME_LOST:
		break;
	}
	return "delivery.bounced";
}

/* "450 4.2.0 greylisted", or the text alone where nobody replied. */
static struct slice
reply_text(char out[static REPLY_BYTES], unsigned code, const char *enhanced, struct slice text)
{
	struct buf b = buf_over(out, REPLY_BYTES);

	if (code != 0) {
		buf_int(&b, code);
		buf_putc(&b, ' ');
	}
	if (code != 0 && enhanced[0] != '\0') {
		buf_puts(&b, enhanced);
		buf_putc(&b, ' ');
	}
	buf_put(&b, slice_head(text, REPLY_BYTES - 20));
	return buf_slice(&b);
}

/* ---- recipients that are finished ------------------------------------------------------------ */

static const enum index_outcome index_outcomes[] = {
	[OUTCOME_SENT] = INDEX_SENT,
	[OUTCOME_DEFERRED] = INDEX_PENDING,
	[OUTCOME_BOUNCED] = INDEX_BOUNCED,
	[OUTCOME_QUARANTINED] = INDEX_QUARANTINED,
	[OUTCOME_LOST] = INDEX_DROPPED,
	[OUTCOME_DUPLICATE] = INDEX_DROPPED,
	[OUTCOME_DROPPED] = INDEX_DROPPED,
	[OUTCOME_RELAYED] = INDEX_SENT,
};

/* Recipient i of job has left the queue; noted unless the whole message is about to be done, which
 * it is not before a report that is still to be written, nor while somebody reads it, be it for an
 * hour. */
static void
finish_rcpt(struct delivery *d, struct queue_job *job, uint32_t i, enum outcome outcome)
{
	struct index_rcpt rcpt = { .ordinal = job->rcpts[i].ordinal,
		.outcome = (uint8_t)index_outcomes[outcome],
		.attempts = job->attempts + 1u,
		.tried_ms = clock_wall_ms(),
		.reply = SLICE("") };

	if (job->msg->open > 1 || job->msg->pins > 0 || outcome == OUTCOME_RELAYED)
		journal_rcpt(d->journal, job->msg->entry, &rcpt);
	queue_job_drop(&d->queue, job, i);
}

static void
finish_message(struct delivery *d, struct queue_msg *msg)
{
	struct index_msg *entry = msg->entry;

	if (msg->open > 0 || msg->pins > 0)
		return;
	content_unref(msg->content);
	msg->content = NULL;
	entry->user = NULL;
	queue_remove(&d->queue, msg);
	journal_done(d->journal, entry);
}

void
settle_unpin(struct delivery *d, struct queue_msg *msg)
{
	msg->pins--;
	finish_message(d, msg);
}

void
settle_go_on(struct delivery *d, struct queue_job *job, int64_t due_ms)
{
	struct queue_msg *msg = job->msg;
	struct hop *hop = hop_of(job);

	while (msg->dropped && job->n_rcpts > 0)
		finish_rcpt(d, job, job->n_rcpts - 1, OUTCOME_DROPPED);
	if (job->n_rcpts == 0) {
		queue_job_free(&d->queue, job);
		finish_message(d, msg);
	} else if (queue_is_held(msg)) {
		queue_hold(job);
	} else if (due_ms <= clock_mono_ms()) {
		queue_ready(job, false);
	} else {
		queue_defer(&d->queue, job, due_ms);
		delivery_wake(d);
		tail_park(d, msg);
	}
	hop_touch(hop);
}

/* A recipient that the transaction has no place for goes to another job, made when *to is NULL. */
static void
move_over(struct delivery *d, struct queue_job *job, uint32_t i, struct queue_job **to)
{
	struct queue_job *left = *to;

	if (left == NULL) {
		left = *to = queue_job_new(job->msg, job->slot.line);
		if (left == NULL)
			return; /* no memory: it waits with the rest */
		left->part = job->rcpts[i].ordinal;
		left->planned = job->planned;
		left->missed = job->missed;
		left->attempts = job->attempts;
		memcpy(left->slot.flow, job->slot.flow, sizeof(left->slot.flow));
	}
	if (!queue_job_add(&d->queue, left, job->rcpts[i].ordinal))
		return; /* the same */
	queue_why(&d->queue, &left->rcpts[left->n_rcpts - 1], queue_reason_text(job->rcpts[i].why));
	queue_job_drop(&d->queue, job, i);
}

static void
put_in_front(struct delivery *d, struct queue_job *job)
{
	if (job != NULL && job->n_rcpts > 0)
		queue_ready(job, true);
	else if (job != NULL)
		queue_job_free(&d->queue, job);
}

void
settle_split(struct delivery *d, struct queue_job *job, uint32_t n)
{
	struct queue_job *rest = NULL;

	while (job->n_rcpts > n) {
		uint32_t had = job->n_rcpts;

		move_over(d, job, had - 1, &rest);
		if (job->n_rcpts == had)
			break; /* no memory: the peer says what it takes */
	}
	put_in_front(d, rest);
}

void
settle_put_back(struct delivery *d, struct queue_job *job)
{
	if (job->msg->dropped || queue_is_held(job->msg)) {
		settle_go_on(d, job, 0);
		return;
	}
	queue_ready(job, true);
	hop_touch(hop_of(job));
}

void
settle_finish(struct delivery *d, struct queue_job *job, const uint32_t *ordinals, size_t n,
    enum outcome outcome)
{
	for (size_t k = 0; k < n; k++)
		for (uint32_t i = 0; i < job->n_rcpts; i++)
			if (job->rcpts[i].ordinal == ordinals[k])
				finish_rcpt(d, job, i, outcome);
}

static void
tell_dropped(struct delivery *d, const struct index_msg *entry)
{
	struct saying t = { .event = event_of(OUTCOME_DROPPED),
		.id = entry->id,
		.reply = SLICE("by the admin"),
		.outcome = outcome_name(OUTCOME_DROPPED),
		.nexthop = "" };

	tell(d, &t);
}

void
settle_drop_unreadable(struct delivery *d, struct index_msg *entry)
{
	if (!entry->parked) {
		settle_drop(d, entry->user);
		return;
	}
	tell_dropped(d, entry);
	queue_parked_drop(&d->queue, entry->user);
	entry->user = NULL;
	entry->parked = false;
	journal_done(d->journal, entry);
}

void
settle_drop(struct delivery *d, struct queue_msg *msg)
{
	struct queue_job *job, *next;

	tell_dropped(d, msg->entry);
	msg->dropped = true;
	msg->pins++;
	for (job = msg->jobs; job != NULL; job = next) {
		next = job->sibling;
		if (job->slot.state == QUEUE_TAKEN)
			continue;
		queue_take(&d->queue, job);
		settle_go_on(d, job, 0);
	}
	settle_unpin(d, msg);
}

/* Jobs of msg without those who are finished as the journal knows by now. */
static void
leave_queue(struct delivery *d, struct queue_msg *msg)
{
	struct queue_job *job, *next;

	msg->pins++;
	for (job = msg->jobs; job != NULL; job = next) {
		uint32_t had = job->n_rcpts;

		next = job->sibling;
		if (job->slot.state == QUEUE_TAKEN)
			continue; /* settle() looks */
		for (uint32_t i = had; i-- > 0;)
			if (told_is_finished(msg->entry, job->rcpts[i].ordinal))
				queue_job_drop(&d->queue, job, i);
		if (job->n_rcpts < had) {
			queue_take(&d->queue, job);
			settle_go_on(d, job, job->slot.due.due_ms);
		}
	}
	settle_unpin(d, msg);
}

void
settle_told(void *data, struct index_msg *entry, struct id report, enum envelope_tells tells)
{
	struct delivery *d = data;
	enum outcome outcome = tells == ENVELOPE_TELLS_SENT          ? OUTCOME_RELAYED
			       : tells == ENVELOPE_TELLS_QUARANTINED ? OUTCOME_QUARANTINED
								     : OUTCOME_BOUNCED;
	struct saying t = { .event = event_of(outcome),
		.id = entry->id,
		.second = report,
		.rcpt = SLICE(""), /* who they are is on the disk */
		.reply = SLICE("known from a report that was made before delivery started"),
		.outcome = outcome_name(outcome),
		.nexthop = "" };
	struct queue_msg *msg;
	struct err err;

	if (tells == ENVELOPE_TELLS_LATE)
		return;
	tell(d, &t);
	if (entry->user == NULL)
		return; /* it is not in the queue yet */
	report_told(d, entry);
	msg = tail_whole(d, entry, &err);
	if (msg != NULL)
		leave_queue(d, msg);
}

void
settle_duplicate(struct delivery *d, struct index_msg *entry, const struct envelope *env)
{
	struct saying t = { .event = event_of(OUTCOME_DUPLICATE),
		.id = env->id,
		.second = env->origin,
		.rcpt = env->n_copies > 0 && env->copies[0].n_rcpts > 0
			    ? env->copies[0].rcpts[0].forward_path
			    : SLICE(""),
		.reply = SLICE("released before"),
		.outcome = outcome_name(OUTCOME_DUPLICATE),
		.nexthop = "" };

	tell(d, &t);
	journal_done(d->journal, entry);
}

/* ---- recipients that wait -------------------------------------------------------------------- */

static void
defer_rcpt(
    struct delivery *d, struct queue_job *job, uint32_t i, int64_t delay_ms, struct slice reply)
{
	int64_t wall = clock_wall_ms();
	struct index_rcpt rcpt = { .ordinal = job->rcpts[i].ordinal,
		.outcome = INDEX_PENDING,
		.attempts = job->attempts + 1u,
		.tried_ms = wall,
		.next_ms = wall + delay_ms,
		.reply = slice_head(reply, INDEX_REPLY_MAX - 1) };

	queue_why(&d->queue, &job->rcpts[i], reply);
	journal_rcpt(d->journal, job->msg->entry, &rcpt);
	counter_add(COUNTER_SEND_DEFERRED, 1);
}

/* Attempts of its own, as memory or the journal knows them. */
static unsigned
attempts_of(const struct line_slot *slot)
{
	const struct index_msg *entry = queue_slot_entry(slot);
	unsigned attempts = 0;

	if (!slot->parked)
		return container_of(slot, const struct queue_job, slot)->attempts;
	for (uint32_t i = 0; i < entry->n_rcpts; i++)
		if (entry->rcpts[i].outcome == INDEX_PENDING && entry->rcpts[i].attempts > attempts)
			attempts = entry->rcpts[i].attempts;
	return attempts;
}

void
settle_tell(struct delivery *d, struct line_slot *slot, const struct hop_failure *why)
{
	const struct queue_job *job =
	    slot->parked ? NULL : container_of(slot, const struct queue_job, slot);
	const struct content *content = job != NULL ? job->msg->content : NULL;
	const struct hop *hop = slot->line->owner;
	const struct envelope_copy *copy;
	const struct envelope_rcpt *rcpt;
	char reply[REPLY_BYTES];
	struct saying t = { .event = event_of(OUTCOME_DEFERRED),
		.id = queue_slot_entry(slot)->id,
		.reply = reply_text(reply, why->code, why->enhanced, slice_str(why->text)),
		.outcome = outcome_name(OUTCOME_DEFERRED),
		.nexthop = hop->route->name,
		.code = why->code,
		.attempt = attempts_of(slot) + 1u,
		.delay_ms = clock_mono_ms() - hop_slot_born_ms(slot) };

	if (slot->told)
		return;
	line_tell(slot);
	counter_add(COUNTER_SEND_DEFERRED, job != NULL ? job->n_rcpts : slot->n_rcpts);
	if (content == NULL) {
		tell(d, &t); /* about all of them: who they are is on the disk */
		return;
	}
	for (uint32_t i = 0; i < job->n_rcpts; i++) {
		if (content_rcpt(content, job->rcpts[i].ordinal, &copy, &rcpt)) {
			t.rcpt = rcpt->forward_path;
			tell(d, &t);
		}
	}
}

void
settle_tell_report(struct delivery *d, const struct queue_job *job, enum outcome kind,
    const struct report_rcpt *rcpt, struct slice path, const char *nexthop, struct id report)
{
	char reply[REPLY_BYTES], enhanced[16];
	struct saying t = { .event = event_of(kind),
		.id = job->msg->entry->id,
		.second = report,
		.rcpt = path,
		.outcome = outcome_name(kind),
		.nexthop = nexthop,
		.code = rcpt->code,
		.attempt = job->attempts + 1u,
		.delay_ms = clock_mono_ms() - job->msg->born_ms };

	snprintf(enhanced, sizeof(enhanced), "%.*s", SLICE_FMT(slice_head(rcpt->enhanced, 15)));
	t.reply = reply_text(reply, rcpt->code, enhanced, rcpt->text);
	tell(d, &t);
}

bool
settle_is_damage(const struct err *err)
{
	return err->code == ERR_DAMAGED || err->code == ERR_FORMAT || err->code == ERR_NOT_FOUND;
}

struct slice
settle_damage(const struct delivery *d, const struct index_msg *entry, const struct err *err,
    char out[static DAMAGE_BYTES])
{
	char log[ID_TEXT_LEN + 1], name[SPOOLDIR_SEGMENT_NAME_BYTES];
	struct buf b = buf_over(out, DAMAGE_BYTES);

	id_text(entry->segment->log->id, log);
	spooldir_segment_name(entry->segment->number, name);
	buf_printf(&b,
	    "damaged: %.120s/%s/%s: %.100s; relayctl spool salvage saves what is whole, "
	    "queue drop gives it up",
	    d->cfg->spool, log, name, err->msg);
	return buf_slice(&b);
}

int64_t
settle_note_unreadable(struct index_msg *entry, const struct err *err)
{
	bool damaged = settle_is_damage(err);

	if (!damaged || !entry->damaged)
		log_event("delivery.alarm", kv_str("what", damaged ? "damaged" : "unreadable"),
		    kv_id("id", entry->id), kv_err("why", err));
	entry->damaged = damaged;
	return clock_mono_ms() + (damaged ? DAMAGED_MS : UNREADABLE_MS);
}

void
settle_unreadable(struct delivery *d, struct queue_job *job, const struct err *err)
{
	int64_t due_ms = settle_note_unreadable(job->msg->entry, err);
	char damage[DAMAGE_BYTES];
	struct slice why = settle_is_damage(err) ? settle_damage(d, job->msg->entry, err, damage)
						 : slice_str(err->msg);

	for (uint32_t i = 0; i < job->n_rcpts; i++)
		queue_why(&d->queue, &job->rcpts[i], why);
	settle_go_on(d, job, due_ms);
}

/* ---- after an attempt ------------------------------------------------------------------------ */

/* The reply that counts for recipient i: its own, or the failure of all. */
struct reply {
	unsigned code;
	const char *enhanced;
	struct slice text;
	const struct smtp_outcome *own; /* or NULL */
};

static struct reply
reply_for(const struct settle *s, uint32_t i)
{
	const struct smtp_outcome *o = s->outcomes != NULL ? &s->outcomes[i] : NULL;

	if (o != NULL && o->code != 0)
		return (struct reply){ o->code, o->enhanced, o->text, o };
	return (struct reply){ s->failure->code, s->failure->enhanced, slice_str(s->failure->text),
		NULL };
}

static size_t
count_taken(const struct settle *s)
{
	size_t n = 0;

	for (uint32_t i = 0; s->outcomes != NULL && i < s->job->n_rcpts; i++)
		n += s->outcomes[i].code >= 200 && s->outcomes[i].code < 300;
	return n;
}

static enum outcome
decide(
    const struct settle *s, const struct reply *r, const struct envelope_rcpt *rcpt, size_t taken)
{
	const struct envelope *env = &s->content->env;
	struct hop *hop = hop_of(s->job);
	/* A session that was refused says nothing about a recipient (RFC 5321 section 3.8 asks to
	 * try later). */
	bool own = r->own != NULL || s->failure->permanent;
	struct outcome_case c = { .code = own ? r->code : 0,
		.over_limit = r->own != NULL && outcome_over_limit(r->own, taken),
		.expired = schedule_expired(&s->d->schedule, clock_mono_ms(), s->job->msg->born_ms),
		.quarantine = hop->route->quarantine,
		.to_postmaster = slice_eq(env->listener, SLICE(BOUNCE_LISTENER)),
		.as_ascii = r->own != NULL &&
			    bounce_wants_ascii(env, r->code, slice_str(r->enhanced), r->own->local),
		.to_nobody = outcome_to_nobody(env, rcpt->params),
		.left_over = r->own != NULL && r->own->left_over,
		.wants_relayed = outcome_wants_relayed(env, rcpt->params, s->caps),
		.flags = env->flags };

	return outcome_of(&c);
}

struct settling {
	const struct settle *s;
	struct report_rcpt reports[QUEUE_JOB_RCPTS];
	size_t n_reports;
	enum outcome report; /* what they are about */
	enum outcome outcomes[QUEUE_JOB_RCPTS];
	struct outcome_advice advice[QUEUE_JOB_RCPTS];
	bool told[QUEUE_JOB_RCPTS]; /* while it was sent we learned that an earlier delivery did */
	bool deferred;
	struct queue_job *left; /* of those that were left over */
	int64_t delay_ms;       /* of those that are deferred, the shortest */
};

/* Until the next attempt for a recipient that is deferred. */
static int64_t
delay_of(struct settling *st, uint32_t i)
{
	const struct settle *s = st->s;
	int64_t delay = hop_delay_ms(hop_of(s->job), s->job->attempts + 1u);

	switch (st->advice[i].next) {
	case OUTCOME_NEXT_BY_SCHEDULE:
		break;
	case OUTCOME_NEXT_SOON:
		if (1000 * (int64_t)st->advice[i].delay_s < delay)
			delay = 1000 * (int64_t)st->advice[i].delay_s;
		break;
	case OUTCOME_NEXT_AT_ONCE:
		delay = 0;
		break;
	case OUTCOME_NEXT_HOST:
		if (s->conn != NULL && conn_try_next(s->conn))
			delay = 0;
		break;
	}
	if (!st->deferred || delay < st->delay_ms)
		st->delay_ms = delay;
	return delay;
}

static void
tell_rcpt(const struct settle *s, enum outcome outcome, const struct reply *r, struct slice path,
    struct slice reply)
{
	struct saying t = { .event = event_of(outcome),
		.id = s->job->msg->entry->id,
		.rcpt = path,
		.reply = reply,
		.outcome = outcome_name(outcome),
		.nexthop = s->nexthop,
		.code = r->code,
		.attempt = s->job->attempts + 1u,
		.delay_ms = clock_mono_ms() - s->job->msg->born_ms };
	char tls[CONN_TLS_BYTES];

	t.tls = s->conn != NULL ? conn_tls(s->conn, tls) : SLICE("");
	tell(s->d, &t);
}

static void
apply(struct settling *st, uint32_t i, const struct reply *r, struct slice path)
{
	const struct settle *s = st->s;
	struct hop *hop = hop_of(s->job);
	char text[REPLY_BYTES];
	struct slice reply = reply_text(text, r->code, r->enhanced, r->text);

	switch (st->outcomes[i]) {
	case OUTCOME_BOUNCED:
	case OUTCOME_QUARANTINED:
		hop_note_error(hop, reply);
		st->report = st->outcomes[i];
		st->reports[st->n_reports++] =
		    (struct report_rcpt){ .ordinal = s->job->rcpts[i].ordinal,
			    .code = r->code,
			    .local = r->own == NULL || r->own->local,
			    .enhanced = slice_str(r->enhanced),
			    .text = r->text };
		return; /* told when the report is durable */
	case OUTCOME_DEFERRED:
		defer_rcpt(s->d, s->job, i, delay_of(st, i), reply);
		st->deferred = true;
		hop_note_error(hop, reply);
		break;
	case OUTCOME_RELAYED:
		if (st->report != OUTCOME_BOUNCED)
			st->report = OUTCOME_RELAYED; /* the kind of those that failed counts */
		st->reports[st->n_reports++] =
		    (struct report_rcpt){ .ordinal = s->job->rcpts[i].ordinal,
			    .code = r->code,
			    .enhanced = slice_str(r->enhanced),
			    .text = r->text,
			    .good = true,
			    .delivered = s->lmtp };
		counter_add(COUNTER_SENT, 1);
		break;
	case OUTCOME_SENT:
		counter_add(COUNTER_SENT, 1);
		break;
	case OUTCOME_LEFT:
		return; /* nothing has happened */
	case OUTCOME_LOST:
	case OUTCOME_DUPLICATE:
	case OUTCOME_DROPPED:
		break;
	}
	tell_rcpt(s, st->outcomes[i], r, path, reply);
}

static bool
is_over(enum outcome outcome)
{
	return outcome == OUTCOME_SENT || outcome == OUTCOME_LOST || outcome == OUTCOME_RELAYED;
}

static void
leave(struct settling *st, uint32_t i)
{
	move_over(st->s->d, st->s->job, i, &st->left);
}

/* From the end on: a finished recipient's place is taken by one that was looked at. */
static void
finish_those_done(struct settling *st)
{
	struct queue_job *job = st->s->job;
	uint32_t n = job->n_rcpts;
	bool all = job->msg->open == n && job->msg->pins == 0;

	for (uint32_t i = 0; i < n && all; i++)
		all = st->told[i] || st->outcomes[i] == OUTCOME_SENT ||
		      st->outcomes[i] == OUTCOME_LOST;
	if (all) { /* the message is done with it: nothing to note about each */
		while (job->n_rcpts > 0)
			queue_job_drop(&st->s->d->queue, job, job->n_rcpts - 1);
		return;
	}
	for (uint32_t i = n; i-- > 0;) {
		if (st->told[i])
			queue_job_drop(&st->s->d->queue, job, i);
		else if (is_over(st->outcomes[i]))
			finish_rcpt(st->s->d, job, i, st->outcomes[i]);
		else if (st->outcomes[i] == OUTCOME_LEFT)
			leave(st, i);
	}
	put_in_front(st->s->d, st->left);
}

void
settle(const struct settle *s)
{
	struct settling st = { .s = s };
	size_t taken = count_taken(s);
	struct queue_job *job = s->job;
	struct hop *hop = hop_of(job);
	int64_t due;

	job->msg->entry->damaged = false; /* it was read */
	for (uint32_t i = 0; i < job->n_rcpts; i++) {
		static const struct envelope_rcpt nobody;
		const struct envelope_copy *copy;
		const struct envelope_rcpt *rcpt = &nobody;
		struct reply r = reply_for(s, i);

		(void)content_rcpt(s->content, job->rcpts[i].ordinal, &copy, &rcpt); /* is there */
		st.outcomes[i] = decide(s, &r, rcpt, taken);
		st.told[i] = told_is_finished(job->msg->entry, job->rcpts[i].ordinal);
		if (st.told[i] && st.outcomes[i] == OUTCOME_RELAYED)
			st.outcomes[i] = OUTCOME_SENT;
		if (st.told[i] && st.outcomes[i] != OUTCOME_SENT)
			continue; /* settle_told() said all */
		if (!hop->route->quarantine && r.code != 0)
			st.advice[i] = outcome_advice(r.code, slice_str(r.enhanced), r.text,
			    r.own != NULL ? r.own->command : NULL, taken);
		apply(&st, i, &r, rcpt->forward_path);
	}
	queue_dialogue(&s->d->queue, &job->dialogue, st.deferred ? s->dialogue : SLICE(""));
	finish_those_done(&st);
	if (hop->route->quarantine && st.deferred)
		hop_alarm(hop, "a copy was refused");
	due = clock_mono_ms() + (st.deferred ? st.delay_ms : hop_delay_ms(hop, job->attempts + 1u));
	if (st.n_reports > 0) {
		report_start(s, st.report, st.reports, st.n_reports, due);
		return;
	}
	content_unref(s->content);
	if (st.deferred && job->attempts < UINT16_MAX)
		job->attempts++;
	settle_go_on(s->d, job, due);
}
