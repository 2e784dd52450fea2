/* relayd/intake/transaction.c - one message: from MAIL to the answer after the dot. */
#include "relayd/intake/transaction.h"

#include "relayd/core/clock.h"
#include "relayd/core/log.h"
#include "relayd/intake/relay.h"

#include <stdio.h>
#include <stdlib.h>

/* ---- life --------------------------------------------------------------------------------- */

static void
unref(struct transaction *tx)
{
	if (--tx->refs > 0)
		return;
	spool_abort(tx->msg);
	arena_fini(&tx->arena);
	free(tx);
}

static void
on_message_released(struct pipeline_message *message)
{
	unref(container_of(message, struct transaction, message));
}

static struct transaction *
begin(struct session *s, const struct smtp_mail *mail)
{
	struct transaction *tx = calloc(1, sizeof(*tx));

	if (tx == NULL)
		return NULL;
	tx->session = s;
	tx->refs = 1;
	tx->arena = arena_of(INTAKE_TX_BYTES);
	tx->id = id_new();
	id_text(tx->id, tx->id_text);
	tx->reverse_path = arena_copy(&tx->arena, mail->reverse_path.mailbox);
	tx->key = arena_copy(&tx->arena, mail->key);
	tx->has_origin = mail->has_origin;
	tx->origin = mail->origin;
	if (tx->reverse_path.p != NULL && tx->key.p != NULL)
		tx->pipeline = pipeline_tx_begin(s->pipeline, tx->id, tx->reverse_path);
	if (tx->pipeline == NULL) {
		unref(tx);
		return NULL;
	}
	return tx;
}

/* s->tx is over; answer is what the client is told, for the trace. */
static void
end(struct session *s, bool accepted, const char *answer)
{
	struct transaction *tx = s->tx;

	s->tx = NULL;
	pipeline_tx_end(tx->pipeline, accepted, slice_str(answer));
	intake_traced(s->in);
	unref(tx);
}

void
transaction_lost(struct session *s)
{
	struct transaction *tx = s->tx;

	if (tx == NULL || s->running || tx->committing)
		return; /* when that ends, this comes again */
	if (tx->probing) {
		probe_query_cancel(&tx->probe);
		return;
	}
	end(s, false, "");
}

/* ---- answers ------------------------------------------------------------------------------ */

struct refusal {
	unsigned code;
	const char *enhanced, *text, *why; /* why: one word for the log */
};

/* What trouble of the spool is to the client. */
static const struct refusal *
refusal_of(const struct err *err)
{
	static const struct refusal full = { 452, "4.3.1", "Out of disk space; try again later",
		"full" };
	static const struct refusal large = { 552, "5.3.4", "Message is over the size limit",
		"message-size" };
	static const struct refusal memory = { 451, "4.3.0", "Out of memory; try again later",
		"memory" };
	static const struct refusal other = { 451, "4.3.0",
		"Trouble with the spool; try again later", "spool" };

	switch (err->code) {
	case ERR_FULL:
		return &full;
	case ERR_LIMIT:
		return &large;
	case ERR_NOMEM:
		return &memory;
	default:
		return &other;
	}
}

/* The end of the transaction, told to all: log, trace, client. */
static void
refuse(struct session *s, const struct refusal *r)
{
	char answer[SMTP_REPLY_LINE_MAX];

	report_refused(s->tx, r->code, r->why);
	(void)snprintf(
	    answer, sizeof(answer), "%u %s %s", r->code, r->enhanced, r->text); /* short */
	end(s, false, answer);
	session_answer(s, r->code, r->enhanced, "%s", r->text);
}

static void
put_reply(const struct pipeline_reply *reply, char out[static SMTP_REPLY_LINE_MAX])
{
	(void)snprintf(out, SMTP_REPLY_LINE_MAX, "%u %s %s", reply->code, reply->enhanced,
	    reply->text); /* its parts are shorter together */
}

/* The pipeline refuses all of it. */
static void
refuse_judged(struct session *s)
{
	char answer[SMTP_REPLY_LINE_MAX];

	report_judged(s->tx);
	put_reply(&s->run.reply, answer);
	end(s, false, answer);
	session_refuse(s);
}

/* ---- MAIL --------------------------------------------------------------------------------- */

static void
mail_judged(struct session *s)
{
	if (s->run.answer == PIPELINE_GO_ON)
		session_pass(s, 250);
	else
		refuse_judged(s);
}

