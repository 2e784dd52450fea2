/* relayd/delivery/bounce.c - builds bounces, and envelopes of undeliverable copies. */
#include "relayd/delivery/bounce.h"

#include "relayd/delivery/outcome.h"
#include "relayd/mail/dsn.h"
#include "relayd/pipeline/copies.h"
#include "relayd/pipeline/fields.h"
#include "relayd/smtp/param.h"

#include <stdlib.h>

#define REPLY_BYTES 700

/* ---- bounces -------------------------------------------------------------------------------- */

static struct slice
param(struct slice params, struct slice wanted)
{
	struct slice name, value;

	while (smtp_param_next(&params, &name, &value) == SMTP_PARAM_ONE)
		if (slice_ieq(name, wanted))
			return value;
	return SLICE("");
}

static struct slice
reply_line(struct arena *arena, const struct report_rcpt *r)
{
	const char *line;

	if (r->code == 0 || r->local)
		return r->text;
	line = arena_printf(arena, "%u %.*s%s%.*s", r->code, SLICE_FMT(r->enhanced),
	    r->enhanced.len > 0 ? " " : "", SLICE_FMT(slice_head(r->text, REPLY_BYTES)));
	return line != NULL ? slice_str(line) : r->text;
}

static enum dsn_action
action_of(const struct report_rcpt *r)
{
	if (r->good)
		return r->delivered ? DSN_DELIVERED : DSN_RELAYED;
	return r->code < 500 ? DSN_EXPIRED : DSN_FAILED;
}

/* What is late may yet arrive, whatever the next hop said: RFC 3464 section 2.3.4 has 4.X.X
 * there. */
static struct slice
passing(struct arena *arena, struct slice status)
{
	struct slice rest = slice_drop(status, 1);
	const char *text = slice_starts(status, SLICE("5."))
			       ? arena_printf(arena, "4%.*s", SLICE_FMT(rest))
			       : NULL;

	return text != NULL ? slice_str(text) : status;
}

static bool
fill_rcpts(const struct bounce *b, struct dsn_rcpt *v, struct arena *arena)
{
	for (size_t i = 0; i < b->n_rcpts; i++) {
		const struct bounce_rcpt *r = &b->rcpts[i];
		bool expired = !r->reply.good && r->reply.code < 500;

		v[i] = (struct dsn_rcpt){ .forward_path = r->rcpt->forward_path,
			.orcpt = param(r->rcpt->params, SLICE("ORCPT")),
			.action = b->delayed ? DSN_DELAYED : action_of(&r->reply),
			.status = outcome_status(
			    r->reply.code, r->reply.enhanced, expired && !b->delayed),
			.remote_mta = r->reply.local ? SLICE("") : b->remote,
			.reply = reply_line(arena, &r->reply),
			.last_attempt_ms = b->delayed ? r->reply.tried_ms : b->now_ms };
		if (b->delayed)
			v[i].status = passing(arena, v[i].status);
	}
	return true;
}

static bool
has_dots(struct slice message)
{
	return slice_starts(message, SLICE(".")) || slice_find(message, SLICE("\n.")) < message.len;
}

/* A bounce has no sender but us. */
static struct slice
receiver(const struct bounce *b)
{
	return b->original->reverse_path.len > 0 ? b->original->reverse_path
						 : slice_str(b->cfg->postmaster);
}

/* RFC 6533: what it quotes or where it goes is not ASCII. */
static bool
is_utf8(const struct bounce *b)
{
	bool utf8 =
	    (b->original->flags & ENVELOPE_UTF8) != 0 || !slice_is_ascii(b->original->reverse_path);

	for (size_t i = 0; i < b->n_rcpts && !utf8; i++)
		utf8 = !slice_is_ascii(b->rcpts[i].rcpt->forward_path);
	return utf8;
}

