/* tests/unit/net/dns_test.c - questions to a server on the same loop, and messages as bytes. */
#include "relayd/net/dns.h"

#include "unit/certs.h"
#include "unit/fake_dns.h"
#include "unit/unit.h"

#include "relayd/core/clock.h"
#include "relayd/net/dns_cache.h"
#include "relayd/net/dns_parse.h"

static uv_loop_t loop;

static const char zone[] =
    "a.test A 192.0.2.1\na.test A 192.0.2.2\n"
    "a.test AAAA 2001:db8::1\n"
    "txt.test TXT v=spf1 |-all\ntxt.test TXT other\n"
    "mx.test MX 20 Second.test\nmx.test MX 10 first.test\nmx.test MX 20 third.test\n"
    "null.test MX 0 \n"
    "alias.test CNAME other.test\nother.test CNAME a.test\n"
    "nothing.test CNAME nothing2.test\nnothing2.test NODATA\n"
    "cut.test ALIAS cut2.test\ncut2.test CNAME cut3.test\ncut3.test ALIAS MX.test\n"
    "gone.test ALIAS missing.test\nlost.test ALIAS fail.test\n"
    "loop.test ALIAS loop2.test\nloop2.test ALIAS loop.test\nself.test ALIAS self.test\n"
    "1.2.0.192.in-addr.arpa PTR Host.Test\n"
    "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa PTR six.test\n"
    "empty.test NODATA\nfail.test SERVFAIL\nsilent.test SILENT\n";

struct asked {
	struct dns_query q;
	unsigned done;
	enum dns_status status;
	uint32_t ttl_s;
	char text[300]; /* the records, a comma between */
	struct dns *close;
	struct dns_query *cancel;
};

static void
put_record(struct buf *out, const struct dns_record *r, enum dns_type type)
{
	char ip[IP_TEXT_BYTES];

	if (out->len > 0)
		buf_putc(out, ',');
	if (type == DNS_MX)
		buf_printf(out, "%u ", r->preference);
	if (type == DNS_A || type == DNS_AAAA) {
		ip_text(r->data, ip);
		buf_puts(out, ip);
	} else {
		buf_put(out, r->data);
	}
}

static enum dns_type asked_type; /* of the question of the row; one at a time */

static void
on_answer(struct dns_query *q, const struct dns_answer *answer)
{
	struct asked *a = container_of(q, struct asked, q);
	struct buf out = buf_over(a->text, sizeof(a->text) - 1);

	a->done++;
	a->status = answer->status;
	a->ttl_s = answer->ttl_s;
	ck_assert_int_eq(answer->n > 0, answer->status == DNS_OK);
	memset(a->text, 0, sizeof(a->text));
	for (size_t i = 0; i < answer->n; i++)
		put_record(&out, &answer->records[i], asked_type);
	if (a->cancel != NULL)
		dns_query_cancel(a->cancel);
	if (a->close != NULL)
		dns_close(a->close);
}

static struct dns *
dns_for(struct fake_dns *f, uint32_t timeout_ms)
{
	struct dns_options options = { .servers = &f->server,
		.n_servers = 1,
		.timeout_ms = timeout_ms,
		.hosts_file = "/dev/null" };
	struct err err = { 0 };
	struct dns *dns;

	ck_assert_int_eq(uv_loop_init(&loop), 0);
	fake_dns_open(f, &loop, zone);
	options.servers = &f->server;
	dns = dns_open(&loop, &options, &err);
	ck_assert_msg(dns != NULL, "%s", err.msg);
	return dns;
}

static void
finish(struct fake_dns *f, struct dns *dns)
{
	dns_close(dns);
	fake_dns_finish(f, &loop);
}

static void
start(struct dns *dns, struct asked *a, enum dns_type type, const char *name)
{
	struct err err = { 0 };

	*a = (struct asked){ .q.done = on_answer, .close = a->close, .cancel = a->cancel };
	asked_type = type;
	ck_assert_msg(dns_query_start(dns, &a->q, type, slice_str(name), &err) == 0, "%s", err.msg);
	ck_assert_uint_eq(a->done, 0);
}

static void
run_until_done(struct asked *a)
{
	fake_until_done(&loop, &a->done);
}

