/* tests/unit/auth/users_test.c - the users file: read, found, scoped, and changed in place. */
#include "unit/unit.h"

#include "relayd/auth/users.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* Of "pencil", as in the examples of RFC 5802 section 5 and RFC 7677 section 3. */
#define SHA_1_REST "QSXCR+Q6sek8bf92$6dlGYMOdZcOPutkcNY8U2g7vK9Y=:D+CSWLOshSulAsxiupA+qs2/fTE="
#define SHA_1      "SCRAM-SHA-1$4096:" SHA_1_REST
#define SHA_256                                                                                    \
	"SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$"                                             \
	"WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:"                                            \
	"wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="

START_TEST(verifiers_are_found_by_their_mechanism)
{
	struct err err;
	struct users *u = users_parse(SLICE("ann:h:*:relay:" SHA_256 " CRAM-MD5$cGVuY2ls " SHA_1
					    "\nbob:h:*:\neve:!h:*::" SHA_1 "\n"),
	    "users", &err);
	struct scram_verifier v;

	ck_assert_ptr_nonnull(u);
	ck_assert(users_scram(users_at(u, 0), SCRAM_SHA_256, &v));
	ck_assert_uint_eq(v.iterations, 4096);
	ck_assert(slice_eq(v.salt, SLICE("W22ZaJ0SNY7soEsUEjb6gQ==")));
	ck_assert(slice_eq(v.server_key, SLICE("wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=")));
	ck_assert(users_scram(users_at(u, 0), SCRAM_SHA_1, &v));
	ck_assert(slice_eq(v.stored_key, SLICE("6dlGYMOdZcOPutkcNY8U2g7vK9Y=")));
	ck_assert(slice_eq(users_cram_md5(users_at(u, 0)), SLICE("cGVuY2ls")));
	ck_assert(users_at(u, 0)->relay);
	ck_assert(!users_scram(users_at(u, 1), SCRAM_SHA_1, &v));
	ck_assert_uint_eq(users_cram_md5(users_at(u, 1)).len, 0);
	ck_assert(users_is_locked(users_at(u, 2)) && !users_is_locked(users_at(u, 1)));
	ck_assert(!users_all_scram(u)); /* bob */
	users_free(u);
}
END_TEST

static const struct {
	const char *file;
	bool all;
} alls[] = {
	{ "", false },
	{ "a:$y$:*:\n", false },
	{ "a:$y$:*::" SHA_1 "\n", false },
	{ "a:$y$:*::" SHA_1 " " SHA_256 "\n", true },
	{ "a:$y$:*::" SHA_1 " " SHA_256 "\nb:*:*:\nc:!:*:\n", true },
	{ "a:$y$:*::" SHA_1 " " SHA_256 "\nb:$y$:*:\n", false },
};

START_TEST(scram_is_for_all_or_it_is_not)
{
	struct users *u = users_parse(slice_str(alls[_i].file), "users", NULL);

	ck_assert_ptr_nonnull(u);
	ck_assert_int_eq(users_all_scram(u), alls[_i].all);
	users_free(u);
}
END_TEST

START_TEST(a_file_gives_its_users)
{
	struct err err;
	struct users *u =
	    users_parse(SLICE("# admins\nadmin:$y$x:*:\n\nann:$y$y:example.org:relay\n"
			      "bob@b.test:*:bob@b.test:"),
		"users", &err);

	ck_assert_ptr_nonnull(u);
	ck_assert_uint_eq(users_count(u), 3);
	ck_assert(slice_eq(users_at(u, 1)->name, SLICE("ann")));
	ck_assert(users_find(u, SLICE("ann"))->relay);
	ck_assert(!users_find(u, SLICE("admin"))->relay);
	ck_assert(slice_eq(users_find(u, SLICE("bob@b.test"))->hash, SLICE("*")));
	ck_assert_ptr_null(users_find(u, SLICE("Ann")));
	ck_assert_ptr_null(users_find(u, SLICE("an")));
	ck_assert_ptr_null(users_find(u, SLICE("")));
	ck_assert_ptr_null(users_find(NULL, SLICE("ann")));
	users_free(u);
}
END_TEST

START_TEST(an_empty_file_has_nobody)
{
	struct users *u = users_parse(SLICE(""), "users", NULL);

	ck_assert_ptr_nonnull(u);
	ck_assert_ptr_null(users_find(u, SLICE("a")));
	users_free(u);
}
END_TEST

