/* relayd/smtp/server.c - glue: one net stream and one session. */
#include "relayd/smtp/server.h"

#include "relayd/core/clock.h"

#include <stdlib.h>
#include <unistd.h>

struct smtp_server {
	const struct smtp_server_ops *ops;
	void *user;
	struct stream *stream;
	struct smtp_session *session;
	struct tls_server *tls;
	const struct smtp_turn *turn; /* of the call into the session that is running */
	bool implicit;
	bool shaking_hands;
	bool eof;   /* the peer will send no more */
	bool ended; /* the stream was told to end */
	bool held;  /* the role takes no more data for now */
};

static struct smtp_turn
turn_of(struct smtp_server *sv)
{
	return (struct smtp_turn){ .now_ms = clock_mono_ms(), .out = stream_out(sv->stream) };
}

static void
end(struct smtp_server *sv)
{
	if (!sv->ended)
		stream_end(sv->stream);
	sv->ended = true;
}

static void
begin_tls(struct smtp_server *sv)
{
	struct err err;

	if (sv->shaking_hands)
		return;
	sv->shaking_hands = true;
	if (stream_tls_accept(sv->stream, sv->tls, &err) < 0) {
		end(sv);
		return;
	}
	stream_deadline(sv->stream, clock_mono_ms() + SMTP_SERVER_TLS_MS);
}

/* After every call into the session: what it wants done. */
static void
follow(struct smtp_server *sv)
{
	if (sv->ended || sv->shaking_hands)
		return;
	stream_deadline(sv->stream, smtp_session_deadline(sv->session));
	switch (smtp_session_action(sv->session)) {
	case SMTP_ACTION_TLS:
		begin_tls(sv);
		return;
	case SMTP_ACTION_CLOSE:
		end(sv);
		return;
	case SMTP_ACTION_NONE:
		break;
	}
	/* What comes behind an open question, or behind replies that nobody fetches, waits. */
	if (sv->held || smtp_session_is_asking(sv->session) ||
	    stream_pending(sv->stream) >= SMTP_OUT_MAX)
		stream_pause(sv->stream);
	else
		stream_resume(sv->stream);
	/* The peer sent all it had and left the rest to us: nothing more can come of it. */
	if (sv->eof && !smtp_session_is_asking(sv->session) &&
	    stream_pending(sv->stream) < SMTP_OUT_MAX) {
		smtp_session_close(sv->session);
		end(sv);
	}
}

static size_t
on_read(struct stream *stream, void *owner, struct slice bytes)
{
	struct smtp_server *sv = owner;
	struct smtp_turn turn;
	size_t n;

	(void)stream;
	if (sv->ended)
		return bytes.len;
	turn = turn_of(sv);
	sv->turn = &turn;
	n = smtp_session_input(sv->session, &turn, bytes);
	sv->turn = NULL;
	follow(sv);
	return n;
}

static void
on_eof(struct stream *stream, void *owner)
{
	struct smtp_server *sv = owner;

	(void)stream;
	sv->eof = true;
	if (sv->shaking_hands)
		end(sv);
	else
		follow(sv);
}

static void
on_drain(struct stream *stream, void *owner)
{
	(void)stream;
	follow(owner);
}

static void
on_tls(struct stream *stream, void *owner)
{
	struct smtp_server *sv = owner;
	struct tls_info info = { 0 };
	struct smtp_turn turn = turn_of(sv);

	sv->shaking_hands = false;
	if (stream_tls_info(stream, &info) && sv->ops->on_tls != NULL)
		sv->ops->on_tls(sv->user, &info);
	sv->turn = &turn;
	if (sv->implicit)
		smtp_session_start(sv->session, &turn, true);
	else
		smtp_session_tls(sv->session, &turn);
	sv->implicit = false;
	sv->turn = NULL;
	follow(sv);
}

static void
on_deadline(struct stream *stream, void *owner)
{
	struct smtp_server *sv = owner;
	struct smtp_turn turn;

	if (sv->shaking_hands) {
		stream_close(stream);
		return;
	}
	turn = turn_of(sv);
	smtp_session_tick(sv->session, &turn);
	follow(sv);
}

