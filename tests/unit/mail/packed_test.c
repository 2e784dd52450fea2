/* tests/unit/mail/packed_test.c - what was packed comes back, and nothing that is malformed
 * does. */
#include "unit/unit.h"

#include "relayd/mail/packed.h"

#include <stdio.h>
#include <stdlib.h>

#define TEXTS 40

static char storage[64 << 10];
static uint64_t state;

static unsigned
dice(unsigned n)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return (unsigned)(state >> 33) % n;
}

/* Words that come again and again, also out of the fixed text, between bytes of any value. */
static struct slice
make_text(char *room, size_t max)
{
	static const char *const words[] = { "X-Relayd-Score: 0.0\r\n", "mx.example.test",
		"Received: from ", "abcdefgh", "a", "\r\n\tfor <bob@example.org>;\r\n\t" };
	struct buf out = buf_over(room, max);
	size_t len = dice(6) == 0 ? dice((unsigned)max) : dice(300);

	while (out.len < len && !out.overflow) {
		if (dice(4) == 0)
			buf_putc(&out, (char)dice(256));
		else
			buf_puts(&out, words[dice(ARRAY_LEN(words))]);
	}
	return slice_head(buf_slice(&out), max);
}

/* Far more texts than the window has room for. */
START_TEST(what_is_packed_comes_back)
{
	static char rooms[TEXTS][3000];
	struct slice texts[TEXTS], in, text;
	struct arena arena = arena_of(1 << 20);
	struct buf out = buf_over(storage, sizeof(storage));
	struct packed p;

	state = (uint64_t)_i * 7919 + 88172645463325252u;
	packed_begin_write(&p);
	packed_know(&p, SLICE("bob@example.org"));
	for (int i = 0; i < TEXTS; i++) {
		texts[i] = make_text(rooms[i], sizeof(rooms[i]));
		packed_put(&p, texts[i], &out);
	}
	ck_assert(!out.overflow);
	in = buf_slice(&out);
	packed_begin_read(&p);
	packed_know(&p, SLICE("bob@example.org"));
	for (int i = 0; i < TEXTS; i++) {
		ck_assert_int_eq(packed_take(&p, &in, 3000, &arena, &text), PACKED_OK);
		ck_assert(slice_eq(text, texts[i]));
	}
	ck_assert_uint_eq(in.len, 0);
	arena_fini(&arena);
}
END_TEST

/* Nothing outside of the window is read, or written; sanitizers look. */
START_TEST(damage_is_refused_or_gives_another_text)
{
	char room[3000];
	struct buf out = buf_over(storage, sizeof(storage));
	struct packed p;

	state = (uint64_t)_i * 104729 + 88172645463325252u;
	packed_begin_write(&p);
	packed_put(&p, make_text(room, 900), &out);
	packed_put(&p, make_text(room, sizeof(room)), &out);
	for (int i = 0; i < 300; i++) {
		struct arena arena = arena_of(8 << 10);
		char *bytes = malloc(out.len + 1);
		struct slice in = slice_of(bytes, 1 + dice((unsigned)out.len)), text;

		ck_assert_ptr_nonnull(bytes);
		memcpy(bytes, out.p, out.len);
		for (unsigned n = dice(4); n > 0; n--)
			bytes[dice((unsigned)in.len)] = (char)dice(256);
		bytes = realloc(bytes, in.len); /* so that a byte more is noticed */
		in.p = bytes;
		packed_begin_read(&p);
		while (in.len > 0 && packed_take(&p, &in, 3000, &arena, &text) == PACKED_OK)
			ck_assert_uint_le(text.len, 3000);
		arena_fini(&arena);
		free(bytes);
	}
}
END_TEST

static const struct {
	const char *what;
	struct slice in;
	uint64_t max;
	enum packed_result result;
} rows[] = {
	{ "nothing", SLICE(""), 10, PACKED_MALFORMED },
	{ "an empty text", SLICE("\0"), 0, PACKED_OK },
	{ "literals",
	    SLICE("\x03\x30"
		  "abc"),
	    3, PACKED_OK },
	{ "over the limit",
	    SLICE("\x03\x30"
		  "abc"),
	    2, PACKED_LIMIT },
	{ "cut short",
	    SLICE("\x03\x30"
		  "ab"),
	    3, PACKED_MALFORMED },
	{ "a reference behind the last literal",
	    SLICE("\x03\x31"
		  "abc"),
	    3, PACKED_MALFORMED },
	{ "more literals than the text has",
	    SLICE("\x03\x40"
		  "abcd"),
	    3, PACKED_MALFORMED },
	{ "a reference", SLICE("\x04\x00\x01\x00"), 4, PACKED_OK },
	{ "half a place", SLICE("\x04\x00\x01"), 4, PACKED_MALFORMED },
	{ "a reference to where nothing is yet", SLICE("\x04\x00\xff\x0f"), 4, PACKED_MALFORMED },
	{ "a place outside", SLICE("\x04\x00\xff\xff"), 4, PACKED_MALFORMED },
	{ "a reference that is longer than the text", SLICE("\x04\x01\x01\x00"), 4,
	    PACKED_MALFORMED },
	{ "a number over 64 bits", SLICE("\x7f\xf0\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f"), 200,
	    PACKED_MALFORMED },
	{ "a number that wraps around", SLICE("\x7f\xf0\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"),
	    200, PACKED_MALFORMED },
};

START_TEST(malformed_texts_are_refused)
{
	struct arena arena = arena_of(1 << 10);
	struct slice in = rows[_i].in, text;
	struct packed p;

	packed_begin_read(&p);
	ck_assert_msg(packed_take(&p, &in, rows[_i].max, &arena, &text) == rows[_i].result, "%s",
	    rows[_i].what);
	arena_fini(&arena);
}
END_TEST

UNIT_SUITE(mail_packed)
{
	tcase_add_loop_test(tc, what_is_packed_comes_back, 0, 50);
	tcase_add_loop_test(tc, damage_is_refused_or_gives_another_text, 0, 50);
	UNIT_ROWS(malformed_texts_are_refused, rows);
}
