/* tests/unit/core/record_test.c - records come back whole or not at all, and damage is told from a
 * tail. */
#include "unit/unit.h"

#include "relayd/core/record.h"
#include "relayd/core/siphash.h"

#include <stdio.h>
#include <stdlib.h>

#define N_RECORDS 12

static char bytes[64 << 10];
static struct record_file file;
static struct buf out;
static uint64_t starts[N_RECORDS + 1]; /* of the records, and the end */

/* Payloads of 0, 37, 74 ... bytes; each block of four ends at a multiple of 512. */
static void
build(void)
{
	char payload[1024];

	memset(bytes, 0, sizeof(bytes));
	file = record_file_new(RECORD_SEGMENT, 7, 4096);
	out = buf_over(bytes, sizeof(bytes));
	(void)buf_room(&out, RECORD_FILE_BYTES);
	record_file_encode(&file, (uint8_t *)bytes);
	buf_commit(&out, RECORD_FILE_BYTES);
	for (unsigned i = 0; i < N_RECORDS; i++) {
		struct record_place place = { .at = out.len, .type = (uint16_t)i };

		starts[i] = out.len;
		memset(payload, 'a' + (int)i, sizeof(payload));
		record_append_block(
		    &file, &place, slice_of(payload, 37 * i), i % 4 == 3 ? 512 : 8, &out);
	}
	starts[N_RECORDS] = out.len;
}

/* What a scan over bytes[0..len) gives, loaded in windows of `step` bytes: types as letters, "!"
 * for damage, "." at the end. */
static const char *
scan(size_t len, uint64_t durable, size_t step)
{
	static char events[256];
	struct record_scanner sc = record_scanner_of(&file, RECORD_FILE_BYTES, durable);
	struct record_window win = { RECORD_FILE_BYTES, SLICE(""), false };
	size_t n = 0;

	for (;;) {
		struct record rec;
		size_t want;

		switch (record_scan(&sc, &win, &rec)) {
		case RECORD_MORE:
			want = sc.need > step ? sc.need : step;
			win.at = sc.at;
			win.bytes =
			    slice_head(slice_drop(slice_of(bytes, len), (size_t)sc.at), want);
			win.last = sc.at + want >= len;
			break;
		case RECORD_WHOLE:
			ck_assert_uint_eq(rec.payload.len, 37u * rec.type);
			ck_assert(!slice_has(rec.payload, '\0'));
			events[n++] = (char)('a' + rec.type);
			break;
		case RECORD_DAMAGE:
			ck_assert_uint_lt(rec.at, rec.next);
			events[n++] = '!';
			break;
		case RECORD_END:
			events[n++] = '.';
			events[n] = '\0';
			return events;
		}
		ck_assert_uint_lt(n, sizeof(events) - 2);
	}
}

START_TEST(the_header_comes_back)
{
	struct record_file again;
	struct err err = { 0 };

	build();
	ck_assert_int_eq(
	    record_file_decode(slice_of(bytes, sizeof(bytes)), RECORD_SEGMENT, &again, &err), 0);
	ck_assert_uint_eq(again.number, 7);
	ck_assert_uint_eq(again.base, 4096);
	ck_assert_int_eq(again.created_ms, file.created_ms);
	ck_assert_int_eq(record_file_decode(slice_of(bytes, 64), RECORD_JOURNAL, &again, &err), -1);
	ck_assert_int_eq(err.code, ERR_DAMAGED);
	for (size_t bit = 0; bit < 64 * 8; bit++) {
		bytes[bit / 8] ^= (char)(1 << bit % 8);
		ck_assert_int_eq(
		    record_file_decode(slice_of(bytes, 64), RECORD_SEGMENT, &again, &err), -1);
		ck_assert(err.code == ERR_DAMAGED || (bit / 32 == 2 && err.code == ERR_VERSION));
		bytes[bit / 8] ^= (char)(1 << bit % 8);
	}
	for (size_t len = 0; len < 64; len++)
		ck_assert_int_eq(
		    record_file_decode(slice_of(bytes, len), RECORD_SEGMENT, &again, &err), -1);
}
END_TEST

START_TEST(a_newer_version_is_refused_by_name)
{
	struct err err = { 0 };

	build();
	bytes[8] = RECORD_VERSION + 1;
	ck_assert_int_eq(record_file_decode(slice_of(bytes, 64), RECORD_SEGMENT, &file, &err), -1);
	ck_assert_int_eq(err.code, ERR_VERSION);
	ck_assert_ptr_nonnull(strstr(err.msg, "newer relayd"));
}
END_TEST

START_TEST(any_window_gives_the_same_records)
{
	build();
	for (size_t step = 1; step < 700; step += 3)
		ck_assert_str_eq(scan(out.len, 0, step), "abcdefghijkl.");
	ck_assert_str_eq(scan(sizeof(bytes), 0, 4096), "abcdefghijkl.");
}
END_TEST

