/* tests/unit/filters/rules_test.c - the filter "rules": what rules see of a message, and what they
 * say. */
#include "unit/filters/canned.h"
#include "unit/unit.h"

#include "filters/builtin.h"
#include "filters/rules/text.h"

#include <stdio.h>
#include <stdlib.h>

#define MESSAGE(fields, body) SLICE(fields "\r\n" body)

/* ---- one rule, one message ------------------------------------------------------------------- */

static const struct {
	const char *rule;
	struct slice message;
	bool hits;
} rows[] = {
	{ "header A Subject =~ /offer/", MESSAGE("Subject: An offer\r\n", ""), true },
	{ "header A subject =~ /^An offer$/", MESSAGE("SUBJECT:  An offer \r\n", ""), true },
	{ "header A Subject =~ /^a b$/", MESSAGE("Subject: a\r\n\t  b\r\n", ""), true },
	{ "header A Subject:raw =~ /^ a\\n\\t  b\\n$/", MESSAGE("Subject: a\r\n\t  b\r\n", ""),
	    true },
	{ "header A Subject !~ /offer/", MESSAGE("Subject: An offer\r\n", ""), false },
	{ "header A Subject !~ /x/", MESSAGE("To: x\r\n", ""), true },
	{ "header A Subject =~ /^$/", MESSAGE("To: x\r\n", ""), true }, /* absent is empty */
	{ "header A Subject =~ /^none$/ [if-unset: none]", MESSAGE("To: x\r\n", ""), true },
	{ "header A Subject =~ /^none$/ [if-unset: none]", MESSAGE("Subject:\r\n", ""), false },
	{ "header A exists:Subject", MESSAGE("Subject:\r\n", ""), true },
	{ "header A exists:Subject", MESSAGE("X-Subject: x\r\n", ""), false },
	{ "header A exists:ToCc", MESSAGE("cc: x\r\n", ""), true },
	/* fields of a name follow each other, a line each */
	{ "header A Received =~ /^one\\ntwo\\n$/",
	    MESSAGE("Received: one\r\nReceived: two\r\n", ""), true },
	{ "header A Received:first =~ /^one\\n$/",
	    MESSAGE("Received: one\r\nReceived: two\r\n", ""), true },
	{ "header A Received:last =~ /^two\\n$/", MESSAGE("Received: one\r\nReceived: two\r\n", ""),
	    true },
	{ "header A ToCc =~ /^a\\nb\\n$/", MESSAGE("To: a\r\nX: x\r\nCc: b\r\n", ""), true },
	{ "header A ALL =~ /^To: a\\nX: b c\\n$/", MESSAGE("To: a\r\nX: b\r\n c\r\n", ""), true },
	{ "header A ALL:raw =~ /^To:a\\nX:  b\\n c\\n$/", MESSAGE("To:a\r\nX:  b\r\n c\r\n", ""),
	    true },
	{ "header A MESSAGEID =~ /^<b>\\n<a>\\n$/",
	    MESSAGE("Resent-Message-Id: <b>\r\nMessage-ID: <a>\r\n", ""), true },
	{ "header A EnvelopeFrom =~ /^jo\\@example\\.org$/", MESSAGE("From: x\r\n", ""), true },
	/* addresses and names */
	{ "header A From:addr =~ /^jo\\@a\\.org$/", MESSAGE("From: \"Doe, Jo\" <jo@a.org>\r\n", ""),
	    true },
	{ "header A From:name =~ /^Doe, Jo$/", MESSAGE("From: \"Doe, Jo\" <jo@a.org>\r\n", ""),
	    true },
	{ "header A From:name =~ /^Jo$/", MESSAGE("From: 'Jo'\t <jo@a.org>\r\n", ""), true },
	{ "header A From:name =~ /^Jo D\\n?$/", MESSAGE("From: jo@a.org (Jo \t D)\r\n", ""), true },
	{ "header A To:addr =~ /^a\\@a\\.org\\nb\\@b\\.org$/",
	    MESSAGE("To: a@a.org\r\nTo: B <b@b.org>\r\n", ""), true },
	{ "header A To:addr:last =~ /^b\\@b\\.org$/",
	    MESSAGE("To: a@a.org\r\nTo: B <b@b.org>\r\n", ""), true },
	{ "header A From:name =~ /^none$/ [if-unset: none]", MESSAGE("From: jo@a.org\r\n", ""),
	    true },
	/* the text: the subject first, white space collapsed, a paragraph a line */
	{ "body A /^Win$/", MESSAGE("Subject: Win\r\n", "x\r\n"), true },
	{ "body A /Win/", MESSAGE("X-Subject: Win\r\n", "x\r\n"), false },
	{ "body A /^one two three $/", MESSAGE("A: b\r\n", "one\r\ntwo  \t three\r\n"), true },
	{ "body A /^two$/", MESSAGE("A: b\r\n", "one\r\n\r\n\r\ntwo\r\n\r\nthree"), true },
	{ "body A /one.*two/s", MESSAGE("A: b\r\n", "one\r\n\r\ntwo\r\n"), false },
	{ "body A /^one \\n?$/", MESSAGE("A: b\r\n", "one \r\n\r\ntwo"), true },
	{ "body A /^ two/", MESSAGE("A: b\r\n", "one\r\n \r\n two"), true },
	{ "body A /^a b c$/",
	    MESSAGE("A: b\r\n", "a\xc2\xa0\xe2\x80\x83"
				"b\xe3\x80\x80\xe2\x80\xaf"
				"c"),
	    true },
	{ "tflags A nosubject\nbody A /Win/", MESSAGE("Subject: Win\r\n", "x\r\n"), false },
	{ "tflags A nosubject\nbody A /Win/", MESSAGE("Subject: Win\r\n", "Win\r\n"), true },
};

