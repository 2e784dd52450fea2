/* relayd/mail/envelope.c - the encoding of an envelope, and the walk over an edited copy. */
#include "relayd/mail/envelope.h"

#include "relayd/core/le.h"
#include "relayd/core/varint.h"
#include "relayd/mail/date.h"
#include "relayd/mail/packed.h"

static void
put_slice(struct buf *out, struct slice s)
{
	varint_put(out, s.len);
	buf_put(out, s);
}

/* What the fields that edits insert repeat of the envelope, most often Received. */
static void
know_head(struct packed *p, const struct envelope *env)
{
	char id[ID_TEXT_LEN + 1], date[DATE_BYTES];

	id_text(env->id, id);
	date_format((struct date){ .unix_s = env->received_ms / 1000 }, date);
	packed_know(p, slice_str(id));
	packed_know(p, slice_str(date));
	packed_know(p, env->reverse_path);
	packed_know(p, env->client_ip);
	packed_know(p, env->helo);
	packed_know(p, env->auth_user);
}

static void
know_copy(struct packed *p, const struct envelope_copy *copy)
{
	if (copy->n_rcpts > 0)
		packed_know(p, copy->rcpts[0].forward_path);
}

static void
put_rcpts(struct buf *out, const struct envelope_copy *copy)
{
	varint_put(out, copy->n_rcpts);
	for (size_t i = 0; i < copy->n_rcpts; i++) {
		put_slice(out, copy->rcpts[i].forward_path);
		put_slice(out, copy->rcpts[i].params);
	}
}

/* Recipients first: what is inserted may name them.  *inserts: bytes, over all copies. */
static void
put_copy(
    struct buf *out, struct packed *p, const struct envelope_copy *copy, uint64_t *inserts)
{
	buf_putc(out, (char)copy->route);
	put_slice(out, copy->reason);
	put_rcpts(out, copy);
	know_copy(p, copy);
	varint_put(out, copy->n_edits);
	for (size_t i = 0; i < copy->n_edits; i++) {
		varint_put(out, copy->edits[i].at);
		varint_put(out, copy->edits[i].remove);
		packed_put(p, copy->edits[i].insert, out);
		*inserts += copy->edits[i].insert.len;
	}
}

static void
put_copies(struct buf *out, const struct envelope *env)
{
	struct packed p;
	uint64_t inserts = 0;

	packed_begin_write(&p);
	know_head(&p, env);
	varint_put(out, env->n_copies);
	for (size_t i = 0; i < env->n_copies; i++)
		put_copy(out, &p, &env->copies[i], &inserts);
	if (inserts > ENVELOPE_BYTES_MAX)
		out->overflow = true;
}

void
envelope_encode(const struct envelope *env, struct buf *out)
{
	const bool has_origin = !id_eq(env->origin, (struct id){ 0 });
	uint8_t received[8];

	le64_put(received, (uint64_t)env->received_ms);
	buf_putc(out, ENVELOPE_VERSION);
	buf_put(out, slice_of(env->id.bytes, sizeof(env->id.bytes)));
	put_slice(out, slice_of(env->origin.bytes, has_origin ? sizeof(env->origin.bytes) : 0));
	buf_put(out, slice_of(received, sizeof(received)));
	varint_put(out, env->flags);
	varint_put(out, env->size);
	put_slice(out, env->reverse_path);
	put_slice(out, env->params);
	put_slice(out, env->client_ip);
	put_slice(out, env->client_addr);
	put_slice(out, env->helo);
	put_slice(out, env->auth_user);
	put_slice(out, env->listener);
	put_slice(out, env->release_key);
	put_copies(out, env);
	buf_putc(out, (char)env->tells);
	if (env->tells == ENVELOPE_TELLS_NOTHING)
		return;
	varint_put(out, env->n_about);
	for (size_t i = 0; i < env->n_about; i++)
		varint_put(out, env->about[i]);
}

