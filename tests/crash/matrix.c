/* tests/crash/matrix.c - runs the whole crash matrix and prints it.
 *
 * usage: crash_matrix [--cuts N] [--jobs N] [--seconds N] [--sample N] [--seed N [--call N]
 * [--fault N]]
 */
#include "unit/spool/matrix.h"

#include <getopt.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define JOBS_MAX 64
#define CUTS     100000

/* What the jobs share. */
struct shared {
	volatile bool stop;
	struct matrix counts[JOBS_MAX];
};

struct options {
	unsigned long cuts, jobs, seed, call, seconds;
	unsigned sample;
	int fault;
};

static struct matrix
total(const struct shared *shared, unsigned long jobs)
{
	struct matrix sum = { 0 };

	for (unsigned long j = 0; j < jobs; j++) {
		const struct matrix *one = &shared->counts[j];

		sum.workloads += one->workloads;
		sum.cuts += one->cuts;
		sum.copied += one->copied;
		for (int c = 0; c < MATRIX_CALLS; c++) {
			sum.calls[c] += one->calls[c];
			for (int f = 0; f < MATRIX_FAULTS; f++) {
				sum.cells[f][c].runs += one->cells[f][c].runs;
				sum.cells[f][c].failed += one->cells[f][c].failed;
			}
		}
	}
	return sum;
}

/* Workloads until this job has its share of the cuts. */
static void
run_job(struct shared *shared, const struct options *o, unsigned long job)
{
	struct matrix *counts = &shared->counts[job];

	for (uint64_t seed = o->seed + job; !shared->stop && counts->cuts < o->cuts / o->jobs + 1;
	     seed += o->jobs)
		matrix_run(&(struct matrix_run){ .seed = seed,
		    .one_in = o->sample,
		    .only_fault = o->fault,
		    .stop = &shared->stop,
		    .counts = counts });
}

/* Waits for all; false when one did not come to its end. */
static bool
wait_for_jobs(struct shared *shared, const struct options *o)
{
	bool good = true;
	unsigned long left = o->jobs;
	time_t began = time(NULL);

	while (left > 0) {
		struct matrix sum = total(shared, o->jobs);
		int status;
		pid_t pid = waitpid(-1, &status, WNOHANG);

		if (pid > 0) {
			left--;
			good = good && status == 0;
			continue;
		}
		if (o->seconds > 0 && time(NULL) - began >= (time_t)o->seconds)
			shared->stop = true;
		(void)fprintf(stderr, "\r  %u of %lu cuts, %ld s ", sum.cuts, o->cuts,
		    (long)(time(NULL) - began));
		(void)usleep(500000); /* woken early it only says so sooner */
	}
	(void)fputc('\n', stderr);
	return good;
}

static uint32_t
print(const struct matrix *sum)
{
	uint32_t runs = 0, failed = 0, calls = 0;

	printf("%-26s", "fault at each call:");
	for (int c = 0; c < MATRIX_CALLS; c++)
		printf(" %9s", matrix_call_name((enum matrix_call)c));
	printf(" %9s %7s\n%-26s", "all", "failed", "calls");
	for (int c = 0; c < MATRIX_CALLS; c++) {
		printf(" %9u", sum->calls[c]);
		calls += sum->calls[c];
	}
	printf(" %9u\n", calls);
	for (int f = 0; f < MATRIX_FAULTS; f++) {
		struct matrix_count row = { 0 };

		printf("%-26s", matrix_fault_name((enum matrix_fault)f));
		for (int c = 0; c < MATRIX_CALLS; c++) {
			row.runs += sum->cells[f][c].runs;
			row.failed += sum->cells[f][c].failed;
			if (sum->cells[f][c].runs > 0)
				printf(" %9u", sum->cells[f][c].runs);
			else
				printf(" %9s", "-");
		}
		printf(" %9u %7u\n", row.runs, row.failed);
		runs += row.runs;
		failed += row.failed;
	}
	printf("%u workloads (%u messages copied by compaction), %u calls, %u runs, of them %u "
	       "kills and power cuts: %s\n",
	    sum->workloads, sum->copied, calls, runs, sum->cuts,
	    failed == 0 ? "all green" : "NOT all that was promised held");
	return failed;
}

static int
usage(void)
{
	(void)fputs("usage: crash_matrix [--cuts N] [--jobs N] [--seconds N] [--sample N] [--seed "
		    "N [--call N] [--fault N]]\n",
	    stderr);
	return 2;
}

static bool
parse(int argc, char **argv, struct options *o)
{
	static const struct option options[] = { { "cuts", required_argument, NULL, 'c' },
		{ "jobs", required_argument, NULL, 'j' }, { "seed", required_argument, NULL, 's' },
		{ "call", required_argument, NULL, 'k' },
		{ "seconds", required_argument, NULL, 't' },
		{ "sample", required_argument, NULL, 'n' },
		{ "fault", required_argument, NULL, 'f' }, { 0 } };
	int opt;

	while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
		unsigned long n = optarg != NULL ? strtoul(optarg, NULL, 10) : 0;

		if (opt == 'c')
			o->cuts = n;
		else if (opt == 'j')
			o->jobs = n;
		else if (opt == 's')
			o->seed = n;
		else if (opt == 'k')
			o->call = n;
		else if (opt == 't')
			o->seconds = n;
		else if (opt == 'n')
			o->sample = (unsigned)n;
		else if (opt == 'f')
			o->fault = (int)n;
		else
			return false;
	}
	return optind == argc && o->jobs >= 1 && o->jobs <= JOBS_MAX;
}

int
main(int argc, char **argv)
{
	struct options o = { .cuts = CUTS, .jobs = 2, .seed = 1, .fault = -1, .sample = 1 };
	struct shared *shared =
	    mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct matrix sum;
	bool good = true;

	if (!parse(argc, argv, &o))
		return usage();
	/* Memory that was used once is there in each child: fewer pages to be got anew. */
	(void)mallopt(M_MMAP_THRESHOLD, 1 << 30);
	(void)mallopt(M_TRIM_THRESHOLD, 1 << 30);
	(void)mallopt(M_TOP_PAD, 16 << 20);
	(void)setrlimit(RLIMIT_CORE, &(struct rlimit){ 0, 0 }); /* they would only cost time */
	if (shared == MAP_FAILED) {
		perror("crash_matrix");
		return 1;
	}
	if (o.call > 0) { /* one of them again */
		o.jobs = 1;
		matrix_run(&(struct matrix_run){ .seed = o.seed,
		    .one_in = 1,
		    .only_call = o.call,
		    .only_fault = o.fault,
		    .counts = &shared->counts[0] });
	} else {
		for (unsigned long j = 0; j < o.jobs; j++)
			if (fork() == 0) {
				run_job(shared, &o, j);
				_exit(0);
			}
		good = wait_for_jobs(shared, &o);
	}
	sum = total(shared, o.jobs);
	return print(&sum) == 0 && good ? 0 : 1;
}
