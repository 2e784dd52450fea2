/* tests/unit/pipeline/copies_test.c - edits, the fields that are added, and those that may not come
 * in. */
#include "unit/pipeline/world.h"

#include "relayd/pipeline/copies.h"
#include "relayd/pipeline/fields.h"

#include <stdlib.h>

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))
#define POLICIES "policy inbound { tag = 5.0  quarantine = 8.0  reject = 15.0 }\n"

/* ---- edits ----------------------------------------------------------------------------------- */

#define MODEL_MAX 60

/* A message as a row of bytes, each with what is inserted in front of it: what edits mean, without
 * being clever. */
struct model {
	size_t size;
	bool removed[MODEL_MAX];
	bool edited[MODEL_MAX + 1];
	char insert[MODEL_MAX + 1][200];
};

static bool
model_takes(const struct model *m, size_t at, size_t remove)
{
	if (at > m->size || remove > m->size - at)
		return false;
	/* Not within what is removed, and not over a place that is edited. */
	if (at > 0 && at < m->size && m->removed[at] && !m->edited[at])
		return false;
	for (size_t i = at; i < at + remove; i++)
		if (m->removed[i] || (i > at && m->edited[i]))
			return false;
	return true;
}

static void
model_add(struct model *m, size_t at, size_t remove, const char *insert)
{
	strcat(m->insert[at], insert);
	m->edited[at] = true;
	for (size_t i = at; i < at + remove; i++)
		m->removed[i] = true;
}

static void
model_bytes(const struct model *m, const char *message, char *out)
{
	size_t at = 0;

	for (size_t i = 0; i <= m->size; i++) {
		at += (size_t)sprintf(out + at, "%s", m->insert[i]);
		if (i < m->size && !m->removed[i])
			out[at++] = message[i];
	}
	out[at] = '\0';
}

static void
apply(const struct edit_set *set, const char *message, char *out)
{
	struct envelope_copy copy = { .edits = set->v, .n_edits = set->n };
	struct envelope env = { .size = set->size, .copies = &copy, .n_copies = 1 };
	struct envelope_walk walk = envelope_walk_of(&env, &copy);
	struct envelope_run run;
	size_t at = 0;

	while (envelope_walk_next(&walk, &run)) {
		size_t len = run.literal.len > 0 ? run.literal.len : (size_t)run.len;

		memcpy(out + at, run.literal.len > 0 ? run.literal.p : message + run.from, len);
		at += len;
	}
	out[at] = '\0';
}

static void
check_sorted(const struct edit_set *set)
{
	for (size_t i = 0; i < set->n; i++) {
		ck_assert_uint_le(set->v[i].at + set->v[i].remove, set->size);
		if (i > 0)
			ck_assert(set->v[i - 1].at < set->v[i].at &&
				  set->v[i - 1].at + set->v[i - 1].remove <= set->v[i].at);
	}
}

START_TEST(edits_give_the_bytes_they_say_in_any_order)
{
	static const char message[] =
	    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ01234567";
	static const char *const inserts[] = { "", "<1>", "<two>", "<3>" };

	srand((unsigned)_i + 1);
	for (int round = 0; round < 200; round++) {
		struct arena arena = arena_of(1 << 20);
		struct model m = { .size = (size_t)rand() % MODEL_MAX };
		struct edit_set set = { .arena = &arena, .size = m.size };
		char expected[20000], got[20000];

		for (int i = rand() % 20; i > 0; i--) {
			size_t at = (size_t)rand() % (m.size + 3), n = (size_t)rand() % 6;
			const char *insert = inserts[rand() % 4];
			struct envelope_edit e = {
				.at = at, .remove = n, .insert = slice_str(insert)
			};
			enum edit_status status;

			if (n == 0 && insert[0] == '\0')
				continue;
			status = pl_edit_set_add(&set, &e);
			ck_assert(status == (model_takes(&m, at, n) ? EDIT_OK : EDIT_CLASH));
			if (status == EDIT_OK)
				model_add(&m, at, n, insert);
			check_sorted(&set);
		}
		model_bytes(&m, message, expected);
		apply(&set, message, got);
		ck_assert_str_eq(got, expected);
		arena_fini(&arena);
	}
}
END_TEST