static void
configure(struct canned_config *cc, struct slice rules, const struct canned_option *options,
    size_t n, void **settings)
{
	static struct canned_file file = { "files", "t.cf", { "", 0 } };

	file.bytes = rules;
	canned_config(cc, "rules", options, n);
	cc->files = &file;
	cc->n_files = 1;
	ck_assert_msg(canned_configure(cc, &filter_rules, settings) == 0, "%s", cc->said);
}

static void
run(struct canned *can, struct slice rules, struct slice message, enum filter_status expected)
{
	struct canned_config cc;
	void *settings;

	configure(&cc, rules, NULL, 0, &settings);
	canned_init(can);
	can->message = message;
	can->envelope.reverse_path = SLICE("jo@example.org");
	ck_assert_int_eq(canned_run(can, &filter_rules, settings), expected);
	filter_rules.release(settings);
}

START_TEST(a_rule_sees_the_message_as_it_is_meant_to)
{
	struct canned can;

	run(&can, slice_str(rows[_i].rule), rows[_i].message, FILTER_DONE);
	ck_assert_msg(can.n_findings == rows[_i].hits, "%s", rows[_i].rule);
	canned_fini(&can);
}
END_TEST

START_TEST(a_hit_is_a_finding_with_score_and_description)
{
	struct canned can;

	run(&can,
	    SLICE("body OFFER /offer/\nscore OFFER 2.5 9 9 9\ndescribe OFFER An  offer\n"
		  "body NICE /offer/\nscore NICE -1\nbody OFF /offer/\nscore OFF 0\nbody __PART "
		  "/offer/\n"),
	    MESSAGE("Subject: x\r\n", "an offer\r\n"), FILTER_DONE);
	ck_assert_uint_eq(can.n_findings, 2);
	ck_assert_double_eq(can.score, 1.5);
	ck_assert_double_eq(canned_finding(&can, "OFFER")->score, 2.5);
	ck_assert_str_eq(canned_finding(&can, "OFFER")->why, "An  offer");
	ck_assert_ptr_nonnull(canned_finding(&can, "NICE"));
	canned_fini(&can);
}
END_TEST

