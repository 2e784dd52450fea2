/* tests/unit/pipeline/module_test.c - filters of a config: found or loaded, checked, configured. */
#include "unit/pipeline/world.h"

#include "filters/builtin.h"

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#define COUNT(a)   (sizeof(a) / sizeof((a)[0]))
#define SOURCE_DIR TESTS_DIR "/.."

static const struct filter *const builtin[] = { &filter_allow, &filter_dnsbl, &filter_ratelimit,
	NULL };

/* The config's own lines come first in world_init(): five of them. */
static const struct {
	const char *section, *msg;
} refused[] = {
	{ "filter unheard { }\n", "/etc/relayd/relayd.conf:6: filter unheard: unknown type "
				  "unheard; built in: allow, dnsbl, ratelimit" },
	{ "filter allow {\n zones = { \"a=1\" } }\n",
	    "/etc/relayd/relayd.conf:7: filter allow: unknown option zones (type allow)" },
	{ "filter allow { senders = { bob } }\n", "/etc/relayd/relayd.conf:6: filter allow: "
						  "senders: expected \"@domain\", \"@.domain\" or "
						  "\"user@domain\"" },
	{ "filter allow { clients = { 192.0.2.1/24 } }\n",
	    "/etc/relayd/relayd.conf:6: filter allow: clients: expected an address or a network "
	    "such as "
	    "192.0.2.0/28" },
	{ "filter l { type = ratelimit rate = \"5/1m\" }\n",
	    "/etc/relayd/relayd.conf:6: filter l: key: expected client-ip, sender or recipient" },
	{ "filter l { type = ratelimit key = { sender, sender } rate = \"5/1m\" }\n",
	    "/etc/relayd/relayd.conf:6: filter l: key: expected some of client-ip, sender and "
	    "recipient, each once" },
	{ "filter l { type = ratelimit key = { sender } rate = \"0/1m\" }\n",
	    "/etc/relayd/relayd.conf:6: filter l: rate: expected a rate such as \"100/1m\"" },
	{ "filter l { type = ratelimit key = { sender }\n\n rate = { \"1/1m\", \"2/1m\" } }\n",
	    "/etc/relayd/relayd.conf:8: filter l: rate takes one value, not 2 values" },
	{ "filter l { type = ratelimit key = { sender } rate = \"1/1m\" action = drop }\n",
	    "/etc/relayd/relayd.conf:6: filter l: action: expected defer, reject or quarantine" },
	{ "filter l { type = ratelimit key = { sender } rate = \"1/1m\" count = some }\n",
	    "/etc/relayd/relayd.conf:6: filter l: count: expected attempts or accepted" },
	{ "filter dnsbl { zones = { zen.test } }\n",
	    "/etc/relayd/relayd.conf:6: filter dnsbl: zones: expected \"zone=score\", such as "
	    "\"zen.example.net=4.0\" or \"bl.example.org=127.0.0.[4..7]=1.5\"" },
	{ "filter dnsbl { zones = { \"zen.test=high\" } }\n",
	    "/etc/relayd/relayd.conf:6: filter dnsbl: zones: expected \"zone=score\", such as "
	    "\"zen.example.net=4.0\" or \"bl.example.org=127.0.0.[4..7]=1.5\"" },
	{ "filter x { module = \"/nowhere/x.so\" }\n",
	    "/etc/relayd/relayd.conf:6: filter x: /nowhere/x.so: cannot open shared object file: "
	    "No such file "
	    "or directory" },
};

static void
expect_refusal(struct world *w, const struct filter *const *table, const char *msg)
{
	struct err err = { 0 };

	ck_assert_ptr_null(pipeline_new(w->cfg, table, &err));
	ck_assert_int_eq(err.code, ERR_CONFIG);
	ck_assert_str_eq(err.msg, msg);
}

START_TEST(a_section_that_is_wrong_is_refused_with_its_line)
{
	struct world w, unused;

	/* A good config, and then the bad one through the same loader. */
	world_init(&unused, "", NULL, 0);
	world_fini(&unused);
	world_load_text(&w, refused[_i].section);
	expect_refusal(&w, builtin, refused[_i].msg);
	world_unload(&w);
}
END_TEST

