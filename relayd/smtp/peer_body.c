/* relayd/smtp/peer_body.c - the bytes of a message on their way from its owner to the stream. */
#include "relayd/smtp/peer_internal.h"

#define COPY_BYTES 512 /* shorter pieces of a stuffed body are cheaper copied than named */

static void
note_end(struct peer_send *req, struct slice run)
{
	if (run.len == 0)
		return;
	req->not_crlf = run.p[run.len - 1] != '\n' ||
			!(run.len > 1 ? run.p[run.len - 2] == '\r' : req->ends_cr);
	req->ends_cr = run.p[run.len - 1] == '\r';
}

static void
write_stuffed(struct peer *p, struct peer_send *req, struct slice run)
{
	struct slice piece;

	while (smtp_stuff_next(&req->stuffer, &run, &piece)) {
		if (piece.len < COPY_BYTES)
			stream_write(p->stream, piece);
		else
			stream_write_ref(p->stream, piece);
	}
}

static void
write_run(struct peer *p, struct peer_send *req, struct slice run)
{
	note_end(req, run);
	req->body_bytes += run.len;
	p->refs_out = true;
	p->marked = false;
	if (!smtp_client_chunked(p->client) && (req->tx.flags & SMTP_TX_DOTS) != 0)
		write_stuffed(p, req, run);
	else
		stream_write_ref(p->stream, run);
}

/* What BDAT said is what the peer takes for data: a byte more would be a command to it. */
static bool
keeps_its_size(
    const struct peer *p, const struct peer_send *req, const struct slice *runs, size_t n, bool end)
{
	uint64_t left = req->tx.size - req->body_bytes;

	if (!smtp_client_chunked(p->client))
		return true;
	for (size_t i = 0; i < n; i++) {
		if (runs[i].len > left)
			return false;
		left -= runs[i].len;
	}
	return !end || left == 0;
}

/* Runs of a body are still to be sent: they may go only when the connection is closed. */
bool
peer_runs_wait(const struct peer *p)
{
	return p->refs_out && !(p->marked && stream_passed(p->stream));
}

/* Writes the next runs; on_drain() comes back for more. */
void
peer_write_body(struct peer *p)
{
	struct peer_send *req = p->body;
	struct slice runs[PEER_RUNS];
	size_t n = PEER_RUNS;
	enum peer_body status = req->body(req, runs, &n);

	if (status == PEER_BODY_FAILED) {
		peer_drop(p, ERR_SYS, "the message could not be read");
		return;
	}
	p->body_waits = status == PEER_BODY_WAIT;
	if (!keeps_its_size(p, req, runs, n, status == PEER_BODY_END)) {
		peer_drop(p, ERR_SYS, "the message has another size than it said");
		return;
	}
	for (size_t i = 0; i < n; i++)
		write_run(p, req, runs[i]);
	if (status == PEER_BODY_END) {
		p->body = NULL;
		req->body_out = true;
		smtp_client_body_done(p->client, !req->not_crlf, stream_out(p->stream));
		stream_mark(p->stream);
		p->marked = true;
	} else if (status == PEER_BODY_MORE) {
		stream_write(p->stream, SLICE("")); /* on_drain() comes even for runs of nothing */
	}
}
