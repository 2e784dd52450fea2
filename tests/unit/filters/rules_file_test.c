/* tests/unit/filters/rules_file_test.c - rule files: what is read, passed over, refused. */
#include "unit/filters/canned.h"
#include "unit/unit.h"

#include "filters/rules/address.h"
#include "filters/rules/condition.h"
#include "filters/rules/lines.h"
#include "filters/rules/ruleset.h"

#include <stdio.h>
#include <stdlib.h>

/* ---- conditions ------------------------------------------------------------------------------ */

static const struct {
	const char *text;
	int holds; /* -1: no condition */
} conditions[] = {
	{ "1", 1 },
	{ "0", 0 },
	{ "(version >= 3.004002)", 1 },
	{ "version >= 4.000002", 0 },
	{ "version == 4.000001", 1 },
	{ "version < 4", 0 },
	{ "(version>3)&&(version<=5)", 1 },
	{ "perl_version >= 5.010000", 1 },
	{ "plugin(Mail::SpamAssassin::Plugin::DKIM)", 0 },
	{ "plugin (Mail::SpamAssassin::Plugin::DKIM)", 0 },
	{ "!plugin(Mail::SpamAssassin::Plugin::DKIM)", 1 },
	{ "! plugin(X) && version >= 3", 1 },
	{ "can(Mail::SpamAssassin::Conf::feature_bug6558_free)", 1 },
	{ "can(Mail::SpamAssassin::Conf::perl_min_version_5010000)", 1 },
	{ "can(Mail::SpamAssassin::Conf::feature_capture_rules)", 0 },
	{ "has(Mail::SpamAssassin::Plugin::URIDNSBL::has_uridnsbl_for_a)", 0 },
	{ "0 || 1 && 0", 0 },
	{ "(0 || 1) && 1", 1 },
	{ "local_tests_only", 1 },
	{ "", -1 },
	{ "version >=", -1 },
	{ "(version >= 3", -1 },
	{ "version >= 3)", -1 },
	{ "frobnicate", -1 },
	{ "plugin()", -1 },
	{ "((((((((((((((((((((((((((((((((((((((1))))))))))))))))))))))))))))))))))))))", -1 },
	{ "!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!1", -1 },
};

START_TEST(a_condition_holds_or_is_refused)
{
	bool holds = false;
	bool good = rules_condition(slice_str(conditions[_i].text), &holds);

	ck_assert_msg(good == (conditions[_i].holds >= 0), "%s", conditions[_i].text);
	ck_assert_msg(!good || holds == (conditions[_i].holds == 1), "%s", conditions[_i].text);
}
END_TEST

/* ---- lines ----------------------------------------------------------------------------------- */

static const struct {
	const char *text, *directives; /* "LINE directive|args;" and the fault at the end */
} files[] = {
	{ "", "" },
	{ "# all of it\n\n  \t\n", "" },
	{ "Score A 1 # why\r\n  body B /x\\#y/\n", "1 score|A 1;2 body|B /x#y/;" },
	{ "allow-user-rules 1", "1 allow_user_rules|1;" },
	{ "body A /a\\\nbody B /b/", "1 body|A /a\\;2 body|B /b/;" }, /* no continuation */
	{ "lang de describe A Ja\nlang en describe A Yes\nlang en_US describe B Yes\n",
	    "2 describe|A Yes;3 describe|B Yes;" },
	{ "if 1\na\nelse\nb\nendif\nc\n", "2 a|;6 c|;" },
	{ "if 0\na\nelse\nb\nendif\nc\n", "4 b|;6 c|;" },
	{ "if 0\nif 1\na\nelse\nb\nendif\nelse\nc\nendif", "8 c|;" },
	{ "ifplugin Mail::SpamAssassin::Plugin::X\na\nendif\nb", "4 b|;" },
	{ "if 1\na", "2 a|;1 fault: this \"if\" has no \"endif\"" },
	{ "a\nendif\n", "1 a|;2 fault: \"endif\" without \"if\"" },
	{ "else\n", "1 fault: \"else\" without \"if\"" },
	{ "if what\nendif\n", "1 fault: not a condition" },
	{ "ifplugin\nendif\n", "1 fault: ifplugin what?" },
};

