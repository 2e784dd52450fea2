/* relayd/spool/index.c - which messages are still open, what is known of them, where they lie. */
#include "relayd/spool/index.h"

#include "relayd/core/le.h"

#include <stdlib.h>

void
index_init(struct index *ix)
{
	*ix = (struct index){ .next_log = 1 };
}

static uint64_t
mix(uint64_t a, uint64_t b)
{
	uint64_t h = (a ^ b * 0x9e3779b97f4a7c15u) * 0xd6e8feb86659fd93u;

	return h ^ h >> 32;
}

static uint64_t
hash_place(const struct index_segment *seg, uint32_t place)
{
	return mix((uint64_t)(uintptr_t)seg, place);
}

static uint64_t
hash_id(struct id id)
{
	return mix(le64_get(id.bytes + 8), le64_get(id.bytes)); /* half of it is random */
}

static void
msg_free(struct index *ix, struct index_msg *msg)
{
	table_remove(&ix->by_place, &msg->by_place);
	if (msg->bytes > 0)
		table_remove(&ix->by_id, &msg->by_id);
	else
		msg->segment->unnamed--;
	for (uint32_t i = 0; i < msg->n_rcpts; i++)
		free((void *)(uintptr_t)msg->rcpts[i].reply.p);
	ix->facts -= msg->n_rcpts;
	ix->open--;
	msg->segment->open--;
	free(msg->rcpts);
	free(msg->via);
	free(msg);
}

static void
segment_free(struct index_segment *seg)
{
	free(seg->done);
	free(seg);
}

static void
fini_msg(void *data, struct table_link *link)
{
	msg_free(data, container_of(link, struct index_msg, by_place));
}

static void
fini_key(void *data, struct table_link *link)
{
	(void)data;
	free(container_of(link, struct index_key, link));
}

void
index_fini(struct index *ix)
{
	table_each(&ix->by_place, fini_msg, ix);
	table_each(&ix->keys, fini_key, NULL);
	table_fini(&ix->by_place);
	table_fini(&ix->by_id);
	table_fini(&ix->keys);
	for (struct index_log *log = ix->logs, *next; log != NULL; log = next) {
		next = log->next;
		for (struct index_segment *seg = log->segments, *after; seg != NULL; seg = after) {
			after = seg->next;
			segment_free(seg);
		}
		free(log);
	}
	index_init(ix);
}

/* -- logs and segments: few, in lists -- */

struct index_log *
index_log_find(const struct index *ix, struct id id)
{
	struct index_log *log = ix->logs;

	while (log != NULL && !id_eq(log->id, id))
		log = log->next;
	return log;
}

struct index_log *
index_log_numbered(const struct index *ix, uint32_t number)
{
	struct index_log *log = ix->logs;

	while (log != NULL && log->number != number)
		log = log->next;
	return log;
}

struct index_log *
index_log_add(struct index *ix, struct id id, uint32_t number)
{
	struct index_log *log = calloc(1, sizeof(*log));

	if (log == NULL)
		return NULL;
	log->id = id;
	log->number = number;
	log->next = ix->logs;
	ix->logs = log;
	if (number >= ix->next_log)
		ix->next_log = number + 1;
	return log;
}

void
index_log_forget(struct index *ix, struct index_log *log)
{
	struct index_log **at = &ix->logs;

	while (*at != log)
		at = &(*at)->next;
	*at = log->next;
	free(log);
}

struct index_segment *
index_segment(struct index_log *log, uint32_t number)
{
	struct index_segment **at = &log->segments, *seg;

	while (*at != NULL && (*at)->number < number)
		at = &(*at)->next;
	if (*at != NULL && (*at)->number == number)
		return *at;
	seg = calloc(1, sizeof(*seg));
	if (seg == NULL)
		return NULL;
	seg->log = log;
	seg->number = number;
	seg->next = *at;
	*at = seg;
	return seg;
}

struct closing {
	struct index *ix;
	struct index_segment *seg;
};

