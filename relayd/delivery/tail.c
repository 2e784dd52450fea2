/* relayd/delivery/tail.c - reads the logs on, and cuts each message into jobs for its next hops. */
#include "relayd/delivery/parts.h"

#include "relayd/core/clock.h"
#include "relayd/core/counters.h"
#include "relayd/core/log.h"
#include "relayd/mail/address.h"

#include <stdlib.h>

/* one round takes so many, so that what is being sent is not kept waiting */
#define TAIL_MESSAGES 256
#define TAIL_NEAR     64 /* as many of a line are not parked */
#define TAIL_STRAYS   64 /* parked ones that are read in a row and turn out to belong elsewhere */
#define DISK_ALARM_MS 60000
#define UNROUTABLE    "off unroutable:25"

static struct schedule_now
now_pair(void)
{
	return (struct schedule_now){ .mono_ms = clock_mono_ms(), .wall_ms = clock_wall_ms() };
}

/* ---- planning ------------------------------------------------------------------------------- */

/* Where recipients go that can go nowhere: all fails there at once. */
static struct hop *
unroutable(struct delivery *d)
{
	struct hop *hop = hop_get(d, UNROUTABLE, NULL);

	if (hop != NULL) {
		hop->condemned = true;
		hop->why = (struct hop_failure){ .permanent = true,
			.code = 550,
			.enhanced = "5.1.2",
			.text = "no route to such an address" };
	}
	return hop;
}

/* What the message says of TLS: REQUIRETLS wants it verified, whatever the route says (RFC 8689
 * section 4.2.1).  "TLS-Required: no" gives up what was found for an MX host, but not what the
 * admin set for a host that he named (section 3 speaks of policies of the recipient's side). */
static int
apply_tls(uint32_t flags, char key[static ROUTE_KEY_BYTES], struct err *err)
{
	if ((flags & ENVELOPE_REQUIRETLS) != 0)
		return routes_set_tls(key, CONFIG_TLS_VERIFY, err);
	if ((flags & ENVELOPE_TLS_OPTIONAL) != 0 && routes_by_mx(key))
		return routes_set_tls(key, CONFIG_TLS_OPPORTUNISTIC, err);
	return 0;
}

static struct hop *
hop_for(struct delivery *d, const struct queue_msg *msg, const struct envelope *env,
    const struct envelope_copy *copy, const struct envelope_rcpt *rcpt)
{
	char key[ROUTE_KEY_BYTES];
	struct err err;

	if (copy->route == ENVELOPE_QUARANTINE)
		return hop_get(d, routes_quarantine_key(d->routes), NULL);
	if (msg->entry->via != NULL)
		routes_via_key(d->routes, rcpt->forward_path, msg->entry->via, key);
	else if (routes_key(d->routes, rcpt->forward_path, key, &err) < 0)
		return err.code == ERR_FORMAT ? unroutable(d) : NULL;
	if (apply_tls(env->flags, key, &err) < 0)
		return unroutable(d);
	return hop_get(d, key, NULL);
}

/* Counts a recipient of the copy at hand for its next hop.  Finished ones count too, so that the
 * parts of a message are the same after a restart. */
static void
count_in(struct delivery *d, struct hop *hop, uint32_t ordinal)
{
	if (hop->filling_for != d->plans) {
		hop->filling_for = d->plans;
		hop->filled = 0;
	}
	if (hop->filled++ % QUEUE_JOB_RCPTS == 0) {
		hop->filling = NULL;
		hop->part = ordinal;
	}
}

static uint16_t
flow_by_domain(struct slice forward_path)
{
	struct slice local, domain;

	return line_flow_of(address_split(forward_path, &local, &domain) ? domain : forward_path);
}

/* Whoever logged in, or the reverse-path without what mailing lists and the like put into it for
 * each message: "list+ann=example.org@..." is "list". */
static uint16_t
flow_by_sender(const struct envelope *env)
{
	struct slice path = env->reverse_path;
	size_t n = 0;

	if (env->auth_user.len > 0)
		return line_flow_of(env->auth_user);
	while (n < path.len && path.p[n] != '+' && path.p[n] != '=')
		n++;
	return line_flow_of(slice_head(path, n));
}

