/* tests/fuzz/fuzz_smtp_client.c - a peer that says anything, to a client that sends what it has.
 *
 * The first byte picks the kind of session, the second how the peer's bytes are cut, the third the
 * transactions.  Whole and cut, the same must be said and told.
 */
#include "must.h"
#include "unit/smtp/client_model.h"

#define SENDS_MAX 20

static void
act(struct client_model *m, enum smtp_client_event event, uint8_t kinds, unsigned *sends)
{
	switch (event) {
	case SMTP_CLIENT_TLS:
		smtp_client_tls_done(m->c, &m->out);
		break;
	case SMTP_CLIENT_BODY:
		smtp_client_body_done(m->c, kinds % 2 == 0, &m->out);
		break;
	case SMTP_CLIENT_READY:
	case SMTP_CLIENT_DONE:
		while (*sends < SENDS_MAX &&
		       client_model_send(
			   m, &client_tx_kinds[(kinds + *sends) % ARRAY_LEN(client_tx_kinds)]))
			(*sends)++;
		if (*sends == SENDS_MAX)
			smtp_client_quit(m->c, &m->out);
		break;
	default:
		break;
	}
}

static void
pump(struct client_model *m, uint8_t kinds, unsigned *sends)
{
	struct slice in = buf_slice(&m->in);
	enum smtp_client_event event;

	while ((event = smtp_client_step(m->c, &in, &m->out)) != SMTP_CLIENT_MORE) {
		client_model_event(m, event);
		act(m, event, kinds, sends);
	}
	buf_consume(&m->in, m->in.len - in.len);
	MUST(m->in.len <= SMTP_CLIENT_LINE_MAX + 1); /* and its CR */
}

static void
run(struct client_model *m, const uint8_t *data, size_t size, size_t step)
{
	struct slice bytes = slice_of(data + 3, size - 3);
	unsigned sends = 0;

	client_model_init(m, data[0] % 2 == 1, (enum smtp_client_tls)(data[0] / 2 % 3));
	while (bytes.len > 0) {
		buf_put(&m->in, slice_head(bytes, step));
		bytes = slice_drop(bytes, step);
		pump(m, data[2], &sends);
		MUST(smtp_client_timeout_ms(m->c) <= 600000);
	}
}

static void
check_lines(struct client_model *m)
{
	char line[1200];

	while (client_model_line(m, line))
		MUST(strlen(line) < sizeof(line));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct client_model whole, cut;

	if (size < 3 || size > 100000)
		return 0;
	run(&whole, data, size, SIZE_MAX);
	run(&cut, data, size, data[1] % 16 + 1u);
	MUST(slice_eq(buf_slice(&whole.events), buf_slice(&cut.events)));
	MUST(slice_eq(buf_slice(&whole.out), buf_slice(&cut.out)));
	check_lines(&whole);
	client_model_fini(&whole);
	client_model_fini(&cut);
	return 0;
}
