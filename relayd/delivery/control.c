/* relayd/delivery/control.c - answers the admin's requests, a little of a long one each round. */
#include "relayd/delivery/control.h"

#include "relayd/core/clock.h"
#include "relayd/delivery/parts.h"
#include "relayd/mail/address.h"
#include "relayd/net/control.h"

#include <openssl/evp.h>
#include <stdlib.h>

#define MESSAGES_A_ROUND 64
#define RECIPIENTS_SHOWN 100
#define BODY_CHUNK       (48u * 1024) /* a multiple of 3: chunks of base64 join without padding */

/* A request that walks the queue, or sends a body. */
struct control_op {
	struct control_op *next, **prev; /* of the delivery */
	struct delivery *d;
	struct control_request *req;
	/* Does a part; true when there is nothing left to do. */
	bool (*step)(struct control_op *op);
	struct queue_cursor cursor;
	struct slice domain, state; /* of req */
	uint64_t count;
	struct queue_msg *msg; /* whose body it is; pinned */
	struct content *content;
	uint64_t at;
};

/* ---- what is told about a message ------------------------------------------------------------- */

static json_t *
text(struct slice s)
{
	json_t *t = json_stringn(s.p, s.len);

	return t != NULL ? t : json_string("(not UTF-8)");
}

static const char *
state_of(const struct queue_job *job)
{
	if (job->state == QUEUE_TAKEN)
		return "active";
	return job->state == QUEUE_READY && hop_quiet_until(hop_of(job)) == 0 ? "active"
									      : "deferred";
}

/* When the job is tried next, monotonic; 0: now. */
static int64_t
next_of(const struct queue_job *job)
{
	if (job->state == QUEUE_DEFERRED)
		return job->due.due_ms;
	return job->state == QUEUE_READY ? hop_quiet_until(hop_of(job)) : 0;
}

static unsigned
attempts_of(const struct queue_job *job)
{
	/* Failures of its next hop while it stood in line are attempts that it did not have to make. */
	return job->attempts + (job->state == QUEUE_READY ? hop_of(job)->missed - job->missed : 0u);
}

static struct slice
why_of(const struct queue_job *job, const struct queue_rcpt *rcpt)
{
	const struct hop *hop = hop_of(job);

	if (job->state == QUEUE_READY && hop_quiet_until(hop) != 0)
		return slice_str(hop->why.text);
	return queue_reason_text(rcpt->why);
}

static int64_t
seconds_until(int64_t at_ms)
{
	int64_t left = at_ms - clock_mono_ms();

	return at_ms == 0 || left < 0 ? 0 : (left + 999) / 1000;
}

struct summary {
	const char *state;
	unsigned attempts;
	int64_t next_ms;
	struct slice why;
};

/* Of all jobs: active if one is, the earliest next attempt, the first reason. */
static struct summary
summary_of(const struct queue_msg *msg)
{
	struct summary sum = { .state = "deferred", .next_ms = INT64_MAX, .why = SLICE("") };

	for (const struct queue_job *job = msg->jobs; job != NULL; job = job->sibling) {
		if (strcmp(state_of(job), "active") == 0)
			sum.state = "active";
		if (attempts_of(job) > sum.attempts)
			sum.attempts = attempts_of(job);
		if (next_of(job) < sum.next_ms)
			sum.next_ms = next_of(job);
		if (sum.why.len == 0 && job->n_rcpts > 0)
			sum.why = why_of(job, &job->rcpts[0]);
	}
	return sum;
}

static void
put_recipients(json_t *line, const struct queue_msg *msg, const struct content *content)
{
	json_t *list = json_array();
	const struct envelope_copy *copy;
	const struct envelope_rcpt *rcpt;
	size_t n = 0;

	for (const struct queue_job *job = msg->jobs; job != NULL; job = job->sibling)
		for (uint32_t i = 0; i < job->n_rcpts; i++)
			if (n++ < RECIPIENTS_SHOWN &&
			    content_rcpt(content, job->rcpts[i].ordinal, &copy, &rcpt))
				json_array_append_new(list, text(rcpt->forward_path));
	json_object_set_new(line, "recipients", list);
	if (n > RECIPIENTS_SHOWN)
		json_object_set_new(line, "more", json_integer((json_int_t)(n - RECIPIENTS_SHOWN)));
}

static json_t *
line_of(const struct queue_msg *msg, const struct content *content)
{
	struct summary sum = summary_of(msg);
	char id[ID_TEXT_LEN + 1];
	json_t *line;

	id_text(msg->entry->id, id);
	line = json_pack("{s:s, s:I, s:I, s:o}", "id", id, "age_s",
	    (json_int_t)((clock_mono_ms() - msg->born_ms) / 1000), "size", (json_int_t)msg->size,
	    "from", text(content->env.reverse_path));
	if (line == NULL)
		return NULL;
	put_recipients(line, msg, content);
	json_object_set_new(line, "state", json_string(sum.state));
	json_object_set_new(line, "attempts", json_integer(sum.attempts));
	json_object_set_new(line, "next_s", json_integer(seconds_until(sum.next_ms)));
	json_object_set_new(line, "why", text(sum.why));
	return line;
}