static const struct row {
	enum dns_type type;
	const char *name;
	enum dns_status status;
	uint32_t ttl_s;
	const char *text;
} rows[] = {
	{ DNS_A, "a.test", DNS_OK, 60, "192.0.2.1,192.0.2.2" },
	{ DNS_A, "A.Test.", DNS_OK, 60, "192.0.2.1,192.0.2.2" },
	{ DNS_AAAA, "a.test", DNS_OK, 60, "2001:db8::1" },
	{ DNS_TXT, "txt.test", DNS_OK, 60, "v=spf1 -all,other" },
	{ DNS_MX, "mx.test", DNS_OK, 60, "10 first.test,20 second.test,20 third.test" },
	{ DNS_MX, "null.test", DNS_OK, 60, "0 ." },
	{ DNS_A, "alias.test", DNS_OK, 60, "192.0.2.1,192.0.2.2" },
	{ DNS_PTR, "192.0.2.1", DNS_OK, 60, "host.test" },
	{ DNS_PTR, "2001:db8::1", DNS_OK, 60, "six.test" },
	{ DNS_A, "nothing.test", DNS_NODATA, 30, "" },
	{ DNS_MX, "cut.test", DNS_OK, 60, "10 first.test,20 second.test,20 third.test" },
	{ DNS_A, "gone.test", DNS_NXDOMAIN, 30, "" },
	{ DNS_A, "lost.test", DNS_SERVFAIL, DNS_FAILURE_S, "" },
	{ DNS_A, "loop.test", DNS_SERVFAIL, DNS_FAILURE_S, "" },
	{ DNS_A, "self.test", DNS_SERVFAIL, DNS_FAILURE_S, "" },
	{ DNS_MX, "a.test", DNS_NODATA, 30, "" },
	{ DNS_A, "empty.test", DNS_NODATA, 30, "" },
	{ DNS_A, "missing.test", DNS_NXDOMAIN, 30, "" },
	{ DNS_A, "fail.test", DNS_SERVFAIL, DNS_FAILURE_S, "" },
	{ DNS_A, "silent.test", DNS_TIMEOUT, DNS_FAILURE_S, "" },
};

START_TEST(a_question_gets_its_answer)
{
	struct fake_dns f;
	struct dns *dns = dns_for(&f, 400);
	struct asked a = { 0 };

	start(dns, &a, rows[_i].type, rows[_i].name);
	run_until_done(&a);
	ck_assert_msg(
	    a.status == rows[_i].status, "%s: %s", rows[_i].name, dns_status_name(a.status));
	ck_assert_str_eq(a.text, rows[_i].text);
	ck_assert_uint_eq(a.ttl_s, rows[_i].ttl_s);
	finish(&f, dns);
}
END_TEST

START_TEST(an_answer_is_remembered_for_its_time)
{
	struct fake_dns f;
	struct dns *dns = dns_for(&f, 400);
	struct asked a = { 0 }, again = { 0 }, other = { 0 };
	struct dns_stats stats;
	const struct dns_answer *cached;

	ck_assert_ptr_null(dns_cached(dns, DNS_A, SLICE("a.test")));
	start(dns, &a, DNS_A, "a.test");
	run_until_done(&a);
	ck_assert_uint_eq(f.asked, 1);
	start(dns, &again, DNS_A, "A.TEST.");
	run_until_done(&again);
	ck_assert_uint_eq(f.asked, 1);
	ck_assert_str_eq(again.text, "192.0.2.1,192.0.2.2");
	ck_assert_uint_ge(again.ttl_s, 59);
	cached = dns_cached(dns, DNS_A, SLICE("a.test"));
	ck_assert_ptr_nonnull(cached);
	ck_assert_uint_eq(cached->n, 2);
	start(dns, &other, DNS_AAAA, "a.test"); /* another type is another question */
	run_until_done(&other);
	ck_assert_uint_eq(f.asked, 2);
	dns_stats(dns, &stats);
	ck_assert_uint_eq(stats.entries, 2);
	ck_assert_uint_eq(stats.misses, 2);
	ck_assert_uint_eq(stats.in_flight, 0);
	finish(&f, dns);
}
END_TEST

