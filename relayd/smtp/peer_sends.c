/* relayd/smtp/peer_sends.c - the messages that are queued on a connection, and what each is told in
 * the end. */
#include "relayd/smtp/client_tx.h"
#include "relayd/smtp/peer_internal.h"

void
peer_add_send(struct peer *p, struct peer_send *req)
{
	req->peer = p;
	req->next = NULL;
	req->untried = req->maybe = req->cancelled = req->body_out = false;
	req->ends_cr = req->not_crlf = false;
	req->body_bytes = 0;
	req->stuffer = (struct smtp_stuffer){ 0 };
	memset(&req->tx.state, 0, sizeof(req->tx.state));
	*(p->last != NULL ? &p->last->next : &p->first) = req;
	p->last = req;
	p->n_sends++;
}

struct peer_send *
peer_nth_send(struct peer *p, size_t n)
{
	struct peer_send *req = p->first;

	while (n-- > 0)
		req = req->next;
	return req;
}

static struct peer_send *
pop(struct peer *p)
{
	struct peer_send *req = p->first;

	if (req == NULL)
		return NULL;
	p->first = req->next;
	if (p->first == NULL)
		p->last = NULL;
	p->n_sends--;
	if (p->n_begun > 0)
		p->n_begun--;
	if (p->body == req)
		p->body = NULL;
	return req;
}

/* req may be gone when its callback returns; the texts of its outcomes go after that. */
static void
done(struct peer_send *req, const struct err *err)
{
	struct arena texts = req->tx.state.texts;

	req->peer = NULL;
	req->tx.state.texts = (struct arena){ 0 };
	req->done(req, err);
	arena_fini(&texts);
}

/* ---- those that went through --------------------------------------------------------------- */

/* A yes to what the peer cannot have is none.  A no may stand: it can come early. */
void
peer_forget_yes(struct peer_send *req)
{
	for (size_t i = 0; i < req->tx.n_rcpts; i++)
		if (req->tx.rcpts[i].outcome.code < 400)
			req->tx.rcpts[i].outcome = (struct smtp_outcome){ .text = SLICE("") };
}

static bool
is_settled(const struct peer_send *req)
{
	for (size_t i = 0; i < req->tx.n_rcpts; i++)
		if (req->tx.rcpts[i].outcome.code == 0)
			return false;
	return true;
}

void
peer_end_send(struct peer *p)
{
	struct peer_send *req = pop(p);

	p->count++;
	done(req, is_settled(req) ? NULL : &p->why);
}

/* ---- those that were dropped ---------------------------------------------------------------- */

void
peer_drop_send(struct peer *p, struct peer_send *req)
{
	struct peer_send **at = &p->first, *prev = NULL;

	while (*at != req) {
		prev = *at;
		at = &prev->next;
	}
	*at = req->next;
	if (p->last == req)
		p->last = prev;
	p->n_sends--;
	req->next = p->dropped;
	p->dropped = req;
}

void
peer_tell_dropped(struct peer *p)
{
	struct err cancelled = { .code = ERR_CANCELLED, .msg = "cancelled" };
	struct peer_send *req;

	while ((req = p->dropped) != NULL) {
		p->dropped = req->next;
		req->untried = true;
		done(req, &cancelled);
	}
}

/* ---- those that failed with the connection --------------------------------------------------- */

/* Nothing has been said about it by a peer that had worked before, or was busy with another. */
static bool
is_untried(const struct peer *p, const struct peer_send *req, bool is_first)
{
	if (!p->ready || p->why.code == ERR_TIMEOUT || (is_first && p->count == 0))
		return false;
	return smtp_tx_is_unheard(&req->tx);
}

void
peer_fail_sends(struct peer *p)
{
	static const struct err cancelled = { .code = ERR_CANCELLED, .msg = "cancelled" };
	struct peer_send *req;
	bool is_first = true;

	if (p->why.code == ERR_NONE)
		err_set(&p->why, ERR_CLOSED, "the peer closed the connection");
	for (; (req = pop(p)) != NULL; is_first = false) {
		req->maybe = req->body_out;
		req->untried = !req->maybe && is_untried(p, req, is_first);
		req->refusal = p->refusal;
		done(req, req->cancelled ? &cancelled : &p->why);
	}
}
