/* tests/unit/spool/matrix.c - the crash matrix: every fault at every I/O call of a workload. */
#include "unit/spool/matrix.h"

#include "relayd/core/counters.h"
#include "unit/spool/fakedisk.h"
#include "unit/spool/gateway.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#define LATER_MAX    90 /* calls after a fault within which the power goes, too */
#define BURST        12 /* calls that fail when not only one does */
#define SECONDS_MAX  60 /* of the processor, for one child */
#define RECOVERY_MAX 160

/* What comes of a fault that the process survives. */
enum after { ON_TO_THE_END, THEN_KILL, THEN_CUT_DROPPED, THEN_CUT_TORN, AFTERS };

struct cell {
	enum matrix_fault fault;
	unsigned variant; /* seeds what is torn; of a fault that is survived: the rest */
	enum after after;
	bool burst;
};

static struct {
	const struct matrix_run *run;
	uint64_t call; /* of the workload; in a child: of what follows */
	bool is_child, recovering;
	struct cell cell;
	uint64_t random;            /* of the child */
	unsigned burst_left, later; /* later: calls until it is cut, or 0 */
	uint64_t sampler;
} m;

static unsigned
dice(uint64_t *random, unsigned n)
{
	*random ^= *random << 13;
	*random ^= *random >> 7;
	*random ^= *random << 17;
	return (unsigned)(*random >> 33) % n;
}

/* -- which cells there are -- */

static const struct {
	const char *name;
	unsigned variants;
	bool survived;
	int sys;
} faults[MATRIX_FAULTS] = {
	[MATRIX_KILL] = { "kill of all", 2, false, 0 },
	[MATRIX_KILL_ONE] = { "kill of one role", 1, true, 0 },
	[MATRIX_CUT_DROPPED] = { "power cut, unsynced lost", 1, false, 0 },
	[MATRIX_CUT_REORDERED] = { "power cut, reordered", 2, false, 0 },
	[MATRIX_CUT_TORN_512] = { "power cut, torn at 512", 2, false, 0 },
	[MATRIX_CUT_TORN_4096] = { "power cut, torn at 4096", 2, false, 0 },
	[MATRIX_CUT_GARBAGE] = { "power cut, garbage", 1, false, 0 },
	[MATRIX_CUT_TWICE] = { "power cut, and again", 2, false, 0 },
	[MATRIX_SHORT_WRITE] = { "short write", 3, true, 0 },
	[MATRIX_EIO_READ] = { "EIO on read", 2, true, EIO },
	[MATRIX_EIO_WRITE] = { "EIO on write", 4, true, EIO },
	[MATRIX_EIO_SYNC] = { "EIO on fsync", 6, true, EIO },
	[MATRIX_ENOSPC] = { "ENOSPC", 4, true, ENOSPC },
	[MATRIX_EMFILE] = { "EMFILE", 3, true, EMFILE },
};

const char *
matrix_fault_name(enum matrix_fault fault)
{
	return faults[fault].name;
}

const char *
matrix_call_name(enum matrix_call call)
{
	static const char *const names[MATRIX_CALLS] = { "write", "fsync", "name", "read", "open",
		"other" };

	return names[call];
}

static enum matrix_call
kind_of(enum fakedisk_op op)
{
	switch (op) {
	case FAKEDISK_WRITE:
		return MATRIX_WRITE;
	case FAKEDISK_SYNC:
		return MATRIX_SYNC;
	case FAKEDISK_SYNC_DIR:
	case FAKEDISK_CREATE:
	case FAKEDISK_RENAME:
	case FAKEDISK_LINK:
	case FAKEDISK_UNLINK:
		return MATRIX_NAME;
	case FAKEDISK_READ:
		return MATRIX_READ;
	case FAKEDISK_OPEN:
	case FAKEDISK_LIST:
		return MATRIX_OPEN;
	default:
		return MATRIX_OTHER;
	}
}

/* Whether such a call can fail like that. */
static bool
can_fail(enum matrix_fault fault, enum fakedisk_op op)
{
	switch (fault) {
	case MATRIX_SHORT_WRITE:
		return op == FAKEDISK_WRITE;
	case MATRIX_EIO_READ:
		return op == FAKEDISK_READ || op == FAKEDISK_LIST || op == FAKEDISK_OPEN;
	case MATRIX_EIO_WRITE:
		return op == FAKEDISK_WRITE || op == FAKEDISK_CREATE || op == FAKEDISK_RENAME ||
		       op == FAKEDISK_LINK || op == FAKEDISK_UNLINK;
	case MATRIX_EIO_SYNC:
		return op == FAKEDISK_SYNC || op == FAKEDISK_SYNC_DIR;
	case MATRIX_ENOSPC:
		return op == FAKEDISK_WRITE || op == FAKEDISK_CREATE || op == FAKEDISK_RENAME ||
		       op == FAKEDISK_LINK;
	case MATRIX_EMFILE:
		return op == FAKEDISK_OPEN || op == FAKEDISK_CREATE || op == FAKEDISK_LIST;
	default:
		return true;
	}
}

