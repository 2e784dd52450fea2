/* tests/unit/core/io_test.c - the real disk behind the narrow door. */
#include "unit/unit.h"

#include "relayd/core/io.h"
#include "relayd/core/slice.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char path[64];
static struct io_dir *dir;
static struct err err;

static void
setup(void)
{
	(void)snprintf(path, sizeof(path), "/tmp/relayd-io-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(path));
	err = (struct err){ 0 };
	dir = io_dir_open(path, &err);
	ck_assert_ptr_nonnull(dir);
}

static void
teardown(void)
{
	char command[128];

	io_dir_close(dir);
	(void)snprintf(command, sizeof(command), "rm -rf %s", path);
	ck_assert_int_eq(system(command), 0);
}

START_TEST(what_is_written_is_read)
{
	struct io_file *file = io_create(dir, "a", &err);
	char text[] = "hello", more[] = ", world", got[32];
	struct iovec iov[2] = { { text, 5 }, { more, 7 } };
	uint64_t size;

	ck_assert_ptr_nonnull(file);
	ck_assert_int_eq(io_write(file, iov, 2, 100, &err), 0);
	ck_assert_int_eq(io_sync(file, &err), 0);
	ck_assert_int_eq(io_sync_dir(dir, &err), 0);
	ck_assert_int_eq(io_size(file, &size, &err), 0);
	ck_assert_uint_eq(size, 112);
	ck_assert_int_eq(io_read(file, got, sizeof(got), 100, &err), 12);
	ck_assert_int_eq(memcmp(got, "hello, world", 12), 0);
	ck_assert_int_eq(io_read(file, got, sizeof(got), 112, &err), 0);
	io_close(file);
}
END_TEST

START_TEST(many_pieces_are_written_in_order)
{
	struct io_file *file = io_create(dir, "a", &err);
	static char bytes[3000], got[3000];
	static struct iovec iov[3000];

	for (size_t i = 0; i < 3000; i++) {
		bytes[i] = (char)('a' + i % 26);
		iov[i] = (struct iovec){ &bytes[i], 1 };
	}
	ck_assert_int_eq(io_write(file, iov, 3000, 0, &err), 0);
	ck_assert_int_eq(io_read(file, got, sizeof(got), 0, &err), 3000);
	ck_assert_int_eq(memcmp(bytes, got, sizeof(got)), 0);
	io_close(file);
}
END_TEST

START_TEST(errors_have_codes_and_name_the_file)
{
	struct io_file *file = io_create(dir, "a", &err);

	ck_assert_ptr_null(io_create(dir, "a", &err));
	ck_assert_int_eq(err.code, ERR_EXISTS);
	ck_assert_ptr_null(io_open(dir, "b", false, &err));
	ck_assert_int_eq(err.code, ERR_NOT_FOUND);
	ck_assert_int_eq(err.sys, ENOENT);
	ck_assert_ptr_nonnull(strstr(err.msg, "/b: No such file"));
	ck_assert_int_eq(io_unlink(dir, "b", &err), -1);
	ck_assert_int_eq(err.code, ERR_NOT_FOUND);
	ck_assert_ptr_null(io_dir_open("/nowhere/at/all", &err));
	ck_assert_int_eq(err.code, ERR_NOT_FOUND);
	io_close(file);
}
END_TEST

START_TEST(a_full_disk_is_full)
{
	char byte = 'x';
	struct iovec iov = { &byte, 1 };
	struct io_dir *dev = io_dir_open("/dev", &err);
	struct io_file *file = io_open(dev, "full", true, &err);

	ck_assert_ptr_nonnull(file);
	ck_assert_int_eq(io_write(file, &iov, 1, 0, &err), -1);
	ck_assert_int_eq(err.code, ERR_FULL);
	io_close(file);
	io_dir_close(dev);
}
END_TEST

START_TEST(a_lock_is_one_handles_alone)
{
	struct io_file *mine = io_create(dir, "lock", &err),
		       *other = io_open(dir, "lock", true, &err);
	bool locked = true;

	ck_assert_int_eq(io_locked(other, &locked, &err), 0);
	ck_assert(!locked);
	ck_assert_int_eq(io_lock(mine, &err), 0);
	ck_assert_int_eq(io_lock(other, &err), -1);
	ck_assert_int_eq(err.code, ERR_BUSY);
	ck_assert_int_eq(io_locked(other, &locked, &err), 0);
	ck_assert(locked);
	io_close(mine);
	ck_assert_int_eq(io_lock(other, &err), 0);
	io_close(other);
}
END_TEST

static void
note(void *data, const char *name)
{
	strcat(data, name); /* room for a few */
}

START_TEST(names_come_and_go)
{
	char names[64] = "";
	struct io_dir *sub = io_dir_make_at(dir, "sub.tmp", &err), *again;
	struct io_file *file = io_create(sub, "a", &err);
	struct stat st;

	ck_assert_int_eq(io_rename(file, "b", &err), 0);
	ck_assert_str_eq(io_name(file), "b");
	ck_assert_int_eq(io_dir_rename(dir, sub, "sub", &err), 0);
	ck_assert_ptr_nonnull(strstr(io_dir_path(sub), "/sub"));
	ck_assert_ptr_null(strstr(io_dir_path(sub), ".tmp"));
	ck_assert_int_eq(io_list(sub, note, names, &err), 0);
	ck_assert_str_eq(names, "b");
	ck_assert_int_eq(io_remove_dir(dir, "sub", &err), -1);
	ck_assert_int_eq(io_move(sub, "b", dir, "c", &err), 0);
	ck_assert_int_eq(io_remove_dir(dir, "sub", &err), 0);
	again = io_dir_make_at(dir, "sub", &err);
	ck_assert_int_eq(fstatat(AT_FDCWD, io_dir_path(again), &st, 0), 0);
	ck_assert_uint_eq(st.st_mode & 0777, 0700);
	io_dir_close(again);
	io_close(file);
	io_dir_close(sub);
}
END_TEST

START_TEST(a_directory_is_made_by_path)
{
	char deep[128];
	struct io_dir *made;
	uint64_t bytes;

	(void)snprintf(deep, sizeof(deep), "%s/new/", path);
	made = io_dir_make(deep, &err);
	ck_assert_msg(made != NULL, "%s", err.msg);
	ck_assert_int_eq(io_free_bytes(made, &bytes, &err), 0);
	ck_assert_uint_gt(bytes, 0);
	io_dir_close(made);
	made = io_dir_make(deep, &err); /* it is there */
	ck_assert_ptr_nonnull(made);
	io_dir_close(made);
	(void)snprintf(deep, sizeof(deep), "%s/no/such/parent", path);
	ck_assert_ptr_null(io_dir_make(deep, &err));
	ck_assert_int_eq(chdir(path), 0);
	made = io_dir_make("relative", &err);
	ck_assert_msg(made != NULL, "%s", err.msg);
	io_dir_close(made);
}
END_TEST

START_TEST(a_shared_page_is_seen_at_once)
{
	struct io_file *file = io_create(dir, "page", &err), *other;
	char zeros[4096] = "";
	struct iovec iov = { zeros, sizeof(zeros) };
	char *mine;
	const char *theirs;

	ck_assert_int_eq(io_write(file, &iov, 1, 0, &err), 0);
	other = io_open(dir, "page", false, &err);
	mine = io_map(file, 4096, true, &err);
	theirs = io_map(other, 4096, false, &err);
	io_close(file);
	io_close(other);
	mine[7] = 'x';
	ck_assert_int_eq(theirs[7], 'x');
	io_unmap(mine, 4096);
	io_unmap((void *)(uintptr_t)theirs, 4096);
}
END_TEST

UNIT_SUITE(core_io)
{
	tcase_add_checked_fixture(tc, setup, teardown);
	UNIT_TEST(what_is_written_is_read);
	UNIT_TEST(many_pieces_are_written_in_order);
	UNIT_TEST(errors_have_codes_and_name_the_file);
	UNIT_TEST(a_full_disk_is_full);
	UNIT_TEST(a_lock_is_one_handles_alone);
	UNIT_TEST(names_come_and_go);
	UNIT_TEST(a_directory_is_made_by_path);
	UNIT_TEST(a_shared_page_is_seen_at_once);
}