START_TEST(edits_beyond_the_limit_are_refused)
{
	struct arena arena = arena_of(64 << 20);
	struct edit_set set = { .arena = &arena, .size = 1 << 20 };
	struct envelope_edit e = { .remove = 1, .insert = SLICE("") };

	for (size_t i = 0; i < ENVELOPE_EDITS_MAX; i++, e.at += 2)
		ck_assert_int_eq(pl_edit_set_add(&set, &e), EDIT_OK);
	ck_assert_int_eq(pl_edit_set_add(&set, &e), EDIT_FULL);
	arena_fini(&arena);
}
END_TEST

/* ---- what may not come in -------------------------------------------------------------------- */

static const struct removal {
	const char *message, *expected;
} removals[] = {
	{ "Subject: x\r\n\r\nX-Relayd-Id: 1\r\n", "Subject: x\r\n\r\nX-Relayd-Id: 1\r\n" },
	{ "X-Relayd-Id: 1\r\nSubject: x\r\n\r\n", "Subject: x\r\n\r\n" },
	{ "x-relayd-anything : 1\r\n\t2\r\nSubject: x\r\n\r\n", "Subject: x\r\n\r\n" },
	{ "Subject: x\r\nX-RELAYD-A: 1\r\nX-Relayd-B: 2\r\nTo: y\r\n\r\nb",
	    "Subject: x\r\nTo: y\r\n\r\nb" },
	{ "X-Relayed: 1\r\n\r\n", "X-Relayed: 1\r\n\r\n" },
	{ "Authentication-Results: mx.example.test; spf=pass\r\nA: b\r\n\r\n", "A: b\r\n\r\n" },
	{ "Authentication-Results: MX.Example.TEST 1; spf=pass\r\nA: b\r\n\r\n", "A: b\r\n\r\n" },
	{ "Authentication-Results:\r\n (c (d) \\)) \"mx.example.test\"; none\r\nA: b\r\n\r\n",
	    "A: b\r\n\r\n" },
	{ "Authentication-Results: (((((((((((((((((((((((((((((((((((((((("
	  ")))))))))))))))))))))))))))))))))))))))) "
	  "mx.example.test; none\r\nA: b\r\n\r\n", "A: b\r\n\r\n" }, /* 40 deep */
	{ "Authentication-Results: mx.example.test(x); none\r\nA: b\r\n\r\n", "A: b\r\n\r\n" },
	{ "Authentication-Results: mx.example.test\r\nA: b\r\n\r\n", "A: b\r\n\r\n" },
	{ "Authentication-Results: mx.example.test.evil; spf=pass\r\n\r\n",
	    "Authentication-Results: mx.example.test.evil; spf=pass\r\n\r\n" },
	{ "Authentication-Results: other.test; spf=pass\r\n\r\n",
	    "Authentication-Results: other.test; spf=pass\r\n\r\n" },
	{ "Received: X-Relayd-Id: 1\r\n X-Relayd-Id: 2\r\n\r\n",
	    "Received: X-Relayd-Id: 1\r\n X-Relayd-Id: 2\r\n\r\n" },
	{ "", "" },
	{ "X-Relayd-Id: 1", "" },
	/* a line that is no field: some readers go on behind it */
	{ "Subject: x\r\nno field\r\n X-Relayd-Id: fold\r\nX-Relayd-Id: 1\r\n\r\nX-Relayd-Id: "
	  "2\r\n",
	    "Subject: x\r\nno field\r\n X-Relayd-Id: fold\r\n\r\nX-Relayd-Id: 2\r\n" },
	{ "Subject: x\r\n: \r\n=\r\nX-Relayd-Id: 1\r\nend", "Subject: x\r\n: \r\n=\r\nend" },
	/* no header at all: an empty line of ours stands in front of it */
	{ "no field\r\nX-Relayd-Id: 1\r\n\r\n", "no field\r\nX-Relayd-Id: 1\r\n\r\n" },
	{ "Authentication-Results: \"MX\\.example.test\"; spf=pass\r\n\r\n", "\r\n" },
	{ "Authentication-Results: \"mx.example.test.\"; spf=pass\r\n\r\n", "\r\n" },
	{ "Authentication-Results: mx.example.test.; spf=pass\r\n\r\n", "\r\n" },
	{ "Authentication-Results: \"mx.example.test..\"; spf=pass\r\n\r\n",
	    "Authentication-Results: \"mx.example.test..\"; spf=pass\r\n\r\n" },
	{ "Authentication-Results: \"mx.example.test",
	    "Authentication-Results: \"mx.example.test" },
};