/* What begins now begins under the newest config. */
static void
move(struct session *s)
{
	struct generation *old = s->gen;

	if (s->gen == s->in->gen)
		return;
	s->gen = generation_ref(s->in->gen);
	pipeline_session_move(s->pipeline, s->gen->pipeline);
	smtp_session_serve(smtp_server_session(s->server), &s->gen->listeners[s->listener].service);
	smtp_server_certify(s->server, s->gen->tls); /* what the service offers must be there */
	generation_unref(old);
}

void
on_mail(void *user, const struct smtp_mail *mail)
{
	struct session *s = user;
	struct err err;

	move(s);
	s->tx = begin(s, mail);
	if (s->tx == NULL) {
		session_answer(s, 451, "4.3.0", "Out of memory; try again later");
		return;
	}
	smtp_session_name(smtp_server_session(s->server), s->tx->id);
	if (spool_check(s->in->spool, mail->size, &err) < 0) {
		refuse(s, refusal_of(&err));
		return;
	}
	s->run.tx = s->tx->pipeline;
	session_judge(s, FILTER_MAIL, mail_judged);
}

/* ---- RCPT --------------------------------------------------------------------------------- */

static void
refuse_rcpt(struct session *s, const struct refusal *r)
{
	struct transaction *tx = s->tx;
	char note[SMTP_REPLY_LINE_MAX];

	report_rcpt(tx, r->code, r->why);
	(void)snprintf(note, sizeof(note), "%u %s %s", r->code, r->enhanced, r->text); /* short */
	pipeline_note(s->pipeline, tx->pipeline, "recipient", tx->asked, slice_str(note));
	session_answer(s, r->code, r->enhanced, "<%.*s>: %s", SLICE_FMT(tx->asked), r->text);
}

static bool
has_rcpt(const struct transaction *tx, struct slice path)
{
	for (size_t i = 0; i < tx->n_rcpts; i++)
		if (slice_eq(tx->rcpts[i], path))
			return true;
	return false;
}

static bool
add_rcpt(struct transaction *tx)
{
	if (tx->n_rcpts == tx->cap_rcpts) {
		size_t cap = tx->cap_rcpts > 0 ? 2 * tx->cap_rcpts : 4;
		struct slice *grown = arena_alloc(&tx->arena, cap * sizeof(*grown));

		if (grown == NULL)
			return false;
		if (tx->n_rcpts > 0)
			memcpy(grown, tx->rcpts, tx->n_rcpts * sizeof(*grown));
		tx->rcpts = grown;
		tx->cap_rcpts = cap;
	}
	tx->rcpts[tx->n_rcpts++] = tx->asked;
	return true;
}

static const struct refusal too_many = { 452, "4.5.3", "too many recipients for one message",
	"memory" };

static void
rcpt_judged(struct session *s)
{
	char note[SMTP_REPLY_LINE_MAX];

	if (s->run.answer == PIPELINE_GO_ON) {
		if (add_rcpt(s->tx))
			session_pass(s, 250);
		else
			refuse_rcpt(s, &too_many);
		return;
	}
	report_rcpt(s->tx, s->run.reply.code, s->run.check);
	put_reply(&s->run.reply, note);
	pipeline_note(s->pipeline, s->tx->pipeline, "recipient", s->tx->asked, slice_str(note));
	session_refuse(s);
}

/* The recipient exists, as far as we know: now the filters. */
static void
judge_rcpt(struct session *s)
{
	s->run.tx = s->tx->pipeline;
	s->run.rcpt = (struct envelope_rcpt){ .forward_path = s->tx->asked, .params = SLICE("") };
	session_judge(s, FILTER_RCPT, rcpt_judged);
}

static const struct refusal unknown_rcpt = { 550, "5.1.1", "there is no such recipient here",
	"unknown-recipient" };

static void
probed(struct session *s, const struct probe_answer *answer)
{
	static const struct refusal unreachable = { 450, "4.4.1",
		"its mail server cannot be asked now; try again later", "recipient-probe" };

	if (answer->outcome == PROBE_KNOWN)
		judge_rcpt(s);
	else
		refuse_rcpt(s, answer->outcome == PROBE_UNKNOWN ? &unknown_rcpt : &unreachable);
}

static void
on_probed(struct probe_query *q, const struct probe_answer *answer)
{
	struct transaction *tx = container_of(q, struct transaction, probe);
	struct session *s = tx->session;

	tx->probing = false;
	if (s->server != NULL)
		probed(s, answer);
	else
		transaction_lost(s);
	session_unwait(s);
}

