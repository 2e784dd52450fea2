/* tests/unit/core/base_test.c - slices, buffers, arenas, ids, networks, log lines, shared
 * counts. */
#include "unit/unit.h"

#include "relayd/core/arena.h"
#include "relayd/core/buf.h"
#include "relayd/core/cidr.h"
#include "relayd/core/clock.h"
#include "relayd/core/counters.h"
#include "relayd/core/id.h"
#include "relayd/core/log.h"
#include "relayd/core/shared.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

START_TEST(a_number_past_its_maximum_is_none)
{
	uint64_t n = 7;

	ck_assert(slice_u64(SLICE("18446744073709551615"), UINT64_MAX, &n) && n == UINT64_MAX);
	ck_assert(!slice_u64(SLICE("18446744073709551616"), UINT64_MAX, &n));
	ck_assert(slice_u64(SLICE("5"), 5, &n) && n == 5);
	ck_assert(!slice_u64(SLICE("6"), 5, &n));
	ck_assert(!slice_u64(SLICE("10"), 9, &n));
	ck_assert(!slice_u64(SLICE("1a"), 100, &n));
	ck_assert(!slice_u64(SLICE(""), 100, &n));
}
END_TEST

START_TEST(overflow_of_a_buffer_is_sticky_and_whole)
{
	char storage[8];
	struct buf b = buf_over(storage, sizeof(storage));

	buf_puts(&b, "12345");
	buf_puts(&b, "6789");
	buf_puts(&b, "x");
	ck_assert(b.overflow);
	ck_assert(slice_eq(buf_slice(&b), SLICE("12345")));
	buf_reset(&b);
	buf_puts(&b, "12345678");
	ck_assert(!b.overflow);
}
END_TEST

START_TEST(a_heap_buffer_grows_to_its_limit_and_no_further)
{
	struct buf b = buf_heap(1000);

	for (int i = 0; i < 100; i++)
		buf_printf(&b, "%010d", i);
	ck_assert(!b.overflow && b.len == 1000);
	buf_putc(&b, 'x');
	ck_assert(b.overflow);
	buf_consume(&b, 990);
	ck_assert(slice_eq(buf_slice(&b), SLICE("0000000099")));
	buf_fini(&b);
}
END_TEST

START_TEST(tenths_read_as_printf_writes_them)
{
	static const double numbers[] = { 0, -0.0, 0.1, -0.1, 0.05, 0.25, 0.35, 4.94, 5, -5, 5.5,
		12.34, -99.9, 1e13, 1e14, 123456789012345680.0, -1e300, INFINITY, NAN };
	char storage[400], wanted[400];

	for (size_t i = 0; i < ARRAY_LEN(numbers); i++) {
		struct buf b = buf_over(storage, sizeof(storage));

		buf_tenths(&b, numbers[i]);
		snprintf(wanted, sizeof(wanted), "%.1f", numbers[i]);
		ck_assert_msg(slice_eq(buf_slice(&b), slice_str(wanted)), "%.*s, not %s",
		    SLICE_FMT(buf_slice(&b)), wanted);
	}
}
END_TEST

START_TEST(a_time_reads_right_whatever_was_asked_before)
{
	static const struct {
		int64_t ms;
		const char *text;
	} times[] = {
		{ 0, "1970-01-01T00:00:00.000Z" },
		{ 1709210096999, "2024-02-29T12:34:56.999Z" },
		{ 1709210096001, "2024-02-29T12:34:56.001Z" },
		{ -1, "1970-01-01T00:00:00.000Z" },
		{ 1709210097000, "2024-02-29T12:34:57.000Z" },
		{ 253402300799999, "9999-12-31T23:59:59.999Z" },
		{ 253402300800123, "1970-01-01T00:00:00.000Z" },
		{ 5, "1970-01-01T00:00:00.005Z" },
		{ -1, "1970-01-01T00:00:00.000Z" },
	};
	char text[CLOCK_ISO_BYTES];

	for (size_t i = 0; i < ARRAY_LEN(times); i++) {
		clock_iso(times[i].ms, text);
		ck_assert_str_eq(text, times[i].text);
	}
}
END_TEST

START_TEST(an_arena_stops_at_its_limit_and_starts_over_after_a_reset)
{
	struct arena a = arena_of(100000);
	size_t given = 0;

	while (arena_alloc(&a, 1000) != NULL)
		given++;
	ck_assert_uint_ge(given, 97);
	ck_assert_uint_le(given, 100);
	arena_reset(&a);
	ck_assert_ptr_nonnull(arena_alloc(&a, 60000));
	ck_assert_ptr_null(arena_copy(&a, slice_of("x", SIZE_MAX)).p);
	arena_fini(&a);
}
END_TEST