START_TEST(decoded_fields_and_parts_are_what_counts)
{
	static const struct filter_field fields[] = {
		{ { "Subject", 7 }, { "Subject: =?utf-8?q?gr=C3=BC=C3=9Fe?=\r\n", 39 },
		    { "=?utf-8?q?gr=C3=BC=C3=9Fe?=", 27 },
		    { "gr\xc3\xbc\xc3\x9f"
		      "e",
			7 } },
		{ { "From", 4 }, { "From: =?utf-8?q?J=C3=B6?= <jo@a.org>\r\n", 38 },
		    { "=?utf-8?q?J=C3=B6?= <jo@a.org>", 30 }, { "J\xc3\xb6 <jo@a.org>", 14 } },
		{ { "Message-Id", 10 }, { "Message-Id: =?utf-8?q?x?=\r\n", 27 },
		    { "=?utf-8?q?x?=", 13 }, { "x", 1 } },
	};
	static const struct filter_part parts[] = {
		{ { "text/plain", 10 }, { "", 0 }, { "b25l", 4 }, { "one", 3 } },
		{ { "image/png", 9 }, { "", 0 }, { "xxx", 3 }, { "", 0 } },
		{ { "text/html", 9 }, { "", 0 }, { "<b>two", 6 }, { "two", 3 } },
	};
	struct canned_config cc;
	struct canned can;
	void *settings;

	configure(&cc,
	    SLICE("header S Subject =~ /^gr\\xc3\\xbc\\xc3\\x9fe$/\nheader R Subject:raw =~ "
		  "/=\\?utf-8/\n"
		  "header N From:name =~ /^J\\xc3\\xb6$/\nheader M Message-Id =~ /^=\\?utf-8/\n"
		  "body ONE /^one/\nbody TWO /two$/\nbody RAW /xxx|b25l|<b>/\n"),
	    NULL, 0, &settings);
	canned_init(&can);
	can.fields = fields;
	can.n_fields = 3;
	can.parts = parts;
	can.n_parts = 3;
	ck_assert_int_eq(canned_run(&can, &filter_rules, settings), FILTER_DONE);
	ck_assert_uint_eq(can.n_findings, 6);
	ck_assert_ptr_null(canned_finding(&can, "RAW"));
	filter_rules.release(settings);
	canned_fini(&can);
}
END_TEST

/* ---- limits ---------------------------------------------------------------------------------- */

static const struct {
	const char *raw, *decoded; /* the value */
	const char *rule;
} senders[] = {
	{ "=?utf-8?q?Bank?= <x@e.test>;;", "Bank <x@e.test>;;", "/^Bank$/" },
	{ "=?utf-8?q?Bank?= <x@e.test>, =?utf-8?q?Jo?= <y@e.test>",
	    "Bank <x@e.test>, Jo <y@e.test>", "/^Bank\\nJo$/" },
	{ "=?utf-8?q?Bank=2C_of?= <x@e.test>, Jo <y@e.test>", "Bank, of <x@e.test>, Jo <y@e.test>",
	    "/^Bank, of\\nJo$/" },
	{ "a@e.test, Jo <y@e.test>, =?utf-8?q?Bank?= <x@e.test>, b@e.test",
	    "a@e.test, Jo <y@e.test>, Bank <x@e.test>, b@e.test", "/^Jo\\nBank$/" },
	{ "=?utf-8?q?Jo_=3Cx=40e.test=3E_Bank?= <x@e.test>", "Jo <x@e.test> Bank <x@e.test>",
	    "/^Jo <x\\@e.test> Bank$/" },
	{ "=?utf-8?q?Bank?= <>, =?utf-8?q?Jo?= <y@e.test>", "Bank <>, Jo <y@e.test>", "/Bank/" },
};

