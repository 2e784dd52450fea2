/* relayd/spool/spooldir.c - the spool directory: what lies where, its version, its one owner. */
#include "relayd/spool/spooldir.h"

#include "relayd/core/clock.h"
#include "relayd/core/le.h"

#include <errno.h>
#include <stdio.h>
#include <time.h>

#define FORMAT       "format"
#define FORMAT_WORDS "relayd spool "
#define LOCK_POLL_MS 20

/* The format file appears whole or not at all, however many processes start at once. */
static int
write_format(struct io_dir *root, struct err *err)
{
	char text[64], tmp[IO_NAME_MAX], id[ID_TEXT_LEN + 1];
	struct iovec iov = { .iov_base = text };
	struct io_file *file;
	int rc = -1;

	id_text(id_new(), id);
	(void)snprintf(tmp, sizeof(tmp), "%s.tmp", id);
	iov.iov_len = (size_t)snprintf(text, sizeof(text), FORMAT_WORDS "%d\n", SPOOLDIR_VERSION);
	file = io_create(root, tmp, err);
	if (file != NULL && io_write(file, &iov, 1, 0, err) == 0 && io_sync(file, err) == 0 &&
	    io_rename(file, FORMAT, err) == 0 && io_sync_dir(root, err) == 0)
		rc = 0;
	else if (file != NULL)
		(void)io_unlink(root, tmp, NULL); /* a stray name does no harm */
	io_close(file);
	return rc;
}

static int
check_format(struct io_dir *root, uint64_t *is, struct err *err)
{
	char text[64];
	struct io_file *file = io_open(root, FORMAT, false, err);
	ssize_t n = file != NULL ? io_read(file, text, sizeof(text), 0, err) : -1;
	struct slice words = slice_of(text, n > 0 ? (size_t)n : 0);
	uint64_t version;

	io_close(file);
	if (n < 0)
		return -1;
	if (!slice_starts(words, SLICE(FORMAT_WORDS)) || !slice_chop(&words, "\n") ||
	    !slice_u64(slice_drop(words, sizeof(FORMAT_WORDS) - 1), UINT32_MAX, &version) ||
	    version == 0)
		return err_set(err, ERR_DAMAGED,
		    "%s/" FORMAT " does not say \"" FORMAT_WORDS "%d\"", io_dir_path(root),
		    SPOOLDIR_VERSION);
	if (version > SPOOLDIR_VERSION)
		return err_set(err, ERR_VERSION,
		    "%s/" FORMAT ": the spool belongs to a newer relayd (format %llu, this one "
		    "knows %d)",
		    io_dir_path(root), (unsigned long long)version, SPOOLDIR_VERSION);
	*is = version;
	return 0;
}

static int
check_or_write_format(struct io_dir *root, struct err *err)
{
	struct err why = { 0 };
	uint64_t version = 0;

	/* Older files are read as they are; an older relayd must not read what comes from here
	 * on. */
	if (check_format(root, &version, &why) == 0 && version == SPOOLDIR_VERSION)
		return 0;
	if (version == 0 && why.code != ERR_NOT_FOUND) {
		if (err != NULL)
			*err = why;
		return -1;
	}
	if (write_format(root, err) < 0)
		return -1;
	return check_format(root, &version, err);
}

int
spooldir_open(struct spooldir *dir, const char *path, struct err *err)
{
	*dir = (struct spooldir){ .root = io_dir_make(path, err) };
	if (dir->root == NULL || check_or_write_format(dir->root, err) < 0 ||
	    (dir->spare = io_dir_make_at(dir->root, "spare", err)) == NULL ||
	    (dir->damaged = io_dir_make_at(dir->root, "damaged", err)) == NULL ||
	    (dir->journal = io_dir_make_at(dir->root, "journal", err)) == NULL ||
	    io_sync_dir(dir->root, err) < 0) {
		spooldir_close(dir);
		return -1;
	}
	return 0;
}

int
spooldir_open_readonly(struct spooldir *dir, const char *path, struct err *err)
{
	uint64_t version;

	*dir = (struct spooldir){ .root = io_dir_open(path, err) };
	if (dir->root == NULL || check_format(dir->root, &version, err) < 0) {
		spooldir_close(dir);
		return -1;
	}
	dir->journal = io_dir_open_at(dir->root, "journal", NULL); /* or there is none yet */
	return 0;
}

static void
sleep_ms(int64_t ms)
{
	struct timespec pause = { .tv_nsec = (long)(ms * 1000000) };

	(void)nanosleep(&pause, NULL); /* woken early it only asks sooner */
}

int
spooldir_lock(struct spooldir *dir, int64_t wait_ms, struct err *err)
{
	int64_t deadline = clock_mono_ms() + wait_ms;
	struct err why = { 0 };
	struct io_file *file = io_create(dir->root, SPOOLDIR_LOCK, &why);

	if (file == NULL && why.code == ERR_EXISTS)
		file = io_open(dir->root, SPOOLDIR_LOCK, true, &why);
	while (file != NULL && io_lock(file, &why) < 0) {
		if (why.code != ERR_BUSY || clock_mono_ms() >= deadline) {
			io_close(file);
			file = NULL;
		} else
			sleep_ms(LOCK_POLL_MS);
	}
	if (file == NULL && err != NULL)
		*err = why;
	dir->lock = file;
	return file != NULL ? 0 : -1;
}

