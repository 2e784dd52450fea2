/* relayd/delivery/control_act.c - what the admin does to messages in the queue. */
#include "relayd/delivery/control_parts.h"

#include "relayd/core/clock.h"

#define ACTS_A_ROUND 64

/* ---- one message ---------------------------------------------------------------------------- */

static int
run_retry(struct control_op *op, struct queue_msg *msg, struct content *content)
{
	struct queue_job *job, *next;

	(void)content;
	if (queue_is_held(msg))
		return 0;
	for (job = msg->jobs; job != NULL; job = next) {
		next = job->sibling;
		if (job->slot.state == QUEUE_DEFERRED) {
			queue_take(&op->d->queue, job);
			queue_ready(job, false);
		}
		hop_retry(hop_of(job));
	}
	return 1;
}

static struct slice
via_of(const struct queue_msg *msg)
{
	return msg->entry->via != NULL ? slice_str(msg->entry->via) : SLICE("");
}

/* What an attempt has in its hands is held when that has failed. */
static int
run_hold(struct control_op *op, struct queue_msg *msg, struct content *content)
{
	struct delivery *d = op->d;

	(void)content;
	if ((msg->entry->flags & INDEX_HELD) != 0)
		return 0;
	journal_order(d->journal, msg->entry, msg->entry->flags | INDEX_HELD, via_of(msg));
	for (struct queue_job *job = msg->jobs; job != NULL; job = job->sibling) {
		if (job->slot.state == QUEUE_TAKEN)
			continue;
		queue_take(&d->queue, job);
		if (job->slot.line != &hop_of(job)->line)
			queue_job_move(job, &hop_of(job)->line); /* it was about to fail */
		queue_hold(job);
	}
	content_unref(msg->content);
	msg->content = NULL;
	return 1;
}

static int
run_unhold(struct control_op *op, struct queue_msg *msg, struct content *content)
{
	struct delivery *d = op->d;

	(void)content;
	if ((msg->entry->flags & INDEX_HELD) == 0)
		return 0;
	journal_order(
	    d->journal, msg->entry, msg->entry->flags & ~(unsigned)INDEX_HELD, via_of(msg));
	for (struct queue_job *job = msg->jobs; job != NULL; job = job->sibling) {
		if (job->slot.state != QUEUE_HELD || queue_is_held(msg))
			continue;
		queue_take(&d->queue, job);
		job->missed = hop_of(job)->missed;
		queue_ready(job, false);
		hop_hurry(hop_of(job));
		hop_touch(hop_of(job));
	}
	return 1;
}

static int
run_drop(struct control_op *op, struct queue_msg *msg, struct content *content)
{
	(void)content;
	if (msg->dropped)
		return 0;
	settle_drop(op->d, msg);
	return 1;
}

/* A copy for the quarantine never bounces. */
static bool
may_bounce(const struct queue_job *job)
{
	return job->slot.state != QUEUE_TAKEN && !hop_of(job)->route->quarantine;
}

/* Each of its jobs is settled as if the next hop had refused it for good. */
static int
run_bounce(struct control_op *op, struct queue_msg *msg, struct content *content)
{
	static const struct hop_failure returned = { .permanent = true,
		.code = 550,
		.enhanced = "5.7.1",
		.text = "returned to its sender by the administrator of this system" };
	struct delivery *d = op->d;
	struct queue_job *job, *next;
	int rc = 0;

	msg->pins++; /* it may be done with before we are */
	for (job = msg->jobs; job != NULL && rc >= 0; job = next) {
		struct settle s = { .d = d,
			.job = job,
			.content = content_ref(content),
			.failure = &returned,
			.nexthop = hop_of(job)->route->name };

		next = job->sibling;
		if (!may_bounce(job) || !report_may_start(d)) {
			rc = may_bounce(job) ? -1 : rc;
			content_unref(s.content);
			continue;
		}
		queue_take(&d->queue, job);
		if (job->slot.line != &hop_of(job)->line)
			queue_job_move(job, &hop_of(job)->line);
		settle(&s);
		rc = 1;
	}
	settle_unpin(d, msg);
	return rc;
}

static int
run_reroute(struct control_op *op, struct queue_msg *msg, struct content *content)
{
	struct delivery *d = op->d;
	struct queue_job *job, *next;
	int done = 0;

	for (job = msg->jobs; job != NULL; job = job->sibling)
		done = done || !hop_of(job)->route->quarantine;
	if (done == 0)
		return 0;
	journal_order(d->journal, msg->entry, msg->entry->flags, slice_str(op->via));
	for (job = msg->jobs; job != NULL; job = next) {
		next = job->sibling;
		if (job->slot.state == QUEUE_TAKEN) {
			job->planned =
			    d->generation - 1; /* looked at again before it is sent again */
			continue;
		}
		queue_take(&d->queue, job);
		if (job->slot.line != &hop_of(job)->line)
			queue_job_move(job, &hop_of(job)->line);
		if (tail_replan(d, job, content))
			settle_go_on(d, job, 0);
	}
	return done;
}

/* ---- which, and to how many ----------------------------------------------------------------- */

static int
run_count(struct control_op *op, struct queue_msg *msg, struct content *content)
{
	(void)op, (void)msg, (void)content;
	return 1;
}