START_TEST(each_name_of_a_field_is_decoded)
{
	char raw[200], rule[200];
	struct filter_field field = { .name = SLICE("From"),
		.value = slice_str(senders[_i].raw),
		.decoded = slice_str(senders[_i].decoded) };
	struct canned_config cc;
	struct canned can;
	void *settings;

	(void)snprintf(raw, sizeof(raw), "From: %s\r\n", senders[_i].raw);
	(void)snprintf(rule, sizeof(rule), "header A From:name =~ %s\n", senders[_i].rule);
	field.raw = slice_str(raw);
	configure(&cc, slice_str(rule), NULL, 0, &settings);
	canned_init(&can);
	can.fields = &field;
	can.n_fields = 1;
	ck_assert_int_eq(canned_run(&can, &filter_rules, settings), FILTER_DONE);
	ck_assert_uint_eq(can.n_findings, 1);
	filter_rules.release(settings);
	canned_fini(&can);
}
END_TEST

START_TEST(a_rule_over_its_limit_is_told_of_and_the_others_go_on)
{
	static char message[1500] = "Subject: x\r\n\r\n";
	struct canned can;

	memset(message + strlen(message), 'a', sizeof(message) - 1 - strlen(message));
	memcpy(message + sizeof(message) - 10, "!\n\nEND\n", 7);
	run(&can, SLICE("body BOMB /^(a+)+$/\nbody END /END/\nscore RULES_LIMIT 0.5\n"),
	    slice_of(message, sizeof(message)), FILTER_DONE);
	ck_assert_double_eq(canned_finding(&can, "RULES_LIMIT")->score, 0.5);
	ck_assert_str_eq(
	    canned_finding(&can, "RULES_LIMIT")->why, "BOMB took too long and counts as no hit");
	ck_assert_ptr_nonnull(canned_finding(&can, "END"));
	ck_assert_uint_eq(can.n_findings, 2);
	canned_fini(&can);
}
END_TEST

START_TEST(a_message_that_takes_all_the_time_is_an_error)
{
	static char message[250000] = "Subject: x\r\n\r\n";
	static char rules[40000];
	const struct canned_option options[] = { { "max-time", "1s" } };
	struct canned_config cc;
	struct canned can;
	void *settings;
	size_t n = 0;

	memset(message + strlen(message), 'a', sizeof(message) - 1 - strlen(message));
	for (int i = 0; i < 1000; i++)
		n += (size_t)snprintf(
		    rules + n, sizeof(rules) - n, "body B%d /^(a+)+[%db]$/\n", i, i % 10);
	configure(&cc, slice_of(rules, n), options, 1, &settings);
	canned_init(&can);
	can.message = slice_of(message, sizeof(message) - 1);
	ck_assert_int_eq(canned_run(&can, &filter_rules, settings), FILTER_ERROR);
	filter_rules.release(settings);
	canned_fini(&can);
}
END_TEST

START_TEST(text_over_the_limit_is_cut_and_told_of)
{
	const struct canned_option options[] = { { "max-text", "64" } };
	static const char body[] =
	    "0123456789 0123456789 0123456789 0123456789 0123456789 01234567 x";
	struct canned_config cc;
	struct canned can;
	void *settings;
	char message[200];

	configure(&cc, SLICE("body X /x/\nbody SEVEN /67/\n"), options, 1, &settings);
	for (size_t cut = 0; cut <= 1; cut++) {
		(void)snprintf(message, sizeof(message), "A: b\r\n\r\n%s", body + 1 - cut);
		canned_init(&can);
		can.message = slice_str(message);
		ck_assert_int_eq(canned_run(&can, &filter_rules, settings), FILTER_DONE);
		ck_assert((canned_finding(&can, "RULES_CUT") != NULL) == (cut == 1));
		ck_assert((canned_finding(&can, "X") != NULL) == (cut == 0));
		ck_assert_ptr_nonnull(canned_finding(&can, "SEVEN"));
		canned_fini(&can);
	}
	filter_rules.release(settings);
}
END_TEST

