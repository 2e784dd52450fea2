/* relayd/core/log.c - one line an event, key=value (INTERFACE.md section 5). */
#include "relayd/core/log.h"

#include "relayd/core/buf.h"
#include "relayd/core/clock.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <syslog.h>
#include <unistd.h>

#define LINE_BYTES  4096
#define VALUE_BYTES 600 /* of one value from outside; a longer one ends in "..." */
#define RING_BYTES  (256 * 1024)

static struct {
	enum log_sink sink;
	const char *role;
	int index;
	char *ring;       /* RING_BYTES, from the first line on */
	size_t head, len; /* what is not written yet, in the ring */
	uint64_t dropped, said;
	bool is_file; /* standard error */
} logger = { .role = "relayd", .index = -1 };

/* Printable, and means nothing inside quotes. */
static bool
is_plain(char c)
{
	return c >= ' ' && c < 0x7f && c != '"' && c != '\\';
}

static void
put_escape(struct buf *b, unsigned char c)
{
	if (c == '"' || c == '\\')
		buf_printf(b, "\\%c", c);
	else if (c == '\n')
		buf_puts(b, "\\n");
	else if (c == '\r')
		buf_puts(b, "\\r");
	else
		buf_printf(b, "\\x%02x", c);
}

static void
put_escaped(struct buf *b, struct slice s)
{
	struct slice shown = slice_head(s, VALUE_BYTES);

	buf_putc(b, '"');
	while (shown.len > 0) {
		size_t n = 0;

		while (n < shown.len && is_plain(shown.p[n]))
			n++;
		buf_put(b, slice_head(shown, n));
		if (n < shown.len)
			put_escape(b, (unsigned char)shown.p[n++]);
		shown = slice_drop(shown, n);
	}
	if (s.len > VALUE_BYTES)
		buf_puts(b, "...");
	buf_putc(b, '"');
}

static bool
is_word(struct slice s)
{
	if (s.len == 0 || s.len > VALUE_BYTES)
		return false;
	for (size_t i = 0; i < s.len; i++)
		if (s.p[i] <= ' ' || s.p[i] >= 0x7f || s.p[i] == '"' || s.p[i] == '\\' ||
		    s.p[i] == '=')
			return false;
	return true;
}

static void
put_value(struct buf *b, const struct kv *kv)
{
	char text[ID_TEXT_LEN + 1];

	switch (kv->type) {
	case KV_WORD:
		if (is_word(kv->slice)) {
			buf_put(b, kv->slice);
			break;
		}
		put_escaped(b, kv->slice);
		break;
	case KV_SLICE:
		put_escaped(b, kv->slice);
		break;
	case KV_INT:
		buf_int(b, kv->num);
		break;
	case KV_REAL:
		buf_tenths(b, kv->real);
		break;
	case KV_ID:
		id_text(kv->id, text);
		buf_puts(b, text);
		break;
	case KV_NONE:
		break;
	}
}

void
log_format(struct buf *b, const char *name, const struct kv *kvs, size_t n)
{
	buf_puts(b, "event=");
	buf_puts(b, name);
	for (size_t i = 0; i < n; i++) {
		if (kvs[i].type == KV_NONE)
			continue;
		buf_putc(b, ' ');
		buf_puts(b, kvs[i].key);
		buf_putc(b, '=');
		put_value(b, &kvs[i]);
	}
}

void
log_open(enum log_sink sink, const char *role, int index)
{
	struct stat st;

	logger.sink = sink;
	logger.role = role;
	logger.index = index;
	logger.is_file = fstat(STDERR_FILENO, &st) == 0 && S_ISREG(st.st_mode);
	if (sink == LOG_SINK_SYSLOG)
		openlog("relayd", LOG_PID | LOG_NDELAY, LOG_MAIL);
}