static void
lines_tell(struct slice text, char *out, size_t cap)
{
	struct rules_lines *in = malloc(sizeof(*in));
	struct slice directive, args;
	size_t n = 0;
	int rc;

	out[0] = '\0';
	rules_lines_init(in, text);
	while ((rc = rules_lines_next(in, &directive, &args)) > 0)
		n += (size_t)snprintf(out + n, cap - n, "%u %.*s|%.*s;", in->line,
		    SLICE_FMT(directive), SLICE_FMT(args));
	if (rc < 0)
		(void)snprintf(out + n, cap - n, "%u fault: %s", in->line, in->why);
	free(in);
}

START_TEST(a_file_is_its_directives)
{
	char told[500];

	lines_tell(slice_str(files[_i].text), told, sizeof(told));
	ck_assert_str_eq(told, files[_i].directives);
}
END_TEST

START_TEST(blocks_nest_up_to_the_limit)
{
	static char text[8 * (RULES_BLOCK_DEPTH_MAX + 2) * 2];
	char told[500];

	for (unsigned depth = RULES_BLOCK_DEPTH_MAX; depth <= RULES_BLOCK_DEPTH_MAX + 1; depth++) {
		size_t n = 0;

		for (unsigned i = 0; i < depth; i++)
			n += (size_t)snprintf(text + n, sizeof(text) - n, "if 1\n");
		n += (size_t)snprintf(text + n, sizeof(text) - n, "a\n");
		for (unsigned i = 0; i < depth; i++)
			n += (size_t)snprintf(text + n, sizeof(text) - n, "endif\n");
		lines_tell(slice_of(text, n), told, sizeof(told));
		ck_assert_str_eq(told, depth <= RULES_BLOCK_DEPTH_MAX
					   ? "65 a|;"
					   : "65 fault: too many blocks within each other");
	}
}
END_TEST

/* ---- rules ----------------------------------------------------------------------------------- */

