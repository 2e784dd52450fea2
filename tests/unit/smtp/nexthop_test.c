/* tests/unit/smtp/nexthop_test.c - what a "to" may say, and where it leads with a DNS of our
 * own. */
#include "relayd/smtp/nexthop.h"

#include "unit/certs.h"
#include "unit/fake_dns.h"
#include "unit/unit.h"

#include "relayd/core/clock.h"

#include <sys/un.h>

static const struct form_row {
	const char *text, *host, *path;
	unsigned port;
	bool good, lmtp, mx;
} forms[] = {
	{ "mail1.corp:25", "mail1.corp", "", 25, true, false, false },
	{ "192.0.2.1:2525", "192.0.2.1", "", 2525, true, false, false },
	{ "[2001:db8::1]:25", "2001:db8::1", "", 25, true, false, false },
	{ "lmtp:/run/dovecot/lmtp", "", "/run/dovecot/lmtp", 25, true, true, false },
	{ "lmtp:store.corp:24", "store.corp", "", 24, true, true, false },
	{ "lmtp:[::1]:24", "::1", "", 24, true, true, false },
	{ "smtp:/run/release.sock", "", "/run/release.sock", 25, true, false, false },
	{ "smtps:mail.corp:465", "mail.corp", "", 465, true, false, false },
	{ "mx", "", "", 25, true, false, true },
	{ .text = "" },
	{ .text = "mail1.corp" },
	{ .text = "mail1.corp:" },
	{ .text = "mail1.corp:0" },
	{ .text = "mail1.corp:65536" },
	{ .text = "mail1.corp:smtp" },
	{ .text = ":25" },
	{ .text = "2001:db8::1:25x" },
	{ .text = "[192.0.2.1]:25" },
	{ .text = "[2001:db8::/32]:25" },
	{ .text = "ma il:25" },
	{ .text = ".corp:25" },
	{ .text = "lmtp:" },
	{ .text = "lmtp:relative/path" },
	{ .text = "lmtp:/"
		  "01234567890123456789012345678901234567890123456789012345678901234567890123456789"
		  "01234"
		  "5678901234567890123456789" },
};

START_TEST(a_next_hop_is_parsed_or_refused)
{
	struct nexthop hop;
	struct err err = { 0 };
	int rc = nexthop_parse(forms[_i].text, &hop, &err);

	ck_assert_msg((rc == 0) == forms[_i].good, "%s", forms[_i].text);
	if (rc < 0) {
		ck_assert_int_eq(err.code, ERR_CONFIG);
		return;
	}
	ck_assert_str_eq(hop.host, forms[_i].host);
	ck_assert_str_eq(hop.path, forms[_i].path);
	ck_assert_uint_eq(hop.port, forms[_i].port);
	ck_assert_int_eq(hop.lmtp, forms[_i].lmtp);
	ck_assert_int_eq(hop.mx, forms[_i].mx);
}
END_TEST

/* ---- resolving ------------------------------------------------------------------------------ */

static const char zone[] =
    "mail.test A 192.0.2.1\nmail.test AAAA 2001:db8::1\n"
    "four.test A 192.0.2.4\n"
    "two.test A 192.0.2.5\n"
    "domain.test MX 20 four.test\ndomain.test MX 10 mail.test\ndomain.test MX 30 gone.test\n"
    "ours.test MX 10 Me.test\nours.test MX 20 mail.test\n"
    "backup.test MX 10 four.test\nbackup.test MX 20 me.test\nbackup.test MX 30 mail.test\n"
    "null.test MX 0 \n"
    "noaddr.test MX 10 gone.test\n"
    "lame.test MX 10 silent.test\nlame2.test MX 10 fail.test\n"
    "silent.test SILENT\nfail.test SERVFAIL\nnothing.test NODATA\n";

static uv_loop_t loop;

struct asked {
	struct nexthop_resolve req;
	unsigned done;
	enum err_code err;
	char text[1000]; /* "host=address:port" each */
};

static void
put_address(struct buf *out, const struct nexthop_address *a)
{
	const struct sockaddr_in *in = (const void *)&a->addr;
	const struct sockaddr_in6 *in6 = (const void *)&a->addr;
	char ip[INET6_ADDRSTRLEN];

	if (a->addr.ss_family == AF_UNIX)
		buf_printf(
		    out, "%s ", ((const struct sockaddr_un *)(const void *)&a->addr)->sun_path);
	else if (a->addr.ss_family == AF_INET)
		buf_printf(out, "%s=%s:%u ", a->host,
		    inet_ntop(AF_INET, &in->sin_addr, ip, sizeof(ip)), ntohs(in->sin_port));
	else
		buf_printf(out, "%s=[%s]:%u ", a->host,
		    inet_ntop(AF_INET6, &in6->sin6_addr, ip, sizeof(ip)), ntohs(in6->sin6_port));
}

static void
on_done(struct nexthop_resolve *req, const struct err *err)
{
	struct asked *a = container_of(req, struct asked, req);
	struct buf out = buf_over(a->text, sizeof(a->text) - 1);

	a->done++;
	a->err = err != NULL ? err->code : ERR_NONE;
	ck_assert_int_eq(err == NULL, req->n > 0);
	for (size_t i = 0; i < req->n; i++)
		put_address(&out, &req->addresses[i]);
}

static void
run_until_done(struct asked *a)
{
	fake_until_done(&loop, &a->done);
}

