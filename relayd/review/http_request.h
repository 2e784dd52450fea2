/* relayd/review/http_request.h - one request of HTTP/1.1 (RFC 9112), as far as /metrics and /health
 * need it.
 *
 * Strict: what is not a plain GET or HEAD without content is refused by a status, and the
 * connection ends.
 */
#ifndef RELAYD_REVIEW_HTTP_REQUEST_H
#define RELAYD_REVIEW_HTTP_REQUEST_H

#include "relayd/core/buf.h"

#define HTTP_HEAD_MAX 8192 /* bytes of request line and fields: 431 */
#define HTTP_LINE_MAX 2048 /* of the request line: 414 */

struct http_request {
	struct slice path; /* without the query; points into the input */
	bool head;         /* HEAD: no content in the response */
	bool keep;         /* the connection stays open */
};

/* Takes a request off the front of *in.  200: it is there; 0: more bytes are needed, *in is as it
 * was; else the status that refuses it: then nothing more may be read. */
unsigned http_request_take(struct slice *in, struct http_request *req);

/* Appends status line and fields.  type may be NULL for none; keep as the request said. */
void http_response_head(
    struct buf *out, unsigned status, const char *type, size_t length, bool keep);
const char *http_reason(unsigned status);

#endif