START_TEST(a_section_that_does_nothing_is_warned_of)
{
	struct world w;

	world_init_text(&w, "filter allow { }\nfilter dnsbl { }\n", builtin);
	ck_assert_str_eq(pipeline_warning(w.pl, 0),
	    "/etc/relayd/relayd.conf:6: filter allow: allows nobody: neither senders nor clients");
	ck_assert_str_eq(pipeline_warning(w.pl, 1),
	    "/etc/relayd/relayd.conf:7: filter dnsbl: asks nobody: no zones");
	ck_assert_ptr_null(pipeline_warning(w.pl, 2));
	world_fini(&w);
}
END_TEST

/* ---- what a module must be ------------------------------------------------------------------- */

static enum filter_status
do_nothing(struct filter_tx *tx, const void *settings)
{
	(void)tx, (void)settings;
	return FILTER_DONE;
}

#define FILTER(symbol, abi_, size_, stages_, flags_)                                               \
	static const struct filter symbol = { .abi = abi_,                                         \
		.size = size_,                                                                     \
		.name = "x",                                                                       \
		.stages = stages_,                                                                 \
		.flags = flags_,                                                                   \
		.run = do_nothing }

FILTER(bad_abi, 99, sizeof(struct filter), FILTER_AT(FILTER_MAIL), 0);
FILTER(bad_size, RELAYD_FILTER_ABI, 8, FILTER_AT(FILTER_MAIL), 0);
FILTER(bad_stages, RELAYD_FILTER_ABI, sizeof(struct filter), 0, 0);
FILTER(bad_stage, RELAYD_FILTER_ABI, sizeof(struct filter), 1u << 7, 0);
FILTER(bad_shaper, RELAYD_FILTER_ABI, sizeof(struct filter), FILTER_AT(FILTER_MAIL), FILTER_SHAPER);

/* One that was built against a later header, with members behind ours. */
static const struct {
	struct filter filter;
	uint64_t later[8];
} newer = { .filter = { .abi = RELAYD_FILTER_ABI,
		.size = sizeof(newer),
		.name = "x",
		.stages = FILTER_AT(FILTER_MAIL),
		.run = do_nothing } };

static const struct {
	const struct filter *filter;
	const char *msg; /* NULL: it is taken */
} shapes[] = {
	{ &bad_abi, "filter x: x is built for ABI 99, this relayd has 1" },
	{ &bad_size, "filter x: x has a struct filter of 8 bytes, at least 56 are needed" },
	{ &bad_stages, "filter x: x has no name, no run() or no known stages" },
	{ &bad_stage, "filter x: x has no name, no run() or no known stages" },
	{ &bad_shaper, "filter x: x is a shaper and belongs to the message stage alone" },
	{ &newer.filter, NULL },
};

START_TEST(a_filter_that_does_not_fit_is_refused)
{
	struct config_filter filters[] = { { .name = "x", .type = "x", .line = 5 } };
	const struct filter *const table[] = { shapes[_i].filter, NULL };
	struct err err = { 0 };
	struct pipeline *pl;
	char msg[200];
	struct world w;

	world_init(&w, "", NULL, 0);
	w.cfg->filters = filters;
	w.cfg->n_filters = 1;
	(void)snprintf(msg, sizeof(msg), "/etc/relayd/relayd.conf:5: %s", shapes[_i].msg);
	if (shapes[_i].msg != NULL) {
		expect_refusal(&w, table, msg);
	} else {
		pl = pipeline_new(w.cfg, table, &err);
		ck_assert_msg(pl != NULL, "%s", err.msg);
		pipeline_unref(pl);
	}
	world_fini(&w);
}
END_TEST

/* ---- a shared object from outside the tree --------------------------------------------------- */

