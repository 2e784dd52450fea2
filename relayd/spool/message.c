/* relayd/spool/message.c - the bytes of one message on their way into the log. */
#include "relayd/spool/message.h"

#include "relayd/core/counters.h"

#include <stdio.h>
#include <stdlib.h>

#define MEM_FIRST  8192u
#define MEM_STAGE  (16u << 10) /* what a message in a file holds while memory is short */
#define HEAD_BYTES (RECORD_HEAD_BYTES + SPOOLDIR_META_BYTES)

static void
count_memory(struct message_home *home, size_t before, size_t after)
{
	home->in_flight += after - before;
	counter_set(COUNTER_BYTES_IN_FLIGHT, (int64_t)home->in_flight);
}

struct spool_msg *
message_new(struct message_home *home, uint64_t max_bytes, struct err *err)
{
	struct spool_msg *msg = calloc(1, sizeof(*msg));

	if (msg == NULL) {
		err_set(err, ERR_NOMEM, "no memory for a message");
		return NULL;
	}
	msg->home = home;
	msg->type = SPOOLDIR_MESSAGE;
	msg->max_bytes = max_bytes;
	msg->head = buf_heap(HEAD_BYTES + SPOOLDIR_COPY_BYTES + ENVELOPE_BYTES_MAX + RECORD_ALIGN);
	return msg;
}

static void
unmap(struct spool_msg *msg)
{
	io_unmap(msg->map, (size_t)msg->size);
	msg->map = NULL;
}

void
message_free(struct spool_msg *msg)
{
	unmap(msg);
	if (msg->file != NULL && spooldir_is_tmp(io_name(msg->file)))
		(void)io_unlink(msg->home->log, io_name(msg->file), NULL); /* or the adopter */
	io_close(msg->file);
	count_memory(msg->home, msg->cap, 0);
	free(msg->mem);
	buf_fini(&msg->head);
	XXH3_freeState(msg->sum);
	free(msg);
}

static int
resize(struct spool_msg *msg, size_t cap, struct err *err)
{
	char *mem = realloc(msg->mem, cap + RECORD_ALIGN);

	if (mem == NULL)
		return err_set(err, ERR_NOMEM, "no memory for a message of %zu bytes", cap);
	count_memory(msg->home, msg->cap, cap);
	msg->mem = mem;
	msg->cap = cap;
	return 0;
}

/* Writes what is in memory behind what is in the file. */
static int
file_flush(struct spool_msg *msg, struct err *err)
{
	const struct iovec iov = { .iov_base = msg->mem, .iov_len = msg->len };

	if (msg->len == 0)
		return 0;
	if (io_write(msg->file, &iov, 1, msg->filed, err) < 0)
		return -1;
	XXH3_64bits_update(msg->sum, msg->mem, msg->len);
	msg->filed += msg->len;
	msg->len = 0;
	return 0;
}

static bool
memory_short(const struct message_home *home)
{
	return home->memory > 0 && home->in_flight > home->memory;
}

/* From here on the message is a file, and memory only what stands before it. */
static int
become_file(struct spool_msg *msg, struct err *err)
{
	char name[IO_NAME_MAX];

	(void)snprintf(name, sizeof(name), "m%llu.tmp", (unsigned long long)msg->home->next_tmp++);
	msg->sum = XXH3_createState();
	if (msg->sum == NULL)
		return err_set(err, ERR_NOMEM, "no memory for a message");
	XXH3_64bits_reset_withSeed(msg->sum, spooldir_file_seed(msg->home->log_id));
	msg->file = io_create(msg->home->log, name, err);
	if (msg->file == NULL || file_flush(msg, err) < 0)
		return -1;
	if (memory_short(msg->home) && msg->cap > MEM_STAGE)
		return resize(msg, MEM_STAGE, err);
	return 0;
}

/* Room in memory for one byte at least. */
static int
make_room(struct spool_msg *msg, size_t want, struct err *err)
{
	uint64_t cap = msg->cap > 0 ? msg->cap : MEM_FIRST;

	if (msg->file != NULL)
		return msg->len < msg->cap ? 0 : file_flush(msg, err);
	while (cap - msg->len < want && cap < SPOOL_INLINE_MAX)
		cap *= 2;
	if (msg->len < SPOOL_INLINE_MAX && !memory_short(msg->home))
		return cap > msg->cap ? resize(msg, (size_t)cap, err) : 0;
	if (msg->cap == 0 && resize(msg, MEM_FIRST, err) < 0)
		return -1;
	return become_file(msg, err);
}

char *
message_room(struct spool_msg *msg, size_t want, size_t *room, struct err *err)
{
	uint64_t left = msg->max_bytes - msg->size;

	if (left == 0) {
		err_set(err, ERR_LIMIT, "the message is over %llu bytes",
		    (unsigned long long)msg->max_bytes);
		return NULL;
	}
	unmap(msg);
	if (msg->cap - msg->len < want && make_room(msg, want, err) < 0)
		return NULL;
	*room = msg->cap - msg->len;
	if (*room > left)
		*room = (size_t)left;
	return msg->mem + msg->len;
}

int
message_peek(struct spool_msg *msg, struct slice *bytes, struct err *err)
{
	*bytes = slice_of(msg->mem, msg->len);
	if (msg->file == NULL || msg->size == 0)
		return 0;
	if (file_flush(msg, err) < 0)
		return -1;
	if (msg->map == NULL)
		msg->map = io_map(msg->file, (size_t)msg->size, false, err);
	*bytes = slice_of(msg->map, (size_t)msg->size);
	return msg->map != NULL ? 0 : -1;
}

