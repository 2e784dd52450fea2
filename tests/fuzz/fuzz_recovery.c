/* tests/fuzz/fuzz_recovery.c - whatever a crash or a bad disk left in a log or a journal.
 *
 * The first byte says what the rest is:
 *	0  a segment, as it is
 *	1  edits of a whole segment: runs of offset, length, bytes
 *	2  the entries of a journal
 *	3  an envelope
 */
#include "must.h"
#include "relayd/core/le.h"
#include "relayd/core/record.h"
#include "relayd/mail/envelope.h"
#include "relayd/spool/entry.h"
#include "relayd/spool/spooldir.h"

#include <stdlib.h>
#include <xxhash.h>

#define WHOLE_BYTES 8192
#define RECORDS     16

static char whole[WHOLE_BYTES];
static struct record_file key;
static uint64_t starts[RECORDS + 1];

/* Its key depends on the input, so that none holds a record that is right under it: who knows the
 * key can forge one, and from the comparisons that it sees the fuzzer would learn to. */
static void
build(struct slice in)
{
	struct buf out = buf_over(whole, sizeof(whole));
	XXH128_hash_t hash = XXH3_128bits(in.p, in.len);
	char body[512];

	key = (struct record_file){ .kind = RECORD_SEGMENT, .number = 1, .created_ms = 1 };
	memset(whole, 0, sizeof(whole));
	memcpy(key.nonce, &hash, sizeof(key.nonce));
	(void)buf_room(&out, RECORD_FILE_BYTES);
	record_file_encode(&key, (uint8_t *)whole);
	buf_commit(&out, RECORD_FILE_BYTES);
	for (unsigned i = 0; i < RECORDS; i++) {
		starts[i] = out.len;
		memset(body, (int)i, sizeof(body));
		record_append(&key, out.len, (uint16_t)i, slice_of(body, 24 * i), &out);
	}
	starts[RECORDS] = out.len;
}

struct seen {
	uint64_t hash, end;
	unsigned whole, damaged;
	bool here[RECORDS];
};

static void
take(struct seen *s, const struct record *rec)
{
	struct spooldir_meta meta;
	struct slice envelope, body;

	MUST(rec->at >= s->end && rec->next > rec->at);
	MUST(rec->payload.len <= rec->next - rec->at);
	s->hash = s->hash * 31 + rec->at + rec->payload.len + rec->type;
	s->end = rec->next;
	s->whole++;
	for (unsigned i = 0; i < RECORDS; i++)
		s->here[i] = s->here[i] || (rec->at == starts[i] && rec->type == i);
	if (spooldir_meta_decode(rec->payload, &meta, &envelope, &body, NULL) == 0)
		MUST(envelope.len + body.len <= rec->payload.len);
}

/* Reads a whole file in windows of `step` bytes. */
static struct seen
scan(struct slice bytes, const struct record_file *file, uint64_t durable, size_t step)
{
	struct record_scanner sc = record_scanner_of(file, RECORD_FILE_BYTES, durable);
	struct record_window win = { RECORD_FILE_BYTES, SLICE(""), false };
	struct seen s = { .end = RECORD_FILE_BYTES };

	for (;;) {
		struct record rec;
		size_t want;

		switch (record_scan(&sc, &win, &rec)) {
		case RECORD_MORE:
			want = sc.need > step ? sc.need : step;
			MUST(!win.last && sc.need <= RECORD_HEAD_BYTES + RECORD_PAYLOAD_MAX);
			win.at = sc.at;
			win.bytes = slice_head(slice_drop(bytes, (size_t)sc.at), want);
			win.last = sc.at + want >= bytes.len;
			break;
		case RECORD_WHOLE:
			take(&s, &rec);
			break;
		case RECORD_DAMAGE:
			MUST(rec.at >= s.end && rec.next > rec.at);
			s.end = rec.next;
			s.damaged++;
			break;
		case RECORD_END:
			MUST(durable <= s.end || durable <= RECORD_FILE_BYTES || s.damaged > 0);
			return s;
		}
	}
}