START_TEST(those_who_ask_the_same_share_one_question)
{
	struct fake_dns f;
	struct dns *dns = dns_for(&f, 400);
	struct asked a[3] = { 0 };

	for (int i = 0; i < 3; i++)
		start(dns, &a[i], DNS_A, "a.test");
	for (int i = 0; i < 3; i++)
		run_until_done(&a[i]);
	ck_assert_uint_eq(f.asked, 1);
	for (int i = 0; i < 3; i++)
		ck_assert_str_eq(a[i].text, "192.0.2.1,192.0.2.2");
	finish(&f, dns);
}
END_TEST

START_TEST(a_timeout_ends_the_wait_and_is_not_asked_again_at_once)
{
	struct fake_dns f;
	struct dns *dns = dns_for(&f, 300);
	struct asked a = { 0 };
	int64_t begin, took;
	unsigned asked;

	uv_update_time(&loop); /* timers count from the loop's last look at the clock */
	begin = clock_mono_ms();
	start(dns, &a, DNS_A, "silent.test");
	run_until_done(&a);
	took = clock_mono_ms() - begin;
	ck_assert_int_ge(took, 250);
	ck_assert_int_lt(took, 5000);
	asked = f.asked;
	start(dns, &a, DNS_A, "silent.test");
	run_until_done(&a);
	ck_assert_int_eq(a.status, DNS_TIMEOUT);
	ck_assert_uint_eq(f.asked, asked);
	finish(&f, dns);
}
END_TEST

START_TEST(a_cancelled_question_is_answered_once)
{
	struct fake_dns f;
	struct dns *dns = dns_for(&f, 400);
	struct asked a = { 0 }, kept = { 0 }, cached = { 0 };

	start(dns, &a, DNS_A, "a.test");
	start(dns, &kept, DNS_A, "a.test");
	dns_query_cancel(&a.q);
	dns_query_cancel(&a.q);
	ck_assert_uint_eq(a.done, 0);
	run_until_done(&a);
	ck_assert_int_eq(a.status, DNS_CANCELLED);
	run_until_done(&kept);
	ck_assert_int_eq(kept.status, DNS_OK);
	start(dns, &cached, DNS_A, "a.test");
	dns_query_cancel(&cached.q);
	run_until_done(&cached);
	ck_assert_int_eq(cached.status, DNS_CANCELLED);
	dns_query_cancel(&cached.q); /* harmless now */
	finish(&f, dns);
	ck_assert_uint_eq(a.done, 1);
}
END_TEST

START_TEST(closing_cancels_what_is_on_its_way)
{
	struct fake_dns f;
	struct dns *dns = dns_for(&f, 400);
	struct asked a = { 0 }, b = { 0 };

	start(dns, &a, DNS_A, "silent.test");
	start(dns, &b, DNS_TXT, "txt.test");
	dns_close(dns);
	ck_assert_uint_eq(a.done, 0);
	finish(&f, NULL);
	ck_assert_uint_eq(a.done, 1);
	ck_assert_uint_eq(b.done, 1);
	ck_assert_int_eq(a.status, DNS_CANCELLED);
}
END_TEST

START_TEST(an_answer_may_cancel_others_and_close_the_resolver)
{
	struct fake_dns f;
	struct dns *dns = dns_for(&f, 400);
	struct asked a = { 0 }, b = { 0 };

	b.cancel = NULL;
	a.cancel = &b.q;
	a.close = dns;
	start(dns, &a, DNS_A, "a.test");
	start(dns, &b, DNS_A, "a.test");
	run_until_done(&a);
	run_until_done(&b);
	finish(&f, NULL);
	ck_assert_uint_eq(a.done + b.done, 2);
}
END_TEST

static const struct {
	enum dns_type type;
	const char *name;
} bad_names[] = {
	{ DNS_A, "" },
	{ DNS_A, "." },
	{ DNS_A, "a..test" },
	{ DNS_A, ".test" },
	{ DNS_A, "a b.test" },
	{ DNS_A, "a\\046test" },
	{ DNS_A, "0123456789012345678901234567890123456789012345678901234567890123.test" },
	{ DNS_PTR, "a.test" },
	{ DNS_PTR, "192.0.2.0/24" },
	{ DNS_PTR, "" },
};

