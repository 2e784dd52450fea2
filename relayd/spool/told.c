/* relayd/spool/told.c - what reports that an earlier delivery made say of the messages they are
 * about. */
#include "relayd/spool/told.h"

#include "relayd/core/clock.h"
#include "relayd/core/le.h"

#include <stdlib.h>

struct waiting {
	struct table_link link;
	struct id origin, report;
	enum envelope_tells tells;
	size_t n;
	uint32_t about[];
};

static uint64_t
hash_of(struct id id)
{
	return le64_get(id.bytes + 8); /* all but the time is random, or a digest */
}

bool
told_is_finished(const struct index_msg *msg, uint32_t ordinal)
{
	const struct index_rcpt *known = index_rcpt(msg, ordinal);

	return known != NULL && known->outcome != INDEX_PENDING;
}

static bool
note_rcpt(struct told *t, struct index_msg *msg, uint32_t ordinal, enum envelope_tells tells)
{
	static const uint8_t outcomes[] = {
		[ENVELOPE_TELLS_SENT] = INDEX_SENT,
		[ENVELOPE_TELLS_BOUNCED] = INDEX_BOUNCED,
		[ENVELOPE_TELLS_QUARANTINED] = INDEX_QUARANTINED,
	};
	const struct index_rcpt *known = index_rcpt(msg, ordinal);
	struct index_rcpt rcpt = { .ordinal = ordinal,
		.outcome = outcomes[tells],
		.attempts = (known != NULL ? known->attempts : 0) + 1,
		.tried_ms = clock_wall_ms(),
		.reply = SLICE("") };

	if (told_is_finished(msg, ordinal))
		return false;
	journal_rcpt(t->journal, msg, &rcpt);
	return true;
}

static bool
note_late(struct told *t, struct index_msg *msg)
{
	if ((msg->flags & INDEX_WARNED) != 0)
		return false;
	journal_order(t->journal, msg, msg->flags | INDEX_WARNED,
	    msg->via != NULL ? slice_str(msg->via) : SLICE(""));
	return true;
}

static void
note(struct told *t, struct index_msg *msg, struct id report, enum envelope_tells tells,
    const uint32_t *about, size_t n)
{
	bool news = tells == ENVELOPE_TELLS_LATE && note_late(t, msg);

	for (size_t i = 0; i < n && tells != ENVELOPE_TELLS_LATE; i++)
		news = note_rcpt(t, msg, about[i], tells) || news;
	if (news)
		t->on_told(t->data, msg, report, tells);
}

void
told_report(struct told *t, const struct envelope *report)
{
	struct index_msg *origin = index_find(journal_index(t->journal), report->origin);
	struct waiting *w;

	if (report->tells == ENVELOPE_TELLS_NOTHING)
		return;
	if (origin != NULL) {
		note(t, origin, report->id, report->tells, report->about, report->n_about);
		return;
	}
	w = malloc(sizeof(*w) + report->n_about * sizeof(w->about[0]));
	if (w == NULL)
		return;
	*w = (struct waiting){ .origin = report->origin,
		.report = report->id,
		.tells = report->tells,
		.n = report->n_about };
	for (size_t i = 0; i < w->n; i++)
		w->about[i] = report->about[i];
	if (!table_add(&t->waiting, &w->link, hash_of(w->origin)))
		free(w);
}

/* One that waits for that origin, or NULL. */
static struct waiting *
waiting_for(const struct told *t, struct id origin)
{
	struct table_link *link = NULL;

	while ((link = table_next(&t->waiting, hash_of(origin), link)) != NULL)
		if (id_eq(container_of(link, struct waiting, link)->origin, origin))
			return container_of(link, struct waiting, link);
	return NULL;
}

void
told_of(struct told *t, struct index_msg *msg)
{
	struct waiting *w;

	while (t->waiting.n > 0 && (w = waiting_for(t, msg->id)) != NULL) {
		note(t, msg, w->report, w->tells, w->about, w->n);
		table_remove(&t->waiting, &w->link);
		free(w);
	}
}

static void
forget(void *data, struct table_link *link)
{
	(void)data;
	free(container_of(link, struct waiting, link));
}

void
told_fini(struct told *t)
{
	table_each(&t->waiting, forget, NULL);
	table_fini(&t->waiting);
}
