/* tests/unit/mail/envelope_test.c - what is encoded comes back, what is malformed does not. */
#include "unit/unit.h"

#include "relayd/mail/envelope.h"

#include <stdio.h>
#include <stdlib.h>

static struct envelope_edit edits[] = {
	{ .at = 0, .remove = 0, .insert = SLICE("Received: here\r\n") },
	{ .at = 0, .remove = 0, .insert = SLICE("X-Tag: a\r\n") },
	{ .at = 10, .remove = 5, .insert = SLICE("") },
	{ .at = 15, .remove = 0, .insert = SLICE("five!") },
	{ .at = 90, .remove = 10, .insert = SLICE("end") },
};
static struct envelope_rcpt rcpts[] = {
	{ SLICE("bob@example.org"), SLICE("NOTIFY=NEVER") },
	{ SLICE("\"odd\\\"one\"@example.org"), SLICE("") },
};
static struct envelope_copy copies[] = {
	{ .route = ENVELOPE_FORWARD,
	    .reason = SLICE(""),
	    .edits = edits,
	    .n_edits = ARRAY_LEN(edits),
	    .rcpts = rcpts,
	    .n_rcpts = 2 },
	{ .route = ENVELOPE_QUARANTINE, .reason = SLICE("score"), .rcpts = rcpts, .n_rcpts = 1 },
};
static uint32_t about[] = { 0, 3, ENVELOPE_RCPTS_MAX - 1 };
static const struct envelope full = {
	.id = { { 1, 2, 3 } },
	.received_ms = 1767225600123,
	.flags = ENVELOPE_8BIT | ENVELOPE_DOTS,
	.size = 100,
	.reverse_path = SLICE("alice@example.com"),
	.params = SLICE("RET=HDRS"),
	.client_ip = SLICE("192.0.2.1"),
	.client_addr = SLICE("\300\000\002\001"),
	.helo = SLICE("mx.example.com"),
	.auth_user = SLICE(""),
	.listener = SLICE("mx"),
	.release_key = SLICE("k-1"),
	.origin = { { 9 } },
	.copies = copies,
	.n_copies = 2,
	.tells = ENVELOPE_TELLS_BOUNCED,
	.about = about,
	.n_about = ARRAY_LEN(about),
};

static char storage[4096];

static struct slice
encoded(const struct envelope *env)
{
	struct buf out = buf_over(storage, sizeof(storage));

	envelope_encode(env, &out);
	ck_assert(!out.overflow);
	return buf_slice(&out);
}

static enum err_code
decode_code(struct slice bytes)
{
	struct arena arena = arena_of(1 << 20);
	struct err err = { 0 };
	struct envelope env;
	int rc = envelope_decode(bytes, &arena, &env, &err);

	arena_fini(&arena);
	ck_assert_int_eq(rc, err.code == ERR_NONE ? 0 : -1);
	return err.code;
}

START_TEST(what_goes_in_comes_out)
{
	struct arena arena = arena_of(1 << 20);
	struct err err = { 0 };
	struct envelope env;
	char again[4096];
	struct buf out = buf_over(again, sizeof(again));
	struct slice bytes = encoded(&full);

	ck_assert_int_eq(envelope_decode(bytes, &arena, &env, &err), 0);
	ck_assert(id_eq(env.id, full.id) && id_eq(env.origin, full.origin));
	ck_assert_int_eq(env.received_ms, full.received_ms);
	ck_assert(slice_eq(env.client_addr, full.client_addr));
	ck_assert(slice_eq(env.copies[0].rcpts[0].params, SLICE("NOTIFY=NEVER")));
	ck_assert_int_eq(env.copies[1].route, ENVELOPE_QUARANTINE);
	ck_assert(slice_eq(env.copies[1].reason, SLICE("score")));
	ck_assert_int_eq(env.tells, ENVELOPE_TELLS_BOUNCED);
	ck_assert_uint_eq(env.n_about, 3);
	ck_assert_uint_eq(env.about[1], 3);
	envelope_encode(&env, &out);
	ck_assert(slice_eq(buf_slice(&out), bytes));
	arena_fini(&arena);
}
END_TEST

START_TEST(what_is_told_is_known)
{
	struct envelope env = full;

	env.tells = ENVELOPE_TELLS_NOTHING;
	ck_assert_int_eq(decode_code(encoded(&env)), ERR_NONE);
	env.tells = ENVELOPE_TELLS_LATE + 1;
	ck_assert_int_eq(decode_code(encoded(&env)), ERR_FORMAT);
	about[2]++;
	env.tells = ENVELOPE_TELLS_SENT;
	ck_assert_int_eq(decode_code(encoded(&env)), ERR_FORMAT);
	about[2]--;
}
END_TEST