START_TEST(fields_that_only_we_may_set_do_not_come_in)
{
	const struct removal *r = &removals[_i];
	struct arena arena = arena_of(1 << 20);
	struct edit_set set = { .arena = &arena, .size = strlen(r->message) };
	char got[1000];

	ck_assert(pl_copies_remove_ours(&set, slice_str(r->message), SLICE("mx.example.test")));
	apply(&set, r->message, got);
	ck_assert_str_eq(got, r->expected);
	arena_fini(&arena);
}
END_TEST

START_TEST(a_header_full_of_our_fields_is_refused_not_passed)
{
	struct buf message = buf_heap(16 << 20);
	struct world w;
	char *bytes;

	for (int i = 0; i <= ENVELOPE_EDITS_MAX; i++)
		buf_puts(&message, "X-Relayd-A: 1\r\nB: 2\r\n");
	buf_puts(&message, "\r\n");
	bytes = strndup(message.p, message.len);
	world_init(&w, "", NULL, 0);
	ck_assert_int_eq(world_send(&w, bytes), PIPELINE_REJECT);
	ck_assert_uint_eq(w.run.reply.code, 550);
	ck_assert_uint_eq(w.run.n_copies, 0);
	world_fini(&w);
	free(bytes);
	buf_fini(&message);
}
END_TEST

/* ---- copies ---------------------------------------------------------------------------------- */

#define MAIL "Subject: x\r\nX-Relayd-Verdict: accept\r\n\r\nbody\r\n"

START_TEST(an_accepted_message_bears_what_was_found)
{
	struct config_filter filters[] = {
		SECTION("m", "mail", OPTION("finding", "SPF_PASS=-0.5"), OPTION("auth", "spf=pass"),
		    OPTION("properties", "smtp.mailfrom=alice@sender.test")),
		SECTION("n", "message", OPTION("finding", "A=1", "B=2.25")),
	};
	struct buf bytes = buf_heap(1 << 16), expected = buf_heap(1 << 16);
	char id[ID_TEXT_LEN + 1];
	struct world w;

	world_init(&w, POLICIES, filters, COUNT(filters));
	ck_assert_int_eq(world_send(&w, MAIL), PIPELINE_GO_ON);
	(void)world_bytes(&w, 0, &bytes);
	memcpy(id, bytes.p + strlen("X-Relayd-Id: "), ID_TEXT_LEN);
	id[ID_TEXT_LEN] = '\0';
	buf_printf(&expected,
	    "X-Relayd-Id: %s\r\n"
	    "X-Relayd-Verdict: accept\r\n"
	    "X-Relayd-Score: 2.8\r\n"
	    "X-Relayd-Findings: SPF_PASS=-0.5, A=1.0, B=2.2\r\n"
	    "Authentication-Results: mx.example.test;\r\n spf=pass "
	    "smtp.mailfrom=alice@sender.test\r\n"
	    "Received: by mx.example.test\r\n"
	    "Subject: x\r\n\r\nbody\r\n",
	    id);
	ck_assert_msg(slice_eq(buf_slice(&bytes), buf_slice(&expected)), "%.*s",
	    SLICE_FMT(buf_slice(&bytes)));
	ck_assert_int_eq(w.run.copies[0].route, ENVELOPE_FORWARD);
	ck_assert_uint_eq(w.run.copies[0].reason.len, 0);
	buf_fini(&bytes);
	buf_fini(&expected);
	world_fini(&w);
}
END_TEST

