/* relayd/review/http.h - GET /metrics and GET /health for monitoring; nothing else is here.
 *
 * /metrics is the Prometheus text format over the counters of all roles.  /health is 200 or 503
 * with one JSON object: 503 while a role is missing or stuck, or the quarantine cannot be written.
 */
#ifndef RELAYD_REVIEW_HTTP_H
#define RELAYD_REVIEW_HTTP_H

#include "relayd/core/counters.h"
#include "relayd/review/guests.h"
#include "relayd/review/store.h"
#include "relayd/review/visitors.h"

#define HTTP_IDLE_MS  30000        /* for a request to come */
#define HTTP_STUCK_MS 30000        /* a role that has not gone round for so long is stuck */
#define HTTP_BODY_MAX (4u << 20)   /* of a response */
#define HTTP_OUT_HIGH (256u << 10) /* output that waits: no further request is looked at */

struct http;

struct http_options {
	uv_loop_t *loop;
	const struct counters_page *pages;
	struct store *store;
	struct visitors *visitors;
	unsigned workers; /* intake processes that there should be */
};

struct http *http_open(const struct http_options *options, struct err *err);
/* Its connections.  Drained, idle ones go at once; a response that is on its way is finished. */
struct guests *http_guests(struct http *h);
void http_free(struct http *h); /* when it has no guests; accepts NULL */

/* The content of /health, for tests; true for 200. */
bool http_health(const struct counters_page *pages, unsigned workers, bool store_failing,
    int64_t now_ms, struct buf *out);

#endif
