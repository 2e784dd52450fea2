/* relayd/pipeline/facts/marks.c - what the workers remember together, as facts. */
#include "relayd/pipeline/facts/marks.h"

#include "relayd/state/state.h"

#include <stdlib.h>
#include <string.h>

#define SECONDS_MAX (366u * 86400)

/* A question on its way.  It outlives an asker who forgets it, until the store has answered. */
struct asked {
	struct state_request req;
	struct fact_query *q; /* NULL: forgotten */
	char key[];
};

static void
on_answer(struct state_request *req)
{
	struct asked *a = container_of(req, struct asked, req);
	struct fact_query *q = a->q;
	struct fact_value value = { .bytes = SLICE(""), .number = req->first_ms };
	struct fact fact = { .size = sizeof(fact), .state = FACT_FAILED };

	if (req->err.code == ERR_NONE) {
		fact.state = req->first_ms != 0 ? FACT_OK : FACT_NONE;
		fact.n = fact.state == FACT_OK;
		fact.values = &value;
	}
	free(a);
	if (q == NULL)
		return;
	q->busy = false;
	q->work = NULL;
	q->done(q, &fact);
}

/* "SECONDS KEY" */
static bool
read_name(struct slice name, uint32_t *seconds, struct slice *key)
{
	struct slice digits = slice_until(name, ' ');
	uint64_t n = 0;

	if (digits.len == 0 || digits.len > 9 || digits.len + 1 >= name.len)
		return false;
	for (size_t i = 0; i < digits.len; i++) {
		if (digits.p[i] < '0' || digits.p[i] > '9')
			return false;
		n = n * 10 + (uint64_t)(digits.p[i] - '0');
	}
	*seconds = (uint32_t)n;
	*key = slice_drop(name, digits.len + 1);
	return n > 0 && n <= SECONDS_MAX;
}

static struct asked *
asked_new(struct fact_query *q)
{
	uint32_t seconds;
	struct slice key;
	struct asked *a =
	    read_name(q->name, &seconds, &key) ? calloc(1, sizeof(*a) + key.len) : NULL;

	if (a == NULL)
		return NULL;
	memcpy(a->key, key.p, key.len);
	a->q = q;
	a->req = (struct state_request){ .op = q->kind == FACT_MARK ? STATE_MARK : STATE_LOOK,
		.key = slice_of(a->key, key.len),
		.period_s = seconds,
		.done = on_answer };
	return a;
}

static bool
ask(void *source, struct fact_query *q, const struct fact **out)
{
	static const struct fact failed = { .size = sizeof(failed), .state = FACT_FAILED };
	struct state *state = source;
	struct asked *a = state != NULL ? asked_new(q) : NULL;

	if (a == NULL || state_start(state, &a->req, NULL) < 0) {
		free(a);
		*out = &failed;
		return true;
	}
	q->work = a;
	q->busy = true;
	return false;
}

static void
forget(void *source, struct fact_query *q)
{
	struct asked *a = q->work;

	(void)source; /* it answers all the same, to nobody */
	a->q = NULL;
	q->work = NULL;
	q->busy = false;
}

const struct fact_source fact_source_marks = { .ask = ask, .forget = forget };