START_TEST(what_is_no_name_is_not_asked)
{
	struct fake_dns f;
	struct dns *dns = dns_for(&f, 400);
	struct asked a = { .q.done = on_answer };
	struct err err = { 0 };

	ck_assert_int_eq(
	    dns_query_start(dns, &a.q, bad_names[_i].type, slice_str(bad_names[_i].name), &err),
	    -1);
	ck_assert_int_eq(err.code, ERR_FORMAT);
	finish(&f, dns);
	ck_assert_uint_eq(a.done, 0);
}
END_TEST

static const struct {
	const char *server;
	bool good;
} servers[] = {
	{ "192.0.2.1", true },
	{ "127.0.0.1:5353", true },
	{ "::1", true },
	{ "[::1]", true },
	{ "[::1]:53", true },
	{ "2001:db8::1", true },
	{ "ns.example.test", false },
	{ "127.0.0.1:", false },
	{ "127.0.0.1:0", false },
	{ "127.0.0.1:99999", false },
	{ "[::1", false },
	{ "[::1]x53", false },
	{ "", false },
};

START_TEST(servers_are_addresses_with_or_without_a_port)
{
	struct dns_options options = {
		.servers = &servers[_i].server, .n_servers = 1, .hosts_file = "/dev/null"
	};
	struct err err = { 0 };
	struct dns *dns;

	ck_assert_int_eq(uv_loop_init(&loop), 0);
	dns = dns_open(&loop, &options, &err);
	ck_assert_msg((dns != NULL) == servers[_i].good, "%s", servers[_i].server);
	if (dns == NULL) {
		ck_assert_int_eq(err.code, ERR_CONFIG);
		ck_assert_ptr_nonnull(strstr(err.msg, servers[_i].server));
	}
	dns_close(dns);
	uv_run(&loop, UV_RUN_DEFAULT);
	ck_assert_int_eq(uv_loop_close(&loop), 0);
}
END_TEST

START_TEST(the_hosts_file_gives_addresses)
{
	struct dns_options options = { 0 };
	struct dns_record records[4];
	struct dns *dns;
	char path[32];

	test_file("# comment\n127.0.0.1 localhost\n192.0.2.7\tmail.corp mail # ours\n2001:db8::7 "
		  "MAIL.corp\n"
		  "fe80::1%lo0 linklocal\n192.0.2.8 mail.corp",
	    path);
	options.hosts_file = path;
	ck_assert_int_eq(uv_loop_init(&loop), 0);
	dns = dns_open(&loop, &options, NULL);
	unlink(path);
	ck_assert_uint_eq(dns_hosts(dns, DNS_A, SLICE("mail.corp"), records, 4), 2);
	ck_assert_mem_eq(records[0].data.p, "\xc0\x00\x02\x07", 4);
	ck_assert_mem_eq(records[1].data.p, "\xc0\x00\x02\x08", 4);
	ck_assert_uint_eq(dns_hosts(dns, DNS_A, SLICE("mail.corp"), records, 1), 1);
	ck_assert_uint_eq(dns_hosts(dns, DNS_AAAA, SLICE("mail.corp."), records, 4), 1);
	ck_assert_uint_eq(dns_hosts(dns, DNS_A, SLICE("Mail"), records, 4), 1);
	ck_assert_uint_eq(dns_hosts(dns, DNS_A, SLICE("ours"), records, 4), 0);
	ck_assert_uint_eq(dns_hosts(dns, DNS_AAAA, SLICE("linklocal"), records, 4), 0);
	dns_close(dns);
	uv_run(&loop, UV_RUN_DEFAULT);
	ck_assert_int_eq(uv_loop_close(&loop), 0);
}
END_TEST

/* ---- messages ------------------------------------------------------------------------------- */

/* An answer to "mx.test MX", with compressed names, and a record of another name that is not
 * asked for. */
static const char message[] = "\x12\x34\x81\x80\0\1\0\3\0\0\0\0"
			      "\2mx\4test\0\0\x0f\0\1"
			      "\xc0\x0c\0\x0f\0\1\0\0\0\x64\0\7\0\x0a\2h1\xc0\x0f"
			      "\xc0\x0f\0\x0f\0\1\0\0\0\1\0\7\0\1\2hx\xc0\x0f"
			      "\xc0\x0c\0\x0f\0\1\0\0\0\x50\0\x04\0\5\xc0\x25";

