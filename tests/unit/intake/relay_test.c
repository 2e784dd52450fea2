/* tests/unit/intake/relay_test.c - no open relay, and who a recipient is. */
#include "unit/unit.h"

#include "relayd/core/config.h"
#include "relayd/intake/alias.h"
#include "relayd/intake/recipients.h"
#include "relayd/intake/relay.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static size_t alias_row;

static struct config *
config_of(const char *text)
{
	char path[] = "/tmp/relayd-relay-XXXXXX";
	int fd = mkstemp(path);
	struct err err = { 0 };
	struct config *cfg;

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	(void)close(fd); /* the config is read from the path */
	cfg = config_load(path, config_source_disk(), &err);
	(void)unlink(path);
	ck_assert_msg(cfg != NULL, "%s", err.msg);
	return cfg;
}

static const char conf[] = "hostname = mx.example.org\ndomains = { example.org, Example.NET }\n"
			   "route example.org { to = { \"127.0.0.1:25\" }  recipients = any }\n"
			   "route example.net { to = { \"127.0.0.1:25\" }  recipients = any }\n"
			   "route partner.example { to = { \"127.0.0.1:25\" } }\n"
			   "route \"*\" { to = { mx } }\n";

/* As it stands in RCPT TO.  What the grammar refuses never reaches the rule. */
static const struct {
	const char *path;
	enum relay_verdict outside, trusted;
} rows[] = {
	{ "<ann@example.org>", RELAY_OURS, RELAY_OURS },
	{ "<ann@EXAMPLE.org>", RELAY_OURS, RELAY_OURS },
	{ "<ann@example.net>", RELAY_OURS, RELAY_OURS },
	{ "<postmaster>", RELAY_POSTMASTER, RELAY_POSTMASTER },
	{ "<PostMaster>", RELAY_POSTMASTER, RELAY_POSTMASTER },
	{ "<eve@example.com>", RELAY_DENIED, RELAY_ONWARD },
	{ "<eve@sub.example.org>", RELAY_DENIED, RELAY_ONWARD },
	{ "<eve@xexample.org>", RELAY_DENIED, RELAY_ONWARD },
	{ "<eve@example.org.example.com>", RELAY_DENIED, RELAY_ONWARD },
	{ "<@example.org:eve@example.com>", RELAY_DENIED, RELAY_ONWARD },
	{ "<@example.com:ann@example.org>", RELAY_OURS, RELAY_OURS },
	{ "<eve%example.com@example.org>", RELAY_ROUTED, RELAY_OURS },
	{ "<example.com!eve@example.org>", RELAY_ROUTED, RELAY_OURS },
	{ "<\"eve\\@example.com\"@example.org>", RELAY_ROUTED, RELAY_OURS },
	{ "<\"ann smith\"@example.org>", RELAY_OURS, RELAY_OURS },
	{ "<eve%example.org@example.com>", RELAY_DENIED, RELAY_ONWARD },
	{ "<example.org!eve@example.com>", RELAY_DENIED, RELAY_ONWARD },
	{ "<\"eve@example.org\"@example.com>", RELAY_DENIED, RELAY_ONWARD },
	{ "<\"eve@example.com\"@example.org>", RELAY_ROUTED, RELAY_OURS },
	{ "<eve@[127.0.0.1]>", RELAY_DENIED, RELAY_ONWARD },
	{ "<eve@[IPv6:::1]>", RELAY_DENIED, RELAY_ONWARD },
};

START_TEST(only_the_domain_of_the_mailbox_decides)
{
	struct config *cfg = config_of(conf);
	struct relay_client outside = { 0 }, trusted = { .trusted = true };
	struct relay_client reader = { .submission = true };
	struct slice in = slice_str(rows[_i].path);
	struct address path;
	enum relay_verdict refused =
	    rows[_i].outside == RELAY_POSTMASTER ? RELAY_POSTMASTER : RELAY_DENIED;

	ck_assert_int_eq(address_forward_path(&in, 0, &path), ADDRESS_OK);
	ck_assert_int_eq(relay_check(cfg, &outside, &path), rows[_i].outside);
	ck_assert_int_eq(relay_check(cfg, &trusted, &path), rows[_i].trusted);
	/* Nothing from a submission listener is inbound: who may not relay sends nothing. */
	ck_assert_int_eq(relay_check(cfg, &reader, &path), refused);
	config_unref(cfg);
}
END_TEST

