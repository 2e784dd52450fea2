/* relayd/spool/reader_body.c - the bytes of a message, whenever they are wanted again. */
#include "relayd/spool/reader.h"

#include "relayd/spool/reader_log.h"

#include <stdlib.h>
#include <xxhash.h>

#define VERIFY_BYTES (256u << 10)

struct reader_body {
	struct io_file *file;          /* of the segment, or its own */
	struct index_segment *segment; /* whose handle it holds */
	bool own_file;
	uint64_t at, size; /* of the message in the file */
	/* for reader_body_verify() */
	struct record_file header;
	uint64_t record_at, file_seed, file_sum;
	uint32_t record_bytes;
};

static struct reader_segment *
segment_of(const struct index_msg *msg, struct err *err)
{
	struct reader_log *rl = msg->segment->log->reader;

	if (rl != NULL)
		return reader_segment_open(rl, msg->segment, err);
	err_set(err, ERR_NOT_FOUND, "the log of the message is gone");
	return NULL;
}

static uint64_t
offset_of(const struct index_msg *msg)
{
	return (uint64_t)msg->place * RECORD_ALIGN;
}

int
reader_fetch_record(
    struct index_msg *msg, struct buf *out, struct spooldir_message *parts, struct err *err)
{
	struct reader_segment *rs = segment_of(msg, err);
	struct record rec;
	char *room;
	ssize_t n;

	if (rs == NULL)
		return -1;
	buf_reset(out);
	room = buf_room(out, msg->bytes);
	if (room == NULL)
		return err_set(err, ERR_LIMIT, "no room for a record of %u bytes", msg->bytes);
	n = io_read(rs->file, room, msg->bytes, offset_of(msg), err);
	if (n < 0)
		return -1;
	buf_commit(out, (size_t)n);
	if (record_check(&rs->header, offset_of(msg), buf_slice(out), &rec, err) < 0)
		return -1;
	return spooldir_message_decode(rec.type, rec.payload, parts, err);
}

int
reader_fetch(struct reader *r, struct index_msg *msg, struct buf *out, struct reader_item *item,
    struct err *err)
{
	struct spooldir_message parts;

	(void)r; /* msg knows its log; r keeps it */
	if (reader_fetch_record(msg, out, &parts, err) < 0)
		return -1;
	*item = (struct reader_item){ msg, parts.envelope, parts.body };
	return 0;
}

static int
open_own_file(
    struct reader_body *body, const struct index_msg *msg, uint64_t bytes, struct err *err)
{
	struct reader_log *rl = msg->segment->log->reader;
	char name[SPOOLDIR_MESSAGE_NAME_BYTES];
	uint64_t size;

	spooldir_message_name(msg->id, name);
	body->file = io_open(rl->dir, name, false, err);
	if (body->file == NULL)
		return -1;
	body->own_file = true;
	body->size = bytes;
	if (io_size(body->file, &size, err) < 0)
		return -1;
	if (size == bytes)
		return 0;
	return err_set(err, ERR_DAMAGED, "%s has %llu bytes instead of %llu", name,
	    (unsigned long long)size, (unsigned long long)bytes);
}

/* What stands before the envelope. */
static int
read_front(struct reader_body *body, size_t *front, struct spooldir_meta *meta, size_t *payload,
    struct err *err)
{
	uint8_t bytes[RECORD_HEAD_BYTES + SPOOLDIR_COPY_BYTES + SPOOLDIR_META_BYTES];
	ssize_t n = io_read(body->file, bytes, sizeof(bytes), body->record_at, err);
	struct slice rest = slice_of(bytes, n > 0 ? (size_t)n : 0);
	struct spooldir_copy copy;
	uint16_t type;

	if (n < 0 ||
	    record_check_head(&body->header, body->record_at, rest, &type, payload, err) < 0)
		return -1;
	rest = slice_drop(rest, RECORD_HEAD_BYTES);
	*front = RECORD_HEAD_BYTES + SPOOLDIR_META_BYTES;
	body->file_seed = spooldir_file_seed(body->segment->log->id);
	if (type == SPOOLDIR_COPY && *payload >= SPOOLDIR_COPY_BYTES) {
		if (spooldir_copy_take(&rest, &copy, err) < 0)
			return -1;
		*front += SPOOLDIR_COPY_BYTES;
		*payload -= SPOOLDIR_COPY_BYTES;
		body->file_seed = copy.file_seed;
	}
	return spooldir_meta_peek(rest, *payload, meta, err);
}