/* The job that is being filled for a next hop, or a new one. */
static struct queue_job *
job_for(struct delivery *d, struct queue_msg *msg, struct hop *hop, const struct envelope *env,
    const struct envelope_rcpt *rcpt)
{
	struct queue_job *job = hop->filling;

	if (job != NULL)
		return job;
	job = queue_job_new(msg, &hop->line);
	if (job != NULL) {
		job->part = hop->part;
		job->planned = d->generation;
		job->missed = hop->missed;
		job->slot.flow[LINE_BY_DOMAIN] = flow_by_domain(rcpt->forward_path);
		job->slot.flow[LINE_BY_SENDER] = flow_by_sender(env);
	}
	hop->filling = job;
	return job;
}

static bool
is_finished(const struct index_rcpt *known)
{
	return known != NULL && known->outcome != INDEX_PENDING;
}

/* What the journal knows of earlier attempts. */
static void
remember(struct delivery *d, struct queue_job *job, const struct index_rcpt *known)
{
	struct schedule_now now = now_pair();
	int64_t due;

	if (known == NULL)
		return;
	queue_why(&d->queue, &job->rcpts[job->n_rcpts - 1], known->reply);
	if (known->attempts > job->attempts)
		job->attempts =
		    (uint16_t)(known->attempts < UINT16_MAX ? known->attempts : UINT16_MAX);
	due = schedule_due_ms(&d->schedule, now, job->attempts, known->tried_ms);
	if (known->next_ms > known->tried_ms && known->next_ms - now.wall_ms < due - now.mono_ms)
		due = now.mono_ms + known->next_ms - now.wall_ms; /* it was to be sooner */
	if (due > job->slot.due.due_ms)
		job->slot.due.due_ms = due;
}

static bool
plan_copy(struct delivery *d, struct queue_msg *msg, const struct envelope *env,
    const struct envelope_copy *copy, uint32_t first)
{
	d->plans++;
	for (uint32_t i = 0; i < copy->n_rcpts; i++) {
		const struct index_rcpt *known = index_rcpt(msg->entry, first + i);
		struct hop *hop = hop_for(d, msg, env, copy, &copy->rcpts[i]);
		struct queue_job *job;

		if (hop == NULL)
			return false;
		count_in(d, hop, first + i);
		if (is_finished(known))
			continue;
		job = job_for(d, msg, hop, env, &copy->rcpts[i]);
		if (job == NULL || !queue_job_add(&d->queue, job, first + i))
			return false;
		remember(d, job, known);
	}
	return true;
}

/* A taken job takes its place: in line, or until it is due. */
static bool
place(struct delivery *d, struct queue_job *job)
{
	struct hop *hop = hop_of(job);
	bool ready = job->slot.due.due_ms <= clock_mono_ms();

	if (queue_is_held(job->msg)) {
		queue_hold(job);
		return false;
	}
	if (ready) {
		queue_ready(job, false);
	} else {
		queue_defer(&d->queue, job, job->slot.due.due_ms);
		delivery_wake(d);
	}
	if (ready && hop_quiet_until(hop) != 0) {
		settle_tell(d, &job->slot, &hop->why);
		hop_hurry(hop);
		ready = false;
	}
	hop_touch(hop);
	return ready;
}

/* Whether any job of it can go out now. */
static bool
place_all(struct delivery *d, struct queue_msg *msg)
{
	bool ready = false;

	for (struct queue_job *job = msg->jobs; job != NULL; job = job->sibling)
		if (job->slot.state == QUEUE_TAKEN && job->planned == d->generation)
			ready = place(d, job) || ready;
	return ready;
}

/* Cuts a message into jobs, each in the line of its next hop.  False when memory is out. */
static bool
plan(struct delivery *d, struct queue_msg *msg, struct content *content)
{
	uint32_t first = 0;

	for (size_t i = 0; i < content->env.n_copies; i++) {
		if (!plan_copy(d, msg, &content->env, &content->env.copies[i], first))
			return false;
		first += (uint32_t)content->env.copies[i].n_rcpts;
	}
	return true;
}

/* ---- planning again ------------------------------------------------------------------------- */

/* Where all of its recipients go, or NULL where that is not one place. */
static struct hop *
one_hop_for(struct delivery *d, const struct queue_job *job, const struct content *content)
{
	const struct envelope_copy *copy;
	const struct envelope_rcpt *rcpt;
	struct hop *hop = NULL;

	for (uint32_t i = 0; i < job->n_rcpts; i++) {
		struct hop *own = content_rcpt(content, job->rcpts[i].ordinal, &copy, &rcpt)
				      ? hop_for(d, job->msg, &content->env, copy, rcpt)
				      : NULL;

		if (own == NULL || (hop != NULL && own != hop))
			return NULL;
		hop = own;
	}
	return hop;
}