static const struct control_act acts[] = {
	{ "queue.count", "matched", false, true, run_count },
	{ "queue.retry", "retried", false, false, run_retry },
	{ "queue.flush", "retried", false, true, run_retry },
	{ "queue.hold", "held", false, false, run_hold },
	{ "queue.unhold", "unheld", false, false, run_unhold },
	{ "queue.drop", "dropped", false, false, run_drop },
	{ "queue.bounce", "bounced", true, false, run_bounce },
	{ "queue.reroute", "rerouted", true, false, run_reroute },
};

const struct control_act *
act_named(struct slice op)
{
	for (size_t i = 0; i < ARRAY_LEN(acts); i++)
		if (slice_eq(op, slice_str(acts[i].op)))
			return &acts[i];
	return NULL;
}

/* "to": next hops, or "routes" for those of the config. */
static int
take_via(struct control_op *op, const struct control_act *act, struct control_request *req,
    struct err *err)
{
	struct slice to = control_string(req, "to");
	char text[INDEX_VIA_MAX + 1];

	if (act->run != run_reroute || slice_eq(to, SLICE("routes")))
		return 0;
	if (to.len == 0 || to.len >= sizeof(text))
		return err_set(err, ERR_FORMAT, "queue.reroute needs \"to\": next hops, or routes");
	memcpy(text, to.p, to.len);
	text[to.len] = '\0';
	return routes_via(text, op->via, sizeof(op->via), err);
}

void
act_say_damaged(
    const struct delivery *d, const char *done, const struct index_msg *entry, struct err *err)
{
	struct err why = *err;
	char damage[DAMAGE_BYTES], id[ID_TEXT_LEN + 1];
	struct slice text = settle_damage(d, entry, &why, damage);

	id_text(entry->id, id);
	err_set(err, ERR_DAMAGED, "message %s cannot be %s, it is %.*s", id, done, SLICE_FMT(text));
}

int
act_broken(struct control_op *op)
{
	if (op->act->run == run_drop)
		settle_drop_unreadable(op->d, op->broken);
	return op->act->run == run_drop || op->act->run == run_count;
}

/* 1: done, or *err. */
static int
do_one(struct control_op *op, struct queue_msg *msg, struct err *err)
{
	bool reads = op->act->envelope || op->act->run == run_retry;
	struct content *content = reads ? content_fetch(&op->d->contents, msg->entry, err) : NULL;
	int rc = -1;

	if (content != NULL || !reads) {
		rc = op->act->run(op, msg, content);
		if (rc == 0)
			err_set(err, ERR_DENIED, "nothing to be done: it is %s",
			    op->act->run == run_unhold ? "not held" : "held, being sent, or gone");
		else if (rc < 0)
			err_set(err, ERR_LIMIT, "not now: too many reports are being written");
	}
	content_unref(content);
	return rc;
}

void
act_one(struct delivery *d, struct control_request *req, const struct control_act *act,
    struct index_msg *entry)
{
	struct control_op op = { .d = d, .act = act, .broken = entry };
	struct id id = entry->id;
	struct queue_msg *msg;
	struct err err;
	int rc = -1;

	if (take_via(&op, act, req, &err) < 0) {
		control_end(req, &err);
		return;
	}
	msg = tail_whole(d, entry, &err);
	if (msg != NULL)
		rc = do_one(&op, msg, &err);
	if (rc < 0 && settle_is_damage(&err) && index_find(journal_index(d->journal), id) != NULL) {
		rc = act_broken(&op);
		if (rc == 0)
			act_say_damaged(d, act->counted, entry, &err);
	}
	if (rc > 0)
		control_line(req, json_pack("{s:i}", act->counted, 1));
	else if (err.code == ERR_NONE)
		err_set(&err, ERR_NOT_FOUND, "it is gone");
	control_end(req, rc > 0 ? NULL : &err);
	tail_park_id(d, id);
}

static bool
act_step(struct control_op *op)
{
	unsigned left = ACTS_A_ROUND;
	struct content *content;
	struct queue_msg *msg;
	bool end = false;

	while ((msg = op_next(op, op->act->envelope, &left, &content, &end)) != NULL ||
	       op->broken != NULL) {
		int rc = msg != NULL ? op->act->run(op, msg, content) : act_broken(op);

		content_unref(content);
		if (rc < 0) {
			op_step_back(op);
			if (!delivery_may_start(op->d))
				err_set(&op->err, ERR_LIMIT,
				    "stopped after %llu: delivery does not run",
				    (unsigned long long)op->count);
			return op->err.code != ERR_NONE;
		}
		op->count += (uint64_t)rc;
	}
	if (end)
		control_line(op->req, json_pack("{s:I}", op->act->counted, (json_int_t)op->count));
	return end;
}

void
act_some(struct delivery *d, struct control_request *req, const struct control_act *act)
{
	struct control_op first = { .d = d }, *op;
	struct err err = { 0 };

	if (match_of(req, &first.match, &err) < 0 || take_via(&first, act, req, &err) < 0) {
		control_end(req, &err);
		return;
	}
	if (!first.match.any && !act->all) {
		err_set(
		    &err, ERR_FORMAT, "%s needs \"id\", \"domain\" or another predicate", act->op);
		control_end(req, &err);
		return;
	}
	op = op_start(d, req, act_step);
	if (op == NULL)
		return;
	op->match = first.match;
	op->act = act;
	memcpy(op->via, first.via, sizeof(op->via));
}
