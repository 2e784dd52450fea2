/* tests/unit/smtp/client_model.h - an owner of a client session that writes down what happens.
 *
 * Unit test and fuzz target share it.  Whatever the peer says: each transaction ends once, a
 * finished one leaves no recipient without an outcome, and what goes out is whole lines without
 * a stray CR or LF. What breaks that calls abort().
 */
#ifndef TESTS_UNIT_SMTP_CLIENT_MODEL_H
#define TESTS_UNIT_SMTP_CLIENT_MODEL_H

#include "must.h"
#include "relayd/smtp/client.h"

#include <stdio.h>
#include <stdlib.h>

static const struct client_tx_kind {
	const char *name;
	const char *reverse_path, *rcpts[4], *params, *rcpt_params, *xkey;
	uint64_t size;
	uint32_t flags;
} client_tx_kinds[] = {
	{ "one", "a@x.test", { "b@y.test" }, "", "", "", 0, 0 },
	{ "two", "a@x.test", { "b@y.test", "c@y.test" }, "", "", "", 0, 0 },
	{ "null", "", { "b@y.test" }, "", "", "", 1000, 0 },
	{ "dsn", "a@x.test", { "b@y.test" }, "RET=HDRS ENVID=q", "NOTIFY=NEVER", "", 0, 0 },
	{ "8bit", "a@x.test", { "b@y.test" }, "", "", "", 0, SMTP_TX_8BIT },
	{ "utf8", "a@x.test", { "b@y.test" }, "", "", "", 0, SMTP_TX_UTF8 },
	{ "eai", "a@x.test", { "\xc3\xa9@y.test", "b@y.test" }, "", "", "", 0, 0 },
	{ "x", "a@x.test", { "b@y.test" }, "", "", "item 7+b@y.test", 0, 0 },
	{ "binary", "a@x.test", { "b@y.test" }, "", "", "", 7, SMTP_TX_BINARY },
	{ "dots", "a@x.test", { "b@y.test", "c@y.test" }, "", "", "", 7, SMTP_TX_DOTS },
	{ "sized", "a@x.test", { "b@y.test" }, "", "", "", 7, 0 },
	{ "tls-all-the-way", "a@x.test", { "b@y.test" }, "", "", "", 0, SMTP_TX_REQUIRETLS },
	{ "three", "a@x.test", { "b@y.test", "c@y.test", "d@y.test" }, "", "", "", 0, 0 },
	{ "probe", "", { "b@y.test" }, "", "", "", 0, SMTP_TX_PROBE },
	{ "evil", "a@x.test", { "b@y.test\r\nDATA", "c@y.test", "<d@y.test>", "\"e f\"@y.test" },
	    "", "", "", 0, 0 },
	{ "evil-from", "a@x.test> RET=HDRS\r\nQUIT", { "b@y.test" }, "", "", "", 0, 0 },
	{ "evil-param", "a@x.test", { "b@y.test" }, "RET=HDRS\r\nQUIT", "", "", 0, 0 },
};

struct client_model {
	struct smtp_client *c;
	struct buf out, events, in;
	struct smtp_tx tx[SMTP_CLIENT_AHEAD];
	struct smtp_tx_rcpt rcpts[SMTP_CLIENT_AHEAD][4];
	bool busy[SMTP_CLIENT_AHEAD];
	bool closed, tls;
};

static inline void
client_model_init(struct client_model *m, bool lmtp, enum smtp_client_tls tls)
{
	struct smtp_client_options options = { .lmtp = lmtp, .hostname = "me.test", .tls = tls };

	*m = (struct client_model){
		.out = buf_heap(1u << 20), .events = buf_heap(1u << 20), .in = buf_heap(1u << 20)
	};
	m->c = smtp_client_new(&options, NULL);
	MUST(m->c != NULL);
}

static inline void
client_model_fini(struct client_model *m)
{
	for (int i = 0; i < SMTP_CLIENT_AHEAD; i++)
		smtp_tx_fini(&m->tx[i]);
	smtp_client_free(m->c);
	buf_fini(&m->out);
	buf_fini(&m->events);
	buf_fini(&m->in);
}

