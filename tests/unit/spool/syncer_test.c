/* tests/unit/spool/syncer_test.c - on a real disk, in the loop and in a thread, nothing is told
 * too early or twice. */
#include "unit/unit.h"

#include "relayd/core/clock.h"
#include "relayd/core/io_disk.h"
#include "relayd/spool/syncer.h"
#include "unit/spool/rig.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static struct rig rig;
static struct err err;
static char dir[] = "/tmp/relayd-spool-XXXXXX";

static void
setup(void)
{
	ck_assert_ptr_nonnull(mkdtemp(dir));
	ck_assert_int_eq(chdir(dir), 0);
	rig_init(&rig);
	io_use(NULL);
}

static void
remove_tree(const char *path)
{
	char command[256];

	(void)snprintf(command, sizeof(command), "rm -rf %s", path);
	ck_assert_int_eq(system(command), 0);
}

static void
teardown(void)
{
	rig_fini(&rig);
	io_use(NULL);
	ck_assert_int_eq(chdir("/"), 0);
	remove_tree(dir);
}

static void
run_until(const bool *flag)
{
	int64_t deadline = clock_mono_ms() + 30000;

	while (!*flag && clock_mono_ms() < deadline)
		(void)uv_run(&rig.loop, UV_RUN_NOWAIT);
	ck_assert(*flag);
}

static const enum syncer_place places[] = { SYNCER_IN_LOOP, SYNCER_IN_THREAD, SYNCER_BY_SPEED };

START_TEST(messages_flow_wherever_the_sync_runs)
{
	struct rig_msg msgs[60];
	struct reader_item item;
	struct spool *sp;
	size_t seen = 0;

	syncer_use(places[_i]);
	sp = rig_spool(&rig, 100 << 10, &err);
	ck_assert_msg(sp != NULL, "%s", err.msg);
	ck_assert_int_eq(rig_open(&rig, &err), 0);
	for (uint32_t i = 0; i < 60; i++) {
		ck_assert_int_eq(
		    rig_send(sp, &msgs[i], i, i % 20 == 5 ? 600000 : 2000 * (1 + i % 5)), 0);
		if (i % 4 == 3)
			run_until(&msgs[i].told);
		while (reader_next(rig.reader, &item, &err) > 0) {
			size_t size;
			uint32_t number;
			char *bytes = rig_body(&rig, &item, &size, &err);

			ck_assert(rig_is_body(slice_of(bytes, size), &number));
			free(bytes);
			journal_done(rig.journal, item.msg);
			seen++;
		}
		journal_flush(rig.journal);
	}
	for (int i = 0; i < 60; i++) {
		run_until(&msgs[i].told);
		ck_assert_int_eq(msgs[i].code, ERR_NONE);
	}
	while (reader_next(rig.reader, &item, &err) > 0)
		seen++;
	ck_assert_uint_eq(seen, 60);
	spool_close(sp);
}
END_TEST

START_TEST(closing_waits_for_the_thread)
{
	struct rig_msg small, large;
	struct spool *sp;

	syncer_use(SYNCER_IN_THREAD);
	sp = rig_spool(&rig, 0, &err);
	ck_assert_int_eq(rig_send(sp, &small, 1, 1000), 0);
	ck_assert_int_eq(rig_send(sp, &large, 2, 1 << 20), 0);
	for (int i = 0; i < 2; i++)
		(void)uv_run(&rig.loop, UV_RUN_NOWAIT); /* both are given to their threads */
	spool_close(sp);
	ck_assert(small.told && large.told);
	ck_assert(small.code == ERR_NONE);
	ck_assert(large.code == ERR_CANCELLED);
}
END_TEST

static struct io_ops slow;
static uv_thread_t loop_thread;
static unsigned syncs, syncs_in_loop;

static int
slow_sync(int fd)
{
	uv_thread_t self = uv_thread_self();

	syncs++; /* one at a time, as the log has one segment */
	if (uv_thread_equal(&self, &loop_thread))
		syncs_in_loop++;
	(void)usleep(5000);
	return io_disk.sync(fd);
}

/* A disk that takes 5 ms a sync must not stop the loop each time. */
START_TEST(a_slow_disk_is_waited_for_in_a_thread)
{
	struct rig_msg msgs[100];
	struct spool *sp;

	slow = io_disk;
	slow.sync = slow_sync;
	io_use(&slow);
	loop_thread = uv_thread_self();
	syncer_use(SYNCER_BY_SPEED);
	sp = rig_spool(&rig, 0, &err);
	for (uint32_t i = 0; i < 100; i++) {
		ck_assert_int_eq(rig_send(sp, &msgs[i], i, 1000), 0);
		run_until(&msgs[i].told);
		ck_assert_int_eq(msgs[i].code, ERR_NONE);
	}
	ck_assert_uint_ge(syncs, 100);
	ck_assert_uint_le(syncs_in_loop, 10); /* until it was known to be slow */
	spool_close(sp);
}
END_TEST

UNIT_SUITE(spool_syncer)
{
	tcase_add_checked_fixture(tc, setup, teardown);
	UNIT_ROWS(messages_flow_wherever_the_sync_runs, places);
	UNIT_TEST(closing_waits_for_the_thread);
	UNIT_TEST(a_slow_disk_is_waited_for_in_a_thread);
}
