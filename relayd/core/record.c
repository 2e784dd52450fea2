/* relayd/core/record.c - the format of every append-only file: segments, journal, traces. */
#include "relayd/core/record.h"

#include "relayd/core/clock.h"
#include "relayd/core/le.h"
#include "relayd/core/siphash.h"

#include <assert.h>
#include <stdlib.h>
#include <sys/random.h>
#define XXH_STATIC_LINKING_ONLY /* a state on the stack */
#include <xxhash.h>

#define MAGIC "relaydLG"

/* Where things stand in the header of a file, */
enum {
	FILE_VERSION = 8,
	FILE_KIND = 12,
	FILE_NONCE = 16,
	FILE_NUMBER = 32,
	FILE_BASE = 40,
	FILE_CREATED = 48,
	FILE_SUM = 56,
};
/* and in that of a record. */
enum {
	HEAD_SUM = 0,
	HEAD_PAYLOAD_SUM = 8,
	HEAD_BYTES = 16,
	HEAD_TYPE = 20,
	HEAD_GAP = 22,
};

struct record_file
record_file_new(enum record_kind kind, uint64_t number, uint64_t base)
{
	struct record_file file = {
		.kind = kind, .number = number, .base = base, .created_ms = clock_wall_ms()
	};

	if (getrandom(file.nonce, sizeof(file.nonce), 0) != (ssize_t)sizeof(file.nonce))
		abort(); /* without random numbers a body could pose as a record */
	return file;
}

void
record_file_encode(const struct record_file *file, uint8_t out[static RECORD_FILE_BYTES])
{
	memcpy(out, MAGIC, FILE_VERSION);
	le32_put(out + FILE_VERSION, RECORD_VERSION);
	le32_put(out + FILE_KIND, (uint32_t)file->kind);
	memcpy(out + FILE_NONCE, file->nonce, sizeof(file->nonce));
	le64_put(out + FILE_NUMBER, file->number);
	le64_put(out + FILE_BASE, file->base);
	le64_put(out + FILE_CREATED, (uint64_t)file->created_ms);
	le64_put(out + FILE_SUM, siphash(file->nonce, slice_of(out, FILE_SUM)));
}

int
record_file_decode(
    struct slice bytes, enum record_kind kind, struct record_file *file, struct err *err)
{
	uint32_t version;

	if (bytes.len < RECORD_FILE_BYTES || memcmp(bytes.p, MAGIC, FILE_VERSION) != 0)
		return err_set(err, ERR_DAMAGED, "no header of a relayd file");
	version = le32_get(bytes.p + FILE_VERSION);
	if (version > RECORD_VERSION)
		return err_set(err, ERR_VERSION,
		    "written by a newer relayd (format %u, this one knows %d)", version,
		    RECORD_VERSION);
	memcpy(file->nonce, bytes.p + FILE_NONCE, sizeof(file->nonce));
	if (version == 0 ||
	    le64_get(bytes.p + FILE_SUM) != siphash(file->nonce, slice_head(bytes, FILE_SUM)))
		return err_set(err, ERR_DAMAGED, "the header does not fit its checksum");
	if (le32_get(bytes.p + FILE_KIND) != (uint32_t)kind)
		return err_set(err, ERR_DAMAGED, "a relayd file of another kind");
	file->kind = kind;
	file->number = le64_get(bytes.p + FILE_NUMBER);
	file->base = le64_get(bytes.p + FILE_BASE);
	file->created_ms = (int64_t)le64_get(bytes.p + FILE_CREATED);
	return 0;
}

/* The sum of a head covers its own fields and its place.  It takes the nonce to make one, and it
 * covers the payload's sum: so that one need not be safe against forgers by itself. */
static uint64_t
head_sum(const struct record_file *file, uint64_t at, const uint8_t *head)
{
	uint8_t keyed[RECORD_HEAD_BYTES];
	uint64_t sum;

	memcpy(keyed, head + HEAD_PAYLOAD_SUM, RECORD_HEAD_BYTES - HEAD_PAYLOAD_SUM);
	le64_put(keyed + RECORD_HEAD_BYTES - HEAD_PAYLOAD_SUM, at);
	sum = siphash(file->nonce, slice_of(keyed, sizeof(keyed)));
	return sum != 0 ? sum : 1; /* 0 says at a glance that nothing was written here */
}

