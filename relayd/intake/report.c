/* relayd/intake/report.c - what the log and the counters hear of a message: one line an event. */
#include "relayd/core/log.h"
#include "relayd/intake/transaction.h"

#include <stdio.h>

#define NOTHING ((struct kv){ .type = KV_NONE })

struct story {
	unsigned code; /* 0: not refused */
	const char *why, *check;
	const struct pipeline_run *run; /* NULL: the filters did not judge it */
	struct slice rcpt;              /* the one it is about, or empty */
	size_t held;                    /* recipients whose copy goes to the quarantine */
};

static struct kv
number_or_none(const char *key, int64_t n)
{
	return n != 0 ? kv_int(key, n) : NOTHING;
}

static struct kv
slice_or_none(const char *key, struct slice text)
{
	return text.len > 0 ? kv_slice(key, text) : NOTHING;
}

static struct kv
word_or_none(const char *key, const char *word)
{
	return word != NULL && word[0] != '\0' ? kv_str(key, word) : NOTHING;
}

static const char *
forwarded_ip(const struct session_forwarded *f, char text[static IP_TEXT_BYTES])
{
	ip_text(slice_of(f->addr, f->addr_len), text);
	return text;
}

static void
tell(const char *event, const struct transaction *tx, const struct story *story)
{
	const struct session *s = tx->session;
	const struct pipeline_run *run = story->run;
	struct slice to = story->rcpt.len > 0 ? story->rcpt
			  : tx->n_rcpts > 0   ? tx->rcpts[0]
					      : SLICE("");
	char ip[IP_TEXT_BYTES], origin[IP_TEXT_BYTES];

	log_event(event, kv_id("id", tx->id), kv_id("session", s->id),
	    kv_str("ip", session_ip(s, ip)), slice_or_none("user", slice_str(s->user)),
	    s->forwarded != NULL && s->forwarded->addr_len > 0
		? kv_str("for", forwarded_ip(s->forwarded, origin))
		: NOTHING,
	    kv_slice("from", tx->reverse_path),
	    slice_or_none(story->rcpt.len > 0 ? "rcpt" : "to", to),
	    story->rcpt.len > 0 ? NOTHING : kv_int("rcpts", (int64_t)tx->n_rcpts),
	    number_or_none("size", (int64_t)tx->body.bytes),
	    number_or_none("code", (int64_t)story->code), word_or_none("why", story->why),
	    word_or_none("check", story->check),
	    run != NULL ? word_or_none("verdict", run->verdict) : NOTHING,
	    run != NULL ? kv_real("score", run->score) : NOTHING,
	    run != NULL ? slice_or_none("findings", run->findings) : NOTHING,
	    number_or_none("held", (int64_t)story->held),
	    tx->has_origin ? kv_id("origin", tx->origin) : NOTHING);
}

/* The session ends for a limit, and with it its transaction. */
void
on_limit(void *user, const char *what, const char *text)
{
	const struct session *s = user;
	struct pipeline_tx *tx = s->tx != NULL ? s->tx->pipeline : NULL;
	char ip[IP_TEXT_BYTES], note[SMTP_REPLY_LINE_MAX];

	counter_add(COUNTER_LIMIT_HITS, 1);
	counter_add(COUNTER_SESSIONS_ENDED, 1);
	log_event("limit", kv_str("what", what), kv_id("session", s->id),
	    kv_str("ip", session_ip(s, ip)),
	    kv_str("listener", s->in->role->listeners[s->listener].name));
	(void)snprintf(note, sizeof(note), "421 4.4.2 %s", text); /* short */
	pipeline_note(s->pipeline, tx, "limit", slice_str(what), slice_str(note));
}

static const char *
refusal_event(unsigned code)
{
	return code >= 500 ? "message.rejected" : "message.deferred";
}

void
report_refused(const struct transaction *tx, unsigned code, const char *why)
{
	counter_add(code >= 500 ? COUNTER_REJECTED : COUNTER_DEFERRED, 1);
	tell(refusal_event(code), tx, &(struct story){ .code = code, .why = why });
}

void
report_rcpt(const struct transaction *tx, unsigned code, const char *why)
{
	counter_add(COUNTER_RCPT_REFUSED, 1);
	tell(refusal_event(code), tx,
	    &(struct story){ .code = code, .why = why, .rcpt = tx->asked });
}

void
report_judged(const struct transaction *tx)
{
	const struct pipeline_run *run = &tx->session->stage->run;
	struct story story = { .code = run->reply.code, .why = "filter", .check = run->check };

	if (tx->body.bytes > 0 || tx->msg != NULL) /* judged as a whole */
		story.run = run;
	if (run->answer == PIPELINE_DISCARD) {
		counter_add(COUNTER_DISCARDED, 1);
		tell("message.discarded", tx, &story);
		return;
	}
	counter_add(run->answer == PIPELINE_REJECT ? COUNTER_REJECTED : COUNTER_DEFERRED, 1);
	tell(run->answer == PIPELINE_REJECT ? "message.rejected" : "message.deferred", tx, &story);
}

void
report_accepted(const struct transaction *tx)
{
	const struct pipeline_run *run = &tx->session->stage->run;
	struct story story = { .run = run };

	for (size_t i = 0; i < run->n_rcpts; i++)
		story.held += run->rcpts[i].quarantine;
	counter_add(COUNTER_ACCEPTED, 1);
	counter_add(COUNTER_BYTES_IN, (int64_t)tx->body.bytes);
	if (story.held == 0) {
		tell("message.accepted", tx, &story);
		return;
	}
	counter_add(COUNTER_QUARANTINED, 1);
	story.why = run->reason;
	story.check = run->check;
	tell("message.quarantined", tx, &story);
}
