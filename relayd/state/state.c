/* relayd/state/state.c - requests for the store go to its one thread, and their answers come
 * back. */
#include "relayd/state/state.h"

#include "relayd/core/clock.h"
#include "relayd/core/log.h"
#include "relayd/state/state_store.h"

#include <stdlib.h>
#include <time.h>

#define SAY_EVERY_MS 60000 /* a store that fails is said so often */

/* A list of requests in the order they came. */
struct queue {
	struct state_request *first, **end;
	size_t n;
};

struct state {
	uv_async_t answered;
	uv_thread_t thread;
	uv_mutex_t lock; /* for the queues, said, failed and stopping */
	uv_cond_t wake;
	struct queue waiting, done;
	char said[STORE_SAID_BYTES];
	bool stopping;
	struct store *store; /* the thread's own */
	size_t pending;      /* the loop's own: asked and not answered */
	int64_t complained_ms;
};

static void
push(struct queue *q, struct state_request *req)
{
	req->next = NULL;
	*(q->n++ > 0 ? q->end : &q->first) = req;
	q->end = &req->next;
}

/* All of them, as a list. */
static struct state_request *
take_all(struct queue *q)
{
	struct state_request *list = q->n > 0 ? q->first : NULL;

	*q = (struct queue){ 0 };
	return list;
}

static int64_t
wall_us(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_REALTIME, &ts); /* cannot fail */
	return (int64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

/* ---- the thread ------------------------------------------------------------------------------ */

static void
work_on(struct state *st, struct state_request *list)
{
	char said[STORE_SAID_BYTES] = "";

	state_store_run(st->store, list, wall_us(), said);
	uv_mutex_lock(&st->lock);
	while (list != NULL) {
		struct state_request *next = list->next;

		push(&st->done, list);
		list = next;
	}
	if (said[0] != '\0')
		memcpy(st->said, said, sizeof(said));
	uv_mutex_unlock(&st->lock);
	(void)uv_async_send(&st->answered); /* fails only for a handle of another kind */
}

static void
thread_main(void *arg)
{
	struct state *st = arg;

	for (;;) {
		struct state_request *list;

		uv_mutex_lock(&st->lock);
		while (st->waiting.n == 0 && !st->stopping)
			uv_cond_wait(&st->wake, &st->lock);
		list = take_all(&st->waiting);
		uv_mutex_unlock(&st->lock);
		if (list == NULL)
			break; /* stopping, and nothing left */
		work_on(st, list);
	}
}

/* ---- the loop -------------------------------------------------------------------------------- */

static void
complain(struct state *st, const struct err *err)
{
	int64_t now = clock_mono_ms();

	if (st->complained_ms != 0 && now - st->complained_ms < SAY_EVERY_MS)
		return;
	st->complained_ms = now;
	log_event("limit", kv_str("what", "state"), kv_err("why", err));
}

static void
answer(struct state *st)
{
	struct state_request *list;
	char said[STORE_SAID_BYTES];

	uv_mutex_lock(&st->lock);
	list = take_all(&st->done);
	memcpy(said, st->said, sizeof(said));
	st->said[0] = '\0';
	uv_mutex_unlock(&st->lock);
	if (said[0] != '\0')
		log_event("limit", kv_str("what", "state"), kv_slice("why", slice_str(said)));
	while (list != NULL) {
		struct state_request *req = list;

		list = req->next;
		st->pending--;
		if (req->err.code != ERR_NONE)
			complain(st, &req->err);
		req->done(req);
	}
	if (st->pending == 0)
		uv_unref((uv_handle_t *)&st->answered);
}

static void
on_answered(uv_async_t *async)
{
	answer(container_of(async, struct state, answered));
}

static int
start_thread(struct state *st, uv_loop_t *loop, struct err *err)
{
	int rc = uv_async_init(loop, &st->answered, on_answered);

	if (rc < 0)
		return err_sys(err, -rc, "state: wake-up handle");
	uv_unref((uv_handle_t *)&st->answered);
	rc = uv_thread_create(&st->thread, thread_main, st);
	return rc < 0 ? err_sys(err, -rc, "state: thread") : 0;
}

static void
on_closed(uv_handle_t *handle)
{
	struct state *st = container_of(handle, struct state, answered);

	uv_mutex_destroy(&st->lock);
	uv_cond_destroy(&st->wake);
	free(st);
}

struct state *
state_open(uv_loop_t *loop, const char *dir, uint64_t map_bytes, struct err *err)
{
	struct state *st = calloc(1, sizeof(*st));

	if (st == NULL) {
		err_set(err, ERR_NOMEM, "out of memory for the state");
		return NULL;
	}
	st->store = state_store_open(dir, map_bytes, st->said, err);
	if (st->store == NULL) {
		free(st);
		return NULL;
	}
	if (st->said[0] != '\0')
		log_event("limit", kv_str("what", "state"), kv_slice("why", slice_str(st->said)));
	st->said[0] = '\0';
	/* Neither fails (glibc initialises them in place). */
	(void)uv_mutex_init(&st->lock);
	(void)uv_cond_init(&st->wake);
	if (start_thread(st, loop, err) == 0)
		return st;
	state_store_close(st->store);
	if (st->answered.loop != NULL)
		uv_close((uv_handle_t *)&st->answered, on_closed);
	else
		free(st);
	return NULL;
}

void
state_close(struct state *st)
{
	if (st == NULL)
		return;
	uv_mutex_lock(&st->lock);
	st->stopping = true;
	uv_cond_signal(&st->wake);
	uv_mutex_unlock(&st->lock);
	(void)uv_thread_join(&st->thread); /* it was created, and is joined once */
	answer(st);
	/* Who was answered may have given something back. */
	while (st->pending > 0) {
		work_on(st, take_all(&st->waiting));
		answer(st);
	}
	state_store_close(st->store);
	uv_close((uv_handle_t *)&st->answered, on_closed);
}

int
state_start(struct state *st, struct state_request *req, struct err *err)
{
	if (st->pending >= STATE_QUEUE_MAX)
		return err_set(
		    err, ERR_LIMIT, "over %d requests wait for the state", STATE_QUEUE_MAX);
	if (st->pending++ == 0)
		uv_ref((uv_handle_t *)&st->answered);
	uv_mutex_lock(&st->lock);
	push(&st->waiting, req);
	uv_cond_signal(&st->wake);
	uv_mutex_unlock(&st->lock);
	return 0;
}

/* ---- giving back ----------------------------------------------------------------------------- */

struct gift {
	struct state_request req;
	char key[];
};

static void
on_given_back(struct state_request *req)
{
	free(container_of(req, struct gift, req));
}

void
state_give_back(struct state *st, const struct state_request *taken)
{
	struct slice key = taken->key;
	struct gift *gift = calloc(1, sizeof(*gift) + key.len);

	if (gift == NULL)
		return; /* one too many is counted: no harm */
	memcpy(gift->key, key.p, key.len);
	gift->req = (struct state_request){ .op = STATE_GIVE_BACK,
		.key = slice_of(gift->key, key.len),
		.count = taken->count,
		.period_s = taken->period_s,
		.number = taken->number,
		.done = on_given_back };
	if (state_start(st, &gift->req, NULL) < 0)
		free(gift);
}
