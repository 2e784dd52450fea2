/* relayd/smtp/peer_connect.c - from the addresses of a next hop to one stream: the race, and a
 * second session without TLS. */
#include "relayd/smtp/peer_internal.h"

#include <stdio.h>

static void
note_missed(struct peer *p, unsigned missed)
{
	for (size_t i = 0; i <= p->target.n_rivals; i++)
		if ((missed & 1u << i) != 0)
			p->missed[p->n_missed++] =
			    i == 0 ? p->target.addr : p->target.rivals[i - 1].to;
}

static void
on_race_won(void *owner, struct stream *s, size_t which, unsigned missed)
{
	struct peer *p = owner;

	p->race = NULL;
	note_missed(p, missed);
	if (which > 0) {
		p->target.addr = p->target.rivals[which - 1].to;
		p->target.local = p->target.rivals[which - 1].local;
		sockaddr_text((const struct sockaddr *)&p->target.addr, p->name);
	}
	p->target.n_rivals = 0; /* whatever comes, it is this one now */
	p->stream = s;
	stream_own(s, &peer_stream_ops, p);
	peer_on_connect(s, p);
}

static void
on_race_lost(void *owner, const struct err *why, unsigned missed)
{
	struct peer *p = owner;

	p->race = NULL;
	note_missed(p, missed);
	if (p->why.code == ERR_NONE)
		p->why = *why;
	peer_gone(p);
}

static int
race(struct peer *p, struct err *err)
{
	static const struct race_ops ops = { .on_connect = on_race_won, .on_fail = on_race_lost };
	struct race_way ways[RACE_MAX] = { { .to = p->target.addr, .local = p->target.local } };

	memcpy(&ways[1], p->target.rivals, p->target.n_rivals * sizeof(ways[0]));
	p->stream = NULL;
	p->race =
	    race_start(p->loop, ways, p->target.n_rivals + 1, p->target.connect_ms, &ops, p, err);
	return p->race != NULL ? 0 : -1;
}

int
peer_connect(struct peer *p, struct err *err)
{
	struct smtp_client_options options = {
		.lmtp = p->target.lmtp,
		.hostname = p->target.hostname,
		.tls = p->no_tls ? SMTP_CLIENT_TLS_OFF : p->target.tls,
		.login = p->target.login,
		.tls_is_on = p->target.implicit_tls,
		.no_bdat = p->target.no_bdat,
	};

	smtp_client_free(p->client);
	p->client = smtp_client_new(&options, err);
	if (p->client == NULL)
		return -1;
	p->connected = p->shaking = p->closing = false;
	if (p->target.n_rivals > 0)
		return race(p, err);
	p->stream = stream_connect(p->loop, (struct sockaddr *)&p->target.addr,
	    (struct sockaddr *)&p->target.local, &peer_stream_ops, p, err);
	if (p->stream == NULL)
		return -1;
	peer_wait(p, p->target.connect_ms);
	return 0;
}

static void
note_tls_failure(struct peer *p, const struct err *why)
{
	char text[sizeof(why->msg) + 16];

	(void)snprintf(text, sizeof(text), "(TLS failed: %s)",
	    p->why.code != ERR_NONE ? p->why.msg : why->msg); /* it fits */
	dialogue_note(&p->dialogue, 'C', slice_str(text), false);
}

/* TLS that fails is no reason not to deliver where it was only tried (RFC 7435 section 4.2). */
bool
peer_connect_again(struct peer *p, const struct err *why)
{
	if (p->shaking)
		note_tls_failure(p, why);
	if (!p->shaking || p->target.tls != SMTP_CLIENT_TLS_TRY || p->no_tls ||
	    p->why.code == ERR_CANCELLED)
		return false;
	p->no_tls = true;
	p->tls_failure = p->why.code != ERR_NONE ? p->why : *why;
	p->why = (struct err){ 0 };
	return peer_connect(p, &p->why) == 0;
}
