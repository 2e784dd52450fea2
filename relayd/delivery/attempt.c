/* relayd/delivery/attempt.c - one transaction: a job's recipients and their copy of the message, on
 * a connection. */
#include "relayd/delivery/parts.h"

#include "relayd/core/clock.h"
#include "relayd/core/counters.h"

#include <stdio.h>
#include <stdlib.h>

struct attempt {
	struct peer_send send;
	struct delivery *d;
	struct conn *conn;
	struct queue_job *job;
	struct queue_msg *msg;
	struct content *content; /* a reference, until the end */
	const struct envelope_copy *copy;
	struct envelope_walk walk;
	/* when the body was asked for: what was queued behind others does not count */
	int64_t begun_us;
	char xid[ID_TEXT_LEN + 1];

	/* a large message is read piece by piece */
	struct content_read read;
	struct envelope_run left; /* of the walk, not yet read */
	char *chunk;
	size_t chunk_len;
	bool reading, verified, ended;
	struct err read_err;

	struct smtp_tx_rcpt rcpts[];
};

static void
attempt_free(struct attempt *a)
{
	if (a->reading || !a->ended)
		return;
	smtp_tx_fini(&a->send.tx);
	free(a->chunk);
	free(a);
}

/* ---- the body ------------------------------------------------------------------------------- */

/* All of it is in memory. */
static enum peer_body
runs_in_memory(struct attempt *a, struct slice *runs, size_t *n)
{
	struct envelope_run run;

	for (*n = 0; *n < PEER_RUNS; (*n)++) {
		if (!envelope_walk_next(&a->walk, &run))
			return PEER_BODY_END;
		runs[*n] = run.literal.len > 0
			       ? run.literal
			       : slice_head(slice_drop(a->content->body, run.from), run.len);
	}
	return PEER_BODY_MORE;
}

static void
on_read(struct content_read *req, const struct err *err)
{
	struct attempt *a = req->owner;

	a->reading = false;
	if (err != NULL)
		a->read_err = *err;
	else
		a->chunk_len = req->n;
	if (!a->ended) {
		peer_body_ready(&a->send);
		return;
	}
	settle_unpin(a->d, a->msg);
	attempt_free(a);
}

static enum peer_body
read_on(struct attempt *a)
{
	size_t n = a->left.len < CONTENT_CHUNK_BYTES ? (size_t)a->left.len : CONTENT_CHUNK_BYTES;

	if (a->chunk == NULL)
		a->chunk = malloc(CONTENT_CHUNK_BYTES);
	if (a->chunk == NULL)
		return PEER_BODY_FAILED;
	a->read = (struct content_read){ .done = on_read,
		.owner = a,
		.content = a->content,
		.verify = !a->verified,
		.at = a->left.from,
		.n = n,
		.out = a->chunk };
	a->verified = true;
	if (content_read_start(&a->read, &a->read_err) < 0)
		return PEER_BODY_FAILED;
	a->reading = true;
	a->left.from += n;
	a->left.len -= n;
	return PEER_BODY_WAIT;
}

static enum peer_body
runs_of_file(struct attempt *a, struct slice *runs, size_t *n)
{
	*n = 0;
	if (a->read_err.code != ERR_NONE)
		return PEER_BODY_FAILED;
	if (a->reading)
		return PEER_BODY_WAIT;
	if (a->chunk_len > 0) {
		runs[(*n)++] = slice_of(a->chunk, a->chunk_len);
		a->chunk_len = 0;
		return PEER_BODY_MORE;
	}
	if (a->left.len == 0 && !envelope_walk_next(&a->walk, &a->left))
		return PEER_BODY_END;
	if (a->left.literal.len > 0) {
		runs[(*n)++] = a->left.literal;
		a->left = (struct envelope_run){ 0 };
		return PEER_BODY_MORE;
	}
	return a->left.len > 0 ? read_on(a) : PEER_BODY_MORE;
}

static enum peer_body
give_body(struct peer_send *req, struct slice *runs, size_t *n)
{
	struct attempt *a = container_of(req, struct attempt, send);

	return a->content->file != NULL ? runs_of_file(a, runs, n) : runs_in_memory(a, runs, n);
}

/* ---- the end -------------------------------------------------------------------------------- */

static void
describe(const struct attempt *a, const struct err *err, struct hop_failure *f)
{
	const struct smtp_outcome *said = &a->send.refusal;

	*f = (struct hop_failure){ 0 };
	if (a->read_err.code != ERR_NONE) {
		snprintf(f->enhanced, sizeof(f->enhanced), "4.3.0");
		hop_failure_say(f, "%s", a->read_err.msg);
	} else if (said->code != 0) {
		f->code = said->code;
		memcpy(f->enhanced, said->enhanced, sizeof(f->enhanced));
		hop_failure_say(f, "%.*s", SLICE_FMT(said->text));
		snprintf(f->remote, sizeof(f->remote), "%s", conn_host(a->conn));
	} else {
		snprintf(f->enhanced, sizeof(f->enhanced), "4.4.2");
		hop_failure_say(f, "%s: %s%s", conn_name(a->conn), err->msg,
		    a->send.maybe ? "; the whole message was sent, and may have arrived" : "");
	}
}

