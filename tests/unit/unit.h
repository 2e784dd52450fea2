/* tests/unit/unit.h - how a test file joins the Check program of its folder.
 *
 *	UNIT_SUITE(smtp_scan)
 *	{
 *		UNIT_TEST(a_bare_lf_is_refused);
 *		UNIT_ROWS(any_cut_gives_the_same_commands, rows);
 *	}
 */
#ifndef TESTS_UNIT_UNIT_H
#define TESTS_UNIT_UNIT_H

#include <check.h>

/* Adds suite to those that main() runs; called before main(). */
void unit_add(Suite *suite);

#define UNIT_SUITE(name)                                                                           \
	static void name##_fill(TCase *tc);                                                        \
	__attribute__((constructor)) static void name##_register(void)                             \
	{                                                                                          \
		Suite *suite = suite_create(#name);                                                \
		TCase *tc = tcase_create(#name);                                                   \
		tcase_set_timeout(tc, 120);                                                        \
		name##_fill(tc);                                                                   \
		suite_add_tcase(suite, tc);                                                        \
		unit_add(suite);                                                                   \
	}                                                                                          \
	static void name##_fill(TCase *tc)

#define UNIT_TEST(test)       tcase_add_test(tc, test)
#define UNIT_ROWS(test, rows)                                                                      \
	tcase_add_loop_test(tc, test, 0, (int)(sizeof(rows) / sizeof((rows)[0])))

#endif
