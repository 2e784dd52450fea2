/* tests/unit/review/store_change_test.c - what becomes of held mail: states, UIDs, flags, who
 * watches, expiry. */
#include "unit/review/helper.h"
#include "unit/unit.h"

#include <stdio.h>
#include <stdlib.h>

/* ---- states ---------------------------------------------------------------------------------- */

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

/* ---- UIDs and flags -------------------------------------------------------------------------- */

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

/* ---- watching -------------------------------------------------------------------------------- */

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

/* ---- expiry ---------------------------------------------------------------------------------- */

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

UNIT_SUITE(store_change)
{
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
	UNIT_TEST(what_is_older_than_keep_goes_but_never_while_it_is_being_released);
}