/* A job of one recipient; such are rare, and share connections all the same. */
static bool
move_out(struct delivery *d, struct queue_job *job, uint32_t i, struct hop *hop)
{
	struct queue_job *moved = queue_job_new(job->msg, &hop->line);

	if (moved == NULL)
		return false;
	moved->part = job->rcpts[i].ordinal;
	moved->planned = d->generation;
	moved->attempts = job->attempts;
	memcpy(moved->slot.flow, job->slot.flow, sizeof(moved->slot.flow));
	if (!queue_job_add(&d->queue, moved, job->rcpts[i].ordinal)) {
		queue_job_free(&d->queue, moved);
		return false;
	}
	queue_why(&d->queue, &moved->rcpts[0], queue_reason_text(job->rcpts[i].why));
	queue_job_drop(&d->queue, job, i);
	(void)place(d, moved); /* in line, whether it can go now or not */
	return true;
}

bool
tail_replan(struct delivery *d, struct queue_job *job, struct content *content)
{
	const struct envelope_copy *copy;
	const struct envelope_rcpt *rcpt;
	struct hop *all = one_hop_for(d, job, content);

	if (all != NULL)
		job->planned = d->generation;
	if (all == hop_of(job))
		return true;
	if (all != NULL) {
		queue_job_move(job, &all->line);
		job->missed = all->missed;
		job->slot.told = false;
		job->slot.due.due_ms = 0;
		(void)place(d, job); /* as below */
		return false;
	}
	for (uint32_t i = job->n_rcpts; i-- > 0;) {
		struct hop *hop = NULL;

		if (content_rcpt(content, job->rcpts[i].ordinal, &copy, &rcpt))
			hop = hop_for(d, job->msg, &content->env, copy, rcpt);
		if (hop == NULL || hop == hop_of(job) || !move_out(d, job, i, hop))
			continue; /* it stays */
	}
	if (job->n_rcpts > 0) {
		job->planned = d->generation;
		return true;
	}
	queue_job_free(&d->queue, job);
	return false;
}

/* ---- reading -------------------------------------------------------------------------------- */

struct content *
tail_content(struct delivery *d, struct queue_msg *msg, struct err *err)
{
	struct content *kept = msg->content;

	if (kept == NULL)
		return content_fetch(&d->contents, msg->entry, err);
	/* The last job that waits for it takes it over. */
	for (struct queue_job *job = msg->jobs; job != NULL; job = job->sibling)
		if (job->slot.state == QUEUE_READY)
			return content_ref(kept);
	msg->content = NULL;
	return kept;
}

static void
admit(struct delivery *d, struct queue_msg *msg, struct content *content)
{
	if (!plan(d, msg, content)) {
		log_event("limit", kv_str("what", "memory"), kv_id("id", msg->entry->id));
		content_unref(content);
		msg->entry->user = NULL; /* it is in the spool: the next start tries again */
		queue_remove(&d->queue, msg);
		return;
	}
	msg->content = content; /* for settle_tell() */
	if (msg->open == 0) {
		msg->pins++;
		settle_unpin(d, msg);
	} else if (!place_all(d, msg) || !content_has_room(&d->contents)) {
		msg->content = NULL;
		content_unref(content);
		tail_park(d, msg);
	}
}

/* ---- parked --------------------------------------------------------------------------------- */

/* Its turn comes as soon as a connection is free. */
static bool
is_near(const struct line_slot *slot)
{
	return slot->state == QUEUE_READY && slot->line->n <= TAIL_NEAR &&
	       hop_quiet_until(slot->line->owner) == 0;
}

void
tail_park(struct delivery *d, struct queue_msg *msg)
{
	if (d->queue.whole <= d->queue.whole_max || !queue_may_park(msg) ||
	    is_near(&msg->jobs->slot))
		return;
	content_unref(msg->content);
	msg->content = NULL;
	(void)queue_park(&d->queue, msg); /* without memory it stays whole */
}

void
tail_park_id(struct delivery *d, struct id id)
{
	const struct index_msg *entry = index_find(journal_index(d->journal), id);

	if (entry != NULL && entry->user != NULL && !entry->parked)
		tail_park(d, entry->user);
}