static struct dns *
dns_for(struct fake_dns *f)
{
	struct dns_options options = { .n_servers = 1, .timeout_ms = 300 };
	struct dns *dns;
	char hosts[32];

	ck_assert_int_eq(uv_loop_init(&loop), 0);
	fake_dns_open(f, &loop, zone);
	test_file("198.51.100.1 known.test\n198.51.100.2 four.test\n", hosts);
	options.servers = &f->server;
	options.hosts_file = hosts;
	dns = dns_open(&loop, &options, NULL);
	unlink(hosts);
	ck_assert_ptr_nonnull(dns);
	return dns;
}

static void
finish(struct fake_dns *f, struct dns *dns)
{
	dns_close(dns);
	fake_dns_finish(f, &loop);
}

static const struct row {
	const char *to, *domain; /* domain: to is mx */
	enum err_code err;
	const char *text;
	bool null_mx, loop;
} rows[] = {
	{ "192.0.2.9:25", NULL, 0, "192.0.2.9=192.0.2.9:25 ", false, false },
	{ "[2001:db8::9]:26", NULL, 0, "2001:db8::9=[2001:db8::9]:26 ", false, false },
	{ "lmtp:/run/x", NULL, 0, "/run/x ", false, false },
	{ "localhost:2525", NULL, 0, "localhost=127.0.0.1:2525 ", false, false },
	{ "known.test:25", NULL, 0, "known.test=198.51.100.1:25 ", false, false },
	{ "mail.test:25", NULL, 0, "mail.test=[2001:db8::1]:25 mail.test=192.0.2.1:25 ", false,
	    false },
	{ "two.test:25", NULL, 0, "two.test=192.0.2.5:25 ", false, false },
	{ "gone.test:25", NULL, ERR_NOT_FOUND, "", false, false },
	{ "nothing.test:25", NULL, ERR_NOT_FOUND, "", false, false },
	{ "silent.test:25", NULL, ERR_TIMEOUT, "", false, false },
	{ "fail.test:25", NULL, ERR_SYS, "", false, false },
	{ "mx", "domain.test", 0,
	    "mail.test=[2001:db8::1]:25 mail.test=192.0.2.1:25 four.test=198.51.100.2:25 ", false,
	    false },
	{ "mx", "two.test", 0, "two.test=192.0.2.5:25 ", false, false },
	{ "mx", "ours.test", ERR_NOT_FOUND, "", false, true },
	{ "mx", "backup.test", 0, "four.test=198.51.100.2:25 ", false, false },
	{ "mx", "null.test", ERR_NOT_FOUND, "", true, false },
	{ "mx", "noaddr.test", ERR_SYS, "", false, false },
	{ "mx", "lame.test", ERR_TIMEOUT, "", false, false },
	{ "mx", "lame2.test", ERR_SYS, "", false, false },
	{ "mx", "gone.test", ERR_NOT_FOUND, "", false, false },
	{ "mx", "nothing.test", ERR_NOT_FOUND, "", false, false },
	{ "mx", "silent.test", ERR_TIMEOUT, "", false, false },
};

static void
start(struct dns *dns, struct asked *a, const struct row *row)
{
	struct nexthop hop;

	*a = (struct asked){ .req.done = on_done, .req.hostname = "me.test" };
	ck_assert_int_eq(nexthop_parse(row->to, &hop, NULL), 0);
	if (row->domain != NULL)
		ck_assert_int_eq(nexthop_mx(&hop, slice_str(row->domain), NULL), 0);
	ck_assert_int_eq(nexthop_resolve_start(dns, &a->req, &hop, NULL), 0);
	ck_assert_uint_eq(a->done, 0);
}

START_TEST(a_next_hop_leads_to_addresses_in_order)
{
	struct asked *a = malloc(sizeof(*a));
	struct fake_dns f;
	struct dns *dns = dns_for(&f);

	start(dns, a, &rows[_i]);
	run_until_done(a);
	ck_assert_msg(a->err == rows[_i].err, "%s %s: %s", rows[_i].to,
	    rows[_i].domain != NULL ? rows[_i].domain : "", err_code_name(a->err));
	ck_assert_str_eq(a->text, rows[_i].text);
	ck_assert_int_eq(a->req.null_mx, rows[_i].null_mx);
	ck_assert_int_eq(a->req.loop, rows[_i].loop);
	nexthop_resolve_cancel(&a->req); /* harmless now */
	finish(&f, dns);
	free(a);
}
END_TEST

START_TEST(a_cancelled_search_is_done_once)
{
	struct asked *a = malloc(sizeof(*a));
	struct fake_dns f;
	struct dns *dns = dns_for(&f);

	start(dns, a, &rows[_i]);
	nexthop_resolve_cancel(&a->req);
	nexthop_resolve_cancel(&a->req);
	ck_assert_uint_eq(a->done, 0);
	run_until_done(a);
	ck_assert_int_eq(a->err, ERR_CANCELLED);
	finish(&f, dns);
	ck_assert_uint_eq(a->done, 1);
	free(a);
}
END_TEST

START_TEST(a_domain_for_mx_must_be_one)
{
	struct nexthop hop;

	ck_assert_int_eq(nexthop_mx(&hop, SLICE("example.test."), NULL), 0);
	ck_assert_str_eq(hop.host, "example.test");
	ck_assert_int_eq(nexthop_mx(&hop, SLICE(""), NULL), -1);
	ck_assert_int_eq(nexthop_mx(&hop, SLICE("[192.0.2.1]"), NULL), -1);
	ck_assert_int_eq(nexthop_mx(&hop, SLICE("a b"), NULL), -1);
}
END_TEST

UNIT_SUITE(nexthop)
{
	UNIT_ROWS(a_next_hop_is_parsed_or_refused, forms);
	UNIT_ROWS(a_next_hop_leads_to_addresses_in_order, rows);
	UNIT_ROWS(a_cancelled_search_is_done_once, rows);
	UNIT_TEST(a_domain_for_mx_must_be_one);
}