static const char *const unspeakable[] = { "<ann@example.org.>", "<ann@example.org@example.com>",
	"<ann@.example.org>", "<ann@example..org>", "<ann>", "<@example.org>",
	"<ann@example.org\t>", "<ann@[127.0.0.1>", "<ann@exa mple.org>", "<>" };

START_TEST(what_is_no_path_never_reaches_the_rule)
{
	struct slice in = slice_str(unspeakable[_i]);
	struct address path;

	ck_assert_int_ne(address_forward_path(&in, 0, &path), ADDRESS_OK);
}
END_TEST

/* ---- recipients ------------------------------------------------------------------------------ */

static const char file[] =
    "\xef\xbb\xbfkim@example.org\n# ours\n\n\xc3\xbc@b\xc3\xbc"
    "cher.example\n"
    "@h\xc3\xb6rer.example\nann@example.org\r\n  Bob@Example.ORG  \n@example.net\n"
    "\"o'hara\"@example.org\n\"two words\"@example.org\nann@example.org\n";

static const struct {
	const char *mailbox;
	bool there;
} known[] = {
	{ "kim@example.org", true },
	{ "\xc3\xbc@xn--bcher-kva.example", true },
	{ "any@xn--hrer-5qa.example", true },
	{ "ann@example.org", true },
	{ "ANN@EXAMPLE.ORG", true },
	{ "\"ann\"@example.org", true },
	{ "bob@example.org", true },
	{ "o'hara@example.org", true },
	{ "\"Two Words\"@example.org", true },
	{ "anyone@example.net", true },
	{ "anyone@EXAMPLE.net", true },
	{ "eve@example.org", false },
	{ "ann@example.com", false },
	{ "ann@sub.example.net", false },
	{ "annn@example.org", false },
	{ "an@example.org", false },
};

START_TEST(a_file_knows_its_recipients)
{
	struct err err;
	struct recipients *r = recipients_parse(NULL, slice_str(file), "file", &err);
	struct address mailbox;
	struct slice targets;

	ck_assert_ptr_nonnull(r);
	ck_assert_uint_eq(recipients_count(r), 8);
	ck_assert_int_eq(
	    address_mailbox(slice_str(known[_i].mailbox), ADDRESS_UTF8, &mailbox), ADDRESS_OK);
	ck_assert_int_eq(
	    recipients_find(r, &mailbox, '\0', &targets) == RECIPIENTS_KNOWN, known[_i].there);
	recipients_unref(r);
}
END_TEST

static const struct {
	const char *file, *wrong;
} bad[] = {
	{ "ann@example.org\nbob\n", "file:2: neither an address nor @domain: bob" },
	{ "@\n", "file:1: neither" },
	{ "@a..b\n", "file:1: neither" },
	{ "ann@example.org bob@example.org\n", "file:1: neither" },
	{ "ann@example.org:\n", "file:1: an alias without a target" },
	{ "ann@example.org: bob\n", "file:1: the target is neither" },
	{ "ann@example.org: bob@example.org,\n\n", "" },
	{ "ann@example.org: bob@example.org, , eve@example.org\n",
	    "file:1: the target is neither" },
	{ "#\nann@example.org: eve@example.com\n", "file:2: the domain of the target is not ours "
						   "and has no route of its own: eve@example.com" },
	{ "@example.org: @example.com\n", "file:1: the domain of the target is not ours" },
	{ "ann@example.org: eve%example.com@example.org\n", "" },
	{ "ann@example.org: ann@example.net\nANN@example.org\n",
	    "file:2: named twice, and an alias" },
	{ "ann@example.org\n\"ann\"@example.org: ann@example.net\n", "file:2: named twice" },
	{ "\"a:b\"@example.org: \"x,y\"@example.net , ann@partner.example\n", "" },
};