static void
probe_rcpt(struct session *s, const struct config_route *route)
{
	struct transaction *tx = s->tx;
	struct probe_answer answer = { .outcome = PROBE_UNREACHABLE, .text = SLICE("") };
	struct err err;

	if (probe_cached(s->in->probe, route, tx->asked, &answer)) {
		probed(s, &answer);
		return;
	}
	tx->probe = (struct probe_query){ .done = on_probed, .owner = tx };
	if (probe_query_start(s->in->probe, &tx->probe, route, tx->asked, &err) < 0) {
		probed(s, &answer);
		return;
	}
	tx->probing = true;
	s->waits++;
}

/* A recipient in one of our domains: does it exist? */
static void
check_ours(struct session *s, const struct address *forward_path)
{
	const struct config_route *route = config_route_for(s->gen->cfg, forward_path->domain);
	const struct recipients *file = route != NULL ? generation_recipients(s->gen, route) : NULL;

	if (route != NULL && route->recipients == CONFIG_RECIPIENTS_PROBE && s->in->probe != NULL)
		probe_rcpt(s, route);
	else if (file != NULL && !recipients_has(file, forward_path))
		refuse_rcpt(s, &unknown_rcpt);
	else
		judge_rcpt(s);
}

void
on_rcpt(void *user, const struct address *forward_path)
{
	static const struct refusal denied = { 550, "5.7.1",
		"we are not a mail server for that domain, and you may not relay through us",
		"relay-denied" };
	struct session *s = user;
	struct transaction *tx = s->tx;
	struct relay_client client = {
		.trusted = s->trusted || s->release,
		.submission = s->gen->listeners[s->listener].submission,
	};
	enum relay_verdict verdict = relay_check(s->gen->cfg, &client, forward_path);

	tx->asked =
	    arena_copy(&tx->arena, verdict == RELAY_POSTMASTER ? slice_str(s->gen->cfg->postmaster)
							       : forward_path->mailbox);
	if (tx->asked.p == NULL) {
		tx->asked = SLICE("");
		refuse_rcpt(s, &too_many);
	} else if (verdict == RELAY_DENIED) {
		refuse_rcpt(s, &denied);
	} else if (has_rcpt(tx, tx->asked)) {
		session_answer(s, 250, "2.1.5", "Ok, named twice");
	} else if (verdict == RELAY_OURS && !s->release) {
		check_ours(s, forward_path);
	} else {
		judge_rcpt(s);
	}
}

/* ---- DATA --------------------------------------------------------------------------------- */

void
on_data(void *user)
{
	struct session *s = user;
	const struct smtp_service *service = &s->gen->listeners[s->listener].service;
	uint64_t max = service->max_bytes < SPOOL_BYTES_MAX ? service->max_bytes : SPOOL_BYTES_MAX;
	struct err err;

	s->tx->msg = spool_begin(s->in->spool, max, &err);
	if (s->tx->msg == NULL)
		refuse(s, refusal_of(&err));
	else
		session_pass(s, 354);
}

void
on_bytes(void *user, struct slice bytes)
{
	struct session *s = user;
	struct transaction *tx = s->tx;

	received_count(&tx->hops, bytes);
	if (tx->failed.code == ERR_NONE)
		(void)spool_write(tx->msg, bytes, &tx->failed); /* on_body() looks at failed */
}

/* ---- after the dot ---------------------------------------------------------------------------- */

static void
accepted(struct session *s)
{
	char storage[64];
	struct buf answer = buf_over(storage, sizeof(storage) - 1);

	buf_puts(&answer, "Ok: queued as ");
	buf_puts(&answer, s->tx->id_text);
	storage[answer.len] = '\0';
	s->messages++;
	end(s, true, storage);
	if (s->server != NULL)
		smtp_server_answer(
		    s->server, &(struct smtp_answer){
				   .code = 250, .enhanced = "2.0.0", .text = buf_slice(&answer) });
}

static void
on_committed(struct spool_commit *req, const struct err *err)
{
	struct transaction *tx = container_of(req, struct transaction, commit);
	struct session *s = tx->session;

	tx->committing = false;
	if (err->code == ERR_NONE) {
		report_accepted(tx);
		accepted(s);
	} else {
		refuse(s, refusal_of(err));
	}
	session_unwait(s);
}

