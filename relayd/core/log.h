/* relayd/core/log.h - one line an event, key=value (INTERFACE.md section 5).
 *
 * Names of events and keys are an interface.  Values are typed; text from outside is quoted and
 * escaped, so that a line never breaks and no client can forge one.  Logging never blocks: lines
 * go through a bounded ring to a non-blocking descriptor or to syslog; what had to be dropped is
 * counted, and said (event=limit what=log) when there is room again.
 */
#ifndef RELAYD_CORE_LOG_H
#define RELAYD_CORE_LOG_H

#include "relayd/core/err.h"
#include "relayd/core/id.h"

enum kv_type { KV_NONE, KV_SLICE, KV_WORD, KV_INT, KV_REAL, KV_ID };

struct kv {
	const char *key;
	enum kv_type type;
	union {
		struct slice slice;
		int64_t num;
		double real;
		struct id id;
	};
};

/* Always quoted and escaped: what came from outside. */
static inline struct kv
kv_slice(const char *key, struct slice value)
{
	return (struct kv){ .key = key, .type = KV_SLICE, .slice = value };
}

/* Quoted only where it must be: our own words, such as why=unknown-recipient. */
static inline struct kv
kv_str(const char *key, const char *value)
{
	return (struct kv){ .key = key, .type = KV_WORD, .slice = slice_str(value) };
}

static inline struct kv
kv_int(const char *key, int64_t value)
{
	return (struct kv){ .key = key, .type = KV_INT, .num = value };
}

static inline struct kv
kv_real(const char *key, double value)
{
	return (struct kv){ .key = key, .type = KV_REAL, .real = value };
}

static inline struct kv
kv_id(const char *key, struct id value)
{
	return (struct kv){ .key = key, .type = KV_ID, .id = value };
}

/* key="<err->msg>" */
static inline struct kv
kv_err(const char *key, const struct err *err)
{
	return (struct kv){ .key = key, .type = KV_SLICE, .slice = slice_str(err->msg) };
}

enum log_sink { LOG_SINK_STDERR, LOG_SINK_SYSLOG };

/* role is a static string ("intake"), index tells workers apart and is printed when >= 0. */
void log_open(enum log_sink sink, const char *role, int index);
/* Writes what the ring holds as far as the descriptor takes it: what LOG_FLUSH_BYTES fill, or after
 * LOG_FLUSH_MS.  Line by line would cost two system calls each. */
#define LOG_FLUSH_BYTES 4096
#define LOG_FLUSH_MS    20
void log_flush(void);
size_t log_waiting(void); /* bytes in the ring */
/* Writes all of it, waiting at most max_ms: before an exit. */
void log_drain(int max_ms);
/* Lines dropped since the start. */
uint64_t log_dropped(void);

/* log_event("connect", kv_id("session", id), kv_str("ip", text)); */
#define log_event(name, ...)                                                                       \
	log_event_list(name, (const struct kv[]){ __VA_ARGS__ },                                   \
	    sizeof((const struct kv[]){ __VA_ARGS__ }) / sizeof(struct kv))
void log_event_list(const char *name, const struct kv *kvs, size_t n);

struct buf;
/* The same line without time and role into b, for tests and traces. */
void log_format(struct buf *b, const char *name, const struct kv *kvs, size_t n);

#endif