static void
close_unnamed(void *data, struct table_link *link)
{
	struct closing *c = data;
	struct index_msg *msg = container_of(link, struct index_msg, by_place);

	if (msg->segment == c->seg && msg->bytes == 0)
		msg_free(c->ix, msg);
}

void
index_segment_settle(struct index *ix, struct index_segment *seg)
{
	if (seg->unnamed > 0)
		table_each(&ix->by_place, close_unnamed, &(struct closing){ ix, seg });
}

void
index_segment_forget(struct index *ix, struct index_segment *seg)
{
	struct index_segment **at = &seg->log->segments;

	index_segment_settle(ix, seg);
	while (*at != seg)
		at = &(*at)->next;
	*at = seg->next;
	segment_free(seg);
}

/* -- messages -- */

struct index_msg *
index_find(const struct index *ix, struct id id)
{
	uint64_t hash = hash_id(id);
	struct table_link *link = NULL;

	while ((link = table_next(&ix->by_id, hash, link)) != NULL) {
		struct index_msg *msg = container_of(link, struct index_msg, by_id);

		if (id_eq(msg->id, id))
			return msg;
	}
	return NULL;
}

struct index_msg *
index_at(const struct index *ix, const struct index_segment *seg, uint32_t place)
{
	uint64_t hash = hash_place(seg, place);
	struct table_link *link = NULL;

	while ((link = table_next(&ix->by_place, hash, link)) != NULL) {
		struct index_msg *msg = container_of(link, struct index_msg, by_place);

		if (msg->segment == seg && msg->place == place)
			return msg;
	}
	return NULL;
}

struct index_msg *
index_add(struct index *ix, struct index_segment *seg, uint32_t place)
{
	struct index_msg *msg = index_at(ix, seg, place);

	if (msg != NULL || (msg = calloc(1, sizeof(*msg))) == NULL)
		return msg;
	msg->segment = seg;
	msg->place = place;
	if (!table_add(&ix->by_place, &msg->by_place, hash_place(seg, place))) {
		free(msg);
		return NULL;
	}
	seg->open++;
	seg->unnamed++;
	ix->open++;
	return msg;
}

bool
index_name(struct index *ix, struct index_msg *msg, struct id id, uint32_t bytes)
{
	if (!table_add(&ix->by_id, &msg->by_id, hash_id(id)))
		return false;
	msg->id = id;
	msg->bytes = bytes;
	msg->segment->unnamed--;
	return true;
}

