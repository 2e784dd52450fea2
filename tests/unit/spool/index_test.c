/* tests/unit/spool/index_test.c - which messages are open, by place, and walks over them while they
 * change. */
#include "relayd/spool/index.h"

#include "unit/unit.h"

#include <stdlib.h>

#define LOGS     3
#define SEGMENTS 4
#define PLACES   200

static struct index ix;
static struct index_segment *segs[LOGS][SEGMENTS];

static struct id
id_of(unsigned log, unsigned seg, unsigned place)
{
	struct id id = { { 1 } };

	id.bytes[8] = (uint8_t)log;
	id.bytes[9] = (uint8_t)seg;
	id.bytes[10] = (uint8_t)place;
	return id;
}

static void
set_up(void)
{
	index_init(&ix);
	srandom(5);
	for (unsigned l = 0; l < LOGS; l++) {
		struct index_log *log = index_log_add(&ix, id_of(l, 0, 0), l + 1);

		for (unsigned s = 0; s < SEGMENTS; s++)
			segs[l][s] = index_segment(log, s + 1);
	}
}

static void
tear_down(void)
{
	index_fini(&ix);
	ck_assert_uint_eq(ix.open, 0);
}

static void
add(unsigned l, unsigned s, unsigned place)
{
	struct index_msg *msg = index_add(&ix, segs[l][s], place);

	ck_assert_ptr_nonnull(msg);
	if (msg->bytes == 0)
		ck_assert(index_name(&ix, msg, id_of(l, s, place), 1));
}

static void
fill(void)
{
	for (unsigned i = 0; i < LOGS * SEGMENTS * PLACES * 8; i++)
		add((unsigned)random() % LOGS, (unsigned)random() % SEGMENTS,
		    (unsigned)random() % PLACES);
}

START_TEST(messages_are_found_by_place_and_by_id_in_whatever_order_they_came)
{
	fill();
	for (unsigned place = 0; place < PLACES; place++) {
		struct index_msg *msg = index_at(segs[1][2], place);

		ck_assert_ptr_eq(index_find(&ix, id_of(1, 2, place)), msg);
		if (msg == NULL)
			continue;
		ck_assert_uint_eq(msg->place, place);
		ck_assert(index_set_done(&ix, segs[1][2], place));
		ck_assert_ptr_null(index_at(segs[1][2], place));
	}
	ck_assert_uint_eq(segs[1][2]->open, 0);
}
END_TEST

START_TEST(a_cursor_gives_all_in_order)
{
	struct index_cursor c = { .log = 0 };
	struct index_msg *msg, *last = NULL;
	uint64_t n = 0;

	fill();
	while ((msg = index_cursor_next(&ix, &c)) != NULL) {
		if (last != NULL)
			ck_assert(
			    last->segment->log->number < msg->segment->log->number ||
			    (last->segment->log == msg->segment->log &&
				(last->segment->number < msg->segment->number ||
				    (last->segment == msg->segment && last->place < msg->place))));
		last = msg;
		n++;
	}
	ck_assert_uint_eq(n, ix.open);
	ck_assert_ptr_null(index_cursor_next(&ix, &c));
}
END_TEST

START_TEST(a_cursor_survives_that_messages_and_segments_go)
{
	struct index_cursor c = { .log = 0 };
	struct index_msg *msg;
	uint64_t n = 0, last = 0;

	fill();
	while ((msg = index_cursor_next(&ix, &c)) != NULL) {
		unsigned l = msg->segment->log->number - 1, s = msg->segment->number - 1;
		uint64_t now = ((uint64_t)l * SEGMENTS + s) * PLACES + msg->place + 1;

		ck_assert_uint_gt(now, last);
		last = now;
		n++;
		if (n % 3 == 0) /* itself */
			ck_assert(index_set_done(&ix, msg->segment, msg->place));
		if (n % 5 == 0 && s + 1 < SEGMENTS) { /* one behind it */
			struct index_segment *behind = segs[l][s + 1];

			if (behind->open > 0)
				ck_assert(index_set_done(&ix, behind, behind->msgs[0]->place));
		}
		if (n % 50 == 0) { /* the whole segment, under it */
			while (segs[l][s]->open > 0)
				ck_assert(
				    index_set_done(&ix, segs[l][s], segs[l][s]->msgs[0]->place));
			index_segment_forget(&ix, segs[l][s]);
			segs[l][s] = index_segment(index_log_numbered(&ix, l + 1), s + 1);
		}
	}
	ck_assert_uint_gt(n, LOGS * SEGMENTS * 20);
	ck_assert_uint_ge(last, ((LOGS - 1) * SEGMENTS + SEGMENTS - 1) * PLACES);
}
END_TEST

START_TEST(what_nobody_found_in_a_segment_is_settled)
{
	add(0, 0, 1);
	ck_assert_ptr_nonnull(index_add(&ix, segs[0][0], 0)); /* known from the journal alone */
	ck_assert_ptr_nonnull(index_add(&ix, segs[0][0], 2));
	index_segment_settle(&ix, segs[0][0]);
	ck_assert_uint_eq(ix.open, 1);
	ck_assert_ptr_null(index_at(segs[0][0], 0));
	ck_assert_ptr_nonnull(index_at(segs[0][0], 1));
	ck_assert_ptr_null(index_at(segs[0][0], 2));
	add(0, 0, 3); /* there is room again */
	ck_assert_uint_eq(segs[0][0]->open, 2);
}
END_TEST

UNIT_SUITE(spool_index)
{
	tcase_add_checked_fixture(tc, set_up, tear_down);
	UNIT_TEST(messages_are_found_by_place_and_by_id_in_whatever_order_they_came);
	UNIT_TEST(a_cursor_gives_all_in_order);
	UNIT_TEST(a_cursor_survives_that_messages_and_segments_go);
	UNIT_TEST(what_nobody_found_in_a_segment_is_settled);
}
