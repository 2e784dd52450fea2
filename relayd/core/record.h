/* relayd/core/record.h - the format of every append-only file: segments, journal, traces.
 *
 * A file is a header (magic, version, kind, a random nonce, where the file before it ended) and
 * records behind it.  Both sums of a record are keyed by the nonce and by where it stands, so that
 * no message body can pose as a record and no recycled block as a message.  All pure: bytes in,
 * records out.
 *
 *	file	magic 8, version 4, kind 4, nonce 16, number 8, base 8, created 8, sum 8
 *	record	head sum 8, payload sum 8, payload bytes 4, type 2, gap 2, payload, zeros
 *
 * Numbers are little-endian.  A record starts at a multiple of RECORD_ALIGN; gap is how many more
 * such units the next one is away than it had to be.
 */
#ifndef RELAYD_CORE_RECORD_H
#define RELAYD_CORE_RECORD_H

#include "relayd/core/buf.h"
#include "relayd/core/err.h"

#define RECORD_VERSION     3 /* also of what the records hold */
#define RECORD_FILE_BYTES  64 /* the header of a file */
#define RECORD_HEAD_BYTES  24
#define RECORD_ALIGN       8
#define RECORD_GAP_MAX     (0xffffu * RECORD_ALIGN)
#define RECORD_PAYLOAD_MAX (8u << 20)

enum record_kind { RECORD_SEGMENT = 1, RECORD_JOURNAL, RECORD_SNAPSHOT, RECORD_TRACE };

/* What the header of a file says; also the key of its records. */
struct record_file {
	enum record_kind kind;
	uint64_t number;    /* of the file in its series */
	uint64_t base;      /* where the one before ended, in bytes of the whole series */
	int64_t created_ms; /* wall clock */
	uint8_t nonce[16];
};

/* A header with a fresh nonce and the time. */
struct record_file record_file_new(enum record_kind kind, uint64_t number, uint64_t base);
void record_file_encode(const struct record_file *file, uint8_t out[static RECORD_FILE_BYTES]);
/* ERR_VERSION for a newer one, whatever else it holds; ERR_DAMAGED for anything but a whole header
 * of this kind. */
int record_file_decode(
    struct slice bytes, enum record_kind kind, struct record_file *file, struct err *err);

/* Bytes of a record with that payload, up to where the next may start. */
static inline uint64_t
record_bytes(size_t payload)
{
	return (RECORD_HEAD_BYTES + (uint64_t)payload + RECORD_ALIGN - 1) &
	       ~(uint64_t)(RECORD_ALIGN - 1);
}

/* The head of the record at offset at of file, its payload being parts one after the other
 * (together at most RECORD_PAYLOAD_MAX).  gap: bytes to leave behind it, a multiple of
 * RECORD_ALIGN. */
struct record_place {
	uint64_t at;
	uint16_t type;
	uint32_t gap;
};
void record_head(const struct record_file *file, const struct record_place *place,
    const struct slice *parts, size_t n_parts, uint8_t out[static RECORD_HEAD_BYTES]);
/* Appends a whole record, to stand at offset at of file, to out. */
void record_append(const struct record_file *file, uint64_t at, uint16_t type, struct slice payload,
    struct buf *out);

/* The same, the next record standing at a multiple of block bytes (itself one of RECORD_ALIGN): so
 * that what is synced shares no block with what is written later. */
void record_append_block(const struct record_file *file, const struct record_place *place,
    struct slice payload, uint32_t block, struct buf *out);

struct record {
	uint64_t at;   /* in the file */
	uint64_t next; /* where the next one starts */
	uint16_t type;
	struct slice payload; /* in the window */
};

/* Checks the one record whose bytes these are.  ERR_DAMAGED. */
int record_check(const struct record_file *file, uint64_t at, struct slice bytes,
    struct record *rec, struct err *err);

/* Checks a head alone, and gives the type and bytes of the payload behind it.  ERR_DAMAGED. */
int record_check_head(const struct record_file *file, uint64_t at, struct slice head,
    uint16_t *type, size_t *payload, struct err *err);

enum record_event {
	RECORD_MORE,   /* load scanner.need bytes or more at scanner.at, or the last there are */
	RECORD_WHOLE,  /* *rec */
	RECORD_DAMAGE, /* rec->at to rec->next was a record once, or others follow it */
	RECORD_END,    /* no whole record follows scanner.at */
};

/* Walks the records of a file, whatever it holds.  A bad record is damage when it begins below
 * `durable`, or when a whole one follows it; else it is the tail that nobody was promised, and
 * scanner.at stands at its start when RECORD_END is given.  After that, more may be read when
 * the file has grown. */
struct record_scanner {
	const struct record_file *file; /* borrowed */
	uint64_t at;                    /* what comes next */
	uint64_t durable;               /* may be raised at any time */
	size_t need;
	uint64_t bad_from; /* where the bytes began that are no record, or RECORD_NOWHERE */
};
#define RECORD_NOWHERE UINT64_MAX

struct record_window {
	uint64_t at; /* <= scanner.at */
	struct slice bytes;
	bool last; /* the file holds nothing behind it */
};

struct record_scanner record_scanner_of(
    const struct record_file *file, uint64_t at, uint64_t durable);
enum record_event record_scan(
    struct record_scanner *sc, const struct record_window *win, struct record *rec);

#endif