START_TEST(a_cut_file_ends_in_a_tail)
{
	build();
	for (size_t cut = RECORD_FILE_BYTES; cut < out.len; cut++) {
		char expected[N_RECORDS + 2] = "";
		unsigned whole = 0;

		while (starts[whole] + RECORD_HEAD_BYTES + 37 * whole <= cut && whole < N_RECORDS)
			whole++;
		(void)snprintf(expected, sizeof(expected), "%.*s.", (int)whole, "abcdefghijkl");
		ck_assert_msg(strcmp(scan(cut, 0, 256), expected) == 0, "cut at %zu", cut);
	}
}
END_TEST

START_TEST(below_the_durable_offset_a_tail_is_damage)
{
	build();
	ck_assert_str_eq(scan((size_t)starts[10] + 30, starts[10], 256), "abcdefghij.");
	ck_assert_str_eq(scan((size_t)starts[10] + 30, starts[11], 256), "abcdefghij!.");
	ck_assert_str_eq(scan((size_t)starts[10], starts[12], 256), "abcdefghij!.");
}
END_TEST

/* Whatever single bit is flipped: the record it is in is gone, no other, and none is wrong. */
START_TEST(one_flipped_bit_costs_one_record)
{
	build();
	for (unsigned i = 0; i < N_RECORDS; i++) {
		uint64_t used = starts[i] + RECORD_HEAD_BYTES + 37 * i;

		for (uint64_t at = starts[i]; at < used; at += 5) {
			char expected[N_RECORDS + 3];
			size_t n = 0;

			for (unsigned j = 0; j < N_RECORDS; j++)
				if (j != i || i < N_RECORDS - 1)
					expected[n++] = j == i ? '!' : (char)('a' + j);
			expected[n++] = '.';
			expected[n] = '\0';
			bytes[at] ^= 0x10;
			ck_assert_msg(strcmp(scan(out.len, 0, 333), expected) == 0, "at %llu: %s",
			    (unsigned long long)at, scan(out.len, 0, 333));
			bytes[at] ^= 0x10;
		}
	}
}
END_TEST

START_TEST(records_elsewhere_or_of_another_file_do_not_fit)
{
	char old[sizeof(bytes)];

	build();
	memcpy(old, bytes, sizeof(old));
	/* The same records eight bytes later. */
	memmove(
	    bytes + RECORD_FILE_BYTES + 8, old + RECORD_FILE_BYTES, out.len - RECORD_FILE_BYTES);
	ck_assert_str_eq(scan(out.len + 8, 0, 4096), ".");
	/* Recycled blocks: the same place, an older nonce. */
	build();
	memcpy(bytes + starts[4], old + starts[4], out.len - (size_t)starts[4]);
	ck_assert_str_eq(scan(out.len, 0, 4096), "abcd.");
}
END_TEST

START_TEST(a_body_cannot_pose_as_a_record)
{
	struct record_file own = record_file_new(RECORD_SEGMENT, 7, 4096);
	char body[2048];
	struct buf inner = buf_over(body, sizeof(body));

	build();
	/* A sender builds records for the very place where they will stand, but lacks the nonce. */
	record_append(&own, out.len + RECORD_HEAD_BYTES, 5, slice_of(body + 1024, 185), &inner);
	record_append(
	    &own, out.len + RECORD_HEAD_BYTES + inner.len, 5, slice_of(body + 1024, 185), &inner);
	record_append(&file, out.len, 40, buf_slice(&inner), &out);
	bytes[starts[12]] ^= 1; /* its own record is spoilt, so that the body is searched */
	ck_assert_str_eq(scan(out.len, 0, 4096), "abcdefghijkl.");
}
END_TEST

/* The first rows of the vectors that come with the reference code of SipHash-2-4. */
static const uint64_t siphash_rows[] = { 0x726fdb47dd0e0e31u, 0x74f839c593dc67fdu,
	0x0d6c8009d9a94f5au, 0x85676696d7fb7e2du, 0xcf2794e0277187b7u, 0x18765564cd99a68du,
	0xcbc9466e58fee3ceu, 0xab0200f58b01d137u, 0x93f5f5799a932462u };

START_TEST(siphash_gives_its_vectors)
{
	uint8_t key[16], in[16];

	for (int i = 0; i < 16; i++)
		key[i] = in[i] = (uint8_t)i;
	ck_assert_uint_eq(siphash(key, slice_of(in, (size_t)_i)), siphash_rows[_i]);
}
END_TEST

UNIT_SUITE(core_record)
{
	UNIT_TEST(the_header_comes_back);
	UNIT_TEST(a_newer_version_is_refused_by_name);
	UNIT_TEST(any_window_gives_the_same_records);
	UNIT_TEST(a_cut_file_ends_in_a_tail);
	UNIT_TEST(below_the_durable_offset_a_tail_is_damage);
	UNIT_TEST(one_flipped_bit_costs_one_record);
	UNIT_TEST(records_elsewhere_or_of_another_file_do_not_fit);
	UNIT_TEST(a_body_cannot_pose_as_a_record);
	UNIT_ROWS(siphash_gives_its_vectors, siphash_rows);
}