START_TEST(an_array_grows_in_an_arena_until_there_is_no_room)
{
	struct arena a = arena_of(4000);
	uint32_t *items = NULL, *grown;
	size_t n = 0, cap = 0;

	while ((grown = arena_grow(&a, items, n, &cap, sizeof(*items))) != NULL) {
		items = grown;
		items[n] = (uint32_t)n;
		n++;
	}
	ck_assert_uint_eq(n, cap); /* the last that there was room for is full, and whole */
	ck_assert_uint_eq(cap, 256);
	for (size_t i = 0; i < n; i++)
		ck_assert_uint_eq(items[i], i);
	arena_fini(&a);
}
END_TEST

START_TEST(an_id_reads_back_from_its_text)
{
	struct id id = id_new(), again, other = id_new();
	char text[ID_TEXT_LEN + 1];

	id_text(id, text);
	ck_assert_uint_eq(strlen(text), ID_TEXT_LEN);
	ck_assert(id_parse(slice_str(text), &again) && id_eq(id, again));
	ck_assert(!id_eq(id, other));
	ck_assert_int_le(clock_wall_ms() - id_wall_ms(id), 60000);
	text[3] = '1';	/* not in the alphabet */
	ck_assert(!id_parse(slice_str(text), &again));
	ck_assert(id_eq(id_derive(id, SLICE("a")), id_derive(id, SLICE("a"))));
	ck_assert(!id_eq(id_derive(id, SLICE("a")), id_derive(id, SLICE("b"))));
}
END_TEST

static const struct {
	const char *net, *addr;
	bool valid, has;
} nets[] = {
	{ "192.0.2.0/28", "192.0.2.15", true, true },
	{ "192.0.2.0/28", "192.0.2.16", true, false },
	{ "0.0.0.0/0", "203.0.113.9", true, true },
	{ "0.0.0.0/0", "2001:db8::1", true, false },
	{ "2001:db8::/33", "2001:db8:7fff::1", true, true },
	{ "2001:db8::/33", "2001:db8:8000::1", true, false },
	{ "192.0.2.1", "::ffff:192.0.2.1", true, true },
	{ "::ffff:192.0.2.0/120", "192.0.2.77", true, true },
	{ "192.0.2.1/24", "192.0.2.1", false, false },
	{ "192.0.2.0/33", "192.0.2.1", false, false },
	{ "192.0.2.0/", "192.0.2.1", false, false },
	{ "fe80::1%eth0", "fe80::1", false, false },
};

START_TEST(networks_hold_what_their_prefix_says)
{
	struct cidr net, addr;

	ck_assert_int_eq(cidr_parse(slice_str(nets[_i].net), &net), nets[_i].valid);
	if (!nets[_i].valid)
		return;
	ck_assert(cidr_parse(slice_str(nets[_i].addr), &addr));
	ck_assert_int_eq(cidr_has(&net, slice_of(addr.addr, addr.len)), nets[_i].has);
}
END_TEST

START_TEST(no_value_breaks_a_log_line)
{
	char storage[500];
	struct buf b = buf_over(storage, sizeof(storage));
	const struct kv kvs[] = { kv_slice("rcpt", SLICE("a\"b\\\r\nevent=x\x01\xff")),
		kv_str("why", "unknown-recipient"), kv_str("said", "two words"),
		kv_int("code", -5) };

	log_format(&b, "message.rejected", kvs, ARRAY_LEN(kvs));
	ck_assert(slice_eq(
	    buf_slice(&b), SLICE("event=message.rejected "
				 "rcpt=\"a\\\"b\\\\\\r\\nevent=x\\x01\\xff\" why=unknown-recipient "
				 "said=\"two words\" code=-5")));
}
END_TEST

static struct shared_client
client_of(const struct shared *sh, struct slice addr)
{
	return (struct shared_client){ shared_listener(sh, "mx"), shared_ip(sh->hash_key, addr, ""),
		shared_net(sh->hash_key, addr, "") };
}

#define ANY UINT32_MAX

