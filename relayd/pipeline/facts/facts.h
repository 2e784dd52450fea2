/* relayd/pipeline/facts/facts.h - where the facts of filters come from, one for a process.
 *
 * A source answers a name of its kind, some time later, within its deadline and never with more at
 * work than its bound.  DNS answers are cached as long as they live, and one question is asked
 * once however many wait for it.  What is started is answered exactly once, from the loop.
 */
#ifndef RELAYD_PIPELINE_FACTS_FACTS_H
#define RELAYD_PIPELINE_FACTS_FACTS_H

#include "relayd/core/err.h"
#include "relayd/core/slice.h"

#include <relayd/filter.h>
#include <uv.h>

struct facts;
struct dns;   /* relayd/net/dns.h */
struct state; /* relayd/state/state.h */

/* Borrows all three; dns NULL: every question fails; state NULL: every counter fails. */
struct facts *facts_open(uv_loop_t *loop, struct dns *dns, struct state *state);
/* Its requests are over.  NULL is fine.  The memory goes when its handles have closed: run the
 * loop once more. */
void facts_close(struct facts *f);

uv_loop_t *facts_loop(const struct facts *f);
struct state *facts_state(const struct facts *f);

/* A question.  Owned by whoever asks. */
struct fact_query {
	enum fact_kind kind;
	struct slice name; /* borrowed until it is over */
	/* fact is borrowed for the call; never NULL */
	void (*done)(struct fact_query *q, const struct fact *fact);
	void *asked; /* private */
	struct fact_query *next;
};

/* True: *out is the answer already (cached), borrowed until the next call; done is not called. */
bool facts_ask(struct facts *f, struct fact_query *q, const struct fact **out);
/* The asker is gone: done is not called any more.  Harmless on one that is over. */
void facts_forget(struct facts *f, struct fact_query *q);

/* The part a source plays, for DNS and for canned answers in tests: begin() starts one question and
 * facts_answer() ends it, later or at once. */
struct fact_asked;
struct fact_source {
	void (*begin)(
	    void *source, struct fact_asked *asked, enum fact_kind kind, struct slice name);
	void (*close)(void *source);
};
/* Asks source from now on instead of the DNS that facts_open() was given. */
void facts_use_source(struct facts *f, const struct fact_source *ops, void *source);
/* Copies *fact. */
void facts_answer(struct facts *f, struct fact_asked *asked, const struct fact *fact);

#endif