/* The first runs of a survived fault go on to the end, the others are cut. */
static struct cell
cell_of(enum matrix_fault fault, unsigned variant)
{
	static const enum after afters[] = { ON_TO_THE_END, THEN_CUT_DROPPED, ON_TO_THE_END,
		THEN_CUT_TORN, THEN_KILL, THEN_CUT_DROPPED };

	return (struct cell){ .fault = fault,
		.variant = variant,
		.after = faults[fault].survived ? afters[variant] : ON_TO_THE_END,
		.burst = variant >= 2 };
}

/* -- a child -- */

/* All went well. */
static void __attribute__((noreturn)) good(void)
{
	_exit(0);
}

static void
cut(enum fakedisk_loss loss)
{
	fakedisk_reboot(loss, m.random);
	gateway_gone(true);
}

static void
kill_all(void)
{
	fakedisk_kill();
	gateway_gone(false);
}

static void __attribute__((noreturn)) recover(bool whole)
{
	fakedisk_watch(NULL);
	gateway_recover(whole);
	good();
}

static void __attribute__((noreturn)) die_and_recover(void)
{
	kill_all();
	recover(true);
}

static void __attribute__((noreturn)) cut_twice(void)
{
	static const enum fakedisk_loss losses[] = { FAKEDISK_DROPPED, FAKEDISK_TORN_512,
		FAKEDISK_TORN_4096, FAKEDISK_REORDERED };

	if (dice(&m.random, 4) == 0)
		kill_all();
	else
		cut(losses[dice(&m.random, 4)]);
	m.later = 1 + dice(&m.random, RECOVERY_MAX);
	m.recovering = true;
	gateway_recover_some();
	cut(losses[dice(&m.random, 4)]); /* it came to its end before */
	recover(false);
}

static struct fakedisk_fault
strike_now(enum fakedisk_op op, size_t bytes)
{
	struct fakedisk_fault none = { 0 };
	bool in_write = op == FAKEDISK_WRITE && m.cell.variant == 1 && bytes > 1;

	switch (m.cell.fault) {
	case MATRIX_KILL:
		if (in_write)
			return (struct fakedisk_fault){ .sys = EIO,
				.takes = 1 + dice(&m.random, (unsigned)bytes - 1),
				.then = die_and_recover };
		die_and_recover();
	case MATRIX_KILL_ONE:
		m.later = 0;
		gateway_die();
	case MATRIX_CUT_DROPPED:
		cut(FAKEDISK_DROPPED);
		recover(true);
	case MATRIX_CUT_REORDERED:
		cut(FAKEDISK_REORDERED);
		recover(false);
	case MATRIX_CUT_TORN_512:
		cut(FAKEDISK_TORN_512);
		recover(false);
	case MATRIX_CUT_TORN_4096:
		cut(FAKEDISK_TORN_4096);
		recover(false);
	case MATRIX_CUT_GARBAGE:
		cut(FAKEDISK_GARBAGE_512);
		recover(false);
	case MATRIX_CUT_TWICE:
		cut_twice();
	default:
		return none;
	}
}

static struct fakedisk_fault
failure(size_t bytes)
{
	struct fakedisk_fault f = { .sys = faults[m.cell.fault].sys };

	if (m.cell.fault == MATRIX_SHORT_WRITE || (m.cell.fault == MATRIX_ENOSPC && bytes > 1))
		f.takes = bytes > 1 ? 1 + dice(&m.random, (unsigned)bytes - 1) : 0;
	f.lose = m.cell.variant % 2 == 0;
	if (m.cell.fault == MATRIX_EIO_SYNC)
		gateway_lost_pages();
	return f;
}

/* What was to follow the fault. */
static void __attribute__((noreturn)) come_after(void)
{
	if (m.recovering) {
		cut(FAKEDISK_DROPPED);
		recover(false);
	}
	if (m.cell.after == THEN_KILL) {
		kill_all();
		recover(false);
	}
	cut(m.cell.after == THEN_CUT_TORN ? FAKEDISK_TORN_512 : FAKEDISK_DROPPED);
	recover(false);
}

