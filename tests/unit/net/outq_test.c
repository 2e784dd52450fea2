/* tests/unit/net/outq_test.c - output keeps its order whatever the kernel takes at a time;
 * rounds run their tasks. */
#include "relayd/net/outq.h"

#include "unit/unit.h"

#include "relayd/net/round.h"

static void
fill(struct outq *q)
{
	outq_init(q, 1000);
	buf_puts(&q->bytes, "ab");
	ck_assert(outq_ref(q, SLICE("CDE"), 10));
	ck_assert(outq_ref(q, SLICE(""), 10)); /* nothing: takes no place */
	ck_assert(outq_ref(q, SLICE("F"), 10));
	buf_puts(&q->bytes, "gh");
	ck_assert(outq_ref(q, SLICE("IJ"), 10));
}

/* The next run, at most max of its bytes. */
static size_t
take(struct outq *q, unsigned vectors, size_t max, struct buf *out)
{
	uv_buf_t iov[8];
	unsigned n = outq_gather(q, iov, vectors);
	size_t taken = 0;

	for (unsigned i = 0; i < n; i++) {
		size_t some = iov[i].len < max - taken ? iov[i].len : max - taken;

		ck_assert_uint_gt(iov[i].len, 0);
		buf_put(out, slice_of(iov[i].base, some));
		taken += some;
	}
	outq_consume(q, taken);
	return taken;
}

START_TEST(bytes_and_references_leave_in_order)
{
	for (unsigned vectors = 1; vectors <= 8; vectors++) {
		for (size_t max = 1; max <= 12; max++) {
			struct buf out = buf_heap(100);
			struct outq q;

			fill(&q);
			ck_assert_uint_eq(outq_len(&q), 10);
			while (outq_len(&q) > 0)
				ck_assert_uint_gt(take(&q, vectors, max, &out), 0);
			ck_assert_uint_eq(out.len, 10);
			ck_assert_mem_eq(out.p, "abCDEFghIJ", 10);
			ck_assert_uint_eq(q.n_refs, 0);
			buf_fini(&out);
			outq_fini(&q);
		}
	}
}
END_TEST

START_TEST(references_are_bounded)
{
	struct outq q;

	outq_init(&q, 10);
	ck_assert(outq_ref(&q, SLICE("a"), 2));
	ck_assert(outq_ref(&q, SLICE("b"), 2));
	ck_assert(!outq_ref(&q, SLICE("c"), 2));
	outq_consume(&q, 1);
	ck_assert(outq_ref(&q, SLICE("c"), 2));
	outq_fini(&q);
}
END_TEST

START_TEST(an_empty_queue_gives_its_memory_back)
{
	static const char block[2000];
	struct outq q;

	outq_init(&q, 10000);
	buf_put(&q.bytes, slice_of(block, sizeof(block)));
	outq_consume(&q, sizeof(block));
	ck_assert_ptr_null(q.bytes.p);
	buf_put(&q.bytes, slice_of(block, sizeof(block)));
	ck_assert(!q.bytes.overflow);
	outq_fini(&q);
}
END_TEST

/* ---- rounds --------------------------------------------------------------------------------- */

struct task {
	struct round_task task;
	struct round *round;
	struct task *marks; /* when it runs */
	enum round_phase phase;
	unsigned ran, *order, at;
};

static void
run_task(struct round_task *t)
{
	struct task *task = container_of(t, struct task, task);

	task->ran++;
	task->at = ++*task->order;
	if (task->marks != NULL)
		round_mark(task->round, &task->marks->task, task->marks->phase);
}

START_TEST(work_runs_before_output_and_once)
{
	unsigned order = 0;
	struct task flush = { .task.run = run_task, .phase = ROUND_FLUSH, .order = &order };
	struct task second = { .task.run = run_task, .marks = &flush, .order = &order };
	struct task first = { .task.run = run_task, .marks = &second, .order = &order };
	struct task dropped = { .task.run = run_task, .order = &order };
	struct round *r;
	uv_loop_t loop;

	ck_assert_int_eq(uv_loop_init(&loop), 0);
	r = round_ref(&loop);
	ck_assert_ptr_eq(round_ref(&loop), r);
	flush.round = first.round = second.round = r;
	round_mark(r, &flush.task, ROUND_FLUSH);
	round_mark(r, &first.task, ROUND_WORK);
	round_mark(r, &first.task, ROUND_WORK);
	round_mark(r, &dropped.task, ROUND_WORK);
	round_unmark(r, &dropped.task);
	ck_assert_uint_eq(first.ran, 0);
	uv_run(&loop, UV_RUN_DEFAULT); /* it ends by itself: nothing is left */
	ck_assert_uint_eq(first.ran, 1);
	ck_assert_uint_eq(second.ran, 1);
	ck_assert_uint_eq(flush.ran, 1);
	ck_assert_uint_eq(dropped.ran, 0);
	ck_assert_uint_eq(flush.at, 3);
	round_unref(r);
	round_unref(r);
	uv_run(&loop, UV_RUN_DEFAULT);
	ck_assert_int_eq(uv_loop_close(&loop), 0);
}
END_TEST

START_TEST(a_task_that_marks_itself_does_not_starve_the_loop)
{
	unsigned order = 0;
	struct task task = { .task.run = run_task, .order = &order };
	struct round *r;
	uv_loop_t loop;

	ck_assert_int_eq(uv_loop_init(&loop), 0);
	r = task.round = round_ref(&loop);
	task.marks = &task;
	round_mark(r, &task.task, ROUND_WORK);
	uv_run(&loop, UV_RUN_NOWAIT); /* returns */
	ck_assert_uint_gt(task.ran, 1);
	round_unmark(r, &task.task);
	round_unref(r);
	uv_run(&loop, UV_RUN_DEFAULT);
	ck_assert_int_eq(uv_loop_close(&loop), 0);
}
END_TEST

UNIT_SUITE(outq)
{
	UNIT_TEST(bytes_and_references_leave_in_order);
	UNIT_TEST(references_are_bounded);
	UNIT_TEST(an_empty_queue_gives_its_memory_back);
	UNIT_TEST(work_runs_before_output_and_once);
	UNIT_TEST(a_task_that_marks_itself_does_not_starve_the_loop);
}
