/* relayd/intake/transaction.c - one message: from MAIL to the answer after the dot. */
#include "relayd/intake/transaction.h"

#include "relayd/auth/senders.h"
#include "relayd/core/clock.h"
#include "relayd/core/log.h"
#include "relayd/mail/header.h"

#include <stdio.h>
#include <stdlib.h>

/* One answer for each RCPT that was accepted, and the replies that some of them quote. */
struct each {
	size_t n;
	struct smtp_answer *answers;
	struct pipeline_reply *replies;
};

/* ---- life --------------------------------------------------------------------------------- */

void
transaction_unref(struct transaction *tx)
{
	if (--tx->refs > 0)
		return;
	spool_abort(tx->msg);
	free(tx->each);
	arena_fini(&tx->arena);
	free(tx);
}

static void
on_message_released(struct pipeline_message *message)
{
	transaction_unref(container_of(message, struct transaction, message));
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
	tx->params = arena_copy(&tx->arena, mail->params);
	tx->body_type = mail->body;
	tx->utf8 = mail->utf8;
	tx->require_tls = mail->require_tls;
	tx->has_origin = mail->has_origin;
	tx->origin = mail->origin;
	if (tx->reverse_path.p != NULL && tx->key.p != NULL && tx->params.p != NULL)
		tx->pipeline = pipeline_tx_begin(s->pipeline, tx->id, tx->reverse_path);
	if (tx->pipeline == NULL) {
		transaction_unref(tx);
		return NULL;
	}
	return tx;
}

static void
count_scanning(struct transaction *tx, bool on)
{
	if (tx->scanning == on)
		return;
	tx->scanning = on;
	if (on)
		tx->session->in->n_scanning++;
	else
		tx->session->in->n_scanning--;
	counter_add(COUNTER_SCANNING, on ? 1 : -1);
}

/* The client has changed its mind before anything was refused, which it may do a hundred thousand
 * times a second: then not each leaves a trace. */
static void
hush_flood(struct session *s)
{
	struct intake *in = s->in;
	char ip[IP_TEXT_BYTES];

	if (s->tx->any_refused || intake_may(&in->given_up, INTAKE_GIVEN_UP_TRACED))
		return;
	pipeline_tx_hush(s->tx->pipeline);
	if (in->given_up.used != INTAKE_GIVEN_UP_TRACED + 1)
		return; /* said, in this second */
	counter_add(COUNTER_LIMIT_HITS, 1);
	log_event("limit", kv_id("session", s->id), kv_str("what", "given-up"),
	    kv_str("ip", session_ip(s, ip)),
	    kv_str("why", "so many transactions come to nothing that not all leave a trace"));
}

/* s->tx is over; answer is what the client is told, for the trace. */
static void
end(struct session *s, bool accepted, const char *answer)
{
	struct transaction *tx = s->tx;

	if (!accepted && answer[0] == '\0')
		hush_flood(s);
	s->tx = NULL;
	count_scanning(tx, false);
	free(s->forwarded); /* it was for this one */
	s->forwarded = NULL;
	pipeline_tx_end(tx->pipeline, accepted, slice_str(answer));
	intake_traced(s->in);
	transaction_unref(tx);
}

void
transaction_lost(struct session *s)
{
	struct transaction *tx = s->tx;

	if (tx == NULL || s->running || tx->committing)
		return; /* when that ends, this comes again */
	if (tx->probing) {
		probe_query_cancel(&tx->probe);
		directory_ask_cancel(&tx->directory); /* harmless, what was not asked */
		return;
	}
	end(s, false, "");
	session_rest(s);
}

/* ---- answers ------------------------------------------------------------------------------ */

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
	session_rest(s);
}

void
reply_text(const struct pipeline_reply *reply, char out[static SMTP_REPLY_LINE_MAX])
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
	reply_text(&s->stage->run.reply, answer);
	end(s, false, answer);
	session_refuse(s);
	session_rest(s);
}

/* ---- MAIL --------------------------------------------------------------------------------- */

static void
mail_judged(struct session *s)
{
	if (s->stage->run.answer == PIPELINE_GO_ON)
		session_pass(s, 250);
	else
		refuse_judged(s);
}

/* A user may only write in the names that the login map gives it. */
static bool
may_send(struct session *s)
{
	struct transaction *tx = s->tx;
	char text[SMTP_REPLY_LINE_MAX];

	if (s->user == NULL || s->gen->senders == NULL ||
	    senders_allow(s->gen->senders, slice_str(s->user), tx->reverse_path))
		return true;
	(void)snprintf(text, sizeof(text), "<%.*s>: user %s may not send in this name",
	    SLICE_FMT(tx->reverse_path), s->user); /* a long one is cut, as a reply line is */
	refuse(s, &(struct refusal){ 553, "5.7.1", text, "sender-login" });
	return false;
}