START_TEST(a_long_part_does_not_crowd_out_a_short_one)
{
	static char filler[100000];
	const struct canned_option options[] = { { "max-text", "1000" } };
	const struct filter_part parts[] = {
		{ SLICE("text/plain"), SLICE(""), SLICE(""), slice_of(filler, sizeof(filler)) },
		{ SLICE("text/html"), SLICE(""), SLICE(""), SLICE("buy this") },
		{ SLICE("text/plain"), SLICE(""), SLICE(""), slice_of(filler, sizeof(filler)) },
	};
	struct canned_config cc;
	struct canned can;
	void *settings;

	memset(filler, 'x', sizeof(filler));
	configure(&cc, SLICE("body A /x{495} buy this x{495}$/\nscore RULES_CUT 2\n"), options, 1,
	    &settings);
	canned_init(&can);
	can.message = SLICE("A: b\r\n\r\n");
	can.parts = parts;
	can.n_parts = 3;
	ck_assert_int_eq(canned_run(&can, &filter_rules, settings), FILTER_DONE);
	ck_assert_ptr_nonnull(canned_finding(&can, "A"));
	ck_assert_double_eq(canned_finding(&can, "RULES_CUT")->score, 2);
	canned_fini(&can);
	filter_rules.release(settings);
}
END_TEST

START_TEST(no_more_fields_are_looked_at_than_the_limit)
{
	struct filter_field *fields = calloc(100000, sizeof(*fields));
	struct canned_config cc;
	struct canned can;
	void *settings;

	configure(&cc, SLICE("header A ALL =~ /^Y: /m\nheader B Y =~ /y/\nheader C X !~ /y/\n"),
	    NULL, 0, &settings);
	for (size_t i = 0; i < 100000; i++)
		fields[i] =
		    (struct filter_field){ SLICE("X"), SLICE("X: x\r\n"), SLICE("x"), SLICE("x") };
	fields[RULES_FIELDS_MAX] =
	    (struct filter_field){ SLICE("Y"), SLICE("Y: y\r\n"), SLICE("y"), SLICE("y") };
	canned_init(&can);
	can.fields = fields;
	can.n_fields = 100000;
	ck_assert_int_eq(canned_run(&can, &filter_rules, settings), FILTER_DONE);
	ck_assert_ptr_nonnull(canned_finding(&can, "RULES_CUT"));
	ck_assert_ptr_nonnull(canned_finding(&can, "C"));
	ck_assert_uint_eq(can.n_findings, 2);
	can.n_fields = RULES_FIELDS_MAX;
	ck_assert_int_eq(canned_run(&can, &filter_rules, settings), FILTER_DONE);
	ck_assert_ptr_null(canned_finding(&can, "RULES_CUT"));
	canned_fini(&can);
	filter_rules.release(settings);
	free(fields);
}
END_TEST

/* At whatever allocation memory ends: an error, or the whole answer. */
START_TEST(a_message_past_its_memory_is_an_error)
{
	struct canned_config cc;
	struct canned can;
	void *settings;
	bool done = false;

	configure(&cc, SLICE("header A From:name =~ /x/\nheader B ALL =~ /x/\nbody C /x/\n"), NULL,
	    0, &settings);
	for (size_t budget = 0; !done; budget += 16) {
		enum filter_status status;

		canned_init(&can);
		can.message = MESSAGE("From: x <a@b>\r\nSubject: x\r\n", "x\r\n\r\nx");
		can.budget = budget;
		status = canned_run(&can, &filter_rules, settings);
		done = status == FILTER_DONE;
		ck_assert(done || status == FILTER_ERROR);
		ck_assert(!done || can.n_findings == 3);
		canned_fini(&can);
	}
	filter_rules.release(settings);
}
END_TEST