/* A decoder fails once and for all: the first fault is kept, later reads give nothing. */
struct decoder {
	struct slice in;
	uint8_t version;
	struct arena *arena;
	struct err *err;
	bool failed;
	size_t edits, rcpts; /* so far, over all copies */
	uint64_t inserts;    /* bytes, the same */
	struct packed packed; /* since version 4 */
};

static void
fail(struct decoder *d, enum err_code code, const char *what)
{
	if (!d->failed)
		err_set(d->err, code, "envelope: %s", what);
	d->failed = true;
}

/* n bytes off the front; empty after a fault. */
static struct slice
take(struct decoder *d, uint64_t n)
{
	struct slice s = SLICE("");

	if (n > d->in.len)
		fail(d, ERR_FORMAT, "cut short");
	if (d->failed)
		return s;
	s = slice_head(d->in, (size_t)n);
	d->in = slice_drop(d->in, s.len);
	return s;
}

static uint64_t
take_number(struct decoder *d)
{
	uint64_t n = 0;

	if (!d->failed && !varint_take(&d->in, &n))
		fail(d, ERR_FORMAT, "cut short, or a number over 64 bits");
	return d->failed ? 0 : n;
}

/* The number of things that follow, none of which is shorter than min_bytes. */
static size_t
take_count(struct decoder *d, size_t max, size_t min_bytes, const char *what)
{
	uint64_t n = take_number(d);

	if (n > max)
		fail(d, ERR_LIMIT, what);
	else if (n > d->in.len / min_bytes)
		fail(d, ERR_FORMAT, "cut short");
	return d->failed ? 0 : (size_t)n;
}

static struct slice
take_slice(struct decoder *d)
{
	struct slice s = take(d, take_number(d));

	if (d->failed || s.len == 0)
		return SLICE("");
	s = arena_copy(d->arena, s);
	if (s.p == NULL) {
		fail(d, ERR_LIMIT, "no room to decode it");
		return SLICE("");
	}
	return s;
}

static struct id
take_id(struct decoder *d)
{
	struct slice s = take(d, sizeof(((struct id *)0)->bytes));
	struct id id = { 0 };

	memcpy(id.bytes, s.p, s.len);
	return id;
}

static void *
take_room(struct decoder *d, size_t n, size_t bytes)
{
	void *p = n > 0 && !d->failed ? arena_alloc(d->arena, n * bytes) : NULL;

	if (p == NULL && n > 0)
		fail(d, ERR_LIMIT, "no room to decode it");
	return p;
}

static struct slice
take_insert(struct decoder *d)
{
	struct slice s = SLICE("");
	enum packed_result rc;

	if (d->version < 4)
		return take_slice(d);
	if (d->failed)
		return s;
	rc = packed_take(&d->packed, &d->in, ENVELOPE_BYTES_MAX - d->inserts, d->arena, &s);
	if (rc == PACKED_LIMIT)
		fail(d, ERR_LIMIT, "no room to decode it");
	else if (rc == PACKED_MALFORMED)
		fail(d, ERR_FORMAT, "cut short, or a text that refers to what is not there");
	d->inserts += s.len;
	return s;
}

static void
take_edits(struct decoder *d, const struct envelope *env, struct envelope_copy *copy)
{
	size_t n = take_count(d, ENVELOPE_EDITS_MAX - d->edits, 3, "too many edits");
	uint64_t end = 0; /* of the one before */

	copy->edits = take_room(d, n, sizeof(*copy->edits));
	for (size_t i = 0; i < n && !d->failed; i++) {
		struct envelope_edit *edit = &copy->edits[i];

		edit->at = take_number(d);
		edit->remove = take_number(d);
		edit->insert = take_insert(d);
		if (edit->at < end)
			fail(d, ERR_FORMAT, "edits out of order or overlapping");
		else if (edit->at > env->size || edit->remove > env->size - edit->at)
			fail(d, ERR_FORMAT, "an edit outside the message");
		end = edit->at + edit->remove;
	}
	copy->n_edits = d->failed ? 0 : n;
	d->edits += n;
}