static int
find_bytes(struct reader_body *body, const struct index_msg *msg, struct err *err)
{
	struct spooldir_meta meta;
	size_t front, payload;

	if (read_front(body, &front, &meta, &payload, err) < 0)
		return -1;
	body->at = body->record_at + front + meta.envelope_bytes;
	body->size = payload - SPOOLDIR_META_BYTES - meta.envelope_bytes;
	body->file_sum = meta.file_sum;
	if (!meta.in_file)
		return 0;
	body->file = NULL;
	body->at = 0;
	return open_own_file(body, msg, meta.file_bytes, err);
}

struct reader_body *
reader_body_open(struct reader *r, struct index_msg *msg, struct err *err)
{
	struct reader_segment *rs = segment_of(msg, err);
	struct reader_body *body = rs != NULL ? calloc(1, sizeof(*body)) : NULL;

	if (body == NULL) {
		if (rs != NULL)
			err_set(err, ERR_NOMEM, "no memory for a message");
		return NULL;
	}
	body->file = rs->file;
	body->header = rs->header;
	body->segment = msg->segment;
	body->segment->bodies++;
	body->record_at = offset_of(msg);
	body->record_bytes = msg->bytes;
	if (find_bytes(body, msg, err) == 0)
		return body;
	reader_body_close(r, body);
	return NULL;
}

void
reader_body_close(struct reader *r, struct reader_body *body)
{
	if (body == NULL)
		return;
	if (body->own_file)
		io_close(body->file);
	body->segment->bodies--;
	r->sweep_wanted = true;
	free(body);
}

uint64_t
reader_body_size(const struct reader_body *body)
{
	return body->size;
}

int
reader_body_read(const struct reader_body *body, uint64_t at, void *out, size_t n, struct err *err)
{
	ssize_t got = io_read(body->file, out, n, body->at + at, err);

	if (got < 0)
		return -1;
	return (size_t)got == n
		   ? 0
		   : err_set(err, ERR_DAMAGED, "%s ends too early", io_name(body->file));
}

static int
verify_file(const struct reader_body *body, char *room, struct err *err)
{
	XXH3_state_t *sum = XXH3_createState();
	uint64_t at = 0;
	int rc = sum != NULL ? 0 : err_set(err, ERR_NOMEM, "no memory to verify a message");

	if (sum != NULL)
		XXH3_64bits_reset_withSeed(sum, body->file_seed);
	while (rc == 0 && at < body->size) {
		size_t n =
		    body->size - at < VERIFY_BYTES ? (size_t)(body->size - at) : VERIFY_BYTES;

		rc = reader_body_read(body, at, room, n, err);
		if (rc == 0)
			XXH3_64bits_update(sum, room, n);
		at += n;
	}
	if (rc == 0 && XXH3_64bits_digest(sum) != body->file_sum)
		rc = err_set(err, ERR_DAMAGED, "%s does not fit its checksum", io_name(body->file));
	XXH3_freeState(sum);
	return rc;
}

static int
verify_record(const struct reader_body *body, char *room, struct err *err)
{
	ssize_t n = io_read(body->file, room, body->record_bytes, body->record_at, err);
	struct record rec;

	if (n < 0)
		return -1;
	return record_check(&body->header, body->record_at, slice_of(room, (size_t)n), &rec, err);
}

int
reader_body_verify(const struct reader_body *body, struct err *err)
{
	char *room = malloc(body->own_file ? VERIFY_BYTES : body->record_bytes);
	int rc;

	if (room == NULL)
		return err_set(err, ERR_NOMEM, "no memory to verify a message");
	rc = body->own_file ? verify_file(body, room, err) : verify_record(body, room, err);
	free(room);
	return rc;
}
