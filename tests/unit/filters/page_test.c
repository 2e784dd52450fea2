/* tests/unit/filters/page_test.c - the example of relayd-filter(3): it builds, loads and works.
 *
 * Compiled from the page as it stands, against include/relayd alone, into a shared object.
 */
#include "unit/filters/canned.h"
#include "unit/unit.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define PAGE    TESTS_DIR "/../doc/relayd-filter.3"
#define INCLUDE TESTS_DIR "/../include"

static char folder[] = "/tmp/relayd-page.XXXXXX";

/* Copies the literal block behind the mark in the page's source; mandoc's "\e" is a backslash. */
static void
example_copy(FILE *page, FILE *out)
{
	char line[1024];
	bool inside = false;

	while (fgets(line, sizeof(line), page) != NULL && strcmp(line, ".\\\" example\n") != 0)
		continue;
	while (fgets(line, sizeof(line), page) != NULL && strcmp(line, ".Ed\n") != 0) {
		for (const char *p = line; inside && *p != '\0'; p++) {
			bool backslash = p[0] == '\\' && p[1] == 'e';

			fputc(*p, out);
			p += backslash;
		}
		inside = true; /* behind .Bd */
	}
}

static const struct filter *
example_load(void **handle)
{
	char path[256], command[2048];
	FILE *page = fopen(PAGE, "r"), *out;

	ck_assert_ptr_nonnull(mkdtemp(folder));
	(void)snprintf(path, sizeof(path), "%s/domains.c", folder);
	out = fopen(path, "w");
	ck_assert(page != NULL && out != NULL);
	example_copy(page, out);
	ck_assert(fclose(page) == 0 && fclose(out) == 0);
	(void)snprintf(command, sizeof(command),
	    "cc -std=c17 -Wall -Wextra -Werror -O -I '%s' -fPIC -shared"
	    " -o %s/domains.so %s",
	    INCLUDE, folder, path);
	ck_assert_int_eq(system(command), 0);
	(void)snprintf(path, sizeof(path), "%s/domains.so", folder);
	*handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	ck_assert_msg(*handle != NULL, "%s", dlerror());
	(void)snprintf(command, sizeof(command), "rm -r %s", folder);
	ck_assert_int_eq(system(command), 0);
	return dlsym(*handle, "relayd_filter");
}

static const struct {
	const char *path;
	enum filter_status status;
	double score;
} rows[] = {
	{ "jo@bad.test", FILTER_DONE, 3.5 },
	{ "jo@good.test", FILTER_DONE, 0 },
	{ "jo@slow.test", FILTER_ERROR, 0 },
	{ "", FILTER_DONE, 0 },
};

START_TEST(the_example_of_the_page_works)
{
	static const struct canned_fact facts[] = {
		CANNED_A("bad.test.list.test", "\x7f\x00\x00\x02"),
		CANNED_FAILED(FACT_DNS_A, "slow.test.list.test"),
	};
	static const struct canned_option options[] = { { "zone", "list.test" },
		{ "score", "3.5" } };
	struct canned_config cc;
	const struct filter *filter;
	void *settings, *handle;

	filter = example_load(&handle);
	ck_assert_ptr_nonnull(filter);
	ck_assert_uint_eq(filter->abi, RELAYD_FILTER_ABI);
	CANNED_CONFIG(&cc, "domains", options);
	ck_assert_int_eq(canned_configure(&cc, filter, &settings), 0);
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct canned can;

		canned_init(&can);
		CANNED_FACTS(&can, facts);
		can.envelope.reverse_path = slice_str(rows[i].path);
		ck_assert_int_eq(canned_run(&can, filter, settings), rows[i].status);
		ck_assert_double_eq(can.score, rows[i].score);
		canned_fini(&can);
	}
	filter->release(settings);
	canned_config(&cc, "domains", options + 1, 1);
	ck_assert_int_eq(canned_configure(&cc, filter, &settings), -1);
	ck_assert_str_eq(cc.said, "zone: which list?\n");
	ck_assert_int_eq(dlclose(handle), 0);
}
END_TEST

UNIT_SUITE(page)
{
	UNIT_TEST(the_example_of_the_page_works);
}