static void
take_rcpts(struct decoder *d, struct envelope_copy *copy)
{
	size_t n = take_count(d, ENVELOPE_RCPTS_MAX - d->rcpts, 2, "too many recipients");

	copy->rcpts = take_room(d, n, sizeof(*copy->rcpts));
	for (size_t i = 0; i < n && !d->failed; i++) {
		copy->rcpts[i].forward_path = take_slice(d);
		copy->rcpts[i].params = take_slice(d);
	}
	copy->n_rcpts = d->failed ? 0 : n;
	d->rcpts += n;
}

static void
take_copy(struct decoder *d, const struct envelope *env, struct envelope_copy *copy)
{
	struct slice route = take(d, 1);

	if (!d->failed && (uint8_t)route.p[0] > ENVELOPE_QUARANTINE)
		fail(d, ERR_FORMAT, "a route of no known kind");
	if (d->failed)
		return;
	copy->route = (enum envelope_route)route.p[0];
	copy->reason = take_slice(d);
	if (d->version >= 4) {
		take_rcpts(d, copy);
		know_copy(&d->packed, copy);
	}
	take_edits(d, env, copy);
	if (d->version < 4)
		take_rcpts(d, copy);
}

/* Since version 4 most envelopes have none, and that takes one byte. */
static struct id
take_origin(struct decoder *d)
{
	uint64_t bytes = d->version >= 4 ? take_number(d) : sizeof(((struct id *)0)->bytes);

	if (bytes == 0)
		return (struct id){ 0 };
	if (bytes != sizeof(((struct id *)0)->bytes))
		fail(d, ERR_FORMAT, "an origin of no known length");
	return take_id(d);
}

static void
take_head(struct decoder *d, struct envelope *env)
{
	struct slice received;
	uint64_t flags;

	env->id = take_id(d);
	env->origin = take_origin(d);
	received = take(d, 8);
	env->received_ms = received.len == 8 ? (int64_t)le64_get(received.p) : 0;
	flags = take_number(d);
	if (flags > UINT32_MAX)
		fail(d, ERR_FORMAT, "flags over 32 bits");
	if (d->version < 2 && flags >= ENVELOPE_BINARY)
		fail(d, ERR_FORMAT, "flags that its version does not know");
	env->flags = (uint32_t)flags;
	env->size = take_number(d);
	env->reverse_path = take_slice(d);
	env->params = take_slice(d);
	env->client_ip = take_slice(d);
	env->client_addr = take_slice(d);
	env->helo = take_slice(d);
	env->auth_user = take_slice(d);
	env->listener = take_slice(d);
	env->release_key = take_slice(d);
	if (env->client_addr.len != 0 && env->client_addr.len != 4 && env->client_addr.len != 16)
		fail(d, ERR_FORMAT, "a client address of no known length");
}

static void
take_about(struct decoder *d, struct envelope *env)
{
	struct slice tells = take(d, 1);
	size_t n;

	if (!d->failed && d->version >= 4 && (uint8_t)tells.p[0] == ENVELOPE_TELLS_NOTHING)
		return;
	if (!d->failed && ((uint8_t)tells.p[0] == ENVELOPE_TELLS_NOTHING ||
			      (uint8_t)tells.p[0] > ENVELOPE_TELLS_LATE))
		fail(d, ERR_FORMAT, "tells nothing that is known");
	n = take_count(d, ENVELOPE_RCPTS_MAX, 1, "tells of too many recipients");
	env->about = take_room(d, n, sizeof(*env->about));
	for (size_t i = 0; i < n && !d->failed; i++) {
		uint64_t ordinal = take_number(d);

		if (ordinal >= ENVELOPE_RCPTS_MAX)
			fail(d, ERR_FORMAT, "tells of a recipient that cannot be");
		else
			env->about[i] = (uint32_t)ordinal;
	}
	env->n_about = d->failed ? 0 : n;
	env->tells = d->failed ? ENVELOPE_TELLS_NOTHING : (enum envelope_tells)tells.p[0];
}