START_TEST(connection_limits_count_across_workers)
{
	struct err err;
	int fd = shared_create(&err);
	struct shared *sh = shared_map(fd, &err);
	struct shared_client a = client_of(sh, slice_of("\xc0\0\2\1", 4));
	struct shared_client b = client_of(sh, slice_of("\xc0\0\2\2", 4)); /* of the same net */
	struct shared_client c = client_of(sh, slice_of("\xc0\0\3\1", 4));
	struct shared_limits limits = { 10, ANY, 2, 3 };

	for (unsigned worker = 0; worker < 3; worker++)
		shared_use(sh, worker);
	ck_assert_int_eq(shared_join(sh, 0, &a, &limits), SHARED_IN);
	ck_assert_int_eq(shared_join(sh, 1, &a, &limits), SHARED_IN);
	ck_assert_int_eq(shared_join(sh, 2, &a, &limits), SHARED_IP_FULL);
	ck_assert_int_eq(shared_join(sh, 2, &b, &limits), SHARED_IN);
	ck_assert_int_eq(shared_join(sh, 2, &b, &limits), SHARED_NET_FULL);
	ck_assert_int_eq(shared_join(sh, 2, &c, &limits), SHARED_IN);
	ck_assert_int_eq(
	    shared_join(sh, 2, &c, &(struct shared_limits){ 4, ANY, ANY, ANY }), SHARED_FULL);
	ck_assert_int_eq(
	    shared_join(sh, 2, &c, &(struct shared_limits){ 9, 4, 9, 9 }), SHARED_LISTENER_FULL);
	ck_assert_uint_eq(shared_open(sh), 4); /* who was refused is not counted */
	shared_clear(sh, 0);
	ck_assert_int_eq(shared_join(sh, 2, &a, &limits), SHARED_IN);
	shared_leave(sh, 2, &a);
	ck_assert_uint_eq(shared_open(sh), 3);
	ck_assert_int_eq(shared_join(sh, 0, &b, &limits), SHARED_IN);
	(void)close(fd);
}
END_TEST

START_TEST(a_client_is_an_address_or_a_64_and_its_net_a_24_or_a_48)
{
	static const uint8_t key[16] = "any will do";
	struct slice v4 = slice_of("\xc0\0\2\1", 4);
	struct slice mapped = slice_of("\0\0\0\0\0\0\0\0\0\0\xff\xff\xc0\0\2\1", 16);
	struct slice v6 = slice_of("\x20\1\xd\xb8\0\1\0\1\0\0\0\0\0\0\0\1", 16);
	struct slice same = slice_of("\x20\1\xd\xb8\0\1\0\1\xff\0\0\0\0\0\0\2", 16);
	struct slice near = slice_of("\x20\1\xd\xb8\0\1\0\2\0\0\0\0\0\0\0\1", 16);
	struct slice far = slice_of("\x20\1\xd\xb8\0\2\0\1\0\0\0\0\0\0\0\1", 16);

	ck_assert_uint_eq(shared_ip(key, v4, ""), shared_ip(key, mapped, ""));
	ck_assert_uint_eq(shared_net(key, v4, ""), shared_net(key, mapped, ""));
	ck_assert_uint_ne(shared_ip(key, v4, ""), shared_net(key, v4, ""));
	ck_assert_uint_eq(shared_ip(key, v6, ""), shared_ip(key, same, ""));
	ck_assert_uint_ne(shared_ip(key, v6, ""), shared_ip(key, near, ""));
	ck_assert_uint_eq(shared_net(key, v6, ""), shared_net(key, near, ""));
	ck_assert_uint_ne(shared_net(key, v6, ""), shared_net(key, far, ""));
	ck_assert_uint_eq(shared_ip(key, SLICE(""), ""), 0);
	ck_assert_uint_eq(shared_net(key, SLICE(""), ""), 0);
	ck_assert_uint_ne(shared_ip(key, slice_of("\x7f\0\0\1", 4), ""), 0);
	ck_assert_uint_eq(shared_net(key, slice_of("\x7f\0\0\1", 4), ""), 0);
	ck_assert_uint_eq(
	    shared_net(key, slice_of("\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\1", 16), ""), 0);
}
END_TEST