START_TEST(a_held_message_says_why_and_for_whom)
{
	struct config_filter filters[] = { SECTION("n", "message", OPTION("finding", "A=9")) };
	struct buf bytes = buf_heap(1 << 16);
	struct slice got;
	struct world w;

	world_init(&w, POLICIES, filters, COUNT(filters));
	world_client(&w, "192.0.2.7", false);
	ck_assert_int_eq(world_helo(&w, "he\r\nX-Evil: 1"), PIPELINE_GO_ON);
	ck_assert_int_eq(world_mail(&w, "alice@sender.test"), PIPELINE_GO_ON);
	ck_assert_int_eq(world_rcpt(&w, "bob@example.test"), PIPELINE_GO_ON);
	ck_assert_int_eq(world_rcpt(&w, "carol@example.test"), PIPELINE_GO_ON);
	ck_assert_int_eq(world_message(&w, MAIL), PIPELINE_GO_ON);
	got = world_bytes(&w, 0, &bytes);
	ck_assert(slice_starts(got, SLICE("Return-Path: <alice@sender.test>\r\nX-Relayd-Id: ")));
	ASSERT_HAS(got, "X-Relayd-Verdict: quarantine\r\n");
	ASSERT_HAS(got, "X-Relayd-Client: 192.0.2.7\r\n");
	ASSERT_HAS(got, "X-Relayd-Helo: he??X-Evil: 1\r\n");
	ASSERT_HAS(got, "X-Relayd-From: <alice@sender.test>\r\n");
	ASSERT_HAS(got, "X-Relayd-To: <bob@example.test>, <carol@example.test>\r\n"
			"Authentication-Results: mx.example.test; none\r\n"
			"Received: by mx.example.test\r\nSubject: x\r\n");
	ck_assert_int_eq(w.run.copies[0].route, ENVELOPE_QUARANTINE);
	ck_assert(slice_eq(w.run.copies[0].reason, SLICE("score")));
	buf_fini(&bytes);
	world_fini(&w);
}
END_TEST

START_TEST(a_held_copy_names_only_those_it_was_held_for)
{
	struct config_filter filters[] = { SECTION("n", "message", OPTION("finding", "A=9")) };
	struct buf bytes = buf_heap(1 << 16);
	struct world w;

	world_init(&w, "policy inbound { }\npolicy strict.test { quarantine = 9.0 }\n", filters,
	    COUNT(filters));
	world_send_two(&w, "", "ann@strict.test", MAIL);
	ck_assert_uint_eq(w.run.n_copies, 2);
	ck_assert_int_eq(w.run.copies[0].route, ENVELOPE_FORWARD);
	ASSERT_HAS_NOT(world_bytes(&w, 0, &bytes), "ann@strict.test");
	ASSERT_HAS(world_bytes(&w, 1, &bytes), "X-Relayd-To: <ann@strict.test>\r\n");
	ASSERT_HAS_NOT(world_bytes(&w, 1, &bytes), "bob@example.test");
	ASSERT_HAS(world_bytes(&w, 1, &bytes), "Return-Path: <>\r\n");
	buf_fini(&bytes);
	world_fini(&w);
}
END_TEST

START_TEST(outbound_mail_bears_no_findings)
{
	struct config_filter filters[] = { SECTION(
	    "n", "message", OPTION("finding", "A=1"), OPTION("auth", "spf=pass")) };
	struct buf bytes = buf_heap(1 << 16);
	struct world w;

	world_init(&w, POLICIES, filters, COUNT(filters));
	world_client(&w, "192.0.2.7", true);
	ck_assert_int_eq(world_mail(&w, "bob@example.test"), PIPELINE_GO_ON);
	ck_assert_int_eq(world_rcpt(&w, "x@elsewhere.test"), PIPELINE_GO_ON);
	ck_assert_int_eq(world_message(&w, MAIL), PIPELINE_GO_ON);
	ck_assert(slice_eq(world_bytes(&w, 0, &bytes),
	    SLICE("Received: by mx.example.test\r\nSubject: x\r\n\r\nbody\r\n")));
	buf_fini(&bytes);
	world_fini(&w);
}
END_TEST

