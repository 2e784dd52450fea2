/* relayd/pipeline/facts/facts.h - where the facts of filters come from, one for a process.
 *
 * A source answers a name of its kind, at once or some time later, within its deadline and never
 * with more at work than its bound.  What is asked is answered exactly once, from the loop, unless
 * it is forgotten before.
 */
#ifndef RELAYD_PIPELINE_FACTS_FACTS_H
#define RELAYD_PIPELINE_FACTS_FACTS_H

#include "relayd/core/config.h"
#include "relayd/core/err.h"
#include "relayd/core/slice.h"

#include <relayd/filter.h>
#include <uv.h>

#define FACTS_HEAVY_MAX 2 /* filters in the pool at once: half of libuv's threads */

struct facts;
struct dns;   /* relayd/net/dns.h */
struct state; /* relayd/state/state.h */
struct fact_query;

/* The part a source plays; a test brings its own. */
struct fact_source {
	/* True: *out is the answer already, borrowed until the loop's next round.  False: q->done
	 * will be called. */
	bool (*ask)(void *source, struct fact_query *q, const struct fact **out);
	/* q->done is not to be called any more, and q goes away. */
	void (*forget)(void *source, struct fact_query *q);
};

/* A question.  Owned by whoever asks. */
struct fact_query {
	enum fact_kind kind;
	struct slice name; /* borrowed until it is over */
	void *client;      /* whose session it is, as the role gave it (pipeline_client.owner) */
	/* fact is borrowed for the call; never NULL */
	void (*done)(struct fact_query *q, const struct fact *fact);
	bool busy;  /* asked and not answered */
	void *work; /* the source's own */
};

/* Borrows all three.  dns NULL: every question fails; state NULL: every counter fails. */
struct facts *facts_open(uv_loop_t *loop, struct dns *dns, struct state *state);
/* NULL is fine.  Every question was answered or forgotten; a filter that was left to itself in the
 * pool may still run, and the memory goes when it is done. */
void facts_close(struct facts *f);

/* How long the filters of a stage may take, and those of the message.  What is not known then has
 * failed.  By default as with limits { filter-time = 1m }, of which the message has
 * FACTS_MESSAGE_TIMES. */
#define FACTS_MESSAGE_TIMES 3
void facts_set_deadlines(struct facts *f, uint32_t stage_ms, uint32_t message_ms);
/* As limits { filter-time } says; for the stages that begin from here on. */
void facts_configure(struct facts *f, const struct config *cfg);
uint32_t facts_deadline_ms(const struct facts *f, enum filter_stage stage);

uv_loop_t *facts_loop(const struct facts *f);
struct state *facts_state(const struct facts *f);

/* As the source's functions of that name; forgetting is harmless on a question that is over. */
bool facts_ask(struct facts *f, struct fact_query *q, const struct fact **out);
void facts_forget(struct facts *f, struct fact_query *q);
/* Asks that source from now on instead of the DNS. */
void facts_use_source(struct facts *f, const struct fact_source *ops, void *source);

/* Asks that source about clients: FACT_EARLY.  Without one, and without a client, it is
 * FACT_SKIPPED. */
void facts_use_client_source(struct facts *f, const struct fact_source *ops, void *source);

/* Work for the pool, FACTS_HEAVY_MAX of it at once, the rest in line.  done runs on the loop.  When
 * some has to wait, or has waited in vain, while all that runs does so for longer than the filters
 * of a message may take, counter_pool_hangs() is told, until one comes back. */
struct facts_work {
	uv_work_t work;
	void (*run)(struct facts_work *w); /* in the pool: touches nothing but what w owns */
	void (*done)(struct facts_work *w);
	struct facts *facts;
	struct facts_work *next;
	_Atomic int64_t began_ms; /* to run, monotonic; 0: it has not */
};
void facts_work_start(struct facts *f, struct facts_work *w);
/* Still in line: it is taken out, and done never runs.  False: it runs, and done will. */
bool facts_work_cancel(struct facts_work *w);

#endif