static void
commit(struct session *s)
{
	struct transaction *tx = s->tx;
	const struct pipeline_run *run = &s->run;
	char ip[IP_TEXT_BYTES];
	struct envelope env = {
		.id = tx->id,
		.received_ms = clock_wall_ms(),
		.flags = (tx->body.dots ? ENVELOPE_DOTS : 0u) |
			 (tx->body.eight_bit ? ENVELOPE_8BIT : 0u) |
			 (run->outbound ? ENVELOPE_OUTBOUND : 0u) |
			 (run->authentic ? ENVELOPE_AUTHENTIC : 0u),
		.size = tx->body.bytes,
		.reverse_path = tx->reverse_path,
		.params = SLICE(""),
		.client_ip = slice_str(session_ip(s, ip)),
		.client_addr = session_addr(s),
		.helo = slice_str(s->helo),
		.auth_user = slice_str(s->user),
		.listener = slice_str(s->in->role->listeners[s->listener].name),
		.release_key = tx->key,
		.origin = tx->origin,
		.copies = run->copies,
		.n_copies = run->n_copies,
	};
	struct spool_msg *msg = tx->msg;

	tx->msg = NULL;
	tx->committing = true;
	tx->commit.done = on_committed;
	s->waits++;
	spool_commit(&tx->commit, msg, &env);
}

static void
message_judged(struct session *s)
{
	switch (s->run.answer) {
	case PIPELINE_GO_ON:
		commit(s);
		break;
	case PIPELINE_DISCARD:
		report_judged(s->tx);
		accepted(s);
		break;
	case PIPELINE_DEFER:
	case PIPELINE_REJECT:
		refuse_judged(s);
		break;
	case PIPELINE_CANCELLED: /* the connection is gone, and on_closed() has it */
		break;
	}
}

static bool
put_received(struct session *s, struct slice *fields)
{
	struct transaction *tx = s->tx;
	struct smtp_session *smtp = smtp_server_session(s->server);
	char storage[RECEIVED_FIELD_MAX];
	struct buf out = buf_over(storage, sizeof(storage));
	struct received r = {
		.helo = slice_str(s->helo),
		.client_addr = session_addr(s),
		.hostname = s->gen->cfg->hostname,
		.extended = smtp_session_is_extended(smtp),
		.tls = smtp_session_is_tls(smtp),
		.auth = smtp_session_is_authenticated(smtp),
		.tls_version = s->tls != NULL ? s->tls->info.version : NULL,
		.tls_cipher = s->tls != NULL ? s->tls->info.cipher : NULL,
		.id = slice_str(tx->id_text),
		/* One alone: else each would learn of the others (RFC 5321 section 7.2). */
		.forward_path = tx->n_rcpts == 1 ? tx->rcpts[0] : SLICE(""),
		.wall_ms = clock_wall_ms(),
	};

	received_put(&out, &r);
	*fields = arena_copy(&tx->arena, buf_slice(&out));
	return !out.overflow && fields->p != NULL;
}

static void
judge_message(struct session *s)
{
	struct transaction *tx = s->tx;
	struct err err;

	s->run.fields = SLICE("");
	if (!s->release && !put_received(s, &s->run.fields)) {
		refuse(s, refusal_of(&(struct err){ .code = ERR_NOMEM }));
		return;
	}
	if (spool_peek(tx->msg, &tx->message.bytes, &err) < 0) {
		refuse(s, refusal_of(&err));
		return;
	}
	tx->message.release = on_message_released;
	tx->refs++; /* the pipeline reads the bytes until it releases them */
	s->run.tx = tx->pipeline;
	s->run.message = &tx->message;
	session_judge(s, FILTER_MESSAGE, message_judged);
}

void
on_body(void *user, const struct smtp_body *body)
{
	static const struct refusal loop = { 554, "5.4.6",
		"Too many Received fields: this message goes in circles", "loop" };
	struct session *s = user;
	struct transaction *tx = s->tx;

	tx->body = *body;
	if (tx->failed.code != ERR_NONE)
		refuse(s, refusal_of(&tx->failed));
	else if (tx->hops.fields > RECEIVED_MAX && !s->release)
		refuse(s, &loop);
	else
		judge_message(s);
}

void
on_reset(void *user, enum smtp_reset how, const char *why)
{
	struct session *s = user;

	if (s->tx == NULL || s->running || s->tx->probing || s->tx->committing)
		return; /* answered, or the end of what is on its way will see to it */
	if (how == SMTP_RESET_FAULT)
		report_refused(s->tx, 550, why);
	if (how == SMTP_RESET_SIZE) {
		counter_add(COUNTER_LIMIT_HITS, 1);
		report_refused(s->tx, 552, "message-size");
	}
	end(s, false, how == SMTP_RESET_FAULT ? why : how == SMTP_RESET_SIZE ? "message-size" : "");
}
