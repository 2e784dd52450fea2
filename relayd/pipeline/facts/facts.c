/* relayd/pipeline/facts/facts.c - hands questions to their source, and heavy filters to the
 * pool. */
#include "relayd/pipeline/facts/facts.h"

#include "relayd/core/clock.h"
#include "relayd/core/counters.h"
#include "relayd/pipeline/facts/dns.h"
#include "relayd/pipeline/facts/marks.h"

#include <stdlib.h>

#define STAGE_MS 60000u

struct facts {
	uv_loop_t *loop;
	struct state *state;
	const struct fact_source *ops, *client_ops;
	void *source, *client_source;
	uint32_t stage_ms, message_ms;
	bool closed;
	unsigned working; /* in the pool: */
	struct facts_work *in_pool[FACTS_HEAVY_MAX];
	struct facts_work *line, **line_end;
};

struct facts *
facts_open(uv_loop_t *loop, struct dns *dns, struct state *state)
{
	struct facts *f = calloc(1, sizeof(*f));

	if (f == NULL)
		return NULL;
	f->loop = loop;
	f->state = state;
	f->ops = &fact_source_dns;
	f->source = dns;
	f->line_end = &f->line;
	facts_set_deadlines(f, STAGE_MS, FACTS_MESSAGE_TIMES * STAGE_MS);
	return f;
}

void
facts_close(struct facts *f)
{
	if (f == NULL)
		return;
	f->closed = true;
	if (f->working == 0)
		free(f);
}

void
facts_set_deadlines(struct facts *f, uint32_t stage_ms, uint32_t message_ms)
{
	f->stage_ms = stage_ms;
	f->message_ms = message_ms;
}

void
facts_configure(struct facts *f, const struct config *cfg)
{
	uint32_t stage_ms = cfg->limits.filter_s * 1000;

	facts_set_deadlines(f, stage_ms, FACTS_MESSAGE_TIMES * stage_ms);
}

uint32_t
facts_deadline_ms(const struct facts *f, enum filter_stage stage)
{
	return stage == FILTER_MESSAGE ? f->message_ms : f->stage_ms;
}

uv_loop_t *
facts_loop(const struct facts *f)
{
	return f->loop;
}

struct state *
facts_state(const struct facts *f)
{
	return f->state;
}

void
facts_use_source(struct facts *f, const struct fact_source *ops, void *source)
{
	f->ops = ops;
	f->source = source;
}

void
facts_use_client_source(struct facts *f, const struct fact_source *ops, void *source)
{
	f->client_ops = ops;
	f->client_source = source;
}

/* NULL: nobody knows such things here. */
static const struct fact_source *
source_for(const struct facts *f, const struct fact_query *q, void **source)
{
	switch (q->kind) {
	case FACT_EARLY:
		*source = f->client_source;
		return q->client != NULL ? f->client_ops : NULL;
	case FACT_SEEN:
	case FACT_MARK:
		*source = f->state;
		return &fact_source_marks;
	default:
		*source = f->source;
		return f->ops;
	}
}

bool
facts_ask(struct facts *f, struct fact_query *q, const struct fact **out)
{
	static const struct fact skipped = { .size = sizeof(skipped), .state = FACT_SKIPPED };
	void *source;
	const struct fact_source *ops = source_for(f, q, &source);

	if (ops != NULL)
		return ops->ask(source, q, out);
	*out = &skipped;
	return true;
}

void
facts_forget(struct facts *f, struct fact_query *q)
{
	void *source;
	const struct fact_source *ops = source_for(f, q, &source);

	if (q->busy && ops != NULL)
		ops->forget(source, q);
}

/* ---- the pool -------------------------------------------------------------------------------- */

static void
in_pool(uv_work_t *work)
{
	struct facts_work *w = container_of(work, struct facts_work, work);

	atomic_store(&w->began_ms, clock_mono_ms());
	w->run(w);
}

static void
put_in_place(struct facts *f, const struct facts_work *old, struct facts_work *new)
{
	size_t i = 0;

	while (f->in_pool[i] != old)
		i++; /* there is one: working counts them */
	f->in_pool[i] = new;
}

/* What has only been handed to libuv, whose threads do other work too, is not to blame for the
 * time. */
static bool
is_late(struct facts_work *w, int64_t began_ms)
{
	int64_t began = w != NULL ? atomic_load(&w->began_ms) : 0;

	return began != 0 && began <= began_ms;
}

/* Something waits: is it in vain? */
static void
look_for_hangs(struct facts *f)
{
	int64_t began_ms = clock_mono_ms() - (int64_t)f->message_ms;
	bool all = true;

	for (size_t i = 0; i < FACTS_HEAVY_MAX; i++)
		all = all && is_late(f->in_pool[i], began_ms);
	if (all)
		counter_pool_hangs(true);
}

static void start_next(struct facts *f);

static void
after(uv_work_t *work, int status)
{
	struct facts_work *w = container_of(work, struct facts_work, work);
	struct facts *f = w->facts;

	(void)status; /* nobody cancels what libuv was given */
	f->working--;
	put_in_place(f, w, NULL);
	counter_pool_hangs(false);
	if (f->closed && f->working == 0)
		free(f);
	else
		start_next(f);
	w->done(w); /* may free w */
}

static void
start_next(struct facts *f)
{
	struct facts_work *w = f->line;

	if (w == NULL || f->closed || f->working >= FACTS_HEAVY_MAX)
		return;
	f->line = w->next;
	if (f->line == NULL)
		f->line_end = &f->line;
	f->working++;
	put_in_place(f, NULL, w);
	/* Fails only without a function to run. */
	(void)uv_queue_work(f->loop, &w->work, in_pool, after);
}

void
facts_work_start(struct facts *f, struct facts_work *w)
{
	w->facts = f;
	w->next = NULL;
	*f->line_end = w;
	f->line_end = &w->next;
	start_next(f);
	if (f->line != NULL)
		look_for_hangs(f);
}

bool
facts_work_cancel(struct facts_work *w)
{
	struct facts *f = w->facts;

	for (struct facts_work **at = &f->line; *at != NULL; at = &(*at)->next) {
		if (*at != w)
			continue;
		*at = w->next;
		if (w->next == NULL)
			f->line_end = at;
		look_for_hangs(f);
		return true;
	}
	return false;
}
