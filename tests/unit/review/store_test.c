/* tests/unit/review/store_test.c - the quarantine store: mail in, scopes, changes, reading, restarts. */
#include "unit/review/helper.h"
#include "unit/unit.h"

#include "relayd/core/counters.h"

#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static void
opened(const struct fixture *f, const char *path, sqlite3 **db)
{
	char file[256];

	(void)f;
	(void)snprintf(file, sizeof(file), "%s/quarantine.db", path);
	ck_assert_int_eq(sqlite3_open(file, db), SQLITE_OK);
}

static void
sql(struct fixture *f, const char *text)
{
	sqlite3 *db;

	opened(f, f->dir, &db);
	ck_assert_msg(
	    sqlite3_exec(db, text, NULL, NULL, NULL) == SQLITE_OK, "%s", sqlite3_errmsg(db));
	ck_assert_int_eq(sqlite3_close(db), SQLITE_OK);
}

static int64_t
sql_int(struct fixture *f, const char *text)
{
	sqlite3 *db;
	sqlite3_stmt *stmt;
	int64_t n;

	opened(f, f->dir, &db);
	ck_assert_int_eq(sqlite3_prepare_v2(db, text, -1, &stmt, NULL), SQLITE_OK);
	ck_assert_int_eq(sqlite3_step(stmt), SQLITE_ROW);
	n = sqlite3_column_int64(stmt, 0);
	ck_assert_int_eq(sqlite3_finalize(stmt), SQLITE_OK);
	ck_assert_int_eq(sqlite3_close(db), SQLITE_OK);
	return n;
}

static struct store_entry
only(struct store_box *box)
{
	size_t n;
	const struct store_entry *entries = store_box_entries(box, &n);

	ck_assert_uint_eq(n, 1);
	return entries[0];
}

static void
assert_view(struct fixture *f, const char *scope, enum store_box_kind kind, const char *want)
{
	struct store_box *box = box_open(f, scope, kind);
	struct store_entry entry = only(box);
	struct buf out = buf_heap(1u << 20);

	ck_assert_int_eq(read_view(f, box, entry.item, 0, STORE_READ_MAX, &out), ERR_NONE);
	buf_putc(&out, '\0');
	ck_assert_str_eq(out.p, want);
	ck_assert_uint_eq(entry.size, strlen(want));
	buf_fini(&out);
	store_box_close(box);
}

/* ---- mail in ---------------------------------------------------------------------------------- */

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

static struct buf
big_message(size_t bytes)
{
	struct buf b = buf_heap(bytes + 64);
	uint64_t x = 88172645463325252u;

	buf_puts(&b, "Return-Path: <s@example.net>\r\n");
	while (b.len < bytes) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		buf_putc(&b, (char)(b.len % 70 == 0 ? '\n' : ' ' + (char)(x % 90)));
	}
	return b;
}

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

/* ---- states ------------------------------------------------------------------------------------ */

START_TEST(dropping_in_one_scope_shows_in_the_other_when_nothing_is_left_there)
{
	struct store_box *domain;
	struct fixture f;

	fixture_open(&f);
	ck_assert_uint_eq(count(&f, "*", STORE_INBOX), 0);
	ck_assert_int_eq(put(&f, test_id(1), "a@example.org b@example.net", MESSAGE), ERR_NONE);
	domain = box_open(&f, "example.org", STORE_INBOX);
	ck_assert_int_eq(move(&f, domain, 1, STORE_TRASH, "dom", NULL), ERR_NONE);
	ck_assert_uint_eq(count(&f, "example.org", STORE_TRASH), 1);
	ck_assert_uint_eq(count(&f, "*", STORE_INBOX), 1);
	ck_assert_uint_eq(count(&f, "example.net", STORE_INBOX), 1);
	ck_assert_int_eq(store_held(f.store), 1);
	store_box_close(domain);
	domain = box_open(&f, "b@example.net", STORE_INBOX);
	ck_assert_int_eq(move(&f, domain, 1, STORE_TRASH, "bob", NULL), ERR_NONE);
	ck_assert_uint_eq(count(&f, "*", STORE_INBOX), 0);
	ck_assert_uint_eq(count(&f, "*", STORE_TRASH), 1);
	ck_assert_int_eq(store_held(f.store), 0);
	store_box_close(domain);
	fixture_close(&f);
}
END_TEST