START_TEST(only_records_of_the_name_asked_for_count)
{
	static struct dns_parsed p;

	dns_parse(slice_of(message, sizeof(message) - 1), DNS_MX, "mx.test", &p);
	ck_assert_int_eq(p.answer.status, DNS_OK);
	ck_assert_uint_eq(p.answer.n, 2);
	ck_assert_uint_eq(p.answer.ttl_s, 80);
	ck_assert_uint_eq(p.records[0].preference, 5);
	ck_assert_uint_eq(p.records[1].preference, 10);
	ck_assert_mem_eq(p.records[1].data.p, "h1.test", 7);
	dns_parse(slice_of(message, sizeof(message) - 1), DNS_MX, "other.test", &p);
	ck_assert_int_eq(p.answer.status, DNS_NODATA);
}
END_TEST

START_TEST(a_message_cut_or_spoilt_anywhere_does_no_harm)
{
	static struct dns_parsed p;
	char *copy;

	for (size_t len = 0; len < sizeof(message) - 1; len++) {
		copy = malloc(len + 1);
		memcpy(copy, message, len);
		dns_parse(slice_of(copy, len), DNS_MX, "mx.test", &p);
		for (size_t i = 0; i < p.answer.n; i++)
			ck_assert_uint_le(p.records[i].data.len, DNS_NAME_MAX);
		free(copy);
	}
	for (size_t i = 0; i < (sizeof(message) - 1) * 255; i++) {
		copy = malloc(sizeof(message) - 1);
		memcpy(copy, message, sizeof(message) - 1);
		copy[i / 255] = (char)(copy[i / 255] + 1 + (char)(i % 255));
		dns_parse(slice_of(copy, sizeof(message) - 1), DNS_MX, "mx.test", &p);
		ck_assert_uint_le(p.answer.n, 3);
		free(copy);
	}
}
END_TEST

START_TEST(a_full_cache_drops_what_was_not_used_for_longest)
{
	struct dns_answer none = { .status = DNS_NODATA, .ttl_s = 10 };
	struct dns_cache *cache = malloc(sizeof(*cache));
	struct dns_entry *e[3];
	size_t bytes;

	e[0] = dns_entry_new(DNS_A, "a", &none);
	bytes = e[0]->bytes;
	dns_cache_init(cache, 2 * bytes);
	dns_cache_put(cache, e[0], 0);
	e[1] = dns_entry_new(DNS_A, "b", &none);
	dns_cache_put(cache, e[1], 0);
	ck_assert_ptr_eq(dns_cache_get(cache, DNS_A, "a", 1), e[0]);
	e[2] = dns_entry_new(DNS_A, "c", &none);
	dns_cache_put(cache, e[2], 0);
	ck_assert_uint_eq(cache->n, 2);
	ck_assert_ptr_null(dns_cache_get(cache, DNS_A, "b", 1));
	ck_assert_ptr_nonnull(dns_cache_get(cache, DNS_A, "a", 9999));
	ck_assert_ptr_nonnull(dns_cache_get(cache, DNS_A, "c", 9999));
	ck_assert_ptr_null(dns_cache_get(cache, DNS_A, "a", 10000));
	ck_assert_uint_eq(cache->n, 1);
	for (int i = 0; i < 3; i++)
		dns_entry_unref(e[i]);
	dns_cache_fini(cache);
	ck_assert_uint_eq(cache->bytes, 0);
	free(cache);
}
END_TEST

UNIT_SUITE(dns)
{
	UNIT_ROWS(a_question_gets_its_answer, rows);
	UNIT_TEST(an_answer_is_remembered_for_its_time);
	UNIT_TEST(those_who_ask_the_same_share_one_question);
	UNIT_TEST(a_timeout_ends_the_wait_and_is_not_asked_again_at_once);
	UNIT_TEST(a_cancelled_question_is_answered_once);
	UNIT_TEST(closing_cancels_what_is_on_its_way);
	UNIT_TEST(an_answer_may_cancel_others_and_close_the_resolver);
	UNIT_ROWS(what_is_no_name_is_not_asked, bad_names);
	UNIT_ROWS(servers_are_addresses_with_or_without_a_port, servers);
	UNIT_TEST(the_hosts_file_gives_addresses);
	UNIT_TEST(only_records_of_the_name_asked_for_count);
	UNIT_TEST(a_message_cut_or_spoilt_anywhere_does_no_harm);
	UNIT_TEST(a_full_cache_drops_what_was_not_used_for_longest);
}