static void
on_close(struct stream *stream, void *owner, const struct err *why)
{
	struct smtp_server *sv = owner;
	struct err cut;

	(void)stream; /* gone when this returns */
	sv->ended = true;
	smtp_session_close(sv->session);
	if (sv->shaking_hands && why->code != ERR_TLS) {
		(void)err_set(&cut, ERR_TLS, "the handshake was not finished");
		why = &cut;
	}
	sv->ops->on_closed(sv->user, why);
	smtp_session_free(sv->session);
	tls_server_unref(sv->tls);
	free(sv);
}

static const struct stream_ops stream_callbacks = {
	.on_read = on_read,
	.on_eof = on_eof,
	.on_drain = on_drain,
	.on_tls = on_tls,
	.on_deadline = on_deadline,
	.on_close = on_close,
};

struct smtp_server *
smtp_server_open(const struct smtp_server_setup *setup, struct err *err)
{
	struct smtp_server *sv = calloc(1, sizeof(*sv));

	if (sv != NULL)
		sv->session =
		    smtp_session_new(&setup->ops->session, setup->user, setup->service, setup->id);
	if (sv == NULL || sv->session == NULL) {
		(void)close(setup->fd); /* nothing was said on it */
		free(sv);
		err_set(err, ERR_NOMEM, "no memory for a session");
		return NULL;
	}
	sv->ops = setup->ops;
	sv->user = setup->user;
	sv->implicit = setup->implicit;
	sv->stream = stream_open(setup->loop, setup->fd, &stream_callbacks, sv, err);
	if (sv->stream == NULL) {
		smtp_session_free(sv->session);
		free(sv);
		return NULL;
	}
	sv->tls = setup->tls != NULL ? tls_server_ref(setup->tls) : NULL;
	return sv;
}

void
smtp_server_start(struct smtp_server *sv)
{
	struct smtp_turn turn = turn_of(sv);

	if (sv->implicit) {
		begin_tls(sv);
		return;
	}
	sv->turn = &turn;
	smtp_session_start(sv->session, &turn, false);
	sv->turn = NULL;
	follow(sv);
}

void
smtp_server_certify(struct smtp_server *sv, struct tls_server *tls)
{
	struct tls_server *old = sv->tls;

	sv->tls = tls != NULL ? tls_server_ref(tls) : NULL;
	tls_server_unref(old);
}

void
smtp_server_hold(struct smtp_server *sv, bool hold)
{
	sv->held = hold;
	if (sv->turn == NULL) /* else it is seen to after the call */
		follow(sv);
}

void
smtp_server_answer(struct smtp_server *sv, const struct smtp_answer *answer)
{
	struct smtp_turn turn;

	if (!smtp_session_is_asking(sv->session))
		return;
	if (sv->turn != NULL) { /* from inside the question */
		smtp_session_answer(sv->session, sv->turn, answer);
		return;
	}
	turn = turn_of(sv);
	sv->turn = &turn;
	smtp_session_answer(sv->session, &turn, answer);
	sv->turn = NULL;
	follow(sv);
}

void
smtp_server_answer_each(struct smtp_server *sv, const struct smtp_answer *answers, size_t n,
    const struct smtp_answer *all)
{
	struct smtp_turn turn;

	if (!smtp_session_is_asking(sv->session))
		return;
	if (sv->turn != NULL) {
		smtp_session_answer_each(sv->session, sv->turn, answers, n, all);
		return;
	}
	turn = turn_of(sv);
	sv->turn = &turn;
	smtp_session_answer_each(sv->session, &turn, answers, n, all);
	sv->turn = NULL;
	follow(sv);
}

void
smtp_server_shutdown(struct smtp_server *sv, enum smtp_end why)
{
	struct smtp_turn turn;

	if (sv->ended)
		return;
	if (sv->shaking_hands) {
		smtp_server_close(sv);
		return;
	}
	if (sv->turn != NULL) {
		smtp_session_shutdown(sv->session, sv->turn, why);
		return;
	}
	turn = turn_of(sv);
	smtp_session_shutdown(sv->session, &turn, why);
	follow(sv);
}

void
smtp_server_close(struct smtp_server *sv)
{
	sv->ended = true;
	stream_close(sv->stream);
}

struct smtp_session *
smtp_server_session(struct smtp_server *sv)
{
	return sv->session;
}

struct stream *
smtp_server_stream(struct smtp_server *sv)
{
	return sv->stream;
}