static const struct {
	const char *message, *behind; /* the fields that are added */
} starts[] = {
	{ "Subject: x\r\n\r\nb", "Subject: x\r\n\r\nb" },
	{ "\r\nbody", "\r\nbody" },
	{ "hello world\r\n", "\r\nhello world\r\n" },
	{ " folded into ours\r\n", "\r\n folded into ours\r\n" },
	{ "", "" },
};

START_TEST(text_without_a_header_does_not_become_part_of_ours)
{
	struct buf bytes = buf_heap(1 << 16);
	struct slice got;
	struct world w;

	world_init(&w, "", NULL, 0);
	ck_assert_int_eq(world_send(&w, starts[_i].message), PIPELINE_GO_ON);
	got = world_bytes(&w, 0, &bytes);
	got = slice_drop(got, slice_find(got, SLICE("Received: by mx.example.test\r\n")) + 30);
	ck_assert_msg(slice_eq(got, slice_str(starts[_i].behind)), "%.*s", SLICE_FMT(got));
	buf_fini(&bytes);
	world_fini(&w);
}
END_TEST

/* ---- shapers --------------------------------------------------------------------------------- */

START_TEST(a_shaper_runs_once_a_copy_and_edits_it)
{
	struct config_filter filters[] = {
		SECTION("s", "shaper", OPTION("asks", "key.test"),
		    OPTION("insert", "DKIM-Signature: v\r\n"), OPTION("remove", "0/12")),
		SECTION("n", "message", OPTION("finding", "A=9")),
	};
	struct buf bytes = buf_heap(1 << 16);
	struct slice got;
	struct world w;

	world_init(&w,
	    "policy inbound { quarantine = 20.0 }\npolicy strict.test { quarantine = 9.0 }\n",
	    filters, COUNT(filters));
	world_send_two(&w, "", "ann@strict.test", MAIL);
	ck_assert_uint_eq(world_runs("s"), 4); /* each asked, and once more with the answer */
	for (size_t i = 0; i < 2; i++) {
		got = world_bytes(&w, i, &bytes);
		ASSERT_HAS(got,
		    "Authentication-Results: mx.example.test; none\r\nDKIM-Signature: v\r\n"
		    "Received: by mx.example.test\r\n\r\nbody\r\n");
	}
	buf_fini(&bytes);
	world_fini(&w);
}
END_TEST

START_TEST(a_shaper_cannot_touch_what_we_remove_nor_judge)
{
	struct config_filter filters[] = { SECTION("s", "shaper", OPTION("remove", "15/5"),
	    OPTION("insert", "A: b\r\n"), OPTION("verdict", "reject"), OPTION("finding", "S=99")) };
	struct buf bytes = buf_heap(1 << 16);
	struct world w;

	world_init(&w, POLICIES, filters, COUNT(filters));
	ck_assert_int_eq(world_send(&w, MAIL), PIPELINE_GO_ON);
	ck_assert_double_eq(w.run.score, 0);
	ASSERT_HAS(world_bytes(&w, 0, &bytes),
	    "A: b\r\nReceived: by mx.example.test\r\nSubject: x\r\n\r\nbody");
	buf_fini(&bytes);
	world_fini(&w);
}
END_TEST

static const struct edit_row {
	const char *message, *insert;
	unsigned at, remove;
	bool text, dots;
} edits_of_text[] = {
	{ "A: b\r\n\r\nx\r\n", "C: d\r\n", 0, 0, true, false },
	{ "A: b\r\n\r\nx\r\n", "\r\n.\r\nRSET", 9, 0, true, true },
	{ "A: b\r\n\r\nx\r\n", ".", 8, 1, true, true },
	{ "A: b\r\n\r\nx.\r\n", "", 8, 1, true, true },
	{ "A: b\r\n\r\nx.\r\n", "", 8, 2, true, false },
	{ "A: b\r\n\r\nx\r\n", "\r", 9, 0, false, false },
	{ "A: b\r\n\r\nx\r\n", "a\nb", 9, 0, false, false },
	{ "A: b\r\n\r\nx\r\n", "\n", 9, 0, false, false },
	{ "A: b\r\n\r\nx\r\n", "a\rb", 9, 0, false, false },
	{ "A: b\r\n\r\nx\r\n", "", 5, 1, false, false },
	{ "A: b\r\n\r\nx\r\n", "", 4, 1, false, false },
	{ "A: b\r\n\r\nx\r\n", "", 4, 2, true, false },
	{ "A: b\r\n\r\nx\r\n", "y", 10, 0, false, false },
};