static const struct {
	const char *file, *wrong;
} bad[] = {
	{ "a:h:*\n", "users:1: not name:hash:scope:flags" },
	{ "a:h:*::CRAM-MD4$x\n", "users:1: a verifier is none" },
	{ "a:h:*::CRAM-MD5$\n", "users:1: a verifier is none" },
	{ "a:h:*::CRAM-MD5$eA== CRAM-MD5$eQ==\n", "users:1: a verifier is none" },
	{ "a:h:*::" SHA_1 "  " SHA_256 "\n", "users:1: a verifier is none" },
	{ "a:h:*::" SHA_1 " " SHA_1 "\n", "users:1: a verifier is none" },
	{ "a:h:*::SCRAM-SHA-1$4096:QSXCR+Q6sek8bf92$x:y\n", "users:1: a verifier is none" },
	{ "a:h:*::SCRAM-SHA-1$1:" SHA_1_REST "\n", "users:1: a verifier is none" },
	{ "a:h:*::SCRAM-SHA-256$4096:" SHA_1_REST "\n", "users:1: a verifier is none" },
	{ "#\na:h:*::\n", "users:2: not name:hash:scope:flags" },
	{ "a b:h:*:\n", "users:1: the name has a byte" },
	{ ":h:*:\n", "users:1: the name has a byte" },
	{ "a::*:\n", "users:1: the hash is empty" },
	{ "a:h:..:\n", "users:1: the scope is not" },
	{ "a:h:x@:\n", "users:1: the scope is not" },
	{ "a:h:*:admin\n", "users:1: the only flag" },
	{ "a:h:*:\nb:h:*:\na:h:*:\n", "users:3: user a is there already" },
};

START_TEST(a_wrong_line_is_named)
{
	struct err err;

	ck_assert_ptr_null(users_parse(slice_str(bad[_i].file), "users", &err));
	ck_assert_int_eq(err.code, ERR_CONFIG);
	ck_assert_msg(strncmp(err.msg, bad[_i].wrong, strlen(bad[_i].wrong)) == 0, "%s", err.msg);
}
END_TEST

static const struct {
	const char *scope, *mailbox;
	bool has;
} scopes[] = {
	{ "*", "a@b.test", true },
	{ "", "a@b.test", false },
	{ "b.test", "a@B.TEST", true },
	{ "b.test", "a@sub.b.test", false },
	{ "b.test", "b.test", false },
	{ "a@b.test", "a@B.test", true },
	{ "a@b.test", "A@b.test", false },
	{ "a@b.test", "aa@b.test", false },
};

START_TEST(a_scope_covers_all_a_domain_or_a_mailbox)
{
	ck_assert_int_eq(
	    users_scope_has(slice_str(scopes[_i].scope), slice_str(scopes[_i].mailbox)),
	    scopes[_i].has);
}
END_TEST

/* ---- changes --------------------------------------------------------------------------------- */

static char dir[] = "/tmp/relayd-users-XXXXXX";
static char path[64];

static void
put_file(const char *text)
{
	FILE *f = fopen(path, "w");

	ck_assert_ptr_nonnull(f);
	ck_assert_int_ge(fputs(text, f), 0);
	ck_assert_int_eq(fclose(f), 0);
}

static const char *
get_file(void)
{
	static char text[100000];
	FILE *f = fopen(path, "r");
	size_t n;

	ck_assert_ptr_nonnull(f);
	n = fread(text, 1, sizeof(text) - 1, f);
	text[n] = '\0';
	(void)fclose(f); /* read only */
	return text;
}

static void
set_up(void)
{
	ck_assert_ptr_nonnull(mkdtemp(dir));
	(void)snprintf(path, sizeof(path), "%s/users", dir);
}

static void
tear_down(void)
{
	(void)unlink(path);
	ck_assert_int_eq(rmdir(dir), 0); /* and no temporary file is left behind */
}

static struct user
user_of(const char *name, const char *hash, const char *scope, bool relay)
{
	return (
	    struct user){ slice_str(name), slice_str(hash), slice_str(scope), relay, SLICE("") };
}

START_TEST(a_change_touches_one_line)
{
	struct user ann = user_of("ann", "$y$new", "a.test", true);
	struct err err = { 0 };
	struct stat st;

	set_up();
	put_file("# keep me\nann2:h:*:\nann:old:b.test:relay\n\n# and me");
	ck_assert_int_eq(chmod(path, 0640), 0);
	ck_assert_int_eq(users_edit(path, USERS_PASSWD, &ann, &err), 0);
	ck_assert_str_eq(get_file(), "# keep me\nann2:h:*:\nann:$y$new:b.test:relay\n\n# and me\n");
	ck_assert_int_eq(users_edit(path, USERS_ADD, &ann, &err), -1);
	ck_assert_int_eq(err.code, ERR_EXISTS);
	ck_assert_int_eq(users_edit(path, USERS_REMOVE, &ann, &err), 0);
	ck_assert_str_eq(get_file(), "# keep me\nann2:h:*:\n\n# and me\n");
	ck_assert_int_eq(users_edit(path, USERS_REMOVE, &ann, &err), -1);
	ck_assert_int_eq(err.code, ERR_NOT_FOUND);
	ck_assert_int_eq(users_edit(path, USERS_ADD, &ann, &err), 0);
	ck_assert_str_eq(get_file(), "# keep me\nann2:h:*:\n\n# and me\nann:$y$new:a.test:relay\n");
	ck_assert_int_eq(stat(path, &st), 0);
	ck_assert_uint_eq(st.st_mode & 07777, 0640);
	tear_down();
}
END_TEST

