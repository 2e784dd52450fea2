/* tests/unit/supervisor/watch_test.c - changes of certificates, noticed once and when they are
 * done. */
#include "relayd/supervisor/watch.h"

#include "unit/unit.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static char dir[] = "/tmp/relayd-watch-XXXXXX";
static char paths[2][64];
static struct config_file files[3];
static struct config cfg;

static void
put(const char *path, const char *text)
{
	FILE *f = fopen(path, "w");

	ck_assert_ptr_nonnull(f);
	fputs(text, f);
	ck_assert_int_eq(fclose(f), 0);
}

/* Last changed long ago, as far as that can be said: the change time is the kernel's to set. */
static void
set_up(void)
{
	ck_assert_ptr_nonnull(mkdtemp(dir));
	for (int i = 0; i < 2; i++) {
		(void)snprintf(paths[i], sizeof(paths[i]), "%s/%d", dir, i);
		put(paths[i], "old");
		files[i] = (struct config_file){ .path = paths[i], .watched = true };
	}
	files[2] = (struct config_file){ .path = "/nonexistent" };
	cfg = (struct config){ .files = files, .n_files = 3 };
}

static void
tear_down(void)
{
	unlink(paths[0]);
	unlink(paths[1]);
	rmdir(dir);
}

/* Files so young are looked into once more. */
static void
begin(struct watch *w)
{
	watch_files(w, &cfg);
	ck_assert(!watch_look(w));
	ck_assert(watch_look(w));
	ck_assert(!watch_look(w));
	ck_assert(!watch_look(w));
}

START_TEST(a_change_is_told_once_when_it_is_still)
{
	struct watch w = { 0 };

	begin(&w);
	put(paths[0], "new, longer");
	ck_assert(!watch_look(&w)); /* it may not be all */
	put(paths[1], "and longer still");
	ck_assert(!watch_look(&w));
	ck_assert(watch_look(&w));
	ck_assert(!watch_look(&w));
	watch_fini(&w);
}
END_TEST

START_TEST(a_file_that_went_and_came_is_a_change)
{
	struct watch w = { 0 };

	begin(&w);
	unlink(paths[0]);
	ck_assert(!watch_look(&w));
	ck_assert(watch_look(&w));
	put(paths[0], "back");
	ck_assert(!watch_look(&w));
	ck_assert(watch_look(&w));
	ck_assert(!watch_look(&w));
	watch_fini(&w);
}
END_TEST

START_TEST(a_link_that_points_elsewhere_is_a_change)
{
	struct watch w = { 0 };
	char link_path[80];

	(void)snprintf(link_path, sizeof(link_path), "%s/link", dir);
	ck_assert_int_eq(symlink(paths[0], link_path), 0);
	files[0].path = link_path;
	begin(&w);
	unlink(link_path);
	ck_assert_int_eq(symlink(paths[1], link_path), 0);
	ck_assert(!watch_look(&w));
	ck_assert(watch_look(&w));
	unlink(link_path);
	watch_fini(&w);
}
END_TEST

START_TEST(nothing_to_watch_is_no_change)
{
	struct watch w = { 0 };

	cfg.n_files = 0;
	watch_files(&w, &cfg);
	ck_assert(!watch_look(&w));
	watch_fini(&w);
}
END_TEST

UNIT_SUITE(watch)
{
	tcase_add_checked_fixture(tc, set_up, tear_down);
	UNIT_TEST(a_change_is_told_once_when_it_is_still);
	UNIT_TEST(a_file_that_went_and_came_is_a_change);
	UNIT_TEST(a_link_that_points_elsewhere_is_a_change);
	UNIT_TEST(nothing_to_watch_is_no_change);
}