START_TEST(every_cut_is_refused)
{
	struct slice bytes = encoded(&full);

	for (size_t cut = 0; cut < bytes.len; cut++)
		ck_assert_msg(decode_code(slice_head(bytes, cut)) == ERR_FORMAT, "cut at %zu", cut);
	storage[bytes.len] = 0;
	ck_assert_int_eq(decode_code(slice_of(bytes.p, bytes.len + 1)), ERR_FORMAT);
}
END_TEST

/* As the version before wrote it, byte by byte: a spool that an update finds. */
START_TEST(version_1_is_read)
{
	static const char old[] =
	    "\x01\x01\x02\x03\0\0\0\0\0\0\0\0\0\0\0\0\0"  /* version, id */
	    "\x09\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"          /* origin */
	    "\x7b\x98\xf5\x76\x9b\x01\0\0"                    /* received_ms */
	    "\x25\x64"                                       /* flags, size */
	    "\x0d" "a@example.com" "\x08" "RET=HDRS" "\x09" "192.0.2.1" "\x04" "\300\0\2\1"
	    "\x01h" "\0" "\x02mx" "\0"                        /* helo, user, listener, key */
	    "\x01\0\0\0\x01\x0d" "b@example.org" "\x0c" "NOTIFY=NEVER"; /* one copy */
	struct arena arena = arena_of(1 << 20);
	struct err err = { 0 };
	struct envelope env;
	char flagged[sizeof(old)];

	ck_assert_int_eq(envelope_decode(slice_of(old, sizeof(old) - 1), &arena, &env, &err), 0);
	ck_assert_uint_eq(env.flags, ENVELOPE_8BIT | ENVELOPE_DOTS | ENVELOPE_BOUNCE);
	ck_assert_uint_eq(env.size, 100);
	ck_assert(slice_eq(env.params, SLICE("RET=HDRS")));
	ck_assert(slice_eq(env.copies[0].rcpts[0].forward_path, SLICE("b@example.org")));
	ck_assert(slice_eq(env.copies[0].rcpts[0].params, SLICE("NOTIFY=NEVER")));
	arena_fini(&arena);
	memcpy(flagged, old, sizeof(old));
	flagged[41] = 0x40; /* a flag of version 2 */
	ck_assert_int_eq(decode_code(slice_of(flagged, sizeof(old) - 1)), ERR_FORMAT);
	flagged[0] = 2;
	ck_assert_int_eq(decode_code(slice_of(flagged, sizeof(old) - 1)), ERR_NONE);
}
END_TEST

/* The same of a report, which alone was of version 3. */
START_TEST(version_3_is_read)
{
	static const char old[] =
	    "\x03\x01\x02\x03\0\0\0\0\0\0\0\0\0\0\0\0\0"  /* version, id */
	    "\x09\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"          /* origin */
	    "\x7b\x98\xf5\x76\x9b\x01\0\0"                    /* received_ms */
	    "\x20\x64"                                       /* flags, size */
	    "\0" "\0" "\0" "\0" "\0" "\0" "\0" "\0"
	    "\x01\0\0"                                       /* one copy, forward, no reason */
	    "\x01\0\0\x07" "X: yz\r\n"                      /* one edit */
	    "\x01\x0d" "b@example.org" "\0"                   /* one recipient */
	    "\x02\x02\x00\x05";                               /* it bounced for two */
	struct arena arena = arena_of(1 << 20);
	struct err err = { 0 };
	struct envelope env;

	ck_assert_int_eq(envelope_decode(slice_of(old, sizeof(old) - 1), &arena, &env, &err), 0);
	ck_assert_int_eq(env.origin.bytes[0], 9);
	ck_assert(slice_eq(env.copies[0].edits[0].insert, SLICE("X: yz\r\n")));
	ck_assert(slice_eq(env.copies[0].rcpts[0].forward_path, SLICE("b@example.org")));
	ck_assert_int_eq(env.tells, ENVELOPE_TELLS_BOUNCED);
	ck_assert_uint_eq(env.n_about, 2);
	ck_assert_uint_eq(env.about[1], 5);
	arena_fini(&arena);
}
END_TEST

static struct envelope_edit usual[] = {
	{ .insert = SLICE(
	      "X-Relayd-Id: agrc4rw7svjkrxgkfal22hx5gy\r\nX-Relayd-Verdict: "
	      "accept\r\nX-Relayd-Score: 0.0\r\n"
	      "X-Relayd-Findings: none\r\nAuthentication-Results: mx.example.test; none\r\n"
	      "Received: from host.example.com ([192.0.2.1])\r\n\tby mx.example.test with ESMTP id "
	      "agrc4rw7svjkrxgkfal22hx5gy\r\n\tfor <bob@example.org>;\r\n\tThu, 1 Jan 2026 "
	      "00:00:00 +0000\r\n") }
};

/* What fields repeat of the envelope is not stored twice; and what was stored once is read for
 * ever. */
