/* tests/unit/spool/rig.c - a loop, a spool in it, and messages that can be told apart. */
#include "unit/spool/rig.h"

#include "relayd/spool/syncer.h"
#include "unit/unit.h"

#include <stdio.h>
#include <stdlib.h>

void
rig_init(struct rig *rig)
{
	*rig = (struct rig){ 0 };
	syncer_use(SYNCER_IN_LOOP); /* the same steps every time */
	ck_assert_int_eq(uv_loop_init(&rig->loop), 0);
}

void
rig_run(struct rig *rig)
{
	for (int i = 0; i < 8; i++)
		(void)uv_run(&rig->loop, UV_RUN_NOWAIT);
}

void
rig_close(struct rig *rig)
{
	reader_close(rig->reader);
	journal_close(rig->journal);
	spooldir_close(&rig->dir);
	rig->reader = NULL;
	rig->journal = NULL;
}

void
rig_fini(struct rig *rig)
{
	rig_close(rig);
	rig_run(rig);
	ck_assert_int_eq(uv_loop_close(&rig->loop), 0);
}

int
rig_open(struct rig *rig, struct err *err)
{
	if (spooldir_open(&rig->dir, RIG_DIR, err) == 0 && spooldir_lock(&rig->dir, 0, err) == 0 &&
	    (rig->journal = journal_open(&rig->loop, &rig->dir, err)) != NULL &&
	    (rig->reader = reader_open(&rig->dir, rig->journal, err)) != NULL)
		return 0;
	rig_close(rig);
	return -1;
}

struct spool *
rig_spool(struct rig *rig, uint64_t segment_bytes, struct err *err)
{
	const struct spool_settings set = {
		.segment_bytes = segment_bytes > 0 ? segment_bytes : 1 << 20,
	};

	return spool_open(&rig->loop, RIG_DIR, &set, err);
}

void
rig_fill(char *out, uint32_t number, size_t size)
{
	size_t n = (size_t)snprintf(out, size, "message %010u of %010zu bytes\r\n", number, size);
	uint32_t x = number * 2654435761u + (uint32_t)size;

	for (size_t i = n < size ? n : size; i < size; i++)
		out[i] = (char)('a' + ((i * 7 + (i >> 9) * 3 + x) & 15));
}

bool
rig_is_body(struct slice body, uint32_t *number)
{
	char *expected;
	bool same;
	size_t size;

	if (body.len < 64 || sscanf(body.p, "message %u of %zu bytes", number, &size) != 2 ||
	    size != body.len)
		return false;
	expected = malloc(size);
	ck_assert_ptr_nonnull(expected);
	rig_fill(expected, *number, size);
	same = memcmp(expected, body.p, size) == 0;
	free(expected);
	return same;
}

static void
on_done(struct spool_commit *req, const struct err *err)
{
	struct rig_msg *msg = req->data;

	ck_assert(!msg->told);
	msg->told = true;
	msg->code = err->code;
}

void
rig_watch(struct spool_commit *req, struct rig_msg *msg)
{
	*req = (struct spool_commit){ .done = on_done, .data = msg };
}

int
rig_send(struct spool *sp, struct rig_msg *msg, uint32_t number, size_t size)
{
	struct envelope_rcpt rcpt = { SLICE("bob@example.org"), SLICE("") };
	struct envelope_copy copy = { .reason = SLICE(""), .rcpts = &rcpt, .n_rcpts = 1 };
	struct envelope env = { .id = id_new(),
		.reverse_path = SLICE("a@example.com"),
		.params = SLICE(""),
		.client_ip = SLICE("192.0.2.1"),
		.client_addr = SLICE(""),
		.helo = SLICE("mx"),
		.auth_user = SLICE(""),
		.listener = SLICE("l"),
		.release_key = SLICE(""),
		.copies = &copy,
		.n_copies = 1 };
	struct err err = { 0 };
	struct spool_msg *draft = spool_begin(sp, SPOOL_BYTES_MAX, &err);
	char *bytes = malloc(size);

	*msg = (struct rig_msg){ .id = env.id, .number = number, .size = size };
	ck_assert_ptr_nonnull(bytes);
	rig_fill(bytes, number, size);
	if (draft == NULL || spool_write(draft, slice_of(bytes, size), &err) < 0) {
		msg->code = err.code;
		spool_abort(draft);
		free(bytes);
		return -1;
	}
	free(bytes);
	rig_watch(&msg->req, msg);
	spool_commit(&msg->req, draft, &env);
	ck_assert(!msg->told);
	return 0;
}

char *
rig_body(struct rig *rig, const struct reader_item *item, size_t *size, struct err *err)
{
	struct reader_body *body = reader_body_open(rig->reader, item->msg, err);
	char *bytes;

	if (body == NULL)
		return NULL;
	*size = (size_t)reader_body_size(body);
	bytes = malloc(*size + 1);
	ck_assert_ptr_nonnull(bytes);
	if (reader_body_read(body, 0, bytes, *size, err) < 0 || reader_body_verify(body, err) < 0) {
		free(bytes);
		bytes = NULL;
	}
	reader_body_close(rig->reader, body);
	if (bytes != NULL && !item->msg->in_file)
		ck_assert(slice_eq(slice_of(bytes, *size), item->body));
	return bytes;
}

void
rig_sync(struct rig *rig)
{
	journal_flush(rig->journal);
	rig_run(rig);
}
