/* tests/unit/spool/matrix.h - the crash matrix: every fault at every I/O call of a workload.
 *
 * The work runs once.  Before each call of it the process forks, once for each cell of the matrix
 * that fits: the child has the fault, and what follows from it, and checks what is left; the parent
 * goes on with the next call.
 */
#ifndef TESTS_UNIT_SPOOL_MATRIX_H
#define TESTS_UNIT_SPOOL_MATRIX_H

#include <stdbool.h>
#include <stdint.h>

enum matrix_fault {
	MATRIX_KILL,     /* of all processes, also in the middle of a write */
	MATRIX_KILL_ONE, /* of the one whose call it is; the others go on */
	MATRIX_CUT_DROPPED,
	MATRIX_CUT_REORDERED,
	MATRIX_CUT_TORN_512,
	MATRIX_CUT_TORN_4096,
	MATRIX_CUT_GARBAGE,
	MATRIX_CUT_TWICE, /* the second one while recovering */
	/* The process lives; and in some of the runs something of the above comes later. */
	MATRIX_SHORT_WRITE,
	MATRIX_EIO_READ,
	MATRIX_EIO_WRITE,
	MATRIX_EIO_SYNC,
	MATRIX_ENOSPC,
	MATRIX_EMFILE,
	MATRIX_FAULTS,
};

/* By what kind of call they come before. */
enum matrix_call {
	MATRIX_WRITE,
	MATRIX_SYNC,
	MATRIX_NAME, /* made, renamed, removed, its directory synced */
	MATRIX_READ,
	MATRIX_OPEN,
	MATRIX_OTHER,
	MATRIX_CALLS,
};

struct matrix_count {
	uint32_t runs, failed;
};

struct matrix {
	uint32_t calls[MATRIX_CALLS]; /* of the workloads, in all */
	uint32_t workloads, cuts;     /* cuts: kills and power cuts, alone or after another fault */
	uint32_t copied;              /* messages, by compaction */
	struct matrix_count cells[MATRIX_FAULTS][MATRIX_CALLS];
};

struct matrix_run {
	uint64_t seed;
	unsigned one_in;           /* a sample: of so many cells one is run; 1: all */
	uint64_t only_call;        /* of this call alone, when > 0, */
	int only_fault;            /* and this fault, when >= 0 */
	const volatile bool *stop; /* from then on no more cells are run; or NULL */
	struct matrix *counts;     /* added to as it goes */
};

/* Returns when the workload of that seed is through; what fails is told on standard error. */
void matrix_run(const struct matrix_run *run);
const char *matrix_fault_name(enum matrix_fault fault);
const char *matrix_call_name(enum matrix_call call);

#endif