START_TEST(a_long_line_is_cut_at_a_space)
{
	static char message[3000] = "A: b\r\n\r\n";
	struct canned can;
	size_t start = strlen(message);

	memset(message + start, 'a', sizeof(message) - 1 - start);
	message[start + 2000] = ' ';
	run(&can, SLICE("body A /^a{2000} $/\nbody B /^a{990}$/\nbody C /a a/\n"),
	    slice_str(message), FILTER_DONE);
	ck_assert_ptr_nonnull(canned_finding(&can, "A"));
	ck_assert_ptr_nonnull(canned_finding(&can, "B"));
	ck_assert_ptr_null(canned_finding(&can, "C"));
	canned_fini(&can);
}
END_TEST

/* ---- settings -------------------------------------------------------------------------------- */

static const struct {
	struct canned_option option;
	const char *said;
} wrong[] = {
	{ { "max-text", "0" }, "max-text: not a size up to 1M\n" },
	{ { "max-text", "1025K" }, "max-text: not a size up to 1M\n" },
	{ { "max-text", "much" }, "max-text: not a size up to 1M\n" },
	{ { "max-time", "0s" }, "max-time: not a time of a second or more\n" },
	{ { "max-time", "soon" }, "max-time: not a time of a second or more\n" },
	{ { "max-time", "1s" }, "files: which files?\n" },
};

START_TEST(a_wrong_setting_is_refused_by_name)
{
	struct canned_config cc;
	void *settings;

	canned_config(&cc, "rules", &wrong[_i].option, 1);
	ck_assert_int_eq(canned_configure(&cc, &filter_rules, &settings), -1);
	ck_assert_str_eq(cc.said, wrong[_i].said);
}
END_TEST

START_TEST(a_glob_without_files_is_warned_of)
{
	const struct canned_option options[] = { { "files", "/nowhere/*.cf" } };
	struct canned_config cc;
	void *settings;

	CANNED_CONFIG(&cc, "rules", options);
	ck_assert_int_eq(canned_configure(&cc, &filter_rules, &settings), 0);
	ck_assert_uint_eq(cc.warnings, 1);
	filter_rules.release(settings);
}
END_TEST

/* The rules that come with the demo: GTUBE holds, a plain message stays clean. */
START_TEST(the_demo_rules_hold_gtube_and_nothing_else)
{
	static char rules[65536];
	FILE *file = fopen(TESTS_DIR "/../etc/rules/demo.cf", "rb");
	struct canned can;
	size_t n;

	ck_assert_ptr_nonnull(file);
	n = fread(rules, 1, sizeof(rules), file);
	(void)fclose(file); /* read only */
	run(&can, slice_of(rules, n),
	    MESSAGE("From: \"Jo\" <jo@example.org>\r\nDate: x\r\nMessage-ID: <x@y>\r\nSubject: "
		    "Lunch\r\n",
		"XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X\r\n"),
	    FILTER_DONE);
	ck_assert_uint_eq(can.n_findings, 1);
	ck_assert_double_eq(canned_finding(&can, "GTUBE")->score, 1000);
	canned_fini(&can);
}
END_TEST

UNIT_SUITE(rules)
{
	UNIT_ROWS(a_rule_sees_the_message_as_it_is_meant_to, rows);
	UNIT_TEST(a_hit_is_a_finding_with_score_and_description);
	UNIT_TEST(decoded_fields_and_parts_are_what_counts);
	UNIT_ROWS(each_name_of_a_field_is_decoded, senders);
	UNIT_TEST(a_rule_over_its_limit_is_told_of_and_the_others_go_on);
	UNIT_TEST(a_message_that_takes_all_the_time_is_an_error);
	UNIT_TEST(text_over_the_limit_is_cut_and_told_of);
	UNIT_TEST(a_long_part_does_not_crowd_out_a_short_one);
	UNIT_TEST(no_more_fields_are_looked_at_than_the_limit);
	UNIT_TEST(a_message_past_its_memory_is_an_error);
	UNIT_TEST(a_long_line_is_cut_at_a_space);
	UNIT_ROWS(a_wrong_setting_is_refused_by_name, wrong);
	UNIT_TEST(a_glob_without_files_is_warned_of);
	UNIT_TEST(the_demo_rules_hold_gtube_and_nothing_else);
}