START_TEST(release_moves_through_release_to_released_and_only_for_the_scope)
{
	struct store_box *domain;
	int64_t rcpt;
	uint32_t uid;
	struct fixture f;

	fixture_open(&f);
	ck_assert_int_eq(put(&f, test_id(1), "a@example.org b@example.net", MESSAGE), ERR_NONE);
	domain = box_open(&f, "example.org", STORE_INBOX);
	ck_assert_uint_eq(count(&f, "*", STORE_INBOX), 1);
	ck_assert_int_eq(move(&f, domain, 1, STORE_RELEASE, "dom", &uid), ERR_NONE);
	ck_assert_uint_eq(uid, 1);
	ck_assert_uint_eq(jobs(&f, &rcpt), 1);
	ck_assert_uint_eq(count(&f, "example.org", STORE_RELEASE), 1);
	ck_assert_uint_eq(count(&f, "*", STORE_INBOX), 1);
	/* The same message again: it has left INBOX, and nothing more is to be done. */
	ck_assert_int_eq(move(&f, domain, 1, STORE_RELEASE, "dom", &uid), ERR_NONE);
	ck_assert_uint_eq(uid, 0);
	ck_assert_uint_eq(jobs(&f, NULL), 1);
	ck_assert_int_eq(job_done(&f, rcpt, STORE_IS_RELEASED, "250 ok"), ERR_NONE);
	ck_assert_uint_eq(jobs(&f, NULL), 0);
	ck_assert_uint_eq(count(&f, "example.org", STORE_RELEASED), 1);
	ck_assert_uint_eq(count(&f, "*", STORE_INBOX), 1);
	ck_assert_int_eq(job_done(&f, rcpt, STORE_HELD, "550"), ERR_NONE); /* too late */
	ck_assert_uint_eq(count(&f, "example.org", STORE_RELEASED), 1);
	store_box_close(domain);
	fixture_close(&f);
}
END_TEST

struct race {
	struct store_move r;
	size_t *left;
};

static void
on_race(struct store_move *r)
{
	(*container_of(r, struct race, r)->left)--;
}

START_TEST(two_admins_who_release_at_the_same_moment_release_once)
{
	struct store_box *all, *domain;
	uint32_t uid = 1;
	size_t left = 3;
	struct fixture f;

	fixture_open(&f);
	ck_assert_int_eq(put(&f, test_id(1), "a@example.org", MESSAGE), ERR_NONE);
	all = box_open(&f, "*", STORE_INBOX);
	domain = box_open(&f, "example.org", STORE_INBOX);
	struct race races[3] = {
		{ { .box = all, .uids = &uid, .n_uids = 1, .to = STORE_RELEASE, .done = on_race },
		    &left },
		{ { .box = all, .uids = &uid, .n_uids = 1, .to = STORE_RELEASE, .done = on_race },
		    &left },
		{ { .box = domain, .uids = &uid, .n_uids = 1, .to = STORE_TRASH, .done = on_race },
		    &left },
	};
	for (size_t i = 0; i < 3; i++)
		store_move(f.store, &races[i].r);
	while (left > 0)
		(void)uv_run(&f.loop, UV_RUN_ONCE);
	ck_assert_uint_eq(races[0].r.n_moved, 1);
	ck_assert_uint_eq(races[1].r.n_moved, 0);
	ck_assert_uint_eq(races[2].r.n_moved, 0);
	ck_assert_uint_eq(jobs(&f, NULL), 1);
	ck_assert_uint_eq(count(&f, "*", STORE_TRASH), 0);
	store_move_fini(&races[0].r);
	store_move_fini(&races[1].r);
	store_move_fini(&races[2].r);
	store_box_close(all);
	store_box_close(domain);
	fixture_close(&f);
}
END_TEST