/* However it is cut into windows, the same records are found. */
static struct seen
scan_twice(struct slice bytes, const struct record_file *file, uint64_t durable)
{
	struct seen a = scan(bytes, file, durable, 1 << 16), b = scan(bytes, file, durable, 100);

	MUST(a.hash == b.hash && a.whole == b.whole && a.damaged == b.damaged && a.end == b.end);
	return a;
}

static void
fuzz_raw(struct slice in)
{
	struct record_file file;
	struct err err;

	if (record_file_decode(in, RECORD_SEGMENT, &file, &err) < 0) {
		build(in);
		file = key;
	}
	(void)scan_twice(in, &file, 0);
	(void)scan_twice(in, &file, in.len / 2);
}

/* Records that no edit touched are all found; no other is. */
static void
fuzz_edits(struct slice in)
{
	char bytes[WHOLE_BYTES];
	bool touched[RECORDS] = { false };
	struct seen s;

	build(in);
	memcpy(bytes, whole, sizeof(bytes));
	while (in.len >= 4) {
		size_t at = le16_get(in.p) % WHOLE_BYTES, n = (uint8_t)in.p[2];

		in = slice_drop(in, 3);
		n = n < in.len ? n : in.len;
		n = n < WHOLE_BYTES - at ? n : WHOLE_BYTES - at;
		if (at < RECORD_FILE_BYTES)
			n = 0;
		memcpy(bytes + at, in.p, n);
		in = slice_drop(in, n);
	}
	for (unsigned i = 0; i < RECORDS; i++)
		touched[i] =
		    memcmp(bytes + starts[i], whole + starts[i], RECORD_HEAD_BYTES + 24 * i) != 0;
	s = scan_twice(slice_of(bytes, sizeof(bytes)), &key, starts[RECORDS]);
	/* A head that lies about its length would need the key: each is lost by its own fault. */
	for (unsigned i = 0; i < RECORDS; i++)
		MUST(s.here[i] == !touched[i]);
}

static void
fuzz_entries(struct slice in)
{
	struct record_file file = { .kind = RECORD_JOURNAL, .number = 1, .created_ms = 1 };
	struct index ix;
	struct err err = { 0 };
	struct buf out = buf_heap(1 << 24);

	index_init(&ix);
	(void)entry_apply(&ix, in, &err); /* the index is sound either way */
	MUST(err.code == ERR_NONE || err.code == ERR_FORMAT);
	entry_snapshot(&ix, &file, &out);
	MUST(!out.overflow);
	index_fini(&ix);
	MUST(ix.open == 0 && ix.facts == 0);
	buf_fini(&out);
}

/* What decodes, encodes to something that decodes to the same; its copies can be walked. */
static void
fuzz_envelope(struct slice in)
{
	struct arena arena = arena_of(4 << 20), again = arena_of(4 << 20);
	struct buf out = buf_heap(ENVELOPE_BYTES_MAX + 1024),
		   back = buf_heap(ENVELOPE_BYTES_MAX + 1024);
	struct envelope env, twin;
	struct err err;

	if (envelope_decode(in, &arena, &env, &err) == 0) {
		envelope_encode(&env, &out);
		MUST(envelope_decode(buf_slice(&out), &again, &twin, &err) == 0);
		envelope_encode(&twin, &back);
		MUST(slice_eq(buf_slice(&out), buf_slice(&back)));
		for (size_t i = 0; i < env.n_copies; i++) {
			struct envelope_walk walk = envelope_walk_of(&env, &env.copies[i]);
			struct envelope_run run;
			uint64_t total = 0;

			while (envelope_walk_next(&walk, &run)) {
				MUST(run.literal.len > 0 ||
				     (run.len > 0 && run.from + run.len <= env.size));
				total += run.literal.len > 0 ? run.literal.len : run.len;
			}
			MUST(total == envelope_copy_size(&env, &env.copies[i]));
		}
	}
	arena_fini(&arena);
	arena_fini(&again);
	buf_fini(&out);
	buf_fini(&back);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static void (*const targets[])(
	    struct slice in) = { fuzz_raw, fuzz_edits, fuzz_entries, fuzz_envelope };

	if (size > 0)
		targets[data[0] % ARRAY_LEN(targets)](slice_of(data + 1, size - 1));
	return 0;
}
