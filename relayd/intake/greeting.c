/* relayd/intake/greeting.c - whether a client waits until it is greeted. */
#include "relayd/intake/greeting.h"

#include "relayd/core/clock.h"
#include "relayd/intake/intake.h"

#include <stdlib.h>

/* A client that waits.  Its memory goes with its timer. */
struct waiting {
	uv_timer_t timer;
	struct fact_query *q;
	int64_t until_ms;
};

static const struct fact still = { .size = sizeof(still), .state = FACT_NONE };
static const struct fact skipped = { .size = sizeof(skipped), .state = FACT_SKIPPED };
static const struct fact failed = { .size = sizeof(failed), .state = FACT_FAILED };

/* What the client has said until now; borrowed until the next look.  NULL: nothing. */
static const struct fact *
look(struct session *s)
{
	static char said[GREETING_SAID_BYTES];
	static struct fact_value value;
	static struct fact spoke;
	size_t n = stream_peek(smtp_server_stream(s->server), said, sizeof(said));

	if (n == 0)
		return NULL;
	s->early = EARLY_SPOKE;
	value = (struct fact_value){ .bytes = slice_of(said, n) };
	spoke = (struct fact){ .size = sizeof(spoke), .state = FACT_OK, .n = 1, .values = &value };
	return &spoke;
}

static void
on_timer_closed(uv_handle_t *handle)
{
	free(container_of(handle, struct waiting, timer));
}

static void
end(struct waiting *w)
{
	w->q->busy = false;
	w->q->work = NULL;
	w->q = NULL;
	uv_close((uv_handle_t *)&w->timer, on_timer_closed);
}

static void
on_look(uv_timer_t *timer)
{
	struct waiting *w = container_of(timer, struct waiting, timer);
	struct fact_query *q = w->q;
	struct session *s = q->client;
	const struct fact *found = look(s);

	if (found == NULL && clock_mono_ms() < w->until_ms)
		return;
	if (found == NULL)
		s->early = EARLY_STILL;
	end(w);
	q->done(q, found != NULL ? found : &still);
}

static const struct fact *
remembered(const struct session *s)
{
	static const struct fact spoke = { .size = sizeof(spoke), .state = FACT_OK };

	return s->early == EARLY_SPOKE ? &spoke : s->early == EARLY_STILL ? &still : &skipped;
}

static bool
start(uv_loop_t *loop, struct fact_query *q, uint32_t seconds)
{
	struct waiting *w = calloc(1, sizeof(*w));

	if (w == NULL || uv_timer_init(loop, &w->timer) < 0) {
		free(w);
		return false;
	}
	w->q = q;
	w->until_ms = clock_mono_ms() + (int64_t)seconds * 1000;
	(void)uv_timer_start(
	    &w->timer, on_look, GREETING_LOOK_MS, GREETING_LOOK_MS); /* an open timer */
	q->work = w;
	q->busy = true;
	return true;
}

/* Seconds, at most GREETING_MAX_S. */
static uint32_t
read_name(struct slice name)
{
	uint32_t n = 0;

	for (size_t i = 0; i < name.len && name.p[i] >= '0' && name.p[i] <= '9'; i++) {
		n = n * 10 + (uint32_t)(name.p[i] - '0');
		if (n > GREETING_MAX_S)
			return GREETING_MAX_S;
	}
	return n;
}

static bool
ask(void *source, struct fact_query *q, const struct fact **out)
{
	struct session *s = q->client;
	uint32_t seconds = read_name(q->name);
	bool implicit = s->gen->listeners[s->listener].implicit;

	*out = s->greeted || s->server == NULL || implicit ? remembered(s) : look(s);
	if (*out != NULL)
		return true;
	if (seconds > 0 && start(source, q, seconds))
		return false;
	if (seconds == 0)
		s->early = EARLY_STILL;
	*out = seconds == 0 ? &still : &failed;
	return true;
}

static void
forget(void *source, struct fact_query *q)
{
	(void)source; /* the timer knows its loop */
	end(q->work);
}

const struct fact_source fact_source_greeting = { .ask = ask, .forget = forget };