/* RFC 3461 section 4.3 leaves the default to us: a small message comes back whole, when something
 * of it failed.  Section 5 of RFC 8689 wants no more of one under REQUIRETLS than has to be. */
static bool
wants_all(const struct bounce *b)
{
	bool failed = false;

	for (size_t i = 0; i < b->n_rcpts && !b->delayed; i++)
		failed = failed || !b->rcpts[i].reply.good;
	return failed && !slice_ieq(param(b->original->params, SLICE("RET")), SLICE("HDRS")) &&
	       (b->original->flags & (ENVELOPE_REQUIRETLS | ENVELOPE_BINARY)) == 0;
}

static int
address_to_sender(const struct bounce *b, struct slice report, struct arena *arena,
    struct envelope *env, struct err *err)
{
	struct envelope_copy *copy = arena_alloc(arena, sizeof(*copy));
	struct envelope_rcpt *rcpt = arena_alloc(arena, sizeof(*rcpt));

	if (copy == NULL || rcpt == NULL)
		return err_set(err, ERR_NOMEM, "bounce");
	rcpt->forward_path = receiver(b);
	*copy = (struct envelope_copy){ .route = ENVELOPE_FORWARD, .rcpts = rcpt, .n_rcpts = 1 };
	*env = (struct envelope){ .id = b->id,
		.received_ms = b->now_ms,
		.flags = ENVELOPE_BOUNCE | (dsn_is_8bit(report) ? ENVELOPE_8BIT : 0u) |
			 (!slice_is_ascii(receiver(b)) ? ENVELOPE_UTF8 : 0u) |
			 (b->original->flags & (ENVELOPE_REQUIRETLS | ENVELOPE_TLS_OPTIONAL)) |
			 (has_dots(report) ? ENVELOPE_DOTS : 0u),
		.size = report.len,
		.origin = b->original->id,
		.copies = copy,
		.n_copies = 1 };
	env->reverse_path = env->params = env->client_ip = env->client_addr = SLICE("");
	env->helo = env->auth_user = env->release_key = SLICE("");
	env->listener = b->delayed || b->rcpts[0].reply.good ? SLICE(WARNING_LISTENER)
			: b->original->reverse_path.len == 0 ? SLICE(DOUBLE_LISTENER)
							     : SLICE(BOUNCE_LISTENER);
	copy->reason = rcpt->params = SLICE("");
	return 0;
}

bool
bounce_wants_ascii(const struct envelope *env, unsigned code, struct slice enhanced, bool local)
{
	return (env->flags & (ENVELOPE_BOUNCE | ENVELOPE_8BIT | ENVELOPE_UTF8)) ==
		   (ENVELOPE_BOUNCE | ENVELOPE_8BIT) &&
	       local && code == 554 && slice_eq(enhanced, SLICE("5.6.3"));
}

/* RFC 6152 section 3 wants a conversion or an error; a report is for people, and its ASCII says
 * enough. */
static int
build_ascii(const struct bounce *b, struct buf *out, struct arena *arena, struct envelope *env,
    struct err *err)
{
	struct envelope_copy *copy = arena_alloc(arena, sizeof(*copy));

	if (copy == NULL)
		return err_set(err, ERR_NOMEM, "bounce");
	for (size_t i = 0; i < b->head.len; i++)
		buf_putc(out, (unsigned char)b->head.p[i] < 0x80 ? b->head.p[i] : '?');
	if (out->overflow)
		return err_set(err, ERR_LIMIT, "report over %zu bytes", out->max);
	*env = *b->original;
	*copy = (struct envelope_copy){ .route = ENVELOPE_FORWARD,
		.reason = SLICE(""),
		.rcpts = (struct envelope_rcpt *)(uintptr_t)b->rcpts[0].rcpt,
		.n_rcpts = 1 };
	env->id = b->id;
	env->origin = b->original->id;
	env->received_ms = b->now_ms;
	env->flags &= ~(unsigned)ENVELOPE_8BIT;
	env->copies = copy;
	env->n_copies = 1;
	return 0;
}