START_TEST(a_wrong_line_is_named)
{
	struct err err = { .msg = "" };
	struct config *cfg = config_of(conf);
	struct recipients *r = recipients_parse(cfg, slice_str(bad[_i].file), "file", &err);

	ck_assert_int_eq(r == NULL, bad[_i].wrong[0] != '\0');
	ck_assert_int_eq(err.code, r == NULL ? ERR_CONFIG : ERR_NONE);
	ck_assert_msg(strncmp(err.msg, bad[_i].wrong, strlen(bad[_i].wrong)) == 0, "%s", err.msg);
	recipients_unref(r);
	config_unref(cfg);
}
END_TEST

/* ---- aliases --------------------------------------------------------------------------------- */

static const char aliases[] = "ann@example.org\nbob@example.org\n\"two words\"@example.org\n"
			      "sales@example.org: ann@example.org, BOB@example.org\n"
			      "keep@example.org: keep@example.org, ann@example.net\n"
			      "away@example.org: ann@partner.example\n"
			      "one@example.org: two@example.org\ntwo@example.org: one@example.org\n"
			      "deep@example.org: sales@example.org, one@example.org\n"
			      "gone@example.org: nobody@example.org\n"
			      "half@example.org: nobody@example.org, ann@example.org\n"
			      "a-b@example.org\n";

/* What a forward-path stands for; "" for nothing. */
static const struct {
	const char *path, *paths;
	enum alias_result result;
} walks[] = {
	{ "ann@example.org", "ann@example.org", ALIAS_KNOWN },
	{ "ANN@Example.org", "ANN@Example.org", ALIAS_KNOWN }, /* the bytes as received */
	{ "ann+list@example.org", "ann+list@example.org", ALIAS_KNOWN },
	{ "ann+a+b@example.org", "ann+a+b@example.org", ALIAS_KNOWN },
	{ "\"ann+x\"@example.org", "\"ann+x\"@example.org", ALIAS_KNOWN },
	{ "+ann@example.org", "", ALIAS_UNKNOWN },
	{ "ann-x@example.org", "", ALIAS_UNKNOWN },
	{ "a-b@example.org", "a-b@example.org", ALIAS_KNOWN },
	{ "\"two words+x\"@example.org", "", ALIAS_UNKNOWN },
	{ "Sales@example.org", "ann@example.org BOB@example.org", ALIAS_KNOWN },
	{ "sales+x@example.org", "ann@example.org BOB@example.org", ALIAS_KNOWN },
	{ "keep@example.org", "keep@example.org ann@example.net", ALIAS_KNOWN },
	{ "away@example.org", "ann@partner.example", ALIAS_KNOWN },
	{ "one@example.org", "", ALIAS_CIRCLE },
	{ "deep@example.org", "ann@example.org BOB@example.org", ALIAS_KNOWN },
	{ "gone@example.org", "", ALIAS_UNKNOWN },
	{ "half@example.org", "ann@example.org", ALIAS_KNOWN },
	{ "sales%example.com@example.org", "", ALIAS_UNKNOWN },
	{ "example.com!sales@example.org", "", ALIAS_UNKNOWN },
	{ "\"ann@example.com\"@example.org", "", ALIAS_UNKNOWN },
};

/* What a generation knows of a file of example.org. */
static void
walk(const char *text, const char *path, struct arena *arena,
    void (*look)(enum alias_result, const struct alias_paths *))
{
	struct config *cfg = config_of(conf);
	struct recipients *v[4] = { recipients_parse(cfg, slice_str(text), "file", NULL) };
	struct recipients_tables tables = { .refs = 1, .cfg = cfg, .v = v };
	struct generation gen = { .cfg = cfg, .recipients = &tables };
	struct alias_paths paths;

	ck_assert_ptr_nonnull(v[0]);
	cfg->recipients.extension = '+';
	look(alias_expand(&gen, arena, slice_str(path), &paths), &paths);
	recipients_unref(v[0]);
	config_unref(cfg);
}

