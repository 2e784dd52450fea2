/* tests/unit/smtp/play.h - plays transcripts of sessions, and cuts their bytes in every way.
 *
 *	C: line		the client says it, with CRLF		C> bytes	the same, without
 *	S: line		the next reply line; "*" at its end stands for any rest
 *	E: line		the next thing the role was told	E* skips to that line
 *	+300s		so much time passes			X	the connection is closed now
 *	TLS		the handshake is done			later / A: 250 2.1.0 text
 *	shutdown	the daemon drains		trust	XCLIENT and XFORWARD are allowed
 */
#ifndef TESTS_UNIT_SMTP_PLAY_H
#define TESTS_UNIT_SMTP_PLAY_H

#include "unit/unit.h"

#include "unit/smtp/model.h"

struct play {
	struct model m;
	struct buf held;
	size_t seen, told; /* of sent, of events */
	const char *row;
	int line;
};

static inline struct slice
next_line(const struct buf *b, size_t *at)
{
	struct slice rest = slice_drop(buf_slice(b), *at);
	struct slice line = slice_until(rest, '\n');

	*at += line.len < rest.len ? line.len + 1 : line.len;
	if (line.len > 0 && line.p[line.len - 1] == '\r')
		line.len--;
	return line;
}

static inline void
expect_line(struct play *p, struct slice want, struct slice got)
{
	bool any = slice_chop(&want, "*");

	ck_assert_msg(any ? slice_starts(got, want) : slice_eq(got, want),
	    "%s, line %d: wanted \"%.*s\"%s, got \"%.*s\"", p->row, p->line, SLICE_FMT(want),
	    any ? "..." : "", SLICE_FMT(got));
}

static inline void
feed(struct play *p, struct slice bytes)
{
	struct slice rest;
	size_t n;

	buf_put(&p->held, bytes);
	rest = buf_slice(&p->held);
	n = smtp_session_input(p->m.session, &p->m.turn, rest);
	buf_consume(&p->held, n);
	model_flush(&p->m);
}

/* "\\r\\n" in a C> line. */
static inline void
feed_escaped(struct play *p, struct slice text)
{
	char bytes[8000];
	struct buf b = buf_over(bytes, sizeof(bytes));

	for (size_t i = 0; i < text.len; i++) {
		if (text.p[i] != '\\')
			buf_putc(&b, text.p[i]);
		else
			buf_putc(&b, text.p[++i] == 'r' ? '\r' : text.p[i] == 'n' ? '\n' : '\0');
	}
	feed(p, buf_slice(&b));
}

static inline void
answer(struct play *p, struct slice text)
{
	char enhanced[16];
	struct slice rest = slice_drop(text, 4), status = slice_until(rest, ' ');
	uint64_t code;

	ck_assert(slice_u64(slice_head(text, 3), 999, &code));
	(void)snprintf(enhanced, sizeof(enhanced), "%.*s", SLICE_FMT(status));
	p->m.answer = (struct smtp_answer){
		.code = (unsigned)code,
		.enhanced = enhanced,
		.text = slice_drop(rest, status.len + 1),
	};
	model_say(&p->m);
	feed(p, SLICE(""));
}

static inline void
skip_to(struct play *p, struct slice want)
{
	struct slice got;

	do {
		ck_assert_msg(p->told < p->m.events.len, "%s, line %d: nobody was told \"%.*s\"",
		    p->row, p->line, SLICE_FMT(want));
		got = next_line(&p->m.events, &p->told);
	} while (!slice_eq(got, want));
}

static inline void
play_other(struct play *p, struct slice line)
{
	uint64_t s;

	if (slice_eq(line, SLICE("S-"))) {
		ck_assert_msg(p->seen == p->m.sent.len, "%s, line %d: a reply too many: %s", p->row,
		    p->line, p->m.sent.p + p->seen);
	} else if (slice_eq(line, SLICE("E-"))) {
		ck_assert_uint_eq(p->told, p->m.events.len);
	} else if (slice_eq(line, SLICE("X"))) {
		ck_assert_int_eq(smtp_session_action(p->m.session), SMTP_ACTION_CLOSE);
	} else if (slice_eq(line, SLICE("TLS"))) {
		ck_assert_int_eq(smtp_session_action(p->m.session), SMTP_ACTION_TLS);
		smtp_session_tls(p->m.session, &p->m.turn);
	} else if (slice_eq(line, SLICE("later"))) {
		p->m.later = true;
	} else if (slice_eq(line, SLICE("shutdown"))) {
		smtp_session_shutdown(p->m.session, &p->m.turn, SMTP_END_SERVICE);
	} else if (line.len > 2 && line.p[0] == '+') {
		ck_assert(slice_u64(slice_head(slice_drop(line, 1), line.len - 2), 100000, &s));
		p->m.turn.now_ms += (int64_t)s * 1000;
		smtp_session_tick(p->m.session, &p->m.turn);
	} else {
		ck_abort_msg("%s, line %d: what is \"%.*s\"?", p->row, p->line, SLICE_FMT(line));
	}
	model_flush(&p->m);
}

static inline void
play_line(struct play *p, struct slice line)
{
	struct slice rest = slice_drop(line, 3);

	if (slice_starts(line, SLICE("C: "))) {
		feed(p, rest);
		feed(p, SLICE("\r\n"));
	} else if (slice_starts(line, SLICE("C> "))) {
		feed_escaped(p, rest);
	} else if (slice_starts(line, SLICE("S: "))) {
		expect_line(p, rest, next_line(&p->m.sent, &p->seen));
	} else if (slice_starts(line, SLICE("E: "))) {
		expect_line(p, rest, next_line(&p->m.events, &p->told));
	} else if (slice_starts(line, SLICE("E* "))) {
		skip_to(p, rest);
	} else if (slice_starts(line, SLICE("A: "))) {
		answer(p, rest);
	} else {
		play_other(p, line);
	}
}

static inline void
play_transcript(const char *name, unsigned service, const char *transcript)
{
	struct play p = { .row = name, .held = buf_heap(1u << 20) };
	struct slice script = slice_str(transcript), trust = SLICE("trust\n");

	model_init(&p.m, &model_services[service], false);
	if (slice_starts(script, trust)) {
		script = slice_drop(script, trust.len);
		p.m.trust = SMTP_TRUST_XCLIENT | SMTP_TRUST_XFORWARD;
		p.line++;
	}
	model_start(&p.m);
	while (script.len > 0) {
		struct slice line = slice_until(script, '\n');

		p.line++;
		play_line(&p, line);
		script = slice_drop(script, line.len + 1);
	}
	buf_fini(&p.held);
	p.m.asked = false;
	model_fini(&p.m);
}

static inline void
same_for_every_cut(struct slice bytes, const struct smtp_service *service, bool tls, unsigned trust)
{
	struct model whole, cut;

	model_init(&whole, service, false);
	whole.tls = tls;
	whole.trust = trust;
	model_play(&whole, bytes, 0);
	for (size_t n = 1; n <= bytes.len; n++) {
		for (int later = 0; later < 2; later++) {
			model_init(&cut, service, later == 1);
			cut.tls = tls;
			cut.trust = trust;
			model_play(&cut, bytes, n);
			ck_assert(slice_eq(buf_slice(&whole.sent), buf_slice(&cut.sent)));
			ck_assert(slice_eq(buf_slice(&whole.events), buf_slice(&cut.events)));
			model_fini(&cut);
		}
	}
	model_fini(&whole);
}

#endif