int
bounce_build(const struct bounce *b, struct buf *out, struct arena *arena, struct envelope *env,
    struct err *err)
{
	struct dsn_rcpt *rcpts = arena_alloc(arena, b->n_rcpts * sizeof(*rcpts));
	struct dsn dsn = { .id = b->id,
		.original_id = b->original->id,
		.hostname = slice_str(b->cfg->hostname),
		.postmaster = slice_str(b->cfg->postmaster),
		.reverse_path = receiver(b),
		.envid = param(b->original->params, SLICE("ENVID")),
		.now_ms = b->now_ms,
		.arrival_ms = b->original->received_ms,
		.retry_until_ms = b->original->received_ms + 1000 * (int64_t)b->cfg->queue.expire_s,
		.rcpts = rcpts,
		.n_rcpts = b->n_rcpts,
		.original = b->head,
		.cut = b->head.len != b->original->size,
		.full = wants_all(b),
		.utf8 = is_utf8(b),
		.about_report = (b->original->flags & ENVELOPE_BOUNCE) != 0 };
	const struct report_rcpt *first = &b->rcpts[0].reply;

	if (b->head.len == b->original->size &&
	    bounce_wants_ascii(b->original, first->code, first->enhanced, first->local))
		return build_ascii(b, out, arena, env, err);
	if (rcpts == NULL || !fill_rcpts(b, rcpts, arena))
		return err_set(err, ERR_NOMEM, "bounce");
	if (dsn_build(&dsn, out, err) < 0)
		return -1;
	return address_to_sender(b, buf_slice(out), arena, env, err);
}

/* ---- undeliverable copies ------------------------------------------------------------------- */

/* A field with its folds off the front of *text. */
static struct slice
take_field(struct slice *text)
{
	struct slice field;
	size_t n = 0;

	do {
		n += slice_until(slice_drop(*text, n), '\n').len + 1;
	} while (n < text->len && (text->p[n] == ' ' || text->p[n] == '\t'));
	field = slice_head(*text, n);
	*text = slice_drop(*text, field.len);
	return field;
}

static struct slice
value_of(struct slice field)
{
	return slice_trim(slice_drop(field, slice_until(field, ':').len + 1));
}

/* Findings may be folded: without blanks, as they were written. */
static struct slice
unfold(struct arena *arena, struct slice value)
{
	char *p = arena_alloc(arena, value.len + 1);
	size_t n = 0;

	for (size_t i = 0; p != NULL && i < value.len; i++)
		if (value.p[i] > ' ')
			p[n++] = value.p[i];
	return slice_of(p, n);
}

/* Takes the fields that tell what we found off the top of a forwarded copy. */
static struct slice
take_findings(struct slice top, struct arena *arena, struct copy_fields *cf)
{
	while (slice_istarts(top, SLICE("X-Relayd-"))) {
		struct slice field = take_field(&top);

		if (slice_istarts(field, SLICE("X-Relayd-Score:"))) {
			const char *score = arena_copy(arena, value_of(field)).p;

			cf->score = score != NULL ? strtod(score, NULL) : 0.0;
		} else if (slice_istarts(field, SLICE("X-Relayd-Findings:"))) {
			cf->findings = unfold(arena, value_of(field));
			if (slice_eq(cf->findings, SLICE("none")))
				cf->findings = SLICE("");
		}
	}
	return top;
}

static const struct envelope_copy *
copy_of(const struct envelope *env, uint32_t ordinal, const struct envelope_rcpt **rcpt)
{
	size_t left = ordinal;

	for (size_t i = 0; i < env->n_copies; i++) {
		if (left < env->copies[i].n_rcpts) {
			*rcpt = &env->copies[i].rcpts[left];
			return &env->copies[i];
		}
		left -= env->copies[i].n_rcpts;
	}
	return NULL;
}

