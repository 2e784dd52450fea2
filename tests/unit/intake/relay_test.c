/* tests/unit/intake/relay_test.c - no open relay, and who a recipient is. */
#include "unit/unit.h"

#include "relayd/core/config.h"
#include "relayd/intake/recipients.h"
#include "relayd/intake/relay.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

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
			   "route example.net { to = { \"127.0.0.1:25\" }  recipients = any }\n";

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
	{ "<eve%example.com@example.org>", RELAY_OURS, RELAY_OURS },
	{ "<eve%example.org@example.com>", RELAY_DENIED, RELAY_ONWARD },
	{ "<example.org!eve@example.com>", RELAY_DENIED, RELAY_ONWARD },
	{ "<\"eve@example.org\"@example.com>", RELAY_DENIED, RELAY_ONWARD },
	{ "<\"eve@example.com\"@example.org>", RELAY_OURS, RELAY_OURS },
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

static const char file[] = "# ours\n\nann@example.org\r\n  Bob@Example.ORG  \n@example.net\n"
			   "\"o'hara\"@example.org\n\"two words\"@example.org\nann@example.org\n";

static const struct {
	const char *mailbox;
	bool there;
} known[] = {
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
	struct recipients *r = recipients_parse(slice_str(file), "file", &err);
	struct address mailbox;

	ck_assert_ptr_nonnull(r);
	ck_assert_uint_eq(recipients_count(r), 5);
	ck_assert_int_eq(address_mailbox(slice_str(known[_i].mailbox), 0, &mailbox), ADDRESS_OK);
	ck_assert_int_eq(recipients_has(r, &mailbox), known[_i].there);
	recipients_free(r);
}
END_TEST

static const struct {
	const char *file, *wrong;
} bad[] = {
	{ "ann@example.org\nbob\n", "file:2: neither an address nor @domain: bob" },
	{ "@\n", "file:1: neither" },
	{ "@a..b\n", "file:1: neither" },
	{ "ann@example.org bob@example.org\n", "file:1: neither" },
};

START_TEST(a_wrong_line_is_named)
{
	struct err err;

	ck_assert_ptr_null(recipients_parse(slice_str(bad[_i].file), "file", &err));
	ck_assert_int_eq(err.code, ERR_CONFIG);
	ck_assert_msg(strncmp(err.msg, bad[_i].wrong, strlen(bad[_i].wrong)) == 0, "%s", err.msg);
}
END_TEST

START_TEST(many_recipients_are_all_found)
{
	size_t n = 50000;
	char *text = malloc(n * 40), *at = text, name[40];
	struct recipients *r;
	struct address mailbox;

	for (size_t i = 0; i < n; i++)
		at += sprintf(at, "user%zu@example.org\n", i);
	r = recipients_parse(slice_of(text, (size_t)(at - text)), "file", NULL);
	ck_assert_ptr_nonnull(r);
	ck_assert_uint_eq(recipients_count(r), n);
	for (size_t i = 0; i < n + 1000; i++) {
		(void)snprintf(name, sizeof(name), "USER%zu@example.org", i); /* fits */
		ck_assert_int_eq(address_mailbox(slice_str(name), 0, &mailbox), ADDRESS_OK);
		ck_assert_int_eq(recipients_has(r, &mailbox), i < n);
	}
	recipients_free(r);
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
}