/* Copies a filter and the public header to a directory, and builds it there with nothing else. */
static void
build_module(const char *dir, const char *name)
{
	char command[2000];

	(void)snprintf(command, sizeof(command),
	    "mkdir -p %s/include && cp -r %s/include/relayd %s/include/ && cp %s/filters/%s.c "
	    "%s/mine.c && "
	    "cd %s && cc -std=c17 -D_GNU_SOURCE -DRELAYD_FILTER_MODULE -Wall -Wextra -Werror -fPIC "
	    "-shared "
	    "-Iinclude -o mine.so mine.c",
	    dir, SOURCE_DIR, dir, SOURCE_DIR, name, dir, dir);
	ck_assert_int_eq(system(command), 0);
}

START_TEST(dnsbl_built_outside_the_tree_does_what_the_one_built_in_does)
{
	struct buf bytes = buf_heap(1 << 16);
	struct world w;
	char text[400];

	world_load_text(&w, "");
	build_module(w.dir, "dnsbl");
	(void)snprintf(text, sizeof(text),
	    "filter mine { module = \"%s/mine.so\" for = inbound options = { "
	    "\"zones=zen.test=4.0\", "
	    "\"zones=other.test=1.5\" } }\npolicy inbound { tag = 5.0 }\n",
	    w.dir);
	world_reload_text(&w, text);
	world_build(&w, builtin);
	ck_assert_int_eq(world_send(&w, "Subject: x\r\n\r\nbody\r\n"), PIPELINE_GO_ON);
	ck_assert_str_eq(world_asked(&w), "7.2.0.192.zen.test 7.2.0.192.other.test ");
	ck_assert_str_eq(w.run.verdict, "tag");
	ASSERT_HAS(world_bytes(&w, 0, &bytes),
	    "X-Relayd-Findings: DNSBL:zen.test=4.0, DNSBL:other.test=1.5\r\n");
	buf_fini(&bytes);
	world_fini(&w);
}
END_TEST

/* The header says that it may be included from C++. */
START_TEST(the_public_headers_are_cxx_too)
{
	char command[1000];

	(void)snprintf(command, sizeof(command),
	    "echo '#include <relayd/client.h>' | clang -x c++ -std=c++17 -Wall -Werror "
	    "-fsyntax-only "
	    "-I%s/include -",
	    SOURCE_DIR);
	ck_assert_int_eq(system(command), 0);
}
END_TEST

START_TEST(a_module_is_checked_like_any_other)
{
	struct world w;
	char text[400], msg[400];

	world_load_text(&w, "");
	build_module(w.dir, "dnsbl");
	(void)snprintf(text, sizeof(text),
	    "filter mine { module = \"%s/mine.so\" options = { \"zone=a=1\" } }\n", w.dir);
	world_reload_text(&w, text);
	expect_refusal(&w, builtin,
	    "/etc/relayd/relayd.conf:6: filter mine: unknown option zone (type dnsbl)");
	(void)snprintf(text, sizeof(text), "filter mine { module = \"%s/other.so\" }\n", w.dir);
	(void)snprintf(msg, sizeof(msg),
	    "/etc/relayd/relayd.conf:6: filter mine: %s/other.so exports no relayd_filter", w.dir);
	world_reload_text(&w, text);
	(void)snprintf(text, sizeof(text),
	    "cd %s && echo 'int x;' | cc -xc -shared -fPIC -o other.so -", w.dir);
	ck_assert_int_eq(system(text), 0);
	expect_refusal(&w, builtin, msg);
	world_unload(&w);
}
END_TEST

UNIT_SUITE(pipeline_module)
{
	UNIT_ROWS(a_section_that_is_wrong_is_refused_with_its_line, refused);
	UNIT_TEST(a_section_that_does_nothing_is_warned_of);
	UNIT_ROWS(a_filter_that_does_not_fit_is_refused, shapes);
	UNIT_TEST(dnsbl_built_outside_the_tree_does_what_the_one_built_in_does);
	UNIT_TEST(the_public_headers_are_cxx_too);
	UNIT_TEST(a_module_is_checked_like_any_other);
}