static int
check_version(struct slice bytes, struct err *err)
{
	uint8_t version = bytes.len > 0 ? (uint8_t)bytes.p[0] : 0;

	if (version == 0)
		return err_set(err, ERR_FORMAT, "envelope: no version");
	if (version > ENVELOPE_VERSION)
		return err_set(err, ERR_VERSION,
		    "envelope: written by a newer relayd (format %u, this one knows %d)", version,
		    ENVELOPE_VERSION);
	return 0;
}

int
envelope_peek_id(struct slice bytes, struct id *id, struct err *err)
{
	if (check_version(bytes, err) < 0)
		return -1;
	if (bytes.len < 1 + sizeof(id->bytes))
		return err_set(err, ERR_FORMAT, "envelope: cut short");
	memcpy(id->bytes, bytes.p + 1, sizeof(id->bytes));
	return 0;
}

int
envelope_decode(struct slice bytes, struct arena *arena, struct envelope *env, struct err *err)
{
	struct decoder d;
	size_t n;

	*env = (struct envelope){ 0 };
	if (bytes.len > ENVELOPE_BYTES_MAX)
		return err_set(err, ERR_LIMIT, "envelope: over %u bytes", ENVELOPE_BYTES_MAX);
	if (check_version(bytes, err) < 0)
		return -1;
	d.in = slice_drop(bytes, 1);
	d.version = (uint8_t)bytes.p[0];
	d.arena = arena;
	d.err = err;
	d.failed = false;
	d.edits = d.rcpts = 0;
	d.inserts = 0;
	take_head(&d, env);
	packed_begin_read(&d.packed);
	if (d.version >= 4 && !d.failed)
		know_head(&d.packed, env);
	n = take_count(&d, ENVELOPE_COPIES_MAX, 4, "too many copies");
	env->copies = take_room(&d, n, sizeof(*env->copies));
	for (size_t i = 0; i < n && !d.failed; i++)
		take_copy(&d, env, &env->copies[i]);
	env->n_copies = d.failed ? 0 : n;
	if (d.version >= 3)
		take_about(&d, env);
	if (d.in.len > 0)
		fail(&d, ERR_FORMAT, "bytes behind its end");
	return d.failed ? -1 : 0;
}

uint64_t
envelope_copy_size(const struct envelope *env, const struct envelope_copy *copy)
{
	uint64_t size = env->size;

	for (size_t i = 0; i < copy->n_edits; i++)
		size = size - copy->edits[i].remove + copy->edits[i].insert.len;
	return size;
}

struct envelope_walk
envelope_walk_of(const struct envelope *env, const struct envelope_copy *copy)
{
	return (struct envelope_walk){ .env = env, .copy = copy };
}

static bool
range(struct envelope_walk *walk, uint64_t end, struct envelope_run *run)
{
	*run =
	    (struct envelope_run){ .literal = SLICE(""), .from = walk->at, .len = end - walk->at };
	walk->at = end;
	return true;
}

bool
envelope_walk_next(struct envelope_walk *walk, struct envelope_run *run)
{
	const struct envelope_copy *copy = walk->copy;

	while (walk->next_edit < copy->n_edits) {
		const struct envelope_edit *edit = &copy->edits[walk->next_edit];

		if (walk->at < edit->at)
			return range(walk, edit->at, run);
		if (!walk->inserted && edit->insert.len > 0) {
			walk->inserted = true;
			*run = (struct envelope_run){ .literal = edit->insert };
			return true;
		}
		walk->at = edit->at + edit->remove;
		walk->inserted = false;
		walk->next_edit++;
	}
	return walk->at < walk->env->size && range(walk, walk->env->size, run);
}
