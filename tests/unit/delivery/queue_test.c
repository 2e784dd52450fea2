/* tests/unit/delivery/queue_test.c - jobs in line, deferred, taken and parked; shared reasons. */
#include "relayd/delivery/queue.h"

#include "unit/unit.h"

#include <stdio.h>

static struct index_msg entries[16];

static struct queue_job *
one_job(struct queue *q, struct line *line, unsigned n)
{
	struct queue_msg *msg = queue_add(q, &entries[n], 0, 100);
	struct queue_job *job = queue_job_new(msg, line);

	ck_assert(queue_job_add(q, job, n));
	return job;
}

START_TEST(a_line_is_first_in_first_out_but_for_those_put_in_front)
{
	struct queue q;
	struct line line = { 0 };
	struct queue_job *a, *b, *c;

	queue_init(&q);
	a = one_job(&q, &line, 0);
	b = one_job(&q, &line, 1);
	c = one_job(&q, &line, 2);
	queue_ready(a, false);
	queue_ready(b, false);
	queue_ready(c, true);
	ck_assert_uint_eq(line.n, 3);
	ck_assert_uint_eq(line.jobs, 3);
	ck_assert_ptr_eq(queue_take_first(&q, &line), c);
	queue_take(&q, b);
	ck_assert_ptr_eq(queue_take_first(&q, &line), a);
	ck_assert_ptr_null(queue_take_first(&q, &line));
	ck_assert_uint_eq(line.n, 0);
	queue_fini(&q);
	ck_assert_uint_eq(line.jobs, 0);
}
END_TEST

START_TEST(deferred_jobs_come_when_they_are_due)
{
	struct queue q;
	struct line line = { 0 };
	struct queue_job *a, *b;

	queue_init(&q);
	a = one_job(&q, &line, 0);
	b = one_job(&q, &line, 1);
	queue_defer(&q, a, 200);
	queue_defer(&q, b, 100);
	ck_assert_ptr_null(queue_due(&q, 99));
	ck_assert_int_eq(schedule_first(&q.deferred)->due_ms, 100);
	ck_assert_ptr_eq(queue_due(&q, 100), &b->slot);
	ck_assert_ptr_null(queue_due(&q, 100));
	ck_assert_int_eq(schedule_first(&q.deferred)->due_ms, 200);
	queue_remove(&q, a->msg);
	ck_assert_ptr_null(queue_due(&q, 1000));
	queue_fini(&q);
}
END_TEST

START_TEST(a_message_counts_its_open_recipients_over_all_jobs)
{
	struct queue q;
	struct line one = { 0 }, two = { 0 };
	struct queue_msg *msg;
	struct queue_job *a, *b;

	queue_init(&q);
	msg = queue_add(&q, &entries[0], 0, 4096);
	a = queue_job_new(msg, &one);
	b = queue_job_new(msg, &two);
	for (uint32_t i = 0; i < QUEUE_JOB_RCPTS; i++)
		ck_assert(queue_job_add(&q, i % 2 == 0 ? a : b, i));
	ck_assert_uint_eq(msg->open, QUEUE_JOB_RCPTS);
	ck_assert_uint_eq(q.recipients, QUEUE_JOB_RCPTS);
	ck_assert_uint_eq(q.bytes, 4096);
	queue_job_drop(&q, a, 0);
	ck_assert_uint_eq(a->rcpts[0].ordinal, QUEUE_JOB_RCPTS - 2);
	queue_job_free(&q, b);
	ck_assert_uint_eq(msg->open, QUEUE_JOB_RCPTS / 2 - 1);
	ck_assert_uint_eq(two.jobs, 0);
	ck_assert_ptr_eq(msg->jobs, a);
	queue_job_move(a, &two);
	ck_assert_uint_eq(one.jobs, 0);
	ck_assert_uint_eq(two.jobs, 1);
	queue_remove(&q, msg);
	ck_assert_uint_eq(q.recipients, 0);
	ck_assert_uint_eq(q.bytes, 0);
	queue_fini(&q);
}
END_TEST

START_TEST(equal_reasons_are_kept_once)
{
	struct queue q;
	struct queue_rcpt v[1000] = { 0 };
	char text[32];

	queue_init(&q);
	for (unsigned i = 0; i < 1000; i++) {
		snprintf(text, sizeof(text), "450 reason %u", i % 300);
		queue_why(&q, &v[i], slice_str(text));
	}
	ck_assert_uint_eq(q.n_reasons, 300);
	ck_assert_ptr_eq(v[0].why, v[300].why);
	queue_why(&q, &v[0], queue_reason_text(v[0].why)); /* of itself */
	ck_assert(slice_eq(queue_reason_text(v[300].why), SLICE("450 reason 0")));
	for (unsigned i = 0; i < 1000; i++)
		queue_why(&q, &v[i], SLICE(""));
	ck_assert_uint_eq(q.n_reasons, 0);
	ck_assert_uint_eq(queue_reason_text(NULL).len, 0);
	queue_fini(&q);
}
END_TEST