START_TEST(a_release_refused_for_good_comes_back_to_INBOX_with_a_mark)
{
	struct store_box *box;
	int64_t rcpt;
	struct fixture f;

	fixture_open(&f);
	ck_assert_int_eq(put(&f, test_id(1), "a@example.org", MESSAGE), ERR_NONE);
	box = box_open(&f, "*", STORE_INBOX);
	ck_assert_int_eq(move(&f, box, 1, STORE_RELEASE, "adm", NULL), ERR_NONE);
	ck_assert_int_eq(store_held(f.store), 0);
	ck_assert_uint_eq(jobs(&f, &rcpt), 1);
	ck_assert_int_eq(job_done(&f, rcpt, STORE_RELEASING, "451 later"), ERR_NONE);
	ck_assert_uint_eq(jobs(&f, &rcpt), 1);
	ck_assert_int_eq(job_done(&f, rcpt, STORE_HELD, "550 no"), ERR_NONE);
	ck_assert_int_eq(store_held(f.store), 1);
	ck_assert_uint_eq(only(box).uid, 2);
	ck_assert_uint_eq(only(box).flags, STORE_KEYWORD_BIT(0));
	ck_assert_str_eq(store_box_keyword(box, 0), STORE_KEYWORD_REFUSED);
	ck_assert_ptr_null(store_box_keyword(box, 1));
	/* The second try goes well, and the mark goes. */
	ck_assert_int_eq(move(&f, box, 2, STORE_RELEASE, "adm", NULL), ERR_NONE);
	ck_assert_uint_eq(jobs(&f, &rcpt), 1);
	ck_assert_int_eq(job_done(&f, rcpt, STORE_IS_RELEASED, "250 ok"), ERR_NONE);
	store_box_close(box);
	box = box_open(&f, "*", STORE_RELEASED);
	ck_assert_uint_eq(only(box).flags, 0);
	store_box_close(box);
	fixture_close(&f);
}
END_TEST

START_TEST(what_was_dropped_can_be_held_again_or_released)
{
	struct store_box *inbox, *trash;
	uint32_t uid;
	struct fixture f;

	fixture_open(&f);
	ck_assert_int_eq(put(&f, test_id(1), "a@example.org", MESSAGE), ERR_NONE);
	inbox = box_open(&f, "*", STORE_INBOX);
	trash = box_open(&f, "*", STORE_TRASH);
	ck_assert_int_eq(move(&f, inbox, 1, STORE_TRASH, "adm", NULL), ERR_NONE);
	ck_assert_int_eq(move(&f, trash, 1, STORE_INBOX, "adm", &uid), ERR_NONE);
	ck_assert_uint_eq(uid, 2);
	ck_assert_int_eq(move(&f, inbox, 2, STORE_TRASH, "adm", NULL), ERR_NONE);
	ck_assert_int_eq(move(&f, trash, 2, STORE_RELEASE, "adm", &uid), ERR_NONE);
	ck_assert_uint_eq(uid, 1);
	ck_assert_uint_eq(jobs(&f, NULL), 1);
	store_box_close(inbox);
	store_box_close(trash);
	fixture_close(&f);
}
END_TEST

static const struct {
	enum store_box_kind from, to;
	enum err_code want;
} refusals[] = {
	{ STORE_INBOX, STORE_RELEASED, ERR_DENIED },
	{ STORE_RELEASE, STORE_INBOX, ERR_DENIED },
	{ STORE_RELEASE, STORE_TRASH, ERR_DENIED },
	{ STORE_RELEASED, STORE_INBOX, ERR_DENIED },
	{ STORE_RELEASED, STORE_RELEASE, ERR_DENIED },
	{ STORE_RELEASED, STORE_TRASH, ERR_DENIED },
	{ STORE_TRASH, STORE_RELEASED, ERR_DENIED },
	{ STORE_INBOX, STORE_INBOX, ERR_NONE },
	{ STORE_TRASH, STORE_TRASH, ERR_NONE },
};

START_TEST(a_move_that_means_nothing_is_refused)
{
	struct store_box *box;
	struct fixture f;

	fixture_open(&f);
	box = box_open(&f, "*", refusals[_i].from);
	ck_assert_int_eq(move(&f, box, 1, refusals[_i].to, "adm", NULL), refusals[_i].want);
	store_box_close(box);
	fixture_close(&f);
}
END_TEST

/* ---- UIDs and flags ------------------------------------------------------------------------------ */