static inline void
client_model_done(struct client_model *m)
{
	struct smtp_tx *tx = smtp_client_finished(m->c);
	size_t i = (size_t)(tx - m->tx);

	MUST(i < SMTP_CLIENT_AHEAD && m->busy[i]);
	m->busy[i] = false;
	buf_puts(&m->events, "done");
	for (size_t k = 0; k < tx->n_rcpts; k++) {
		const struct smtp_outcome *o = &tx->rcpts[k].outcome;

		MUST(o->code >= 200 && o->code < 600 && o->command != NULL);
		MUST(o->text.len <= SMTP_CLIENT_TEXT_MAX);
		for (size_t at = 0; at < o->text.len; at++)
			MUST(o->text.p[at] >= ' ' && o->text.p[at] <= '~');
		MUST(!o->left_over || (o->local && o->code == 452));
		buf_printf(&m->events, " [%u %s%s%.*s @%s%s%s]", o->code, o->enhanced,
		    o->enhanced[0] != '\0' ? " " : "", SLICE_FMT(o->text), o->command,
		    o->local ? " local" : "", o->left_over ? " left" : "");
	}
	buf_putc(&m->events, '\n');
	smtp_tx_fini(tx);
}

static inline void
client_model_event(struct client_model *m, enum smtp_client_event event)
{
	struct smtp_outcome reply;
	const struct err *err;

	switch (event) {
	case SMTP_CLIENT_READY:
		buf_puts(&m->events, "ready\n");
		break;
	case SMTP_CLIENT_TLS:
		MUST(!m->tls);
		buf_puts(&m->events, "tls\n");
		break;
	case SMTP_CLIENT_BODY:
		MUST(smtp_client_current(m->c) != NULL);
		buf_puts(&m->events, "body\n");
		break;
	case SMTP_CLIENT_DONE:
		client_model_done(m);
		break;
	case SMTP_CLIENT_CLOSE:
		MUST(!m->closed);
		m->closed = true;
		err = smtp_client_error(m->c, &reply);
		buf_printf(&m->events, "close %s %u\n",
		    err->code == ERR_NONE ? "ok" : err_code_name(err->code), reply.code);
		break;
	case SMTP_CLIENT_MORE:
		break;
	}
}

static inline void
client_model_pump(struct client_model *m)
{
	struct slice in = buf_slice(&m->in);
	enum smtp_client_event event;

	while ((event = smtp_client_step(m->c, &in, &m->out)) != SMTP_CLIENT_MORE)
		client_model_event(m, event);
	buf_consume(&m->in, m->in.len - in.len);
	MUST(m->in.len <= SMTP_CLIENT_LINE_MAX + 1); /* and its CR */
}

/* The peer says bytes, at most step at a time. */
static inline void
client_model_feed(struct client_model *m, struct slice bytes, size_t step)
{
	while (bytes.len > 0) {
		buf_put(&m->in, slice_head(bytes, step));
		bytes = slice_drop(bytes, step);
		client_model_pump(m);
	}
}

/* False when no more are taken now.  The next pump tells how it went. */
static inline bool
client_model_send(struct client_model *m, const struct client_tx_kind *kind)
{
	size_t i = m->busy[0] ? 1 : 0, n = 0;
	struct smtp_tx *tx = &m->tx[i];

	if (m->busy[i] || !smtp_client_can_send(m->c))
		return false;
	*tx = (struct smtp_tx){ .reverse_path = slice_str(kind->reverse_path),
		.params = slice_str(kind->params),
		.xid = SLICE("id26"),
		.xkey = slice_str(kind->xkey),
		.size = kind->size,
		.flags = kind->flags,
		.rcpts = m->rcpts[i] };
	for (; n < 4 && kind->rcpts[n] != NULL; n++)
		m->rcpts[i][n] = (struct smtp_tx_rcpt){ .forward_path = slice_str(kind->rcpts[n]),
			.params = slice_str(kind->rcpt_params) };
	tx->n_rcpts = n;
	m->busy[i] = true;
	smtp_client_send(m->c, tx, &m->out);
	return true;
}

/* Takes the next line of what the client said; false: none. */
static inline bool
client_model_line(struct client_model *m, char line[static 1200])
{
	size_t n = 0;

	if (m->out.len == 0)
		return false;
	while (n < m->out.len && m->out.p[n] != '\n')
		n++;
	MUST(n < m->out.len && n > 0 && n < 1200 && m->out.p[n - 1] == '\r');
	memcpy(line, m->out.p, n - 1);
	line[n - 1] = '\0';
	MUST(strchr(line, '\r') == NULL);
	buf_consume(&m->out, n + 1);
	return true;
}

#endif
