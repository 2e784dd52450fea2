/* relayd/review/http.c - GET /metrics and GET /health for monitoring; nothing else is here. */
#include "relayd/review/http.h"

#include "relayd/core/clock.h"
#include "relayd/core/log.h"
#include "relayd/net/stream.h"
#include "relayd/review/http_request.h"

#include <stdlib.h>
#include <unistd.h>

struct http {
	struct http_options options;
	struct guest *guests;
	void (*on_drained)(void *arg);
	void *drained_arg;
};

struct guest {
	struct http *http;
	struct guest *next, **prev;
	struct stream *stream;
	uint64_t ticket;
	bool over;
};

/* ---- what there is to see ------------------------------------------------------------------------ */

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
respond(struct guest *g, unsigned status, const char *type, struct slice body,
    const struct http_request *req)
{
	struct buf *out = stream_out(g->stream);

	http_response_head(out, status, type, body.len, req->keep);
	if (!req->head)
		buf_put(out, body);
}

static void
serve(struct guest *g, const struct http_request *req)
{
	const struct http_options *o = &g->http->options;
	struct buf body = buf_heap(HTTP_BODY_MAX);
	unsigned status = 200;

	if (slice_eq(req->path, SLICE("/metrics"))) {
		counters_render(o->pages, &body);
		respond(g, 200, "text/plain; version=0.0.4; charset=utf-8", buf_slice(&body), req);
	} else if (slice_eq(req->path, SLICE("/health"))) {
		if (!http_health(
			o->pages, o->workers, store_failing(o->store), clock_wall_ms(), &body))
			status = 503;
		respond(g, status, "application/json", buf_slice(&body), req);
	} else {
		respond(g, 404, "text/plain", SLICE("here are /metrics and /health\n"), req);
	}
	buf_fini(&body);
}

/* ---- connections ----------------------------------------------------------------------------------- */

static void
end(struct guest *g)
{
	g->over = true;
	stream_end(g->stream);
}

static void
refuse(struct guest *g, unsigned status)
{
	struct http_request req = { 0 };
	struct buf body = buf_heap(256);

	buf_printf(&body, "%s\n", http_reason(status));
	respond(g, status, "text/plain", buf_slice(&body), &req);
	buf_fini(&body);
	if (status != 408)
		counter_add(COUNTER_BAD_COMMANDS, 1);
	end(g);
}

static size_t
on_read(struct stream *stream, void *owner, struct slice bytes)
{
	struct guest *g = owner;
	struct slice in = bytes;
	struct http_request req;
	unsigned status;

	while (!g->over && stream_pending(stream) < HTTP_OUT_HIGH && in.len > 0) {
		status = http_request_take(&in, &req);
		if (status == 0)
			break;
		if (status != 200) {
			refuse(g, status);
			break;
		}
		stream_deadline(stream, clock_mono_ms() + HTTP_IDLE_MS);
		serve(g, &req);
		if (!req.keep || g->http->on_drained != NULL)
			end(g);
	}
	if (!g->over && in.len > 0 && stream_pending(stream) >= HTTP_OUT_HIGH)
		stream_pause(stream); /* until the answers are fetched */
	return g->over ? bytes.len : bytes.len - in.len;
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
	struct guest *g = owner;

	if (stream_pending(stream) > 0)
		stream_close(stream); /* a reader that does not read */
	else if (stream_kept(stream) > 0)
		refuse(g, 408);
	else
		end(g);
}

static void
release(struct guest *g)
{
	struct http *h = g->http;
	void (*done)(void *);

	if (g->next != NULL)
		g->next->prev = g->prev;
	*g->prev = g->next;
	visitors_leave(h->options.visitors, g->ticket);
	free(g);
	if (h->guests != NULL || (done = h->on_drained) == NULL)
		return;
	h->on_drained = NULL;
	done(h->drained_arg);
}

static void
on_close(struct stream *stream, void *owner, const struct err *why)
{
	(void)stream;
	(void)why; /* monitoring comes and goes */
	release(owner);
}

static const struct stream_ops ops = {
	.on_read = on_read,
	.on_drain = on_drain,
	.on_deadline = on_deadline,
	.on_close = on_close,
};

static struct guest *
guest_new(struct http *h, uint64_t ticket)
{
	struct guest *g = calloc(1, sizeof(*g));

	if (g == NULL)
		return NULL;
	g->http = h;
	g->ticket = ticket;
	g->next = h->guests;
	g->prev = &h->guests;
	if (g->next != NULL)
		g->next->prev = &g->next;
	h->guests = g;
	return g;
}

void
http_accept(struct http *h, int fd, const struct sockaddr *peer)
{
	uint64_t ticket = visitors_join(h->options.visitors, peer, "http");
	struct guest *g = ticket != 0 ? guest_new(h, ticket) : NULL;
	struct err err = { 0 };

	if (g == NULL) {
		(void)close(fd); /* nothing that could be lost */
		visitors_leave(h->options.visitors, ticket);
		return;
	}
	g->stream = stream_open(h->options.loop, fd, &ops, g, &err);
	if (g->stream == NULL) {
		log_event("limit", kv_str("what", "http"), kv_err("error", &err));
		release(g);
		return;
	}
	stream_deadline(g->stream, clock_mono_ms() + HTTP_IDLE_MS);
}

struct http *
http_open(const struct http_options *options, struct err *err)
{
	struct http *h = calloc(1, sizeof(*h));

	if (h == NULL) {
		(void)err_set(err, ERR_NOMEM, "http: out of memory");
		return NULL;
	}
	h->options = *options;
	return h;
}

void
http_drain(struct http *h, void (*done)(void *arg), void *arg)
{
	if (h->guests == NULL) {
		done(arg);
		return;
	}
	h->on_drained = done;
	h->drained_arg = arg;
	for (struct guest *g = h->guests; g != NULL; g = g->next)
		if (!g->over)
			end(g);
}

void
http_close(struct http *h)
{
	for (struct guest *g = h->guests; g != NULL; g = g->next)
		stream_close(g->stream);
}

bool
http_is_idle(const struct http *h)
{
	return h->guests == NULL;
}

void
http_free(struct http *h)
{
	free(h);
}