static struct queue_msg *
read_again(struct delivery *d, struct index_msg *entry, struct err *err)
{
	struct content *content = content_fetch(&d->contents, entry, err);
	struct queue_msg *msg = NULL;

	if (content != NULL)
		msg = queue_add(&d->queue, entry,
		    schedule_born_ms(now_pair(), content->env.received_ms), content->env.size);
	if (msg != NULL && plan(d, msg, content)) {
		msg->content = content;
		return msg;
	}
	if (content != NULL)
		err_set(err, ERR_NOMEM, "out of memory");
	if (msg != NULL)
		queue_remove(&d->queue, msg);
	content_unref(content);
	return NULL;
}

struct queue_msg *
tail_whole(struct delivery *d, struct index_msg *entry, struct err *err)
{
	struct queue_parked *parked = entry->user;
	struct queue_msg *msg;
	bool told;

	err->code = ERR_NONE;
	if (!entry->parked)
		return entry->user;
	told = parked->slot.told;
	msg = read_again(d, entry, err);
	if (msg == NULL) {
		int64_t due_ms = settle_note_unreadable(entry, err);

		if (parked->slot.state != QUEUE_HELD)
			queue_parked_defer(&d->queue, parked, due_ms);
		delivery_wake(d);
	} else if (!queue_unpark(&d->queue, parked, msg)) {
		(void)place_all(d, msg); /* the routes are others now */
		if (msg->open == 0) {    /* all are told about by an earlier delivery */
			msg->pins++;
			settle_unpin(d, msg);
			return NULL;
		}
	} else if (told && msg->jobs->missed > 0) {
		msg->jobs->missed--; /* it has met one failure at least */
	}
	return msg;
}

struct queue_job *
tail_take(struct delivery *d, struct line *line)
{
	struct line_slot *slot;

	for (unsigned i = 0; (slot = line_peek(line)) != NULL && slot->parked; i++) {
		struct index_msg *entry = queue_slot_entry(slot);
		struct queue_msg *msg;
		struct err err;

		if (i == TAIL_STRAYS)
			return NULL;              /* the others have their turn */
		msg = tail_whole(d, entry, &err); /* it is whole there now, or elsewhere */
		slot = line_peek(line);
		if (msg != NULL && (slot == NULL || queue_slot_entry(slot) != entry))
			tail_park(d, msg);
	}
	return slot != NULL ? queue_take_first(&d->queue, line) : NULL;
}

/* ---- reading, again -------------------------------------------------------------------------- */

/* A release may go out once its key is safe, a report once what it tells is. */
struct key_wait {
	struct key_wait *next; /* of those that are stuck */
	struct journal_sync sync;
	struct delivery *d;
	struct queue_msg *msg;
	struct content *content;
};

static void
on_key_synced(struct journal_sync *req, const struct err *err)
{
	struct key_wait *w = container_of(req, struct key_wait, sync);
	struct delivery *d = w->d;

	d->n_waits--;
	if (err->code != ERR_NONE && !d->closing) {
		w->next = d->stuck; /* the disk fails: nothing else is sent either */
		d->stuck = w;
		return;
	}
	if (!d->closing && !w->msg->dropped) {
		w->msg->pins--;
		admit(d, w->msg, w->content);
	} else {
		content_unref(w->content);
		if (!d->closing)
			settle_unpin(d, w->msg);
	}
	free(w);
	delivery_ended_one(d);
}

void
tail_retry_keys(struct delivery *d)
{
	struct key_wait *w;

	if (d->telling_failed && !d->closing) {
		d->telling_failed = false;
		tail_settle(d);
	}
	while ((w = d->stuck) != NULL) {
		d->stuck = w->next;
		if (d->closing) {
			content_unref(w->content);
			free(w);
			continue;
		}
		d->n_waits++;
		journal_sync_start(&w->sync, d->journal);
	}
}

static void
wait_for_sync(struct delivery *d, struct queue_msg *msg, struct content *content)
{
	struct key_wait *w = calloc(1, sizeof(*w));

	if (w == NULL) {
		log_event("limit", kv_str("what", "memory"), kv_id("id", msg->entry->id));
		content_unref(content);
		msg->entry->user = NULL;
		queue_remove(&d->queue, msg);
		return;
	}
	*w = (struct key_wait){
		.sync = { .done = on_key_synced }, .d = d, .msg = msg, .content = content
	};
	msg->pins++; /* it has no jobs yet, and looks as if it were done with */
	d->n_waits++;
	journal_sync_start(&w->sync, d->journal);
}

