/* relayd/spool/round.c - one call soon after the events of a loop round, however often it was asked
 * for. */
#include "relayd/spool/round.h"

#include <stdlib.h>

struct round {
	uv_check_t check; /* runs right after the events */
	uv_idle_t idle;   /* keeps the loop from sleeping when asked outside of them */
	void (*cb)(void *data);
	void *data;
	bool armed, looked; /* once more, after it was armed */
	int open; /* handles */
};

static void
on_idle(uv_idle_t *idle)
{
	(void)idle; /* being active is all it does */
}

static void
on_check(uv_check_t *check)
{
	struct round *r = check->data;

	r->looked = !r->looked;
	if (r->looked)
		return; /* what has come in meanwhile goes along */
	r->armed = false;
	(void)uv_check_stop(check);   /* cannot fail */
	(void)uv_idle_stop(&r->idle); /* cannot fail */
	r->cb(r->data);
}

struct round *
round_open(uv_loop_t *loop, void (*cb)(void *data), void *data)
{
	struct round *r = calloc(1, sizeof(*r));

	if (r == NULL)
		return NULL;
	r->cb = cb;
	r->data = data;
	r->open = 2;
	(void)uv_check_init(loop, &r->check); /* cannot fail */
	(void)uv_idle_init(loop, &r->idle);   /* cannot fail */
	r->check.data = r;
	r->idle.data = r;
	return r;
}

void
round_arm(struct round *r)
{
	if (r->armed)
		return;
	r->armed = true;
	(void)uv_check_start(&r->check, on_check); /* cannot fail: not active */
	(void)uv_idle_start(&r->idle, on_idle);    /* cannot fail: not active */
}

static void
on_closed(uv_handle_t *handle)
{
	struct round *r = handle->data;

	if (--r->open == 0)
		free(r);
}

void
round_close(struct round *r)
{
	if (r == NULL)
		return;
	uv_close((uv_handle_t *)&r->check, on_closed);
	uv_close((uv_handle_t *)&r->idle, on_closed);
}