/* "X-Relayd-Reason: undeliverable: 550 5.1.1 no such user" */
static void
put_reason(struct buf *out, struct arena *arena, const struct report_rcpt *r)
{
	struct field f = pl_field_begin(out, "X-Relayd-Reason");
	struct slice rest = reply_line(arena, r);

	pl_field_word(&f, SLICE("undeliverable:"));
	while (rest.len > 0) {
		struct slice word = slice_until(rest, ' ');

		rest = slice_drop(rest, word.len + 1);
		if (word.len > 0)
			pl_field_word(&f, word);
	}
	pl_field_end(&f);
}

/* What stands above the message: the quarantine's fields, then what the copy had there. */
static int
make_top(const struct envelope *env, const struct envelope_copy *held, struct slice old_top,
    const struct report_rcpt *first, struct arena *arena, struct slice *top, struct err *err)
{
	struct buf b = buf_heap(COPIES_TOP_MAX);
	char id[ID_TEXT_LEN + 1];
	struct copy_fields cf = { .id = slice_of(id, ID_TEXT_LEN),
		.verdict = SLICE("quarantine"),
		.findings = SLICE(""),
		.client_ip = env->client_ip.len > 0 ? env->client_ip : SLICE("none"),
		.helo = env->helo,
		.reverse_path = env->reverse_path };
	struct slice rest = take_findings(old_top, arena, &cf);

	id_text(env->id, id);
	pl_copies_quarantine_fields(&b, &cf, held);
	put_reason(&b, arena, first);
	buf_put(&b, rest);
	*top = b.overflow ? (struct slice){ NULL, 0 } : arena_copy(arena, buf_slice(&b));
	buf_fini(&b);
	return top->p != NULL ? 0 : err_set(err, ERR_LIMIT, "fields of an undeliverable copy");
}

int
undeliverable_envelope(const struct envelope *original, struct id id,
    const struct report_rcpt *rcpts, size_t n, struct arena *arena, struct envelope *env,
    struct err *err)
{
	struct envelope_copy *held = arena_alloc(arena, sizeof(*held));
	const struct envelope_rcpt *rcpt;
	const struct envelope_copy *copy = copy_of(original, rcpts[0].ordinal, &rcpt);
	bool has_top;
	struct slice top;

	if (held == NULL || copy == NULL)
		return err_set(err, ERR_NOMEM, "undeliverable copy");
	has_top = copy->n_edits > 0 && copy->edits[0].at == 0;
	*held = (struct envelope_copy){ .route = ENVELOPE_QUARANTINE,
		.reason = SLICE("undeliverable"),
		.n_edits = copy->n_edits + (has_top ? 0u : 1u),
		.n_rcpts = n };
	held->edits = arena_alloc(arena, held->n_edits * sizeof(held->edits[0]));
	held->rcpts = arena_alloc(arena, n * sizeof(held->rcpts[0]));
	if (held->edits == NULL || held->rcpts == NULL)
		return err_set(err, ERR_NOMEM, "undeliverable copy");
	for (size_t i = 0; i < n; i++) {
		if (copy_of(original, rcpts[i].ordinal, &rcpt) == NULL)
			return err_set(err, ERR_FORMAT, "no such recipient");
		held->rcpts[i] = *rcpt;
	}
	if (make_top(original, held, has_top ? copy->edits[0].insert : SLICE(""), &rcpts[0], arena,
		&top, err) < 0)
		return -1;
	for (size_t i = 0; i < copy->n_edits; i++)
		held->edits[i + (has_top ? 0u : 1u)] = copy->edits[i];
	held->edits[0] =
	    (struct envelope_edit){ .remove = has_top ? copy->edits[0].remove : 0, .insert = top };
	*env = *original;
	env->id = id;
	env->origin = original->id;
	env->release_key = SLICE("");
	env->copies = held;
	env->n_copies = 1;
	return 0;
}