START_TEST(UIDs_are_stable_over_a_restart_and_never_used_again)
{
	struct store_box *box;
	uint32_t validity;
	struct fixture f;

	fixture_open(&f);
	for (unsigned i = 0; i < 4; i++)
		ck_assert_int_eq(put(&f, test_id(i), "a@example.org", MESSAGE), ERR_NONE);
	box = box_open(&f, "*", STORE_INBOX);
	validity = store_box_uidvalidity(box);
	ck_assert_uint_gt(validity, 0);
	ck_assert_int_eq(move(&f, box, 4, STORE_TRASH, "adm", NULL), ERR_NONE);
	ck_assert_int_eq(move(&f, box, 2, STORE_TRASH, "adm", NULL), ERR_NONE);
	ck_assert_uint_eq(store_box_uidnext(box), 5);
	store_box_close(box);
	fixture_reopen(&f);
	ck_assert_int_eq(put(&f, test_id(9), "a@example.org", MESSAGE), ERR_NONE);
	ck_assert_str_eq(uids(&f, "*", STORE_INBOX), "1 3 5");
	ck_assert_str_eq(uids(&f, "*", STORE_TRASH), "1 2");
	box = box_open(&f, "*", STORE_INBOX);
	ck_assert_uint_eq(store_box_uidvalidity(box), validity);
	ck_assert_ptr_null(store_box_find(box, 4));
	ck_assert_uint_eq(store_box_find(box, 5)->uid, 5);
	store_box_close(box);
	fixture_close(&f);
}
END_TEST

START_TEST(flags_belong_to_the_scope_and_survive)
{
	struct store_box *all, *domain;
	struct fixture f;

	fixture_open(&f);
	ck_assert_int_eq(put(&f, test_id(1), "a@example.org", MESSAGE), ERR_NONE);
	all = box_open(&f, "*", STORE_INBOX);
	domain = box_open(&f, "example.org", STORE_INBOX);
	ck_assert_int_eq(
	    set_flags(&f, all, 1, STORE_FLAGS_ADD, STORE_SEEN | STORE_FLAGGED, "$label1"),
	    ERR_NONE);
	ck_assert_int_eq(
	    set_flags(&f, all, 1, STORE_FLAGS_REMOVE, STORE_FLAGGED, "unknown"), ERR_NONE);
	ck_assert_int_eq(set_flags(&f, all, 7, STORE_FLAGS_SET, STORE_SEEN, NULL), ERR_NONE);
	ck_assert_int_eq(set_flags(&f, domain, 1, STORE_FLAGS_SET, STORE_ANSWERED, NULL), ERR_NONE);
	store_box_close(all);
	store_box_close(domain);
	fixture_reopen(&f);
	all = box_open(&f, "*", STORE_INBOX);
	domain = box_open(&f, "example.org", STORE_INBOX);
	ck_assert_uint_eq(only(all).flags, STORE_SEEN | STORE_KEYWORD_BIT(0));
	ck_assert_str_eq(store_box_keyword(all, 0), "$label1");
	ck_assert_uint_eq(only(domain).flags, STORE_ANSWERED);
	ck_assert_ptr_null(store_box_keyword(domain, 0));
	/* In any case of letters it is the same keyword. */
	ck_assert_int_eq(set_flags(&f, all, 1, STORE_FLAGS_REMOVE, 0, "$LABEL1"), ERR_NONE);
	ck_assert_uint_eq(only(all).flags, STORE_SEEN);
	store_box_close(all);
	store_box_close(domain);
	fixture_close(&f);
}
END_TEST

START_TEST(a_scope_has_so_many_keywords_and_no_more)
{
	struct store_box *box;
	struct fixture f;
	char name[STORE_KEYWORD_BYTES + 2];

	fixture_open(&f);
	ck_assert_int_eq(put(&f, test_id(1), "a@example.org", MESSAGE), ERR_NONE);
	box = box_open(&f, "*", STORE_INBOX);
	for (int i = 0; i < STORE_KEYWORDS_MAX; i++) {
		(void)snprintf(name, sizeof(name), "k%d", i);
		ck_assert_int_eq(set_flags(&f, box, 1, STORE_FLAGS_ADD, 0, name), ERR_NONE);
	}
	ck_assert_int_eq(set_flags(&f, box, 1, STORE_FLAGS_ADD, STORE_SEEN, "more"), ERR_LIMIT);
	ck_assert_uint_eq(only(box).flags & STORE_SEEN, 0); /* all or nothing */
	memset(name, 'x', sizeof(name));
	name[STORE_KEYWORD_BYTES + 1] = '\0';
	ck_assert_int_eq(set_flags(&f, box, 1, STORE_FLAGS_ADD, 0, name), ERR_LIMIT);
	ck_assert_int_eq(set_flags(&f, box, 1, STORE_FLAGS_ADD, 0, ""), ERR_LIMIT);
	ck_assert_uint_eq(only(box).flags, (((uint64_t)1 << STORE_KEYWORDS_MAX) - 1) << 8);
	store_box_close(box);
	fixture_close(&f);
}
END_TEST