static const struct {
	const char *text;
	const char *rules; /* "NAME SCORE;" */
	const char *said;
} sets[] = {
	{ "body A /a/\n", "A 1;", "" },
	{ "body T_A /a/\nbody __A /a/\n", "T_A 0.01;", "" },
	{ "score A 2.5\nbody A /a/\n", "A 2.5;", "" },
	{ "body A /a/\nscore A 1 2 3 4\n", "A 1;", "" },
	{ "body A /a/\nscore A 1\nscore A (0.5)\n", "A 1.5;", "" },
	{ "body A /a/\nscore A -2\n", "A -2;", "" },
	{ "body A /a/\nscore A 0\nbody B /b/\n", "B 1;", "" },
	{ "body A /a/\nheader A Subject =~ /x/\n", "A 1;", "" },
	{ "body A /a/\nbody B /b/\nbody A /c/\n", "B 1;A 1;", "" },
	{ "header A Subject=~/x/\nheader B exists:X-Y\nheader C To:addr:first !~ m{x}i\n",
	    "A 1;B 1;C 1;", "" },
	{ "header A Subject: =~ /x/\n", "A 1;", "" },
	{ "header A Reply-To =~ /x/ [if-unset: a@b]\n", "A 1;", "" },
	{ "tflags A x\f\v\n\fbody\vA\f/a/\f\n", "A 1;", "" }, /* blanks, too */
	{ "tflags A nosubject multiple maxhits=3\nbody A /a/\n", "A 1;", "" },
	/* what is passed over, and told of once */
	{ "uri A /x/\nuri B /y/\nmeta C (A && B)\nbody D /d/\n", "D 1;",
	    "t.cf:1: \"uri\" is not supported: 2 lines passed over\n"
	    "t.cf:3: \"meta\" is not supported: 1 line passed over\n" },
	{ "body A /a/\nmeta A (B)\nscore A 3\n", "",
	    "t.cf:2: \"meta\" is not supported: 1 line passed over\n" },
	{ "header A eval:check()\nbody B eval:check()\nheader C rbleval:check()\n", "",
	    "t.cf:1: \"header eval:\" is not supported: 2 lines passed over\n"
	    "t.cf:2: \"body eval:\" is not supported: 1 line passed over\n" },
	{ "header A X-Spam-Relays-External =~ /x/\nheader B From:domain =~ /x/\n", "",
	    "t.cf:1: \"header X-Spam-Relays-External\" is not supported: 1 line passed over\n"
	    "t.cf:2: \"header From:domain\" is not supported: 1 line passed over\n" },
	{ "replace_rules A\nbody A /<B>/\n", "",
	    "t.cf:1: \"replace_rules\" is not supported: 1 line passed over\n" },
	{ "boddy A /a/\n", "", "t.cf:1: \"boddy\" is not supported: 1 line passed over\n" },
	{ "require_version @@VERSION@@\nrequire_version 3\n", "",
	    "t.cf:2: \"require_version\" is not supported: 1 line passed over\n" },
	{ "body A /a/\nscore AA 1\nscore AB 1\n", "A 1;",
	    "t.cf:2: 2 scores are for a rule that is not there, the first is AA\n" },
	/* what is refused */
	{ "\nbody\n", NULL, "t.cf:2: body: \"\" is no name for a rule\n" },
	{ "body 1A /a/\n", NULL, "t.cf:1: body: \"1A\" is no name for a rule\n" },
	{ "body A-B /a/\n", NULL, "t.cf:1: body: \"A-B\" is no name for a rule\n" },
	{ "body A\n", NULL,
	    "t.cf:1: A: a pattern starts with \"/\", or with \"m\" and a delimiter\n" },
	{ "body A /(/\n", NULL, "t.cf:1: A: missing closing parenthesis at \"\"\n" },
	{ "body A /a/ /b/\n", NULL,
	    "t.cf:1: A: the delimiter stands in the pattern without a backslash\n" },
	{ "header A\n", NULL, "t.cf:1: A: not \"header NAME FIELD =~ /pattern/\"\n" },
	{ "header A Subject\n", NULL, "t.cf:1: A: not \"header NAME FIELD =~ /pattern/\"\n" },
	{ "header A Subject = /x/\n", NULL, "t.cf:1: A: not \"header NAME FIELD =~ /pattern/\"\n" },
	{ "header A Subject =~\n", NULL, "t.cf:1: A: not \"header NAME FIELD =~ /pattern/\"\n" },
	{ "header A exists:\n", NULL, "t.cf:1: A: not \"header NAME FIELD =~ /pattern/\"\n" },
	{ "header A exists:X =~ /x/\n", NULL,
	    "t.cf:1: A: not \"header NAME FIELD =~ /pattern/\"\n" },
	{ "score A\n", NULL, "t.cf:1: score A: takes one number or four\n" },
	{ "score A 1 2\n", NULL, "t.cf:1: score A: takes one number or four\n" },
	{ "score A 1 2 3 4 5\n", NULL, "t.cf:1: score A: takes one number or four\n" },
	{ "score A much\n", NULL, "t.cf:1: score A: \"much\" is no number\n" },
	{ "score A (1)\n", NULL, "t.cf:1: score A: nothing there to add to\n" },
	{ "body A /a/\nif 1\n", NULL, "t.cf:2: this \"if\" has no \"endif\"\n" },
};

