/* tests/unit/pipeline/world.h - a pipeline with scripted filters, canned facts and a state of its
 * own.
 *
 * Scripted filters are sections of the types below, one for each stage; all of them know the same
 * options and do what these say, in this order:
 *
 *	asks = names		want their A records at once; then = names: once those are known
 *	limit = key/count/s	take a counter; key may end in "+accepted"
 *	fail = yes		end in FILTER_ERROR
 *	only = address		else: only for this forward-path (at RCPT)
 *	finding = name=score	any number
 *	auth = method=result	and properties = lines
 *	verdict = accept ...	text = ..., code = ...
 *	insert = bytes		a shaper: at 0;  remove = at/bytes
 *	sleep = ms		before anything else; for the pool
 *	spin = yes		wait for nothing
 */
#ifndef TESTS_UNIT_PIPELINE_WORLD_H
#define TESTS_UNIT_PIPELINE_WORLD_H

#include "relayd/core/buf.h"
#include "relayd/core/config.h"
#include "relayd/pipeline/facts/facts.h"
#include "relayd/pipeline/pipeline.h"
#include "relayd/pipeline/trace.h"
#include "relayd/state/state.h"
#include "unit/unit.h"

#define OPTION(name_, ...)                                                                         \
	{                                                                                          \
		.name = name_,                                                                     \
		.values = { .v = (const char *[]){ __VA_ARGS__ },                                  \
			.n = sizeof((const char *[]){ __VA_ARGS__ }) / sizeof(char *) },           \
		.line = 7                                                                          \
	}
#define SECTION(name_, type_, ...)                                                                 \
	{                                                                                          \
		.name = name_, .type = type_, .line = 5,                                           \
		.options = (struct config_option[]){ __VA_ARGS__ },                                \
		.n_options =                                                                       \
		    sizeof((struct config_option[]){ __VA_ARGS__ }) / sizeof(struct config_option) \
	}

/* connect, helo, mail, rcpt, message, heavy (message, in the pool), shaper, secure (mail). */
extern const struct filter *const world_filters[];

struct world_pending;

struct world {
	uv_loop_t loop;
	struct config *cfg;
	struct buf snapshot;
	struct facts *facts;
	struct state *state;
	struct trace *trace;
	struct pipeline *pl;
	struct pipeline_session *s;
	struct pipeline_tx *tx;
	struct pipeline_run run;
	struct pipeline_message message;
	unsigned released;
	bool done;
	char dir[64];
	/* facts */
	bool at_once;                  /* answers are there when they are asked for */
	bool failing;                  /* every answer is FACT_FAILED */
	struct world_pending *pending; /* oldest first */
	struct buf asked;              /* "a.test b.test " in the order they were asked for */
};

/* policies: text of the config behind hostname, domains and routes.  filters are borrowed. */
void world_init(struct world *w, const char *policies, struct config_filter *filters, size_t n);
/* The same with filter sections in the text alone, of the built-in kinds given. */
void world_init_text(struct world *w, const char *text, const struct filter *const *builtin);
/* The config alone, and its end; another config; and the pipeline of what is there. */
void world_load_text(struct world *w, const char *text);
void world_unload(struct world *w);
void world_reload_text(struct world *w, const char *text);
void world_build(struct world *w, const struct filter *const *builtin);
void world_fini(struct world *w);
/* A state in w->dir; before world_client(). */
void world_with_state(struct world *w);
void world_with_trace(struct world *w);

/* A new session; ip as text.  Runs nothing. */
void world_client(struct world *w, const char *ip, bool trusted);
/* Each runs one stage, answering facts as they are asked for, until it is done. */
enum pipeline_answer world_connect(struct world *w);
enum pipeline_answer world_helo(struct world *w, const char *name);
enum pipeline_answer world_mail(struct world *w, const char *reverse_path);
enum pipeline_answer world_rcpt(struct world *w, const char *forward_path);
enum pipeline_answer world_message(struct world *w, const char *bytes);
/* The usual client, and a message from it to bob@example.test: the answer to the message. */
enum pipeline_answer world_send(struct world *w, const char *bytes);
/* The usual client, and a message from this path to bob@example.test and to that one, which all
 * stages accept. */
void world_send_two(
    struct world *w, const char *reverse_path, const char *other, const char *bytes);
void world_end(struct world *w, bool accepted);

/* By hand: starts a stage; true when it was over at once. */
bool world_start(struct world *w, enum filter_stage stage);
/* Answers the oldest question for name (NULL: any); false when there is none. */
bool world_answer(struct world *w, const char *name);
/* Runs the loop until the run is done, answering questions if told to. */
void world_wait(struct world *w, bool answering);
/* What was asked since the last call. */
const char *world_asked(struct world *w);

/* How often the filter of that section ran since the last call. */
unsigned world_runs(const char *section);

/* The copy as it would be sent. */
struct slice world_bytes(struct world *w, size_t copy, struct buf *out);
/* All of haystack holds needle. */
#define ASSERT_HAS(haystack, needle)                                                               \
	ck_assert_msg(                                                                             \
	    slice_find(haystack, slice_str(needle)) < (haystack).len || sizeof(needle) == 1,       \
	    "no \"%s\" in \"%.*s\"", needle, SLICE_FMT(haystack))
#define ASSERT_HAS_NOT(haystack, needle)                                                           \
	ck_assert_msg(slice_find(haystack, slice_str(needle)) == (haystack).len,                   \
	    "\"%s\" in \"%.*s\"", needle, SLICE_FMT(haystack))

#endif
