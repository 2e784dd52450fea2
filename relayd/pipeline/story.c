/* relayd/pipeline/story.c - what happened to a message or session, told as JSON while it
 * happens. */
#include "relayd/pipeline/story.h"

#include "relayd/mail/charset.h"

#include <arpa/inet.h>

#define EVENT_BYTES_MAX 8192
#define TEXT_BYTES_MAX  1024 /* of one string from outside */

/* ---- JSON ------------------------------------------------------------------------------------ */

static bool
is_clean(unsigned char c, bool bytes)
{
	return c >= ' ' && c != '"' && c != '\\' && c != 0x7f && (c < 0x80 || !bytes);
}

/* In runs of what needs no escape: that is nearly all. */
static void
put_escaped(struct buf *out, struct slice s, bool bytes)
{
	buf_putc(out, '"');
	while (s.len > 0) {
		size_t n = 0;

		while (n < s.len && is_clean((unsigned char)s.p[n], bytes))
			n++;
		buf_put(out, slice_head(s, n));
		s = slice_drop(s, n);
		if (s.len == 0)
			break;
		if (s.p[0] == '"' || s.p[0] == '\\')
			buf_printf(out, "\\%c", s.p[0]);
		else
			buf_printf(out, "\\u%04x", (unsigned char)s.p[0]);
		s = slice_drop(s, 1);
	}
	buf_putc(out, '"');
}

void
pl_json_text(struct buf *out, struct slice text)
{
	put_escaped(out, text, !utf8_valid(text));
}

void
pl_json_bytes(struct buf *out, struct slice bytes)
{
	put_escaped(out, bytes, true);
}

/* ---- events ---------------------------------------------------------------------------------- */

struct event {
	char storage[EVENT_BYTES_MAX];
	struct buf b;
	bool any;
};

static void
event_begin(struct event *e)
{
	e->b = buf_over(e->storage, sizeof(e->storage));
	e->any = false;
	buf_putc(&e->b, '{');
}

static void
put_key(struct event *e, const char *key)
{
	buf_puts(&e->b, e->any ? ",\"" : "\"");
	buf_puts(&e->b, key);
	buf_puts(&e->b, "\":");
	e->any = true;
}

static void
put_text(struct event *e, const char *key, struct slice text)
{
	if (text.len == 0)
		return;
	put_key(e, key);
	pl_json_text(&e->b, slice_head(text, TEXT_BYTES_MAX));
}

static void
put_ms(struct event *e, int64_t us)
{
	put_key(e, "ms");
	buf_printf(&e->b, "%lld.%03lld", (long long)(us / 1000), (long long)(us % 1000));
}

static void
put_int(struct event *e, const char *key, int64_t n)
{
	put_key(e, key);
	buf_int(&e->b, n);
}

static void
event_end(struct event *e, struct story *st)
{
	size_t before = st->events.len;

	buf_putc(&e->b, '}');
	if (!e->b.overflow) {
		if (before > 0)
			buf_putc(&st->events, ',');
		buf_put(&st->events, buf_slice(&e->b));
		if (!st->events.overflow)
			return;
	}
	st->events.len = before;
	st->events.overflow = false;
	st->cut = true;
}

void
pl_story_fini(struct story *st)
{
	buf_fini(&st->events);
	*st = pl_story_of();
}

const char *
pl_stage_name(enum filter_stage stage)
{
	static const char *const names[] = {
		[FILTER_CONNECT] = "connect",
		[FILTER_HELO] = "helo",
		[FILTER_MAIL] = "mail",
		[FILTER_RCPT] = "rcpt",
		[FILTER_MESSAGE] = "message",
	};

	return names[stage];
}

void
pl_story_filter(struct story *st, const struct story_filter *f)
{
	struct event e;

	event_begin(&e);
	put_text(&e, "stage", slice_str(pl_stage_name(f->stage)));
	put_text(&e, "filter", slice_str(f->name));
	put_text(&e, "status", slice_str(f->status));
	put_int(&e, "runs", f->runs);
	put_ms(&e, f->took_us);
	event_end(&e, st);
}

