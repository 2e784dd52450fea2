/* relayd/auth/introspect.c - questions about tokens: who waits, who runs, what came of it. */
#include "relayd/auth/introspect.h"

#include "relayd/auth/introspect_internal.h"
#include "relayd/core/clock.h"

#include <openssl/crypto.h>
#include <stdlib.h>

/* A process has one loop that asks. */
static unsigned running, waiting;
static struct introspect_check *first, **last = &first;

static void
free_token(struct introspect_check *c)
{
	if (c->token != NULL)
		OPENSSL_cleanse(c->token, strlen(c->token));
	free(c->token);
	c->token = NULL;
}

static void
ask_in_pool(uv_work_t *work)
{
	struct introspect_check *c = container_of(work, struct introspect_check, work);
	struct buf answer = buf_heap(INTROSPECT_ANSWER_MAX);
	struct buf name = buf_over(c->name, sizeof(c->name) - 1);

	if (introspect_ask(c->token, &answer))
		c->verdict = oauth_read(buf_slice(&answer), clock_wall_ms() / 1000, &name);
	c->name[name.len] = '\0';
	if (name.overflow) /* a name that no user can have */
		c->verdict = OAUTH_INACTIVE;
	buf_fini(&answer);
}

static void start_next(void);

static void
on_asked(uv_work_t *work, int status)
{
	struct introspect_check *c = container_of(work, struct introspect_check, work);

	free_token(c);
	if (status != 0 || c->cancelled)
		c->verdict = OAUTH_UNKNOWN;
	running--;
	c->done(c); /* may free c */
	start_next();
}

static void
start_next(void)
{
	while (running < INTROSPECT_POOL_MAX && first != NULL) {
		struct introspect_check *c = first;

		first = c->next;
		if (first == NULL)
			last = &first;
		waiting--;
		running++;
		/* Fails only without a callback. */
		(void)uv_queue_work(c->loop, &c->work, ask_in_pool, on_asked);
		if (c->cancelled)
			(void)uv_cancel((uv_req_t *)&c->work); /* else it is asked in vain */
	}
}

int
introspect_check_start(
    uv_loop_t *loop, struct introspect_check *c, struct slice token, struct err *err)
{
	if (introspect_command() == NULL)
		return err_set(err, ERR_NOT_FOUND, "no introspection agent");
	if (waiting >= INTROSPECT_QUEUE_MAX)
		return err_set(err, ERR_BUSY, "too many tokens at once");
	c->token = strndup(token.p, token.len);
	if (c->token == NULL)
		return err_set(err, ERR_NOMEM, "no memory for a token");
	c->loop = loop;
	c->verdict = OAUTH_UNKNOWN;
	c->name[0] = '\0';
	c->cancelled = false;
	c->next = NULL;
	*last = c;
	last = &c->next;
	waiting++;
	start_next();
	return 0;
}

void
introspect_check_cancel(struct introspect_check *c)
{
	c->cancelled = true;
}
