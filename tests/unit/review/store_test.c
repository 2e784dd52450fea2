/* tests/unit/review/store_test.c - mail into the quarantine store, and what a scope reads of it. */
#include "unit/review/helper.h"
#include "unit/unit.h"

#include <stdio.h>
#include <stdlib.h>

START_TEST(a_message_is_seen_by_every_scope_that_has_a_recipient_of_it)
{
	struct fixture f;

	fixture_open(&f);
	ck_assert_str_eq(uids(&f, "example.org", STORE_INBOX), "");
	ck_assert_int_eq(
	    put(&f, test_id(1), "a@example.org Bob@Example.NET", TOP("x") MESSAGE), ERR_NONE);
	ck_assert_int_eq(put(&f, test_id(2), "c@example.com", TOP("x") MESSAGE), ERR_NONE);
	ck_assert_str_eq(uids(&f, "*", STORE_INBOX), "1 2");
	ck_assert_str_eq(uids(&f, "example.org", STORE_INBOX), "1");
	ck_assert_str_eq(uids(&f, "EXAMPLE.net", STORE_INBOX), "1");
	ck_assert_str_eq(uids(&f, "bob@example.net", STORE_INBOX), "1");
	ck_assert_str_eq(uids(&f, "sub.example.org", STORE_INBOX), "");
	ck_assert_str_eq(uids(&f, "*", STORE_TRASH), "");
	ck_assert_int_eq(store_held(f.store), 2);
	fixture_close(&f);
}
END_TEST

START_TEST(a_view_names_only_the_recipients_inside_the_scope)
{
	static const char fixed[] = "Return-Path: <s@example.net>\r\nX-Relayd-Id: x\r\n"
				    "X-Relayd-Findings: GTUBE=1000,\r\n\tSPF=1\r\n";
	char all[512], one[512];
	struct fixture f;

	fixture_open(&f);
	ck_assert_int_eq(put(&f, test_id(1), "a@example.org b@example.net",
			     TOP("a@example.org,\r\n b@example.net") MESSAGE),
	    ERR_NONE);
	(void)snprintf(all, sizeof(all), "%sX-Relayd-To: a@example.org,\r\n\tb@example.net\r\n%s",
	    fixed, MESSAGE);
	(void)snprintf(one, sizeof(one), "%sX-Relayd-To: b@example.net\r\n%s", fixed, MESSAGE);
	assert_view(&f, "*", STORE_INBOX, all);
	assert_view(&f, "example.net", STORE_INBOX, one);
	fixture_close(&f);
}
END_TEST

START_TEST(a_redo_of_delivery_is_success_and_stores_nothing)
{
	struct fixture f;
	size_t n_new;

	fixture_open(&f);
	ck_assert_int_eq(put(&f, test_id(1), "a@example.org b@example.org", MESSAGE), ERR_NONE);
	ck_assert_int_eq(
	    put_bytes(&f, test_id(1), "b@example.org a@example.org", SLICE(MESSAGE), 0, &n_new),
	    ERR_NONE);
	ck_assert_uint_eq(n_new, 0);
	ck_assert_uint_eq(count(&f, "*", STORE_INBOX), 1);
	ck_assert_int_eq(
	    put_bytes(&f, test_id(1), "a@example.org c@example.org", SLICE(MESSAGE), 0, &n_new),
	    ERR_NONE);
	ck_assert_uint_eq(n_new, 1);
	ck_assert_uint_eq(count(&f, "*", STORE_INBOX), 2);
	ck_assert_uint_eq(count(&f, "a@example.org", STORE_INBOX), 1);
	ck_assert_int_eq(sql_int(&f, "SELECT count(*) FROM rcpt"), 3);
	fixture_close(&f);
}
END_TEST

struct stage_wait {
	struct store_stage r;
	bool done;
};

static void
on_stage(struct store_stage *r)
{
	container_of(r, struct stage_wait, r)->done = true;
}

static enum err_code
stage(struct fixture *f, int64_t *body, struct slice bytes)
{
	struct stage_wait w = { .r = { .body = body, .bytes = bytes, .done = on_stage } };

	store_stage(f->store, &w.r);
	while (!w.done)
		(void)uv_run(&f->loop, UV_RUN_ONCE);
	return w.r.req.err.code;
}