void
spooldir_close(struct spooldir *dir)
{
	io_close(dir->lock);
	io_dir_close(dir->spare);
	io_dir_close(dir->damaged);
	io_dir_close(dir->journal);
	io_dir_close(dir->root);
	*dir = (struct spooldir){ 0 };
}

uint64_t
spooldir_page_check(uint64_t durable, uint64_t segment)
{
	return ~(durable * 0x9e3779b97f4a7c15u ^ segment);
}

void
spooldir_segment_name(uint32_t number, char out[static SPOOLDIR_SEGMENT_NAME_BYTES])
{
	(void)snprintf(out, SPOOLDIR_SEGMENT_NAME_BYTES, "%08x.seg", number); /* fits */
}

bool
spooldir_segment_number(const char *name, uint32_t *number)
{
	struct slice s = slice_str(name);
	uint64_t n = 0;

	if (!slice_chop(&s, ".seg") || s.len != 8)
		return false;
	for (size_t i = 0; i < s.len; i++) {
		const char *digits = "0123456789abcdef", *hit = strchr(digits, s.p[i]);

		if (hit == NULL)
			return false;
		n = n << 4 | (uint64_t)(hit - digits);
	}
	*number = (uint32_t)n;
	return n > 0;
}

void
spooldir_message_name(struct id id, char out[static SPOOLDIR_MESSAGE_NAME_BYTES])
{
	id_text(id, out);
	memcpy(out + ID_TEXT_LEN, ".msg", sizeof(".msg"));
}

bool
spooldir_message_id(const char *name, struct id *id)
{
	struct slice s = slice_str(name);

	return slice_chop(&s, ".msg") && id_parse(s, id);
}

bool
spooldir_is_tmp(const char *name)
{
	return slice_ends(slice_str(name), SLICE(".tmp"));
}

/* flags 4, envelope bytes 4, file bytes 8, file sum 8 */
enum { META_IN_FILE = 1 };

uint64_t
spooldir_file_seed(struct id log)
{
	return le64_get(log.bytes + 8);
}

void
spooldir_meta_encode(const struct spooldir_meta *meta, uint8_t out[static SPOOLDIR_META_BYTES])
{
	le32_put(out, meta->in_file ? META_IN_FILE : 0);
	le32_put(out + 4, meta->envelope_bytes);
	le64_put(out + 8, meta->file_bytes);
	le64_put(out + 16, meta->file_sum);
}

int
spooldir_meta_peek(struct slice start, size_t payload, struct spooldir_meta *meta, struct err *err)
{
	uint32_t flags;

	if (start.len < SPOOLDIR_META_BYTES || payload < SPOOLDIR_META_BYTES)
		return err_set(err, ERR_FORMAT, "a message's record cut short");
	flags = le32_get(start.p);
	meta->in_file = flags == META_IN_FILE;
	meta->envelope_bytes = le32_get(start.p + 4);
	meta->file_bytes = le64_get(start.p + 8);
	meta->file_sum = le64_get(start.p + 16);
	payload -= SPOOLDIR_META_BYTES;
	if (flags > META_IN_FILE || meta->envelope_bytes > payload ||
	    (meta->in_file && meta->envelope_bytes != payload))
		return err_set(err, ERR_FORMAT, "a message's record of no known form");
	return 0;
}

int
spooldir_meta_decode(struct slice payload, struct spooldir_meta *meta, struct slice *envelope,
    struct slice *body, struct err *err)
{
	struct slice rest = slice_drop(payload, SPOOLDIR_META_BYTES);

	if (spooldir_meta_peek(payload, payload.len, meta, err) < 0)
		return -1;
	*envelope = slice_head(rest, meta->envelope_bytes);
	*body = slice_drop(rest, meta->envelope_bytes);
	return 0;
}

/* log 16, segment 4, place 4, file seed 8 */
void
spooldir_copy_encode(const struct spooldir_copy *copy, uint8_t out[static SPOOLDIR_COPY_BYTES])
{
	memcpy(out, copy->log.bytes, sizeof(copy->log.bytes));
	le32_put(out + 16, copy->segment);
	le32_put(out + 20, copy->place);
	le64_put(out + 24, copy->file_seed);
}

int
spooldir_copy_take(struct slice *payload, struct spooldir_copy *copy, struct err *err)
{
	if (payload->len < SPOOLDIR_COPY_BYTES)
		return err_set(err, ERR_FORMAT, "the record of a copy cut short");
	memcpy(copy->log.bytes, payload->p, sizeof(copy->log.bytes));
	copy->segment = le32_get(payload->p + 16);
	copy->place = le32_get(payload->p + 20);
	copy->file_seed = le64_get(payload->p + 24);
	*payload = slice_drop(*payload, SPOOLDIR_COPY_BYTES);
	return 0;
}

int
spooldir_message_decode(
    uint16_t type, struct slice payload, struct spooldir_message *m, struct err *err)
{
	*m = (struct spooldir_message){ .is_copy = type == SPOOLDIR_COPY };
	if (type != SPOOLDIR_MESSAGE && type != SPOOLDIR_COPY)
		return err_set(err, ERR_FORMAT, "a record of no message");
	if (m->is_copy && spooldir_copy_take(&payload, &m->copy, err) < 0)
		return -1;
	return spooldir_meta_decode(payload, &m->meta, &m->envelope, &m->body, err);
}