/* Of a payload, so that the same bytes elsewhere, left by an older file, do not fit. */
static uint64_t
payload_seed(const struct record_file *file, uint64_t at)
{
	return le64_get(file->nonce) ^ (at * 0x9e3779b97f4a7c15u);
}

static uint64_t
payload_sum(uint64_t seed, const struct slice *parts, size_t n_parts)
{
	XXH3_state_t state;

	if (n_parts == 1)
		return XXH3_64bits_withSeed(parts->p, parts->len, seed);
	XXH3_64bits_reset_withSeed(&state, seed);
	for (size_t i = 0; i < n_parts; i++)
		XXH3_64bits_update(&state, parts[i].p, parts[i].len);
	return XXH3_64bits_digest(&state);
}

void
record_head(const struct record_file *file, const struct record_place *place,
    const struct slice *parts, size_t n_parts, uint8_t out[static RECORD_HEAD_BYTES])
{
	size_t bytes = 0;

	for (size_t i = 0; i < n_parts; i++)
		bytes += parts[i].len;
	assert(bytes <= RECORD_PAYLOAD_MAX && place->gap <= RECORD_GAP_MAX &&
	       place->at % RECORD_ALIGN == 0 && place->gap % RECORD_ALIGN == 0);
	le64_put(
	    out + HEAD_PAYLOAD_SUM, payload_sum(payload_seed(file, place->at), parts, n_parts));
	le32_put(out + HEAD_BYTES, (uint32_t)bytes);
	le16_put(out + HEAD_TYPE, place->type);
	le16_put(out + HEAD_GAP, (uint16_t)(place->gap / RECORD_ALIGN));
	le64_put(out + HEAD_SUM, head_sum(file, place->at, out));
}

static void
append(const struct record_file *file, const struct record_place *place, struct slice payload,
    struct buf *out)
{
	uint64_t used = RECORD_HEAD_BYTES + payload.len;
	uint64_t bytes = record_bytes(payload.len) + place->gap;
	char *room = buf_room(out, bytes);

	if (room == NULL)
		return; /* out->overflow says so */
	record_head(file, place, &payload, 1, (uint8_t *)room);
	memcpy(room + RECORD_HEAD_BYTES, payload.p, payload.len);
	memset(room + used, 0, bytes - used);
	buf_commit(out, bytes);
}

void
record_append(const struct record_file *file, uint64_t at, uint16_t type, struct slice payload,
    struct buf *out)
{
	append(file, &(struct record_place){ .at = at, .type = type }, payload, out);
}

void
record_append_block(const struct record_file *file, const struct record_place *place,
    struct slice payload, uint32_t block, struct buf *out)
{
	struct record_place padded = *place;
	uint64_t end = place->at + record_bytes(payload.len);

	padded.gap = (uint32_t)((block - end % block) % block);
	append(file, &padded, payload, out);
}

/* Fills *rec, its payload not yet there, from a head that is whole. */
static bool
head_fits(
    const struct record_file *file, uint64_t at, const char *p, struct record *rec, size_t *payload)
{
	const uint8_t *head = (const uint8_t *)p;
	uint64_t sum = le64_get(head + HEAD_SUM);

	*payload = le32_get(head + HEAD_BYTES);
	if (sum == 0 || *payload > RECORD_PAYLOAD_MAX || sum != head_sum(file, at, head))
		return false;
	rec->at = at;
	rec->type = le16_get(head + HEAD_TYPE);
	rec->next =
	    at + record_bytes(*payload) + (uint64_t)le16_get(head + HEAD_GAP) * RECORD_ALIGN;
	return true;
}

/* Fills the payload from bytes, which start at the head and hold all of it. */
static bool
payload_fits(const struct record_file *file, struct slice bytes, size_t payload, struct record *rec)
{
	const struct slice body = slice_head(slice_drop(bytes, RECORD_HEAD_BYTES), payload);

	rec->payload = body;
	return payload_sum(payload_seed(file, rec->at), &body, 1) ==
	       le64_get(bytes.p + HEAD_PAYLOAD_SUM);
}