static void
put_value(struct buf *b, enum fact_kind kind, const struct fact_value *v)
{
	char text[INET6_ADDRSTRLEN] = "";

	if (kind == FACT_DNS_A && v->bytes.len == 4)
		(void)inet_ntop(AF_INET, v->bytes.p, text, sizeof(text)); /* fits */
	else if (kind == FACT_DNS_AAAA && v->bytes.len == 16)
		(void)inet_ntop(AF_INET6, v->bytes.p, text, sizeof(text)); /* fits */
	if (kind == FACT_DNS_MX)
		buf_printf(b, "[%lld,", (long long)v->number);
	pl_json_bytes(b, text[0] != '\0' ? slice_str(text) : v->bytes);
	if (kind == FACT_DNS_MX)
		buf_putc(b, ']');
}

void
pl_story_fact(struct story *st, const struct known_fact *kf, int64_t took_us)
{
	struct event e;

	event_begin(&e);
	put_text(&e, "fact", slice_str(pl_fact_kind_name(kf->kind)));
	put_text(&e, "name", kf->name);
	put_text(&e, "filter", slice_str(kf->asker));
	put_text(&e, "state", slice_str(pl_fact_state_name(kf->fact.state)));
	if (kf->fact.nxdomain)
		put_text(&e, "why", SLICE("nxdomain"));
	if (kf->fact.n > 0) {
		put_int(&e, "ttl", kf->fact.ttl_s);
		put_key(&e, "values");
		for (size_t i = 0; i < kf->fact.n; i++) {
			buf_putc(&e.b, i == 0 ? '[' : ',');
			put_value(&e.b, kf->kind, &kf->fact.values[i]);
		}
		buf_putc(&e.b, ']');
	}
	put_ms(&e, took_us);
	event_end(&e, st);
}

void
pl_story_counter(struct story *st, const struct reservation *r, int64_t took_us)
{
	static const char *const states[] = {
		[RESERVATION_ASKED] = "failed",
		[RESERVATION_TAKEN] = "conforms",
		[RESERVATION_OVER] = "over",
		[RESERVATION_FAILED] = "failed",
	};
	struct event e;

	event_begin(&e);
	put_text(&e, "counter", slice_of(r->key, r->key_len));
	put_text(&e, "filter", slice_str(r->asker));
	put_text(&e, "state", slice_str(states[r->status]));
	put_int(&e, "count", (int64_t)r->req.count);
	put_int(&e, "period", r->req.period_s);
	put_ms(&e, took_us);
	event_end(&e, st);
}

void
pl_story_finding(struct story *st, const char *filter, const struct finding *f)
{
	struct event e;

	event_begin(&e);
	put_text(&e, "finding", f->name);
	put_text(&e, "filter", slice_str(filter));
	put_key(&e, "score");
	buf_printf(&e.b, "%.6g", f->score);
	put_text(&e, "why", f->why);
	event_end(&e, st);
}

void
pl_story_auth_result(struct story *st, const char *filter, const struct auth_result *r)
{
	struct event e;

	event_begin(&e);
	put_text(&e, "auth", r->method);
	put_text(&e, "filter", slice_str(filter));
	put_text(&e, "result", r->result);
	put_text(&e, "properties", r->properties);
	event_end(&e, st);
}

void
pl_story_decision(struct story *st, const struct decision *d)
{
	static const char *const names[] = {
		[FILTER_ACCEPT] = "accept",
		[FILTER_QUARANTINE] = "quarantine",
		[FILTER_REJECT] = "reject",
		[FILTER_DEFER] = "defer",
		[FILTER_DISCARD] = "discard",
	};
	struct event e;

	event_begin(&e);
	put_text(&e, "verdict", slice_str(names[d->verdict]));
	put_text(&e, "filter", slice_str(d->filter));
	if (d->by_error)
		put_text(&e, "why", SLICE("on-error"));
	put_text(&e, "text", d->text);
	event_end(&e, st);
}

void
pl_story_note(struct story *st, const char *what, struct slice subject, struct slice text)
{
	struct event e;

	event_begin(&e);
	put_text(&e, "note", slice_str(what));
	put_text(&e, "subject", subject);
	put_text(&e, "text", text);
	event_end(&e, st);
}