static void
take_in(struct delivery *d, const struct reader_item *item)
{
	struct err err;
	struct content *content = content_of(&d->contents, item, &err);
	const struct envelope *env;
	struct queue_msg *msg;

	if (!d->ready)
		told_of(&d->told, item->msg);
	if (content == NULL) {
		log_event("delivery.alarm", kv_str("what", "unreadable"),
		    kv_id("id", item->msg->id), kv_err("why", &err));
		return;
	}
	env = &content->env;
	if (!d->ready && item->msg->n_rcpts == 0)
		told_report(&d->told, env);
	if (env->release_key.len > 0 && journal_key_seen(d->journal, env->release_key, item->msg)) {
		settle_duplicate(d, item->msg, env);
		content_unref(content);
		return;
	}
	msg = queue_add(
	    &d->queue, item->msg, schedule_born_ms(now_pair(), env->received_ms), env->size);
	if (msg == NULL) {
		log_event("limit", kv_str("what", "memory"), kv_id("id", item->msg->id));
		content_unref(content);
		return;
	}
	item->msg->user = msg;
	if (d->ready && env->tells != ENVELOPE_TELLS_NOTHING) {
		wait_for_sync(d, msg, content); /* of what it tells: report.c noted that */
		return;
	}
	if (env->tells != ENVELOPE_TELLS_NOTHING && item->msg->n_rcpts == 0) {
		item->msg->waits = true; /* one that was tried has told before */
		d->untold = true;
	}
	if (env->release_key.len > 0)
		wait_for_sync(d, msg, content);
	else
		admit(d, msg, content);
}

/* ---- reports of an earlier delivery ---------------------------------------------------------- */

/* One that waits for what it tells goes to where it belongs. */
static void
let_go(struct delivery *d, struct index_msg *entry)
{
	struct queue_parked *parked = entry->user;
	struct queue_msg *msg = entry->user;

	entry->waits = false;
	if (entry->user == NULL || (entry->flags & INDEX_HELD) != 0)
		return;
	if (entry->parked) {
		if (parked->slot.state == QUEUE_HELD)
			queue_parked_defer(&d->queue, parked, parked->slot.due.due_ms);
		return;
	}
	for (struct queue_job *job = msg->jobs; job != NULL; job = job->sibling)
		if (job->slot.state == QUEUE_HELD) {
			queue_take(&d->queue, job);
			(void)place(d, job);
		}
}

static void
on_told_synced(struct journal_sync *req, const struct err *err)
{
	struct delivery *d = container_of(req, struct delivery, telling);
	struct index_cursor c = { .log = 0 };
	struct index_msg *entry;

	d->n_waits--;
	d->telling_failed = err->code != ERR_NONE;
	while (!d->closing && !d->telling_failed &&
	       (entry = index_cursor_next(journal_index(d->journal), &c)) != NULL)
		if (entry->waits)
			let_go(d, entry);
	if (!d->closing)
		delivery_wake(d);
	delivery_ended_one(d);
}

void
tail_settle(struct delivery *d)
{
	told_fini(&d->told);
	if (!d->untold)
		return;
	d->n_waits++;
	d->telling = (struct journal_sync){ .done = on_told_synced };
	journal_sync_start(&d->telling, d->journal);
}

/* Up to so many; how many it was. */
static unsigned
read_some(struct delivery *d, unsigned max)
{
	struct reader_item item;
	struct err err = { 0 };
	unsigned n = 0;
	int rc = 0;

	while (n < max && (rc = reader_next(d->reader, &item, &err)) > 0) {
		take_in(d, &item);
		n++;
	}
	if (rc < 0 && clock_mono_ms() - d->disk_alarm_ms >= DISK_ALARM_MS) {
		d->disk_alarm_ms = clock_mono_ms();
		log_event("delivery.alarm", kv_str("what", "spool"), kv_err("why", &err));
	}
	return n;
}

bool
tail_read(struct delivery *d)
{
	unsigned n = read_some(d, TAIL_MESSAGES);

	if (n == 0 && d->poked) {
		reader_look(d->reader); /* a log that we do not know yet */
		n = read_some(d, TAIL_MESSAGES);
	}
	d->poked = false;
	if (n > 0) {
		int64_t now = (int64_t)uv_now(d->loop);

		d->flowing = n > 1 || now - d->taken_ms < FLOW_MS;
		d->taken_ms = now;
	}
	return n == TAIL_MESSAGES;
}