int
record_check(const struct record_file *file, uint64_t at, struct slice bytes, struct record *rec,
    struct err *err)
{
	size_t payload;

	if (bytes.len >= RECORD_HEAD_BYTES && head_fits(file, at, bytes.p, rec, &payload) &&
	    bytes.len - RECORD_HEAD_BYTES >= payload && payload_fits(file, bytes, payload, rec))
		return 0;
	return err_set(err, ERR_DAMAGED, "the record at %llu does not fit its checksum",
	    (unsigned long long)at);
}

int
record_check_head(const struct record_file *file, uint64_t at, struct slice head, uint16_t *type,
    size_t *payload, struct err *err)
{
	struct record rec;

	if (head.len >= RECORD_HEAD_BYTES && head_fits(file, at, head.p, &rec, payload)) {
		*type = rec.type;
		return 0;
	}
	return err_set(err, ERR_DAMAGED, "the head of the record at %llu does not fit its checksum",
	    (unsigned long long)at);
}

struct record_scanner
record_scanner_of(const struct record_file *file, uint64_t at, uint64_t durable)
{
	return (struct record_scanner){
		.file = file, .at = at, .durable = durable, .bad_from = RECORD_NOWHERE
	};
}

static void
mark_bad(struct record_scanner *sc)
{
	if (sc->bad_from == RECORD_NOWHERE)
		sc->bad_from = sc->at;
}

/* The bytes from bad_from to `to` were a record once. */
static enum record_event
damage(struct record_scanner *sc, uint64_t to, struct record *rec)
{
	*rec = (struct record){ .at = sc->bad_from, .next = to, .payload = SLICE("") };
	sc->bad_from = RECORD_NOWHERE;
	return RECORD_DAMAGE;
}

/* Nothing whole follows: what is bad below durable was promised, the rest was not. */
static enum record_event
finish(struct record_scanner *sc, uint64_t end, struct record *rec)
{
	if (sc->at < sc->durable)
		mark_bad(sc); /* the file ends before what was promised */
	if (sc->bad_from < sc->durable) {
		if (sc->at < end)
			sc->at = end;
		if (sc->at < sc->durable)
			sc->at = sc->durable;
		return damage(sc, sc->at, rec);
	}
	if (sc->bad_from != RECORD_NOWHERE)
		sc->at = sc->bad_from;
	sc->bad_from = RECORD_NOWHERE;
	return RECORD_END;
}

static enum record_event
more(struct record_scanner *sc, size_t need)
{
	sc->need = need;
	return RECORD_MORE;
}

/* Looks at scanner.at, where bytes begins.  RECORD_END: there is no record here, scanner.at moved
 * on. */
static enum record_event
look(struct record_scanner *sc, struct slice bytes, bool last, struct record *rec)
{
	size_t payload;

	if (!head_fits(sc->file, sc->at, bytes.p, rec, &payload)) {
		mark_bad(sc);
		sc->at += RECORD_ALIGN;
		return RECORD_END;
	}
	if (bytes.len - RECORD_HEAD_BYTES < payload && !last)
		return more(sc, RECORD_HEAD_BYTES + payload);
	if (bytes.len - RECORD_HEAD_BYTES < payload ||
	    !payload_fits(sc->file, bytes, payload, rec)) {
		mark_bad(sc);
		sc->at = rec->next; /* the head is whole, so its length can be trusted */
		return RECORD_END;
	}
	if (sc->bad_from != RECORD_NOWHERE)
		return damage(sc, sc->at, rec); /* this one is found again by the next call */
	sc->at = rec->next;
	return RECORD_WHOLE;
}

enum record_event
record_scan(struct record_scanner *sc, const struct record_window *win, struct record *rec)
{
	enum record_event event = RECORD_END;

	while (event == RECORD_END) {
		uint64_t skip = sc->at - win->at;
		struct slice bytes =
		    slice_drop(win->bytes, skip < win->bytes.len ? (size_t)skip : win->bytes.len);

		if (bytes.len < RECORD_HEAD_BYTES && !win->last)
			return more(sc, RECORD_HEAD_BYTES);
		if (bytes.len < RECORD_HEAD_BYTES)
			return finish(sc, win->at + win->bytes.len, rec);
		event = look(sc, bytes, win->last, rec);
	}
	return event;
}