static void
ring_put(struct slice line)
{
	if (logger.ring == NULL)
		logger.ring = malloc(RING_BYTES);
	if (logger.ring == NULL || line.len > RING_BYTES - logger.len) {
		logger.dropped++;
		return;
	}
	if (logger.head + logger.len + line.len > RING_BYTES) {
		memmove(logger.ring, logger.ring + logger.head, logger.len);
		logger.head = 0;
	}
	memcpy(logger.ring + logger.head + logger.len, line.p, line.len);
	logger.len += line.len;
}

/* How much may be written without blocking, 0 for nothing. */
static size_t
room(void)
{
	struct pollfd ready = { .fd = STDERR_FILENO, .events = POLLOUT };

	if (logger.is_file)
		return RING_BYTES;
	/* Polled first: standard error is shared, so it is not ours to make non-blocking, and a
	 * pipe that polls writable takes PIPE_BUF bytes without blocking. */
	return poll(&ready, 1, 0) == 1 && (ready.revents & POLLOUT) != 0 ? PIPE_BUF : 0;
}

/* False when the descriptor takes no more for now. */
static bool
write_some(void)
{
	size_t max = room();
	struct slice lines;
	const char *end;
	ssize_t n;

	if (max == 0)
		return false;
	lines = slice_of(logger.ring + logger.head, logger.len < max ? logger.len : max);
	/* Whole lines: other roles write to the same place. */
	end = memrchr(lines.p, '\n', lines.len);
	if (end != NULL)
		lines = slice_head(lines, (size_t)(end + 1 - lines.p));
	n = write(STDERR_FILENO, lines.p, lines.len);
	if (n < 0)
		return errno == EINTR;
	logger.head += (size_t)n;
	logger.len -= (size_t)n;
	if (logger.len == 0)
		logger.head = 0;
	return true;
}

static void
say_dropped(void)
{
	uint64_t lost = logger.dropped - logger.said;

	if (lost == 0 || logger.len > RING_BYTES / 2)
		return;
	logger.said = logger.dropped;
	log_event("limit", kv_str("what", "log"), kv_int("dropped", (int64_t)lost));
}

size_t
log_waiting(void)
{
	return logger.len;
}

void
log_flush(void)
{
	while (logger.len > 0 && write_some())
		continue;
	say_dropped();
}

void
log_drain(int max_ms)
{
	int64_t end = clock_mono_ms() + max_ms;

	log_flush();
	while (logger.len > 0 && clock_mono_ms() < end) {
		struct pollfd ready = { .fd = STDERR_FILENO, .events = POLLOUT };

		if (poll(&ready, 1, 10) < 0 && errno != EINTR)
			break;
		log_flush();
	}
}

uint64_t
log_dropped(void)
{
	return logger.dropped;
}

void
log_event_list(const char *name, const struct kv *kvs, size_t n)
{
	char line[LINE_BYTES];
	struct buf b = buf_over(line, sizeof(line) - 1);
	char now[CLOCK_ISO_BYTES];

	if (logger.sink == LOG_SINK_STDERR) {
		clock_iso(clock_wall_ms(), now);
		buf_puts(&b, "t=");
		buf_puts(&b, now);
		buf_putc(&b, ' ');
	}
	buf_puts(&b, "role=");
	buf_puts(&b, logger.role);
	buf_putc(&b, ' ');
	if (logger.index >= 0) {
		buf_puts(&b, "index=");
		buf_int(&b, logger.index);
		buf_putc(&b, ' ');
	}
	log_format(&b, name, kvs, n);
	if (b.overflow) {
		b.overflow = false;
		b.len = b.len < b.cap - 8 ? b.len : b.cap - 8;
		buf_puts(&b, " cut=1");
	}
	if (logger.sink == LOG_SINK_SYSLOG) {
		b.p[b.len] = '\0';
		syslog(LOG_INFO, "%s", b.p);
		return;
	}
	b.p[b.len++] = '\n';
	ring_put(buf_slice(&b));
	if (logger.len > RING_BYTES / 2)
		log_flush();
}