static void
settle_attempt(struct attempt *a, const struct err *err)
{
	struct smtp_outcome outcomes[QUEUE_JOB_RCPTS];
	struct hop_failure failure = { 0 };
	struct settle s = { .d = conn_hop(a->conn)->d,
		.job = a->job,
		.content = a->content,
		.outcomes = outcomes,
		.failure = &failure,
		.nexthop = conn_name(a->conn),
		.remote = conn_host(a->conn),
		.caps = conn_caps(a->conn),
		.lmtp = conn_is_lmtp(a->conn),
		.conn = a->conn,
		.dialogue = conn_dialogue(a->conn) };

	if (err != NULL)
		describe(a, err, &failure);
	for (uint32_t i = 0; i < a->job->n_rcpts; i++)
		outcomes[i] = a->rcpts[i].outcome;
	settle(&s);
}

/* It is wanted again soon, or for the log. */
static void
keep_content(struct attempt *a)
{
	if (a->msg->content == NULL && content_has_room(&a->d->contents))
		a->msg->content = a->content;
	else
		content_unref(a->content);
}

static void
on_done(struct peer_send *send, const struct err *err)
{
	struct attempt *a = container_of(send, struct attempt, send);
	struct hop *hop = conn_hop(a->conn);
	struct delivery *d = hop->d;
	/* Where the session never began, the address is to blame (conn.c) and not the message. */
	bool untried = err != NULL && (send->untried || !conn_is_open(a->conn) ||
					  (err->code == ERR_CANCELLED && !send->maybe));

	a->ended = true;
	if (a->reading)
		a->msg->pins++; /* its bytes are being read: on_read() */
	hop->n_taken--;
	d->n_attempts--;
	conn_sent(a->conn, err == NULL ? clock_mono_us() - a->begun_us + 1 : 0,
	    untried ? &send->refusal : NULL);
	if (untried) {
		keep_content(a);
		settle_put_back(d, a->job);
	} else {
		settle_attempt(a, err);
	}
	a->content = NULL;
	attempt_free(a);
	delivery_ended_one(d);
}

/* ---- the start ------------------------------------------------------------------------------ */

static uint32_t
tx_flags(const struct envelope *env)
{
	return ((env->flags & ENVELOPE_8BIT) != 0 ? SMTP_TX_8BIT : 0u) |
	       ((env->flags & ENVELOPE_UTF8) != 0 ? SMTP_TX_UTF8 : 0u) |
	       ((env->flags & ENVELOPE_BINARY) != 0 ? SMTP_TX_BINARY : 0u) |
	       ((env->flags & ENVELOPE_REQUIRETLS) != 0 ? SMTP_TX_REQUIRETLS : 0u) |
	       ((env->flags & ENVELOPE_DOTS) != 0 ? SMTP_TX_DOTS : 0u);
}

/* The postmaster's address is the config's, which may go: a copy of it. */
static struct slice
sent_path(struct delivery *d, struct content *content, const struct envelope_rcpt *rcpt)
{
	struct slice path = routes_path(d->routes, rcpt->forward_path);

	if (path.p == rcpt->forward_path.p)
		return path;
	path = arena_copy(&content->arena, path);
	return path.p != NULL ? path : rcpt->forward_path;
}

static struct attempt *
attempt_new(struct conn *conn, struct queue_job *job, struct content *content)
{
	struct attempt *a = calloc(1, sizeof(*a) + job->n_rcpts * sizeof(a->rcpts[0]));
	struct delivery *d = conn_hop(conn)->d;
	const struct envelope_rcpt *rcpt;

	if (a == NULL)
		return NULL;
	a->d = d;
	a->conn = conn;
	a->job = job;
	a->msg = job->msg;
	a->content = content;
	for (uint32_t i = 0; i < job->n_rcpts; i++) {
		if (!content_rcpt(content, job->rcpts[i].ordinal, &a->copy, &rcpt)) {
			free(a);
			return NULL;
		}
		a->rcpts[i].forward_path = sent_path(d, content, rcpt);
		a->rcpts[i].params = rcpt->params;
	}
	a->walk = envelope_walk_of(&content->env, a->copy);
	return a;
}

static void
fill_in(struct attempt *a)
{
	const struct envelope *env = &a->content->env;

	a->send.body = give_body;
	a->send.done = on_done;
	a->send.tx = (struct smtp_tx){ .reverse_path = env->reverse_path,
		.params = env->params,
		.size = envelope_copy_size(env, a->copy),
		.flags = tx_flags(env),
		.rcpts = a->rcpts,
		.n_rcpts = a->job->n_rcpts };
	if (conn_hop(a->conn)->route->quarantine) {
		id_text(env->id, a->xid);
		a->send.tx.xid = slice_str(a->xid);
	}
	a->begun_us = clock_mono_us();
}

bool
attempt_start(struct conn *conn, struct queue_job *job)
{
	struct hop *hop = conn_hop(conn);
	struct delivery *d = hop->d;
	struct err err = { .msg = "out of memory" };
	struct content *content = tail_content(d, job->msg, &err);
	struct attempt *a;
	uint32_t max = conn_rcpt_max(conn);

	if (max > 0 && job->n_rcpts > max)
		settle_split(d, job, max);
	if (content != NULL && job->planned != d->generation && !tail_replan(d, job, content)) {
		content_unref(content);
		return false;
	}
	if (content == NULL || content_open(content, job->msg->entry, &err) < 0 ||
	    (a = attempt_new(conn, job, content)) == NULL) {
		content_unref(content);
		settle_unreadable(d, job, &err);
		return false;
	}
	fill_in(a);
	hop->n_taken++;
	d->n_attempts++;
	conn_send(conn, &a->send);
	return true;
}