/* As many different clients as the limit on all connections lets in by default, and some more. */
START_TEST(no_two_addresses_share_a_count)
{
	enum { MANY = 20000 };
	struct err err;
	int fd = shared_create(&err);
	struct shared *sh = shared_map(fd, &err);
	static struct shared_client all[MANY];
	struct shared_limits limits = { ANY, ANY, 1, ANY };

	shared_use(sh, 0);
	for (uint32_t i = 0; i < MANY; i++) {
		char addr[4] = { 11, (char)(i >> 16), (char)(i >> 8), (char)i };

		all[i] = client_of(sh, slice_of(addr, 4));
		ck_assert_int_eq(shared_join(sh, 0, &all[i], &limits), SHARED_IN);
		ck_assert_uint_ne(all[i].ip, 0);
		ck_assert_uint_ne(all[i].net, 0);
	}
	for (uint32_t i = 0; i < MANY; i++) {
		ck_assert_int_eq(shared_join(sh, 0, &all[i], &limits), SHARED_IP_FULL);
		ck_assert_uint_eq(tally_get(&sh->workers[0].by, all[i].net),
		    i < MANY / 256 * 256 ? 256 : MANY % 256);
	}
	for (uint32_t i = 0; i < MANY; i++)
		shared_leave(sh, 0, &all[i]);
	for (size_t b = 0; b < TALLY_BUCKETS; b++)
		for (size_t c = 0; c < TALLY_CELLS; c++)
			ck_assert_uint_eq(sh->workers[0].by.cells[b][c], 0);
	(void)close(fd);
}
END_TEST

START_TEST(what_a_full_tally_cannot_count_is_said)
{
	static struct tally t;
	uint64_t n = 0;

	while (
	    n < 2 * TALLY_CELLS && tally_add(&t, (n + 1) << 24)) /* all of the same two buckets */
		n++;
	ck_assert_uint_eq(n, TALLY_CELLS); /* which are one, here */
	ck_assert(!tally_add(&t, (n + 1) << 24));
	ck_assert_uint_eq(tally_get(&t, (n + 1) << 24), 0);
	ck_assert(tally_add(&t, 1ull << 24));
	ck_assert_uint_eq(tally_get(&t, 1ull << 24), 2);
	tally_drop(&t, 2ull << 24);
	tally_drop(&t, 2ull << 24); /* there is none any more */
	ck_assert(tally_add(&t, (n + 1) << 24));
}
END_TEST

START_TEST(counters_render_as_prometheus_reads_them)
{
	static struct counters_page pages[COUNTERS_PAGES];
	struct buf b = buf_heap(1 << 20);

	counters_use(&pages[3], "intake", 1);
	counter_add(COUNTER_ACCEPTED, 41);
	counter_add(COUNTER_ACCEPTED, 1);
	counters_render(pages, &b);
	ck_assert_uint_lt(slice_find(buf_slice(&b),
	    SLICE("# TYPE relayd_messages_accepted_total counter\n"
		  "relayd_messages_accepted_total{role=\"intake\",index=\"1\"} 42\n")), b.len);
	buf_fini(&b);
}
END_TEST

START_TEST(a_listener_may_count_its_clients_apart)
{
	struct err err;
	int fd = shared_create(&err);
	struct shared *sh = shared_map(fd, &err);
	struct slice addr = slice_of("\x7f\0\0\1", 4);

	ck_assert_uint_ne(shared_ip(sh->hash_key, addr, "mx"), shared_ip(sh->hash_key, addr, ""));
	ck_assert_uint_ne(
	    shared_ip(sh->hash_key, addr, "mx"), shared_ip(sh->hash_key, addr, "submission"));
	ck_assert(shared_fits(fd));
	ck_assert_int_eq(ftruncate(fd, 4096), 0);
	ck_assert(!shared_fits(fd));
	(void)close(fd);
}
END_TEST

UNIT_SUITE(base)
{
	UNIT_TEST(a_number_past_its_maximum_is_none);
	UNIT_TEST(overflow_of_a_buffer_is_sticky_and_whole);
	UNIT_TEST(a_heap_buffer_grows_to_its_limit_and_no_further);
	UNIT_TEST(tenths_read_as_printf_writes_them);
	UNIT_TEST(a_time_reads_right_whatever_was_asked_before);
	UNIT_TEST(an_arena_stops_at_its_limit_and_starts_over_after_a_reset);
	UNIT_TEST(an_array_grows_in_an_arena_until_there_is_no_room);
	UNIT_TEST(an_id_reads_back_from_its_text);
	UNIT_ROWS(networks_hold_what_their_prefix_says, nets);
	UNIT_TEST(no_value_breaks_a_log_line);
	UNIT_TEST(connection_limits_count_across_workers);
	UNIT_TEST(a_client_is_an_address_or_a_64_and_its_net_a_24_or_a_48);
	UNIT_TEST(no_two_addresses_share_a_count);
	UNIT_TEST(what_a_full_tally_cannot_count_is_said);
	UNIT_TEST(a_listener_may_count_its_clients_apart);
	UNIT_TEST(counters_render_as_prometheus_reads_them);
}
