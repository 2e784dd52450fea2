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
hash_id(struct id id)
{
	return mix(le64_get(id.bytes + 8), le64_get(id.bytes)); /* half of it is random */
}

/* Where in its segment place stands or would stand. */
static uint32_t
msg_at(const struct index_segment *seg, uint32_t place)
{
	uint32_t low = 0, high = seg->open;

	if (high > 0 && seg->msgs[high - 1]->place < place)
		return high; /* most are read in order */
	while (low < high) {
		uint32_t mid = low + (high - low) / 2;

		if (seg->msgs[mid]->place < place)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

static void
leave_segment(struct index_segment *seg, const struct index_msg *msg)
{
	uint32_t at = msg_at(seg, msg->place);

	seg->open--;
	seg->unnamed -= msg->bytes == 0;
	seg->open_bytes -= msg->bytes;
	if (at < seg->open / 2) { /* most leave as they came: those before it move */
		memmove(&seg->msgs[1], &seg->msgs[0], at * sizeof(seg->msgs[0]));
		seg->msgs++;
		seg->gone_msgs++;
	} else {
		memmove(
		    &seg->msgs[at], &seg->msgs[at + 1], (seg->open - at) * sizeof(seg->msgs[0]));
	}
}

/* Those at the front again. */
static bool
set_room(struct index_segment *seg, uint32_t cap)
{
	struct index_msg **base = seg->msgs != NULL ? seg->msgs - seg->gone_msgs : NULL, **msgs;

	if (seg->gone_msgs > 0)
		memmove(base, seg->msgs, seg->open * sizeof(struct index_msg *));
	seg->gone_msgs = 0;
	seg->msgs = base;
	msgs = realloc(base, cap * sizeof(struct index_msg *));
	if (msgs == NULL)
		return false;
	seg->msgs = msgs;
	seg->cap_msgs = cap;
	return true;
}

static bool
join_segment(struct index_segment *seg, uint32_t at, struct index_msg *msg)
{
	if (seg->gone_msgs + seg->open == seg->cap_msgs &&
	    !set_room(seg, seg->open + seg->open / 2 + 16))
		return false;
	memmove(&seg->msgs[at + 1], &seg->msgs[at], (seg->open - at) * sizeof(seg->msgs[0]));
	seg->msgs[at] = msg;
	seg->open++;
	seg->unnamed += msg->bytes == 0;
	seg->open_bytes += msg->bytes;
	return true;
}

static void
msg_free(struct index *ix, struct index_msg *msg)
{
	leave_segment(msg->segment, msg);
	if (msg->bytes > 0)
		table_remove(&ix->by_id, &msg->by_id);
	for (uint32_t i = 0; i < msg->n_rcpts; i++)
		free((void *)(uintptr_t)msg->rcpts[i].reply.p);
	ix->facts -= msg->n_rcpts;
	ix->open--;
	free(msg->rcpts);
	free(msg->via);
	free(msg);
}

static void
segment_free(struct index_segment *seg)
{
	if (seg->msgs != NULL)
		free(seg->msgs - seg->gone_msgs);
	free(seg->done);
	free(seg);
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
	table_each(&ix->keys, fini_key, NULL);
	for (struct index_log *log = ix->logs, *next; log != NULL; log = next) {
		next = log->next;
		for (struct index_segment *seg = log->segments, *after; seg != NULL; seg = after) {
			after = seg->next;
			while (seg->open > 0)
				msg_free(ix, seg->msgs[seg->open - 1]);
			segment_free(seg);
		}
		free(log);
	}
	table_fini(&ix->by_id);
	table_fini(&ix->keys);
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

void
index_segment_settle(struct index *ix, struct index_segment *seg)
{
	for (uint32_t i = seg->open; i-- > 0 && seg->unnamed > 0;)
		if (seg->msgs[i]->bytes == 0)
			msg_free(ix, seg->msgs[i]);
	if (seg->open > 0)
		(void)set_room(
		    seg, seg->open); /* no more will join it; else there is room too much */
}

void
index_segment_forget(struct index *ix, struct index_segment *seg)
{
	struct index_segment **at = &seg->log->segments;

	index_segment_settle(ix, seg);
	while (*at != seg)
		at = &(*at)->next;
	*at = seg->next;
	ix->forgotten++;
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
index_at(const struct index_segment *seg, uint32_t place)
{
	uint32_t at = msg_at(seg, place);

	return at < seg->open && seg->msgs[at]->place == place ? seg->msgs[at] : NULL;
}

struct index_msg *
index_add(struct index *ix, struct index_segment *seg, uint32_t place)
{
	uint32_t at = msg_at(seg, place);
	struct index_msg *msg =
	    at < seg->open && seg->msgs[at]->place == place ? seg->msgs[at] : NULL;

	if (msg != NULL || (msg = calloc(1, sizeof(*msg))) == NULL)
		return msg;
	msg->segment = seg;
	msg->place = place;
	if (!join_segment(seg, at, msg)) {
		free(msg);
		return NULL;
	}
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
	msg->segment->open_bytes += bytes;
	return true;
}

void
index_resize(struct index_msg *msg, uint32_t bytes)
{
	msg->segment->open_bytes += (uint64_t)bytes - msg->bytes;
	msg->bytes = bytes;
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
index_has_done(const struct index_segment *seg, uint32_t place)
{
	for (uint32_t i = 0; i < seg->n_done; i++)
		if (seg->done[i] == place)
			return true;
	return false;
}

bool
index_set_done(struct index *ix, struct index_segment *seg, uint32_t place)
{
	struct index_msg *msg = index_at(seg, place);

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

/* -- a cursor -- */

/* The log whose number is the lowest from `from` on. */
static struct index_log *
log_from(const struct index *ix, uint32_t from)
{
	struct index_log *best = NULL;

	for (struct index_log *log = ix->logs; log != NULL; log = log->next)
		if (log->number >= from && (best == NULL || log->number < best->number))
			best = log;
	return best;
}

/* The first segment at or behind the place of the cursor. */
static struct index_segment *
segment_from(const struct index *ix, const struct index_cursor *c)
{
	uint32_t number = c->segment;

	for (uint32_t n = c->log;;) {
		struct index_log *log = log_from(ix, n);
		struct index_segment *seg = log != NULL ? log->segments : NULL;

		while (seg != NULL && log->number == c->log && seg->number < number)
			seg = seg->next;
		if (seg != NULL || log == NULL)
			return seg;
		n = log->number + 1;
	}
}

/* Onto seg, behind what was answered of it. */
static void
go_to(const struct index *ix, struct index_cursor *c, struct index_segment *seg)
{
	bool same = c->within && seg->log->number == c->log && seg->number == c->segment;

	*c = (struct index_cursor){ .log = seg->log->number,
		.segment = seg->number,
		.place = same ? c->place : 0,
		.within = same,
		.seg = seg,
		.forgotten = ix->forgotten };
	c->at = same ? msg_at(seg, c->place) : 0;
}

/* Onto the segment behind, or to the end. */
static bool
go_on(const struct index *ix, struct index_cursor *c)
{
	struct index_segment *seg = c->seg->next;

	if (seg == NULL) {
		struct index_log *log = c->log < UINT32_MAX ? log_from(ix, c->log + 1) : NULL;

		while (log != NULL && log->segments == NULL)
			log = log->number < UINT32_MAX ? log_from(ix, log->number + 1) : NULL;
		seg = log != NULL ? log->segments : NULL;
	}
	if (seg != NULL)
		go_to(ix, c, seg);
	return seg != NULL;
}

struct index_msg *
index_cursor_next(const struct index *ix, struct index_cursor *c)
{
	if (c->seg == NULL || c->forgotten != ix->forgotten) {
		struct index_segment *seg = segment_from(ix, c);

		c->seg = seg;
		if (seg == NULL)
			return NULL;
		go_to(ix, c, seg);
	}
	do {
		struct index_segment *seg = c->seg;

		if (c->within && (c->at >= seg->open || seg->msgs[c->at]->place != c->place))
			c->at = msg_at(seg, c->place);
		if (c->within && c->at < seg->open && seg->msgs[c->at]->place == c->place)
			c->at++;
		for (; c->at < seg->open; c->at++) {
			struct index_msg *msg = seg->msgs[c->at];

			c->place = msg->place;
			c->within = true;
			if (msg->bytes > 0)
				return msg;
		}
	} while (go_on(ix, c));
	return NULL;
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
	msg->flags = (uint8_t)(flags | (msg->flags & INDEX_COPIED));
	return true;
}

/* -- moves -- */

/* What is known of old and not of msg. */
static bool
take_over(struct index *ix, struct index_msg *msg, const struct index_msg *old)
{
	for (uint32_t i = 0; i < old->n_rcpts; i++)
		if (index_rcpt(msg, old->rcpts[i].ordinal) == NULL &&
		    !index_set_rcpt(ix, msg, &old->rcpts[i]))
			return false;
	return index_set_order(msg, msg->flags | (old->flags & ~(unsigned)INDEX_COPIED),
	    slice_str(msg->via != NULL   ? msg->via
		      : old->via != NULL ? old->via
					 : ""));
}

static bool
change_place(struct index_msg *msg, struct index_segment *to, uint32_t place)
{
	struct index_segment *from = msg->segment;
	uint32_t old = msg->place;

	leave_segment(from, msg);
	msg->segment = to;
	msg->place = place;
	if (join_segment(to, msg_at(to, place), msg))
		return true;
	msg->segment = from; /* where the room is that it had */
	msg->place = old;
	return join_segment(from, msg_at(from, old), msg) && false;
}

bool
index_move(struct index *ix, struct index_segment *from, uint32_t place, struct index_segment *to,
    uint32_t to_place)
{
	struct index_msg *old = from != NULL ? index_at(from, place) : NULL;
	struct index_msg *msg = index_at(to, to_place);

	if (msg == NULL && old != NULL) {
		if (!change_place(old, to, to_place))
			return false;
		msg = old;
	} else if (msg == NULL) {
		msg = index_add(ix, to, to_place);
	} else if (old != NULL && !take_over(ix, msg, old)) {
		return false;
	}
	if (msg == NULL)
		return false;
	msg->flags |= INDEX_COPIED;
	return from == NULL || index_set_done(ix, from, place); /* frees old if it is there still */
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