/* In memory a message is padded in the record behind it, in a file the envelope is. */
static size_t
padding(const struct spool_msg *msg)
{
	uint64_t bytes = msg->head.len + (msg->file == NULL ? msg->len : 0);

	return (size_t)(record_bytes((size_t)bytes - RECORD_HEAD_BYTES) - bytes);
}

int
message_seal(struct spool_msg *msg, const struct envelope *env, struct err *err)
{
	struct envelope sized = *env;
	struct spooldir_meta meta = { .in_file = msg->file != NULL };
	char *room = buf_room(&msg->head, HEAD_BYTES);

	unmap(msg);
	if (msg->file != NULL && file_flush(msg, err) < 0)
		return -1;
	if (msg->len == 0 && resize(msg, 0, err) < 0) /* no more than the padding */
		return -1;
	sized.size = msg->size;
	msg->id = env->id;
	if (room != NULL)
		buf_commit(&msg->head, HEAD_BYTES);
	envelope_encode(&sized, &msg->head);
	if (msg->head.overflow || msg->head.len - HEAD_BYTES > ENVELOPE_BYTES_MAX)
		return err_set(err, ERR_LIMIT, "the envelope is over %u bytes", ENVELOPE_BYTES_MAX);
	meta.envelope_bytes = (uint32_t)(msg->head.len - HEAD_BYTES);
	if (msg->file != NULL) {
		meta.file_bytes = msg->size;
		meta.file_sum = XXH3_64bits_digest(msg->sum);
	}
	spooldir_meta_encode(&meta, (uint8_t *)msg->head.p + RECORD_HEAD_BYTES);
	return 0;
}

/* Its record is as the one it is made of, behind a note of where that stands. */
static int
seal_copy(struct spool_msg *msg, const struct spool_source *source, struct err *err)
{
	struct spooldir_meta meta = { .in_file = source->in_file,
		.envelope_bytes = (uint32_t)source->envelope.len,
		.file_bytes = source->file_bytes,
		.file_sum = source->file_sum };
	char *room = buf_room(&msg->head, HEAD_BYTES + SPOOLDIR_COPY_BYTES);

	if (resize(msg, source->body.len, err) < 0)
		return -1;
	memcpy(msg->mem, source->body.p, source->body.len);
	msg->len = source->body.len;
	if (room != NULL) {
		spooldir_copy_encode(&source->copy, (uint8_t *)room + RECORD_HEAD_BYTES);
		spooldir_meta_encode(
		    &meta, (uint8_t *)room + RECORD_HEAD_BYTES + SPOOLDIR_COPY_BYTES);
		buf_commit(&msg->head, HEAD_BYTES + SPOOLDIR_COPY_BYTES);
	}
	buf_put(&msg->head, source->envelope);
	return msg->head.overflow ? err_set(err, ERR_NOMEM, "no memory for a copy") : 0;
}

struct spool_msg *
message_of_source(struct message_home *home, const struct spool_source *source, struct err *err)
{
	struct spool_msg *msg = message_new(home, source->body.len, err);

	if (msg == NULL)
		return NULL;
	msg->type = SPOOLDIR_COPY;
	msg->id = source->id;
	msg->file_dir = source->file_dir;
	if (seal_copy(msg, source, err) == 0)
		return msg;
	message_free(msg);
	return NULL;
}

bool
message_has_file(const struct spool_msg *msg)
{
	return msg->file != NULL || msg->file_dir != NULL;
}

/* What an earlier attempt left under that name is the same file. */
static int
link_file(struct spool_msg *msg, const char *name, struct err *err)
{
	(void)io_unlink(msg->home->log, name, NULL); /* most often there is none */
	return io_link(msg->file_dir, name, msg->home->log, name, err);
}

int
message_keep_file(struct spool_msg *msg, struct err *err)
{
	char name[SPOOLDIR_MESSAGE_NAME_BYTES];

	spooldir_message_name(msg->id, name);
	if (msg->file_dir != NULL)
		return link_file(msg, name, err);
	return io_sync(msg->file, err) < 0 || io_rename(msg->file, name, err) < 0 ? -1 : 0;
}

void
message_drop_file(struct spool_msg *msg)
{
	char name[SPOOLDIR_MESSAGE_NAME_BYTES];

	spooldir_message_name(msg->id, name);
	if (msg->file_dir != NULL)
		(void)io_unlink(msg->home->log, name, NULL); /* or the adopter */
	else if (msg->file != NULL)
		(void)io_unlink(msg->home->log, io_name(msg->file), NULL); /* or the adopter */
}

uint64_t
message_record_bytes(const struct spool_msg *msg)
{
	return msg->head.len + (msg->file == NULL ? msg->len : 0) + padding(msg);
}

int
message_record(struct spool_msg *msg, const struct record_file *file,
    const struct record_place *place, struct iovec iov[static 2])
{
	struct slice parts[2] = {
		slice_drop(buf_slice(&msg->head), RECORD_HEAD_BYTES),
		slice_of(msg->mem, msg->len),
	};
	size_t pad = padding(msg);

	record_head(file, place, parts, msg->file == NULL ? 2 : 1, (uint8_t *)msg->head.p);
	memset(msg->mem + msg->len, 0, pad);
	iov[0] = (struct iovec){ .iov_base = msg->head.p, .iov_len = msg->head.len };
	iov[1] = (struct iovec){ .iov_base = msg->mem, .iov_len = msg->len + pad };
	return 2;
}