/* Another message would wait too long for its filters: the client has the time. */
static bool
has_room_to_scan(struct session *s)
{
	static const struct refusal scanning = { 452, "4.3.1",
		"Too many messages are being scanned; try again later", "scanning" };
	char ip[IP_TEXT_BYTES];

	if (s->release || s->in->n_scanning < s->gen->cfg->limits.scanning)
		return true;
	counter_add(COUNTER_LIMIT_HITS, 1);
	log_event("limit", kv_str("what", "scanning"), kv_id("session", s->id),
	    kv_id("id", s->tx->id), kv_str("ip", session_ip(s, ip)));
	refuse(s, &scanning);
	return false;
}

void
on_mail(void *user, const struct smtp_mail *mail)
{
	struct session *s = user;
	struct err err;

	if (!session_move(s)) {
		session_answer(s, 421, "4.7.0",
		    "The user of this session may not log in any more; connect again");
		return;
	}
	s->tx = session_stage(s) != NULL ? begin(s, mail) : NULL;
	if (s->tx == NULL) {
		session_answer(s, 451, "4.3.0", "Out of memory; try again later");
		session_rest(s);
		return;
	}
	smtp_session_name(smtp_server_session(s->server), s->tx->id);
	if (!may_send(s) || !has_room_to_scan(s))
		return;
	if (spool_check(s->in->spool, mail->size, &err) < 0) {
		refuse(s, refusal_of(&err));
		return;
	}
	s->stage->run.tx = s->tx->pipeline;
	session_judge(s, FILTER_MAIL, mail_judged);
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

/* ---- after the dot --------------------------------------------------------------------------- */

/* Why one of those that a RCPT stands for did not get it, or NULL. */
static const struct pipeline_reply *
refusal_among(const struct pipeline_run *run, struct reply_of which)
{
	for (size_t i = which.first; i < run->n_rcpts && i < (size_t)which.first + which.n; i++)
		if (run->rcpts[i].reply != NULL)
			return run->rcpts[i].reply;
	return NULL;
}

/* LMTP and PRDR: what each recipient is told, kept until the message is durable.  False when out of
 * memory. */
static bool
prepare_each(struct session *s)
{
	struct transaction *tx = s->tx;
	size_t n = tx->n_replies;
	struct each *each =
	    calloc(1, sizeof(*each) + n * (sizeof(*each->answers) + sizeof(*each->replies)));

	if (each == NULL)
		return false;
	each->n = n;
	each->replies = (struct pipeline_reply *)(each + 1);
	each->answers = (struct smtp_answer *)(each->replies + n);
	for (size_t i = 0; i < n; i++) {
		const struct pipeline_reply *reply = refusal_among(&s->stage->run, tx->replies[i]);

		each->answers[i] = (struct smtp_answer){ .code = 250, .text = SLICE("") };
		if (reply == NULL)
			continue;
		each->replies[i] = *reply;
		each->answers[i] = (struct smtp_answer){ .code = reply->code,
			.enhanced = each->replies[i].enhanced,
			.text = slice_str(each->replies[i].text),
			.help = slice_str(each->replies[i].help),
			.named = true };
	}
	tx->each = each;
	return true;
}

static void
answer_each(struct session *s, struct each *each, const struct smtp_answer *all)
{
	bool lmtp = s->gen->listeners[s->listener].service.kind == SMTP_KIND_LMTP;

	for (size_t i = 0; i < each->n; i++)
		if (each->answers[i].code == 250)
			each->answers[i] = *all;
	smtp_server_answer_each(s->server, each->answers, each->n, lmtp ? NULL : all);
}

static void
accepted(struct session *s)
{
	struct each *each = s->tx->each;
	struct smtp_answer all = { .code = 250, .enhanced = "2.0.0" };
	char storage[64];
	struct buf answer = buf_over(storage, sizeof(storage) - 1);

	buf_puts(&answer, "Ok: queued as ");
	buf_puts(&answer, s->tx->id_text);
	storage[answer.len] = '\0';
	all.text = buf_slice(&answer);
	s->messages++;
	s->tx->each = NULL;
	end(s, true, storage);
	if (s->server != NULL && each != NULL)
		answer_each(s, each, &all);
	else if (s->server != NULL)
		smtp_server_answer(s->server, &all);
	free(each);
	session_rest(s);
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

static bool
has_eight_bit_header(const struct transaction *tx)
{
	struct slice bytes = tx->message.bytes;

	return tx->body.eight_bit && !slice_is_ascii(slice_head(bytes, header_length(bytes)));
}

/* SMTPUTF8 that nothing makes use of would only keep the message from next hops that do not offer
 * it (RFC 6531 section 3.6 has it follow from the message); paths are looked at when they are
 * sent. */
static bool
needs_utf8(const struct transaction *tx)
{
	return tx->utf8 && (!slice_is_ascii(tx->reverse_path) || has_eight_bit_header(tx));
}

/* RFC 8689 section 3: one field "TLS-Required: no", several mean nothing; REQUIRETLS is stronger
 * (section 4.1). */
static bool
is_tls_optional(const struct transaction *tx)
{
	struct header_field field, other;

	return !tx->require_tls &&
	       header_find(tx->message.bytes, SLICE("TLS-Required"), 0, &field) &&
	       !header_find(tx->message.bytes, SLICE("TLS-Required"), 1, &other) &&
	       slice_ieq(slice_trim(field.body), SLICE("no"));
}

static uint32_t
envelope_flags(const struct session *s)
{
	const struct transaction *tx = s->tx;
	const struct pipeline_run *run = &s->stage->run;

	return (tx->body.dots || run->dots ? ENVELOPE_DOTS : 0u) |
	       (tx->body.eight_bit || run->eight_bit ? ENVELOPE_8BIT : 0u) |
	       (tx->body.binary ? ENVELOPE_BINARY : 0u) | (needs_utf8(tx) ? ENVELOPE_UTF8 : 0u) |
	       (tx->require_tls ? ENVELOPE_REQUIRETLS : 0u) |
	       (tx->tls_optional ? ENVELOPE_TLS_OPTIONAL : 0u) |
	       (run->outbound ? ENVELOPE_OUTBOUND : 0u) |
	       (run->authentic ? ENVELOPE_AUTHENTIC : 0u);
}

static void
commit(struct session *s)
{
	struct transaction *tx = s->tx;
	const struct pipeline_run *run = &s->stage->run;
	const struct session_forwarded *f = s->forwarded;
	char ip[IP_TEXT_BYTES];
	struct envelope env = {
		.id = tx->id,
		.received_ms = clock_wall_ms(),
		.flags = envelope_flags(s),
		.size = tx->body.bytes,
		.reverse_path = tx->reverse_path,
		.params = tx->params,
		.client_ip = slice_str(session_ip(s, ip)),
		.client_addr = session_addr(s),
		.helo = pipeline_session_name(s->pipeline),
		.auth_user = slice_str(s->user),
		.listener = slice_str(s->in->role->listeners[s->listener].name),
		.release_key = tx->key,
		.origin = tx->origin,
		.copies = run->copies,
		.n_copies = run->n_copies,
	};
	struct spool_msg *msg = tx->msg;

	if (f != NULL && f->addr_len > 0) {
		ip_text(slice_of(f->addr, f->addr_len), ip);
		env.client_ip = slice_str(ip);
		env.client_addr = slice_of(f->addr, f->addr_len);
	}
	if (f != NULL && f->helo[0] != '\0')
		env.helo = slice_str(f->helo);
	tx->msg = NULL;
	tx->committing = true;
	tx->commit.done = on_committed;
	s->waits++;
	spool_commit(&tx->commit, msg, &env);
}

static void
message_judged(struct session *s)
{
	count_scanning(s->tx, false);
	if (s->tx->body.each && s->server != NULL &&
	    (s->stage->run.answer == PIPELINE_GO_ON || s->stage->run.answer == PIPELINE_DISCARD) &&
	    !prepare_each(s)) {
		refuse(s, refusal_of(&(struct err){ .code = ERR_NOMEM }));
		return;
	}
	switch (s->stage->run.answer) {
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
		.helo = pipeline_session_name(s->pipeline),
		.client_addr = session_addr(s),
		.hostname = s->gen->cfg->hostname,
		.extended = smtp_session_is_extended(smtp),
		.tls = smtp_session_is_tls(smtp),
		.auth = smtp_session_is_authenticated(smtp),
		.lmtp = s->gen->listeners[s->listener].service.kind == SMTP_KIND_LMTP,
		.utf8 = tx->utf8,
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

/* Where the listener is strict: what the message holds was announced (RFC 6152 section 3, RFC 6531
 * section 3.2).  False: it is refused. */
static bool
is_declared(struct session *s)
{
	static const struct refusal header = { 554, "5.6.9",
		"The header is not ASCII, and MAIL did not say SMTPUTF8", "utf8-undeclared" };
	static const struct refusal body = { 554, "5.6.3",
		"There is 8-bit data, and MAIL did not say BODY=8BITMIME", "8bit-undeclared" };
	const struct transaction *tx = s->tx;

	if (!tx->utf8 && has_eight_bit_header(tx))
		refuse(s, &header);
	else if (tx->body.eight_bit && tx->body_type == SMTP_BODY_7BIT)
		refuse(s, &body);
	else
		return true;
	return false;
}

static void
judge_message(struct session *s)
{
	struct transaction *tx = s->tx;
	struct err err;

	s->stage->run.fields = SLICE("");
	if (!s->release && !put_received(s, &s->stage->run.fields)) {
		refuse(s, refusal_of(&(struct err){ .code = ERR_NOMEM }));
		return;
	}
	if (spool_peek(tx->msg, &tx->message.bytes, &err) < 0) {
		refuse(s, refusal_of(&err));
		return;
	}
	tx->tls_optional = is_tls_optional(tx);
	if (s->gen->listeners[s->listener].strict_eight_bit && !is_declared(s))
		return;
	tx->message.release = on_message_released;
	tx->refs++; /* the pipeline reads the bytes until it releases them */
	s->stage->run.tx = tx->pipeline;
	s->stage->run.message = &tx->message;
	s->stage->run.per_recipient = tx->body.each;
	count_scanning(tx, true);
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
	else if (has_room_to_scan(s)) /* since MAIL others may have come */
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
	session_rest(s);
}