START_TEST(a_large_message_that_came_in_parts_reads_back_exactly_from_anywhere)
{
	static const size_t from[] = { 0, 1, 29, 30, 31, STORE_CHUNK_BYTES - 1, STORE_CHUNK_BYTES,
		STORE_CHUNK_BYTES * 3 + 29, 999999, 1000063 };
	struct buf message = big_message(1000000), out = buf_heap(2u << 20),
		   want = buf_heap(2u << 20);
	struct slice bytes = buf_slice(&message);
	struct store_box *box;
	struct fixture f;
	int64_t body = 0;

	fixture_open(&f);
	ck_assert_int_eq(stage(&f, &body, slice_head(bytes, STORE_CHUNK_BYTES)), ERR_NONE);
	ck_assert_int_eq(
	    stage(
		&f, &body, slice_head(slice_drop(bytes, STORE_CHUNK_BYTES), 2 * STORE_CHUNK_BYTES)),
	    ERR_NONE);
	ck_assert_int_eq(put_bytes(&f, test_id(1), "a@example.org",
			     slice_drop(bytes, 3 * STORE_CHUNK_BYTES), body, NULL),
	    ERR_NONE);
	fixture_reopen(&f);
	buf_puts(&want, "Return-Path: <s@example.net>\r\nX-Relayd-To: a@example.org\r\n");
	buf_put(&want, slice_drop(bytes, strlen("Return-Path: <s@example.net>\r\n")));
	box = box_open(&f, "*", STORE_INBOX);
	ck_assert_uint_eq(only(box).size, want.len);
	ck_assert_uint_eq(only(box).top, 58);
	for (size_t i = 0; i < ARRAY_LEN(from); i++) {
		struct slice part = slice_head(slice_drop(buf_slice(&want), from[i]), 300000);

		buf_reset(&out);
		ck_assert_int_eq(
		    read_view(&f, box, only(box).item, from[i], 300000, &out), ERR_NONE);
		ck_assert(slice_eq(buf_slice(&out), part));
	}
	ck_assert_int_eq(
	    read_view(&f, box, only(box).item, 0, STORE_READ_MAX + 1, &out), ERR_LIMIT);
	store_box_close(box);
	buf_fini(&message);
	buf_fini(&out);
	buf_fini(&want);
	fixture_close(&f);
}
END_TEST

START_TEST(what_was_staged_and_never_put_is_gone_after_a_restart_or_unstage)
{
	struct buf message = big_message(STORE_CHUNK_BYTES);
	struct slice bytes = slice_head(buf_slice(&message), STORE_CHUNK_BYTES);
	int64_t a = 0, b = 0;
	struct fixture f;

	fixture_open(&f);
	ck_assert_int_eq(stage(&f, &a, bytes), ERR_NONE);
	ck_assert_int_eq(stage(&f, &b, bytes), ERR_NONE);
	store_unstage(f.store, a);
	fixture_reopen(&f);
	ck_assert_int_eq(sql_int(&f, "SELECT count(*) FROM chunk"), 0);
	ck_assert_int_eq(sql_int(&f, "SELECT count(*) FROM body"), 0);
	/* A redo of a large message drops what it staged. */
	ck_assert_int_eq(put(&f, test_id(1), "a@example.org", MESSAGE), ERR_NONE);
	b = 0;
	ck_assert_int_eq(stage(&f, &b, bytes), ERR_NONE);
	ck_assert_int_eq(put_bytes(&f, test_id(1), "a@example.org", SLICE(""), b, NULL), ERR_NONE);
	ck_assert_int_eq(sql_int(&f, "SELECT count(*) FROM body"), 1);
	buf_fini(&message);
	fixture_close(&f);
}
END_TEST

START_TEST(a_part_after_one_that_is_no_whole_chunk_is_refused)
{
	int64_t body = 0;
	struct fixture f;

	fixture_open(&f);
	ck_assert_int_eq(stage(&f, &body, SLICE("short")), ERR_NONE);
	ck_assert_int_eq(
	    put_bytes(&f, test_id(1), "a@example.org", SLICE("more"), body, NULL), ERR_LIMIT);
	ck_assert_uint_eq(count(&f, "*", STORE_INBOX), 0);
	fixture_close(&f);
}
END_TEST