static struct fakedisk_fault
on_call_of_child(enum fakedisk_op op, size_t bytes)
{
	struct fakedisk_fault none = { 0 };

	if (m.later > 0 && --m.later == 0)
		come_after();
	if (m.recovering || m.burst_left == 0 || !can_fail(m.cell.fault, op))
		return none;
	m.burst_left--;
	return failure(bytes);
}

/* Returns in the child of a fault that is survived; does not in any other one. */
static struct fakedisk_fault
strike(enum fakedisk_op op, size_t bytes)
{
	m.is_child = true;
	m.random = (m.run->seed * 1000003 + m.call) * 31 + m.cell.fault * 7 + m.cell.variant + 1;
	for (int i = 0; i < 5; i++)
		(void)dice(&m.random, 2);
	/* It never sleeps, and it may have to wait for others, or be stopped. */
	(void)setitimer(
	    ITIMER_PROF, &(struct itimerval){ .it_value = { .tv_sec = SECONDS_MAX } }, NULL);
	m.later = m.cell.after == ON_TO_THE_END ? 0 : 2 + dice(&m.random, LATER_MAX);
	if (!faults[m.cell.fault].survived || m.cell.fault == MATRIX_KILL_ONE)
		return strike_now(op, bytes);
	m.burst_left = m.cell.burst ? dice(&m.random, BURST) : 0;
	return failure(bytes);
}

/* -- the parent -- */

static void
tell_failure(int status)
{
	(void)dprintf(gateway_told_on,
	    "  failed (%s %d): %s, variant %u (--seed %llu --call %llu --fault %d)\n",
	    WIFSIGNALED(status) ? "signal" : "exit",
	    WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status), faults[m.cell.fault].name,
	    m.cell.variant, (unsigned long long)m.run->seed, (unsigned long long)m.call,
	    (int)m.cell.fault);
}

/* True in the child. */
static bool
run_cell(enum matrix_call kind)
{
	struct matrix_count *count = &m.run->counts->cells[m.cell.fault][kind];
	pid_t pid = fork();
	int status = -1;

	if (pid == 0)
		return true;
	while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	count->runs++;
	if (!faults[m.cell.fault].survived || m.cell.after != ON_TO_THE_END ||
	    m.cell.fault == MATRIX_KILL_ONE)
		m.run->counts->cuts += m.cell.fault == MATRIX_CUT_TWICE ? 2 : 1;
	if (status != 0) {
		count->failed++;
		tell_failure(status);
	}
	return false;
}

static bool
is_wanted(enum matrix_fault fault)
{
	return (m.run->only_call == 0 || m.run->only_call == m.call) &&
	       (m.run->only_fault < 0 || m.run->only_fault == (int)fault) &&
	       (m.run->one_in <= 1 || dice(&m.sampler, m.run->one_in) == 0);
}

static struct fakedisk_fault
on_call(enum fakedisk_op op, size_t bytes)
{
	struct fakedisk_fault none = { 0 };

	if (m.is_child)
		return on_call_of_child(op, bytes);
	m.call++;
	if (m.run->stop != NULL && *m.run->stop)
		return none;
	m.run->counts->calls[kind_of(op)]++;
	for (enum matrix_fault fault = MATRIX_KILL; fault < MATRIX_FAULTS; fault++)
		for (unsigned v = 0; v < faults[fault].variants && can_fail(fault, op); v++) {
			m.cell = cell_of(fault, v);
			if (fault == MATRIX_KILL && v == 1 && op != FAKEDISK_WRITE)
				continue; /* in the middle of a write only */
			if (is_wanted(fault) && run_cell(kind_of(op)))
				return strike(op, bytes);
		}
	return none;
}

static void
quiet(void)
{
	int null = open("/dev/null", O_WRONLY | O_CLOEXEC);

	gateway_told_on = dup(2);
	gateway_must(null >= 0 && dup2(null, 2) == 2, "no /dev/null");
	(void)close(null);
}

static void
loud(void)
{
	(void)dup2(gateway_told_on, 2);
	(void)close(gateway_told_on);
	gateway_told_on = 2;
}

void
matrix_run(const struct matrix_run *run)
{
	memset(&m, 0, sizeof(m));
	m.run = run;
	m.sampler = run->seed * 2654435761u + 1;
	if (run->only_call == 0)
		quiet(); /* each fault is in the log, a million times */
	counter_set(COUNTER_COMPACTED, 0);
	gateway_start(run->seed);
	fakedisk_watch(on_call);
	gateway_work();
	if (m.is_child && m.later > 0)
		come_after();
	fakedisk_watch(NULL);
	gateway_finish();
	if (m.is_child)
		good();
	run->counts->workloads++;
	run->counts->copied += (uint32_t)counter_get(COUNTER_COMPACTED);
	fakedisk_free();
	if (run->only_call == 0)
		loud();
}