START_TEST(a_file_gives_rules_warnings_or_an_error)
{
	struct rules_set *set = rules_set_new();
	struct canned_config cc;
	char told[500] = "";
	size_t n = 0;
	int rc;

	canned_config(&cc, "rules", NULL, 0);
	rc = rules_set_read(set, &cc.cfg, "t.cf", slice_str(sets[_i].text));
	if (rc == 0)
		rc = rules_set_finish(set, &cc.cfg);
	ck_assert_str_eq(cc.said, sets[_i].said);
	ck_assert_int_eq(rc, sets[_i].rules != NULL ? 0 : -1);
	for (size_t i = 0; i < set->n_rules; i++)
		n += (size_t)snprintf(told + n, sizeof(told) - n, "%.*s %g;",
		    SLICE_FMT(set->rules[i].name), set->rules[i].score);
	ck_assert(sets[_i].rules == NULL || strcmp(told, sets[_i].rules) == 0);
	rules_set_free(set);
}
END_TEST

START_TEST(a_nul_byte_and_an_endless_line_are_refused)
{
	static char endless[RULES_LINE_BYTES_MAX + 1];
	static const char *const said[] = { "t.cf:2: a NUL byte\n",
		"t.cf:1: the line is too long\n" };
	struct slice texts[] = { SLICE("body A /a/\nbody B /\0/\n"),
		slice_of(endless, sizeof(endless)) };

	memset(endless, 'x', sizeof(endless));
	for (size_t i = 0; i < 2; i++) {
		struct rules_set *set = rules_set_new();
		struct canned_config cc;

		canned_config(&cc, "rules", NULL, 0);
		ck_assert_int_eq(rules_set_read(set, &cc.cfg, "t.cf", texts[i]), -1);
		ck_assert_str_eq(cc.said, said[i]);
		rules_set_free(set);
	}
}
END_TEST

/* ---- addresses ------------------------------------------------------------------------------- */

static const struct {
	const char *value, *boxes; /* "phrase|address;" */
} lists[] = {
	{ "", "" },
	{ " , ,", "" },
	{ "jo@example.org", "|jo@example.org;" },
	{ "<jo@example.org>", "|jo@example.org;" },
	{ "Jo Doe <jo@example.org>", "Jo Doe|jo@example.org;" },
	{ "\"Doe, Jo\" <jo@example.org>, al@example.org",
	    "Doe, Jo|jo@example.org;|al@example.org;" },
	{ "\"a \\\"b\\\"\" <jo@example.org>", "a \"b\"|jo@example.org;" },
	{ "jo@example.org (Jo (J.) Doe)", "Jo (J.) Doe|jo@example.org;" },
	{ "(x@y) jo@example.org", "x@y|jo@example.org;" },
	{ "friends: jo@a.org, \"Al\" <al@b.org>;", "|jo@a.org;Al|al@b.org;" },
	{ "undisclosed-recipients:;", "" },
	{ "\"x@y\"@example.org", "|\"x@y\"@example.org;" },
	{ "Jo <jo@example.org", "Jo|jo@example.org;" },
	{ "\"Jo <jo@example.org>", "Jo|jo@example.org;" },
	{ "Jo Doe", "Jo Doe|;" },
	{ "jo@example.org <jo@example.org>", "|jo@example.org;" },
	{ "<>", "|;" },
};

START_TEST(an_address_list_is_its_mailboxes)
{
	struct slice in = slice_str(lists[_i].value);
	struct rules_mailbox box;
	char told[300] = "", plain[200];
	size_t n = 0;

	while (rules_mailbox_take(&in, &box)) {
		struct slice phrase = rules_phrase_plain(box.phrase, plain);

		n += (size_t)snprintf(told + n, sizeof(told) - n, "%.*s|%.*s;", SLICE_FMT(phrase),
		    SLICE_FMT(box.address));
	}
	ck_assert_str_eq(told, lists[_i].boxes);
}
END_TEST

UNIT_SUITE(rules_file)
{
	UNIT_ROWS(a_condition_holds_or_is_refused, conditions);
	UNIT_ROWS(a_file_is_its_directives, files);
	UNIT_TEST(blocks_nest_up_to_the_limit);
	UNIT_ROWS(a_file_gives_rules_warnings_or_an_error, sets);
	UNIT_TEST(a_nul_byte_and_an_endless_line_are_refused);
	UNIT_ROWS(an_address_list_is_its_mailboxes, lists);
}