/* ---- requests that walk the queue --------------------------------------------------------------- */

static bool
is_at(struct slice path, struct slice domain)
{
	struct slice local, at;

	return address_split(path, &local, &at) && slice_ieq(at, domain);
}

/* An open recipient of it is at the domain. */
static bool
fits_domain(const struct queue_msg *msg, const struct content *content, struct slice domain)
{
	const struct envelope_copy *copy;
	const struct envelope_rcpt *rcpt;

	for (const struct queue_job *job = msg->jobs; job != NULL; job = job->sibling)
		for (uint32_t i = 0; i < job->n_rcpts; i++)
			if (content_rcpt(content, job->rcpts[i].ordinal, &copy, &rcpt) &&
			    is_at(rcpt->forward_path, domain))
				return true;
	return domain.len == 0;
}

static struct content *
content_for(struct control_op *op, const struct queue_msg *msg)
{
	return msg->content != NULL ? content_ref(msg->content)
				    : content_fetch(&op->d->contents, msg->entry, NULL);
}

static void
list_one(struct control_op *op, struct queue_msg *msg)
{
	struct content *content;

	if (msg->open == 0 ||
	    (op->state.len > 0 && !slice_eq(op->state, slice_str(summary_of(msg).state))))
		return;
	content = content_for(op, msg);
	if (content != NULL && fits_domain(msg, content, op->domain))
		control_line(op->req, line_of(msg, content));
	content_unref(content);
}

static bool
list_step(struct control_op *op)
{
	struct queue_msg *msg = NULL;

	for (unsigned i = 0; i < MESSAGES_A_ROUND && !control_full(op->req); i++) {
		msg = queue_cursor_next(&op->cursor);
		if (msg == NULL)
			return true;
		list_one(op, msg);
	}
	return false;
}

static void
retry_message(struct delivery *d, struct queue_msg *msg)
{
	struct queue_job *job, *next;

	for (job = msg->jobs; job != NULL; job = next) {
		next = job->sibling;
		if (job->state == QUEUE_DEFERRED) {
			queue_take(&d->queue, job);
			queue_ready(job, false);
		}
		hop_retry(hop_of(job));
	}
}

static bool
retry_step(struct control_op *op)
{
	for (unsigned i = 0; i < MESSAGES_A_ROUND; i++) {
		struct queue_msg *msg = queue_cursor_next(&op->cursor);
		struct content *content;

		if (msg == NULL) {
			control_line(op->req, json_pack("{s:I}", "retried", (json_int_t)op->count));
			return true;
		}
		content = op->domain.len > 0 ? content_for(op, msg) : NULL;
		if (op->domain.len == 0 ||
		    (content != NULL && fits_domain(msg, content, op->domain))) {
			retry_message(op->d, msg);
			op->count++;
		}
		content_unref(content);
	}
	return false;
}

/* ---- a body ---------------------------------------------------------------------------------- */

static bool
send_chunk(struct control_op *op, struct slice bytes)
{
	char *out = malloc(4 * (bytes.len / 3 + 1) + 1);
	int n;

	if (out == NULL)
		return false;
	n = EVP_EncodeBlock((unsigned char *)out, (const unsigned char *)bytes.p, (int)bytes.len);
	control_line(op->req, json_pack("{s:s#}", "base64", out, n));
	free(out);
	return true;
}

static bool
body_step(struct control_op *op)
{
	const struct content *c = op->content;
	char chunk[BODY_CHUNK];
	struct err err;

	while (op->at < c->env.size && !control_full(op->req)) {
		uint64_t left = c->env.size - op->at;
		size_t n = left < BODY_CHUNK ? (size_t)left : BODY_CHUNK;
		struct slice bytes = slice_head(slice_drop(c->body, (size_t)op->at), n);

		if (c->file != NULL) {
			if (reader_body_read(c->file, op->at, chunk, n, &err) < 0)
				return true;
			bytes = slice_of(chunk, n);
		}
		if (!send_chunk(op, bytes))
			return true;
		op->at += n;
	}
	return op->at >= c->env.size;
}

/* ---- requests under way ----------------------------------------------------------------------- */

static void
op_end(struct control_op *op, const struct err *err)
{
	struct delivery *d = op->d;

	*op->prev = op->next;
	if (op->next != NULL)
		op->next->prev = op->prev;
	queue_cursor_end(&d->queue, &op->cursor);
	content_unref(op->content);
	control_end(op->req, err);
	if (op->msg != NULL)
		settle_unpin(d, op->msg);
	free(op);
}

