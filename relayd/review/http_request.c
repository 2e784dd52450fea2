/* relayd/review/http_request.c - one request of HTTP/1.1 (RFC 9112), as far as /metrics and /health
 * need it. */
#include "relayd/review/http_request.h"

/* Takes a line off the front of *in; only CRLF ends one (RFC 9112 section 2.2 allows us to ask for
 * it). */
static bool
take_line(struct slice *in, struct slice *line)
{
	*line = slice_until(*in, '\n');
	*in = slice_drop(*in, line->len + 1);
	return slice_chop(line, "\r") && !slice_has(*line, '\r') && !slice_has(*line, '\0');
}

static bool
is_token(struct slice s)
{
	for (size_t i = 0; i < s.len; i++) {
		char c = slice_lower(s.p[i]);

		if (!((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ||
			strchr("!#$%&'*+-.^_`|~", c) != NULL))
			return false;
	}
	return s.len > 0;
}

static unsigned
request_line(struct slice line, struct http_request *req, bool *is_1_1)
{
	struct slice method = slice_until(line, ' '), target, version;

	line = slice_drop(line, method.len + 1);
	target = slice_until(line, ' ');
	version = slice_drop(line, target.len + 1);
	if (!is_token(method) || target.len == 0 || !slice_starts(version, SLICE("HTTP/")))
		return 400;
	*is_1_1 = slice_eq(version, SLICE("HTTP/1.1"));
	if (!*is_1_1 && !slice_eq(version, SLICE("HTTP/1.0")))
		return 505;
	req->head = slice_eq(method, SLICE("HEAD"));
	if (!req->head && !slice_eq(method, SLICE("GET")))
		return 405;
	if (target.p[0] != '/')
		return 400;
	req->path = slice_until(target, '?');
	return 200;
}

/* What the fields say that matters: everything else is passed over. */
struct fields {
	unsigned hosts;
	bool content, close, keep_alive;
};

static bool
field(struct slice line, struct fields *f)
{
	struct slice name = slice_until(line, ':');
	struct slice value = slice_trim(slice_drop(line, name.len + 1));

	if (name.len == line.len || !is_token(name))
		return false;
	if (slice_ieq(name, SLICE("Host")))
		f->hosts++;
	else if (slice_ieq(name, SLICE("Content-Length")))
		f->content = f->content || !slice_eq(value, SLICE("0"));
	else if (slice_ieq(name, SLICE("Transfer-Encoding")))
		f->content = true;
	else if (slice_ieq(name, SLICE("Connection"))) {
		f->close = f->close || slice_ieq(value, SLICE("close"));
		f->keep_alive = f->keep_alive || slice_ieq(value, SLICE("keep-alive"));
	}
	return true;
}

/* Where the head ends, or 0 when it is not all there. */
static size_t
head_length(struct slice in)
{
	size_t at = slice_find(in, SLICE("\r\n\r\n"));

	return at < in.len ? at + 4 : 0;
}

static unsigned
no_head_yet(struct slice in)
{
	if (slice_until(in, '\n').len > HTTP_LINE_MAX)
		return 414;
	return in.len >= HTTP_HEAD_MAX ? 431 : 0;
}

unsigned
http_request_take(struct slice *in, struct http_request *req)
{
	size_t length = head_length(*in);
	struct slice head = slice_head(*in, length), line;
	struct fields f = { 0 };
	bool is_1_1;
	unsigned status;

	*req = (struct http_request){ .path = SLICE("") };
	if (length == 0)
		return no_head_yet(*in);
	if (length > HTTP_HEAD_MAX)
		return 431;
	if (!take_line(&head, &line))
		return 400;
	if (line.len > HTTP_LINE_MAX)
		return 414;
	status = request_line(line, req, &is_1_1);
	while (status == 200 && head.len > 2)
		if (!take_line(&head, &line) || !field(line, &f))
			status = 400;
	if (status != 200)
		return status;
	if (f.content)
		return 413;
	if (f.hosts > 1 || (is_1_1 && f.hosts != 1)) /* RFC 9112 section 3.2 */
		return 400;
	req->keep = !f.close && (is_1_1 || f.keep_alive);
	*in = slice_drop(*in, length);
	return 200;
}

const char *
http_reason(unsigned status)
{
	static const struct {
		unsigned status;
		const char *reason;
	} reasons[] = {
		{ 200, "OK" },
		{ 400, "Bad Request" },
		{ 404, "Not Found" },
		{ 405, "Method Not Allowed" },
		{ 408, "Request Timeout" },
		{ 413, "Content Too Large" },
		{ 414, "URI Too Long" },
		{ 431, "Request Header Fields Too Large" },
		{ 503, "Service Unavailable" },
		{ 505, "HTTP Version Not Supported" },
	};

	for (size_t i = 0; i < ARRAY_LEN(reasons); i++)
		if (reasons[i].status == status)
			return reasons[i].reason;
	return "Error";
}

void
http_response_head(struct buf *out, unsigned status, const char *type, size_t length, bool keep)
{
	buf_printf(out, "HTTP/1.1 %u %s\r\nContent-Length: %zu\r\nCache-Control: no-store\r\n",
	    status, http_reason(status), length);
	if (type != NULL)
		buf_printf(out, "Content-Type: %s\r\n", type);
	if (status == 405)
		buf_puts(out, "Allow: GET, HEAD\r\n"); /* RFC 9110 section 15.5.6 */
	buf_puts(out, keep ? "\r\n" : "Connection: close\r\n\r\n");
}