START_TEST(Deleted_is_kept_in_INBOX_alone)
{
	struct store_box *inbox, *trash;
	struct fixture f;

	fixture_open(&f);
	ck_assert_int_eq(put(&f, test_id(1), "a@example.org", MESSAGE), ERR_NONE);
	inbox = box_open(&f, "*", STORE_INBOX);
	ck_assert_int_eq(
	    set_flags(&f, inbox, 1, STORE_FLAGS_ADD, STORE_DELETED | STORE_SEEN, NULL), ERR_NONE);
	ck_assert_uint_eq(only(inbox).flags, STORE_DELETED | STORE_SEEN);
	ck_assert_int_eq(move(&f, inbox, 1, STORE_TRASH, "adm", NULL), ERR_NONE);
	trash = box_open(&f, "*", STORE_TRASH);
	ck_assert_uint_eq(only(trash).flags, STORE_SEEN);
	ck_assert_int_eq(set_flags(&f, trash, 1, STORE_FLAGS_ADD, STORE_DELETED, NULL), ERR_NONE);
	ck_assert_uint_eq(only(trash).flags, STORE_SEEN);
	store_box_close(inbox);
	store_box_close(trash);
	fixture_close(&f);
}
END_TEST

/* ---- watching ------------------------------------------------------------------------------------ */

struct watcher {
	struct store_watch watch;
	struct store_box *box;
	struct buf log;
	bool leave;
};

static void
on_change(struct store_watch *watch, const struct store_change *change)
{
	static const char *const names[] = { "added", "removed", "flags", "keywords" };
	struct watcher *w = container_of(watch, struct watcher, watch);
	size_t n;

	(void)store_box_entries(w->box, &n); /* only how many */
	buf_printf(&w->log, "%s %u of %zu%s; ", names[change->kind], change->entry.uid, n,
	    change->by == w ? " by me" : "");
	if (w->leave)
		store_unwatch(watch);
}

static void
assert_log(struct watcher *w, const char *want)
{
	buf_putc(&w->log, '\0');
	ck_assert_str_eq(w->log.p, want);
	buf_reset(&w->log);
}

START_TEST(watchers_see_each_change_once_and_in_order)
{
	struct watcher a = { .watch = { .on_change = on_change }, .log = buf_heap(4096) };
	struct watcher b = {
		.watch = { .on_change = on_change }, .log = buf_heap(4096), .leave = true
	};
	struct fixture f;

	fixture_open(&f);
	a.box = b.box = box_open(&f, "*", STORE_INBOX);
	store_watch(a.box, &a.watch);
	store_watch(b.box, &b.watch);
	ck_assert_int_eq(put(&f, test_id(1), "a@example.org", MESSAGE), ERR_NONE);
	ck_assert_int_eq(put(&f, test_id(2), "a@example.org", MESSAGE), ERR_NONE);
	ck_assert_int_eq(set_flags(&f, a.box, 1, STORE_FLAGS_ADD, STORE_SEEN, "x"), ERR_NONE);
	ck_assert_int_eq(set_flags(&f, a.box, 1, STORE_FLAGS_ADD, STORE_SEEN, NULL), ERR_NONE);
	ck_assert_int_eq(move(&f, a.box, 1, STORE_TRASH, "adm", NULL), ERR_NONE);
	assert_log(
	    &a, "added 1 of 1; added 2 of 2; keywords 0 of 2; flags 1 of 2; removed 1 of 1; ");
	assert_log(&b, "added 1 of 1; ");
	store_unwatch(&a.watch);
	store_box_close(a.box);
	buf_fini(&a.log);
	buf_fini(&b.log);
	fixture_close(&f);
}
END_TEST

START_TEST(recent_is_told_once)
{
	struct store_box *box;
	struct fixture f;

	fixture_open(&f);
	ck_assert_int_eq(put(&f, test_id(1), "a@example.org", MESSAGE), ERR_NONE);
	box = box_open(&f, "*", STORE_INBOX);
	ck_assert_uint_eq(store_box_take_recent(box), 2);
	ck_assert_int_eq(put(&f, test_id(2), "a@example.org", MESSAGE), ERR_NONE);
	ck_assert_uint_eq(store_box_peek_recent(box), 2);
	ck_assert_uint_eq(store_box_take_recent(box), 2);
	ck_assert_uint_eq(store_box_take_recent(box), 3);
	store_box_close(box);
	fixture_close(&f);
}
END_TEST

