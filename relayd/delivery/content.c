/* relayd/delivery/content.c - keeps messages in memory for as long as somebody works on them. */
#include "relayd/delivery/content.h"

#include "relayd/core/record.h"

#include <stdlib.h>

#define ARENA_MAX   (24u << 20) /* an envelope of ENVELOPE_BYTES_MAX, decoded, and a body */
#define FREE_MAX    64
#define SMALL_BYTES (64u << 10) /* what was larger is not kept for the next one */

void
contents_init(struct contents *cs, uv_loop_t *loop, struct reader *reader)
{
	*cs = (struct contents){
		.loop = loop, .reader = reader, .record = buf_heap(RECORD_PAYLOAD_MAX + 4096)
	};
}

void
contents_fini(struct contents *cs)
{
	struct content *c;

	while ((c = cs->free) != NULL) {
		cs->free = c->next;
		arena_fini(&c->arena);
		free(c);
	}
	buf_fini(&cs->record);
	*cs = (struct contents){ 0 };
}

static struct content *
take_free(struct contents *cs)
{
	struct content *c = cs->free;

	if (c != NULL) {
		cs->free = c->next;
		cs->n_free--;
	} else if ((c = calloc(1, sizeof(*c))) != NULL) {
		c->arena = arena_of(ARENA_MAX);
	}
	return c;
}

static void
give_free(struct content *c)
{
	struct contents *cs = c->owner;
	bool keep = cs->n_free < FREE_MAX && c->arena.used <= SMALL_BYTES;

	if (!keep) {
		arena_fini(&c->arena);
		free(c);
		return;
	}
	arena_reset(&c->arena);
	c->next = cs->free;
	cs->free = c;
	cs->n_free++;
}

struct content *
content_of(struct contents *cs, const struct reader_item *item, struct err *err)
{
	struct content *c = take_free(cs);

	if (c == NULL) {
		err_set(err, ERR_NOMEM, "message");
		return NULL;
	}
	*c = (struct content){ .owner = cs, .refs = 1, .arena = c->arena };
	if (envelope_decode(item->envelope, &c->arena, &c->env, err) < 0)
		goto fail;
	c->body = arena_copy(&c->arena, item->body);
	if (c->body.p == NULL) {
		err_set(err, ERR_NOMEM, "message");
		goto fail;
	}
	c->bytes = c->arena.used;
	cs->bytes += c->bytes;
	return c;
fail:
	give_free(c);
	return NULL;
}

bool
content_has_room(const struct contents *cs)
{
	return cs->bytes < CONTENT_KEPT_BYTES;
}

struct content *
content_fetch(struct contents *cs, struct index_msg *msg, struct err *err)
{
	struct reader_item item;

	if (reader_fetch(cs->reader, msg, &cs->record, &item, err) < 0)
		return NULL;
	return content_of(cs, &item, err);
}

struct content *
content_ref(struct content *c)
{
	c->refs++;
	return c;
}

void
content_unref(struct content *c)
{
	if (c == NULL || --c->refs > 0)
		return;
	reader_body_close(c->owner->reader, c->file);
	c->file = NULL;
	c->owner->bytes -= c->bytes;
	give_free(c);
}

int
content_open(struct content *c, struct index_msg *msg, struct err *err)
{
	if (!msg->in_file || c->file != NULL)
		return 0;
	c->file = reader_body_open(c->owner->reader, msg, err);
	return c->file != NULL ? 0 : -1;
}

bool
content_rcpt(const struct content *c, uint32_t ordinal, const struct envelope_copy **copy,
    const struct envelope_rcpt **rcpt)
{
	size_t left = ordinal;

	for (size_t i = 0; i < c->env.n_copies; i++) {
		*copy = &c->env.copies[i];
		if (left < (*copy)->n_rcpts) {
			*rcpt = &(*copy)->rcpts[left];
			return true;
		}
		left -= (*copy)->n_rcpts;
	}
	return false;
}

/* ---- reading large messages -------------------------------------------------------------- */

static void
read_in_pool(uv_work_t *work)
{
	struct content_read *req = container_of(work, struct content_read, work);

	if (req->verify && reader_body_verify(req->content->file, &req->err) < 0)
		return;
	/* on_read() hands req->err on */
	(void)reader_body_read(req->content->file, req->at, req->out, req->n, &req->err);
}

static void
on_read(uv_work_t *work, int status)
{
	struct content_read *req = container_of(work, struct content_read, work);
	struct content *c = req->content;

	if (status == UV_ECANCELED)
		(void)err_set(&req->err, ERR_CANCELLED, "cancelled");
	req->content = NULL;
	content_unref(c);
	req->done(req, req->err.code != ERR_NONE ? &req->err : NULL); /* may free req */
}

int
content_read_start(struct content_read *req, struct err *err)
{
	int rc;

	req->err = (struct err){ 0 };
	rc = uv_queue_work(req->content->owner->loop, &req->work, read_in_pool, on_read);
	if (rc < 0)
		return err_sys(err, -rc, "read a message");
	content_ref(req->content);
	return 0;
}