START_TEST(a_new_password_has_new_verifiers)
{
	struct user ann = user_of("ann", "$y$new", "a.test", true);
	struct err err = { 0 };

	set_up();
	put_file("ann:old:b.test:relay\nbob:h:*::" SHA_1 "\n");
	ann.verifiers = SLICE(SHA_256);
	ck_assert_int_eq(users_edit(path, USERS_PASSWD, &ann, &err), 0);
	ck_assert_str_eq(get_file(), "ann:$y$new:b.test:relay:" SHA_256 "\nbob:h:*::" SHA_1 "\n");
	ann.name = SLICE("bob");
	ann.verifiers = SLICE("");
	ck_assert_int_eq(users_edit(path, USERS_PASSWD, &ann, &err), 0);
	ck_assert_str_eq(get_file(), "ann:$y$new:b.test:relay:" SHA_256 "\nbob:$y$new:*:\n");
	tear_down();
}
END_TEST

START_TEST(add_makes_a_private_file)
{
	struct user ann = user_of("ann", "h", "", false);
	struct stat st;
	struct err err;

	set_up();
	ck_assert_int_eq(users_edit(path, USERS_PASSWD, &ann, &err), -1);
	ck_assert_int_eq(err.code, ERR_SYS);
	ck_assert_int_eq(users_edit(path, USERS_ADD, &ann, &err), 0);
	ck_assert_str_eq(get_file(), "ann:h::\n");
	ck_assert_int_eq(stat(path, &st), 0);
	ck_assert_uint_eq(st.st_mode & 07777, 0600);
	tear_down();
}
END_TEST

START_TEST(a_change_of_a_wrong_file_or_name_changes_nothing)
{
	struct user ann = user_of("ann", "h", "*", false), odd = user_of("a:b", "h", "*", false);
	struct user scope = user_of("ann", "h", "no scope", false);
	struct err err;

	set_up();
	put_file("broken\n");
	ck_assert_int_eq(users_edit(path, USERS_ADD, &ann, &err), -1);
	ck_assert_int_eq(err.code, ERR_CONFIG);
	ck_assert_str_eq(get_file(), "broken\n");
	put_file("");
	ck_assert_int_eq(users_edit(path, USERS_ADD, &odd, &err), -1);
	ck_assert_int_eq(err.code, ERR_FORMAT);
	ck_assert_int_eq(users_edit(path, USERS_ADD, &scope, &err), -1);
	ck_assert_int_eq(err.code, ERR_FORMAT);
	ck_assert_str_eq(get_file(), "");
	tear_down();
}
END_TEST

/* Eight processes add users of their own: the lock loses none of them. */
START_TEST(changes_at_one_time_are_all_kept)
{
	struct users *u;

	set_up();
	for (int p = 0; p < 8; p++) {
		if (fork() != 0)
			continue;
		for (int i = 0; i < 10; i++) {
			char name[20];
			struct user user;

			(void)snprintf(name, sizeof(name), "u%d-%d", p, i); /* fits */
			user = user_of(name, "h", "*", false);
			if (users_edit(path, USERS_ADD, &user, NULL) < 0)
				_exit(1);
		}
		_exit(0);
	}
	for (int p = 0; p < 8; p++) {
		int status;

		ck_assert_int_gt(wait(&status), 0);
		ck_assert_int_eq(status, 0);
	}
	u = users_parse(slice_str(get_file()), path, NULL);
	ck_assert_ptr_nonnull(u);
	ck_assert_uint_eq(users_count(u), 80);
	users_free(u);
	tear_down();
}
END_TEST

UNIT_SUITE(auth_users)
{
	UNIT_TEST(a_file_gives_its_users);
	UNIT_TEST(an_empty_file_has_nobody);
	UNIT_TEST(verifiers_are_found_by_their_mechanism);
	UNIT_ROWS(scram_is_for_all_or_it_is_not, alls);
	UNIT_ROWS(a_wrong_line_is_named, bad);
	UNIT_ROWS(a_scope_covers_all_a_domain_or_a_mailbox, scopes);
	UNIT_TEST(a_change_touches_one_line);
	UNIT_TEST(a_new_password_has_new_verifiers);
	UNIT_TEST(add_makes_a_private_file);
	UNIT_TEST(a_change_of_a_wrong_file_or_name_changes_nothing);
	UNIT_TEST(changes_at_one_time_are_all_kept);
}