/* ---- descriptions ----------------------------------------------------------------------------------- */

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

/* ---- expiry, limits, damage ---------------------------------------------------------------------------- */

START_TEST(what_is_older_than_keep_goes_but_never_while_it_is_being_released)
{
	struct store_box *box;
	struct fixture f;

	fixture_open(&f);
	for (unsigned i = 0; i < 3; i++)
		ck_assert_int_eq(put(&f, test_id(i), "a@example.org", MESSAGE), ERR_NONE);
	box = box_open(&f, "*", STORE_INBOX);
	ck_assert_int_eq(move(&f, box, 2, STORE_RELEASE, "adm", NULL), ERR_NONE);
	sql(&f, "UPDATE item SET changed_ms = changed_ms - 3601000 WHERE id < 3");
	store_expire_now(f.store);
	ck_assert_str_eq(uids(&f, "*", STORE_RELEASE), "1");
	ck_assert_uint_eq(only(box).uid, 3);
	ck_assert_int_eq(store_held(f.store), 1);
	ck_assert_int_eq(
	    sql_int(&f, "SELECT (SELECT count(*) FROM rcpt) + (SELECT count(*) FROM body)"
			" + (SELECT count(*) FROM chunk) + (SELECT count(*) FROM entry)"),
	    8);
	store_box_close(box);
	fixture_close(&f);
}
END_TEST

START_TEST(a_second_owner_is_refused_and_a_waiting_one_gets_the_store)
{
	struct err err = { 0 };
	struct fixture f;
	pid_t pid;
	int status, fds[2];
	char c;

	fixture_open(&f);
	ck_assert_ptr_null(store_open(&f.loop, &f.options, &err));
	ck_assert_int_eq(err.code, ERR_BUSY);
	store_close(f.store);
	f.store = NULL;
	ck_assert_int_eq(pipe(fds), 0);
	pid = fork();
	ck_assert_int_ge(pid, 0);
	if (pid == 0) {
		uv_loop_t loop;

		if (uv_loop_init(&loop) != 0 || store_open(&loop, &f.options, &err) == NULL ||
		    write(fds[1], "x", 1) != 1)
			_exit(1);
		(void)sleep(60); /* killed long before */
		_exit(0);
	}
	ck_assert_int_eq(read(fds[0], &c, 1), 1);
	f.options.lock_wait_ms = 0;
	ck_assert_ptr_null(store_open(&f.loop, &f.options, &err));
	f.options.lock_wait_ms = 30000;
	ck_assert_int_eq(kill(pid, SIGKILL), 0);
	fixture_reopen(&f);
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	(void)close(fds[0]); /* a pipe that is done with */
	(void)close(fds[1]);
	fixture_close(&f);
}
END_TEST

static const struct {
	const char *sql;
	enum err_code want;
	const char *msg;
} broken[] = {
	{ "PRAGMA user_version = 2", ERR_VERSION, "newer relayd" },
	{ "PRAGMA application_id = 7", ERR_DAMAGED, "no quarantine store" },
	{ "DROP TABLE entry", ERR_SYS, "entry" },
};

START_TEST(a_store_that_is_newer_or_not_ours_is_refused_by_name)
{
	struct err err = { 0 };
	struct fixture f;

	fixture_open(&f);
	store_close(f.store);
	sql(&f, broken[_i].sql);
	f.store = store_open(&f.loop, &f.options, &err);
	ck_assert_ptr_null(f.store);
	ck_assert_int_eq(err.code, broken[_i].want);
	ck_assert_ptr_nonnull(strstr(err.msg, broken[_i].msg));
	fixture_close(&f);
}
END_TEST

START_TEST(a_file_that_is_no_database_is_refused)
{
	struct err err = { 0 };
	struct fixture f;
	char path[128];
	FILE *file;

	fixture_open(&f);
	store_close(f.store);
	(void)snprintf(path, sizeof(path), "%s/quarantine.db", f.dir);
	file = fopen(path, "w");
	ck_assert_ptr_nonnull(file);
	for (int i = 0; i < 4096; i++)
		(void)fputs("not a database ", file); /* fclose() tells */
	ck_assert_int_eq(fclose(file), 0);
	f.store = store_open(&f.loop, &f.options, &err);
	ck_assert_ptr_null(f.store);
	ck_assert_int_eq(err.code, ERR_DAMAGED);
	fixture_close(&f);
}
END_TEST

