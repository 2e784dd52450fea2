/* relayd/delivery/control.c - answers the admin's requests, a little of a long one each round. */
#include "relayd/delivery/control.h"

#include "relayd/core/clock.h"
#include "relayd/delivery/control_parts.h"

#include <openssl/evp.h>
#include <stdlib.h>

#define LOOKS_A_ROUND    4096         /* messages that are looked at, as far as memory knows them */
#define MESSAGES_A_ROUND 64           /* those of them that are read */
#define BODY_CHUNK       (48u * 1024) /* a multiple of 3: chunks of base64 join without padding */

/* ---- requests under way ---------------------------------------------------------------------- */

/* The last message is not needed whole any more. */
static void
let_go(struct control_op *op)
{
	static const struct id none;

	if (!id_eq(op->last, none) && !op->d->closing)
		tail_park_id(op->d, op->last);
	op->last = none;
}

static void
op_end(struct control_op *op, const struct err *err)
{
	struct delivery *d = op->d;

	*op->prev = op->next;
	if (op->next != NULL)
		op->next->prev = op->prev;
	let_go(op);
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

struct control_op *
op_start(struct delivery *d, struct control_request *req, bool (*step)(struct control_op *op))
{
	struct control_op *op = calloc(1, sizeof(*op));
	struct err err = { .code = ERR_NOMEM, .msg = "out of memory" };

	if (op == NULL) {
		control_end(req, &err);
		return NULL;
	}
	op->d = d;
	op->req = req;
	op->step = step;
	op->begun_ms = clock_mono_ms();
	op->prev = &d->ops;
	op->next = d->ops;
	if (op->next != NULL)
		op->next->prev = &op->next;
	d->ops = op;
	req->state = op;
	req->on_more = on_more;
	delivery_wake(
	    d); /* it may have waited in the stream for the one before: nothing else wakes us */
	return op;
}

static struct content *
content_for(struct control_op *op, const struct queue_msg *msg, struct err *err)
{
	return msg->content != NULL ? content_ref(msg->content)
				    : content_fetch(&op->d->contents, msg->entry, err);
}

/* It is damaged; whether the admin means it all the same. */
static bool
is_broken(struct control_op *op, struct index_msg *entry, const struct err *err)
{
	struct queue_msg *msg = entry->parked ? NULL : entry->user;
	char text[DAMAGE_BYTES];
	struct slice damage = settle_damage(op->d, entry, err, text);

	/* From now on memory knows it, too: "reason" finds it. */
	entry->damaged = true;
	for (struct queue_job *job = msg != NULL ? msg->jobs : NULL; job != NULL;
	     job = job->sibling)
		for (uint32_t i = 0; i < job->n_rcpts; i++)
			queue_why(&op->d->queue, &job->rcpts[i], damage);
	if (!match_broken(&op->match, entry, damage))
		return false;
	op->broken = entry;
	op->broken_err = *err;
	return true;
}

/* What came after the request began is not what the admin saw. */
static bool
is_meant(const struct control_op *op, const struct index_msg *entry)
{
	const struct queue_msg *msg = entry->user;
	int64_t born_ms = entry->parked
			      ? hop_slot_born_ms(&((struct queue_parked *)entry->user)->slot)
			  : msg != NULL ? msg->born_ms
					: INT64_MAX;

	return born_ms <= op->begun_ms && clock_mono_ms() - born_ms >= 1000 * op->match.age_s;
}

struct queue_msg *
op_next(struct control_op *op, bool envelope, unsigned *left, struct content **content, bool *end)
{
	bool reads = envelope || match_needs_envelope(&op->match);
	unsigned looks = LOOKS_A_ROUND;

	*content = NULL;
	op->broken = NULL;
	while (looks-- > 0 && *left > 0) {
		struct index_msg *entry;
		struct queue_msg *msg;
		struct err err;

		let_go(op);
		op->before = op->cursor;
		entry = index_cursor_next(journal_index(op->d->journal), &op->cursor);
		*end = entry == NULL;
		if (entry == NULL)
			return NULL;
		if (!is_meant(op, entry))
			continue;
		*left -= reads || entry->parked;
		op->last = entry->id; /* before it may be gone */
		msg = tail_whole(op->d, entry, &err);
		if (msg != NULL && !match_quick(&op->match, msg))
			continue;
		if (msg != NULL && !reads)
			return msg;
		if (msg != NULL)
			*content = content_for(op, msg, &err);
		if (*content == NULL && settle_is_damage(&err) && is_broken(op, entry, &err))
			return NULL;
		if (*content != NULL && match_envelope(&op->match, msg, *content))
			return msg;
		content_unref(*content);
		*content = NULL;
	}
	return NULL;
}

void
op_step_back(struct control_op *op)
{
	op->cursor = op->before;
}

bool
control_run(struct delivery *d)
{
	bool more = false;
	struct control_op *op, *next;

	for (op = d->ops; op != NULL; op = next) {
		next = op->next;
		if (control_gone(op->req) || (!control_full(op->req) && op->step(op)))
			op_end(op, &op->err);
		else
			more = more || !control_full(op->req);
	}
	return more;
}

/* ---- looking --------------------------------------------------------------------------------- */

static bool
list_step(struct control_op *op)
{
	unsigned left = MESSAGES_A_ROUND;
	struct content *content;
	struct queue_msg *msg;
	bool end = false;

	while (!control_full(op->req) &&
	       ((msg = op_next(op, true, &left, &content, &end)) != NULL || op->broken != NULL)) {
		control_line(op->req, msg != NULL
					  ? show_line(msg, content)
					  : show_broken(op->d, op->broken, &op->broken_err));
		content_unref(content);
	}
	return end;
}

static void
run_list(struct delivery *d, struct control_request *req)
{
	struct control_match match;
	struct control_op *op;
	struct err err;

	if (match_of(req, &match, &err) < 0) {
		control_end(req, &err);
		return;
	}
	op = op_start(d, req, list_step);
	if (op != NULL)
		op->match = match;
}

static void
run_show(struct delivery *d, struct control_request *req, struct index_msg *entry)
{
	struct err err;
	struct queue_msg *msg = tail_whole(d, entry, &err);
	struct content *content =
	    msg != NULL ? content_fetch(&d->contents, msg->entry, &err) : NULL;

	if (content != NULL) {
		show_message(req, msg, content);
		err.code = ERR_NONE;
	} else if (settle_is_damage(&err)) {
		control_line(req, show_broken(d, entry, &err));
		err.code = ERR_NONE;
	}
	content_unref(content);
	control_end(req, &err);
	if (msg != NULL)
		tail_park(d, msg);
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

static void
run_body(struct delivery *d, struct control_request *req, struct index_msg *entry)
{
	struct err err;
	struct queue_msg *msg = tail_whole(d, entry, &err);
	struct content *content =
	    msg != NULL ? content_fetch(&d->contents, msg->entry, &err) : NULL;
	struct control_op *op;

	if (content == NULL || content_open(content, msg->entry, &err) < 0) {
		content_unref(content);
		if (err.code == ERR_NONE)
			err_set(&err, ERR_NOT_FOUND, "it is gone");
		else if (settle_is_damage(&err))
			act_say_damaged(d, "shown", entry, &err);
		control_end(req, &err);
		return;
	}
	op = op_start(d, req, body_step);
	if (op == NULL) {
		content_unref(content);
		return;
	}
	op->content = content;
	op->msg = msg;
	msg->pins++;
}

/* ---- which request --------------------------------------------------------------------------- */

static const struct {
	const char *op;
	void (*all)(struct delivery *d, struct control_request *req); /* without "id" */
	void (*one)(struct delivery *d, struct control_request *req, struct index_msg *entry);
} ops[] = {
	{ "status", top_status, NULL },
	{ "top", top_start, NULL },
	{ "queue.list", run_list, NULL },
	{ "queue.show", NULL, run_show },
	{ "queue.body", NULL, run_body },
};

static struct index_msg *
entry_of(struct delivery *d, struct control_request *req, struct err *err)
{
	struct slice text_id = control_string(req, "id");
	struct index_msg *entry = NULL;
	struct id id;

	if (id_parse(text_id, &id))
		entry = index_find(journal_index(d->journal), id);
	if (entry != NULL && entry->user != NULL)
		return entry;
	err_set(
	    err, ERR_NOT_FOUND, "no message %.*s in the queue", SLICE_FMT(slice_head(text_id, 40)));
	return NULL;
}

static void
on_request(void *owner, struct control_request *req)
{
	struct delivery *d = owner;
	struct slice name = control_string(req, "op");
	const struct control_act *act = act_named(name);
	struct index_msg *entry;
	bool has_id = json_object_get(req->body, "id") != NULL;
	struct err err;

	if (act != NULL && !has_id) {
		act_some(d, req, act);
		return;
	}
	if (act != NULL) {
		entry = entry_of(d, req, &err);
		if (entry != NULL)
			act_one(d, req, act, entry);
		else
			control_end(req, &err);
		return;
	}
	for (size_t i = 0; i < ARRAY_LEN(ops); i++) {
		if (!slice_eq(name, slice_str(ops[i].op)))
			continue;
		if (!has_id && ops[i].all != NULL) {
			ops[i].all(d, req);
		} else if (has_id && ops[i].one != NULL &&
			   (entry = entry_of(d, req, &err)) != NULL) {
			ops[i].one(d, req, entry);
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
