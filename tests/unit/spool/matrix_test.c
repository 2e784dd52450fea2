/* tests/unit/spool/matrix_test.c - a random sample of the crash matrix; ./dev crash runs all of
 * it. */
#include "unit/unit.h"

#include "unit/spool/matrix.h"

#include <stdio.h>
#include <sys/random.h>

#define SAMPLE 150 /* one cell of so many */

START_TEST(what_was_promised_holds_whatever_fails)
{
	struct matrix counts = { 0 };
	uint32_t seed, runs = 0, failed = 0;

	ck_assert_int_eq(getrandom(&seed, sizeof(seed), 0), sizeof(seed));
	matrix_run(&(struct matrix_run){
	    .seed = seed, .one_in = SAMPLE, .only_fault = -1, .counts = &counts });
	for (int f = 0; f < MATRIX_FAULTS; f++)
		for (int c = 0; c < MATRIX_CALLS; c++) {
			runs += counts.cells[f][c].runs;
			failed += counts.cells[f][c].failed;
		}
	ck_assert_msg(failed == 0, "%u of %u runs, seed %u", failed, runs, seed);
	ck_assert_uint_gt(runs, 50);
}
END_TEST

UNIT_SUITE(spool_matrix)
{
	UNIT_TEST(what_was_promised_holds_whatever_fails);
}