static void
on_more(struct control_request *req)
{
	(void)req; /* control_run() looks in this round: there is room again, or nobody listens */
}

static void
op_start(struct delivery *d, struct control_request *req, bool (*step)(struct control_op *op),
    struct queue_msg *msg, struct content *content)
{
	struct control_op *op = calloc(1, sizeof(*op));
	struct err err = { .code = ERR_NOMEM, .msg = "out of memory" };

	if (op == NULL) {
		content_unref(content);
		control_end(req, &err);
		return;
	}
	*op = (struct control_op){ .d = d,
		.req = req,
		.step = step,
		.domain = control_string(req, "domain"),
		.state = control_string(req, "state"),
		.msg = msg,
		.content = content,
		.prev = &d->ops,
		.next = d->ops };
	if (msg != NULL)
		msg->pins++;
	if (op->next != NULL)
		op->next->prev = &op->next;
	d->ops = op;
	req->state = op;
	req->on_more = on_more;
	queue_cursor_start(&d->queue, &op->cursor);
}

bool
control_run(struct delivery *d)
{
	bool more = false;
	struct control_op *op, *next;

	for (op = d->ops; op != NULL; op = next) {
		next = op->next;
		if (control_gone(op->req) || (!control_full(op->req) && op->step(op)))
			op_end(op, NULL);
		else
			more = more || !control_full(op->req);
	}
	return more;
}

/* ---- requests answered at once ------------------------------------------------------------------ */

static void
show_recipients(
    struct control_request *req, const struct queue_msg *msg, const struct content *content)
{
	const struct envelope_copy *copy;
	const struct envelope_rcpt *rcpt;

	for (const struct queue_job *job = msg->jobs; job != NULL; job = job->sibling)
		for (uint32_t i = 0; i < job->n_rcpts; i++)
			if (content_rcpt(content, job->rcpts[i].ordinal, &copy, &rcpt))
				control_line(
				    req, json_pack("{s:o, s:s, s:s, s:I, s:I, s:o}", "to",
					     text(rcpt->forward_path), "nexthop",
					     hop_of(job)->route->name, "state", state_of(job),
					     "attempts", (json_int_t)attempts_of(job), "next_s",
					     (json_int_t)seconds_until(next_of(job)), "why",
					     text(why_of(job, &job->rcpts[i]))));
}

static void
run_show(struct delivery *d, struct control_request *req, struct queue_msg *msg)
{
	struct err err = { 0 };
	struct content *content = content_fetch(&d->contents, msg->entry, &err);
	char received[CLOCK_ISO_BYTES], origin[ID_TEXT_LEN + 1];
	json_t *line = content != NULL ? line_of(msg, content) : NULL;

	if (line != NULL) {
		clock_iso(content->env.received_ms, received);
		json_object_set_new(line, "received", json_string(received));
		json_object_set_new(line, "client", text(content->env.client_ip));
		json_object_set_new(line, "helo", text(content->env.helo));
		json_object_set_new(line, "user", text(content->env.auth_user));
		json_object_set_new(line, "listener", text(content->env.listener));
		if (id_wall_ms(content->env.origin) != 0) {
			id_text(content->env.origin, origin);
			json_object_set_new(line, "origin", json_string(origin));
		}
		control_line(req, line);
		show_recipients(req, msg, content);
	}
	content_unref(content);
	control_end(req, &err);
}

static void
run_body(struct delivery *d, struct control_request *req, struct queue_msg *msg)
{
	struct err err;
	struct content *content = content_fetch(&d->contents, msg->entry, &err);

	if (content == NULL || content_open(content, msg->entry, &err) < 0) {
		content_unref(content);
		control_end(req, &err);
		return;
	}
	op_start(d, req, body_step, msg, content);
}

static void
run_retry(struct delivery *d, struct control_request *req, struct queue_msg *msg)
{
	retry_message(d, msg);
	control_line(req, json_pack("{s:i}", "retried", 1));
	control_end(req, NULL);
}

static void
run_drop(struct delivery *d, struct control_request *req, struct queue_msg *msg)
{
	settle_drop(d, msg);
	control_line(req, json_pack("{s:i}", "dropped", 1));
	control_end(req, NULL);
}

static void
run_list(struct delivery *d, struct control_request *req)
{
	op_start(d, req, list_step, NULL, NULL);
}

static void
run_retry_some(struct delivery *d, struct control_request *req)
{
	struct err err;

	if (control_string(req, "domain").len == 0) {
		err_set(&err, ERR_FORMAT, "queue.retry needs \"id\" or \"domain\"");
		control_end(req, &err);
		return;
	}
	op_start(d, req, retry_step, NULL, NULL);
}