/* What the caller does for one that was read again. */
static struct queue_job *
read_again(struct queue *q, struct line *line, unsigned n)
{
	struct queue_parked *parked = entries[n].user;
	struct queue_job *job = one_job(q, line, n);

	ck_assert(entries[n].parked);
	ck_assert(queue_unpark(q, parked, job->msg));
	ck_assert(!entries[n].parked);
	ck_assert_ptr_eq(entries[n].user, job->msg);
	return job;
}

START_TEST(a_parked_message_keeps_its_place_in_line_and_is_counted)
{
	struct queue q;
	struct line line = { 0 };

	queue_init(&q);
	for (unsigned n = 0; n < 5; n++)
		queue_ready(one_job(&q, &line, n), false);
	for (unsigned n = 1; n < 5; n += 2) {
		struct queue_msg *msg = q.head;

		while (msg->entry != &entries[n])
			msg = msg->next;
		ck_assert(queue_may_park(msg));
		ck_assert(queue_park(&q, msg));
	}
	ck_assert_uint_eq(q.messages, 5);
	ck_assert_uint_eq(q.whole, 3);
	ck_assert_uint_eq(q.recipients, 5);
	ck_assert_uint_eq(q.bytes, 500);
	ck_assert_uint_eq(line.n, 5);
	ck_assert_uint_eq(line.jobs, 5);
	for (unsigned n = 0; n < 5; n++) {
		struct line_slot *slot = line_peek(&line);

		ck_assert_ptr_eq(queue_slot_entry(slot), &entries[n]);
		if (slot->parked)
			(void)read_again(&q, &line, n);
		ck_assert_ptr_eq(queue_take_first(&q, &line)->msg->entry, &entries[n]);
	}
	ck_assert_uint_eq(q.messages, 5);
	ck_assert_uint_eq(q.whole, 5);
	ck_assert_uint_eq(q.recipients, 5);
	ck_assert_uint_eq(q.bytes, 500);
	ck_assert_uint_eq(line.jobs, 5);
	queue_fini(&q);
	ck_assert_uint_eq(line.jobs, 0);
}
END_TEST

START_TEST(a_parked_message_comes_when_it_is_due)
{
	struct queue q;
	struct line line = { 0 }, failing = { 0 };
	struct queue_job *a, *b;

	queue_init(&q);
	a = one_job(&q, &line, 0);
	b = one_job(&q, &line, 1);
	ck_assert(!queue_may_park(a->msg)); /* it is taken */
	queue_defer(&q, a, 200);
	queue_defer(&q, b, 100);
	ck_assert(queue_park(&q, a->msg));
	ck_assert(queue_park(&q, b->msg));
	ck_assert_ptr_null(queue_due(&q, 99));
	ck_assert_ptr_eq(queue_slot_entry(queue_due(&q, 100)), &entries[1]);
	a = read_again(&q, &line, 0);
	ck_assert_uint_eq(a->slot.state, QUEUE_DEFERRED);
	ck_assert_ptr_eq(queue_due(&q, 200), &a->slot);
	ck_assert_uint_eq(line.n, 2);
	queue_slot_move(&((struct queue_parked *)entries[1].user)->slot, &failing);
	ck_assert_uint_eq(line.jobs, 1);
	ck_assert_uint_eq(failing.jobs, 1);
	queue_parked_defer(&q, entries[1].user, 300);
	ck_assert_uint_eq(failing.n, 0);
	queue_parked_free(&q, entries[1].user);
	ck_assert_uint_eq(q.deferred.n, 0);
	ck_assert_uint_eq(failing.jobs, 0);
	queue_fini(&q);
}
END_TEST

START_TEST(who_goes_elsewhere_when_read_again_leaves_the_line)
{
	struct queue q;
	struct line line = { 0 }, other = { .owner = &q };
	struct queue_parked *parked;
	struct queue_job *a;

	queue_init(&q);
	a = one_job(&q, &line, 0);
	queue_ready(a, false);
	ck_assert(queue_park(&q, a->msg));
	parked = entries[0].user;
	a = one_job(&q, &other, 0);
	ck_assert(!queue_unpark(&q, parked, a->msg));
	ck_assert_uint_eq(line.n, 0);
	ck_assert_uint_eq(line.jobs, 0);
	ck_assert_uint_eq(a->slot.state, QUEUE_TAKEN);
	ck_assert_uint_eq(other.jobs, 1);
	queue_fini(&q);
}
END_TEST

UNIT_SUITE(delivery_queue)
{
	UNIT_TEST(a_line_is_first_in_first_out_but_for_those_put_in_front);
	UNIT_TEST(deferred_jobs_come_when_they_are_due);
	UNIT_TEST(a_message_counts_its_open_recipients_over_all_jobs);
	UNIT_TEST(equal_reasons_are_kept_once);
	UNIT_TEST(a_parked_message_keeps_its_place_in_line_and_is_counted);
	UNIT_TEST(a_parked_message_comes_when_it_is_due);
	UNIT_TEST(who_goes_elsewhere_when_read_again_leaves_the_line);
}