static void
look_at_row(enum alias_result result, const struct alias_paths *paths)
{
	char text[400] = "";
	struct buf b = buf_over(text, sizeof(text) - 1);

	for (size_t i = 0; i < paths->n; i++)
		buf_printf(&b, "%s%.*s", i > 0 ? " " : "", SLICE_FMT(paths->v[i]));
	ck_assert_str_eq(text, walks[alias_row].paths);
	ck_assert_int_eq(result, walks[alias_row].result);
}

START_TEST(a_path_stands_for_what_its_aliases_say)
{
	struct arena arena = arena_of(1 << 20);

	alias_row = (size_t)_i;
	walk(aliases, walks[_i].path, &arena, look_at_row);
	arena_fini(&arena);
}
END_TEST

static void
look_at_limit(enum alias_result result, const struct alias_paths *paths)
{
	ck_assert_int_eq(result, alias_row > ALIAS_PATHS_MAX - 1 ? ALIAS_LIMIT : ALIAS_KNOWN);
	ck_assert_uint_eq(paths->n, result == ALIAS_KNOWN ? alias_row : 0);
}

/* Both sides of the limit: the alias counts too. */
START_TEST(an_alias_leads_only_so_far)
{
	struct arena arena = arena_of(1 << 20);
	char *text = malloc(40 * (ALIAS_PATHS_MAX + 2)), *at = text;

	alias_row = ALIAS_PATHS_MAX - 1 + (size_t)_i;
	at += sprintf(at, "all@example.org:");
	for (size_t i = 0; i < alias_row; i++)
		at += sprintf(at, "%su%zu@example.net", i > 0 ? "," : "", i);
	walk(text, "all@example.org", &arena, look_at_limit);
	free(text);
	arena_fini(&arena);
}
END_TEST

static void
look_at_domain(enum alias_result result, const struct alias_paths *paths)
{
	ck_assert_int_eq(result, ALIAS_KNOWN);
	ck_assert(slice_eq(paths->v[0], SLICE("Some.One@example.net")));
}

START_TEST(a_domain_can_be_another)
{
	struct arena arena = arena_of(1 << 20);

	walk("@example.org: @example.net\n", "Some.One@example.org", &arena, look_at_domain);
	arena_fini(&arena);
}
END_TEST

START_TEST(many_recipients_are_all_found)
{
	size_t n = 50000;
	char *text = malloc(n * 40), *at = text, name[40];
	struct recipients *r;
	struct address mailbox;
	struct slice targets;

	for (size_t i = 0; i < n; i++)
		at += sprintf(at, "user%zu@example.org\n", i);
	r = recipients_parse(NULL, slice_of(text, (size_t)(at - text)), "file", NULL);
	ck_assert_ptr_nonnull(r);
	ck_assert_uint_eq(recipients_count(r), n);
	for (size_t i = 0; i < n + 1000; i++) {
		(void)snprintf(name, sizeof(name), "USER%zu@example.org", i); /* fits */
		ck_assert_int_eq(address_mailbox(slice_str(name), 0, &mailbox), ADDRESS_OK);
		ck_assert_int_eq(
		    recipients_find(r, &mailbox, '+', &targets) == RECIPIENTS_KNOWN, i < n);
	}
	recipients_unref(r);
	free(text);
}
END_TEST

UNIT_SUITE(intake_relay)
{
	UNIT_ROWS(only_the_domain_of_the_mailbox_decides, rows);
	UNIT_ROWS(what_is_no_path_never_reaches_the_rule, unspeakable);
	UNIT_ROWS(a_file_knows_its_recipients, known);
	UNIT_ROWS(a_wrong_line_is_named, bad);
	UNIT_TEST(many_recipients_are_all_found);
	UNIT_ROWS(a_path_stands_for_what_its_aliases_say, walks);
	tcase_add_loop_test(tc, an_alias_leads_only_so_far, 0, 2);
	UNIT_TEST(a_domain_can_be_another);
}
