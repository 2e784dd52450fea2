/* tests/unit/main.c - runs every suite that a test file of this program registered. */
#include "unit/unit.h"

#include <signal.h>
#include <stdlib.h>

static SRunner *runner;

void
unit_add(Suite *suite)
{
	if (runner == NULL)
		runner = srunner_create(suite);
	else
		srunner_add_suite(runner, suite);
}

int
main(void)
{
	int failed;

	if (runner == NULL)
		return EXIT_FAILURE;
	/* As every role does: a peer that hangs up is an error of write(), not a signal. */
	(void)signal(SIGPIPE, SIG_IGN);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