START_TEST(an_empty_message_is_stored_too)
{
	struct fixture f;

	fixture_open(&f);
	ck_assert_int_eq(put(&f, test_id(1), "a@example.org", ""), ERR_NONE);
	assert_view(&f, "*", STORE_INBOX, "X-Relayd-To: a@example.org\r\n");
	fixture_close(&f);
}
END_TEST

START_TEST(an_item_outside_the_scope_cannot_be_read)
{
	struct buf out = buf_heap(4096);
	struct store_box *other, *box;
	struct fixture f;

	fixture_open(&f);
	ck_assert_int_eq(put(&f, test_id(1), "a@example.org", MESSAGE), ERR_NONE);
	box = box_open(&f, "*", STORE_INBOX);
	other = box_open(&f, "example.net", STORE_INBOX);
	ck_assert_int_eq(read_view(&f, other, only(box).item, 0, 1000, &out), ERR_NOT_FOUND);
	ck_assert_int_eq(move(&f, other, 1, STORE_RELEASE, "net", NULL), ERR_NONE);
	ck_assert_uint_eq(jobs(&f, NULL), 0);
	store_box_close(box);
	store_box_close(other);
	buf_fini(&out);
	fixture_close(&f);
}
END_TEST

/* ---- descriptions ---------------------------------------------------------------------------- */

static _Atomic int described;

static void
describe(struct slice original, struct buf *out)
{
	described++;
	buf_put(out, slice_head(original, 8));
	buf_printf(out, " %zu", original.len);
}

struct describe_wait {
	struct store_describe r;
	bool done;
};

static void
on_describe(struct store_describe *r)
{
	container_of(r, struct describe_wait, r)->done = true;
}

static void
assert_described(struct fixture *f, const char *want)
{
	struct store_box *box = box_open(f, "*", STORE_INBOX);
	int64_t items[3] = { 0, 4711, 0 };
	struct describe_wait w = {
		.r = { .box = box, .items = items, .n_items = 3, .done = on_describe }
	};
	size_t n;

	items[0] = store_box_entries(box, &n)[0].item;
	items[2] = store_box_entries(box, &n)[1].item;
	store_describe(f->store, &w.r);
	while (!w.done)
		(void)uv_run(&f->loop, UV_RUN_ONCE);
	ck_assert_int_eq(w.r.req.err.code, ERR_NONE);
	ck_assert(slice_eq(w.r.descriptions[0], slice_str(want)));
	ck_assert_uint_eq(w.r.descriptions[1].len, 0);
	ck_assert(slice_eq(w.r.descriptions[2], SLICE("other 5")));
	store_describe_fini(&w.r);
	store_box_close(box);
}

START_TEST(descriptions_are_made_once_of_the_original_and_again_for_another_version)
{
	struct fixture f;

	fixture_open(&f);
	f.options.describe = describe;
	fixture_reopen(&f);
	ck_assert_int_eq(
	    put(&f, test_id(1), "a@example.org", TOP("a@example.org") "Subject: x\r\n"), ERR_NONE);
	ck_assert_int_eq(put(&f, test_id(2), "a@example.org", "other"), ERR_NONE);
	assert_described(&f, "Subject: 12");
	ck_assert_int_eq(described, 2);
	fixture_reopen(&f);
	assert_described(&f, "Subject: 12");
	ck_assert_int_eq(described, 2);
	f.options.describe_version = 1;
	fixture_reopen(&f);
	assert_described(&f, "Subject: 12");
	ck_assert_int_eq(described, 4);
	fixture_close(&f);
}
END_TEST

UNIT_SUITE(store)
{
	UNIT_TEST(a_message_is_seen_by_every_scope_that_has_a_recipient_of_it);
	UNIT_TEST(a_view_names_only_the_recipients_inside_the_scope);
	UNIT_TEST(a_redo_of_delivery_is_success_and_stores_nothing);
	UNIT_TEST(a_large_message_that_came_in_parts_reads_back_exactly_from_anywhere);
	UNIT_TEST(what_was_staged_and_never_put_is_gone_after_a_restart_or_unstage);
	UNIT_TEST(a_part_after_one_that_is_no_whole_chunk_is_refused);
	UNIT_TEST(an_empty_message_is_stored_too);
	UNIT_TEST(an_item_outside_the_scope_cannot_be_read);
	UNIT_TEST(descriptions_are_made_once_of_the_original_and_again_for_another_version);
}