static void
run_flush(struct delivery *d, struct control_request *req)
{
	op_start(d, req, retry_step, NULL, NULL);
}

static json_t *
hop_line(const struct hop *hop)
{
	int64_t quiet = hop_quiet_until(hop);
	json_t *line = json_pack("{s:s, s:s, s:I, s:I, s:I, s:I}", "nexthop", hop->route->name,
	    "state", quiet != 0 ? "down" : "up", "jobs",
	    (json_int_t)(hop->line.jobs + hop->failing.jobs), "waiting", (json_int_t)hop->line.n,
	    "connections", (json_int_t)hop->n_conns, "usual_ms",
	    (json_int_t)(hop->usual_us / 1000));

	if (line != NULL && quiet != 0) {
		json_object_set_new(line, "next_s", json_integer(seconds_until(quiet)));
		json_object_set_new(line, "why", text(slice_str(hop->why.text)));
	}
	return line;
}

static void
run_status(struct delivery *d, struct control_request *req)
{
	const struct queue_msg *first = d->queue.head;

	control_line(
	    req, json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:b, s:s}", "role", "delivery",
		     "messages", (json_int_t)d->queue.messages, "recipients",
		     (json_int_t)d->queue.recipients, "deferred", (json_int_t)d->queue.deferred.n,
		     "bytes", (json_int_t)d->queue.bytes, "oldest_s",
		     (json_int_t)(first != NULL ? (clock_mono_ms() - first->born_ms) / 1000 : 0),
		     "connections", (json_int_t)d->n_conns, "attempts", (json_int_t)d->n_attempts,
		     "ready", d->ready, "journal", d->unhealthy ? "failing" : "ok"));
	for (size_t i = 0; i < d->cap_hops; i++)
		for (const struct hop *hop = d->hops[i]; hop != NULL; hop = hop->next)
			if (hop->line.jobs > 0 || hop->failing.jobs > 0 || hop->n_conns > 0)
				control_line(req, hop_line(hop));
	control_end(req, NULL);
}

/* ---- which request ------------------------------------------------------------------------------ */

static const struct {
	const char *op;
	void (*all)(struct delivery *d, struct control_request *req); /* without "id" */
	void (*one)(struct delivery *d, struct control_request *req, struct queue_msg *msg);
} ops[] = {
	{ "status", run_status, NULL },
	{ "queue.list", run_list, NULL },
	{ "queue.flush", run_flush, NULL },
	{ "queue.retry", run_retry_some, run_retry },
	{ "queue.show", NULL, run_show },
	{ "queue.body", NULL, run_body },
	{ "queue.drop", NULL, run_drop },
};

static struct queue_msg *
message_of(struct delivery *d, struct control_request *req, struct err *err)
{
	struct slice text_id = control_string(req, "id");
	struct index_msg *entry = NULL;
	struct id id;

	if (id_parse(text_id, &id))
		entry = index_find(journal_index(d->journal), id);
	if (entry == NULL || entry->user == NULL) {
		err_set(err, ERR_NOT_FOUND, "no message %.*s in the queue",
		    SLICE_FMT(slice_head(text_id, 40)));
		return NULL;
	}
	return entry->user;
}

static void
on_request(void *owner, struct control_request *req)
{
	struct delivery *d = owner;
	struct slice name = control_string(req, "op");
	struct queue_msg *msg;
	bool has_id = control_string(req, "id").len > 0;
	struct err err;

	for (size_t i = 0; i < ARRAY_LEN(ops); i++) {
		if (!slice_eq(name, slice_str(ops[i].op)))
			continue;
		if (!has_id && ops[i].all != NULL) {
			ops[i].all(d, req);
		} else if (has_id && ops[i].one != NULL &&
			   (msg = message_of(d, req, &err)) != NULL) {
			ops[i].one(d, req, msg);
		} else {
			if (!has_id || ops[i].one == NULL)
				err_set(&err, ERR_FORMAT, "%s %s \"id\"", ops[i].op,
				    has_id ? "takes no" : "needs an");
			control_end(req, &err);
		}
		return;
	}
	err_set(&err, ERR_FORMAT, "delivery knows no \"%.*s\"", SLICE_FMT(slice_head(name, 40)));
	control_end(req, &err);
}

int
delivery_control(struct delivery *d, int fd, uid_t other, struct err *err)
{
	d->control = control_open(d->loop, fd, other, on_request, d, err);
	return d->control != NULL ? 0 : -1;
}

void
control_stop(struct delivery *d)
{
	struct err err = { .code = ERR_CANCELLED, .msg = "delivery ends" };

	while (d->ops != NULL)
		op_end(d->ops, &err);
	if (d->control != NULL)
		control_close(d->control);
	d->control = NULL;
}