START_TEST(fields_that_repeat_the_envelope_take_few_bytes)
{
	static const char stored[] =
	    "\x04\x01\xa2\x2e\x46\xdf\x95\x52\xa8\xdc\xca\x28\x17\xad\x1e\xfd\x36\x10"
	    "\x09\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x7b\xa8"
	    "\xda\x76\x9b\x01\x00\x00\x05\x64\x11\x61\x6c\x69\x63\x65\x40\x65\x78\x61"
	    "\x6d\x70\x6c\x65\x2e\x63\x6f\x6d\x08\x52\x45\x54\x3d\x48\x44\x52\x53\x09"
	    "\x31\x39\x32\x2e\x30\x2e\x32\x2e\x31\x04\xc0\x00\x02\x01\x10\x68\x6f\x73"
	    "\x74\x2e\x65\x78\x61\x6d\x70\x6c\x65\x2e\x63\x6f\x6d\x00\x02\x6d\x78\x03"
	    "\x6b\x2d\x31\x01\x00\x00\x01\x0f\x62\x6f\x62\x40\x65\x78\x61\x6d\x70\x6c"
	    "\x65\x2e\x6f\x72\x67\x0c\x4e\x4f\x54\x49\x46\x59\x3d\x4e\x45\x56\x45\x52"
	    "\x01\x00\x00\xc7\x02\x14\x58\xb2\x02\x5f\x49\x64\x3a\x20\x61\x06\x22\x03"
	    "\x07\xaf\x02\x0f\x44\x8b\x02\x25\x6d\x78\x77\x03\x4f\x74\x65\x73\x74\x04"
	    "\xe2\x02\x0c\x73\x03\x35\x20\x28\x5b\x6a\x03\x04\xfc\x02\x0b\x1b\x04\x07"
	    "\x04\x03\x00\x10\x03\x0f\x09\x9f\x03\x02\x16\x03\x0b\x83\x03\x01\x1c\x03"
	    "\x0f\x0b\x3b\x03\x20\x0d\x0a\x00";
	struct arena arena = arena_of(1 << 20);
	struct err err = { 0 };
	struct envelope_copy copy = {
		.reason = SLICE(""), .edits = usual, .n_edits = 1, .rcpts = rcpts, .n_rcpts = 1
	};
	struct envelope env = full;
	struct slice bytes;

	(void)id_parse(SLICE("agrc4rw7svjkrxgkfal22hx5gy"), &env.id);
	env.helo = SLICE("host.example.com");
	env.copies = &copy;
	env.n_copies = 1;
	env.tells = ENVELOPE_TELLS_NOTHING;
	bytes = encoded(&env);
	ck_assert_uint_lt(bytes.len, 230);
	for (int i = 0; i < 2; i++) {
		ck_assert_int_eq(envelope_decode(bytes, &arena, &env, &err), 0);
		ck_assert(slice_eq(env.copies[0].edits[0].insert, usual[0].insert));
		bytes = slice_of(stored, sizeof(stored) - 1);
	}
	arena_fini(&arena);
}
END_TEST

/* A few bytes must not become more than any message may have. */
START_TEST(what_edits_insert_is_limited)
{
	static char room[256];
	struct buf out = buf_over(room, sizeof(room));
	struct envelope env = full;

	env.n_copies = 0;
	env.tells = ENVELOPE_TELLS_NOTHING;
	envelope_encode(&env, &out);
	out.len -= 2;                             /* n_copies = 0, tells = 0 */
	buf_put(&out, SLICE("\x01\x00\x00\x00")); /* one copy, no reason, no recipients */
	buf_put(&out, SLICE("\x01\x00\x00"));     /* one edit */
	buf_put(&out, SLICE("\x81\x80\x80\x02")); /* of 4 MiB and a byte */
	buf_put(&out, SLICE("\x0f\xff\xff\xff\x01\x00\x00"));
	ck_assert_int_eq(decode_code(buf_slice(&out)), ERR_LIMIT);
}
END_TEST

START_TEST(a_newer_version_is_named_as_such)
{
	struct slice bytes = encoded(&full);

	storage[0] = ENVELOPE_VERSION + 1;
	ck_assert_int_eq(decode_code(bytes), ERR_VERSION);
	storage[0] = 0;
	ck_assert_int_eq(decode_code(bytes), ERR_FORMAT);
}
END_TEST

START_TEST(a_small_arena_is_a_limit_not_a_crash)
{
	struct slice bytes = encoded(&full);
	struct envelope env;
	struct err err = { 0 };

	for (size_t max = 0; max < 300; max++) {
		struct arena arena = arena_of(max);

		ck_assert_int_eq(envelope_decode(bytes, &arena, &env, &err), -1);
		ck_assert_int_eq(err.code, ERR_LIMIT);
		arena_fini(&arena);
	}
}
END_TEST

