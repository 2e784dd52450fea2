/* relayd/spool/reader_copy.c - which of two records of a message counts. */
#include "relayd/spool/reader.h"

#include "relayd/spool/reader_log.h"

/* Of the two records of a message the copy counts, or does not. */
static void
decide(struct reader_log *rl, struct index_segment *from, const struct spooldir_copy *copy,
    uint32_t place, bool counts)
{
	struct reader *r = rl->reader;

	if (counts && !r->readonly)
		journal_moved(r->journal, from, copy->place, rl->current, place);
	else if (counts)
		(void)index_move(r->index, from, copy->place, rl->current, place);
	else if (!r->readonly)
		journal_not_moved(r->journal, from, rl->current, place);
	r->sweep_wanted = true;
}

bool
reader_copy_counts(
    struct reader_log *rl, uint32_t place, const struct spooldir_message *m, struct id id)
{
	struct reader *r = rl->reader;
	const struct index_msg *known = index_at(rl->current, place), *old = NULL;
	struct index_log *log = index_log_find(r->index, m->copy.log);
	struct index_segment *from = log != NULL ? log->segments : NULL;
	struct err why = { 0 };
	bool counts;

	if ((r->has_own && id_eq(r->own, rl->log->id)) || index_has_done(rl->current, place))
		return false;
	if (known != NULL && (known->flags & INDEX_COPIED) != 0)
		return true;
	while (from != NULL && from->number != m->copy.segment)
		from = from->next;
	if (from != NULL)
		old = index_at(from, m->copy.place);
	counts = !(from != NULL && (from->retired || index_has_done(from, m->copy.place))) &&
		 !(old != NULL && old->bytes > 0) &&
		 !(m->meta.in_file && reader_lacks_file(rl, id, &why));
	if (m->meta.in_file && log != rl->log && (!counts || log != NULL))
		reader_forget_file(r, counts ? log : rl->log, id);
	decide(rl, from, &m->copy, place, counts);
	return counts;
}

void
reader_own(struct reader *r, struct id log)
{
	r->own = log;
	r->has_own = true;
}

bool
reader_settled(const struct reader *r)
{
	return !r->owes;
}

void
reader_copied(struct reader *r, struct index_msg *msg, struct index_segment *to, uint32_t place,
    uint32_t bytes)
{
	struct index_segment *from = msg->segment;

	if (msg->in_file && from->log != to->log)
		reader_forget_file(r, from->log, msg->id);
	journal_moved(r->journal, from, msg->place, to, place);
	index_resize(msg, bytes);
	r->sweep_wanted = true;
}

void
reader_not_copied(struct reader *r, struct index_segment *from, struct index_segment *to,
    uint32_t place, const struct id *file)
{
	if (file != NULL && from->log != to->log)
		reader_forget_file(r, to->log, *file);
	journal_not_moved(r->journal, from, to, place);
	r->sweep_wanted = true;
}