/* What is sent by DATA is stuffed only where it has to be, and a CR or LF alone is a line end to
 * some. */
START_TEST(an_edit_leaves_text_and_its_dots_are_known)
{
	const struct edit_row *row = &edits_of_text[_i];
	struct envelope_edit edit = {
		.at = row->at, .remove = row->remove, .insert = slice_str(row->insert)
	};
	struct slice message = slice_str(row->message);

	ck_assert(pl_edit_is_text(message, &edit) == row->text);
	if (row->text)
		ck_assert(pl_edit_brings_dots(message, &edit) == row->dots);
}
END_TEST

START_TEST(a_shaper_that_fails_does_what_on_error_says)
{
	struct config_filter filters[] = { SECTION("s", "shaper", OPTION("fail", "yes")) };
	struct world w;

	world_init(&w, "", filters, COUNT(filters));
	ck_assert_int_eq(world_send(&w, MAIL), PIPELINE_GO_ON);
	ck_assert_uint_eq(w.run.n_copies, 1);
	world_fini(&w);
	filters[0].on_error = CONFIG_ON_ERROR_DEFER;
	world_init(&w, "", filters, COUNT(filters));
	ck_assert_int_eq(world_send(&w, MAIL), PIPELINE_DEFER);
	ck_assert_uint_eq(w.run.n_copies, 0);
	ck_assert_str_eq(w.run.verdict, "defer");
	world_fini(&w);
}
END_TEST

/* ---- fields ---------------------------------------------------------------------------------- */

/* Each line of what is there begins with a blank but the first, ends with CRLF, and is short
 * enough. */
static void
check_field(struct slice bytes, const char *name)
{
	bool first = true;

	ck_assert(slice_starts(bytes, slice_str(name)));
	ck_assert(slice_ends(bytes, SLICE("\r\n")));
	while (bytes.len > 0) {
		struct slice line = slice_head(bytes, slice_find(bytes, SLICE("\r\n")));

		bytes = slice_drop(bytes, line.len + 2);
		ck_assert_uint_le(line.len, FIELD_LINE_MUST);
		ck_assert_uint_gt(slice_trim(line).len, 0);
		ck_assert(first || line.p[0] == ' ');
		ck_assert(
		    !slice_has(line, '\r') && !slice_has(line, '\n') && !slice_has(line, '\0'));
		first = false;
	}
}

START_TEST(nothing_put_into_a_field_ends_it)
{
	srand((unsigned)_i + 7);
	for (int round = 0; round < 300; round++) {
		struct buf out = buf_heap(1 << 20);
		struct field f = pl_field_begin(&out, "X-Relayd-Helo");

		for (int words = rand() % 6; words >= 0; words--) {
			char text[3000];
			size_t len = (size_t)rand() % (round % 3 == 0 ? sizeof(text) : 100);

			for (size_t i = 0; i < len; i++)
				text[i] =
				    rand() % 3 == 0 ? "\r\n\0 \t:;\"\\"[rand() % 9] : (char)rand();
			pl_field_word(&f, slice_of(text, len));
		}
		pl_field_word(&f, SLICE("x"));
		pl_field_end(&f);
		check_field(buf_slice(&out), "X-Relayd-Helo:");
		buf_fini(&out);
	}
}
END_TEST