static const struct {
	const char *what;
	uint64_t at, remove, at2, remove2;
	enum err_code code;
} edit_rows[] = {
	{ "touching", 0, 10, 10, 90, ERR_NONE },
	{ "at the very end", 100, 0, 100, 0, ERR_NONE },
	{ "two at one place", 5, 0, 5, 3, ERR_NONE },
	{ "overlapping", 0, 11, 10, 1, ERR_FORMAT },
	{ "out of order", 20, 0, 10, 0, ERR_FORMAT },
	{ "behind the end", 0, 0, 101, 0, ERR_FORMAT },
	{ "reaching out", 0, 0, 99, 2, ERR_FORMAT },
	{ "wrapping around", 0, 0, 50, UINT64_MAX - 20, ERR_FORMAT },
};

START_TEST(edits_are_sorted_disjoint_and_inside)
{
	struct envelope_edit pair[] = {
		{ edit_rows[_i].at, edit_rows[_i].remove, SLICE("x") },
		{ edit_rows[_i].at2, edit_rows[_i].remove2, SLICE("") },
	};
	struct envelope_copy copy = {
		.reason = SLICE(""), .edits = pair, .n_edits = 2, .rcpts = rcpts, .n_rcpts = 1
	};
	struct envelope env = full;

	env.copies = &copy;
	env.n_copies = 1;
	ck_assert_msg(decode_code(encoded(&env)) == edit_rows[_i].code, "%s", edit_rows[_i].what);
}
END_TEST

static struct slice
walked(const struct envelope *env, const struct envelope_copy *copy, const char *message,
    struct buf *out)
{
	struct envelope_walk walk = envelope_walk_of(env, copy);
	struct envelope_run run;

	while (envelope_walk_next(&walk, &run)) {
		ck_assert(run.literal.len > 0 || run.len > 0);
		if (run.literal.len > 0)
			buf_put(out, run.literal);
		else
			buf_put(out, slice_of(message + run.from, (size_t)run.len));
	}
	ck_assert(!envelope_walk_next(&walk, &run));
	return buf_slice(out);
}

START_TEST(the_walk_gives_the_edited_copy)
{
	char message[101], room[256], expected[256];
	struct buf out = buf_over(room, sizeof(room));
	struct slice got;

	for (int i = 0; i < 100; i++)
		message[i] = (char)('a' + i % 26);
	message[100] = '\0';
	got = walked(&full, &copies[0], message, &out);
	(void)snprintf(expected, sizeof(expected),
	    "Received: here\r\nX-Tag: a\r\n%.10sfive!%.75send", message, message + 15);
	ck_assert(slice_eq(got, slice_str(expected)));
	ck_assert_uint_eq(got.len, envelope_copy_size(&full, &copies[0]));
	buf_reset(&out);
	ck_assert(slice_eq(walked(&full, &copies[1], message, &out), slice_str(message)));
}
END_TEST

START_TEST(counts_are_limited)
{
	struct envelope env = full;
	char *big = calloc(1, 3 * (size_t)ENVELOPE_RCPTS_MAX);
	struct buf out = buf_over(big, 3 * (size_t)ENVELOPE_RCPTS_MAX);

	env.n_copies = 0;
	env.tells = ENVELOPE_TELLS_NOTHING;
	envelope_encode(&env, &out);
	out.len -= 2;                         /* n_copies = 0, tells = 0 */
	buf_put(&out, SLICE("\x01\x00\x00")); /* one copy, no reason */
	buf_put(&out, SLICE("\xa1\x8d\x06"));     /* 100001 recipients */
	ck_assert_int_eq(
	    decode_code(slice_of(big, out.len + 2 * (ENVELOPE_RCPTS_MAX + 1))), ERR_LIMIT);
	big[out.len - 3]--;
	ck_assert_int_eq(
	    decode_code(slice_of(big, out.len + 10)), ERR_FORMAT); /* not that many follow */
	free(big);
}
END_TEST

UNIT_SUITE(mail_envelope)
{
	UNIT_TEST(what_goes_in_comes_out);
	UNIT_TEST(what_is_told_is_known);
	UNIT_TEST(every_cut_is_refused);
	UNIT_TEST(version_1_is_read);
	UNIT_TEST(version_3_is_read);
	UNIT_TEST(fields_that_repeat_the_envelope_take_few_bytes);
	UNIT_TEST(what_edits_insert_is_limited);
	UNIT_TEST(a_newer_version_is_named_as_such);
	UNIT_TEST(a_small_arena_is_a_limit_not_a_crash);
	UNIT_ROWS(edits_are_sorted_disjoint_and_inside, edit_rows);
	UNIT_TEST(the_walk_gives_the_edited_copy);
	UNIT_TEST(counts_are_limited);
}