START_TEST(a_damaged_body_is_told_and_spoils_no_other)
{
	struct buf out = buf_heap(4096);
	struct store_box *box;
	struct fixture f;
	size_t n;

	fixture_open(&f);
	ck_assert_int_eq(put(&f, test_id(1), "a@example.org", MESSAGE), ERR_NONE);
	ck_assert_int_eq(put(&f, test_id(2), "a@example.org", MESSAGE), ERR_NONE);
	sql(&f, "UPDATE chunk SET bytes = substr(bytes, 1, 20) || x'ff' || substr(bytes, 22)"
		" WHERE id = 1 << 20");
	box = box_open(&f, "*", STORE_INBOX);
	ck_assert_int_eq(
	    read_view(&f, box, store_box_entries(box, &n)[0].item, 0, 1000, &out), ERR_DAMAGED);
	ck_assert_int_eq(
	    read_view(&f, box, store_box_entries(box, &n)[1].item, 0, 1000, &out), ERR_NONE);
	ck_assert_int_eq(read_view(&f, box, 4711, 0, 1000, &out), ERR_NOT_FOUND);
	store_box_close(box);
	buf_fini(&out);
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

START_TEST(a_full_disk_refuses_says_so_and_recovers)
{
	struct buf message = big_message(1u << 20);
	struct fixture f;

	fixture_open(&f);
	store_limit_pages(f.store, 40);
	ck_assert_int_eq(
	    put_bytes(&f, test_id(1), "a@example.org", buf_slice(&message), 0, NULL), ERR_FULL);
	ck_assert(store_failing(f.store));
	ck_assert_uint_eq(count(&f, "*", STORE_INBOX), 0);
	store_limit_pages(f.store, 100000);
	ck_assert_int_eq(
	    put_bytes(&f, test_id(1), "a@example.org", buf_slice(&message), 0, NULL), ERR_NONE);
	ck_assert(!store_failing(f.store));
	ck_assert_uint_eq(count(&f, "*", STORE_INBOX), 1);
	buf_fini(&message);
	fixture_close(&f);
}
END_TEST

/* ---- kill -9 ----------------------------------------------------------------------------------------- */

#define CHILD_MESSAGES 400

struct child_put {
	struct store_put r;
	struct store_rcpt rcpt[2];
	unsigned n;
	int fd;
};

static void
on_child_put(struct store_put *r)
{
	struct child_put *p = container_of(r, struct child_put, r);

	if (r->req.err.code == ERR_NONE && write(p->fd, &p->n, sizeof(p->n)) != sizeof(p->n))
		_exit(1);
}

/* Puts, ten at a time, drops every third and releases every fourth, and says what is done. */
static void
child(struct fixture *f, int fd)
{
	static struct child_put puts[CHILD_MESSAGES];

	ck_assert_int_eq(uv_loop_init(&f->loop), 0);
	f->store = NULL;
	fixture_reopen(f);
	for (unsigned i = 0; i < CHILD_MESSAGES; i++) {
		struct child_put *p = &puts[i];

		*p = (struct child_put){ .r = { .id = test_id(i),
					     .bytes = SLICE(TOP("x") MESSAGE),
					     .rcpts = p->rcpt,
					     .n_rcpts = 2,
					     .done = on_child_put },
			.rcpt = { { SLICE("a@example.org"), SLICE("") },
			    { SLICE("b@example.net"), SLICE("") } },
			.n = i,
			.fd = fd };
		store_put(f->store, &p->r);
		if (i % 10 == 9) {
			struct store_box *box =
			    box_open(f, i % 20 == 9 ? "*" : "example.org", STORE_INBOX);

			(void)move(f, box, i / 3 + 1, STORE_TRASH, "adm", NULL);
			(void)move(f, box, i / 2 + 1, STORE_RELEASE, "adm", NULL);
			store_box_close(box);
		}
	}
	_exit(0);
}

START_TEST(after_kill_9_at_any_moment_all_that_was_confirmed_is_there_and_whole)
{
	unsigned confirmed = 0, n;
	struct fixture f;
	int fds[2], status;
	pid_t pid;

	fixture_open(&f);
	ck_assert_uint_eq(count(&f, "*", STORE_INBOX) + count(&f, "example.org", STORE_INBOX), 0);
	store_close(f.store);
	ck_assert_int_eq(pipe(fds), 0);
	pid = fork();
	ck_assert_int_ge(pid, 0);
	if (pid == 0)
		child(&f, fds[1]);
	(void)close(fds[1]); /* the child has it */
	while (confirmed < (unsigned)_i * 23 + 1 && read(fds[0], &n, sizeof(n)) == sizeof(n))
		confirmed++;
	ck_assert_int_eq(kill(pid, SIGKILL), 0);
	while (read(fds[0], &n, sizeof(n)) == sizeof(n))
		confirmed++;
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	(void)close(fds[0]); /* a pipe that is done with */
	f.store = NULL;
	fixture_reopen(&f);
	ck_assert_int_ge(sql_int(&f, "SELECT count(DISTINCT msg) FROM item"), confirmed);
	ck_assert_int_eq(
	    sql_int(&f, "SELECT count(*) FROM item") * 2, sql_int(&f, "SELECT count(*) FROM rcpt"));
	ck_assert_int_eq(sql_int(&f, "SELECT count(*) FROM item") * 2,
	    sql_int(&f, "SELECT count(*) FROM entry"));
	ck_assert_int_eq(
	    sql_int(&f, "SELECT count(*) FROM item"), sql_int(&f, "SELECT count(*) FROM chunk"));
	/* Every scope sees every item where the states say. */
	ck_assert_int_eq(
	    sql_int(&f,
		"SELECT count(*) FROM entry JOIN scope ON scope.id = scope WHERE box <>"
		" (SELECT CASE WHEN sum(state = 0) > 0 THEN 0 WHEN sum(state = 1) > 0 THEN 1"
		"  WHEN sum(state = 2) > 0 THEN 2 ELSE 3 END FROM rcpt"
		"  WHERE rcpt.item = entry.item AND (name = '*' OR domain = name))"),
	    0);
	ck_assert_int_eq(sql_int(&f, "SELECT count(*) FROM entry JOIN box USING (scope, box)"
				     " WHERE uid >= uidnext"),
	    0);
	ck_assert_int_eq(
	    sql_int(&f, "SELECT count(*) FROM pragma_quick_check WHERE quick_check <> 'ok'"), 0);
	ck_assert_int_eq((int64_t)jobs(&f, NULL) > 0,
	    sql_int(&f, "SELECT count(*) > 0 FROM rcpt WHERE state = 1"));
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
	UNIT_TEST(dropping_in_one_scope_shows_in_the_other_when_nothing_is_left_there);
	UNIT_TEST(release_moves_through_release_to_released_and_only_for_the_scope);
	UNIT_TEST(two_admins_who_release_at_the_same_moment_release_once);
	UNIT_TEST(a_release_refused_for_good_comes_back_to_INBOX_with_a_mark);
	UNIT_TEST(what_was_dropped_can_be_held_again_or_released);
	UNIT_ROWS(a_move_that_means_nothing_is_refused, refusals);
	UNIT_TEST(UIDs_are_stable_over_a_restart_and_never_used_again);
	UNIT_TEST(flags_belong_to_the_scope_and_survive);
	UNIT_TEST(a_scope_has_so_many_keywords_and_no_more);
	UNIT_TEST(Deleted_is_kept_in_INBOX_alone);
	UNIT_TEST(watchers_see_each_change_once_and_in_order);
	UNIT_TEST(recent_is_told_once);
	UNIT_TEST(descriptions_are_made_once_of_the_original_and_again_for_another_version);
	UNIT_TEST(what_is_older_than_keep_goes_but_never_while_it_is_being_released);
	UNIT_TEST(a_second_owner_is_refused_and_a_waiting_one_gets_the_store);
	UNIT_ROWS(a_store_that_is_newer_or_not_ours_is_refused_by_name, broken);
	UNIT_TEST(a_file_that_is_no_database_is_refused);
	UNIT_TEST(a_damaged_body_is_told_and_spoils_no_other);
	UNIT_TEST(an_item_outside_the_scope_cannot_be_read);
	UNIT_TEST(a_full_disk_refuses_says_so_and_recovers);
	tcase_add_loop_test(
	    tc, after_kill_9_at_any_moment_all_that_was_confirmed_is_there_and_whole, 0, 12);
}