START_TEST(long_lists_fold_before_78)
{
	struct buf out = buf_heap(1 << 20);
	struct copy_fields cf = {
		.id = SLICE("id"), .verdict = SLICE("accept"), .findings = SLICE("")
	};
	struct buf findings = buf_heap(1 << 16);
	struct slice bytes;

	for (int i = 0; i < 100; i++)
		buf_printf(&findings, "%sRULE_NUMBER_%d=%d.5", i > 0 ? "," : "", i, i % 7);
	cf.findings = buf_slice(&findings);
	pl_copies_finding_fields(&out, &cf);
	bytes = buf_slice(&out);
	while (bytes.len > 0) {
		size_t n = slice_find(bytes, SLICE("\r\n"));

		ck_assert_uint_le(n, FIELD_LINE_SHOULD);
		bytes = slice_drop(bytes, n + 2);
	}
	ASSERT_HAS(buf_slice(&out), ", RULE_NUMBER_99=1.5\r\n");
	buf_fini(&findings);
	buf_fini(&out);
}
END_TEST

static const struct {
	const char *value, *expected;
} values[] = {
	{ "a@example.test", "a@example.test" },
	{ "bounce+u=x.test@list.test", "bounce+u=x.test@list.test" },
	{ "pass", "pass" },
	{ "", "\"\"" },
	{ "a b", "\"a b\"" },
	{ "\"a; dkim=pass\"@x.test", "\"\\\"a; dkim=pass\\\"@x.test\"" },
	{ "a;dkim=pass", "\"a;dkim=pass\"" },
	{ "a\r\nX: y", "\"a??X: y\"" },
	{ "x(y)", "\"x(y)\"" },
};

START_TEST(a_value_cannot_forge_another_result)
{
	struct buf out = buf_heap(1000);

	pl_field_value(&out, slice_str(values[_i].value));
	ck_assert_msg(slice_eq(buf_slice(&out), slice_str(values[_i].expected)), "%.*s",
	    SLICE_FMT(buf_slice(&out)));
	buf_fini(&out);
}
END_TEST

START_TEST(a_sender_cannot_forge_authentication_results)
{
	struct config_filter filters[] = { SECTION("m", "mail", OPTION("auth", "spf=fail"),
	    OPTION(
		"properties", "smtp.mailfrom=\"x\r\n y; dkim=pass\"@e.test\nsmtp.helo=h.test")) };
	struct buf bytes = buf_heap(1 << 16);
	struct world w;

	world_init(&w, "", filters, COUNT(filters));
	ck_assert_int_eq(world_send(&w, MAIL), PIPELINE_GO_ON);
	ASSERT_HAS_NOT(world_bytes(&w, 0, &bytes), "\n y; dkim");
	buf_fini(&bytes);
	world_fini(&w);
}
END_TEST

UNIT_SUITE(pipeline_copies)
{
	tcase_add_loop_test(tc, edits_give_the_bytes_they_say_in_any_order, 0, 10);
	UNIT_TEST(edits_beyond_the_limit_are_refused);
	UNIT_ROWS(fields_that_only_we_may_set_do_not_come_in, removals);
	UNIT_TEST(a_header_full_of_our_fields_is_refused_not_passed);
	UNIT_TEST(an_accepted_message_bears_what_was_found);
	UNIT_TEST(a_held_message_says_why_and_for_whom);
	UNIT_TEST(a_held_copy_names_only_those_it_was_held_for);
	UNIT_TEST(outbound_mail_bears_no_findings);
	UNIT_ROWS(text_without_a_header_does_not_become_part_of_ours, starts);
	UNIT_TEST(a_shaper_runs_once_a_copy_and_edits_it);
	UNIT_TEST(a_shaper_cannot_touch_what_we_remove_nor_judge);
	UNIT_ROWS(an_edit_leaves_text_and_its_dots_are_known, edits_of_text);
	UNIT_TEST(a_shaper_that_fails_does_what_on_error_says);
	tcase_add_loop_test(tc, nothing_put_into_a_field_ends_it, 0, 5);
	UNIT_TEST(long_lists_fold_before_78);
	UNIT_ROWS(a_value_cannot_forge_another_result, values);
	UNIT_TEST(a_sender_cannot_forge_authentication_results);
}
