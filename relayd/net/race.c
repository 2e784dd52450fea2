/* relayd/net/race.c - connects to the first of several addresses that answers. */
#include "relayd/net/race.h"

#include "relayd/net/sockaddr.h"

#include <stdlib.h>

struct race {
	uv_loop_t *loop;
	const struct race_ops *ops;
	void *owner;
	struct race_way ways[RACE_MAX];
	size_t n, next;                   /* next: the one to be begun */
	struct stream *streams[RACE_MAX]; /* those on their way, or NULL */
	int64_t until_ms[RACE_MAX];       /* then they have failed */
	bool passed[RACE_MAX];            /* their head start is over */
	size_t open;                      /* streams that are not closed */
	uint32_t timeout_ms;
	unsigned missed;
	bool over, cancelled;
	struct err why; /* of the last failure */
};

static void begin_next(struct race *race);

static size_t
index_of(const struct race *race, const struct stream *s)
{
	size_t i = 0;

	while (race->streams[i] != s)
		i++;
	return i;
}

static void
failed(struct race *race, size_t i, const struct err *why)
{
	char name[SOCKADDR_TEXT_BYTES];

	race->missed |= 1u << i;
	race->why = *why;
	sockaddr_text((const struct sockaddr *)&race->ways[i].to, name);
	if (race->n > 1)
		err_prefix(&race->why, "%s", name);
}

static size_t
on_read(struct stream *s, void *owner, struct slice bytes)
{
	(void)s, (void)owner, (void)bytes;
	return 0; /* the winner's owner will see them */
}

static void
on_close(struct stream *s, void *owner, const struct err *why)
{
	struct race *race = owner;
	size_t i = index_of(race, s);

	race->streams[i] = NULL;
	race->open--;
	if (!race->over) {
		if ((race->missed & 1u << i) == 0)
			failed(race, i, why);
		begin_next(race);
	}
	if (race->open > 0)
		return;
	if (race->cancelled)
		err_set(&race->why, ERR_CANCELLED, "cancelled");
	if (!race->over || race->cancelled)
		race->ops->on_fail(race->owner, &race->why, race->missed);
	free(race);
}

static void
close_all(struct race *race)
{
	for (size_t i = 0; i < RACE_MAX; i++)
		if (race->streams[i] != NULL)
			stream_close(race->streams[i]);
}

static void
on_connect(struct stream *s, void *owner)
{
	struct race *race = owner;
	const struct race_ops *ops = race->ops;
	size_t which = index_of(race, s);
	unsigned missed = race->missed;

	if (race->over)
		return; /* it is closing */
	race->over = true;
	race->streams[which] = NULL;
	race->open--;
	for (size_t i = 0; i < which; i++)
		if (race->streams[i] != NULL)
			missed |= 1u << i;
	stream_deadline(s, 0);
	close_all(race);
	owner = race->owner;
	if (race->open == 0)
		free(race); /* else when the losers have closed */
	ops->on_connect(owner, s, which, missed);
}

static void
on_deadline(struct stream *s, void *owner)
{
	struct race *race = owner;
	size_t i = index_of(race, s);
	struct err late;

	if (race->over)
		return;
	if (!race->passed[i]) {
		race->passed[i] = true;
		stream_deadline(s, race->until_ms[i]);
		begin_next(race);
		return;
	}
	err_set(&late, ERR_TIMEOUT, "connect: timed out");
	failed(race, i, &late);
	stream_close(s); /* on_close() goes on */
}

static const struct stream_ops ops_of_each = { .on_connect = on_connect,
	.on_read = on_read,
	.on_deadline = on_deadline,
	.on_close = on_close };

/* The next that can be begun at all. */
static void
begin_next(struct race *race)
{
	while (race->next < race->n) {
		size_t i = race->next++;
		int64_t now = (int64_t)uv_now(race->loop);
		struct err err = { 0 };

		race->streams[i] = stream_connect(race->loop, (struct sockaddr *)&race->ways[i].to,
		    (struct sockaddr *)&race->ways[i].local, &ops_of_each, race, &err);
		if (race->streams[i] == NULL) {
			failed(race, i, &err);
			continue;
		}
		race->open++;
		race->until_ms[i] = now + race->timeout_ms;
		race->passed[i] = race->next == race->n;
		stream_deadline(
		    race->streams[i], race->passed[i] ? race->until_ms[i] : now + RACE_DELAY_MS);
		return;
	}
}

struct race *
race_start(uv_loop_t *loop, const struct race_way *ways, size_t n, uint32_t timeout_ms,
    const struct race_ops *ops, void *owner, struct err *err)
{
	struct race *race = calloc(1, sizeof(*race));

	if (race == NULL) {
		err_set(err, ERR_NOMEM, "out of memory");
		return NULL;
	}
	race->loop = loop;
	race->ops = ops;
	race->owner = owner;
	race->n = n < RACE_MAX ? n : RACE_MAX;
	race->timeout_ms = timeout_ms;
	memcpy(race->ways, ways, race->n * sizeof(*ways));
	begin_next(race);
	if (race->open > 0)
		return race;
	*err = race->why;
	free(race);
	return NULL;
}

void
race_cancel(struct race *race)
{
	race->over = race->cancelled = true;
	close_all(race);
}