static int
compare_places(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

/* Asked only for messages that were not read yet, so what is appended later needs no order. */
bool
index_is_done(struct index_segment *seg, uint32_t place)
{
	if (seg->done_sorted < seg->n_done && !seg->read_begun) {
		qsort(seg->done, seg->n_done, sizeof(*seg->done), compare_places);
		seg->done_sorted = seg->n_done;
		seg->read_begun = true;
	}
	return seg->done_sorted > 0 && bsearch(&place, seg->done, seg->done_sorted,
					   sizeof(*seg->done), compare_places) != NULL;
}

bool
index_set_done(struct index *ix, struct index_segment *seg, uint32_t place)
{
	struct index_msg *msg = index_at(ix, seg, place);

	if (seg->n_done == seg->done_cap) {
		uint32_t cap = seg->done_cap > 0 ? seg->done_cap * 2 : 16;
		uint32_t *done = realloc(seg->done, cap * sizeof(*done));

		if (done == NULL)
			return false;
		seg->done = done;
		seg->done_cap = cap;
	}
	seg->done[seg->n_done++] = place;
	if (msg != NULL)
		msg_free(ix, msg);
	return true;
}

/* -- recipients -- */

/* Where ordinal stands or would stand. */
static uint32_t
rcpt_at(const struct index_msg *msg, uint32_t ordinal)
{
	uint32_t low = 0, high = msg->n_rcpts;

	while (low < high) {
		uint32_t mid = low + (high - low) / 2;

		if (msg->rcpts[mid].ordinal < ordinal)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

const struct index_rcpt *
index_rcpt(const struct index_msg *msg, uint32_t ordinal)
{
	uint32_t at = rcpt_at(msg, ordinal);

	return at < msg->n_rcpts && msg->rcpts[at].ordinal == ordinal ? &msg->rcpts[at] : NULL;
}

static struct index_rcpt *
rcpt_insert(struct index *ix, struct index_msg *msg, uint32_t at)
{
	struct index_rcpt *rcpts;

	/* Room doubles: a power of two of them means that it is full. */
	if ((msg->n_rcpts & (msg->n_rcpts - 1)) == 0) {
		size_t cap = msg->n_rcpts > 0 ? 2 * (size_t)msg->n_rcpts : 1;

		rcpts = realloc(msg->rcpts, cap * sizeof(*rcpts));
		if (rcpts == NULL)
			return NULL;
		msg->rcpts = rcpts;
	}
	memmove(&msg->rcpts[at + 1], &msg->rcpts[at], (msg->n_rcpts - at) * sizeof(*msg->rcpts));
	msg->n_rcpts++;
	ix->facts++;
	msg->rcpts[at] = (struct index_rcpt){ .reply = { NULL, 0 } };
	return &msg->rcpts[at];
}

bool
index_set_rcpt(struct index *ix, struct index_msg *msg, const struct index_rcpt *rcpt)
{
	uint32_t at = rcpt_at(msg, rcpt->ordinal);
	bool known = at < msg->n_rcpts && msg->rcpts[at].ordinal == rcpt->ordinal;
	struct slice reply = slice_head(rcpt->reply, INDEX_REPLY_MAX);
	char *text = malloc(reply.len + 1);
	struct index_rcpt *mine = text == NULL ? NULL
				  : known      ? &msg->rcpts[at]
					       : rcpt_insert(ix, msg, at);

	if (mine == NULL) {
		free(text);
		return false;
	}
	memcpy(text, reply.p, reply.len);
	text[reply.len] = '\0';
	free((void *)(uintptr_t)mine->reply.p);
	*mine = *rcpt;
	mine->reply = (struct slice){ text, reply.len };
	return true;
}

bool
index_set_order(struct index_msg *msg, unsigned flags, struct slice via)
{
	char *text = via.len > 0 ? strndup(via.p, via.len) : NULL;

	if (via.len > 0 && text == NULL)
		return false;
	free(msg->via);
	msg->via = text;
	msg->flags = (uint8_t)flags;
	return true;
}

/* -- release keys -- */

struct index_key *
index_key(const struct index *ix, struct id hash)
{
	uint64_t h = hash_id(hash);
	struct table_link *link = NULL;

	while ((link = table_next(&ix->keys, h, link)) != NULL) {
		struct index_key *key = container_of(link, struct index_key, link);

		if (id_eq(key->hash, hash))
			return key;
	}
	return NULL;
}

bool
index_set_key(struct index *ix, struct id hash, struct id msg, int64_t seen_ms)
{
	struct index_key *key = index_key(ix, hash);

	if (key != NULL)
		return true;
	key = calloc(1, sizeof(*key));
	if (key == NULL || !table_add(&ix->keys, &key->link, hash_id(hash))) {
		free(key);
		return false;
	}
	key->hash = hash;
	key->msg = msg;
	key->seen_ms = seen_ms;
	return true;
}

struct expiry {
	struct index *ix;
	int64_t before_ms;
};

static void
expire_key(void *data, struct table_link *link)
{
	struct expiry *e = data;
	struct index_key *key = container_of(link, struct index_key, link);

	if (key->seen_ms >= e->before_ms)
		return;
	table_remove(&e->ix->keys, link);
	free(key);
}

void
index_expire_keys(struct index *ix, int64_t before_ms)
{
	table_each(&ix->keys, expire_key, &(struct expiry){ ix, before_ms });
}
