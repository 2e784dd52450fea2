/* relayd/pipeline/tell.c - the trace of a message or a refused session, as one JSON object. */
#include "relayd/core/clock.h"
#include "relayd/pipeline/inside.h"
#include "relayd/pipeline/trace.h"

#define RCPTS_TOLD 100 /* of a message; how many there were is said in any case */

static void
put_key(struct buf *out, const char *key)
{
	buf_puts(out, ",\"");
	buf_puts(out, key);
	buf_puts(out, "\":");
}

static void
put_text(struct buf *out, const char *key, struct slice text)
{
	if (text.len == 0)
		return;
	put_key(out, key);
	pl_json_text(out, slice_head(text, 1000));
}

static void
put_session(struct buf *out, const struct pipeline_session *s)
{
	put_text(out, "session", slice_str(s->found->id_text));
	put_text(out, "ip", s->found->view.client_ip);
	put_text(out, "helo", s->found->view.helo);
	put_text(out, "user", s->found->view.auth_user);
	put_text(out, "listener", s->found->view.listener);
	if (s->found->view.tls)
		buf_puts(out, ",\"tls\":true");
	if (s->found->view.trusted)
		buf_puts(out, ",\"trusted\":true");
	put_text(out, "generation", slice_str(s->pl->generation));
}

static void
put_events(struct buf *out, const struct story *first, const struct story *second)
{
	struct slice a = buf_slice(&first->events);
	struct slice b = second != NULL ? buf_slice(&second->events) : SLICE("");

	if (a.len + b.len > 0) {
		put_key(out, "events");
		buf_putc(out, '[');
		buf_put(out, a);
		if (a.len > 0 && b.len > 0)
			buf_putc(out, ',');
		buf_put(out, b);
		buf_putc(out, ']');
	}
	if (first->cut || (second != NULL && second->cut))
		buf_puts(out, ",\"cut\":true");
}

static void
put_begin(struct buf *out, int64_t wall_ms)
{
	char iso[CLOCK_ISO_BYTES];

	clock_iso(wall_ms, iso);
	buf_puts(out, "{\"t\":\"");
	buf_puts(out, iso);
	buf_putc(out, '"');
}

static void
put_rcpts(struct buf *out, const struct pipeline_tx *tx)
{
	if (tx->n_rcpts == 0)
		return;
	buf_puts(out, ",\"to\":[");
	for (size_t i = 0; i < tx->n_rcpts && i < RCPTS_TOLD; i++) {
		if (i > 0)
			buf_putc(out, ',');
		pl_json_text(out, slice_head(tx->rcpts[i]->path.forward_path, 300));
	}
	buf_putc(out, ']');
	if (tx->n_rcpts > RCPTS_TOLD)
		buf_printf(out, ",\"recipients\":%zu", tx->n_rcpts);
}

void
pl_tell_tx_json(const struct pipeline_tx *tx, bool accepted, struct slice answer, struct buf *out)
{
	put_begin(out, tx->begun_ms);
	put_text(out, "id", slice_str(tx->id_text));
	put_session(out, tx->session);
	put_text(out, "direction", tx->outbound ? SLICE("outbound") : SLICE("inbound"));
	put_key(out, "from"); /* also when it is empty: the null reverse-path */
	pl_json_text(out, slice_head(tx->reverse_path, 1000));
	put_rcpts(out, tx);
	if (tx->message != NULL) {
		put_key(out, "size");
		buf_int(out, (int64_t)tx->message->bytes.len);
	}
	if (tx->verdict != NULL) {
		put_text(out, "verdict", slice_str(tx->verdict));
		if (tx->score != 0)
			buf_printf(out, ",\"score\":%.6g", tx->score);
		put_text(out, "check", slice_str(tx->check));
	}
	buf_puts(out, accepted ? ",\"accepted\":true" : ",\"accepted\":false");
	put_text(out, "answer", answer);
	put_events(out, &tx->session->found->story, &tx->story);
	buf_putc(out, '}');
}

void
pl_tell_tx(const struct pipeline_tx *tx, bool accepted, struct slice answer)
{
	char storage[TRACE_JSON_MAX];
	struct buf out = buf_over(storage, sizeof(storage));

	if (tx->session->trace == NULL || tx->session->dry)
		return;
	pl_tell_tx_json(tx, accepted, answer, &out);
	if (!out.overflow)
		trace_append(tx->session->trace, tx->id, tx->session->id, buf_slice(&out));
}

void
pl_tell_session(const struct pipeline_session *s)
{
	char storage[TRACE_JSON_MAX];
	struct buf out = buf_over(storage, sizeof(storage));

	if (s->trace == NULL || s->dry || !s->refused || s->found == NULL)
		return;
	put_begin(&out, s->started_ms);
	put_session(&out, s);
	put_events(&out, &s->found->story, NULL);
	buf_putc(&out, '}');
	if (!out.overflow)
		trace_append(s->trace, (struct id){ 0 }, s->id, buf_slice(&out));
}
