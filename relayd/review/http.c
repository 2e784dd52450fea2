/* relayd/review/http.c - GET /metrics and GET /health for monitoring; nothing else is here. */
#include "relayd/review/http.h"

#include "relayd/core/clock.h"
#include "relayd/review/guests.h"
#include "relayd/review/http_request.h"

#include <stdlib.h>

struct http {
	struct http_options options;
	struct guests guests;
};

struct client {
	struct guest guest; /* first: see guests.h */
	bool over;
};

/* ---- what there is to see -------------------------------------------------------------------- */

static unsigned
count_alive(const struct counters_page *pages, const char *role, int64_t now_ms)
{
	unsigned n = 0;

	for (size_t i = 0; i < COUNTERS_PAGES; i++) {
		const struct counters_page *page = &pages[i];

		if (atomic_load(&page->started_ms) != 0 &&
		    strncmp(page->role, role, sizeof(page->role)) == 0 &&
		    now_ms - atomic_load(&page->beat_ms) < HTTP_STUCK_MS)
			n++;
	}
	return n;
}

bool
http_health(const struct counters_page *pages, unsigned workers, bool store_failing, int64_t now_ms,
    struct buf *out)
{
	const struct {
		const char *role;
		unsigned want;
	} roles[] = { { "intake", workers }, { "delivery", 1 }, { "review", 1 } };
	bool good = !store_failing;

	buf_puts(out, "{\"roles\":{");
	for (size_t i = 0; i < ARRAY_LEN(roles); i++) {
		unsigned alive = count_alive(pages, roles[i].role, now_ms);

		good = good && alive >= roles[i].want;
		buf_printf(out, "%s\"%s\":{\"alive\":%u,\"wanted\":%u}", i > 0 ? "," : "",
		    roles[i].role, alive, roles[i].want);
	}
	buf_printf(out, "},\"quarantine\":\"%s\",\"status\":\"%s\"}\n",
	    store_failing ? "failing" : "ok", good ? "ok" : "unhealthy");
	return good;
}

static void
respond(struct client *c, unsigned status, const char *type, struct slice body,
    const struct http_request *req)
{
	struct buf *out = stream_out(c->guest.stream);

	http_response_head(out, status, type, body.len, req->keep);
	if (!req->head)
		buf_put(out, body);
}

static void
serve(struct client *c, const struct http_request *req)
{
	const struct http_options *o = &container_of(c->guest.all, struct http, guests)->options;
	struct buf body = buf_heap(HTTP_BODY_MAX);
	unsigned status = 200;

	if (slice_eq(req->path, SLICE("/metrics"))) {
		counters_render(o->pages, &body);
		respond(c, 200, "text/plain; version=0.0.4; charset=utf-8", buf_slice(&body), req);
	} else if (slice_eq(req->path, SLICE("/health"))) {
		if (!http_health(
			o->pages, o->workers, store_failing(o->store), clock_wall_ms(), &body))
			status = 503;
		respond(c, status, "application/json", buf_slice(&body), req);
	} else {
		respond(c, 404, "text/plain", SLICE("here are /metrics and /health\n"), req);
	}
	buf_fini(&body);
}

/* ---- connections ----------------------------------------------------------------------------- */

static void
end(struct client *c)
{
	c->over = true;
	stream_end(c->guest.stream);
}

static void
refuse(struct client *c, unsigned status)
{
	struct http_request req = { 0 };
	struct buf body = buf_heap(256);

	buf_printf(&body, "%s\n", http_reason(status));
	respond(c, status, "text/plain", buf_slice(&body), &req);
	buf_fini(&body);
	if (status != 408)
		counter_add(COUNTER_BAD_COMMANDS, 1);
	end(c);
}

static size_t
on_read(struct stream *stream, void *owner, struct slice bytes)
{
	struct client *c = owner;
	struct slice in = bytes;
	struct http_request req;
	unsigned status;

	while (!c->over && stream_pending(stream) < HTTP_OUT_HIGH && in.len > 0) {
		status = http_request_take(&in, &req);
		if (status == 0)
			break;
		if (status != 200) {
			refuse(c, status);
			break;
		}
		stream_deadline(stream, clock_mono_ms() + HTTP_IDLE_MS);
		serve(c, &req);
		if (!req.keep || c->guest.all->draining)
			end(c);
	}
	if (!c->over && in.len > 0 && stream_pending(stream) >= HTTP_OUT_HIGH)
		stream_pause(stream); /* until the answers are fetched */
	return c->over ? bytes.len : bytes.len - in.len;
}

static void
on_drain(struct stream *stream, void *owner)
{
	(void)owner;
	stream_resume(stream);
}

static void
on_deadline(struct stream *stream, void *owner)
{
	struct client *c = owner;

	if (stream_pending(stream) > 0)
		stream_close(stream); /* a reader that does not read */
	else if (stream_kept(stream) > 0)
		refuse(c, 408);
	else
		end(c);
}

static void
on_close(struct stream *stream, void *owner, const struct err *why)
{
	struct client *c = owner;

	(void)stream;
	guest_leaves(&c->guest, why);
	guest_free(&c->guest);
}

static const struct stream_ops ops = {
	.on_read = on_read,
	.on_drain = on_drain,
	.on_deadline = on_deadline,
	.on_close = on_close,
};

static void
on_begin(struct guest *guest)
{
	stream_deadline(guest->stream, clock_mono_ms() + HTTP_IDLE_MS);
}

static void
on_goodbye(struct guest *guest)
{
	struct client *c = container_of(guest, struct client, guest);

	if (!c->over)
		end(c);
}

static const struct guests_service service = {
	.name = "http",
	.bytes = sizeof(struct client),
	.told = false, /* monitoring comes and goes */
	.stream = &ops,
	.on_begin = on_begin,
	.on_goodbye = on_goodbye,
};

struct http *
http_open(const struct http_options *options, struct err *err)
{
	struct http *h = calloc(1, sizeof(*h));

	if (h == NULL) {
		(void)err_set(err, ERR_NOMEM, "http: out of memory");
		return NULL;
	}
	h->options = *options;
	guests_init(&h->guests, &service, options->loop, options->visitors);
	return h;
}

struct guests *
http_guests(struct http *h)
{
	return &h->guests;
}

void
http_free(struct http *h)
{
	free(h);
}
